//! Patterns of hosts, users and algorithms: `*`, `?`, comma-separated lists, negation, networks.

use std::net::IpAddr;

/// Whether the whole text fits the pattern. Takes at most text x pattern steps, whatever the pattern.
pub fn matches(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let (mut t, mut p) = (0, 0);
    // Where the last `*` stands, and the text position from which it was last tried.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    p = star + 1;
                    t = from + 1;
                    retry = Some((star, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether the text fits one of the patterns, and none of those that a `!` negates.
pub fn one_matches(text: &str, patterns: &[String]) -> bool {
    let mut fits = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(negated) if matches(text, negated) => return false,
            Some(_) => {}
            None => fits |= matches(text, pattern),
        }
    }
    fits
}

/// What a list of patterns says of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A pattern fits, and no negated one does.
    Yes,
    /// A negated pattern fits.
    Negated,
    /// Nothing fits.
    No,
}

/// One element is never longer than this: `ssh` lets the whole list fail otherwise.
const LONGEST_ELEMENT: usize = 1023;

/// What a comma-separated list says of the text; `lower` compares the list in lower case.
pub(super) fn list(text: &str, patterns: &str, lower: bool) -> Verdict {
    let mut found = Verdict::No;
    let mut rest = patterns;
    while !rest.is_empty() {
        let (element, after) = rest.split_once(',').unwrap_or((rest, ""));
        rest = after;
        let (negated, element) = match element.strip_prefix('!') {
            Some(element) => (true, element),
            None => (false, element),
        };
        if element.len() >= LONGEST_ELEMENT {
            return Verdict::No;
        }
        let fits = if lower {
            matches(text, &element.to_ascii_lowercase())
        } else {
            matches(text, element)
        };
        match (fits, negated) {
            (true, true) => return Verdict::Negated,
            (true, false) => found = Verdict::Yes,
            (false, _) => {}
        }
    }
    found
}

/// Whether a list of host patterns fits a host name; case does not matter.
pub(super) fn host(name: &str, patterns: &str) -> bool {
    list(&name.to_ascii_lowercase(), patterns, true) == Verdict::Yes
}

/// Whether `network` (`10.0.0.0/8`, `2001:db8::/32`, one address) holds the address; `None` where it is not a network.
pub(super) fn network_holds(network: &str, address: IpAddr) -> Option<bool> {
    let (base, length) = match network.split_once('/') {
        Some((base, length)) => (base, Some(length)),
        None => (network, None),
    };
    let base: IpAddr = base.parse().ok()?;
    let width: u32 = if base.is_ipv4() { 32 } else { 128 };
    let length = match length {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
        None => width,
    };
    if length > width {
        return None;
    }
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    };
    let kept = |number: u128| number.checked_shr(width - length).unwrap_or(0);
    // `ssh` refuses a network with bits set behind its length.
    let host_part = if length == width {
        0
    } else {
        bits(base) & (u128::MAX >> (128 - (width - length)))
    };
    if host_part != 0 {
        return None;
    }
    Some(base.is_ipv4() == address.is_ipv4() && kept(bits(base)) == kept(bits(address)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, slow and plain.
    fn slow(text: &[u8], pattern: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skip| slow(&text[skip..], rest)),
            Some((byte, rest)) => text
                .split_first()
                .is_some_and(|(head, tail)| (*byte == b'?' || byte == head) && slow(tail, rest)),
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(text in "[ab.]{0,8}", pattern in "[ab.*?]{0,8}") {
            prop_assert_eq!(matches(&text, &pattern), slow(text.as_bytes(), pattern.as_bytes()));
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let pattern = "a*".repeat(2_000) + "b";
        let started = std::time::Instant::now();
        assert!(!matches(&"a".repeat(5_000), &pattern));
        assert!(started.elapsed().as_secs() < 5);
    }

    #[test]
    fn a_negated_pattern_ends_a_host_line() {
        let line = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
        assert!(one_matches("db", &line("web* db")));
        assert!(!one_matches("web1", &line("web* !web1 *")));
        assert!(!one_matches("web2", &line("!web1")));
        assert!(!one_matches("web1", &line("WEB1")));
    }

    #[test]
    fn a_negated_element_beats_every_other() {
        assert_eq!(list("web1", "web*,!web1", false), Verdict::Negated);
        assert_eq!(list("web2", "web*,!web1", false), Verdict::Yes);
        assert_eq!(list("db", "!web1", false), Verdict::No);
        assert_eq!(list("web", "WEB", true), Verdict::Yes);
        assert_eq!(list("web", "WEB", false), Verdict::No);
        assert_eq!(list("", "", false), Verdict::No);
        assert!(host("WEB.Example", "*.EXAMPLE"));
    }

    #[test]
    fn networks_hold_their_addresses_only() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(network_holds("10.0.0.0/8", address("10.9.8.7")), Some(true));
        assert_eq!(
            network_holds("10.0.0.0/8", address("11.0.0.1")),
            Some(false)
        );
        assert_eq!(network_holds("0.0.0.0/0", address("11.0.0.1")), Some(true));
        assert_eq!(network_holds("::/0", address("11.0.0.1")), Some(false));
        assert_eq!(
            network_holds("2001:db8::/32", address("2001:db8::7")),
            Some(true)
        );
        assert_eq!(network_holds("192.0.2.7", address("192.0.2.7")), Some(true));
        for wrong in [
            "10.0.0.0/33",
            "10.1.0.0/8",
            "ten/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
        ] {
            assert_eq!(network_holds(wrong, address("10.0.0.1")), None, "{wrong}");
        }
    }
}
