//! What a command printed, and where that is kept: `exec` on a large fleet brings more than memory should hold.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::command::{CommandOutput, ExitStatus};

/// All that one run keeps of what commands print: so much disk is at hand nearly everywhere.
const RUN_BUDGET: usize = 1 << 30;
/// The most that is kept of one stream of one node.
const STREAM_LIMIT: usize = 1 << 20;
/// What is no longer than this may stay in memory ...
const SMALL: usize = 4 << 10;
/// ... until all of it together is as long as this.
const MEMORY_BUDGET: usize = 8 << 20;

/// What the operator's command printed on a node, and how it ended. The bytes are the node's: never trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// How it ended.
    pub exit: ExitStatus,
    /// Standard output, perhaps cut.
    pub stdout: Kept,
    /// Standard error, perhaps cut.
    pub stderr: Kept,
    /// Whether something was cut because it was too long.
    pub truncated: bool,
}

impl ExecOutput {
    /// Whether it exited with status 0.
    pub fn success(&self) -> bool {
        self.exit == ExitStatus::Code(0)
    }

    /// Why some of it could not be kept, though it came.
    pub fn lost(&self) -> Option<&str> {
        [&self.stdout, &self.stderr]
            .into_iter()
            .find_map(|kept| kept.lost.as_deref())
    }

    /// The first bytes of each stream, in memory.
    ///
    /// # Errors
    /// It cannot be read back.
    pub fn excerpt(&self, limit: usize) -> io::Result<Self> {
        Ok(Self {
            exit: self.exit.clone(),
            stdout: self.stdout.excerpt(limit)?,
            stderr: self.stderr.excerpt(limit)?,
            truncated: self.truncated || self.stdout.length.max(self.stderr.length) > limit as u64,
        })
    }
}

impl From<CommandOutput> for ExecOutput {
    fn from(output: CommandOutput) -> Self {
        Self {
            exit: output.exit,
            stdout: output.stdout.into(),
            stderr: output.stderr.into(),
            truncated: output.truncated,
        }
    }
}

/// Bytes that are in memory, or in a run's [`Spool`].
#[derive(Clone)]
pub struct Kept {
    place: Place,
    length: u64,
    digest: [u8; 32],
    /// How many there were before an excerpt was made of them.
    of: Option<u64>,
    lost: Option<String>,
}

#[derive(Clone)]
enum Place {
    Memory(Arc<[u8]>),
    Spool { file: Arc<File>, at: u64 },
}

impl Kept {
    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many there were, where only an excerpt is left.
    pub fn excerpt_of(&self) -> Option<u64> {
        self.of
    }

    /// What tells these bytes from others.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The first `limit` bytes.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub fn read(&self, limit: usize) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.length).map_or(limit, |length| length.min(limit));
        match &self.place {
            Place::Memory(bytes) => Ok(bytes[..length].to_vec()),
            Place::Spool { file, at } => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, *at)
                    .map_err(|error| in_spool("read back", &error))?;
                Ok(bytes)
            }
        }
    }

    fn excerpt(&self, limit: usize) -> io::Result<Self> {
        if self.length <= limit as u64 && matches!(self.place, Place::Memory(_)) {
            return Ok(self.clone());
        }
        let is_cut = self.length > limit as u64;
        Ok(Self {
            of: self.of.or(is_cut.then_some(self.length)),
            lost: self.lost.clone(),
            ..self.read(limit)?.into()
        })
    }
}

impl From<Vec<u8>> for Kept {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            length: bytes.len() as u64,
            digest: Sha256::digest(&bytes).into(),
            place: Place::Memory(bytes.into()),
            of: None,
            lost: None,
        }
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        (self.length, self.digest, self.of, &self.lost)
            == (other.length, other.digest, other.of, &other.lost)
    }
}

impl Eq for Kept {}

impl fmt::Debug for Kept {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.read(80).unwrap_or_default();
        write!(
            out,
            "{} bytes: {:?}",
            self.length,
            String::from_utf8_lossy(&start)
        )
    }
}

/// Where a run puts what is too much for memory: one file that only this process can reach, and that is gone with it.
#[derive(Debug)]
pub struct Spool {
    /// The most bytes of one stream.
    share: usize,
    folders: Vec<PathBuf>,
    file: OnceLock<Result<Arc<File>, String>>,
    end: AtomicU64,
    in_memory: AtomicUsize,
}

impl Spool {
    /// For a run on so many nodes, each of which prints two streams and gets the same share of the run's budget. The
    /// file is made in `$TMPDIR`, else in `/var/tmp`, as `/tmp` may be memory itself; and not before it is needed.
    pub fn for_nodes(nodes: usize) -> Self {
        let chosen = std::env::var_os("TMPDIR").filter(|folder| !folder.is_empty());
        let folders = match chosen {
            Some(folder) => vec![folder.into()],
            None => vec![PathBuf::from("/var/tmp"), PathBuf::from("/tmp")],
        };
        Self::within(folders, nodes)
    }

