//! Whole configurations: layering, second readings, errors with their lines, ways through jump hosts, speed.

use super::*;
use proptest::prelude::*;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

/// A world without commands of its own: it remembers what was run.
#[derive(Default, Clone)]
struct Scripted(Arc<Mutex<Vec<String>>>);

impl SystemProbe for Scripted {
    fn run(&self, command: &str) -> Result<bool, String> {
        self.0.lock().unwrap().push(command.to_string());
        match command {
            "broken" => Err("no such shell".into()),
            other => Ok(other.starts_with("yes")),
        }
    }
    fn lookup(&self, name: &str, _: AddressFamily) -> Lookup {
        if name == "web.dc1.example." {
            Lookup::Found { canonical: None }
        } else {
            Lookup::Missing
        }
    }
    fn local_addresses(&self) -> Vec<IpAddr> {
        vec!["192.0.2.9".parse().unwrap()]
    }
    fn home_of(&self, user: &str) -> Option<PathBuf> {
        (user == "ops").then(|| "/home/ops".into())
    }
}

/// A home directory with a user's and a system's file.
struct Home {
    folder: tempfile::TempDir,
    system_probe: Scripted,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join(".ssh")).unwrap();
        fs::create_dir_all(folder.path().join("etc")).unwrap();
        Self {
            folder,
            system_probe: Scripted::default(),
        }
    }

    /// Writes a file below the home directory.
    fn with(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        self
    }

    fn ambient(&self) -> LocalEnv {
        LocalEnv {
            user: "me".into(),
            uid: nix::unistd::getuid().as_raw(),
            home: self.folder.path().into(),
            hostname: "here.example".into(),
            environment: [("KEYS".to_string(), "/keys".to_string())].into(),
        }
    }

    fn load(&self) -> Result<SshConfig, ConfigError> {
        let source = Source::Pair {
            user: self.folder.path().join(".ssh/config"),
            system: self.folder.path().join("etc/ssh_config"),
        };
        SshConfig::load(&source, self.ambient(), Box::new(self.system_probe.clone()))
    }

    fn resolve(&self, host: &str) -> Result<Resolved, ConfigError> {
        self.load()?.resolve(host, &CommandLine::default())
    }
}

fn user(text: &str) -> Home {
    Home::new().with(".ssh/config", text)
}

#[test]
fn comments_may_be_in_any_encoding_and_values_may_not() {
    let latin = |line: &[u8]| Home::new().with(".ssh/config", [b"Port 7\n", line].concat());
    for line in [&b"# B\xfcro"[..], b"User a # B\xfcro", b"User a\0\xfc"] {
        let found = latin(line).resolve("web").unwrap();
        assert_eq!(found.port, 7);
    }
    let error = latin(b"User B\xfcro")
        .resolve("web")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("config:2") && error.contains("UTF-8"),
        "{error}"
    );
}

#[test]
fn a_usual_file_that_cannot_be_read_says_nothing_but_is_named() {
    let home = Home::new().with(".ssh/config", "User mine\n");
    let path = home.folder.path().join("etc/ssh_config");
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let config = home.load().unwrap();
    assert_eq!(
        config.resolve("web", &CommandLine::default()).unwrap().user,
        "mine"
    );
    let [unread] = config.unread() else {
        panic!("{:?}", config.unread());
    };
    assert!(unread.contains(&path.display().to_string()), "{unread}");
    // One that was asked for by name is another matter.
    let only = Source::Only(path);
    assert!(SshConfig::load(&only, home.ambient(), Box::new(System)).is_err());
    // And so is one that is not there.
    assert!(Home::new().load().unwrap().unread().is_empty());
}

#[test]
fn what_is_given_wins_over_the_users_file_and_that_over_the_systems() {
    let home = user("User mine\nPort 1\nIdentityFile ~/.ssh/a\n").with(
        "etc/ssh_config",
        "Port 2\nHostName %h.example\nIdentityFile /sys\n",
    );
    let found = home.resolve("web").unwrap();
    assert_eq!((found.user.as_str(), found.port), ("mine", 1));
    assert_eq!(found.host_name, "web.example");
    let written: Vec<_> = found
        .identity_files
        .iter()
        .map(|file| file.written.as_str())
        .collect();
    assert_eq!(written, ["~/.ssh/a", "/sys"]);
    let given = CommandLine {
        user: Some("ops".into()),
        port: Some(3),
        identity_files: vec!["${KEYS}/%r".into()],
        options: vec!["StrictHostKeyChecking=accept-new".into()],
        ..CommandLine::default()
    };
    let found = home.load().unwrap().resolve("web", &given).unwrap();
    assert_eq!((found.user.as_str(), found.port), ("ops", 3));
    assert_eq!(found.identity_files[0].path, Path::new("/keys/ops"));
    assert_eq!(found.host_key_checking, HostKeyChecking::AcceptNew);
}

