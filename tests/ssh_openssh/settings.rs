//! What ssh_config says of a connection's life and of questions: done as `ssh` does it, on one real sshd.

use tokio::time::timeout;

use super::login::{PASSWORD, UNIX, password, with_pam};
use super::*;

/// An ssh_config for this server with these lines on top.
fn config(sshd: &Sshd, lines: &str) -> PathBuf {
    let file = sshd.path("ssh_config");
    let text = format!(
        "{lines}\nUser root\nPort {}\nUserKnownHostsFile {}\nGlobalKnownHostsFile none\nConnectTimeout 60\n",
        sshd.port,
        sshd.path("known").display()
    );
    fs::write(&file, text).unwrap();
    file
}

/// Stops the sshd of a session as a cable that is pulled would: no word, and nothing is closed. Ends what it stopped.
struct Frozen(PathBuf);

impl Frozen {
    /// The line that does it, a moment after its last word, and then lasts for a minute.
    fn line(&self) -> String {
        format!(
            "echo $PPID $$ >{}; echo the last word; sleep 0.2; kill -STOP $PPID; exec sleep 60",
            self.0.display()
        )
    }

    /// How long it is since the last word, or a little more.
    fn lasted(&self) -> Duration {
        let began = fs::metadata(&self.0).and_then(|file| file.modified());
        began.unwrap().elapsed().unwrap()
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let processes = fs::read_to_string(&self.0).unwrap_or_default();
        for process in processes.split_whitespace() {
            let _ = program("kill", "procps").args(["-KILL", process]).status();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_a_session_when_it_ends_that_of_ssh_and_not_before() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("ed25519");
    fs::write(sshd.path("known"), sshd.known("ed25519")).unwrap();
    let node = sshd.node(&[&key]);
    for (interval, count) in [(1, 3), (2, 1)] {
        let lines = format!(
            "ServerAliveInterval {interval}\nServerAliveCountMax {count}\nBatchMode yes\nIdentityFile {}",
            key.display()
        );
        let config = config(&sshd, &lines);
        let theirs = Frozen(sshd.path(&format!("ssh-{interval}-{count}")));
        let ours = Frozen(sshd.path(&format!("prepull-{interval}-{count}")));
        let ssh = ssh(&config)
            .arg(theirs.line())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ssh = tokio::task::spawn_blocking(move || {
            let output = ssh.wait_with_output().unwrap();
            (output, theirs.lasted())
        });
        let line = ours.line();
        let lost = timeout(
            Duration::from_secs(40),
            run(configured(&config), &node, &line),
        );
        let lost = lost.await.expect("nobody noticed").err().unwrap();
        let prepull = ours.lasted();
        let (output, ssh) = ssh.await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("not responding"), "{said}");
        assert_eq!(lost.kind, FailureKind::ConnectionLost, "{lost}");
        assert!(lost.detail.contains("keep-alives"), "{lost}");
        // The last one is given its time to be answered, too. ssh counts in whole seconds.
        let due = Duration::from_secs(interval * (count + 1));
        let (second, late) = (Duration::from_secs(1), due + Duration::from_millis(1500));
        let case = format!("{interval} x {count}: ssh {ssh:?}, prepull {prepull:?}");
        println!("{case}");
        assert!((due - second..late).contains(&ssh), "{case}");
        assert!((due..late).contains(&prepull), "{case}");
    }

    // A silence that is shorter, and a command that says nothing for longer, end nobody's session.
    let lines = format!(
        "ServerAliveInterval 1\nServerAliveCountMax 3\nBatchMode yes\nIdentityFile {}",
        key.display()
    );
    let config = config(&sshd, &lines);
    let line = "kill -STOP $PPID; sleep 2; kill -CONT $PPID; sleep 5; echo on";
    let ssh = ssh(&config)
        .arg(line)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = run(configured(&config), &node, line).await.unwrap();
    assert_eq!(output.stdout, "on\n");
    assert_eq!(ssh.wait_with_output().unwrap().stdout, b"on\n");
}

/// How often sshd saw a wrong password since `known` bytes of its log.
fn refused_passwords(sshd: &Sshd, known: usize) -> usize {
    let log = fs::read_to_string(sshd.path("log")).unwrap();
    let failed = ["Failed password", "PAM: Authentication failure"];
    failed
        .iter()
        .map(|words| log[known..].matches(words).count())
        .sum()
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_where_ssh_tries_it_as_often_as_it_may_ask() {
    let sshd = with_pam(
        "PasswordAuthentication yes\nKbdInteractiveAuthentication yes\nMaxAuthTries 10",
        UNIX,
        19_000,
    );
    fs::write(sshd.path("known"), sshd.known("ed25519")).unwrap();
    // Answers ssh in the place of a person.
    let askpass = askpass(&sshd, "echo wrong battery");
    let log = || fs::read_to_string(sshd.path("log")).unwrap().len();
    for methods in ["password", "keyboard-interactive"] {
        for prompts in [0, 1, 2] {
            let lines =
                format!("PreferredAuthentications {methods}\nNumberOfPasswordPrompts {prompts}");
            let file = config(&sshd, &lines);
            let known = log();
            let refused = may_ask(ssh(&file).arg("true"), &askpass).output().unwrap();
            let said = String::from_utf8_lossy(&refused.stderr);
            assert!(said.contains("Permission denied"), "{said}");
            assert_eq!(refused_passwords(&sshd, known), prompts, "ssh, {lines}");
            let known = log();
            let wrong = password(configured(&file), "wrong battery");
            let refused = run(wrong, &sshd.node(&[]), "true").await.err().unwrap();
            assert_eq!(refused.kind, FailureKind::SshAuth, "{refused}");
            let tried = refused_passwords(&sshd, known);
            assert_eq!(tried, prompts.min(1), "prepull, {lines}: {refused}");
            let why = refused.detail.contains("NumberOfPasswordPrompts");
            assert_eq!(why, prompts == 0, "{refused}");
            let right = password(configured(&file), PASSWORD);
            let result = run(right, &sshd.node(&[]), "true").await;
            assert_eq!(result.is_ok(), prompts > 0, "{lines}: {:?}", result.err());
        }
    }
}

#[tokio::test]
async fn a_host_whose_key_has_changed_gets_no_password_though_every_key_is_taken() {
    let sshd = with_pam(
        "PasswordAuthentication yes\nKbdInteractiveAuthentication yes",
        UNIX,
        19_000,
    );
    let key = sshd.user_key("ed25519");
    let other = new_key(&sshd.path("other"), "ed25519", "");
    let askpass = askpass(&sshd, &format!("echo {PASSWORD}"));
    let line = |key: &Path| format!("[127.0.0.1]:{} {}", sshd.port, public(key));
    for (known, is_in) in [(line(&other), false), (String::new(), true)] {
        fs::write(sshd.path("known"), &known).unwrap();
        let file = config(
            &sshd,
            "StrictHostKeyChecking no\nPreferredAuthentications password,keyboard-interactive",
        );
        let said = may_ask(ssh(&file).arg("true"), &askpass).output().unwrap();
        assert_eq!(said.status.success(), is_in, "{said:?}");
        // ssh records the new key.
        fs::write(sshd.path("known"), &known).unwrap();
        let before = fs::read_to_string(sshd.path("log")).unwrap().len();
        let ours = run(
            password(configured(&file), PASSWORD),
            &sshd.node(&[]),
            "true",
        )
        .await;
        assert_eq!(ours.is_ok(), is_in, "{:?}", ours.err());
        let log = fs::read_to_string(sshd.path("log")).unwrap();
        assert_eq!(log[before..].contains("Accepted password"), is_in, "{log}");
        if let Err(refused) = ours {
            assert!(refused.detail.contains("gets no password"), "{refused}");
        }
    }
    // A key gives nothing away.
    fs::write(sshd.path("known"), line(&other)).unwrap();
    let lines = format!("StrictHostKeyChecking no\nIdentityFile {}", key.display());
    let file = config(&sshd, &lines);
    let ssh = ssh(&file).arg("true").output().unwrap();
    assert!(ssh.status.success(), "{ssh:?}");
    let ours = password(configured(&file), PASSWORD);
    run(ours, &sshd.node(&[&key]), "true").await.unwrap();
}

#[tokio::test]
async fn a_passphrase_is_asked_for_as_often_as_ssh_asks() {
    let sshd = Sshd::start("");
    fs::write(sshd.path("known"), sshd.known("ed25519")).unwrap();
    let key = new_key(&sshd.path("secret"), "ed25519", "open sesame");
    let asked = sshd.path("asked");
    let lines = format!("echo asked >>{}\necho shut", asked.display());
    let askpass = askpass(&sshd, &lines);
    sshd.authorize(&public(&key));
    for prompts in [0, 1, 4] {
        let lines = format!(
            "NumberOfPasswordPrompts {prompts}\nPreferredAuthentications publickey\nIdentitiesOnly yes\nIdentityFile {}",
            key.display()
        );
        let file = config(&sshd, &lines);
        fs::write(&asked, "").unwrap();
        may_ask(ssh(&file).arg("true"), &askpass).output().unwrap();
        let by_ssh = fs::read_to_string(&asked).unwrap().lines().count();
        let by_prepull = std::sync::Mutex::new(0);
        let ask = |_: &Path, _| {
            *by_prepull.lock().unwrap() += 1;
            Some(Secret::new("shut"))
        };
        let node = sshd.node(&[&key]);
        let transport = SshTransport::asking(configured(&file), std::slice::from_ref(&node), &ask);
        assert!(transport.is_err(), "the key is no use");
        assert_eq!(
            (by_ssh, by_prepull.into_inner().unwrap()),
            (prompts, prompts)
        );
    }
}

#[test]
fn nobody_is_asked_about_a_host_key_but_told_what_to_do() {
    let sshd = Sshd::start("");
    let key = sshd.user_key("ed25519");
    let known = sshd.path("known");
    let host_key = sshd.path("host_ed25519.pub");
    let fingerprint = keygen(&["-l", "-f", host_key.to_str().unwrap()]);
    let fingerprint = fingerprint.split(' ').nth(1).unwrap();
    // Unset, it is "ask".
    for checking in ["StrictHostKeyChecking ask", ""] {
        let config = config(
            &sshd,
            &format!("{checking}\nIdentityFile {}", key.display()),
        );
        // On a terminal, where somebody could be asked.
        let on_terminal = |command: &str| {
            let output = program("sh", "dash")
                .args([
                    "-c",
                    "echo no | timeout 60 script -qec \"$1\" /dev/null",
                    "sh",
                    command,
                ])
                .env_remove("SSH_AUTH_SOCK")
                .env("HOME", sshd.folder.path())
                .env("NO_COLOR", "1")
                .output()
                .unwrap();
            let shown = String::from_utf8(output.stdout).unwrap();
            (output.status.code(), shown)
        };
        let file = config.display();
        let (_, shown) = on_terminal(&format!("ssh -F {file} 127.0.0.1 true"));
        assert!(shown.contains(fingerprint), "{shown}");
        assert!(
            shown.contains("Are you sure you want to continue"),
            "{shown}"
        );
        let prepull = env!("CARGO_BIN_EXE_prepull");
        let (status, shown) = on_terminal(&format!(
            "{prepull} exec -F {file} -H 127.0.0.1 --progress none -- true"
        ));
        assert_eq!(status, Some(1), "{shown}");
        assert!(shown.contains("host-key (handshake)"), "{shown}");
        let shown: Vec<&str> = shown.split_whitespace().collect();
        let shown = shown.join(" ");
        assert!(shown.contains(fingerprint), "{shown}");
        assert!(shown.contains("--host-keys accept-new"), "{shown}");
        let known = fs::read_to_string(&known).unwrap_or_default();
        assert_eq!(known, "", "somebody took the key");
    }
}
