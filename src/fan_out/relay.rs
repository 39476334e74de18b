//! One relay on a node: how its program gets there and starts, and what it and prepull say to each other.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prepull_relay::protocol::{
    FromRelay, MOST_FROM_RELAY, Ready, Start, Stats, ToRelay, Words as _,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::programs::Programs;
use crate::model::text::{escape_line, truncate_bytes};
use crate::model::{Failure, FailureKind, Stage};
use crate::node;
use crate::ports::{Channel, ChannelEvent, Session};

/// What finds a place for the relay on the node, takes it in and starts it.
const SCRIPT: &str = include_str!("relay.sh");
/// What its lines begin with: start-up files of the login shell may print others.
const MARK: &str = "prepull-relay ";
/// How long the relay may take to get to the node and to start.
const STARTING: Duration = Duration::from_secs(120);
/// How long a relay lives without a word.
pub(super) const LEASE: Duration = Duration::from_secs(30);
/// How often it gets one.
const BEAT: Duration = Duration::from_secs(5);
/// How long it may take to end once it was told to.
const ENDING: Duration = Duration::from_secs(5);
/// How much of standard error is kept.
const WORDS_KEPT: usize = 2 << 10;

/// What a node says about itself before the relay is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// As `uname -m` names it.
    pub machine: String,
    /// Bytes that the relay may take to keep what it passes on: a quarter of what is free where images are on that disk too.
    pub free: u64,
    /// The node's address as seen by itself: where its SSH server was reached.
    pub address: IpAddr,
    /// Where the relay keeps what it passes on.
    pub spool: String,
}

/// A relay that has started.
pub(super) struct Relay<C> {
    lines: Lines<C>,
    pub(super) ready: Ready,
}

/// What a node prints, line by line.
struct Lines<C> {
    channel: C,
    buffer: Vec<u8>,
    words: Vec<u8>,
}

/// Sends the relay to a node and starts it, as `start` says.
///
/// # Errors
/// Of kind node-setup where it cannot be done on this node, else of the connection.
pub(super) async fn start<S: Session>(
    session: &mut S,
    programs: &Programs,
    start: impl FnOnce(&Here) -> Result<Start, String> + Send,
) -> Result<(Relay<S::Channel>, Here), Failure> {
    let starting = started(session, programs, start);
    let too_late = |_| {
        let limit = STARTING.as_secs();
        impossible(&format!("it did not start within {limit} s"))
    };
    // In a place of its own, which is given back once it is done.
    timeout(STARTING, Box::pin(starting))
        .await
        .map_err(too_late)?
}

async fn started<S: Session>(
    session: &mut S,
    programs: &Programs,
    start: impl FnOnce(&Here) -> Result<Start, String> + Send,
) -> Result<(Relay<S::Channel>, Here), Failure> {
    let (line, script) = node::script(SCRIPT);
    let mut lines = Lines {
        channel: session.exec(line).await?,
        buffer: Vec::new(),
        words: Vec::new(),
    };
    lines.channel.write(Bytes::from(script)).await?;
    let here = here(&lines.marked("here ").await?).map_err(|why| impossible(&why))?;
    let program = programs.of(&here.machine).map_err(|why| impossible(&why))?;
    let start = start(&here).map_err(|why| impossible(&why))?;
    let announced = format!("{} {}\n", program.bytes.len(), program.sha256);
    lines.channel.write(Bytes::from(announced)).await?;
    lines.channel.write(program.bytes.clone()).await?;
    // Nothing more before that: `head` may read ahead.
    lines.marked("started").await?;
    lines.say(&ToRelay::Start(start)).await?;
    match lines.said().await? {
        Some(FromRelay::Ready(ready)) => Ok((Relay { lines, ready }, here)),
        Some(FromRelay::Failed { why }) => Err(impossible(&escape_line(&why))),
        Some(_) => Err(impossible("its first word is not that it is ready")),
        None => Err(lines.ended()),
    }
}

