//! `--on-finish`: the operator's own command after a run, with the run's document on its standard input.

use std::fs::File;
use std::io::Seek as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::report::{self, RunResult};

/// How long the command may take before it is killed.
const LIMIT: Duration = Duration::from_secs(60);
/// How often is looked whether it ended.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs the command with the document of the run.
///
/// # Errors
/// As for [`in_shell`].
pub(super) fn run(command: &str, result: &RunResult) -> Result<()> {
    // A file, not a pipe: the command may leave it unread.
    let mut document = tempfile::tempfile().context("cannot make a temporary file")?;
    report::write_document(result, &mut document).context("cannot write the document")?;
    document.rewind().context("cannot read the document")?;
    in_shell(command, document, LIMIT)
}

/// Runs the command in a shell and waits for it, for at most `limit`.
///
/// It gets a process group of its own: an interrupt at the terminal is for prepull, and what the command started is
/// killed with it. What it prints goes to standard error, as standard output is for the result.
///
/// # Errors
/// It cannot be started, fails, or takes longer than `limit`.
fn in_shell(command: &str, stdin: File, limit: Duration) -> Result<()> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(stdin)
        .stdout(Stdio::from(std::io::stderr()))
        .process_group(0)
        .spawn()
        .context("cannot start /bin/sh")?;
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for it")? {
            break status;
        }
        if Instant::now() >= end {
            // The group cannot be another's by now: the child was not waited for yet.
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
            let _ = child.wait();
            bail!("it took longer than {limit:?} and was killed");
        }
        sleep(PAUSE);
    };
    if !status.success() {
        bail!("it ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reads_its_input_fails_or_is_killed_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("got");
        let input = || {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, b"{}").unwrap();
            file.rewind().unwrap();
            file
        };
        let command = format!("cat >{}", path.display());
        in_shell(&command, input(), LIMIT).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}");
        let error = in_shell("exit 3", input(), LIMIT).unwrap_err().to_string();
        assert_eq!(error, "it ended with exit status: 3");
        let limit = Duration::from_millis(300);
        let began = Instant::now();
        let error = in_shell("sleep 600 & sleep 600", input(), limit)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "it took longer than 300ms and was killed");
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
