//! A TLS server that plays API server, DaemonSet controller and kubelets, as strict as an API server is.

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::DaemonSet;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

pub const TOKEN: &str = "prepull-test-token";
pub const DIGEST: &str = "sha256:de563dcca446c2e8a08582d2fb835f60bf873d768a578c61bf4d43ebdd6a63bc";
const BASE: &str = "/apis/apps/v1/namespaces/";

/// What a node's kubelet makes of each image.
#[derive(Clone, Copy, PartialEq)]
pub enum Kubelet {
    /// Pulls it.
    Pulls,
    /// Has it.
    Has,
    /// Is told this by its runtime, and pauses.
    Refused(&'static str),
    /// Says nothing at all.
    Silent,
}

/// What goes on in the cluster.
#[derive(Default)]
pub struct Cluster {
    pub version: i64,
    pub nodes: Vec<(Value, Option<Kubelet>)>,
    pub namespaces: Vec<String>,
    pub daemonset: Option<Value>,
    pods: Vec<Value>,
    events: Vec<Value>,
    /// What happened: the list, the word, and the object.
    log: Vec<(i64, &'static str, &'static str, Value)>,
    /// Method, path, type of the body and body.
    pub asked: Vec<(String, String, String, Value)>,
    /// `verb resource` that nobody may.
    pub denied: Vec<&'static str>,
    /// Answers to come, by the beginning of `METHOD path`: a status and its message.
    pub refusals: Vec<(&'static str, u16, &'static str)>,
    /// How many watches end in the middle of a line.
    pub broken_watches: usize,
    /// How many watches are told that they are too old.
    pub forgotten_watches: usize,
    /// What a client has to show.
    pub token: String,
    /// Whether the server takes image volumes, and its minor version.
    pub image_volumes: bool,
    pub minor: u32,
}

pub struct Api {
    pub folder: tempfile::TempDir,
    pub cluster: Arc<(Mutex<Cluster>, Condvar)>,
}

type Shared = (Mutex<Cluster>, Condvar);

fn certificates(folder: &Path) {
    let script = r#"set -e
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=authority -days 2 -keyout ca.key -out ca.crt
openssl req -newkey rsa:2048 -nodes -subj /CN=api -keyout api.key -out api.csr
printf 'subjectAltName=IP:127.0.0.1\n' >san
openssl x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out api.crt"#;
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

pub fn node(name: &str, labels: Value, taints: Value) -> Value {
    json!({"metadata": {"name": name, "uid": format!("node-{name}"), "labels": labels}, "spec": {"taints": taints}, "status": {
        "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}],
        "nodeInfo": {"kubeletVersion": "v1.35.1", "containerRuntimeVersion": "containerd://2.1.4", "operatingSystem": "linux"}}})
}

impl Api {
    pub fn start(nodes: Vec<(Value, Option<Kubelet>)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let chain = CertificateDer::pem_file_iter(folder.path().join("api.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.path().join("api.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let cluster = Cluster {
            version: 100,
            nodes,
            namespaces: vec!["prepull".into()],
            minor: 33,
            token: TOKEN.into(),
            ..Cluster::default()
        };
        let cluster = Arc::new((Mutex::new(cluster), Condvar::new()));
        let shared = Arc::clone(&cluster);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, shared) = (Arc::clone(&config), Arc::clone(&shared));
                // A client that hangs up is no fault of the server's.
                std::thread::spawn(move || serve(stream.unwrap(), &config, &shared));
            }
        });
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
             clusters: [{{name: lab, cluster: {{server: 'https://{address}', certificate-authority: ca.crt}}}}]\n\
             users: [{{name: me, user: {{token: {TOKEN}}}}}]\n\
             contexts: [{{name: lab, context: {{cluster: lab, user: me}}}}]\n"
        );
        std::fs::write(folder.path().join("config"), text).unwrap();
        Self { folder, cluster }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prepull"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", self.folder.path().join("config"))
            .current_dir(self.folder.path());
        command
    }

    pub fn prepull(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut Cluster) -> T) -> T {
        let answer = look(&mut self.cluster.0.lock().unwrap());
        self.cluster.1.notify_all();
        answer
    }

    /// The requests with this method whose paths begin so.
    pub fn asked(&self, method: &str, path: &str) -> Vec<(String, String, Value)> {
        self.with(|cluster| {
            let asked = cluster
                .asked
                .iter()
                .filter(|(its, at, ..)| its == method && at.starts_with(path));
            asked
                .map(|(_, at, form, body)| (at.clone(), form.clone(), body.clone()))
                .collect()
        })
    }

    pub fn wait_until(&self, is_so: impl Fn(&Cluster) -> bool) {
        let (mutex, changed) = &*self.cluster;
        let guard = mutex.lock().unwrap();
        let limit = Duration::from_secs(60);
        let (_guard, waited) = changed
            .wait_timeout_while(guard, limit, |cluster| !is_so(cluster))
            .unwrap();
        assert!(!waited.timed_out(), "it did not come to that in {limit:?}");
    }
}

