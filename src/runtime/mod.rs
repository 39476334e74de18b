//! What is particular to each container runtime: its commands and how to read what it prints. Pure, no I/O.
//!
//! One file per runtime. What a runtime prints goes three steps: `words` picks the telling lines,
//! `mask` takes every name out of them, and `cause` finds the kind. A message that only one runtime
//! prints is a rule in that runtime's file; one that a registry, the network, a disk or sudo causes is a
//! rule in `rules`.

mod classify;
mod containerd;
mod crictl;
mod crictl_output;
mod crio;
mod ctr;
mod digests;
mod docker;
mod docker_api;
mod docker_output;
mod keep;
mod kubelet;
mod local_names;
mod login;
mod mask;
mod nerdctl;
mod output;
mod podman;
mod rules;
mod skopeo;
mod stock;
#[cfg(test)]
mod testing;

pub use crictl::Crictl;
pub use ctr::Ctr;
pub use docker::Docker;
pub use keep::kept;
pub use nerdctl::Nerdctl;
pub use podman::Podman;
pub use skopeo::Skopeo;

use crate::model::{CommandOutput, ExitStatus, Failure, FailureKind, Image, RuntimeKind, Stage};
use crate::ports::Runtime;

/// Every runtime, in the order of [`RuntimeKind::ALL`].
const ALL: [&dyn Runtime; RuntimeKind::ALL.len()] =
    [&Crictl, &Docker, &Podman, &Nerdctl, &Ctr, &Skopeo];

/// Every runtime, in the order in which a probe asks for them.
pub fn all() -> [&'static dyn Runtime; RuntimeKind::ALL.len()] {
    ALL
}

/// The runtime of this kind.
pub fn of_kind(kind: RuntimeKind) -> &'static dyn Runtime {
    ALL[kind as usize]
}

/// What a failed command said.
struct ErrorLines {
    /// The telling lines, in order.
    lines: Vec<String>,
    /// Whether it was said while layers were on their way.
    in_layers: bool,
}

/// Makes a failure of a command that did not succeed.
///
/// Of the runtime's own rules the first win over the shared ones; the last are asked where those know nothing.
fn explain(
    runtime: RuntimeKind,
    [first_rules, last_rules]: [&[rules::Rule]; 2],
    stage: Stage,
    image: Option<&Image>,
    output: &CommandOutput,
    complaint: &ErrorLines,
) -> Failure {
    let errors: Vec<String> = complaint
        .lines
        .iter()
        .filter(|line| !output::is_warning(line))
        .map(|line| output::first_failure(line))
        .collect();
    let plain = mask::plain(&errors.join("\n"), image);
    let found = not_reached(&plain, &output.exit)
        .or_else(|| classify::first_match(first_rules, &plain))
        .or_else(|| classify::of(&plain, complaint.in_layers))
        .or_else(|| classify::first_match(last_rules, &plain));
    let kind = match found {
        // Only a pull talks to a registry: in any other stage it is the runtime that cannot be reached.
        Some(FailureKind::RegistryUnavailable | FailureKind::RegistryUnresolved)
            if stage != Stage::Pull =>
        {
            FailureKind::RuntimeDown
        }
        Some(kind) => kind,
        None => FailureKind::Unknown,
    };
    Failure::new(kind, stage, detail(runtime, output, &complaint.lines))
}

/// Whether the command never got to the runtime. The shell's statuses: 127 for "not found", 126 for "cannot be run".
///
/// sudo speaks the node's language: where it alone said something, it refused, whatever it said.
fn not_reached(plain: &str, exit: &ExitStatus) -> Option<FailureKind> {
    let is_sudo_alone = !plain.is_empty() && plain.lines().all(|line| line.starts_with("sudo: "));
    classify::first_match(rules::NOT_REACHED, plain).or(match exit {
        ExitStatus::Code(126 | 127) => Some(FailureKind::RuntimeMissing),
        _ if is_sudo_alone => Some(FailureKind::Privilege),
        _ => None,
    })
}

/// The node's own words, and how the client ended where that is not a plain exit.
fn detail(runtime: RuntimeKind, output: &CommandOutput, lines: &[String]) -> String {
    let said = output::detail(lines);
    let ended = match &output.exit {
        ExitStatus::Signal(name) => Some(format!("{runtime} was ended by signal {name}")),
        // A shell in between turns signal n into status 128 + n.
        ExitStatus::Code(code @ 129..=192) => Some(format!(
            "{runtime} was ended by signal number {}",
            code - 128
        )),
        ExitStatus::Code(code) if said.trim().is_empty() => Some(format!(
            "{runtime} ended with status {code} and did not say why"
        )),
        ExitStatus::Code(_) => None,
    };
    match ended {
        Some(ended) if said.trim().is_empty() => ended,
        Some(ended) => format!("{ended}; {said}"),
        None => said,
    }
}
