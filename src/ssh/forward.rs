//! A port of a node's 127.0.0.1 that leads to prepull (RFC 4254 section 7): one for each connection, on request.

use std::sync::{Arc, OnceLock};

use russh::Channel;
use russh::client::{ChannelOpenHandle, Msg};
use tokio::sync::{Semaphore, mpsc};

use super::channel_stream::{ChannelStream, Origin};
use super::link::ConnectionHandle;
use crate::ports::{ForwardedPort, NodeStream};

/// The address that the node listens on: no other host reaches it.
pub(super) const ADDRESS: &str = "127.0.0.1";
/// The most connections of one node at a time. A runtime opens a few; any user of the node may open more.
const MOST_CONNECTIONS: usize = 32;
/// The most bytes of one connection that wait to be read. What arrives is requests, which are small.
const MOST_UNREAD: usize = 64 << 10;

/// The forwarded port of a connection, if it has one. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Forwarding(Arc<OnceLock<Listening>>);

struct Listening {
    port: u16,
    places: Arc<Semaphore>,
    sender: mpsc::Sender<Box<dyn NodeStream>>,
}

impl Forwarding {
    pub(super) fn is_open(&self) -> bool {
        self.0.get().is_some()
    }

    /// The node listens on this port from now on.
    pub(super) fn open(&self, port: u16) -> ForwardedPort {
        let (sender, connections) = mpsc::channel(MOST_CONNECTIONS);
        // There is one request for a port on each connection, so it is set once.
        let _ = self.0.set(Listening {
            port,
            places: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            sender,
        });
        ForwardedPort { port, connections }
    }

    /// Whether this is the address that was asked for.
    pub(super) fn is_at(&self, address: &str, port: u32) -> bool {
        address == ADDRESS
            && (self.0.get()).is_some_and(|listening| u32::from(listening.port) == port)
    }

    /// Takes a connection, unless there are too many or none is wanted any more: then dropping `reply` refuses it.
    pub(super) async fn accept(
        &self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        link: ConnectionHandle,
    ) {
        let Some(listening) = self.0.get() else {
            return;
        };
        let place = Arc::clone(&listening.places).try_acquire_owned();
        let (Ok(place), Ok(slot)) = (place, listening.sender.try_reserve()) else {
            return;
        };
        reply.accept().await;
        slot.send(Box::new(ChannelStream::new(
            channel,
            link,
            Origin::ForwardedPort,
            MOST_UNREAD,
            Box::new(place),
        )));
    }
}
