//! Kubeconfigs as kubectl finds, merges and checks them: the cluster and the user of one context.
//!
//! Nothing that stands in one is quoted in an error but names: it may hold tokens and keys.

use std::path::{Path, PathBuf};

use super::super::error::{InputError, InventoryError};
use super::super::yaml::Value;
use super::KubernetesQuery;
use super::access::Access;
use super::cluster::read_cluster;
use super::fields::{Fields, File, HOW_TO_CHOOSE};
use super::user::{User, read_user};

/// How many contexts an error names.
const SHOWN_CONTEXTS: usize = 10;

/// Reads what the query names.
///
/// `None` where there is no kubeconfig at all, and none was asked for.
pub(super) fn read(query: &KubernetesQuery) -> Result<Option<Access>, InventoryError> {
    let found = files(query)?;
    let is_empty = |file: &File| file.named("contexts").is_ok_and(|list| list.is_empty());
    if found.files.iter().all(is_empty) {
        let is_asked_for = query.kubeconfig.is_some() || query.context.is_some();
        if !is_asked_for && super::in_cluster::is_possible() {
            return Ok(None);
        }
        let looked = found.looked_at.join(", ");
        let what = if found.files.is_empty() {
            format!("no usable kubeconfig: there is no {looked}")
        } else {
            format!("no usable kubeconfig: there is no context in {looked}")
        };
        return Err(InventoryError::of_file(
            "Kubernetes",
            InputError::new(what).with_hint(HOW_TO_CHOOSE),
        ));
    }
    choose(&found.files, query.context.as_deref()).map(Some)
}

struct Found {
    files: Vec<File>,
    /// All that were looked for, those that do not exist included.
    looked_at: Vec<String>,
}

/// The files that kubectl would read: those of `$KUBECONFIG` need not exist.
fn files(query: &KubernetesQuery) -> Result<Found, InventoryError> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let listed = std::env::var_os("KUBECONFIG").filter(|listed| !listed.is_empty());
    match (&query.kubeconfig, listed) {
        (Some(path), _) => paths.push(path.clone()),
        (None, Some(listed)) => {
            for path in std::env::split_paths(&listed) {
                if !path.as_os_str().is_empty() && !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
        (None, None) => {
            let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
            paths.extend(home.map(|home| Path::new(&home).join(".kube/config")));
        }
    }
    let mut looked_at: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    if looked_at.is_empty() {
        looked_at.push("file in $KUBECONFIG".into());
    }
    if query.kubeconfig.is_none() {
        paths.retain(|path| path.try_exists().unwrap_or(true));
    }
    let files = paths.iter().map(|path| File::read(path));
    let files = files.collect::<Result<_, _>>()?;
    Ok(Found { files, looked_at })
}

/// The first entry of this name: as for kubectl, the first file that has one decides all of it.
fn find<'a>(
    files: &'a [File],
    list: &str,
    name: &str,
) -> Result<Option<Fields<'a>>, InventoryError> {
    for file in files {
        let named = file.named(list)?;
        if let Some((_, fields)) = named.into_iter().find(|(known, _)| *known == name) {
            return Ok(Some(fields));
        }
    }
    Ok(None)
}

fn choose(files: &[File], wanted: Option<&str>) -> Result<Access, InventoryError> {
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let names = names.join(", ");
    let missing = |what: String, suggestion: String| {
        InventoryError::of_file(&names, InputError::new(what).with_hint(suggestion))
    };
    let mut current = None;
    for file in files {
        if current.is_none() && !matches!(file.tree.value, Value::Null) {
            current = file.fields(&file.tree)?.text("current-context")?;
        }
    }
    let choose_one = || {
        let mut known: Vec<&str> = files
            .iter()
            .filter_map(|file| file.named("contexts").ok())
            .flatten()
            .map(|(name, _)| name)
            .collect();
        let more = if known.len() > SHOWN_CONTEXTS {
            ", ..."
        } else {
            ""
        };
        known.truncate(SHOWN_CONTEXTS);
        format!("choose one with --context: {}{more}", known.join(", "))
    };
    let Some(context_name) = wanted.filter(|name| !name.is_empty()).or(current) else {
        return Err(missing("no current-context is set".into(), choose_one()));
    };
    let Some(context) = find(files, "contexts", context_name)? else {
        return Err(missing(
            format!("there is no context \"{context_name}\""),
            choose_one(),
        ));
    };
    let Some(context) = context.map("context")? else {
        return Err(context.wrong(
            format!("the context \"{context_name}\" is empty"),
            choose_one(),
        ));
    };
    let Some(cluster_name) = context.text("cluster")? else {
        let what = format!("the context \"{context_name}\" names no cluster");
        return Err(context.wrong(what, choose_one()));
    };
    let cluster = find(files, "clusters", cluster_name)?;
    let Some(cluster) = cluster
        .map(|entry| entry.map("cluster"))
        .transpose()?
        .flatten()
    else {
        let what = format!(
            "the cluster \"{cluster_name}\" of the context \"{context_name}\" is not there"
        );
        return Err(context.wrong(what, choose_one()));
    };
    let cluster = read_cluster(cluster_name, cluster)?;
    let user = match context.text("user")? {
        None => User::default(),
        Some(name) => match find(files, "users", name)? {
            Some(entry) => match entry.map("user")? {
                Some(user) => read_user(name, user, &cluster)?,
                None => User::default(),
            },
            None => {
                let what =
                    format!("the user \"{name}\" of the context \"{context_name}\" is not there");
                return Err(context.wrong(what, choose_one()));
            }
        },
    };
    Ok(Access {
        cluster,
        user,
        namespace: context.text("namespace")?.map(str::to_string),
    })
}
