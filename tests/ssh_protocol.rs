//! The SSH transport against servers inside the test: logins, host keys, commands, jump hosts, and
//! servers that stop answering at any point. Needs nothing but Rust.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

mod ssh_server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::{FutureExt as _, StreamExt as _};
use prepull::model::{ExitStatus, Failure, FailureKind, Hop, Node, Secret, Stage};
use prepull::ports::{Channel, ChannelEvent, ForwardedPort, Session, Transport};
use prepull::ssh::{
    HostKeyPolicy, HostSettings, KeyStatus, LoginMethod, ScanTarget, SshChannel, SshOptions,
    SshSession, SshTransport,
};
use russh::keys::key::safe_rng;
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey, PublicKey};
use ssh_server::{Behaviour, Server, ed25519};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const PASSWORD: &str = "correct horse";

fn node(port: u16) -> Node {
    Node {
        name: "node".into(),
        address: "127.0.0.1".into(),
        port,
        user: "ops".into(),
        identities: vec![],
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

/// Options that see nothing of the machine: known_hosts is in the folder, with this text.
fn options(folder: &Path, known: &str) -> SshOptions {
    std::fs::create_dir_all(folder.join(".ssh")).unwrap();
    std::fs::write(folder.join(".ssh/known_hosts"), known).unwrap();
    let host = HostSettings {
        global_known_hosts: vec![],
        connect_timeout: Duration::from_secs(30),
        ..HostSettings::for_home(folder)
    };
    SshOptions {
        hosts: vec![host],
        ..SshOptions::default()
    }
}

/// The same, with another setting for all hosts.
fn but(mut options: SshOptions, change: impl FnOnce(&mut HostSettings)) -> SshOptions {
    change(&mut options.hosts[0]);
    options
}

fn write_key(folder: &Path, name: &str, key: &PrivateKey) -> PathBuf {
    let path = folder.join(name);
    let text = key
        .to_openssh(russh::keys::ssh_key::LineEnding::LF)
        .unwrap();
    std::fs::write(&path, text.as_bytes()).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, private).unwrap();
    path
}

/// A transport whose password serves for the jump hosts too.
fn reach(mut options: SshOptions, nodes: &[Node]) -> SshTransport {
    if let Some(password) = &options.password {
        for hop in nodes.iter().flat_map(|node| &node.jump) {
            let password = password.clone();
            options.jump_passwords.insert(hop.to_string(), password);
        }
    }
    SshTransport::new(options, nodes).unwrap()
}

async fn connect(options: SshOptions, node: &Node) -> Result<SshSession, Failure> {
    let transport = reach(options, std::slice::from_ref(node));
    transport.connect(node, &|_| {}).await
}

fn failure<T>(result: Result<T, Failure>) -> Failure {
    result.err().unwrap()
}

/// A server with a password, and a session to it.
async fn session(folder: &Path, behaviour: Behaviour) -> (Server, SshSession) {
    let server = Server::start(Behaviour {
        password: Some(PASSWORD),
        ..behaviour
    })
    .await;
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..options(folder, &server.known())
    };
    let session = connect(options, &node(server.address.port()))
        .await
        .unwrap();
    (server, session)
}

#[derive(Debug, Default, PartialEq)]
struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit: Option<ExitStatus>,
}

async fn collect(channel: &mut SshChannel) -> Result<Output, Failure> {
    let mut output = Output::default();
    while let Some(event) = channel.next().await? {
        match event {
            ChannelEvent::Stdout(bytes) => output.stdout.extend(bytes),
            ChannelEvent::Stderr(bytes) => output.stderr.extend(bytes),
            ChannelEvent::Exited(status) => output.exit = Some(status),
        }
    }
    Ok(output)
}

/// Waits until the condition holds; fails when it does not within half a minute.
async fn soon(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// Logging in

#[tokio::test]
async fn every_kind_of_key_logs_in() {
    let folder = tempfile::tempdir().unwrap();
    let p256 = Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP256,
    };
    let p384 = Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP384,
    };
    let rsa = russh::keys::ssh_key::private::RsaKeypair::random(&mut safe_rng(), 2048).unwrap();
    let keys = [
        ed25519(),
        PrivateKey::random(&mut safe_rng(), p256).unwrap(),
        PrivateKey::random(&mut safe_rng(), p384).unwrap(),
        PrivateKey::from(rsa),
    ];
    for (number, key) in keys.iter().enumerate() {
        for only_sha256 in [false, true] {
            let server = Server::start(Behaviour {
                keys: vec![key.public_key().clone()],
                only_sha256,
                ..Behaviour::default()
            })
            .await;
            let mut node = node(server.address.port());
            node.identities = vec![write_key(folder.path(), &number.to_string(), key)];
            let mut session = connect(options(folder.path(), &server.known()), &node)
                .await
                .unwrap();
            let mut channel = session.exec("hello").await.unwrap();
            assert_eq!(
                collect(&mut channel).await.unwrap().exit,
                Some(ExitStatus::Code(0))
            );
        }
    }
}

#[tokio::test]
async fn a_refused_key_is_named_with_what_the_server_still_offers() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour {
        password: Some(PASSWORD),
        ..Behaviour::default()
    })
    .await;
    let mut node = node(server.address.port());
    node.identities = vec![write_key(folder.path(), "wrong", &ed25519())];
    let failure = failure(connect(options(folder.path(), &server.known()), &node).await);
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::SshAuth, Stage::Authenticate)
    );
    for part in [
        "ssh-ed25519 SHA256:",
        "wrong)",
        "offers publickey, password",
        "ops",
    ] {
        assert!(failure.detail.contains(part), "{part}: {}", failure.detail);
    }
}

#[tokio::test]
async fn keys_are_offered_until_the_server_loses_patience_and_the_password_before_that() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour {
        password: Some(PASSWORD),
        most_tries: 6,
        ..Behaviour::default()
    })
    .await;
    let mut node = node(server.address.port());
    node.identities = (0..9)
        .map(|number| write_key(folder.path(), &number.to_string(), &ed25519()))
        .collect();
    let mut options = options(folder.path(), &server.known());
    let refused = failure(connect(options.clone(), &node).await);
    assert_eq!(refused.kind, FailureKind::SshAuth);
    assert!(refused.detail.contains("2 more"), "{}", refused.detail);
    assert_eq!(server.seen.offers.swap(0, Ordering::SeqCst), 6);

    options.password = Some(Secret::new(PASSWORD));
    connect(options, &node).await.unwrap();
    assert_eq!(server.seen.offers.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_password_logs_in_and_a_wrong_one_is_tried_once() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _session) = session(folder.path(), Behaviour::default()).await;
    let wrong = SshOptions {
        password: Some(Secret::new("wrong battery")),
        ..options(folder.path(), &server.known())
    };
    server.seen.passwords.store(0, Ordering::SeqCst);
    let failure = failure(connect(wrong, &node(server.address.port())).await);
    assert_eq!(failure.kind, FailureKind::SshAuth);
    assert!(failure.detail.contains("tried password"), "{failure}");
    assert!(!failure.detail.contains("battery"), "{failure}");
    assert_eq!(server.seen.passwords.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_password_answers_the_one_hidden_question_of_keyboard_interactive() {
    let folder = tempfile::tempdir().unwrap();
    let keyboard = Behaviour {
        keyboard: true,
        ..Behaviour::default()
    };
    let (server, _session) = session(folder.path(), keyboard).await;
    let wrong = SshOptions {
        password: Some(Secret::new("wrong")),
        ..options(folder.path(), &server.known())
    };
    let failure = failure(connect(wrong, &node(server.address.port())).await);
    assert_eq!(failure.kind, FailureKind::SshAuth);
    assert!(failure.detail.contains("keyboard-interactive"), "{failure}");
}

#[tokio::test]
async fn a_question_that_only_a_person_can_answer_ends_the_login_and_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    for (question, words) in [
        ("Verification code: ", "only a person"),
        ("Current password: ", "has expired"),
    ] {
        let server = Server::start(Behaviour {
            keyboard: true,
            password: Some(PASSWORD),
            question,
            ..Behaviour::default()
        })
        .await;
        let options = SshOptions {
            password: Some(Secret::new(PASSWORD)),
            ..options(folder.path(), &server.known())
        };
        let refused = failure(connect(options, &node(server.address.port())).await);
        assert_eq!(refused.kind, FailureKind::SshAuth);
        assert!(refused.detail.contains(question.trim()), "{refused}");
        assert!(refused.detail.contains(words), "{refused}");
    }
}

