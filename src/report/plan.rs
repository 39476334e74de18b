//! Plans as text and JSON, before anything is touched.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::format::escape_truncated;
use super::nodes::{fleet_json, fleet_table};
use crate::model::text::{format_bytes, format_count};
use crate::model::{
    Backoff, Credential, FanOut, LoginSource, Plan, PlannedImage, Policy, Portion, Preflight,
    PullVia, PullWhen, Work,
};

/// The plan as text, for `--dry-run`. Never a password.
pub fn plan_text(plan: &Plan) -> String {
    let mut out = fleet_table(&plan.fleet, false);
    let _ = writeln!(
        out,
        "\n{} on {}:",
        plan.work.command(),
        format_count(plan.fleet.nodes().len(), "node")
    );
    match &plan.work {
        Work::Pull(images) => {
            for PlannedImage { image, login } in images {
                let login = match login {
                    Some(Credential { login, source }) => {
                        let user = login.username().unwrap_or("the owner of a token");
                        let (user, source) = (escape_truncated(user, 100), source.to_string());
                        format!("as {user}: {}", escape_truncated(&source, 500))
                    }
                    None => "no login found: the node's own is used".into(),
                };
                let _ = writeln!(out, "  {image} from {} ({login})", image.registry());
            }
        }
        // A probe has no plan that is shown.
        Work::Probe(_) => {}
        Work::Check(images) => {
            for image in images {
                let _ = writeln!(out, "  {image}");
            }
        }
        Work::Exec(words) => {
            let _ = writeln!(out, "  {}", escape_truncated(&words.join(" "), 1000));
        }
    }
    policy_text(&mut out, &plan.policy, plan.work.uses_registry());
    out
}

/// The policy, a line for each part that holds for this work. Every field is named here, so that the compiler asks for
/// a new one.
fn policy_text(out: &mut String, policy: &Policy, is_pull: bool) {
    let Policy {
        parallel,
        connections,
        retries,
        backoff: Backoff { min, max },
        pull_timeout,
        unseen_timeout,
        stall_timeout,
        min_rate,
        lease,
        deadline,
        canary,
        per_registry,
        max_failures,
        waves,
        pull,
        disk_credentials,
        preflight,
        pin_digest,
        platform,
        via,
        fan_out,
        mirrors,
        keep,
        // Drawn for each run: that of a dry run is never used.
        seed: _,
    } = policy;
    let time = humantime::format_duration;
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!(
        "at most {} at a time, {retries} retries, a pause of up to {min:?} to {max:?} before each",
        format_count(*parallel, "node"),
    ));
    if !waves.is_empty() {
        line(format!("in waves of {}", portions(waves).join(", ")));
    }
    if let Some(limit) = max_failures {
        line(format!("no further node once {limit} of them failed"));
    }
    if let Some(limit) = deadline {
        line(format!("the whole run takes at most {}", time(*limit)));
    }
    if let Some(platform) = platform {
        line(format!("for the platform {platform}"));
    }
    if !is_pull {
        return;
    }
    if !mirrors.is_empty() {
        let mirrors: Vec<String> = mirrors.iter().map(ToString::to_string).collect();
        line(format!(
            "mirrors are asked before the registries: {}",
            mirrors.join(", ")
        ));
    }
    match via {
        PullVia::Registry => {}
        PullVia::Ssh => line(
            "images come through the SSH connections, and from the registry where that cannot be"
                .into(),
        ),
        PullVia::SshOnly => line("images come through the SSH connections alone".into()),
        PullVia::DaemonSet => line("pods of a DaemonSet make the nodes pull".into()),
    }
    if let Some(FanOut { port, max_upload }) = fan_out {
        let port = port.map_or(String::new(), |port| format!(" on port {port}"));
        let most = max_upload.map_or(String::new(), |most| {
            format!(", at most {} a second", format_bytes(most))
        });
        line(format!("nodes pass images on to each other{port}{most}"));
    }
    if connections < parallel {
        line(format!(
            "at most {} at a time; a pull that runs well goes on without one",
            format_count(*connections, "connection")
        ));
    }
    if *canary > 0 {
        line(format!("{} first", format_count(*canary, "node")));
    }
    if let Some(limit) = per_registry {
        line(format!("at most {limit} at a time from one registry"));
    }
    if let Some(Preflight { unpack_factor }) = preflight {
        line(format!(
            "every node is asked before any pulls; layers need {unpack_factor} times their size once unpacked"
        ));
    }
    match pull {
        PullWhen::Always => line("also where a node holds the image already".into()),
        PullWhen::Missing => {}
    }
    if *pin_digest {
        line("every node must end with the same digest".into());
    }
    if let Some(keep) = keep {
        line(match keep.until {
            Some(_) => format!(
                "the images are kept from the kubelet's garbage collection until {}",
                keep.label()
            ),
            None => {
                "the images are kept from the kubelet's garbage collection until they are released"
                    .into()
            }
        });
    }
    if let Some(limit) = pull_timeout {
        line(format!("one attempt takes at most {}", time(*limit)));
    }
    if let Some(limit) = unseen_timeout {
        line(format!(
            "one attempt takes at most {} where the node cannot see what arrives",
            time(*limit)
        ));
    }
    match (stall_timeout, min_rate) {
        (Some(limit), Some(rate)) => line(format!(
            "a pull is ended when less than {}/s arrives over {}",
            format_bytes(*rate),
            time(*limit)
        )),
        (Some(limit), None) => line(format!(
            "a pull is ended when nothing arrives for {}",
            time(*limit)
        )),
        (None, _) => {}
    }
    line(format!(
        "a pull goes on for {} when its connection is lost",
        time(*lease)
    ));
    if *disk_credentials {
        line("a login may be put on a node's disk".into());
    }
}

