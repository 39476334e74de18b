//! `prepull hosts scan`: shows the host keys of the fleet for comparison, and records the new ones once that is
//! confirmed.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _};

use anyhow::{Context as _, Result};
use futures::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use super::{Exit, pretty, run, warn, with_ssh_config};
use crate::cli::{HostsFormat, ScanArgs};
use crate::model::text::{escape_line, format_count};
use crate::model::{Failure, Fleet, Hop, Node};
use crate::report;
use crate::settings::{self, Environment};
use crate::ssh::{KeyStatus, ScanTarget, ScannedKey, SshOptions, SshTransport};

/// How many hosts are looked at side by side.
const SIDE_BY_SIDE: usize = 64;

/// A host of the fleet, and what came out.
struct Host<'a> {
    /// What the operator calls it.
    label: String,
    target: ScanTarget<'a>,
    seen: Option<Result<ScannedKey, Failure>>,
    /// Why its new key was not recorded, or nothing where it was.
    recorded: Option<Result<(), String>>,
}

/// Scans, asks, records.
///
/// # Errors
/// Whatever is wrong with the inventory or the options.
pub(super) fn scan(args: &ScanArgs, ambient: &Environment) -> Result<Exit> {
    let (ssh, (fleet, logins)) = with_ssh_config(&args.reach.ssh, |behind| {
        settings::scan(args, ambient, behind)
    })?;
    warn(&ssh.warnings());
    let options = SshOptions {
        hosts: ssh.host_settings(&run::overrides(&logins)),
        password: None,
        jump_passwords: logins.jump_passwords.clone(),
    };
    // Only jump hosts are logged in to.
    let behind_jumps = fleet.nodes().iter().filter(|node| !node.jump.is_empty());
    let behind_jumps: Vec<Node> = behind_jumps.cloned().collect();
    let transport = SshTransport::asking(options, &behind_jumps, &run::passphrase)?;
    warn(transport.warnings());
    let tokio = tokio::runtime::Runtime::new().context("cannot start the tokio runtime")?;
    let mut hosts = hosts(&fleet);
    let deepest = hosts.iter().map(|host| host.target.route.len()).max();
    // Jump hosts first: what is behind them is only reached once their keys are known.
    for depth in 0..=deepest.unwrap_or_default() {
        let level: Vec<&mut Host<'_>> = (hosts.iter_mut())
            .filter(|host| host.target.route.len() == depth)
            .collect();
        tokio.block_on(look(&transport, level));
        let level = || hosts.iter().filter(|host| host.target.route.len() == depth);
        if args.output == HostsFormat::Human {
            let text: String = level().map(line).collect();
            report::print_stdout(&text)?;
        }
        let new = level().filter(|host| host.is_new()).count();
        // Without the list on the screen there is nothing to compare.
        let asks = new > 0 && !args.yes && args.output == HostsFormat::Human;
        let may_record = args.yes || (asks && confirmed(&transport, level(), new)?);
        for host in hosts
            .iter_mut()
            .filter(|host| host.target.route.len() == depth)
        {
            if let (true, Some(Ok(scanned))) = (may_record && host.is_new(), &host.seen) {
                host.recorded = Some(transport.record(scanned));
            }
        }
    }
    tokio.block_on(transport.close());
    match args.output {
        HostsFormat::Human => report::print_stdout(&summary(&hosts))?,
        HostsFormat::Json => report::print_stdout(&pretty(&document(&hosts)))?,
    }
    Ok(match hosts.iter().all(Host::is_settled) {
        true => Exit::Success,
        false => Exit::Incomplete,
    })
}

/// Every host of the fleet and on the way to it, once.
fn hosts(fleet: &Fleet) -> Vec<Host<'_>> {
    let mut seen: HashSet<(&str, u16, &[Hop], usize)> = HashSet::new();
    let mut hosts = Vec::new();
    for node in fleet.nodes() {
        let hops = node.jump.iter().enumerate().map(|(place, hop)| {
            let target = ScanTarget {
                host: &hop.host,
                port: hop.port,
                route: &node.jump[..place],
                identities: &node.identities,
                settings: hop.ssh_settings,
            };
            (format!("jump host {hop}"), target)
        });
        let own = ScanTarget {
            host: &node.address,
            port: node.port,
            route: &node.jump,
            identities: &node.identities,
            settings: node.ssh_settings,
        };
        for (label, target) in hops.chain([(node.name.clone(), own)]) {
            let is_new = seen.insert((target.host, target.port, target.route, target.settings));
            if is_new && !target.host.is_empty() {
                hosts.push(Host {
                    label,
                    target,
                    seen: None,
                    recorded: None,
                });
            }
        }
    }
    hosts
}

async fn look(transport: &SshTransport, hosts: Vec<&mut Host<'_>>) {
    let looking = hosts.into_iter().map(|host| async {
        host.seen = Some(transport.scan(&host.target).await);
    });
    stream::iter(looking)
        .for_each_concurrent(SIDE_BY_SIDE, |looking| looking)
        .await;
}

