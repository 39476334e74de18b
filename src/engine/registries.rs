//! What all nodes of a run share about a registry: its pauses, and how many of them may pull from it at one time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::retry::{RegistryEffect, RegistryView};
use crate::model::Policy;

/// How many nodes are let in first after a pause. With every pull that succeeds it is twice as many.
const FIRST_AFTER_A_PAUSE: usize = 4;

/// The registries of a run.
pub(super) struct Registries {
    gates: Mutex<HashMap<String, RegistryState>>,
    /// A pull left, or more are let in.
    changed: Notify,
    /// The most attempts at one registry.
    most: usize,
}

struct RegistryState {
    /// It pauses until then.
    until: Instant,
    /// Attempts at work.
    active: usize,
    /// How many there may be just now.
    limit: usize,
    /// How often it could not be reached since a pull from it succeeded.
    failures: usize,
}

impl Registries {
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            gates: Mutex::default(),
            changed: Notify::new(),
            most: policy.per_registry.unwrap_or(usize::MAX),
        }
    }

    fn states(&self) -> MutexGuard<'_, HashMap<String, RegistryState>> {
        // Every change is one assignment: a panic elsewhere cannot have left it half done.
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, registry: &str, change: impl FnOnce(&mut RegistryState) -> T) -> T {
        let mut gates = self.states();
        if !gates.contains_key(registry) {
            let gate = RegistryState {
                until: Instant::now(),
                active: 0,
                limit: self.most,
                failures: 0,
            };
            gates.insert(registry.to_string(), gate);
        }
        // It was put there above.
        #[allow(clippy::unwrap_used)]
        change(gates.get_mut(registry).unwrap())
    }

    /// Waits for a place among those that pull from this registry, and holds it.
    pub(super) async fn enter<'a>(&'a self, registry: &'a str) -> Permit<'a> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Before looking, so that no change in between is missed.
            changed.as_mut().enable();
            let has_room = self.with(registry, |gate| {
                let has_room = gate.active < gate.limit;
                gate.active += usize::from(has_room);
                has_room
            });
            if has_room {
                return Permit {
                    registries: self,
                    registry,
                };
            }
            changed.await;
        }
    }

    /// The place that [`Permit::keep`] left taken.
    pub(super) fn resume<'a>(&'a self, registry: &'a str) -> Permit<'a> {
        Permit {
            registries: self,
            registry,
        }
    }

    /// What is known about a registry.
    pub(super) fn view(&self, registry: &str) -> RegistryView {
        let view = |gate: &RegistryState| RegistryView {
            paused_until: Some(gate.until),
            failures: gate.failures,
        };
        self.states().get(registry).map(view).unwrap_or_default()
    }

    /// When pulls from this registry may go on; `None` when they may now.
    pub(super) fn paused_until(&self, registry: &str, now: Instant) -> Option<Instant> {
        let view = self.view(registry);
        view.paused_until.filter(|until| *until > now)
    }

    /// Takes what a failed attempt means for a registry. Returns for how long it pauses from `now` on, if that is
    /// longer than before.
    pub(super) fn on_failure(
        &self,
        registry: &str,
        effect: RegistryEffect,
        now: Instant,
    ) -> Option<Duration> {
        let pause = match effect {
            RegistryEffect::None => return None,
            RegistryEffect::Count => None,
            RegistryEffect::Pause(length) => Some(length),
        };
        let first = FIRST_AFTER_A_PAUSE.min(self.most);
        self.with(registry, |gate| {
            gate.failures += 1;
            let length = pause?;
            let is_longer = now + length > gate.until;
            gate.until = gate.until.max(now + length);
            gate.limit = first;
            is_longer.then_some(length)
        })
    }

    /// A pull from this registry succeeded: more may follow.
    pub(super) fn on_success(&self, registry: &str) {
        let most = self.most;
        self.with(registry, |gate| {
            gate.failures = 0;
            gate.limit = gate.limit.saturating_mul(2).min(most);
        });
        self.changed.notify_waiters();
    }
}

/// A place among those that pull from a registry.
pub(super) struct Permit<'a> {
    registries: &'a Registries,
    registry: &'a str,
}

impl Permit<'_> {
    /// Leaves the place taken, for a pull that goes on without a visit.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.registries.with(self.registry, |gate| gate.active -= 1);
        self.registries.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// Takes places until there is none, or a hundred are taken.
    fn fill<'a>(registries: &'a Registries, places: &mut Vec<Permit<'a>>) -> usize {
        while places.len() < 100
            && let Some(place) = registries.enter("r").now_or_never()
        {
            places.push(place);
        }
        places.len()
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_few_are_let_in_and_twice_as_many_with_every_success() {
        let registries = Registries::new(&Policy::default());
        let now = Instant::now();
        let length = Duration::from_secs(5);
        registries.on_failure("r", RegistryEffect::Count, now);
        assert_eq!(registries.paused_until("r", now), None, "it only counts");
        assert_eq!(registries.view("r").failures, 1);
        let pause = RegistryEffect::Pause(length);
        assert_eq!(registries.on_failure("r", pause, now), Some(length));
        assert_eq!(registries.on_failure("r", pause, now), None, "no longer");
        assert_eq!(registries.view("r").failures, 3);
        assert_eq!(
            registries.paused_until("r", now),
            Some(now + Duration::from_secs(5))
        );
        assert_eq!(registries.paused_until("other", now), None);
        let mut places = vec![];
        assert_eq!(fill(&registries, &mut places), 4);
        registries.on_success("r");
        assert_eq!(fill(&registries, &mut places), 8);
        places.truncate(5);
        assert_eq!(fill(&registries, &mut places), 8);
        for _ in 0..5 {
            registries.on_success("r");
        }
        assert_eq!(fill(&registries, &mut places), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_given_back_goes_to_who_waits() {
        let policy = Policy {
            per_registry: Some(1),
            ..Policy::default()
        };
        let registries = Registries::new(&policy);
        let first = registries.enter("r").await;
        let waiting = registries.enter("r");
        let mut waiting = std::pin::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        let _second = waiting.await;
    }
}