/// Where a login comes from, for programs.
fn login_source(source: &LoginSource) -> Value {
    let (program, file, pull_secret) = match source {
        LoginSource::Prompt | LoginSource::Stdin | LoginSource::Caller => (None, None, None),
        LoginSource::File(file) => (None, Some(file), None),
        LoginSource::Helper { program, file } => (Some(program), Some(file), None),
        LoginSource::PullSecret(name) => (None, None, Some(name)),
    };
    json!({
        "source": source.kind(), "program": program, "file": file.map(|path| path.to_string_lossy()), "pull_secret": pull_secret,
    })
}

fn portions(waves: &[Portion]) -> Vec<String> {
    waves.iter().map(ToString::to_string).collect()
}

/// The policy for programs. Every field is named here, so that the compiler asks for a new one.
fn policy_json(policy: &Policy) -> Value {
    let Policy {
        parallel,
        connections,
        retries,
        backoff: Backoff { min, max },
        pull_timeout,
        unseen_timeout,
        stall_timeout,
        min_rate,
        lease,
        deadline,
        canary,
        per_registry,
        max_failures,
        waves,
        pull,
        disk_credentials,
        preflight,
        pin_digest,
        platform,
        via,
        fan_out,
        mirrors,
        keep,
        // Drawn for each run: that of a dry run is never used.
        seed: _,
    } = policy;
    let seconds = |limit: &Option<Duration>| limit.map(|limit| limit.as_secs_f64());
    json!({
        "parallel": parallel, "connections": connections, "retries": retries,
        "backoff_seconds": [min.as_secs_f64(), max.as_secs_f64()],
        "pull_timeout_seconds": seconds(pull_timeout),
        "unseen_timeout_seconds": seconds(unseen_timeout),
        "stall_timeout_seconds": seconds(stall_timeout),
        "min_rate": min_rate, "lease_seconds": lease.as_secs_f64(),
        "deadline_seconds": seconds(deadline),
        "canary": canary, "per_registry": per_registry,
        "max_failures": max_failures.map(|limit| limit.to_string()),
        "waves": portions(waves), "pull": pull.as_str(),
        "disk_credentials": disk_credentials,
        "preflight": preflight.map(|Preflight { unpack_factor }| json!({ "unpack_factor": unpack_factor })),
        "pin_digest": pin_digest, "platform": platform,
        "via": via.as_str(),
        "fan_out": fan_out.map(|FanOut { port, max_upload }| json!({
            "port": port, "max_upload": max_upload
        })),
        "keep_until": keep.map(|keep| keep.label()),
        "mirrors": mirrors.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// The plan as JSON, for `--dry-run -o json`. Never a password.
pub fn plan_json(plan: &Plan) -> Value {
    let images: Vec<Value> = (0..plan.work.items())
        .filter_map(|item| plan.work.image(item).map(|image| (item, image)))
        .map(|(item, image)| {
            let login = plan.work.login(item);
            json!({
                "reference": image.to_string(), "registry": image.registry(),
                "user": login.and_then(|found| found.login.username()),
                "login": login.map(|found| login_source(&found.source)),
            })
        })
        .collect();
    let command = match &plan.work {
        Work::Exec(words) => Some(words),
        Work::Pull(_) | Work::Check(_) | Work::Probe(_) => None,
    };
    json!({
        "schema": 1, "command": plan.work.command(), "arguments": command, "images": images,
        "nodes": fleet_json(&plan.fleet)["nodes"],
        "policy": policy_json(&plan.policy),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Fleet, Keep, Node};

    /// A policy of which no field has its default.
    fn unusual() -> Policy {
        let seconds = Duration::from_secs;
        Policy {
            parallel: 11,
            connections: 7,
            retries: 12,
            backoff: Backoff {
                min: seconds(13),
                max: seconds(14),
            },
            pull_timeout: Some(seconds(15)),
            unseen_timeout: Some(seconds(16)),
            stall_timeout: Some(seconds(17)),
            min_rate: Some(18),
            lease: seconds(19),
            deadline: Some(seconds(20)),
            canary: 21,
            per_registry: Some(22),
            max_failures: Some(Portion::Count(23)),
            waves: vec![Portion::Count(24), Portion::Percent(25.0)],
            pull: PullWhen::Always,
            disk_credentials: true,
            preflight: Some(Preflight {
                unpack_factor: 26.5,
            }),
            pin_digest: true,
            via: PullVia::SshOnly,
            fan_out: Some(FanOut {
                port: Some(28),
                max_upload: Some(29),
            }),
            mirrors: vec!["docker.io=m.example".parse().unwrap()],
            platform: Some("linux/arm64".into()),
            keep: Some(Keep {
                until: Some(std::time::UNIX_EPOCH),
            }),
            seed: 27,
        }
    }

    fn plan(policy: Policy) -> Plan {
        let image = "reg.example/app:v1".parse().unwrap();
        let fleet = Fleet::new(vec![Node::named("n1")]).unwrap();
        let work = Work::Pull(vec![PlannedImage { image, login: None }]);
        Plan::new(fleet, work, policy)
    }

    #[test]
    fn a_dry_run_shows_every_part_of_the_policy() {
        let text = plan_text(&plan(unusual()));
        for shown in [
            "at most 11 nodes at a time, 12 retries, a pause of up to 13s to 14s before each",
            "one attempt takes at most 15s\n",
            "one attempt takes at most 16s where the node cannot see what arrives",
            "a pull is ended when less than 18 B/s arrives over 17s",
            "a pull goes on for 19s when its connection is lost",
            "the whole run takes at most 20s",
            "21 nodes first",
            "at most 7 connections at a time; a pull that runs well goes on without one",
            "at most 22 at a time from one registry",
            "no further node once 23 of them failed",
            "in waves of 24, 25%",
            "also where a node holds the image already",
            "a login may be put on a node's disk",
            "layers need 26.5 times their size once unpacked",
            "every node must end with the same digest",
            "for the platform linux/arm64",
            "images come through the SSH connections alone",
            "kept from the kubelet's garbage collection until 1970-01-01T00:00:00Z",
            "nodes pass images on to each other on port 28, at most 29 B a second",
            "mirrors are asked before the registries: docker.io=m.example\n",
        ] {
            assert!(text.contains(shown), "{shown:?} is missing in\n{text}");
        }
    }

    #[test]
    fn a_dry_run_in_json_shows_every_part_of_the_policy() {
        let (unusual, usual) = (unusual(), Policy::default());
        let shown = plan_json(&plan(unusual))["policy"].clone();
        let default = plan_json(&plan(usual))["policy"].clone();
        let fields = shown.as_object().unwrap();
        assert_eq!(fields.len(), 23, "one for each but the seed");
        for (name, value) in fields {
            assert!(!value.is_null(), "{name}");
            assert_ne!(*value, default[name], "{name} does not follow the policy");
        }
    }
}
