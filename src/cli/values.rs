//! The values that options take: the words to choose from, and times, sizes and shares as people write them.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::{PathBufValueParser, TypedValueParser};

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

/// The types of a Kubernetes node's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AddressTypeChoice {
    /// An address within the cluster's network.
    #[value(name = "InternalIP")]
    InternalIp,
    /// An address from outside.
    #[value(name = "ExternalIP")]
    ExternalIp,
    /// What the node calls itself.
    #[value(name = "Hostname")]
    Hostname,
    /// A name within the cluster's network.
    #[value(name = "InternalDNS")]
    InternalDns,
    /// A name from outside.
    #[value(name = "ExternalDNS")]
    ExternalDns,
}

/// A number of nodes or a share of the fleet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Share {
    /// A number.
    Count(usize),
    /// Percent.
    Percent(f64),
}

/// A number that something is multiplied by.
pub(super) fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok();
    factor
        .filter(|factor| (0.0..=100.0).contains(factor))
        .ok_or_else(|| "write a number from 0 to 100, e.g. 2.5".into())
}

/// `--runtime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum RuntimeChoice {
    Auto,
    Docker,
    Crictl,
}

/// `--pull`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullChoice {
    /// Ask the registry in any case.
    Always,
    /// Leave a node alone that holds the image.
    Missing,
}

/// `--host-keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HostKeysChoice {
    /// An unknown key stops that node.
    Strict,
    /// An unknown key is recorded and accepted.
    AcceptNew,
    /// Every key is accepted: whoever answers gets the credentials.
    Off,
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

/// `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressChoice {
    /// Bars on a terminal, lines elsewhere.
    Auto,
    /// Bars.
    Bars,
    /// One line for each change.
    Lines,
    /// Nothing until the end.
    None,
}

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A path whose ending says what is written there.
pub(super) fn report_file() -> impl TypedValueParser<Value = ReportFile> {
    PathBufValueParser::new().try_map(|path| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        let form = match ending {
            Some("json") => ReportForm::Json,
            Some("xml") => ReportForm::Junit,
            Some("html") => ReportForm::Html,
            _ => return Err("it must end in .json, .xml (JUnit) or .html"),
        };
        Ok(ReportFile { path, form })
    })
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text).map_err(|_| "write a time with its unit: 30s, 5m, 1h30m".into())
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
    let bytes = number * factor;
    if (1.0..1e18).contains(&bytes) {
        Ok(bytes as u64)
    } else {
        Err(wrong())
    }
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

pub(super) fn portion(text: &str) -> Result<Share, String> {
    const RIGHT: &str = "write a number of nodes such as 5, or a share such as 10%";
    if let Some(percent) = text.strip_suffix('%') {
        return match percent.parse::<f64>() {
            Ok(share) if share > 0.0 && share <= 100.0 => Ok(Share::Percent(share)),
            _ => Err(RIGHT.into()),
        };
    }
    match text.parse::<usize>() {
        Ok(count) if count > 0 => Ok(Share::Count(count)),
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
    fn limits_are_written_as_ranges_and_shares() {
        let seconds = Duration::from_secs;
        assert_eq!(backoff("1s..60s"), Ok((seconds(1), seconds(60))));
        assert!(backoff("60s..1s").is_err());
        assert!(backoff("1s").is_err());
        assert_eq!(portion("5"), Ok(Share::Count(5)));
        assert_eq!(portion("2.5%"), Ok(Share::Percent(2.5)));
        for wrong in ["0", "-1", "0%", "101%", "many", "NaN%"] {
            assert!(portion(wrong).is_err(), "{wrong}");
        }
    }
}
