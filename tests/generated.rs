//! Manual pages, completions and lists in `docs/` are what the definitions give now, and shells complete with them.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum as _;
use prepull::app;
use prepull::cli::Shell;
use prepull::model::{FailureKind, Retry};

/// Where packages look for each shell's file, below `docs/completions`.
fn completions() -> BTreeMap<String, String> {
    let file = |shell: &Shell| {
        let name = match shell {
            Shell::Bash => "prepull.bash",
            Shell::Zsh => "_prepull",
            Shell::Fish => "prepull.fish",
        };
        (name.to_owned(), app::script(*shell).unwrap())
    };
    Shell::value_variants().iter().map(file).collect()
}

fn in_folder(folder: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(folder).into_iter().flatten();
    files
        .map(|file| {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// Compares, or with `UPDATE` in the environment writes.
fn is_current(folder: &str, wanted: &BTreeMap<String, String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(folder);
    if std::env::var_os("UPDATE").is_some() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in wanted {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let there = in_folder(&folder);
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    let advice = "is not what the definitions give: run `make generated` and commit the result";
    assert_eq!(
        names(&there),
        names(wanted),
        "{} {advice}",
        folder.display()
    );
    for (name, text) in wanted {
        assert!(
            there[name] == *text,
            "{} {advice}",
            folder.join(name).display()
        );
    }
}

#[test]
fn manual_pages_are_current() {
    is_current("man", &app::pages().unwrap().into_iter().collect());
}

#[test]
fn completions_are_current() {
    is_current("completions", &completions());
}

fn failure_kinds() -> BTreeSet<&'static str> {
    FailureKind::ALL.map(FailureKind::as_str).into()
}

#[test]
fn the_schema_lists_every_failure_kind() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../docs/schema/document-1.json")).unwrap();
    let listed = schema["$defs"]["failure"]["properties"]["kind"]["enum"].as_array();
    let mut listed: BTreeSet<_> = listed
        .unwrap()
        .iter()
        .map(|k| k.as_str().unwrap())
        .collect();
    assert!(listed.remove("not-run"), "the kind of what was not run");
    assert_eq!(listed, failure_kinds());
}

#[test]
fn the_page_on_failures_lists_every_kind_and_how_often_it_is_retried() {
    let page = include_str!("../docs/failures.md");
    let rows: BTreeMap<&str, &str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| {
            let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
            (cells[0].trim_end_matches('`'), cells[2])
        })
        .collect();
    assert_eq!(
        rows.keys().copied().collect::<BTreeSet<_>>(),
        failure_kinds()
    );
    for kind in FailureKind::ALL {
        let word = match kind.retry() {
            Retry::Never => "no",
            Retry::Limited => "twice",
            Retry::Full => "yes",
            Retry::RegistryPause => "after a shared pause",
        };
        let row = rows[kind.as_str()];
        assert!(row.contains(word), "{kind:?}: {word} is not in {row:?}");
    }
}

/// What a shell is offered at the end of this line.
fn offered(folder: &Path, words: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_prepull"))
        .current_dir(folder)
        .env("PREPULL_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
        .env("_CLAP_IFS", "\n")
        .env("XDG_STATE_HOME", folder)
        .arg("--")
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn desk() -> tempfile::TempDir {
    let desk = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path: PathBuf = desk.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        "nodes.yml",
        "groups:\n  gpu: {nodes: ['gpu[1-2]']}\n  batch: {nodes: [b1]}\n",
    );
    write("prepull/runs/2026-11-23T21-17-09Z-3f9c.jsonl", "");
    write("program", "#!/bin/sh\ntouch ran\necho '{}'\n");
    let path = desk.path().join("program");
    let mut mode = fs::metadata(&path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    fs::set_permissions(path, mode).unwrap();
    desk
}

#[test]
fn options_nodes_groups_and_runs_are_completed() {
    let desk = desk();
    let offered = |words: &[&str]| offered(desk.path(), words);
    assert_eq!(offered(&["prepull", "pull", "--max-f"]), ["--max-failures"]);
    assert_eq!(
        offered(&["prepull", "pull", "--pull", ""]),
        ["always", "missing"]
    );
    let pull = ["prepull", "pull", "-i", "nodes.yml", "--limit"];
    assert_eq!(
        offered(&[&pull[..], &["g"]].concat()),
        ["gpu", "gpu1", "gpu2"]
    );
    assert_eq!(
        offered(&[&pull[..], &["gpu:!gpu"]].concat()),
        ["gpu:!gpu", "gpu:!gpu1", "gpu:!gpu2"]
    );
    assert_eq!(offered(&["prepull", "nodes", "-i", "nod"]), ["nodes.yml"]);
    let runs = offered(&["prepull", "runs", "show", ""]);
    assert_eq!(runs[..2], ["2026-11-23T21-17-09Z-3f9c", "last"]);
    // Nobody who presses TAB wants a program to run.
    assert!(offered(&["prepull", "pull", "-i", "program", "--limit", "x"]).is_empty());
    assert!(!desk.path().join("ran").exists());
}

/// What kubectl gets under the name by which it looks for completions of a plugin.
#[test]
fn kubectl_is_told_how_its_line_can_go_on() {
    let desk = desk();
    let completer = desk.path().join("kubectl_complete-prepull");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_prepull"), &completer).unwrap();
    let told = |words: &[&str]| {
        let output = Command::new(&completer)
            .args(words)
            .current_dir(desk.path())
            .env_clear()
            .env("HOME", desk.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let option = told(&["pull", "--max-f"]);
    let (line, directive) = option.split_once('\n').unwrap();
    assert!(line.starts_with("--max-failures\t"), "{option}");
    assert_eq!(directive, ":4\n");
    let commands = told(&[""]);
    assert!(
        commands.contains("pull\t") && commands.contains("check\t"),
        "{commands}"
    );
    assert_eq!(
        told(&["pull", "-i", "nodes.yml", "--limit", "g"]),
        "gpu\ngpu1\ngpu2\n:4\n"
    );
    assert_eq!(told(&["pull", "--pull", "m"]).lines().last(), Some(":4"));
}

#[cfg(feature = "lab")]
#[test]
fn real_shells_take_the_scripts() {
    let desk = desk();
    for (shell, check) in [
        (
            "bash",
            "source <(prepull completions bash); COMP_WORDS=(prepull pull --max-f); COMP_CWORD=2; COMP_TYPE=9; \
             _clap_complete_prepull prepull --max-f pull; echo \"${COMPREPLY[@]}\"",
        ),
        (
            "fish",
            "prepull completions fish | source; complete -C 'prepull pull --max-f'",
        ),
        (
            "zsh",
            "autoload -Uz compinit; compinit -u; source <(prepull completions zsh); echo ${_comps[prepull]:+--max-failures}",
        ),
    ] {
        let binary = Path::new(env!("CARGO_BIN_EXE_prepull"));
        let path = format!("{}:/usr/bin:/bin", binary.parent().unwrap().display());
        let output = Command::new(shell)
            .args(["-c", check])
            .current_dir(desk.path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", desk.path())
            .output()
            .unwrap_or_else(|error| {
                panic!("{shell} cannot be run (Debian package {shell}): {error}")
            });
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("--max-failures"), "{shell}: {output:?}");
    }
}
