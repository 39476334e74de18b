//! One run: from checked settings over the engine to the exit status.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};

use super::contents;
use super::daemonset::PodRun;
use super::exit::Exit;
use super::journal_sink::{JournalSink, WriteError};
use super::logins::CredentialRefresher;
use super::on_finish;
use super::runs;
use super::stop::Signals;
use super::through_ssh;
use crate::cli::{Format, NodesFormat};
use crate::credentials;
use crate::engine::{self, Finish, Supply};
use crate::fan_out::{self, Programs};
use crate::journal::{self, Header, Journal};
use crate::model::text::{escape_line, format_count};
use crate::model::{
    EventKind, Forecast, Foretold, History, Outcome, Plan, ProgressStyle, PullVia, Secret, Work,
};
use crate::ports::ImageServer;
use crate::report::{
    self, Earlier, EventSink, FileReport, Human, HumanOptions, Json, Jsonl, Layout, Reporter,
    RunInfo, RunResult, Screen,
};
use crate::runtime;
use crate::settings::{self, Environment, OutputSettings, RunSettings, SshSettings};
use crate::ssh::{HostSettings, Overrides, SshOptions, SshTransport};
use crate::via;

/// Facts on their way to the reporters. The numbering loop never blocks, so this fills only when the
/// machine itself is overloaded.
const FACTS_UNDER_WAY: usize = 4096;

