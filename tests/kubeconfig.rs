//! Kubeconfigs: what prepull makes of them, and what kubectl does, against the same servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// Servers, each with a certificate of one shape, and one without TLS.
struct Lab {
    folder: tempfile::TempDir,
    server: Child,
    asked: Receiver<String>,
    ports: Vec<String>,
}

const SERVERS: [&str; 10] = [
    "api",
    "self",
    "marked",
    "of-v1",
    "of-plain",
    "of-unsigning",
    "named",
    "nameless",
    "client-only",
    "expired",
];

impl Drop for Lab {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.server.stdin.take());
        let _ = self.server.wait();
    }
}

impl Lab {
    fn start() -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kube");
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("sh")
            .arg(fixtures.join("certificates.sh"))
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", text(&made));
        let mut server = Command::new("python3")
            .arg(fixtures.join("server.py"))
            .args(SERVERS)
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let ports = lines.next().unwrap().unwrap();
        let (send, asked) = mpsc::channel();
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| send.send(line))
        });
        Self {
            folder,
            server,
            asked,
            ports: ports.split(' ').map(str::to_string).collect(),
        }
    }

    /// A text in which `@NAME` is the port of that server, `@plain` of the one without TLS, `@DIR` the folder and
    /// `@b64(FILE)` what is in a file.
    fn filled(&self, text: &str) -> String {
        let mut text = text.replace("@DIR", &self.folder.path().display().to_string());
        let names = SERVERS.iter().copied().chain(["plain"]);
        for (name, port) in names.zip(&self.ports) {
            text = text.replace(&format!(":@{name}"), &format!(":{port}"));
        }
        while let Some((before, rest)) = text.split_once("@b64(") {
            let (file, after) = rest.split_once(')').unwrap();
            let bytes = fs::read(self.folder.path().join(file)).unwrap();
            text = format!("{before}{}{after}", STANDARD.encode(bytes));
        }
        text
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), self.filled(text)).unwrap();
    }

    fn program(&self, name: &str, text: &str) {
        self.write(name, text);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.folder.path().join(name), mode).unwrap();
    }

    /// A kubeconfig with one cluster and one user.
    fn kubeconfig(&self, name: &str, cluster: &str, user: &str) {
        self.write(name, &kubeconfig(cluster, user));
    }

    fn command(&self, program: &str, kubeconfig: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", kubeconfig)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    fn prepull(&self, kubeconfig: &str) -> Output {
        let arguments = ["nodes", "--kube", "-F", "none", "-o", "name"];
        let program = env!("CARGO_BIN_EXE_prepull");
        self.command(program, kubeconfig, &arguments)
            .output()
            .unwrap()
    }

    /// Standard error of a run that must end with status 2, and names nothing.
    fn refused(&self, kubeconfig: &str) -> String {
        let output = self.prepull(kubeconfig);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(output.stdout.is_empty(), "{}", text(&output));
        text(&output)
    }

    /// The names of the nodes, and as whom the server was asked for them.
    fn by_prepull(&self, kubeconfig: &str) -> (Option<String>, Vec<String>, String) {
        let output = self.prepull(kubeconfig);
        let names = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(
            matches!(output.status.code(), Some(0 | 2)),
            "{}",
            text(&output)
        );
        assert!(!text(&output).contains("panicked"), "{}", text(&output));
        (
            output.status.success().then_some(names),
            self.asked(),
            text(&output),
        )
    }

    fn by_kubectl(&self, kubeconfig: &str) -> (Option<String>, Vec<String>, String) {
        let arguments = ["get", "nodes", "-o", "name", "--request-timeout", "30s"];
        let output = self.command("kubectl", kubeconfig, &arguments).output();
        let output = output.expect("kubectl is missing: install Debian's kubernetes-client");
        let names = String::from_utf8(output.stdout.clone())
            .unwrap()
            .replace("node/", "");
        (
            output.status.success().then_some(names),
            self.asked(),
            text(&output),
        )
    }

    /// What the servers were asked since the last time.
    fn asked(&self) -> Vec<String> {
        self.asked.try_iter().collect()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
         clusters: [{{name: here, cluster: {{{cluster}}}}}]\n\
         users: [{{name: me, user: {{{user}}}}}]\n\
         contexts: [{{name: lab, context: {{cluster: here, user: me}}}}]\n"
    )
}

