//! Reads the files once: permissions, includes, and every line as far as it can be judged without a host.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{ConfigError, Position};
use super::expand;
use super::glob;
use super::lexer;
use super::matching::{self, Condition};
use super::system_probe::{LocalEnv, SystemProbe};
use super::table::{self, Kind, Spec};
use super::value::{self, Value};
use crate::error::one_line;

/// How deep files may include files.
const DEEPEST: usize = 16;
/// A file beyond this is not an ssh_config.
const LARGEST: u64 = 16 << 20;

/// A file that was read.
#[derive(Debug)]
pub(super) struct File {
    pub path: Arc<Path>,
    /// Whether it belongs to the operator, not to the system.
    pub own: bool,
    pub lines: Vec<Line>,
    /// How many levels of files it includes.
    height: usize,
}

/// A line that says something.
#[derive(Debug)]
pub(super) struct Line {
    pub number: usize,
    pub says: Directive,
}

/// What a line says.
#[derive(Debug)]
pub(super) enum Directive {
    Host(Vec<String>),
    Match(Vec<Condition>),
    Include(Vec<Arc<File>>),
    Set(&'static Spec, Value),
    /// A keyword that is not known; whether that is wrong depends on IgnoreUnknown.
    Unknown(String),
}

impl File {
    pub fn place(&self, line: &Line) -> Position {
        Position {
            file: Some(self.path.clone()),
            line: line.number,
        }
    }
}

/// Which files are trusted how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Trust {
    /// The operator's file: `~` is allowed and relative includes lie in `~/.ssh`.
    pub own: bool,
    /// Others must not be able to write it.
    pub check: bool,
    /// `ssh` goes on without it where it cannot be opened.
    pub usual: bool,
}

/// Reads files, each of them once.
pub(super) struct Reader<'a> {
    pub ambient: &'a LocalEnv,
    pub system_probe: &'a dyn SystemProbe,
    /// Where relative includes of the system's file lie.
    pub system_folder: PathBuf,
    /// The usual files that are there and cannot be opened, one sentence each.
    pub unread: Vec<String>,
    seen: HashMap<(PathBuf, bool), Arc<File>>,
}

impl<'a> Reader<'a> {
    pub fn new(
        ambient: &'a LocalEnv,
        system_probe: &'a dyn SystemProbe,
        system_folder: PathBuf,
    ) -> Self {
        Self {
            ambient,
            system_probe,
            system_folder,
            unread: Vec::new(),
            seen: HashMap::new(),
        }
    }