impl Cluster {
    fn record(&mut self, list: &'static str, word: &'static str, object: &mut Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.log.push((self.version, list, word, object.clone()));
    }

    pub fn remove_node(&mut self, name: &str) {
        let at = self
            .nodes
            .iter()
            .position(|(node, _)| node["metadata"]["name"] == name)
            .unwrap();
        let (mut node, _) = self.nodes.remove(at);
        self.record("nodes", "DELETED", &mut node);
    }

    pub fn add_node(&mut self, mut node: Value, kubelet: Kubelet) {
        self.record("nodes", "ADDED", &mut node);
        self.nodes.push((node, Some(kubelet)));
    }

    /// As the controller and the kubelets do, but at once.
    pub fn make_pods(&mut self) {
        let daemonset = self.daemonset.clone().unwrap();
        let template = &daemonset["spec"]["template"];
        self.pods.clear();
        let nodes = self.nodes.clone();
        let mut number = 0;
        for (node, kubelet) in nodes {
            let Some(kubelet) = kubelet else { continue };
            number += 1;
            let name = node["metadata"]["name"].as_str().unwrap().to_string();
            let mut pod = json!({"metadata": {"name": format!("prepull-{name}"), "uid": format!("pod-{name}"), "labels": template["metadata"]["labels"]},
                "spec": {"nodeName": name}, "status": {"phase": "Pending", "conditions": []}});
            self.record("pods", "ADDED", &mut pod);
            let containers = template["spec"]["containers"].as_array().unwrap();
            let (mut statuses, mut events) = (Vec::new(), Vec::new());
            for container in containers {
                let own = container["name"].as_str().unwrap();
                let volumes = template["spec"]["volumes"].as_array().unwrap();
                let volume = volumes.iter().find(|volume| volume["name"] == own);
                let image = volume
                    .map_or(&container["image"], |volume| &volume["image"]["reference"])
                    .as_str()
                    .unwrap();
                let mut tell = |reason: &str, kind: &str, message: String| {
                    events.push(json!({"reason": reason, "type": kind, "message": message, "involvedObject": {"kind": "Pod",
                        "uid": format!("pod-{name}"), "fieldPath": if volume.is_some() { String::new() } else { format!("spec.containers{{{own}}}") }}}));
                };
                let state = match kubelet {
                    Kubelet::Silent => continue,
                    Kubelet::Pulls => {
                        tell("Pulling", "Normal", format!("Pulling image \"{image}\""));
                        tell(
                            "Pulled",
                            "Normal",
                            format!(
                                "Successfully pulled image \"{image}\" in 1.2s (1.2s including waiting). Image size: 4242 bytes."
                            ),
                        );
                        json!({"running": {"startedAt": "2026-11-28T01:00:00Z"}})
                    }
                    Kubelet::Has => {
                        tell(
                            "Pulled",
                            "Normal",
                            format!("Container image \"{image}\" already present on machine"),
                        );
                        json!({"running": {"startedAt": "2026-11-28T01:00:00Z"}})
                    }
                    Kubelet::Refused(said) => {
                        tell(
                            "Failed",
                            "Warning",
                            format!("Failed to pull image \"{image}\": {said}"),
                        );
                        tell("Failed", "Warning", "Error: ErrImagePull".into());
                        tell(
                            "BackOff",
                            "Normal",
                            format!("Back-off pulling image \"{image}\""),
                        );
                        json!({"waiting": {"reason": "ImagePullBackOff", "message": format!("Back-off pulling image \"{image}\"")}})
                    }
                };
                let repository = image
                    .rsplit_once(':')
                    .map_or(image, |(repository, _)| repository);
                let id = format!("{repository}@{DIGEST}");
                statuses.push(json!({"name": own, "image": image, "imageID": id, "ready": true, "restartCount": 0, "state": state}));
            }
            for (number, mut event) in events.into_iter().enumerate() {
                event["metadata"] = json!({"name": format!("{name}.{number}")});
                self.record("events", "ADDED", &mut event);
                self.events.push(event);
            }
            pod["status"]["containerStatuses"] = statuses.into();
            self.record("pods", "MODIFIED", &mut pod);
            self.pods.push(pod);
        }
        let mut daemonset = daemonset;
        daemonset["status"] = json!({"observedGeneration": 1, "desiredNumberScheduled": number, "currentNumberScheduled": number,
            "updatedNumberScheduled": number, "numberMisscheduled": 0, "numberReady": 0});
        self.record("daemonsets", "MODIFIED", &mut daemonset);
        self.daemonset = Some(daemonset);
    }

