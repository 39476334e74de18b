//! The logins of a run: one asks for all, when they are old or a registry refuses one.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::model::{Failure, Plan, RegistryLogin};
use crate::ports;

/// Tokens of clouds live for a quarter of an hour at least.
const OLD: Duration = Duration::from_secs(5 * 60);
/// What was refused as fresh as this would be refused again.
const FRESH: Duration = Duration::from_secs(10);

/// What is known by now. The task that asks holds the lock, so that no other asks at the same time.
pub(super) struct CurrentLogins<'a> {
    source: &'a dyn ports::CredentialSource,
    known: Mutex<Known>,
}

struct Known {
    /// One for each image.
    logins: Vec<Option<RegistryLogin>>,
    asked: Instant,
    /// Why the last question got no answer.
    trouble: Option<String>,
}

impl<'a> CurrentLogins<'a> {
    /// Those of the plan were asked for just now.
    pub(super) fn new(plan: &Plan, source: &'a dyn ports::CredentialSource) -> Self {
        let items = 0..plan.work.items();
        let logins = items
            .map(|item| plan.work.login(item).map(|found| found.login.clone()))
            .collect();
        let known = Known {
            logins,
            asked: Instant::now(),
            trouble: None,
        };
        Self {
            source,
            known: Mutex::new(known),
        }
    }

    /// The login for an attempt that begins now.
    pub(super) async fn of(&self, item: usize) -> Option<RegistryLogin> {
        let mut known = self.known.lock().await;
        if known.asked.elapsed() >= OLD {
            self.ask(&mut known).await;
        }
        known.logins.get(item).cloned().flatten()
    }

    /// Whether there is another login than the one that was refused. Why there may be none is added to the failure.
    pub(super) async fn is_renewed(
        &self,
        item: usize,
        refused: Option<&RegistryLogin>,
        failure: &mut Failure,
    ) -> bool {
        let mut known = self.known.lock().await;
        let is_other = |known: &Known| known.logins.get(item).and_then(Option::as_ref) != refused;
        if is_other(&known) {
            return true;
        }
        if known.asked.elapsed() >= FRESH {
            self.ask(&mut known).await;
        }
        if let Some(trouble) = &known.trouble {
            let detail = &mut failure.detail;
            detail.push_str(&format!("; a new login cannot be had: {trouble}"));
        }
        is_other(&known)
    }

    async fn ask(&self, known: &mut Known) {
        let answer = self.source.ask().await;
        known.asked = Instant::now();
        known.trouble = None;
        match answer {
            Ok(logins) => known.logins = logins,
            // The old ones may still do.
            Err(why) => known.trouble = Some(why),
        }
    }
}
