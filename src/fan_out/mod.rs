//! Fan-out: nodes pass an image on to each other. The plan of who gets it from whom, and the talk with the relays that do
//! it.

mod planner;

pub use planner::{MOST_CHILDREN, Place, Planner, Reached, Shape};
