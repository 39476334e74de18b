//! Any file is an ssh_config that resolves, and resolves the same again, or an error.
#![no_main]

use std::net::IpAddr;
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use prepull::ssh::config::{AddressFamily, LocalEnv, CommandLine, Lookup, SystemProbe, Source, SshConfig};

/// A world in which nothing is run and nothing is looked up.
struct Nowhere;

impl SystemProbe for Nowhere {
    fn run(&self, command: &str) -> Result<bool, String> {
        Ok(command.len() % 2 == 0)
    }
    fn lookup(&self, _: &str, _: AddressFamily) -> Lookup {
        Lookup::Missing
    }
    fn local_addresses(&self) -> Vec<IpAddr> {
        Vec::new()
    }
    fn home_of(&self, _: &str) -> Option<PathBuf> {
        None
    }
}

fuzz_target!(|bytes: &[u8]| {
    // An Include would read what lies about here.
    if String::from_utf8_lossy(bytes)
        .to_lowercase()
        .contains("include")
    {
        return;
    }
    let file = std::env::temp_dir().join(format!("prepull-fuzz-{}", std::process::id()));
    std::fs::write(&file, bytes).expect("a temporary file");
    let ambient = LocalEnv {
        user: "me".into(),
        uid: 1000,
        home: "/home/me".into(),
        hostname: "here".into(),
        environment: [("SET".to_string(), "x".to_string())].into(),
    };
    if let Ok(config) = SshConfig::load(&Source::Only(file), ambient, Box::new(Nowhere)) {
        for host in ["a", "web1.example", "2001:db8::7"] {
            let first = config.route(host, &CommandLine::default());
            assert_eq!(
                format!("{first:?}"),
                format!("{:?}", config.route(host, &CommandLine::default()))
            );
        }
    }
});