    fn within(folders: Vec<PathBuf>, nodes: usize) -> Self {
        Self {
            share: (RUN_BUDGET / 2 / nodes.max(1)).min(STREAM_LIMIT),
            folders,
            file: OnceLock::new(),
            end: AtomicU64::new(0),
            in_memory: AtomicUsize::new(0),
        }
    }

    /// The most bytes of one stream of one node.
    pub fn share(&self) -> usize {
        self.share
    }

    /// A place for `length` bytes that are about to come.
    pub fn place_for(&self, length: usize) -> SpoolWriter {
        let used = self.in_memory.fetch_add(length, Ordering::Relaxed);
        let target = if length <= SMALL && used.saturating_add(length) <= MEMORY_BUDGET {
            Target::Memory(Vec::with_capacity(length))
        } else {
            self.in_memory.fetch_sub(length, Ordering::Relaxed);
            match self.file.get_or_init(|| self.create()) {
                Ok(file) => Target::File {
                    file: Arc::clone(file),
                    at: self.end.fetch_add(length as u64, Ordering::Relaxed),
                    written: 0,
                },
                Err(why) => Target::Lost(why.clone()),
            }
        };
        SpoolWriter {
            target,
            left: length,
            digest: Sha256::new(),
        }
    }

    /// Without a name from the start, or unlinked at once; for this user alone.
    fn create(&self) -> Result<Arc<File>, String> {
        let mut why = String::new();
        for folder in &self.folders {
            match tempfile::tempfile_in(folder) {
                Ok(file) => return Ok(Arc::new(file)),
                Err(error) => why = format!("cannot make a file in {}: {error}", folder.display()),
            }
        }
        Err(why)
    }
}

/// For one node.
impl Default for Spool {
    fn default() -> Self {
        Self::for_nodes(1)
    }
}

/// Takes the announced bytes of one stream as they come.
#[derive(Debug)]
pub struct SpoolWriter {
    target: Target,
    left: usize,
    digest: Sha256,
}

#[derive(Debug)]
enum Target {
    Memory(Vec<u8>),
    File {
        file: Arc<File>,
        at: u64,
        written: u64,
    },
    /// Nowhere, for this reason.
    Lost(String),
}

impl SpoolWriter {
    /// How many bytes are still to come.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Takes the next bytes, of which no more than are [left](Self::left) belong here. A disk that is full costs the
    /// output, not the outcome: the command ran.
    pub fn write(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(self.left)];
        self.left -= bytes.len();
        self.digest.update(bytes);
        match &mut self.target {
            Target::Memory(kept) => kept.extend_from_slice(bytes),
            Target::File { file, at, written } => match file.write_all_at(bytes, *at + *written) {
                Ok(()) => *written += bytes.len() as u64,
                Err(error) => self.target = Target::Lost(in_spool("keep it", &error).to_string()),
            },
            Target::Lost(_) => {}
        }
    }

    /// What has come.
    pub fn finish(self) -> Kept {
        let digest = self.digest.finalize().into();
        let (place, length, lost) = match self.target {
            Target::Memory(bytes) => {
                let length = bytes.len() as u64;
                (Place::Memory(bytes.into()), length, None)
            }
            Target::File { file, at, written } => (Place::Spool { file, at }, written, None),
            Target::Lost(why) => (Place::Memory(Arc::default()), 0, Some(why)),
        };
        Kept {
            place,
            length,
            digest,
            of: None,
            lost,
        }
    }
}

fn in_spool(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot {what} in a temporary file: {error}; $TMPDIR names another place"),
    )
}

/// As the journal has it: [`CommandOutput`]'s form, and how much there was where that is an excerpt.
#[derive(Serialize, Deserialize)]
struct Recorded {
    exit: ExitStatus,
    stdout: String,
    stderr: String,
    truncated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stdout_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stderr_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lost: Option<String>,
}

impl Serialize for ExecOutput {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let read = |kept: &Kept| {
            let bytes = kept.read(usize::MAX).map_err(S::Error::custom)?;
            Ok(STANDARD.encode(bytes))
        };
        let recorded = Recorded {
            exit: self.exit.clone(),
            stdout: read(&self.stdout)?,
            stderr: read(&self.stderr)?,
            truncated: self.truncated,
            stdout_bytes: self.stdout.of,
            stderr_bytes: self.stderr.of,
            lost: self.lost().map(str::to_owned),
        };
        recorded.serialize(out)
    }
}

