//! Before anything is pulled: asks each node what it has, and finds out whether the images can get there.

use std::collections::HashMap;

use tokio::time::Instant;

use super::context::{RunContext, guarded};
use super::state::NodeState;
use crate::model::text::format_bytes;
use crate::model::{
    EventKind, Failure, FailureKind, Image, Layer, LocalImage, Manifest, NodeFacts, Outcome, Plan,
    Preflight, PullVia, PullWhen, Stage, manifest_for,
};
use crate::node::{self, Interrupted};
use crate::ports::{Session, Transport};

/// How far a node's clock may be off, in milliseconds. Beyond it, tokens that a registry has just made are not valid
/// yet, or not any more; certificates follow.
const CLOCK_LIMIT: u64 = 5 * 60 * 1000;

/// Asks one node. What is there already gets its outcome; what cannot be pulled gets its failure.
pub(super) async fn ask<T: Transport>(
    context: &RunContext<'_, T>,
    state: &mut NodeState,
    mut session: T::Session,
    due: &[usize],
    began: Instant,
) {
    let plan = context.plan;
    let node = &plan.fleet.nodes()[state.node];
    let fact = EventKind::NodeStage {
        node: state.node,
        item: None,
        stage: Stage::Preflight,
    };
    context.try_emit(fact);
    let images: Vec<Image> = due
        .iter()
        .filter_map(|item| plan.work.image(*item).cloned())
        .collect();
    let answer = match context.runtime(state.runtime) {
        Ok(runtime) => {
            let asking = node::facts(&mut session, node, runtime, &images, context.cancelled());
            guarded(Stage::Preflight, asking).await
        }
        Err(failure) => Err(failure.into()),
    };
    session.close().await;
    match answer {
        Ok(facts) => {
            let images: Vec<&Image> = images.iter().collect();
            let mut is_asked_again = false;
            for (item, answer) in due.iter().zip(judge(plan, due, &images, &facts)) {
                if let Some(result) = answer {
                    let has_failed = result.is_err();
                    state.record_attempt(context, *item, result, began).await;
                    is_asked_again |= has_failed && state.items[*item].is_open();
                }
            }
            state.platform = Some((facts.os, facts.architecture));
            if !is_asked_again {
                state.mark_preflight_passed();
            }
        }
        Err(Interrupted::Cancelled | Interrupted::HungUp(_)) => {
            for item in due {
                state.note_cancelled(*item, began);
            }
        }
        Err(Interrupted::Failed(mut failure)) => {
            failure.stage = Stage::Preflight;
            for item in due {
                state
                    .record_attempt(context, *item, Err(failure.clone()), began)
                    .await;
            }
        }
    }
}

/// Why a node could not pull the images of a probe that it does not hold, each reason once.
pub(super) fn obstacles(plan: &Plan, facts: &NodeFacts) -> Vec<Failure> {
    let images: Vec<&Image> = plan.work.planned().iter().map(|one| &one.image).collect();
    let due: Vec<usize> = (0..images.len()).collect();
    let mut found: Vec<Failure> = Vec::new();
    for answer in judge(plan, &due, &images, facts).into_iter().flatten() {
        found.extend(answer.err().filter(|failure| !found.contains(failure)));
    }
    found
}

