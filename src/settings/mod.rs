//! What the operator asked for, checked: arguments, environment, files and prompts become settings.
//!
//! Everything that can be found wrong without a connection is found here, and everything that has to
//! be asked is asked here, last: nobody types a password for a run that a typo stops.

mod ambient;
mod policy;
mod reports;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use ambient::Ambient;
pub use reports::report_files;

use crate::cli::{self, FleetArgs, LoginArgs, RegistryArgs, RuntimeArgs, SshArgs};
use crate::credentials::{self, LoginSources, PullSecret, PullSecretContent};
use crate::inventory::{
    self, AddressType, Background, KubernetesQuery, NodeSettings, RuntimeChoice, Selection, Source,
};
use crate::model::{
    Fleet, FoundLogin, Image, LoginSource, Plan, PlannedImage, Preflight, PullWhen, RegistryLogin,
    RuntimeKind, Secret, Work,
};

/// A run that the operator asked for: `pull`, `check`, `exec` or `nodes --probe`.
#[derive(Debug)]
pub struct RunSettings {
    /// What is done, on which nodes, how.
    pub plan: Arc<Plan>,
    /// For `nodes`: how the fleet and what was found is printed.
    pub nodes: Option<cli::NodesFormat>,
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
}

/// What the command line says about reaching nodes; `None` leaves it to ssh_config.
#[derive(Debug, Clone)]
pub struct SshSettings {
    /// What to do about an unknown host key.
    pub host_keys: Option<cli::HostKeysChoice>,
    /// The only files of known host keys that count; new keys go to the first.
    pub known_hosts: Vec<PathBuf>,
    /// The password for all nodes.
    pub password: Option<Secret>,
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
    pub progress: cli::ProgressChoice,
    /// When to use colour.
    pub color: cli::ColorChoice,
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
    ambient: &Ambient,
    background: Background<'_>,
) -> Result<RunSettings> {
    one_reader_of_stdin(
        &args.reach.fleet,
        &args.manifests,
        args.registry.registry_password_stdin,
    )?;
    let reports = report_files(&args.course.output.report, ambient)?;
    let images = images(&args.images, &args.manifests, ambient)?;
    let mut policy = policy::policy(&args.course.policy)?;
    policy.pull_timeout = Some(args.pull_timeout).filter(|limit| !limit.is_zero());
    policy.stall_timeout = Some(args.stall_timeout).filter(|limit| !limit.is_zero());
    policy.min_rate = args.min_rate;
    if policy.min_rate.is_some() && policy.stall_timeout.is_none() {
        bail!("--min-rate is measured over --stall-timeout, which is switched off");
    }
    policy.lease = args.lease;
    policy.disk_credentials = args.registry.allow_disk_credentials;
    policy.per_registry = args.per_registry.map(|most| most as usize);
    policy.preflight = args.preflight.then_some(Preflight {
        unpack_factor: args.unpack_factor,
    });
    policy.pin_digest = args.pin_digest;
    // What a node already holds under a tag may be anything: only the registry knows.
    policy.pull = if args.pin_digest {
        PullWhen::Always
    } else {
        policy::pull_when(args.pull)
    };
    policy.platform = args.platform.as_deref().map(policy::platform).transpose()?;
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
    let (sources, found) = logins(
        &args.registry,
        &args.reach.fleet,
        &images,
        args.course.dry_run,
        ambient,
    )?;
    let planned = images
        .into_iter()
        .zip(found)
        .map(|(image, login)| PlannedImage { image, login })
        .collect();
    policy.canary = policy::canary(args.course.policy.canary, fleet.nodes().len());
    let plan = Plan {
        fleet,
        work: Work::Pull(planned),
        policy,
        held: HashMap::new(),
        contents: Vec::new(),
        mark: mark(),
    };
    Ok(RunSettings {
        login_sources: sources,
        reports,
        ..course(plan, &args.reach.ssh, &args.course, ambient)?
    })
}

