//! The way through jump hosts: real sshds in network namespaces of their own, each of which sees its neighbours only.

use super::*;

/// A row of network namespaces: the operator's, two hops', the node's. They go with the test.
struct Row {
    names: Vec<String>,
    sshds: Vec<Process>,
    folder: tempfile::TempDir,
}

fn ip(arguments: &str) {
    let output = program("ip", "iproute2")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

impl Row {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (host, user) = (path("host"), path("user"));
        new_key(&host, "ed25519", "");
        new_key(&user, "ed25519", "");
        fs::create_dir_all("/run/sshd").unwrap();
        let id = std::process::id();
        let names: Vec<String> = (0..4)
            .map(|number| format!("prepull-{id}-{number}"))
            .collect();
        let mut row = Self {
            names: Vec::new(),
            sshds: Vec::new(),
            folder,
        };
        for (number, name) in names.iter().enumerate() {
            ip(&format!("netns add {name}"));
            row.names.push(name.clone());
            ip(&format!("-n {name} link set lo up"));
            let Some(before) = number.checked_sub(1).map(|before| &names[before]) else {
                continue;
            };
            ip(&format!(
                "-n {before} link add right type veth peer name left netns {name}"
            ));
            for (name, side, last) in [(before, "right", 1), (name, "left", 2)] {
                ip(&format!(
                    "-n {name} addr add 10.91.{number}.{last}/24 dev {side}"
                ));
                ip(&format!("-n {name} link set {side} up"));
            }
            let config = row.path(&format!("config-{number}"));
            let text = format!(
                "ListenAddress 0.0.0.0:22\nHostKey {}\nAuthorizedKeysFile {}.pub\nPidFile none\nStrictModes no\nUsePAM no\n\
                 PermitRootLogin yes\nMaxSessions 3\n",
                host.display(),
                user.display()
            );
            fs::write(&config, text).unwrap();
            let log = fs::File::create(row.path(&format!("log-{number}"))).unwrap();
            let mut sshd = row.inside(number);
            let sshd = sshd.args(["/usr/sbin/sshd", "-D", "-e", "-f"]).arg(&config);
            row.sshds.push(Process(
                sshd.stdin(Stdio::null()).stderr(log).spawn().unwrap(),
            ));
        }
        for number in 1..names.len() {
            let start = Instant::now();
            let mut knock = row.inside(number);
            knock
                .args(["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/22"])
                .stderr(Stdio::null());
            while !knock.status().unwrap().success() {
                assert!(
                    start.elapsed() < Duration::from_secs(30),
                    "sshd {number} did not start"
                );
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        row
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The start of a command in a namespace.
    fn inside(&self, number: usize) -> Command {
        let mut command = program("ip", "iproute2");
        command.args(["netns", "exec", &self.names[number]]);
        command.env_remove("SSH_AUTH_SOCK");
        command
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        self.sshds.clear();
        for name in &self.names {
            let _ = program("ip", "iproute2")
                .args(["netns", "del", name])
                .status();
        }
    }
}

#[test]
fn nodes_behind_two_hops_are_reached_through_shared_sessions() {
    let row = Row::start();
    let host = public(&row.path("host"));
    let known: String = (1..4).map(|hop| format!("10.91.{hop}.2 {host}")).collect();
    fs::write(row.path("known"), known).unwrap();
    let config = row.path("ssh_config");
    let text = format!(
        "User root\nIdentityFile {}\nUserKnownHostsFile {}\nGlobalKnownHostsFile none\nBatchMode yes\nConnectTimeout 60\n\
         Host outer\nHostName 10.91.1.2\nHost inner\nHostName 10.91.2.2\nProxyJump outer\n\
         Host node-*\nHostName 10.91.3.2\nProxyJump inner\n",
        row.path("user").display(),
        row.path("known").display()
    );
    fs::write(&config, text).unwrap();
    let ssh = row
        .inside(0)
        .args(["ssh", "-F"])
        .arg(&config)
        .args(["node-0", "true"])
        .status();
    assert!(ssh.unwrap().success(), "ssh itself does not get there");

    let run = |rest: &[&str]| {
        let mut prepull = row.inside(0);
        prepull.arg(env!("CARGO_BIN_EXE_prepull"));
        prepull
            .args(["exec", "--progress", "none", "--retries", "0", "-F"])
            .arg(&config);
        for number in 0..5 {
            prepull.args(["-H", &format!("node-{number}")]);
        }
        let output = prepull
            .args(rest)
            .args(["--", "true"])
            .env("HOME", row.folder.path())
            .output();
        let output = output.unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (status, said) = run(&[]);
    assert_eq!(status, Some(0), "{said}");
    let logins = |number: usize| {
        let log = fs::read_to_string(row.path(&format!("log-{number}"))).unwrap();
        log.matches("Accepted publickey").count()
    };
    // One of ssh, and then one that five nodes share; each of these logs in to its own node.
    assert_eq!((logins(1), logins(2), logins(3)), (2, 2, 6));
    let (status, said) = run(&["-J", "none"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("unreachable (connect) on 5 nodes"), "{said}");
    // A hop that is down is one message.
    let (status, said) = run(&["-J", "10.91.1.2,10.91.2.3"]);
    assert_eq!(status, Some(1), "{said}");
    assert_eq!(said.matches("jump host root@").count(), 1, "{said}");
    assert!(
        said.contains("\n  jump host root@10.91.1.2:22: it cannot reach 10.91.2.3:22"),
        "{said}"
    );
}
