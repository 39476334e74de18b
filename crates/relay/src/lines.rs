//! Reads lines of limited length. What was read is wiped: there are secrets in it.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};
use zeroize::Zeroize as _;

/// What a relay hears from prepull.
pub(crate) struct Lines<R> {
    reader: R,
    most: usize,
    line: Vec<u8>,
    is_whole: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, most: usize) -> Self {
        Self {
            reader,
            most,
            line: Vec::new(),
            is_whole: false,
        }
    }

    /// The next line, without its end; `None` at the end of input. May be dropped and called again at any time.
    pub(crate) async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if self.is_whole {
            self.line.zeroize();
            self.is_whole = false;
        }
        loop {
            let bytes = self.reader.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let length = end.unwrap_or(bytes.len());
            if self.line.len() + length > self.most {
                let most = self.most;
                return Err(io::Error::other(format!(
                    "a line has more than {most} bytes"
                )));
            }
            self.line.extend_from_slice(&bytes[..length]);
            self.reader.consume(length + usize::from(end.is_some()));
            if end.is_some() {
                self.is_whole = true;
                return Ok(Some(&self.line));
            }
        }
    }
}

impl<R> Drop for Lines<R> {
    fn drop(&mut self) {
        self.line.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_whole_and_not_too_long() {
        let mut lines = Lines::new(&b"one\n\n0123456789\nrest"[..], 10);
        assert_eq!(lines.next().await.unwrap().unwrap(), b"one");
        assert_eq!(lines.next().await.unwrap().unwrap(), b"");
        assert_eq!(lines.next().await.unwrap().unwrap(), b"0123456789");
        assert!(lines.next().await.unwrap().is_none());
        let mut lines = Lines::new(&b"0123456789a\n"[..], 10);
        assert!(lines.next().await.is_err());
    }
}