#[test]
fn missing_files_leave_the_defaults() {
    let home = Home::new();
    let found = home.resolve("Web").unwrap();
    assert_eq!(
        (found.user.as_str(), found.port, found.host_name.as_str()),
        ("me", 22, "web")
    );
    assert_eq!(found.given, "Web");
    assert!(found.identity_files.iter().all(|file| !file.named));
    assert_eq!(
        found.user_known_hosts_files[0],
        home.folder.path().join(".ssh/known_hosts")
    );
    assert!(found.warnings.is_empty());
    let source = Source::Only(home.folder.path().join("none"));
    assert!(SshConfig::load(&source, home.ambient(), Box::new(System)).is_err());
}

#[test]
fn errors_name_the_file_and_the_line() {
    for (text, line, word) in [
        ("Port 22\nPort x\n", 2, "\"x\" is not a port"),
        ("# a\r\n\r\nNoSuchOption 1\r\n", 3, "nosuchoption"),
        ("Host a\n  Identityfile \"open\n", 2, "quote"),
        ("UserKnownHostsFile ${NOT_SET}/x", 1, "NOT_SET"),
        ("Port 1\nIdentityFile /a/%q", 2, "%q"),
        ("Match exec broken\n", 1, "no such shell"),
        ("Port", 1, "no argument"),
    ] {
        let error = user(text).resolve("web").unwrap_err();
        let ConfigError::Line { place, what } = &error else {
            panic!("{error}");
        };
        assert_eq!(place.line, line, "{error}");
        assert!(what.contains(word), "{error}");
        assert!(error.to_string().contains(".ssh/config:"), "{error}");
    }
}

