//! Whatever a pattern of `--limit` and `--exclude` leaves is part of the fleet, in its order.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prepull::inventory::{Draft, NodeSettings, Selection, built_in, parse, resolve};

const INVENTORY: &str = "[web]\nw[1:9].x\n[db]\nd1\nw1.x\n[site:children]\nweb\ndb\n[none]\n";

static DRAFTS: LazyLock<Vec<Draft>> =
    LazyLock::new(|| parse(INVENTORY, "fuzz").expect("an inventory"));

fuzz_target!(|patterns: (Option<String>, Option<String>)| {
    let (limit, exclude) = patterns;
    // `@FILE` reads a file.
    if limit
        .iter()
        .chain(&exclude)
        .any(|pattern| pattern.contains('@'))
    {
        return;
    }
    let selection = Selection {
        limit: limit.into_iter().collect(),
        exclude: exclude.into_iter().collect(),
    };
    let nothing = NodeSettings::default();
    let all = resolve(&DRAFTS, &Selection::default(), &nothing, &built_in("me")).expect("a fleet");
    let mut order = all.nodes().iter().map(|node| &node.name);
    if let Ok(some) = resolve(&DRAFTS, &selection, &nothing, &built_in("me")) {
        assert!(
            some.nodes()
                .iter()
                .all(|node| order.any(|name| *name == node.name))
        );
    }
});
