//! Who may read, and how much each reader got.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::Error;

/// The login of one node, with what the node asked for and received.
///
/// The upload limit is shared fairly between accesses: make one for each node. Only a hash of the login is kept.
pub struct Access {
    expected: [u8; 32],
    /// One request to the upload limit at a time, so that a node with many connections gets no more than another.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Connections that have shown the login.
    pub(crate) connections: AtomicUsize,
    /// Those that have not, oldest first. One that is pushed out is notified.
    pub(crate) strangers: Mutex<VecDeque<Arc<Notify>>>,
    requests: AtomicU64,
    refused: AtomicU64,
    sent: AtomicU64,
    failure: Mutex<Option<Error>>,
}

/// What a node asked for and received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests with the right login. Zero: the node's runtime never asked.
    pub requests: u64,
    /// Requests with a wrong login. Those without any do not count: every client begins with one.
    pub refused: u64,
    /// Bytes of manifests and blobs that were sent.
    pub sent: u64,
}

impl Access {
    /// A login that HTTP's Basic authentication wants.
    pub fn new(user: &str, password: &str) -> Self {
        let login = STANDARD.encode(format!("{user}:{password}"));
        Self {
            expected: Sha256::digest(login).into(),
            turn: tokio::sync::Mutex::default(),
            connections: AtomicUsize::new(0),
            strangers: Mutex::default(),
            requests: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            failure: Mutex::new(None),
        }
    }

    /// What the node asked for and received so far.
    pub fn usage(&self) -> Usage {
        Usage {
            requests: self.requests.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
        }
    }

    /// Why the node's last request that failed on this side failed. The node itself is not told.
    pub fn failure(&self) -> Option<Error> {
        let failure = self.failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn failed(&self, error: Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        *failure = Some(error);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether a request with this `Authorization` may be answered. Hashes are compared, every byte of them, so that
    /// the time tells nothing of the login.
    pub(crate) fn allows(&self, authorization: Option<&HeaderValue>) -> bool {
        let Some(value) = authorization else {
            return false;
        };
        let login = match value.as_bytes().split_at_checked(6) {
            Some((scheme, login)) if scheme.eq_ignore_ascii_case(b"basic ") => login,
            _ => &[],
        };
        let shown: [u8; 32] = Sha256::digest(login.trim_ascii()).into();
        let pairs = shown.iter().zip(&self.expected);
        let is_right = pairs.fold(0, |differing, (a, b)| differing | (a ^ b)) == 0;
        let counter = if is_right {
            &self.requests
        } else {
            &self.refused
        };
        counter.fetch_add(1, Ordering::Relaxed);
        is_right
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = out.debug_struct("Access");
        shown.field("usage", &self.usage()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_login_itself_is_let_in() {
        let access = Access::new("node-1", "s3cret");
        let shown = |text: &str| access.allows(Some(&HeaderValue::from_str(text).unwrap()));
        let right = STANDARD.encode("node-1:s3cret");
        assert!(shown(&format!("Basic {right}")));
        assert!(shown(&format!("basic {right}")));
        assert!(!access.allows(None));
        for wrong in [
            "",
            "Basic",
            "Basic ",
            "Bearer x",
            &right,
            "Basic bm9kZS0xOg==",
        ] {
            assert!(!shown(wrong), "{wrong}");
        }
        assert!(!shown(&format!("Basic {right}A")));
        let usage = access.usage();
        assert_eq!((usage.requests, usage.refused), (2, 7));
        assert!(!format!("{access:?}").contains("s3cret"));
    }
}
