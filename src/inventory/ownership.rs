//! Who could change a file. What a file makes this machine run must be the operator's own.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Uid, User, geteuid};

use crate::model::text::escape_line;

/// How another user than this one and root could change what stands at this path; `None` where none can. For root, the user
/// who became root through sudo counts as root.
///
/// # Errors
/// It cannot be looked at.
pub(super) fn changeable_by_others(path: &Path) -> io::Result<Option<String>> {
    let me = geteuid();
    let by_sudo = std::env::var("SUDO_UID").ok().filter(|_| me.is_root());
    let by_sudo = by_sudo.and_then(|user| user.parse().ok());
    // What a link leads to, too.
    for path in [&std::path::absolute(path)?, &path.canonicalize()?] {
        let folder = path.parent().unwrap_or(path).metadata()?;
        let file = path.symlink_metadata()?;
        let why = judge(Entry::of(&folder), Entry::of(&file), me.as_raw(), by_sudo);
        if why.is_some() {
            return Ok(why);
        }
    }
    Ok(None)
}

/// Whose a file is, and who may write to it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    owner: u32,
    group: u32,
    mode: u32,
}

impl Entry {
    fn of(about: &Metadata) -> Self {
        // The mode of a link says nothing.
        let mode = if about.is_symlink() { 0 } else { about.mode() };
        Self {
            owner: about.uid(),
            group: about.gid(),
            mode,
        }
    }
}

fn judge(folder: Entry, file: Entry, me: u32, by_sudo: Option<u32>) -> Option<String> {
    const STICKY: u32 = 0o1000;
    let is_trusted = |user| user == 0 || user == me || Some(user) == by_sudo;
    // Of a user's own files the group is often the user's alone.
    let trusts_groups = me != 0 || by_sudo.is_some();
    let others_write = |entry: Entry| {
        entry.mode & 0o002 != 0 || entry.mode & 0o020 != 0 && entry.group != 0 && !trusts_groups
    };
    if !is_trusted(file.owner) {
        let user = User::from_uid(Uid::from_raw(file.owner)).ok().flatten();
        let user = user.map_or_else(|| file.owner.to_string(), |user| user.name);
        Some(format!("it belongs to the user {}", escape_line(&user)))
    } else if others_write(file) {
        Some("other users may write to it".into())
    } else if !is_trusted(folder.owner) || others_write(folder) && folder.mode & STICKY == 0 {
        Some("other users may write to its folder".into())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_other_user_can_change_is_trusted() {
        let entry = |owner, group, mode| Entry { owner, group, mode };
        let roots = entry(0, 0, 0o755);
        let why = |folder, file, me, by_sudo| judge(folder, file, me, by_sudo);
        assert_eq!(why(roots, roots, 0, None), None);
        let sticky = entry(0, 0, 0o1777);
        assert_eq!(why(sticky, roots, 0, None), None);
        let of_roots_group = entry(0, 0, 0o775);
        assert_eq!(why(of_roots_group, of_roots_group, 0, None), None);
        for (folder, file, part) in [
            (roots, entry(12345, 0, 0o644), "belongs to the user 12345"),
            (roots, entry(0, 0, 0o646), "write to it"),
            (roots, entry(0, 100, 0o664), "write to it"),
            (entry(0, 0, 0o777), roots, "write to its folder"),
            (entry(0, 50, 0o775), roots, "write to its folder"),
            (entry(12345, 0, 0o755), roots, "write to its folder"),
        ] {
            let why = why(folder, file, 0, None).unwrap();
            assert!(why.contains(part), "{why}");
        }
        // A user with a group of the same name, and the same user through sudo.
        let own = entry(1000, 1000, 0o775);
        assert_eq!(why(own, own, 1000, None), None);
        assert_eq!(why(own, own, 0, Some(1000)), None);
        assert!(why(own, own, 0, None).is_some());
        assert!(why(own, own, 1001, None).is_some());
    }
}
