//! One host expression: `user@node[001-128,140].rack[1-4]:2222`; and the cut between several.
//!
//! Ranges follow what ClusterShell and pdsh users type: digits, `-`, commas and a step (`1-9/2`); a
//! leading zero keeps its width. Their operators between expressions (`!`, `&`, `^`) are in `sets`.

use std::net::Ipv6Addr;

use super::error::InputError;
use super::names::{
    NAME_LIMIT, bad_character, check_host, check_user, is_name_character, parse_port,
};

/// The most nodes that one inventory may name: a typo in a range must not fill the memory.
pub const NODE_LIMIT: usize = 100_000;
/// More digits than this do not fit an u64 for certain.
const DIGIT_LIMIT: usize = 18;

/// One host that an expression names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostSpec {
    /// Who logs in, where the expression says so.
    pub user: Option<String>,
    /// A host name or an IP address without brackets.
    pub host: String,
    /// The port, where the expression says so.
    pub port: Option<u16>,
}

/// A fault in an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionError {
    /// Where, in characters from 0.
    pub at: usize,
    /// What.
    pub fault: InputError,
}

impl std::fmt::Display for ExpressionError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "column {}: {}", self.at + 1, self.fault)
    }
}

impl std::error::Error for ExpressionError {}

pub(super) fn wrong<T>(at: usize, fault: InputError) -> Result<T, ExpressionError> {
    Err(ExpressionError { at, fault })
}

/// The hosts of one expression without operators, at most `room`.
pub(super) fn expand_piece(
    piece: &Piece<'_>,
    room: usize,
) -> Result<Vec<HostSpec>, ExpressionError> {
    let expression = Expression::parse(piece)?;
    if expression.count() > room {
        return wrong(piece.at, too_many());
    }
    let specs = expression
        .names(piece.at)?
        .into_iter()
        .map(|host| HostSpec {
            user: expression.user.clone(),
            host,
            port: expression.port,
        });
    Ok(specs.collect())
}

/// What is said when an inventory passes the limit.
pub(super) fn too_many() -> InputError {
    InputError::new(format!("this names more than {NODE_LIMIT} nodes"))
        .with_hint("is a range mistyped? split a fleet of that size")
}

/// One expression between commas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// Where it starts in the whole text, in characters.
    pub at: usize,
    /// Without the spaces around it; never empty.
    pub text: &'a str,
}

/// The expressions between the commas that stand outside brackets.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, ExpressionError> {
    let split = split(text, |sign, _| sign == ',')?;
    Ok(split.into_iter().map(|(_, piece)| piece).collect())
}

/// The pieces between signs that stand outside brackets, each with the sign before it (first a comma).
/// `is_sign` is also told what stands before the sign in its piece.
pub(super) fn split(
    text: &str,
    is_sign: fn(char, &str) -> bool,
) -> Result<Vec<(char, Piece<'_>)>, ExpressionError> {
    let mut found = Vec::new();
    let mut start = (0, 0);
    let mut sign = ',';
    let mut open = None;
    for (at, (byte, character)) in text.char_indices().enumerate() {
        match (character, open) {
            ('[', None) => open = Some(at),
            ('[', Some(_)) => return wrong(at, InputError::new("a [ inside brackets")),
            (']', Some(_)) => open = None,
            (']', None) => return wrong(at, InputError::new("a ] without its [")),
            (other, None) if is_sign(other, &text[start.1..byte]) => {
                found.push((sign, piece(&text[start.1..byte], start.0)?));
                sign = other;
                start = (at + 1, byte + other.len_utf8());
            }
            _ => {}
        }
    }
    if let Some(at) = open {
        return wrong(
            at,
            InputError::new("a [ without its ]").with_hint("close it, e.g. node[1-4]"),
        );
    }
    found.push((sign, piece(&text[start.1..], start.0)?));
    Ok(found)
}

fn piece(raw: &str, start: usize) -> Result<Piece<'_>, ExpressionError> {
    let text = raw.trim();
    let at = start + raw.chars().take_while(|c| c.is_whitespace()).count();
    if text.is_empty() {
        return wrong(
            start,
            InputError::new("a host expression is missing here")
                .with_hint("write e.g. node[01-04].example"),
        );
    }
    Ok(Piece { at, text })
}