#[tokio::test]
async fn the_order_of_the_methods_is_that_of_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let key = ed25519();
    let server = Server::start(Behaviour {
        password: Some(PASSWORD),
        keys: vec![key.public_key().clone()],
        ..Behaviour::default()
    })
    .await;
    let mut node = node(server.address.port());
    node.identities = vec![write_key(folder.path(), "key", &key)];
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..options(folder.path(), &server.known())
    };
    let counts = || {
        let seen = &server.seen;
        (
            seen.offers.swap(0, Ordering::SeqCst),
            seen.passwords.swap(0, Ordering::SeqCst),
        )
    };
    connect(options.clone(), &node).await.unwrap();
    assert_eq!(counts(), (1, 0));
    // One offer and no other request: no round trip more than the key takes.
    assert_eq!(server.seen.nones.load(Ordering::SeqCst), 0);
    let first = but(options.clone(), |host| {
        host.methods = vec![LoginMethod::Password, LoginMethod::PublicKey];
    });
    connect(first, &node).await.unwrap();
    assert_eq!(counts(), (0, 1));
    let never = but(options, |host| {
        host.methods = vec![LoginMethod::KeyboardInteractive];
    });
    let refused = failure(connect(never, &node).await);
    assert_eq!(refused.kind, FailureKind::SshAuth);
    assert_eq!(counts(), (0, 0));
}

#[tokio::test]
async fn a_key_in_a_fido_device_is_offered_and_its_agent_signs() {
    let folder = tempfile::tempdir().unwrap();
    // A public key as such a device has it: a point of the curve, and the application.
    let point = *ed25519().public_key().key_data().ed25519().unwrap();
    let device = russh::keys::ssh_key::public::SkEd25519::new(point, "ssh:");
    let public = PublicKey::from(russh::keys::ssh_key::public::KeyData::SkEd25519(device));
    let server = Server::start(Behaviour {
        keys: vec![public.clone()],
        ..Behaviour::default()
    })
    .await;
    // Only the device could make one that fits; this one arrives, and is refused.
    let signature = [
        &[14, 0, 0, 0, 103, 0, 0, 0, 26][..],
        b"sk-ssh-ed25519@openssh.com",
        &[0, 0, 0, 64],
        &[7; 64],
        &[1, 0, 0, 0, 9],
    ]
    .concat();
    let options = but(options(folder.path(), &server.known()), |host| {
        host.agent = Some(agent(folder.path(), &public, Some(signature.leak())));
    });
    let refused = failure(connect(options, &node(server.address.port())).await);
    assert_eq!(server.seen.offers.load(Ordering::SeqCst), 1);
    assert!(
        refused.detail.contains("tried sk-ssh-ed25519@openssh.com"),
        "{refused}"
    );
    assert!(!refused.detail.contains("did not sign"), "{refused}");
}

#[tokio::test]
async fn a_server_may_want_a_key_and_then_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let key = ed25519();
    let server = Server::start(Behaviour {
        password: Some(PASSWORD),
        keys: vec![key.public_key().clone()],
        both: true,
        ..Behaviour::default()
    })
    .await;
    let mut node = node(server.address.port());
    node.identities = vec![write_key(folder.path(), "key", &key)];
    let mut options = options(folder.path(), &server.known());
    let refused = failure(connect(options.clone(), &node).await);
    assert_eq!(refused.kind, FailureKind::SshAuth);
    assert!(
        refused.detail.contains("offers password"),
        "{}",
        refused.detail
    );
    options.password = Some(Secret::new(PASSWORD));
    connect(options, &node).await.unwrap();
}

/// An agent that lists one key; a request to sign is answered with these bytes, or never.
fn agent(folder: &Path, key: &PublicKey, signed: Option<&'static [u8]>) -> PathBuf {
    use std::io::{Read as _, Write as _};

    let path = folder.join(format!("agent-{}", signed.is_some()));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let blob = key.to_bytes().unwrap();
    let mut list = vec![12, 0, 0, 0, 1];
    list.extend((blob.len() as u32).to_be_bytes());
    list.extend(&blob);
    list.extend([0; 4]);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, list) = (stream.unwrap(), list.clone());
            std::thread::spawn(move || {
                let mut length = [0; 4];
                while stream.read_exact(&mut length).is_ok() {
                    let mut request = vec![0; u32::from_be_bytes(length) as usize];
                    stream.read_exact(&mut request).unwrap();
                    let answer = if request[0] == 11 {
                        Some(&list[..])
                    } else {
                        signed
                    };
                    let Some(answer) = answer else { continue };
                    stream
                        .write_all(&(answer.len() as u32).to_be_bytes())
                        .unwrap();
                    stream.write_all(answer).unwrap();
                }
            });
        }
    });
    path
}

#[tokio::test]
async fn an_agent_that_refuses_or_stays_silent_is_blamed_and_its_key_file_used_instead() {
    let folder = tempfile::tempdir().unwrap();
    let key = ed25519();
    let server = Server::start(Behaviour {
        keys: vec![key.public_key().clone()],
        ..Behaviour::default()
    })
    .await;
    const REFUSAL: &[u8] = &[5];
    for signed in [Some(REFUSAL), None] {
        let options = but(options(folder.path(), &server.known()), |host| {
            host.agent = Some(agent(folder.path(), key.public_key(), signed));
            host.connect_timeout = Duration::from_millis(800);
        });
        let mut node = node(server.address.port());
        let refused = failure(connect(options.clone(), &node).await);
        assert_eq!(refused.kind, FailureKind::SshAuth, "{refused}");
        assert!(
            refused.detail.contains("the agent did not sign with it"),
            "{refused}"
        );
        node.identities = vec![write_key(folder.path(), "key", &key)];
        connect(options, &node).await.unwrap();
    }
}

#[tokio::test]
async fn without_key_and_password_the_refusal_says_what_the_server_wants() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour::default()).await;
    let options = options(folder.path(), &server.known());
    let failure = failure(connect(options, &node(server.address.port())).await);
    assert_eq!(failure.kind, FailureKind::SshAuth);
    assert!(
        failure.detail.contains("no key and no password"),
        "{failure}"
    );
    assert!(failure.detail.contains("offers publickey"), "{failure}");
}

#[tokio::test]
async fn a_connection_that_breaks_during_the_login_is_no_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour {
        password: Some(PASSWORD),
        drop_login: true,
        ..Behaviour::default()
    })
    .await;
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..options(folder.path(), &server.known())
    };
    let failure = failure(connect(options, &node(server.address.port())).await);
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::ConnectionLost, Stage::Authenticate),
        "{failure}"
    );
    assert!(
        failure.detail.contains("closed the connection"),
        "{failure}"
    );
}

// Host keys

#[tokio::test]
async fn unknown_changed_and_revoked_host_keys_are_refused_each_in_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour::default()).await;
    let other = ed25519();
    let key = server.host_key.to_openssh().unwrap();
    let cases = [
        (String::new(), "is unknown"),
        (
            format!("@cert-authority * {key}\n"),
            "certificate authority",
        ),
        (server.known_as(other.public_key()), "has changed"),
        (
            format!("{}@revoked * {key}\n", server.known()),
            "is revoked",
        ),
    ];
    for (known, words) in cases {
        let options = options(folder.path(), &known);
        let failure = failure(connect(options, &node(server.address.port())).await);
        assert_eq!(
            (failure.kind, failure.stage),
            (FailureKind::HostKey, Stage::Handshake)
        );
        assert!(failure.detail.contains(words), "{words}: {failure}");
        assert!(failure.detail.contains("SHA256:"), "{failure}");
    }
}

#[tokio::test]
async fn accept_new_records_a_host_once_for_two_nodes_and_refuses_its_change() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour {
        password: Some(PASSWORD),
        ..Behaviour::default()
    })
    .await;
    let port = server.address.port();
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..but(options(folder.path(), ""), |host| {
            host.host_keys = HostKeyPolicy::AcceptNew;
        })
    };
    let transport = reach(options.clone(), &[node(port)]);
    let (first, second) = (node(port), node(port));
    let (first, second) = tokio::join!(
        transport.connect(&first, &|_| {}),
        transport.connect(&second, &|_| {})
    );
    first.unwrap();
    second.unwrap();
    connect(options.clone(), &node(port)).await.unwrap();
    let text = std::fs::read_to_string(folder.path().join(".ssh/known_hosts")).unwrap();
    assert_eq!(text, server.known());

    let changed = server.known_as(ed25519().public_key());
    std::fs::write(folder.path().join(".ssh/known_hosts"), &changed).unwrap();
    let failure = failure(connect(options, &node(port)).await);
    assert_eq!(failure.kind, FailureKind::HostKey);
    let text = std::fs::read_to_string(folder.path().join(".ssh/known_hosts")).unwrap();
    assert_eq!(text, changed);
}

