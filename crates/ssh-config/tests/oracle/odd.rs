//! Lines that no one would write on purpose: quotes, escapes, signs and blanks where they do not belong.

use std::fs;

use fastrand::Rng;

use super::{HOSTS, compare};

const CASES: u64 = 600;
const SEED: u64 = 20_261_125;

/// What odd values are made of.
const PIECES: &[&str] = &[
    " ",
    "  ",
    "\t",
    "\"",
    "\"",
    "'",
    "'",
    "\\",
    "\\\"",
    "\\'",
    "\\ ",
    "\\\\",
    "=",
    "#",
    " #",
    "%h",
    "%%",
    "%",
    "%C",
    "%k",
    "%n",
    "%r",
    "%p",
    "%i",
    "%u",
    "%d",
    "%l",
    "%L",
    "%T",
    "${SSHCFG_DIR}",
    "${SSHCFG_UNSET}",
    "${",
    "$",
    "}",
    "~",
    "~/",
    "~root",
    "/",
    ",",
    "!",
    "*",
    "?",
    ".",
    "-",
    "+",
    "^",
    ":",
    "@",
    "[",
    "]",
    "\r",
    "\u{c}",
    "\u{b}",
    "é",
    "none",
    "NONE",
    "yes",
    "no",
    "web1",
    "web2",
    "ops",
    "22",
    "0",
    "1m",
    "30s",
    "a",
    "b",
    "ssh://",
];

