//! Why something failed: where (stage), what sort (kind), in whose words (detail).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A failure of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{kind} ({stage}): {detail}")]
pub struct Failure {
    /// The sort, which alone decides about retries.
    pub kind: FailureKind,
    /// What was being done.
    pub stage: Stage,
    /// What came back, in the words of the program that said it. May hold a node's output: hostile, so
    /// reporters escape it; never a secret.
    pub detail: String,
}

impl Failure {
    /// A failure of this kind at this stage.
    pub fn new(kind: FailureKind, stage: Stage, detail: impl Into<String>) -> Self {
        Self {
            kind,
            stage,
            detail: detail.into(),
        }
    }
}

/// What was being done when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Stage {
    /// Looking up the name, dialling, the way through jump hosts.
    Connect,
    /// Version exchange, key exchange and the host key.
    Handshake,
    /// Proving who we are.
    Authenticate,
    /// Opening a channel and starting our program on the node.
    Start,
    /// Finding out which runtime the node has.
    Probe,
    /// Asking the node before any node pulls.
    Preflight,
    /// Waiting for a turn at the registry that the image is pulled from.
    Queue,
    /// Asking the runtime whether it holds the image.
    Inspect,
    /// The pull itself.
    Pull,
    /// Asking the runtime what it holds after the pull.
    Verify,
    /// `exec`: running the operator's command.
    Run,
}

impl Stage {
    /// The word in JSON and lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::Authenticate => "authenticate",
            Self::Start => "start",
            Self::Probe => "probe",
            Self::Preflight => "preflight",
            Self::Queue => "queue",
            Self::Inspect => "inspect",
            Self::Pull => "pull",
            Self::Verify => "verify",
            Self::Run => "run",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// Whether another try can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same try gives the same answer.
    Never,
    /// It passes on the second try or not at all: at most [`Retry::FEW`] retries, whatever `--retries` says.
    Limited,
    /// Up to `--retries` times.
    Full,
    /// Up to `--retries` times, after a pause that all nodes of that registry share.
    RegistryPause,
}

impl Retry {
    /// The most retries of [`Retry::Limited`].
    pub const FEW: u32 = 2;
}

/// The sort of a failure.
///
/// Several variants share one public name ([`FailureKind::as_str`]): they look the same to a user and
/// differ in whether a retry helps. The variants that are retried only a few times, and why:
///
/// - [`RuntimeAbsent`](Self::RuntimeAbsent): the daemon may be restarting, or is not there at all;
/// - [`RegistryAuthExpired`](Self::RegistryAuthExpired): a fresh attempt gets a fresh token or signed
///   address; if that is refused too, the login is;
/// - [`RegistryUnresolved`](Self::RegistryUnresolved): a name server's blip, or a mistyped name;
/// - [`Corrupt`](Self::Corrupt): a bad cache or a proxy's page in between, or a broken registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailureKind {
    /// DNS, refused, no route, time-out before the node's SSH server answered.
    Unreachable,
    /// The host key is unknown, changed or revoked.
    HostKey,
    /// No key was accepted, the password is wrong.
    SshAuth,
    /// The connection broke or went silent.
    ConnectionLost,
    /// sudo refused, or the runtime's socket may not be opened.
    Privilege,
    /// The runtime's client is not installed.
    RuntimeMissing,
    /// The runtime went away while it worked.
    RuntimeDown,
    /// The runtime's socket is missing, or nothing answers on it.
    RuntimeAbsent,
    /// The client's or daemon's own configuration is wrong, or the node needs a person.
    NodeSetup,
    /// The registry refuses the login, or wants one.
    RegistryAuth,
    /// A token or signed address was refused in the middle of a pull.
    RegistryAuthExpired,
    /// The registry does not know the repository, tag, digest or layer.
    ImageNotFound,
    /// No manifest for the node's platform.
    Platform,
    /// The image itself is broken, too old, or no image.
    ImageInvalid,
    /// The registry says no for good, or is not a registry.
    RegistryRefused,
    /// 429.
    RateLimited,
    /// 5xx, refused, reset, time-outs between node and registry.
    RegistryUnavailable,
    /// The registry's name is not known to the node's name server.
    RegistryUnresolved,
    /// The registry's certificate is not trusted, or it speaks plain HTTP.
    TlsTrust,
    /// What arrived does not match its digest or size.
    Corrupt,
    /// No space left on the node.
    DiskFull,
    /// No progress for the stall time-out.
    Stalled,
    /// The attempt's time-out.
    TimedOut,
    /// Another prepull goes on with the pull.
    TakenOver,
    /// With a DaemonSet: the node has no pod of it, or one that cannot start.
    NoPod,
    /// No rule recognises it.
    Unknown,
    /// A fault in prepull itself.
    Internal,
}

