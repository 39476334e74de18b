//! Executable inventories: a program that prints its groups as JSON for `--list`, and the variables of a
//! host for `--host NAME` where the list did not hold them.

use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, geteuid};

use super::ansible::{self, World};
use super::error::{InputError, InventoryError};
use super::json;
use super::ownership::changeable_by_others;
use super::read;
use super::yaml::Tree;
use crate::model::redact::redact_strictly;
use crate::model::text::escape_line;

/// The longest that a program may take, all its calls together.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// The most that it may print.
const OUTPUT_LIMIT: u64 = 64 << 20;
/// How much of its complaints is shown.
const COMPLAINT_LIMIT: usize = 2000;

/// Whether this file is to be run: it is executable, and begins as a script or an ELF program.
///
/// # Errors
/// A script that is not executable: read as text it would name nonsense.
pub(super) fn is_program(path: &Path) -> Result<bool, InventoryError> {
    use std::os::unix::fs::PermissionsExt;
    let mut start = [0; 4];
    // What cannot be opened is told by who reads the text. A pipe must not even be opened: it can be read once.
    let Ok(metadata) = std::fs::metadata(path) else {
        return Ok(false);
    };
    if !metadata.is_file() {
        return Ok(false);
    }
    let Ok(mut file) = std::fs::File::open(path) else {
        return Ok(false);
    };
    let length = file.read(&mut start).unwrap_or_default();
    let executable = metadata.permissions().mode() & 0o111 != 0;
    match &start[..length] {
        [b'#', b'!', ..] if !executable => Err(InventoryError::of_file(
            path.display().to_string(),
            InputError::new("this is a script, but it is not executable")
                .with_hint("make it executable (chmod +x) if it prints an inventory for --list"),
        )),
        [b'#', b'!', ..] | [0x7f, b'E', b'L', b'F'] => Ok(executable),
        _ => Ok(false),
    }
}

/// Adds what a program prints.
///
/// # Errors
/// Also one that another user could have written, where root would run it.
pub(super) fn read(path: &Path, world: &mut World) -> Result<(), InventoryError> {
    if geteuid().is_root()
        && let Err(fault) = is_roots_own(path)
    {
        return Err(InventoryError::of_file(path.display().to_string(), fault));
    }
    read_within(path, world, TIME_LIMIT)
}

/// Whether root may run this program.
fn is_roots_own(path: &Path) -> Result<(), InputError> {
    match changeable_by_others(path) {
        Ok(None) => Ok(()),
        Ok(Some(why)) => Err(InputError::new(format!(
            "this program would run as root, but {why}, who could make it do anything"
        ))
        .with_hint("make file and folder root's own (chown root, chmod go-w), or give what it prints for --list as a file")),
        Err(error) => Err(InputError::new(format!("cannot look at this program: {error}"))),
    }
}

fn read_within(path: &Path, world: &mut World, limit: Duration) -> Result<(), InventoryError> {
    let program = Program {
        path,
        name: path.display().to_string(),
        limit,
        until: Instant::now() + limit,
    };
    let tree = program.tree(&["--list"])?;
    let listing = ansible::read_listing(&tree, &program.name, world)?;
    if listing.has_variables {
        return Ok(());
    }
    for host in listing.hosts.iter().copied() {
        let name = world.host_name(host).to_string();
        let tree = program.tree(&["--host", &name])?;
        listing.add_variables(host, &tree, world)?;
    }
    Ok(())
}

struct Program<'a> {
    path: &'a Path,
    name: String,
    limit: Duration,
    until: Instant,
}

