//! The way to a host through a command's standard input and output: ssh_config's ProxyCommand.

use std::ffi::OsString;
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::model::redact::redact_strictly;
use crate::model::text::truncate_bytes;
use crate::model::{Failure, FailureKind, Stage};

/// The most of the command's own words that is kept, and that is shown.
const WORDS_KEPT: usize = 4096;
const WORDS: usize = 500;

/// A running command. Dropping it ends its process group.
pub(super) struct ProxyStream {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    /// `None` once it was read to its end.
    errors: Option<ChildStderr>,
    words: Vec<u8>,
}

impl ProxyStream {
    /// Starts the command as `ssh` does: the operator's shell becomes it.
    ///
    /// # Errors
    /// unreachable: the shell cannot be started.
    pub(super) fn start(command: &str) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            let detail = format!("cannot start the ProxyCommand: {error}");
            Failure::new(FailureKind::Unreachable, Stage::Connect, detail)
        };
        let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
        let mut child = Command::new(shell.unwrap_or_else(|| OsString::from("/bin/sh")))
            .arg("-c")
            .arg(format!("exec {command}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (input, output, errors) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = (input, output, errors) else {
            return Err(failed(io::Error::other("it has no pipes")));
        };
        Ok(Self {
            child,
            input,
            output,
            errors: Some(errors),
            words: Vec::new(),
        })
    }

    /// Takes what the command says on standard error: it must not block there, and it knows what is wrong.
    fn listen(&mut self, context: &mut Context<'_>) {
        while let Some(errors) = &mut self.errors {
            let mut bytes = [0; 512];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(errors).poll_read(context, &mut buffer) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let room = WORDS_KEPT.saturating_sub(self.words.len());
                    self.words.extend(buffer.filled().iter().take(room));
                }
                Poll::Ready(_) => self.errors = None,
            }
        }
    }

    fn ended(&self) -> io::Error {
        // It may be a script that traces what it does with a token.
        let words = redact_strictly(&String::from_utf8_lossy(&self.words), &[]);
        let words = truncate_bytes(words.as_bytes(), WORDS);
        io::Error::other(match words.trim() {
            "" => "the ProxyCommand ended without a word".to_owned(),
            words => format!("the ProxyCommand ended: {words}"),
        })
    }
}

impl Drop for ProxyStream {
    fn drop(&mut self) {
        // The command may have started others; tokio ends and reaps only the first.
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // It may be gone by itself.
            let _ = killpg(Pid::from_raw(id), Signal::SIGTERM);
        }
    }
}

impl AsyncRead for ProxyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.listen(context);
        let before = buffer.filled().len();
        match Pin::new(&mut self.output).poll_read(context, buffer) {
            // Its last words come before its end is told.
            Poll::Ready(Ok(())) if buffer.filled().len() == before => match self.errors {
                Some(_) => Poll::Pending,
                None => Poll::Ready(Err(self.ended())),
            },
            other => other,
        }
    }
}

impl AsyncWrite for ProxyStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.input).poll_write(context, bytes) {
            // Reading tells why it ended.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                Poll::Ready(Ok(bytes.len()))
            }
            other => other,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_commands_words_are_told_without_its_secrets() {
        let command = "sh -c 'echo curl --token hunter2: no route >&2'";
        let mut stream = ProxyStream::start(command).unwrap();
        let error = stream.read_u8().await.unwrap_err().to_string();
        let told = "the ProxyCommand ended: curl --token [redacted] no route";
        assert_eq!(error, told);
    }
}
