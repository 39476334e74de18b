//! What the operator asked for, checked: arguments, environment, files and prompts become settings.
//!
//! Everything that can be found wrong without a connection is found here, and everything that has to
//! be asked is asked here, last, so that no password is typed for a run that a typo stops.

mod ambient;
mod daemonset;
mod defaults;
mod fleet;
mod logins;
mod policy;
mod reports;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub use ambient::Environment;
pub use daemonset::{
    DaemonSetSettings, DaemonSetTask, daemonset_apply, daemonset_named, daemonset_render,
    daemonset_status,
};
pub use defaults::Defaults;
pub use reports::report_files;

use crate::cli::{self, FleetArgs, ImageArchive, ManifestArgs, SshArgs};
use crate::credentials::{self, FoundLogins, LoginSources};
use crate::inventory::{self, ManifestImages, SshConfigSource};
use crate::model::text::escape_line;
use crate::model::{
    ColorChoice, Credential, Fleet, HostKeyPolicy, Image, Plan, PlannedImage, Preflight,
    ProgressStyle, PullVia, PullWhen, Secret, Work, pull_token,
};
use fleet::{fleet, platform_fits};
use logins::logins;

/// A run that the operator asked for: `pull`, `check`, `exec` or `nodes --probe`.
#[derive(Debug)]
pub struct RunSettings {
    /// What is done, on which nodes, how.
    pub plan: Arc<Plan>,
    /// For `nodes`: how the fleet and what was found is printed.
    pub nodes: Option<cli::NodesFormat>,
    /// Pull nothing, and say what the pull would cost.
    pub forecast: bool,
    /// Print the plan and stop.
    pub dry_run: bool,
    /// Where the plan's logins came from: they are asked for again when they get old.
    pub login_sources: LoginSources,
    /// How nodes are reached.
    pub ssh: SshSettings,
    /// What is printed.
    pub output: OutputSettings,
    /// The files to write at the end.
    pub reports: Vec<cli::ReportFile>,
    /// What is served to nodes through their SSH connections, and how.
    pub through_ssh: Option<ThroughSshSettings>,
    /// The DaemonSet whose pods pull, where it is not SSH.
    pub daemonset: Option<Arc<DaemonSetSettings>>,
    /// The shell command to run at the end.
    pub on_finish: Option<String>,
    /// What the operator should know before anything starts.
    pub warnings: Vec<String>,
    /// How much of the deadline is gone: inventories, clusters and credential helpers were waited for.
    pub spent: Duration,
}

/// What is served to nodes through their SSH connections, and how.
#[derive(Debug, Clone)]
pub struct ThroughSshSettings {
    /// Where it is kept; `None` where neither XDG_CACHE_HOME nor HOME says.
    pub cache: Option<PathBuf>,
    /// The most bytes that are kept.
    pub cache_limit: u64,
    /// The most bytes a second to all nodes together.
    pub upload_limit: Option<u64>,
    /// Archives to take the images from, instead of their registries.
    pub archives: Vec<ImageArchive>,
}

/// What the command line says about reaching nodes; `None` leaves it to ssh_config.
#[derive(Debug, Clone)]
pub struct SshSettings {
    /// What to do about an unknown host key.
    pub host_keys: Option<HostKeyPolicy>,
    /// The only files of known host keys that count; new keys go to the first.
    pub known_hosts: Vec<PathBuf>,
    /// The password for all nodes.
    pub password: Option<Secret>,
    /// The passwords for jump hosts, by the hop as it is written.
    pub jump_passwords: HashMap<String, Secret>,
    /// The longest each step of connecting may take.
    pub connect_timeout: Option<Duration>,
    /// The interval of keepalive requests.
    pub keepalive: Option<Duration>,
}

