//! Holds the ssh_config resolver against the oracle: `ssh -G -F FILE HOST`, over generated configurations.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test file: a panic is a failed test

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fastrand::Rng;
use ssh_config_resolver::{
    AddressFamily, Canonicalize, CommandLine, HostKeyChecking, IdentityAgent, LocalEnv, Proxy,
    Resolved, Source, SshConfig, System,
};

#[path = "oracle/odd.rs"]
mod odd;
#[path = "oracle/places.rs"]
mod places;

const CASES: u64 = 600;
const SEED: u64 = 20_261_123;
const HOSTS: [&str; 14] = [
    "web1",
    "web2",
    "web2.example",
    "WEB3",
    "db-1",
    "10.0.0.7",
    "2001:DB8::7",
    "bastion",
    "127.1",
    "a.b.c",
    "h_1",
    "0x7f.1",
    "fe80::1%nosuch0",
    "Node.Example.",
];

/// Lines that `ssh` refuses wherever they stand.
const WRONG_LINES: &[&str] = &[
    "Port 0",
    "Port 65536",
    "Port ssh-nowhere",
    "User",
    "User a b",
    "User \"\"",
    "BatchMode maybe",
    "Nonsense 1",
    "ConnectTimeout soon",
    "ConnectTimeout 1x",
    "ConnectionAttempts -1",
    "Ciphers rot13",
    "Ciphers +",
    "MACs aes128-ctr",
    "KexAlgorithms ssh-ed25519",
    "HostKeyAlgorithms bogus",
    "IdentityFile \"open",
    "ProxyJump @x",
    "ProxyJump a/b",
    "ProxyJump a:0",
    "ProxyJump a,,b",
    "UserKnownHostsFile a none",
    "UserKnownHostsFile \"\"",
    "Match planet mars",
    "Match host",
    "Match",
    "Host \"\"",
    "SendEnv A=1",
    "SetEnv A",
    "CanonicalDomains -x",
    "CanonicalizePermittedCNAMEs a",
    "Compression true",
    "IdentityAgent ${SSHCFG_UNSET}",
    "StrictHostKeyChecking perhaps",
    "Include",
    "AddKeysToAgent confirm soon",
    "AddKeysToAgent yes 5m",
    "Tunnel sideways",
    "Match all host x",
    "Match host a user b all",
    "LogLevel LOUD",
    "NumberOfPasswordPrompts 1.5",
];

type Fields = BTreeMap<String, Vec<String>>;

/// What the oracle prints, or its complaint. `HOME` is the file's folder: glob(3) finds included files there, and
/// nothing else does.
fn oracle(file: &Path, host: &str) -> Result<Fields, String> {
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(file).env("HOME", file.parent().unwrap());
    printed_by(&mut ssh, host)
}

fn printed_by(ssh: &mut Command, host: &str) -> Result<Fields, String> {
    let output = ssh
        .arg("-G")
        .arg(host)
        .env("SSHCFG_DIR", "/srv/keys")
        .env_remove("SSHCFG_UNSET")
        .stdin(Stdio::null())
        .output()
        .expect("ssh cannot be run: install the Debian package openssh-client");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let mut fields = Fields::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        fields
            .entry(key.to_lowercase())
            .or_default()
            .push(value.trim_end().to_string());
    }
    Ok(fields)
}

/// What the resolver makes of it, or its complaint.
fn ours(file: &Path, host: &str) -> Result<Resolved, String> {
    let home = file.parent().unwrap().display().to_string();
    found_in(&Source::Only(file.into()), Some(home), host)
}

fn found_in(source: &Source, home: Option<String>, host: &str) -> Result<Resolved, String> {
    let mut ambient = LocalEnv::of_this_process().unwrap();
    if let Some(home) = home {
        ambient.environment.insert("HOME".into(), home);
    }
    ambient
        .environment
        .insert("SSHCFG_DIR".into(), "/srv/keys".into());
    ambient.environment.remove("SSHCFG_UNSET");
    let config =
        SshConfig::load(source, ambient, Box::new(System)).map_err(|error| error.to_string())?;
    config
        .resolve(host, &CommandLine::default())
        .map_err(|error| error.to_string())
}