    fn list(&self, list: &str) -> Vec<Value> {
        match list {
            "nodes" => self.nodes.iter().map(|(node, _)| node.clone()).collect(),
            "pods" => self.pods.clone(),
            "events" => self.events.clone(),
            _ => self.daemonset.iter().cloned().collect(),
        }
    }
}

fn failure(code: u16, message: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "Whatever", "code": code});
    (code, status)
}

fn decoded(query: &str) -> Vec<(String, String)> {
    let text = |part: &str| {
        let mut out = Vec::new();
        let mut bytes = part.bytes();
        while let Some(byte) = bytes.next() {
            out.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let hex: Vec<u8> = bytes.by_ref().take(2).collect();
                    u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
                }
                other => other,
            });
        }
        String::from_utf8(out).unwrap()
    };
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (text(key), text(value)))
        .collect()
}

fn serve(stream: TcpStream, config: &Arc<ServerConfig>, shared: &Shared) -> std::io::Result<()> {
    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end().to_string();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let header = |name: &str| {
        let mut pairs = lines.iter().filter_map(|line| line.split_once(": "));
        pairs
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_string())
    };
    let length = header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let mut words = lines
        .first()
        .map(String::as_str)
        .unwrap_or_default()
        .split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Ok(());
    };
    let body: Value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body).unwrap()
    };
    let form = header("content-type").unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = decoded(query);
    let value = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let out = stream.get_mut();
    {
        let mut cluster = shared.0.lock().unwrap();
        if header("authorization") != Some(format!("Bearer {}", cluster.token)) {
            let (status, body) = failure(401, "Unauthorized");
            return respond(out, status, &body);
        }
        cluster.asked.push((
            method.to_string(),
            target.to_string(),
            form.clone(),
            body.clone(),
        ));
        let asked = format!("{method} {path}");
        if let Some(at) = cluster
            .refusals
            .iter()
            .position(|(beginning, ..)| asked.starts_with(beginning))
        {
            let (_, code, message) = cluster.refusals.remove(at);
            let (status, body) = failure(code, message);
            return respond(out, status, &body);
        }
    }
    shared.1.notify_all();
    if value("watch").is_some() {
        assert_eq!(value("allowWatchBookmarks"), Some("true"));
        let version: i64 = value("resourceVersion").unwrap().parse().unwrap();
        let list = ["nodes", "pods", "events", "daemonsets"]
            .into_iter()
            .find(|list| path.ends_with(list))
            .unwrap();
        return watch(out, shared, list, version);
    }
    let (status, answer) = answer(
        &mut shared.0.lock().unwrap(),
        method,
        path,
        &form,
        &body,
        &value,
    );
    shared.1.notify_all();
    respond(out, status, &answer)
}

