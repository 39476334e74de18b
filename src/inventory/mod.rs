//! Where nodes come from: inventory files and host expressions, resolved to a fleet.

mod draft;
mod error;
pub mod hosts;
mod levels;
mod yaml;
