//! Tests of the lists of revoked host keys; the judge of what they hold is `ssh-keygen -Q`.

use proptest::prelude::*;
use russh::keys::key::safe_rng;
use russh::keys::{Algorithm, PrivateKey};

use super::*;

fn key() -> PublicKey {
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
    key.public_key().clone()
}

fn plain(key: &PublicKey) -> PublicKeyOrCertificate {
    key.clone().into()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

/// A list with these sections: type and content.
fn krl(sections: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = [MAGIC, &1_u32.to_be_bytes(), &[0; 3 * 8]].concat();
    bytes.extend([string(b""), string(b"a comment")].concat());
    for (kind, content) in sections {
        bytes.push(*kind);
        bytes.extend(string(content));
    }
    bytes
}

fn read(bytes: &[u8]) -> Result<Revoked, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, bytes).unwrap();
    Revoked::read(file.path())
}

#[test]
fn a_text_file_lists_keys_one_a_line() {
    let (first, second) = (key(), key());
    let text = format!(
        "# a comment\n\n  {} someone\n\t{}\r\n",
        first.to_openssh().unwrap(),
        second.to_openssh().unwrap()
    );
    let revoked = read(text.as_bytes()).unwrap();
    assert!(revoked.holds(&plain(&first)) && revoked.holds(&plain(&second)));
    assert!(!revoked.holds(&plain(&key())));
    assert!(!read(b"").unwrap().holds(&plain(&first)));
}

#[test]
fn a_file_that_cannot_be_read_or_holds_something_else_says_so() {
    let missing = Revoked::read(Path::new("/no/such/file")).unwrap_err();
    assert!(missing.contains("/no/such/file"), "{missing}");
    assert!(missing.contains("No such file"), "{missing}");
    let key = key().to_openssh().unwrap();
    for (bytes, words) in [
        (format!("{key}\nnode {key}\n").into_bytes(), "line 2 is no"),
        (b"ssh-ed25519 AAAA\n".to_vec(), "line 1 is no"),
        ([MAGIC, &[0, 0, 0, 2]].concat(), "unknown version 2"),
        (MAGIC.to_vec(), BROKEN),
        (krl(&[(77, b"")]), "unknown type 77"),
        (krl(&[(3, &string(b"short"))]), BROKEN),
        (
            krl(&[(255, &[&string(b"new")[..], &[1], &string(b"")].concat())]),
            "unknown extension \"new\"",
        ),
        (krl(&[(2, b"left over")]), BROKEN),
    ] {
        let error = read(&bytes).unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
    }
    let harmless = [&string(b"new")[..], &[0], &string(b"content")].concat();
    assert!(read(&krl(&[(255, &harmless)])).is_ok());
}

proptest! {
    #[test]
    fn no_list_makes_the_reader_panic(sections in proptest::collection::vec((0_u8..8, proptest::collection::vec(any::<u8>(), 0..60)), 0..4), cut in 0_usize..200) {
        let sections: Vec<(u8, &[u8])> = sections.iter().map(|(kind, bytes)| (*kind, &bytes[..])).collect();
        let bytes = krl(&sections);
        let _ = read(&bytes[..bytes.len().min(cut)]);
        let _ = read(&bytes);
    }
}

#[cfg(feature = "lab")]
mod against_openssh {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    fn keygen(arguments: &[&str]) -> std::process::Output {
        let output = Command::new("ssh-keygen").args(arguments).output();
        output.expect("ssh-keygen is missing: install Debian's package openssh-client")
    }

