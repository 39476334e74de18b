//! A node that is this machine: a login shell as a local process, fake clients in front of `PATH`, and
//! the scenarios that every shell has to pass.

#![allow(dead_code)] // each test file uses its part

pub mod daemon;
pub mod hostile;
pub mod local_pulls;
pub mod runtime;
pub mod scenarios;
pub mod unwatched;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prepull::model::{ExitStatus, Failure, FailureKind, Node, Stage};
use prepull::ports::{Channel, ChannelEvent, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

/// The shells of a node: who gets our line, and who is `sh`.
#[derive(Debug, Clone)]
pub struct Shells {
    /// The login shell; it gets `-c LINE`.
    pub login: &'static str,
    /// What `sh` is: a program and its first arguments.
    pub sh: &'static [&'static str],
}

pub const DASH: Shells = Shells {
    login: "dash",
    sh: &["dash"],
};

/// One made-up node and what it leaves behind.
pub struct Place {
    pub folder: tempfile::TempDir,
    /// In the environment of every process of this node.
    pull_token: String,
    shells: Shells,
    environment: Vec<(String, String)>,
}

/// The clients; they log what they are asked and do what `$FAKE/pull` says.
const CLIENT: &str = r#"#!/bin/sh
if [ "$1" = info ] && [ -e "$FAKE/info" ]; then cat "$FAKE/info"; exit; fi
if [ "$1" = info ]; then printf '{\n  "containerdRootDir": "%s",\n}\n' "$FAKE/store"; exit; fi
echo "$(basename "$0") $*" >>"$FAKE/log"
readlink /proc/self/fd/2 >>"$FAKE/pipes"
[ -z "$DOCKER_CONFIG" ] || echo "$DOCKER_CONFIG/config.json" >>"$FAKE/pipes"
case $1 in
    version) cat "$FAKE/version"; exit "$(cat "$FAKE/version-exit")" ;;
    inspect) if [ -e "$FAKE/held" ]; then cat "$FAKE/held"; exit 0; fi; echo "no such image: $2" >&2; exit 1 ;;
    socket) exit 1 ;;
    pull)
        . "$FAKE/pull"
        # A name that leads to prepull is not the image's own.
        case $2 in 127.0.0.1:*) echo sha256:0123 >"$FAKE/local" ;; *) echo sha256:0123 >"$FAKE/held" ;; esac
        exit 0
        ;;
    naming)
        [ ! -e "$FAKE/naming-$2" ] || . "$FAKE/naming-$2"
        case $2 in
            name) mv "$FAKE/local" "$FAKE/held" ;;
            forget) rm -f "$FAKE/local" ;;
        esac
        exit
        ;;
    system) . "$FAKE/system"; echo sha256:0123 >"$FAKE/held"; exit 0 ;;
    *) echo "$*" >>"$FAKE/unknown"; exit 99 ;;
esac
"#;

