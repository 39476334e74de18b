//! What is offered to a server before its key exchange: ssh_config's lists, as far as russh can do what they name.

use std::borrow::Cow;

use russh::keys::Algorithm;
use russh::{cipher, kex, mac};

use super::Host;
use super::host_keys::offered;
use super::known_hosts::KnownName;
use super::settings::HostSettings;

/// Cheap ones first: group exchange costs a hundred times as much as a curve.
const KEY_EXCHANGES: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_G14_SHA256,
    kex::DH_G16_SHA512,
    kex::DH_GEX_SHA256,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
];

/// Where the processor computes AES: sealing takes half the time of ChaCha20 or less, here and in OpenSSH.
const CIPHERS_IN_HARDWARE: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];
const CIPHERS_IN_SOFTWARE: &[cipher::Name] = &[
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];

/// The ciphers, the fastest first: images may go through the connection.
pub(super) fn ciphers(settings: &HostSettings, computes_aes: bool) -> Cow<'static, [cipher::Name]> {
    let own = match computes_aes {
        true => CIPHERS_IN_HARDWARE,
        false => CIPHERS_IN_SOFTWARE,
    };
    chosen(&settings.ciphers, Cow::Borrowed(own))
}

/// Whether this machine's processor has instructions for AES-GCM.
#[cfg(target_arch = "x86_64")]
pub(super) fn computes_aes() -> bool {
    std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq")
}

/// Whether this machine's processor has instructions for AES-GCM.
#[cfg(target_arch = "aarch64")]
pub(super) fn computes_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

/// Whether this machine's processor has instructions for AES-GCM.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn computes_aes() -> bool {
    false
}

/// What ssh_config lists, as far as russh knows it; without a list, our own choice.
pub(super) fn chosen<T: Clone + for<'a> TryFrom<&'a str>>(
    written: &Option<Vec<String>>,
    own: Cow<'static, [T]>,
) -> Cow<'static, [T]> {
    match written {
        None => own,
        Some(names) => names
            .iter()
            .filter_map(|name| T::try_from(name).ok())
            .collect(),
    }
}

/// The key exchanges, and the two entries of that list that are none: they announce extensions.
pub(super) fn key_exchanges(settings: &HostSettings) -> Cow<'static, [kex::Name]> {
    let mut names = chosen(&settings.key_exchanges, Cow::Borrowed(KEY_EXCHANGES));
    if settings.key_exchanges.is_some() && !names.is_empty() {
        names.to_mut().extend([
            kex::EXTENSION_SUPPORT_AS_CLIENT,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        ]);
    }
    names
}

/// The host key algorithms: those of a known key first, and none that ssh_config leaves out.
pub(super) fn key_algorithms(host: &Host, name: &KnownName) -> Vec<Algorithm> {
    let known_first = host.host_keys.preferred(name);
    listed(&host.settings, known_first, |one| one.as_str().to_owned())
}

/// The types of host certificates to ask for. Where no authority may vouch for the host or be revoked, a certificate
/// says nothing: there only those whose keys cannot be asked for, since the key may be known.
pub(super) fn certificate_algorithms(
    host: &Host,
    name: &KnownName,
    plain: &[Algorithm],
) -> Vec<Algorithm> {
    let settings = &host.settings;
    let offered = offered();
    let mut algorithms = listed(settings, offered, Algorithm::to_certificate_type);
    if host.revoked.is_none() && !host.host_keys.certified(name) {
        let place = |name: &str| {
            let mut names = settings.host_key_algorithms.iter().flatten();
            names.position(|one| one == name)
        };
        // russh asks for certificates first, wherever they stand.
        let too_late = |one: &Algorithm| {
            let first = plain.first().filter(|_| settings.host_key_order);
            first.is_some_and(|key| place(key.as_str()) < place(&one.to_certificate_type()))
        };
        algorithms.retain(|one| !plain.contains(one) && !too_late(one));
    }
    algorithms
}

/// Those that HostKeyAlgorithms lists, in its order where that is fixed. `named` is how it would name one.
fn listed(
    settings: &HostSettings,
    mut algorithms: Vec<Algorithm>,
    named: impl Fn(&Algorithm) -> String,
) -> Vec<Algorithm> {
    if let Some(names) = &settings.host_key_algorithms {
        let place = |one: &Algorithm| names.iter().position(|name| *name == named(one));
        algorithms.retain(|one| place(one).is_some());
        if settings.host_key_order {
            algorithms.sort_by_key(place);
        }
    }
    algorithms
}

/// The lists of ssh_config that leave nothing to agree on: option and what it says.
pub(super) fn impossible(settings: &HostSettings) -> Option<(&'static str, String)> {
    let none = |written: &Option<Vec<String>>, known: fn(&str) -> bool| {
        let names = written.as_ref()?;
        let usable = names.iter().any(|name| known(name));
        (!usable).then(|| names.join(","))
    };
    let host_key = |name: &str| {
        offered()
            .iter()
            .any(|one| one.as_str() == name || one.to_certificate_type() == name)
    };
    none(&settings.key_exchanges, |name| {
        kex::Name::try_from(name).is_ok()
    })
    .map(|names| ("KexAlgorithms", names))
    .or_else(|| {
        none(&settings.ciphers, |name| {
            cipher::Name::try_from(name).is_ok()
        })
        .map(|names| ("Ciphers", names))
    })
    .or_else(|| {
        none(&settings.macs, |name| mac::Name::try_from(name).is_ok()).map(|names| ("MACs", names))
    })
    .or_else(|| {
        none(&settings.host_key_algorithms, host_key).map(|names| ("HostKeyAlgorithms", names))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(ciphers: &[cipher::Name]) -> Vec<&str> {
        ciphers.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn the_fastest_cipher_is_offered_first_unless_ssh_config_lists_them() {
        let mut settings = HostSettings::for_home(std::path::Path::new("/home/user"));
        let (hardware, software) = (ciphers(&settings, true), ciphers(&settings, false));
        assert_eq!(names(&hardware)[0], "aes128-gcm@openssh.com");
        assert_eq!(names(&software)[0], "chacha20-poly1305@openssh.com");
        let sorted = |ciphers: &[cipher::Name]| {
            let mut names: Vec<String> = names(ciphers).iter().map(|&name| name.into()).collect();
            names.sort();
            names
        };
        assert_eq!(sorted(&hardware), sorted(&software));
        settings.ciphers = Some(vec!["aes256-ctr".into(), "unheard-of".into()]);
        assert_eq!(names(&ciphers(&settings, true)), ["aes256-ctr"]);
    }
}
