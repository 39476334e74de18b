//! Decides whether a host certificate of a trusted authority vouches for the host that shows it: the rules of
//! OpenSSH's PROTOCOL.certkeys, of which the crate underneath checks only the signature.

use std::time::{Duration, SystemTime};

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, HashAlg};

use super::config::pattern_matches;
use crate::model::text::truncate_bytes;

/// Whether the certificate holds for the host called `principal`; the error is a clause that says why not. That its
/// authority is trusted for this host is for the caller to know.
///
/// `signatures` are the signature algorithms of authorities that are taken; without a list, all but those of SHA-1.
pub(super) fn check(
    certificate: &Certificate,
    principal: &str,
    signatures: Option<&[String]>,
    now: SystemTime,
) -> Result<(), String> {
    // Quotes of the server stay short and printable.
    let word = |text: &str| truncate_bytes(text.as_bytes(), 100);
    if certificate.cert_type() != CertType::Host {
        return Err("it is a user's certificate, not a host's".to_owned());
    }
    let seconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    if seconds < certificate.valid_after() {
        return Err(format!(
            "it is not valid before {}",
            date(certificate.valid_after())
        ));
    }
    if seconds >= certificate.valid_before() {
        return Err(format!(
            "it expired on {}",
            date(certificate.valid_before())
        ));
    }
    let principals = certificate.valid_principals();
    if principals.is_empty() {
        return Err(
            "it names no host at all: sign it again and name the host with ssh-keygen -n"
                .to_owned(),
        );
    }
    if !principals
        .iter()
        .any(|pattern| pattern_matches(principal, pattern))
    {
        return Err(format!(
            "it is for {}, not for {principal}",
            word(&principals.join(", "))
        ));
    }
    // None is defined for hosts, and one that we do not know must be honoured.
    if let Some(option) = certificate.critical_options().keys().next() {
        return Err(format!(
            "it has a critical option that nobody knows: {}",
            word(option)
        ));
    }
    let signature = certificate.signature().algorithm();
    let allowed = match signatures {
        Some(listed) => listed.iter().any(|name| name == signature.as_str()),
        None => !matches!(signature, Algorithm::Rsa { hash: None } | Algorithm::Dsa),
    };
    if !allowed {
        return Err(format!(
            "its authority signed it with {}, which CASignatureAlgorithms does not allow",
            word(signature.as_str())
        ));
    }
    let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
    certificate
        .validate_at(seconds, [&authority])
        .map_err(|_| "the signature of its authority is wrong".to_owned())
}

/// A moment in seconds since 1970, as people write it.
fn date(seconds: u64) -> String {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        // What is beyond the year 9999 cannot be written.
        .filter(|_| seconds < 253_402_300_800)
        .map_or_else(
            || format!("second {seconds}"),
            |time| humantime::format_rfc3339_seconds(time).to_string(),
        )
}

#[cfg(test)]
#[path = "host_certificate_tests.rs"]
mod tests;