/// Keywords, and values that fit them.
const OPTIONS: &[(&str, &[&str])] = &[
    (
        "HostName",
        &[
            "%h", "real", "10.0.0.1", "%h.%h", "%%h", "::1", "[::1]", "0x7f.1",
        ],
    ),
    ("User", &["ops", "a b", "%u", "ops@x"]),
    ("Port", &["22", "022", "0x16", "ssh", "22 "]),
    (
        "IdentityFile",
        &["~/a", "none", "/k/%h", "%d/x", "~root", "~nosuchuser/x"],
    ),
    ("CertificateFile", &["~/a", "none", "/k/%h"]),
    (
        "IdentityAgent",
        &[
            "SSH_AUTH_SOCK",
            "none",
            "NONE",
            "$A",
            "${SSHCFG_DIR}/x",
            "~/x",
            "%d/x",
        ],
    ),
    ("IdentitiesOnly", &["yes", "no", "TRUE"]),
    (
        "AddKeysToAgent",
        &["yes", "confirm", "confirm 1h", "1h", "90", "ask", "0"],
    ),
    (
        "ProxyJump",
        &[
            "a",
            "none",
            "a,b",
            "u@a:22",
            "ssh://u@a:22/",
            "[::1]:22",
            "a,none",
            "none,a",
            "a # b,c",
            "ssh://a,ssh://b",
            "u@a@b",
            "a:",
            "::1",
        ],
    ),
    (
        "ProxyCommand",
        &[
            "nc %h %p",
            "none",
            "none # x",
            "'a' %%",
            "NONE",
            "= x",
            "nc %n %r %k",
        ],
    ),
    (
        "UserKnownHostsFile",
        &["a b", "none", "/dev/null", "~/x %d/y", "NONE"],
    ),
    ("GlobalKnownHostsFile", &["a b", "none", "~/x", "%d/y"]),
    (
        "StrictHostKeyChecking",
        &["yes", "ask", "accept-new", "OFF"],
    ),
    ("HostKeyAlias", &["%h", "Al", "[a]:22", "none"]),
    ("RevokedHostKeys", &["none", "~/r", "/r/%h", "NONE"]),
    (
        "HostKeyAlgorithms",
        &[
            "+ssh-rsa",
            "ssh-ed25519,",
            "^",
            "-",
            "ssh-*",
            "-*",
            "+,",
            "^ssh-dss",
            "ssh-ed25519,ssh-ed25519",
            "rsa-sha2-512-cert*",
        ],
    ),
    (
        "PubkeyAcceptedAlgorithms",
        &["+ssh-rsa", "-rsa*", "^ecdsa*", "!ssh-rsa"],
    ),
    (
        "KexAlgorithms",
        &[
            "+diffie-hellman-group1-sha1",
            "-*",
            "curve25519*",
            "-curve25519-sha256,sntrup*",
            "^diffie-hellman-group14-sha256",
        ],
    ),
    (
        "Ciphers",
        &[
            "aes128-ctr",
            "+aes128-cbc",
            "-aes*",
            "AES128-CTR",
            "aes128-ctr,",
            "^aes256-ctr,aes192-ctr",
            "-chacha*",
        ],
    ),
    (
        "MACs",
        &["hmac-sha1", "-*etm*", "+hmac-md5-96", "hmac-sha2-*"],
    ),
    (
        "CASignatureAlgorithms",
        &["ssh-ed25519", "-rsa*", "+ssh-rsa"],
    ),
    (
        "PreferredAuthentications",
        &["publickey", "password,publickey", "none", "a,,b"],
    ),
    (
        "ConnectTimeout",
        &[
            "1m30s", "1M30S", "none", "NONE", "0", "1d2h", "5 m", "+5", "1m1m",
        ],
    ),
    ("ConnectionAttempts", &["3", "0", "-0", "03", "+1"]),
    ("ServerAliveInterval", &["1m", "0", "none"]),
    (
        "ServerAliveCountMax",
        &["0", "3", "2147483647", "2147483648"],
    ),
    ("NumberOfPasswordPrompts", &["0", "1", "07"]),
    ("AddressFamily", &["inet", "INET6", "any"]),
    ("BindAddress", &["10.0.0.1", "*", "%h"]),
    (
        "CanonicalDomains",
        &["none", "a.b", "A.B.", "a..b", ".a", "none a", "a_b"],
    ),
    ("CanonicalizeMaxDots", &["0", "2"]),
    (
        "CanonicalizePermittedCNAMEs",
        &[
            "none",
            "*",
            "a:b",
            "*.A:*.B c:d",
            "a:",
            ":b",
            "a:b:c",
            "none none",
            "none a:b",
        ],
    ),
    ("CanonicalizeFallbackLocal", &["yes", "no"]),
    ("SendEnv", &["A", "-A", "LC_*", "A=B", "-*"]),
    ("SetEnv", &["A=1", "A=", "=1", "\"A=b c\""]),
    ("IgnoreUnknown", &["Funny*", "*", "!Funny,*", "funny"]),
    ("FunnyOption", &["yes"]),
    ("Funny", &["\"x y", "yes"]),
    ("RequestTTY", &["yes", "FORCE"]),
    ("ControlPath", &["~/%C", "none"]),
    ("RemoteCommand", &["none", "x %h", "None"]),
    ("LogLevel", &["quiet", "DEBUG3"]),
    ("UpdateHostKeys", &["yes", "ask"]),
    ("VerifyHostKeyDNS", &["yes", "ask"]),
    ("BatchMode", &["yes"]),
    ("RequiredRSASize", &["2048", "0"]),
    ("HashKnownHosts", &["yes"]),
    ("PubkeyAuthentication", &["host-bound", "UNBOUND"]),
    (
        "Include",
        &[
            "/nowhere/*",
            "nowhere",
            "~/nowhere",
            "~nosuchuser/x",
            "/dev/null",
        ],
    ),
];

const CONDITIONS: &[&str] = &[
    "all",
    "!all",
    "final",
    "!final",
    "canonical",
    "!canonical",
    "host web1",
    "host=web*,!web2",
    "!host web1",
    "host \"web1\"",
    "host \"web*,db*\"",
    "originalhost WEB*",
    "user root",
    "user !root",
    "user \"!ops,*\"",
    "localuser root",
    "exec true",
    "exec \"test %h = web1\"",
    "exec=\"false\"",
    "!exec \"false\"",
    "exec \"echo 'a b' | grep -q b\"",
    "exec \"test x%k = xweb1\"",
    "host 'web1'",
    "host web1,",
    "host ,web1",
    "host !web1",
    "host *,!*",
    "exec \"test '%n' = 'web1' # x\"",
    "exec 'true'",
    "exec \"exit 1\"",
    "exec \"test -n '${SSHCFG_DIR}'\"",
    "exec \"test \\\"a\\\" = a\"",
];

