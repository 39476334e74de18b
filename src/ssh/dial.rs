//! Dialling a host: its addresses side by side, from where and how often ssh_config says.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use nix::ifaddrs::getifaddrs;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::config::AddressFamily;
use super::link::plain;
use super::proxy_command::ProxyStream;
use super::settings::HostSettings;
use super::stream::RawStream;
use crate::model::{Failure, FailureKind, Stage};

/// The pause between two tries (ConnectionAttempts).
const PAUSE: Duration = Duration::from_secs(1);
/// How long an address may be silent before the next one is dialled beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// The carrier to a host that stands behind no jump host.
///
/// # Errors
/// unreachable, with what each address answered.
pub(super) async fn carrier(
    host: &str,
    port: u16,
    settings: &HostSettings,
) -> Result<RawStream, Failure> {
    if let Some(command) = &settings.proxy_command {
        return ProxyStream::start(command).map(|stream| RawStream::Proxy(Box::new(stream)));
    }
    let mut left = settings.connection_attempts.max(1);
    loop {
        left -= 1;
        match dial(host, port, settings).await {
            Err(_) if left > 0 => sleep(PAUSE).await,
            answer => return answer.map(RawStream::Tcp),
        }
    }
}

fn unreachable(detail: String) -> Failure {
    Failure::new(FailureKind::Unreachable, Stage::Connect, detail)
}

/// Looks the name up and dials its addresses.
async fn dial(host: &str, port: u16, settings: &HostSettings) -> Result<TcpStream, Failure> {
    let wait = settings.connect_timeout;
    let deadline = Instant::now() + wait;
    let mut addresses: Vec<SocketAddr> = match timeout_at(deadline, lookup_host((host, port))).await
    {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(unreachable(format!("cannot look up {host:?}: {error}"))),
        Err(_) => {
            return Err(unreachable(format!(
                "looking up {host:?} took more than {wait:?}"
            )));
        }
    };
    if addresses.is_empty() {
        return Err(unreachable(format!("the name {host:?} has no address")));
    }
    let wanted = settings.address_family;
    addresses.retain(|address| match wanted {
        AddressFamily::Any => true,
        AddressFamily::Inet => address.is_ipv4(),
        AddressFamily::Inet6 => address.is_ipv6(),
    });
    if addresses.is_empty() {
        return Err(unreachable(format!(
            "the name {host:?} has no address of the family that ssh_config asks for (AddressFamily)"
        )));
    }
    let stream = race(&addresses, deadline, settings).await?;
    // Without it every round trip costs 40 ms; but a socket works without it too.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Dials the addresses, each a moment after the one before it or when that one fails; the first to answer counts.
async fn race(
    addresses: &[SocketAddr],
    deadline: Instant,
    settings: &HostSettings,
) -> Result<TcpStream, Failure> {
    let start = Instant::now();
    let mut waiting = alternating(addresses).into_iter();
    let mut dials = FuturesUnordered::new();
    let mut answers = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            dials.push(async move { (address, connect(address, settings).await) });
        } else if dials.is_empty() {
            break;
        }
        let next = match waiting.len() {
            0 => deadline,
            _ => deadline.min(Instant::now() + HEAD_START),
        };
        tokio::select! {
            Some((address, answer)) = dials.next() => match answer {
                Ok(stream) => return Ok(stream),
                Err(words) => answers.push((address, words)),
            },
            () = sleep_until(next) => if Instant::now() >= deadline { break },
        }
    }
    let waited = start.elapsed().as_secs_f64();
    let answers = addresses.iter().map(|address| {
        let answer = answers.iter().find(|(other, _)| other == address);
        match answer {
            Some((_, words)) => format!("{address}: {words}"),
            None => format!("{address}: no answer within {waited:.1} s"),
        }
    });
    Err(unreachable(answers.collect::<Vec<_>>().join("; ")))
}

/// The addresses of both families in turn, in the order of each, beginning with the family of the first.
fn alternating(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let family = |of_first: bool| {
        let is_wanted = move |address: &&SocketAddr| (address.is_ipv4() == first) == of_first;
        addresses.iter().filter(is_wanted).copied()
    };
    let (mut these, mut those) = (family(true), family(false));
    std::iter::from_fn(|| match (these.next(), those.next()) {
        (None, None) => None,
        pair => Some([pair.0, pair.1]),
    })
    .flatten()
    .flatten()
    .collect()
}

