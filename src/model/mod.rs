//! The words of the project as types: node, image, plan, attempt, outcome, failure, event. No I/O, but for the file
//! that
//! `exec`'s output is kept in.

#[macro_use]
pub mod choice;
pub mod command;
pub mod content;
pub mod daemonset;
pub mod event;
pub mod facts;
pub mod failure;
pub mod fold;
pub mod forecast;
pub mod image;
pub mod keep;
pub mod limit;
mod mirror;
pub mod node;
pub mod outcome;
pub mod output;
pub mod passwords;
pub mod plan;
mod platform;
pub mod redact;
pub mod secret;
pub mod stock;
pub mod text;
mod tries;

pub use choice::{
    AddressType, Choice, ColorChoice, HostKeyPolicy, ProgressStyle, PullVia, PullWhen, RestVia,
};
pub use command::{CommandOutput, ExitStatus};
pub use content::{Layer, Manifest, manifest_for};
pub use daemonset::{
    DaemonSetSpec, LabelOperator, LabelRequirement, NodeChoice, PodMode, Taint, Toleration,
};
pub use event::{Event, EventKind};
pub use facts::{ClockOffset, LocalImage, NodeFacts};
pub use failure::{Failure, FailureKind, Retry, Stage};
pub use fold::fold;
pub use forecast::{Forecast, ForecastTotals, Foretold, History, Sample, TimeRange, Way};
pub use image::{Image, ImageError, is_digest};
pub use keep::{Keep, KeepOutcome, KeptState, Overdue};
pub use limit::Limit;
pub use mirror::Mirror;
pub use node::{Fleet, FleetError, Hop, Node, RuntimeChoice, RuntimeKind};
pub use outcome::{
    Attempt, Counts, Delivery, FanOutTotals, NodeRecord, Outcome, PeerEngine, Record, StopReason,
    Via,
};
pub use output::{ExecOutput, Kept, Spool, SpoolWriter};
pub use passwords::{Passwords, Permit, Withheld};
pub use plan::{Backoff, FanOut, Plan, PlannedImage, Policy, Portion, Preflight, Work, pull_token};
pub use platform::is_platform;
pub use secret::{Credential, LoginSource, RegistryLogin, Secret, basic};
pub use stock::{KubeletGc, NodeForecast, Stock};
pub use tries::Tries;
