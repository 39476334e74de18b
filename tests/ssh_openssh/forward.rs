//! Ports of a node that lead to prepull, through OpenSSH's own sshd.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// A session to an sshd with this configuration, and what it says to a request for a port.
async fn asked(sshd: &Sshd) -> (impl Session, Result<ForwardedPort, Failure>) {
    let key = sshd.user_key("ed25519");
    let node = sshd.node(&[&key]);
    let transport = SshTransport::new(
        sshd.options(&sshd.known("ed25519")),
        std::slice::from_ref(&node),
    )
    .unwrap();
    let mut session = transport.connect(&node, &|_| {}).await.unwrap();
    let answer = session.forward_port().await;
    (session, answer)
}

/// Whether a program can connect to the port, on this address.
fn is_reached(address: &str, port: u16) -> bool {
    std::net::TcpStream::connect((address, port)).is_ok()
}

#[tokio::test]
async fn a_port_of_the_nodes_own_address_leads_here_and_goes_with_the_connection() {
    // Even where clients may choose the address.
    let sshd = Sshd::start("GatewayPorts clientspecified");
    let (session, answer) = asked(&sshd).await;
    let mut port = answer.unwrap();
    let mut inside = tokio::net::TcpStream::connect(("127.0.0.1", port.port))
        .await
        .unwrap();
    inside.write_all(b"ping").await.unwrap();
    let mut outside = port.connections.recv().await.unwrap();
    let mut word = [0; 4];
    outside.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"ping");
    outside.write_all(b"pong").await.unwrap();
    outside.shutdown().await.unwrap();
    let mut answer = Vec::new();
    inside.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"pong");
    assert!(
        !is_reached("127.0.0.2", port.port),
        "it listens on more than 127.0.0.1"
    );

    session.close().await;
    let start = Instant::now();
    while is_reached("127.0.0.1", port.port) {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "the port was left open"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_sshd_that_may_not_forward_says_so_and_runs_commands_all_the_same() {
    for setting in [
        "AllowTcpForwarding no",
        "AllowTcpForwarding local",
        "DisableForwarding yes",
        "PermitListen none",
    ] {
        let sshd = Sshd::start(setting);
        let (mut session, answer) = asked(&sshd).await;
        let refused = answer.err().unwrap();
        assert_eq!(
            (refused.kind, refused.stage),
            (FailureKind::NodeSetup, Stage::Start),
            "{setting}: {refused}"
        );
        let mut channel = session.exec("echo here").await.unwrap();
        assert!(channel.next().await.unwrap().is_some(), "{setting}");
    }
}