async fn connect(address: SocketAddr, settings: &HostSettings) -> Result<TcpStream, String> {
    let plain = |error: std::io::Error| plain(&error);
    let Some(from) = source(address, settings).await? else {
        return TcpStream::connect(address).await.map_err(plain);
    };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(plain)?;
    socket
        .bind(SocketAddr::new(from, 0))
        .map_err(|error| format!("cannot dial from {from}: {error}"))?;
    socket.connect(address).await.map_err(plain)
}

/// The local address to dial from, where BindAddress or BindInterface asks for one.
async fn source(to: SocketAddr, settings: &HostSettings) -> Result<Option<IpAddr>, String> {
    if let Some(name) = &settings.bind_address {
        let found = lookup_host((name.as_str(), 0)).await;
        let mut found =
            found.map_err(|error| format!("cannot look up BindAddress {name:?}: {error}"))?;
        let fits = found.find(|address| address.is_ipv4() == to.is_ipv4());
        return match fits {
            Some(address) => Ok(Some(address.ip())),
            None => Err(format!(
                "BindAddress {name:?} has no address of this family"
            )),
        };
    }
    let Some(interface) = &settings.bind_interface else {
        return Ok(None);
    };
    let all = getifaddrs().map_err(|error| format!("cannot list the interfaces: {error}"))?;
    let of_interface = all
        .filter(|entry| entry.interface_name == *interface)
        .filter_map(|entry| entry.address)
        .filter_map(|address| {
            let v4 = address
                .as_sockaddr_in()
                .map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| {
                address
                    .as_sockaddr_in6()
                    .map(|address| IpAddr::V6(address.ip()))
            })
        });
    let mut fits = of_interface.filter(|address| address.is_ipv4() == to.is_ipv4());
    match fits.next() {
        Some(address) => Ok(Some(address)),
        None => Err(format!(
            "the interface {interface:?} (BindInterface) has no address of this family"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::net::TcpListener;

    use super::*;

    /// An address that takes no connection and refuses none: its queue is full. With what holds it up.
    async fn black_hole() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        loop {
            let connecting = TcpStream::connect(address);
            match tokio::time::timeout(Duration::from_millis(300), connecting).await {
                Ok(stream) => queue.push(stream.unwrap()),
                Err(_) => return (address, listener, queue),
            }
        }
    }

    fn settings() -> HostSettings {
        HostSettings::for_home(Path::new("/nowhere"))
    }

    #[tokio::test]
    async fn a_silent_address_gives_the_next_a_head_start_of_a_moment() {
        let (hole, _listener, _queue) = black_hole().await;
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = good.local_addr().unwrap();
        let (settings, start) = (settings(), Instant::now());
        let deadline = start + Duration::from_secs(60);
        let stream = race(&[hole, good], deadline, &settings).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(start.elapsed() >= HEAD_START);
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the hole ate the time"
        );
    }

    #[tokio::test]
    async fn a_refusal_gives_way_at_once_and_all_answers_are_told() {
        let (hole, _listener, _queue) = black_hole().await;
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = closed.local_addr().unwrap();
        drop(closed);
        let (settings, start) = (settings(), Instant::now());
        let deadline = start + Duration::from_millis(600);
        let failure = race(&[address, hole], deadline, &settings)
            .await
            .unwrap_err();
        assert!(start.elapsed() >= Duration::from_millis(600));
        assert!(
            failure.detail.starts_with(&format!(
                "{address}: connection refused; {hole}: no answer within 0."
            )),
            "{failure}"
        );
    }

    #[tokio::test]
    async fn a_host_is_dialled_as_often_as_ssh_config_says() {
        for (attempts, is_reached) in [(1, false), (3, true)] {
            let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = closed.local_addr().unwrap();
            drop(closed);
            let settings = HostSettings {
                connection_attempts: attempts,
                ..settings()
            };
            let opening = async {
                sleep(Duration::from_millis(300)).await;
                TcpListener::bind(address).await.unwrap()
            };
            let dialling = carrier("127.0.0.1", address.port(), &settings);
            let (carrier, _listener) = tokio::join!(dialling, opening);
            assert_eq!(carrier.is_ok(), is_reached, "{attempts}");
        }
    }

    #[test]
    fn families_take_turns() {
        let of = |text: &[&str]| -> Vec<SocketAddr> {
            text.iter()
                .map(|one| format!("{one}:22").parse().unwrap())
                .collect()
        };
        let given = of(&["[::1]", "[::2]", "[::3]", "1.1.1.1"]);
        let turns = of(&["[::1]", "1.1.1.1", "[::2]", "[::3]"]);
        assert_eq!(alternating(&given), turns);
        assert_eq!(alternating(&[]), []);
    }
}
