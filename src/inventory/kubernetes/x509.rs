//! The few fields of an X.509 certificate that the TLS library does not show, or only for version 3: enough to trust
//! and to use the certificates that Go takes.

use std::time::{SystemTime, UNIX_EPOCH};

/// What is read of a certificate (RFC 5280, 4.1).
#[derive(Debug, Clone, Copy)]
pub(super) struct Certificate<'a> {
    /// What is signed.
    pub(super) signed: &'a [u8],
    /// The signature's algorithm, without its DER header, as webpki compares it.
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
    pub(super) issuer: &'a [u8],
    pub(super) subject: &'a [u8],
    not_before: i64,
    not_after: i64,
    pub(super) key_algorithm: &'a [u8],
    pub(super) key: &'a [u8],
    is_version_3: bool,
    /// `cA` of the basic constraints, where there are any.
    is_authority: Option<bool>,
    /// `keyCertSign` of the key usage, where there is one.
    may_sign: Option<bool>,
    /// Whether the extended key usage, where there is one, allows a server.
    is_for_servers: Option<bool>,
    has_name_constraints: bool,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]` and `[3]`, constructed: the version and the extensions.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// The identifiers of extensions, all of them 2.5.29.x.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 30];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 37, 0];
const SERVER_USAGE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];

/// DER values one after the other.
struct Values<'a>(&'a [u8]);

impl<'a> Values<'a> {
    /// The next value: its tag, its content, and all its bytes.
    fn next(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (length, header) = match first {
            0..=0x7f => (usize::from(first), 2),
            0x81..=0x84 => {
                let bytes = rest.get(..usize::from(first & 0x7f))?;
                let length = bytes
                    .iter()
                    .fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
                (length, 2 + bytes.len())
            }
            _ => return None,
        };
        let whole = self.0.get(..header.checked_add(length)?)?;
        self.0 = &self.0[whole.len()..];
        Some((tag, &whole[header..], whole))
    }

    /// The content of the next value, which has to have this tag.
    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        let (tag, content, _) = self.next()?;
        (tag == wanted).then_some(content)
    }

    /// The content of the next value if it has this tag.
    fn optional(&mut self, wanted: u8) -> Option<&'a [u8]> {
        (self.0.first() == Some(&wanted)).then(|| self.expect(wanted))?
    }
}

impl<'a> Certificate<'a> {
    /// `None` if this is not a certificate.
    pub(super) fn read(der: &'a [u8]) -> Option<Self> {
        let mut outer = Values(Values(der).expect(SEQUENCE)?);
        let (SEQUENCE, content, signed) = outer.next()? else {
            return None;
        };
        let algorithm = outer.expect(SEQUENCE)?;
        let signature = bits(outer.expect(BIT_STRING)?)?;
        let mut fields = Values(content);
        let version = fields.optional(VERSION);
        fields.expect(INTEGER)?;
        // The same algorithm again.
        if fields.expect(SEQUENCE)? != algorithm {
            return None;
        }
        let issuer = fields.expect(SEQUENCE)?;
        let mut validity = Values(fields.expect(SEQUENCE)?);
        let not_before = time(&mut validity)?;
        let not_after = time(&mut validity)?;
        let subject = fields.expect(SEQUENCE)?;
        let (key_algorithm, key) = public_key(fields.expect(SEQUENCE)?)?;
        let mut certificate = Self {
            signed,
            algorithm,
            signature,
            issuer,
            subject,
            not_before,
            not_after,
            key_algorithm,
            key,
            is_version_3: version == Some(&[INTEGER, 1, 2]),
            is_authority: None,
            may_sign: None,
            is_for_servers: None,
            has_name_constraints: false,
        };
        // Unique identifiers may stand before them.
        while let Some((tag, content, _)) = fields.next() {
            if tag == EXTENSIONS {
                certificate.read_extensions(Values(content).expect(SEQUENCE)?)?;
            }
        }
        Some(certificate)
    }

    fn read_extensions(&mut self, extensions: &[u8]) -> Option<()> {
        let mut extensions = Values(extensions);
        while !extensions.0.is_empty() {
            let mut extension = Values(extensions.expect(SEQUENCE)?);
            let object = extension.expect(OBJECT)?;
            extension.optional(BOOLEAN);
            let mut value = Values(extension.expect(OCTET_STRING)?);
            match object {
                BASIC_CONSTRAINTS => {
                    let is_authority = Values(value.expect(SEQUENCE)?).optional(BOOLEAN);
                    self.is_authority = Some(is_authority.is_some_and(|value| value != [0]));
                }
                KEY_USAGE => {
                    // The sixth bit; the first byte counts the unused ones at the end.
                    let usage = value.expect(BIT_STRING)?;
                    self.may_sign = Some(usage.get(1).is_some_and(|byte| byte & 0x04 != 0));
                }
                EXTENDED_KEY_USAGE => {
                    let mut purposes = Values(value.expect(SEQUENCE)?);
                    let mut is_for_servers = false;
                    while let Some(purpose) = purposes.expect(OBJECT) {
                        is_for_servers |= [ANY_USAGE, SERVER_USAGE].contains(&purpose);
                    }
                    self.is_for_servers = Some(is_for_servers);
                }
                NAME_CONSTRAINTS => self.has_name_constraints = true,
                _ => {}
            }
        }
        Some(())
    }

    /// Whether it is valid at this time, in seconds since 1970.
    pub(super) fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether its key may sign other certificates. Version 1 has no words for that, and Go takes it for granted.
    pub(super) fn may_issue(&self) -> bool {
        let is_authority = self.is_authority.unwrap_or(!self.is_version_3);
        is_authority && self.may_sign.unwrap_or(true)
    }

    /// Whether it may stand for a server.
    pub(super) fn may_serve(&self) -> bool {
        self.is_for_servers.unwrap_or(true)
    }

    /// Whether it says of itself that it is an authority.
    pub(super) fn is_authority(&self) -> bool {
        self.is_authority == Some(true)
    }

    /// Whether it limits the names in the certificates that it issues.
    pub(super) fn limits_names(&self) -> bool {
        self.has_name_constraints
    }
}

/// The present time as certificates count it.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// The algorithm and the key of a `SubjectPublicKeyInfo`, without its header.
fn public_key(info: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut info = Values(info);
    Some((info.expect(SEQUENCE)?, bits(info.expect(BIT_STRING)?)?))
}

/// The key in a whole `SubjectPublicKeyInfo`.
pub(super) fn key_in(info: &[u8]) -> Option<&[u8]> {
    public_key(Values(info).expect(SEQUENCE)?).map(|(_, key)| key)
}

/// The bytes of a bit string that ends with a whole byte.
fn bits(content: &[u8]) -> Option<&[u8]> {
    match content {
        [0, bytes @ ..] => Some(bytes),
        _ => None,
    }
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, as seconds since 1970.
fn time(values: &mut Values<'_>) -> Option<i64> {
    let (tag, content, _) = values.next()?;
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let year = number(0, 2)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, 2)
        }
        (GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let part = |index: usize| number(rest + 2 * index, rest + 2 * index + 2);
    let days = days_since_1970(year, part(0)?, part(1)?);
    Some(((days * 24 + part(2)?) * 60 + part(3)?) * 60 + part(4)?)
}

/// Days in the Gregorian calendar, counted in years that begin in March.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (date, days) in [
            ((1970, 1, 1), 0),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2038, 1, 19), 24_855),
            ((1949, 12, 31), -7_306),
            ((9999, 12, 31), 2_932_896),
        ] {
            assert_eq!(days_since_1970(date.0, date.1, date.2), days, "{date:?}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused_and_never_panics() {
        let mut bytes = vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x30, 0x03, 0x02, 0x01];
        for length in 0..bytes.len() {
            assert!(Certificate::read(&bytes[..length]).is_none());
        }
        for byte in 0..=255 {
            bytes[1] = byte;
            assert!(Certificate::read(&bytes).is_none());
        }
        assert!(Certificate::read(&[0x30; 1000]).is_none());
        assert!(key_in(b"").is_none());
    }
}
