//! The relay's program for each architecture, as it is sent to nodes.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// Architectures, as `uname -m` names them and as images do.
const ARCHITECTURES: [(&str, &str); 2] = [("x86_64", "amd64"), ("aarch64", "arm64")];

/// The relay's programs.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    known: BTreeMap<&'static str, Program>,
    looked_in: Vec<PathBuf>,
}

/// One program.
#[derive(Debug, Clone)]
pub struct Program {
    /// What is sent.
    pub bytes: Bytes,
    /// Its SHA-256 in hexadecimal digits.
    pub sha256: String,
}

/// No program of the relay can be read.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// None is there.
    #[error(
        "no relay (prepull-relay-x86_64 or prepull-relay-aarch64) in {0}: name its folder in PREPULL_RELAYS"
    )]
    Missing(String),
    /// One is there and cannot be read.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl Programs {
    /// Reads `prepull-relay-ARCHITECTURE` from the first of these folders that has it.
    ///
    /// # Errors
    /// None of them has any, or one cannot be read.
    pub fn read(folders: &[PathBuf]) -> Result<Self, ProgramsError> {
        let mut known = BTreeMap::new();
        for (machine, _) in ARCHITECTURES {
            let file = format!("prepull-relay-{machine}");
            for path in folders.iter().map(|folder| folder.join(&file)) {
                match fs::read(&path) {
                    Ok(bytes) => {
                        known.insert(machine, Program::new(bytes));
                        break;
                    }
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(ProgramsError::Unreadable { path, error }),
                }
            }
        }
        if known.is_empty() {
            let names = folders.iter().map(|folder| folder.display().to_string());
            return Err(ProgramsError::Missing(names.collect::<Vec<_>>().join(", ")));
        }
        Ok(Self {
            known,
            looked_in: folders.to_vec(),
        })
    }

    /// The program for a machine, as `uname -m` names it.
    pub fn of(&self, machine: &str) -> Result<&Program, String> {
        self.known.get(machine).ok_or_else(|| {
            let names = self
                .looked_in
                .iter()
                .map(|folder| folder.display().to_string());
            let folders = names.collect::<Vec<_>>().join(", ");
            format!("prepull has no relay for {machine} (prepull-relay-{machine} in {folders})")
        })
    }
}

impl Program {
    fn new(bytes: Vec<u8>) -> Self {
        let digest = Sha256::digest(&bytes);
        Self {
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            bytes: bytes.into(),
        }
    }
}

/// Where relays are looked for: in the folder that the operator names, else beside the program at `executable` and where
/// packages put them.
pub fn folders(named: Option<&Path>, executable: Option<&Path>) -> Vec<PathBuf> {
    if let Some(named) = named {
        return vec![named.to_path_buf()];
    }
    let beside = executable.and_then(Path::parent);
    let beside = beside.map(|folder| [folder.to_path_buf(), folder.join("../lib/prepull")]);
    let packaged = PathBuf::from("/usr/lib/prepull");
    beside.into_iter().flatten().chain([packaged]).collect()
}

/// The architecture of images for a machine, as `uname -m` names it.
pub fn architecture(machine: &str) -> Option<&'static str> {
    let known = ARCHITECTURES.iter().find(|(name, _)| *name == machine);
    known.map(|(_, architecture)| *architecture)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_has_a_relay_counts() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [one.path().to_path_buf(), two.path().to_path_buf()];
        let missing = Programs::read(&folders).unwrap_err().to_string();
        for part in ["PREPULL_RELAYS", &one.path().display().to_string()] {
            assert!(missing.contains(part), "{missing}");
        }
        fs::write(two.path().join("prepull-relay-x86_64"), "abc").unwrap();
        let programs = Programs::read(&folders).unwrap();
        let program = programs.of("x86_64").unwrap();
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            program.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let none = programs.of("riscv64").unwrap_err();
        assert!(none.contains("riscv64"), "{none}");
        assert_eq!(architecture("aarch64"), Some("arm64"));
    }
}
