#![doc = include_str!("../README.md")]

mod blob;
mod children;
mod chunk;
mod fill;
mod identity;
mod image;
mod lines;
mod origin;
mod parent;
pub mod protocol;
mod relay;
mod runtime;
mod shared;
mod spool;

pub use relay::run;
pub use shared::Timing;

#[cfg(test)]
mod tests;
