//! Dialling a host: its addresses in turn, from where and how often ssh_config says.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::config::AddressFamily;
use super::link::{Carrier, plain};
use super::proxy_command::ProxyStream;
use super::settings::HostSettings;
use crate::model::{Failure, FailureKind, Stage};

/// The pause between two tries (ConnectionAttempts).
const PAUSE: Duration = Duration::from_secs(1);

/// The carrier to a host that stands behind no jump host.
///
/// # Errors
/// unreachable, with what each address answered.
pub(super) async fn carrier(
    host: &str,
    port: u16,
    settings: &HostSettings,
) -> Result<Carrier, Failure> {
    if let Some(command) = &settings.proxy_command {
        return ProxyStream::start(command).map(|stream| Carrier::Proxy(Box::new(stream)));
    }
    let mut left = settings.connection_attempts.max(1);
    loop {
        left -= 1;
        match dial(host, port, settings).await {
            Err(_) if left > 0 => sleep(PAUSE).await,
            answer => return answer.map(Carrier::Tcp),
        }
    }
}

fn unreachable(detail: String) -> Failure {
    Failure::new(FailureKind::Unreachable, Stage::Connect, detail)
}

/// Looks the name up and dials its addresses in turn.
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
    let mut answers = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        // A silent address may only use its share, so that the ones after it get theirs.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - number).unwrap_or(u32::MAX);
        match timeout(share, connect(*address, settings)).await {
            Ok(Ok(stream)) => {
                // Without it every round trip costs 40 ms; but a socket works without it too.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(words)) => answers.push(format!("{address}: {words}")),
            Err(_) => answers.push(format!(
                "{address}: no answer within {:.1} s",
                share.as_secs_f64()
            )),
        }
    }
    Err(unreachable(answers.join("; ")))
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