impl Host<'_> {
    fn is_new(&self) -> bool {
        matches!(&self.seen, Some(Ok(scanned)) if scanned.status == KeyStatus::New)
    }

    /// Whether its key is known by now.
    fn is_settled(&self) -> bool {
        match &self.seen {
            Some(Ok(scanned)) if scanned.status == KeyStatus::Known => true,
            _ => matches!(self.recorded, Some(Ok(()))),
        }
    }
}

/// "node-1  ssh-ed25519 SHA256:...  new".
fn line(host: &Host<'_>) -> String {
    let label = escape_line(&host.label);
    match &host.seen {
        Some(Ok(scanned)) => {
            let status = match &scanned.status {
                KeyStatus::Known => "known".to_owned(),
                KeyStatus::New => "new".to_owned(),
                KeyStatus::Changed { known, place } => {
                    format!("CHANGED: {} knows {known}", escape_line(place))
                }
                KeyStatus::Revoked { place } => format!("REVOKED by {}", escape_line(place)),
            };
            let ScannedKey {
                algorithm,
                fingerprint,
                ..
            } = scanned;
            format!("{label}  {algorithm} {fingerprint}  {status}\n")
        }
        Some(Err(failure)) => format!("{label}  {}\n", escape_line(&failure.to_string())),
        None => format!("{label}  not looked at\n"),
    }
}

/// Asks on the terminal whether the new keys are right; without one they cannot be compared.
fn confirmed<'a>(
    transport: &SshTransport,
    hosts: impl Iterator<Item = &'a Host<'a>>,
    new: usize,
) -> Result<bool> {
    let mut files: Vec<String> = hosts
        .filter(|host| host.is_new())
        .filter_map(|host| transport.records_in(host.seen.as_ref()?.as_ref().ok()?))
        .map(|file| file.display().to_string())
        .collect();
    files.dedup();
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    let keys = format_count(new, "new host key");
    let question = format!(
        "Compare the fingerprints with the hosts' own. Record {keys} in {}? [y/N] ",
        escape_line(&files.join(" and "))
    );
    report::print_stderr(&question);
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// "3 new (recorded), 9 known, 1 changed, 1 not reached".
fn summary(hosts: &[Host<'_>]) -> String {
    let status = |wanted: fn(&KeyStatus) -> bool| {
        let seen = hosts
            .iter()
            .filter_map(|host| host.seen.as_ref()?.as_ref().ok());
        seen.filter(|scanned| wanted(&scanned.status)).count()
    };
    let recorded = hosts
        .iter()
        .filter(|host| matches!(host.recorded, Some(Ok(()))))
        .count();
    let new = status(|status| *status == KeyStatus::New);
    let mut out = String::new();
    for (number, what) in [
        (status(|status| *status == KeyStatus::Known), "known"),
        (recorded, "new, recorded now"),
        (new - recorded, "new, not recorded"),
        (
            status(|status| matches!(status, KeyStatus::Changed { .. })),
            "changed",
        ),
        (
            status(|status| matches!(status, KeyStatus::Revoked { .. })),
            "revoked",
        ),
        (
            hosts
                .iter()
                .filter(|host| matches!(host.seen, Some(Err(_))))
                .count(),
            "not reached",
        ),
    ] {
        if number > 0 {
            let comma = if out.is_empty() { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(out, "{comma}{number} {what}");
        }
    }
    out.push('\n');
    for host in hosts {
        if let Some(Err(why)) = &host.recorded {
            let _ = writeln!(out, "{}: {}", escape_line(&host.label), escape_line(why));
        }
    }
    if new > recorded {
        out.push_str(
            "Once you have compared the fingerprints, --yes records new keys without asking.\n",
        );
    }
    out
}

fn document(hosts: &[Host<'_>]) -> Value {
    let hosts = hosts.iter().map(|host| {
        let mut entry = json!({
            "name": host.label, "address": host.target.host, "port": host.target.port,
            "jump": host.target.route.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "recorded": matches!(host.recorded, Some(Ok(()))),
        });
        match &host.seen {
            Some(Ok(scanned)) => {
                entry["algorithm"] = json!(scanned.algorithm);
                entry["fingerprint"] = json!(scanned.fingerprint);
                let (status, known) = match &scanned.status {
                    KeyStatus::Known => ("known", None),
                    KeyStatus::New => ("new", None),
                    KeyStatus::Changed { known, place } => ("changed", Some((known, place))),
                    KeyStatus::Revoked { .. } => ("revoked", None),
                };
                entry["status"] = json!(status);
                if let Some((known, place)) = known {
                    entry["known"] = json!(known);
                    entry["known_in"] = json!(place);
                }
            }
            Some(Err(failure)) => {
                entry["status"] = json!("failed");
                entry["failure"] = json!(failure);
            }
            None => {}
        }
        if let Some(Err(why)) = &host.recorded {
            entry["error"] = json!(why);
        }
        entry
    });
    json!({ "schema": 1, "hosts": hosts.collect::<Vec<_>>() })
}
