//! The SSH transport against OpenSSH's own sshd, ssh-agent and ssh-keygen. Runs as root, with the
//! feature `lab`.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prepull::model::{ExitStatus, Failure, FailureKind, Hop, Node, Secret, Stage};
use prepull::ports::{Channel, ChannelEvent, ForwardedPort, Session, Transport};
use prepull::ssh::config::{CommandLine, LocalEnv, Resolved, Source, SshConfig, System};
use prepull::ssh::{HostKeyPolicy, HostSettings, SshChannel, SshOptions, SshTransport};

#[path = "ssh_openssh/forward.rs"]
mod forward;
#[path = "ssh_openssh/generated.rs"]
mod generated;
#[path = "ssh_openssh/known.rs"]
mod known;
#[path = "ssh_openssh/login.rs"]
mod login;
#[path = "ssh_openssh/settings.rs"]
mod settings;
#[path = "ssh_openssh/way.rs"]
mod way;
#[path = "ssh_openssh/ways.rs"]
mod ways;

/// A program of the system, or a sentence that says what to install.
fn program(name: &str, package: &str) -> Command {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists());
    let path = found.unwrap_or_else(|| {
        panic!("{name} is missing: install Debian's package {package} (apt-get install {package})")
    });
    Command::new(path)
}

fn keygen(arguments: &[&str]) -> String {
    let output = program("ssh-keygen", "openssh-client")
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ssh-keygen {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

fn new_key(path: &Path, kind: &str, passphrase: &str) -> PathBuf {
    let path = path.to_owned();
    let text = path.to_str().unwrap();
    keygen(&["-q", "-t", kind, "-N", passphrase, "-f", text]);
    path
}

fn public(key: &Path) -> String {
    fs::read_to_string(key.with_extension("pub")).unwrap()
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An ssh-agent that listens here.
fn start_agent(socket: &Path) -> Process {
    let mut agent = program("ssh-agent", "openssh-client");
    let agent = agent.arg("-D").arg("-a").arg(socket).stdout(Stdio::null());
    let agent = Process(agent.spawn().unwrap());
    let start = Instant::now();
    while !socket.exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "no agent");
        std::thread::sleep(Duration::from_millis(10));
    }
    agent
}

/// A program that ssh and ssh-add may ask: these lines of shell.
fn askpass(sshd: &Sshd, lines: &str) -> PathBuf {
    let path = sshd.path("askpass");
    fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path
}

/// Has them ask it, whatever the terminal.
fn may_ask<'a>(command: &'a mut Command, askpass: &Path) -> &'a mut Command {
    command
        .env("SSH_ASKPASS", askpass)
        .env("SSH_ASKPASS_REQUIRE", "force")
}

/// The program itself, by this ssh_config: one try of the command on one host.
fn exec_once(config: &Path, host: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prepull"));
    command.arg("exec").arg("-F").arg(config);
    command.args(["--progress", "none", "--no-journal", "--retries", "0"]);
    command.args(["-H", host, "--"]).args(words);
    command
}

/// A real sshd, with a folder of its own.
struct Sshd {
    folder: tempfile::TempDir,
    port: u16,
    process: Process,
}

impl Sshd {
    fn start(more: &str) -> Self {
        Self::start_by(more, |_| program("sshd", "openssh-server"))
    }

