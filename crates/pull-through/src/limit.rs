//! The upload limit: bytes per second over all connections, shared fairly between nodes.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Time that was not used counts for this long, so that timers that fire late do not cost rate.
const CREDIT: Duration = Duration::from_millis(50);
/// Bytes that a node may send before it is another node's turn.
const PART: usize = 64 << 10;

/// Hands out times to send at. Each node waits for one time only (`turn`), and both locks are fair, so nodes that want to
/// send take turns, part by part, however many connections each of them has.
pub struct UploadLimit {
    rate: Option<u64>,
    /// When the next part may be sent. A waiter holds the lock until that time and only then sets the next one, so a
    /// cancelled wait uses up no rate.
    next: Mutex<Option<Instant>>,
}

impl UploadLimit {
    /// No limit at all without a rate.
    pub fn new(rate: Option<u64>) -> Self {
        Self {
            rate,
            next: Mutex::default(),
        }
    }

    /// Returns when these bytes may be sent. `turn` is one for each node.
    pub async fn wait(&self, turn: &Mutex<()>, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let _turn = turn.lock().await;
        let mut left = bytes;
        while left > 0 {
            let part = left.min(PART);
            let mut next = self.next.lock().await;
            let now = Instant::now();
            let earliest = now.checked_sub(CREDIT).unwrap_or(now);
            let start = next.map_or(now, |next| next.max(earliest));
            sleep_until(start).await;
            let takes = Duration::from_secs_f64(part as f64 / rate.max(1) as f64);
            *next = Some(start + takes);
            left -= part;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    const CHUNK: usize = PART;

    /// Bytes that each node sent in ten seconds, with so many connections each.
    async fn sent(rate: u64, connections: &[usize]) -> Vec<u64> {
        let limit = Arc::new(UploadLimit::new(Some(rate)));
        let mut nodes = Vec::new();
        let mut tasks = Vec::new();
        for count in connections {
            let node = Arc::new((Mutex::new(()), AtomicU64::new(0)));
            nodes.push(Arc::clone(&node));
            for _ in 0..*count {
                let (limit, node) = (Arc::clone(&limit), Arc::clone(&node));
                tasks.push(tokio::spawn(async move {
                    loop {
                        limit.wait(&node.0, CHUNK).await;
                        node.1.fetch_add(CHUNK as u64, Ordering::Relaxed);
                    }
                }));
            }
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        let sent = nodes.iter().map(|node| node.1.load(Ordering::Relaxed));
        sent.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_and_a_node_with_more_connections_gets_no_more() {
        let rate = 10 << 20;
        let sent = sent(rate, &[1, 1, 8, 3]).await;
        let all: u64 = sent.iter().sum();
        let wanted = rate * 10;
        assert!(all.abs_diff(wanted) < wanted / 50, "{sent:?}");
        for one in &sent {
            assert!(one.abs_diff(wanted / 4) < wanted / 100, "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_alone_has_the_whole_rate_and_idle_time_is_not_saved_up() {
        let rate = 100 << 20;
        let alone = sent(rate, &[1]).await;
        assert!(alone[0].abs_diff(rate * 10) < rate / 5, "{alone:?}");
        let limit = UploadLimit::new(Some(1 << 20));
        let turn = Mutex::new(());
        limit.wait(&turn, 1).await;
        tokio::time::advance(Duration::from_secs(60)).await;
        let began = Instant::now();
        for _ in 0..17 {
            limit.wait(&turn, CHUNK).await;
        }
        assert!(began.elapsed() > Duration::from_millis(900));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_are_dropped_while_they_wait_cost_no_time() {
        let limit = UploadLimit::new(Some(CHUNK as u64));
        let [hanging_up, other] = [(); 2].map(|()| Mutex::new(()));
        limit.wait(&hanging_up, CHUNK).await;
        for _ in 0..100 {
            let waited = limit.wait(&hanging_up, CHUNK).now_or_never();
            assert!(waited.is_none(), "the first part takes a second");
        }
        let began = Instant::now();
        limit.wait(&other, CHUNK).await;
        assert!(
            began.elapsed() < Duration::from_millis(1100),
            "{:?}",
            began.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_manifest_takes_its_turns_as_a_layer_does() {
        let limit = Arc::new(UploadLimit::new(Some(CHUNK as u64)));
        let large = Arc::clone(&limit);
        let sending = tokio::spawn(async move { large.wait(&Mutex::new(()), 64 * CHUNK).await });
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (turn, began) = (Mutex::new(()), Instant::now());
        limit.wait(&turn, CHUNK).await;
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
        sending.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_waits() {
        let limit = UploadLimit::new(None);
        let turn = Mutex::new(());
        let _held = turn.lock().await;
        limit.wait(&turn, usize::MAX).await;
    }
}