/// Runs the plan on hosts that are reached as `hosts` say. `arguments` are recorded, to go on with it later.
pub(super) fn run(
    settings: &RunSettings,
    hosts: Vec<HostSettings>,
    ambient: &Environment,
    arguments: Vec<OsString>,
) -> Result<Exit> {
    if settings.dry_run {
        let text = match settings.output.format {
            Format::Human => report::plan_text(&settings.plan),
            Format::Json | Format::Jsonl => super::pretty(&report::plan_json(&settings.plan)),
        };
        report::print_stdout(&text)?;
        return Ok(Exit::Success);
    }
    let options = SshOptions {
        hosts,
        password: settings.ssh.password.clone(),
        jump_passwords: settings.ssh.jump_passwords.clone(),
    };
    let needs_ssh = (settings.daemonset.as_ref()).is_none_or(|set| set.falls_back_to_ssh());
    let transport = needs_ssh
        .then(|| SshTransport::asking(options, settings.plan.fleet.nodes(), &passphrase))
        .transpose()?;
    super::warn(transport.as_ref().map_or(&[], SshTransport::warnings));
    let tokio = tokio::runtime::Runtime::new().context("cannot start the tokio runtime")?;
    let images = tokio.block_on(through_ssh::served(settings))?;
    let relays = relays(settings, ambient)?;
    let pods = tokio.block_on(PodRun::prepare(settings))?;
    let started = SystemTime::now();
    let id = run_id(started);
    let (earlier, history) = earlier(settings, ambient);
    let words = runs::words(arguments.iter().map(|word| word.to_string_lossy()));
    let journal = settings.output.journal.then(|| {
        journal(
            &id,
            started,
            settings,
            ambient,
            arguments,
            earlier.foretold.clone(),
        )
    });
    let journal = match journal {
        Some(Err(error)) => {
            // An operator whose home is read-only wants the images all the same.
            let why = format!("this run is not recorded and cannot be resumed: {error:#}");
            super::warn(&[why]);
            None
        }
        Some(Ok(journal)) => Some(journal),
        None => None,
    };
    let plan = tokio.block_on(contents::asked(settings));
    let is_pull = plan.work.is_resumable();
    let info = Arc::new(RunInfo {
        resume: runs::resume_command(is_pull && journal.is_some(), &id),
        words,
        id,
        started,
        plan: Arc::clone(&plan),
        earlier,
    });
    let recorded_in = journal.as_ref().map(|journal| journal.path().to_owned());
    let (ledger, gap) = match journal.map(JournalSink::new) {
        Some((ledger, gap)) => (Some(Box::new(ledger) as Box<dyn EventSink>), gap),
        None => (None, WriteError::default()),
    };
    let (facts, facts_receiver) = mpsc::channel(FACTS_UNDER_WAY);
    let mut reporters = match settings.nodes {
        Some(format) => probe_reporters(format, settings.output, &info),
        None if settings.forecast => forecast_reporters(settings.output, &info),
        None => reporters(settings.output, &info),
    };
    for file in &settings.reports {
        let report = FileReport::new(&info, file.path.clone(), runs::form(file.form));
        reporters.push(Box::new(report));
    }
    let running = report::start(facts_receiver, ledger, reporters);
    let logins = CredentialRefresher::new(&settings.login_sources, &plan);
    let ended = tokio.block_on(perform(
        &plan,
        transport.as_ref(),
        pods.as_ref(),
        &logins,
        Supply {
            images: images.as_ref().map(|images| images as &dyn ImageServer),
            relays: relays.as_ref(),
        },
        facts,
        running.screen(),
    ));
    // What still runs after a second signal must not hold the program back.
    tokio.shutdown_background();
    let finish = match ended {
        Ok(Ended::Finished(finish)) => finish,
        Ok(Ended::Quit(exit)) => {
            running.quit();
            let left = pods.as_ref().and_then(PodRun::left_behind);
            super::warn(&[given_up(&info) + &left.unwrap_or_default()]);
            return Ok(exit);
        }
        Err(error) => {
            running.quit();
            return Err(error);
        }
    };
    let cache = settings::cache(ambient);
    let cached = |digest: &str| {
        let cache = cache.as_deref();
        cache.map_or(0, |cache| via::cached(cache, digest))
    };
    let forecast =
        (settings.forecast).then(|| Forecast::new(&plan, &finish.nodes, &history, &cached));
    let result = RunResult {
        forecast,
        info: still_resumable(info, recorded_in.as_deref()),
        finished: SystemTime::now(),
        nodes: finish.nodes,
        stopped: finish.stopped,
        fan_out: finish.fan_out,
    };
    let mut unwritten = running.finish(&result).into_iter().peekable();
    let mut is_written = unwritten.peek().is_none();
    for error in unwritten {
        let error = anyhow::Error::new(error).context("cannot write the result");
        report::print_stderr(&report::error_text(&error));
    }
    if let Some(error) = gap.lock().unwrap_or_else(PoisonError::into_inner).take() {
        super::warn(&[format!(
            "the journal of this run is not whole, resuming it would repeat work: {error}"
        )]);
    }
    if let Some((nodes, why)) = lost_output(&result) {
        super::warn(&[format!(
            "the output of {} is lost: {why}",
            format_count(nodes, "node")
        )]);
        is_written = false;
    }
    if let Some(command) = &settings.on_finish
        && let Err(error) = on_finish::run(command, &result)
    {
        super::warn(&[format!("--on-finish {command}: {error:#}")]);
    }
    let agree = report::digests_agree(&result);
    Ok(match Exit::of(&result.nodes, result.stopped, agree) {
        // What became of the nodes says more, and is true whatever could be written.
        Exit::Success if !is_written => Exit::Incomplete,
        exit => exit,
    })
}

/// The relay's programs, where nodes are to pass images on.
fn relays(settings: &RunSettings, ambient: &Environment) -> Result<Option<Programs>> {
    if settings.plan.policy.fan_out.is_none() {
        return Ok(None);
    }
    let named = ambient
        .variable("PREPULL_RELAYS")
        .map(|name| ambient.path(Path::new(&name)));
    let executable = std::env::current_exe().ok();
    let folders = fan_out::folders(named.as_deref(), executable.as_deref());
    Ok(Some(Programs::read(&folders).context("--fan-out")?))
}