    /// With a program that starts sshd; it gets sshd's arguments behind its own.
    fn start_by(more: &str, program: impl FnOnce(&Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for kind in ["ed25519", "rsa"] {
            new_key(&path(&format!("host_{kind}")), kind, "");
        }
        // sshd's own wish, where no service has made it yet.
        fs::create_dir_all("/run/sshd").unwrap();
        fs::write(path("authorized"), "").unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        fs::write(
            path("config"),
            format!(
                "{more}\nListenAddress 127.0.0.1:{port}\nHostKey {}\nHostKey {}\nAuthorizedKeysFile {}\n\
                 PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n",
                path("host_ed25519").display(),
                path("host_rsa").display(),
                path("authorized").display(),
            ),
        )
        .unwrap();
        let process = program(folder.path())
            .args(["-D", "-e", "-f"])
            .arg(path("config"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        let sshd = Self {
            port,
            process: Process(process),
            folder,
        };
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "sshd did not start: {}",
                fs::read_to_string(sshd.path("log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        sshd
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new key that may log in.
    fn user_key(&self, kind: &str) -> PathBuf {
        let key = new_key(&self.path(&format!("user_{kind}")), kind, "");
        self.authorize(&public(&key));
        key
    }

    fn authorize(&self, public: &str) {
        let mut all = fs::read_to_string(self.path("authorized")).unwrap();
        all.push_str(public);
        fs::write(self.path("authorized"), all).unwrap();
    }

    fn known(&self, kind: &str) -> String {
        format!(
            "[127.0.0.1]:{} {}",
            self.port,
            public(&self.path(&format!("host_{kind}")))
        )
    }

    fn options(&self, known: &str) -> SshOptions {
        fs::create_dir_all(self.path(".ssh")).unwrap();
        fs::write(self.path(".ssh/known_hosts"), known).unwrap();
        let host = HostSettings {
            global_known_hosts: vec![],
            ..HostSettings::for_home(self.folder.path())
        };
        SshOptions {
            hosts: vec![host],
            ..SshOptions::default()
        }
    }

    fn node(&self, identities: &[&PathBuf]) -> Node {
        Node {
            name: "node".into(),
            address: "127.0.0.1".into(),
            port: self.port,
            user: "root".into(),
            identities: identities.iter().copied().cloned().collect(),
            jump: vec![],
            runtime: None,
            endpoint: None,
            become_root: false,
            become_password: None,
            ssh_settings: 0,
            labels: BTreeMap::new(),
            facts: BTreeMap::new(),
            groups: vec![],
        }
    }
}

struct Output {
    stdout: String,
    stderr: String,
    exit: Option<ExitStatus>,
}

async fn collect(channel: &mut SshChannel) -> Result<Output, Failure> {
    let (mut stdout, mut stderr, mut exit) = (Vec::new(), Vec::new(), None);
    while let Some(event) = channel.next().await? {
        match event {
            ChannelEvent::Stdout(bytes) => stdout.extend(bytes),
            ChannelEvent::Stderr(bytes) => stderr.extend(bytes),
            ChannelEvent::Exited(status) => exit = Some(status),
        }
    }
    Ok(Output {
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
        exit,
    })
}

/// What this ssh_config says about the servers of these tests.
fn resolved(config: &Path) -> Resolved {
    let ambient = LocalEnv::of_this_process().unwrap();
    let source = Source::Only(config.to_owned());
    let config = SshConfig::load(&source, ambient, Box::new(System)).unwrap();
    config
        .resolve("127.0.0.1", &CommandLine::default())
        .unwrap()
}

/// The same as options.
fn configured(config: &Path) -> SshOptions {
    SshOptions {
        hosts: vec![HostSettings::of(&resolved(config), &|_| None)],
        ..SshOptions::default()
    }
}

/// `ssh` with this ssh_config and nothing else.
fn ssh(config: &Path) -> Command {
    let mut ssh = program("ssh", "openssh-client");
    ssh.arg("-F")
        .arg(config)
        .arg("127.0.0.1")
        .env_remove("SSH_AUTH_SOCK");
    ssh
}

/// The same, with another setting for all hosts.
fn but(mut options: SshOptions, change: impl FnOnce(&mut HostSettings)) -> SshOptions {
    change(&mut options.hosts[0]);
    options
}

/// Connects, runs, closes.
async fn run(options: SshOptions, node: &Node, line: &str) -> Result<Output, Failure> {
    let transport = SshTransport::new(options, std::slice::from_ref(node)).unwrap();
    let mut session = transport.connect(node, &|_| {}).await?;
    let mut channel = session.exec(line).await?;
    let output = collect(&mut channel).await;
    session.close().await;
    output
}

#[tokio::test]
async fn every_kind_of_key_runs_a_command() {
    let sshd = Sshd::start("");
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let key = sshd.user_key(kind);
        let line = "echo out; echo err >&2; exit 7";
        let output = run(
            sshd.options(&sshd.known("ed25519")),
            &sshd.node(&[&key]),
            line,
        )
        .await
        .unwrap();
        assert_eq!(output.stdout, "out\n");
        assert_eq!(output.stderr, "err\n");
        assert_eq!(output.exit, Some(ExitStatus::Code(7)));
    }
}

#[tokio::test]
async fn a_signal_and_a_lot_of_output_arrive() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("ed25519");
    let options = sshd.options(&sshd.known("ed25519"));
    let node = sshd.node(&[&key]);
    let output = run(options.clone(), &node, "kill -TERM $$").await.unwrap();
    assert_eq!(output.exit, Some(ExitStatus::Signal("TERM".into())));
    let line = "head -c 20000000 /dev/zero | tr '\\0' x";
    let output = run(options, &node, line).await.unwrap();
    assert_eq!(output.stdout.len(), 20_000_000);
}

#[tokio::test]
async fn input_that_nobody_reads_waits_no_longer_than_the_command() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("ed25519");
    let node = sshd.node(&[&key]);
    let options = sshd.options(&sshd.known("ed25519"));
    let transport = SshTransport::new(options, std::slice::from_ref(&node)).unwrap();
    let mut session = transport.connect(&node, &|_| {}).await.unwrap();
    let mut channel = session.exec("sleep 0.3; exit 5").await.unwrap();
    let input = Bytes::from(vec![b'i'; 16 << 20]);
    tokio::time::timeout(Duration::from_secs(5), channel.write(input.clone()))
        .await
        .expect("the writer waits for ever")
        .unwrap();
    let output = collect(&mut channel).await.unwrap();
    assert_eq!(output.exit, Some(ExitStatus::Code(5)));

    let mut channel = session.exec("sleep 0.3; kill -9 $PPID").await.unwrap();
    let lost = tokio::time::timeout(Duration::from_secs(5), channel.write(input.clone()))
        .await
        .expect("the writer waits for ever");
    assert_eq!(lost.unwrap_err().kind, FailureKind::ConnectionLost);
}

#[tokio::test]
async fn a_session_that_is_killed_is_lost() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("ed25519");
    let options = sshd.options(&sshd.known("ed25519"));
    // The parent of the command is the sshd of this one session.
    let line = "echo before; kill -9 $PPID; sleep 5";
    let lost = run(options, &sshd.node(&[&key]), line).await.err().unwrap();
    assert_eq!(lost.kind, FailureKind::ConnectionLost, "{lost}");
}

#[tokio::test]
async fn a_host_known_only_by_its_rsa_key_is_no_stranger_and_hashing_hides_nobody() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("ed25519");
    let node = sshd.node(&[&key]);
    let options = sshd.options(&sshd.known("rsa"));
    run(options.clone(), &node, "true").await.unwrap();
    keygen(&[
        "-H",
        "-f",
        options.hosts[0].known_hosts[0].to_str().unwrap(),
    ]);
    let text = fs::read_to_string(&options.hosts[0].known_hosts[0]).unwrap();
    assert!(text.starts_with("|1|"), "{text}");
    run(options, &node, "true").await.unwrap();
}

#[tokio::test]
async fn what_accept_new_records_is_what_openssh_reads() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("ed25519");
    let node = sshd.node(&[&key]);
    let options = but(sshd.options(""), |host| {
        host.host_keys = HostKeyPolicy::AcceptNew;
    });
    for _ in 0..2 {
        run(options.clone(), &node, "true").await.unwrap();
    }
    let file = options.hosts[0].known_hosts[0].to_str().unwrap();
    let found = keygen(&["-F", &format!("[127.0.0.1]:{}", sshd.port), "-f", file]);
    let host_key = public(&sshd.path("host_ed25519"));
    let host_key: Vec<&str> = host_key.split(' ').take(2).collect();
    assert!(found.contains(&host_key.join(" ")), "{found}");
    assert_eq!(fs::read_to_string(file).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn a_server_that_loses_patience_with_our_keys_has_refused_us() {
    let sshd = Sshd::start("MaxAuthTries 2");
    let keys: Vec<PathBuf> = (0..4)
        .map(|number| new_key(&sshd.path(&number.to_string()), "ed25519", ""))
        .collect();
    let node = sshd.node(&keys.iter().collect::<Vec<_>>());
    let refused = run(sshd.options(&sshd.known("ed25519")), &node, "true")
        .await
        .err()
        .unwrap();
    assert_eq!(
        (refused.kind, refused.stage),
        (FailureKind::SshAuth, Stage::Authenticate)
    );
    assert!(
        refused.detail.contains("Too many authentication failures"),
        "{refused}"
    );
}

#[tokio::test]
async fn the_agent_signs_for_keys_without_files_and_for_encrypted_ones() {
    let sshd = Sshd::start("");
    let socket = sshd.path("agent");
    let _agent = start_agent(&socket);
    let add = |key: &Path| {
        let added = program("ssh-add", "openssh-client")
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", &socket)
            .status()
            .unwrap();
        assert!(added.success());
    };
    let options = but(sshd.options(&sshd.known("ed25519")), |host| {
        host.agent = Some(socket.clone());
    });
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let key = sshd.user_key(kind);
        add(&key);
        fs::remove_file(&key).unwrap();
        fs::write(sshd.path("authorized"), public(&key)).unwrap();
        run(options.clone(), &sshd.node(&[]), "true").await.unwrap();
    }

    let encrypted = sshd.user_key("ed25519");
    add(&encrypted);
    let file = encrypted.to_str().unwrap();
    keygen(&["-q", "-p", "-N", "passphrase", "-f", file]);
    let node = sshd.node(&[&encrypted]);
    // Many at once, over the agent's one connection.
    let transport = SshTransport::new(options, std::slice::from_ref(&node)).unwrap();
    let connecting = (0..8).map(|_| transport.connect(&node, &|_| {}));
    futures::future::try_join_all(connecting).await.unwrap();

    let without = SshTransport::new(sshd.options(""), std::slice::from_ref(&node));
    let error = without.err().unwrap().to_string();
    assert!(error.contains(&format!("ssh-add {file}")), "{error}");
}

#[tokio::test]
async fn a_jump_through_sshd_reaches_the_node() {
    let bastion = Sshd::start("");
    let target = Sshd::start("");
    let key = target.user_key("ed25519");
    bastion.authorize(&public(&key));
    let mut node = target.node(&[&key]);
    node.jump = vec![Hop {
        user: "root".into(),
        host: "127.0.0.1".into(),
        port: bastion.port,
        identities: vec![],
        ssh_settings: 0,
    }];
    let known = target.known("ed25519") + &bastion.known("ed25519");
    let output = run(
        target.options(&known),
        &node,
        "echo $SSH_CONNECTION; head -c 5000000 /dev/zero | tr '\\0' x",
    )
    .await
    .unwrap();
    assert!(output.stdout.contains(&format!(" {}\n", target.port)));
    assert!(output.stdout.len() > 5_000_000);

    let closed = Sshd::start("AllowTcpForwarding no");
    closed.authorize(&public(&key));
    node.jump[0].port = closed.port;
    let known = target.known("ed25519") + &closed.known("ed25519");
    let refused = run(target.options(&known), &node, "true")
        .await
        .err()
        .unwrap();
    assert_eq!(
        (refused.kind, refused.stage),
        (FailureKind::Unreachable, Stage::Connect)
    );
    assert!(
        refused.detail.contains("does not allow forwarding"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_server_that_was_stopped_is_unreachable() {
    let mut sshd = Sshd::start("");
    let key = sshd.user_key("ed25519");
    sshd.process.0.kill().unwrap();
    sshd.process.0.wait().unwrap();
    let options = sshd.options(&sshd.known("ed25519"));
    let failure = run(options, &sshd.node(&[&key]), "true")
        .await
        .err()
        .unwrap();
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::Unreachable, Stage::Connect)
    );
}

/// An sshd that shows a host certificate: `made` are the arguments of ssh-keygen that say what for. Also the line
/// that trusts its authority.
fn certified(made: &[&str]) -> (Sshd, String, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let authority = new_key(&folder.path().join("authority"), "ed25519", "");
    let key = new_key(&folder.path().join("host"), "ed25519", "");
    let (signer, host) = (authority.to_str().unwrap(), key.with_extension("pub"));
    let mut arguments = vec!["-q", "-s", signer, "-I", "test"];
    arguments.extend(made);
    arguments.push(host.to_str().unwrap());
    keygen(&arguments);
    let certificate = folder.path().join("host-cert.pub");
    let sshd = Sshd::start(&format!(
        "HostKey {}\nHostCertificate {}",
        key.display(),
        certificate.display()
    ));
    let known = format!("@cert-authority * {}", public(&authority));
    (sshd, known, folder)
}

#[tokio::test]
async fn a_host_certificate_of_a_trusted_authority_is_enough() {
    let (sshd, known, _folder) = certified(&["-h", "-n", "127.0.0.1"]);
    let key = sshd.user_key("ed25519");
    let node = sshd.node(&[&key]);
    run(sshd.options(&known), &node, "true").await.unwrap();
    // The bare name is looked up too, beside port 22.
    let bare = known.replace('*', "127.0.0.1");
    run(sshd.options(&bare), &node, "true").await.unwrap();
    let banned = known.replace("@cert-authority", "@revoked") + &known;
    let refused = run(sshd.options(&banned), &node, "true")
        .await
        .err()
        .unwrap();
    assert!(refused.detail.contains("revokes"), "{refused}");
}

#[tokio::test]
async fn a_host_certificate_that_does_not_hold_is_refused_in_its_words() {
    for (made, words) in [
        (
            &["-h", "-n", "other"][..],
            "it is for other, not for 127.0.0.1",
        ),
        (
            &["-h", "-n", "127.0.0.1", "-V", "20200101:20200201"],
            "it expired on 2020",
        ),
    ] {
        let (sshd, known, _folder) = certified(made);
        let key = sshd.user_key("ed25519");
        let node = sshd.node(&[&key]);
        let refused = run(sshd.options(&known), &node, "true")
            .await
            .err()
            .unwrap();
        assert_eq!(refused.kind, FailureKind::HostKey);
        assert!(refused.detail.contains(words), "{words}: {refused}");
    }
}
