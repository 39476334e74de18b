//! Pulls one image onto the nodes that are named as USER@HOST[:PORT], and says what became of each. Host keys that are not
//! known yet are recorded in a file: `cargo run --example pull -- known_hosts IMAGE ops@node-1 ops@node-2:2222`.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a program for people

use std::process::ExitCode;

use prepull::Pull;
use prepull::model::{EventKind, Node, Outcome, Policy};
use prepull::ssh::{HostKeyPolicy, HostSettings, SshOptions};

/// `USER@HOST[:PORT]`.
fn node(text: &str) -> Option<Node> {
    let (user, host) = text.split_once('@')?;
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (host, 22),
    };
    Some(Node {
        name: text.into(),
        user: user.into(),
        port,
        ..Node::named(host)
    })
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (known_hosts, image) = (arguments.next(), arguments.next());
    let nodes: Option<Vec<Node>> = arguments.map(|argument| node(&argument)).collect();
    let (Some(known_hosts), Some(image), Some(nodes), Some(home)) =
        (known_hosts, image, nodes, std::env::home_dir())
    else {
        eprintln!("usage: pull KNOWN_HOSTS IMAGE USER@HOST[:PORT]...");
        return ExitCode::from(2);
    };
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    let ssh = SshOptions {
        hosts: vec![HostSettings {
            host_keys: HostKeyPolicy::AcceptNew,
            known_hosts: vec![known_hosts.into()],
            ..HostSettings::for_home(&home)
        }],
        ..SshOptions::default()
    };
    let policy = Policy {
        retries: 1,
        ..Policy::default()
    };
    let pull = match Pull::new(nodes, [&image]) {
        Ok(pull) => pull.ssh(ssh).policy(policy),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    let on_event = |event: &prepull::model::Event| {
        if let EventKind::AttemptFailed { node, failure, .. } = &event.fact {
            eprintln!("{}: {failure}", names[*node]);
        }
    };
    let finish = match pull.run(ctrl_c, on_event).await {
        Ok(finish) => finish,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let mut all_well = true;
    for (name, node) in names.iter().zip(&finish.nodes) {
        match &node.items[0].outcome {
            Outcome::Pulled(image) | Outcome::Present(image) => {
                println!("{name}: {}", image.digest.as_deref().unwrap_or("present"));
            }
            other => {
                all_well = false;
                println!("{name}: {other:?}");
            }
        }
    }
    if all_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
