//! Turns the values that were found into types, with the defaults of `ssh` and all tokens replaced.

use std::path::PathBuf;
use std::time::Duration;

use super::algorithms::{self, Family};
use super::error::ConfigError;
use super::evaluation::{Entry, Values};
use super::expand::{self, Tokens};
use super::resolved::{
    AlgorithmList, Canonicalization, Canonicalize, HostKeyChecking, IdentityAgent, KeyFile, Proxy,
    Resolved,
};
use super::system_probe::{LocalEnv, SystemProbe};
use super::types::{AddressFamily, JumpHost};
use super::value::Value;

/// The keys that `ssh` tries where no IdentityFile is set.
const DEFAULT_IDENTITIES: [&str; 7] = [
    "~/.ssh/id_rsa",
    "~/.ssh/id_ecdsa",
    "~/.ssh/id_ecdsa_sk",
    "~/.ssh/id_ed25519",
    "~/.ssh/id_ed25519_sk",
    "~/.ssh/id_xmss",
    "~/.ssh/id_dsa",
];
const USER_KNOWN_HOSTS: [&str; 2] = ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"];
const GLOBAL_KNOWN_HOSTS: [&str; 2] = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];

/// What makes a name canonical, as far as it is set.
pub(super) fn canonicalization(values: &Values) -> Canonicalization {
    let rules = match values.get("canonicalizepermittedcnames") {
        Some(Entry {
            value: Value::Pairs(pairs),
            ..
        }) => pairs.clone(),
        _ => Vec::new(),
    };
    Canonicalization {
        mode: match values.text("canonicalizehostname") {
            Some("yes") => Canonicalize::Yes,
            Some("always") => Canonicalize::Always,
            _ => Canonicalize::No,
        },
        domains: values.words("canonicaldomains").to_vec(),
        max_dots: values.number("canonicalizemaxdots").unwrap_or(1),
        fallback_local: flag(values, "canonicalizefallbacklocal", true),
        permitted_cnames: rules,
    }
}

pub(super) fn address_family(values: &Values) -> AddressFamily {
    match values.text("addressfamily") {
        Some("inet") => AddressFamily::Inet,
        Some("inet6") => AddressFamily::Inet6,
        _ => AddressFamily::Any,
    }
}

fn flag(values: &Values, name: &str, default: bool) -> bool {
    values.text(name).map_or(default, |word| word == "yes")
}

/// A text that `none` unsets.
fn unless_none<'a>(values: &'a Values, name: &str) -> Option<(&'a str, &'a Entry)> {
    let text = values.text(name)?;
    (!text.eq_ignore_ascii_case("none")).then_some((text, values.get(name)?))
}

/// What the values are built for.
pub(super) struct Builder<'a> {
    pub values: &'a Values,
    pub ambient: &'a LocalEnv,
    pub system_probe: &'a dyn SystemProbe,
    /// As given.
    pub given: &'a str,
    /// Final.
    pub host_name: &'a str,
    /// What made the name canonical: a second reading does not change how that was done.
    pub first_rules: Canonicalization,
}

