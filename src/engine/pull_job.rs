//! What a node is asked for one attempt at one image.

use std::time::Duration;

use super::context::RunContext;
use super::preflight;
use super::state::NodeState;
use crate::model::{Image, RegistryLogin};
use crate::node::{HangUp, PullJob, StallPolicy};
use crate::ports::{PullRequest, Runtime};

/// What an attempt at a pull needs besides the plan and the node's state.
pub(super) struct PullParts<'a> {
    pub(super) runtime: &'a dyn Runtime,
    pub(super) login: Option<&'a RegistryLogin>,
    pub(super) hang_up: Option<HangUp<'a>>,
}

impl<'a> PullParts<'a> {
    pub(super) fn job<T>(
        self,
        context: &'a RunContext<'_, T>,
        state: &'a NodeState,
        item: usize,
        image: &'a Image,
    ) -> PullJob<'a> {
        let (plan, policy) = (context.plan, &context.plan.policy);
        let left_of = |limit: Option<Duration>| limit.map(|limit| state.items[item].left_of(limit));
        PullJob {
            runtime: self.runtime,
            layers: state.platform.as_ref().and_then(|(os, architecture)| {
                let manifests = plan.contents.get(item)?.as_ref()?;
                let manifest = preflight::manifest_of(plan, manifests, os, architecture)?;
                Some(manifest.layers.as_slice())
            }),
            request: PullRequest {
                image,
                endpoint: plan.fleet.nodes()[state.node].endpoint.as_deref(),
                platform: policy.platform.as_deref(),
                login: self.login,
            },
            when: policy.pull,
            timeout: left_of(policy.pull_timeout),
            patience: StallPolicy {
                stall: policy.stall_timeout,
                min_rate: policy.min_rate,
                unseen: left_of(policy.unseen_timeout),
            },
            arrived: &state.items[item].transfer_stats.layers,
            pull_token: &plan.pull_token,
            lease: policy.lease,
            disk_credentials: policy.disk_credentials,
            hang_up: self.hang_up,
        }
    }
}