/// `check`.
///
/// # Errors
/// As for [`pull`].
pub fn check(
    args: &cli::CheckArgs,
    ambient: &Ambient,
    background: Background<'_>,
) -> Result<RunSettings> {
    one_reader_of_stdin(&args.reach.fleet, &args.manifests, false)?;
    let reports = report_files(&args.course.output.report, ambient)?;
    let images = images(&args.images, &args.manifests, ambient)?;
    let policy = policy::policy(&args.course.policy)?;
    let fleet = fleet(
        &args.reach.fleet,
        &args.reach.ssh.login,
        Some(&args.runtime),
        ambient,
        background,
    )?;
    let plan = Plan {
        fleet,
        work: Work::Check(images),
        policy,
        held: HashMap::new(),
        contents: Vec::new(),
        mark: mark(),
    };
    Ok(RunSettings {
        reports,
        ..course(plan, &args.reach.ssh, &args.course, ambient)?
    })
}

/// `exec`.
///
/// # Errors
/// As for [`pull`].
pub fn exec(
    args: &cli::ExecArgs,
    ambient: &Ambient,
    background: Background<'_>,
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
    let plan = Plan {
        fleet,
        work: Work::Exec(args.command.clone()),
        policy,
        held: HashMap::new(),
        contents: Vec::new(),
        mark: mark(),
    };
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
    ambient: &Ambient,
    background: Background<'_>,
) -> Result<Fleet> {
    fleet(
        &args.reach.fleet,
        &args.reach.ssh.login,
        Some(&args.runtime),
        ambient,
        background,
    )
}

/// `nodes --probe`.
///
/// # Errors
/// As for [`pull`].
pub fn probe(
    args: &cli::NodesArgs,
    ambient: &Ambient,
    background: Background<'_>,
) -> Result<RunSettings> {
    let images = images(&args.images, &[], ambient)?;
    let plan = Plan {
        fleet: nodes(args, ambient, background)?,
        work: Work::Probe(images),
        policy: policy::policy(&args.policy)?,
        held: HashMap::new(),
        contents: Vec::new(),
        mark: mark(),
    };
    let output = OutputSettings {
        journal: false,
        ..output(&args.progress)
    };
    Ok(RunSettings {
        nodes: Some(args.output),
        ..run(plan, &args.reach.ssh, false, output, ambient)?
    })
}

/// A name for the run's pulls on nodes: others of the same node see it, so it tells nothing.
fn mark() -> String {
    format!("{:032x}", fastrand::u128(..))
}

fn run(
    mut plan: Plan,
    ssh: &SshArgs,
    dry_run: bool,
    output: OutputSettings,
    ambient: &Ambient,
) -> Result<RunSettings> {
    let ssh_settings = ssh_settings(ssh, dry_run, ambient)?;
    if ssh.login.ask_become_pass && !dry_run {
        plan.fleet
            .set_become_password(&credentials::prompt("sudo password: ")?);
    }
    Ok(RunSettings {
        plan: Arc::new(plan),
        nodes: None,
        dry_run,
        login_sources: LoginSources::default(),
        ssh: ssh_settings,
        output,
        reports: Vec::new(),
    })
}

