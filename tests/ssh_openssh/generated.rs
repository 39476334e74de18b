//! Generated ssh_config files, keys, agents and known_hosts against one real sshd: the program gets in where `ssh` gets in,
//! with the same key and from the same address.

use std::collections::HashMap;

use fastrand::Rng;

use super::*;

const CASES: u64 = 100;
/// Says where the login came from and what proved it (sshd's ExposeAuthInfo).
const WHO: &str = "echo ${SSH_CLIENT%% *}; cut -d' ' -f1-3 $SSH_USER_AUTH";
/// Files that an operator may name as IdentityFile; `none` is a word of its own.
const IDENTITIES: [&str; 22] = [
    "good",
    "good",
    "good",
    "goodrsa",
    "goodrsa",
    "other",
    "locked",
    "away",
    "open",
    "certified",
    "apart",
    "broken",
    "empty",
    "garbage",
    "folder",
    "missing",
    "good.pub",
    "away.pub",
    "locked.pub",
    "other.pub",
    "good",
    "none",
];
/// What the agent may hold.
const HELD: [&str; 6] = ["good", "other", "locked", "away", "open", "certified"];
/// Lines that change nothing, or the way, or rule something out.
const MORE: [&str; 24] = [
    "KexAlgorithms curve25519-sha256",
    "KexAlgorithms -curve*,sntrup*",
    "KexAlgorithms diffie-hellman-group14-sha256",
    "Ciphers aes128-gcm@openssh.com",
    "Ciphers aes256-cbc",
    "MACs hmac-sha2-256\nCiphers aes128-ctr",
    "AddressFamily inet",
    "AddressFamily inet6",
    "BindAddress 127.0.0.2",
    "BindAddress 10.255.255.1",
    "BindInterface lo",
    "ConnectionAttempts 2",
    "Compression yes",
    "TCPKeepAlive no",
    "ProxyCommand none",
    "ProxyJump none",
    "CanonicalizeHostname always",
    "RequestTTY force",
    "ForwardAgent yes",
    "ControlMaster auto",
    "UpdateHostKeys yes",
    "HostName 127.1",
    "LogLevel QUIET",
    "PreferredAuthentications password,publickey",
];

struct Rig {
    sshd: Sshd,
    agents: HashMap<Vec<&'static str>, (Process, PathBuf)>,
}

impl Rig {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = new_key(&folder.path().join("authority"), "ed25519", "");
        let sshd = Sshd::start(&format!(
            "ExposeAuthInfo yes\nMaxAuthTries 30\nTrustedUserCAKeys {}.pub",
            authority.display()
        ));
        for (name, kind, passphrase) in [
            ("good", "ed25519", ""),
            ("goodrsa", "rsa", ""),
            ("other", "ed25519", ""),
            ("locked", "ed25519", "open sesame"),
            ("away", "ed25519", ""),
            ("open", "ed25519", ""),
            ("certified", "ed25519", ""),
            ("apart", "ed25519", ""),
        ] {
            let key = new_key(&sshd.path(name), kind, passphrase);
            let public_key = format!("{}.pub", key.display());
            match name {
                "other" => {}
                "certified" | "apart" => {
                    let authority = authority.to_str().unwrap();
                    keygen(&["-q", "-s", authority, "-I", "x", "-n", "root", &public_key]);
                }
                _ => sshd.authorize(&public(&key)),
            }
        }
        let path = |name: &str| sshd.path(name);
        fs::rename(path("apart-cert.pub"), path("elsewhere-cert.pub")).unwrap();
        fs::set_permissions(path("open"), fs::Permissions::from_mode(0o644)).unwrap();
        fs::create_dir(path("folder")).unwrap();
        fs::create_dir(path("held")).unwrap();
        fs::rename(path("away"), path("held/away")).unwrap();
        let broken =
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n";
        for (name, text) in [
            ("broken", broken.as_bytes()),
            ("empty", b""),
            ("garbage", b"\xff\xfe\0x"),
        ] {
            fs::write(path(name), text).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        askpass(&sshd, "echo open sesame");
        Self {
            sshd,
            agents: HashMap::new(),
        }
    }

