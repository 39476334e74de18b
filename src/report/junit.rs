//! JUnit XML, as the JUnit plugins of CI systems read it: a suite for each image, a test case for each node.
//!
//! Only what Jenkins' own schema (junit-10.xsd) allows is written, so every value has a place that all of them know.

use std::io;
use std::time::Duration;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use super::RunResult;
use super::document::{digests_of, seconds, timestamp};
use super::format::{escape_truncated, truncate_middle};
use crate::model::text::escape_multiline;
use crate::model::{
    Attempt, Delivery, ExitStatus, Failure, Outcome, Record, Work, text::truncate_bytes,
};

/// The longest message of a failure, in characters. What it says in full stands in the element.
const MESSAGE: usize = 300;
/// The longest text in an element, in bytes.
const TEXT: usize = 64 * 1024;

type Xml<'a> = Writer<&'a mut dyn io::Write>;

/// How many test cases of a suite came to what.
#[derive(Default, Clone, Copy)]
struct Tally {
    tests: usize,
    failures: usize,
    skipped: usize,
}

/// Writes the result as JUnit XML.
///
/// # Errors
/// What writing answered, or reading back what commands printed.
pub(super) fn junit(result: &RunResult, out: &mut dyn io::Write) -> io::Result<()> {
    let work = &result.info.plan.work;
    let run = format!("prepull {} {}", work.command(), result.info.id);
    let suites: Vec<Tally> = (0..work.items()).map(|item| tally(result, item)).collect();
    let all = |of: fn(&Tally) -> usize| suites.iter().map(of).sum::<usize>().to_string();
    let passed = result.finished.duration_since(result.info.started);
    let mut xml = Writer::new_with_indent(out, b' ', 2);
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    xml.create_element("testsuites")
        .with_attribute(("name", legal(&run).as_str()))
        .with_attribute(("tests", all(|suite| suite.tests).as_str()))
        .with_attribute(("failures", all(|suite| suite.failures).as_str()))
        .with_attribute(("errors", "0"))
        .with_attribute(("time", time(passed.unwrap_or_default()).as_str()))
        .write_inner_content(|xml| {
            let mut suites = suites.iter().enumerate();
            suites.try_for_each(|(item, tally)| suite(xml, result, item, *tally))
        })?;
    xml.into_inner().write_all(b"\n")
}

fn tally(result: &RunResult, item: usize) -> Tally {
    let mut tally = Tally::default();
    for record in records(result, item) {
        tally.tests += 1;
        match &record.outcome {
            Outcome::NotRun(_) => tally.skipped += 1,
            outcome if !outcome.is_ok() => tally.failures += 1,
            _ => {}
        }
    }
    if let Some(digests) = compared(result, item) {
        tally.tests += 1;
        tally.failures += usize::from(digests.is_some());
    }
    tally
}

fn records(result: &RunResult, item: usize) -> impl Iterator<Item = &Record> {
    let nodes = result.nodes.iter();
    nodes.filter_map(move |node| node.items.get(item))
}

fn suite(xml: &mut Xml<'_>, result: &RunResult, item: usize, tally: Tally) -> io::Result<()> {
    let plan = &result.info.plan;
    let name = match (plan.work.image(item), &plan.work) {
        (Some(image), _) => image.to_string(),
        (None, Work::Exec(argv)) => escape_truncated(&argv.join(" "), MESSAGE).into_owned(),
        (None, Work::Pull(_) | Work::Check(_) | Work::Probe(_)) => String::new(),
    };
    let longest = records(result, item).map(|record| record.elapsed).max();
    xml.create_element("testsuite")
        .with_attribute(("name", legal(&name).as_str()))
        .with_attribute(("tests", tally.tests.to_string().as_str()))
        .with_attribute(("failures", tally.failures.to_string().as_str()))
        .with_attribute(("errors", "0"))
        .with_attribute(("skipped", tally.skipped.to_string().as_str()))
        .with_attribute(("timestamp", timestamp(result.info.started).as_str()))
        .with_attribute(("time", time(longest.unwrap_or_default()).as_str()))
        .write_inner_content(|xml| {
            for (node, record) in plan.fleet.nodes().iter().zip(records(result, item)) {
                case(xml, &name, &node.name, record.elapsed, |xml| {
                    outcome(xml, record)
                })?;
            }
            let Some(digests) = compared(result, item) else {
                return Ok(());
            };
            case(
                xml,
                &name,
                "one digest on all nodes",
                Duration::ZERO,
                |xml| {
                    digests.map_or(Ok(()), |digests| {
                        element(
                            xml,
                            "failure",
                            "digest",
                            "the nodes do not hold the same image",
                            &digests,
                        )
                    })
                },
            )
        })?;
    Ok(())
}

