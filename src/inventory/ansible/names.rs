//! Ansible's host patterns in inventories: `web[01:50:2].example:2222`, `db-[a:f]`, `[2001:db8::7]:22`.

use super::super::error::InputError;
use super::super::hosts;
use super::super::names::{self, NAME_LIMIT};

enum Part<'a> {
    Literal(&'a str),
    Numbers {
        first: u64,
        last: u64,
        step: u64,
        width: usize,
    },
    Letters(Vec<char>),
}

/// Whether what stands in brackets is a range of Ansible's.
pub(in crate::inventory) fn is_range(inside: &str) -> bool {
    range(inside).is_ok()
}

/// The hosts of a pattern, at most `room`, and the port it ends with.
pub(super) fn expand(pattern: &str, room: usize) -> Result<(Vec<String>, Option<u16>), InputError> {
    let (pattern, port) = split_port(pattern)?;
    let parts = parts(pattern)?;
    let count = parts.iter().fold(1_usize, |product, part| {
        product.saturating_mul(match part {
            Part::Literal(_) => 1,
            Part::Numbers {
                first, last, step, ..
            } => usize::try_from((last - first) / step)
                .unwrap_or(usize::MAX)
                .saturating_add(1),
            Part::Letters(letters) => letters.len(),
        })
    });
    if count > room {
        return Err(hosts::too_many());
    }
    let mut names = vec![String::new()];
    for part in &parts {
        names = longer(names, part);
        if names.iter().any(|name| name.len() > NAME_LIMIT) {
            return Err(InputError::new(format!(
                "a name of more than {NAME_LIMIT} characters"
            )));
        }
    }
    Ok((names, port))
}

fn longer(mut names: Vec<String>, part: &Part<'_>) -> Vec<String> {
    match part {
        Part::Literal(text) => {
            names.iter_mut().for_each(|name| name.push_str(text));
            names
        }
        Part::Numbers {
            first,
            last,
            step,
            width,
        } => {
            let mut longer = Vec::new();
            for name in &names {
                let mut number = *first;
                while number <= *last {
                    longer.push(format!("{name}{number:0width$}"));
                    let Some(next) = number.checked_add(*step) else {
                        break;
                    };
                    number = next;
                }
            }
            longer
        }
        Part::Letters(letters) => names
            .iter()
            .flat_map(|name| letters.iter().map(move |letter| format!("{name}{letter}")))
            .collect(),
    }
}

/// The pattern without its port. Two colons outside brackets are an IPv6 address, which has none.
fn split_port(text: &str) -> Result<(&str, Option<u16>), InputError> {
    if let Some((inside, port)) = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]:"))
        && !is_range(inside)
    {
        return Ok((inside, Some(names::parse_port(port)?)));
    }
    let mut depth = 0_u32;
    let mut colons = Vec::new();
    for (at, character) in text.char_indices() {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ':' if depth == 0 => colons.push(at),
            _ => {}
        }
    }
    match colons[..] {
        [at] => Ok((&text[..at], Some(names::parse_port(&text[at + 1..])?))),
        _ => Ok((text, None)),
    }
}

fn parts(pattern: &str) -> Result<Vec<Part<'_>>, InputError> {
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('[') {
        let Some((inside, after)) = after.split_once(']') else {
            return Err(InputError::new("a [ without its ]").with_hint("write e.g. web[01:50]"));
        };
        if !before.is_empty() {
            parts.push(Part::Literal(before));
        }
        parts.push(range(inside)?);
        rest = after;
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(Part::Literal(rest));
    }
    Ok(parts)
}

