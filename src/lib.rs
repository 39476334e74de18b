//! prepull loads container images onto nodes over SSH before a roll-out needs them.
//!
//! ```no_run
//! use prepull::Pull;
//! use prepull::model::{Node, Policy};
//!
//! # async fn warm() -> Result<(), prepull::PullError> {
//! let nodes = vec![
//!     Node { user: "ops".into(), ..Node::named("node-1.example") },
//!     Node { user: "ops".into(), ..Node::named("node-2.example") },
//! ];
//! let pull = Pull::new(nodes, ["registry.example/team/app:v2"])?
//!     .policy(Policy { parallel: 16, ..Policy::default() });
//! let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
//! let finish = pull.run(ctrl_c, |event| println!("{:?}", event.fact)).await?;
//! for node in &finish.nodes {
//!     println!("{:?}", node.items[0].outcome);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Pull`] is the front for programs, with the types of [`model`]; `examples/pull.rs` is a whole program. Modules that these
//! pages do not show are public for the command line, its tests and benchmarks only, and change without notice.
//!
//! Data flows one way: arguments and files become settings, settings a fleet and a plan, the engine runs the plan and
//! emits events, reporters show them, and the summary decides the exit status. The binary only calls [`app`].

#[doc(hidden)]
pub mod app;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod credentials;
#[doc(hidden)]
pub mod daemonset;
#[doc(hidden)]
pub mod engine;
#[doc(hidden)]
pub mod fan_out;
pub mod inventory;
#[doc(hidden)]
pub mod journal;
pub mod model;
#[doc(hidden)]
pub mod node;
pub mod ports;
pub mod pull;
#[doc(hidden)]
pub mod registry;
#[doc(hidden)]
pub mod report;
pub mod runtime;
#[doc(hidden)]
pub mod settings;
pub mod ssh;
pub mod via;

pub use pull::{Pull, PullError};