fn respond(
    out: &mut StreamOwned<ServerConnection, TcpStream>,
    status: u16,
    body: &Value,
) -> std::io::Result<()> {
    let body = body.to_string();
    write!(
        out,
        "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    out.conn.send_close_notify();
    out.flush()
}

fn watch(
    out: &mut StreamOwned<ServerConnection, TcpStream>,
    shared: &Shared,
    list: &str,
    mut version: i64,
) -> std::io::Result<()> {
    write!(
        out,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )?;
    out.flush()?;
    let chunk = |out: &mut StreamOwned<ServerConnection, TcpStream>, text: &str| {
        write!(out, "{:x}\r\n{text}\r\n", text.len())?;
        out.flush()
    };
    let end = Instant::now() + Duration::from_secs(45);
    while Instant::now() < end {
        let mut cluster = shared.0.lock().unwrap();
        let new: Vec<_> = cluster
            .log
            .iter()
            .filter(|(at, its, ..)| *at > version && *its == list)
            .cloned()
            .collect();
        if list != "nodes" && cluster.forgotten_watches > 0 {
            cluster.forgotten_watches -= 1;
            drop(cluster);
            let (_, status) = failure(410, "too old resource version: 1 (9)");
            return chunk(
                out,
                &format!("{}\n", json!({"type": "ERROR", "object": status})),
            );
        }
        if list == "pods" && !new.is_empty() && cluster.broken_watches > 0 {
            cluster.broken_watches -= 1;
            drop(cluster);
            // In the middle of a line, and of a chunk: the connection is gone.
            write!(out, "4000\r\n{{\"type\":\"ADDED\",\"obj")?;
            return out.flush();
        }
        if new.is_empty() {
            let (guard, _) = shared
                .1
                .wait_timeout(cluster, Duration::from_millis(500))
                .unwrap();
            drop(guard);
            // Notices a client that went away.
            let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "X", "metadata": {"resourceVersion": version.to_string()}}});
            chunk(out, &format!("{bookmark}\n"))?;
            continue;
        }
        drop(cluster);
        for (at, _, word, object) in new {
            version = at;
            chunk(
                out,
                &format!("{}\n", json!({"type": word, "object": object})),
            )?;
        }
    }
    chunk(out, "")
}

