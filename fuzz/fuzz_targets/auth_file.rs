//! Any bytes are a file of logins or an error.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use prepull::credentials::AuthFile;
use prepull::model::Image;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = AuthFile::parse(bytes, Path::new("config.json")) {
        for name in ["nginx", "reg.example:5000/team/app:v1"] {
            if let Ok(image) = name.parse::<Image>() {
                let _ = file.login(&image);
            }
        }
    }
});