    /// The socket of an agent that holds these.
    fn agent(&mut self, mut held: Vec<&'static str>) -> PathBuf {
        held.sort_unstable();
        let (sshd, number) = (&self.sshd, self.agents.len());
        let start = |held: &Vec<&'static str>| {
            let socket = sshd.path(&format!("agent{number}"));
            let agent = start_agent(&socket);
            for name in held {
                // ssh-add takes no key that others may read, from a file.
                let key = match *name {
                    "away" => sshd.path("held/away"),
                    name => sshd.path(name),
                };
                let mode =
                    |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
                mode(0o600);
                let mut add = program("ssh-add", "openssh-client");
                add.arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket);
                let added = may_ask(&mut add, &sshd.path("askpass")).output();
                assert!(added.unwrap().status.success(), "{name}");
                if *name == "open" {
                    mode(0o644);
                }
            }
            (agent, socket)
        };
        let started = self.agents.entry(held).or_insert_with_key(start);
        started.1.clone()
    }

    fn config(&mut self, random: &mut Rng) -> String {
        fn pick<'a>(random: &mut Rng, from: &[&'a str]) -> &'a str {
            from[random.usize(..from.len())]
        }
        let path = |rig: &Self, name: &str| rig.sshd.path(name).display().to_string();
        let mut lines = vec![format!(
            "Port {}\nUser root\nBatchMode yes\nGlobalKnownHostsFile none\nConnectTimeout 20",
            self.sshd.port
        )];
        for _ in 0..random.usize(0..4) {
            lines.push(match pick(random, &IDENTITIES) {
                "none" => "IdentityFile none".to_owned(),
                name => format!("IdentityFile {}", path(self, name)),
            });
        }
        if random.u8(..4) == 0 {
            lines.push("IdentitiesOnly yes".to_owned());
        }
        let agent = match random.u8(..10) {
            0..5 => {
                let count = random.usize(..3);
                let held = random.choose_multiple(HELD, count);
                self.agent(held).display().to_string()
            }
            5 => path(self, "empty"),
            _ => "none".to_owned(),
        };
        lines.push(format!("IdentityAgent {agent}"));
        if random.u8(..4) == 0 {
            let names = [
                "elsewhere-cert.pub",
                "certified-cert.pub",
                "missing",
                "folder",
                "good.pub",
                "garbage",
            ];
            lines.push(format!(
                "CertificateFile {}",
                path(self, pick(random, &names))
            ));
        }
        if random.u8(..6) == 0 {
            let lists = [
                "ssh-ed25519",
                "rsa-sha2-256",
                "-ssh-ed25519",
                "+ssh-rsa",
                "*cert*",
                "-*cert*",
                "^rsa-sha2-256",
            ];
            lines.push(format!("PubkeyAcceptedAlgorithms {}", pick(random, &lists)));
        }
        if random.u8(..3) == 0 {
            lines.push(pick(random, &MORE).to_owned());
        }
        let known = path(self, "known");
        let files = [
            known.clone(),
            known.clone(),
            format!("{} {known}", path(self, "folder")),
            format!("{} {known}", path(self, "missing")),
        ];
        lines.push(format!(
            "UserKnownHostsFile {}",
            files[random.usize(..files.len())]
        ));
        if random.u8(..3) == 0 {
            let policies = ["yes", "no", "ask"];
            lines.push(format!("StrictHostKeyChecking {}", pick(random, &policies)));
            lines.push(format!(
                "HostKeyAlias {}",
                pick(random, &["alias", "stranger"])
            ));
        }
        lines.join("\n") + "\n"
    }
}

#[test]
fn the_program_gets_in_where_ssh_gets_in_with_the_same_key_from_the_same_address() {
    let mut rig = Rig::start();
    let (mut inside, mut outside, mut keys) = (0, 0, 0);
    for seed in 0..CASES {
        let config = rig.config(&mut Rng::with_seed(seed));
        let file = rig.sshd.path("ssh_config");
        fs::write(&file, &config).unwrap();
        let known = rig.sshd.known("ed25519");
        let known = format!("{known}alias {}", known.split_once(' ').unwrap().1);
        // ssh records keys that it takes unseen.
        fs::write(rig.sshd.path("known"), &known).unwrap();
        let theirs = ssh(&file).arg(WHO).stdin(Stdio::null()).output().unwrap();
        fs::write(rig.sshd.path("known"), &known).unwrap();
        let ours = exec_once(&file, "127.0.0.1", &["sh", "-c", WHO])
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let case = format!("case {seed}:\n{config}--- ssh: {theirs:?}\n--- prepull: {ours:?}");
        assert_eq!(ours.status.success(), theirs.status.success(), "{case}");
        if !theirs.status.success() {
            outside += 1;
            continue;
        }
        inside += 1;
        let shown = String::from_utf8_lossy(&ours.stdout).into_owned();
        let said = String::from_utf8_lossy(&theirs.stdout).replace('\r', "");
        let (address, _key) = said.split_once('\n').unwrap();
        assert!(shown.contains(&format!(" | {address}\n")), "{case}");
        // With an agent the order differs on purpose: what is named comes before what is not.
        if config.contains("IdentityAgent none") {
            let same = said
                .lines()
                .all(|line| shown.contains(&format!(" | {line}\n")));
            assert!(same, "{case}");
            keys += 1;
        }
    }
    println!("{inside} in, {outside} out, {keys} keys compared");
    assert!(
        inside > 30 && outside > 30 && keys > 8,
        "{inside} {outside} {keys}"
    );
}
