//! Open files: as many as the system lets us have, and no more nodes at one time than they suffice for.

use anyhow::{Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::model::{Plan, Work};
use crate::ssh::{CONNECTING, HostSettings};

/// What is open whatever the fleet: standard streams, the journal, the timers of the runtime, agents, jump hosts.
const BASE: u64 = 128;
/// A node is a socket.
const SOCKET: u64 = 1;
/// Or two pipes and the handle of a process.
const PROXY_COMMAND: u64 = 3;

/// Raises the limit of open files to what the system allows. Where even that is too little, lowers how many nodes are at
/// work, or connections open, at one time, and says so.
///
/// # Errors
/// With `--fan-out`, which keeps all connections, there are too few for the fleet.
pub(super) fn clamp_parallelism(plan: &mut Plan, hosts: &[HostSettings]) -> Result<Option<String>> {
    let limit = raise().unwrap_or(u64::MAX);
    let each = match hosts.iter().any(|host| host.proxy_command.is_some()) {
        true => PROXY_COMMAND,
        false => SOCKET,
    };
    let nodes = plan.fleet.nodes().len();
    let is_pull = matches!(plan.work, Work::Pull(_));
    let asked = match plan.policy.fan_out {
        Some(_) => nodes,
        None if is_pull => plan.policy.parallel.min(plan.policy.connections).min(nodes),
        None => plan.policy.parallel.min(nodes),
    };
    let most = most(limit, each);
    if asked <= most {
        return Ok(None);
    }
    let needed = needed(asked as u64, each);
    if plan.policy.fan_out.is_some() {
        bail!(
            "--fan-out keeps a connection to each of {nodes} nodes, which needs about {needed} open files, and this process \
             may have {limit}: raise the hard limit (`ulimit -Hn`), or take at most {most} nodes (`--limit`)"
        );
    }
    if is_pull {
        plan.policy.connections = most;
        return Ok(Some(format!(
            "{asked} connections at one time need about {needed} open files, and this process may have {limit}: only {most} are \
             open at one time; a higher hard limit (`ulimit -Hn`) lifts that"
        )));
    }
    plan.policy.parallel = most;
    Ok(Some(format!(
        "{asked} nodes at one time need about {needed} open files, and this process may have {limit}: only {most} are at work at \
         one time; a higher hard limit (`ulimit -Hn`) lifts that"
    )))
}

/// The limit from now on; `None` when the system does not say.
fn raise() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Some(hard),
        Err(_) => Some(soft),
    }
}

/// A node that is being connected to may try two addresses at one time, or ask a name server.
fn needed(nodes: u64, each: u64) -> u64 {
    BASE + nodes * each + nodes.min(CONNECTING as u64)
}

/// How many nodes these files suffice for, at least one.
fn most(files: u64, each: u64) -> usize {
    let free = files.saturating_sub(BASE);
    let (connecting, each) = (CONNECTING as u64, each.max(1));
    let few = free / (each + 1);
    let nodes = if few <= connecting {
        few
    } else {
        (free - connecting) / each
    };
    usize::try_from(nodes).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_nodes_as_the_files_suffice_for() {
        assert_eq!(most(20_000, SOCKET), 20_000 - 128 - CONNECTING);
        for each in [SOCKET, PROXY_COMMAND] {
            for files in [200, 256, 1024, 4096, 20_000, 1 << 20] {
                let most = most(files, each) as u64;
                assert!(needed(most, each) <= files, "{files}: {most}");
                assert!(needed(most + 1, each) > files, "{files}: {most}");
            }
            assert_eq!(most(3, each), 1);
        }
    }
}
