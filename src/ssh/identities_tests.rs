//! Tests of reading key files and of the order in which keys are offered.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey};

use super::super::HostSettings;
use super::*;
use crate::ssh::key_candidate::KeyCandidate;

fn key() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

fn write(folder: &Path, name: &str, key: &PrivateKey) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
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
        facts: BTreeMap::new(),
        groups: vec![],
    }
}

fn options(folder: &Path) -> SshOptions {
    SshOptions {
        hosts: vec![HostSettings {
            connect_timeout: Duration::from_secs(1),
            ..HostSettings::for_home(folder)
        }],
        ..SshOptions::default()
    }
}

/// With an agent at `/agent` that holds these.
fn with_agent(folder: &Path, keys: &[&PrivateKey]) -> (SshOptions, Identities) {
    let mut options = options(folder);
    let mut identities = Identities::read(&options, &[], &nobody).unwrap();
    let held = keys
        .iter()
        .map(|key| AgentKey::Key(key.public_key().clone()));
    let agent = Agent::new("/agent".into(), Duration::from_secs(1));
    identities
        .agents
        .insert("/agent".into(), (agent, held.collect()));
    options.hosts[0].agent = Some("/agent".into());
    (options, identities)
}

fn nobody(_: &Path, _: u32) -> Option<Secret> {
    None
}

fn without_password<'a>(options: &'a SshOptions, named: &'a [PathBuf]) -> Use<'a> {
    Use {
        host: &options.hosts[0],
        named,
        has_password: false,
    }
}

/// The names of the files and agents whose keys are offered.
fn offered(identities: &Identities, host: &HostSettings, named: &[PathBuf]) -> Vec<String> {
    let offer = identities.offer(host, named).unwrap();
    let name = |offer: &KeyCandidate<'_>| {
        let text = offer.to_string();
        let place = text.split('(').nth(1).unwrap();
        let name = place.split(')').next().unwrap();
        name.rsplit('/').next().unwrap().to_owned()
    };
    offer.iter().map(name).collect()
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
        let error = Identities::read(
            &options(folder.path()),
            &[node(vec![path.clone()])],
            &nobody,
        )
        .err()
        .unwrap()
        .to_string();
        assert!(error.contains(words), "{words}: {error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn a_passphrase_is_asked_for_once_a_key_and_three_times_where_it_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let key = key().encrypt(&mut safe_rng(), "right").unwrap();
    let path = write(folder.path(), "encrypted", &key);
    let nodes = [node(vec![path.clone()]), node(vec![path.clone()])];
    let asked = RefCell::new(Vec::new());
    let options = options(folder.path());
    let answers = |words: [&'static str; 3]| {
        asked.borrow_mut().clear();
        let asked = &asked;
        move |path: &Path, attempt: u32| {
            asked.borrow_mut().push((path.to_owned(), attempt));
            Some(Secret::new(words[attempt as usize - 1]))
        }
    };
    let right = Identities::read(&options, &nodes, &answers(["wrong", "right", "unused"])).unwrap();
    assert_eq!(*asked.borrow(), [(path.clone(), 1), (path.clone(), 2)]);
    assert_eq!(
        offered(&right, &options.hosts[0], &nodes[0].identities),
        ["encrypted"]
    );
    let wrong = Identities::read(&options, &nodes, &answers(["wrong"; 3]));
    assert_eq!(asked.borrow().len(), 3);
    let error = wrong.err().unwrap().to_string();
    assert!(error.contains("did not open"), "{error}");
    assert!(!error.contains("wrong"), "{error}");

    let nobody = Identities::read(&options, &nodes, &nobody);
    let error = nobody.err().unwrap().to_string();
    assert!(
        error.contains(&format!("`ssh-add {}`", path.display())),
        "{error}"
    );
    let mut batch = options;
    batch.hosts[0].batch_mode = true;
    let error = Identities::read(&batch, &nodes, &answers(["right"; 3]));
    assert!(matches!(error, Err(SshError::Encrypted(_))));
    assert!(asked.borrow().is_empty());
}

