//! Makes host names canonical: numeric addresses always, names where CanonicalizeHostname asks for it.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::pattern::{self, Verdict};
use super::resolved::{Canonicalization, Canonicalize};
use super::scalar::domain;
use super::system_probe::{Lookup, SystemProbe};
use super::types::AddressFamily;

/// Whether the text can only be an address.
fn looks_like_address(host: &str) -> bool {
    host.contains(['%', ':'])
        || host
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// The address in its usual form, where the text is one of this family.
fn address(host: &str, family: AddressFamily) -> Option<String> {
    let (bare, scope) = match host.split_once('%') {
        Some((bare, scope)) => (bare, Some(scope)),
        None => (host, None),
    };
    if family != AddressFamily::Inet
        && let Ok(v6) = bare.parse::<Ipv6Addr>()
    {
        return match scope {
            None => Some(v6.to_string()),
            // An interface's name means nothing but on a link-local address.
            Some(scope)
                if v6.is_unicast_link_local() && nix::net::if_::if_nametoindex(scope).is_ok() =>
            {
                Some(format!("{v6}%{scope}"))
            }
            Some(_) => None,
        };
    }
    if scope.is_some() || family == AddressFamily::Inet6 {
        return None;
    }
    old_v4(bare).map(|v4| v4.to_string())
}

/// IPv4 in all the forms that `inet_aton` takes: `127.1`, `0x7f.0.0.1`, `010.0.0.1`, `2130706433`.
fn old_v4(text: &str) -> Option<Ipv4Addr> {
    let parts = text
        .split('.')
        .map(|part| {
            if let Some(hex) = part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
                digits(hex, 16)
            } else if part.len() > 1 && part.starts_with('0') {
                digits(part, 8)
            } else {
                digits(part, 10)
            }
        })
        .collect::<Option<Vec<u32>>>()?;
    let (last, front) = parts.split_last()?;
    if front.len() > 3 || front.iter().any(|part| *part > 255) {
        return None;
    }
    let last_bits = 32 - 8 * u32::try_from(front.len()).ok()?;
    if last_bits < 32 && *last >= 1 << last_bits {
        return None;
    }
    let high = front
        .iter()
        .enumerate()
        .fold(0, |sum, (index, part)| sum | part << (24 - 8 * index));
    Some(Ipv4Addr::from(high | last))
}

fn digits(text: &str, base: u32) -> Option<u32> {
    let all = !text.is_empty() && text.chars().all(|digit| digit.is_digit(base));
    all.then(|| u32::from_str_radix(text, base).ok())?
}

/// What the host is called from here on.
///
/// # Errors
/// A sentence, where a name must be found and is not.
pub(super) fn name(
    host: &str,
    rules: &Canonicalization,
    direct: bool,
    family: AddressFamily,
    system_probe: &dyn SystemProbe,
) -> Result<String, String> {
    let as_address = address(host, family);
    let was_address = as_address.is_some() || looks_like_address(host);
    let host = if was_address {
        host.to_string()
    } else {
        host.to_ascii_lowercase()
    };
    if let Some(address) = as_address {
        // Letters of either case are the same address, and known_hosts may have it as it was given.
        let same = host.eq_ignore_ascii_case(&address);
        return Ok(if same { host } else { address });
    }
    let may_look_up = direct || rules.mode == Canonicalize::Always;
    let wanted = rules.mode != Canonicalize::No && may_look_up && !was_address;
    if wanted && let Some(found) = search(&host, rules, family, system_probe)? {
        return Ok(found);
    }
    if has_rules(rules) && may_look_up {
        return match system_probe.lookup(&host, family) {
            // A proxy may know a name that we do not.
            Lookup::Missing if direct => Err(format!("the name \"{host}\" cannot be resolved")),
            Lookup::Missing => Ok(host),
            // Without CanonicalizeHostname no alias is followed, but the name must exist.
            Lookup::Found { canonical } => Ok(followed(host, canonical, rules)),
        };
    }
    Ok(host)
}

/// The host with the first suffix that makes a name of it; `None` to keep it as it is.
fn search(
    host: &str,
    rules: &Canonicalization,
    family: AddressFamily,
    system_probe: &dyn SystemProbe,
) -> Result<Option<String>, String> {
    let look_up = |full: &str| match system_probe.lookup(full, family) {
        Lookup::Found { canonical } => {
            let bare = full.trim_end_matches('.').to_string();
            Some(followed(bare, canonical, rules))
        }
        Lookup::Missing => None,
    };
    if host.ends_with('.') {
        if let Some(found) = look_up(host) {
            return Ok(Some(found));
        }
    } else {
        let dots = host.bytes().filter(|byte| *byte == b'.').count();
        if dots > rules.max_dots as usize {
            return Ok(None);
        }
        let suffixes = rules
            .domains
            .iter()
            .take_while(|suffix| !suffix.eq_ignore_ascii_case("none"));
        for suffix in suffixes {
            if let Some(found) = look_up(&format!("{host}.{suffix}.")) {
                return Ok(Some(found));
            }
        }
    }
    if rules.fallback_local {
        Ok(None)
    } else {
        Err(format!(
            "the name \"{host}\" is found in none of the CanonicalDomains, and CanonicalizeFallbackLocal is no"
        ))
    }
}

