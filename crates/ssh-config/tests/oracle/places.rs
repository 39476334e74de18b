//! The operator's file and the system's in their usual places, with their permissions, and names that the system looks
//! up: in a mount namespace, as a user of its own, whom both find in the same password database.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use fastrand::Rng;
use ssh_config_resolver::Source;

use super::{Tally, found_in, printed_by};

const CASES: u64 = 300;
const SEED: u64 = 20_261_125;
/// Where the test runs itself inside the namespace, the folder of its files.
const INSIDE: &str = "SSHCFG_PLACES";
const USER: u32 = 61_234;

/// The dots at the ends are those of CanonicalDomains: `ssh` looks up nothing else.
const NAMES: &str = "127.0.0.1 localhost\n10.1.0.1 web1.a.test. web1.a.test\n10.1.0.2 real.b.test web2.a.test. web2\n\
     10.1.0.3 Web3.A.test. web3.b.test.\nfd00::4 six.a.test.\n10.1.0.5 dot.a.test.\n10.1.0.6 web1.b.test.\n\
     10.1.0.7 far.c.test db.b.test. db.a.test.\nfd00::8 both.b.test both.a.test.\n10.1.0.8 both.b.test both.a.test.\n\
     10.1.0.9 web1. dotted.\n10.1.0.10 a.b\n";

struct Places(Rng);

