#![doc = include_str!("../README.md")]
//!
//! The oracle is OpenSSH 9.2's own client (`tests/oracle.rs`). Conditions and options of newer releases are taken too:
//! `Match tagged`, `sessiontype`, `command`, `version` and `localnetwork`, `Tag`, `RefuseConnection`, tokens in `User`.

mod algorithms;
mod build;
mod canonical;
mod error;
mod evaluation;
mod expand;
mod files;
mod glob;
mod jump;
mod lexer;
mod matching;
mod pattern;
mod resolved;
mod scalar;
mod system_probe;
mod table;
mod types;
mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use algorithms::{Family, assemble};
pub use error::{ConfigError, Position, Warning};
pub use pattern::{matches as pattern_matches, one_matches};
pub use resolved::{
    AlgorithmList, Canonicalization, Canonicalize, HostKeyChecking, IdentityAgent, KeyFile, Proxy,
    Resolved,
};
pub use system_probe::{LocalEnv, Lookup, System, SystemProbe};
pub use types::{AddressFamily, JumpHost};

use evaluation::{Evaluation, Values};
use files::{File, Reader, Trust};
use table::Spec;
use value::Value;

/// Which files are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `~/.ssh/config` and then `/etc/ssh/ssh_config`; either may be missing.
    Usual,
    /// One file instead of both, as with `ssh -F FILE`. It must exist.
    Only(PathBuf),
    /// No file at all, as with `ssh -F none`.
    Nothing,
    /// These two, with the system's folder for relative includes: for tests.
    Pair {
        /// The operator's file.
        user: PathBuf,
        /// The system's file.
        system: PathBuf,
    },
}

/// What is known of a host before any file is read; it wins over every file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// Another name by which `Host` lines may know the host.
    pub also: Option<String>,
    /// Who logs in.
    pub user: Option<String>,
    /// The server's port.
    pub port: Option<u16>,
    /// Keys to offer first.
    pub identity_files: Vec<String>,
    /// Whether nothing runs there: it is a jump host.
    pub only_forwards: bool,
    /// Hosts to jump through as in `-J`; an empty list forbids jumps.
    pub jump: Option<Vec<JumpHost>>,
    /// Lines of ssh_config as in `-o`: `StrictHostKeyChecking=accept-new`.
    pub options: Vec<String>,
    /// The same from an inventory, after those: what would loosen the check of host keys is left out, with a
    /// warning.
    pub inventory_options: Vec<String>,
}

/// How many hosts one may be reached through: more is a loop.
const MAX_HOPS: usize = 16;

/// The files of ssh_config, read and checked.
pub struct SshConfig {
    ambient: LocalEnv,
    system_probe: Box<dyn SystemProbe>,
    files: Vec<Arc<File>>,
    unread: Vec<String>,
}

impl SshConfig {
    /// Reads the files and everything that they include.
    ///
    /// As with `ssh`, a usual file that cannot be read says nothing; [`Self::unread`] names it.
    ///
    /// # Errors
    /// A file that others can write, another one that cannot be read, or a line that is wrong whatever the host.
    pub fn load(
        source: &Source,
        ambient: LocalEnv,
        system_probe: Box<dyn SystemProbe>,
    ) -> Result<Self, ConfigError> {
        let own = Trust {
            own: true,
            check: true,
            usual: true,
        };
        let system = Trust {
            own: false,
            check: false,
            usual: true,
        };
        let wanted: Vec<(PathBuf, Trust)> = match source {
            Source::Usual => vec![
                (ambient.home.join(".ssh/config"), own),
                (PathBuf::from("/etc/ssh/ssh_config"), system),
            ],
            Source::Only(path) => vec![(
                path.clone(),
                Trust {
                    check: false,
                    usual: false,
                    ..own
                },
            )],
            Source::Nothing => Vec::new(),
            Source::Pair {
                user,
                system: other,
            } => vec![(user.clone(), own), (other.clone(), system)],
        };
        let system_folder = match source {
            Source::Pair { system, .. } => system.parent().unwrap_or(Path::new("/")).to_path_buf(),
            _ => PathBuf::from("/etc/ssh"),
        };
        let mut reader = Reader::new(&ambient, &*system_probe, system_folder);
        let mut files = Vec::new();
        for (path, trust) in wanted {
            match reader.read(&path, trust, 0)? {
                Some(file) => files.push(file),
                None if !trust.usual => {
                    return Err(ConfigError::file(&path, "there is no such file"));
                }
                None => {}
            }
        }
        let unread = reader.unread;
        Ok(Self {
            ambient,
            system_probe,
            files,
            unread,
        })
    }