// Commands

#[tokio::test]
async fn a_command_gives_both_outputs_and_its_status() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, mut session) = session(folder.path(), Behaviour::default()).await;
    let mut channel = session.exec("hello 3").await.unwrap();
    assert_eq!(
        collect(&mut channel).await.unwrap(),
        Output {
            stdout: b"hello\n".to_vec(),
            stderr: b"careful\n".to_vec(),
            exit: Some(ExitStatus::Code(3)),
        }
    );
    assert_eq!(channel.next().await.unwrap(), None, "None stays None");
    session.close().await;
}

#[tokio::test]
async fn a_signal_is_told_by_name_and_a_missing_status_is_not_made_up() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, mut session) = session(folder.path(), Behaviour::default()).await;
    let mut channel = session.exec("signal").await.unwrap();
    assert_eq!(
        collect(&mut channel).await.unwrap().exit,
        Some(ExitStatus::Signal("KILL".into()))
    );
    let mut channel = session.exec("vanish").await.unwrap();
    let output = collect(&mut channel).await.unwrap();
    assert_eq!(
        (output.stdout.as_slice(), output.exit),
        (&b"bye\n"[..], None)
    );
    let refused = failure(collect(&mut session.exec("refuse").await.unwrap()).await);
    assert_eq!(refused.stage, Stage::Start);
}

#[tokio::test]
async fn what_is_written_reaches_the_command_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, mut session) = session(folder.path(), Behaviour::default()).await;
    let mut channel = session.exec("echo").await.unwrap();
    // More than one window: the reader has to make room.
    let mut input = vec![b'i'; 3 << 20];
    channel.write(input.clone().into()).await.unwrap();
    channel.write(".".into()).await.unwrap();
    let output = collect(&mut channel).await.unwrap();
    input.push(b'.');
    assert_eq!(output.stdout, input);
    channel
        .write("too late".into())
        .await
        .expect("the end of the command tells more");
}

#[tokio::test]
async fn a_slow_reader_freezes_nobody_and_gets_a_beginning_without_holes() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, mut session) = session(folder.path(), Behaviour::default()).await;
    let mut flood = session.exec("flood 24").await.unwrap();
    let mut sibling = session.exec("hello 0").await.unwrap();
    let output = tokio::time::timeout(Duration::from_secs(20), collect(&mut sibling))
        .await
        .expect("the sibling is frozen")
        .unwrap();
    assert_eq!(output.exit, Some(ExitStatus::Code(0)));
    let waiting = Instant::now();
    while flood.discarded() < 16 << 20 {
        assert!(waiting.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let output = collect(&mut flood).await.unwrap();
    assert_eq!(output.exit, Some(ExitStatus::Code(0)));
    assert_eq!(output.stdout.len(), 8 << 20);
    assert_eq!(flood.discarded(), 16 << 20);
}

#[tokio::test]
async fn a_fast_reader_gets_everything() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, mut session) = session(folder.path(), Behaviour::default()).await;
    let mut flood = session.exec("flood 12").await.unwrap();
    assert_eq!(collect(&mut flood).await.unwrap().stdout.len(), 12 << 20);
    assert_eq!(flood.discarded(), 0);
}

#[tokio::test]
async fn output_in_pieces_of_one_byte_takes_no_more_memory_than_other_output() {
    let folder = tempfile::tempdir().unwrap();
    let (server, mut session) = session(folder.path(), Behaviour::default()).await;
    // Less than 8 MiB of bytes; in pieces of one byte they would take a multiple of that.
    let crumbs = 200_000;
    let channel = session.exec(&format!("crumbs {crumbs}")).await.unwrap();
    let waiting = Instant::now();
    while channel.discarded() == 0 {
        let all_sent = server.seen.crumbs.load(Ordering::SeqCst) == crumbs;
        assert!(
            !all_sent || waiting.elapsed() < Duration::from_secs(60),
            "all were kept"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_command_that_ends_many_times_ends_once() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, mut session) = session(folder.path(), Behaviour::default()).await;
    let mut channel = session.exec("ends 1000").await.unwrap();
    let mut ends = Vec::new();
    while let Some(event) = channel.next().await.unwrap() {
        ends.push(event);
    }
    assert_eq!(ends, [ChannelEvent::Exited(ExitStatus::Code(0))]);
}

#[tokio::test]
async fn a_server_that_opens_channels_is_refused_and_left_when_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (server, mut session) = session(folder.path(), Behaviour::default()).await;
    // One of each kind: refused, and the command goes on.
    let _open = session.exec("open 1").await.unwrap();
    soon("not all were answered", || {
        server.seen.rejected.load(Ordering::SeqCst) == 7
    })
    .await;
    let output = collect(&mut session.exec("hello").await.unwrap())
        .await
        .unwrap();
    assert_eq!(output.exit, Some(ExitStatus::Code(0)));

    let mut open = session.exec("open 1000").await.unwrap();
    let lost = failure(collect(&mut open).await);
    assert_eq!(lost.kind, FailureKind::ConnectionLost);
    assert!(lost.detail.contains("kept opening channels"), "{lost}");
    assert_eq!(server.seen.accepted.load(Ordering::SeqCst), 0);
    assert!(server.seen.rejected.load(Ordering::SeqCst) <= 9);
}

// Forwarded ports

/// A server that forwards ports, a session to it, and a port.
async fn forwarded(folder: &Path) -> (Server, SshSession, ForwardedPort) {
    let behaviour = Behaviour {
        forwards_ports: true,
        ..Behaviour::default()
    };
    let (server, mut session) = session(folder, behaviour).await;
    let port = session.forward_port().await.unwrap();
    assert_eq!(
        usize::from(port.port),
        server.seen.forwarded_port.load(Ordering::SeqCst)
    );
    (server, session, port)
}

async fn dial(port: &ForwardedPort) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port.port)).await.unwrap()
}

/// Waits until the other side has closed the connection.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
    // A reset is an end as well.
    assert!(read.await.is_ok(), "the connection was left open");
}

#[tokio::test]
async fn a_forwarded_port_leads_here_and_beside_it_commands_run() {
    let folder = tempfile::tempdir().unwrap();
    let (server, mut session, mut port) = forwarded(folder.path()).await;
    let mut inside = dial(&port).await;
    inside.write_all(b"ping").await.unwrap();
    let mut outside = port.connections.recv().await.unwrap();
    let mut word = [0; 4];
    outside.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"ping");

    // More than any window or buffer on the way, and a command in the middle.
    let sent = vec![7; 8 << 20];
    let expected = sent.len();
    let sending = tokio::spawn(async move {
        outside.write_all(&sent).await.unwrap();
        outside
    });
    let output = collect(&mut session.exec("hello").await.unwrap())
        .await
        .unwrap();
    assert_eq!(output.exit, Some(ExitStatus::Code(0)));
    let mut received = vec![0; expected];
    inside.read_exact(&mut received).await.unwrap();
    assert!(received.iter().all(|byte| *byte == 7));
    drop(sending.await.unwrap());
    closed(&mut inside).await;

    let mut again = dial(&port).await;
    let mut outside = port.connections.recv().await.unwrap();
    server.seen.cut.notify_waiters();
    let lost = outside.read_u8().await.unwrap_err();
    assert!(
        lost.to_string()
            .contains("the connection to the node was lost"),
        "{lost}"
    );
    closed(&mut again).await;
}

