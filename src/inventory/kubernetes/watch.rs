//! A watch of the Kubernetes API: one JSON object a line, for as long as the server likes.

use std::marker::PhantomData;

use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::client::{Api, BODY_LIMIT, READ_LIMIT, Refusal, Status, late, no_api, read_frame};

/// For how long the server is asked to keep a watch open. A connection that died without a word is found by the read
/// limit, which has to be longer.
pub const WATCH_SECONDS: u64 = READ_LIMIT.as_secs() - 15;

/// Changes of a list as they happen.
pub struct Watch<T> {
    incoming: Incoming,
    /// What came and was not handed out yet.
    buffer: Vec<u8>,
    kind: PhantomData<fn() -> T>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent<T> {
    /// The object is new or different.
    Set(T),
    /// The object is gone; this is how it was.
    Deleted(T),
    /// Nothing changed up to the resource version of this object, in which nothing else is set.
    Bookmark(T),
}

#[derive(Deserialize)]
struct Line<'a> {
    r#type: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl Api {
    /// Follows the changes of a list from a resource version on: `path` holds the whole query.
    ///
    /// # Errors
    /// What the server refused, or why there is no answer.
    pub async fn watch<T: DeserializeOwned>(&self, path: &str) -> Result<Watch<T>, Refusal> {
        Ok(Watch {
            incoming: self.open(path).await?,
            buffer: Vec::new(),
            kind: PhantomData,
        })
    }
}

impl<T: DeserializeOwned> Watch<T> {
    /// The next change; `None` when the server ends the watch, which it does now and then. Cancel-safe.
    ///
    /// # Errors
    /// What the server said instead: 410 when it no longer knows what happened since the resource version.
    pub async fn next(&mut self) -> Result<Option<WatchEvent<T>>, Refusal> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return read(&line).map(Some);
            }
            let next = timeout(READ_LIMIT, read_frame(&mut self.incoming));
            let Some(data) = next.await.map_err(late)?? else {
                return Ok(None);
            };
            self.buffer.extend_from_slice(&data);
            if self.buffer.len() > BODY_LIMIT {
                return Err(Refusal::InputError(no_api("far more than any API server")));
            }
        }
    }
}

fn read<T: DeserializeOwned>(line: &[u8]) -> Result<WatchEvent<T>, Refusal> {
    let wrong = |_| Refusal::InputError(no_api("something in a watch that the API never says"));
    let line: Line<'_> = serde_json::from_slice(line).map_err(wrong)?;
    if line.r#type == "ERROR" {
        let status: Status = serde_json::from_str(line.object.get()).map_err(wrong)?;
        return Err(Refusal::Status(status.code, status.message));
    }
    let object = serde_json::from_str(line.object.get()).map_err(wrong)?;
    Ok(match line.r#type.as_str() {
        "DELETED" => WatchEvent::Deleted(object),
        "BOOKMARK" => WatchEvent::Bookmark(object),
        _ => WatchEvent::Set(object),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Thing {
        name: String,
    }

    #[test]
    fn every_kind_of_line_is_read() {
        let line = |kind: &str| format!("{{\"type\":\"{kind}\",\"object\":{{\"name\":\"a\"}}}}\n");
        let thing = || Thing { name: "a".into() };
        for (kind, expected) in [
            ("ADDED", WatchEvent::Set(thing())),
            ("MODIFIED", WatchEvent::Set(thing())),
            ("DELETED", WatchEvent::Deleted(thing())),
            ("BOOKMARK", WatchEvent::Bookmark(thing())),
        ] {
            let read: WatchEvent<Thing> = read(line(kind).as_bytes()).unwrap();
            assert_eq!(read, expected, "{kind}");
        }
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old resource version"}}"#;
        let refusal = read::<Thing>(gone.as_bytes()).unwrap_err();
        assert!(matches!(refusal, Refusal::Status(410, said) if said.contains("too old")));
        for hostile in [
            "",
            "{}",
            "[]",
            "{\"type\":\"ADDED\"}",
            "{\"type\":\"ADDED\",\"object\":3}",
        ] {
            assert!(read::<Thing>(hostile.as_bytes()).is_err(), "{hostile}");
        }
    }
}