impl<'de> Deserialize<'de> for ExecOutput {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let recorded = Recorded::deserialize(from)?;
        let kept = |text: String, of, lost: &Option<String>| {
            let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
            Ok(Kept {
                of,
                lost: lost.clone(),
                ..bytes.into()
            })
        };
        Ok(Self {
            exit: recorded.exit,
            stdout: kept(recorded.stdout, recorded.stdout_bytes, &recorded.lost)?,
            stderr: kept(recorded.stderr, recorded.stderr_bytes, &None)?,
            truncated: recorded.truncated,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spooled(spool: &Spool, bytes: &[u8], piece: usize) -> Kept {
        let mut writer = spool.place_for(bytes.len());
        for piece in bytes.chunks(piece) {
            writer.write(piece);
        }
        writer.finish()
    }

    #[test]
    fn what_is_long_goes_to_a_file_without_a_name_and_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::within(vec![folder.path().into()], 3);
        let long: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
        let short = b"Linux\n";
        let kept = [
            spooled(&spool, short, 2),
            spooled(&spool, &long, 999),
            spooled(&spool, &long[1..], 32_768),
        ];
        assert!(matches!(kept[0].place, Place::Memory(_)));
        assert!(matches!(kept[1].place, Place::Spool { .. }));
        assert_eq!(kept[0].read(usize::MAX).unwrap(), short);
        assert_eq!(kept[1].read(usize::MAX).unwrap(), long);
        assert_eq!(kept[2].read(7).unwrap(), long[1..8]);
        assert_eq!(kept[1], Kept::from(long.clone()));
        assert_ne!(kept[1], kept[2]);
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn memory_holds_many_short_outputs_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::within(vec![folder.path().into()], 10_000);
        let is_in_memory = |kept: &Kept| matches!(kept.place, Place::Memory(_));
        let kept = (0..4000).map(|_| spooled(&spool, &[b'x'; SMALL], SMALL));
        let in_memory = kept.filter(is_in_memory).count();
        assert_eq!(in_memory, MEMORY_BUDGET / SMALL);
    }

    #[test]
    fn a_large_fleet_shares_the_budget() {
        let share = |nodes| Spool::within(vec![], nodes).share();
        assert_eq!(
            (share(1), share(512), share(0)),
            (1 << 20, 1 << 20, 1 << 20)
        );
        assert_eq!(share(10_000), (1 << 30) / 20_000);
        for nodes in [1, 200, 513, 10_000, 1_000_000] {
            assert!(share(nodes) * 2 * nodes <= RUN_BUDGET.max(nodes << 21).min(RUN_BUDGET));
        }
    }

    #[test]
    fn a_disk_that_is_full_costs_the_output_and_not_the_outcome() {
        let spool = Spool::within(vec!["/nonexistent".into()], 1);
        let lost = spooled(&spool, &[0; 10_000], 1000);
        assert!(
            lost.lost.as_ref().unwrap().contains("/nonexistent"),
            "{lost:?}"
        );
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        spool.file.get().unwrap().as_ref().unwrap_err();
        let spool = Spool::within(vec![], 1);
        spool.file.set(Ok(Arc::new(full.unwrap()))).unwrap();
        let output = ExecOutput {
            exit: ExitStatus::Code(0),
            stdout: spooled(&spool, &[0; 10_000], 1000),
            stderr: spooled(&spool, b"short", 5),
            truncated: false,
        };
        assert!(output.success() && output.stdout.is_empty());
        assert!(
            output.lost().unwrap().contains("No space left on device"),
            "{output:?}"
        );
        assert_eq!(output.stderr.read(9).unwrap(), b"short");
    }

    #[test]
    fn an_excerpt_says_how_much_there_was_and_is_recorded_so() {
        let output = ExecOutput {
            exit: ExitStatus::Signal("KILL".into()),
            stdout: vec![0; 9000].into(),
            stderr: b"\xff".to_vec().into(),
            truncated: false,
        };
        let excerpt = output.excerpt(100).unwrap();
        assert_eq!(
            (excerpt.stdout.len(), excerpt.stdout.excerpt_of()),
            (100, Some(9000))
        );
        assert_eq!(
            (excerpt.stderr.len(), excerpt.stderr.excerpt_of()),
            (1, None)
        );
        assert!(excerpt.truncated);
        let text = serde_json::to_string(&excerpt).unwrap();
        assert!(
            text.len() < 300 && text.contains("\"stdout_bytes\":9000"),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<ExecOutput>(&text).unwrap(), excerpt);
        // What older versions recorded.
        let old = r#"{"exit":{"code":3},"stdout":"b25l","stderr":"","truncated":true}"#;
        let old: ExecOutput = serde_json::from_str(old).unwrap();
        assert_eq!(old.stdout.read(9).unwrap(), b"one");
    }
}