/// What is printed.
#[derive(Debug, Clone, Copy)]
pub struct OutputSettings {
    /// The result's format.
    pub format: cli::Format,
    /// How progress is shown.
    pub progress: ProgressStyle,
    /// When to use colour.
    pub color: ColorChoice,
    /// Nothing but failures.
    pub quiet: bool,
    /// Every step.
    pub verbose: bool,
    /// Whether the run is recorded.
    pub journal: bool,
}

/// `pull`.
///
/// # Errors
/// Whatever is wrong with images, inventory, options or credentials, in words for the operator.
pub fn pull(
    args: &cli::PullArgs,
    ambient: &Environment,
    background: SshConfigSource<'_>,
) -> Result<RunSettings> {
    let began = Instant::now();
    one_reader_of_stdin(
        &args.reach.fleet,
        &args.named.manifests,
        args.registry.registry_password_stdin,
    )?;
    let reports = report_files(&args.course.output.report, ambient)?;
    let (images, warnings) = images(&args.images, &args.named, ambient)?;
    let mut policy = policy::policy(&args.course.policy)?;
    if let Some(limit) = args.pull_timeout {
        policy.pull_timeout = Some(limit).filter(|limit| !limit.is_zero());
        policy.unseen_timeout = None;
    }
    policy.stall_timeout = Some(args.stall_timeout).filter(|limit| !limit.is_zero());
    policy.min_rate = args.min_rate;
    if policy.min_rate.is_some() && policy.stall_timeout.is_none() {
        bail!("--min-rate is measured over --stall-timeout, which is switched off");
    }
    policy.lease = args.lease;
    policy.connections = args.connections as usize;
    policy.disk_credentials = args.registry.allow_disk_credentials;
    policy.keep = policy::keep(args)?;
    policy.per_registry = args.per_registry.map(|most| most as usize);
    policy.preflight = (args.preflight || args.forecast).then_some(Preflight {
        unpack_factor: args.unpack_factor,
    });
    policy.pin_digest = args.pin_digest;
    // What a node already holds under a tag may be anything: only the registry knows.
    policy.pull = if args.pin_digest {
        PullWhen::Always
    } else {
        args.pull
    };
    policy.platform = args.platform.as_deref().map(policy::platform).transpose()?;
    policy.via = policy::via(args)?;
    policy.fan_out = policy::fan_out(args)?;
    policy.mirrors.clone_from(&args.mirror);
    let fleet = fleet(
        &args.reach.fleet,
        &args.reach.ssh.login,
        Some(&args.runtime),
        ambient,
        background,
    )?;
    if policy.platform.is_some() {
        platform_fits(&fleet)?;
    }
    let daemonset = daemonset::of_pull(args, &images, &fleet, ambient)?;
    // The kubelets log in by themselves.
    let (sources, found, known) = match &daemonset {
        Some(daemonset) if !daemonset.falls_back_to_ssh() => {
            let logins = vec![None; images.len()];
            let found = FoundLogins {
                logins,
                warnings: Vec::new(),
            };
            (LoginSources::default(), found, Instant::now())
        }
        _ => logins(
            &args.registry,
            &args.reach.fleet,
            &images,
            args.course.dry_run,
            policy.deadline.and_then(|limit| began.checked_add(limit)),
            ambient,
        )?,
    };
    let planned = with_logins(images, found.logins);
    policy.canary = policy::canary(args.course.policy.canary, fleet.nodes().len());
    let is_served =
        matches!(policy.via, PullVia::Ssh | PullVia::SshOnly) || policy.fan_out.is_some();
    let is_served = is_served && !args.forecast;
    let through_ssh = is_served.then(|| ThroughSshSettings {
        cache: cache(ambient),
        cache_limit: args.cache_limit,
        upload_limit: args.upload_limit,
        archives: args
            .from
            .iter()
            .map(|from| ImageArchive {
                path: ambient.path(&from.path),
                form: from.form,
            })
            .collect(),
    });
    let work = match args.forecast {
        true => Work::Probe(planned),
        false => Work::Pull(planned),
    };
    let plan = Plan {
        forecast: args.forecast,
        ..Plan::new(fleet, work, policy)
    };
    Ok(RunSettings {
        forecast: args.forecast,
        through_ssh,
        daemonset: daemonset.map(Arc::new),
        login_sources: sources,
        reports,
        warnings: [warnings, found.warnings].concat(),
        spent: known.duration_since(began),
        ..course(plan, &args.reach.ssh, &args.course, ambient)?
    })
}