fn answer<'a>(
    cluster: &mut Cluster,
    method: &str,
    path: &str,
    form: &str,
    body: &Value,
    value: &dyn Fn(&str) -> Option<&'a str>,
) -> (u16, Value) {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (method, &segments[..]) {
        ("GET", ["version"]) => (
            200,
            json!({"major": "1", "minor": format!("{}+", cluster.minor), "gitVersion": "v1"}),
        ),
        (
            "POST",
            [
                "apis",
                "authorization.k8s.io",
                "v1",
                "selfsubjectaccessreviews",
            ],
        ) => {
            assert_eq!(
                (form, &body["kind"]),
                ("application/json", &json!("SelfSubjectAccessReview"))
            );
            let asked = &body["spec"]["resourceAttributes"];
            let rule = format!(
                "{} {}",
                asked["verb"].as_str().unwrap(),
                asked["resource"].as_str().unwrap()
            );
            assert_eq!(
                asked["group"],
                if rule.ends_with("daemonsets") {
                    "apps"
                } else {
                    ""
                }
            );
            let mut review = body.clone();
            review["status"] = json!({"allowed": !cluster.denied.contains(&rule.as_str())});
            (201, review)
        }
        ("POST", ["api", "v1", "namespaces"]) => {
            assert_eq!(
                (form, value("fieldManager")),
                ("application/json", Some("prepull"))
            );
            let name = body["metadata"]["name"].as_str().unwrap().to_string();
            if cluster.namespaces.contains(&name) {
                return failure(409, &format!("namespaces \"{name}\" already exists"));
            }
            cluster.namespaces.push(name);
            (201, body.clone())
        }
        (
            "PATCH",
            [
                "apis",
                "apps",
                "v1",
                "namespaces",
                namespace,
                "daemonsets",
                name,
            ],
        ) => {
            assert_eq!(
                (form, value("fieldManager")),
                ("application/apply-patch+yaml", Some("prepull"))
            );
            if !cluster.namespaces.iter().any(|known| known == namespace) {
                return failure(404, &format!("namespaces \"{namespace}\" not found"));
            }
            assert_eq!(body["metadata"]["name"], *name);
            is_of_the_api(body);
            let volumes = body["spec"]["template"]["spec"]["volumes"]
                .as_array()
                .unwrap();
            if volumes.iter().any(|volume| volume.get("image").is_some()) && !cluster.image_volumes
            {
                return failure(
                    422,
                    "DaemonSet.apps \"prepull\" is invalid: spec.template.spec.volumes[0]: Required value: must specify a volume type",
                );
            }
            if value("dryRun") == Some("All") {
                return (201, body.clone());
            }
            assert!(value("dryRun").is_none());
            let mut object = body.clone();
            object["metadata"]["uid"] = "the-uid".into();
            object["metadata"]["generation"] = 1.into();
            cluster.record("daemonsets", "ADDED", &mut object);
            cluster.daemonset = Some(object.clone());
            cluster.make_pods();
            (201, object)
        }
        ("GET", ["apis", "apps", "v1", "namespaces", _, "daemonsets", name]) => {
            match &cluster.daemonset {
                Some(found) if found["metadata"]["name"] == *name => (200, found.clone()),
                _ => failure(404, &format!("daemonsets.apps \"{name}\" not found")),
            }
        }
        ("DELETE", ["apis", "apps", "v1", "namespaces", _, "daemonsets", _]) => {
            let expected = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": {"uid": "the-uid"}});
            assert_eq!((form, body), ("application/json", &expected));
            let Some(mut object) = cluster.daemonset.take() else {
                return failure(404, "daemonsets.apps \"prepull\" not found");
            };
            cluster.record("daemonsets", "DELETED", &mut object);
            (
                200,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}),
            )
        }
        ("GET", [.., list]) if ["nodes", "pods", "events", "daemonsets"].contains(list) => {
            assert_eq!(value("limit"), Some("500"));
            match *list {
                "pods" => assert!(
                    value("labelSelector")
                        .unwrap()
                        .contains("app.kubernetes.io/instance=")
                ),
                "events" => assert_eq!(value("fieldSelector"), Some("involvedObject.kind=Pod")),
                "daemonsets" => assert!(
                    value("fieldSelector")
                        .unwrap()
                        .starts_with("metadata.name=")
                ),
                _ => {}
            }
            // Pages of two.
            let all = cluster.list(list);
            let start: usize = value("continue").map_or(0, |token| token.parse().unwrap());
            let end = (start + 2).min(all.len());
            let next = if end < all.len() {
                end.to_string()
            } else {
                String::new()
            };
            let page = json!({"kind": "List", "apiVersion": "v1", "items": all[start..end],
                "metadata": {"resourceVersion": cluster.version.to_string(), "continue": next}});
            (200, page)
        }
        _ => failure(
            404,
            &format!("the server could not find {method} {path}, {BASE}"),
        ),
    }
}

/// What is sent has only fields that the API has, each of its type: read as the API's own types and written again, it
/// is the same.
pub fn is_of_the_api(object: &Value) {
    let typed: DaemonSet = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(&serde_json::to_value(typed).unwrap(), object);
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}