fn yes(flag: bool) -> String {
    (if flag { "yes" } else { "no" }).to_string()
}

/// `ssh -G` prints some yes and no as true and false.
fn truth(word: &str) -> String {
    match word {
        "yes" => "true".to_string(),
        "no" => "false".to_string(),
        other => other.to_string(),
    }
}

fn seconds(time: Duration) -> String {
    time.as_secs().to_string()
}

/// Our answer in the oracle's words.
fn escape_multiline(found: &Resolved) -> Fields {
    let mut fields = Fields::new();
    let mut put = |key: &str, values: Vec<String>| {
        fields.insert(key.to_string(), values);
    };
    let one = |value: &str| vec![value.to_string()];
    let some = |value: Option<&String>| value.cloned().into_iter().collect::<Vec<_>>();
    let paths = |paths: &[std::path::PathBuf]| {
        vec![
            paths
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
                .join(" "),
        ]
    };
    put("host", one(&found.given));
    put("hostname", one(&found.host_name));
    put("user", one(&found.user));
    put("port", one(&found.port.to_string()));
    put(
        "identityfile",
        found
            .identity_files
            .iter()
            .map(|file| file.written.clone())
            .collect(),
    );
    put(
        "certificatefile",
        found
            .certificate_files
            .iter()
            .map(|file| file.written.clone())
            .collect(),
    );
    put("identitiesonly", one(&yes(found.identities_only)));
    put(
        "identityagent",
        match &found.identity_agent {
            IdentityAgent::Unset => vec![],
            IdentityAgent::Disabled => one("none"),
            IdentityAgent::Variable(name) if name == "SSH_AUTH_SOCK" => one(name),
            IdentityAgent::Variable(name) => vec![format!("${name}")],
            IdentityAgent::Socket(path) => vec![path.display().to_string()],
        },
    );
    put("addkeystoagent", one(&truth(&found.add_keys_to_agent)));
    let numeric =
        |host: &str| host.contains(':') || host.chars().all(|c| c.is_ascii_digit() || c == '.');
    match &found.proxy {
        Proxy::Direct => {
            put("proxycommand", vec![]);
            put("proxyjump", vec![]);
        }
        Proxy::Command { written, .. } => {
            put("proxycommand", one(written));
            put("proxyjump", vec![]);
        }
        Proxy::Jump(hosts) => {
            let (last, before) = hosts.split_last().unwrap();
            let mut texts: Vec<String> = before.iter().map(|host| host.written()).collect();
            let mut text = last.written();
            if numeric(&last.host) && !last.host.contains(':') {
                text = text.replace(&last.host, &format!("[{}]", last.host));
            }
            texts.push(text);
            put("proxycommand", vec![]);
            put("proxyjump", vec![texts.join(",")]);
        }
    }
    put("userknownhostsfile", paths(&found.user_known_hosts_files));
    put(
        "globalknownhostsfile",
        paths(&found.global_known_hosts_files),
    );
    put(
        "stricthostkeychecking",
        one(match found.host_key_checking {
            HostKeyChecking::Strict => "true",
            HostKeyChecking::Ask => "ask",
            HostKeyChecking::AcceptNew => "accept-new",
            HostKeyChecking::Off => "false",
        }),
    );
    put("hostkeyalias", some(found.host_key_alias.as_ref()));
    put(
        "revokedhostkeys",
        found
            .revoked_host_keys
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
    );
    put("hashknownhosts", one(&yes(found.hash_known_hosts)));
    put("updatehostkeys", one(&truth(&found.update_host_keys)));
    put("checkhostip", one(&yes(found.check_host_ip)));
    put("verifyhostkeydns", one(&truth(&found.verify_host_key_dns)));
    put(
        "knownhostscommand",
        some(found.known_hosts_command.as_ref()),
    );
    put("requiredrsasize", one(&found.required_rsa_size.to_string()));
    for (key, list) in [
        ("hostkeyalgorithms", &found.host_key_algorithms),
        ("kexalgorithms", &found.kex_algorithms),
        ("ciphers", &found.ciphers),
        ("macs", &found.macs),
        (
            "pubkeyacceptedalgorithms",
            &found.pubkey_accepted_algorithms,
        ),
        ("casignaturealgorithms", &found.ca_signature_algorithms),
        (
            "hostbasedacceptedalgorithms",
            &found.hostbased_accepted_algorithms,
        ),
    ] {
        put(key, vec![list.names.join(",")]);
    }
    put(
        "preferredauthentications",
        found
            .preferred_authentications
            .iter()
            .map(|list| list.join(","))
            .collect(),
    );
    put(
        "pubkeyauthentication",
        one(&truth(&found.pubkey_authentication)),
    );
    put(
        "passwordauthentication",
        one(&yes(found.password_authentication)),
    );
    put(
        "kbdinteractiveauthentication",
        one(&yes(found.kbd_interactive_authentication)),
    );
    put(
        "hostbasedauthentication",
        one(&yes(found.hostbased_authentication)),
    );
    put(
        "gssapiauthentication",
        one(&yes(found.gssapi_authentication)),
    );
    put(
        "numberofpasswordprompts",
        one(&found.number_of_password_prompts.to_string()),
    );
    put("batchmode", one(&yes(found.batch_mode)));
    put(
        "connecttimeout",
        vec![found.connect_timeout.map_or("none".to_string(), seconds)],
    );
    put(
        "connectionattempts",
        one(&found.connection_attempts.to_string()),
    );
    put(
        "serveraliveinterval",
        vec![seconds(found.server_alive_interval)],
    );
    put(
        "serveralivecountmax",
        one(&found.server_alive_count_max.to_string()),
    );
    put("tcpkeepalive", one(&yes(found.tcp_keep_alive)));
    put(
        "addressfamily",
        one(match found.address_family {
            AddressFamily::Any => "any",
            AddressFamily::Inet => "inet",
            AddressFamily::Inet6 => "inet6",
        }),
    );
    put("bindaddress", some(found.bind_address.as_ref()));
    put("bindinterface", some(found.bind_interface.as_ref()));
    let rules = &found.canonicalization;
    put(
        "canonicalizehostname",
        one(match rules.mode {
            Canonicalize::No => "false",
            Canonicalize::Yes => "true",
            Canonicalize::Always => "always",
        }),
    );
    let domains = if rules.domains.is_empty() {
        "none".to_string()
    } else {
        rules.domains.join(" ")
    };
    put("canonicaldomains", one(&domains));
    put("canonicalizemaxdots", one(&rules.max_dots.to_string()));
    put("canonicalizefallbacklocal", one(&yes(rules.fallback_local)));
    put("compression", one(&yes(found.compression)));
    put("forwardagent", one(&found.forward_agent));
    put("requesttty", one(&truth(&found.request_tty)));
    put("remotecommand", some(found.remote_command.as_ref()));
    put("controlmaster", one(&truth(&found.control_master)));
    put(
        "controlpath",
        found
            .control_path
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
    );
    put("sendenv", found.send_env.clone());
    put("setenv", found.set_env.clone());
    fields
}