#[tokio::test]
async fn connections_to_a_forwarded_port_are_bounded_and_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, mut session, mut port) = forwarded(folder.path()).await;
    let mut inside = Vec::new();
    for _ in 0..100 {
        inside.push(dial(&port).await);
    }
    // Those that find no place are closed.
    let ends = inside.into_iter().map(|mut stream| async move {
        let mut byte = [0];
        stream.read(&mut byte).await
    });
    let mut ends: futures::stream::FuturesUnordered<_> = ends.collect();
    for _ in 0..100 - 32 {
        ends.next().await.unwrap().ok();
    }
    assert!(
        ends.next().now_or_never().is_none(),
        "fewer than 32 are open"
    );
    let mut taken = 0;
    while port.connections.recv().now_or_never().is_some() {
        taken += 1;
    }
    assert_eq!(taken, 32);

    // A place is free again, and one that sends without end loses its own connection alone.
    drop(ends);
    let (mut inside, mut greedy) = loop {
        let mut stream = dial(&port).await;
        stream.write_all(b"x").await.unwrap();
        if let Ok(Some(held)) =
            tokio::time::timeout(Duration::from_millis(50), port.connections.recv()).await
        {
            break (stream, held);
        }
    };
    let flooding = tokio::spawn(async move {
        let flood = vec![0; 1 << 20];
        while inside.write_all(&flood).await.is_ok() {}
    });
    // Not read until it is over.
    let mut kept = Vec::new();
    soon("it may send without end", || {
        greedy
            .write_all(b"x")
            .now_or_never()
            .is_some_and(|written| written.is_err())
    })
    .await;
    greedy.read_to_end(&mut kept).await.unwrap_err();
    assert!(kept.len() <= 64 << 10, "{} bytes were kept", kept.len());
    flooding.abort();

    // No longer wanted: refused, however many, and the session lives.
    drop(port.connections);
    for _ in 0..20 {
        let address = ("127.0.0.1", port.port);
        closed(&mut TcpStream::connect(address).await.unwrap()).await;
    }
    let output = collect(&mut session.exec("hello").await.unwrap())
        .await
        .unwrap();
    assert_eq!(output.exit, Some(ExitStatus::Code(0)));
}

#[tokio::test]
async fn forwarded_channels_for_any_other_port_or_address_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (server, mut session, mut port) = forwarded(folder.path()).await;
    let _others = session.exec("others 1").await.unwrap();
    soon("not all were answered", || {
        server.seen.rejected.load(Ordering::SeqCst) == 3
    })
    .await;
    assert!(port.connections.recv().now_or_never().is_none());
    let mut others = session.exec("others 1000").await.unwrap();
    let lost = failure(collect(&mut others).await);
    assert!(lost.detail.contains("kept opening channels"), "{lost}");
    assert_eq!(server.seen.accepted.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_server_that_forwards_no_port_is_told_from_a_lost_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (server, mut refusing) = session(folder.path(), Behaviour::default()).await;
    let refused = failure(refusing.forward_port().await);
    assert_eq!(refused.kind, FailureKind::NodeSetup, "{refused}");
    assert!(refused.detail.contains("AllowTcpForwarding"), "{refused}");
    // The connection goes on.
    collect(&mut refusing.exec("hello").await.unwrap())
        .await
        .unwrap();
    server.seen.cut.notify_waiters();
    soon("the connection is open", || {
        server.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
    let lost = failure(refusing.forward_port().await);
    assert_eq!(lost.kind, FailureKind::ConnectionLost, "{lost}");

    let (_server, mut once, _port) = forwarded(folder.path()).await;
    assert_eq!(
        failure(once.forward_port().await).kind,
        FailureKind::Internal
    );
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_is_lost_and_not_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, mut session) = session(folder.path(), Behaviour::default()).await;
    let mut channel = session.exec("cut").await.unwrap();
    assert_eq!(
        channel.next().await.unwrap(),
        Some(ChannelEvent::Stdout(b"half".to_vec()))
    );
    let lost = failure(channel.next().await);
    assert_eq!(lost.kind, FailureKind::ConnectionLost);
    assert!(lost.detail.contains("closed the connection"), "{lost}");
    let unwritten = failure(channel.write("x".into()).await);
    assert_eq!(unwritten.kind, FailureKind::ConnectionLost);
    let not_started = failure(session.exec("hello").await);
    assert_eq!(
        (not_started.kind, not_started.stage),
        (FailureKind::ConnectionLost, Stage::Start)
    );
}

#[tokio::test]
async fn a_dropped_channel_is_closed_on_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let (server, mut session) = session(folder.path(), Behaviour::default()).await;
    drop(session.exec("hang").await.unwrap());
    soon("the channel was not closed", || {
        server.seen.closed_channels.load(Ordering::SeqCst) == 1
    })
    .await;
    let mut channel = session.exec("hello").await.unwrap();
    collect(&mut channel).await.unwrap();
}

#[tokio::test]
async fn closing_and_dropping_a_session_both_free_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let (server, mut polite) = session(folder.path(), Behaviour::default()).await;
    let mut channel = polite.exec("hang").await.unwrap();
    let start = Instant::now();
    polite.close().await;
    assert!(start.elapsed() < Duration::from_secs(10));
    soon("close left a socket", || {
        server.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
    assert_eq!(
        failure(channel.next().await).kind,
        FailureKind::ConnectionLost
    );

    let (server, rude) = session(folder.path(), Behaviour::default()).await;
    drop(rude);
    soon("drop left a socket", || {
        server.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
}

// Servers that stop answering

/// Connects to a server that stalls, and checks that the phase ends in time and leaves nothing.
async fn stalled(port: u16, known: &str) -> (Failure, Vec<Stage>) {
    let folder = tempfile::tempdir().unwrap();
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..but(options(folder.path(), known), |host| {
            host.connect_timeout = Duration::from_millis(500);
        })
    };
    let transport = reach(options, &[]);
    let stages = Mutex::new(Vec::new());
    let start = Instant::now();
    let result = transport
        .connect(&node(port), &|stage| stages.lock().unwrap().push(stage))
        .await;
    let took = start.elapsed();
    assert!(took > Duration::from_millis(400), "{took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    (failure(result), stages.into_inner().unwrap())
}

fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

/// States of a socket in /proc/net/tcp.
const ESTABLISHED: &str = "01";
const SYN_SENT: &str = "02";

/// Waits until no socket of this machine goes to this port in this state.
async fn no_socket_to(port: u16, state: &str) {
    let line = format!(":{port:04X} {state} ");
    soon("the socket was left open", || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        !sockets.contains(&line)
    })
    .await;
}

#[tokio::test]
async fn a_port_that_accepts_and_stays_silent_ends_at_its_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let before = tasks();
    let (failure, stages) = stalled(port, "").await;
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::Unreachable, Stage::Handshake)
    );
    assert!(failure.detail.contains("within 500ms"), "{failure}");
    assert_eq!(stages, [Stage::Connect, Stage::Handshake]);
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut greeting = Vec::new();
    let end = socket.read_to_end(&mut greeting);
    tokio::time::timeout(Duration::from_secs(1), end)
        .await
        .expect("the socket was left open")
        .unwrap();
    assert!(greeting.starts_with(b"SSH-2.0-prepull_"));
    soon("a task was left", || tasks() == before).await;
}

#[tokio::test]
async fn a_server_that_stalls_in_the_key_exchange_ends_at_its_deadline() {
    use tokio::io::AsyncWriteExt as _;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let before = tasks();
    let closed = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"SSH-2.0-Stalled\r\n").await.unwrap();
        socket.read_to_end(&mut Vec::new()).await.unwrap()
    });
    let (failure, _) = stalled(port, "").await;
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::Unreachable, Stage::Handshake)
    );
    tokio::time::timeout(Duration::from_secs(1), closed)
        .await
        .expect("the socket was left open")
        .unwrap();
    soon("a task was left", || tasks() == before).await;
}

#[tokio::test]
async fn a_server_that_stalls_after_its_proposal_ends_at_its_deadline() {
    use tokio::io::AsyncWriteExt as _;

    let server = Server::start(with_password()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let before = tasks();
    // Passes on the server's version and its first packet, and then nothing more of what it says.
    let address = server.address;
    let closed = tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let server = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut from_server, mut to_server) = server.into_split();
        let first = async {
            while from_server.read_u8().await.unwrap() != b'\n' {}
            to_client.write_all(b"SSH-2.0-Stalled\r\n").await.unwrap();
            let length = from_server.read_u32().await.unwrap();
            to_client.write_u32(length).await.unwrap();
            let mut packet = vec![0; length as usize];
            from_server.read_exact(&mut packet).await.unwrap();
            to_client.write_all(&packet).await.unwrap();
        };
        let asked = tokio::io::copy(&mut from_client, &mut to_server);
        tokio::join!(first, asked).1.unwrap()
    });
    let (failure, stages) = stalled(port, &server.known()).await;
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::Unreachable, Stage::Handshake)
    );
    assert_eq!(stages, [Stage::Connect, Stage::Handshake]);
    let sent = tokio::time::timeout(Duration::from_secs(1), closed)
        .await
        .expect("the socket was left open")
        .unwrap();
    assert!(sent > 1000, "the key exchange did not begin: {sent} bytes");
    soon("a task was left", || tasks() == before).await;
}

