//! Fan-out: nodes pass an image on to each other. The plan of who gets it from whom, and the talk with the relays that do
//! it.

mod health;
mod hub;
mod join;
mod mirrors;
mod planner;
mod programs;
mod relay;
mod state;
#[cfg(test)]
mod tests;

pub use hub::{Hub, Joined};
pub use mirrors::engine;
pub use planner::{MOST_CHILDREN, Place, Planner, Reached, Shape};
pub use programs::{Programs, ProgramsError, folders};
pub use state::Tunnel;
