//! Every way to log in, against OpenSSH's own sshd: what `ssh` gets in with, prepull gets in with.

use super::*;

pub(super) const PASSWORD: &str = "correct horse";
/// crypt(3) of it.
const SHADOW: &str = "$6$saltsalt$hRM5XZ86KXEw9UOmjigeVqFgULtFB2sgpC9lXQDfMib3Zgw7mEiUvBJI2EplzfAqxL5Vvwp2scFtv/uamSo5z0";

/// An sshd that asks PAM, with a root password and a PAM service of its own: in a mount namespace, so that the
/// machine's own files stay as they are.
///
/// `changed` is the day of the password's last change; on day 0 it has expired.
pub(super) fn with_pam(more: &str, service: &str, changed: u32) -> Sshd {
    let more = format!("UsePAM yes\n{more}");
    Sshd::start_by(&more, |folder| {
        fs::write(folder.join("pam"), service).unwrap();
        fs::write(
            folder.join("shadow"),
            format!("root:{SHADOW}:{changed}:0:99999:7:::\n"),
        )
        .unwrap();
        let mut command = program("unshare", "util-linux");
        command
            .args(["--mount", "sh", "-c"])
            .arg(
                "mount --bind \"$0/pam\" /etc/pam.d/sshd && mount --bind \"$0/shadow\" /etc/shadow && \
                 exec /usr/sbin/sshd \"$@\"",
            )
            .arg(folder);
        command
    })
}

pub(super) const UNIX: &str =
    "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n";

pub(super) fn password(options: SshOptions, password: &str) -> SshOptions {
    SshOptions {
        password: Some(Secret::new(password)),
        ..options
    }
}

async fn refusal(options: SshOptions, node: &Node) -> String {
    let refused = run(options, node, "true").await.err().unwrap();
    assert_eq!(refused.kind, FailureKind::SshAuth, "{refused}");
    refused.detail
}

/// An ssh-agent that holds these keys, and its socket.
fn agent(sshd: &Sshd, keys: &[&Path]) -> (Process, PathBuf) {
    let socket = sshd.path("agent");
    let agent = start_agent(&socket);
    if !keys.is_empty() {
        let added = program("ssh-add", "openssh-client")
            .arg("-q")
            .args(keys)
            .env("SSH_AUTH_SOCK", &socket)
            .status();
        assert!(added.unwrap().success());
    }
    (agent, socket)
}

/// Whether `ssh` itself gets in, with these options and nobody to ask.
fn ssh_gets_in(sshd: &Sshd, known: &Path, options: &[String]) -> bool {
    let mut ssh = program("ssh", "openssh-client");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o"])
        .arg(format!("UserKnownHostsFile={}", known.display()))
        .env_remove("SSH_AUTH_SOCK");
    for option in options {
        ssh.args(["-o", option]);
    }
    ssh.args(["-p", &sshd.port.to_string(), "root@127.0.0.1", "true"]);
    ssh.output().unwrap().status.success()
}

#[tokio::test]
async fn passwords_log_in_by_either_method_and_a_wrong_one_reaches_pam_once() {
    for methods in [
        "PasswordAuthentication yes\nKbdInteractiveAuthentication no",
        "PasswordAuthentication no\nKbdInteractiveAuthentication yes",
        "PasswordAuthentication yes\nKbdInteractiveAuthentication yes",
    ] {
        let sshd = with_pam(methods, UNIX, 19_000);
        let options = sshd.options(&sshd.known("ed25519"));
        let node = sshd.node(&[]);
        run(password(options.clone(), PASSWORD), &node, "true")
            .await
            .unwrap();
        let detail = refusal(password(options, "wrong battery"), &node).await;
        assert!(!detail.contains("battery"), "{detail}");
        let log = fs::read_to_string(sshd.path("log")).unwrap();
        let failures = log.matches("Failed password").count()
            + log.matches("PAM: Authentication failure").count();
        assert_eq!(failures, 1, "{log}");
    }
}

