//! Chains of jump hosts, and which level wins.

use crate::model::RuntimeKind;

use super::*;

fn resolve(
    name: String,
    address: Option<String>,
    groups: Vec<String>,
    layers: &[&NodeSettings],
    background: SshConfigSource<'_>,
) -> Result<Node, Unresolved> {
    super::resolve(name, address, groups, layers, false, background)
}

#[test]
fn a_chain_is_read_as_ssh_reads_it() {
    let chain = parse_jump("ops@bastion:2222, inner,[2001:db8::1]:22").unwrap();
    assert_eq!(
        chain[0],
        JumpSpec {
            user: Some("ops".into()),
            host: "bastion".into(),
            port: Some(2222)
        }
    );
    assert_eq!(
        chain[1],
        JumpSpec {
            user: None,
            host: "inner".into(),
            port: None
        }
    );
    assert_eq!(
        (chain[2].host.as_str(), chain[2].port),
        ("2001:db8::1", Some(22))
    );
    assert_eq!(parse_jump("none").unwrap(), []);
}

#[test]
fn a_bad_chain_is_told_in_words() {
    for (text, part) in [
        ("", "missing"),
        ("a,,b", "missing"),
        ("a,none", "stands alone"),
        ("bastion[1-2]", "more than one host"),
        ("ssh://bastion", "URL"),
        ("-oProxyCommand=id", "'='"),
        (&["a"; 17].join(","), "more than 16"),
    ] {
        let error = parse_jump(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn the_strongest_level_that_speaks_wins_and_labels_are_joined() {
    let label = |value: &str| BTreeMap::from([("pool".to_string(), value.to_string())]);
    let strong = NodeSettings {
        port: Some(2200),
        jump: Some(vec![JumpSpec {
            user: None,
            host: "b".into(),
            port: None,
        }]),
        labels: label("gpu"),
        ..NodeSettings::default()
    };
    let mut weak = NodeSettings {
        user: Some("ops".into()),
        port: Some(22),
        runtime: Some(RuntimeChoice::Kind(RuntimeKind::Docker)),
        labels: label("all"),
        ..NodeSettings::default()
    };
    weak.labels.insert("site".into(), "x".into());
    let node = resolve(
        "n".into(),
        None,
        vec![],
        &[&strong, &weak],
        &built_in("nobody"),
    )
    .unwrap();
    assert_eq!(
        (node.port, node.user.as_str(), node.address.as_str()),
        (2200, "ops", "n")
    );
    assert_eq!(node.jump[0].to_string(), "ops@b:22");
    assert_eq!(node.runtime, Some(RuntimeKind::Docker));
    assert_eq!(node.labels["pool"], "gpu");
    assert_eq!(node.labels["site"], "x");
    assert!(matches!(
        resolve("n".into(), None, vec![], &[&strong], &built_in("")),
        Err(Unresolved::NoUser)
    ));
}

#[test]
fn of_a_jump_and_a_command_the_stronger_level_s_counts() {
    let jump = NodeSettings {
        jump: Some(parse_jump("gate").unwrap()),
        ..NodeSettings::default()
    };
    let command = NodeSettings {
        proxy_command: Some("nc".into()),
        ssh_options: Some(vec!["Compression=yes".into()]),
        ..NodeSettings::default()
    };
    for (layers, expected) in [
        ([&jump, &command], (true, false)),
        ([&command, &jump], (false, true)),
    ] {
        let behind = |asked: &SshQuery<'_>| {
            assert_eq!(asked.options, ["Compression=yes"]);
            let said = (asked.jump.is_some(), asked.proxy_command.is_some());
            assert_eq!(said, expected);
            built_in("me")(asked)
        };
        assert!(resolve("n".into(), None, vec![], &layers, &behind).is_ok());
    }
}

#[test]
fn what_stands_behind_fills_what_nobody_says() {
    let says = NodeSettings {
        port: Some(2200),
        ..NodeSettings::default()
    };
    let behind = |asked: &SshQuery<'_>| {
        assert_eq!(
            (asked.host, asked.user, asked.port),
            ("n", None, Some(2200))
        );
        Ok(SshDefaults {
            user: Some("conf".into()),
            port: Some(22),
            identities: vec!["key".into()],
            address: Some("n.example".into()),
            jump: vec![],
            proxy_command: Some("nc n 22".into()),
            ssh_settings: 0,
        })
    };
    let node = resolve("n".into(), None, vec![], &[&says], &behind).unwrap();
    assert_eq!(
        (node.name.as_str(), node.address.as_str()),
        ("n", "n.example")
    );
    assert_eq!((node.user.as_str(), node.port), ("conf", 2200));
    assert_eq!(node.identities, [PathBuf::from("key")]);
    let refuses = |_: &SshQuery<'_>| Err("no way".to_string());
    assert!(matches!(
        resolve("n".into(), None, vec![], &[&says], &refuses),
        Err(Unresolved::Refused(sentence)) if sentence == "no way"
    ));
}

#[test]
fn auto_hides_what_weaker_levels_say() {
    let say = |runtime| NodeSettings {
        user: Some("ops".into()),
        runtime: Some(runtime),
        ..NodeSettings::default()
    };
    let (auto, docker) = (
        say(RuntimeChoice::Auto),
        say(parse_runtime("docker").unwrap()),
    );
    let node = resolve(
        "n".into(),
        None,
        vec![],
        &[&auto, &docker],
        &built_in("nobody"),
    )
    .unwrap();
    assert_eq!(node.runtime, None);
}

#[test]
fn an_endpoint_is_a_uri_or_a_path() {
    assert_eq!(
        parse_endpoint("/run/crio/crio.sock").unwrap(),
        "unix:///run/crio/crio.sock"
    );
    assert_eq!(parse_endpoint("unix:///a").unwrap(), "unix:///a");
    for text in [
        "",
        "run/crio.sock",
        "unix://",
        "-H",
        "unix:///a b",
        "file:///x",
    ] {
        assert!(parse_endpoint(text).is_err(), "{text}");
    }
}
