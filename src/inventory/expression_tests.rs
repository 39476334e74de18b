//! Tests of host expressions: what operators type, what they mistype, and what no one would.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::inventory::hosts::expand;

fn names(text: &str) -> Vec<String> {
    expand(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .into_iter()
        .map(|spec| spec.host)
        .collect()
}

fn fault(text: &str) -> (usize, String) {
    let error = expand(text).expect_err(text);
    (error.at, error.fault.to_string())
}

#[test]
fn a_plain_name_stands_for_itself() {
    assert_eq!(
        expand("edge-1.example").unwrap(),
        [HostSpec {
            user: None,
            host: "edge-1.example".into(),
            port: None
        }]
    );
}

#[test]
fn user_and_port_go_to_every_node_of_the_range() {
    let found = expand("ops@node[1-2]:2222").unwrap();
    assert_eq!(found.len(), 2);
    assert!(
        found
            .iter()
            .all(|spec| spec.user.as_deref() == Some("ops") && spec.port == Some(2222))
    );
}

#[test]
fn padding_is_kept_and_several_ranges_multiply() {
    assert_eq!(
        names("n[008-011,140]"),
        ["n008", "n009", "n010", "n011", "n140"]
    );
    assert_eq!(
        names("n[08-10].r[1-2]"),
        ["n08.r1", "n08.r2", "n09.r1", "n09.r2", "n10.r1", "n10.r2"]
    );
    assert_eq!(names("n[98-101]"), ["n98", "n99", "n100", "n101"]);
    assert_eq!(names("n[099-101]"), ["n099", "n100", "n101"]);
    assert_eq!(names("n[1-9/4]"), ["n1", "n5", "n9"]);
    assert_eq!(names("n[0-0]"), ["n0"]);
    assert_eq!(names("node[001-128,140].rack[1-4]").len(), 129 * 4);
}

#[test]
fn commas_separate_expressions_only_outside_brackets() {
    assert_eq!(names("a[1,3], b ,c"), ["a1", "a3", "b", "c"]);
}

#[test]
fn a_host_named_twice_is_there_once() {
    assert_eq!(names("n[1-3,2],n3"), ["n1", "n2", "n3"]);
}

#[test]
fn addresses_of_both_families_are_read() {
    assert_eq!(names("10.0.8.[10-11]"), ["10.0.8.10", "10.0.8.11"]);
    let found = expand("root@[2001:db8::7]:22,2001:db8::8,[::1]").unwrap();
    assert_eq!(found[0].host, "2001:db8::7");
    assert_eq!(
        (found[0].port, found[0].user.as_deref()),
        (Some(22), Some("root"))
    );
    assert_eq!(
        (found[1].host.as_str(), found[1].port),
        ("2001:db8::8", None)
    );
    assert_eq!(found[2].host, "::1");
}

#[test]
fn every_mistake_is_told_with_its_place() {
    for (text, at, part) in [
        ("", 0, "missing"),
        ("a,,b", 2, "missing"),
        ("a,", 2, "missing"),
        ("node[1-4", 4, "without its ]"),
        ("node1-4]", 7, "without its ["),
        ("node[[1]]", 5, "inside brackets"),
        ("a,node[1-x]", 7, "this is no range"),
        ("node[3,a]", 7, "this is no range"),
        ("node[]", 5, "is no range"),
        ("node[4-1]", 5, "write [1-4]"),
        ("node[1-9/0]", 5, "never ends"),
        ("node[1-010]", 5, "write [001-010]"),
        ("node[001-10]", 5, "padded differently"),
        ("node[1-99999999999999999999]", 5, "no number"),
        ("node:0", 5, "1 to 65535"),
        ("node:65536", 5, "1 to 65535"),
        ("node:", 5, "no port"),
        ("node:+22", 5, "no port"),
        ("a:b:c", 1, "more than one colon"),
        ("[2001:db8::7]22", 13, ":PORT"),
        ("[2001:db8::g]:22", 1, "no range"),
        ("-oProxyCommand=x", 14, "'='"),
        ("-v", 0, "starts with -"),
        ("a b", 1, "commas"),
        ("node;id", 4, "';'"),
        ("node\u{1b}[1-2]", 4, "character"),
        ("größe", 2, "character"),
        ("@node", 0, "user is missing"),
        ("-x@node", 0, "user name"),
        ("a@b@c", 3, "'@'"),
        ("ops@", 4, "host name is missing"),
        (":22", 0, "host name is missing"),
        ("!node", 0, "missing"),
        ("^file", 0, "--hosts"),
        ("ssh://node:22", 0, "URL"),
        ("a..b", 0, "dots is empty"),
        ("10.0.8.300", 0, "no IPv4 address"),
        ("10.0.8.[250-300]", 0, "10.0.8.256"),
    ] {
        let (found_at, message) = fault(text);
        assert!(message.contains(part), "{text}: {message}");
        assert_eq!(found_at, at, "{text}: {message}");
    }
}

#[test]
fn too_many_nodes_are_refused_before_they_are_made() {
    assert_eq!(names("n[1-100000]").len(), NODE_LIMIT);
    for text in [
        "n[1-100001]",
        "n[1-100000],m",
        "n[0-999999999999999999]",
        "n[1-9999][1-9999][1-9999][1-9999][1-9999][1-9999]",
        "n[0-999999999999999999,0-999999999999999999]",
    ] {
        assert!(fault(text).1.contains("more than 100000 nodes"), "{text}");
    }
}

#[test]
fn names_longer_than_the_dns_allows_are_refused() {
    assert!(fault(&"a".repeat(64)).1.contains("63"));
    assert!(fault(&"a.".repeat(130)).1.contains("253"));
    assert!(fault(&"[1]".repeat(100_000)).1.contains("253"));
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*") {
        let _ = expand(&text);
    }

    #[test]
    fn what_looks_like_an_expression_gives_unique_names_that_may_be_dialled(
        text in "([a-c]{0,2}@)?[a-c0-9.:-]{0,4}(\\[[0-9]{1,3}(-[0-9]{1,3})?(/[0-9])?(,[0-9]{1,2})?\\]){0,2}(:[0-9]{1,5})?(,n[0-9])?"
    ) {
        if let Ok(found) = expand(&text) {
            let unique: HashSet<_> = found.iter().collect();
            prop_assert_eq!(unique.len(), found.len());
            for spec in &found {
                prop_assert!(check_host(&spec.host).is_ok(), "{}", spec.host);
                prop_assert!(spec.user.as_deref().is_none_or(|user| check_user(user).is_ok()));
                prop_assert!(spec.port != Some(0));
            }
        }
    }

    #[test]
    fn a_padded_range_gives_every_number_in_its_width(first in 0_u32..500, more in 0_u32..500, width in 3_usize..6) {
        let last = first + more;
        let found = names(&format!("n[{first:0width$}-{last:0width$}]"));
        let expected: Vec<_> = (first..=last).map(|number| format!("n{number:0width$}")).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn names_that_are_folded_expand_to_the_same_names(
        text in "[ab]\\[[0-9](-[0-9]{2})?(/[1-3])?,[0-9]{3}(-9[0-9]{2})?\\](\\.r\\[[1-4]-[5-9]\\])?([,!&^][ab]\\[[1-9]-[1-9]{2}\\])?"
    ) {
        if let Ok(found) = expand(&text)
            && !found.is_empty()
        {
            let before: HashSet<String> = found.into_iter().map(|spec| spec.host).collect();
            let after: HashSet<String> = names(&folded(&before)).into_iter().collect();
            prop_assert_eq!(before, after);
        }
    }
}

/// The names as one expression.
fn folded(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let names: Vec<_> = names.into_iter().collect();
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let folded = crate::model::fold(&names);
    assert_eq!(
        folded.iter().map(|(_, names)| names).sum::<usize>(),
        names.len()
    );
    let expressions: Vec<String> = folded.into_iter().map(|(text, _)| text).collect();
    expressions.join(",")
}

proptest! {
    #[test]
    fn numbers_anywhere_in_names_are_folded(
        before in proptest::collection::hash_set("(node|n-|rack2\\.n)[0-9]{1,3}(\\.x)?|[a-z]{1,3}|10\\.0\\.[01]\\.[0-9]", 1..40)
    ) {
        let after: HashSet<String> = names(&folded(&before)).into_iter().collect();
        prop_assert_eq!(before, after);
    }
}