/// `user@PATTERN:port`, read but not expanded.
struct Expression<'a> {
    user: Option<String>,
    parts: Vec<Part<'a>>,
    port: Option<u16>,
}

enum Part<'a> {
    Literal(&'a str),
    Numbers(Vec<Range>),
}

/// `first-last/step`, padded with zeros to `width`.
struct Range {
    first: u64,
    last: u64,
    step: u64,
    width: usize,
}

impl Range {
    fn count(&self) -> usize {
        usize::try_from((self.last - self.first) / self.step)
            .unwrap_or(usize::MAX)
            .saturating_add(1)
    }
}

impl<'a> Expression<'a> {
    fn parse(piece: &Piece<'a>) -> Result<Self, ExpressionError> {
        let (at, text) = (piece.at, piece.text);
        if let Some(offset) = text.chars().position(|c| !c.is_ascii_graphic()) {
            return wrong(
                at + offset,
                InputError::new("this character cannot stand in a host expression").with_hint(
                    "separate expressions with commas; names have letters, digits and - . _",
                ),
            );
        }
        // From here on everything is ASCII: bytes are characters.
        if text.contains("://") {
            return wrong(
                at,
                InputError::new("this is a URL").with_hint("write user@host:port"),
            );
        }
        if let Some(sign @ ('^' | '!' | '&' | '@')) = text.chars().next() {
            return wrong(at, unreadable_sign(sign));
        }
        let (user, host_at, rest) = match text.split_once('@') {
            Some((user, rest)) => {
                check_user(user).or_else(|fault| wrong(at, fault))?;
                (Some(user.to_string()), at + user.len() + 1, rest)
            }
            None => (None, at, text),
        };
        if rest.parse::<Ipv6Addr>().is_ok() {
            return Ok(Self {
                user,
                parts: vec![Part::Literal(rest)],
                port: None,
            });
        }
        if let Some((address, after)) = bracketed_address(rest) {
            let port = match after.strip_prefix(':') {
                Some(port) => Some(
                    parse_port(port)
                        .or_else(|fault| wrong(host_at + rest.len() - port.len(), fault))?,
                ),
                None if after.is_empty() => None,
                None => {
                    return wrong(
                        host_at + rest.len() - after.len(),
                        InputError::new("after the ] of an IPv6 address comes :PORT or nothing"),
                    );
                }
            };
            return Ok(Self {
                user,
                parts: vec![Part::Literal(address)],
                port,
            });
        }
        Self::parse_pattern(user, host_at, rest)
    }

    fn parse_pattern(
        user: Option<String>,
        at: usize,
        text: &'a str,
    ) -> Result<Self, ExpressionError> {
        let mut parts = Vec::new();
        let mut port = None;
        let mut rest = text;
        while !rest.is_empty() {
            let here = at + text.len() - rest.len();
            if let Some(inside) = rest.strip_prefix('[') {
                // `pieces` saw to it that every bracket is closed.
                let (list, after) = inside.split_once(']').unwrap_or((inside, ""));
                parts.push(Part::Numbers(parse_ranges(list, here + 1)?));
                rest = after;
            } else if let Some(digits) = rest.strip_prefix(':') {
                if digits.contains(':') {
                    return wrong(
                        here,
                        InputError::new("more than one colon, and no IPv6 address")
                            .with_hint("an IPv6 address with a port is written [2001:db8::7]:22"),
                    );
                }
                port = Some(parse_port(digits).or_else(|fault| wrong(here + 1, fault))?);
                rest = "";
            } else {
                let end = rest.find(['[', ':']).unwrap_or(rest.len());
                let literal = &rest[..end];
                if let Some(offset) = literal.find(|c: char| !is_name_character(c)) {
                    return wrong(here + offset, bad_character(literal, offset));
                }
                parts.push(Part::Literal(literal));
                rest = &rest[end..];
            }
        }
        if parts.is_empty() {
            return wrong(at, InputError::new("a host name is missing here"));
        }
        Ok(Self { user, parts, port })
    }

