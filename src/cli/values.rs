//! The values that options take: the words to choose from, and times, sizes and shares as people write them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::{PathBufValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::model::{Choice, Portion, Toleration};

/// One of the words of a [`Choice`].
pub(super) fn choice<T: Choice>() -> impl TypedValueParser<Value = T> {
    let words = T::all().into_iter().map(|(_, word, help)| {
        let value = PossibleValue::new(word);
        match help.strip_suffix('.') {
            Some(help) => value.help(help),
            None => value,
        }
    });
    PossibleValuesParser::new(words)
        .try_map(|word| T::from_word(&word).ok_or("not one of its words"))
}

/// `--toleration`.
pub(super) fn toleration(text: &str) -> Result<Toleration, String> {
    Toleration::parse(text)
}

/// The name of an object of Kubernetes, which becomes part of a path: a DNS subdomain (RFC 1123).
pub(super) fn name(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let is_plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(is_plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_name = text.len() <= 253 && text.split('.').all(is_label);
    is_name
        .then(|| text.to_string())
        .ok_or_else(|| "use lower-case letters, digits, - and .".into())
}

/// `prepull images --output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImagesFormat {
    /// One image a line.
    Name,
    /// With the places that name it.
    Wide,
    /// One JSON document.
    Json,
}

/// A number that something is multiplied by.
pub(super) fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok();
    factor
        .filter(|factor| (0.0..=100.0).contains(factor))
        .ok_or_else(|| "write a number from 0 to 100, e.g. 2.5".into())
}

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people.
    Human,
    /// One JSON document at the end.
    Json,
    /// One JSON event a line as it happens, and the document as the last.
    Jsonl,
}

/// `--report`: a file, and what is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportFile {
    /// The file.
    pub path: PathBuf,
    /// What its name ends with says this.
    pub form: ReportForm,
}

/// What is written to a report file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportForm {
    /// The document of `-o json`.
    Json,
    /// JUnit XML.
    Junit,
    /// A page for people.
    Html,
    /// Metrics for node_exporter's textfile collector.
    Prometheus,
}

/// `prepull hosts scan --output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HostsFormat {
    /// A line for each host.
    Human,
    /// One JSON document.
    Json,
}

/// `prepull nodes --output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NodesFormat {
    /// A table.
    Human,
    /// A table with groups, labels and endpoints.
    Wide,
    /// One JSON document.
    Json,
    /// An inventory in prepull's own YAML, with everything resolved.
    Yaml,
    /// One name a line.
    Name,
}

/// `prepull runs list --output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// A table.
    Human,
    /// One JSON document.
    Json,
}

/// `prepull completions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// `--from`: images in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageArchive {
    /// The folder or file.
    pub path: PathBuf,
    /// What it is read as.
    pub form: ArchiveForm,
}

/// The forms of images in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveForm {
    /// A folder with an OCI layout.
    OciDirectory,
    /// A tar of an OCI layout.
    OciArchive,
    /// What `docker save` writes.
    DockerArchive,
}

/// How the forms of `--from` begin, as containers' tools write them.
const ARCHIVES: [(&str, ArchiveForm); 3] = [
    ("oci:", ArchiveForm::OciDirectory),
    ("oci-archive:", ArchiveForm::OciArchive),
    ("docker-archive:", ArchiveForm::DockerArchive),
];

/// A form and a path.
pub(super) fn image_archive() -> impl TypedValueParser<Value = ImageArchive> {
    PathBufValueParser::new().try_map(|given| {
        let bytes = given.as_os_str().as_encoded_bytes();
        let found = ARCHIVES.iter().find_map(|(start, form)| {
            let path = bytes.strip_prefix(start.as_bytes())?;
            Some((path, *form))
        });
        match found {
            Some((path, form)) if !path.is_empty() => Ok(ImageArchive {
                path: Path::new(OsStr::from_bytes(path)).to_owned(),
                form,
            }),
            _ => Err("write oci:DIR, oci-archive:FILE or docker-archive:FILE"),
        }
    })
}

/// A path whose ending says what is written there.
pub(super) fn report_file() -> impl TypedValueParser<Value = ReportFile> {
    PathBufValueParser::new().try_map(|path| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        let form = match ending {
            Some("json") => ReportForm::Json,
            Some("xml") => ReportForm::Junit,
            Some("html") => ReportForm::Html,
            Some("prom") => ReportForm::Prometheus,
            _ => return Err("it must end in .json, .xml (JUnit), .html or .prom (metrics)"),
        };
        Ok(ReportFile { path, form })
    })
}

/// The longest time that an option takes, ten years. Clocks can count that far from now, also several times over.
const LONGEST: Duration = Duration::from_secs(10 * 31_557_600);

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let too_long = || Err("it must be at most 10y".to_string());
    match humantime::parse_duration(text) {
        Ok(length) if length > LONGEST => too_long(),
        Ok(length) => Ok(length),
        Err(humantime::DurationError::NumberOverflow) => too_long(),
        Err(_) => Err("write a time with its unit: 30s, 5m, 1h30m".into()),
    }
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than nothing".into()),
        length => Ok(length),
    }
}

/// Whole seconds, which is how a node counts it.
pub(super) fn lease(text: &str) -> Result<Duration, String> {
    let length = duration(text)?;
    if length < Duration::from_secs(2) {
        return Err("it must be at least 2s: a node counts whole seconds".into());
    }
    Ok(length)
}