#[tokio::test]
async fn a_password_that_has_expired_is_not_changed_but_said() {
    let keyboard = "PasswordAuthentication no\nKbdInteractiveAuthentication yes";
    let service = "auth required pam_unix.so\naccount required pam_unix.so\npassword required pam_unix.so\n\
                   session required pam_permit.so\n";
    let sshd = with_pam(keyboard, service, 0);
    let options = sshd.options(&sshd.known("ed25519"));
    let detail = refusal(password(options.clone(), PASSWORD), &sshd.node(&[])).await;
    assert!(detail.contains("password has expired"), "{detail}");
    let detail = refusal(options, &sshd.node(&[])).await;
    assert!(detail.contains("\"Password:\""), "{detail}");
    assert!(detail.contains("--ask-pass"), "{detail}");
}

#[tokio::test]
async fn words_without_a_question_are_no_obstacle() {
    let sshd = with_pam(
        "PasswordAuthentication no\nKbdInteractiveAuthentication yes",
        "auth optional pam_echo.so welcome\nauth required pam_permit.so\naccount required pam_permit.so\n\
         session required pam_permit.so\n",
        19_000,
    );
    let options = sshd.options(&sshd.known("ed25519"));
    run(options, &sshd.node(&[]), "true").await.unwrap();
}

#[tokio::test]
async fn a_banner_is_no_obstacle_unless_it_is_not_utf_8_and_then_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let banner = folder.path().join("banner");
    let sshd = Sshd::start(&format!("Banner {}", banner.display()));
    let key = sshd.user_key("ed25519");
    let options = sshd.options(&sshd.known("ed25519"));
    let long = "Zutritt nur f\u{fc}r Befugte \u{1b}[31m\r\n".repeat(2_000);
    fs::write(&banner, long).unwrap();
    run(options.clone(), &sshd.node(&[&key]), "true")
        .await
        .unwrap();
    fs::write(&banner, b"Zutritt nur f\xfcr Befugte\n").unwrap();
    let detail = refusal(options, &sshd.node(&[&key])).await;
    assert!(
        detail.contains("not UTF-8") && detail.contains("Banner"),
        "{detail}"
    );
}

#[tokio::test]
async fn several_proofs_are_given_in_the_order_that_the_server_wants() {
    for (methods, wants_password) in [
        ("publickey,password", true),
        ("password,publickey", true),
        ("publickey,keyboard-interactive", true),
        ("keyboard-interactive,publickey", true),
        ("publickey,publickey", false),
    ] {
        let more = format!(
            "AuthenticationMethods {methods}\nPasswordAuthentication yes\nKbdInteractiveAuthentication yes"
        );
        let sshd = with_pam(&more, UNIX, 19_000);
        let keys = [sshd.user_key("ed25519"), sshd.user_key("ecdsa")];
        let node = sshd.node(&[&keys[0], &keys[1]]);
        let options = sshd.options(&sshd.known("ed25519"));
        if wants_password {
            refusal(options.clone(), &node).await;
            let output = run(password(options, PASSWORD), &node, "true").await;
            output.unwrap_or_else(|failure| panic!("{methods}: {failure}"));
        } else {
            run(options.clone(), &node, "true").await.unwrap();
            let detail = refusal(options, &sshd.node(&[&keys[0]])).await;
            assert!(detail.contains("offers publickey"), "{detail}");
        }
    }
}