// A kind that `ALL` lacks would be missing in the documentation and the schema.
const _: () = assert!(FailureKind::ALL.len() == FailureKind::Internal as usize + 1);

impl FailureKind {
    /// Every kind, in the order of the enum.
    pub const ALL: [Self; 27] = [
        Self::Unreachable,
        Self::HostKey,
        Self::SshAuth,
        Self::ConnectionLost,
        Self::Privilege,
        Self::RuntimeMissing,
        Self::RuntimeDown,
        Self::RuntimeAbsent,
        Self::NodeSetup,
        Self::RegistryAuth,
        Self::RegistryAuthExpired,
        Self::ImageNotFound,
        Self::Platform,
        Self::ImageInvalid,
        Self::RegistryRefused,
        Self::RateLimited,
        Self::RegistryUnavailable,
        Self::RegistryUnresolved,
        Self::TlsTrust,
        Self::Corrupt,
        Self::DiskFull,
        Self::Stalled,
        Self::TimedOut,
        Self::TakenOver,
        Self::NoPod,
        Self::Unknown,
        Self::Internal,
    ];

    /// The word in JSON, lines and summaries; `docs/failures.md` lists them for users.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::HostKey => "host-key",
            Self::SshAuth => "ssh-auth",
            Self::ConnectionLost => "connection-lost",
            Self::Privilege => "privilege",
            Self::RuntimeMissing => "runtime-missing",
            Self::RuntimeDown | Self::RuntimeAbsent => "runtime-down",
            Self::NodeSetup => "node-setup",
            Self::RegistryAuth | Self::RegistryAuthExpired => "registry-auth",
            Self::ImageNotFound => "image-not-found",
            Self::Platform => "platform",
            Self::ImageInvalid => "image-invalid",
            Self::RegistryRefused => "registry-refused",
            Self::RateLimited => "rate-limited",
            Self::RegistryUnavailable | Self::RegistryUnresolved => "registry-unavailable",
            Self::TlsTrust => "tls-trust",
            Self::Corrupt => "corrupt",
            Self::DiskFull => "disk-full",
            Self::Stalled => "stalled",
            Self::TimedOut => "timed-out",
            Self::TakenOver => "taken-over",
            Self::NoPod => "no-pod",
            Self::Unknown | Self::Internal => "unknown",
        }
    }

    /// Whether another try can help.
    pub fn retry(self) -> Retry {
        match self {
            Self::Unreachable
            | Self::ConnectionLost
            | Self::RuntimeDown
            | Self::RegistryUnavailable
            | Self::Stalled
            | Self::TimedOut
            | Self::Unknown => Retry::Full,
            Self::RateLimited => Retry::RegistryPause,
            Self::RuntimeAbsent
            | Self::RegistryAuthExpired
            | Self::RegistryUnresolved
            | Self::Corrupt => Retry::Limited,
            Self::HostKey
            | Self::SshAuth
            | Self::Privilege
            | Self::RuntimeMissing
            | Self::NodeSetup
            | Self::RegistryAuth
            | Self::ImageNotFound
            | Self::Platform
            | Self::ImageInvalid
            | Self::RegistryRefused
            | Self::TlsTrust
            | Self::DiskFull
            | Self::TakenOver
            | Self::NoPod
            | Self::Internal => Retry::Never,
        }
    }

    /// What the operator can do next: one sentence, the same for every node with this kind.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Unreachable => {
                "Check that the node is up and that its address, port and the way to it (firewall, jump host) are right."
            }
            Self::HostKey => {
                "Compare the key's fingerprint with the node's own, then add it to known_hosts; for nodes that are new, --host-keys accept-new records unknown keys."
            }
            Self::SshAuth => {
                "Check the user and what it logs in with, a key (--identity) or a password: `ssh USER@NODE` shows what the node accepts."
            }
            Self::ConnectionLost => {
                "The link to the node broke and did not come back in time: check it, then run the same command again."
            }
            Self::Privilege => {
                "Log in as a user who may use the runtime, or let it become root (--become): the message says what the node's sudo or doas wants."
            }
            Self::RuntimeMissing => {
                "Install the runtime's client on the node, or name the right one with --runtime."
            }
            Self::RuntimeDown | Self::RuntimeAbsent => {
                "Check the runtime's daemon on the node (`systemctl status docker` or `containerd`) and --runtime-endpoint."
            }
            Self::NodeSetup => {
                "Mend the runtime's configuration on the node; the message names what is wrong."
            }
            Self::RegistryAuth | Self::RegistryAuthExpired => {
                "Check the registry's user and password (--registry-user, --auth-file) and that the user may pull this repository."
            }
            Self::ImageNotFound => {
                "Check the image's name and tag; a registry may also answer so when the login may not see the repository."
            }
            Self::Platform => "Push the image for this platform, or leave these nodes out.",
            Self::ImageInvalid => {
                "The image is broken or too old (or too new) for this runtime: build and push it again."
            }
            Self::RegistryRefused => {
                "Check the registry's address and its policies; it answered, but not with this image."
            }
            Self::RateLimited => {
                "The registry limits pulls: use a login with a higher limit or a lower --parallel, and run again later."
            }
            Self::RegistryUnavailable | Self::RegistryUnresolved => {
                "Check the registry, and that the node can reach and resolve it, then run the same command again."
            }
            Self::TlsTrust => {
                "Install the registry's CA on the node (docker: /etc/docker/certs.d, containerd: certs.d), or check name, date and scheme."
            }
            Self::Corrupt => {
                "What arrived did not match its digest: look for a proxy or cache in between, and push the image again if it stays."
            }
            Self::DiskFull => {
                "Free space where the runtime keeps its images, then run the same command again."
            }
            Self::Stalled | Self::TimedOut => {
                "Check registry and link; raise --pull-timeout if the image is only big, then run the same command again."
            }
            Self::TakenOver => {
                "The pull goes on, and the other prepull tells what becomes of it: wait for that one."
            }
            Self::NoPod => {
                "Tolerate the taint or choose other nodes, as the message says, or pull on these nodes over SSH (--rest ssh)."
            }
            Self::Unknown => {
                "Nothing known matches the node's own words; try the pull by hand on that node."
            }
            Self::Internal => "This is a fault in prepull: please report it with the message.",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_as_kind_stage_and_words() {
        let failure = Failure::new(
            FailureKind::RegistryAuth,
            Stage::Pull,
            "no basic auth credentials",
        );
        assert_eq!(
            failure.to_string(),
            "registry-auth (pull): no basic auth credentials"
        );
    }

    #[test]
    fn kinds_with_one_name_differ_only_in_how_often_they_are_retried() {
        for (few, other) in [
            (FailureKind::RuntimeAbsent, FailureKind::RuntimeDown),
            (FailureKind::RegistryAuthExpired, FailureKind::RegistryAuth),
            (
                FailureKind::RegistryUnresolved,
                FailureKind::RegistryUnavailable,
            ),
        ] {
            assert_eq!(few.as_str(), other.as_str());
            assert_eq!(few.advice(), other.advice());
            assert_eq!(few.retry(), Retry::Limited);
            assert_ne!(few.retry(), other.retry());
        }
    }
}
