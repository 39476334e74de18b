//! Any file is an archive of images, or refused with words; what it holds is inside it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pull_through::{Archive, Form};

fuzz_target!(|bytes: &[u8]| {
    let file = std::env::temp_dir().join(format!("prepull-fuzz-{}.tar", std::process::id()));
    std::fs::write(&file, bytes).expect("a temporary file");
    for form in [Form::OciArchive, Form::DockerArchive] {
        match Archive::open(&file, form) {
            Ok(archive) => assert!(archive.images().count() < 1 << 16),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
