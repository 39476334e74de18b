//! Nodes from the Kubernetes API: the binary against a TLS server that says what a real API server once said.
//!
//! `tests/fixtures/kube/nodes.json` is a list of 60 nodes as a real API server sent it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

const TOKEN: &str = "prepull-test-token";
/// A page of this server: fewer than it is asked for, as servers may.
const PAGE: usize = 25;

/// What the server does beside listing nodes.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Good,
    /// The second page of the first listing is gone.
    Forgets,
    Refuses(u16),
    /// Knows its clients by their certificates.
    WantsCertificates,
}

struct Api {
    folder: tempfile::TempDir,
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// A certificate for 127.0.0.1 by an authority of its own.
fn certificates(folder: &Path) {
    let script = r#"set -e
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=authority -days 2 -keyout ca.key -out ca.crt
openssl req -newkey rsa:2048 -nodes -subj /CN=api -keyout api.key -out api.csr
printf 'subjectAltName=IP:127.0.0.1\n' >san
openssl x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out api.crt
openssl req -newkey rsa:2048 -nodes -subj /CN=me/O=ops -keyout me.key -out me.csr
printf 'extendedKeyUsage=clientAuth\n' >use
openssl x509 -req -in me.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile use -out me.crt
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=other -days 2 -keyout other.key -out other.crt"#;
    run(Command::new("sh").args(["-c", script]).current_dir(folder));
}

impl Api {
    fn start(mood: Mood) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let chain = CertificateDer::pem_file_iter(folder.path().join("api.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.path().join("api.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if mood == Mood::WantsCertificates {
            let mut authorities = RootCertStore::empty();
            let authority = CertificateDer::from_pem_file(folder.path().join("ca.crt")).unwrap();
            authorities.add(authority).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let config = builder
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(vec![]));
        let seen = Arc::clone(&asked);
        let config = Arc::new(config);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that does not trust us hangs up.
                let _ = serve(stream.unwrap(), &config, mood, &seen);
            }
        });
        let api = Self {
            folder,
            address,
            asked,
        };
        api.kubeconfig("good", "ca.crt", TOKEN);
        api
    }

    fn kubeconfig(&self, name: &str, authority: &str, token: &str) {
        self.write_kubeconfig(
            name,
            &format!("certificate-authority: {authority}"),
            &format!("token: {token}"),
        );
    }

    /// A kubeconfig whose cluster and user have these settings.
    fn write_kubeconfig(&self, name: &str, cluster: &str, user: &str) {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
             clusters: [{{name: lab, cluster: {{server: 'https://{}', {cluster}}}}}]\n\
             users: [{{name: me, user: {{{user}}}}}]\n\
             contexts: [{{name: lab, context: {{cluster: lab, user: me}}}}, {{name: spare, context: {{cluster: lab, user: me}}}}]\n",
            self.address
        );
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn prepull(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_prepull"))
            .args(arguments)
            .args(["--kube", "-u", "ops"])
            .env_clear()
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", self.folder.path().join("good"))
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    /// The nodes of `prepull nodes`, by name.
    fn nodes(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.prepull(&[&["nodes", "-o", "json", "-F", "none"], arguments].concat());
        assert!(output.status.success(), "{}", said(&output));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["nodes"].as_array().unwrap().clone()
    }

    /// Standard error of a run that must end with status 2.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.prepull(&[&["nodes"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(output.stdout.is_empty());
        said(&output)
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn serve(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    mood: Mood,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap();
    let line = request.lines().next().unwrap().to_string();
    let before = {
        let mut seen = seen.lock().unwrap();
        seen.push(line.clone());
        seen.len() - 1
    };
    let (status, body) = answer(&line, &request, mood, before);
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn answer(line: &str, request: &str, mood: Mood, before: usize) -> (u16, Value) {
    let failure = |code: u16, message: &str| {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": "Whatever", "code": code});
        (code, status)
    };
    if let Some(path) = line.strip_prefix("GET /api/v1/namespaces/") {
        return match path.trim_end_matches(" HTTP/1.1").trim_end_matches('?') {
            "team/secrets/regcred" => (200, pull_secret(".dockerconfigjson", DOCKERCONFIGJSON)),
            "default/secrets/old" => (200, pull_secret(".dockercfg", DOCKERCFG)),
            "default/secrets/opaque" => (200, pull_secret("password", "hunter2")),
            "default/secrets/broken" => (200, pull_secret(".dockerconfigjson", "hunter2")),
            "default/secrets/hidden" => failure(403, "secrets \"hidden\" is forbidden"),
            _ => failure(404, "not found"),
        };
    }
    let query = line
        .strip_prefix("GET /api/v1/nodes?")
        .and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
    let Some(query) = query else {
        return failure(404, "this server only lists nodes");
    };
    // Without a certificate nobody comes as far as this.
    let knows_already = mood == Mood::WantsCertificates;
    if !knows_already && !request.contains(&format!("Bearer {TOKEN}\r\n")) {
        return failure(401, "Unauthorized");
    }
    if let Mood::Refuses(code) = mood {
        let message = "nodes is forbidden: User \"me\" cannot list resource \"nodes\" in API group \"\" at the cluster scope";
        return failure(code, message);
    }
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    assert_eq!(value("limit"), Some("500"));
    let start: usize = value("continue").map_or(0, |token| token.parse().unwrap());
    if mood == Mood::Forgets && before == 1 {
        return failure(410, "The provided continue parameter is too old");
    }
    let list = fs::read_to_string("tests/fixtures/kube/nodes.json").unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    let all = list["items"].as_array().unwrap();
    // Selectors: of labels by one pair, of fields none.
    let none = Vec::new();
    let all = match value("labelSelector") {
        Some("pool%3Dnowhere") => &none,
        _ => all,
    };
    let end = (start + PAGE).min(all.len());
    let next = if end < all.len() {
        end.to_string()
    } else {
        String::new()
    };
    let page = json!({"kind": "NodeList", "apiVersion": "v1", "items": all[start..end],
        "metadata": {"resourceVersion": "1", "continue": next}});
    (200, page)
}

const DOCKERCONFIGJSON: &str = r#"{"auths":{
    "*.example.com":{"auth":"d2lkZTpodW50ZXIy"},
    "reg.example.com/team":{"username":"team","password":"hunter2","email":"a@b.example","auth":"dGVhbTpodW50ZXIy"}
}}"#;
const DOCKERCFG: &str =
    r#"{"https://index.docker.io/v1/":{"username":"hub","password":"hunter2"}}"#;

