//! Which files an `Include` pattern names: `*`, `?`, `[...]` and backslashes, in byte order, hidden files only by name.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One step of a pattern.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Byte(u8),
    One,
    Many,
    Set(bool, Vec<(u8, u8)>),
}

/// The paths that exist and fit the absolute pattern, sorted.
pub(super) fn paths(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for component in pattern.split('/').filter(|part| !part.is_empty()) {
        let steps = steps(component.as_bytes());
        found = found
            .iter()
            .flat_map(|folder| within(folder, &steps))
            .collect();
    }
    found.sort();
    found
}

fn within(folder: &Path, steps: &[Step]) -> Vec<PathBuf> {
    let literal: Option<Vec<u8>> = steps
        .iter()
        .map(|step| match step {
            Step::Byte(byte) => Some(*byte),
            _ => None,
        })
        .collect();
    if let Some(name) = literal {
        let path = folder.join(std::ffi::OsStr::from_bytes(&name));
        let exists = path.symlink_metadata().is_ok();
        return exists.then_some(path).into_iter().collect();
    }
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| fits(entry.file_name().as_bytes(), steps))
        .map(|entry| entry.path())
        .collect()
}

fn steps(pattern: &[u8]) -> Vec<Step> {
    let mut steps = Vec::with_capacity(pattern.len());
    let mut at = 0;
    while let Some(byte) = pattern.get(at) {
        at += 1;
        steps.push(match byte {
            b'*' => Step::Many,
            b'?' => Step::One,
            b'\\' if at < pattern.len() => {
                at += 1;
                Step::Byte(pattern[at - 1])
            }
            b'[' => match set(&pattern[at..]) {
                Some((step, length)) => {
                    at += length;
                    step
                }
                None => Step::Byte(b'['),
            },
            other => Step::Byte(*other),
        });
    }
    steps
}

/// What stands behind a `[`, and how long it is; `None` where the bracket never closes.
fn set(text: &[u8]) -> Option<(Step, usize)> {
    let mut at = 0;
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    if negated {
        at += 1;
    }
    let start = at;
    let mut ranges = Vec::new();
    loop {
        let first = *text.get(at)?;
        if first == b']' && at > start {
            return Some((Step::Set(negated, ranges), at + 1));
        }
        match (text.get(at + 1), text.get(at + 2)) {
            (Some(b'-'), Some(last)) if *last != b']' => {
                ranges.push((first, *last));
                at += 3;
            }
            _ => {
                ranges.push((first, first));
                at += 1;
            }
        }
    }
}

fn fits(name: &[u8], steps: &[Step]) -> bool {
    if name.first() == Some(&b'.') && steps.first() != Some(&Step::Byte(b'.')) {
        return false;
    }
    let (mut n, mut s) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        let one = match steps.get(s) {
            Some(Step::Many) => {
                retry = Some((s, n));
                s += 1;
                continue;
            }
            Some(Step::One) => true,
            Some(Step::Byte(byte)) => *byte == name[n],
            Some(Step::Set(negated, ranges)) => {
                ranges
                    .iter()
                    .any(|(from, to)| (*from..=*to).contains(&name[n]))
                    != *negated
            }
            None => false,
        };
        if one {
            n += 1;
            s += 1;
        } else if let Some((star, from)) = retry {
            s = star + 1;
            n = from + 1;
            retry = Some((star, n));
        } else {
            return false;
        }
    }
    steps[s..].iter().all(|step| *step == Step::Many)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_name_files_in_byte_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.conf", "a.conf", "B.conf", ".hidden.conf", "c.txt", "x[1"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/a.conf"), "").unwrap();
        let names = |pattern: &str| -> Vec<String> {
            paths(&format!("{}/{pattern}", folder.path().display()))
                .iter()
                .map(|path| {
                    path.strip_prefix(folder.path())
                        .unwrap()
                        .display()
                        .to_string()
                })
                .collect()
        };
        assert_eq!(names("*.conf"), ["B.conf", "a.conf", "b.conf"]);
        assert_eq!(names("[a-b].conf"), ["a.conf", "b.conf"]);
        assert_eq!(names("[!a].c*f"), ["B.conf", "b.conf"]);
        assert_eq!(names(".h*"), [".hidden.conf"]);
        assert_eq!(names("s?b/*.conf"), ["sub/a.conf"]);
        assert_eq!(names("x\\[1"), ["x[1"]);
        assert_eq!(names("x[1"), ["x[1"]);
        assert_eq!(names("missing"), [""; 0]);
    }

    proptest! {
        #[test]
        fn any_pattern_is_matched_without_panic(pattern in any::<Vec<u8>>(), name in any::<Vec<u8>>()) {
            let _ = fits(&name, &steps(&pattern));
        }
    }
}
