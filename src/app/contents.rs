//! Asks registries what the images are made of, before a preflight and on its time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::Format;
use crate::model::text::{format_count, format_duration};
use crate::model::{Image, Plan, PlannedImage, ProgressStyle};
use crate::registry::{self, RegistryError};
use crate::report;
use crate::settings::{OutputSettings, RunSettings};

/// The most time for all questions together. Sizes are worth a warning about a full disk, not a long wait.
const LIMIT: Duration = Duration::from_secs(2 * 60);
/// A wait that is longer gets explained.
const QUICK: Duration = Duration::from_secs(1);
/// How many images of one trouble are named.
const NAMED: usize = 3;

/// The plan with what images are made of, where a preflight needs to know, and with what is left of its deadline.
///
/// A registry that does not answer is not a reason to stop: nodes may reach it where this machine does not.
pub(super) async fn asked(settings: &RunSettings) -> Arc<Plan> {
    let began = Instant::now();
    let mut plan = Arc::clone(&settings.plan);
    let policy = &settings.plan.policy;
    let images = settings.plan.work.planned();
    if policy.preflight.is_some() && !images.is_empty() {
        let left = policy
            .deadline
            .map(|limit| limit.saturating_sub(settings.spent));
        // The other half is for the nodes.
        let limit = left.map_or(LIMIT, |left| (left / 2).min(LIMIT));
        let certificates = Path::new(registry::DOCKER_CERTIFICATES);
        let asking = registry::contents(
            images,
            policy.platform.as_deref(),
            &policy.mirrors,
            certificates,
            limit,
            settings.plan.forecast,
        );
        let mut asking = std::pin::pin!(asking);
        let answers = match tokio::time::timeout(QUICK, asking.as_mut()).await {
            Ok(answers) => answers,
            Err(_) => {
                if is_shown(settings.output) {
                    report::print_stderr(&meanwhile(images, limit));
                }
                asking.await
            }
        };
        super::warn(&untold(images, &answers));
        Arc::make_mut(&mut plan).contents = answers.into_iter().map(Result::ok).collect();
    }
    if let Some(deadline) = plan.policy.deadline {
        let spent = settings.spent.saturating_add(began.elapsed());
        Arc::make_mut(&mut plan).policy.deadline = Some(deadline.saturating_sub(spent));
    }
    plan
}

/// Whether progress is shown, as with the progress of the run itself.
fn is_shown(output: OutputSettings) -> bool {
    let is_watched = output.format == Format::Human || io::stderr().is_terminal();
    match output.progress {
        _ if output.quiet => false,
        ProgressStyle::None => false,
        ProgressStyle::Auto => is_watched,
        ProgressStyle::Bars | ProgressStyle::Lines => true,
    }
}

fn meanwhile(images: &[PlannedImage], limit: Duration) -> String {
    let registries: BTreeSet<&str> = images.iter().map(|one| one.image.registry()).collect();
    let registries: Vec<&str> = registries.into_iter().collect();
    format!(
        "asking {} for the size of {}, for at most {}\n",
        registries.join(", "),
        format_count(images.len(), "image"),
        format_duration(limit)
    )
}

/// The images of unknown size, as one warning for each reason.
fn untold<T>(images: &[PlannedImage], answers: &[Result<T, RegistryError>]) -> Vec<String> {
    let mut reasons: BTreeMap<String, Vec<&Image>> = BTreeMap::new();
    for (planned, answer) in images.iter().zip(answers) {
        if let Err(why) = answer {
            reasons
                .entry(why.to_string())
                .or_default()
                .push(&planned.image);
        }
    }
    let warning = |(why, images): (String, Vec<&Image>)| {
        let names = images.iter().take(NAMED).map(|image| image.to_string());
        let mut names = names.collect::<Vec<_>>().join(", ");
        if let more @ 1.. = images.len().saturating_sub(NAMED) {
            names.push_str(&format!(" and {more} more"));
        }
        format!("the size of {names} is not known, so the room for it is not checked: {why}")
    };
    reasons.into_iter().map(warning).collect()
}
