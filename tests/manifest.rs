//! What Cargo.toml promises about the compiler holds for every crate that goes into the program.
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
