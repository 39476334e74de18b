//! How a login for ctr gets into what the node's certs.d says of a registry: the pull's script, under a real shell.

#![allow(clippy::unwrap_used, clippy::panic)] // a test file: a panic is a failed test

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use prepull::model::{Image, RegistryLogin, RuntimeKind, Secret};
use prepull::ports::{PullRequest, SecretDelivery};
use prepull::runtime::of_kind;

/// Stands for ctr: keeps the hosts.toml that the pull was given. Links lead to what the node has of other registries.
const CTR: &str = r#"#!/bin/sh
case $1 in images) ;; *) exit ;; esac
echo "$*" >"${0%/*}/../called"
for folder in "$4"/*; do
    [ -h "$folder" ] || cat "$folder/hosts.toml" >"${0%/*}/../given"
done
"#;

/// The hosts.toml for this image on a node whose certs.d has these files; `Err` with what the script says.
fn given(image: &str, files: &[(&str, &str)]) -> Result<String, String> {
    given_for(image, files, false)
}

fn given_for(image: &str, files: &[(&str, &str)], is_local: bool) -> Result<String, String> {
    let node = tempfile::tempdir().unwrap();
    let root = node.path();
    for (name, text) in [&[("bin/ctr", CTR)], files].concat() {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let image: Image = image.parse().unwrap();
    let login = RegistryLogin::Password {
        username: "ci".into(),
        password: Secret::new("pw"),
    };
    let (ctr, request) = (
        of_kind(RuntimeKind::Ctr),
        PullRequest {
            image: &image,
            endpoint: Some("/run/own.sock"),
            platform: None,
            login: Some(&login),
        },
    );
    let (command, option) = match is_local {
        true => (ctr.pull_locally(&request).unwrap(), "--plain-http "),
        false => (ctr.pull(&request).unwrap(), ""),
    };
    let vault = root.join("vault");
    fs::create_dir(&vault).unwrap();
    let Some(SecretDelivery::Directory {
        variable,
        file,
        content,
    }) = &command.secret
    else {
        panic!("no file");
    };
    fs::write(vault.join(file), content.expose()).unwrap();
    let here = |text: &str| text.replace("/etc/containerd/", &format!("{}/", root.display()));
    let output = Command::new(command.argv[0])
        .args(command.argv[1..].iter().map(|word| here(word)))
        .env_clear()
        .env("PATH", format!("{}/bin:/usr/bin:/bin", root.display()))
        .env("CONTAINERD_NAMESPACE", "own")
        .envs(command.environment.iter().copied())
        .env(variable, &vault)
        .output()
        .unwrap();
    let clean = |text: String| text.replace(&root.display().to_string(), "");
    if !output.status.success() {
        return Err(clean(String::from_utf8(output.stderr).unwrap()));
    }
    let read = |path: &Path| clean(fs::read_to_string(path).unwrap());
    let called = read(&root.join("called"));
    assert_eq!(
        called,
        format!(
            "images pull --hosts-dir /vault/hosts {option}{}\n",
            image.exact()
        )
    );
    Ok(read(&root.join("given")))
}

const LOGIN: &str = "Authorization = [\"Basic Y2k6cHc=\"]\n";
const IMAGE: &str = "reg.example:5000/app:v1";

#[test]
fn without_a_configuration_the_registry_itself_gets_the_header() {
    for image in [IMAGE, "nginx:1"] {
        assert_eq!(given(image, &[]), Ok(format!("[header]\n{LOGIN}[host]\n")));
    }
}

#[test]
fn what_leads_to_prepull_gets_the_header_alone() {
    let local = "127.0.0.1:4001/prepull/app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let mirror = "server = \"https://mirror.example\"\n[host.\"https://mirror.example\"]\n";
    let files = [
        ("certs.d/_default/hosts.toml", mirror),
        ("certs.d/_default/ca.crt", ""),
    ];
    let expected = format!("[header]\n{LOGIN}[host]\n");
    assert_eq!(given_for(local, &files, true), Ok(expected));
}

#[test]
fn certificates_without_a_hosts_toml_are_kept() {
    let files = [
        ("certs.d/reg.example_5000_/ca.crt", ""),
        ("certs.d/reg.example_5000_/own.cert", ""),
        ("certs.d/reg.example_5000_/own.key", ""),
    ];
    let folder = "/certs.d/reg.example_5000_";
    let expected = format!(
        "ca = [\"{folder}/ca.crt\",]\nclient = [[\"{folder}/own.cert\",\"{folder}/own.key\"],]\n[header]\n{LOGIN}[host]\n"
    );
    assert_eq!(given(IMAGE, &files), Ok(expected));
}

#[test]
fn only_hosts_with_the_registrys_own_name_get_the_header() {
    let own = "server = \"https://reg.example:5000\"\n[host.\"https://mirror.example\"]\n  ca = \"x.crt\"\n[host.'https://reg.example:5000']\n";
    let file = "certs.d/reg.example:5000/hosts.toml";
    let header = |url: &str| format!("[host.\"{url}\".header]\n{LOGIN}");
    assert_eq!(
        given(IMAGE, &[(file, own)]),
        Ok(format!(
            "{own}[header]\n{LOGIN}{}",
            header("https://reg.example:5000")
        ))
    );
    let mirror = "server = \"https://mirror.example\"\n";
    assert_eq!(
        given(IMAGE, &[(file, mirror)]),
        Ok(format!("{mirror}[host]\n"))
    );
    let hub = "[host.\"https://registry-1.docker.io\"]\n";
    assert_eq!(
        given("nginx:1", &[("certs.d/_default/hosts.toml", hub)]),
        Ok(format!(
            "{hub}[header]\n{LOGIN}{}",
            header("https://registry-1.docker.io")
        ))
    );
}

#[test]
fn headers_that_are_there_stay_but_for_another_login() {
    let file = "certs.d/reg.example:5000/hosts.toml";
    let text = "[header]\n  x-a = \"b\"\n  authorization = \"Basic old\"\n[host.\"https://reg.example:5000\".header]\nx-c = [\n  \"d\",\n]\n";
    let expected = format!(
        "[header]\n{LOGIN}  x-a = \"b\"\n[host.\"https://reg.example:5000\".header]\n{LOGIN}x-c = [\n  \"d\",\n]\n"
    );
    assert_eq!(given(IMAGE, &[(file, text)]), Ok(expected));
    let inline = "header = { x-a = \"b\" }\n";
    let said = given(IMAGE, &[(file, inline)]).unwrap_err();
    assert!(said.contains("has its headers in one line"), "{said}");
}
