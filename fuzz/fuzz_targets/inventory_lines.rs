//! Any lines are a fleet or an error that names the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prepull::inventory::{NodeSettings, Selection, built_in, parse, resolve};

fuzz_target!(|text: &str| {
    let text = format!("a,b\n{text}");
    let (all, nothing) = (Selection::default(), NodeSettings::default());
    let fleet =
        parse(&text, "fuzz").and_then(|drafts| resolve(&drafts, &all, &nothing, &built_in("me")));
    match fleet {
        Ok(fleet) => assert!(!fleet.nodes().is_empty()),
        Err(error) => assert!(error.to_string().starts_with("fuzz"), "{error}"),
    }
});
