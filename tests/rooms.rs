//! The walls between the rooms: fails on an import that the design's table does not allow.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms a room may use, as the design says; every room may use itself.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    const EVERYTHING: &[&str] = &[
        "cli",
        "credentials",
        "engine",
        "inventory",
        "journal",
        "model",
        "node",
        "ports",
        "registry",
        "report",
        "runtime",
        "settings",
        "ssh",
    ];
    BTreeMap::from([
        ("app", EVERYTHING),
        ("cli", &[] as &[_]),
        ("credentials", &["model"]),
        ("engine", &["model", "ports", "node"]),
        ("inventory", &["model"]),
        ("journal", &["model"]),
        ("model", &[]),
        ("node", &["model", "ports"]),
        ("ports", &["model"]),
        ("registry", &["model"]),
        ("report", &["model"]),
        ("runtime", &["model", "ports"]),
        ("settings", &["cli", "model", "inventory", "credentials"]),
        ("ssh", &["model", "ports"]),
    ])
}

/// Crates that only one room may use.
const OWNED: [(&str, &str); 4] = [
    ("hyper", "registry"),
    ("russh", "ssh"),
    ("indicatif", "report"),
    ("rpassword", "credentials"),
];

#[test]
fn rooms_use_only_what_the_design_allows() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let table = allowed();
    let mut wrong = Vec::new();
    let mut files_read = 0;
    for file in rust_files(&source) {
        let relative = file.strip_prefix(&source).unwrap().to_path_buf();
        let room = room_of(&relative);
        if room == "lib" || room == "main" {
            continue;
        }
        files_read += 1;
        let Some(may_use) = table.get(room.as_str()) else {
            wrong.push(format!(
                "{}: no such room in the design",
                relative.display()
            ));
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        for used in rooms_named_in(&text) {
            if used != room && !may_use.contains(&used.as_str()) {
                wrong.push(format!("{}: {room} may not use {used}", relative.display()));
            }
        }
        for (krate, owner) in OWNED {
            if room != owner && text.contains(&format!("{krate}::")) {
                wrong.push(format!(
                    "{}: only {owner} may use {krate}",
                    relative.display()
                ));
            }
        }
        if !text.starts_with("//!") {
            wrong.push(format!(
                "{}: does not open with a //! line",
                relative.display()
            ));
        }
    }
    assert!(
        files_read > table.len(),
        "read only {files_read} files: is the path right?"
    );
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn room_of(relative: &Path) -> String {
    let first = relative
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_string()
}

/// Every `crate::ROOM` and every room within `crate::{...}`, in `use` lines and in paths alike.
fn rooms_named_in(text: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for after in text.split("crate::").skip(1) {
        if let Some(list) = after.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for character in list.chars() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => rooms.push(std::mem::take(&mut word)),
                    c if depth == 0 => word.push(c),
                    _ => {}
                }
            }
            rooms.push(word);
        } else {
            rooms.push(after.to_string());
        }
    }
    rooms
        .into_iter()
        .map(|path| {
            path.trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .filter(|room: &String| !room.is_empty())
        .collect()
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let text = "use crate::model::Node;\nuse crate::{ports::{A, B}, node};\nfn f() { crate::engine::run() }";
    assert_eq!(rooms_named_in(text), ["model", "ports", "node", "engine"]);
}
