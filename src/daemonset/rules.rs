//! What prepull must be allowed to do for a DaemonSet, and the question whether it is.

use futures::future::try_join_all;
use serde::Deserialize;
use serde_json::json;

use crate::inventory::{Api, Change, Refusal};

/// Where a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Cluster,
    Namespace,
}

/// One rule of a role.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) scope: Scope,
    pub(super) group: &'static str,
    pub(super) resource: &'static str,
    pub(super) verbs: &'static [&'static str],
}

const NODES: Rule = Rule {
    scope: Scope::Cluster,
    group: "",
    resource: "nodes",
    verbs: &["list", "watch"],
};
const NAMESPACES: Rule = Rule {
    scope: Scope::Cluster,
    group: "",
    resource: "namespaces",
    verbs: &["create"],
};
const DAEMONSETS: Rule = Rule {
    scope: Scope::Namespace,
    group: "apps",
    resource: "daemonsets",
    verbs: &["get", "list", "watch", "create", "patch", "delete"],
};
const PODS: Rule = Rule {
    scope: Scope::Namespace,
    group: "",
    resource: "pods",
    verbs: &["list", "watch"],
};
const EVENTS: Rule = Rule {
    scope: Scope::Namespace,
    group: "",
    resource: "events",
    verbs: &["list", "watch"],
};

/// All rules.
pub(super) fn rules(creates_namespace: bool) -> Vec<Rule> {
    let mut rules = vec![NODES, DAEMONSETS, PODS, EVENTS];
    if creates_namespace {
        rules.insert(1, NAMESPACES);
    }
    rules
}

#[derive(Deserialize)]
struct Review {
    #[serde(default)]
    status: ReviewStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ReviewStatus {
    allowed: bool,
}

/// The rules that are missing, for people: `create daemonsets.apps in the namespace prepull`.
///
/// # Errors
/// The API does not answer the question.
pub(super) async fn missing(
    api: &Api,
    namespace: &str,
    creates_namespace: bool,
) -> Result<Vec<String>, Refusal> {
    let rules = rules(creates_namespace);
    let questions = rules
        .iter()
        .flat_map(|rule| rule.verbs.iter().map(move |verb| (rule, *verb)));
    let answers = try_join_all(questions.map(async |(rule, verb)| {
        let mut asked = json!({"group": rule.group, "resource": rule.resource, "verb": verb});
        if rule.scope == Scope::Namespace {
            asked["namespace"] = namespace.into();
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer: Review = api.change(Change::Create, path, &review).await?;
        let dot = if rule.group.is_empty() { "" } else { "." };
        let place = match rule.scope {
            Scope::Cluster => "in the whole cluster".to_string(),
            Scope::Namespace => format!("in the namespace {namespace}"),
        };
        let said = format!("{verb} {}{dot}{} {place}", rule.resource, rule.group);
        Ok::<_, Refusal>((!answer.status.allowed).then_some(said))
    }))
    .await?;
    Ok(answers.into_iter().flatten().collect())
}
