//! What Cargo.toml promises about the compiler holds for every crate that goes into the program, and deny.toml has a word on
//! each crate that is no finished release.
//!
//! Newer parts of the standard library are clippy's to find (`incompatible_msrv`, which reads the same promise).

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::process::Command;

use serde_json::Value;

/// A version's first two numbers.
fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap_or(0))
}

#[test]
fn every_pre_release_is_there_for_a_reason() {
    let lock = include_str!("../Cargo.lock");
    let judged = include_str!("../deny.toml");
    let mut packages = 0;
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let line = package.lines().find(|line| line.starts_with(name)).unwrap();
            line.split('"').nth(1).unwrap()
        };
        let (name, version) = (field("name = "), field("version = "));
        packages += 1;
        if version.split('+').next().unwrap().contains('-') {
            assert!(
                judged.contains(&format!("{name} {version}")),
                "{name} {version}"
            );
        }
    }
    assert!(packages > 50);
}

#[test]
fn no_dependency_wants_a_newer_compiler_than_is_promised() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let promised = version(env!("CARGO_PKG_RUST_VERSION"));
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50);
    let newer: Vec<String> = packages
        .iter()
        .filter(|package| {
            package["rust_version"]
                .as_str()
                .is_some_and(|wants| version(wants) > promised)
        })
        .map(|package| format!("{} wants Rust {}", package["name"], package["rust_version"]))
        .collect();
    assert!(newer.is_empty(), "{newer:?}");
    let readme = include_str!("../README.md");
    assert!(readme.contains(&format!("{}.{} or newer", promised.0, promised.1)));
}