/// Paths as `ssh` uses them.
fn tildes_replaced(paths: &str) -> String {
    let home = LocalEnv::of_this_process()
        .unwrap()
        .home
        .display()
        .to_string();
    let replaced = paths.split(' ').map(|path| match path.strip_prefix("~/") {
        Some(rest) => format!("{home}/{rest}"),
        None => path.to_string(),
    });
    replaced.collect::<Vec<_>>().join(" ")
}

/// The fields that differ; `none` where the oracle prints a file that is none.
fn differences(ours: &Fields, oracle: &Fields) -> Vec<String> {
    let nothing = Vec::new();
    ours.iter()
        .filter_map(|(key, values)| {
            let mut theirs = oracle.get(key).unwrap_or(&nothing).clone();
            match key.as_str() {
                // OpenSSH 10 fills tokens in, the oracle of Debian 12 does not yet.
                "user" if theirs.iter().any(|user| user.contains(['%', '$'])) => return None,
                "identityfile" | "certificatefile" => theirs.retain(|file| file != "none"),
                "userknownhostsfile" | "globalknownhostsfile" if theirs == ["none"] => {
                    theirs = vec![String::new()];
                }
                // Printed before the tilde is replaced.
                "globalknownhostsfile" | "revokedhostkeys" => {
                    theirs = theirs.iter().map(|paths| tildes_replaced(paths)).collect()
                }
                // A time of zero means no limit.
                "connecttimeout" if theirs == ["0"] => theirs = vec!["none".to_string()],
                // How long a key stays in the agent: none is added.
                "addkeystoagent" if theirs[0].starts_with(|digit: char| digit.is_ascii_digit()) => {
                    theirs = vec!["true".to_string()]
                }
                "addkeystoagent" if theirs[0].starts_with("confirm ") => {
                    theirs = vec!["confirm".to_string()]
                }
                // All but the last hop are printed as they are written.
                "proxyjump" => {
                    theirs = theirs
                        .iter()
                        .map(|hops| hops.replace("ssh://", ""))
                        .collect()
                }
                _ => {}
            }
            // An empty list of algorithms is printed as nothing.
            let ours: Vec<String> = values
                .iter()
                .map(|value| value.trim_end().to_string())
                .collect();
            (ours != theirs).then(|| format!("{key}: ours {ours:?}, ssh {theirs:?}"))
        })
        .collect()
}

