//! Generated ways to a node through jump hosts and commands, over three real sshds: the program arrives where `ssh` arrives,
//! through the same hosts.

use fastrand::Rng;

use super::*;

const CASES: u64 = 60;

struct Hosts([Sshd; 3]);

impl Hosts {
    fn start() -> Self {
        let hosts = [(); 3].map(|()| Sshd::start(""));
        for host in &hosts {
            host.user_key("ed25519");
        }
        Self(hosts)
    }

    /// How many logins each has seen.
    fn logins(&self) -> [usize; 3] {
        self.0.each_ref().map(|host| {
            let log = fs::read_to_string(host.path("log")).unwrap();
            log.matches("Accepted publickey").count()
        })
    }

    /// How many each sees of what this does, and whether it worked.
    fn seen(&self, known: &str, mut command: Command) -> ([usize; 3], bool, String) {
        fs::write(self.0[0].path("known"), known).unwrap();
        let before = self.logins();
        let output = command.stdin(Stdio::null()).output().unwrap();
        // sshd writes its log before the login goes on.
        let after = self.logins();
        let seen = std::array::from_fn(|host| after[host] - before[host]);
        (seen, output.status.success(), format!("{output:?}"))
    }

    /// The lines for one host: 0 stands alone, 1 may go through 0, 2 through both. A circle would keep ssh busy for ever.
    fn block(&self, number: usize, random: &mut Rng, config: &Path) -> String {
        fn pick(random: &mut Rng, from: &[String]) -> String {
            from[random.usize(..from.len())].clone()
        }
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let rare = |random: &mut Rng, usual: &str, other: &str| match random.u8(..8) {
            0 => other.to_owned(),
            _ => usual.to_owned(),
        };
        let name = ["a", "b", "c"][number];
        let ports = self.0.each_ref().map(|host| host.port);
        let mut ways = words(&["ProxyCommand none", "ProxyJump none", "ProxyJump NONE"]);
        if number > 0 {
            ways.extend(words(&[
                "ProxyJump a",
                "ProxyJump root@a",
                "ProxyJump a.alias",
                "ProxyJump ssh://root@a",
                "ProxyJump %r@a",
                "ProxyJump %q@a",
            ]));
            ways.push(format!("ProxyJump root@127.0.0.1:{}", ports[0]));
            ways.push(format!("ProxyJump [127.0.0.1]:{}", ports[0]));
            ways.push(format!(
                "ProxyCommand ssh -F {} -W %h:%p %r@a # by hand",
                config.display()
            ));
            ways.push(format!(
                "ProxyCommand ssh -F '{}' -q -W \"[%h]:%p\" a 2>/dev/null",
                config.display()
            ));
            ways.push("ProxyCommand echo no >&2; exit 3".to_owned());
        }
        if number > 1 {
            ways = ways.split_off(3);
            ways.extend(words(&[
                "ProxyJump b",
                "ProxyJump a,b",
                "ProxyJump b,a",
                "ProxyJump a, b",
                "ProxyJump b # near",
                "ProxyJump b:",
                "ProxyJump %r@a,%r@b",
            ]));
        }
        let folder = self.0[number].folder.path().display();
        let mut lines = format!(
            "Host {name} {name}.alias\n  HostName {}\n  Port {}\n  User {}\n  IdentityFile {folder}/{}\n",
            pick(
                random,
                &words(&["127.0.0.1", "127.0.0.1", "127.1", "localhost"])
            ),
            ports[number],
            rare(random, "root", "nobody-such"),
            rare(random, "user_ed25519", "host_rsa"),
        );
        if random.u8(..4) == 0 {
            lines += &format!(
                "  HostKeyAlias {}\n",
                pick(random, &words(&[name, name, "stranger"]))
            );
        }
        if number > 1 || random.bool() {
            lines += &format!("  {}\n", pick(random, &ways));
        }
        if random.u8(..5) == 0 {
            lines += "  ProxyJump none\n  ProxyCommand none\n";
        }
        lines
    }

    fn config(&self, random: &mut Rng, config: &Path) -> String {
        let mut blocks = [0, 1, 2].map(|number| self.block(number, random, config));
        random.shuffle(&mut blocks);
        let keys = self
            .0
            .each_ref()
            .map(|host| format!("  IdentityFile {}\n", host.path("user_ed25519").display()));
        let last = [
            "",
            "Host * !a !a.alias !127.*\n  ProxyJump a\n",
            "Match originalhost c\n  ProxyJump a,b\n",
        ];
        format!(
            "BatchMode yes\nUserKnownHostsFile {}\nGlobalKnownHostsFile none\nConnectTimeout 20\nIdentityAgent none\n{}\
             Host 127.*\n  User root\n{}{}",
            self.0[0].path("known").display(),
            blocks.concat(),
            keys.concat(),
            last[random.usize(..3)]
        )
    }
}

#[test]
fn the_program_arrives_where_ssh_arrives_through_the_same_hosts() {
    let hosts = Hosts::start();
    let config = hosts.0[0].path("ssh_config");
    let mut known = String::new();
    for (host, alias) in hosts.0.iter().zip(["a", "b", "c"]) {
        let line = host.known("ed25519");
        let key = line.split_once(' ').unwrap().1;
        known += &format!("{line}[localhost]:{} {key}{alias} {key}", host.port);
    }
    let (mut jumped, mut lost) = (0, 0);
    for seed in 0..CASES {
        let text = hosts.config(&mut Rng::with_seed(seed), &config);
        fs::write(&config, &text).unwrap();
        let mut ssh = program("ssh", "openssh-client");
        ssh.arg("-F").arg(&config).args(["c", "true"]);
        let theirs = hosts.seen(&known, ssh);
        let ours = hosts.seen(&known, exec_once(&config, "c", &["true"]));
        let case = format!("case {seed}:\n{text}--- ssh: {theirs:?}\n--- prepull: {ours:?}");
        assert_eq!(ours.1, theirs.1, "{case}");
        match theirs {
            (_, false, _) => lost += 1,
            (seen, true, _) => {
                assert_eq!(ours.0, seen, "{case}");
                jumped += usize::from(seen != [0, 0, 1]);
            }
        }
    }
    println!("{jumped} through others, {lost} lost");
    assert!(jumped > 10 && lost > 10, "{jumped} {lost}");
}
