//! A light SSH server in a process of its own: takes one key, and plays a node with docker for prepull. Other programs
//! may run `true` and `sleep N`. It holds 10,000 sessions; `benches/fleet` starts it.
//!
//! `cargo bench --bench server -- 0.0.0.0:2222 PUBLIC_KEY HOST_KEY`

#![allow(clippy::unwrap_used, clippy::print_stdout)] // no part of the program: a panic is a failed measurement

mod scripted;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prepull::node::word;
use russh::keys::PublicKey;
use russh::server::VerifiedPublicKey;
use russh::server::{self, Auth, ChannelOpenHandle, Handle, Msg, PublicKeyOffer, Session};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use scripted::{Node, Pulls};
use tokio::net::TcpListener;

/// What all connections came to.
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
static CHANNELS: AtomicUsize = AtomicUsize::new(0);

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // `cargo bench` adds a word of its own, and runs every bench.
    let words: Vec<&str> = words
        .into_iter()
        .filter(|word| *word != "--bench")
        .collect();
    let [address, key, host_key] = words[..] else {
        println!("nothing to measure here: benches/fleet starts this server");
        return;
    };
    let key = PublicKey::read_openssh_file(std::path::Path::new(key)).unwrap();
    let host_key = russh::keys::load_secret_key(host_key, None).unwrap();
    let config = Arc::new(server::Config {
        keys: vec![host_key],
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::ZERO,
        inactivity_timeout: None,
        ..Default::default()
    });
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address.parse().unwrap()).unwrap();
    let listener: TcpListener = socket.listen(4096).unwrap();
    println!("listening");
    tokio::spawn(async {
        // Whoever started it asks for the counts by a signal.
        let mut asked =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1()).unwrap();
        loop {
            asked.recv().await;
            let (connections, channels) = (
                CONNECTIONS.swap(0, Ordering::SeqCst),
                CHANNELS.swap(0, Ordering::SeqCst),
            );
            println!("{connections} connections {channels} channels");
        }
    });
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        CONNECTIONS.fetch_add(1, Ordering::SeqCst);
        let (config, key) = (Arc::clone(&config), key.clone());
        tokio::spawn(async move {
            let login = Login {
                key,
                channels: HashMap::new(),
            };
            if let Ok(running) = server::run_stream(config, stream, login).await {
                let _ = running.await;
            }
        });
    }
}

struct Login {
    key: PublicKey,
    /// The commands that read a request.
    channels: HashMap<ChannelId, Node>,
}

impl server::Handler for Login {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(if offer.public_key.key_data() == self.key.key_data() {
            Auth::Accept
        } else {
            Auth::reject()
        })
    }

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        CHANNELS.fetch_add(1, Ordering::SeqCst);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)?;
        let line = String::from_utf8_lossy(line).into_owned();
        if line.starts_with("sh -c ") && line.contains("eval") {
            self.channels.insert(channel, Node::default());
            return Ok(());
        }
        // Some programs hand their command to a shell.
        let words: Vec<&str> = line.trim_matches('\'').split_whitespace().collect();
        let seconds = match words.iter().position(|word| *word == "sleep") {
            Some(at) => words[at + 1]
                .trim_matches(|c: char| !c.is_ascii_digit())
                .parse()
                .unwrap(),
            None => 0,
        };
        tokio::spawn(end(
            session.handle(),
            channel,
            Vec::new(),
            Duration::from_secs(seconds),
        ));
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(node) = self.channels.get_mut(&channel) else {
            return Ok(());
        };
        if let Some(answer) = node.take(data, Pulls::Succeed) {
            if answer.waits {
                session.data(channel, answer.frames)?;
            } else {
                // That it begins is told at once: nobody waits a minute for that.
                let mut hello = answer.frames;
                let line = hello.iter().position(|&byte| byte == b'\n').unwrap() + 1;
                let rest = hello.split_off(line);
                session.data(channel, hello)?;
                tokio::spawn(end(session.handle(), channel, rest, answer.after));
            }
        } else if data == word::DONE.as_bytes() {
            tokio::spawn(end(session.handle(), channel, Vec::new(), Duration::ZERO));
        }
        Ok(())
    }
}

/// The command's end after some time, with all that it prints.
async fn end(handle: Handle, channel: ChannelId, output: Vec<u8>, after: Duration) -> Option<()> {
    if !after.is_zero() {
        tokio::time::sleep(after).await;
    }
    if !output.is_empty() {
        handle.data(channel, output).await.ok()?;
    }
    handle.exit_status_request(channel, 0).await.ok()?;
    handle.eof(channel).await.ok()?;
    handle.close(channel).await.ok()
}
