//! A fleet of any size in the test itself: one SSH server that is every node, told apart by who logs in. It speaks what
//! prepull's program on a node speaks, without a shell or a runtime behind it.

#![allow(dead_code)] // each test file plays its part

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prepull::node::word;
use russh::keys::key::safe_rng;
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{self, Auth, ChannelOpenHandle, Handle, Msg, PublicKeyOffer, Session};
use russh::{Channel, ChannelId, Preferred, kex};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use request::Request;

#[path = "request.rs"]
mod request;

/// What becomes of a pull on a node.
#[derive(Debug, Clone, Copy)]
pub enum Pull {
    /// It takes so many seconds, and then the image is there.
    Takes(u32),
    /// It takes two seconds, and so many more in between, in which nothing arrives.
    Stalls(u32),
    /// The runtime says this and fails.
    Fails(&'static str),
    /// It never ends, and cancelling does not help.
    Deaf,
    /// It is there already, with this twice 32 times as its digest.
    Holds(&'static str),
}

/// The image's only layer, in bytes.
pub const SIZE: u64 = 40_000_000;
pub const IMAGE: &str = "reg.example/team/app:v1";

/// Nodes that answer until this is dropped.
pub struct Simulated {
    port: u16,
    nodes: usize,
    /// How many pulls came to their end.
    ended: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl Simulated {
    /// `pull` says for each node, counted from 1, what becomes of its pull.
    pub fn start(nodes: usize, pull: fn(usize) -> Pull) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Arc::new(server::Config {
            keys: vec![PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()],
            preferred: Preferred {
                // The cheapest that is safe: there are thousands of them.
                kex: Cow::Borrowed(&[kex::CURVE25519]),
                ..Preferred::DEFAULT
            },
            inactivity_timeout: None,
            ..Default::default()
        });
        let ended = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ended);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let config = Arc::clone(&config);
                let node = Node {
                    pull,
                    number: 0,
                    channels: HashMap::new(),
                    ended: Arc::clone(&count),
                };
                tokio::spawn(async move {
                    if let Ok(running) = server::run_stream(config, stream, node).await {
                        let _ = running.await;
                    }
                });
            }
        });
        Self {
            port,
            nodes,
            ended,
            _runtime: runtime,
        }
    }

    /// How many pulls came to their end, cancelled ones too.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    /// Where the server listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The name of a node, counted from 1.
    pub fn name(number: usize) -> String {
        format!("sim-{number:04}")
    }

    /// Who logs in to a node.
    pub fn user(number: usize) -> String {
        format!("u{number}")
    }

    /// Writes an inventory of all nodes.
    pub fn inventory(&self, path: &Path) {
        let mut text = format!(
            "defaults: {{port: {}, runtime: docker}}\nnodes:\n",
            self.port
        );
        for number in 1..=self.nodes {
            let name = Self::name(number);
            writeln!(
                text,
                "  - {{name: {name}, address: 127.0.0.1, user: {}}}",
                Self::user(number)
            )
            .unwrap();
        }
        std::fs::write(path, text).unwrap();
    }
}

struct Node {
    pull: fn(usize) -> Pull,
    number: usize,
    ended: Arc<AtomicUsize>,
    /// What the client writes goes to whoever answers it.
    channels: HashMap<ChannelId, UnboundedSender<Vec<u8>>>,
}

impl Node {
    fn accept(&mut self, user: &str) -> Result<Auth, russh::Error> {
        self.number = user.trim_start_matches('u').parse().unwrap();
        Ok(Auth::Accept)
    }
}

