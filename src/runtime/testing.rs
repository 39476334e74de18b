//! What the tests of the runtimes are made of.

use crate::model::{CommandOutput, ExitStatus, Image};

pub(super) fn image(name: &str) -> Image {
    name.parse().unwrap()
}

/// A command that ended with this status and printed this on standard output and standard error.
pub(super) fn output(code: u32, stdout: &str, stderr: &str) -> CommandOutput {
    CommandOutput {
        exit: ExitStatus::Code(code),
        stdout: stdout.into(),
        stderr: stderr.into(),
        truncated: false,
    }
}
