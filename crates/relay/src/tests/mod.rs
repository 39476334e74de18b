//! Relays in one process, with registries, runtimes and hostile peers around them.

#![allow(clippy::unwrap_used)] // tests: a panic is a failed test

mod hostile;
mod node;
mod origins;
mod passing;
mod support;
