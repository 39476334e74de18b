//! Host keys against `ssh` itself: generated known_hosts files and settings, one real sshd, and both must take or refuse
//! its key.

use super::*;

/// How many files and settings are made up. Each is a connection of `ssh` and one of prepull.
const CASES: u64 = 80;

/// An sshd with keys of three types and certificates for two: a good one, and one that has expired.
struct Keys {
    sshd: Sshd,
    folder: tempfile::TempDir,
}

impl Keys {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["authority", "stranger"] {
            new_key(&path(name), "ed25519", "");
        }
        new_key(&path("stranger_rsa"), "rsa", "");
        let mut more = String::new();
        for (kind, validity) in [("ed25519", "-1h:+1h"), ("ecdsa", "-2h:-1h")] {
            let key = new_key(&path(kind), kind, "");
            keygen(&[
                "-q",
                "-s",
                path("authority").to_str().unwrap(),
                "-h",
                "-I",
                "node",
                "-z",
                "7",
                "-n",
                "127.0.0.1,fleet",
                "-V",
                validity,
                key.with_extension("pub").to_str().unwrap(),
            ]);
            more.push_str(&format!(
                "HostKey {key}\nHostCertificate {key}-cert.pub\n",
                key = key.display()
            ));
        }
        let rsa = new_key(&path("rsa"), "rsa", "");
        more.push_str(&format!("HostKey {}", rsa.display()));
        let lists = [("serials", "serial: 7\n"), ("others", "serial: 8\n")];
        for (list, specification) in lists {
            fs::write(path("specification"), specification).unwrap();
            let authority = format!("{}.pub", path("authority").display());
            let (list, specification) = (path(list), path("specification"));
            let (list, specification) = (list.to_str().unwrap(), specification.to_str().unwrap());
            keygen(&["-q", "-k", "-f", list, "-s", &authority, specification]);
        }
        for (list, key) in [("list", "ed25519"), ("authorities", "authority")] {
            let text = format!("# refused\n{}", public(&path(key)));
            fs::write(path(list), text).unwrap();
        }
        Self {
            sshd: Sshd::start(&more),
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A line that may or may not be about the server.
    fn line(&self, random: &mut fastrand::Rng) -> String {
        let port = self.sshd.port;
        let name = match random.u8(..20) {
            0..6 => format!("[127.0.0.1]:{port}"),
            6 | 7 => "127.0.0.1".into(),
            8 | 9 => "fleet".into(),
            10 => format!("[fleet]:{port}"),
            11 => "127.0.0.*".into(),
            12 => format!("[127.0.?.1]:{port},other"),
            13 => format!("*,![127.0.0.1]:{port}"),
            14 => "*,!fleet".into(),
            15 => format!("a,b,FLEET,[127.0.0.1]:{port}"),
            16 => "*".into(),
            17 => format!("[127.0.0.1]:{}", port - 1),
            _ => "other".into(),
        };
        let key = [
            "ed25519",
            "ed25519",
            "rsa",
            "ecdsa",
            "stranger",
            "stranger_rsa",
            "authority",
        ];
        let (marker, key) = match random.u8(..10) {
            0 | 1 => (
                "@cert-authority ",
                if random.bool() {
                    "authority"
                } else {
                    "stranger"
                },
            ),
            2 => ("@revoked ", key[random.usize(..key.len())]),
            _ => ("", key[random.usize(..key.len())]),
        };
        let line = format!("{name} {}", public(&self.path(key)));
        let plain = !name.contains(['*', '?', ',', '!']);
        if plain && random.u8(..3) == 0 {
            let file = self.path("hash");
            fs::write(&file, &line).unwrap();
            keygen(&["-q", "-H", "-f", file.to_str().unwrap()]);
            return marker.to_owned() + &fs::read_to_string(file).unwrap();
        }
        marker.to_owned() + &line
    }

    /// What ssh_config says beside the files.
    fn settings(&self, random: &mut fastrand::Rng) -> String {
        let mut settings = String::new();
        let mut set = |option: &str, value: &str| settings.push_str(&format!("{option} {value}\n"));
        match random.u8(..4) {
            0 => set("HostKeyAlias", "fleet"),
            1 => set("HostKeyAlias", "Other"),
            _ => {}
        }
        match random.u8(..4) {
            0 => set("StrictHostKeyChecking", "no"),
            1 => set("StrictHostKeyChecking", "accept-new"),
            _ => set("StrictHostKeyChecking", "yes"),
        }
        match random.u8(..12) {
            4 => set("HostKeyAlgorithms", "rsa-sha2-512,ssh-ed25519"),
            5 => set(
                "HostKeyAlgorithms",
                "ecdsa-sha2-nistp256,rsa-sha2-256,ssh-ed25519",
            ),
            6 => set("HostKeyAlgorithms", "+ssh-rsa"),
            7 => set("HostKeyAlgorithms", "-ssh-ed25519"),
            0 => set("HostKeyAlgorithms", "ssh-ed25519"),
            1 => set("HostKeyAlgorithms", "rsa-sha2-256"),
            2 => set("HostKeyAlgorithms", "ssh-ed25519-cert-v01@openssh.com"),
            3 => set(
                "HostKeyAlgorithms",
                "ecdsa-sha2-nistp256-cert-v01@openssh.com,ecdsa-sha2-nistp256",
            ),
            _ => {}
        }
        let lists = [
            "serials",
            "others",
            "list",
            "authorities",
            "missing",
            "none",
        ];
        if let Some(list) = lists.get(random.usize(..16)) {
            let path = self.path(list);
            set("RevokedHostKeys", path.to_str().unwrap());
        }
        settings
    }

    /// Whether `ssh` takes the server's key; else its words. Nobody logs in.
    fn ssh_takes(&self, config: &Path) -> Result<(), String> {
        let output = ssh(config).arg("true").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let refused = ["verification failed", "no matching host key", "revoked"];
        match said.contains("Permission denied") {
            true => Ok(()),
            false if refused.iter().any(|words| said.contains(words)) => Err(said),
            false => panic!("{said}"),
        }
    }

    /// Whether prepull takes it; else its refusal.
    async fn prepull_takes(&self, config: &Path) -> Result<(), String> {
        let failure = run(configured(config), &self.sshd.node(&[]), "true")
            .await
            .err()
            .unwrap();
        match failure.kind {
            FailureKind::SshAuth => Ok(()),
            FailureKind::HostKey => Err(failure.detail),
            _ if failure.detail.contains("No common") => Err(failure.detail),
            _ => panic!("{failure}"),
        }
    }
}

#[tokio::test]
async fn the_keys_that_are_taken_and_refused_are_those_of_ssh() {
    let keys = Keys::start();
    let (mut taken, mut refused, mut stricter) = (0, 0, 0);
    for seed in 0..CASES {
        let random = &mut fastrand::Rng::with_seed(seed);
        let mut files = [String::new(), String::new(), String::new()];
        for _ in 0..random.usize(1..6) {
            files[random.usize(..3)].push_str(&keys.line(random));
        }
        let settings = keys.settings(random);
        let verdict_in = |who: &str| {
            let folder = keys.path(&format!("{seed}-{who}"));
            fs::create_dir(&folder).unwrap();
            let names = ["first", "second", "global"].map(|name| folder.join(name));
            for (name, text) in names.iter().zip(&files) {
                fs::write(name, text).unwrap();
            }
            let [first, second, global] = names.each_ref().map(|name| name.display());
            let config = format!(
                "{settings}UserKnownHostsFile {first} {second}\nGlobalKnownHostsFile {global}\nUser root\nPort {}\n\
                 BatchMode yes\nConnectTimeout 60\nPreferredAuthentications none\n",
                keys.sshd.port
            );
            fs::write(folder.join("config"), config).unwrap();
            folder
        };
        let (theirs, ours) = (verdict_in("ssh"), verdict_in("prepull"));
        let ssh = keys.ssh_takes(&theirs.join("config"));
        let prepull = keys.prepull_takes(&ours.join("config")).await;
        let case = format!("case {seed}: ssh {ssh:?}, prepull {prepull:?}\n{settings}{files:#?}");
        match (&ssh, &prepull) {
            (Ok(()), Ok(())) => taken += 1,
            (Err(_), Err(_)) => refused += 1,
            // ssh takes a key that stands under the bare name although another one stands under the full one, where it
            // came with a certificate.
            (Ok(()), Err(words)) if words.contains("has changed") => stricter += 1,
            // What is revoked under the bare name is revoked on every port.
            (Ok(()), Err(words))
                if words.contains("revoke") && files.concat().contains("@revoked") =>
            {
                stricter += 1
            }
            _ => panic!("{case}"),
        }
        if ssh.is_ok() == prepull.is_ok() && !settings.contains("Checking no") {
            let recorded = |folder: &Path| fs::read_to_string(folder.join("first")).unwrap();
            assert_eq!(recorded(&ours), recorded(&theirs), "{case}");
        }
    }
    println!("{taken} taken, {refused} refused, {stricter} refused by prepull alone");
    assert!(
        taken > 20 && refused > 20 && stricter < 8,
        "{taken} {refused} {stricter}"
    );
}

#[tokio::test]
async fn host_key_algorithms_are_asked_for_in_the_order_of_ssh() {
    let sshd = Sshd::start("LogLevel DEBUG2");
    let types = [
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "rsa-sha2-512",
        "rsa-sha2-256",
    ];
    let authority = format!(
        "@cert-authority * {}",
        sshd.known("rsa").split_once(' ').unwrap().1
    );
    let (ed25519, rsa) = (sshd.known("ed25519"), sshd.known("rsa"));
    let log = || fs::read_to_string(sshd.path("log")).unwrap();
    // What sshd was asked for last, as far as prepull can ask for it.
    let asked = |before: usize, certificates: bool| -> Vec<String> {
        let log = log();
        let mut proposals = log[before..].split("peer client KEXINIT proposal").skip(1);
        let proposal = proposals.next().unwrap();
        assert_eq!(proposals.count(), 0, "asked more than once");
        let names = proposal.split_once("host key algorithms: ").unwrap().1;
        let names = names.split_whitespace().next().unwrap().split(',');
        let can = |name: &&str| match name.strip_suffix("-cert-v01@openssh.com") {
            Some(plain) => certificates && types.contains(&plain),
            None => types.contains(name),
        };
        names.filter(can).map(str::to_owned).collect()
    };
    let mut verdicts = Vec::new();
    for list in [
        "",
        "+ssh-rsa",
        "-ecdsa-*",
        "-ssh-ed25519",
        "^rsa-sha2-256",
        "^ecdsa-sha2-nistp384,ssh-ed25519",
        "rsa-sha2-512,ssh-ed25519",
        "ssh-ed25519,rsa-sha2-512",
        "rsa-sha2-*,ssh-*",
        "ssh-ed25519,rsa-sha2-512-cert-v01@openssh.com",
        "rsa-sha2-256-cert-v01@openssh.com,ssh-ed25519-cert-v01@openssh.com,ssh-ed25519",
    ] {
        for known in ["", &ed25519, &rsa, &authority] {
            fs::write(sshd.path("known"), known).unwrap();
            let file = sshd.path("ssh_config");
            let set = if list.is_empty() {
                ""
            } else {
                "HostKeyAlgorithms "
            };
            let text = format!(
                "{set}{list}\nUserKnownHostsFile {}\nGlobalKnownHostsFile none\nUser root\nPort {}\nBatchMode yes\n\
                 StrictHostKeyChecking yes\nPreferredAuthentications none\nConnectTimeout 60\n",
                sshd.path("known").display(),
                sshd.port
            );
            fs::write(&file, text).unwrap();
            // A certificate is not asked for where none is trusted.
            let certificates = known.starts_with('@');
            let before = log().len();
            let output = ssh(&file).arg("true").output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let mut by_ssh = asked(before, certificates);
            // russh asks for certificates first.
            by_ssh.sort_by_key(|name| !name.contains("-cert-"));
            let before = log().len();
            let failure = run(configured(&file), &sshd.node(&[]), "true").await;
            let failure = failure.err().unwrap();
            let by_prepull = asked(before, certificates);
            let case = format!("{list:?}, {known:?}: {said}{failure}");
            assert_eq!(by_prepull, by_ssh, "{case}");
            let is_taken = failure.kind == FailureKind::SshAuth;
            assert_eq!(is_taken, said.contains("Permission denied"), "{case}");
            verdicts.push(is_taken);
        }
    }
    assert!(verdicts.contains(&true) && verdicts.contains(&false));
}

#[test]
fn runs_at_one_time_record_each_new_host_once() {
    let sshd = Sshd::start("MaxStartups 100");
    let (config, known) = (sshd.path("ssh_config"), sshd.path("known"));
    let names: Vec<String> = (0..6).map(|number| format!("node-{number}")).collect();
    let mut text = format!(
        "User root\nPort {}\nHostName 127.0.0.1\nUserKnownHostsFile {}\nGlobalKnownHostsFile none\n\
         StrictHostKeyChecking accept-new\nConnectTimeout 60\nPreferredAuthentications none\n",
        sshd.port,
        known.display()
    );
    for name in &names {
        text.push_str(&format!("Host {name}\nHostKeyAlias {name}\n"));
    }
    fs::write(&config, text).unwrap();
    let runs: Vec<Child> = (0..3)
        .map(|_| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_prepull"));
            command
                .args(["exec", "--progress", "none", "-F"])
                .arg(&config);
            for name in &names {
                command.args(["-H", name]);
            }
            command
                .args(["--", "true"])
                .env_remove("SSH_AUTH_SOCK")
                .env("HOME", sshd.folder.path())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for run in runs {
        let output = run.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains("ssh-auth (authenticate) on 6 nodes"),
            "{said}"
        );
    }
    let text = fs::read_to_string(&known).unwrap();
    let mut recorded: Vec<&str> = text
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    recorded.sort_unstable();
    assert_eq!(recorded, names);
}
#[test]
fn of_two_keys_for_one_name_at_one_time_one_is_written_and_the_other_refused() {
    let servers = [Sshd::start(""), Sshd::start("")];
    let (config, known) = (servers[0].path("ssh_config"), servers[0].path("known"));
    let mut text = format!(
        "User root\nHostName 127.0.0.1\nHostKeyAlias node\nUserKnownHostsFile {}\nGlobalKnownHostsFile none\n\
         StrictHostKeyChecking accept-new\nConnectTimeout 60\nPreferredAuthentications none\n",
        known.display()
    );
    for (name, sshd) in ["first", "second"].iter().zip(&servers) {
        text.push_str(&format!("Host {name}\nPort {}\n", sshd.port));
    }
    fs::write(&config, text).unwrap();
    let start = |nodes: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prepull"));
        command
            .args(["exec", "--progress", "none", "-F"])
            .arg(&config);
        for node in nodes {
            command.args(["-H", node]);
        }
        command
            .args(["--", "true"])
            .env_remove("SSH_AUTH_SOCK")
            .env("HOME", servers[0].folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    for round in 0..8 {
        let _ = fs::remove_file(&known);
        // Two runs, and two sessions of one run.
        let runs = match round % 2 {
            0 => vec![start(&["first"]), start(&["second"])],
            _ => vec![start(&["first", "second"])],
        };
        let said: String = runs
            .into_iter()
            .map(|run| String::from_utf8(run.wait_with_output().unwrap().stdout).unwrap())
            .collect();
        let words: Vec<&str> = said.split_whitespace().collect();
        let words = words.join(" ");
        assert_eq!(
            words.matches("ssh-auth (authenticate)").count(),
            1,
            "{said}"
        );
        assert_eq!(
            words.matches("host key of node has changed").count(),
            1,
            "{said}"
        );
        let recorded = fs::read_to_string(&known).unwrap();
        let keys = servers.each_ref().map(|sshd| {
            let key = public(&sshd.path("host_ed25519"));
            let key: Vec<&str> = key.split_whitespace().take(2).collect();
            format!("node {}\n", key.join(" "))
        });
        assert!(keys.contains(&recorded), "{recorded}");
    }
}