/// A secret as the API server sends it.
fn pull_secret(key: &str, content: &str) -> Value {
    json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "x"}, "data": {key: STANDARD.encode(content)}})
}

/// The plan's images with who logs in where, from pull secrets.
#[test]
fn pull_secrets_are_read_with_the_same_kubeconfig_and_matched_as_the_kubelet_does() {
    let api = Api::start(Mood::Good);
    let output = api.prepull(&[
        "pull",
        "-n",
        "-o",
        "json",
        "-F",
        "none",
        "--pull-secret",
        "team/regcred",
        "--pull-secret",
        "old",
        "reg.example.com/team/app:v1",
        "reg.example.com/web:v1",
        "example.com/web:v1",
        "nginx",
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let images = document["images"].as_array().unwrap();
    let seen: Vec<_> = images
        .iter()
        .map(|image| (&image["user"], &image["login"]["pull_secret"]))
        .collect();
    let (regcred, old) = (json!("team/regcred"), json!("old"));
    let (team, wide, hub) = (json!("team"), json!("wide"), json!("hub"));
    assert_eq!(
        seen,
        [
            (&team, &regcred),
            (&wide, &regcred),
            (&Value::Null, &Value::Null),
            (&hub, &old)
        ]
    );
    assert!(!said(&output).contains("hunter2"));
    let asked = api.asked.lock().unwrap();
    let secrets = asked.iter().filter(|line| line.contains("/secrets/"));
    assert_eq!(secrets.count(), 2, "each is read once: {asked:?}");
}

#[test]
fn a_pull_secret_that_cannot_be_had_says_what_to_do() {
    let api = Api::start(Mood::Good);
    for (name, parts) in [
        (
            "hidden",
            &[
                "403",
                "resources [\"secrets\"]",
                "verbs [\"get\"]",
                "default",
            ] as &[&str],
        ),
        (
            "team/nowhere",
            &[
                "no such secret in the namespace team",
                "kubectl get secrets -n team",
            ],
        ),
        ("opaque", &["no pull secret", "docker-registry"]),
        ("broken", &["pull secret broken:1:1", "not JSON"]),
        ("../nodes", &["[NAMESPACE/]NAME"]),
        ("team/regcred/x", &["[NAMESPACE/]NAME"]),
    ] {
        let output = api.prepull(&["pull", "-F", "none", "--pull-secret", name, "a.example/x"]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }
}

fn names(nodes: &[Value]) -> Vec<&str> {
    nodes
        .iter()
        .map(|node| node["name"].as_str().unwrap())
        .collect()
}

fn find<'a>(nodes: &'a [Value], name: &str) -> &'a Value {
    nodes.iter().find(|node| node["name"] == name).unwrap()
}

#[test]
fn workers_come_page_by_page_with_all_that_the_api_says() {
    for mood in [Mood::Good, Mood::Forgets] {
        let api = Api::start(mood);
        let nodes = api.nodes(&[]);
        let all = api.nodes(&["--include-control-plane"]);
        assert_eq!(all.len(), 60);
        let workers: Vec<&str> = all
            .iter()
            .filter(|node| {
                !node["groups"]
                    .as_array()
                    .unwrap()
                    .contains(&json!("control-plane"))
            })
            .map(|node| node["name"].as_str().unwrap())
            .collect();
        assert!(workers.len() < 60);
        assert_eq!(names(&nodes), workers);
        let asked = api.asked.lock().unwrap().len();
        // Three pages each; a listing that broke off after one was begun anew.
        assert_eq!(asked, if mood == Mood::Good { 6 } else { 8 });
        let node = find(&nodes, "node-33");
        assert_eq!(node["address"], "127.0.10.33");
        assert_eq!(node["runtime"], "crictl");
        assert_eq!(node["labels"]["kubernetes.io/hostname"], "node-33");
        let facts = &node["facts"];
        assert_eq!(facts["ready"], "true");
        assert_eq!(facts["cordoned"], "true");
        assert_eq!(facts["operating-system"], "linux");
        assert_eq!(
            facts["taints"],
            "node.kubernetes.io/unschedulable:NoSchedule"
        );
    }
}

#[test]
fn selection_happens_where_it_belongs() {
    let api = Api::start(Mood::Good);
    api.nodes(&[
        "-l",
        "pool=gpu,zone in (a,b)",
        "--field-selector",
        "spec.unschedulable=false",
    ]);
    let first = api.asked.lock().unwrap()[0].clone();
    assert!(
        first.contains("labelSelector=pool%3Dgpu%2Czone+in+%28a%2Cb%29"),
        "{first}"
    );
    assert!(
        first.contains("fieldSelector=spec.unschedulable%3Dfalse"),
        "{first}"
    );

    let ready = api.nodes(&["--ready-only"]);
    assert!(ready.iter().all(|node| node["facts"]["ready"] == "true"));
    assert!(!names(&ready).contains(&"node-31") && names(&ready).contains(&"node-33"));
    let open = api.nodes(&["--schedulable-only"]);
    assert!(names(&open).contains(&"node-31") && !names(&open).contains(&"node-33"));
    let limited = api.nodes(&["--limit", "node-3*:!node-33"]);
    assert!(
        names(&limited)
            .iter()
            .all(|name| name.starts_with("node-3"))
    );
    assert!(!limited.is_empty() && !names(&limited).contains(&"node-33"));
    let group = api.nodes(&["--include-control-plane", "--limit", "control-plane"]);
    assert!(names(&group).contains(&"node-01") && group.len() < 10);
}

#[test]
fn a_selection_that_leaves_no_node_says_why() {
    let api = Api::start(Mood::Good);
    let text = api.refused(&["-F", "none", "-l", "pool=nowhere"]);
    assert!(
        text.contains("no node matches -l pool=nowhere; without it the cluster has 60 nodes"),
        "{text}"
    );
    // An inventory beside it must not stand in for the nodes that were not found.
    fs::write(api.folder.path().join("login.yml"), "nodes: [a, b]\n").unwrap();
    let text = api.refused(&["-F", "none", "-i", "login.yml", "-l", "pool=nowhere"]);
    assert!(text.contains("no node matches -l pool=nowhere"), "{text}");
}

#[test]
fn a_node_without_the_wanted_address_is_reported_and_not_dialled() {
    let api = Api::start(Mood::Good);
    let only_a_name = "ip-127-0-10-60.ec2.internal";
    let output = api.prepull(&["nodes", "-F", "none"]);
    assert!(output.status.success());
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        warning.contains(only_a_name) && warning.contains("--address-type"),
        "{warning}"
    );
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        table.contains("STATE") && table.contains("NotReady"),
        "{table}"
    );
    assert_eq!(find(&api.nodes(&[]), only_a_name)["address"], "");
    let by_name = api.nodes(&["--address-type", "hostname"]);
    assert_eq!(find(&by_name, only_a_name)["address"], only_a_name);
    let outside = api.nodes(&["--address-type", "ExternalIP"]);
    assert_eq!(find(&outside, "node-32")["address"], "127.0.20.32");

    let check = [
        "check",
        "-F",
        "none",
        "--limit",
        only_a_name,
        "-o",
        "json",
        "--no-journal",
        "reg.example/app:v1",
    ];
    let output = api.prepull(&check);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failure = &document["nodes"][0]["outcomes"][0]["failure"];
    assert_eq!(failure["kind"], "node-setup", "{failure}");
    assert!(
        failure["detail"]
            .as_str()
            .unwrap()
            .contains("--address-type")
    );
}

