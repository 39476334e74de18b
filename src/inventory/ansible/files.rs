//! The files that were read: spots name them by number.

use std::path::Path;

use nix::unistd::geteuid;

use super::super::error::{InputError, InventoryError};
use super::super::ownership::changeable_by_others;
use super::variables::Spot;

/// The names of all files, as errors show them.
#[derive(Debug, Default)]
pub(super) struct Files(Vec<String>);

impl Files {
    /// Begins a file; the number stands for it in spots.
    pub(super) fn add(&mut self, name: &str) -> usize {
        self.0.push(name.to_string());
        self.0.len() - 1
    }

    /// All names, for people.
    pub(super) fn names(&self) -> String {
        self.0.join(", ")
    }

    /// Whether what stands there may name a program that runs on this machine: for root, only where no other user can
    /// write it.
    pub(super) fn may_name_programs(&self, spot: Spot) -> Result<(), InputError> {
        let path = Path::new(&self.0[spot.file]);
        // Not every name is a file's: standard input has one, too.
        if !geteuid().is_root() || !path.exists() {
            return Ok(());
        }
        match changeable_by_others(path) {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(InputError::new(format!(
                "this ProxyCommand would run as root, but {why}, who could make it do anything"
            ))
            .with_hint("make file and folder root's own: chown root, chmod go-w")),
            Err(error) => Err(InputError::new(format!(
                "cannot look at this file: {error}"
            ))),
        }
    }

    pub(super) fn error(&self, spot: Spot, fault: InputError) -> InventoryError {
        InventoryError::at(&self.0[spot.file], spot.place, fault)
    }

    pub(super) fn wrong<T>(&self, spot: Spot, fault: InputError) -> Result<T, InventoryError> {
        Err(self.error(spot, fault))
    }
}