/// A run of `pull`, `check` or `exec`.
fn course(
    plan: Plan,
    ssh: &SshArgs,
    course: &cli::CourseArgs,
    ambient: &Ambient,
) -> Result<RunSettings> {
    let output = OutputSettings {
        format: course.output.output,
        journal: !course.output.no_journal,
        ..output(&course.output.progress)
    };
    run(plan, ssh, course.dry_run, output, ambient)
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

/// The images given by name, then those that manifests name besides.
fn images(given: &[String], manifests: &[PathBuf], ambient: &Ambient) -> Result<Vec<Image>> {
    let mut images = Vec::with_capacity(given.len());
    for text in given {
        let image: Image = text.parse()?;
        if images.contains(&image) {
            bail!("the image {image} is named twice");
        }
        images.push(image);
    }
    if !manifests.is_empty() {
        let named = inventory::images(&manifest_paths(manifests, ambient))?;
        for named in named {
            if !images.contains(&named.image) {
                images.push(named.image);
            }
        }
    }
    Ok(images)
}

/// Where manifests are; `-` stays standard input.
pub fn manifest_paths(manifests: &[PathBuf], ambient: &Ambient) -> Vec<PathBuf> {
    let path = |path: &PathBuf| match path.as_os_str() == "-" {
        true => path.clone(),
        false => ambient.path(path),
    };
    manifests.iter().map(path).collect()
}

fn fleet(
    args: &FleetArgs,
    login: &LoginArgs,
    runtime: Option<&RuntimeArgs>,
    ambient: &Ambient,
    background: Background<'_>,
) -> Result<Fleet> {
    let from_files = args.inventory.iter().map(|path| {
        if path.as_os_str() == "-" {
            Source::Stdin
        } else {
            Source::File(ambient.path(path))
        }
    });
    let from_expressions = args.hosts.iter().cloned().map(Source::Hosts);
    let from_kubernetes = args
        .kube
        .then(|| Source::Kubernetes(kubernetes(args, ambient)));
    let sources: Vec<Source> = from_files
        .chain(from_expressions)
        .chain(from_kubernetes)
        .collect();
    if sources.is_empty() {
        bail!(
            "no nodes: name an inventory with -i FILE, hosts with -H EXPR, or a cluster with --kube"
        );
    }
    let strongest = command_line_node(login, runtime, ambient)?;
    let selection = Selection {
        limit: args.limit.clone(),
        exclude: args.exclude.clone(),
    };
    Ok(inventory::load_selected(
        &sources, &selection, &strongest, background,
    )?)
}

fn kubernetes(args: &FleetArgs, ambient: &Ambient) -> KubernetesQuery {
    KubernetesQuery {
        kubeconfig: args.kubeconfig.as_deref().map(|path| ambient.path(path)),
        context: args.context.clone(),
        selector: args.selector.clone(),
        field_selector: args.field_selector.clone(),
        include_control_plane: args.include_control_plane,
        address_type: match args.address_type {
            cli::AddressTypeChoice::InternalIp => AddressType::InternalIp,
            cli::AddressTypeChoice::ExternalIp => AddressType::ExternalIp,
            cli::AddressTypeChoice::Hostname => AddressType::Hostname,
            cli::AddressTypeChoice::InternalDns => AddressType::InternalDns,
            cli::AddressTypeChoice::ExternalDns => AddressType::ExternalDns,
        },
        ready_only: args.ready_only,
        schedulable_only: args.schedulable_only,
    }
}

fn command_line_node(
    login: &LoginArgs,
    runtime: Option<&RuntimeArgs>,
    ambient: &Ambient,
) -> Result<NodeSettings> {
    let jump = login.jump.as_deref().map(inventory::parse_jump).transpose();
    let jump = jump.map_err(anyhow::Error::msg).context("--jump")?;
    if let Some(user) = &login.user {
        inventory::check_user(user)
            .map_err(anyhow::Error::msg)
            .context("--user")?;
    }
    let endpoint = runtime.and_then(|args| args.runtime_endpoint.as_deref());
    let endpoint = endpoint
        .map(inventory::parse_endpoint)
        .transpose()
        .map_err(anyhow::Error::msg)
        .context("--runtime-endpoint")?;
    Ok(NodeSettings {
        user: login.user.clone(),
        port: login.port,
        identities: (!login.identity.is_empty()).then(|| ambient.paths(&login.identity)),
        jump,
        runtime: runtime
            .and_then(|args| args.runtime)
            .map(|choice| match choice {
                cli::RuntimeChoice::Auto => RuntimeChoice::Auto,
                cli::RuntimeChoice::Docker => RuntimeChoice::Kind(RuntimeKind::Docker),
                cli::RuntimeChoice::Crictl => RuntimeChoice::Kind(RuntimeKind::Crictl),
            }),
        endpoint,
        become_root: (login.r#become || login.ask_become_pass).then_some(true),
        ..NodeSettings::default()
    })
}

/// crictl has no option for it, so a fleet that is known to use crictl cannot be asked.
fn platform_fits(fleet: &Fleet) -> Result<()> {
    let on_crictl = |node: &&crate::model::Node| node.runtime == Some(RuntimeKind::Crictl);
    match fleet.nodes().iter().find(on_crictl) {
        Some(node) => bail!(
            "--platform works with docker only: {} uses crictl, which always takes the node's own platform",
            node.name
        ),
        None => Ok(()),
    }
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

/// Where logins come from, and what was found there.
fn logins(
    args: &RegistryArgs,
    fleet: &FleetArgs,
    images: &[Image],
    dry_run: bool,
    ambient: &Ambient,
) -> Result<(LoginSources, Vec<Option<FoundLogin>>)> {
    let user = args.registry_user.clone().map(|username| FoundLogin {
        login: RegistryLogin::Password {
            username,
            password: Secret::new(""),
        },
        source: match args.registry_password_stdin {
            true => LoginSource::Stdin,
            false => LoginSource::Prompt,
        },
    });
    let query = kubernetes(fleet, ambient);
    let pull_secrets = args.pull_secret.iter();
    let mut sources = LoginSources {
        user,
        registries: args.registry.clone(),
        pull_secrets: pull_secrets
            .map(|given| pull_secret(given, &query))
            .collect(),
        auth_file: args.auth_file.as_deref().map(|path| ambient.path(path)),
        default_files: credentials::default_auth_files(|name| ambient.variable(name)),
        no_auth: args.no_auth,
    };
    // Everything is looked at once before anybody types a password that a typo would waste.
    let mut logins = credentials::logins(&sources, images)?;
    // The plan shows who logs in where; it needs no password.
    if let Some(user) = sources.user.as_mut().filter(|_| !dry_run) {
        let empty = user.clone();
        if let RegistryLogin::Password { password, .. } = &mut user.login {
            *password = registry_password(args, images)?;
        }
        for login in logins.iter_mut().flatten() {
            if *login == empty {
                *login = user.clone();
            }
        }
    }
    Ok((sources, logins))
}

fn pull_secret(given: &str, query: &KubernetesQuery) -> PullSecret {
    let (name, query) = (given.to_string(), query.clone());
    PullSecret {
        name: name.clone(),
        read: Arc::new(move || {
            let (json, is_bare) =
                inventory::pull_secret(&query, &name).map_err(|error| error.to_string())?;
            Ok(PullSecretContent { json, is_bare })
        }),
    }
}

fn registry_password(args: &RegistryArgs, images: &[Image]) -> Result<Secret> {
    if args.registry_password_stdin {
        return credentials::password_from(std::io::stdin().lock())
            .context("--registry-password-stdin");
    }
    let user = args.registry_user.as_deref().unwrap_or_default();
    let mut registries: Vec<&str> = if args.registry.is_empty() {
        images.iter().map(Image::registry).collect()
    } else {
        args.registry.iter().map(String::as_str).collect()
    };
    registries.dedup();
    let question = format!("Password of {user} for {}: ", registries.join(", "));
    Ok(credentials::prompt(&question)?)
}

fn ssh_settings(args: &SshArgs, dry_run: bool, ambient: &Ambient) -> Result<SshSettings> {
    let ask = args.ask_pass && !dry_run;
    let password = ask
        .then(|| credentials::prompt("SSH password: "))
        .transpose()?;
    Ok(SshSettings {
        host_keys: args.host_keys,
        known_hosts: ambient.paths(&args.known_hosts),
        password,
        connect_timeout: args.connect_timeout,
        keepalive: args.keepalive,
    })
}
