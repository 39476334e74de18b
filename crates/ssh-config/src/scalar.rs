//! Single values: numbers, times, ports and domain names, as `ssh` reads them.

use super::system_probe::service_port;

/// The longest time and the largest number that `ssh` takes.
const LARGEST: u64 = i32::MAX as u64;

/// Seconds: a sum of numbers, each with a unit (s, m, h, d, w) or none.
pub(super) fn time(text: &str) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        rest = rest.trim_start_matches([' ', '\t', '\u{b}', '\u{c}', '\r', '\n']);
        rest = rest.strip_prefix('+').unwrap_or(rest);
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let seconds: u64 = rest[..end].parse().ok()?;
        let mut behind = rest[end..].chars();
        let unit = match behind.next().map(|unit| unit.to_ascii_lowercase()) {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3_600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            Some(_) => return None,
        };
        total = total.checked_add(seconds.checked_mul(unit)?)?;
        if total > LARGEST {
            return None;
        }
        rest = behind.as_str();
    }
    u32::try_from(total).ok()
}

/// A whole number; blanks and a sign in front are let pass, as `ssh` does.
pub(super) fn number(text: &str) -> Option<u32> {
    let text = text.trim_start_matches([' ', '\t', '\u{b}', '\u{c}', '\r', '\n']);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    if value > LARGEST || (negative && value > 0) {
        return None;
    }
    u32::try_from(value).ok()
}

/// A port from 1 on, by number or by the service's name in `/etc/services`.
pub(super) fn port(text: &str) -> Option<u16> {
    let by_number = number(text).and_then(|number| u16::try_from(number).ok());
    by_number
        .or_else(|| service_port(text, &std::fs::read_to_string("/etc/services").ok()?))
        .filter(|port| *port > 0)
}

/// The domain without a final dot.
///
/// # Errors
/// A sentence, where it is not a domain name.
pub(super) fn domain(name: &str) -> Result<&str, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric())
        || !name.bytes().all(allowed)
        || name.contains("..")
    {
        return Err(format!("\"{name}\" is not a domain name"));
    }
    Ok(name.strip_suffix('.').unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_sums_of_units() {
        assert_eq!(time("1h30m"), Some(5_400));
        assert_eq!(time("90"), Some(90));
        assert_eq!(time("1W2d"), Some(777_600));
        for wrong in ["", "m", "1x", "-1", "1h-2m", "99999999999", "4000w"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn numbers_and_ports_keep_to_their_range() {
        assert_eq!(number("2147483647"), Some(2_147_483_647));
        assert_eq!(number(" +7"), Some(7));
        for wrong in ["", "2147483648", "-1", "0x10", "1 "] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
        assert_eq!(
            (port("0"), port("65536"), port("2222")),
            (None, None, Some(2222))
        );
    }
}