#[test]
fn a_default_key_is_asked_for_only_where_nothing_else_could_log_in() {
    let folder = tempfile::tempdir().unwrap();
    let ssh = folder.path().join(".ssh");
    fs::create_dir(&ssh).unwrap();
    let encrypted = key().encrypt(&mut safe_rng(), "right").unwrap();
    write(&ssh, "id_ed25519", &encrypted);
    let mut options = options(folder.path());
    let asked = RefCell::new(0);
    let ask = |_: &Path, _: u32| {
        *asked.borrow_mut() += 1;
        Some(Secret::new("right"))
    };
    let alone = Identities::read(&options, &[node(vec![])], &ask).unwrap();
    assert_eq!(offered(&alone, &options.hosts[0], &[]), ["id_ed25519"]);
    assert_eq!(asked.replace(0), 1);
    options.password = Some(Secret::new("password"));
    Identities::read(&options, &[node(vec![])], &ask).unwrap();
    options.password = None;
    write(&ssh, "id_rsa", &key());
    let identities = Identities::read(&options, &[node(vec![])], &ask).unwrap();
    assert_eq!(offered(&identities, &options.hosts[0], &[]), ["id_rsa"]);
    assert_eq!(*asked.borrow(), 0);
}

#[test]
fn a_private_key_that_others_may_read_is_refused_with_the_chmod_that_helps() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "open", &key());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = Identities::read(
        &options(folder.path()),
        &[node(vec![path.clone()])],
        &nobody,
    );
    let error = error.err().unwrap().to_string();
    assert!(error.contains("0640"), "{error}");
    assert!(
        error.contains(&format!("chmod 600 {}", path.display())),
        "{error}"
    );
}

#[test]
fn a_public_key_file_picks_a_key_of_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let (picked, other) = (key(), key());
    let path = folder.path().join("key.pub");
    fs::write(&path, picked.public_key().to_openssh().unwrap()).unwrap();
    let (mut options, mut identities) = with_agent(folder.path(), &[&other, &picked]);
    let named = [path];
    identities.read_files(&options.hosts[0], &named).unwrap();
    identities
        .check(&without_password(&options, &named))
        .unwrap();
    assert_eq!(
        offered(&identities, &options.hosts[0], &named),
        ["key.pub", "agent"]
    );
    options.hosts[0].identities_only = true;
    assert_eq!(offered(&identities, &options.hosts[0], &named), ["key.pub"]);
}

#[test]
fn a_public_key_beside_a_private_one_that_is_elsewhere_picks_a_key_of_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let (picked, other) = (key(), key());
    let text = picked.public_key().to_openssh().unwrap();
    fs::write(folder.path().join("key.pub"), text).unwrap();
    let (mut options, mut identities) = with_agent(folder.path(), &[&other, &picked]);
    options.hosts[0].identities_only = true;
    let named = [folder.path().join("key")];
    identities.read_files(&options.hosts[0], &named).unwrap();
    identities
        .check(&without_password(&options, &named))
        .unwrap();
    assert_eq!(offered(&identities, &options.hosts[0], &named), ["key"]);
    assert_eq!(identities.notes, Vec::<String>::new());
    // Without the agent it is of no use, and there is no other.
    options.hosts[0].agent = None;
    let error = identities
        .check(&without_password(&options, &named))
        .unwrap_err();
    assert!(error.to_string().contains("cannot read"), "{error}");
}

#[test]
fn named_files_that_are_no_use_are_noted_where_the_agent_holds_other_keys() {
    let folder = tempfile::tempdir().unwrap();
    let encrypted = key().encrypt(&mut safe_rng(), "passphrase").unwrap();
    let named = ["text", "folder", "encrypted"].map(|name| folder.path().join(name));
    fs::write(&named[0], "hello").unwrap();
    fs::create_dir(&named[1]).unwrap();
    write(folder.path(), "encrypted", &encrypted);
    let (mut options, mut identities) = with_agent(folder.path(), &[&key()]);
    identities.read_files(&options.hosts[0], &named).unwrap();
    identities
        .check(&without_password(&options, &named))
        .unwrap();
    assert_eq!(offered(&identities, &options.hosts[0], &named), ["agent"]);
    assert_eq!(identities.notes.len(), 3, "{:?}", identities.notes);
    for (note, path) in identities.notes.iter().zip(&named) {
        assert!(note.contains(&path.display().to_string()), "{note}");
    }
    // With IdentitiesOnly the agent's keys do not count.
    options.hosts[0].identities_only = true;
    assert!(
        identities
            .check(&without_password(&options, &named))
            .is_err()
    );
}

