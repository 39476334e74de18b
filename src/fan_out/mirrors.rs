//! Peer-to-peer mirrors that a runtime is configured with already: found in its configuration of registries.
//!
//! An engine is known by the port that its own documentation has runtimes use, or by its header. Sources: the chart of
//! Spegel (host port 30020, later 29999; node port 30021), k3s pull request 8977 (port 6443 of the node itself), docs of
//! Dragonfly (dfdaemon at 65001, later 4001, `X-Dragonfly-Registry`), Kraken's example for Kubernetes (agent at 30081)
//! and its documentation for several hosts (16000).

use std::future::Future;

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use crate::model::{Image, Node, PeerEngine, RuntimeKind, Stage};
use crate::node::{self, Interrupted};
use crate::ports::{NodeCommand, Session};

/// Prints the configuration.
const SCRIPT: &str = include_str!("mirrors.sh");
/// What the line before each file begins with; the rest is its form.
const MARK: &str = "#prepull ";
/// Docker asks its mirrors for images of this registry alone.
const DOCKER_HUB: &str = "docker.io";

/// Asks a node whether its runtime gets images of this registry through a peer-to-peer mirror.
///
/// # Errors
/// Cancelled, or a [`Failure`](crate::model::Failure) at stage start or probe.
pub async fn engine<S: Session>(
    session: &mut S,
    node: &Node,
    runtime: RuntimeKind,
    image: &Image,
    cancel: impl Future<Output = ()> + Send,
) -> Result<Option<PeerEngine>, Interrupted> {
    let registry = image.registry();
    if let Some(engine) = engine_at(&format!("http://{registry}")) {
        return Ok(Some(engine));
    }
    let socket = node.endpoint.as_deref().unwrap_or_default();
    // The first argument of the script is `$0`.
    let argv = vec![
        "sh",
        "-c",
        SCRIPT,
        "mirrors",
        runtime.as_str(),
        registry,
        socket,
    ];
    let command = NodeCommand {
        argv,
        environment: Vec::new(),
        secret: None,
        stdin: b"",
    };
    let output = node::ask(session, node, command, Stage::Probe, cancel).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(configured(&text, registry))
}

/// The engine in what the script printed, if any.
fn configured(printed: &str, registry: &str) -> Option<PeerEngine> {
    let files = printed.split(MARK).skip(1);
    let mut found = files.filter_map(|file| {
        let (form, text) = file.split_once('\n')?;
        match form {
            "hosts" => in_hosts(text),
            "containerd" => in_containerd(text, registry),
            "containers" => in_containers(text, registry),
            "docker" if registry == DOCKER_HUB => in_docker(text),
            _ => None,
        }
    });
    found.next()
}

/// `hosts.toml` of containerd: `[host."URL"]`, with its headers.
fn in_hosts(text: &str) -> Option<PeerEngine> {
    let file = toml(text)?;
    let hosts = file.get("host")?.as_object()?;
    let has_header = |host: &Value| {
        let headers = host.get("header").and_then(Value::as_object);
        let mut names = headers.into_iter().flat_map(Map::keys);
        names.any(|name| name.eq_ignore_ascii_case("X-Dragonfly-Registry"))
    };
    hosts.iter().find_map(|(url, host)| match has_header(host) {
        true => Some(PeerEngine::Dragonfly),
        false => engine_at(url),
    })
}

/// `config.toml` of containerd: `registry.mirrors."REGISTRY"` of its CRI plugin, which has had several names.
fn in_containerd(text: &str, registry: &str) -> Option<PeerEngine> {
    let file = toml(text)?;
    let plugins = file.get("plugins")?.as_object()?;
    plugins.values().find_map(|plugin| {
        let mirrors = plugin.get("registry")?.get("mirrors")?;
        let mirror = mirrors.get(registry).or_else(|| mirrors.get("*"))?;
        let urls = mirror.get("endpoint")?.as_array()?;
        urls.iter().find_map(|url| engine_at(url.as_str()?))
    })
}

/// `registries.conf`, version 2: `[[registry]]` with `[[registry.mirror]]`.
fn in_containers(text: &str, registry: &str) -> Option<PeerEngine> {
    let file = toml(text)?;
    let registries = file.get("registry")?.as_array()?;
    registries.iter().find_map(|one| {
        let prefix = one.get("prefix").or_else(|| one.get("location"))?;
        // It may name a part of the registry. A wildcard is for subdomains.
        let host = prefix.as_str()?.split('/').next()?;
        let is_it = match host.strip_prefix('*') {
            Some(domain) => registry.ends_with(domain),
            None => host == registry,
        };
        let mirrors = one.get("mirror")?.as_array()?;
        let engine = |mirror: &Value| {
            let location = mirror.get("location")?.as_str()?;
            engine_at(&format!("http://{location}"))
        };
        is_it.then(|| mirrors.iter().find_map(engine)).flatten()
    })
}

/// Tables, lists and texts of a TOML file; nothing of one that is broken.
fn toml(text: &str) -> Option<Value> {
    let table = DeTable::parse(text).ok()?;
    Some(table_as_json(table.get_ref()))
}

fn table_as_json(table: &DeTable<'_>) -> Value {
    let fields = table.iter();
    let fields = fields.map(|(name, value)| (name.get_ref().to_string(), as_json(value.get_ref())));
    Value::Object(fields.collect())
}