#[test]
fn files_and_ssh_config_say_how_to_log_in() {
    let api = Api::start(Mood::Good);
    let folder = api.folder.path();
    let inventory = "defaults: {become: true, port: 2022}\nnodes:\n  - {name: node-32, runtime: docker, address: 192.0.2.9}\n";
    fs::write(folder.join("fleet.yml"), inventory).unwrap();
    let config = "Host node-34\n  Port 2034\nHost 127.0.10.35\n  Port 2035\n  ProxyJump gate@bastion\nHost *\n  IdentityFile key\n";
    fs::write(folder.join("ssh"), config).unwrap();
    let nodes = api.nodes(&["-i", "fleet.yml"]);
    let own = find(&nodes, "node-32");
    assert_eq!(
        (&own["address"], &own["runtime"], &own["port"]),
        (&json!("192.0.2.9"), &json!("docker"), &json!(2022))
    );
    assert_eq!(find(&nodes, "node-36")["port"], 2022);
    let output = api.prepull(&["nodes", "-o", "json", "-F", "ssh"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = document["nodes"].as_array().unwrap();
    assert_eq!(find(nodes, "node-34")["port"], 2034, "by name");
    let by_address = find(nodes, "node-35");
    assert_eq!(by_address["port"], 2035, "by address");
    assert_eq!(by_address["jump"][0], "gate@bastion:22");
}

#[test]
fn every_refusal_says_what_to_do() {
    let api = Api::start(Mood::Refuses(403));
    let text = api.refused(&[]);
    for part in [
        "403",
        "resources [\"nodes\"]",
        "verbs [\"list\"]",
        &api.address.to_string(),
    ] {
        assert!(text.contains(part), "{text}");
    }
    let api = Api::start(Mood::Good);
    api.kubeconfig("expired", "ca.crt", "another");
    let text = api.refused(&["--kubeconfig", "expired"]);
    assert!(
        text.contains("401") && text.contains("log in again"),
        "{text}"
    );
    api.kubeconfig("stranger", "other.crt", TOKEN);
    let text = api.refused(&["--kubeconfig", "stranger"]);
    assert!(text.contains("certificate is not trusted"), "{text}");
    let text = api.refused(&["--context", "nowhere"]);
    assert!(
        text.contains("nowhere") && text.contains("--context"),
        "{text}"
    );
    assert!(!text.contains(TOKEN));
    let text = api.refused(&["--kubeconfig", "missing"]);
    assert!(
        text.contains("missing") && text.contains("--kubeconfig"),
        "{text}"
    );
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let kubeconfig = fs::read_to_string(api.folder.path().join("good")).unwrap();
    let moved = kubeconfig.replace(&api.address.to_string(), &free.to_string());
    fs::write(api.folder.path().join("moved"), moved).unwrap();
    let text = api.refused(&["--kubeconfig", "moved"]);
    assert!(
        text.contains("cannot be asked") && text.contains("kubectl get nodes"),
        "{text}"
    );
    let output = Command::new(env!("CARGO_BIN_EXE_prepull"))
        .args(["nodes", "--context", "x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--kube"), "{}", said(&output));
}

/// A context may be named, and several files may stand in `$KUBECONFIG`.
#[test]
fn kubeconfigs_are_read_as_kubectl_reads_them() {
    let api = Api::start(Mood::Good);
    assert!(!api.nodes(&["--context", "spare"]).is_empty());
    let folder = api.folder.path();
    let good = fs::read_to_string(folder.join("good")).unwrap();
    let (clusters, users): (Vec<&str>, Vec<&str>) =
        good.lines().partition(|line| !line.starts_with("users:"));
    fs::write(folder.join("one"), clusters.join("\n")).unwrap();
    let head = "apiVersion: v1\nkind: Config\n";
    fs::write(folder.join("two"), format!("{head}{}\n", users.join("\n"))).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_prepull"))
        .args(["nodes", "--kube", "-u", "ops", "-F", "none"])
        .env("KUBECONFIG", format!("{0}/one:{0}/two", folder.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// Hands connections on, as an HTTP proxy does for HTTPS; gives its address and what it was asked for.
fn proxy() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(vec![]));
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let line = String::from_utf8(request).unwrap();
            let line = line.lines().next().unwrap().to_owned();
            let target = line.split(' ').nth(1).unwrap().to_owned();
            seen.lock().unwrap().push(line);
            let mut server = TcpStream::connect(target).unwrap();
            client
                .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .unwrap();
            let (mut from_client, mut to_server) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                // Either side may hang up first.
                let _ = std::io::copy(&mut from_client, &mut to_server);
                let _ = to_server.shutdown(std::net::Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut server, &mut client);
                let _ = client.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    (address, asked)
}

/// Every way to log in that kubeconfigs know and clusters use.
#[test]
fn tokens_plugins_certificates_and_proxies_of_a_kubeconfig_work() {
    let api = Api::start(Mood::Good);
    let folder = api.folder.path();
    fs::write(folder.join("token"), format!("{TOKEN}\n")).unwrap();
    let credential = format!(
        r#"{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"{TOKEN}"}}}}"#
    );
    let plugin = folder.join("plugin");
    fs::write(
        &plugin,
        format!(
            "#!/bin/sh\n[ \"$1 $CLUSTER\" = 'get-token lab' ] || exit 1\necho '{credential}'\n"
        ),
    )
    .unwrap();
    fs::set_permissions(&plugin, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let trusting = "certificate-authority: ca.crt";
    api.write_kubeconfig(
        "file",
        trusting,
        &format!("tokenFile: {}/token", folder.display()),
    );
    let exec = format!(
        "exec: {{apiVersion: client.authentication.k8s.io/v1, command: '{}', args: [get-token], \
         env: [{{name: CLUSTER, value: lab}}], interactiveMode: Never}}",
        plugin.display()
    );
    api.write_kubeconfig("plugin.yml", trusting, &exec);
    let (address, asked) = proxy();
    let through = format!("{trusting}, proxy-url: 'http://{address}'");
    api.write_kubeconfig("proxied", &through, &format!("token: {TOKEN}"));
    for name in ["file", "plugin.yml", "proxied"] {
        assert!(!api.nodes(&["--kubeconfig", name]).is_empty(), "{name}");
    }
    let asked = asked.lock().unwrap();
    assert!(!asked.is_empty());
    assert!(
        asked
            .iter()
            .all(|line| *line == format!("CONNECT {} HTTP/1.1", api.address)),
        "{asked:?}"
    );

    let strict = Api::start(Mood::WantsCertificates);
    strict.write_kubeconfig(
        "mine",
        trusting,
        "client-certificate: me.crt, client-key: me.key",
    );
    assert!(!strict.nodes(&["--kubeconfig", "mine"]).is_empty());
    let text = strict.refused(&["--kubeconfig", "good"]);
    assert!(text.contains("cannot be asked"), "{text}");
}

/// A plugin that fails is named, with what it said.
#[test]
fn a_plugin_that_fails_is_named() {
    let api = Api::start(Mood::Good);
    let plugin = api.folder.path().join("plugin");
    fs::write(
        &plugin,
        "#!/bin/sh\necho 'your session is over' >&2\nexit 3\n",
    )
    .unwrap();
    fs::set_permissions(&plugin, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let exec = format!(
        "exec: {{apiVersion: client.authentication.k8s.io/v1, command: '{}', interactiveMode: Never}}",
        plugin.display()
    );
    api.write_kubeconfig("failing", "certificate-authority: ca.crt", &exec);
    let text = api.refused(&["--kubeconfig", "failing"]);
    assert!(text.contains("plugin"), "{text}");
}

/// In a pod there is no kubeconfig, but an account of its own.
#[test]
fn a_pods_own_account_is_used_where_there_is_no_kubeconfig() {
    let api = Api::start(Mood::Good);
    let script = "set -e\nmount -t tmpfs tmpfs /run\nhere=/run/secrets/kubernetes.io/serviceaccount\nmkdir -p $here\n\
         cp ca.crt $here/ca.crt\nprintf %s \"$TOKEN\" >$here/token\nprintf default >$here/namespace\nexec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_prepull")])
        .args(["nodes", "--kube", "-u", "ops", "-F", "none", "-o", "name"])
        .current_dir(api.folder.path())
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/nonexistent")
        .env("TOKEN", TOKEN)
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", api.address.port().to_string())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let nodes = String::from_utf8(output.stdout).unwrap();
    assert!(nodes.lines().any(|name| name == "node-33"), "{nodes}");
}
