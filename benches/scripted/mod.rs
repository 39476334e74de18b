//! A node that answers at once: reads the requests of prepull and says what a node with docker would say.

#![allow(dead_code)] // each bench uses its part

use std::fmt::Write as _;
use std::time::Duration;

use request::{GO, Request};

#[path = "../../tests/support/request.rs"]
mod request;

/// The digest of every image that it holds.
const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// What a node says to a request.
pub struct Answer {
    pub frames: Vec<u8>,
    /// How long its command takes.
    pub after: Duration,
    /// Whether it waits for a last word before it closes.
    pub waits: bool,
}

/// How pulls end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pulls {
    Succeed,
    /// With an image that the registry does not have.
    Fail,
}

/// The input of one command on a node.
#[derive(Default)]
pub struct Node {
    input: Vec<u8>,
    /// Whether the program came in one piece: what follows are the values.
    has_program: bool,
    answered: bool,
}

impl Node {
    /// Takes input; the answer once the request is whole.
    pub fn take(&mut self, bytes: &[u8], pulls: Pulls) -> Option<Answer> {
        if self.answered {
            return None;
        }
        if self.input.is_empty() && bytes.ends_with(GO.as_bytes()) {
            self.has_program = true;
            return None;
        }
        // What is measured is prepull: values in one piece are read where they lie.
        let is_first = self.input.is_empty();
        if !is_first {
            self.input.extend_from_slice(bytes);
        }
        let input = if is_first { bytes } else { &self.input };
        let values = if self.has_program {
            Some(input)
        } else {
            values(input)
        };
        let answer = values.and_then(|values| answer(values, pulls));
        self.answered = answer.is_some();
        if self.answered {
            self.input = Vec::new();
        } else if is_first {
            self.input.extend_from_slice(bytes);
        }
        answer
    }
}

/// The values of a request: where the program ends, its last line stands.
fn values(input: &[u8]) -> Option<&[u8]> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    // It is the same program each time: looked for once.
    static END: AtomicUsize = AtomicUsize::new(0);
    let go = GO.as_bytes();
    let known = END.load(Ordering::Relaxed);
    if known > 0 && input.get(known - go.len()..known) == Some(go) {
        return Some(&input[known..]);
    }
    let at = input.windows(go.len()).position(|window| window == go)?;
    END.store(at + go.len(), Ordering::Relaxed);
    Some(&input[at + go.len()..])
}

fn answer(values: &[u8], pulls: Pulls) -> Option<Answer> {
    let (request, _) = Request::read(values)?;
    let (nonce, action, commands) = (request.nonce, request.action, request.commands);
    let first = &commands.first()?.argv;
    let mut out = String::with_capacity(1024);
    let _ = writeln!(out, "prepull-{nonce} hello");
    let output = |out: &mut String, code: u32, stdout: &str, stderr: &str| {
        let (first, second) = (stdout.len(), stderr.len());
        let _ = write!(
            out,
            "prepull-{nonce} output {code} {first} {second} 0\n{stdout}{stderr}"
        );
    };
    let stage = |out: &mut String, stage: &str| {
        let _ = writeln!(out, "prepull-{nonce} stage {stage}");
    };
    let mut after = Duration::ZERO;
    let waits = action.starts_with("pull");
    if waits {
        let image = first.last()?;
        let name = image.rsplit_once(':').map_or(*image, |(name, _)| name);
        stage(&mut out, "inspect");
        output(&mut out, 1, "", "Error: No such image\n");
        stage(&mut out, "pull");
        if pulls == Pulls::Fail {
            let words = "Error response from daemon: manifest unknown: manifest unknown\n";
            output(&mut out, 1, "", words);
        } else {
            output(&mut out, 0, "", "");
            stage(&mut out, "verify");
            let held = format!("[\"{name}@{DIGEST}\"] linux/amd64 80028485 {DIGEST}\n");
            output(&mut out, 0, &held, "");
        }
    } else {
        for _ in &commands {
            output(&mut out, 0, "{\"Server\":{\"Version\":\"1\"}}\n", "");
        }
        if let ["sleep", seconds] = first[..] {
            after = Duration::from_secs(seconds.parse().ok()?);
        }
    }
    let _ = writeln!(out, "prepull-{nonce} end");
    Some(Answer {
        frames: out.into_bytes(),
        after,
        waits,
    })
}
