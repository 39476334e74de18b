//! What the configuration depends on outside its files: who and where we are, commands, names, interfaces.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::types::AddressFamily;

/// Who asks, and on which machine: read once, then plain data.
#[derive(Debug, Clone)]
pub struct LocalEnv {
    /// The local user's name, from the password database as `ssh` has it.
    pub user: String,
    /// The local user's number.
    pub uid: u32,
    /// The local user's home directory, from the password database and not from `$HOME`.
    pub home: PathBuf,
    /// This machine's host name, as `gethostname` gives it.
    pub hostname: String,
    /// The environment, for `${NAME}`.
    pub environment: BTreeMap<String, String>,
}

impl LocalEnv {
    /// Asks the system.
    ///
    /// # Errors
    /// A sentence, where the password database does not know the user that runs this process.
    pub fn of_this_process() -> Result<Self, String> {
        let uid = nix::unistd::getuid();
        let known = nix::unistd::User::from_uid(uid)
            .map_err(|error| format!("the password database cannot be read: {error}"))?
            .ok_or_else(|| format!("the password database has no user with the number {uid}"))?;
        let hostname = nix::unistd::gethostname()
            .map_err(|error| format!("the name of this machine cannot be read: {error}"))?;
        Ok(Self {
            user: known.name,
            uid: uid.as_raw(),
            home: known.dir,
            hostname: hostname.to_string_lossy().into_owned(),
            environment: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        })
    }
}

/// What a name server says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The name has an address; its canonical name where the name server gave one.
    Found {
        /// The name that the given one is an alias of.
        canonical: Option<String>,
    },
    /// The name has no address.
    Missing,
}

/// The world beyond the files. Tests script one.
pub trait SystemProbe: Send + Sync {
    /// Runs a `Match exec` command: whether it ended with status 0.
    ///
    /// # Errors
    /// A sentence, where it could not be run or was killed.
    fn run(&self, command: &str) -> Result<bool, String>;

    /// Looks up a name, for CanonicalizeHostname. May block for as long as the resolver does.
    fn lookup(&self, name: &str, family: AddressFamily) -> Lookup;

    /// The addresses of this machine's active interfaces, for `Match localnetwork`.
    fn local_addresses(&self) -> Vec<IpAddr>;

    /// The home directory of a user, for `~user`.
    fn home_of(&self, user: &str) -> Option<PathBuf>;
}

/// The system itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl SystemProbe for System {
    fn run(&self, command: &str) -> Result<bool, String> {
        let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
        // The command's words are the operator's own, from a file that only the operator can write.
        let status = Command::new(&shell)
            .arg("-c")
            .arg(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .map_err(|error| format!("{} cannot be run: {error}", shell.display()))?;
        status
            .code()
            .map(|code| code == 0)
            .ok_or_else(|| format!("the command was ended by a signal ({status})"))
    }

    fn lookup(&self, name: &str, family: AddressFamily) -> Lookup {
        // Canonical names need `getaddrinfo` with AI_CANONNAME, which std does not offer; getent prints it.
        let database = match family {
            AddressFamily::Any => "ahosts",
            AddressFamily::Inet => "ahostsv4",
            AddressFamily::Inet6 => "ahostsv6",
        };
        let asked = Command::new("getent")
            .args([database, name])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        match asked {
            Ok(answer) => getent_answer(answer.status.success(), family, &answer.stdout),
            Err(_) => without_getent(name, family),
        }
    }

    fn local_addresses(&self) -> Vec<IpAddr> {
        use nix::net::if_::InterfaceFlags;
        let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
            return Vec::new();
        };
        interfaces
            .filter(|interface| {
                interface.flags.contains(InterfaceFlags::IFF_UP)
                    && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
            })
            .filter_map(|interface| {
                let address = interface.address?;
                if let Some(v4) = address.as_sockaddr_in() {
                    return Some(IpAddr::V4(v4.ip()));
                }
                address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
            })
            .collect()
    }

    fn home_of(&self, user: &str) -> Option<PathBuf> {
        nix::unistd::User::from_name(user)
            .ok()
            .flatten()
            .map(|known| known.dir)
    }
}

fn getent_answer(found: bool, family: AddressFamily, output: &[u8]) -> Lookup {
    let text = String::from_utf8_lossy(output);
    // Asked for IPv6, getent shows the IPv4 addresses of a name that has no others as `::ffff:192.0.2.7`.
    let only_v4 =
        family == AddressFamily::Inet6 && text.lines().all(|line| line.starts_with("::ffff:"));
    if !found || only_v4 {
        return Lookup::Missing;
    }
    let canonical = text
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(2));
    Lookup::Found {
        canonical: canonical.map(str::to_string),
    }
}

/// A system without getent (not glibc): whether the name is there, without its aliases.
fn without_getent(name: &str, family: AddressFamily) -> Lookup {
    use std::net::ToSocketAddrs;
    let Ok(mut addresses) = (name, 22).to_socket_addrs() else {
        return Lookup::Missing;
    };
    let fits = |address: &std::net::SocketAddr| match family {
        AddressFamily::Any => true,
        AddressFamily::Inet => address.is_ipv4(),
        AddressFamily::Inet6 => address.is_ipv6(),
    };
    if addresses.any(|address| fits(&address)) {
        Lookup::Found { canonical: None }
    } else {
        Lookup::Missing
    }
}

/// The TCP port of a service name, from the text of `/etc/services`.
pub(super) fn service_port(name: &str, services: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let first = words.next()?;
        let port = words.next()?.strip_suffix("/tcp")?;
        (first == name || words.any(|alias| alias == name)).then(|| port.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_tells_whether_a_command_succeeded() {
        assert_eq!(System.run("exit 0"), Ok(true));
        assert_eq!(System.run("exit 3"), Ok(false));
        assert!(System.run("kill -9 $$").is_err());
    }

    #[test]
    fn getent_gives_the_canonical_name_in_its_first_line() {
        let output = b"192.0.2.7       STREAM real.example\n192.0.2.7       DGRAM  \n";
        assert_eq!(
            getent_answer(true, AddressFamily::Any, output),
            Lookup::Found {
                canonical: Some("real.example".into())
            }
        );
        assert_eq!(
            getent_answer(false, AddressFamily::Any, b""),
            Lookup::Missing
        );
        let mapped = b"::ffff:192.0.2.7 STREAM real.example\n::ffff:192.0.2.7 DGRAM  \n";
        assert_eq!(
            getent_answer(true, AddressFamily::Inet6, mapped),
            Lookup::Missing
        );
    }

    #[test]
    fn service_names_are_ports_by_name_or_alias() {
        let services = "# ssh 1/tcp\nssh\t22/tcp # SSH\nssh 23/udp\nwww 80/tcp http\n";
        assert_eq!(service_port("ssh", services), Some(22));
        assert_eq!(service_port("http", services), Some(80));
        assert_eq!(service_port("gopher", services), None);
    }

    #[test]
    fn this_process_has_a_user_a_home_and_a_host_name() {
        let ambient = LocalEnv::of_this_process().unwrap();
        assert!(!ambient.user.is_empty() && ambient.home.is_absolute());
        assert!(!ambient.hostname.is_empty());
    }
}
