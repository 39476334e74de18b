//! Whatever an expression expands to may be dialled and stands there once.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use prepull::inventory::{check_host, hosts};

fuzz_target!(|text: &str| {
    if let Ok(found) = hosts::expand(text) {
        assert!(found.len() <= hosts::NODE_LIMIT);
        assert_eq!(found.iter().collect::<HashSet<_>>().len(), found.len());
        assert!(found.iter().all(|spec| check_host(&spec.host).is_ok()));
    }
});
