//! Fleets and plans as text and JSON, before anything is touched.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::lines::shown;
use crate::model::{
    Fleet, FoundLogin, LoginSource, Node, Plan, PlannedImage, Policy, PullWhen, Work, text::count,
};

/// The fleet as a table, ending with a newline; `wide` shows groups, labels and endpoints too.
pub fn fleet_table(fleet: &Fleet, wide: bool) -> String {
    let mut rows = vec![
        ["NAME", "ADDRESS", "PORT", "USER", "RUNTIME", "JUMP"]
            .map(String::from)
            .to_vec(),
    ];
    let has_facts = fleet.nodes().iter().any(|node| !node.facts.is_empty());
    if has_facts {
        rows[0].extend(["SYSTEM", "STATE"].map(String::from));
    }
    if wide {
        rows[0].extend(["ENDPOINT", "GROUPS", "LABELS"].map(String::from));
    }
    for node in fleet.nodes() {
        let jump: Vec<_> = node.jump.iter().map(ToString::to_string).collect();
        let runtime = node.runtime.map_or("auto", |kind| kind.as_str());
        let port = node.port.to_string();
        let jump = jump.join(",");
        let mut row = vec![
            node.name.as_str(),
            &node.address,
            &port,
            &node.user,
            runtime,
            &jump,
        ];
        let (system, state) = (system(node), state(node));
        if has_facts {
            row.extend([system.as_str(), &state]);
        }
        let labels = node
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        let (groups, labels) = (node.groups.join(","), labels.collect::<Vec<_>>().join(","));
        if wide {
            row.extend([
                node.endpoint.as_deref().unwrap_or_default(),
                &groups,
                &labels,
            ]);
        }
        rows.push(
            row.into_iter()
                .map(|text| if text.is_empty() { "-" } else { text })
                .map(|text| shown(text, 200).into_owned())
                .collect(),
        );
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| {
            let widths = rows.iter().map(|row| row[column].chars().count());
            widths.max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out
}

/// The names, one a line.
pub fn fleet_names(fleet: &Fleet) -> String {
    let nodes = fleet.nodes().iter();
    nodes
        .map(|node| format!("{}\n", shown(&node.name, 500)))
        .collect()
}

/// The fleet as an inventory in prepull's own YAML, with everything resolved. Each scalar is written as in JSON, which
/// YAML reads alike.
pub fn fleet_yaml(fleet: &Fleet) -> String {
    let mut out = String::from("nodes:\n");
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in fleet.nodes() {
        let mut says = json!({ "name": node.name, "port": node.port, "user": node.user });
        if !node.address.is_empty() {
            says["address"] = node.address.as_str().into();
        }
        if !node.identities.is_empty() {
            let paths = node.identities.iter().map(|path| path.to_string_lossy());
            says["identity"] = paths.collect::<Vec<_>>().into();
        }
        if !node.jump.is_empty() {
            let hops = node.jump.iter().map(ToString::to_string);
            says["jump"] = hops.collect::<Vec<_>>().into();
        }
        if let Some(runtime) = node.runtime {
            says["runtime"] = runtime.as_str().into();
        }
        if let Some(endpoint) = &node.endpoint {
            says["runtime_endpoint"] = endpoint.as_str().into();
        }
        if node.become_root {
            says["become"] = true.into();
        }
        if !node.labels.is_empty() {
            says["labels"] = json!(node.labels);
        }
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  - {says}");
        for group in &node.groups {
            groups.entry(group).or_default().push(&node.name);
        }
    }
    if !groups.is_empty() {
        out.push_str("groups:\n");
    }
    for (name, nodes) in groups {
        let _ = writeln!(out, "  {}: {}", json!(name), json!({ "nodes": nodes }));
    }
    out
}

/// "linux/amd64", where the node's source knows.
fn system(node: &Node) -> String {
    let known = ["operating-system", "architecture"].map(|fact| node.facts.get(fact));
    let known: Vec<&str> = known.into_iter().flatten().map(String::as_str).collect();
    known.join("/")
}

/// Whether it is ready and takes pods, and its taints, where its source knows.
fn state(node: &Node) -> String {
    let is = |fact: &str, value: &str| node.facts.get(fact).is_some_and(|said| said == value);
    let words = [
        is("ready", "true").then_some("Ready"),
        is("ready", "false").then_some("NotReady"),
        is("cordoned", "true").then_some("cordoned"),
        node.facts.get("taints").map(String::as_str),
    ];
    let words: Vec<&str> = words.into_iter().flatten().collect();
    words.join(",")
}

/// The fleet as `prepull nodes -o json` prints it.
pub fn fleet_json(fleet: &Fleet) -> Value {
    let nodes: Vec<Value> = fleet
        .nodes()
        .iter()
        .map(|node| {
            json!({
                "name": node.name, "address": node.address, "port": node.port, "user": node.user,
                "identities": node.identities.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
                "jump": node.jump.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "runtime": node.runtime.map(|kind| kind.as_str()),
                "labels": node.labels, "groups": node.groups, "facts": node.facts,
            })
        })
        .collect();
    json!({ "schema": 1, "nodes": nodes })
}

/// The plan as text, for `--dry-run`. Never a password.
pub fn plan_text(plan: &Plan) -> String {
    let mut out = fleet_table(&plan.fleet, false);
    let _ = writeln!(
        out,
        "\n{} on {}:",
        plan.work.command(),
        count(plan.fleet.nodes().len(), "node")
    );
    match &plan.work {
        Work::Pull(images) => {
            for PlannedImage { image, login } in images {
                let login = match login {
                    Some(FoundLogin { login, source }) => {
                        let user = login.username().unwrap_or("the owner of a token");
                        let (user, source) = (shown(user, 100), source.to_string());
                        format!("as {user}: {}", shown(&source, 500))
                    }
                    None => "no login found: the node's own is used".into(),
                };
                let _ = writeln!(out, "  {image} from {} ({login})", image.registry());
            }
        }
        Work::Check(images) => {
            for image in images {
                let _ = writeln!(out, "  {image}");
            }
        }
        Work::Exec(words) => {
            let _ = writeln!(out, "  {}", shown(&words.join(" "), 1000));
        }
    }
    let policy = &plan.policy;
    let _ = writeln!(
        out,
        "at most {} at a time, {} retries, a pause of up to {:?} to {:?} before each",
        count(policy.parallel, "node"),
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
                Work::Check(_) | Work::Exec(_) => None,
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
        Work::Pull(_) | Work::Check(_) => None,
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