impl Program<'_> {
    fn wrong(&self, what: String, complaint: &str) -> InventoryError {
        let fault = InputError::new(what);
        let fault = match complaint.trim() {
            "" => fault,
            said => fault.with_hint(format!("it said: {said}")),
        };
        InventoryError::of_file(&self.name, fault)
    }

    /// Why it could not be started. For a missing interpreter the system names only the script.
    fn cannot_run(&self, error: &io::Error) -> InventoryError {
        let what = format!("this program cannot be run: {error}");
        let mut script = Vec::new();
        if let Ok(file) = std::fs::File::open(self.path) {
            // As much of the first line as the system reads; an empty one names no interpreter.
            let _ = file.take(256).read_to_end(&mut script);
        }
        let first = script.split(|byte| *byte == b'\n').next();
        let interpreter = first.and_then(|line| line.strip_prefix(b"#!"));
        let Some(interpreter) = interpreter.filter(|_| error.kind() == io::ErrorKind::NotFound)
        else {
            return self.wrong(what, "");
        };
        let fault = if interpreter.ends_with(b"\r") {
            InputError::new("this script cannot be run: its lines end as on Windows")
                .with_hint("save it with Unix line ends (dos2unix)")
        } else {
            let named = String::from_utf8_lossy(interpreter);
            InputError::new(format!(
                "this script cannot be run: there is no interpreter \"{}\"",
                named.trim()
            ))
            .with_hint("install it, or correct the first line")
        };
        InventoryError::of_file(&self.name, fault)
    }

    fn tree(&self, arguments: &[&str]) -> Result<Tree, InventoryError> {
        let (text, complaint) = self.run(arguments)?;
        let called = format!("{} {}", self.name, arguments.join(" "));
        if arguments[0] == "--host" && text.trim().is_empty() {
            return json::parse("{}", &called);
        }
        json::parse(&text, &called).map_err(|error| match complaint.trim() {
            "" => error,
            said => InventoryError {
                suggestion: Some(format!("it said: {said}")),
                ..error
            },
        })
    }

    /// What the program prints on standard output, and the start of its complaints.
    fn run(&self, arguments: &[&str]) -> Result<(String, String), InventoryError> {
        let failed = |error: io::Error| self.cannot_run(&error);
        // A bare name would be looked for in $PATH.
        let mut child = Command::new(std::path::absolute(self.path).map_err(failed)?)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What it starts is ended with it.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let output = collect(child.stdout.take(), OUTPUT_LIMIT + 1);
        let complaints = collect(child.stderr.take(), COMPLAINT_LIMIT as u64);
        let left = || self.until.saturating_duration_since(Instant::now());
        let said = output.recv_timeout(left());
        let too_much = said
            .as_ref()
            .is_ok_and(|said| said.len() as u64 > OUTPUT_LIMIT);
        let status = loop {
            match child.try_wait().map_err(failed)? {
                Some(status) => break Some(status),
                None if said.is_err() || too_much || left().is_zero() => break None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        if status.is_none() || said.is_err() {
            // It may have ended by itself just now.
            if let Ok(group) = i32::try_from(child.id()) {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            let _ = child.wait();
        }
        // What an error calls the program; its file stands in front.
        let called = format!("this program, run with {},", arguments.join(" "));
        let patience = Duration::from_millis(200);
        let complaint = complaints.recv_timeout(patience).unwrap_or_default();
        // Programs that ask a cloud handle secrets, and some tell of them.
        let complaint = redact_strictly(&String::from_utf8_lossy(&complaint), &[]);
        let complaint = escape_line(&complaint).to_string();
        if too_much {
            let what = format!("{called} printed more than {}", read::size(OUTPUT_LIMIT));
            return Err(self.wrong(what, &complaint));
        }
        match (status, said) {
            (Some(status), Ok(said)) if status.success() => {
                let text = String::from_utf8(said);
                let text = text.map_err(|_| {
                    self.wrong(format!("what {called} printed is not UTF-8"), &complaint)
                })?;
                Ok((text, complaint))
            }
            (Some(status), Ok(_)) => {
                Err(self.wrong(format!("{called} failed: {status}"), &complaint))
            }
            _ => Err(self.wrong(
                format!(
                    "{called} did not end within {} seconds for all of its calls",
                    self.limit.as_secs()
                ),
                &complaint,
            )),
        }
    }
}

/// Reads a stream on a thread of its own, which a child that never ends cannot hold up.
fn collect(stream: Option<impl Read + Send + 'static>, limit: u64) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before a fault still counts.
            let _ = stream.by_ref().take(limit).read_to_end(&mut bytes);
            let more = bytes.len() as u64 >= limit;
            // The receiver may be gone.
            let _ = send.send(bytes);
            if more {
                let _ = io::copy(&mut stream, &mut io::sink());
            }
        }
    });
    receive
}

