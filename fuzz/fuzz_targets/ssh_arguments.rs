//! Any arguments for ssh in an inventory are taken by the resolver of ssh_config or refused, and loosen nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prepull::inventory::{SshQuery, SshDefaults, NodeSettings, Selection, parse, resolve};
use prepull::ssh::config::{LocalEnv, CommandLine, HostKeyChecking, Source, SshConfig, System};

fuzz_target!(|text: &str| {
    // JSON can hold any text.
    let quoted = format!("{text:?}");
    let text = format!("all:\n  hosts: {{a: }}\n  vars:\n    ansible_ssh_common_args: {quoted}\n");
    let ambient = LocalEnv {
        user: "me".into(),
        uid: 1000,
        home: "/home/me".into(),
        hostname: "here".into(),
        environment: Default::default(),
    };
    let config = SshConfig::load(&Source::Nothing, ambient, Box::new(System)).expect("no file");
    let behind = |asked: &SshQuery<'_>| {
        let given = CommandLine {
            // A name would be looked up.
            inventory_options: asked
                .options
                .iter()
                .filter(|option| !option.to_lowercase().contains("canonical"))
                .cloned()
                .collect(),
            ..CommandLine::default()
        };
        let host = config
            .resolve(asked.host, &given)
            .map_err(|error| error.to_string())?;
        assert!(matches!(
            host.host_key_checking,
            HostKeyChecking::Ask | HostKeyChecking::Strict
        ));
        assert_eq!(host.required_rsa_size, 1024);
        assert_eq!(host.user_known_hosts_files.len(), 2);
        Ok(SshDefaults {
            user: Some("me".into()),
            ..SshDefaults::default()
        })
    };
    let _ = parse(&text, "fuzz").and_then(|drafts| {
        resolve(
            &drafts,
            &Selection::default(),
            &NodeSettings::default(),
            &behind,
        )
    });
});