impl server::Handler for Node {
    type Error = russh::Error;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, russh::Error> {
        self.accept(user)
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        _: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        self.accept(user)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)?;
        let (input, wrote) = unbounded_channel();
        self.channels.insert(channel, input);
        let program = Program {
            handle: session.handle(),
            channel,
            wrote,
            number: self.number,
            buffer: Vec::new(),
            nonce: String::new(),
        };
        let pull = (self.pull)(self.number);
        let ended = Arc::clone(&self.ended);
        tokio::spawn(async move {
            if program.run(pull).await.is_some() {
                ended.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Some(input) = self.channels.get(&channel) {
            let _ = input.send(data.to_vec());
        }
        Ok(())
    }
}

/// What docker says of an image that is there.
fn held(digest: &str) -> String {
    let digest = digest.repeat(32);
    format!("[\"reg.example/team/app@sha256:{digest}\"] linux/amd64 {SIZE} sha256:{digest}\n")
}

/// What stands in for the program on the node, for one channel.
struct Program {
    handle: Handle,
    channel: ChannelId,
    wrote: UnboundedReceiver<Vec<u8>>,
    number: usize,
    buffer: Vec<u8>,
    nonce: String,
}

impl Program {
    async fn run(mut self, pull: Pull) -> Option<()> {
        while self.line().await? != "#go" {}
        let rest = loop {
            if let Some((request, rest)) = Request::read(&self.buffer) {
                self.nonce = request.nonce.to_string();
                if request.action == "run" {
                    let bytes = request.commands[0].argv[1].parse().unwrap();
                    return self.prints(bytes).await;
                }
                if request.action == "ask" {
                    let docker = |argv: &[&str]| argv[0] == "docker";
                    let are_docker = request.commands.iter().map(|asked| docker(&asked.argv));
                    let are_docker: Vec<bool> = are_docker.collect();
                    return self.answers(&are_docker).await;
                }
                assert!(request.action.starts_with("pull-"), "{request:?}");
                break rest.to_vec();
            }
            self.buffer.extend(self.wrote.recv().await?);
        };
        self.buffer = rest;
        self.frames(&["hello", "stage inspect", "exited"]).await?;
        if let Pull::Holds(digest) = pull {
            self.output(0, &held(digest), "").await?;
        } else {
            self.output(1, "", "Error response from daemon: No such image: it\n")
                .await?;
            self.frames(&["stage pull", "measured"]).await?;
        }
        match pull {
            Pull::Takes(_) | Pull::Stalls(_) => {
                let (seconds, stall) = match pull {
                    Pull::Stalls(stall) => (2, stall),
                    Pull::Takes(seconds) => (seconds, 0),
                    Pull::Fails(_) | Pull::Deaf | Pull::Holds(_) => unreachable!(),
                };
                if self.arrives(seconds, stall).await? {
                    self.frames(&["exited"]).await?;
                    self.output(0, "", "").await?;
                    self.frames(&["stage verify", "exited"]).await?;
                    self.output(0, &held("ab"), "").await?;
                }
            }
            // Its program has nothing more to do.
            Pull::Holds(_) => {}
            Pull::Deaf => while self.line().await.is_some() {},
            Pull::Fails(words) => {
                self.frames(&["exited"]).await?;
                self.output(1, "", words).await?;
            }
        }
        self.frames(&["end"]).await?;
        while self.line().await? != word::DONE.trim_end() {}
        self.exit().await
    }

    /// The program ends well.
    async fn exit(&mut self) -> Option<()> {
        self.handle
            .exit_status_request(self.channel, 0)
            .await
            .ok()?;
        self.handle.eof(self.channel).await.ok()?;
        self.handle.close(self.channel).await.ok()
    }

    /// Which runtime is there: docker.
    async fn answers(&mut self, are_docker: &[bool]) -> Option<()> {
        self.frames(&["hello"]).await?;
        for is_docker in are_docker {
            self.frames(&["exited"]).await?;
            if *is_docker {
                let versions = r#"{"Client":{"Version":"27.0.1"},"Server":{"Version":"27.0.1"}}"#;
                self.output(0, versions, "").await?;
            } else {
                self.output(127, "", "sh: not found\n").await?;
            }
        }
        self.frames(&["end"]).await?;
        self.exit().await
    }

    /// The operator's command, `print BYTES`: a line with the node's own number, and of the rest a quarter is NULs.
    async fn prints(&mut self, bytes: usize) -> Option<()> {
        self.frames(&["hello", "exited"]).await?;
        let start = format!("{}\n", self.number);
        let nuls = "\0".repeat(bytes / 4);
        let plain = "x".repeat(bytes - nuls.len() - start.len());
        let output = start + &plain + &nuls;
        self.output(0, &output, "").await?;
        self.frames(&["end"]).await?;
        self.exit().await
    }

    /// Tells of a layer on its way, once a second but for a stall after the first; false when it is cancelled.
    async fn arrives(&mut self, seconds: u32, stall: u32) -> Option<bool> {
        let layer = "cd".repeat(32);
        let manifest =
            format!("{{\"layers\":[{{\"digest\":\"sha256:{layer}\",\"size\":{SIZE}}}]}}");
        self.frames(&[&format!("manifest {}", manifest.len())])
            .await?;
        self.send(manifest).await?;
        for second in 1..=seconds {
            let there = SIZE * u64::from(second) / u64::from(seconds);
            self.frames(&[&format!("progress {layer}:{there}:{SIZE}")])
                .await?;
            let pause = if second == 1 { 1 + stall } else { 1 };
            let next = tokio::time::sleep(Duration::from_secs(pause.into()));
            tokio::pin!(next);
            loop {
                tokio::select! {
                    () = &mut next => break,
                    line = self.line() => if line? == word::CANCEL.trim_end() {
                        return Some(false);
                    },
                }
            }
        }
        Some(true)
    }

    /// The next line that the client wrote. Cancel-safe.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).take(end).collect();
                return String::from_utf8(line).ok();
            }
            self.buffer.extend(self.wrote.recv().await?);
        }
    }

    async fn frames(&mut self, frames: &[&str]) -> Option<()> {
        let lines = frames
            .iter()
            .map(|frame| format!("prepull-{} {frame}\n", self.nonce));
        let lines: String = lines.collect();
        self.send(lines).await
    }

    async fn output(&mut self, code: u32, stdout: &str, stderr: &str) -> Option<()> {
        self.frames(&[&format!(
            "output {code} {} {} 0",
            stdout.len(),
            stderr.len()
        )])
        .await?;
        self.send(format!("{stdout}{stderr}")).await
    }

    async fn send(&mut self, text: String) -> Option<()> {
        self.handle.data(self.channel, text.into_bytes()).await.ok()
    }
}
