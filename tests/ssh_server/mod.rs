//! An SSH server inside the test: russh's own, over loopback TCP, with behaviours that tests choose.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use russh::keys::key::safe_rng;
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use russh::server::{self, Auth, ChannelOpenHandle, Handle, Msg, Response, Session};
use russh::server::{PublicKeyOffer, VerifiedPublicKey};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Preferred, Sig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What the server does; the default takes nobody.
#[derive(Clone)]
pub struct Behaviour {
    pub host_key: PrivateKey,
    /// The password that is right.
    pub password: Option<&'static str>,
    /// Ask for it by keyboard-interactive only.
    pub keyboard: bool,
    /// How it asks.
    pub question: &'static str,
    /// The keys that are right.
    pub keys: Vec<PublicKey>,
    /// Refuse RSA keys that are offered with SHA-512.
    pub only_sha256: bool,
    /// Want a password after the key.
    pub both: bool,
    /// Never answer a login.
    pub stall_login: bool,
    /// Close the connection at the first login.
    pub drop_login: bool,
    /// Answer no login before there are so many connections.
    pub gather: usize,
    /// Never answer a channel.
    pub stall_channels: bool,
    /// Forward ports of the server to the client.
    pub forwards_ports: bool,
    /// Never answer a forwarding.
    pub stall_forwards: bool,
    /// The most forwardings of one connection.
    pub most_forwards: usize,
    /// Say goodbye after so many refusals.
    pub most_tries: usize,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            host_key: ed25519(),
            password: None,
            keyboard: false,
            question: "Password: ",
            keys: Vec::new(),
            only_sha256: false,
            both: false,
            stall_login: false,
            drop_login: false,
            gather: 0,
            stall_channels: false,
            forwards_ports: false,
            stall_forwards: false,
            most_forwards: usize::MAX,
            most_tries: 6,
        }
    }
}

pub fn ed25519() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

fn sha512() -> Algorithm {
    Algorithm::Rsa {
        hash: Some(russh::keys::HashAlg::Sha512),
    }
}

/// A server that runs until it is dropped with its runtime.
pub struct Server {
    pub address: SocketAddr,
    pub host_key: PublicKey,
    pub seen: Arc<Seen>,
}

/// What the server saw.
#[derive(Default)]
pub struct Seen {
    pub connections: AtomicUsize,
    pub open: AtomicUsize,
    pub offers: AtomicUsize,
    pub passwords: AtomicUsize,
    /// Logins without a proof: a round trip more.
    pub nones: AtomicUsize,
    pub forwards: AtomicUsize,
    pub closed_channels: AtomicUsize,
    /// The port that leads to the client.
    pub forwarded_port: AtomicUsize,
    /// Pieces of one byte that are on their way.
    pub crumbs: AtomicUsize,
    /// Channels that the server opened, and the client took or refused.
    pub accepted: AtomicUsize,
    pub rejected: AtomicUsize,
    /// Cuts all connections.
    pub cut: Notify,
}

impl Server {
    pub async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let host_key = behaviour.host_key.public_key().clone();
        let methods: &[MethodKind] = match (behaviour.keyboard, behaviour.password) {
            (true, _) => &[MethodKind::PublicKey, MethodKind::KeyboardInteractive],
            (false, Some(_)) => &[MethodKind::PublicKey, MethodKind::Password],
            (false, None) => &[MethodKind::PublicKey],
        };
        let mut preferred = Preferred::DEFAULT;
        if behaviour.only_sha256 {
            // What the server then says it knows, too.
            preferred
                .key
                .to_mut()
                .retain(|algorithm| *algorithm != sha512());
        }
        let config = Arc::new(server::Config {
            preferred,
            keys: vec![behaviour.host_key.clone()],
            methods: MethodSet::from(methods),
            auth_rejection_time: std::time::Duration::ZERO,
            inactivity_timeout: None,
            max_auth_attempts: behaviour.most_tries,
            ..Default::default()
        });
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(
                    stream,
                    Arc::clone(&config),
                    behaviour.clone(),
                    Arc::clone(&shared),
                ));
            }
        });
        Self {
            address,
            host_key,
            seen,
        }
    }

    /// Its line for known_hosts.
    pub fn known(&self) -> String {
        self.known_as(&self.host_key)
    }

    /// A line for known_hosts that says it has this key.
    pub fn known_as(&self, key: &PublicKey) -> String {
        format!(
            "[127.0.0.1]:{} {}\n",
            self.address.port(),
            key.to_openssh().unwrap()
        )
    }
}