/// What earlier runs tell of this one, and for a forecast how long pulls took.
fn earlier(settings: &RunSettings, ambient: &Environment) -> (Earlier, History) {
    let Ok(folder) = runs::folder(ambient) else {
        return Default::default();
    };
    let plan = &settings.plan;
    let nodes: Vec<&str> = plan
        .fleet
        .nodes()
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    let mut earlier = Earlier::default();
    match &plan.work {
        // Of a run that is gone on with a part is done.
        Work::Pull(images) if plan.already_present.is_empty() => {
            let images: Vec<String> = images.iter().map(|one| one.image.to_string()).collect();
            earlier.foretold = journal::foretold(&folder, &images, &nodes);
        }
        Work::Check(images) => {
            let images: Vec<String> = images.iter().map(ToString::to_string).collect();
            earlier.last_held = journal::last_held(&folder, &nodes);
            earlier.overdue = journal::overdue(&folder, &images, &nodes, SystemTime::now());
        }
        _ => {}
    }
    let history = match settings.forecast {
        true => journal::history(&folder, &nodes),
        false => History::default(),
    };
    (earlier, history)
}

/// The run, without a word of going on with it where its journal was removed meanwhile.
fn still_resumable(info: Arc<RunInfo>, journal: Option<&Path>) -> Arc<RunInfo> {
    let Some(journal) = journal.filter(|journal| !journal.exists()) else {
        return info;
    };
    super::warn(&[format!(
        "the journal of this run is gone, it cannot be resumed: somebody removed {}",
        journal.display()
    )]);
    Arc::new(RunInfo {
        resume: None,
        ..RunInfo::clone(&info)
    })
}

/// On how many nodes a command ran whose output could not be kept, and why.
fn lost_output(result: &RunResult) -> Option<(usize, &str)> {
    let records = result.nodes.iter().flat_map(|node| &node.items);
    let lost: Vec<&str> = records
        .filter_map(|record| match &record.outcome {
            Outcome::Ran(output) => output.lost(),
            _ => None,
        })
        .collect();
    Some((lost.len(), *lost.first()?))
}

/// What is left behind by a second signal.
fn given_up(info: &RunInfo) -> String {
    let resume = info.resume.as_ref().map_or(String::new(), |command| {
        format!("; to go on with what is open: `{command}`")
    });
    let pulls = match info.plan.work {
        Work::Pull(_) if info.plan.policy.via == PullVia::DaemonSet => String::new(),
        Work::Pull(_) => {
            let lease = humantime::format_duration(info.plan.policy.lease);
            format!(": a pull that still runs on a node ends by itself within {lease}")
        }
        Work::Check(_) | Work::Exec(_) | Work::Probe(_) => String::new(),
    };
    format!("ended at once, without waiting for the nodes{pulls}{resume}")
}

/// Asks for the passphrase of a key. An empty answer, or no terminal, leaves the key out, as with `ssh`.
pub(super) fn passphrase(path: &Path, attempt: u32) -> Option<Secret> {
    let again = if attempt > 1 {
        "That did not fit. "
    } else {
        ""
    };
    let path = path.display().to_string();
    let question = format!("{again}Passphrase of the key {}: ", escape_line(&path));
    credentials::prompt(&question).ok()
}

fn journal(
    id: &str,
    started: SystemTime,
    settings: &RunSettings,
    ambient: &Environment,
    arguments: Vec<OsString>,
    foretold: Option<Foretold>,
) -> Result<Journal> {
    let folder = runs::folder(ambient)?;
    let here = std::env::current_dir().context("cannot tell the current directory")?;
    let arguments = arguments
        .iter()
        .map(|text| text.to_string_lossy().into_owned());
    let mut header = Header::new(id, started, &settings.plan, here, arguments.collect());
    header.foretold = foretold;
    Ok(Journal::create(&folder, &header)?)
}

enum Ended {
    Finished(Finish),
    /// A second signal: at once, without a report.
    Quit(Exit),
}

async fn perform(
    plan: &Plan,
    transport: Option<&SshTransport>,
    pods: Option<&PodRun>,
    logins: &CredentialRefresher,
    supply: Supply<'_>,
    facts: mpsc::Sender<(Duration, EventKind)>,
    screen: Option<Screen>,
) -> Result<Ended> {
    let signals = Signals::catch(screen)?;
    let (stop, stop_receiver) = watch::channel(None);
    let runtimes = runtime::all();
    let run = async {
        let finish = match (pods, transport) {
            (Some(pods), transport) => {
                pods.run(plan, transport, logins, facts, stop_receiver)
                    .await
            }
            (None, Some(transport)) => Ok(engine::run(
                plan,
                transport,
                &runtimes,
                logins,
                supply,
                facts,
                stop_receiver,
            )
            .await),
            (None, None) => Err(anyhow::anyhow!("no way to the nodes")),
        };
        if let Some(transport) = transport {
            transport.close().await;
        }
        finish
    };
    Ok(tokio::select! {
        finish = run => Ended::Finished(finish?),
        reason = signals.quit(&stop) => Ended::Quit(Exit::quit(reason)),
    })
}

