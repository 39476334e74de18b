//! What a node is and has: its clock, its system, its runtime, its disk, its images; asked in one call.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::text::truncate_bytes;
use crate::model::{
    ClockOffset, CommandOutput, Failure, FailureKind, Image, Node, NodeFacts, Stage,
};
use crate::ports::{PullRequest, Runtime, Session};

use super::conversation::{Answer, Conversation, NodeOutput};
use super::request::{Action, Request};
use super::{ANSWER_LIMIT, Interrupted};

/// The longest word of a node about itself.
const WORD: usize = 200;

/// How long the runtime may take to find out that a manifest does not exist.
const REGISTRY_LIMIT: Duration = Duration::from_secs(20);

/// Asks the node about itself, its runtime, which of the images it holds, and whether their registries can be reached
/// from there. Changes nothing.
///
/// Only the runtime itself knows its proxy, mirrors and authorities, so it is told to pull a manifest that does not
/// exist: what comes back shows how far it got.
///
/// # Errors
/// Cancelled, or a [`Failure`] at stage start, probe or inspect.
pub async fn facts<S: Session>(
    session: &mut S,
    node: &Node,
    runtime: &dyn Runtime,
    images: &[Image],
    cancel: impl Future<Output = ()> + Send,
) -> Result<NodeFacts, Interrupted> {
    let mut cancel = pin!(cancel);
    let endpoint = node.endpoint.as_deref();
    let mut commands = vec![runtime.data_dir(endpoint)];
    commands.extend(runtime.describe(endpoint));
    commands.extend(images.iter().map(|image| runtime.inspect(image, endpoint)));
    let asked = commands.len();
    let absent = one_of_each_registry(images);
    for image in &absent {
        commands.push(runtime.pull(&PullRequest {
            image,
            endpoint,
            platform: None,
            login: None,
        })?);
    }
    let request = Request::new(Action::Facts, commands);
    let start = Conversation::start(session, node, &request, Stage::Probe, cancel.as_mut());
    let mut protocol = start.await?;
    let mut answers: Vec<CommandOutput> = Vec::with_capacity(asked);
    while answers.len() < asked {
        answers.push(
            protocol
                .output(Some(ANSWER_LIMIT), cancel.as_mut())
                .await??,
        );
    }
    let mut unusable_registries = Vec::new();
    let mut has_ended = false;
    for image in &absent {
        let answer = protocol
            .output(Some(REGISTRY_LIMIT), cancel.as_mut())
            .await?;
        // A call that took too long was ended, and answers nothing more.
        has_ended = answer.is_err();
        if let Some(failure) = why_unusable(runtime, image, answer) {
            unusable_registries.push((image.registry().to_string(), failure));
        }
        if has_ended {
            break;
        }
    }
    if !has_ended {
        protocol.finish().await;
    }
    let [root, version, socket, held @ ..] = &answers[..] else {
        return Err(protocol.broken(&"an answer is missing").into());
    };
    let description = runtime.read_description([root, version, socket])?;
    let host = protocol.host.as_ref().and_then(read_host);
    let (clock, [os, architecture, system]) =
        host.ok_or_else(|| protocol.broken(&"it did not tell its clock and system"))?;
    let (free, root) = protocol
        .disk
        .as_deref()
        .and_then(read_disk)
        .unwrap_or_default();
    let images = images
        .iter()
        .zip(held)
        .map(|(image, output)| runtime.read_inspect(image, output, Stage::Inspect))
        .collect::<Result<_, Failure>>()?;
    Ok(NodeFacts {
        os,
        architecture,
        system,
        clock,
        runtime: description.runtime,
        client: description.client,
        endpoint: node.endpoint.clone().or(description.endpoint),
        root,
        free,
        images,
        unusable_registries,
        obstacles: Vec::new(),
        forecast: None,
    })
}

/// A manifest that does not exist for each registry, in the order of the images.
fn one_of_each_registry(images: &[Image]) -> Vec<Image> {
    let mut absent: Vec<Image> = Vec::new();
    for image in images {
        if absent
            .iter()
            .all(|known| known.registry() != image.registry())
        {
            absent.push(image.nonexistent());
        }
    }
    absent
}

/// Why the registry cannot be used from the node. One that answers can be, whatever it answers.
fn why_unusable(runtime: &dyn Runtime, image: &Image, answer: Answer) -> Option<Failure> {
    let failure = match answer {
        Ok(output) => runtime.read_pull(image, &output).err()?,
        Err(late) => Failure {
            kind: FailureKind::RegistryUnavailable,
            detail: format!("no answer from {}: {}", image.registry(), late.detail),
            ..late
        },
    };
    let is_out_of_reach = matches!(
        failure.kind,
        FailureKind::RegistryUnavailable | FailureKind::RegistryUnresolved | FailureKind::TlsTrust
    );
    // Its address is long, and the digest in it says nothing.
    let detail = failure.detail.replace(image.digest().unwrap_or("@"), "...");
    is_out_of_reach.then_some(Failure {
        stage: Stage::Preflight,
        detail,
        ..failure
    })
}

