//! How much of what a server sends is kept for a reader that is slow, and how long a channel may take to close.

use std::time::Duration;

/// The most memory for what a reader has not taken yet: beyond it, output is thrown away.
pub(super) const QUEUE_BYTES: usize = 8 << 20;
/// What a piece of output counts for at least: a server may send its bytes one by one.
const LEAST_COST: usize = 128;
/// How long a polite end may take.
pub(super) const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// The memory that a piece of output of this length takes while it waits.
pub(super) fn cost(length: usize) -> usize {
    length.max(LEAST_COST)
}
