//! Every source as drafts: files, folders of them, standard input, expressions.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use super::ansible::{self, Config, World};
use super::clustershell::Groups;
use super::draft::Draft;
use super::error::{InputError, InventoryError};
use super::native::{self, Origin};
use super::recognise::{self, Format};
use super::yaml::Value;
use super::{Source, kubernetes, lines, program, read};

/// What errors call standard input.
pub(super) const STDIN: &str = "standard input";
/// Names that Ansible leaves out of a folder of inventories, those of folders that kubespray makes there, and programs'
/// own files: Ansible reads no host from them and goes on.
const LEFT_OUT: &[&str] = &[
    "host_vars",
    "group_vars",
    "vars_plugins",
    "artifacts",
    "credentials",
    "Vagrantfile",
    "Makefile",
    "Dockerfile",
];
/// Endings of keys and passwords, which no inventory has: Ansible itself would take what is in them for hosts.
const SECRETS: &[&str] = &[".creds", ".gpg", ".pem", ".key", ".crt", ".pub"];
/// Folders within folders; a link to a folder above must end.
const DEPTH_LIMIT: usize = 8;

struct Text {
    origin: Origin,
    text: String,
    format: Format,
    /// It was not named, but found in a folder.
    is_found: bool,
}

enum Item {
    Text(Box<Text>),
    Program(PathBuf),
    Drafts(Vec<Draft>),
    Kubernetes(Box<Draft>),
}

/// Reads all sources. Those in Ansible's formats become one draft, where the first of them stands.
pub(super) fn drafts(
    sources: &[Source],
    home: Option<PathBuf>,
) -> Result<Vec<Draft>, InventoryError> {
    let mut items = Vec::new();
    let mut folders = Vec::new();
    let is_file = |source: &Source| matches!(source, Source::File(_) | Source::Stdin);
    let config = if sources.iter().any(is_file) {
        Config::find(home.as_deref())?
    } else {
        Config::default()
    };
    let mut warnings = Vec::new();
    let groups = OnceCell::new();
    for source in sources {
        match source {
            Source::File(path) if path.is_dir() => {
                folders.push(path.clone());
                let before = items.len();
                let mut walk = Walk {
                    home: home.as_deref(),
                    config: &config,
                    warnings: &mut warnings,
                    items: &mut items,
                };
                walk.folder(path, 0)?;
                if items.len() == before {
                    let fault = InputError::new("no inventory in this folder").with_hint(
                        "hidden files, backups, *.txt, *.md, *.cfg and *.retry are left out, as by Ansible; or what ansible.cfg lists",
                    );
                    return Err(InventoryError::of_file(path.display().to_string(), fault));
                }
            }
            Source::File(path) => {
                folders.push(path.parent().unwrap_or(Path::new("")).to_path_buf());
                let item = file(path, home.as_deref())?;
                if is_kubernetes(&item) {
                    let fault = InputError::new("this is an object of Kubernetes, not an inventory")
                        .with_hint("a kubeconfig is named with --kube --kubeconfig, manifests with --manifests");
                    return Err(InventoryError::of_file(path.display().to_string(), fault));
                }
                items.push(item);
            }
            Source::Stdin => {
                let origin = Origin {
                    name: STDIN.into(),
                    folder: PathBuf::new(),
                    home: home.clone(),
                };
                items.push(text(read::stdin(STDIN)?, origin)?);
            }
            Source::Kubernetes(query) => {
                items.push(Item::Kubernetes(Box::new(kubernetes::draft(query)?)));
            }
            Source::Hosts(text) => {
                let listed = |path: &str| lines::read_file(&read::file(Path::new(path))?, path);
                let grouped = |text: &str, room| {
                    let found = groups.get_or_init(Groups::find);
                    let found = found
                        .as_ref()
                        .map_err(|error: &InventoryError| InputError::new(error.to_string()));
                    found?.hosts(text, room)
                };
                items.push(Item::Drafts(lines::read_option(text, listed, grouped)?));
            }
        }
    }
    let mut drafts = assemble(items, folders, home, &config)?;
    if let Some(first) = drafts.first_mut() {
        first.warnings.extend(warnings);
    }
    Ok(drafts)
}

/// The drafts of one text, as if it stood alone in the world.
pub(super) fn parse(said: &str, name: &str) -> Result<Vec<Draft>, InventoryError> {
    let origin = Origin {
        name: name.into(),
        folder: PathBuf::new(),
        home: None,
    };
    let item = text(said.to_string(), origin)?;
    assemble(vec![item], Vec::new(), None, &Config::default())
}

