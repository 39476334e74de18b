//! The Debian package: it installs on a bare Debian root, brings everything to its place, runs there, and goes again.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program and gives its standard output; anything but success fails the test with its words.
fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run (see lab/install): {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Relays that were not built are stood in for: building them takes minutes, and `make package` does.
struct StandIns(Vec<PathBuf>);

impl StandIns {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/relay");
        std::fs::create_dir_all(&folder).unwrap();
        let relays = RELAYS.map(|name| folder.join(name));
        let missing = relays.into_iter().filter(|path| !path.exists()).collect();
        let stand_ins = Self(missing);
        for path in &stand_ins.0 {
            std::fs::write(path, "stands in for a relay in a test\n").unwrap();
        }
        stand_ins
    }
}

impl Drop for StandIns {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

const RELAYS: [&str; 2] = ["prepull-relay-x86_64", "prepull-relay-aarch64"];

/// The package, out of the binary that this test was built with.
fn package(folder: &Path) -> PathBuf {
    let path = folder.join("prepull.deb");
    let _stand_ins = StandIns::new();
    run(Command::new("cargo")
        .args([
            "deb",
            "--quiet",
            "--no-build",
            "--fast",
            "--profile",
            "dev",
            "--output",
        ])
        .arg(&path)
        .current_dir(env!("CARGO_MANIFEST_DIR")));
    path
}

#[test]
fn it_installs_and_runs_on_a_bare_debian_root() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    // The essential packages and no other; with the repositories that this machine uses itself.
    run(Command::new("mmdebstrap")
        .args([
            "--quiet",
            "--variant=essential",
            "--format=directory",
            "bookworm",
        ])
        .arg(&root)
        .stdin(std::process::Stdio::null()));
    std::fs::copy(package(folder.path()), root.join("prepull.deb")).unwrap();
    let inside = |arguments: &[&str]| {
        run(Command::new("chroot")
            .arg(&root)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("DEBIAN_FRONTEND", "noninteractive"))
    };
    inside(&["dpkg", "--install", "/prepull.deb"]);
    assert_eq!(
        inside(&["prepull", "--version"]),
        format!("prepull {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(
        inside(&["prepull", "nodes", "-H", "w[1-2]", "-o", "name"]),
        "w1\nw2\n"
    );
    // kubectl finds it as a plugin under this name.
    let help = inside(&["kubectl-prepull", "--help"]);
    assert!(help.contains("Usage: kubectl prepull"), "{help}");
    let completed = inside(&["kubectl_complete-prepull", "pull", "--keep-f"]);
    assert!(completed.starts_with("--keep-for\t"), "{completed}");
    for name in RELAYS {
        let found = root.join("usr/lib/prepull").join(name);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&found.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o755, "{name}");
    }
    for path in [
        "usr/share/man/man1/prepull-pull.1.gz",
        "usr/share/bash-completion/completions/prepull",
        "usr/share/zsh/vendor-completions/_prepull",
        "usr/share/fish/vendor_completions.d/prepull.fish",
    ] {
        assert!(root.join(path).is_file(), "{path} is missing");
    }
    // Examples are of use as they are.
    let nodes = inside(&[
        "sh",
        "-c",
        "cd /usr/share/doc/prepull/examples && for file in *; do prepull nodes -i $file -o name || exit 1; done",
    ]);
    assert!(nodes.lines().count() > 5, "{nodes}");
    let page = run(Command::new("man")
        .arg("-l")
        .arg(root.join("usr/share/man/man1/prepull-pull.1.gz"))
        .env("MANWIDTH", "80"));
    assert!(
        page.contains("prepull-pull") && page.contains("EXIT STATUS"),
        "{page}"
    );
    inside(&["dpkg", "--purge", "prepull"]);
    for path in [
        "usr/share/doc/prepull",
        "usr/bin/prepull",
        "usr/lib/prepull",
    ] {
        assert!(!root.join(path).exists(), "{path} is left");
    }
}
