//! What a value of an INI inventory means: Ansible reads it as a Python literal where it is one, and as
//! the text itself where it is none.

use super::variables::{Content, of_text};

/// Reads a value: `'2222'`, `2222`, `None`, `[1, 2]`, or plain text.
pub(super) fn read(text: &str) -> Content {
    let plain = text.trim_matches([' ', '\t']);
    match plain.chars().next() {
        Some('[' | '{' | '(') if is_compound(plain) => Content::Compound,
        Some('\'' | '"' | 'r' | 'R' | 'u' | 'U' | 'b' | 'B') => {
            strings(plain).map_or_else(|| of_text(text.to_string()), of_text)
        }
        _ => match without_comment(plain) {
            "None" => Content::Nothing,
            word @ ("True" | "False") => Content::Text(word.to_string()),
            number => match integer(number) {
                Some(number) => Content::Text(number.to_string()),
                None => of_text(text.to_string()),
            },
        },
    }
}

/// A list, tuple, set or map; seen by its brackets alone, as none of the known variables may be one.
fn is_compound(text: &str) -> bool {
    let close = match text.chars().next() {
        Some('[') => ']',
        Some('{') => '}',
        _ => ')',
    };
    // A template in braces is text for Ansible as well.
    without_comment(text).ends_with(close) && !text.starts_with("{{") && !text.starts_with("{%")
}

/// Python ends a literal at a `#`; only asked about texts that have no quotes before it.
fn without_comment(text: &str) -> &str {
    text.split_once('#')
        .map_or(text, |(before, _)| before)
        .trim_end()
}

/// Python's integers: decimal without leading zeros, or with a prefix, and single underscores between.
fn integer(text: &str) -> Option<u64> {
    let (digits, radix) = match text.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (&text[2..], 16),
        Some("0o") => (&text[2..], 8),
        Some("0b") => (&text[2..], 2),
        _ => (text, 10),
    };
    // After a prefix Python takes an underscore too.
    let digits = if radix == 10 {
        digits
    } else {
        digits.strip_prefix('_').unwrap_or(digits)
    };
    let digit = |c: char| c.is_digit(radix);
    let starts = digits.chars().next().is_some_and(digit);
    let ends = digits.chars().last().is_some_and(digit);
    let zeros =
        radix == 10 && digits.starts_with('0') && digits.bytes().any(|b| !b"0_".contains(&b));
    let known = digits.chars().all(|c| digit(c) || c == '_') && !digits.contains("__");
    if !(starts && ends && known) || zeros {
        return None;
    }
    u64::from_str_radix(&digits.replace('_', ""), radix).ok()
}

/// One or more quoted strings, which Python joins; `None` when the text is anything else.
fn strings(text: &str) -> Option<String> {
    let mut rest = text;
    let mut joined = String::new();
    loop {
        let prefix = rest.find(['\'', '"'])?;
        let raw = match rest[..prefix].to_ascii_lowercase().as_str() {
            "" | "u" | "b" => false,
            "r" | "br" | "rb" => true,
            _ => return None,
        };
        rest = string(&rest[prefix..], raw, &mut joined)?.trim_start_matches([' ', '\t']);
        if rest.is_empty() || rest.starts_with('#') {
            return Some(joined);
        }
    }
}

/// Reads one string from its opening quote on and gives back what follows it.
fn string<'a>(text: &'a str, raw: bool, out: &mut String) -> Option<&'a str> {
    let quote = text.chars().next()?;
    let triple: String = std::iter::repeat_n(quote, 3).collect();
    let close = if text.starts_with(&triple) {
        triple.as_str()
    } else {
        &triple[..1]
    };
    let mut rest = &text[close.len()..];
    loop {
        if let Some(after) = rest.strip_prefix(close) {
            return Some(after);
        }
        let character = rest.chars().next()?;
        rest = &rest[character.len_utf8()..];
        if character != '\\' {
            out.push(character);
            continue;
        }
        let escaped = rest.chars().next()?;
        rest = &rest[escaped.len_utf8()..];
        if raw {
            out.extend(['\\', escaped]);
            continue;
        }
        let digits = match escaped {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        if digits > 0 {
            let code = u32::from_str_radix(rest.get(..digits)?, 16).ok()?;
            out.push(char::from_u32(code)?);
            rest = &rest[digits..];
            continue;
        }
        match escaped {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            '0' => out.push('\0'),
            '\\' | '\'' | '"' => out.push(escaped),
            other => out.extend(['\\', other]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_mean_what_they_mean_to_ansible() {
        let text = |text: &str| Content::Text(text.to_string());
        for (written, meant) in [
            ("2222", text("2222")),
            ("'2222'", text("2222")),
            ("\"a b\"", text("a b")),
            ("22 # ssh", text("22")),
            ("'ops' # x", text("ops")),
            ("ops # x", text("ops # x")),
            ("1_000", text("1000")),
            ("0o26", text("22")),
            ("010", text("010")),
            ("00", text("0")),
            ("0x16", text("22")),
            ("True", text("True")),
            ("true", text("true")),
            ("None", Content::Nothing),
            ("none", text("none")),
            ("[1, 2]", Content::Compound),
            ("{'a': 1}", Content::Compound),
            ("{{ x }}", text("{{ x }}")),
            ("'a' \"b\"", text("ab")),
            ("'it\\'s'", text("it's")),
            ("r'a\\n'", text("a\\n")),
            ("'a", text("'a")),
            ("'a'b", text("'a'b")),
            ("root", text("root")),
            ("build", text("build")),
            ("", text("")),
            ("$ANSIBLE_VAULT;1.1;AES256", Content::Vaulted),
        ] {
            assert_eq!(read(written), meant, "{written}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[rub'\"\\\\x0-9a_ #{}\\[\\]]{0,12}|\\PC*") {
            let _ = read(&text);
        }
    }
}