/// For a check, and for a pull that left different digests: the digests, if there are several. Otherwise `None`.
fn compared(result: &RunResult, item: usize) -> Option<Option<String>> {
    let digests = digests_of(result, item);
    match result.info.plan.work {
        Work::Check(_) => {}
        Work::Pull(_) if digests.len() > 1 => {}
        Work::Pull(_) | Work::Exec(_) | Work::Probe(_) => return None,
    }
    let line = |(digest, names): (&str, Vec<&str>)| format!("{digest} on {}", names.join(", "));
    let several = digests.len() > 1;
    Some(several.then(|| digests.into_iter().map(line).collect::<Vec<_>>().join("\n")))
}

fn case(
    xml: &mut Xml<'_>,
    suite: &str,
    name: &str,
    took: Duration,
    content: impl FnOnce(&mut Xml<'_>) -> io::Result<()>,
) -> io::Result<()> {
    xml.create_element("testcase")
        .with_attribute(("name", legal(name).as_str()))
        .with_attribute(("classname", legal(suite).as_str()))
        .with_attribute(("time", time(took).as_str()))
        .write_inner_content(content)?;
    Ok(())
}

fn outcome(xml: &mut Xml<'_>, record: &Record) -> io::Result<()> {
    match &record.outcome {
        Outcome::Pulled(_) | Outcome::Present(_) | Outcome::Probed(_) => {
            tries(xml, "flakyFailure", &record.attempts)?;
            let mut facts: Vec<String> = Vec::new();
            facts.extend(record.arrived.map(|bytes| format!("arrived_bytes={bytes}")));
            if let Some(Delivery { via, note }) = &record.delivery {
                facts.push(format!("via={}", via.as_str()));
                let note = note.as_ref().map(|note| escape_truncated(note, MESSAGE));
                facts.extend(note.map(|note| format!("via_note={note}")));
            }
            if !facts.is_empty() {
                let text = legal(&facts.join("\n"));
                xml.create_element("system-out")
                    .write_text_content(BytesText::new(&text))?;
            }
            Ok(())
        }
        Outcome::Missing => {
            let message = "the node does not hold the image";
            element(xml, "failure", "missing", message, message)
        }
        Outcome::Failed(failure) => {
            failed(xml, "failure", failure, Some(failure.kind.advice()))?;
            let earlier = record.attempts.len().saturating_sub(1);
            tries(xml, "rerunFailure", &record.attempts[..earlier])
        }
        Outcome::NotRun(reason) => {
            element(xml, "skipped", "not-run", reason.as_str(), reason.as_str())
        }
        Outcome::Ran(output) => {
            let exit = match &output.exit {
                ExitStatus::Code(code) => format!("exit status {code}"),
                ExitStatus::Signal(name) => {
                    format!("ended by signal {}", escape_truncated(name, 20))
                }
            };
            if output.success() {
                tries(xml, "flakyFailure", &record.attempts)?;
            } else {
                element(xml, "failure", "exit-status", &exit, &exit)?;
            }
            for (name, kept) in [
                ("system-out", &output.stdout),
                ("system-err", &output.stderr),
            ] {
                if !kept.is_empty() {
                    let bytes = kept.read(TEXT + 1)?;
                    let text = legal(&escape_multiline(&truncate_bytes(&bytes, TEXT)));
                    xml.create_element(name)
                        .write_text_content(BytesText::new(&text))?;
                }
            }
            Ok(())
        }
    }
}

/// The attempts that failed before the one that counts.
fn tries(xml: &mut Xml<'_>, name: &str, attempts: &[Attempt]) -> io::Result<()> {
    let failures = attempts.iter().filter_map(|one| one.failure.as_ref());
    failures
        .into_iter()
        .try_for_each(|failure| failed(xml, name, failure, None))
}

fn failed(
    xml: &mut Xml<'_>,
    name: &str,
    failure: &Failure,
    advice: Option<&str>,
) -> io::Result<()> {
    let (kind, stage) = (failure.kind.as_str(), failure.stage);
    let message = format!(
        "{kind} ({stage}): {}",
        truncate_middle(&failure.detail, MESSAGE)
    );
    let mut text = escape_multiline(&truncate_bytes(failure.detail.as_bytes(), TEXT));
    if let Some(advice) = advice {
        text.push_str(&format!("\n\nWhat next: {advice}"));
    }
    element(xml, name, kind, &message, &text)
}

fn element(xml: &mut Xml<'_>, name: &str, kind: &str, message: &str, text: &str) -> io::Result<()> {
    xml.create_element(name)
        .with_attribute(("type", kind))
        .with_attribute(("message", legal(message).as_str()))
        .write_text_content(BytesText::new(&legal(text)))?;
    Ok(())
}

/// Without the characters that no XML document may hold. Controls are none of them: they are escaped before.
fn legal(text: &str) -> String {
    let mut text = escape_multiline(text);
    text.retain(|c| !matches!(c, '\u{fffe}' | '\u{ffff}'));
    text
}

/// Seconds with three decimals: other forms are refused.
fn time(duration: Duration) -> String {
    format!("{:.3}", seconds(duration))
}