    fn made(arguments: &[&str]) {
        let output = keygen(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    fn offered(file: &Path) -> PublicKeyOrCertificate {
        let text = fs::read_to_string(file).unwrap();
        if text.contains("-cert-v01") {
            PublicKeyOrCertificate::Certificate(Certificate::from_openssh(&text).unwrap())
        } else {
            plain(&PublicKey::from_openssh(&text).unwrap())
        }
    }

    #[test]
    fn a_list_holds_what_ssh_keygen_says_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for (name, kind) in [("ca1", "ed25519"), ("ca2", "ecdsa")] {
            made(&["-q", "-t", kind, "-N", "", "-f", &path(name)]);
        }
        let mut files: Vec<PathBuf> = vec![path("ca1.pub").into(), path("ca2.pub").into()];
        for (host, kind) in ["ed25519", "ecdsa", "rsa", "ed25519"].iter().enumerate() {
            let key = path(&format!("host{host}"));
            made(&["-q", "-t", kind, "-N", "", "-f", &key]);
            files.push(format!("{key}.pub").into());
            for authority in ["ca1", "ca2"] {
                for serial in ["0", "1", "7", "64", "1000"] {
                    let id = format!("id-{serial}");
                    made(&[
                        "-q",
                        "-s",
                        &path(authority),
                        "-h",
                        "-n",
                        "node",
                        "-I",
                        &id,
                        "-z",
                        serial,
                        &format!("{key}.pub"),
                    ]);
                    let kept = path(&format!("{authority}-{host}-{serial}-cert.pub"));
                    fs::rename(format!("{key}-cert.pub"), &kept).unwrap();
                    files.push(kept.into());
                }
            }
        }
        let hash = |name: &str| {
            let output = keygen(&["-l", "-f", &path(name)]).stdout;
            let output = String::from_utf8(output).unwrap();
            output.split(' ').nth(1).unwrap().to_owned()
        };
        let public = |name: &str| fs::read_to_string(path(name)).unwrap();
        let mut many = String::new();
        for serial in (1..400).step_by(3) {
            many.push_str(&format!("serial: {serial}\n"));
        }
        let mut lists = Vec::new();
        // The authority of the serial numbers and names, if any, and what `ssh-keygen -k` is given.
        for (number, (authority, specification)) in [
            (None, String::new()),
            (None, public("host0.pub")),
            (None, public("ca1.pub")),
            (None, public("ca1-2-7-cert.pub")),
            (None, public("ca1-2-0-cert.pub")),
            (None, format!("sha1: {}", public("host2.pub"))),
            (None, format!("sha256: {}", public("host3.pub"))),
            (None, format!("hash: {}\n", hash("host1.pub"))),
            (Some("ca1"), "serial: 7\n".to_owned()),
            (Some("ca2"), "serial: 7-64\nid: id-1000\n".to_owned()),
            (Some("ca1"), "id: id-0\nid: id-1\n".to_owned()),
            (Some("ca1"), many),
            (Some("none"), "serial: 1000\nid: id-64\n".to_owned()),
            (
                Some("ca2"),
                format!("serial: 5-2000\nkey: {}", public("host2.pub")),
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let (list, file) = (path(&format!("krl{number}")), path("specification"));
            fs::write(&file, specification).unwrap();
            let authority = authority.map(|name| match name {
                "none" => name.to_owned(),
                name => path(&format!("{name}.pub")),
            });
            let mut arguments = vec!["-q", "-k", "-f", &list];
            if let Some(authority) = &authority {
                arguments.extend(["-s", authority]);
            }
            arguments.push(&file);
            made(&arguments);
            lists.push(list);
        }
        let mut held = 0;
        for list in &lists {
            let revoked = Revoked::read(Path::new(list)).unwrap();
            let mut arguments = vec!["-Q", "-f", list.as_str()];
            arguments.extend(files.iter().map(|file| file.to_str().unwrap()));
            let answers = String::from_utf8(keygen(&arguments).stdout).unwrap();
            for file in &files {
                let line = answers
                    .lines()
                    .find(|line| line.starts_with(file.to_str().unwrap()));
                let theirs = line
                    .unwrap_or_else(|| panic!("{list}: {answers}"))
                    .ends_with("REVOKED");
                assert_eq!(
                    revoked.holds(&offered(file)),
                    theirs,
                    "{list}: {}",
                    file.display()
                );
                held += usize::from(theirs);
            }
        }
        assert!(held > 60, "the lists hold next to nothing: {held}");
    }
}
