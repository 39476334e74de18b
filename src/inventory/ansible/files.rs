//! The files that were read: spots name them by number.

use super::super::error::{InputError, InventoryError};
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

    pub(super) fn error(&self, spot: Spot, fault: InputError) -> InventoryError {
        InventoryError::at(&self.0[spot.file], spot.place, fault)
    }

    pub(super) fn wrong<T>(&self, spot: Spot, fault: InputError) -> Result<T, InventoryError> {
        Err(self.error(spot, fault))
    }
}