    /// How many names there will be, told without making one.
    fn count(&self) -> usize {
        self.parts
            .iter()
            .fold(1, |product: usize, part| match part {
                Part::Literal(_) => product,
                Part::Numbers(ranges) => product.saturating_mul(
                    ranges
                        .iter()
                        .fold(0, |sum: usize, range| sum.saturating_add(range.count())),
                ),
            })
    }

    /// The names; the last range runs fastest.
    fn names(&self, at: usize) -> Result<Vec<String>, ExpressionError> {
        let mut names = vec![String::new()];
        for part in &self.parts {
            match part {
                Part::Literal(text) => names.iter_mut().for_each(|name| name.push_str(text)),
                Part::Numbers(ranges) => names = with_numbers(&names, ranges),
            }
            if names.iter().any(|name| name.len() > NAME_LIMIT) {
                return wrong(
                    at,
                    InputError::new(format!("a name of more than {NAME_LIMIT} characters")),
                );
            }
        }
        for name in &names {
            check_host(name).or_else(|fault| wrong(at, fault))?;
        }
        Ok(names)
    }
}

fn with_numbers(names: &[String], ranges: &[Range]) -> Vec<String> {
    let mut longer = Vec::new();
    for name in names {
        for range in ranges {
            let mut number = range.first;
            while number <= range.last {
                longer.push(format!("{name}{number:0width$}", width = range.width));
                number += range.step;
            }
        }
    }
    longer
}

fn parse_ranges(list: &str, at: usize) -> Result<Vec<Range>, ExpressionError> {
    let mut ranges = Vec::new();
    let mut here = at;
    for item in list.split(',') {
        ranges.push(parse_range(item).or_else(|fault| wrong(here, fault))?);
        here += item.len() + 1;
    }
    Ok(ranges)
}

fn parse_range(item: &str) -> Result<Range, InputError> {
    let bad = |what: &str| {
        InputError::new(format!("this is no range: {what}"))
            .with_hint("write numbers, e.g. [001-128,140] or [1-9/2]")
    };
    let (numbers, step) = match item.split_once('/') {
        Some((numbers, step)) => (numbers, parse_number(step).ok_or_else(|| bad("the step"))?),
        None => (item, 1),
    };
    let (first_text, last_text) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let first = parse_number(first_text).ok_or_else(|| bad("its start is no number"))?;
    let last = parse_number(last_text).ok_or_else(|| bad("its end is no number"))?;
    if step == 0 {
        return Err(bad("a step of 0 never ends"));
    }
    if last < first {
        return Err(
            InputError::new(format!("the range \"{item}\" runs backwards"))
                .with_hint(format!("write [{last_text}-{first_text}]")),
        );
    }
    let padded = |text: &str| text.len() > 1 && text.starts_with('0');
    if (padded(first_text) || padded(last_text)) && first_text.len() > last_text.len()
        || padded(last_text) && first_text.len() != last_text.len()
    {
        return Err(InputError::new(format!(
            "start and end of \"{item}\" are padded differently"
        ))
        .with_hint(format!(
            "write [{first:0width$}-{last_text}]",
            width = last_text.len()
        )));
    }
    let width = if padded(first_text) {
        first_text.len()
    } else {
        0
    };
    Ok(Range {
        first,
        last,
        step,
        width,
    })
}

fn parse_number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty()
        && digits.len() <= DIGIT_LIMIT
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// `[2001:db8::7]` and what follows it.
fn bracketed_address(text: &str) -> Option<(&str, &str)> {
    let (inside, after) = text.strip_prefix('[')?.split_once(']')?;
    inside.parse::<Ipv6Addr>().ok()?;
    Some((inside, after))
}

fn unreadable_sign(sign: char) -> InputError {
    match sign {
        '^' => InputError::new("a file of expressions (^FILE) can only be named by --hosts"),
        '@' => InputError::new("a user is missing before the @").with_hint(
            "write user@host; groups of ClusterShell (@GROUP) are looked up for --hosts",
        ),
        _ => InputError::new(format!("the operator {sign} is not read here"))
            .with_hint("choose nodes with --limit and --exclude"),
    }
}

#[cfg(test)]
#[path = "expression_tests.rs"]
mod tests;
