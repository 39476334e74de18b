//! Any bytes are an answer of docker's daemon, or the output of its client: a pull or a failure with bounded words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prepull::model::{CommandOutput, ExitStatus, Image};
use prepull::ports::Runtime as _;
use prepull::runtime::Docker;

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = "reg.example:5000/team/app:v1".parse::<Image>() else {
        return;
    };
    for stdout in [bytes.to_vec(), [b"HTTP/1.1 200 OK\r\n\r\n", bytes].concat()] {
        let output = CommandOutput {
            exit: ExitStatus::Code(0),
            stdout,
            stderr: Vec::new(),
            truncated: false,
        };
        if let Err(failure) = Docker.read_pull(&image, &output) {
            assert!(!failure.detail.is_empty() && failure.detail.len() < 2200);
        }
    }
});