/// What the node's answer means for each item, whose images are `images`; nothing for what may be pulled.
fn judge(
    plan: &Plan,
    due: &[usize],
    images: &[&Image],
    facts: &NodeFacts,
) -> Vec<Option<Result<Outcome, Failure>>> {
    let mut answers: Vec<Option<Result<Outcome, Failure>>> = images
        .iter()
        .zip(&facts.images)
        .map(|(image, held)| {
            present(plan, image, held.as_ref()).map(|held| Ok(Outcome::Present(held.clone())))
        })
        .collect();
    if let Some(failure) = clock_trouble(facts) {
        fail(&mut answers, &failure);
        return answers;
    }
    for (image, answer) in images.iter().zip(&mut answers) {
        let is_its = |(registry, _): &&(String, Failure)| registry == image.registry();
        // Through SSH no node needs a way to it.
        if plan.policy.via == PullVia::Registry
            && answer.is_none()
            && let Some((_, failure)) = facts.unusable_registries.iter().find(is_its)
        {
            *answer = Some(Err(failure.clone()));
        }
    }
    let mut missing: Vec<&Layer> = Vec::new();
    for (at, item) in due.iter().enumerate() {
        let Some(Some(manifests)) = plan.contents.get(*item) else {
            continue;
        };
        match manifest_of(plan, manifests, &facts.os, &facts.architecture) {
            _ if answers[at].is_some() => {}
            None => answers[at] = Some(Err(no_platform(plan, manifests, facts))),
            // Most layers of an image under this name are there too, however old it is, unless it is for another
            // platform.
            Some(_)
                if facts.images[at]
                    .as_ref()
                    .is_some_and(|held| held.suits(plan.policy.platform.as_deref())) => {}
            Some(manifest) => missing.extend(&manifest.layers),
        }
    }
    if let Some(known) = facts
        .forecast
        .as_ref()
        .and_then(|asked| asked.missing.as_ref())
    {
        missing = known.iter().flatten().collect();
    }
    if let (Some(preflight), Some(free)) = (plan.policy.preflight, facts.free)
        && let Some(failure) = lack_of_room(preflight, &missing, free, &facts.root)
    {
        fail(&mut answers, &failure);
    }
    answers
}

/// What the node holds of an image, where that is left as it is.
pub(super) fn present<'a>(
    plan: &Plan,
    image: &Image,
    held: Option<&'a LocalImage>,
) -> Option<&'a LocalImage> {
    let held = held?;
    let wanted = image.digest();
    let is_it = wanted.is_none_or(|wanted| held.digest.as_deref() == Some(wanted))
        && held.suits(plan.policy.platform.as_deref());
    (plan.policy.pull == PullWhen::Missing && is_it).then_some(held)
}

/// Everything that has no answer yet fails.
fn fail(answers: &mut [Option<Result<Outcome, Failure>>], failure: &Failure) {
    for answer in answers.iter_mut().filter(|answer| answer.is_none()) {
        *answer = Some(Err(failure.clone()));
    }
}

fn clock_trouble(facts: &NodeFacts) -> Option<Failure> {
    let off = facts.clock.milliseconds;
    if off.unsigned_abs().saturating_sub(facts.clock.uncertainty) <= CLOCK_LIMIT {
        return None;
    }
    let seconds = std::time::Duration::from_secs(off.unsigned_abs() / 1000);
    let side = if off > 0 { "ahead of" } else { "behind" };
    Some(Failure::new(
        FailureKind::NodeSetup,
        Stage::Preflight,
        format!(
            "the node's clock is {} {side} this machine's: registries' tokens and certificates would not be valid there",
            humantime::format_duration(seconds)
        ),
    ))
}

/// The manifest that the node will take. With `--platform`, only those of that platform were asked for.
pub(super) fn manifest_of<'a>(
    plan: &Plan,
    manifests: &'a [Manifest],
    os: &str,
    architecture: &str,
) -> Option<&'a Manifest> {
    match &plan.policy.platform {
        Some(_) => manifests.first(),
        None => manifest_for(manifests, os, architecture),
    }
}

fn no_platform(plan: &Plan, manifests: &[Manifest], facts: &NodeFacts) -> Failure {
    let own = format!("{}/{}", facts.os, facts.architecture);
    let wanted = plan.policy.platform.as_deref().unwrap_or(&own);
    let mut others: Vec<String> = manifests
        .iter()
        .filter_map(|manifest| manifest.platform.as_ref())
        .map(|(os, machine)| format!("{os}/{machine}"))
        .collect();
    others.dedup();
    let others = match others.is_empty() {
        true => String::new(),
        false => format!(", only for {}", others.join(", ")),
    };
    Failure::new(
        FailureKind::Platform,
        Stage::Preflight,
        format!("the registry has no image for {wanted}{others}"),
    )
}

