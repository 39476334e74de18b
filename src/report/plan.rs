//! Plans as text and JSON, before anything is touched.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::format::escape_truncated;
use super::nodes::{fleet_json, fleet_table};
use crate::model::{
    Credential, LoginSource, Plan, PlannedImage, Policy, PullWhen, Work, text::format_count,
};

/// The plan as text, for `--dry-run`. Never a password.
pub fn plan_text(plan: &Plan) -> String {
    let mut out = fleet_table(&plan.fleet, false);
    let _ = writeln!(
        out,
        "\n{} on {}:",
        plan.work.command(),
        format_count(plan.fleet.nodes().len(), "node")
    );
    match &plan.work {
        Work::Pull(images) => {
            for PlannedImage { image, login } in images {
                let login = match login {
                    Some(Credential { login, source }) => {
                        let user = login.username().unwrap_or("the owner of a token");
                        let (user, source) = (escape_truncated(user, 100), source.to_string());
                        format!("as {user}: {}", escape_truncated(&source, 500))
                    }
                    None => "no login found: the node's own is used".into(),
                };
                let _ = writeln!(out, "  {image} from {} ({login})", image.registry());
            }
        }
        Work::Check(images) | Work::Probe(images) => {
            for image in images {
                let _ = writeln!(out, "  {image}");
            }
        }
        Work::Exec(words) => {
            let _ = writeln!(out, "  {}", escape_truncated(&words.join(" "), 1000));
        }
    }
    let policy = &plan.policy;
    let _ = writeln!(
        out,
        "at most {} at a time, {} retries, a pause of up to {:?} to {:?} before each",
        format_count(policy.parallel, "node"),
        policy.retries,
        policy.backoff.min,
        policy.backoff.max,
    );
    if !policy.waves.is_empty() {
        let _ = writeln!(out, "in waves of {}", portions(policy).join(", "));
    }
    if let Some(limit) = policy.max_failures {
        let _ = writeln!(out, "no further node once {limit} of them failed");
    }
    for (what, limit) in [
        ("one attempt takes", policy.pull_timeout),
        ("the whole run takes", policy.deadline),
    ] {
        if let Some(limit) = limit {
            let _ = writeln!(out, "{what} at most {limit:?}");
        }
    }
    if let Some(platform) = &policy.platform {
        let _ = writeln!(out, "for the platform {platform}");
    }
    if policy.pull == PullWhen::Always {
        let _ = writeln!(out, "also where a node holds the image already");
    }
    out
}

/// Where a login comes from, for programs.
fn login_source(source: &LoginSource) -> Value {
    let (program, file, pull_secret) = match source {
        LoginSource::Prompt | LoginSource::Stdin => (None, None, None),
        LoginSource::File(file) => (None, Some(file), None),
        LoginSource::Helper { program, file } => (Some(program), Some(file), None),
        LoginSource::PullSecret(name) => (None, None, Some(name)),
    };
    json!({
        "source": source.kind(), "program": program, "file": file.map(|path| path.to_string_lossy()), "pull_secret": pull_secret,
    })
}

fn portions(policy: &Policy) -> Vec<String> {
    policy.waves.iter().map(ToString::to_string).collect()
}

/// The plan as JSON, for `--dry-run -o json`. Never a password.
pub fn plan_json(plan: &Plan) -> Value {
    let images: Vec<Value> = (0..plan.work.items())
        .filter_map(|item| plan.work.image(item).map(|image| (item, image)))
        .map(|(item, image)| {
            let login = match &plan.work {
                Work::Pull(images) => images.get(item).and_then(|planned| planned.login.as_ref()),
                Work::Check(_) | Work::Exec(_) | Work::Probe(_) => None,
            };
            json!({
                "reference": image.to_string(), "registry": image.registry(),
                "user": login.and_then(|found| found.login.username()),
                "login": login.map(|found| login_source(&found.source)),
            })
        })
        .collect();
    let command = match &plan.work {
        Work::Exec(words) => Some(words),
        Work::Pull(_) | Work::Check(_) | Work::Probe(_) => None,
    };
    json!({
        "schema": 1, "command": plan.work.command(), "arguments": command, "images": images,
        "nodes": fleet_json(&plan.fleet)["nodes"],
        "policy": {
            "parallel": plan.policy.parallel, "retries": plan.policy.retries,
            "backoff_seconds": [plan.policy.backoff.min.as_secs_f64(), plan.policy.backoff.max.as_secs_f64()],
            "pull_timeout_seconds": plan.policy.pull_timeout.map(|limit| limit.as_secs_f64()),
            "deadline_seconds": plan.policy.deadline.map(|limit| limit.as_secs_f64()),
            "platform": plan.policy.platform,
            "max_failures": plan.policy.max_failures.map(|limit| limit.to_string()),
            "waves": portions(&plan.policy),
            "pull": match plan.policy.pull {
                PullWhen::Always => "always",
                PullWhen::Missing => "missing",
            },
        },
    })
}
