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

impl HostKeys {
    /// Both steps, as a connection takes them.
    fn trust(&self, name: &str, key: &PublicKey) -> Result<(), String> {
        let name = &KnownName::alias(name);
        match self.check(name, key, &[key.algorithm()])? {
            Trust::Yes => Ok(()),
            Trust::OnceRecorded { lines } => self.record(name, key, lines, false),
            Trust::AskFor(types) => panic!("one type has one order: {types:?}"),
        }
    }
}

fn keys(policy: HostKeyPolicy, file: &Path) -> HostKeys {
    HostKeys::read(policy, &[file.to_owned()], &[]).unwrap().0
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
fn a_file_that_cannot_be_read_is_an_error_and_a_missing_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let Err(error) = HostKeys::read(
        HostKeyPolicy::Strict,
        &[missing],
        &[folder.path().to_owned()],
    ) else {
        panic!("a directory is no known_hosts file");
    };
    assert!(
        error
            .to_string()
            .contains(&folder.path().display().to_string()),
        "{error}"
    );
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
