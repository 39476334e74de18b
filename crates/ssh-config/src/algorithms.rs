//! Lists of algorithms: what OpenSSH 9.2 knows and offers, and how `+ - ^` and wildcards change the defaults.

use super::pattern::{self, Verdict};

/// Which algorithms a list is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Ciphers.
    Cipher,
    /// Message authentication codes.
    Mac,
    /// Key exchange.
    Kex,
    /// Host keys and user keys, certificates included.
    Key,
    /// Signatures by a certificate authority.
    Signature,
}

/// The key algorithms that OpenSSH 9.2 offers, best first.
pub const DEFAULT_KEYS: &[&str] = &[
    "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "sk-ssh-ed25519-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "rsa-sha2-512-cert-v01@openssh.com",
    "rsa-sha2-256-cert-v01@openssh.com",
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
];

/// The signatures of certificate authorities that OpenSSH 9.2 accepts.
pub const DEFAULT_SIGNATURES: &[&str] = &[
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
];

/// The ciphers that OpenSSH 9.2 offers, best first.
pub const DEFAULT_CIPHERS: &[&str] = &[
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
];

/// The message authentication codes that OpenSSH 9.2 offers, best first.
pub const DEFAULT_MACS: &[&str] = &[
    "umac-64-etm@openssh.com",
    "umac-128-etm@openssh.com",
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha1-etm@openssh.com",
    "umac-64@openssh.com",
    "umac-128@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
    "hmac-sha1",
];

/// The key exchanges that OpenSSH 9.2 offers, best first.
pub const DEFAULT_KEX: &[&str] = &[
    "sntrup761x25519-sha512",
    "sntrup761x25519-sha512@openssh.com",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
    "diffie-hellman-group14-sha256",
];

const ALL_CIPHERS: &[&str] = &[
    "3des-cbc",
    "aes128-cbc",
    "aes192-cbc",
    "aes256-cbc",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
];

const ALL_MACS: &[&str] = &[
    "hmac-sha1",
    "hmac-sha1-96",
    "hmac-sha2-256",
    "hmac-sha2-512",
    "hmac-md5",
    "hmac-md5-96",
    "umac-64@openssh.com",
    "umac-128@openssh.com",
    "hmac-sha1-etm@openssh.com",
    "hmac-sha1-96-etm@openssh.com",
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-md5-etm@openssh.com",
    "hmac-md5-96-etm@openssh.com",
    "umac-64-etm@openssh.com",
    "umac-128-etm@openssh.com",
];

/// The last is newer than 9.2: a configuration that names it is not wrong.
const ALL_KEX: &[&str] = &[
    "diffie-hellman-group1-sha1",
    "diffie-hellman-group14-sha1",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
    "diffie-hellman-group-exchange-sha1",
    "diffie-hellman-group-exchange-sha256",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "sntrup761x25519-sha512",
    "sntrup761x25519-sha512@openssh.com",
    "mlkem768x25519-sha256",
];

const ALL_KEYS: &[&str] = &[
    "ssh-ed25519",
    "ssh-ed25519-cert-v01@openssh.com",
    "sk-ssh-ed25519@openssh.com",
    "sk-ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "webauthn-sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-dss",
    "ssh-dss-cert-v01@openssh.com",
    "ssh-rsa",
    "ssh-rsa-cert-v01@openssh.com",
    "rsa-sha2-256",
    "rsa-sha2-256-cert-v01@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-512-cert-v01@openssh.com",
];

const ALL_SIGNATURES: &[&str] = &[
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "webauthn-sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-dss",
    "ssh-rsa",
    "rsa-sha2-256",
    "rsa-sha2-512",
];

/// Short names of key types that `ssh` lets stand in a list, and that then choose nothing.
const SHORT_KEY_NAMES: [&str; 6] = ["ed25519", "ed25519-sk", "ecdsa", "ecdsa-sk", "dsa", "rsa"];

