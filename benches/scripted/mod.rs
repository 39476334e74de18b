//! A node that answers at once: reads the requests of prepull and says what a node with docker would say.

#![allow(dead_code)] // each bench uses its part

use std::fmt::Write as _;
use std::time::Duration;

/// The digest of every image that it holds.
const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// Stands between the program for the node and its values.
const GO: &[u8] = b"\n#go\n";

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
    answered: bool,
}

impl Node {
    /// Takes input; the answer once the request is whole.
    pub fn take(&mut self, bytes: &[u8], pulls: Pulls) -> Option<Answer> {
        if self.answered {
            return None;
        }
        if self.input.is_empty() && bytes.ends_with(GO) {
            // The program, whole: only the values matter.
            self.input.extend_from_slice(GO);
            return None;
        }
        self.input.extend_from_slice(bytes);
        let answer = answer(&self.input, pulls)?;
        self.answered = true;
        self.input = Vec::new();
        Some(answer)
    }
}

/// The values of a request: where the program ends, its last line stands.
fn values(input: &[u8]) -> Option<&[u8]> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    // It is the same program each time: looked for once.
    static END: AtomicUsize = AtomicUsize::new(0);
    let known = END.load(Ordering::Relaxed);
    if let Some(values) = input.strip_prefix(GO) {
        return Some(values);
    }
    if known > 0 && input.get(known - GO.len()..known) == Some(GO) {
        return Some(&input[known..]);
    }
    let at = input.windows(GO.len()).position(|window| window == GO)?;
    END.store(at + GO.len(), Ordering::Relaxed);
    Some(&input[at + GO.len()..])
}

/// Values as they travel: the number of lines, then the lines.
struct Values<'a>(std::str::SplitTerminator<'a, char>);

impl<'a> Values<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let lines: usize = self.0.next()?.parse().ok()?;
        let first = self.0.next()?;
        for _ in 1..lines {
            self.0.next()?;
        }
        Some(first)
    }

    fn number(&mut self) -> Option<usize> {
        self.next()?.parse().ok()
    }
}

fn answer(input: &[u8], pulls: Pulls) -> Option<Answer> {
    let text = std::str::from_utf8(values(input)?).ok()?;
    if !text.ends_with('\n') {
        return None;
    }
    let mut values = Values(text.split_terminator('\n'));
    let (nonce, action) = (values.next()?, values.next()?);
    for _limits_turn_lease_disk in 0..6 {
        values.next()?;
    }
    let commands = values.number()?;
    let mut argvs: Vec<Vec<&str>> = Vec::with_capacity(commands);
    for _ in 0..commands {
        let words = values.number()?;
        argvs.push((0..words).map(|_| values.next()).collect::<Option<_>>()?);
        for _ in 0..values.number()? {
            values.next()?;
        }
        for _delivery_variable_file_secret_input in 0..5 {
            values.next()?;
        }
    }
    let first = argvs.first()?;
    let mut out = format!("prepull-{nonce} hello\n");
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
        for _ in 0..commands {
            output(&mut out, 0, "{\"Server\":{\"Version\":\"1\"}}\n", "");
        }
        if let ["sleep", seconds] = first[..] {
            after = Duration::from_secs(seconds.parse().ok()?);
        }
    }
    out += &format!("prepull-{nonce} end\n");
    Some(Answer {
        frames: out.into_bytes(),
        after,
        waits,
    })
}