#[test]
fn accepted_algorithms_and_the_rsa_size_decide_which_keys_and_hashes_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let rsa = PrivateKey::random(&mut safe_rng(), Algorithm::Rsa { hash: None }).unwrap();
    let (mut options, identities) = with_agent(folder.path(), &[&rsa, &key()]);
    let host = &mut options.hosts[0];
    let hashes = |host: &HostSettings| -> Vec<Vec<Option<HashAlg>>> {
        let offer = identities.offer(host, &[]).unwrap();
        offer.into_iter().map(|offer| offer.hashes).collect()
    };
    let both = vec![Some(HashAlg::Sha512), Some(HashAlg::Sha256)];
    assert_eq!(hashes(host), [both, vec![None]]);
    host.accepted_algorithms = Some(vec!["rsa-sha2-256".into()]);
    assert_eq!(hashes(host), [[Some(HashAlg::Sha256)]]);
    host.accepted_algorithms = Some(vec!["ssh-ed25519".into()]);
    assert_eq!(hashes(host), [[None]]);
    host.accepted_algorithms = None;
    host.required_rsa_size = 16_384;
    assert_eq!(hashes(host), [[None]]);
}

#[test]
fn default_keys_that_are_no_use_are_noted_and_missing_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let ssh = folder.path().join(".ssh");
    fs::create_dir(&ssh).unwrap();
    let encrypted = key().encrypt(&mut safe_rng(), "passphrase").unwrap();
    write(&ssh, "id_ed25519", &encrypted);
    write(&ssh, "id_rsa", &key());
    let identities = Identities::read(&options(folder.path()), &[node(vec![])], &nobody).unwrap();
    assert_eq!(
        offered(&identities, &options(folder.path()).hosts[0], &[]),
        ["id_rsa"]
    );
    assert_eq!(identities.notes.len(), 1, "{:?}", identities.notes);
    assert!(identities.notes[0].contains("ssh-add"));
}

#[test]
fn an_agent_that_is_not_there_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.hosts[0].agent = Some(folder.path().join("agent"));
    let identities = Identities::read(&options, &[], &nobody).unwrap();
    assert!(identities.notes[0].contains("ssh-agent"));
}

#[test]
fn named_keys_come_first_then_the_agent_and_each_key_once() {
    let folder = tempfile::tempdir().unwrap();
    let (file_only, held, other, default) = (key(), key(), key(), key());
    let (mut options, mut identities) = with_agent(folder.path(), &[&other, &held]);
    let named = [
        write(folder.path(), "file_only", &file_only),
        write(folder.path(), "held", &held),
    ];
    let host = &mut options.hosts[0];
    host.default_identities = vec![write(folder.path(), "default", &default), named[1].clone()];
    identities.read_files(host, &named).unwrap();
    identities.read_files(host, &[]).unwrap();
    assert_eq!(
        offered(&identities, host, &named),
        ["file_only", "held", "agent"]
    );
    assert_eq!(
        offered(&identities, host, &[]),
        ["held", "agent", "default"]
    );
    host.identities_only = true;
    assert_eq!(offered(&identities, host, &named), ["file_only", "held"]);
    assert!(identities.offer(host, &["/never/read".into()]).is_err());
}

#[test]
fn a_password_that_is_no_text_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let options = SshOptions {
        password: Some(Secret::new(vec![0xff])),
        ..options(folder.path())
    };
    assert!(matches!(
        Identities::read(&options, &[], &nobody),
        Err(SshError::Password)
    ));
}