/// More arrives nowhere in a second, and times the seconds of any time it is still a number.
const MOST_BYTES: f64 = 1e15;

/// A number of bytes, as people write it: `500`, `50kB`, `1.5MB`, `2MiB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "write bytes with their unit: 500, 50kB, 1.5MB, 2MiB".to_string();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    match number * factor {
        0.0..1.0 => Err("it must be at least one byte".into()),
        bytes if bytes < MOST_BYTES => Ok(bytes as u64),
        _ => Err("it must be less than 1000000 GB".into()),
    }
}

/// A number of at least 1, as `-p 32`.
pub(super) fn at_least_one(text: &str) -> Result<u32, String> {
    match whole(text)? {
        0 => Err("it must be at least 1".into()),
        number => Ok(number),
    }
}

/// A whole number.
pub(super) fn whole(text: &str) -> Result<u32, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) => Ok(number),
        Err(_) if is_number => Err(format!("it must be at most {}", u32::MAX)),
        Err(_) => Err("write a whole number, e.g. 5".into()),
    }
}

/// A TCP port.
pub(super) fn port(text: &str) -> Result<u16, String> {
    let number = text.parse().ok();
    let port = number.filter(|port| *port > 0);
    port.ok_or_else(|| "write a port from 1 to 65535".into())
}

pub(super) fn backoff(text: &str) -> Result<(Duration, Duration), String> {
    let Some((min, max)) = text.split_once("..") else {
        return Err("write both limits, e.g. 1s..60s".into());
    };
    let (min, max) = (duration(min)?, duration(max)?);
    if min > max {
        return Err("the first limit is longer than the second".into());
    }
    Ok((min, max))
}

pub(super) fn portion(text: &str) -> Result<Portion, String> {
    const RIGHT: &str = "write a number of nodes such as 5, or a share such as 10%";
    if let Some(percent) = text.strip_suffix('%') {
        return match percent.parse::<f64>() {
            Ok(share) if share > 0.0 && share <= 100.0 => Ok(Portion::Percent(share)),
            _ => Err(RIGHT.into()),
        };
    }
    match text.parse::<usize>() {
        Ok(count) if count > 0 => Ok(Portion::Count(count)),
        _ => Err(RIGHT.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit_except_zero() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("10").is_err());
        assert!(positive_duration("0").is_err());
        assert!(positive_duration("0s").is_err());
    }

    #[test]
    fn what_no_clock_or_link_knows_is_refused_with_the_limit() {
        for text in [
            "500000000000y",
            "11y",
            "99999999999999999999s",
            "18446744073709551615y 1y",
            "10y 1s",
        ] {
            for read in [duration, positive_duration, lease] {
                assert_eq!(read(text), Err("it must be at most 10y".into()), "{text}");
            }
            let range = format!("1s..{text}");
            assert_eq!(backoff(&range), Err("it must be at most 10y".into()));
        }
        assert_eq!(duration("10y"), Ok(LONGEST));
        assert!(bytes("999999GB").is_ok());
        for text in ["1000000GB", "99999999999999999999999GiB", "1e9"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(bytes("0.5"), Err("it must be at least one byte".into()));
    }

    #[test]
    fn numbers_out_of_range_are_told_without_the_machines_own_limits() {
        assert_eq!(at_least_one("0"), Err("it must be at least 1".into()));
        assert_eq!(at_least_one("32"), Ok(32));
        assert_eq!(whole("0"), Ok(0));
        for text in ["", "-1", "many", "1.5"] {
            assert_eq!(whole(text), Err("write a whole number, e.g. 5".into()));
        }
        assert_eq!(
            whole("99999999999"),
            Err("it must be at most 4294967295".into())
        );
        for text in ["0", "65536", "ssh"] {
            assert_eq!(port(text), Err("write a port from 1 to 65535".into()));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_panics_and_every_time_can_be_counted_from_now(
            text in "[0-9]{1,25}(\\.[0-9]{1,20})?(ns|us|ms|s|m|h|d|w|M|y|kB|MiB|GB|%|)|\\PC*",
        ) {
            let range = format!("{text}..{text}");
            let times = [duration(&text), positive_duration(&text), lease(&text)];
            let limits = backoff(&range).map(|(_, max)| max);
            for time in times.into_iter().chain([limits]).flatten() {
                proptest::prop_assert!(time <= LONGEST);
                proptest::prop_assert!(std::time::Instant::now().checked_add(time * 8).is_some());
            }
            let _ = (bytes(&text), portion(&text), factor(&text));
            let _ = (whole(&text), at_least_one(&text), port(&text));
        }
    }

    #[test]
    fn limits_are_written_as_ranges_and_shares() {
        let seconds = Duration::from_secs;
        assert_eq!(backoff("1s..60s"), Ok((seconds(1), seconds(60))));
        assert!(backoff("60s..1s").is_err());
        assert!(backoff("1s").is_err());
        assert_eq!(portion("5"), Ok(Portion::Count(5)));
        assert_eq!(portion("2.5%"), Ok(Portion::Percent(2.5)));
        for wrong in ["0", "-1", "0%", "101%", "many", "NaN%"] {
            assert!(portion(wrong).is_err(), "{wrong}");
        }
    }
}