impl<C: Channel> Relay<C> {
    /// Says to it what comes from `orders`, and gives what it says to `heard`, until it ends or the last sender of orders
    /// is gone. Returns why it ended.
    pub(super) async fn attend<H>(
        mut self,
        mut orders: mpsc::UnboundedReceiver<ToRelay>,
        heard: &mpsc::Sender<H>,
        wrap: impl Fn(FromRelay) -> H,
        sent: &Mutex<Stats>,
    ) -> String {
        let mut beat = Instant::now() + BEAT;
        loop {
            let said = tokio::select! {
                said = self.lines.said() => said,
                order = orders.recv() => {
                    let Some(order) = order else {
                        return self.end(sent).await;
                    };
                    beat = Instant::now() + BEAT;
                    match self.lines.say(&order).await {
                        Ok(()) => continue,
                        Err(lost) => Err(lost),
                    }
                }
                () = sleep_until(beat) => {
                    beat = Instant::now() + BEAT;
                    match self.lines.say(&ToRelay::Beat {}).await {
                        Ok(()) => continue,
                        Err(lost) => Err(lost),
                    }
                }
            };
            match said {
                Ok(Some(FromRelay::Failed { why })) => return escape_line(&why).into_owned(),
                Ok(Some(FromRelay::Stats(stats))) => {
                    count(sent, stats);
                    let _ = heard.send(wrap(FromRelay::Stats(stats))).await;
                }
                // Nothing hears it only when the run is over.
                Ok(Some(said)) => drop(heard.send(wrap(said)).await),
                Ok(None) => return self.lines.ended().detail,
                Err(lost) => return lost.detail,
            }
        }
    }

    /// Tells it to end, and waits until it has.
    async fn end(mut self, sent: &Mutex<Stats>) -> String {
        let ending = async {
            self.lines.say(&ToRelay::End {}).await?;
            while let Some(said) = self.lines.said().await? {
                if let FromRelay::Stats(stats) = said {
                    count(sent, stats);
                }
            }
            Ok::<_, Failure>(())
        };
        match timeout(ENDING, ending).await {
            Ok(_) => "it was told to end".to_string(),
            Err(_) => "it did not end when it was told to".to_string(),
        }
    }
}

impl<C: Channel> Lines<C> {
    async fn say(&mut self, order: &ToRelay) -> Result<(), Failure> {
        self.channel.write(Bytes::from(order.line())).await
    }

    /// The rest of the line of the script that begins with this word. A refusal is an error.
    async fn marked(&mut self, word: &str) -> Result<String, Failure> {
        loop {
            let Some(line) = self.line().await? else {
                return Err(self.ended());
            };
            let line = String::from_utf8_lossy(&line).into_owned();
            let Some(said) = line.strip_prefix(MARK) else {
                continue;
            };
            if let Some(why) = said.strip_prefix("refused ") {
                return Err(impossible(&escape_line(why)));
            }
            if let Some(rest) = said.strip_prefix(word) {
                return Ok(rest.to_string());
            }
        }
    }

    /// What the relay says next; `None` when it has ended. Cancel-safe.
    async fn said(&mut self) -> Result<Option<FromRelay>, Failure> {
        loop {
            let Some(line) = self.line().await? else {
                return Ok(None);
            };
            match FromRelay::read(&line) {
                Ok(Some(said)) => return Ok(Some(said)),
                Ok(None) => {}
                Err(_) => {
                    let line = truncate_bytes(&line, 200);
                    return Err(impossible(&format!("it said what has no meaning: {line}")));
                }
            }
        }
    }

