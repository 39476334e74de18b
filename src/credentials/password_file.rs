//! Passwords in files, for cron and services: only a file that the user owns and no other user can read is accepted.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use nix::unistd::geteuid;

use super::ask::password_from;
use super::error::CredentialError;
use crate::model::Secret;

/// Reads the password in `path`, without one newline at its end. `/dev/fd/N` is the open file descriptor N.
///
/// # Errors
/// The file cannot be read, belongs to another user, has a mode other than 0600 or 0400, or holds no password.
pub fn password_file(path: &Path) -> Result<Secret, CredentialError> {
    let refused = |problem: String| CredentialError::PasswordFile {
        file: path.to_owned(),
        problem,
    };
    let unreadable = |error: std::io::Error| refused(format!("it cannot be read: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    // Of the file that was opened: the name may lead to another one by now.
    let metadata = file.metadata().map_err(unreadable)?;
    if let Some(problem) = problem(&metadata, geteuid().as_raw()) {
        return Err(refused(problem));
    }
    password_from(file).map_err(|error| refused(error.to_string()))
}

/// Why a file must not hold a password of the user `me`.
fn problem(metadata: &Metadata, me: u32) -> Option<String> {
    let kind = metadata.file_type();
    let mode = metadata.mode() & 0o7777;
    if !(kind.is_file() || kind.is_fifo()) {
        Some("it is neither a file nor a pipe".into())
    } else if metadata.uid() != me {
        let owner = metadata.uid();
        Some(format!(
            "it belongs to the user with the number {owner}, and prepull runs as {me}: its owner must be the user who runs prepull"
        ))
    } else if !matches!(mode, 0o600 | 0o400) {
        Some(format!(
            "its mode is {mode:04o}, so that others may read it; run `chmod 600` on it"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn only_a_private_file_of_the_user_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, "s3cret word\n").unwrap();
        for (mode, is_taken) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o700, false),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            match password_file(&path) {
                Ok(password) => {
                    assert!(is_taken, "{mode:o}");
                    assert_eq!(password.expose(), b"s3cret word");
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(!is_taken, "{mode:o}: {text}");
                    assert!(text.contains(&format!("its mode is {mode:04o}")), "{text}");
                    assert!(text.contains(&path.display().to_string()), "{text}");
                }
            }
        }
        let of_another = problem(&fs::metadata(&path).unwrap(), geteuid().as_raw() + 1).unwrap();
        assert!(of_another.contains("belongs to the user"), "{of_another}");
        assert!(password_file(folder.path()).is_err());
        let text = password_file(&folder.path().join("none")).unwrap_err();
        assert!(text.to_string().contains("cannot be read"), "{text}");
    }

    #[test]
    fn a_file_descriptor_is_a_file_too() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"from a pipe").unwrap();
        drop(writer);
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        let password = password_file(Path::new(&path)).unwrap();
        assert_eq!(password.expose(), b"from a pipe");
    }
}