#[tokio::test]
async fn a_banner_that_never_ends_ends_at_its_deadline() {
    use tokio::io::AsyncWriteExt as _;

    // Lines before the version are allowed (RFC 4253, section 4.2), and one may be long.
    for piece in ["please wait\r\n", "please wait "] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let before = tasks();
        let talking = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            while socket.write_all(piece.as_bytes()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let options = but(options(folder.path(), ""), |host| {
            host.connect_timeout = Duration::from_millis(500);
        });
        let ended =
            tokio::time::timeout(Duration::from_secs(5), connect(options, &node(port))).await;
        let failure = failure(ended.expect("it hangs"));
        assert_eq!(
            (failure.kind, failure.stage),
            (FailureKind::Unreachable, Stage::Handshake)
        );
        tokio::time::timeout(Duration::from_secs(2), talking)
            .await
            .expect("the socket was left open")
            .unwrap();
        soon("a task was left", || tasks() == before).await;
    }
}

#[tokio::test]
async fn a_black_hole_ends_at_its_deadline() {
    // A queue that is full: what comes now is neither taken nor refused.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = tokio::time::timeout(
        Duration::from_millis(300),
        tokio::net::TcpStream::connect(address),
    )
    .await
    {
        queue.push(stream.unwrap());
    }
    let before = tasks();
    let (failure, stages) = stalled(address.port(), "").await;
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::Unreachable, Stage::Connect)
    );
    assert!(failure.detail.contains("no answer within 0."), "{failure}");
    assert_eq!(stages, [Stage::Connect]);
    soon("a task was left", || tasks() == before).await;
    no_socket_to(address.port(), SYN_SENT).await;
}

#[tokio::test]
async fn a_proxy_command_that_stalls_ends_at_its_deadline_and_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    for says in ["true", "printf 'SSH-2.0-Stalled\\r\\n'"] {
        let options = but(options(folder.path(), ""), |host| {
            host.connect_timeout = Duration::from_millis(500);
            host.proxy_command = Some(format!(
                "sh -c '{says}; echo $$ > {}; exec sleep 600'",
                mark.display()
            ));
        });
        let before = tasks();
        let ended = tokio::time::timeout(Duration::from_secs(5), connect(options, &node(22))).await;
        let failure = failure(ended.expect("it hangs"));
        assert_eq!(
            (failure.kind, failure.stage),
            (FailureKind::Unreachable, Stage::Handshake)
        );
        let id = std::fs::read_to_string(&mark).unwrap();
        let running = format!("/proc/{}/cmdline", id.trim());
        soon("the command goes on", || {
            std::fs::read(&running).is_ok_and(|line| line.is_empty())
                || !Path::new(&running).exists()
        })
        .await;
        soon("a task was left", || tasks() == before).await;
    }
}

#[tokio::test]
async fn a_server_that_stalls_in_the_login_ends_at_its_deadline() {
    // The server waits for ever, so its tasks must not be among those that are counted.
    let elsewhere = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let starting = elsewhere.spawn(Server::start(Behaviour {
        stall_login: true,
        password: Some(PASSWORD),
        ..Behaviour::default()
    }));
    let server = starting.await.unwrap();
    let before = tasks();
    let (failure, stages) = stalled(server.address.port(), &server.known()).await;
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::ConnectionLost, Stage::Authenticate)
    );
    assert_eq!(
        stages,
        [Stage::Connect, Stage::Handshake, Stage::Authenticate]
    );
    assert_eq!(server.seen.connections.load(Ordering::SeqCst), 1);
    no_socket_to(server.address.port(), ESTABLISHED).await;
    soon("a task was left", || tasks() == before).await;
    elsewhere.shutdown_background();
}

#[tokio::test]
async fn a_server_that_never_opens_the_channel_ends_at_its_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour {
        password: Some(PASSWORD),
        stall_channels: true,
        ..Behaviour::default()
    })
    .await;
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..but(options(folder.path(), &server.known()), |host| {
            host.connect_timeout = Duration::from_millis(500);
        })
    };
    let before = tasks();
    let mut session = connect(options, &node(server.address.port()))
        .await
        .unwrap();
    let failure = failure(session.exec("hello").await);
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::ConnectionLost, Stage::Start)
    );
    soon("the socket was left open", || {
        server.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
    soon("a task was left", || tasks() == before).await;
}

#[tokio::test]
async fn giving_up_in_the_middle_of_the_key_exchange_leaves_nothing() {
    use tokio::io::AsyncWriteExt as _;

    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let transport = reach(options(folder.path(), ""), &[]);
    let node = node(port);
    let before = tasks();
    let (mut socket, _) = tokio::select! {
        _ = transport.connect(&node, &|_| {}) => panic!("it cannot succeed"),
        accepted = async {
            let (mut socket, address) = listener.accept().await.unwrap();
            socket.write_all(b"SSH-2.0-Stalled\r\n").await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            (socket, address)
        } => accepted,
    };
    tokio::time::timeout(Duration::from_secs(1), socket.read_to_end(&mut Vec::new()))
        .await
        .expect("the socket was left open")
        .unwrap();
    soon("a task was left", || tasks() == before).await;
}

#[tokio::test]
async fn a_closed_port_and_a_port_of_something_else_are_unreachable() {
    use tokio::io::AsyncWriteExt as _;

    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let other = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 No\r\n\r\n").await.unwrap();
    });
    let refused = failure(connect(options(folder.path(), ""), &node(port)).await);
    assert_eq!(
        (refused.kind, refused.stage),
        (FailureKind::Unreachable, Stage::Handshake),
        "{refused}"
    );
    other.await.unwrap();
    let refused = failure(connect(options(folder.path(), ""), &node(port)).await);
    assert_eq!(
        (refused.kind, refused.stage),
        (FailureKind::Unreachable, Stage::Connect)
    );
    assert!(refused.detail.contains("connection refused"), "{refused}");
    let mut nowhere = node(22);
    nowhere.address = "no-such-host.invalid".into();
    let refused = failure(connect(options(folder.path(), ""), &nowhere).await);
    assert_eq!(
        (refused.kind, refused.stage),
        (FailureKind::Unreachable, Stage::Connect)
    );
}

#[tokio::test]
async fn a_link_that_goes_silent_is_lost_after_its_keep_alives() {
    use tokio::net::TcpStream;

    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour {
        password: Some(PASSWORD),
        ..Behaviour::default()
    })
    .await;
    // A relay that can stop without closing anything.
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = relay.local_addr().unwrap().port();
    let target = server.address;
    static STOPPED: AtomicUsize = AtomicUsize::new(0);
    tokio::spawn(async move {
        let (mut near, _) = relay.accept().await.unwrap();
        let mut far = TcpStream::connect(target).await.unwrap();
        let stop = async {
            while STOPPED.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            () = stop => std::future::pending().await,
        }
    });
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..but(options(folder.path(), ""), |host| {
            host.host_keys = HostKeyPolicy::Off;
            host.keepalive = Duration::from_millis(100);
        })
    };
    let mut session = connect(options, &node(port)).await.unwrap();
    let mut channel = session.exec("hang").await.unwrap();
    // Silence alone is no loss: the server answers keep-alives.
    let quiet = tokio::time::timeout(Duration::from_secs(1), channel.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    STOPPED.store(1, Ordering::SeqCst);
    let lost = tokio::time::timeout(Duration::from_secs(2), channel.next())
        .await
        .expect("keep-alives noticed nothing");
    let lost = failure(lost);
    assert_eq!(lost.kind, FailureKind::ConnectionLost);
    assert!(lost.detail.contains("keep-alives"), "{lost}");
}

// Host keys without a login

