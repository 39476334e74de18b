//! A reference that is accepted reads back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prepull::model::Image;

fuzz_target!(|text: &str| {
    if let Ok(image) = text.parse::<Image>() {
        assert_eq!(image.to_string().parse::<Image>().as_ref(), Ok(&image));
    }
});
