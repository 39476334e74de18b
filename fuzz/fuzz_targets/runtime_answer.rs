//! Any bytes are an answer of any runtime: what it says, or a failure with bounded words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prepull::model::{CommandOutput, ExitStatus, Failure, Image, Stage};
use prepull::runtime::all;

fn assert_bounded<T>(answer: Result<T, Failure>) {
    if let Err(failure) = answer {
        assert!(!failure.detail.is_empty() && failure.detail.len() < 2200);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = "reg.example:5000/team/app:v1".parse::<Image>() else {
        return;
    };
    let answers = [bytes.to_vec(), [b"HTTP/1.1 200 OK\r\n\r\n", bytes].concat()];
    for text in answers {
        for (code, on_stderr) in [(0, false), (1, false), (1, true)] {
            let empty = Vec::new();
            let (stdout, stderr) = match on_stderr {
                true => (empty, text.clone()),
                false => (text.clone(), empty),
            };
            let output = CommandOutput {
                exit: ExitStatus::Code(code),
                stdout,
                stderr,
                truncated: false,
            };
            for runtime in all() {
                assert_bounded(runtime.check_alive(&output));
                assert_bounded(runtime.read_description([&output; 3]));
                assert_bounded(runtime.read_inspect(&image, &output, Stage::Inspect));
                assert_bounded(runtime.read_pull(&image, &output));
            }
        }
    }
});
