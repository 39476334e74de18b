//! Any text of manifests is read or refused with a place in it, and what it names are images, each once; warnings have places.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prepull::inventory::images_in;

fuzz_target!(|text: &str| {
    let Ok(found) = images_in(text, "fuzz") else {
        return;
    };
    let images = &found.images;
    for (number, named) in images.iter().enumerate() {
        assert!(!named.places.is_empty());
        assert!(images[..number].iter().all(|other| other.image != named.image));
    }
    assert!(found.warnings.iter().all(|warning| warning.starts_with("fuzz")));
});
