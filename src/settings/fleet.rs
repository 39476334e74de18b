//! The fleet that the operator asked for: where nodes come from, which of them, and what the command line says of all.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::Environment;
use crate::cli::{FleetArgs, LoginArgs, RuntimeArgs};
use crate::inventory::{self, KubernetesQuery, NodeSettings, Selection, Source, SshConfigSource};
use crate::model::Fleet;
use crate::model::text::escape_line;

/// Loads it.
pub(super) fn fleet(
    args: &FleetArgs,
    login: &LoginArgs,
    runtime: Option<&RuntimeArgs>,
    ambient: &Environment,
    background: SshConfigSource<'_>,
) -> Result<Fleet> {
    what_ansible_takes(args, ambient)?;
    let from_files = args.inventory.iter().map(|path| {
        if path.as_os_str() == "-" {
            Source::Stdin
        } else {
            Source::File(ambient.path(path))
        }
    });
    let from_expressions = args.hosts.iter().cloned().map(Source::Hosts);
    let from_kubernetes = args
        .kube
        .then(|| Source::Kubernetes(kubernetes(args, ambient)));
    let sources: Vec<Source> = from_files
        .chain(from_expressions)
        .chain(from_kubernetes)
        .collect();
    if sources.is_empty() {
        bail!(
            "no nodes: name an inventory with -i FILE, hosts with -H EXPR, or a cluster with --kube"
        );
    }
    let strongest = command_line_node(login, runtime, ambient)?;
    let selection = Selection {
        limit: args.limit.clone(),
        exclude: args.exclude.clone(),
    };
    Ok(inventory::load_selected(
        &sources, &selection, &strongest, background,
    )?)
}

/// Options that mean something else to Ansible, which many come from.
fn what_ansible_takes(args: &FleetArgs, ambient: &Environment) -> Result<()> {
    if let Some(labels) = args.selector.as_deref().filter(|_| !args.kube) {
        let labels = escape_line(labels);
        bail!(
            "-l {labels}: -l (--selector) chooses nodes of a Kubernetes cluster by their labels, with --kube; for nodes and groups of an inventory write --limit '{labels}'"
        );
    }
    let is_list = |path: &&PathBuf| {
        path.as_os_str().as_encoded_bytes().contains(&b',') && !ambient.path(path).exists()
    };
    if let Some(path) = args.inventory.iter().find(is_list) {
        let path = path.to_string_lossy();
        let (given, names) = (escape_line(&path), escape_line(path.trim_end_matches(',')));
        bail!(
            "-i {given}: there is no such file; nodes by their names are given with -H '{names}'"
        );
    }
    Ok(())
}

/// What the Kubernetes API is asked.
pub(super) fn kubernetes(args: &FleetArgs, ambient: &Environment) -> KubernetesQuery {
    KubernetesQuery {
        kubeconfig: args.kubeconfig.as_deref().map(|path| ambient.path(path)),
        context: args.context.clone(),
        selector: args.selector.clone(),
        field_selector: args.field_selector.clone(),
        include_control_plane: args.include_control_plane,
        address_type: args.address_type,
        ready_only: args.ready_only,
        schedulable_only: args.schedulable_only,
    }
}

fn command_line_node(
    login: &LoginArgs,
    runtime: Option<&RuntimeArgs>,
    ambient: &Environment,
) -> Result<NodeSettings> {
    let jump = login.jump.as_deref().map(inventory::parse_jump).transpose();
    let jump = jump.map_err(anyhow::Error::msg).context("--jump")?;
    if let Some(user) = &login.user {
        inventory::check_user(user)
            .map_err(anyhow::Error::msg)
            .context("--user")?;
    }
    let endpoint = runtime.and_then(|args| args.runtime_endpoint.as_deref());
    let endpoint = endpoint
        .map(inventory::parse_endpoint)
        .transpose()
        .map_err(anyhow::Error::msg)
        .context("--runtime-endpoint")?;
    Ok(NodeSettings {
        user: login.user.clone(),
        port: login.port,
        identities: (!login.identity.is_empty()).then(|| ambient.paths(&login.identity)),
        jump,
        runtime: runtime.and_then(|args| args.runtime),
        endpoint,
        become_root: (login.r#become
            || login.ask_become_pass
            || login.become_password_file.is_some())
        .then_some(true),
        ..NodeSettings::default()
    })
}

/// crictl has no option for it, so a fleet that is known to use crictl cannot be asked.
pub(super) fn platform_fits(fleet: &Fleet) -> Result<()> {
    for node in fleet.nodes() {
        if let Some(kind) = node.runtime.filter(|kind| !kind.takes_platform()) {
            bail!(
                "--platform: {} uses {kind}, which always takes the node's own platform; leave the option out or use --exclude",
                node.name
            );
        }
    }
    Ok(())
}