impl Place {
    pub fn new(shells: &Shells) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self {
            pull_token: prepull::model::pull_token(),
            shells: shells.clone(),
            environment: vec![],
            folder,
        };
        for sub in ["bin", "home/.config/fish", "fake"] {
            fs::create_dir_all(place.folder.path().join(sub)).unwrap();
        }
        place.write("fake/pull", ":");
        place.write("fake/version", "1.0");
        place.write("fake/version-exit", "0");
        for client in ["docker", "crictl"] {
            place.program(client, CLIENT);
        }
        match shells.sh {
            ["busybox"] => {
                let busybox = find("busybox", "busybox");
                let applets = std::process::Command::new(&busybox)
                    .arg("--list")
                    .output()
                    .unwrap();
                for applet in String::from_utf8(applets.stdout).unwrap().lines() {
                    let link = place.folder.path().join("bin").join(applet);
                    std::os::unix::fs::symlink(&busybox, link).unwrap();
                }
            }
            [program] => {
                let link = place.folder.path().join("bin/sh");
                std::os::unix::fs::symlink(find(program, program), link).unwrap();
            }
            [program, arguments @ ..] => place.program(
                "sh",
                &format!(
                    "#!/bin/sh\nexec {} {} \"$@\"\n",
                    find(program, program).display(),
                    arguments.join(" ")
                ),
            ),
            [] => panic!("no sh"),
        }
        place
    }

    /// The same node with other shells.
    pub fn with_shells(mut self, shells: Shells) -> Self {
        self.shells = shells;
        self
    }

    /// Sets a variable for every session to come.
    pub fn environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.into(), value.into()));
    }

    /// Login files that print, on both streams and with a last line that does not end.
    pub fn noisy(mut self) -> Self {
        let noise =
            "echo Welcome to $HOME; echo warning >&2; printf 'prepull-0 hello\\nno newline'\n";
        for file in ["noise", "home/.zshenv", "home/.config/fish/config.fish"] {
            self.write(file, noise);
        }
        self.write(
            "home/.tcshrc",
            "echo Welcome to $HOME\necho -n 'prepull-0 hello'\n",
        );
        let file = self.path("noise").display().to_string();
        self.environment.push(("BASH_ENV".into(), file));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        assert!(!self.path(name).is_symlink(), "{name} leads elsewhere");
        fs::write(self.path(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_default()
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    pub fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// An executable script. Another process writes it: a descriptor of ours could be open for writing
    /// in a child that another test forks just now, and then nobody may execute the file.
    pub fn program(&self, name: &str, text: &str) {
        let source = self.path("script");
        self.write("script", text);
        let file = self.path("bin").join(name);
        // Never write through a link: it leads to a program of this machine.
        let _ = fs::remove_file(&file);
        let made = std::process::Command::new("cp")
            .arg("--remove-destination")
            .args([&source, &file])
            .status();
        assert!(made.unwrap().success());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn session(&self) -> LocalSession {
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let mut environment = vec![
            ("PATH".into(), path),
            ("HOME".into(), self.path("home").display().to_string()),
            ("FAKE".into(), self.path("fake").display().to_string()),
            ("PREPULL_TEST".into(), self.pull_token.clone()),
            ("LC_ALL".into(), "C.UTF-8".into()),
            // Names that our program uses: they must not carry a secret on.
            ("secret".into(), "old".into()),
            ("value".into(), "old".into()),
            ("line".into(), "old".into()),
            ("secret_2".into(), "old".into()),
        ];
        environment.extend(self.environment.iter().cloned());
        LocalSession {
            login: find(self.shells.login, self.shells.login),
            environment,
        }
    }

    /// The processes of this node.
    pub fn processes(&self) -> Vec<(u32, String)> {
        processes(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            contains(&environ, self.pull_token.as_bytes())
        })
    }

    /// The process that runs our program on the node: not the login shell, whose line is quoted, and the parent of its
    /// own subshells. Numbers of processes begin again, so the lowest may be any of them.
    pub fn main_shell(&self) -> u32 {
        let mut shells = self.processes();
        shells.retain(|(_, line)| line.contains("IFS= read -r l") && !line.contains("'IFS="));
        let is_shell = |parent: u32| shells.iter().any(|(pid, _)| *pid == parent);
        let parent = |pid: u32| -> Option<u32> {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(')')?
                .1
                .split_whitespace()
                .nth(1)?
                .parse()
                .ok()
        };
        let mut all = shells.iter().map(|(pid, _)| *pid);
        all.find(|pid| parent(*pid).is_some_and(|parent| !is_shell(parent)))
            .unwrap()
    }

    /// The process that runs the pull on its own.
    pub fn supervisor(&self) -> u32 {
        let folders = self.folders();
        let named = |folder: &PathBuf| fs::read_to_string(folder.join("supervisor")).ok();
        folders
            .iter()
            .find_map(named)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    /// What shows the pull: the number of a process.
    pub fn viewer(&self) -> String {
        let folders = self.folders();
        let named = |folder: &PathBuf| fs::read_to_string(folder.join("viewer")).ok();
        folders.iter().find_map(named).unwrap_or_default()
    }

    /// Waits until the pull has begun.
    pub async fn started(&self) {
        self.appears("fake/started").await;
    }

    /// Waits until the pull has begun and our shell shows it: before that a signal may pass it by.
    pub async fn shown(&self) {
        self.started().await;
        let is_shown = || {
            let folders = self.folders();
            folders.iter().any(|folder| folder.join("tail").exists())
        };
        for _ in 0..3000 {
            if is_shown() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing shows the pull: {:?}", self.folders());
    }

    pub async fn appears(&self, name: &str) {
        let began = Instant::now();
        while !self.exists(name) {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{name} does not appear; log:\n{}",
                self.text("fake/log")
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// No process, no directory, no credential is left, and no fake was asked what it does not know.
    pub async fn assert_clean(&self) {
        let began = Instant::now();
        loop {
            let processes = self.processes();
            let folders = self.folders();
            if processes.is_empty() && folders.is_empty() {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{:?}: left behind: {processes:?} {folders:?}",
                self.shells
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(self.text("fake/unknown"), "", "asked of a fake client");
    }

    /// The private directories of this node's calls that still exist.
    pub fn folders(&self) -> Vec<PathBuf> {
        let pipes = self.text("fake/pipes");
        let mut folders: Vec<PathBuf> = pipes
            .lines()
            // What gives a name back when a pull has failed has no pipe.
            .filter(|pipe| *pipe != "/dev/null")
            .filter_map(|pipe| Path::new(pipe).parent())
            .filter(|folder| folder.exists())
            .map(Path::to_path_buf)
            .collect();
        folders.dedup();
        folders
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Only a failed test leaves any.
        for (pid, _) in self.processes() {
            signal(pid, "KILL");
        }
    }
}

pub fn signal(pid: u32, name: &str) {
    let _ = std::process::Command::new("/bin/sh")
        .args(["-c", &format!("kill -s {name} {pid} 2>/dev/null")])
        .status();
}

pub fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Processes with their command lines.
pub fn processes(choose: impl Fn(u32) -> bool) -> Vec<(u32, String)> {
    let mut found = vec![];
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        if choose(pid) {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

/// Where a program is; fails with the Debian package to install.
pub fn find(program: &str, package: &str) -> PathBuf {
    if program.starts_with('/') {
        return program.into();
    }
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{program} is missing: install the Debian package {package}"))
}

pub fn node(become_root: bool) -> Node {
    Node {
        name: "here".into(),
        address: "here".into(),
        port: 22,
        user: "me".into(),
        identities: vec![],
        jump: vec![],
        runtime: None,
        endpoint: None,
        become_root,
        become_password: None,
        ssh_settings: 0,
        labels: BTreeMap::new(),
        facts: BTreeMap::new(),
        groups: vec![],
    }
}

/// A connection that is no connection: each channel is a login shell on this machine.
pub struct LocalSession {
    login: PathBuf,
    environment: Vec<(String, String)>,
}

impl Session for LocalSession {
    type Channel = LocalChannel;

    async fn exec(&mut self, line: &str) -> Result<LocalChannel, Failure> {
        // As sshd starts it: a shell cannot trap what was ignored when it started, as under nohup.
        let mut child = Command::new("/usr/bin/env")
            .arg("--default-signal=HUP,INT,QUIT,TERM")
            .arg(&self.login)
            .args(["-c", line])
            .env_clear()
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = Arc::new(Mutex::new(child.stdin.take()));
        let (send, events) = mpsc::channel(4);
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let out = send.clone();
        let stdout = tokio::spawn(async move {
            let mut buffer = vec![0; 8192];
            while let Ok(count @ 1..) = stdout.read(&mut buffer).await {
                let _ = out
                    .send(ChannelEvent::Stdout(buffer[..count].to_vec()))
                    .await;
            }
        });
        let err = send.clone();
        let stderr = tokio::spawn(async move {
            let mut buffer = vec![0; 8192];
            while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
                let _ = err
                    .send(ChannelEvent::Stderr(buffer[..count].to_vec()))
                    .await;
            }
        });
        let closing = input.clone();
        tokio::spawn(async move {
            let status = child.wait().await.unwrap();
            // sshd closes the channel once the command has ended: its children see their input end.
            closing.lock().await.take();
            let exit = match status.signal() {
                Some(number) => ExitStatus::Signal(number.to_string()),
                None => ExitStatus::Code(u32::try_from(status.code().unwrap()).unwrap()),
            };
            let _ = send.send(ChannelEvent::Exited(exit)).await;
        });
        Ok(LocalChannel {
            input,
            events,
            readers: [stdout, stderr],
        })
    }

    async fn close(self) {}
}

/// A login shell as a local process. Dropping it closes its pipes, as a lost connection does.
pub struct LocalChannel {
    input: Arc<Mutex<Option<ChildStdin>>>,
    events: mpsc::Receiver<ChannelEvent>,
    readers: [JoinHandle<()>; 2],
}

impl Drop for LocalChannel {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
        let input = self.input.clone();
        tokio::spawn(async move { input.lock().await.take() });
    }
}

impl Channel for LocalChannel {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        let lost = || {
            Failure::new(
                FailureKind::ConnectionLost,
                Stage::Connect,
                "the pipe broke",
            )
        };
        let mut input = self.input.lock().await;
        let pipe = input.as_mut().ok_or_else(lost)?;
        pipe.write_all(&bytes).await.map_err(|_| lost())?;
        pipe.flush().await.map_err(|_| lost())
    }

    async fn next(&mut self) -> Result<Option<ChannelEvent>, Failure> {
        Ok(self.events.recv().await)
    }
}