/// Writes configurations that hold everything that the resolver claims to read.
struct Writer {
    random: Rng,
}

impl Writer {
    fn pick(&mut self, from: &[&str]) -> String {
        from[self.random.usize(..from.len())].to_string()
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.random.u8(..100) < percent
    }

    /// Several different picks, joined.
    fn some_of(&mut self, from: &[&str], between: &str) -> String {
        let count = self.random.usize(1..=3);
        (0..count)
            .map(|_| self.pick(from))
            .collect::<Vec<_>>()
            .join(between)
    }

    fn case(&mut self, word: &str) -> String {
        match self.random.u8(..4) {
            0 => word.to_uppercase(),
            1 => word.to_lowercase(),
            _ => word.to_string(),
        }
    }

    fn path(&mut self) -> String {
        self.pick(&[
            "~/.ssh/a",
            "/keys/%h-%p",
            "~root/x",
            "%d/k/%r@%n",
            "/c/%C",
            "${SSHCFG_DIR}/%u-%i",
            "/k/%k/%L.%l",
            "/pct%%",
            "~",
            "/a\\ b",
            "\"/a b\"",
            "'/q \"x'",
            "/plain#hash",
        ])
    }

    /// A line without keyword tricks: (keyword, value, whether the rest of the line is taken as it is).
    fn option(&mut self) -> (&'static str, String, bool) {
        const FLAGS: [&str; 16] = [
            "IdentitiesOnly",
            "PasswordAuthentication",
            "KbdInteractiveAuthentication",
            "ChallengeResponseAuthentication",
            "HostbasedAuthentication",
            "GSSAPIAuthentication",
            "BatchMode",
            "TCPKeepAlive",
            "CheckHostIP",
            "HashKnownHosts",
            "ForwardAgent",
            "KeepAlive",
            "ForwardX11",
            "CanonicalizeFallbackLocal",
            "NoHostAuthenticationForLocalhost",
            "VisualHostKey",
        ];
        const KEYS: [&str; 15] = [
            "ssh-ed25519",
            "+ssh-rsa",
            "-ecdsa*",
            "^rsa-sha2-512",
            "ssh-ed25519,rsa-sha2-256",
            "+ssh-dss,ssh-rsa",
            "-*cert*",
            "ssh-*",
            "^ssh-rsa,ssh-ed25519",
            "+webauthn*",
            "-ssh-ed25519,rsa*",
            "RSA,ssh-ed25519",
            "-!ssh-ed25519,*",
            "rsa-sha2-*",
            "ssh-rsa,,bogus",
        ];
        let flag = |this: &mut Self| this.pick(&["yes", "no", "true", "false", "YES", "No"]);
        match self.random.u8(..44) {
            0 => (
                "HostName",
                self.pick(&[
                    "real.example",
                    "%h.dc1",
                    "10.1.2.3",
                    "%%%h",
                    "2001:DB8:0::1",
                    "REAL",
                ]),
                false,
            ),
            1 | 2 => ("User", self.pick(&["ops", "root", "\"a b\"", "u-1"]), false),
            3 | 4 => (
                "Port",
                self.pick(&["22", "2222", "65535", "ssh", "+22", "\" 7\""]),
                false,
            ),
            5..=7 => (
                "IdentityFile",
                {
                    let path = self.path();
                    if self.chance(8) { "none".into() } else { path }
                },
                false,
            ),
            8 => ("CertificateFile", self.path(), false),
            9 => (
                "IdentityAgent",
                self.pick(&[
                    "SSH_AUTH_SOCK",
                    "none",
                    "$MY_SOCK",
                    "~/agent.%h",
                    "${SSHCFG_DIR}/s",
                    "/run/%i/a",
                ]),
                false,
            ),
            10 => (
                "AddKeysToAgent",
                self.pick(&["yes", "no", "ask", "confirm"]),
                false,
            ),
            11 => (
                "ProxyJump",
                self.pick(&[
                    "j1",
                    "me@j1:2200",
                    "j1,j2:22,u@j3",
                    "none",
                    "[2001:db8::1]:22",
                    "ssh://me@j9:22",
                    "j1,10.0.0.1",
                    "NONE",
                    "\"quoted\"",
                    "u@v@j1",
                    "1.2.3.4:99",
                ]),
                true,
            ),
            12 => (
                "ProxyCommand",
                self.pick(&[
                    "nc %h %p",
                    "none",
                    "ssh -W %h:%p b # not a comment",
                    "\"a b\" 'c'",
                    "x %%r",
                ]),
                true,
            ),
            13 | 14 => (
                "UserKnownHostsFile",
                if self.chance(10) {
                    "none".into()
                } else {
                    let a = self.path();
                    if self.chance(40) {
                        format!("{a} {}", self.path())
                    } else {
                        a
                    }
                },
                false,
            ),
            15 => (
                "GlobalKnownHostsFile",
                self.pick(&["/g/a", "/g/a /g/b", "none", "\"/g h\" /g/i"]),
                false,
            ),
            16 => (
                "StrictHostKeyChecking",
                self.pick(&["yes", "no", "off", "ask", "accept-new", "true", "FALSE"]),
                false,
            ),
            17 => ("HostKeyAlias", self.pick(&["alias", "ALIAS2"]), false),
            18 => (
                "RevokedHostKeys",
                self.pick(&["/etc/ssh/revoked", "none"]),
                false,
            ),
            19 => ("HostKeyAlgorithms", self.pick(&KEYS), false),
            20 => (
                self.keyword(&["PubkeyAcceptedAlgorithms", "PubkeyAcceptedKeyTypes"]),
                self.pick(&KEYS),
                false,
            ),
            21 => (
                self.keyword(&[
                    "HostbasedAcceptedAlgorithms",
                    "HostbasedKeyTypes",
                    "CASignatureAlgorithms",
                ]),
                self.pick(&KEYS),
                false,
            ),
            22 => (
                "KexAlgorithms",
                self.pick(&[
                    "curve25519-sha256",
                    "+diffie-hellman-group1-sha1",
                    "-sntrup*,ecdh*",
                    "^ecdh-sha2-nistp256,curve25519-sha256",
                    "curve25519-sha256,curve25519-sha256",
                ]),
                false,
            ),
            23 => (
                "Ciphers",
                self.pick(&[
                    "aes256-ctr",
                    "+3des-cbc",
                    "-*gcm*",
                    "^aes256-gcm@openssh.com",
                    "aes128-ctr,aes256-ctr",
                    "-*",
                ]),
                false,
            ),
            24 => (
                "MACs",
                self.pick(&[
                    "hmac-sha2-512",
                    "+hmac-md5",
                    "-umac*",
                    "^hmac-sha2-256,hmac-sha1",
                ]),
                false,
            ),
            25 => (
                "PreferredAuthentications",
                self.pick(&["publickey", "publickey,password", "none"]),
                false,
            ),
            26 => (
                "PubkeyAuthentication",
                self.pick(&["yes", "no", "unbound", "host-bound", "TRUE"]),
                false,
            ),
            27 => (
                "ConnectTimeout",
                self.pick(&["10", "1m", "1h30m", "none", "90S"]),
                false,
            ),
            28 => ("ConnectionAttempts", self.pick(&["1", "5", "+2"]), false),
            29 => (
                self.keyword(&["ServerAliveInterval", "SetupTimeOut"]),
                self.pick(&["15", "2m", "none", "0"]),
                false,
            ),
            30 => (
                self.keyword(&[
                    "ServerAliveCountMax",
                    "NumberOfPasswordPrompts",
                    "RequiredRSASize",
                ]),
                self.pick(&["0", "1", "4096"]),
                false,
            ),
            31 => (
                "AddressFamily",
                self.pick(&["any", "inet", "inet6", "INET"]),
                false,
            ),
            32 => (
                self.keyword(&["BindAddress", "BindInterface"]),
                self.pick(&["10.0.0.1", "eth0"]),
                false,
            ),
            33 => (
                "CanonicalizeHostname",
                self.pick(&["yes", "no", "always"]),
                false,
            ),
            34 => ("CanonicalizeMaxDots", self.pick(&["0", "1", "3"]), false),
            35 => ("CanonicalDomains", "none".into(), false),
            36 => (
                "SendEnv",
                self.pick(&["LANG", "LC_* X", "-LC_*", "A -A B"]),
                false,
            ),
            37 => (
                "SetEnv",
                self.pick(&["A=1", "A=1 B=2 A=3", "\"C=x y\""]),
                false,
            ),
            38 => (
                self.keyword(&["RequestTTY"]),
                self.pick(&["yes", "no", "force", "auto"]),
                false,
            ),
            39 => (
                "RemoteCommand",
                self.pick(&["uptime %h", "none", "echo \"%n\" # %r"]),
                true,
            ),
            40 => (
                "ControlPath",
                self.pick(&["~/.ssh/cm-%C", "none", "/run/%r@%h:%p"]),
                false,
            ),
            41 => (
                self.keyword(&[
                    "ControlMaster",
                    "ControlPersist",
                    "UpdateHostKeys",
                    "VerifyHostKeyDNS",
                    "Compression",
                ]),
                self.pick(&["yes", "no"]),
                false,
            ),
            42 => (
                "KnownHostsCommand",
                self.pick(&["/bin/keys %H", "none"]),
                true,
            ),
            _ => (self.keyword(&FLAGS), flag(self), false),
        }
    }