/// `SECONDS.NANOSECONDS KERNEL MACHINE SYSTEM`.
fn read_host(told: &NodeOutput) -> Option<(ClockOffset, [String; 3])> {
    let mut words = told.said.splitn(4, ' ');
    let clock = clock_offset(words.next()?, told)?;
    let os = truncate_bytes(words.next()?.as_bytes(), WORD).to_ascii_lowercase();
    let machine = truncate_bytes(words.next()?.as_bytes(), WORD);
    let architecture = match machine.as_str() {
        "x86_64" => "amd64".into(),
        "aarch64" => "arm64".into(),
        "armv6l" | "armv7l" | "armv8l" => "arm".into(),
        "i386" | "i686" => "386".into(),
        _ => machine,
    };
    let quotes = ['"', '\''];
    let system = words.next().unwrap_or_default().trim_matches(quotes);
    Some((
        clock,
        [os, architecture, truncate_bytes(system.as_bytes(), WORD)],
    ))
}

/// The node looked at its clock some time between our question and its answer: in the middle, give or take the half.
fn clock_offset(clock: &str, told: &NodeOutput) -> Option<ClockOffset> {
    let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let seconds: u64 = seconds.parse().ok()?;
    // busybox may not know the part after the point: then it is half a second, give or take the half.
    let known = Some(fraction)
        .filter(|text| text.len() == 9)
        .and_then(|text| text.parse().ok());
    let (nanoseconds, coarse) = match known {
        Some(nanoseconds) => (nanoseconds, Duration::ZERO),
        None => (500_000_000, Duration::from_millis(500)),
    };
    let theirs = UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))?;
    let ours = told.at - told.round_trip / 2;
    Some(ClockOffset {
        milliseconds: difference(theirs, ours),
        uncertainty: whole_milliseconds(told.round_trip / 2 + coarse).max(1),
    })
}

/// How much later the first time is, in milliseconds.
fn difference(first: SystemTime, second: SystemTime) -> i64 {
    let whole = |time| i64::try_from(whole_milliseconds(time)).unwrap_or(i64::MAX);
    match first.duration_since(second) {
        Ok(ahead) => whole(ahead),
        Err(behind) => -whole(behind.duration()),
    }
}

fn whole_milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `KILOBYTES PLACE`.
fn read_disk(said: &str) -> Option<(Option<u64>, String)> {
    let (free, root) = said.split_once(' ')?;
    let free = free
        .parse::<u64>()
        .ok()
        .and_then(|kilobytes| kilobytes.checked_mul(1024));
    Some((free, truncate_bytes(root.as_bytes(), 4 * WORD)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(said: &str, round_trip: u64) -> NodeOutput {
        NodeOutput {
            said: said.into(),
            round_trip: Duration::from_millis(round_trip),
            at: UNIX_EPOCH + Duration::from_millis(1_700_000_010_000),
        }
    }

    #[test]
    fn a_clock_is_as_far_off_as_it_says_give_or_take_half_the_round_trip() {
        for (clock, round_trip, expected) in [
            ("1700000009.950000000", 100, Some((0, 50))),
            ("1700000012.000000000", 100, Some((2050, 50))),
            ("1700000000.000000000", 0, Some((-10_000, 1))),
            // Without %N: what busybox prints.
            ("1700000010.", 0, Some((500, 500))),
            ("1700000010.%N", 0, Some((500, 500))),
            ("1700000010", 20, Some((510, 510))),
            ("now", 0, None),
            ("99999999999999999999.0", 0, None),
        ] {
            let offset = clock_offset(clock, &told("", round_trip));
            let expected = expected.map(|(milliseconds, uncertainty)| ClockOffset {
                milliseconds,
                uncertainty,
            });
            assert_eq!(offset, expected, "{clock}");
        }
    }

    #[test]
    fn a_node_is_named_as_images_name_their_platform() {
        let read = |said: &str| read_host(&told(said, 0)).map(|(_, words)| words.join("|"));
        assert_eq!(
            read("1700000000.5 Linux x86_64 \"Debian GNU/Linux 12 (bookworm)\"").as_deref(),
            Some("linux|amd64|Debian GNU/Linux 12 (bookworm)")
        );
        assert_eq!(read("1 Linux aarch64 ").as_deref(), Some("linux|arm64|"));
        assert_eq!(read("1 Linux riscv64").as_deref(), Some("linux|riscv64|"));
        assert_eq!(read("1 Linux"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn free_space_comes_in_bytes_and_may_be_unknown() {
        assert_eq!(
            read_disk("10 /var/lib/a b"),
            Some((Some(10_240), "/var/lib/a b".into()))
        );
        assert_eq!(read_disk("- /x"), Some((None, "/x".into())));
        assert_eq!(
            read_disk("18446744073709551615 /x"),
            Some((None, "/x".into()))
        );
        assert_eq!(read_disk(""), None);
    }
}