#[tokio::test]
async fn user_certificates_are_taken_and_refused_as_ssh_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let authority = new_key(&folder.path().join("authority"), "ed25519", "");
    let authority = authority.to_str().unwrap();
    let sshd = Sshd::start(&format!("TrustedUserCAKeys {authority}.pub"));
    let known = sshd.known("ed25519");
    let options = sshd.options(&known);
    let known_hosts = options.hosts[0].known_hosts[0].clone();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let key = new_key(&sshd.path(kind), kind, "");
        let public = format!("{}.pub", key.display());
        for (principal, validity, is_in) in [
            ("root", "-1h:+1h", true),
            ("root", "-2h:-1h", false),
            ("root", "+1h:+2h", false),
            ("nobody", "-1h:+1h", false),
        ] {
            keygen(&[
                "-q", "-s", authority, "-I", "test", "-n", principal, "-V", validity, &public,
            ]);
            let identity = [
                format!("IdentityFile={}", key.display()),
                "IdentitiesOnly=yes".to_owned(),
            ];
            let case = format!("{kind} {principal} {validity}");
            assert_eq!(ssh_gets_in(&sshd, &known_hosts, &identity), is_in, "{case}");
            let result = run(options.clone(), &sshd.node(&[&key]), "true").await;
            assert_eq!(result.is_ok(), is_in, "{case}: {:?}", result.err());
            if validity == "-2h:-1h" {
                let detail = result.err().unwrap().detail;
                assert!(detail.contains("has expired"), "{detail}");
            }
        }
        keygen(&["-q", "-s", authority, "-I", "t", "-n", "root", &public]);
        let beside = sshd.path(&format!("{kind}-cert.pub"));
        let elsewhere = sshd.path("elsewhere");
        // The agent holds key and certificate; then the key alone, with the certificate in a file.
        let (with_certificate, socket) = agent(&sshd, &[&key]);
        let by_agent = but(options.clone(), |host| host.agent = Some(socket.clone()));
        run(by_agent.clone(), &sshd.node(&[]), "true")
            .await
            .unwrap();
        drop(with_certificate);
        fs::remove_file(&socket).unwrap();
        fs::rename(&beside, &elsewhere).unwrap();
        let (plain, socket) = agent(&sshd, &[&key]);
        refusal(by_agent.clone(), &sshd.node(&[])).await;
        let named = but(by_agent, |host| host.certificates = vec![elsewhere.clone()]);
        run(named.clone(), &sshd.node(&[]), "true").await.unwrap();
        // With IdentitiesOnly the agent may sign for it only where the key is named too.
        let only = but(named, |host| host.identities_only = true);
        for (named, is_in) in [(None, false), (Some(&key), true)] {
            let mut lines = vec![
                format!("IdentityAgent={}", socket.display()),
                format!("CertificateFile={}", elsewhere.display()),
                "IdentitiesOnly=yes".to_owned(),
            ];
            lines.extend(named.map(|key| format!("IdentityFile={}", key.display())));
            assert_eq!(ssh_gets_in(&sshd, &known_hosts, &lines), is_in);
            let node = sshd.node(named.as_slice());
            let ours = run(only.clone(), &node, "true").await;
            assert_eq!(ours.is_ok(), is_in, "{:?}", ours.err());
        }
        drop(plain);
        fs::remove_file(&socket).unwrap();
        // Key and certificate both in files that are named.
        let named = but(options.clone(), |host| host.certificates = vec![elsewhere]);
        run(named, &sshd.node(&[&key]), "true").await.unwrap();
    }
}

#[tokio::test]
async fn the_keys_that_ssh_config_rules_out_are_those_that_ssh_rules_out() {
    let sshd = Sshd::start("");
    let (ed25519, rsa) = (sshd.user_key("ed25519"), sshd.user_key("rsa"));
    let known = sshd.options(&sshd.known("ed25519")).hosts[0].known_hosts[0].clone();
    let unknown = new_key(&sshd.path("unknown"), "ed25519", "");
    let (ed25519, rsa, unknown) = (ed25519.display(), rsa.display(), unknown.display());
    let mut outcomes = Vec::new();
    for lines in [
        format!("IdentityFile {ed25519}"),
        format!("IdentityFile {ed25519}\nPubkeyAcceptedAlgorithms rsa-sha2-256"),
        format!("IdentityFile {rsa}\nPubkeyAcceptedAlgorithms rsa-sha2-256"),
        format!("IdentityFile {rsa}\nPubkeyAcceptedAlgorithms -rsa-sha2-512"),
        format!("IdentityFile {rsa}\nPubkeyAcceptedAlgorithms -rsa-sha2-*"),
        format!("IdentityFile {rsa}\nRequiredRSASize 3072"),
        format!("IdentityFile {rsa}\nRequiredRSASize 4096"),
        format!("IdentityFile {unknown}\nIdentityFile {rsa}"),
        format!("IdentityFile {unknown}"),
        format!("IdentityFile {ed25519}\nPubkeyAuthentication no"),
        format!("IdentityFile {ed25519}\nPreferredAuthentications password"),
        format!("IdentityFile {ed25519}\nPreferredAuthentications password,publickey"),
        format!("IdentityFile none\nIdentityFile {rsa}"),
    ] {
        let file = sshd.path("ssh_config");
        let text = format!(
            "{lines}\nBatchMode yes\nUserKnownHostsFile {}\nGlobalKnownHostsFile none\nUser root\nPort {}\n",
            known.display(),
            sshd.port
        );
        fs::write(&file, text).unwrap();
        let ssh = ssh(&file).arg("true").output();
        let named: Vec<PathBuf> = resolved(&file)
            .identity_files
            .iter()
            .filter(|file| file.path.exists())
            .map(|file| file.path.clone())
            .collect();
        let node = sshd.node(&named.iter().collect::<Vec<_>>());
        let ours = run(configured(&file), &node, "true").await;
        let is_in = ssh.unwrap().status.success();
        assert_eq!(ours.is_ok(), is_in, "{lines}: {:?}", ours.err());
        outcomes.push(is_in);
    }
    assert!(outcomes.contains(&true) && outcomes.contains(&false));
}