    /// The usual files that are there and cannot be opened, one sentence each.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// What the configuration says of a host. May block: `Match exec` runs a command, CanonicalizeHostname looks
    /// up names.
    ///
    /// # Errors
    /// Where `ssh` would refuse: an unknown option or token, an unset variable, a name that must be found and is
    /// not, a host name or user that could be taken for shell code.
    pub fn resolve(&self, host: &str, given: &CommandLine) -> Result<Resolved, ConfigError> {
        safe_host(host).map_err(|what| ConfigError::host(host, what))?;
        if let Some(user) = &given.user {
            safe_user(user).map_err(|what| ConfigError::host(host, what))?;
        }
        let mut values = self.given(given)?;
        let also = given.also.as_deref();
        let names = [host, host];
        let wants_second = self.pass(&mut values, names, also, given.only_forwards, false)?;
        let mut name = match values.get("hostname") {
            Some(entry) => {
                let written = values.text("hostname").unwrap_or(host);
                self.host_name(written, host)
                    .map_err(|what| ConfigError::line(&entry.place, format!("hostname: {what}")))?
            }
            None => host.to_string(),
        };
        let rules = build::canonicalization(&values);
        name = canonical::name(
            &name,
            &rules,
            values.direct(),
            build::address_family(&values),
            &*self.system_probe,
        )
        .map_err(|what| ConfigError::host(host, what))?;
        if wants_second || rules.mode != Canonicalize::No {
            values.put_hostname(&name, spec("hostname")?);
            // What the first reading set stays; blocks that fit the new name add to it.
            let names = [&name, host];
            self.pass(&mut values, names, also, given.only_forwards, true)?;
        }
        build::Builder {
            values: &values,
            ambient: &self.ambient,
            system_probe: &*self.system_probe,
            given: host,
            host_name: &name,
            first_rules: rules,
        }
        .build()
    }

    /// The hosts on the way to a host, first hop first, and the host itself last: each as its own ssh_config says.
    ///
    /// A list of several hosts in ProxyJump is taken as it is; a single host is reached as its own ssh_config says.
    /// As with `ssh`, what is given for the host does not hold for the hops.
    ///
    /// # Errors
    /// As [`Self::resolve`], and a way that never ends.
    pub fn route(&self, host: &str, given: &CommandLine) -> Result<Vec<Resolved>, ConfigError> {
        let node = self.resolve(host, given)?;
        let mut route = match &node.proxy {
            Proxy::Jump(hosts) => self.hops(host, hosts)?,
            Proxy::Direct | Proxy::Command { .. } => Vec::new(),
        };
        route.push(node);
        Ok(route)
    }

    /// The hosts that [`Self::route`] goes through to a host that is reached through these: for many hosts behind the
    /// same ones they need to be asked for only once.
    ///
    /// # Errors
    /// As [`Self::route`].
    pub fn hops(&self, host: &str, chain: &[JumpHost]) -> Result<Vec<Resolved>, ConfigError> {
        let mut chain = chain.to_vec();
        // The last is the hop nearest to us so far; they are turned round at the end.
        let mut route = Vec::new();
        while let Some(last) = chain.pop() {
            if route.len() >= MAX_HOPS {
                return Err(ConfigError::host(
                    host,
                    format!(
                        "more than {MAX_HOPS} hosts would be jumped through: ProxyJump goes in circles"
                    ),
                ));
            }
            let given = CommandLine {
                user: last.user,
                port: last.port,
                only_forwards: true,
                jump: (!chain.is_empty()).then_some(chain),
                ..CommandLine::default()
            };
            let hop = self.resolve(&last.host, &given)?;
            chain = match &hop.proxy {
                Proxy::Jump(hosts) => hosts.clone(),
                Proxy::Direct | Proxy::Command { .. } => Vec::new(),
            };
            route.push(hop);
        }
        route.reverse();
        Ok(route)
    }

