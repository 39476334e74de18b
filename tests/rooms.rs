//! The walls between the rooms: fails on an import that the table in CONTRIBUTING.md does not allow, and where the
//! picture in `docs/architecture.md` shows something else. `UPDATE=1 cargo test --test rooms` draws it again.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "rooms/modules.rs"]
mod modules;

const CONTRIBUTING: &str = include_str!("../CONTRIBUTING.md");

/// Which rooms a room may use: the table in CONTRIBUTING.md. Every room may use itself.
fn allowed() -> BTreeMap<String, Vec<String>> {
    let rows: Vec<[String; 2]> = CONTRIBUTING
        .lines()
        .skip_while(|line| !line.starts_with("| room |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 3, "not a row of the rooms' table: {row}");
            [cells[0].trim_matches('`').to_string(), cells[2].to_string()]
        })
        .collect();
    assert!(rows.len() > 10, "CONTRIBUTING.md has no table of rooms");
    let others = |room: &str| {
        let names = rows.iter().map(|[name, _]| name.clone());
        names.filter(|name| name != room).collect()
    };
    let uses = |room: &str, cell: &str| match cell {
        "-" => Vec::new(),
        "all" => others(room),
        list => list.split(", ").map(str::to_string).collect(),
    };
    rows.iter()
        .map(|[room, cell]| (room.clone(), uses(room, cell)))
        .collect()
}

/// Crates that only these rooms may use.
const OWNED: [(&str, &[&str]); 7] = [
    ("hyper", &["registry", "inventory"]),
    ("russh", &["ssh"]),
    ("indicatif", &["report"]),
    ("prepull_relay", &["fan_out", "app"]),
    ("pull_through", &["via", "registry", "app"]),
    ("rpassword", &["credentials"]),
    ("ssh_config_resolver", &["ssh"]),
];

#[test]
fn rooms_use_only_what_the_table_allows() {
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
                "{}: no such room in CONTRIBUTING.md",
                relative.display()
            ));
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        for used in rooms_named_in(&text) {
            if used != room && !may_use.contains(&used) {
                wrong.push(format!("{}: {room} may not use {used}", relative.display()));
            }
        }
        for (krate, owners) in OWNED {
            if !owners.contains(&room.as_str()) && text.contains(&format!("{krate}::")) {
                wrong.push(format!(
                    "{}: only {} may use {krate}",
                    relative.display(),
                    owners.join(" and ")
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

/// What a module uses of those that it is part of does not count: a folder's `mod.rs` holds what all files in it share (its
/// types, errors and limits) beside what is made of them, and a file cannot be had without its folder. A use of any other
/// module counts, whether it goes to a neighbour, into another folder or from `mod.rs` into its own. So does a use of a
/// neighbour's type under the name that `mod.rs` gives it.
#[test]
fn no_two_modules_of_a_room_need_each_other() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut graph = modules::graph(&modules::read(&source, rust_files(&source)));
    assert!(graph.len() > 100, "read only {} modules", graph.len());
    for (module, uses) in &mut graph {
        uses.retain(|used| used[..1] == module[..1] && !module.starts_with(used));
    }
    let knots: Vec<String> = modules::cycles(&graph)
        .iter()
        .map(|knot| modules::described(&graph, knot))
        .collect();
    assert!(
        knots.is_empty(),
        "modules that need each other, and what each needs:\n{}",
        knots.join("\n")
    );
}

#[test]
fn the_picture_shows_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("```mermaid\n").unwrap();
    let (shown, after) = rest.split_once("```").unwrap();
    let drawn = picture(&allowed());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, format!("{before}```mermaid\n{drawn}```{after}")).unwrap();
        return;
    }
    assert!(
        shown == drawn,
        "docs/architecture.md is out of date: UPDATE=1 cargo test --test rooms"
    );
}

/// The rooms as a Mermaid graph. An arrow that follows from two others is left out, and so are those of `app`, which
/// wires all rooms.
fn picture(table: &BTreeMap<String, Vec<String>>) -> String {
    let mut lines = vec![
        "graph TD".to_string(),
        "    app([app: wires the rooms])".to_string(),
    ];
    let mut used = BTreeSet::new();
    for (room, uses) in table.iter().filter(|(room, _)| *room != "app") {
        for other in uses {
            let through = |between: &String| between != other && table[between].contains(other);
            if !uses.iter().any(through) {
                lines.push(format!("    {room} --> {other}"));
            }
            used.insert(other);
        }
    }
    for room in table
        .keys()
        .filter(|room| *room != "app" && !used.contains(room))
    {
        lines.push(format!("    app --> {room}"));
    }
    lines.join("\n") + "\n"
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

#[test]
fn the_reader_of_modules_sees_every_form() {
    let files = [
        (
            "room/mod.rs",
            "mod a;\nmod b;\npub use a::{Thing, deep::Other as Renamed};\n#[cfg(test)]\nmod tests;",
        ),
        (
            "room/a.rs",
            "pub mod deep; fn f() { super::b::run(); \"super::c\"; 'x'; /* super::c */ }",
        ),
        ("room/a/deep.rs", "use super::super::d::*;"),
        (
            "room/b.rs",
            "use super::{c, Thing};\n// super::d\n#[cfg(test)]\nmod tests { use super::d; }",
        ),
        (
            "room/c.rs",
            "fn f(r: crate::room::Renamed) -> std::io::Result<()> { r#\"super::d\"# }",
        ),
        (
            "room/d.rs",
            "use crate::room::{b::{self as e, X}, other};\nuse other::y;",
        ),
        ("room/tests.rs", "use super::d;"),
    ];
    let files = files.map(|(path, text)| (PathBuf::from(path), text.to_string()));
    let graph = modules::graph(&files);
    let shown: Vec<String> = graph
        .iter()
        .map(|(module, uses)| {
            let uses: Vec<String> = uses.iter().map(|used| used.join("::")).collect();
            format!("{}: {}", module.join("::"), uses.join(" "))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "room: room::a room::a::deep",
            "room::a: room::b",
            "room::a::deep: room::d",
            "room::b: room::a room::c",
            "room::c: room::a::deep",
            "room::d: room room::b",
        ]
    );
    let knots = modules::cycles(&graph);
    assert_eq!(knots.len(), 1, "{knots:?}");
}