fn range(inside: &str) -> Result<Part<'static>, InputError> {
    let bad = |what: &str| {
        InputError::new(format!(
            "what stands in brackets is no range of an Ansible inventory: {what}"
        ))
        .with_hint("write [1:4], [01:50:2] or [a:f]")
    };
    let bounds: Vec<&str> = inside.split(':').collect();
    let (first, last, step) = match bounds[..] {
        [first, last] => (first, last, "1"),
        [first, last, step] => (first, last, step),
        _ => return Err(bad("it has no start:end")),
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.len() <= 18;
        let digits = digits && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let step = number(step)
        .filter(|step| *step > 0)
        .ok_or_else(|| bad("the step is no number above 0"))?;
    if let (Some(from), Some(to)) = (letter(first), letter(last)) {
        if from > to {
            return Err(bad("it runs backwards"));
        }
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        let letters = (from..=to).step_by(step).map(|at| char::from(LETTERS[at]));
        return Ok(Part::Letters(letters.collect()));
    }
    let first = if first.is_empty() { "0" } else { first };
    let from = number(first).ok_or_else(|| bad("its start is no number"))?;
    let to = number(last).ok_or_else(|| bad("its end is no number"))?;
    if from > to {
        return Err(bad("it runs backwards"));
    }
    let padded = first.len() > 1 && first.starts_with('0');
    if padded && first.len() != last.len() {
        return Err(bad("start and end are padded differently"));
    }
    Ok(Part::Numbers {
        first: from,
        last: to,
        step,
        width: if padded { first.len() } else { 0 },
    })
}

/// Ansible's order of letters: `[x:C]` runs from small to capital ones.
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

fn letter(text: &str) -> Option<usize> {
    let [byte] = text.as_bytes() else {
        return None;
    };
    LETTERS.iter().position(|letter| letter == byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of(pattern: &str) -> Vec<String> {
        expand(pattern, 1000).unwrap().0
    }

    #[test]
    fn ranges_have_both_ends_a_step_and_padding() {
        assert_eq!(names_of("w[01:05:2].x"), ["w01.x", "w03.x", "w05.x"]);
        assert_eq!(names_of("w[8:10]"), ["w8", "w9", "w10"]);
        assert_eq!(names_of("w[:2]"), ["w0", "w1", "w2"]);
        assert_eq!(names_of("db-[a:c]"), ["db-a", "db-b", "db-c"]);
        assert_eq!(names_of("d[y:B]"), ["dy", "dz", "dA", "dB"]);
        assert_eq!(names_of("r[1:2]n[1:2]"), ["r1n1", "r1n2", "r2n1", "r2n2"]);
    }

    #[test]
    fn a_port_is_what_follows_the_only_colon() {
        assert_eq!(
            expand("w[1:2]:2222", 9).unwrap(),
            (vec!["w1".into(), "w2".into()], Some(2222))
        );
        for (pattern, name, port) in [
            ("2001:db8::7", "2001:db8::7", None),
            ("[2001:db8::7]:22", "2001:db8::7", Some(22)),
            ("[web]:22", "web", Some(22)),
            ("10.0.0.1:22", "10.0.0.1", Some(22)),
        ] {
            let found = expand(pattern, 9).unwrap();
            assert_eq!((found.0[0].as_str(), found.1), (name, port), "{pattern}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (pattern, part) in [
            ("w[1-4]", "no start:end"),
            ("w[1:4", "without its ]"),
            ("w[4:1]", "backwards"),
            ("w[f:a]", "backwards"),
            ("w[1:f]", "end is no number"),
            ("w[01:100]", "padded differently"),
            ("w[1:4:0]", "above 0"),
            ("w[1:2:3:4]", "no start:end"),
            ("w:", "no port"),
            ("w:0", "no port"),
            ("w[0:9999999]", "more than 100000"),
            ("w[0:999999999999999999][0:999999999999999999]", "more than"),
        ] {
            let fault = expand(pattern, 1000).unwrap_err().to_string();
            assert!(fault.contains(part), "{pattern}: {fault}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[a-c0-9:\\[\\].-]{0,20}|\\PC*") {
            let _ = expand(&text, 1000);
        }
    }
}