    fn keyword(&mut self, from: &[&'static str]) -> &'static str {
        from[self.random.usize(..from.len())]
    }

    /// One line of any kind that `ssh` takes.
    fn line(&mut self) -> String {
        if self.chance(6) {
            return self.pick(&[
                "",
                "   ",
                "# comment",
                "\t# Host x",
                "Protocol 2",
                "RSAAuthentication yes",
                "LogLevel ERROR",
                "LocalForward 8080 x:80",
                "RekeyLimit 1G 1h",
            ]);
        }
        let (keyword, value, raw) = self.option();
        let indent = self.pick(&["", "  ", "\t"]);
        let between = self.pick(&[" ", "=", " = ", "\t", "  "]);
        let plain = !value.contains([' ', '"', '\'', '\\']);
        let value = if !raw && plain && self.chance(15) {
            format!("\"{value}\"")
        } else {
            value
        };
        let end = match self.random.u8(..12) {
            0 if !raw => " # and why",
            1 => "  ",
            2 => "\r",
            _ => "",
        };
        format!("{indent}{}{between}{value}{end}", self.case(keyword))
    }

    fn wrong_line(&mut self) -> String {
        self.pick(WRONG_LINES)
    }

    /// A line that is refused only where its block applies.
    fn wrong_value(&mut self) -> String {
        self.pick(&[
            "UserKnownHostsFile /a/%q",
            "UserKnownHostsFile ${SSHCFG_UNSET}/k",
            "UserKnownHostsFile ${SSHCFG_DIR",
            "HostName %n",
            "ControlPath ~no-such-user-here/x",
            "ConnectionAttempts 0",
            "HostKeyAlgorithms ssh-rsa,!rsa*",
            "RemoteCommand %",
            "CanonicalizeHostname yes\nCanonicalizeFallbackLocal no",
            "ProxyJump web1",
        ])
    }

    fn patterns(&mut self) -> String {
        self.some_of(
            &[
                "web*",
                "web1",
                "!web2",
                "*",
                "db-?",
                "*.example",
                "10.0.0.*",
                "a.b.c",
                "WEB3",
                "\"web2\"",
                "*:*",
                "!*.example",
                "node.example*",
                "real.example",
                "127.0.0.1",
            ],
            " ",
        )
    }

    fn conditions(&mut self) -> String {
        let lists = [
            "web*,db-*",
            "!web2,*",
            "web1",
            "*.example",
            "WEB*",
            "real.example",
            "*.dc1",
            "10.*",
        ];
        let users = ["ops", "root", "!root,*", "o*", "\"a b\""];
        let mut all: Vec<String> = Vec::new();
        if self.chance(10) {
            return self.pick(&[
                "all",
                "!all",
                "all # every",
                "canonical all",
                "final all",
                "host web* all",
            ]);
        }
        for _ in 0..self.random.usize(1..=3) {
            let not = if self.chance(25) { "!" } else { "" };
            let equals = if self.chance(15) { "=" } else { " " };
            let test = self.random.u8(..8);
            let [
                host,
                originalhost,
                user,
                localuser,
                exec,
                canonical,
                final_pass,
            ] = [
                "host",
                "OriginalHost",
                "user",
                "localuser",
                "exec",
                "canonical",
                "final",
            ]
            .map(|word| self.case(word));
            all.push(match test {
                0 | 1 => format!("{not}{host}{equals}{}", self.pick(&lists)),
                2 => format!("{not}{originalhost}{equals}{}", self.pick(&lists)),
                3 => format!("{not}{user}{equals}{}", self.pick(&users)),
                4 => format!("{not}{localuser}{equals}{}", self.pick(&users)),
                5 => format!(
                    "{not}{exec}{equals}\"{}\"",
                    self.pick(&[
                        "true",
                        "false",
                        "test %h = web1",
                        "test '%n' = web2",
                        "test %p -gt 22",
                        "test %r = root",
                        "exit 3",
                        "test %k = alias",
                        "test %L.%i = x"
                    ])
                ),
                6 => format!("{not}{canonical}"),
                _ => format!("{not}{final_pass}"),
            });
        }
        all.join(" ")
    }

    fn body(&mut self, out: &mut Vec<String>, folder: &Path, depth: u32) {
        for _ in 0..self.random.usize(1..=5) {
            if depth < 3 && self.chance(10) {
                let name = format!("inc-{:08x}.conf", self.random.u32(..));
                let mut inner = Vec::new();
                self.file(&mut inner, folder, depth + 1);
                fs::write(folder.join(&name), inner.join("\n")).unwrap();
                let absolute = folder.join(&name).display().to_string();
                let globbed = absolute.replace(".conf", ".c?nf");
                let missing = folder.join("missing*").display().to_string();
                // What is relative lies in .ssh of HOME.
                fs::create_dir_all(folder.join(".ssh")).unwrap();
                fs::copy(folder.join(&name), folder.join(".ssh").join(&name)).unwrap();
                out.push(match self.random.u8(..7) {
                    4 => format!("Include {name}"),
                    5 => format!("Include ~/{} nowhere/*", name.replace("inc-", "in[a-c]-")),
                    6 => format!("Include ~/.ssh/{name} ~nosuchuser/x"),
                    0 => format!("Include {globbed}"),
                    1 => format!("include \"{absolute}\" {missing}"),
                    2 => format!("Include={absolute} # more"),
                    _ => format!("  Include {missing} {absolute}"),
                });
            } else {
                let line = self.line();
                out.push(line);
            }
        }
    }

    fn file(&mut self, out: &mut Vec<String>, folder: &Path, depth: u32) {
        if self.chance(if depth == 0 { 10 } else { 2 }) {
            out.push("IgnoreUnknown UseKeychain,Funny*".to_string());
            out.push("UseKeychain yes".to_string());
        }
        if self.chance(60) {
            self.body(out, folder, depth);
        }
        for _ in 0..self.random.usize(1..=4) {
            let head = if self.chance(50) {
                format!("Host {}", self.patterns())
            } else {
                format!("Match {}", self.conditions())
            };
            out.push(head);
            self.body(out, folder, depth);
        }
    }
}

/// Writes the configuration of a seed; the main file and the host.
fn generated(seed: u64, folder: &Path) -> (PathBuf, String) {
    let mut writer = Writer {
        random: Rng::with_seed(seed),
    };
    let mut lines = Vec::new();
    writer.file(&mut lines, folder, 0);
    if writer.chance(12) {
        let at = writer.random.usize(..=lines.len());
        let wrong = writer.wrong_line();
        lines.insert(at, wrong);
    }
    if writer.chance(8) {
        let at = writer.random.usize(..=lines.len());
        let wrong = writer.wrong_value();
        lines.insert(at, wrong);
    }
    let host = writer.pick(&HOSTS);
    let end = if writer.chance(50) { "\n" } else { "" };
    let file = folder.join("config");
    fs::write(&file, lines.join("\n") + end).unwrap();
    (file, host)
}

/// Holds each seed's configuration against the oracle; how many both accept, and how many both refuse.
fn compare(
    seeds: std::ops::Range<u64>,
    mut write: impl FnMut(u64, &Path) -> (PathBuf, String),
) -> (usize, usize) {
    let mut tally = Tally::default();
    for seed in seeds {
        let folder = tempfile::tempdir().unwrap();
        let (file, host) = write(seed, folder.path());
        let (ours, oracle) = (ours(&file, &host), oracle(&file, &host));
        tally.count(
            &format!("seed {seed}, host {host}"),
            folder.path(),
            ours,
            oracle,
        );
    }
    tally.end()
}

/// What came out of many configurations.
#[derive(Default)]
struct Tally {
    accepted: usize,
    refused: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// `folder` holds the files, to be shown where the two differ.
    fn count(
        &mut self,
        case: &str,
        folder: &Path,
        ours: Result<Resolved, String>,
        oracle: Result<Fields, String>,
    ) {
        let problem = match (ours, oracle) {
            (Ok(found), Ok(expected)) => {
                self.accepted += 1;
                let different = differences(&escape_multiline(&found), &expected);
                if different.is_empty() {
                    return;
                }
                different.join("\n")
            }
            (Err(_), Err(_)) => {
                self.refused += 1;
                return;
            }
            // `ssh -G` does not look at these; `ssh` refuses them when it connects.
            (Err(complaint), Ok(_)) if LATE.iter().any(|words| complaint.contains(words)) => {
                self.refused += 1;
                return;
            }
            (Ok(_), Err(complaint)) => format!("ssh refuses it: {complaint}"),
            (Err(complaint), Ok(_)) => format!("only we refuse it: {complaint}"),
        };
        let mut texts = String::new();
        for path in files_below(folder) {
            let text = fs::read(&path)
                .unwrap_or_default()
                .escape_ascii()
                .to_string();
            texts += &format!("--- {}\n{}\n", path.display(), text.replace("\\n", "\n"));
        }
        self.wrong.push(format!("{case}\n{problem}\n{texts}"));
    }

    /// # Panics
    /// Where one differed.
    fn end(self) -> (usize, usize) {
        let Self {
            accepted,
            refused,
            wrong,
        } = self;
        assert!(
            wrong.is_empty(),
            "{} differ, the first:\n{}",
            wrong.len(),
            wrong[..wrong.len().min(5)].join("\n=====\n")
        );
        (accepted, refused)
    }
}

/// Complaints about what `ssh -G` prints as it is written.
const LATE: [&str; 7] = [
    "proxycommand: ",
    "globalknownhostsfile: ",
    "revokedhostkeys: ",
    "identityfile: ",
    "certificatefile: ",
    "is not a host to jump through",
    "a list of algorithms cannot be negated",
];

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files
}

#[test]
fn generated_configurations_resolve_as_ssh_resolves_them() {
    let (accepted, refused) = compare(SEED..SEED + CASES, generated);
    println!("{accepted} accepted alike, {refused} refused by both");
    assert!(
        accepted > 300 && refused > 50,
        "{accepted} accepted, {refused} refused: the generator is lopsided"
    );
}

#[test]
fn each_wrong_line_alone_is_refused_by_both() {
    for line in WRONG_LINES {
        for before in ["", "Host never\n"] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("config");
            fs::write(&file, format!("{before}{line}\n")).unwrap();
            assert!(
                oracle(&file, "web1").is_err(),
                "ssh takes {before:?}{line:?}"
            );
            assert!(ours(&file, "web1").is_err(), "we take {before:?}{line:?}");
        }
    }
}