fn with_logins(images: Vec<Image>, logins: Vec<Option<Credential>>) -> Vec<PlannedImage> {
    let pairs = images.into_iter().zip(logins);
    pairs
        .map(|(image, login)| PlannedImage { image, login })
        .collect()
}

/// Where what was served is kept: `prepull` in the user's cache folder (the XDG base directory specification).
pub fn cache(ambient: &Environment) -> Option<PathBuf> {
    let folder = |name| {
        let path = PathBuf::from(ambient.variable(name)?);
        path.is_absolute().then_some(path)
    };
    let base = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(base.join("prepull"))
}

/// `check`.
///
/// # Errors
/// As for [`pull`].
pub fn check(
    args: &cli::CheckArgs,
    ambient: &Environment,
    background: SshConfigSource<'_>,
) -> Result<RunSettings> {
    one_reader_of_stdin(&args.reach.fleet, &args.named.manifests, false)?;
    let reports = report_files(&args.course.output.report, ambient)?;
    let (images, warnings) = images(&args.images, &args.named, ambient)?;
    let mut policy = policy::policy(&args.course.policy)?;
    policy.platform = args.platform.as_deref().map(policy::platform).transpose()?;
    let fleet = fleet(
        &args.reach.fleet,
        &args.reach.ssh.login,
        Some(&args.runtime),
        ambient,
        background,
    )?;
    let plan = Plan::new(fleet, Work::Check(images), policy);
    Ok(RunSettings {
        reports,
        warnings,
        ..course(plan, &args.reach.ssh, &args.course, ambient)?
    })
}

/// `exec`.
///
/// # Errors
/// As for [`pull`].
pub fn exec(
    args: &cli::ExecArgs,
    ambient: &Environment,
    background: SshConfigSource<'_>,
) -> Result<RunSettings> {
    if args.command.iter().any(|part| part.contains('\0')) {
        bail!("the command holds a NUL byte, which no program can be given");
    }
    let reports = report_files(&args.course.output.report, ambient)?;
    let policy = policy::policy(&args.course.policy)?;
    let fleet = fleet(
        &args.reach.fleet,
        &args.reach.ssh.login,
        None,
        ambient,
        background,
    )?;
    let plan = Plan::new(fleet, Work::Exec(args.command.clone()), policy);
    Ok(RunSettings {
        reports,
        ..course(plan, &args.reach.ssh, &args.course, ambient)?
    })
}

/// `nodes`.
///
/// # Errors
/// Whatever is wrong with the inventory or the options.
pub fn nodes(
    args: &cli::NodesArgs,
    ambient: &Environment,
    background: SshConfigSource<'_>,
) -> Result<Fleet> {
    fleet(
        &args.reach.fleet,
        &args.reach.ssh.login,
        Some(&args.runtime),
        ambient,
        background,
    )
}

/// `hosts scan`: the fleet, and how its jump hosts are logged in to.
///
/// # Errors
/// Whatever is wrong with the inventory or the options.
pub fn scan(
    args: &cli::ScanArgs,
    ambient: &Environment,
    background: SshConfigSource<'_>,
) -> Result<(Fleet, SshSettings)> {
    let fleet = fleet(
        &args.reach.fleet,
        &args.reach.ssh.login,
        None,
        ambient,
        background,
    )?;
    let ssh = ssh_settings(&args.reach.ssh, &fleet, false, ambient)?;
    Ok((fleet, ssh))
}