#[test]
fn files_that_others_can_write_are_refused() {
    for mode in [0o666, 0o602, 0o622] {
        let home = user("Port 22\n");
        let path = home.folder.path().join(".ssh/config");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = home.resolve("web").unwrap_err().to_string();
        assert!(error.contains("written by others"), "{error}");
    }
    let home = user("Include inner\n").with(".ssh/inner", "Port 7\n");
    assert_eq!(home.resolve("web").unwrap().port, 7);
    let inner = home.folder.path().join(".ssh/inner");
    fs::set_permissions(inner, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(home.resolve("web").is_err());
}

#[test]
fn includes_are_relative_to_their_own_side_and_apply_within_their_block() {
    let home = user("Host web\n  Include one ~/.ssh/two /nowhere/x*\nPort 9\nHost *\nPort 10\n")
        .with(".ssh/one", "Host *\nUser fromone\nHost other\nUser never\n")
        .with(".ssh/two", "Tag two\n")
        .with("etc/ssh_config", "Include extra.d/*.conf\n");
    fs::create_dir(home.folder.path().join("etc/extra.d")).unwrap();
    let home = home.with("etc/extra.d/a.conf", "HostKeyAlias FromSystem\n");
    let found = home.resolve("web").unwrap();
    // The block goes on after the include, whatever blocks the included file opened.
    assert_eq!(
        (found.user.as_str(), found.port, found.tag.as_deref()),
        ("fromone", 9, Some("two"))
    );
    assert_eq!(found.host_key_alias.as_deref(), Some("fromsystem"));
    let found = home.resolve("db").unwrap();
    assert_eq!(
        (found.user.as_str(), found.port, found.tag),
        ("me", 10, None)
    );
}

#[test]
fn includes_end_after_sixteen_levels() {
    let mut home = user("Include level1\n");
    for level in 1..=16 {
        home = home.with(
            &format!(".ssh/level{level}"),
            format!("Include level{}\n", level + 1),
        );
    }
    assert!(home.resolve("web").is_ok());
    let home = home.with(".ssh/level17", "Port 1\n");
    assert!(
        home.resolve("web")
            .unwrap_err()
            .to_string()
            .contains("16 levels")
    );
    let circle = user("Include config\n").resolve("web").unwrap_err();
    assert!(circle.to_string().contains("16 levels"), "{circle}");
}

#[test]
fn a_system_file_may_not_include_from_a_home() {
    let home = Home::new().with("etc/ssh_config", "Include ~/x\n");
    assert!(home.resolve("web").is_err());
}

#[test]
fn commands_run_only_where_they_can_decide() {
    let home = user(
        "Match host other exec \"yes never\"\nUser a\nMatch host web exec \"yes %h %n %p %r %u\"\nUser b\n\
         Match exec \"no\"\nPort 5\n",
    );
    let found = home.resolve("web").unwrap();
    assert_eq!((found.user.as_str(), found.port), ("b", 22));
    assert_eq!(
        *home.system_probe.0.lock().unwrap(),
        ["yes web web 22 me me", "no"]
    );
}

#[test]
fn newer_conditions_are_known_too() {
    let home = user(
        "Host web\nTag gpu\nMatch tagged gpu,x\nPort 5\nMatch localnetwork 192.0.2.0/24\nUser near\n\
         Match localnetwork 198.51.100.0/24\nUser far\n",
    );
    let found = home.resolve("web").unwrap();
    assert_eq!((found.port, found.user.as_str()), (5, "near"));
    assert_eq!(home.resolve("db").unwrap().port, 22);
    assert!(
        user("RefuseConnection \"moved away\"")
            .resolve("a")
            .unwrap_err()
            .to_string()
            .contains("moved away")
    );
}

#[test]
fn a_canonical_name_is_matched_in_a_second_reading() {
    let home = user(
        "CanonicalizeHostname yes\nCanonicalDomains dc2.example dc1.example\nHost *.dc1.example\nUser dc1\n\
         Match canonical host web.dc1.example\nPort 5\nMatch originalhost web\nTag t\n",
    );
    let found = home.resolve("web").unwrap();
    assert_eq!(found.host_name, "web.dc1.example");
    assert_eq!(
        (found.user.as_str(), found.port, found.tag.as_deref()),
        ("dc1", 5, Some("t"))
    );
    assert_eq!(home.resolve("db").unwrap().host_name, "db");
}

#[test]
fn unknown_options_pass_where_ignoreunknown_names_them() {
    assert!(
        user("IgnoreUnknown Use*\nUseKeychain yes\n")
            .resolve("a")
            .is_ok()
    );
    assert!(
        user("UseKeychain yes\nIgnoreUnknown Use*\n")
            .resolve("a")
            .is_err()
    );
    assert!(
        user("Host b\nIgnoreUnknown Use*\nHost *\nUseKeychain yes\n")
            .resolve("a")
            .is_err()
    );
}

#[test]
fn what_is_not_honoured_is_a_warning_with_its_line() {
    let home = user("VerifyHostKeyDNS yes\nForwardAgent no\nHost other\nPKCS11Provider /p\nHost *\nRSAAuthentication yes\n")
        .with("etc/ssh_config", "GSSAPIAuthentication yes\n");
    let warnings = home.resolve("web").unwrap().warnings;
    let short: Vec<_> = warnings.iter().map(|w| (w.place.line, w.option)).collect();
    assert_eq!(short, [(1, "verifyhostkeydns"), (6, "rsaauthentication")]);
    assert_eq!(home.resolve("other").unwrap().warnings.len(), 3);
    assert!(
        warnings[0]
            .to_string()
            .contains(".ssh/config:1: verifyhostkeydns: ")
    );
    assert_eq!(
        user("GSSAPIAuthentication yes")
            .resolve("a")
            .unwrap()
            .warnings
            .len(),
        1
    );
}

#[test]
fn variables_for_the_node_are_a_warning_unless_every_ssh_sends_them() {
    let warned = |text: &str| {
        let warnings = user(text).resolve("web").unwrap().warnings;
        let short = warnings.iter().map(|w| (w.place.line, w.option));
        short.collect::<Vec<_>>()
    };
    let usual = "SendEnv LANG LC_* LC_ALL LANGUAGE\nSendEnv TERM COLORTERM NO_COLOR XMODIFIERS\n";
    assert_eq!(warned(usual), []);
    assert_eq!(warned("SendEnv A*\nSendEnv -A*\n"), [], "taken back");
    assert_eq!(
        warned("SendEnv LANG\nSendEnv LC_* APP_*\nSendEnv B\nSetEnv C=1 D=2\nSetEnv E=3\n"),
        [(2, "sendenv"), (4, "setenv")]
    );
    for more_than_usual in ["SendEnv *", "SendEnv L*", "SendEnv TERM?", "SendEnv lang"] {
        assert_eq!(warned(more_than_usual), [(1, "sendenv")]);
    }
}

#[test]
fn names_that_could_be_shell_code_are_refused() {
    let config = user("ProxyCommand nc %h %p\n").load().unwrap();
    for host in [
        "",
        "-oProxyCommand=x",
        "a;b",
        "a b",
        "$(x)",
        "a`b`",
        "a\nb",
        "a|b",
    ] {
        assert!(
            config.resolve(host, &CommandLine::default()).is_err(),
            "{host:?}"
        );
    }
    for name in ["", "-l", "a;b", "a -b", "a\\", "a'b", "a\nb"] {
        let given = CommandLine {
            user: Some(name.into()),
            ..CommandLine::default()
        };
        assert!(config.resolve("web", &given).is_err(), "{name:?}");
    }
}

#[test]
fn the_first_of_jump_and_command_wins() {
    let proxy = |text: &str| user(text).resolve("web").unwrap().proxy;
    let jump = proxy("ProxyJump a\nProxyCommand x\n");
    assert!(
        matches!(&jump, Proxy::Jump(hosts) if hosts[0].host == "a"),
        "{jump:?}"
    );
    let command = proxy("ProxyCommand nc '%h' %p\nProxyJump a\n");
    assert_eq!(
        command,
        Proxy::Command {
            written: "nc '%h' %p".into(),
            command: "nc 'web' 22".into()
        }
    );
    assert_eq!(proxy("ProxyCommand none\nProxyJump a\n"), Proxy::Direct);
    assert_eq!(proxy("ProxyJump none\nProxyJump a\n"), Proxy::Direct);
}

#[test]
fn tokens_in_a_jump_are_those_of_the_host_behind_it() {
    let home = user(
        "Host node\nHostName 192.0.2.7\nUser ops\nPort 2200\nProxyJump %r@gate-%n.example\n\
         Host far\nUser ops\nProxyJump outer-%p,%r@in-%h-%%\nHost outer-22\nUser other\n\
         Host wrong\nProxyJump gate-%q\nHost circle\nProxyJump %h\n",
    );
    let config = home.load().unwrap();
    let route = |host| -> Vec<String> {
        let route = config.route(host, &CommandLine::default()).unwrap();
        route
            .iter()
            .map(|hop| format!("{}@{}:{}", hop.user, hop.host_name, hop.port))
            .collect()
    };
    assert_eq!(
        route("node"),
        ["ops@gate-node.example:22", "ops@192.0.2.7:2200"]
    );
    assert_eq!(
        route("far"),
        ["other@outer-22:22", "ops@in-far-%:22", "ops@far:22"]
    );
    for (host, words) in [("wrong", "%q is not known"), ("circle", "circles")] {
        let error = config.route(host, &CommandLine::default()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_user_may_hold_tokens_and_variables() {
    let user_of = |text: &str| user(text).resolve("web").unwrap().user;
    assert_eq!(user_of("User %u-adm\n"), "me-adm");
    assert_eq!(
        user_of("HostName web.example\nUser %n-%h\n"),
        "web-web.example"
    );
    // What OpenSSH 10 refuses, older ones take as it is.
    for literal in ["corp%ops", "${NOT_SET}", "%r", "%"] {
        assert_eq!(user_of(&format!("User {literal}\n")), literal);
    }
}

#[test]
fn an_include_may_hold_tokens_of_this_machine() {
    let home = user("Include ~/.ssh/%u.conf\nInclude %d/.ssh/${NAME}\n")
        .with(".ssh/me.conf", "Port 5\n")
        .with(".ssh/%h.conf", "User literal\n");
    // The second line is not read, and that is said.
    assert_eq!(home.resolve("web").unwrap().port, 5);
    let config = home.load().unwrap();
    assert_eq!(config.unread().len(), 1, "{:?}", config.unread());
    let home = user("Include ~/.ssh/%h.conf\nPort 7\n");
    assert_eq!(home.resolve("web").unwrap().port, 7);
    assert!(home.load().unwrap().unread()[0].contains("config:1: this Include was not read"));
}

#[test]
fn conditions_of_openssh_10_are_known() {
    let home = user(
        "Match version \"OpenSSH_9.*\"\nUser old\nMatch version OpenSSH_1?.*\nUser new\n\
         Match sessiontype shell,none\nPort 1\nMatch !sessiontype shell sessiontype exec\nPort 77\n\
         Match command \"\"\nTag empty\nMatch command *\nTag some\n\
         Match tagged \"\" tagged *\nCompression yes\n",
    );
    let found = home.resolve("web").unwrap();
    assert_eq!((found.user.as_str(), found.port), ("new", 77));
    assert_eq!(found.tag.as_deref(), Some("some"));
    assert!(!found.compression);
    // A session to a jump host only forwards.
    let home = user(
        "Match sessiontype none command \"\"\nPort 9\nMatch tagged \"\"\nUser plain\nHost web\nProxyJump gate\n",
    );
    let route = home
        .load()
        .unwrap()
        .route("web", &CommandLine::default())
        .unwrap();
    let found: Vec<_> = route
        .iter()
        .map(|hop| (hop.port, hop.user.as_str()))
        .collect();
    assert_eq!(found, [(9, "plain"), (22, "plain")]);
}

#[test]
fn a_way_follows_each_hops_own_configuration() {
    let home = user(
        "Host node\nProxyJump inner\nHost inner\nProxyJump ops@outer:2200\nUser in\nHost outer\nHostName 192.0.2.1\n\
         Host far\nProxyJump outer,inner\nHost loop1\nProxyJump loop2\nHost loop2\nProxyJump loop1\n",
    );
    let config = home.load().unwrap();
    let route = |host| -> Vec<String> {
        let route = config.route(host, &CommandLine::default()).unwrap();
        route
            .iter()
            .map(|hop| format!("{}@{}:{}", hop.user, hop.host_name, hop.port))
            .collect()
    };
    assert_eq!(
        route("node"),
        ["ops@192.0.2.1:2200", "in@inner:22", "me@node:22"]
    );
    // A written list is taken as it is: inner's own ProxyJump is not asked.
    assert_eq!(
        route("far"),
        ["me@192.0.2.1:22", "in@inner:22", "me@far:22"]
    );
    let circle = config.route("loop1", &CommandLine::default()).unwrap_err();
    assert!(circle.to_string().contains("circles"), "{circle}");
    let given = CommandLine {
        jump: Some(vec![]),
        ..CommandLine::default()
    };
    assert_eq!(config.route("node", &given).unwrap().len(), 1);
    let own = user("Host a\nProxyJump a\n").resolve("a").unwrap_err();
    assert!(own.to_string().contains("through itself"), "{own}");
}

#[test]
fn agents_and_files_are_told_apart() {
    let agent = |text: &str| user(text).resolve("web").unwrap().identity_agent;
    assert_eq!(agent(""), IdentityAgent::Unset);
    assert_eq!(agent("IdentityAgent none"), IdentityAgent::Disabled);
    assert_eq!(
        agent("IdentityAgent SSH_AUTH_SOCK"),
        IdentityAgent::Variable("SSH_AUTH_SOCK".into())
    );
    assert_eq!(
        agent("IdentityAgent $MINE"),
        IdentityAgent::Variable("MINE".into())
    );
    assert_eq!(
        agent("IdentityAgent ~ops/%h"),
        IdentityAgent::Socket("/home/ops/web".into())
    );
    let none = user("IdentityFile none\nUserKnownHostsFile none\n")
        .resolve("web")
        .unwrap();
    assert!(none.identity_files.is_empty() && none.user_known_hosts_files.is_empty());
}

#[test]
fn ten_thousand_hosts_are_quick() {
    let mut text = String::new();
    for index in 0..200 {
        text += &format!(
            "Host node{index:03}* !node{index:03}x\n  User u{index}\n  Port {}\n",
            1000 + index
        );
    }
    text += "Match host *.example\n  IdentityFile ~/.ssh/%h\nHost *\n  ServerAliveInterval 15\n";
    let config = user(&text).load().unwrap();
    let started = std::time::Instant::now();
    for index in 0..10_000 {
        let host = format!("node{:03}-{index}.example", index % 200);
        let found = config.resolve(&host, &CommandLine::default()).unwrap();
        assert_eq!(found.port, 1000 + index % 200);
    }
    // An unoptimised build on a loaded machine; the released one is far below.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn very_long_lines_are_read() {
    let text = format!("User {}\nPort 7", "u".repeat(1 << 20));
    let found = user(&text).resolve("web").unwrap();
    assert_eq!((found.user.len(), found.port), (1 << 20, 7));
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Home::new().with(".ssh/config", &bytes).resolve("web");
    }

    #[test]
    fn any_lines_of_known_words_end_in_an_answer(lines in proptest::collection::vec(
        ("(Host|Match|Port|User|IdentityFile|ProxyJump|HostName|Ciphers|IgnoreUnknown|CanonicalDomains)",
         "[ =\t]{1,2}", "[a-z0-9*?!%${},@:\"'\\\\# ]{0,20}"), 0..12)) {
        let text: String = lines.iter().map(|(word, between, rest)| format!("{word}{between}{rest}\n")).collect();
        let started = std::time::Instant::now();
        let _ = user(&text).resolve("web");
        prop_assert!(started.elapsed().as_secs() < 5);
    }
}