/// When it started and a few random digits: sorts by time, and two runs in one second differ.
fn run_id(started: SystemTime) -> String {
    let time = humantime::format_rfc3339_seconds(started).to_string();
    format!("{}-{:04x}", time.replace(':', "-"), fastrand::u16(..))
}

fn reporters(output: OutputSettings, info: &Arc<RunInfo>) -> Vec<Box<dyn Reporter>> {
    let stdout = || Box::new(io::stdout());
    match output.format {
        Format::Human => vec![human(output, output.progress, info, stdout())],
        Format::Json => vec![beside_json(output, info), Box::new(Json::new(stdout()))],
        Format::Jsonl => vec![
            beside_json(output, info),
            Box::new(Jsonl::new(Arc::clone(info), stdout())),
        ],
    }
}

fn probe_reporters(
    format: NodesFormat,
    output: OutputSettings,
    info: &Arc<RunInfo>,
) -> Vec<Box<dyn Reporter>> {
    let layout = layout(output);
    let text = move |result: &RunResult| match format {
        NodesFormat::Human => report::probed_table(result, false, layout, report::terminal_width()),
        NodesFormat::Wide => report::probed_table(result, true, layout, report::terminal_width()),
        NodesFormat::Yaml => report::probed_yaml(result),
        NodesFormat::Json => super::pretty(&report::probed_json(result)),
        NodesFormat::Name => report::fleet_names(&result.info.plan.fleet),
    };
    vec![
        beside_json(output, info),
        Box::new(report::AtEnd::new(Box::new(io::stdout()), text)),
    ]
}

fn forecast_reporters(output: OutputSettings, info: &Arc<RunInfo>) -> Vec<Box<dyn Reporter>> {
    let layout = layout(output);
    let text = move |result: &RunResult| match output.format {
        Format::Human => report::forecast_text(result, layout, report::terminal_width()),
        Format::Json | Format::Jsonl => super::pretty(&report::forecast_json(result)),
    };
    vec![
        beside_json(output, info),
        Box::new(report::AtEnd::new(Box::new(io::stdout()), text)),
    ]
}

/// Progress beside a result for programs: lines are written there only if they were asked for.
fn beside_json(output: OutputSettings, info: &Arc<RunInfo>) -> Box<dyn Reporter> {
    let progress = match output.progress {
        ProgressStyle::Auto if !io::stderr().is_terminal() => ProgressStyle::None,
        chosen => chosen,
    };
    human(output, progress, info, Box::new(io::sink()))
}

fn human(
    output: OutputSettings,
    progress: ProgressStyle,
    info: &Arc<RunInfo>,
    results: Box<dyn io::Write + Send>,
) -> Box<dyn Reporter> {
    let options = HumanOptions {
        progress,
        color_bars: report::uses_color(output.color, io::stderr().is_terminal()),
        layout: layout(output),
        quiet: output.quiet,
        verbose: output.verbose,
    };
    Box::new(Human::new(
        Arc::clone(info),
        options,
        results,
        Box::new(io::stderr()),
    ))
}

/// How results are laid out on standard output.
fn layout(output: OutputSettings) -> Layout {
    Layout::stdout(report::uses_color(output.color, io::stdout().is_terminal()))
}

/// What the command line says about all hosts.
pub(super) fn overrides(settings: &SshSettings) -> Overrides {
    Overrides {
        host_keys: settings.host_keys,
        known_hosts: settings.known_hosts.clone(),
        connect_timeout: settings.connect_timeout,
        keepalive: settings.keepalive,
    }
}