    fn host_name(&self, written: &str, host: &str) -> Result<String, String> {
        let tokens = expand::Tokens {
            ambient: &self.ambient,
            host,
            original: host,
            alias: None,
            key_name: host,
            port: evaluation::DEFAULT_PORT,
            user: "",
            jump: "",
        };
        tokens.expand(written, expand::HOSTNAME)
    }

    fn given(&self, given: &CommandLine) -> Result<Values, ConfigError> {
        let mut values = Values::default();
        let mut set =
            |name: &str, value: Value| values.set(spec(name)?, &value, Position::given(), true);
        if let Some(user) = &given.user {
            set("user", Value::Text(user.clone()))?;
        }
        if let Some(port) = given.port {
            set("port", Value::Number(u32::from(port)))?;
        }
        if let Some(jump) = &given.jump {
            set(
                "proxyjump",
                Value::Jump((!jump.is_empty()).then(|| jump.clone())),
            )?;
        }
        for file in &given.identity_files {
            set("identityfile", Value::Text(file.clone()))?;
        }
        for option in &given.options {
            let (spec, value) = files::option(option, &self.ambient)?;
            values.set(spec, &value, Position::given(), true)?;
        }
        for option in &given.inventory_options {
            let (spec, value) = files::option(option, &self.ambient)?;
            if loosens(spec, &value) {
                values.left_out(Position::given(), spec.name, LOOSENS);
            } else {
                values.set(spec, &value, Position::given(), true)?;
            }
        }
        Ok(values)
    }

    /// Reads all files for the host; whether a second reading is wanted.
    fn pass(
        &self,
        values: &mut Values,
        [host, original]: [&str; 2],
        also: Option<&str>,
        only_forwards: bool,
        second: bool,
    ) -> Result<bool, ConfigError> {
        let mut pass = Evaluation {
            ambient: &self.ambient,
            system_probe: &*self.system_probe,
            host,
            original,
            also,
            only_forwards,
            second,
            wants_second: false,
            values,
        };
        for file in &self.files {
            pass.file(file)?;
        }
        Ok(pass.wants_second)
    }
}

/// What becomes of an option in an inventory that [`loosens`] the check of host keys.
const LOOSENS: &str = "an inventory cannot loosen the check of host keys: this is ignored; \
    use --host-keys, --known-hosts or ssh_config";

/// Whether an option decides whose host keys are trusted, other than strictly.
fn loosens(spec: &Spec, value: &Value) -> bool {
    match spec.name {
        // The operator cannot be asked: to ask is to refuse.
        "stricthostkeychecking" => {
            !matches!(value, Value::Text(word) if word == "yes" || word == "ask")
        }
        "userknownhostsfile" | "globalknownhostsfile" | "revokedhostkeys" | "requiredrsasize"
        // Another host's key would do.
        | "hostkeyalias" => true,
        _ => false,
    }
}

/// An option that this program itself names.
fn spec(name: &str) -> Result<&'static Spec, ConfigError> {
    table::find(name).ok_or_else(|| {
        ConfigError::line(
            &Position::given(),
            format!("\"{name}\" is not an option of ssh"),
        )
    })
}

/// Host names become part of commands (ProxyCommand, `Match exec`): refused as `ssh` refuses them.
fn safe_host(host: &str) -> Result<(), String> {
    let wrong = |c: char| "'`\"$\\;&<>|(){}".contains(c) || c.is_whitespace() || c.is_control();
    if host.is_empty() || host.starts_with('-') || host.contains(wrong) {
        return Err("the host name is empty, begins with a hyphen or holds characters that no host name has".to_string());
    }
    Ok(())
}

/// The same for user names from outside; those in files are the operator's own.
fn safe_user(user: &str) -> Result<(), String> {
    let after_blank = user
        .split_inclusive(char::is_whitespace)
        .skip(1)
        .any(|part| part.starts_with('-'));
    let wrong = |c: char| "'`\";&<>|(){}".contains(c) || c.is_control();
    if user.is_empty()
        || user.starts_with('-')
        || user.ends_with('\\')
        || after_blank
        || user.contains(wrong)
    {
        return Err(format!(
            "the user name \"{user}\" is empty or holds characters that no user name has"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
