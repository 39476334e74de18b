//! What a registry was asked for, by its own log, and what nodes hold then.

#![allow(dead_code)] // each test file uses its part

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::support::{Lab, Node, succeed};

/// All names of images on a node, as its runtime has them; without the CRI's own by the configuration's digest.
pub fn names_on(lab: &Lab, node: &Node) -> Vec<String> {
    let script = match node.runtime.as_str() {
        "docker" => "docker image ls -a --digests --format '{{.Repository}}:{{.Tag}}@{{.Digest}}'",
        _ => "ctr -n k8s.io images ls -q",
    };
    let listed = succeed(&mut lab.on(&node.name, &["sh", "-c", script]));
    let mut names: Vec<String> = listed.lines().map(String::from).collect();
    names.sort();
    names
}

/// What the registry was asked for since then, by path, and how often it sent it.
pub struct RegistryLog<'a> {
    lab: &'a Lab,
    from: usize,
}

impl<'a> RegistryLog<'a> {
    pub fn now(lab: &'a Lab) -> Self {
        let from = Self::text(lab).len();
        Self { lab, from }
    }

    fn text(lab: &Lab) -> String {
        let path = lab.state.join("logs/registry.registry.log");
        String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
    }

    /// The lines of its access log with this method for paths with this part, those that it answered with what was
    /// asked for.
    pub fn sent(&self, method: &str, part: &str) -> BTreeMap<String, usize> {
        let text = Self::text(self.lab);
        let mut sent = BTreeMap::new();
        for line in text[self.from..].lines() {
            let Some((_, request)) = line.split_once(&format!("] \"{method} ")) else {
                continue;
            };
            let mut words = request.split(' ');
            let (path, _, status) = (words.next().unwrap(), words.next(), words.next());
            if path.contains(part) && ["200", "206", "307"].contains(&status.unwrap_or_default()) {
                *sent.entry(path.to_string()).or_default() += 1;
            }
        }
        sent
    }

    pub fn blobs(&self) -> BTreeMap<String, usize> {
        self.sent("GET", "/blobs/")
    }

    /// Whether anything came from this node.
    pub fn heard_of(&self, node: &Node) -> bool {
        Self::text(self.lab)[self.from..]
            .lines()
            .any(|line| line.starts_with(&format!("{} ", node.address)))
    }
}

pub fn outcome<'a>(document: &'a Value, node: &Node) -> &'a Value {
    let nodes = document["nodes"].as_array().unwrap();
    let found = nodes
        .iter()
        .find(|entry| entry["name"] == node.name.as_str());
    &found.unwrap()["outcomes"][0]
}

/// Where an ordinary pull leaves the same names.
pub fn assert_only_real_names(lab: &Lab, nodes: &[Node]) {
    for node in nodes {
        let local: Vec<String> = names_on(lab, node)
            .into_iter()
            .filter(|name| name.contains("127.0.0.1"))
            .collect();
        assert_eq!(local, Vec::<String>::new(), "on {}", node.name);
    }
}
