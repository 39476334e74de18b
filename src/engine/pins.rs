//! One digest for an image on every node of a run: the first that is seen is the one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::model::{Failure, FailureKind, LocalImage, Outcome, Plan, Stage};

/// The digests of a run's images.
pub(super) struct Pins {
    /// By the item's number: the digest, and the node that it was first seen on.
    seen: Mutex<HashMap<usize, (String, usize)>>,
    wanted: bool,
}

impl Pins {
    /// The pins of this run; what an earlier one left on nodes counts.
    pub(super) fn new(plan: &Plan) -> Self {
        let mut known: Vec<_> = plan.already_present.iter().collect();
        known.sort_by_key(|(place, _)| **place);
        let mut seen = HashMap::new();
        for (&(node, item), held) in known {
            if let Some(digest) = &held.digest {
                seen.entry(item).or_insert((digest.clone(), node));
            }
        }
        Self {
            seen: Mutex::new(seen),
            wanted: plan.policy.pin_digest,
        }
    }

    /// The outcome of a pull, unless another node got another digest.
    ///
    /// # Errors
    /// A [`Failure`] of kind corrupt at stage verify.
    pub(super) fn compare(
        &self,
        plan: &Plan,
        node: usize,
        item: usize,
        outcome: Outcome,
    ) -> Result<Outcome, Failure> {
        let (Outcome::Pulled(held) | Outcome::Present(held)) = &outcome else {
            return Ok(outcome);
        };
        if !self.wanted {
            return Ok(outcome);
        }
        let wrong = |detail: String| Failure::new(FailureKind::Corrupt, Stage::Verify, detail);
        let LocalImage {
            digest: Some(digest),
            ..
        } = held
        else {
            let detail = "the node names no digest for the image, and --pin-digest compares them";
            return Err(wrong(detail.into()));
        };
        // One insertion: a panic elsewhere cannot have left it half done.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (pinned, first) = seen.entry(item).or_insert_with(|| (digest.clone(), node));
        if pinned == digest {
            return Ok(outcome);
        }
        let first = &plan.fleet.nodes()[*first].name;
        Err(wrong(format!(
            "this node holds {digest}, but {first} got {pinned}: the tag was moved while the run went on"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Fleet, Node, Policy, Work};

    fn plan(pin_digest: bool) -> Plan {
        Plan::new(
            Fleet::new(vec![Node::named("n1"), Node::named("n2")]).unwrap(),
            Work::Pull(vec![]),
            Policy {
                pin_digest,
                ..Policy::default()
            },
        )
    }

    fn pulled(digest: Option<&str>) -> Outcome {
        Outcome::Pulled(LocalImage {
            digest: digest.map(String::from),
            image_id: None,
            bytes: None,
            platform: None,
        })
    }

    #[test]
    fn the_first_digest_is_the_one() {
        let plan = plan(true);
        let pins = Pins::new(&plan);
        assert!(pins.compare(&plan, 1, 0, pulled(Some("sha256:a"))).is_ok());
        assert!(pins.compare(&plan, 0, 0, pulled(Some("sha256:a"))).is_ok());
        assert!(pins.compare(&plan, 0, 1, pulled(Some("sha256:b"))).is_ok());
        let failure = pins
            .compare(&plan, 0, 0, pulled(Some("sha256:b")))
            .unwrap_err();
        assert_eq!(failure.kind, FailureKind::Corrupt);
        assert!(
            failure.detail.contains("sha256:b, but n2 got sha256:a"),
            "{failure}"
        );
        assert!(pins.compare(&plan, 0, 0, pulled(None)).is_err());
    }

    #[test]
    fn without_the_flag_nothing_is_compared() {
        let plan = plan(false);
        let pins = Pins::new(&plan);
        for digest in [Some("sha256:a"), Some("sha256:b"), None] {
            assert!(pins.compare(&plan, 0, 0, pulled(digest)).is_ok());
        }
    }

    #[test]
    fn what_an_earlier_run_pinned_counts() {
        let mut plan = plan(true);
        let Outcome::Pulled(held) = pulled(Some("sha256:a")) else {
            unreachable!()
        };
        plan.already_present.insert((0, 0), held);
        let pins = Pins::new(&plan);
        assert!(pins.compare(&plan, 1, 0, pulled(Some("sha256:b"))).is_err());
    }
}