/// `nodes --probe`.
///
/// # Errors
/// As for [`pull`].
pub fn probe(
    args: &cli::NodesArgs,
    ambient: &Environment,
    background: SshConfigSource<'_>,
) -> Result<RunSettings> {
    let began = Instant::now();
    one_reader_of_stdin(
        &args.reach.fleet,
        &[],
        args.registry.registry_password_stdin,
    )?;
    let images = given_images(&args.images, ambient)?;
    let mut policy = policy::policy(&args.policy)?;
    policy.preflight = Some(Preflight::default());
    let fleet = nodes(args, ambient, background)?;
    let (planned, warnings) = match images.is_empty() {
        // No registry is asked, so no login is looked for.
        true => (Vec::new(), Vec::new()),
        false => {
            let until = policy.deadline.and_then(|limit| began.checked_add(limit));
            let (_, found, _) = logins(
                &args.registry,
                &args.reach.fleet,
                &images,
                false,
                until,
                ambient,
            )?;
            (with_logins(images, found.logins), found.warnings)
        }
    };
    let plan = Plan::new(fleet, Work::Probe(planned), policy);
    let output = OutputSettings {
        journal: false,
        ..output(&args.progress)
    };
    Ok(RunSettings {
        nodes: Some(args.output),
        warnings,
        ..run(plan, &args.reach.ssh, false, output, ambient)?
    })
}

fn run(
    mut plan: Plan,
    ssh: &SshArgs,
    dry_run: bool,
    output: OutputSettings,
    ambient: &Environment,
) -> Result<RunSettings> {
    plan.pull_token = pull_token();
    let ssh_settings = ssh_settings(ssh, &plan.fleet, dry_run, ambient)?;
    let become_file = ssh.login.become_password_file.as_deref();
    if (ssh.login.ask_become_pass || become_file.is_some()) && !dry_run {
        let password = password(
            "sudo password: ",
            "--become-password-file",
            become_file,
            ambient,
        )?;
        plan.fleet.set_become_password(&password);
    }
    Ok(RunSettings {
        plan: Arc::new(plan),
        nodes: None,
        forecast: false,
        dry_run,
        login_sources: LoginSources::default(),
        ssh: ssh_settings,
        output,
        reports: Vec::new(),
        through_ssh: None,
        daemonset: None,
        on_finish: None,
        warnings: Vec::new(),
        spent: Duration::ZERO,
    })
}

/// A run of `pull`, `check` or `exec`.
fn course(
    plan: Plan,
    ssh: &SshArgs,
    course: &cli::RunArgs,
    ambient: &Environment,
) -> Result<RunSettings> {
    let output = OutputSettings {
        format: course.output.output,
        journal: !course.output.no_journal,
        ..output(&course.output.progress)
    };
    Ok(RunSettings {
        on_finish: course.output.on_finish.clone(),
        ..run(plan, ssh, course.dry_run, output, ambient)?
    })
}

/// What is shown, in words for people and recorded unless something else is said.
fn output(progress: &cli::ProgressArgs) -> OutputSettings {
    OutputSettings {
        format: cli::Format::Human,
        progress: progress.progress,
        color: progress.color,
        quiet: progress.quiet,
        verbose: progress.verbose,
        journal: true,
    }
}

/// The images given by name, then the others that manifests name, and what to warn about.
fn images(
    given: &[String],
    named: &ManifestArgs,
    ambient: &Environment,
) -> Result<(Vec<Image>, Vec<String>)> {
    let mut images = given_images(given, ambient)?;
    if named.manifests.is_empty() {
        return Ok((images, Vec::new()));
    }
    let found = manifest_images(&named.manifests, named.images_strict, ambient)?;
    for named in found.images {
        if !images.contains(&named.image) {
            images.push(named.image);
        }
    }
    if images.is_empty() {
        bail!(
            "the manifests name no image that a node pulls for certain:\n  {}",
            found.warnings.join("\n  ")
        );
    }
    Ok((images, found.warnings))
}