#[tokio::test]
async fn hosts_are_scanned_without_a_login_and_their_new_keys_are_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let (bastion, new, changed) = (
        Server::start(with_password()).await,
        Server::start(with_password()).await,
        Server::start(with_password()).await,
    );
    let known = bastion.known() + &changed.known_as(ed25519().public_key());
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..options(folder.path(), &known)
    };
    let mut behind = node(new.address.port());
    behind.jump = vec![hop(&bastion)];
    let transport = reach(options, std::slice::from_ref(&behind));
    let target = |server: &Server, way| ScanTarget {
        host: "127.0.0.1",
        port: server.address.port(),
        route: way,
        identities: &[],
        settings: 0,
    };
    let found = transport.scan(&target(&changed, &[])).await.unwrap();
    let KeyStatus::Changed { known, place } = &found.status else {
        panic!("{found:?}");
    };
    assert!(known.starts_with("ssh-ed25519 SHA256:"), "{known}");
    assert!(place.ends_with("known_hosts:2"), "{place}");
    assert!(
        transport
            .record(&found)
            .unwrap_err()
            .contains("has changed")
    );
    for way in [&[][..], &behind.jump] {
        let found = transport.scan(&target(&new, way)).await.unwrap();
        assert_eq!(found.status, KeyStatus::New);
        let fingerprint = new.host_key.fingerprint(russh::keys::HashAlg::Sha256);
        assert_eq!(found.fingerprint, fingerprint.to_string());
    }
    let found = transport.scan(&target(&new, &[])).await.unwrap();
    transport.record(&found).unwrap();
    let found = transport.scan(&target(&new, &[])).await.unwrap();
    assert_eq!(found.status, KeyStatus::Known);
    for server in [&new, &changed] {
        let logins = [
            &server.seen.nones,
            &server.seen.offers,
            &server.seen.passwords,
        ];
        assert!(
            logins
                .iter()
                .all(|logins| logins.load(Ordering::SeqCst) == 0)
        );
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let away = ScanTarget {
        port,
        ..target(&new, &[])
    };
    let failure = failure(transport.scan(&away).await);
    assert_eq!(failure.kind, FailureKind::Unreachable);
}

#[tokio::test]
async fn the_program_lists_the_fleets_host_keys_and_records_them_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let servers = [
        Server::start(with_password()).await,
        Server::start(with_password()).await,
    ];
    let known_hosts = folder.path().join("known_hosts");
    let inventory = folder.path().join("nodes.yml");
    let ports = servers.each_ref().map(|server| server.address.port());
    let nodes =
        ports.map(|port| format!("  - {{name: n{port}, address: 127.0.0.1, port: {port}}}\n"));
    std::fs::write(&inventory, format!("nodes:\n{}", nodes.concat())).unwrap();
    let scan = |more: &'static [&'static str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_prepull"));
        command.args(["hosts", "scan", "-F", "none", "-u", "ops"]);
        command.arg("--known-hosts").arg(&known_hosts).args(more);
        command.arg("-i").arg(&inventory);
        command
            .env("HOME", folder.path())
            .stdin(std::process::Stdio::null());
        async move {
            let output = command.output().await.unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let errors = String::from_utf8(output.stderr).unwrap();
            (output.status.code(), text, errors)
        }
    };
    let (status, text, errors) = scan(&[]).await;
    assert_eq!(status, Some(1), "{text}{errors}");
    for server in &servers {
        let fingerprint = server.host_key.fingerprint(russh::keys::HashAlg::Sha256);
        let line = format!("  ssh-ed25519 {fingerprint}  new\n");
        assert!(text.contains(&line), "{line}: {text}");
    }
    assert!(text.contains("2 new, not recorded\n"), "{text}");
    assert!(!known_hosts.exists());
    let (status, text, errors) = scan(&["--yes"]).await;
    assert_eq!(status, Some(0), "{text}{errors}");
    assert!(text.contains("2 new, recorded now\n"), "{text}");
    assert_eq!(
        std::fs::read_to_string(&known_hosts)
            .unwrap()
            .lines()
            .count(),
        2
    );
    let (status, text, errors) = scan(&["-o", "json"]).await;
    assert_eq!(status, Some(0), "{text}{errors}");
    assert_eq!(text.matches("\"status\": \"known\"").count(), 2, "{text}");
}

// Passwords

/// So many servers, and a transport with a password for them.
async fn many(
    folder: &Path,
    servers: Vec<Behaviour>,
    password: &str,
) -> (Vec<Server>, SshTransport) {
    let starting = servers.into_iter().map(Server::start);
    let servers = futures::future::join_all(starting).await;
    let known: String = servers.iter().map(Server::known).collect();
    let options = SshOptions {
        password: Some(Secret::new(password)),
        ..options(folder, &known)
    };
    (servers, SshTransport::new(options, &[]).unwrap())
}

async fn connect_all(transport: &SshTransport, servers: &[Server]) -> Vec<Result<(), Failure>> {
    let connecting = servers.iter().map(|server| async {
        let node = node(server.address.port());
        transport.connect(&node, &|_| {}).await.map(drop)
    });
    futures::future::join_all(connecting).await
}

fn passwords(servers: &[Server]) -> usize {
    let seen = servers.iter().map(|server| &server.seen.passwords);
    seen.map(|passwords| passwords.load(Ordering::SeqCst)).sum()
}

#[tokio::test]
async fn a_wrong_password_reaches_two_of_many_hosts_and_a_right_one_all() {
    let folder = tempfile::tempdir().unwrap();
    for keyboard in [false, true] {
        let behaviour = Behaviour {
            keyboard,
            ..with_password()
        };
        let behaviours = || vec![behaviour.clone(); 12];
        let (servers, transport) = many(folder.path(), behaviours(), "wrong battery").await;
        let answers = connect_all(&transport, &servers).await;
        assert_eq!(passwords(&servers), 2, "{keyboard}");
        let mut withheld = 0;
        for answer in answers {
            let failure = failure(answer);
            assert_eq!(failure.kind, FailureKind::SshAuth, "{failure}");
            withheld += usize::from(
                failure
                    .detail
                    .contains("the password was not sent: 127.0.0.1:"),
            );
        }
        assert_eq!(withheld, 10, "{keyboard}");
        assert!(transport.has_given_up_a_password());
        // Nor later.
        connect_all(&transport, &servers).await;
        assert_eq!(passwords(&servers), 2, "{keyboard}");

        let (servers, transport) = many(folder.path(), behaviours(), PASSWORD).await;
        for answer in connect_all(&transport, &servers).await {
            answer.unwrap();
        }
        assert_eq!(passwords(&servers), 12, "{keyboard}");
        assert!(!transport.has_given_up_a_password());
    }
}

#[tokio::test]
async fn one_host_with_another_password_does_not_keep_it_from_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut behaviours = vec![with_password(); 5];
    behaviours[0].password = Some("another");
    let (servers, transport) = many(folder.path(), behaviours, PASSWORD).await;
    let first = connect_all(&transport, &servers[..1]).await.remove(0);
    assert_eq!(failure(first).kind, FailureKind::SshAuth);
    for answer in connect_all(&transport, &servers[1..]).await {
        answer.unwrap();
    }
    // It has refused it once, and that is enough.
    let again = failure(connect_all(&transport, &servers[..1]).await.remove(0));
    assert!(
        again.detail.contains("sent it before in this run"),
        "{again}"
    );
    assert_eq!(servers[0].seen.passwords.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_host_that_hangs_up_on_a_password_is_not_sent_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let hangs_up = Behaviour {
        drop_login: true,
        ..with_password()
    };
    let (servers, transport) = many(folder.path(), vec![hangs_up; 3], PASSWORD).await;
    let mut kinds = Vec::new();
    for server in [0, 0, 0, 1, 2] {
        let answer = connect_all(&transport, &servers[server..=server])
            .await
            .remove(0);
        kinds.push(failure(answer).kind);
    }
    let (lost, refused) = (FailureKind::ConnectionLost, FailureKind::SshAuth);
    assert_eq!(kinds, [lost, refused, refused, lost, refused]);
    assert_eq!(passwords(&servers), 2);
}

#[tokio::test]
async fn a_jump_host_gets_its_own_password_only_and_a_wrong_one_once() {
    let folder = tempfile::tempdir().unwrap();
    let bastion = Server::start(with_password()).await;
    let target = Server::start(with_password()).await;
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..options(folder.path(), &(bastion.known() + &target.known()))
    };
    let mut node = node(target.address.port());
    node.jump = vec![hop(&bastion)];
    let nodes = [node];
    for (given, sent, words) in [
        (
            None,
            0,
            "--ask-jump-pass asks for the passwords of jump hosts",
        ),
        (
            Some("wrong battery"),
            1,
            "the password was not accepted for ops",
        ),
    ] {
        let mut options = options.clone();
        if let Some(given) = given {
            let hop = hop(&bastion).to_string();
            options.jump_passwords.insert(hop, Secret::new(given));
        }
        let transport = SshTransport::new(options, &nodes).unwrap();
        for _ in 0..2 {
            let connecting = (0..20).map(|_| transport.connect(&nodes[0], &|_| {}));
            for answer in futures::future::join_all(connecting).await {
                let failure = failure(answer);
                assert_eq!(
                    (failure.kind, failure.stage),
                    (FailureKind::SshAuth, Stage::Connect)
                );
                assert!(
                    failure.detail.contains("jump host ops@127.0.0.1"),
                    "{failure}"
                );
            }
        }
        let first = failure(transport.connect(&nodes[0], &|_| {}).await);
        assert!(first.detail.contains(words), "{first}");
        assert_eq!(bastion.seen.passwords.load(Ordering::SeqCst), sent);
        // The nodes' own password is still good.
        assert!(!transport.has_given_up_a_password());
    }
    assert_eq!(target.seen.passwords.load(Ordering::SeqCst), 0);
}

