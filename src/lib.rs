//! prepull loads container images onto nodes over SSH before a roll-out needs them.
//!
//! The library holds every room of the program; the binary only calls [`app`]. Data flows one way:
//! arguments and files become settings, settings a fleet and a plan, the engine runs the plan and
//! emits events, reporters show them, and the summary decides the exit status.

pub mod app;
pub mod cli;
pub mod credentials;
pub mod engine;
pub mod inventory;
pub mod journal;
pub mod model;
pub mod node;
pub mod ports;
pub mod registry;
pub mod report;
pub mod runtime;
pub mod settings;
pub mod ssh;