fn assemble(
    items: Vec<Item>,
    folders: Vec<PathBuf>,
    home: Option<PathBuf>,
    config: &Config,
) -> Result<Vec<Draft>, InventoryError> {
    let is_ansible = |item: &Item| match item {
        Item::Text(text) => matches!(
            text.format,
            Format::Ini | Format::AnsibleYaml(_) | Format::Listing(_)
        ),
        Item::Program(_) => true,
        Item::Drafts(_) | Item::Kubernetes(_) => false,
    };
    let ansible =
        items.iter().any(is_ansible) || folders.iter().any(|path| ansible::vars_exist_beside(path));
    let mut world = World::new(home);
    folders
        .into_iter()
        .for_each(|folder| world.add_folder(folder));
    let mut drafts = Vec::new();
    let mut world_at = None;
    let mut clusters = Vec::new();
    for item in items {
        let Text {
            origin,
            text,
            format,
            is_found,
        } = match item {
            Item::Text(text) => *text,
            Item::Program(path) => {
                world_at.get_or_insert(drafts.len());
                program::read(&path, &mut world)?;
                continue;
            }
            Item::Drafts(more) => {
                drafts.extend(more);
                continue;
            }
            Item::Kubernetes(draft) => {
                clusters.push(*draft);
                continue;
            }
        };
        let name = &origin.name;
        let read = match format {
            Format::Native(tree) => native::read(&tree, &origin).map(|draft| drafts.push(draft)),
            Format::Lines => lines::read_file(&text, name).map(|draft| drafts.push(draft)),
            Format::Names if !ansible => {
                lines::read_file(&text, name).map(|draft| drafts.push(draft))
            }
            Format::Kubernetes => Ok(()),
            other => {
                world_at.get_or_insert(drafts.len());
                match other {
                    Format::AnsibleYaml(tree) => ansible::read_yaml(&tree, name, &mut world),
                    Format::Listing(tree) => {
                        ansible::read_listing(&tree, name, &mut world).map(|_| ())
                    }
                    _ => ansible::read_ini(&text, name, &mut world),
                }
            }
        };
        read.map_err(|error| {
            if is_found {
                found_in_folder(error)
            } else {
                error
            }
        })?;
    }
    if let Some(at) = world_at {
        drafts.insert(at, world.into_draft(config)?);
    }
    // The API says what nodes there are; how to log in to them is for the files beside it to say.
    for mut cluster in clusters {
        for draft in drafts.iter().filter(|draft| !draft.expressions) {
            cluster.defaults.fall_back_on(&draft.defaults);
        }
        drafts.push(cluster);
    }
    Ok(drafts)
}

fn text(text: String, origin: Origin) -> Result<Item, InventoryError> {
    let format = recognise::recognise(&text, &origin.name)?;
    Ok(Item::Text(Box::new(Text {
        origin,
        text,
        format,
        is_found: false,
    })))
}

fn is_kubernetes(item: &Item) -> bool {
    matches!(item, Item::Text(text) if matches!(text.format, Format::Kubernetes))
}

/// Whether this is an empty file, or one of comments: in a folder it is a placeholder.
fn says_nothing(item: &Item) -> bool {
    matches!(item, Item::Text(text)
        if matches!(&text.format, Format::Native(tree) if tree.value == Value::Null))
}

/// A folder of inventories may hold other files too.
fn found_in_folder(error: InventoryError) -> InventoryError {
    let more = "or name the inventory file itself instead of its folder";
    let suggestion = match &error.suggestion {
        Some(known) => format!("{known}; {more}"),
        None => more.to_string(),
    };
    InventoryError {
        suggestion: Some(suggestion),
        ..error
    }
}

fn file(path: &Path, home: Option<&Path>) -> Result<Item, InventoryError> {
    let origin = Origin {
        name: path.display().to_string(),
        folder: path.parent().unwrap_or(Path::new("")).to_path_buf(),
        home: home.map(Path::to_path_buf),
    };
    if program::is_program(path)? {
        return Ok(Item::Program(path.to_path_buf()));
    }
    let said = read::file(path)?;
    text(said, origin)
}

/// A walk through a folder of inventories.
struct Walk<'a> {
    home: Option<&'a Path>,
    config: &'a Config,
    warnings: &'a mut Vec<String>,
    items: &'a mut Vec<Item>,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, depth: usize) -> Result<(), InventoryError> {
        if depth == DEPTH_LIMIT {
            let fault = InputError::new("folders are too deep here").with_hint("is a link a ring?");
            return Err(InventoryError::of_file(path.display().to_string(), fault));
        }
        for name in read::folder(path)? {
            let inner = path.join(&name);
            let name = name.to_string_lossy();
            let left_out = name.starts_with('.')
                || LEFT_OUT.contains(&&*name)
                || SECRETS.iter().any(|ending| name.ends_with(ending))
                || self.config.leaves_out(&name);
            if left_out {
                continue;
            }
            if inner.is_dir() {
                self.folder(&inner, depth + 1)?;
                continue;
            }
            let mut item = file(&inner, self.home).map_err(found_in_folder)?;
            if let Item::Text(text) = &mut item {
                text.is_found = true;
            }
            if says_nothing(&item) {
                continue;
            }
            if is_kubernetes(&item) {
                self.warnings.push(format!(
                    "{} is left out: it is an object of Kubernetes, not an inventory",
                    inner.display()
                ));
            } else {
                self.items.push(item);
            }
        }
        Ok(())
    }
}