const PATTERNS: &[&str] = &[
    "web1",
    "web*",
    "!web1",
    "*",
    "!*",
    "web?",
    "\"web1\"",
    "'web1'",
    "web1,web2",
    "!\"web1\"",
    "WEB3",
    "*.example",
    "web\\1",
    "\"web1 web2\"",
    "web1\\ ",
    "!",
    "?",
    "db-1",
    "127.1",
    "127.0.0.1",
    "#web1",
    "\"#web1\"",
    "web[12]",
    "**1",
];

struct Odd(Rng);

impl Odd {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.0.usize(..from.len())]
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.0.u8(..100) < percent
    }

    /// The text with up to two odd pieces in it.
    fn twisted(&mut self, text: &str) -> String {
        let mut text = text.to_string();
        for _ in 0..self.0.usize(1..=2) {
            let places: Vec<usize> = (0..=text.len())
                .filter(|at| text.is_char_boundary(*at))
                .collect();
            let at = places[self.0.usize(..places.len())];
            let piece = self.pick(PIECES);
            text.insert_str(at, piece);
        }
        text
    }

    fn quoted(&mut self, text: &str) -> String {
        match self.0.u8(..8) {
            0 => format!("\"{text}\""),
            1 => format!("'{text}'"),
            2 => format!("{text} # why"),
            3 => self.pick(PIECES).repeat(self.0.usize(1..3)),
            _ => text.to_string(),
        }
    }

    fn line(&mut self) -> String {
        let (keyword, values) = OPTIONS[self.0.usize(..OPTIONS.len())];
        let value = self.pick(values);
        let mut value = self.quoted(value);
        if self.chance(30) {
            value = self.twisted(&value);
        }
        let keyword = match self.0.u8(..12) {
            0 => format!("\"{keyword}\""),
            1 => keyword.to_uppercase(),
            2 => self.twisted(keyword),
            _ => keyword.to_string(),
        };
        let between = self.pick(&[
            " ", " ", " ", "=", " = ", "\t", "==", " == ", "= =", "\r", "",
        ]);
        let between = if between.is_empty() && !self.chance(20) {
            " "
        } else {
            between
        };
        let end = self.pick(&["", "", "", " ", "\r", "\u{c}", " #", "\t#x", " \"\""]);
        let indent = self.pick(&["", "", " ", "\t", "=", "\u{c}"]);
        format!("{indent}{keyword}{between}{value}{end}")
    }

    fn head(&mut self) -> String {
        if self.chance(50) {
            let mut all: Vec<String> = Vec::new();
            for _ in 0..self.0.usize(1..=3) {
                let pattern = self.pick(PATTERNS);
                all.push(if self.chance(15) {
                    self.twisted(pattern)
                } else {
                    pattern.to_string()
                });
            }
            format!(
                "{}{}{}",
                self.pick(&["Host", "host", "\"Host\""]),
                self.pick(&[" ", "=", " = "]),
                all.join(" ")
            )
        } else {
            let mut all: Vec<String> = Vec::new();
            for _ in 0..self.0.usize(1..=3) {
                let condition = self.pick(CONDITIONS);
                all.push(if self.chance(20) && !condition.contains("exec") {
                    self.twisted(condition)
                } else {
                    condition.to_string()
                });
            }
            let between = self.pick(&[" ", " ", " ", "=", "", "  ", ","]);
            format!(
                "{}{}{}{}",
                self.pick(&["Match", "MATCH"]),
                self.pick(&[" ", "="]),
                all.join(between),
                self.pick(&["", "", " # x", "\r", " "])
            )
        }
    }
}

#[test]
fn odd_lines_are_read_as_ssh_reads_them() {
    let (accepted, refused) = compare(SEED..SEED + CASES, |seed, folder| {
        let mut odd = Odd(Rng::with_seed(seed));
        let mut lines: Vec<String> = Vec::new();
        for _ in 0..odd.0.usize(1..=2) {
            if odd.chance(50) {
                lines.push(odd.head());
            }
            if odd.chance(80) {
                lines.push(odd.line());
            }
        }
        let file = folder.join("config");
        let end = odd.pick(&["\n", "\r\n"]);
        fs::write(&file, lines.join(end) + odd.pick(&["\n", "", "\r\n"])).unwrap();
        (file, odd.pick(&HOSTS).to_string())
    });
    assert!(
        accepted > 100 && refused > 100,
        "{accepted} accepted, {refused} refused: the generator is lopsided"
    );
}