async fn serve(
    mut stream: TcpStream,
    config: Arc<server::Config>,
    behaviour: Behaviour,
    seen: Arc<Seen>,
) {
    // A pump in between, so that a connection can be cut without a word.
    let (inside, mut outside) = tokio::io::duplex(1 << 16);
    let handler = Login {
        behaviour,
        seen: Arc::clone(&seen),
        echoing: Vec::new(),
        forwards: 0,
    };
    tokio::spawn(async move {
        if let Ok(running) = server::run_stream(config, inside, handler).await {
            let _ = running.await;
        }
    });
    seen.open.fetch_add(1, Ordering::SeqCst);
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut stream, &mut outside) => {}
        () = seen.cut.notified() => {}
    }
    seen.open.fetch_sub(1, Ordering::SeqCst);
}

struct Login {
    behaviour: Behaviour,
    seen: Arc<Seen>,
    /// The channels that give back what they get.
    echoing: Vec<ChannelId>,
    /// How many forwardings this connection has opened.
    forwards: usize,
}

impl Login {
    async fn may_stall(&self) -> Result<(), russh::Error> {
        if self.behaviour.drop_login {
            self.seen.cut.notify_waiters();
            std::future::pending::<()>().await;
        }
        while self.seen.connections.load(Ordering::SeqCst) < self.behaviour.gather {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        if self.behaviour.stall_login {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

fn partly() -> Auth {
    Auth::Reject {
        proceed_with_methods: Some(MethodSet::from(&[MethodKind::Password][..])),
        partial_success: true,
    }
}

impl server::Handler for Login {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, russh::Error> {
        self.seen.nones.fetch_add(1, Ordering::SeqCst);
        Ok(Auth::reject())
    }

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, russh::Error> {
        self.seen.passwords.fetch_add(1, Ordering::SeqCst);
        self.may_stall().await?;
        let right = !self.behaviour.keyboard && self.behaviour.password == Some(password);
        Ok(if right { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        self.may_stall().await?;
        self.seen.offers.fetch_add(1, Ordering::SeqCst);
        assert_ne!(
            *offer.algorithm,
            Algorithm::Rsa { hash: None },
            "SHA-1 was offered"
        );
        let known = self
            .behaviour
            .keys
            .iter()
            .any(|key| key.key_data() == offer.public_key.key_data());
        Ok(
            if known && !(self.behaviour.only_sha256 && *offer.algorithm == sha512()) {
                Auth::Accept
            } else {
                Auth::reject()
            },
        )
    }

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(if self.behaviour.both {
            partly()
        } else {
            Auth::Accept
        })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let Some(mut response) = response else {
            return Ok(Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: vec![(self.behaviour.question.into(), false)].into(),
            });
        };
        self.seen.passwords.fetch_add(1, Ordering::SeqCst);
        let right = response.next().as_deref() == self.behaviour.password.map(str::as_bytes);
        Ok(if right { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.behaviour.stall_channels {
            std::mem::forget(reply);
        } else {
            reply.accept().await;
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.behaviour.stall_forwards {
            std::mem::forget(reply);
            return Ok(());
        }
        if self.forwards == self.behaviour.most_forwards {
            reply
                .reject(russh::ChannelOpenFailure::ResourceShortage)
                .await;
            return Ok(());
        }
        self.forwards += 1;
        let Ok(target) = TcpStream::connect((host, u16::try_from(port).unwrap())).await else {
            reply.reject(russh::ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        self.seen.forwards.fetch_add(1, Ordering::SeqCst);
        reply.accept().await;
        tokio::spawn(pump(channel.into_stream(), target));
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, russh::Error> {
        assert_eq!((address, *port), ("127.0.0.1", 0));
        if self.behaviour.stall_forwards {
            std::future::pending::<()>().await;
        }
        if !self.behaviour.forwards_ports {
            return Ok(false);
        }
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        *port = listener.local_addr().unwrap().port().into();
        let shown = *port;
        (self.seen.forwarded_port).store(shown as usize, Ordering::SeqCst);
        let handle = session.handle();
        tokio::spawn(async move {
            while let Ok((stream, from)) = listener.accept().await {
                let handle = handle.clone();
                tokio::spawn(async move {
                    let (to, from_port) = ("127.0.0.1", from.port().into());
                    let opened = handle
                        .channel_open_forwarded_tcpip(to, shown, to, from_port)
                        .await;
                    if let Ok(channel) = opened {
                        pump(channel.into_stream(), stream).await;
                    }
                });
            }
        });
        Ok(true)
    }

    async fn channel_close(&mut self, _: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.seen.closed_channels.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if !self.echoing.contains(&channel) {
            return Ok(());
        }
        session.data(channel, data.to_vec())?;
        if data.ends_with(b".") {
            session.exit_status_request(channel, 0)?;
            session.eof(channel)?;
            session.close(channel)?;
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let line = String::from_utf8(line.to_vec()).unwrap();
        if line == "refuse" {
            return session.channel_failure(channel);
        }
        session.channel_success(channel)?;
        if line == "echo" {
            self.echoing.push(channel);
        }
        let handle = session.handle();
        let seen = Arc::clone(&self.seen);
        // Not in the handler: a flood would wait for a window that only this task can grow.
        tokio::spawn(async move { run(&line, channel, &handle, &seen).await });
        Ok(())
    }
}

async fn pump(mut channel: impl AsyncRead + AsyncWrite + Unpin, mut target: TcpStream) {
    let _ = tokio::io::copy_bidirectional(&mut channel, &mut target).await;
}

/// Opens a channel of every kind to the client, as a server would that has a forwarding there.
async fn open_all(handle: &Handle, seen: &Seen) -> Option<()> {
    let from = || ("127.0.0.1".to_owned(), 4000);
    let opened = [
        handle.channel_open_agent().await,
        handle.channel_open_session().await,
        handle.channel_open_x11(from().0, from().1).await,
        handle
            .channel_open_direct_tcpip(from().0, 22, from().0, from().1)
            .await,
        handle
            .channel_open_forwarded_tcpip(from().0, 22, from().0, from().1)
            .await,
        handle.channel_open_direct_streamlocal("/socket").await,
        handle.channel_open_forwarded_streamlocal("/socket").await,
    ];
    for answer in opened {
        match answer {
            Ok(_) => seen.accepted.fetch_add(1, Ordering::SeqCst),
            Err(russh::Error::ChannelOpenFailure(_)) => {
                seen.rejected.fetch_add(1, Ordering::SeqCst)
            }
            // The connection is gone.
            Err(_) => return None,
        };
    }
    Some(())
}

/// Opens forwarded channels that nothing connected to: other ports and addresses than the one that was asked for.
async fn open_others(handle: &Handle, seen: &Seen) -> Option<()> {
    let port = seen.forwarded_port.load(Ordering::SeqCst) as u32;
    for (address, port) in [
        ("127.0.0.1", port ^ 1),
        ("0.0.0.0", port),
        ("127.0.0.1", port + 65536),
    ] {
        let from = ("127.0.0.1", 4000);
        match handle
            .channel_open_forwarded_tcpip(address, port, from.0, from.1)
            .await
        {
            Ok(_) => seen.accepted.fetch_add(1, Ordering::SeqCst),
            Err(russh::Error::ChannelOpenFailure(_)) => {
                seen.rejected.fetch_add(1, Ordering::SeqCst)
            }
            Err(_) => return None,
        };
    }
    Some(())
}

/// The commands that the server knows.
async fn run(line: &str, channel: ChannelId, handle: &Handle, seen: &Seen) -> Option<()> {
    let (command, number) = line.split_once(' ').unwrap_or((line, "0"));
    let number: usize = number.parse().unwrap();
    match command {
        // Both outputs and a status.
        "hello" => {
            handle.data(channel, b"hello\n".to_vec()).await.ok()?;
            handle
                .extended_data(channel, 1, b"careful\n".to_vec())
                .await
                .ok()?;
            handle
                .exit_status_request(channel, number as u32)
                .await
                .ok()?;
        }
        "signal" => {
            let words = String::new();
            handle
                .exit_signal_request(channel, Sig::KILL, false, words.clone(), words)
                .await
                .ok()?;
        }
        // Ends without saying how.
        "vanish" => handle.data(channel, b"bye\n".to_vec()).await.ok()?,
        // Mebibytes of output.
        "flood" => {
            for _ in 0..number * 32 {
                handle.data(channel, vec![b'x'; 1 << 15]).await.ok()?;
            }
            handle.exit_status_request(channel, 0).await.ok()?;
        }
        // So many pieces of output of one byte, and then nothing more.
        "crumbs" => {
            for _ in 0..number {
                handle.data(channel, b"x".to_vec()).await.ok()?;
            }
            seen.crumbs.fetch_add(number, Ordering::SeqCst);
            return None;
        }
        // Ends so many times.
        "ends" => {
            for status in 0..number as u32 {
                handle.exit_status_request(channel, status).await.ok()?;
            }
        }
        // Opens channels of every kind, again and again, until the client has enough.
        "open" => {
            for _ in 0..number {
                open_all(handle, seen).await?;
            }
            return None;
        }
        "others" => {
            for _ in 0..number {
                open_others(handle, seen).await?;
            }
            return None;
        }
        // Output, and then the connection is cut.
        "cut" => {
            handle.data(channel, b"half".to_vec()).await.ok()?;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            seen.cut.notify_waiters();
            return None;
        }
        // "echo" ends with its input, "hang" never.
        _ => return None,
    }
    handle.eof(channel).await.ok()?;
    handle.close(channel).await.ok()
}