impl Places {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.0.usize(..from.len())]
    }

    fn line(&mut self) -> String {
        let (option, values): (&str, &[&str]) = match self.0.u8(..14) {
            0 | 1 => ("CanonicalizeHostname", &["yes", "yes", "always", "no"]),
            2 | 3 => (
                "CanonicalDomains",
                &[
                    "a.test",
                    "b.test a.test",
                    "A.TEST.",
                    "none",
                    "c.test",
                    "z.test b.test",
                ],
            ),
            4 => ("CanonicalizeMaxDots", &["0", "1", "2"]),
            5 => ("CanonicalizeFallbackLocal", &["yes", "no"]),
            6 => (
                "CanonicalizePermittedCNAMEs",
                &[
                    "*.a.test:*.b.test",
                    "*:*",
                    "none",
                    "*",
                    "web*,!web2*:*",
                    "*.a.test:*.c.test *:real.b.test",
                    "*:*.A.TEST",
                ],
            ),
            7 => ("AddressFamily", &["any", "inet", "inet6"]),
            8 => ("ProxyJump", &["none", "gate", "gate:22"]),
            9 => ("ProxyCommand", &["none", "nc %h %p", "NONE"]),
            10 => (
                "HostName",
                &["web2", "%h.a.test", "%h", "db", "10.1.0.1", "web1."],
            ),
            11 => ("User", &["own", "system", "third"]),
            12 => ("IdentityFile", &["~/a", "/b", "%d/%h"]),
            _ => ("Port", &["1", "2", "3"]),
        };
        format!("{option} {}", self.pick(values))
    }

    fn text(&mut self, included: &[&str]) -> String {
        let mut lines = Vec::new();
        for _ in 0..self.0.usize(1..=9) {
            lines.push(match self.0.u8(..12) {
                0 => format!(
                    "Host {}",
                    self.pick(&[
                        "web*",
                        "*.a.test",
                        "*.b.test",
                        "real.*",
                        "!web1 *",
                        "web1.a.test",
                        "*"
                    ])
                ),
                1 => format!(
                    "Match {}",
                    self.pick(&[
                        "canonical",
                        "final",
                        "canonical all",
                        "final host *.test",
                        "!final",
                        "!canonical all"
                    ])
                ),
                2 => format!(
                    "Match {}",
                    self.pick(&[
                        "host *.a.test",
                        "originalhost web*",
                        "host real.b.test",
                        "localuser tester",
                        "user own",
                        "all"
                    ])
                ),
                3 | 4 => format!("Include {}", self.pick(included)),
                _ => self.line(),
            });
        }
        lines.join("\n") + "\n"
    }

    /// Writes a file that anybody may write over the next time.
    fn write(&mut self, path: &Path, text: &str, modes: &[u32]) {
        let _ = fs::remove_file(path);
        fs::write(path, text).unwrap();
        let mode = modes[self.0.usize(..modes.len())];
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn files_in_their_usual_places_and_names_are_read_as_ssh_reads_them() {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return inside(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let account = |file: &str, line: String| fs::read_to_string(file).unwrap() + &line;
    let home = path("files/home");
    let entry = format!("tester:x:{USER}:{USER}::{}:/bin/sh\n", home.display());
    fs::write(path("passwd"), account("/etc/passwd", entry)).unwrap();
    fs::write(
        path("group"),
        account("/etc/group", format!("tester:x:{USER}:\n")),
    )
    .unwrap();
    fs::write(path("hosts"), NAMES).unwrap();
    fs::write(
        path("nsswitch"),
        "passwd: files\ngroup: files\nhosts: files\nservices: files\n",
    )
    .unwrap();
    for name in [
        "files",
        "files/home",
        "files/home/.ssh",
        "files/ssh",
        "files/ssh/ssh_config.d",
    ] {
        fs::create_dir(path(name)).unwrap();
        chown(path(name), Some(USER), Some(USER)).unwrap();
    }
    for (name, owner, mode) in [
        ("roots", 0, 0o644),
        ("others", 1, 0o644),
        ("roots_open", 0, 0o664),
        ("tight", 0, 0o600),
    ] {
        let file = path("files/home/.ssh").join(name);
        fs::write(&file, "User included\n").unwrap();
        chown(&file, Some(owner), Some(USER)).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    }
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-ec"])
        .arg(
            "for pair in passwd:passwd group:group hosts:hosts nsswitch:nsswitch.conf files/ssh:ssh; do \
             mount --bind \"$0/${pair%:*}\" \"/etc/${pair#*:}\"; done; \
             exec setpriv --reuid \"$1\" --regid \"$1\" --clear-groups \"$2\" --exact \"$3\" --nocapture",
        )
        .arg(folder.path())
        .arg(USER.to_string())
        .arg(std::env::current_exe().unwrap())
        .arg("places::files_in_their_usual_places_and_names_are_read_as_ssh_reads_them")
        .env(INSIDE, folder.path())
        .env("HOME", home)
        .output()
        .expect("unshare and setpriv cannot be run: install the Debian package util-linux");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("1 passed"), "{said}");
}

fn inside(folder: &Path) {
    let folder = &folder.join("files");
    let mut tally = Tally::default();
    for seed in SEED..SEED + CASES {
        let mut places = Places(Rng::with_seed(seed));
        let own = [
            "inner",
            "~/.ssh/inner",
            "*nner",
            "roots",
            "nothing",
            "others",
            "roots_open",
            "tight",
            "folder",
        ];
        // Those that are refused would hide the rest.
        let own = if places.0.u8(..4) > 0 {
            &own[..5]
        } else {
            &own[..]
        };
        let system = [
            "ssh_config.d/*.conf",
            "/etc/ssh/ssh_config.d/*.conf",
            "nothing",
            "~/x",
        ];
        let system = if places.0.u8(..4) > 0 {
            &system[..3]
        } else {
            &system[..]
        };
        let home = folder.join("home/.ssh");
        let safe: &[u32] = &[0o600, 0o644, 0o664, 0o400];
        let modes = if places.0.u8(..4) > 0 {
            safe
        } else {
            &[0o600, 0o666, 0o620, 0o000, 0o602]
        };
        let text = places.text(own);
        places.write(&home.join("config"), &text, modes);
        let text = places.text(&["nothing"]);
        places.write(&home.join("inner"), &text, modes);
        let text = places.text(system);
        places.write(
            &folder.join("ssh/ssh_config"),
            &text,
            &[0o644, 0o644, 0o666, 0o000],
        );
        let text = places.text(&["nothing"]);
        places.write(&folder.join("ssh/ssh_config.d/a.conf"), &text, safe);
        if places.0.u8(..12) == 0 {
            fs::remove_file(home.join("config")).unwrap();
        }
        let host = places.pick(&[
            "web1",
            "Web2",
            "web3",
            "six",
            "db",
            "both",
            "dot.a",
            "web1.a.test",
            "web1.",
            "unknown",
            "un.known.dots",
            "10.1.0.1",
            "fd00::4",
            "a.b",
            "web1.a.test.",
        ]);
        let ours = found_in(&Source::Usual, None, host);
        let oracle = printed_by(&mut Command::new("ssh"), host);
        tally.count(&format!("seed {seed}, host {host}"), folder, ours, oracle);
    }
    let (accepted, refused) = tally.end();
    assert!(
        accepted > 100 && refused > 30,
        "{accepted} accepted, {refused} refused: the generator is lopsided"
    );
}