/// Whether reading this path would run a program, or wait for a pipe.
pub(super) fn holds_programs(path: &Path, depth: usize) -> bool {
    if path.is_dir() {
        let inner = read::folder(path).unwrap_or_default();
        return depth == DEPTH_LIMIT
            || inner
                .iter()
                .any(|name| holds_programs(&path.join(name), depth + 1));
    }
    !path.is_file() || program::is_program(path).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::super::{NodeSettings, load};
    use super::*;
    use crate::inventory::built_in;
    use crate::model::Node;

    fn nodes(files: &[(&str, &str)], sources: &[&str]) -> Result<Vec<Node>, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let sources: Vec<_> = sources
            .iter()
            .map(|name| Source::File(folder.path().join(name)))
            .collect();
        load(&sources, &NodeSettings::default(), &built_in("me"))
            .map(|fleet| fleet.nodes().to_vec())
            .map_err(|error| {
                let folder = format!("{}/", folder.path().display());
                error.to_string().replace(&folder, "")
            })
    }

    fn users(files: &[(&str, &str)], sources: &[&str]) -> Vec<String> {
        let nodes = nodes(files, sources).unwrap();
        let shown = nodes
            .iter()
            .map(|node| format!("{}@{}:{}", node.user, node.name, node.port));
        shown.collect()
    }

    #[test]
    fn an_ini_inventory_has_groups_ranges_and_variables() {
        let text = "edge ansible_host=10.0.0.9 ansible_port='2222'\n[web]\nw[01:03:2].x\n\
            [site:children]\nweb\n[site:vars]\nansible_user=ops\nansible_become=yes\nother={{ x }}\n\
            ansible_ssh_common_args='-o ProxyJump=gate:2022'\nprepull_runtime=crictl\n";
        let nodes = nodes(&[("hosts", text)], &["hosts"]).unwrap();
        assert_eq!(
            (
                nodes[0].name.as_str(),
                nodes[0].address.as_str(),
                nodes[0].port
            ),
            ("edge", "10.0.0.9", 2222)
        );
        assert_eq!(
            (nodes[2].name.as_str(), nodes[2].user.as_str()),
            ("w03.x", "ops")
        );
        assert_eq!(nodes[2].groups, ["web", "site"]);
        assert_eq!(nodes[2].jump[0].to_string(), "ops@gate:2022");
        assert!(nodes[2].become_root && nodes[2].runtime.is_some());
    }

    #[test]
    fn ansible_may_name_sudo_or_doas_and_its_password_is_not_read() {
        let with = |method: &str| {
            let text = format!(
                "[web]\nw1 ansible_become=yes ansible_become_method={method} ansible_become_password='{{{{ x }}}}'\n"
            );
            nodes(&[("hosts", &text)], &["hosts"])
        };
        for method in ["sudo", "doas", "community.general.doas"] {
            let nodes = with(method).unwrap();
            assert!(nodes[0].become_root && nodes[0].become_password.is_none());
        }
        let refused = with("su").unwrap_err().to_string();
        assert!(refused.contains("through sudo or doas"), "{refused}");
    }

    #[test]
    fn variables_win_in_ansibles_order() {
        let ini = "[a]\nh1\nh2 ansible_user=own\n[b]\nh1\n[a:vars]\nansible_user=a\nansible_port=1\n\
            [b:vars]\nansible_user=b\n[all:vars]\nansible_port=9\n";
        assert_eq!(users(&[("i", ini)], &["i"]), ["b@h1:1", "own@h2:1"]);
        let files = [
            ("i", ini),
            ("group_vars/all.yml", "ansible_port: 5\n"),
            ("group_vars/a/one", "ansible_user: dir\n"),
            ("host_vars/h2.json", "{\"ansible_user\": \"json\"}"),
        ];
        assert_eq!(users(&files, &["i"]), ["dir@h1:5", "json@h2:5"]);
        let weighed = ini.replace("[a:vars]\n", "[a:vars]\nansible_group_priority=10\n");
        assert_eq!(users(&[("i", &weighed)], &["i"])[0], "a@h1:1");
    }

    #[test]
    fn ssh_arguments_of_ansible_reach_the_resolver_of_ssh_config() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts.yml");
        let text = "all:\n  vars:\n    ansible_ssh_args: -C -o ConnectTimeout=5\n  hosts:\n    a:\n      \
            ansible_ssh_common_args: '-o ProxyCommand=\"ssh -W %h:%p -q bastion\"'\n    b:\n      \
            ansible_ssh_extra_args: -o StrictHostKeyChecking=no -J gate\n";
        std::fs::write(&path, text).unwrap();
        let seen = std::cell::RefCell::new(Vec::new());
        let behind = |asked: &crate::inventory::SshQuery<'_>| {
            let command = asked.proxy_command.unwrap_or("-");
            let hops = asked.jump.map_or(0, <[_]>::len);
            let options = asked.options.join(";");
            let said = format!("{} {command} {hops} {options}", asked.host);
            seen.borrow_mut().push(said);
            built_in("me")(asked)
        };
        load(&[Source::File(path)], &NodeSettings::default(), &behind).unwrap();
        assert_eq!(
            seen.into_inner(),
            [
                "a ssh -W %h:%p -q bastion 0 ConnectTimeout=5",
                "b - 1 ConnectTimeout=5;StrictHostKeyChecking=no",
            ]
        );
    }

    #[test]
    fn a_folder_is_one_inventory() {
        let files = [
            ("d/02-names", "x\n"),
            (
                "d/01.yml",
                "all:\n  vars: {ansible_user: ops}\n  children:\n    g: {hosts: {'y[1:2]': }}\n",
            ),
            ("d/03.yml~", "broken: ["),
            ("d/.hidden", "broken: ["),
            ("d/a.retry", "z\n"),
            ("d/group_vars/g", "ansible_port: 7\n"),
        ];
        assert_eq!(users(&files, &["d"]), ["ops@y1:7", "ops@y2:7", "ops@x:22"]);
    }

    #[test]
    fn a_listing_of_ansible_is_an_inventory() {
        let text = "{\"_meta\": {\"hostvars\": {\"h\": {\"ansible_port\": 2222}}}, \
            \"all\": {\"children\": [\"ungrouped\", \"g\"]}, \"g\": {\"hosts\": [\"h\"]}}";
        assert_eq!(users(&[("l.json", text)], &["l.json"]), ["me@h:2222"]);
    }

    #[test]
    fn what_needs_ansible_is_an_error_with_its_place() {
        for (text, shown) in [
            (
                "[g]\nh ansible_user='{{ u }}'\n",
                "i:2:3: \"ansible_user\" of the node \"h\" is a template",
            ),
            (
                "all:\n  hosts:\n    h:\n      ansible_user: !vault |\n        $ANSIBLE_VAULT;1.1;AES256\n        61\n",
                "i:4:7: \"ansible_user\" of the node \"h\" is encrypted",
            ),
            (
                "[g]\nlocalhost ansible_connection=local\n",
                "i:2:11: ansible_connection of the node \"localhost\": a \"local\" connection",
            ),
            (
                "[g]\nh ansible_ssh_common_args='-o User=x'\n",
                "i:2:3: ansible_ssh_common_args of the node \"h\": User is not read",
            ),
            ("[g:children]\nx\n", "i:2:1: a group that is not declared"),
            ("[a:children]\nb\n[b:children]\na\n", "i:"),
            (
                "[g]\nh[1-3]\n",
                "i:2:1: what stands in brackets is no range",
            ),
            ("[g]\nh 'a\n", "i:2:3: this quote"),
            (
                "[g]\nh ansible_host={{ ip }}\n",
                "i:2:19: this is a template",
            ),
            (
                "all:\n  hosts:\n  - a\n",
                "i:3:5: \"hosts\" must be a map, not a list",
            ),
            (
                "[g]\nh prepull_runtme=docker\n",
                "i:2:3: unknown key \"prepull_runtme\"; did you mean",
            ),
            ("[g]\nh:1\nh:2\n", "i:3:1: the host \"h\" was named before"),
        ] {
            let error = nodes(&[("i", text)], &["i"]).unwrap_err();
            assert!(error.starts_with(shown), "{text}: {error}");
        }
        let files = [
            ("i", "h\n"),
            (
                "group_vars/all/vault.yml",
                "$ANSIBLE_VAULT;1.1;AES256\n61\n",
            ),
        ];
        let error = nodes(&files, &["i"]).unwrap_err();
        assert!(
            error.starts_with("group_vars/all/vault.yml:1:1: this file is encrypted"),
            "{error}"
        );
    }
}
