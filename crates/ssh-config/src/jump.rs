//! ProxyJump: `[user@]host[:port]` and `ssh://` hosts, one after the other.

use super::scalar::{domain, port};
use super::types::JumpHost;

/// The hosts in the order in which they are gone through; `None` for `none`.
///
/// # Errors
/// The element that is not a host.
pub(super) fn parse(written: &str) -> Result<Option<Vec<JumpHost>>, String> {
    let written = written.split('#').next().unwrap_or_default().trim_end();
    if written.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    let hosts = written
        .split(',')
        .map(|element| one(element).ok_or_else(|| element.to_string()))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Some(hosts))
}

fn one(element: &str) -> Option<JumpHost> {
    if let Some(rest) = element.strip_prefix("ssh://") {
        return from_uri(rest);
    }
    let (user, rest) = match element.rsplit_once('@') {
        Some(("", _)) => return None,
        Some((user, rest)) => (Some(user.to_string()), rest),
        None => (None, element),
    };
    let (host, rest) = host_part(rest)?;
    let port = match rest {
        None | Some((':', "")) => None,
        Some((':', digits)) => Some(port(digits)?),
        Some(_) => return None,
    };
    Some(JumpHost { user, host, port })
}

fn from_uri(text: &str) -> Option<JumpHost> {
    let (user, rest) = match text.split_once('@') {
        Some((user, rest)) => {
            let user = user.split(';').next().unwrap_or_default();
            if user.is_empty() {
                return None;
            }
            (Some(url_decoded(user)?), rest)
        }
        None => (None, text),
    };
    let (host, rest) = host_part(rest)?;
    let host = domain(&host).ok()?.to_string();
    let port = match rest {
        None | Some((_, "")) => None,
        Some((':', rest)) => {
            let (digits, path) = rest.split_once('/').unwrap_or((rest, ""));
            if !path.is_empty() {
                return None;
            }
            Some(port(digits)?)
        }
        // A path has no meaning for a jump.
        Some(_) => return None,
    };
    Some(JumpHost { user, host, port })
}

/// The host without brackets, and the delimiter behind it with what follows.
fn host_part(text: &str) -> Option<(String, Option<(char, &str)>)> {
    let end = if text.starts_with('[') {
        text.find(']')? + 1
    } else {
        text.find([':', '/']).unwrap_or(text.len())
    };
    let (host, rest) = text.split_at(end);
    let rest = match rest.chars().next() {
        None => None,
        Some(delimiter @ (':' | '/')) => Some((delimiter, &rest[1..])),
        Some(_) => return None,
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(host);
    let whole = !bare.is_empty() && !bare.contains(char::is_whitespace);
    whole.then(|| (bare.to_string(), rest))
}

fn url_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let value = digit(rest.next())? * 16 + digit(rest.next())?;
                bytes.push(u8::try_from(value).ok()?);
            }
            other => bytes.push(other),
        }
    }
    // A NUL would end the name early in every program that it is given to.
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hop(user: Option<&str>, host: &str, port: Option<u16>) -> JumpHost {
        JumpHost {
            user: user.map(str::to_string),
            host: host.to_string(),
            port,
        }
    }

    #[test]
    fn hosts_are_read_in_order_in_every_form() {
        assert_eq!(
            parse("a,ops@b:2222,[2001:db8::7]:22,ssh://me%40x@c.example:7/ # d").unwrap(),
            Some(vec![
                hop(None, "a", None),
                hop(Some("ops"), "b", Some(2222)),
                hop(None, "2001:db8::7", Some(22)),
                hop(Some("me@x"), "c.example", Some(7)),
            ])
        );
        assert_eq!(parse("NONE"), Ok(None));
        assert_eq!(hop(Some("u"), "::1", Some(5)).written(), "u@[::1]:5");
    }

    #[test]
    fn what_is_no_host_is_named() {
        for wrong in [
            "",
            "@b",
            "b:0",
            "b:65536",
            "b:x y",
            "::1",
            "b/c",
            "ssh://b/c",
            "[b",
            "ssh://%00@b",
            "b c",
        ] {
            assert_eq!(parse(wrong), Err(wrong.to_string()));
        }
        assert_eq!(parse("a,,b"), Err(String::new()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_reads_back(user in proptest::option::of("[a-z@]{1,5}"), host in "[a-z0-9.-]{1,9}", port in proptest::option::of(1u16..)) {
            let host = JumpHost { user, host, port };
            prop_assume!(!host.host.eq_ignore_ascii_case("none"));
            prop_assert_eq!(parse(&host.written()), Ok(Some(vec![host])));
        }
    }
}