    /// The file; `None` where it does not exist, or is a usual one that cannot be opened.
    ///
    /// # Errors
    /// A file that cannot be read or that others can write, or a line that is wrong.
    pub fn read(
        &mut self,
        path: &Path,
        trust: Trust,
        depth: usize,
    ) -> Result<Option<Arc<File>>, ConfigError> {
        let key = (path.to_path_buf(), trust.own);
        let known = self.seen.get(&key).cloned();
        if depth + known.as_ref().map_or(0, |file| file.height) > DEEPEST {
            return Err(ConfigError::file(
                path,
                format!("files include each other more than {DEEPEST} levels deep"),
            ));
        }
        if known.is_some() {
            return Ok(known);
        }
        let Some(bytes) = self.bytes(path, trust)? else {
            return Ok(None);
        };
        let mut file = File {
            path: path.into(),
            own: trust.own,
            lines: Vec::new(),
            height: 0,
        };
        for (index, bytes) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let place = Position {
                file: Some(file.path.clone()),
                line: index + 1,
            };
            let Some(says) = self.line(bytes, &place, trust, depth)? else {
                continue;
            };
            if let Directive::Include(included) = &says {
                let deepest = included.iter().map(|file| file.height + 1).max();
                file.height = file.height.max(deepest.unwrap_or(0));
            }
            file.lines.push(Line {
                number: index + 1,
                says,
            });
        }
        let file = Arc::new(file);
        self.seen.insert(key, file.clone());
        Ok(Some(file))
    }

    fn bytes(&mut self, path: &Path, trust: Trust) -> Result<Option<Vec<u8>>, ConfigError> {
        let unreadable =
            |error: io::Error| ConfigError::file(path, format!("cannot be read: {error}"));
        let mut file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if trust.usual => {
                let path = path.display().to_string();
                let path = one_line(&path);
                self.unread
                    .push(format!("ssh_config {path} was not read: {error}"));
                return Ok(None);
            }
            Err(error) => return Err(unreadable(error)),
        };
        let about = file.metadata().map_err(unreadable)?;
        if trust.check {
            self.trusted(path, &about)?;
        }
        // `ssh` reads a folder as an empty file: `Include conf.d/*` may meet one.
        if about.is_dir() {
            return Ok(Some(Vec::new()));
        }
        if about.len() > LARGEST {
            return Err(ConfigError::file(
                path,
                "is larger than 16 MiB: this is no ssh_config",
            ));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(Some(bytes))
    }

    fn trusted(&self, path: &Path, about: &fs::Metadata) -> Result<(), ConfigError> {
        if about.uid() != 0 && about.uid() != self.ambient.uid {
            return Err(ConfigError::file(
                path,
                format!(
                    "belongs to another user ({}): ssh refuses it too",
                    about.uid()
                ),
            ));
        }
        let others = about.mode() & 0o002 != 0;
        let group = about.mode() & 0o020 != 0 && !self.is_private_group(about.gid());
        if others || group {
            return Err(ConfigError::file(
                path,
                "can be written by others, and ssh refuses it too: run chmod go-w on it",
            ));
        }
        Ok(())
    }

    /// Whether the group is the user's own and has no other member, as Debian makes one for every user.
    fn is_private_group(&self, group: u32) -> bool {
        let known = nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(group));
        known.ok().flatten().is_some_and(|known| {
            known.name == self.ambient.user
                && known.mem.iter().all(|member| *member == self.ambient.user)
        })
    }

    fn line(
        &mut self,
        bytes: &[u8],
        place: &Position,
        trust: Trust,
        depth: usize,
    ) -> Result<Option<Directive>, ConfigError> {
        // As with `ssh`, a NUL ends the line.
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(bytes);
        let wrong = |what: String| ConfigError::line(place, what);
        let line = match lexer::line(&text) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(None),
            Err(lexer::NoArgument { keyword }) => {
                return Err(wrong(format!("\"{keyword}\" has no argument")));
            }
        };
        let words = value::words(line.rest).map_err(wrong)?;
        // A comment behind the words may be in any encoding.
        let is_garbled = |word: &String| word.contains(char::REPLACEMENT_CHARACTER);
        if std::str::from_utf8(bytes).is_err() && words.iter().any(is_garbled) {
            return Err(wrong("the line is not text in UTF-8".to_string()));
        }
        let Some(spec) = table::find(&line.keyword) else {
            return Ok(Some(Directive::Unknown(line.keyword)));
        };
        let about = |what: String| ConfigError::line(place, format!("{}: {what}", spec.name));
        Ok(Some(match spec.kind {
            Kind::Host => Directive::Host(full(words).map_err(about)?),
            Kind::Match => Directive::Match(matching::read(line.rest).map_err(about)?),
            Kind::Include => {
                let mut files = Vec::new();
                for word in full(words).map_err(about)? {
                    files.extend(self.include(&word, place, trust, depth)?);
                }
                Directive::Include(files)
            }
            _ => Directive::Set(
                spec,
                value::read(spec, line.rest, words, self.ambient).map_err(about)?,
            ),
        }))
    }

    /// The home directory that glob(3) knows, which `ssh` asks for includes and for nothing else.
    fn globs_home(&self) -> PathBuf {
        let home = self.ambient.environment.get("HOME");
        home.filter(|home| !home.is_empty())
            .map_or_else(|| self.ambient.home.clone(), PathBuf::from)
    }

    fn include(
        &mut self,
        word: &str,
        place: &Position,
        trust: Trust,
        depth: usize,
    ) -> Result<Vec<Arc<File>>, ConfigError> {
        let word = if word.contains('%') || word.contains("${") {
            match expand::include(word, self.ambient) {
                Ok(word) => word,
                Err(what) => {
                    let words = format!(
                        "{place}: this Include was not read, because the files are read once for all hosts: {what}"
                    );
                    self.unread.push(words);
                    return Ok(Vec::new());
                }
            }
        } else {
            word.to_string()
        };
        let word = word.as_str();
        let pattern = if word.starts_with('~') {
            if !trust.own {
                return Err(ConfigError::line(
                    place,
                    format!(
                        "include: \"{word}\": a system-wide file cannot include from a home directory"
                    ),
                ));
            }
            match expand::home(word, &self.globs_home(), self.system_probe) {
                Ok(pattern) => pattern,
                // A user that does not exist has no files.
                Err(_) => return Ok(Vec::new()),
            }
        } else if word.starts_with('/') {
            word.to_string()
        } else {
            let folder = if trust.own {
                self.globs_home().join(".ssh")
            } else {
                self.system_folder.clone()
            };
            format!("{}/{word}", folder.display())
        };
        let mut files = Vec::new();
        for path in glob::paths(&pattern) {
            let trust = Trust {
                check: true,
                usual: false,
                ..trust
            };
            let file = self.read(&path, trust, depth + 1)?.ok_or_else(|| {
                ConfigError::line(place, format!("include: {} leads nowhere", path.display()))
            })?;
            files.push(file);
        }
        Ok(files)
    }
}

/// Reads one line that was given as an option, as in `ssh -o`.
///
/// # Errors
/// A keyword that is not known or does not fit outside a file, or a value that does not fit.
pub(super) fn option(
    text: &str,
    ambient: &LocalEnv,
) -> Result<(&'static Spec, Value), ConfigError> {
    let wrong = |what: String| ConfigError::line(&Position::given(), format!("\"{text}\": {what}"));
    let line = lexer::line(text)
        .ok()
        .flatten()
        .ok_or_else(|| wrong("write Option=value".to_string()))?;
    let spec = table::find(&line.keyword)
        .filter(|spec| !matches!(spec.kind, Kind::Host | Kind::Match | Kind::Include))
        .ok_or_else(|| wrong("this is not an option of ssh that can be given".to_string()))?;
    let words = value::words(line.rest).map_err(wrong)?;
    let value = value::read(spec, line.rest, words, ambient).map_err(wrong)?;
    Ok((spec, value))
}

/// The words, none of them empty.
fn full(words: Vec<String>) -> Result<Vec<String>, String> {
    if words.iter().any(String::is_empty) {
        return Err("an argument is empty".to_string());
    }
    Ok(words)
}
