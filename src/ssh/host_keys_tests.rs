//! Tests of the host key policy and of recording new keys.

use std::os::unix::fs::PermissionsExt as _;

use russh::keys::PrivateKey;
use russh::keys::key::safe_rng;

use super::*;

fn key(algorithm: Algorithm) -> PublicKey {
    PrivateKey::random(&mut safe_rng(), algorithm)
        .unwrap()
        .public_key()
        .clone()
}

fn ed25519() -> PublicKey {
    key(Algorithm::Ed25519)
}

/// A line of known_hosts.
fn line(host: &str, key: &PublicKey) -> String {
    format!("{host} {}\n", key.to_openssh().unwrap())
}

impl HostKeys {
    /// Both steps, as a connection takes them.
    fn trust(&self, name: &str, key: &PublicKey) -> Result<(), String> {
        let name = &KnownName::alias(name);
        match self.check(name, key, &[key.algorithm()])? {
            Trust::Yes | Trust::Changed => Ok(()),
            Trust::OnceRecorded { lines } => self.record(name, key, lines, false),
            Trust::AskFor(types) => panic!("one type has one order: {types:?}"),
        }
    }
}

fn keys(policy: HostKeyPolicy, file: &Path) -> HostKeys {
    HostKeys::read(policy, &[file.to_owned()], &[]).0
}

#[test]
fn strict_refuses_a_stranger_with_its_fingerprint_and_records_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    let key = ed25519();
    let refusal = keys(HostKeyPolicy::Strict, &file)
        .trust("node", &key)
        .unwrap_err();
    assert!(refusal.contains("ssh-ed25519 SHA256:"), "{refusal}");
    assert!(refusal.contains("--host-keys accept-new"), "{refusal}");
    assert!(!file.exists());
}

#[test]
fn a_file_of_windows_has_a_mark_in_front_and_other_line_ends() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    let key = ed25519();
    let text = format!("\u{feff}{}{}", line("first", &key), line("second", &key));
    std::fs::write(&file, text.replace('\n', "\r\n")).unwrap();
    let keys = keys(HostKeyPolicy::Strict, &file);
    keys.trust("first", &key).unwrap();
    keys.trust("second", &key).unwrap();
}

#[test]
fn accept_new_records_once_in_a_private_file_and_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ssh/known_hosts");
    let keys = keys(HostKeyPolicy::AcceptNew, &file);
    let key = ed25519();
    let name = KnownName::new("node", 2222);
    let asked = keys.preferred(&name);
    let trust = keys.check(&name, &key, &asked);
    assert_eq!(trust, Ok(Trust::OnceRecorded { lines: 0 }));
    for _ in 0..3 {
        keys.record(&name, &key, 0, false).unwrap();
    }
    keys.trust("other", &key).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.starts_with("[node]:2222 ssh-ed25519 AAAA"), "{text}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);

    let refusal = keys.trust("other", &ed25519()).unwrap_err();
    assert!(refusal.contains("has changed"), "{refusal}");
    assert!(
        refusal.contains(&format!("{}:2", file.display())),
        "{refusal}"
    );
    assert!(refusal.contains("ssh-keygen -f"), "{refusal}");
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        text,
        "never for a changed key"
    );
}

#[test]
fn a_last_line_without_newline_stays_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    let (old, new) = (ed25519(), ed25519());
    fs::write(&file, format!("old {}", old.to_openssh().unwrap())).unwrap();
    keys(HostKeyPolicy::AcceptNew, &file)
        .trust("new", &new)
        .unwrap();
    let again = keys(HostKeyPolicy::Strict, &file);
    again.trust("old", &old).unwrap();
    again.trust("new", &new).unwrap();
}

#[test]
fn what_another_process_recorded_meanwhile_counts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    let (first, second) = (
        keys(HostKeyPolicy::AcceptNew, &file),
        keys(HostKeyPolicy::AcceptNew, &file),
    );
    let key = ed25519();
    first.trust("node", &key).unwrap();
    second.trust("node", &key).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1);

    first.trust("rival", &ed25519()).unwrap();
    let refusal = second.trust("rival", &ed25519()).unwrap_err();
    assert!(refusal.contains("has changed"), "{refusal}");
    assert!(refusal.contains("known_hosts:2 knows"), "{refusal}");
}

#[test]
fn many_threads_record_one_host_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    let keys = keys(HostKeyPolicy::AcceptNew, &file);
    let key = ed25519();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| keys.trust("node", &key).unwrap());
        }
    });
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1);
}

#[test]
fn off_takes_any_key_but_a_revoked_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    let (known, revoked) = (ed25519(), ed25519());
    fs::write(
        &file,
        format!(
            "node {}\n@revoked * {}\n",
            known.to_openssh().unwrap(),
            revoked.to_openssh().unwrap()
        ),
    )
    .unwrap();
    let keys = keys(HostKeyPolicy::Off, &file);
    keys.trust("node", &ed25519()).unwrap();
    let refusal = keys.trust("node", &revoked).unwrap_err();
    assert!(refusal.contains("is revoked"), "{refusal}");
    assert!(refusal.contains("known_hosts:2 forbids"), "{refusal}");
}

#[test]
fn the_types_known_for_a_host_are_offered_first() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    let p384 = Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP384,
    };
    fs::write(
        &file,
        format!("node {}\n", key(p384.clone()).to_openssh().unwrap()),
    )
    .unwrap();
    let keys = keys(HostKeyPolicy::Strict, &file);
    assert_eq!(keys.preferred(&KnownName::alias("node"))[0], p384);
    assert_eq!(keys.preferred(&KnownName::alias("node")).len(), 6);
    assert_eq!(
        keys.preferred(&KnownName::alias("stranger"))[0],
        Algorithm::Ed25519
    );
    assert!(
        !keys
            .preferred(&KnownName::alias("node"))
            .contains(&Algorithm::Rsa { hash: None }),
        "no SHA-1"
    );
}

