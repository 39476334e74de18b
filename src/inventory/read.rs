//! Reading inventory files: bounded, and with errors that name the file.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::string::FromUtf8Error;
use std::sync::mpsc;
use std::time::Duration;

use super::error::{InputError, InventoryError};
use super::yaml;
use crate::model::text::escape_line;

/// Far beyond any real inventory; a wrong file must not fill the memory.
const SIZE_LIMIT: u64 = 64 << 20;

/// The longest that a pipe with a name may take to be written and closed.
const PIPE_LIMIT: Duration = Duration::from_secs(60);

/// The text of a file.
pub(super) fn file(path: &Path) -> Result<String, InventoryError> {
    file_within(path, PIPE_LIMIT)
}

/// Opening a pipe waits for a writer, perhaps for ever: that is done by a thread.
fn file_within(path: &Path, limit: Duration) -> Result<String, InventoryError> {
    if !std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        return whole_file(path);
    }
    let (send, receive) = mpsc::channel();
    let pipe = path.to_path_buf();
    // The receiver may be gone.
    std::thread::spawn(move || send.send(whole_file(&pipe)));
    receive.recv_timeout(limit).unwrap_or_else(|_| {
        let what = format!(
            "this is a pipe that nobody has written to and closed within {} seconds",
            limit.as_secs()
        );
        Err(InventoryError::of_file(
            path.display().to_string(),
            InputError::new(what).with_hint("start the program that writes to it"),
        ))
    })
}

fn whole_file(path: &Path) -> Result<String, InventoryError> {
    let name = path.display().to_string();
    let wrong = |fault| InventoryError::of_file(&name, fault);
    let input = File::open(path).map_err(|error| {
        wrong(InputError::new(format!("cannot open the file: {error}")).with_hint("check the path"))
    })?;
    if input.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(wrong(
            InputError::new("this is a directory").with_hint("name an inventory file in it"),
        ));
    }
    text(input, &name, SIZE_LIMIT)
}

/// The names in a folder, in order.
pub(super) fn folder(path: &Path) -> Result<Vec<OsString>, InventoryError> {
    let wrong = |error: std::io::Error| {
        let fault = InputError::new(format!("cannot list the folder: {error}"));
        InventoryError::of_file(path.display().to_string(), fault)
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(or_here(path)).map_err(wrong)? {
        names.push(entry.map_err(wrong)?.file_name());
    }
    names.sort();
    Ok(names)
}

/// The folder of a file that is named without one is the present one.
pub(super) fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

/// The text of standard input.
pub(super) fn stdin(name: &str) -> Result<String, InventoryError> {
    text(std::io::stdin().lock(), name, SIZE_LIMIT)
}

fn text(input: impl Read, name: &str, limit: u64) -> Result<String, InventoryError> {
    let mut bytes = Vec::new();
    input
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| {
            InventoryError::of_file(
                name,
                InputError::new(format!("cannot read the inventory: {error}")),
            )
        })?;
    if bytes.len() as u64 > limit {
        return Err(InventoryError::of_file(
            name,
            InputError::new(format!(
                "this is larger than {}, far more than any inventory",
                size(limit)
            ))
            .with_hint("is it the right file?"),
        ));
    }
    decoded(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        yaml::not_utf8(error.as_bytes(), valid, &escape_line(name))
    })
}

/// The text of bytes, without the byte order mark that programs on Windows put in front. One of UTF-16 (PowerShell's
/// `>`) says how to read them.
fn decoded(bytes: Vec<u8>) -> Result<String, FromUtf8Error> {
    let order: Option<fn([u8; 2]) -> u16> = match bytes.get(..2) {
        Some([0xff, 0xfe]) => Some(u16::from_le_bytes),
        Some([0xfe, 0xff]) => Some(u16::from_be_bytes),
        _ => None,
    };
    if let Some(order) = order.filter(|_| bytes.len().is_multiple_of(2)) {
        let units = bytes[2..].chunks_exact(2);
        let units: Vec<u16> = units.map(|pair| order([pair[0], pair[1]])).collect();
        if let Ok(text) = String::from_utf16(&units) {
            return Ok(text);
        }
    }
    let mut text = String::from_utf8(bytes)?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// A limit in words.
pub(super) fn size(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{bytes} bytes"),
        mebibytes => format!("{mebibytes} MiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_file_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let missing = file(&folder.path().join("no.yml")).unwrap_err().to_string();
        assert!(
            missing.contains("no.yml: cannot open the file"),
            "{missing}"
        );
        let directory = file(folder.path()).unwrap_err().to_string();
        assert!(directory.contains("this is a directory"), "{directory}");
        let path = folder.path().join("latin1.yml");
        std::fs::write(&path, b"nodes:\n  - caf\xe9\n").unwrap();
        let latin = file(&path).unwrap_err();
        assert_eq!((latin.line, latin.column), (2, 8));
        assert!(latin.message.contains("not UTF-8"));
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused_and_a_mark_is_skipped() {
        assert!(
            text(&b"abcd"[..], "f", 3)
                .unwrap_err()
                .to_string()
                .contains("larger than 3 bytes")
        );
        for bytes in [
            &b"\xef\xbb\xbfa\xc3\xbc"[..],
            b"\xff\xfea\0\xfc\0",
            b"\xfe\xff\0a\0\xfc",
        ] {
            assert_eq!(text(bytes, "f", 10).unwrap(), "a\u{fc}");
        }
        assert!(text(&b"\xff\xfea"[..], "f", 10).is_err());
        assert!(text(&b"\xff\xfe\0\xd8"[..], "f", 10).is_err());
    }

    #[test]
    fn a_pipe_is_read_and_one_that_nobody_writes_to_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let refused = file_within(&pipe, Duration::from_secs(1)).unwrap_err();
        let refused = refused.to_string();
        assert!(
            refused.contains("pipe: this is a pipe that nobody has written"),
            "{refused}"
        );
        let other = folder.path().join("other");
        let made = std::process::Command::new("mkfifo").arg(&other).status();
        assert!(made.unwrap().success());
        let path = other.clone();
        let writer = std::thread::spawn(move || std::fs::write(path, "worker-1\n"));
        assert_eq!(file(&other).unwrap(), "worker-1\n");
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn an_endless_file_ends() {
        assert!(text(std::io::repeat(b'x'), "f", 1000).is_err());
    }
}