// Jump hosts

fn hop(server: &Server) -> Hop {
    Hop {
        user: "ops".into(),
        host: "127.0.0.1".into(),
        port: server.address.port(),
        identities: vec![],
        ssh_settings: 0,
    }
}

fn with_password() -> Behaviour {
    Behaviour {
        password: Some(PASSWORD),
        ..Behaviour::default()
    }
}

#[tokio::test]
async fn a_chain_of_jump_hosts_leads_to_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let (outer, inner, target) = (
        Server::start(with_password()).await,
        Server::start(with_password()).await,
        Server::start(with_password()).await,
    );
    let known = outer.known() + &inner.known() + &target.known();
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..options(folder.path(), &known)
    };
    let mut node = node(target.address.port());
    node.jump = vec![hop(&outer), hop(&inner)];
    let transport = reach(options, std::slice::from_ref(&node));
    let mut session = transport.connect(&node, &|_| {}).await.unwrap();
    let mut flood = session.exec("flood 4").await.unwrap();
    assert_eq!(collect(&mut flood).await.unwrap().stdout.len(), 4 << 20);
    assert_eq!(outer.seen.forwards.load(Ordering::SeqCst), 1);
    assert_eq!(inner.seen.forwards.load(Ordering::SeqCst), 1);
    session.close().await;
    soon("the target's socket was left open", || {
        target.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
    transport.close().await;
    soon("a jump host's socket was left open", || {
        outer.seen.open.load(Ordering::SeqCst) + inner.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn a_jump_host_is_shown_its_own_key_and_the_node_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (hops_key, nodes_key) = (ed25519(), ed25519());
    let accepting = |key: &PrivateKey| Behaviour {
        keys: vec![key.public_key().clone()],
        most_tries: 1,
        ..Behaviour::default()
    };
    let bastion = Server::start(accepting(&hops_key)).await;
    let target = Server::start(accepting(&nodes_key)).await;
    let options = options(folder.path(), &(bastion.known() + &target.known()));
    let mut node = node(target.address.port());
    node.identities = vec![write_key(folder.path(), "node", &nodes_key)];
    node.jump = vec![Hop {
        identities: vec![write_key(folder.path(), "hop", &hops_key)],
        ..hop(&bastion)
    }];
    let transport = reach(options, std::slice::from_ref(&node));
    let session = transport.connect(&node, &|_| {}).await.unwrap();
    session.close().await;
    transport.close().await;
}

#[tokio::test]
async fn nodes_share_sessions_to_their_jump_host_eight_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let bastion = Server::start(with_password()).await;
    let target = Server::start(with_password()).await;
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..options(folder.path(), &(bastion.known() + &target.known()))
    };
    let mut node = node(target.address.port());
    node.jump = vec![hop(&bastion)];
    let transport = reach(options, std::slice::from_ref(&node));
    let connecting = (0..20).map(|_| transport.connect(&node, &|_| {}));
    let sessions = futures::future::try_join_all(connecting).await.unwrap();
    assert_eq!(bastion.seen.connections.load(Ordering::SeqCst), 3);
    drop(sessions);
    soon("the nodes' sockets were left open", || {
        target.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
    // Free slots are used again.
    transport.connect(&node, &|_| {}).await.unwrap();
    assert_eq!(bastion.seen.connections.load(Ordering::SeqCst), 3);

    // A session that was lost is replaced.
    bastion.seen.cut.notify_waiters();
    soon("the sessions were not cut", || {
        bastion.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut session = transport.connect(&node, &|_| {}).await.unwrap();
    let mut channel = session.exec("hello").await.unwrap();
    collect(&mut channel).await.unwrap();
    assert_eq!(bastion.seen.connections.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn sessions_to_a_jump_host_are_dialled_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    // It lets nobody in before three stand at the door.
    let bastion = Server::start(Behaviour {
        gather: 3,
        ..with_password()
    })
    .await;
    let target = Server::start(with_password()).await;
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..options(folder.path(), &(bastion.known() + &target.known()))
    };
    let mut node = node(target.address.port());
    node.jump = vec![hop(&bastion)];
    let transport = reach(options, std::slice::from_ref(&node));
    let connecting = (0..20).map(|_| transport.connect(&node, &|_| {}));
    let _sessions = futures::future::try_join_all(connecting).await.unwrap();
    assert_eq!(bastion.seen.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_jump_host_with_little_room_gets_more_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let bastion = Server::start(Behaviour {
        most_forwards: 3,
        ..with_password()
    })
    .await;
    let target = Server::start(with_password()).await;
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..options(folder.path(), &(bastion.known() + &target.known()))
    };
    let mut node = node(target.address.port());
    node.jump = vec![hop(&bastion)];
    let transport = reach(options.clone(), std::slice::from_ref(&node));
    let connecting = (0..12).map(|_| transport.connect(&node, &|_| {}));
    let _sessions = futures::future::try_join_all(connecting).await.unwrap();
    let connections = bastion.seen.connections.load(Ordering::SeqCst);
    assert!((4..8).contains(&connections), "{connections}");

    // One that has no room at all is not dialled for ever.
    let full = Server::start(Behaviour {
        most_forwards: 0,
        ..with_password()
    })
    .await;
    let known = full.known() + &target.known();
    std::fs::write(folder.path().join(".ssh/known_hosts"), known).unwrap();
    node.jump = vec![hop(&full)];
    let failed = failure(connect(options, &node).await);
    assert_eq!(
        (failed.kind, failed.stage),
        (FailureKind::Unreachable, Stage::Connect)
    );
    assert!(failed.detail.contains("ResourceShortage"), "{failed}");
    assert_eq!(full.seen.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_node_behind_a_jump_host_that_stalls_anywhere_ends_at_its_deadline() {
    use tokio::io::AsyncWriteExt as _;

    let folder = tempfile::tempdir().unwrap();
    let bastion = Server::start(with_password()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endless = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endless_port = endless.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = endless.accept().await.unwrap();
            tokio::spawn(async move {
                while socket.write_all(&[b'x'; 100]).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
    });
    let stalling = |behaviour: Behaviour| {
        Server::start(Behaviour {
            password: Some(PASSWORD),
            ..behaviour
        })
    };
    let login = stalling(Behaviour {
        stall_login: true,
        ..Behaviour::default()
    })
    .await;
    let deaf = stalling(Behaviour {
        stall_forwards: true,
        ..Behaviour::default()
    })
    .await;
    let known = [&bastion, &login, &deaf].map(Server::known).concat();
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..but(options(folder.path(), &known), |host| {
            host.connect_timeout = Duration::from_secs(2);
        })
    };
    let mut behind = node(1);
    behind.jump = vec![hop(&bastion), hop(&deaf)];
    let transport = reach(options, &[behind]);
    let port = |server: &Server| server.address.port();
    for (hop, port, kind, stage) in [
        (
            &bastion,
            silent.local_addr().unwrap().port(),
            FailureKind::Unreachable,
            Stage::Handshake,
        ),
        (
            &bastion,
            endless_port,
            FailureKind::Unreachable,
            Stage::Handshake,
        ),
        (
            &bastion,
            port(&login),
            FailureKind::ConnectionLost,
            Stage::Authenticate,
        ),
        (
            &deaf,
            port(&login),
            FailureKind::Unreachable,
            Stage::Connect,
        ),
    ] {
        let mut node = node(port);
        node.jump = vec![self::hop(hop)];
        let ended =
            tokio::time::timeout(Duration::from_secs(30), transport.connect(&node, &|_| {}));
        let failed = failure(ended.await.expect("it hangs"));
        assert_eq!((failed.kind, failed.stage), (kind, stage), "{failed}");
    }
    transport.close().await;
    soon("a session to a jump host was left open", || {
        bastion.seen.open.load(Ordering::SeqCst) + deaf.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn a_failure_on_the_way_names_the_hop() {
    let folder = tempfile::tempdir().unwrap();
    let bastion = Server::start(with_password()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut node = node(1);
    node.jump = vec![hop(&bastion)];
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..but(options(folder.path(), &bastion.known()), |host| {
            host.connect_timeout = Duration::from_millis(500);
        })
    };
    let failed = failure(connect(options.clone(), &node).await);
    let name = hop(&bastion).to_string();
    assert_eq!(
        (failed.kind, failed.stage),
        (FailureKind::Unreachable, Stage::Connect)
    );
    assert!(
        failed
            .detail
            .contains(&format!("jump host {name}: it cannot reach 127.0.0.1:1")),
        "{failed}"
    );

    let wrong = SshOptions {
        password: Some(Secret::new("wrong")),
        ..options.clone()
    };
    let failed = failure(connect(wrong, &node).await);
    assert_eq!(
        (failed.kind, failed.stage),
        (FailureKind::SshAuth, Stage::Connect)
    );
    assert!(
        failed
            .detail
            .starts_with(&format!("jump host {name} (authenticate): ")),
        "{failed}"
    );

    let strangers = but(options.clone(), |host| {
        host.known_hosts = vec![];
    });
    assert_eq!(
        failure(connect(strangers, &node).await).kind,
        FailureKind::HostKey
    );

    // Everyone who waits for a dead hop waits for it once.
    node.jump[0].port = silent.local_addr().unwrap().port();
    let transport = reach(options, std::slice::from_ref(&node));
    let start = Instant::now();
    let connecting = (0..10).map(|_| transport.connect(&node, &|_| {}));
    for result in futures::future::join_all(connecting).await {
        assert_eq!(failure(result).kind, FailureKind::Unreachable);
    }
    // One after the other they would take five.
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_jump_host_that_is_lost_is_named_by_the_commands_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let bastion = Server::start(with_password()).await;
    let target = Server::start(with_password()).await;
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..options(folder.path(), &(bastion.known() + &target.known()))
    };
    let mut node = node(target.address.port());
    node.jump = vec![hop(&bastion)];
    let transport = reach(options, std::slice::from_ref(&node));
    let mut session = transport.connect(&node, &|_| {}).await.unwrap();
    let mut channel = session.exec("hang").await.unwrap();
    bastion.seen.cut.notify_waiters();
    let lost = tokio::time::timeout(Duration::from_secs(3), channel.next())
        .await
        .expect("nobody noticed");
    let lost = failure(lost);
    assert_eq!(lost.kind, FailureKind::ConnectionLost);
    assert!(
        lost.detail.contains(&format!(
            "connection to jump host {} was lost",
            hop(&bastion)
        )),
        "{lost}"
    );
}

#[tokio::test]
async fn a_node_that_floods_does_not_stall_its_siblings_behind_the_jump_host() {
    let folder = tempfile::tempdir().unwrap();
    let bastion = Server::start(with_password()).await;
    let target = Server::start(with_password()).await;
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..options(folder.path(), &(bastion.known() + &target.known()))
    };
    let mut node = node(target.address.port());
    node.jump = vec![hop(&bastion)];
    let transport = reach(options, std::slice::from_ref(&node));
    let mut loud = transport.connect(&node, &|_| {}).await.unwrap();
    let mut quiet = transport.connect(&node, &|_| {}).await.unwrap();
    let flood = loud.exec("flood 64").await.unwrap();
    let mut hello = quiet.exec("hello").await.unwrap();
    let output = tokio::time::timeout(Duration::from_secs(20), collect(&mut hello))
        .await
        .expect("the sibling is frozen")
        .unwrap();
    assert_eq!(output.exit, Some(ExitStatus::Code(0)));
    assert_eq!(bastion.seen.connections.load(Ordering::SeqCst), 1);
    drop(flood);
}

#[tokio::test]
async fn giving_up_on_the_way_to_a_jump_host_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut node = node(1);
    node.jump = vec![Hop {
        user: "ops".into(),
        host: "127.0.0.1".into(),
        port: silent.local_addr().unwrap().port(),
        identities: vec![],
        ssh_settings: 0,
    }];
    let transport = reach(options(folder.path(), ""), &[]);
    let before = tasks();
    let mut socket = tokio::select! {
        _ = async { tokio::join!(transport.connect(&node, &|_| {}), transport.connect(&node, &|_| {})) } => panic!("it cannot succeed"),
        socket = async {
            let (socket, _) = silent.accept().await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            socket
        } => socket,
    };
    tokio::time::timeout(Duration::from_secs(1), socket.read_to_end(&mut Vec::new()))
        .await
        .expect("the socket was left open")
        .unwrap();
    soon("a task was left", || tasks() == before).await;
}

/// A command that joins its pipes to this port, in the words of a shell that has nothing else.
fn relay(port: u16) -> String {
    format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3 & cat >&3; kill $!'")
}

#[tokio::test]
async fn a_proxy_command_leads_to_the_host_and_ends_with_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(with_password()).await;
    let options = SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..but(options(folder.path(), &server.known()), |host| {
            host.proxy_command = Some(relay(server.address.port()));
        })
    };
    // The address is what known_hosts is asked for; nobody dials it.
    let node = node(server.address.port());
    let session = connect(options, &node).await.unwrap();
    let relays = || {
        let wanted = format!("/dev/tcp/127.0.0.1/{}", server.address.port());
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines
            .filter(|line| String::from_utf8_lossy(line).contains(&wanted))
            .count()
    };
    assert!(relays() > 0);
    session.close().await;
    for _ in 0..100 {
        if relays() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the command goes on without its session");
}

#[tokio::test]
async fn a_proxy_command_that_fails_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let options = but(options(folder.path(), ""), |host| {
        host.proxy_command = Some("sh -c 'echo no way there >&2; exit 3'".into());
    });
    let failure = failure(connect(options, &node(22)).await);
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(
        failure
            .detail
            .contains("the ProxyCommand ended: no way there"),
        "{failure}"
    );
}

#[tokio::test]
async fn an_alias_stands_for_the_host_in_known_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(with_password()).await;
    let known = server.known();
    let (_, key) = known.split_once(' ').unwrap();
    let options = |alias: &str| SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..but(options(folder.path(), &format!("fleet {key}")), |host| {
            host.host_key_alias = Some(alias.into());
        })
    };
    let node = node(server.address.port());
    connect(options("fleet"), &node)
        .await
        .unwrap()
        .close()
        .await;
    let failure = failure(connect(options("other"), &node).await);
    assert_eq!(failure.kind, FailureKind::HostKey);
}

#[tokio::test]
async fn algorithms_are_those_that_ssh_config_lists() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(with_password()).await;
    let list = |name: &str| Some(vec![name.to_owned()]);
    let options = |change: &dyn Fn(&mut HostSettings)| SshOptions {
        password: Some(Secret::new(PASSWORD)),
        ..but(options(folder.path(), &server.known()), |host| change(host))
    };
    let node = node(server.address.port());
    let usual = options(&|host| {
        host.key_exchanges = list("curve25519-sha256");
        host.ciphers = list("aes256-ctr");
        host.macs = list("hmac-sha2-256");
    });
    connect(usual, &node).await.unwrap().close().await;
    let strange = options(&|host| host.ciphers = list("arcfour"));
    let error = SshTransport::new(strange, &[]).err().unwrap().to_string();
    assert_eq!(
        error,
        "Ciphers of ssh_config names nothing that prepull can do: arcfour"
    );
    let other = options(&|host| host.host_key_algorithms = list("rsa-sha2-512"));
    assert!(
        connect(other, &node).await.is_err(),
        "the server has no RSA key"
    );
}

#[tokio::test]
async fn only_the_addresses_of_the_wanted_family_are_dialled() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(with_password()).await;
    let options = |change: &dyn Fn(&mut HostSettings)| {
        but(options(folder.path(), &server.known()), |host| change(host))
    };
    let node = node(server.address.port());
    let six = options(&|host| host.address_family = prepull::ssh::config::AddressFamily::Inet6);
    let failure = failure(connect(six, &node).await);
    assert!(failure.detail.contains("AddressFamily"), "{failure}");
    let elsewhere = options(&|host| host.bind_address = Some("192.0.2.1".into()));
    let refused = connect(elsewhere, &node).await.err().unwrap();
    assert!(
        refused.detail.contains("cannot dial from 192.0.2.1"),
        "{refused}"
    );
    let nowhere = options(&|host| host.bind_interface = Some("none0".into()));
    let refused = connect(nowhere, &node).await.err().unwrap();
    assert!(refused.detail.contains("none0"), "{refused}");
}
