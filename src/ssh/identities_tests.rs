//! Tests of reading key files and of the order in which keys are offered.

use std::collections::BTreeMap;
use std::time::Duration;

use russh::keys::Algorithm;
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;

use super::super::HostSettings;
use super::*;

fn key() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

fn write(folder: &Path, name: &str, key: &PrivateKey) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    path
}

fn node(identities: Vec<PathBuf>) -> Node {
    Node {
        name: "node".into(),
        address: "node".into(),
        port: 22,
        user: "ops".into(),
        identities,
        jump: vec![],
        runtime: None,
        endpoint: None,
        become_root: false,
        become_password: None,
        ssh_settings: 0,
        labels: BTreeMap::new(),
        groups: vec![],
    }
}

fn options(folder: &Path) -> SshOptions {
    SshOptions {
        hosts: vec![HostSettings {
            connect_timeout: Duration::from_secs(1),
            ..HostSettings::for_home(folder)
        }],
        password: None,
    }
}

/// As if an agent held these.
fn with_agent(keys: &[&PrivateKey]) -> Identities {
    let mut identities = Identities::read(&options(Path::new("/nowhere")), &[]).unwrap();
    for key in keys {
        identities.in_agent.push(Arc::new(Identity {
            public: key.public_key().clone(),
            private: None,
            in_agent: true,
            origin: "agent".into(),
        }));
    }
    identities
}

#[test]
fn a_named_file_that_is_no_use_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    fs::write(&text, "hello").unwrap();
    let public = folder.path().join("key.pub");
    fs::write(&public, key().public_key().to_openssh().unwrap()).unwrap();
    let broken = folder.path().join("broken");
    fs::write(
        &broken,
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    )
    .unwrap();
    for (path, words) in [
        (folder.path().join("missing"), "cannot read"),
        (folder.path().to_owned(), "cannot read"),
        (text, "no private key"),
        (public, "a public key"),
        (broken, "cannot be used"),
    ] {
        let error = Identities::read(&options(folder.path()), &[node(vec![path.clone()])])
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(words), "{words}: {error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn an_encrypted_key_wants_the_agent_and_works_once_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let key = key();
    let encrypted = key.encrypt(&mut safe_rng(), "passphrase").unwrap();
    let path = write(folder.path(), "encrypted", &encrypted);
    let error = with_agent(&[]).load(&path).err().unwrap().to_string();
    assert!(
        error.contains(&format!("run `ssh-add {}`", path.display())),
        "{error}"
    );
    let identity = with_agent(&[&key]).load(&path).unwrap();
    assert!(identity.in_agent && identity.private.is_none());
}

#[test]
fn a_public_key_file_picks_a_key_of_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let key = key();
    let path = folder.path().join("key.pub");
    fs::write(&path, key.public_key().to_openssh().unwrap()).unwrap();
    assert!(with_agent(&[&key]).load(&path).unwrap().in_agent);
}

#[test]
fn default_keys_that_are_no_use_are_noted_and_missing_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let ssh = folder.path().join(".ssh");
    fs::create_dir(&ssh).unwrap();
    let encrypted = key().encrypt(&mut safe_rng(), "passphrase").unwrap();
    write(&ssh, "id_ed25519", &encrypted);
    write(&ssh, "id_rsa", &key());
    let identities = Identities::read(&options(folder.path()), &[node(vec![])]).unwrap();
    assert_eq!(identities.defaults.len(), 1);
    assert_eq!(identities.notes.len(), 1, "{:?}", identities.notes);
    assert!(identities.notes[0].contains("ssh-add"));
}

#[test]
fn an_agent_that_is_not_there_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.hosts[0].agent = Some(folder.path().join("agent"));
    let identities = Identities::read(&options, &[]).unwrap();
    assert!(identities.notes[0].contains("ssh-agent"));
}

#[test]
fn named_keys_come_first_then_the_agent_and_each_key_once() {
    let folder = tempfile::tempdir().unwrap();
    let (file_only, held, other, default) = (key(), key(), key(), key());
    let mut identities = with_agent(&[&other, &held]);
    let named = [
        write(folder.path(), "file_only", &file_only),
        write(folder.path(), "held", &held),
    ];
    for path in &named {
        let identity = identities.load(path).unwrap();
        identities.named.insert(path.clone(), Arc::new(identity));
    }
    let default = write(folder.path(), "default", &default);
    for path in [&default, &named[1]] {
        let identity = identities.load(path).unwrap();
        identities.defaults.push(Arc::new(identity));
    }
    let origins = |named: &[PathBuf]| -> Vec<String> {
        identities
            .offer(named)
            .unwrap()
            .iter()
            .map(|key| key.origin.rsplit('/').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(origins(&named), ["file_only", "held", "agent"]);
    assert_eq!(origins(&[]), ["held", "agent", "default"]);
    assert!(identities.offer(&["/never/read".into()]).is_err());
}

#[test]
fn a_password_that_is_no_text_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let options = SshOptions {
        password: Some(Secret::new(vec![0xff])),
        ..options(folder.path())
    };
    assert!(matches!(
        Identities::read(&options, &[]),
        Err(SshError::Password)
    ));
}