/// Whether the images fit: each layer once, as it is sent and as it will be unpacked.
fn lack_of_room(
    preflight: Preflight,
    missing: &[&Layer],
    free: u64,
    root: &str,
) -> Option<Failure> {
    let layers: HashMap<&str, u64> = missing
        .iter()
        .map(|layer| (layer.digest.as_str(), layer.bytes))
        .collect();
    let sent = layers
        .values()
        .fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    // Bytes of a disk are far below what a float counts exactly.
    let unpacked = (sent as f64 * preflight.unpack_factor) as u64;
    let needed = sent.saturating_add(unpacked);
    if needed <= free {
        return None;
    }
    let place = if root.is_empty() { "for images" } else { root };
    Some(Failure::new(
        FailureKind::DiskFull,
        Stage::Preflight,
        format!(
            "{} are free in {place}, and {} are needed: {} of layers, and {} times that once unpacked (--unpack-factor)",
            format_bytes(free),
            format_bytes(needed),
            format_bytes(sent),
            preflight.unpack_factor
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ClockOffset, Fleet, Node, NodeForecast, PlannedImage, Policy, Work};

    fn manifest(architecture: Option<&str>, layers: &[(&str, u64)]) -> Manifest {
        Manifest {
            platform: architecture.map(|machine| ("linux".into(), machine.into())),
            layers: layers
                .iter()
                .map(|(digest, bytes)| Layer {
                    digest: (*digest).into(),
                    bytes: *bytes,
                })
                .collect(),
            diff_ids: Vec::new(),
        }
    }

    fn facts(free: Option<u64>, images: Vec<Option<LocalImage>>) -> NodeFacts {
        NodeFacts {
            os: "linux".into(),
            architecture: "arm64".into(),
            system: String::new(),
            clock: ClockOffset {
                milliseconds: -200,
                uncertainty: 5,
            },
            runtime: "containerd 2".into(),
            client: "docker".into(),
            endpoint: None,
            root: "/var/lib/containerd".into(),
            free,
            images,
            unusable_registries: Vec::new(),
            obstacles: Vec::new(),
            forecast: None,
        }
    }

    fn held() -> Option<LocalImage> {
        Some(LocalImage {
            digest: Some("sha256:1".into()),
            image_id: None,
            bytes: None,
            platform: None,
        })
    }

    fn plan(contents: Vec<Option<Vec<Manifest>>>) -> Plan {
        let image = |number| PlannedImage {
            image: format!("reg.example/app{number}:v1").parse().unwrap(),
            login: None,
        };
        let fleet = Fleet::new(vec![Node::named("n1")]).unwrap();
        let work = Work::Pull((0..contents.len()).map(image).collect());
        let policy = Policy {
            preflight: Some(Preflight { unpack_factor: 2.0 }),
            ..Policy::default()
        };
        Plan {
            contents,
            ..Plan::new(fleet, work, policy)
        }
    }

    fn images(plan: &Plan) -> Vec<&Image> {
        plan.work.planned().iter().map(|one| &one.image).collect()
    }

    /// One word for each answer.
    fn words(plan: &Plan, facts: &NodeFacts) -> Vec<String> {
        let due: Vec<usize> = (0..plan.work.items()).collect();
        judge(plan, &due, &images(plan), facts)
            .iter()
            .map(|answer| match answer {
                None => "may pull".into(),
                Some(Ok(_)) => "present".into(),
                Some(Err(failure)) => failure.kind.to_string(),
            })
            .collect()
    }

    #[test]
    fn room_is_wanted_for_each_missing_layer_once() {
        let both = plan(vec![
            Some(vec![manifest(None, &[("a", 100), ("b", 50)])]),
            Some(vec![manifest(None, &[("b", 50), ("c", 10)])]),
        ]);
        let none = || vec![None, None];
        assert_eq!(words(&both, &facts(Some(480), none())), ["may pull"; 2]);
        assert_eq!(words(&both, &facts(Some(479), none())), ["disk-full"; 2]);
        assert_eq!(words(&both, &facts(None, none())), ["may pull"; 2]);
        // What is there needs no room, and is present whatever becomes of the other.
        let half = facts(Some(449), vec![None, held()]);
        assert_eq!(words(&both, &half), ["disk-full", "present"]);
        let unknown = plan(vec![None, None]);
        assert_eq!(words(&unknown, &facts(Some(0), none())), ["may pull"; 2]);
    }

    #[test]
    fn a_forecast_wants_room_for_the_layers_that_a_node_lacks() {
        let plan = plan(vec![Some(vec![manifest(None, &[("a", 100), ("b", 50)])])]);
        let mut facts = facts(Some(150), vec![None]);
        assert_eq!(words(&plan, &facts), ["disk-full"]);
        let layer = Layer {
            digest: "b".into(),
            bytes: 50,
        };
        facts.forecast = Some(NodeForecast {
            missing: Some(vec![vec![layer]]),
            ..NodeForecast::default()
        });
        assert_eq!(words(&plan, &facts), ["may pull"]);
        facts.free = Some(149);
        assert_eq!(words(&plan, &facts), ["disk-full"]);
    }

    #[test]
    fn a_platform_that_nobody_pushed_is_told_before_the_pull() {
        let plan = plan(vec![
            Some(vec![
                manifest(Some("amd64"), &[]),
                manifest(Some("s390x"), &[]),
            ]),
            Some(vec![manifest(Some("arm64"), &[])]),
        ]);
        let facts = facts(None, vec![None, None]);
        assert_eq!(words(&plan, &facts), ["platform", "may pull"]);
        let Some(Err(failure)) = judge(&plan, &[0], &images(&plan), &facts).remove(0) else {
            panic!("it may pull");
        };
        assert_eq!(
            failure.to_string(),
            "platform (preflight): the registry has no image for linux/arm64, only for linux/amd64, linux/s390x"
        );
    }

    #[test]
    fn a_clock_that_is_minutes_off_is_the_nodes_trouble() {
        let plan = plan(vec![None]);
        let mut facts = facts(None, vec![None]);
        facts.clock.milliseconds = -3_600_000;
        assert_eq!(words(&plan, &facts), ["node-setup"]);
        facts.clock.uncertainty = 3_400_000;
        assert_eq!(words(&plan, &facts), ["may pull"]);
    }

    #[test]
    fn what_the_registry_is_to_the_node_counts_for_its_images_that_are_missing() {
        let mut plan = plan(vec![None, None, None]);
        let mut facts = facts(None, vec![held(), None, None]);
        let unknown = Failure::new(
            FailureKind::RegistryUnresolved,
            Stage::Preflight,
            "no such host",
        );
        facts.unusable_registries = vec![("reg.example".into(), unknown.clone())];
        let unavailable = "registry-unavailable";
        assert_eq!(words(&plan, &facts), ["present", unavailable, unavailable]);
        facts.unusable_registries[0].0 = "other.example".into();
        assert_eq!(words(&plan, &facts), ["present", "may pull", "may pull"]);
        facts.unusable_registries[0].0 = "reg.example".into();
        plan.policy.via = PullVia::Ssh;
        assert_eq!(words(&plan, &facts), ["present", "may pull", "may pull"]);
        plan.policy.via = PullVia::Registry;
        let Work::Pull(images) = plan.work else {
            panic!("not a pull");
        };
        plan.work = Work::Probe(images);
        assert_eq!(obstacles(&plan, &facts), [unknown], "each reason once");
    }

    #[test]
    fn with_pull_always_what_is_there_is_asked_for_again() {
        let mut plan = plan(vec![Some(vec![manifest(None, &[("a", 100)])])]);
        plan.policy.pull = PullWhen::Always;
        assert_eq!(words(&plan, &facts(Some(1), vec![held()])), ["may pull"]);
        plan.policy.pull = PullWhen::Missing;
        assert_eq!(words(&plan, &facts(Some(1), vec![held()])), ["present"]);
    }
}