const BOTH: &str = "w1\nw2\n";
const HERE: &str = "server: 'https://127.0.0.1:@api', certificate-authority: ca.crt";

/// An `ExecCredential` with this token.
const PLUGIN: &str = "#!/bin/sh\necho run >>@DIR/runs\necho '{\"kind\": \"ExecCredential\", \"apiVersion\": \
    \"client.authentication.k8s.io/v1beta1\", \"status\": {\"token\": \"of-a-plugin\", \
    \"expirationTimestamp\": \"2999-01-01T00:00:00Z\"}}'\n";

/// Each kubeconfig, and whether it leads to the nodes. What the server saw is compared with kubectl's.
#[test]
fn kubeconfigs_lead_where_they_lead_kubectl() {
    let lab = Lab::start();
    let folder = lab.folder.path();
    fs::write(folder.join("token"), "from-a-file\n").unwrap();
    for name in ["me.crt", "me.key", "ca.crt"] {
        let unix = fs::read_to_string(folder.join(name)).unwrap();
        fs::write(
            folder.join(format!("{name}-crlf")),
            unix.replace('\n', "\r\n"),
        )
        .unwrap();
    }
    let parameters =
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let key = fs::read_to_string(folder.join("me.key")).unwrap();
    fs::write(
        folder.join("with-parameters.key"),
        format!("{parameters}{key}"),
    )
    .unwrap();
    lab.program("plugin", PLUGIN);
    let claims = |expires: u64| {
        let claims = URL_SAFE_NO_PAD.encode(format!("{{\"exp\": {expires}}}"));
        format!("e30.{claims}.x")
    };
    let oidc = |token: &str| {
        format!(
            "auth-provider: {{name: oidc, config: {{client-id: me, idp-issuer-url: 'https://127.0.0.1:1', id-token: {token}}}}}"
        )
    };
    let (fresh, old) = (oidc(&claims(4_102_444_800)), oidc(&claims(1_000_000_000)));
    let of = |name: &str, authority: &str| {
        format!("server: 'https://127.0.0.1:@{name}', certificate-authority: {authority}.crt")
    };
    let with = |more: &str| format!("{HERE}, {more}");
    let token = "token: t";
    let certificate = "client-certificate: me.crt, client-key: me.key";
    let plugin = "exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: ./plugin}";
    let cases: Vec<(String, &str, bool)> = vec![
        // Who asks.
        (HERE.into(), token, true),
        (HERE.into(), "username: a, password: b", true),
        (HERE.into(), "token: t, username: a, password: b", false),
        (HERE.into(), "tokenFile: token", true),
        (HERE.into(), "token: t, tokenFile: token", true),
        (HERE.into(), "token: t, tokenFile: nowhere", true),
        (HERE.into(), "tokenFile: nowhere", false),
        (HERE.into(), certificate, true),
        (
            HERE.into(),
            "client-certificate: me3.crt, client-key: me3.key",
            true,
        ),
        (
            HERE.into(),
            "client-certificate: me.crt, client-key: with-parameters.key",
            true,
        ),
        (
            HERE.into(),
            "client-certificate-data: '@b64(me.crt)', client-key-data: '@b64(me.key)'",
            true,
        ),
        (
            HERE.into(),
            "client-certificate-data: '@b64(me.crt-crlf)', client-key-data: '@b64(me.key-crlf)'",
            true,
        ),
        (
            HERE.into(),
            "client-certificate: me.crt, client-key: me3.key",
            false,
        ),
        (HERE.into(), "client-certificate: me.crt", false),
        (
            HERE.into(),
            "client-certificate: me.crt, client-key: token",
            false,
        ),
        (
            HERE.into(),
            "client-certificate: me.crt, client-key: me.key, client-key-data: '@b64(me.key)'",
            false,
        ),
        (
            HERE.into(),
            "client-certificate: me.crt, client-key: me.key, token: t",
            true,
        ),
        (HERE.into(), plugin, true),
        (
            HERE.into(),
            "token: t, exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: ./plugin}",
            true,
        ),
        (
            HERE.into(),
            "exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: ./nowhere}",
            false,
        ),
        (HERE.into(), "exec: {command: ./plugin}", false),
        (
            HERE.into(),
            "token: t, as: jane, as-groups: [a, b], as-user-extra: {scopes: [one, two]}",
            true,
        ),
        (HERE.into(), "token: t, as-groups: [a]", false),
        (HERE.into(), &fresh, true),
        (HERE.into(), &old, false),
        (HERE.into(), "auth-provider: {name: gcp, config: {}}", false),
        // Which server.
        ("server: '127.0.0.1:@plain'".into(), token, true),
        (
            "server: 'http://127.0.0.1:@plain'".into(),
            "username: a, password: b",
            true,
        ),
        (
            "server: '127.0.0.1:@api', certificate-authority: ca.crt".into(),
            token,
            false,
        ),
        ("server: '127.0.0.1:@plain/path'".into(), token, false),
        ("server: '//127.0.0.1:@plain'".into(), token, false),
        ("server: 'ftp://127.0.0.1:@plain'".into(), token, false),
        (
            "server: 'https://me:secret@127.0.0.1:@api', certificate-authority: ca.crt".into(),
            "{}",
            false,
        ),
        (
            "server: 'https://127.0.0.1:@api/k8s/clusters/c-1', certificate-authority: ca.crt"
                .into(),
            token,
            true,
        ),
        (
            "server: 'https://127.0.0.1:@api/k8s/clusters/c-1/', certificate-authority: ca.crt"
                .into(),
            token,
            true,
        ),
        ("certificate-authority: ca.crt".into(), token, false),
        (with("proxy-url: 'ftp://127.0.0.1:1'"), token, false),
        (with("proxy-url: '127.0.0.1:1'"), token, false),
        // Whom to trust.
        ("server: 'https://127.0.0.1:@api'".into(), token, false),
        (
            "server: 'https://127.0.0.1:@api', certificate-authority-data: ''".into(),
            token,
            false,
        ),
        (
            "server: 'https://127.0.0.1:@api', certificate-authority-data: aGVsbG8K".into(),
            token,
            false,
        ),
        (
            "server: 'https://127.0.0.1:@api', certificate-authority-data: '@b64(ca.crt-crlf)'"
                .into(),
            token,
            true,
        ),
        (
            "server: 'https://127.0.0.1:@api', insecure-skip-tls-verify: true".into(),
            token,
            true,
        ),
        (
            "server: 'https://127.0.0.1:@api', insecure-skip-tls-verify: yes".into(),
            token,
            true,
        ),
        (with("insecure-skip-tls-verify: true"), token, false),
        (
            with("certificate-authority-data: '@b64(ca.crt)'"),
            token,
            false,
        ),
        (with("tls-server-name: another"), token, false),
        (of("named", "ca"), token, false),
        (
            format!("{}, tls-server-name: api.example", of("named", "ca")),
            token,
            true,
        ),
        (of("api", "other"), token, false),
        (of("api", "nowhere"), token, false),
        (of("self", "self"), token, true),
        (of("api", "api"), token, true),
        (of("marked", "ca"), token, true),
        (of("marked", "other"), token, false),
        (of("of-v1", "v1-ca"), token, true),
        (of("of-plain", "plain-ca"), token, false),
        (of("of-unsigning", "unsigning"), token, false),
        (of("nameless", "ca"), token, false),
        (of("nameless", "nameless"), token, false),
        (of("named", "named"), token, false),
        (of("client-only", "ca"), token, false),
        (of("client-only", "client-only"), token, false),
        (of("expired", "ca"), token, false),
        (of("expired", "expired"), token, false),
    ];
    let mut wrong = Vec::new();
    for (index, (cluster, user, is_good)) in cases.iter().enumerate() {
        let name = format!("case-{index}");
        lab.kubeconfig(&name, cluster, user);
        let (ours, we_asked, said) = lab.by_prepull(&name);
        let (theirs, they_asked, they_said) = lab.by_kubectl(&name);
        let expected = is_good.then(|| BOTH.to_string());
        if ours != expected || ours != theirs || (*is_good && we_asked != they_asked) {
            wrong.push(format!(
                "{cluster} / {user}: {ours:?} {we_asked:?}, kubectl {theirs:?} {they_asked:?}\n{said}{they_said}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Kubeconfigs as files: what they are called, how they are written, and how several are merged.
#[test]
fn files_are_found_read_and_merged_as_kubectl_does() {
    let lab = Lab::start();
    let good = kubeconfig(HERE, "token: t");
    lab.write("good", &good);
    lab.write("marked", &format!("\u{feff}{good}"));
    lab.write("windows", &good.replace('\n', "\r\n"));
    lab.write(
        "two",
        &format!("---\n{good}---\nkind: Config\ncurrent-context: other\n"),
    );
    lab.write(
        "commented",
        &format!("{}{good}", "# a comment\n".repeat(500)),
    );
    lab.write(
        "bare",
        good.trim_start_matches("apiVersion: v1\nkind: Config\n"),
    );
    lab.write("pod", &good.replace("kind: Config", "kind: Pod"));
    lab.write("later", &good.replace("apiVersion: v1", "apiVersion: v2"));
    lab.write("without", &good.replace("current-context: lab\n", ""));
    lab.write(
        "emptied",
        &good.replace("current-context: lab", "current-context: ''"),
    );
    lab.write(
        "elsewhere",
        &good.replace("current-context: lab", "current-context: gone"),
    );
    lab.write(
        "no-cluster",
        &good.replace("cluster: here", "cluster: gone"),
    );
    lab.write("no-user", &good.replace("user: me}", "user: gone}"));
    lab.write(
        "twice",
        &good.replace("users: [", "users: [{name: me, user: {token: x}}, "),
    );
    lab.write("empty", "");
    lab.write("text", "this is no kubeconfig\n");
    lab.write(
        "json",
        r#"{"kind":"Config","apiVersion":"v1","current-context":"lab",
            "clusters":[{"name":"here","cluster":{"server":"https://127.0.0.1:@api","certificate-authority":"ca.crt"}}],
            "users":[{"name":"me","user":{"token":"t"}}],
            "contexts":[{"name":"lab","context":{"cluster":"here","user":"me","namespace":"team"}}]}"#,
    );
    lab.write(
        "users",
        "users: [{name: me, user: {token: first}}]\ncontexts: null\n",
    );
    lab.write("others", &good.replace("token: t", "token: second"));
    fs::create_dir(lab.folder.path().join("sub")).unwrap();
    lab.write(
        "sub/relative",
        &kubeconfig(
            "server: 'https://127.0.0.1:@api', certificate-authority: ../ca.crt",
            "client-certificate: ../me.crt, client-key: ../me.key",
        ),
    );
    let mut wrong = Vec::new();
    for (files, is_good) in [
        ("good", true),
        ("marked", true),
        ("windows", true),
        ("two", true),
        ("commented", true),
        ("bare", true),
        ("json", true),
        ("sub/relative", true),
        ("gone:good", true),
        ("gone::good:", true),
        ("empty:good", true),
        ("good:good", true),
        ("users:others", true),
        ("others:users", true),
        ("without:good", true),
        ("pod", false),
        ("later", false),
        ("without", false),
        ("emptied", false),
        ("elsewhere", false),
        ("no-cluster", false),
        ("no-user", false),
        ("twice", false),
        ("empty", false),
        ("text", false),
        ("gone", false),
        ("gone:gone2", false),
        (":", false),
        ("sub:good", false),
        ("text:good", false),
    ] {
        let (ours, we_asked, said) = lab.by_prepull(files);
        let (theirs, they_asked, they_said) = lab.by_kubectl(files);
        let expected = is_good.then(|| BOTH.to_string());
        if ours != expected || ours != theirs || (is_good && we_asked != they_asked) {
            wrong.push(format!(
                "{files}: {ours:?} {we_asked:?}, kubectl {theirs:?} {they_asked:?}\n{said}{they_said}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (files, parts) in [
        ("gone:gone2", &["gone, gone2", "--kubeconfig"] as &[&str]),
        (
            "without",
            &["without: no current-context", "--context: lab"],
        ),
        (
            "elsewhere",
            &["there is no context \"gone\"", "--context: lab"],
        ),
        (
            "no-cluster",
            &[
                "no-cluster:6:",
                "the cluster \"gone\" of the context \"lab\"",
            ],
        ),
        ("twice", &["twice:5:", "\"me\" stands twice in users"]),
        ("text", &["text:1:1:", "is this a kubeconfig?"]),
    ] {
        let said = lab.refused(files);
        for part in parts {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

/// What is wrong with a certificate decides what to do about it.
#[test]
fn a_certificate_that_is_refused_says_what_to_do() {
    let lab = Lab::start();
    for (server, authority, part) in [
        ("api", "other", "certificate-authority-data"),
        ("named", "ca", "tls-server-name"),
        ("expired", "ca", "clock"),
    ] {
        let cluster = format!(
            "server: 'https://127.0.0.1:@{server}', certificate-authority: {authority}.crt"
        );
        lab.kubeconfig("kc", &cluster, "token: t");
        let said = lab.refused("kc");
        assert!(said.contains(part), "{server}: {said}");
    }
}

/// A token is not quoted, wherever it stands by mistake.
#[test]
fn no_error_quotes_what_stands_in_a_kubeconfig() {
    let lab = Lab::start();
    for (cluster, user) in [
        (HERE, "token: [hunter2]"),
        (HERE, "token: {hunter2: x}"),
        (HERE, "token: \"hunter2\\n hunter2\""),
        (
            HERE,
            "client-certificate-data: hunter2!, client-key-data: hunter2!",
        ),
        (
            HERE,
            "client-certificate: me.crt, client-key-data: aHVudGVyMg==",
        ),
        (HERE, "exec: hunter2"),
        (
            HERE,
            "auth-provider: {name: oidc, config: {id-token: hunter2, refresh-token: hunter2}}",
        ),
        ("server: 'https://me:hunter2@127.0.0.1:@api'", "token: t"),
        ("server: 'ftp://me:hunter2@127.0.0.1:@api'", "token: t"),
        (
            "server: 'https://127.0.0.1:@api', proxy-url: 'ftp://me:hunter2@127.0.0.1:1'",
            "token: t",
        ),
        (
            "server: 'https://127.0.0.1:@api', proxy-url: 'http://me:hunter2@127.0.0.1:1'",
            "token: t",
        ),
        (
            "server: 'https://127.0.0.1:@api', certificate-authority-data: hunter2!",
            "token: t",
        ),
        (
            "server: 'https://127.0.0.1:@api', insecure-skip-tls-verify: hunter2",
            "token: t",
        ),
    ] {
        lab.kubeconfig("kc", cluster, user);
        let said = lab.refused("kc");
        assert!(!said.contains("hunter2"), "{said}");
        assert!(!said.contains("aHVudGVyMg"), "{said}");
    }
}

/// A plugin runs once, whatever is asked: it may want a code from a telephone.
#[test]
fn a_login_program_runs_once_and_gets_what_kubectl_gives_it() {
    let lab = Lab::start();
    let folder = lab.folder.path();
    lab.program("plugin", PLUGIN);
    let exec = "exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: ./plugin, interactiveMode: IfAvailable}";
    lab.kubeconfig("kc", HERE, exec);
    let arguments = [
        "pull",
        "-n",
        "--kube",
        "-F",
        "none",
        "--pull-secret",
        "team/regcred",
        "reg.example/app:v1",
    ];
    let program = env!("CARGO_BIN_EXE_prepull");
    let output = lab.command(program, "kc", &arguments).output().unwrap();
    // The server has no secrets; it was asked for one, as the same user.
    assert!(text(&output).contains("team/regcred"), "{}", text(&output));
    let runs = fs::read_to_string(folder.join("runs")).unwrap();
    assert_eq!(runs, "run\n");

    let recorder = "#!/bin/sh\nprintf '%s\\n' \"$KUBERNETES_EXEC_INFO\" >@DIR/info\necho \"$REGION\" >>@DIR/info\n";
    let rest = PLUGIN.strip_prefix("#!/bin/sh\n").unwrap();
    lab.program("plugin", &format!("{recorder}{rest}"));
    let exec = "exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: ./plugin, provideClusterInfo: true, \
        env: [{name: REGION, value: north}]}";
    let cluster = format!(
        "{HERE}, extensions: [{{name: client.authentication.k8s.io/exec, extension: {{audience: x}}}}]"
    );
    lab.kubeconfig("kc", &cluster, exec);
    let told = |output: (Option<String>, Vec<String>, String)| {
        assert_eq!(output.0.as_deref(), Some(BOTH), "{}", output.2);
        let info = fs::read_to_string(folder.join("info")).unwrap();
        let (info, region) = info.split_once('\n').unwrap();
        let mut info: serde_json::Value = serde_json::from_str(info).unwrap();
        // Old versions of kubectl do not have it.
        info["spec"].as_object_mut().unwrap().remove("interactive");
        (info, region.trim().to_string())
    };
    assert_eq!(told(lab.by_prepull("kc")), told(lab.by_kubectl("kc")));
}

/// What a plugin says of itself comes first, and what it was told is not shown.
#[test]
fn a_login_program_that_fails_or_is_missing_is_named_with_what_helps() {
    let lab = Lab::start();
    let exec = |command: &str, more: &str| {
        format!(
            "exec: {{apiVersion: client.authentication.k8s.io/v1beta1, command: {command}, provideClusterInfo: true, \
             env: [{{name: SECRET, value: hunter2}}], installHint: 'get it from https://login.example', {more}}}"
        )
    };
    lab.program(
        "failing",
        "#!/bin/sh\necho 'your session is over' >&2\nexit 3\n",
    );
    lab.program("silent", "#!/bin/sh\n");
    let answer = |status: &str, version: &str| {
        format!(
            "#!/bin/sh\necho '{{\"kind\": \"ExecCredential\", \"apiVersion\": \"client.authentication.k8s.io/{version}\", \"status\": {status}}}'\n"
        )
    };
    lab.program("empty", &answer("{}", "v1beta1"));
    lab.program(
        "half",
        &answer("{\"clientKeyData\": \"hunter2\"}", "v1beta1"),
    );
    lab.program("other", &answer("{\"token\": \"hunter2\"}", "v1"));
    for (command, more, parts) in [
        (
            "./failing",
            "",
            &[
                "your session is over",
                "/failing\"",
                "user \"me\"",
                "exit status: 3",
            ] as &[&str],
        ),
        (
            "login-of-nobody",
            "",
            &[
                "\"login-of-nobody\"",
                "not installed",
                "get it from https://login.example",
            ],
        ),
        (
            "./nowhere",
            "",
            &["/nowhere\"", "get it from https://login.example"],
        ),
        ("./silent", "", &["/silent\"", "no ExecCredential"]),
        ("./empty", "", &["/empty\"", "neither a token nor"]),
        (
            "./half",
            "",
            &["/half\"", "only one of certificate and key"],
        ),
        (
            "./other",
            "",
            &[
                "/other\"",
                "another apiVersion than client.authentication.k8s.io/v1beta1",
            ],
        ),
        (
            "./failing",
            "interactiveMode: Always",
            &["/failing\"", "no terminal"],
        ),
    ] {
        lab.kubeconfig("kc", HERE, &exec(command, more));
        let said = lab.refused("kc");
        let mut at = 0;
        for part in parts {
            let found = said[at..].find(part);
            at += found
                .unwrap_or_else(|| panic!("{part} is not there, or not in this order: {said}"));
        }
        assert!(
            !said.contains("hunter2") && !said.contains("KUBERNETES_EXEC_INFO"),
            "{said}"
        );
        assert!(
            !said.contains("LS0tLS1CRUdJTi"),
            "the cluster's certificate: {said}"
        );
        let (theirs, _, _) = lab.by_kubectl("kc");
        assert!(theirs.is_none() || !more.is_empty());
    }
    lab.kubeconfig(
        "kc",
        HERE,
        "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./silent}",
    );
    let said = lab.refused("kc");
    assert!(
        said.contains("kc:5:") && said.contains("interactiveMode: IfAvailable"),
        "{said}"
    );
}

/// A certificate of a plugin logs in, too.
#[test]
fn a_login_program_may_answer_a_certificate() {
    let lab = Lab::start();
    lab.program(
        "plugin",
        "#!/usr/bin/env python3\nimport json\nprint(json.dumps({'kind': 'ExecCredential', \
         'apiVersion': 'client.authentication.k8s.io/v1beta1', 'status': {\
         'clientCertificateData': open('@DIR/me.crt').read(), 'clientKeyData': open('@DIR/me.key').read()}}))\n",
    );
    lab.kubeconfig(
        "kc",
        HERE,
        "exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: ./plugin}",
    );
    let (ours, we_asked, said) = lab.by_prepull("kc");
    let (theirs, they_asked, _) = lab.by_kubectl("kc");
    assert_eq!(
        (ours.as_deref(), &we_asked),
        (Some(BOTH), &they_asked),
        "{said}"
    );
    assert_eq!(ours, theirs);
    assert!(we_asked[0].contains("certificate of me"), "{we_asked:?}");
}

/// A plugin that talks with the operator gets the terminal.
#[test]
fn a_login_program_may_ask_at_the_terminal() {
    let lab = Lab::start();
    lab.program(
        "plugin",
        "#!/bin/sh\nprintf 'Code: ' >&2\nread -r code\necho \"{\\\"kind\\\": \\\"ExecCredential\\\", \\\"apiVersion\\\": \
         \\\"client.authentication.k8s.io/v1beta1\\\", \\\"status\\\": {\\\"token\\\": \\\"$code\\\"}}\"\n",
    );
    lab.kubeconfig(
        "kc",
        HERE,
        "exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: ./plugin}",
    );
    let line = format!(
        "{} nodes --kube -F none -o name",
        env!("CARGO_BIN_EXE_prepull")
    );
    // script gives it a terminal of its own, into which our standard input is typed.
    let mut child = lab
        .command("script", "kc", &["-qefc", &line, "typescript"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut typed = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut typed, b"123456\n").unwrap();
    let output = child.wait_with_output().unwrap();
    drop(typed);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("w1"), "{}", text(&output));
    assert_eq!(lab.asked(), [r#"["", "Bearer 123456", []]"#]);
}
