//! Many names in few words: `node[1-12,14]`, the host expressions that `--hosts` takes apart again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// More digits do not fit a number for certain.
const DIGITS: usize = 18;

/// Fewer names than this are read, and found by a search, more easily as they are.
const FEW: usize = 3;

/// Where a number stands in a name: what is before it and what is behind it.
type Shape<'a> = (&'a str, &'a str);

/// The names as host expressions, each name in exactly one of them, in the order of first appearance.
///
/// Of the numbers in a name the one counts that varies most between the names. A name that would mean something else
/// as an expression, or that nothing is like, stands by itself. With each comes how many names it stands for.
pub fn fold(names: &[&str]) -> Vec<(String, usize)> {
    let mut alike: HashMap<Shape<'_>, usize> = HashMap::new();
    for (shape, _) in names.iter().flat_map(|name| numbers(name)) {
        *alike.entry(shape).or_default() += 1;
    }
    let mut places: HashMap<Shape<'_>, usize> = HashMap::new();
    let mut groups: BTreeMap<usize, (Shape<'_>, BTreeSet<&str>)> = BTreeMap::new();
    for (place, name) in names.iter().enumerate() {
        match numbers(name).max_by_key(|(shape, _)| alike.get(shape)) {
            Some((shape, digits)) => {
                let at = *places.entry(shape).or_insert(place);
                let group = groups.entry(at).or_insert((shape, BTreeSet::new()));
                group.1.insert(digits);
            }
            None => {
                groups.insert(place, ((name, ""), BTreeSet::new()));
            }
        }
    }
    let groups = groups.into_values();
    groups
        .flat_map(|(shape, digits)| expressions(shape, &digits))
        .collect()
}

/// Every number in a name with its shape. None where the name holds what host expressions read in their own way.
fn numbers(name: &str) -> impl Iterator<Item = (Shape<'_>, &str)> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let name = if name.chars().all(is_plain) { name } else { "" };
    let digit = |at: usize| name.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    let starts = (0..name.len()).filter(move |&at| digit(at) && (at == 0 || !digit(at - 1)));
    starts.filter_map(move |start| {
        let end = (start..name.len()).find(|&at| !digit(at));
        let digits = &name[start..end.unwrap_or(name.len())];
        let after = &name[start + digits.len()..];
        (digits.len() <= DIGITS).then_some(((&name[..start], after), digits))
    })
}

/// The expressions of numbers at one place: those without leading zeros together, and each width with them.
fn expressions((before, after): Shape<'_>, digits: &BTreeSet<&str>) -> Vec<(String, usize)> {
    let is_padded = |digits: &&&str| digits.len() > 1 && digits.starts_with('0');
    let padded: BTreeSet<usize> = digits.iter().filter(is_padded).map(|d| d.len()).collect();
    let mut widths: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
    for digits in digits {
        let width = Some(digits.len()).filter(|width| padded.contains(width));
        let numbers = widths.entry(width.unwrap_or(0)).or_default();
        // No more digits than fit a number.
        numbers.extend(digits.parse::<u64>());
    }
    if widths.is_empty() {
        return vec![(format!("{before}{after}"), 1)];
    }
    let mut found = Vec::new();
    for (width, numbers) in widths {
        if numbers.len() < FEW {
            let names = numbers
                .iter()
                .map(|number| format!("{before}{number:0width$}{after}"));
            found.extend(names.map(|name| (name, 1)));
        } else {
            let text = format!("{before}[{}]{after}", ranges(&numbers, width));
            found.push((text, numbers.len()));
        }
    }
    found
}

/// "1-3,7": numbers in their order, with leading zeros up to `width`.
fn ranges(numbers: &BTreeSet<u64>, width: usize) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let run = |&(first, last): &(u64, u64)| match last - first {
        0 => format!("{first:0width$}"),
        1 => format!("{first:0width$},{last:0width$}"),
        _ => format!("{first:0width$}-{last:0width$}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_ranges_and_the_rest_stays() {
        for (names, folded) in [
            ("node1 node2 node3 node7", "node[1-3,7]"),
            ("node-1 node-3", "node-1 node-3"),
            ("gw n02 n01 n03 other", "gw n[01-03] other"),
            ("n01 n02 n03 n4", "n4 n[01-03]"),
            ("n08 n09 n10 n11", "n[08-11]"),
            ("n8 n9 n10 n11", "n[8-11]"),
            ("n1 n01", "n1 n01"),
            ("gpu-1.dc1.x gpu-2.dc1.x gpu-3.dc1.x", "gpu-[1-3].dc1.x"),
            ("10.0.7.1 10.0.7.2 10.0.7.3", "10.0.7.[1-3]"),
            ("a[1] a[2]", "a[1] a[2]"),
            ("a1 a1", "a1"),
            ("99999999999999999999 1", "99999999999999999999 1"),
        ] {
            let names: Vec<&str> = names.split(' ').collect();
            let expressions = fold(&names);
            let texts: Vec<&str> = expressions.iter().map(|(text, _)| text.as_str()).collect();
            assert_eq!(texts.join(" "), folded, "{names:?}");
        }
    }
}