#[tokio::test]
async fn an_agent_with_twenty_keys_does_not_wear_the_server_out_where_one_is_named() {
    let sshd = Sshd::start("MaxAuthTries 6");
    let keys: Vec<PathBuf> = (0..20)
        .map(|number| new_key(&sshd.path(&format!("held{number}")), "ed25519", ""))
        .collect();
    sshd.authorize(&public(&keys[19]));
    let held: Vec<&Path> = keys.iter().map(PathBuf::as_path).collect();
    let (_agent, socket) = agent(&sshd, &held);
    let options = but(sshd.options(&sshd.known("ed25519")), |host| {
        host.agent = Some(socket);
    });
    let detail = refusal(options.clone(), &sshd.node(&[])).await;
    assert!(detail.contains("Too many authentication"), "{detail}");
    assert!(detail.contains("14 more"), "{detail}");
    // The private key, and the public one alone.
    let named = keys[19].clone();
    let public = PathBuf::from(format!("{}.pub", named.display()));
    run(options.clone(), &sshd.node(&[&named]), "true")
        .await
        .unwrap();
    run(options.clone(), &sshd.node(&[&public]), "true")
        .await
        .unwrap();
    // IdentitiesOnly, and nothing named that helps: the agent's other keys stay unused.
    let only = but(options, |host| host.identities_only = true);
    let detail = refusal(only.clone(), &sshd.node(&[&keys[0]])).await;
    assert_eq!(detail.matches("SHA256:").count(), 1, "{detail}");
    run(only, &sshd.node(&[&named]), "true").await.unwrap();
}

#[tokio::test]
async fn a_key_that_its_agent_keeps_for_certain_hosts_is_used_for_these_alone() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("ed25519");
    let known = sshd.known("ed25519");
    // The agent wants the name without a port; then another host's key under this name.
    let bare = format!("127.0.0.1 {}", known.split_once(' ').unwrap().1);
    let other = format!("other {}", public(&sshd.user_key("ecdsa")));
    fs::write(sshd.path("hosts"), format!("{bare}{other}")).unwrap();
    let options = sshd.options(&known);
    let known_hosts = options.hosts[0].known_hosts[0].clone();
    for (host, is_in) in [("127.0.0.1", true), ("other", false)] {
        let (_agent, socket) = agent(&sshd, &[]);
        let added = program("ssh-add", "openssh-client")
            .args(["-q", "-H"])
            .arg(sshd.path("hosts"))
            .args(["-h", host])
            .arg(&key)
            .env("SSH_AUTH_SOCK", &socket)
            .output()
            .unwrap();
        assert!(added.status.success(), "{added:?}");
        let by_agent = [
            format!("IdentityAgent={}", socket.display()),
            "IdentityFile=none".to_owned(),
        ];
        assert_eq!(ssh_gets_in(&sshd, &known_hosts, &by_agent), is_in, "{host}");
        let options = but(options.clone(), |host| host.agent = Some(socket.clone()));
        // Twice: what one session was told of does not stand in the way of the next.
        let node = sshd.node(&[]);
        let transport = SshTransport::new(options, std::slice::from_ref(&node)).unwrap();
        for _ in 0..2 {
            let session = transport.connect(&node, &|_| {}).await;
            let failure = session.as_ref().err().map(ToString::to_string);
            assert_eq!(session.is_ok(), is_in, "{host}: {failure:?}");
        }
        fs::remove_file(&socket).unwrap();
    }
}

