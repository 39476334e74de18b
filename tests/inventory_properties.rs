//! What holds for any inventory: no text makes a reader panic, and one text always means one fleet.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use prepull::inventory::{NodeSettings, Selection, built_in, hosts, images_in, parse, resolve};
use prepull::model::Node;
use proptest::prelude::*;

const INVENTORY: &str = "lonely\n[web]\nw[1:9].x\n[db]\nd1\nw1.x\n[site:children]\nweb\ndb\n";

fn nodes(text: &str, selection: &Selection) -> Result<Vec<Node>, String> {
    let drafts = parse(text, "file").map_err(|error| error.to_string())?;
    resolve(
        &drafts,
        selection,
        &NodeSettings::default(),
        &built_in("me"),
    )
    .map(|fleet| fleet.nodes().to_vec())
    .map_err(|error| error.to_string())
}

/// Reads the text twice: both times it is the same fleet, never an empty one, or the same error with the file.
fn means_one_thing(text: &str) -> Result<(), TestCaseError> {
    let read = nodes(text, &Selection::default());
    prop_assert_eq!(&read, &nodes(text, &Selection::default()));
    match read {
        Ok(nodes) => prop_assert!(!nodes.is_empty()),
        Err(error) => prop_assert!(error.starts_with("file"), "{}", error),
    }
    Ok(())
}

/// Words of which inventories are made, in an order that seldom makes sense.
fn words(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    let word = prop_oneof![
        9 => proptest::sample::select(words).prop_map(String::from),
        1 => "\\PC{0,4}",
    ];
    proptest::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_ini_is_one_fleet_or_an_error(text in words(&[
        "[g]", "[h:children]", "[g:vars]", "\n", "\n", " ", "a", "b:22", "w[1:3]", "[::1]:22", "g", "h", "#", ";",
        "ansible_user=", "ansible_port=", "ansible_host=", "ansible_ssh_common_args=", "ansible_group_priority=",
        "'-J x'", "\"-o ProxyCommand=nc %h\"", "'", "\"", "\\", "22", "None", "{{ x }}", "=", ":", "ops",
    ])) {
        means_one_thing(&format!("[g]\n{text}"))?;
    }

    #[test]
    fn any_yaml_of_ansible_is_one_fleet_or_an_error(text in words(&[
        "all:", "g:", "hosts:", "children:", "vars:", "\n", "\n  ", "\n    ", "\n      ", "a:", "w[1:3]:", " ", "{", "}",
        "[", "]", ", ", "&x ", "*x", "<<: ", "!vault |", "|", "- ", "ansible_user: ", "ansible_port: ", "22", "ops",
        "'", "\"", "~", "{{ x }}", "? ", "---",
    ])) {
        means_one_thing(&format!("first:\n  hosts: {{z: }}\n{text}"))?;
    }

    #[test]
    fn any_listing_is_one_fleet_or_an_error(text in words(&[
        "{", "}", "[", "]", ",", ":", "\"g\"", "\"a\"", "\"b\"", "\"hosts\"", "\"vars\"", "\"children\"", "\"_meta\"",
        "\"hostvars\"", "\"ansible_user\"", "\"ansible_port\"", "22", "null", "true", "\"ops\"", "\\",
    ])) {
        means_one_thing(&format!("{{\"_meta\": {{}}, \"g\": [\"a\"], {text}"))?;
    }

    #[test]
    fn any_lines_are_one_fleet_or_an_error(text in words(&[
        "a", "b", "n[1-3]", "n[01-03]", "[1:3]", ",", "!", "&", "^", "@", ":22", "\n", "\n", "#", ";", " ", "::1", "[", "]",
    ])) {
        means_one_thing(&format!("x,y\n{text}"))?;
    }

    #[test]
    fn what_a_pattern_chooses_and_what_it_leaves_are_all_nodes(pattern in words(&[
        "web", "db", "site", "all", "w1.x", "w*", "d?", "~w[12]", "[0]", "[0:2]", "[-1]", "!", "&", ",", ":", "*", "[", "]",
    ])) {
        prop_assume!(!pattern.contains('@'));
        let all = nodes(INVENTORY, &Selection::default()).unwrap();
        let limit = Selection { limit: vec![pattern.clone()], ..Selection::default() };
        let exclude = Selection { exclude: vec![pattern], ..Selection::default() };
        let chosen = nodes(INVENTORY, &limit);
        let left = nodes(INVENTORY, &exclude);
        if let (Ok(chosen), Ok(left)) = (&chosen, &left) {
            prop_assert_eq!(chosen.len() + left.len(), all.len());
            let both: Vec<_> = all.iter().filter(|node| chosen.contains(node) || left.contains(node)).collect();
            prop_assert_eq!(both.len(), all.len());
        }
    }

    /// What an expression means can be written out and means the same.
    #[test]
    fn an_expression_written_out_is_the_same_hosts(text in words(&[
        "n", "n", "rack", "[1-4]", "[01-20/3]", "[3,5-7]", "[098-102]", ".x", "-", ",", ",", "!", "&", "^", "ops@", ":22",
        "[2001:db8::7]",
    ])) {
        let Ok(found) = hosts::expand(&text) else { return Ok(()) };
        let written: Vec<String> = found.iter().map(|spec| {
            let user = spec.user.as_ref().map_or(String::new(), |user| format!("{user}@"));
            let bracketed = spec.host.contains(':') && spec.port.is_some();
            let host = if bracketed { format!("[{}]", spec.host) } else { spec.host.clone() };
            let port = spec.port.map_or(String::new(), |port| format!(":{port}"));
            format!("{user}{host}{port}")
        }).collect();
        if !written.is_empty() {
            prop_assert_eq!(hosts::expand(&written.join(",")).unwrap(), found);
        }
    }

    /// Each image is named once, with its places, and each of them is a line of the text.
    #[test]
    fn any_manifests_name_images_once_or_are_an_error(text in words(&[
        "spec:", "containers:", "initContainers:", "template:", "volumes:", "image:", "items:", "kind: List", "\n", "\n", "\n  ",
        "\n    ", "\n  - ", "- ", "image: a:v1", "image: b/c@sha256:", "a:v1", " ", "{", "}", "[", "]", ", ", "&x ", "*x", "|", "---\n",
        "{{ x }}", "'", "\"", "~", "apiVersion: a/v1\n", "kind: Widget\n", "engineImage: c:v2", "tag: v3", "repository: d", "auto", "${X}",
        "{\"image\": \"e:v4\"}\n", "args: ['--image=f.io/f:v5']",
    ])) {
        match images_in(&format!("spec:\n  containers: [{{image: 'first:v1'}}]\n---\n{text}"), "file") {
            Ok(found) => {
                for (number, named) in found.images.iter().enumerate() {
                    prop_assert!(found.images[..number].iter().all(|other| other.image != named.image));
                    prop_assert!(!named.places.is_empty());
                    prop_assert!(named.places.iter().all(|place| place.starts_with("file:")));
                }
                prop_assert!(!found.images.is_empty());
                prop_assert!(found.warnings.iter().all(|warning| warning.starts_with("file:")), "{:?}", found.warnings);
            }
            Err(error) => prop_assert!(error.to_string().starts_with("file"), "{}", error),
        }
    }
}