fn as_json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::Table(table) => table_as_json(table),
        DeValue::Array(values) => values
            .iter()
            .map(|value| as_json(value.get_ref()))
            .collect(),
        DeValue::String(text) => Value::from(text.as_ref()),
        _ => Value::Null,
    }
}

/// `daemon.json` of docker.
fn in_docker(text: &str) -> Option<PeerEngine> {
    let file: Value = serde_json::from_str(text).ok()?;
    let mirrors = file.get("registry-mirrors")?.as_array()?;
    mirrors.iter().find_map(|url| engine_at(url.as_str()?))
}

/// The engine that listens there by default.
fn engine_at(url: &str) -> Option<PeerEngine> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let (host, port) = authority.rsplit_once(':')?;
    let is_local = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    match (port, is_local) {
        // Spegel is asked at the node's own address, as the node is known in the cluster.
        ("30020" | "30021" | "29999", _) => Some(PeerEngine::Spegel),
        // Inside k3s.
        ("6443", true) => Some(PeerEngine::Spegel),
        ("65001" | "4001", true) => Some(PeerEngine::Dragonfly),
        ("30081" | "16000", true) => Some(PeerEngine::Kraken),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written after the documentation of the engines and of the runtimes.
    #[test]
    fn engines_are_known_by_their_configuration() {
        use PeerEngine::{Dragonfly, Kraken, Spegel};
        let (hub, own) = ("docker.io", "reg.example:5000");
        let spegel = "#prepull hosts\nserver = 'https://reg.example:5000'\n\n\
            [host.'http://10.245.0.49:30020']\ncapabilities = ['pull', 'resolve']\n\n\
            [host.'http://10.245.0.49:30021']\ncapabilities = ['pull', 'resolve']\n";
        let newer = "#prepull hosts\n[host.'http://10.9.1.238:29999']\ncapabilities = ['pull', 'resolve']\n\
            dial_timeout = '200ms'\n";
        let k3s = "#prepull hosts\nserver = \"https://registry-1.docker.io/v2\"\n\
            capabilities = [\"pull\", \"resolve\", \"push\"]\n\n[host]\n\
            [host.\"https://127.0.0.1:6443/v2\"]\n  capabilities = [\"pull\", \"resolve\"]\n\
              ca = [\"/var/lib/rancher/k3s/agent/server-ca.crt\"]\n";
        let dragonfly = "#prepull hosts\nserver = \"https://docker.io\"\n\n[host.\"http://127.0.0.1:65001\"]\n\
            \x20 capabilities = [\"pull\", \"resolve\"]\n  [host.\"http://127.0.0.1:65001\".header]\n\
            \x20   X-Dragonfly-Registry = [\"https://registry-1.docker.io\"]\n";
        let elsewhere = dragonfly.replace("127.0.0.1:65001", "dfdaemon.example:8080");
        let in_cri = "#prepull containerd\nversion = 2\n\
            [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n\
            endpoint = [\"http://127.0.0.1:65001\", \"https://index.docker.io\"]\n";
        let containers = "#prepull containers\nunqualified-search-registries = [\"docker.io\"]\n\n[[registry]]\n\
            prefix = \"reg.example:5000\"\nlocation = \"reg.example:5000\"\n\n[[registry.mirror]]\n\
            insecure = true\nlocation = \"127.0.0.1:4001\"\n";
        let docker = "#prepull docker\n{\"registry-mirrors\": [\"http://127.0.0.1:65001\"]}\n";
        let kraken = docker.replace("65001", "30081");
        let cache = "#prepull hosts\n[host.\"http://cache.example:5000\"]\n#prepull docker\n\
            {\"registry-mirrors\": [\"http://127.0.0.1:5000\"]}\n";
        let broken = "#prepull hosts\n[host.\n#prepull docker\n{\n#prepull unknown\n";
        let both = format!("{broken}{dragonfly}");
        for (printed, registry, expected) in [
            (spegel, own, Some(Spegel)),
            (newer, own, Some(Spegel)),
            (k3s, hub, Some(Spegel)),
            (dragonfly, hub, Some(Dragonfly)),
            (&elsewhere, hub, Some(Dragonfly)),
            (in_cri, hub, Some(Dragonfly)),
            (in_cri, own, None),
            (containers, own, Some(Dragonfly)),
            (containers, hub, None),
            (docker, hub, Some(Dragonfly)),
            (docker, own, None),
            (&kraken, hub, Some(Kraken)),
            (cache, hub, None),
            (broken, hub, None),
            (&both, hub, Some(Dragonfly)),
            ("", hub, None),
        ] {
            assert_eq!(
                configured(printed, registry),
                expected,
                "{registry}: {printed}"
            );
        }
        // An image that is named by the agent itself.
        assert_eq!(engine_at("http://localhost:30081"), Some(Kraken));
        assert_eq!(engine_at("http://reg.example:30081"), None);
    }

    #[test]
    fn the_script_prints_what_there_is_and_no_more() {
        let output = std::process::Command::new("sh")
            .args(["-c", SCRIPT, "mirrors", "crictl", "reg.example:5000"])
            .arg("unix:///run/nowhere.sock")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    }
}
