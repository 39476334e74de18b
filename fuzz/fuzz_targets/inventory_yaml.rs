//! Any text is a fleet or an error that names the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prepull::inventory::{NodeSettings, parse_yaml, resolve};

fuzz_target!(|text: &str| {
    let nothing = NodeSettings::default();
    match parse_yaml(text, "fuzz.yml").and_then(|draft| resolve(&[draft], &nothing, &nothing)) {
        Ok(fleet) => assert!(!fleet.nodes().is_empty()),
        Err(error) => assert!(error.to_string().starts_with("fuzz.yml")),
    }
});