impl Builder<'_> {
    /// Everything in its type.
    pub fn build(&self) -> Result<Resolved, ConfigError> {
        let values = self.values;
        let word = |name: &str, default: &str| values.text(name).unwrap_or(default).to_string();
        let text = |name: &str| values.text(name).map(str::to_string);
        let user = self.user();
        let alias = values.text("hostkeyalias").map(str::to_ascii_lowercase);
        let written_jump = values.jump().unwrap_or_default().last();
        let tokens = Tokens {
            ambient: self.ambient,
            host: self.host_name,
            original: self.given,
            alias: alias.as_deref(),
            key_name: self.given,
            port: values.port(),
            user: &user,
            jump: written_jump.map_or("", |jump| &jump.host),
        };
        let batch_mode = flag(values, "batchmode", false);
        let connection_attempts = values.number("connectionattempts").unwrap_or(1);
        if connection_attempts == 0 {
            return Err(self.at(
                values.get("connectionattempts"),
                "connectionattempts must be at least 1",
            ));
        }
        if let Some((message, entry)) = unless_none(values, "refuseconnection") {
            return Err(self.at(Some(entry), format!("RefuseConnection: {message}")));
        }
        Ok(Resolved {
            given: self.given.to_string(),
            host_name: self.host_name.to_string(),
            port: values.port(),
            identity_files: self.identities(&tokens)?,
            identities_only: flag(values, "identitiesonly", false),
            identity_agent: self.agent(&tokens)?,
            certificate_files: self.key_files("certificatefile", &tokens)?,
            add_keys_to_agent: word("addkeystoagent", "no"),
            proxy: self.proxy(&tokens)?,
            user_known_hosts_files: self.known_hosts(
                "userknownhostsfile",
                &USER_KNOWN_HOSTS,
                Some(&tokens),
            )?,
            // In the system's files only `~` has a meaning.
            global_known_hosts_files: self.known_hosts(
                "globalknownhostsfile",
                &GLOBAL_KNOWN_HOSTS,
                None,
            )?,
            host_key_checking: match values.text("stricthostkeychecking") {
                Some("yes") => HostKeyChecking::Strict,
                Some("accept-new") => HostKeyChecking::AcceptNew,
                Some("off") => HostKeyChecking::Off,
                _ => HostKeyChecking::Ask,
            },
            revoked_host_keys: match unless_none(values, "revokedhostkeys") {
                Some((path, entry)) => Some(
                    expand::home(path, &self.ambient.home, self.system_probe)
                        .map_err(|what| self.at(Some(entry), what))?
                        .into(),
                ),
                None => None,
            },
            hash_known_hosts: flag(values, "hashknownhosts", false),
            update_host_keys: self.update_host_keys(),
            check_host_ip: flag(values, "checkhostip", false),
            verify_host_key_dns: word("verifyhostkeydns", "no"),
            known_hosts_command: unless_none(values, "knownhostscommand")
                .map(|(text, _)| text.to_string()),
            required_rsa_size: values.number("requiredrsasize").unwrap_or(1024),
            host_key_algorithms: self.algorithms("hostkeyalgorithms", Family::Key)?,
            kex_algorithms: self.algorithms("kexalgorithms", Family::Kex)?,
            ciphers: self.algorithms("ciphers", Family::Cipher)?,
            macs: self.algorithms("macs", Family::Mac)?,
            pubkey_accepted_algorithms: self.algorithms("pubkeyacceptedalgorithms", Family::Key)?,
            ca_signature_algorithms: self.algorithms("casignaturealgorithms", Family::Signature)?,
            hostbased_accepted_algorithms: self
                .algorithms("hostbasedacceptedalgorithms", Family::Key)?,
            preferred_authentications: values
                .text("preferredauthentications")
                .map(|list| list.split(',').map(str::to_string).collect()),
            pubkey_authentication: word("pubkeyauthentication", "yes"),
            password_authentication: flag(values, "passwordauthentication", true),
            kbd_interactive_authentication: flag(values, "kbdinteractiveauthentication", true),
            hostbased_authentication: flag(values, "hostbasedauthentication", false),
            gssapi_authentication: flag(values, "gssapiauthentication", false),
            number_of_password_prompts: values.number("numberofpasswordprompts").unwrap_or(3),
            batch_mode,
            connect_timeout: values
                .number("connecttimeout")
                .filter(|seconds| *seconds > 0)
                .map(|seconds| Duration::from_secs(u64::from(seconds))),
            connection_attempts,
            server_alive_interval: Duration::from_secs(u64::from(
                // Debian's ssh watches connections that have no other watcher.
                values
                    .number("serveraliveinterval")
                    .unwrap_or(if batch_mode { 300 } else { 0 }),
            )),
            server_alive_count_max: values.number("serveralivecountmax").unwrap_or(3),
            tcp_keep_alive: flag(values, "tcpkeepalive", true),
            address_family: address_family(values),
            bind_address: text("bindaddress"),
            bind_interface: text("bindinterface"),
            canonicalization: {
                let now = canonicalization(values);
                Canonicalization {
                    domains: now.domains,
                    permitted_cnames: now.permitted_cnames,
                    ..self.first_rules.clone()
                }
            },
            compression: flag(values, "compression", false),
            forward_agent: word("forwardagent", "no"),
            request_tty: word("requesttty", "auto"),
            remote_command: match unless_none(values, "remotecommand") {
                Some((command, entry)) => Some(
                    tokens
                        .expand(command, expand::USUAL)
                        .map_err(|what| self.at(Some(entry), what))?,
                ),
                None => None,
            },
            control_master: word("controlmaster", "no"),
            control_path: match unless_none(values, "controlpath") {
                Some((path, entry)) => Some(self.path(path, &tokens, entry)?),
                None => None,
            },
            send_env: values
                .several("sendenv")
                .iter()
                .map(|word| word.text.clone())
                .collect(),
            set_env: values.words("setenv").to_vec(),
            tag: text("tag"),
            warnings: values.warnings(),
            host_key_alias: alias.clone(),
            user,
        })
    }

    /// Who logs in. OpenSSH 10 fills tokens and variables in; text that it would refuse is a name as older ones take
    /// it.
    fn user(&self) -> String {
        let Some(written) = self.values.text("user") else {
            return self.ambient.user.clone();
        };
        let tokens = Tokens {
            ambient: self.ambient,
            host: self.host_name,
            original: self.given,
            alias: self.values.text("hostkeyalias"),
            key_name: self.given,
            port: self.values.port(),
            user: "",
            jump: "",
        };
        tokens
            .expand_user(written)
            .unwrap_or_else(|_| written.to_string())
    }

    /// An error at the line where a value came from.
    fn at(&self, entry: Option<&Entry>, what: impl AsRef<str>) -> ConfigError {
        match entry {
            Some(entry) => ConfigError::line(
                &entry.place,
                format!("{}: {}", entry.spec.name, what.as_ref()),
            ),
            None => ConfigError::host(self.given, what),
        }
    }

    fn path(&self, text: &str, tokens: &Tokens<'_>, entry: &Entry) -> Result<PathBuf, ConfigError> {
        tokens
            .path(text, self.system_probe)
            .map(PathBuf::from)
            .map_err(|what| self.at(Some(entry), what))
    }

    fn key_files(&self, name: &str, tokens: &Tokens<'_>) -> Result<Vec<KeyFile>, ConfigError> {
        self.values
            .several(name)
            .iter()
            .filter(|word| !word.text.eq_ignore_ascii_case("none"))
            .map(|word| {
                let path = tokens
                    .path(&word.text, self.system_probe)
                    .map_err(|what| ConfigError::line(&word.place, format!("{name}: {what}")))?;
                Ok(KeyFile {
                    written: word.text.clone(),
                    path: path.into(),
                    named: true,
                })
            })
            .collect()
    }

    fn identities(&self, tokens: &Tokens<'_>) -> Result<Vec<KeyFile>, ConfigError> {
        if !self.values.several("identityfile").is_empty() {
            return self.key_files("identityfile", tokens);
        }
        DEFAULT_IDENTITIES
            .iter()
            .map(|written| {
                let path = expand::home(written, &self.ambient.home, self.system_probe)
                    .map_err(|what| ConfigError::host(self.given, what))?;
                Ok(KeyFile {
                    written: (*written).to_string(),
                    path: path.into(),
                    named: false,
                })
            })
            .collect()
    }

    fn agent(&self, tokens: &Tokens<'_>) -> Result<IdentityAgent, ConfigError> {
        let Some(entry) = self.values.get("identityagent") else {
            return Ok(IdentityAgent::Unset);
        };
        let written = self.values.text("identityagent").unwrap_or_default();
        let path = self.path(written, tokens, entry)?;
        let text = path.to_string_lossy();
        Ok(match (text.as_ref(), text.strip_prefix('$')) {
            ("none", _) => IdentityAgent::Disabled,
            ("SSH_AUTH_SOCK", _) => IdentityAgent::Variable("SSH_AUTH_SOCK".to_string()),
            (_, Some(name)) => IdentityAgent::Variable(name.to_string()),
            _ => IdentityAgent::Socket(path),
        })
    }

    fn proxy(&self, tokens: &Tokens<'_>) -> Result<Proxy, ConfigError> {
        if let Some(hosts) = self.values.jump() {
            self.refuse_loop(hosts, tokens)?;
            // `ssh` makes a ProxyCommand of them, and so fills its tokens in.
            let entry = self.values.get("proxyjump");
            let filled = |text: &str| {
                let filled = tokens.expand(text, expand::PROXY);
                filled.map_err(|what| self.at(entry, what))
            };
            let hosts = hosts.iter().map(|host| {
                Ok(JumpHost {
                    user: host.user.as_deref().map(filled).transpose()?,
                    host: filled(&host.host)?,
                    port: host.port,
                })
            });
            return hosts.collect::<Result<_, _>>().map(Proxy::Jump);
        }
        let Some((written, entry)) = unless_none(self.values, "proxycommand") else {
            return Ok(Proxy::Direct);
        };
        let command = tokens
            .expand(written, expand::PROXY)
            .map_err(|what| self.at(Some(entry), what))?;
        Ok(Proxy::Command {
            written: written.to_string(),
            command,
        })
    }

    /// A host that is reached through itself.
    fn refuse_loop(&self, hosts: &[JumpHost], tokens: &Tokens<'_>) -> Result<(), ConfigError> {
        let Some(last) = hosts.last() else {
            return Ok(());
        };
        let same = last.host == self.host_name
            && last.port.unwrap_or(super::evaluation::DEFAULT_PORT) == tokens.port
            && last.user.as_deref().unwrap_or(tokens.user) == tokens.user;
        if same {
            return Err(self.at(
                self.values.get("proxyjump"),
                format!("{} would be reached through itself", last.host),
            ));
        }
        Ok(())
    }

    fn known_hosts(
        &self,
        name: &str,
        defaults: &[&str],
        tokens: Option<&Tokens<'_>>,
    ) -> Result<Vec<PathBuf>, ConfigError> {
        let entry = self.values.get(name);
        let written = self.values.words(name);
        let words: Vec<&str> = match entry {
            Some(_) => written.iter().map(String::as_str).collect(),
            None => defaults.to_vec(),
        };
        words
            .into_iter()
            .filter(|word| !word.eq_ignore_ascii_case("none"))
            .map(|word| match tokens {
                Some(tokens) => tokens
                    .path(word, self.system_probe)
                    .map(PathBuf::from)
                    .map_err(|what| self.at(entry, what)),
                None => expand::home(word, &self.ambient.home, self.system_probe)
                    .map(PathBuf::from)
                    .map_err(|what| self.at(entry, what)),
            })
            .collect()
    }

    /// The default depends on who verifies host keys otherwise; `ask` needs a terminal.
    fn update_host_keys(&self) -> String {
        let values = self.values;
        let files = values.words("userknownhostsfile");
        let usual = files.is_empty() || files == [USER_KNOWN_HOSTS[0]];
        let by_default = if values
            .text("verifyhostkeydns")
            .is_none_or(|word| word == "no")
            && usual
        {
            "yes"
        } else {
            "no"
        };
        let wanted = values.text("updatehostkeys").unwrap_or(by_default);
        let shared = unless_none(values, "controlpath").is_some()
            && values
                .text("controlpersist")
                .is_some_and(|word| word != "no" && word != "false");
        let nobody_to_ask = shared
            || unless_none(values, "remotecommand").is_some()
            || values.text("requesttty") == Some("no")
            || matches!(values.text("loglevel"), Some("quiet" | "fatal" | "error"));
        if wanted == "ask" && nobody_to_ask {
            return "no".to_string();
        }
        wanted.to_string()
    }

    fn algorithms(&self, name: &str, family: Family) -> Result<AlgorithmList, ConfigError> {
        let written = self.values.text(name);
        let names = algorithms::assemble(
            written.unwrap_or_default(),
            family.defaults(),
            family.known(),
        )
        .map_err(|what| self.at(self.values.get(name), what))?;
        Ok(AlgorithmList {
            written: written.map(str::to_string),
            names,
        })
    }
}