#[test]
fn a_host_is_asked_again_where_its_known_key_may_stand_behind_another() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    let p384 = Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP384,
    };
    let (node, other) = (key(p384.clone()), ed25519());
    let line = |name: &str, key: &PublicKey| {
        format!(
            "{} {}\n",
            hashed(name, [7; 20]).unwrap(),
            key.to_openssh().unwrap()
        )
    };
    fs::write(&file, line("node", &node) + &line("other", &other)).unwrap();
    let keys = keys(HostKeyPolicy::AcceptNew, &file);
    let name = KnownName::alias("node");
    // Nobody can tell whose the hashed lines are without work: both types are asked for, as ssh ranks them.
    let asked = keys.preferred(&name);
    assert_eq!(asked[..2], [Algorithm::Ed25519, p384.clone()]);
    let Ok(Trust::AskFor(wanted)) = keys.check(&name, &ed25519(), &asked) else {
        panic!("a host known by another type looks like a stranger");
    };
    assert_eq!(wanted[0], p384);
    assert_eq!(keys.check(&name, &node, &wanted), Ok(Trust::Yes));
    // It has no such key: now it is a change.
    let refusal = keys.check(&name, &ed25519(), &wanted).unwrap_err();
    assert!(refusal.contains("has changed"), "{refusal}");
    // Whatever is asked for, a key of the known type settles it.
    let refusal = keys.check(&name, &key(p384.clone()), &asked).unwrap_err();
    assert!(refusal.contains("has changed"), "{refusal}");
    // A stranger shows its best key, not that of others.
    let only = &line("node", &node);
    fs::write(&file, only).unwrap();
    let keys = super::tests::keys(HostKeyPolicy::AcceptNew, &file);
    let stranger = KnownName::alias("stranger");
    let asked = keys.preferred(&stranger);
    assert_eq!(asked[0], p384);
    let trust = keys.check(&stranger, &key(p384), &asked);
    assert_eq!(trust, Ok(Trust::AskFor(offered())));
    let trust = keys.check(&stranger, &ed25519(), &offered());
    assert_eq!(trust, Ok(Trust::OnceRecorded { lines: 1 }));
}

#[test]
fn a_file_that_cannot_be_read_is_a_warning_and_hides_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let key = ed25519();
    fs::write(path("known"), line("node", &key)).unwrap();
    fs::create_dir(path("folder")).unwrap();
    let (keys, warnings) = HostKeys::read(
        HostKeyPolicy::AcceptNew,
        &[path("folder"), path("missing")],
        &[path("known")],
    );
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let named = path("folder").display().to_string();
    assert!(warnings[0].contains(&named), "{warnings:?}");
    assert_eq!(keys.trust("node", &key), Ok(()));
    // Nobody is trusted whose key cannot be recorded.
    let refusal = keys.trust("other", &key).unwrap_err();
    assert!(refusal.contains("cannot record"), "{refusal}");
}

#[test]
fn with_every_key_taken_a_changed_one_is_told_from_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    fs::write(&file, line("node", &ed25519())).unwrap();
    let keys = keys(HostKeyPolicy::Off, &file);
    let check = |name| keys.check(&KnownName::alias(name), &ed25519(), &[Algorithm::Ed25519]);
    assert_eq!(check("node"), Ok(Trust::Changed));
    assert_eq!(check("new"), Ok(Trust::Yes));
}

#[test]
fn a_host_whose_key_is_revoked_is_asked_for_its_other_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    let curve = EcdsaCurve::NistP256;
    let (old, other) = (ed25519(), key(Algorithm::Ecdsa { curve }));
    let lines = [
        line("node", &old),
        line("node", &other),
        line("@revoked *", &old),
    ];
    fs::write(&file, lines.concat()).unwrap();
    let keys = keys(HostKeyPolicy::Strict, &file);
    let name = KnownName::alias("node");
    let Ok(Trust::AskFor(wanted)) = keys.check(&name, &old, &offered()) else {
        panic!("it was asked for the revoked type first");
    };
    assert_eq!(wanted[0], other.algorithm());
    assert_eq!(keys.check(&name, &other, &wanted), Ok(Trust::Yes));
    // One that has no other is refused.
    let refusal = keys.check(&name, &old, &wanted).unwrap_err();
    assert!(refusal.contains("revoked"), "{refusal}");
}

#[test]
fn hashed_names_are_recorded_once_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    let (key, name) = (ed25519(), KnownName::new("node", 2222));
    for _ in 0..2 {
        let keys = keys(HostKeyPolicy::AcceptNew, &file);
        keys.record(&name, &key, 0, true).unwrap();
        assert_eq!(keys.check(&name, &key, &[]), Ok(Trust::Yes));
    }
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("|1|") && !text.contains("node"), "{text}");
    let refusal = keys(HostKeyPolicy::Strict, &file)
        .check(&name, &ed25519(), &[])
        .unwrap_err();
    assert!(refusal.contains("-R '[node]:2222'`"), "{refusal}");
}

#[test]
fn a_name_that_stands_for_others_is_never_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    let keys = keys(HostKeyPolicy::AcceptNew, &file);
    for name in ["*", "a,b", "a b", "a\nb", "!a?", "@revoked"] {
        let refusal = keys.record(&KnownName::alias(name), &ed25519(), 0, false);
        assert!(refusal.unwrap_err().contains("not recorded"), "{name}");
    }
    assert!(!file.exists());
}