impl Family {
    /// What OpenSSH 9.2 offers where nothing is set.
    pub fn defaults(self) -> &'static [&'static str] {
        match self {
            Self::Cipher => DEFAULT_CIPHERS,
            Self::Mac => DEFAULT_MACS,
            Self::Kex => DEFAULT_KEX,
            Self::Key => DEFAULT_KEYS,
            Self::Signature => DEFAULT_SIGNATURES,
        }
    }

    /// What may stand in a list.
    pub fn known(self) -> &'static [&'static str] {
        match self {
            Self::Cipher => ALL_CIPHERS,
            Self::Mac => ALL_MACS,
            Self::Kex => ALL_KEX,
            Self::Key => ALL_KEYS,
            Self::Signature => ALL_SIGNATURES,
        }
    }

    /// Checks what is written as `ssh` does while it reads the line.
    ///
    /// # Errors
    /// The element that is not known.
    pub(super) fn check(self, written: &str) -> Result<(), String> {
        if written.starts_with('-') {
            return Ok(());
        }
        let names = written.strip_prefix(['+', '^']).unwrap_or(written);
        if names.is_empty() {
            return Err(names.to_string());
        }
        // `ssh` stops looking at the first empty element.
        for name in names.split(',').take_while(|name| !name.is_empty()) {
            let fits = match self {
                // Host keys and signatures may be patterns, of any key algorithm.
                Self::Key | Self::Signature => {
                    SHORT_KEY_NAMES.contains(&name.to_ascii_lowercase().as_str())
                        || ALL_KEYS
                            .iter()
                            .any(|known| pattern::list(known, name, false) != Verdict::No)
                }
                _ => self.known().contains(&name),
            };
            if !fits {
                return Err(name.to_string());
            }
        }
        Ok(())
    }
}

/// The list that `written` makes of the defaults: `+` appends, `-` removes, `^` puts in front, else it replaces.
/// Names may be patterns of `known`; what `known` does not have is left out.
///
/// # Errors
/// A sentence, where an element is negated or nothing is left.
pub fn assemble(written: &str, defaults: &[&str], known: &[&str]) -> Result<Vec<String>, String> {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_string()).collect();
    if written.is_empty() {
        return Ok(own(defaults));
    }
    if let Some(patterns) = written.strip_prefix('-') {
        let left: Vec<&str> = defaults
            .iter()
            .copied()
            .filter(|name| pattern::list(name, patterns, false) != Verdict::Yes)
            .collect();
        return Ok(own(&left));
    }
    let elements: Vec<&str> = if let Some(more) = written.strip_prefix('+') {
        defaults.iter().copied().chain(split(more)).collect()
    } else if let Some(first) = written.strip_prefix('^') {
        split(first).chain(defaults.iter().copied()).collect()
    } else {
        written.split(',').collect()
    };
    let mut list: Vec<String> = Vec::new();
    for element in elements {
        if element.starts_with('!') {
            return Err(format!(
                "\"{element}\": a list of algorithms cannot be negated"
            ));
        }
        for name in known {
            if pattern::matches(name, element) && !list.iter().any(|there| there == name) {
                list.push((*name).to_string());
            }
        }
    }
    if list.is_empty() {
        return Err(format!("\"{written}\" leaves no algorithm"));
    }
    Ok(list)
}

/// The elements up to the first empty one.
fn split(names: &str) -> impl Iterator<Item = &str> {
    names.split(',').take_while(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: &[&str] = &["b", "c1", "c2"];
    const KNOWN: &[&str] = &["a", "b", "c1", "c2", "d"];

    fn made(written: &str) -> Vec<String> {
        assemble(written, DEFAULTS, KNOWN).unwrap()
    }

    #[test]
    fn the_first_character_says_how_a_list_changes_the_defaults() {
        assert_eq!(made(""), ["b", "c1", "c2"]);
        assert_eq!(made("d,a"), ["d", "a"]);
        assert_eq!(made("+d,b"), ["b", "c1", "c2", "d"]);
        assert_eq!(made("^c2,d"), ["c2", "d", "b", "c1"]);
        assert_eq!(made("-c*"), ["b"]);
        assert_eq!(made("c?,z"), ["c1", "c2"]);
        assert!(assemble("z", DEFAULTS, KNOWN).is_err());
        assert!(assemble("!b", DEFAULTS, KNOWN).is_err());
    }

    #[test]
    fn every_default_is_known() {
        use Family::*;
        for family in [Cipher, Mac, Kex, Key, Signature] {
            for name in family.defaults() {
                assert!(family.known().contains(name), "{name}");
            }
        }
    }

    #[test]
    fn unknown_names_are_refused_where_ssh_refuses_them() {
        assert_eq!(
            Family::Cipher.check("aes128-ctr,rot13"),
            Err("rot13".into())
        );
        assert_eq!(Family::Cipher.check("-rot13"), Ok(()));
        assert!(Family::Cipher.check("aes*").is_err());
        assert_eq!(Family::Key.check("+ssh-*,RSA"), Ok(()));
        assert!(Family::Key.check("+").is_err());
    }
}