    /// The next line without its end; `None` when there is none any more. Cancel-safe: all state is in `self`.
    async fn line(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.buffer.len() > MOST_FROM_RELAY {
                return Err(impossible("it sent a line without an end"));
            }
            match self.channel.next().await? {
                Some(ChannelEvent::Stdout(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(ChannelEvent::Stderr(bytes)) => {
                    let room = WORDS_KEPT.saturating_sub(self.words.len());
                    self.words.extend(bytes.into_iter().take(room));
                }
                Some(ChannelEvent::Exited(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// What it means that the node printed its last line.
    fn ended(&self) -> Failure {
        let words = truncate_bytes(self.words.trim_ascii(), WORDS_KEPT);
        match words.is_empty() {
            true => impossible("it ended"),
            false => impossible(&format!("it ended, and printed: {words}")),
        }
    }
}

fn count(sent: &Mutex<Stats>, stats: Stats) {
    *sent.lock().unwrap_or_else(PoisonError::into_inner) = stats;
}

/// Reads `MACHINE FREE-KIBIBYTES ADDRESS SPOOL`.
fn here(line: &str) -> Result<Here, String> {
    let mut words = line.splitn(4, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (machine, free, address, spool) = (word(), word(), word(), word());
    let address = address.parse().map_err(|_| {
        let address = escape_line(address);
        format!(
            "the node does not tell at which address it was reached (SSH_CONNECTION): \"{address}\""
        )
    })?;
    Ok(Here {
        machine: escape_line(machine).into_owned(),
        free: free.parse::<u64>().unwrap_or_default().saturating_mul(1024),
        address,
        spool: spool.to_string(),
    })
}

/// Why there is no relay on a node.
pub(super) fn impossible(why: &str) -> Failure {
    let detail = format!("no relay on this node: {why}");
    Failure::new(FailureKind::NodeSetup, Stage::Pull, detail)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::path::PathBuf;
    use std::process::{Command, Stdio};

    use sha2::{Digest as _, Sha256};

    use super::*;

    /// What the script prints when it is sent this after its first line, or cut off where nothing is; and what it leaves.
    fn scripted(sent: Option<&[u8]>) -> (String, Vec<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT])
            .env("XDG_RUNTIME_DIR", folder.path())
            .env("SSH_CONNECTION", "10.0.0.1 4000 10.0.0.3 22")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = shell.stdin.take().unwrap();
        let mut stdout = BufReader::new(shell.stdout.take().unwrap());
        let (mut said, mut rest) = (String::new(), String::new());
        stdout.read_line(&mut said).unwrap();
        assert!(said.starts_with("prepull-relay here "), "{said}");
        here(said.trim_end().strip_prefix("prepull-relay here ").unwrap()).unwrap();
        match sent {
            Some(sent) => {
                stdin.write_all(sent).unwrap();
                drop(stdin);
                stdout.read_to_string(&mut rest).unwrap();
            }
            None => {
                stdin.write_all(b"1000 abc\nbegun").unwrap();
                drop((stdout, stdin));
            }
        }
        shell.wait().unwrap();
        let left = std::fs::read_dir(folder.path()).unwrap();
        (rest, left.map(|entry| entry.unwrap().path()).collect())
    }

    #[test]
    fn the_relay_is_started_if_it_arrives_whole_and_nothing_is_left_if_not() {
        let program = b"#!/bin/sh\necho it runs\nrm -f \"$0\"\n";
        let sum: String = Sha256::digest(program)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let announced = format!("{} {sum}\n", program.len());
        let whole = [announced.as_bytes(), program].concat();
        let (said, left) = scripted(Some(&whole));
        assert_eq!(said, "prepull-relay started\nit runs\n");
        assert_eq!(left, Vec::<PathBuf>::new());

        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() = b'x';
        let (said, left) = scripted(Some(&damaged));
        assert!(
            said.starts_with("prepull-relay refused the relay arrived damaged"),
            "{said}"
        );
        assert_eq!(left, Vec::<PathBuf>::new());

        // prepull was killed, and nobody hears what the script says of it.
        let (_, left) = scripted(None);
        assert_eq!(left, Vec::<PathBuf>::new());
    }

    /// What the script prints first, with other programs in the way of the node's.
    fn with_programs(programs: &[(&str, &str)]) -> String {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        for (name, text) in programs {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let own = std::env::var("PATH").unwrap();
        let output = Command::new("sh")
            .args(["-c", SCRIPT])
            .env("PATH", format!("{}:{own}", folder.path().display()))
            .env("SSH_CONNECTION", "10.0.0.1 4000 10.0.0.3 22")
            .env_remove("XDG_RUNTIME_DIR")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        said.lines().next().unwrap().to_string()
    }

    #[test]
    fn a_refusal_says_what_is_wrong_with_each_folder() {
        let full = "echo \"mktemp: failed to create file via template '$1': No space left on device\" >&2; exit 1";
        let said = with_programs(&[("mktemp", full)]);
        let refused = "prepull-relay refused no folder where a program can be put and run; ";
        assert!(said.starts_with(refused), "{said}");
        assert!(said.contains("; /tmp: No space left on device"), "{said}");
    }

    #[test]
    fn a_disk_with_images_has_room_for_them_too() {
        let df = |images: &str| {
            let line = "echo /dev/sda1 9000 5000 4000 56%";
            format!(
                "echo Filesystem; case $2 in /var/lib/*) {line} {images} ;; *) {line} / ;; esac"
            )
        };
        let free = |df: String| {
            let said = with_programs(&[("df", &df)]);
            here(said.strip_prefix("prepull-relay here ").unwrap())
                .unwrap()
                .free
        };
        assert_eq!(free(df("/var/lib")), 4000 << 10);
        assert_eq!(free(df("/")), 1000 << 10);
    }

    #[test]
    fn what_a_node_says_of_itself_is_read_and_not_believed_blindly() {
        let said = here("x86_64 1024 10.0.0.3 /var/tmp").unwrap();
        assert_eq!(
            said,
            Here {
                machine: "x86_64".into(),
                free: 1 << 20,
                address: [10, 0, 0, 3].into(),
                spool: "/var/tmp".into(),
            }
        );
        let none = here("x86_64 1024 - /var/tmp").unwrap_err();
        assert!(none.contains("SSH_CONNECTION"), "{none}");
        assert_eq!(here("a\u{1b}[2J 7 ::1 /").unwrap().machine, "a\\u{1b}[2J");
        here("").unwrap_err();
    }
}