fn given_images(given: &[String], ambient: &Environment) -> Result<Vec<Image>> {
    let mut images = Vec::with_capacity(given.len());
    for text in given {
        is_no_inventory(text, ambient)?;
        let image: Image = text.parse()?;
        if images.contains(&image) {
            bail!("the image {image} is named twice");
        }
        images.push(image);
    }
    Ok(images)
}

/// An inventory is given with `-i`. Many a file name could be an image's, too.
fn is_no_inventory(text: &str, ambient: &Environment) -> Result<()> {
    const ENDINGS: [&str; 7] = ["yml", "yaml", "ini", "json", "toml", "txt", "cfg"];
    let path = ambient.path(Path::new(text));
    let ending = path.extension().and_then(|ending| ending.to_str());
    if ending.is_some_and(|ending| ENDINGS.contains(&ending)) && path.is_file() {
        let text = escape_line(text);
        bail!(
            "{text} is a file, and not an image: an inventory is given with -i {text}, manifests with --manifests {text}"
        );
    }
    Ok(())
}

/// The images that manifests name; `strict` refuses what would be a warning.
///
/// # Errors
/// What is wrong with the manifests, with its place.
pub fn manifest_images(
    files: &[PathBuf],
    strict: bool,
    ambient: &Environment,
) -> Result<ManifestImages> {
    let found = inventory::images(&manifest_paths(files, ambient))?;
    if strict && !found.warnings.is_empty() {
        bail!(
            "the manifests name more than is understood for certain (--images-strict):\n  {}",
            found.warnings.join("\n  ")
        );
    }
    Ok(found)
}

/// Where manifests are; `-` stays standard input.
fn manifest_paths(manifests: &[PathBuf], ambient: &Environment) -> Vec<PathBuf> {
    let path = |path: &PathBuf| match path.as_os_str() == "-" {
        true => path.clone(),
        false => ambient.path(path),
    };
    manifests.iter().map(path).collect()
}

fn one_reader_of_stdin(
    fleet: &FleetArgs,
    manifests: &[PathBuf],
    password_from_stdin: bool,
) -> Result<()> {
    let files = fleet.inventory.iter().chain(manifests);
    let readers = files.filter(|path| path.as_os_str() == "-").count();
    if readers + usize::from(password_from_stdin) > 1 {
        bail!(
            "standard input can be read once: give the inventory, the manifests or the password in another way"
        );
    }
    Ok(())
}

/// The password in the file of an option, or one that is asked for.
fn password(
    question: &str,
    option: &str,
    file: Option<&Path>,
    ambient: &Environment,
) -> Result<Secret> {
    Ok(match file {
        Some(file) => {
            credentials::password_file(&ambient.path(file)).context(option.to_string())?
        }
        None => credentials::prompt(question)?,
    })
}

fn ssh_settings(
    args: &SshArgs,
    fleet: &Fleet,
    dry_run: bool,
    ambient: &Environment,
) -> Result<SshSettings> {
    let file = args.ssh_password_file.as_deref();
    let is_wanted = (args.ask_pass || file.is_some()) && !dry_run;
    let password = is_wanted
        .then(|| password("SSH password: ", "--ssh-password-file", file, ambient))
        .transpose()?;
    let mut jump_passwords = HashMap::new();
    if args.ask_jump_pass && !dry_run {
        for hop in fleet.nodes().iter().flat_map(|node| &node.jump) {
            if let Entry::Vacant(place) = jump_passwords.entry(hop.to_string()) {
                let question = format!("SSH password of the jump host {hop}: ");
                place.insert(credentials::prompt(&question)?);
            }
        }
    }
    Ok(SshSettings {
        host_keys: args.host_keys,
        known_hosts: ambient.paths(&args.known_hosts),
        password,
        jump_passwords,
        connect_timeout: args.connect_timeout,
        keepalive: args.keepalive,
    })
}