fn has_rules(rules: &Canonicalization) -> bool {
    rules
        .permitted_cnames
        .iter()
        .any(|(from, to)| !(from.eq_ignore_ascii_case("none") && to.is_empty()))
}

/// The name that this one is an alias of, where a rule permits to follow it.
fn followed(name: String, canonical: Option<String>, rules: &Canonicalization) -> String {
    let Some(canonical) = canonical else {
        return name;
    };
    let Ok(target) = domain(&canonical) else {
        return name;
    };
    let fits = |text: &str, list: &str| pattern::list(text, list, true) == Verdict::Yes;
    let permitted = rules.mode != Canonicalize::No
        && has_rules(rules)
        && rules
            .permitted_cnames
            .iter()
            .any(|(from, to)| fits(&name, from) && fits(target, to));
    if permitted { target.to_string() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use std::path::PathBuf;

    /// A name server of three names.
    struct Names;

    impl SystemProbe for Names {
        fn run(&self, _: &str) -> Result<bool, String> {
            Err("no commands here".into())
        }
        fn lookup(&self, name: &str, _: AddressFamily) -> Lookup {
            let canonical = match name {
                "web.a.example." | "known." | "known" => None,
                "alias.a.example." => Some("target.b.example".to_string()),
                _ => return Lookup::Missing,
            };
            Lookup::Found { canonical }
        }
        fn local_addresses(&self) -> Vec<IpAddr> {
            vec![]
        }
        fn home_of(&self, _: &str) -> Option<PathBuf> {
            None
        }
    }

    fn rules() -> Canonicalization {
        Canonicalization {
            mode: Canonicalize::Yes,
            domains: vec!["z.example".into(), "a.example".into()],
            max_dots: 1,
            fallback_local: true,
            permitted_cnames: vec![],
        }
    }

    fn named(host: &str, rules: &Canonicalization, direct: bool) -> Result<String, String> {
        name(host, rules, direct, AddressFamily::Any, &Names)
    }

    #[test]
    fn addresses_are_canonical_without_being_asked() {
        let off = Canonicalization {
            mode: Canonicalize::No,
            ..rules()
        };
        for (given, expected) in [
            ("127.1", "127.0.0.1"),
            ("0x7f000001", "127.0.0.1"),
            ("010.0.0.1", "8.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("2001:DB8:0::7", "2001:db8::7"),
            ("2001:DB8::7", "2001:DB8::7"),
            ("::FFFF:0102:0304", "::ffff:1.2.3.4"),
            ("1.2.3.4.5", "1.2.3.4.5"),
            ("256.1.1.1", "256.1.1.1"),
            ("fe80::1%no-such-interface", "fe80::1%no-such-interface"),
            ("WEB", "web"),
        ] {
            assert_eq!(named(given, &off, true).unwrap(), expected);
        }
    }

    #[test]
    fn a_short_name_takes_the_first_suffix_that_exists() {
        assert_eq!(named("Web", &rules(), true).unwrap(), "web.a.example");
        assert_eq!(named("other", &rules(), true).unwrap(), "other");
        assert_eq!(named("known.", &rules(), true).unwrap(), "known");
        assert_eq!(named("web", &rules(), false).unwrap(), "web");
        let always = Canonicalization {
            mode: Canonicalize::Always,
            ..rules()
        };
        assert_eq!(named("web", &always, false).unwrap(), "web.a.example");
        let strict = Canonicalization {
            fallback_local: false,
            ..rules()
        };
        assert!(named("other", &strict, true).is_err());
        assert_eq!(named("a.b.c", &strict, true).unwrap(), "a.b.c");
    }

    #[test]
    fn aliases_are_followed_where_a_rule_permits() {
        let with = |from: &str, to: &str| Canonicalization {
            permitted_cnames: vec![(from.into(), to.into())],
            ..rules()
        };
        assert_eq!(named("alias", &rules(), true).unwrap(), "alias.a.example");
        let permitted = with("*.a.example", "*.b.example");
        assert_eq!(
            named("alias", &permitted, true).unwrap(),
            "target.b.example"
        );
        let others = with("*.a.example", "*.c.example");
        assert_eq!(named("alias", &others, true).unwrap(), "alias.a.example");
        assert!(named("missing", &permitted, true).is_err());
    }
}