#[cfg(test)]
mod tests {
    use super::super::{NodeSettings, Source, built_in, load};
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Calls `read` with a program of this text.
    fn program<T>(
        script: &str,
        mode: u32,
        read: impl Fn(&Path) -> Result<T, InventoryError>,
    ) -> Result<T, InventoryError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        loop {
            let answer = read(&path);
            // Another test that starts a program may still hold what was just written open.
            let busy = |error: &InventoryError| error.to_string().contains("busy");
            if !answer.as_ref().is_err_and(busy) {
                return answer;
            }
        }
    }

    fn run(script: &str, mode: u32) -> Result<Vec<String>, String> {
        let fleet = program(script, mode, |path| {
            let source = Source::File(path.to_path_buf());
            load(&[source], &NodeSettings::default(), &built_in("me"))
        });
        let fleet = fleet.map_err(|error| error.to_string())?;
        let nodes = fleet.nodes().iter();
        Ok(nodes
            .map(|node| format!("{}@{}", node.user, node.name))
            .collect())
    }

    #[test]
    fn a_programs_complaint_is_told_without_its_secrets() {
        let script = "#!/bin/sh\necho 'GET https://ci:hunter2@cmdb.example/?token=hunter2: 403' >&2; exit 1\n";
        let error = run(script, 0o755).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(
            error.contains("@cmdb.example/") && error.contains("403"),
            "{error}"
        );
    }

    #[test]
    fn a_program_is_run_and_its_json_read() {
        let script = "#!/bin/sh\n[ \"$1\" = --list ] && echo '{\"g\": {\"hosts\": [\"a\"]}, \"_meta\": {\"hostvars\": {\"a\": {\"ansible_user\": \"ops\"}}}}'\n";
        assert_eq!(run(script, 0o755).unwrap(), ["ops@a"]);
        let script = "#!/bin/sh\n[ \"$1\" = --list ] && echo '{\"g\": [\"a\", \"b\"]}' && exit\n[ $2 = b ] && echo '{\"ansible_user\": \"x\"}'\nexit 0\n";
        assert_eq!(run(script, 0o755).unwrap(), ["me@a", "x@b"]);
    }

    #[test]
    fn root_is_kept_from_a_program_in_a_folder_of_all() {
        use std::os::unix::fs::PermissionsExt as _;

        if !geteuid().is_root() {
            // Who is not root runs what they name, as with every other program.
            let script = "#!/bin/sh\necho '{\"g\": [\"a\"], \"_meta\": {\"hostvars\": {}}}'\n";
            assert_eq!(run(script, 0o777).unwrap(), ["me@a"]);
            return;
        }
        let script = "#!/bin/sh\ntouch \"$0.ran\"\necho '{}'\n";
        let error = program(script, 0o755, |path| {
            let folder = path.parent().unwrap();
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
            let read = read(path, &mut World::new(None));
            assert!(!path.with_extension("ran").exists());
            read
        });
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("other users may write to its folder"),
            "{error}"
        );
    }

    #[test]
    fn what_goes_wrong_in_a_program_is_told() {
        for (script, mode, part) in [
            (
                "#!/bin/sh\necho no key >&2; exit 3\n",
                0o755,
                "run with --list, failed: exit status: 3; it said: no key",
            ),
            (
                "#!/bin/sh\necho a: b\n",
                0o755,
                "--list:1:1: this is not JSON",
            ),
            ("#!/bin/sh\necho '{\"g\": 1}'\n", 0o755, "must be a map"),
            ("#!/bin/sh\necho '{}'\n", 0o644, "not executable"),
            (
                "#!/no/such/program\n",
                0o755,
                "no interpreter \"/no/such/program\"; install it",
            ),
            ("#!/bin/sh\r\necho {}\r\n", 0o755, "end as on Windows"),
            ("#!/bin/sh\nprintf '\\377'\n", 0o755, "not UTF-8"),
            ("#!/bin/sh\nkill -9 $$\n", 0o755, "failed: signal: 9"),
        ] {
            let error = run(script, mode).unwrap_err();
            assert!(error.contains(part), "{script}: {error}");
        }
        assert_eq!(run("a\n", 0o755).unwrap(), ["me@a"]);
    }

    #[test]
    fn what_a_program_without_end_has_started_is_ended_with_it() {
        for script in ["sleep 600 & echo $! >&2; wait", "sleep 600 & echo $! >&2"] {
            let limit = Duration::from_secs(2);
            let error = program(&format!("#!/bin/sh\n{script}\n"), 0o755, |path| {
                read_within(path, &mut World::new(None), limit)
            });
            let error = error.unwrap_err().to_string();
            let digits: String = error
                .rsplit("it said: ")
                .next()
                .unwrap()
                .chars()
                .take_while(char::is_ascii_digit)
                .collect();
            let process = Path::new("/proc").join(&digits);
            assert!(!digits.is_empty(), "{error}");
            // A killed process may still be there for a moment, as a zombie.
            let is_gone = || {
                let state = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
                state.is_empty() || state.contains(") Z ")
            };
            let started = Instant::now();
            while !is_gone() && started.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(is_gone(), "{script}");
        }
    }

    #[test]
    fn a_program_without_end_is_ended() {
        for (script, part) in [
            ("exec sleep 600", "did not end within 2 seconds"),
            // A process that holds the output open counts as the program.
            ("sleep 7 & exit 0", "did not end within 2 seconds"),
            ("yes no >&2 & exec sleep 600", "it said: no\\nno\\n"),
            ("exec yes", "printed more than 64 MiB"),
        ] {
            let started = Instant::now();
            let limit = Duration::from_secs(2);
            let error = program(&format!("#!/bin/sh\n{script}\n"), 0o755, |path| {
                read_within(path, &mut World::new(None), limit)
            });
            let error = error.unwrap_err().to_string();
            // The file's name comes first; complaints are cut.
            assert!(
                error.contains("/program: this program, run with --list,"),
                "{error}"
            );
            assert!(error.contains(part), "{script}: {error}");
            assert!(error.len() < 5000, "{}", error.len());
            assert!(started.elapsed() < Duration::from_secs(60), "{script}");
        }
    }
}