#[tokio::test]
async fn keys_with_passphrases_open_in_each_form_that_ssh_keygen_writes() {
    let sshd = Sshd::start("");
    for (kind, form) in [
        ("ed25519", "RFC4716"),
        ("ecdsa", "RFC4716"),
        ("rsa", "RFC4716"),
        ("rsa", "PEM"),
        ("rsa", "PKCS8"),
        ("ecdsa", "PKCS8"),
    ] {
        let key = sshd.path(&format!("{kind}-{form}"));
        let text = key.to_str().unwrap();
        keygen(&[
            "-q",
            "-t",
            kind,
            "-m",
            form,
            "-N",
            "open sesame",
            "-f",
            text,
        ]);
        sshd.authorize(&fs::read_to_string(format!("{text}.pub")).unwrap());
        let node = sshd.node(&[&key]);
        let options = sshd.options(&sshd.known("ed25519"));
        let ask = |_: &Path, attempt| {
            Some(Secret::new(if attempt < 2 {
                "shut"
            } else {
                "open sesame"
            }))
        };
        let transport = SshTransport::asking(options, std::slice::from_ref(&node), &ask);
        let transport = transport.unwrap_or_else(|error| panic!("{kind} {form}: {error}"));
        let session = transport.connect(&node, &|_| {}).await;
        let session = session.unwrap_or_else(|failure| panic!("{kind} {form}: {failure}"));
        session.close().await;
    }
}

/// Types a line at each prompt of a program, on a terminal of its own; what the terminal showed, and the status.
const TYPIST: &str = r#"
import os, pty, sys, termios, time
answers = sys.argv[1].split(",")
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[2], sys.argv[2:])
shown, prompts = b"", 0
while True:
    try:
        piece = os.read(terminal, 4096)
    except OSError:
        break
    if not piece:
        break
    shown += piece
    while shown.count(b"Passphrase of the key") > prompts and shown.rstrip(b" ").endswith(b":"):
        # The echo goes off just after the prompt.
        while termios.tcgetattr(terminal)[3] & termios.ECHO:
            time.sleep(0.01)
        os.write(terminal, answers[prompts].encode() + b"\n")
        prompts += 1
os.write(1, shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

#[test]
fn the_program_asks_for_a_passphrase_once_before_the_run_and_never_for_a_plan() {
    let sshd = Sshd::start("");
    let key = new_key(&sshd.path("secret"), "ed25519", "open sesame");
    sshd.authorize(&public(&key));
    fs::write(sshd.path("known"), sshd.known("ed25519")).unwrap();
    let port = sshd.port;
    let run = |answers: &str, command: &[&str], rest: &[&str]| {
        program("python3", "python3")
            .args(["-c", TYPIST, answers, env!("CARGO_BIN_EXE_prepull")])
            .args(command)
            .args(["-F", "none", "-u", "root", "--identity"])
            .arg(&key)
            .args(["-H", &format!("127.0.0.1:{port}"), "-H"])
            .arg(format!("localhost:{port}"))
            .args(rest)
            .env_remove("SSH_AUTH_SOCK")
            .env("HOME", sshd.folder.path())
            .output()
            .unwrap()
    };
    let known = sshd.path("known");
    let known = known.to_str().unwrap();
    let reach = ["--host-keys", "accept-new", "--known-hosts", known];
    let exec = [&reach[..], &["--progress", "none", "--", "echo", "inside"]].concat();
    let output = run("shut,open sesame", &["exec"], &exec);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    let question = format!("Passphrase of the key {}: ", key.display());
    assert_eq!(shown.matches(&question).count(), 2, "{shown}");
    assert!(
        shown.starts_with(&format!("{question}\r\nThat did not fit. {question}\r\n")),
        "{shown}"
    );
    assert!(
        shown.contains("2 nodes: 127.0.0.1, localhost\r\n | inside\r\n"),
        "{shown}"
    );
    assert!(!shown.contains("sesame"), "{shown}");

    let output = run(",", &["exec"], &exec);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{shown}");
    assert!(shown.contains("ssh-add"), "{shown}");

    let plan = [&reach[..], &["--dry-run", "alpine"]].concat();
    let output = run("", &["pull"], &plan);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(!shown.contains("Passphrase"), "{shown}");
}
