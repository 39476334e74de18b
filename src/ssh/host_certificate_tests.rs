//! Tests of what a host certificate must be; `tests/ssh_openssh.rs` shows those of `ssh-keygen` through a real sshd.

use russh::keys::PrivateKey;
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::certificate::Builder;

use super::*;

fn key() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

/// A certificate for `node.example`, valid from second 100 to second 200, with changes.
fn certificate(change: impl FnOnce(&mut Builder)) -> Certificate {
    certificate_for(CertType::Host, change)
}

fn certificate_for(kind: CertType, change: impl FnOnce(&mut Builder)) -> Certificate {
    let host = key().public_key().clone();
    let mut builder = Builder::new(vec![1; 16], host.key_data().clone(), 100, 200).unwrap();
    builder.cert_type(kind).unwrap();
    change(&mut builder);
    builder.sign(&key()).unwrap()
}

fn named(builder: &mut Builder) {
    builder.valid_principal("node.example").unwrap();
}

fn judged(certificate: &Certificate, second: u64, listed: Option<&[String]>) -> String {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    match check(certificate, "node.example", listed, now) {
        Ok(()) => "good".to_owned(),
        Err(reason) => reason,
    }
}

#[test]
fn a_certificate_holds_in_its_time_only() {
    let good = certificate(named);
    for (second, words) in [
        (99, "not valid before 1970-01-01T00:01:40Z"),
        (100, "good"),
        (199, "good"),
        (200, "expired on 1970-01-01T00:03:20Z"),
    ] {
        let found = judged(&good, second, None);
        assert!(found.contains(words), "{second}: {found}");
    }
}

#[test]
fn other_names_other_types_unknown_options_and_banned_signatures_are_refused() {
    let other = certificate(|builder| {
        builder.valid_principal("other.example").unwrap();
    });
    assert!(judged(&other, 150, None).contains("for other.example, not for node.example"));
    let pattern = certificate(|builder| {
        builder.valid_principal("*.example").unwrap();
    });
    assert_eq!(judged(&pattern, 150, None), "good");
    let user = certificate_for(CertType::User, named);
    assert!(judged(&user, 150, None).contains("a user's certificate"));
    let nobody = certificate(|builder| {
        builder.all_principals_valid().unwrap();
    });
    assert!(judged(&nobody, 150, None).contains("ssh-keygen -n"));
    let critical = certificate(|builder| {
        named(builder);
        builder.critical_option("force-command", "true").unwrap();
    });
    assert!(judged(&critical, 150, None).contains("force-command"));
    let rsa_only = ["rsa-sha2-512".to_string()];
    assert!(
        judged(&certificate(named), 150, Some(&rsa_only)).contains("CASignatureAlgorithms"),
        "signed with ed25519"
    );
}

#[test]
fn a_forged_signature_is_found() {
    let mut bytes = certificate(named).to_bytes().unwrap();
    let last = bytes.len() - 1;
    bytes[last - 40] ^= 1;
    let forged = Certificate::from_bytes(&bytes).unwrap();
    assert!(judged(&forged, 150, None).contains("signature of its authority is wrong"));
}
