//! Any text of manifests is read or refused with a place in it, and what it names are images, each once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prepull::inventory::images_in;

fuzz_target!(|text: &str| {
    let Ok(found) = images_in(text, "fuzz") else {
        return;
    };
    for (number, named) in found.iter().enumerate() {
        assert!(!named.places.is_empty());
        assert!(found[..number].iter().all(|other| other.image != named.image));
    }
});
