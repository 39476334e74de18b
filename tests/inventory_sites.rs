//! Inventories as sites have them, against the programs of these sites: groups of ClusterShell, what inventory programs
//! print, ansible.cfg, and folders that hold more than inventories. `lab/oracles` installs Ansible and ClusterShell.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// A folder with these files, which is also the home of whatever runs in it.
struct Site(tempfile::TempDir);

impl Site {
    fn new(files: &[(&str, &str)]) -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            site.write(name, text);
        }
        site
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", self.path());
        command
    }

    fn ansible(&self, program: &str, arguments: &[&str]) -> Command {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("target/oracles/bin")
            .join(program);
        assert!(
            path.exists(),
            "{} is missing: run lab/oracles",
            path.display()
        );
        self.command(path.to_str().unwrap(), arguments)
    }

    fn nodes(&self, arguments: &[&str]) -> Command {
        let arguments = [&["nodes", "-F", "none"], arguments].concat();
        self.command(env!("CARGO_BIN_EXE_prepull"), &arguments)
    }

    /// The nodes as JSON, and what was said beside them.
    fn shown(&self, command: &mut Command) -> (Vec<Value>, String) {
        let output = command.args(["-o", "json"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (document["nodes"].as_array().unwrap().clone(), said)
    }

    fn names(&self, arguments: &[&str]) -> Result<BTreeSet<String>, String> {
        let output = self
            .nodes(&[arguments, &["-o", "name"]].concat())
            .output()
            .unwrap();
        if !output.status.success() {
            return Err(text(&output));
        }
        let names = String::from_utf8(output.stdout).unwrap();
        Ok(names.lines().map(str::to_string).collect())
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

const GROUPS: &str = "\
roles:
    adm: 'example0'
    io: '@racks:rack2,example2'
    compute: '@racks:rack[3-4]'
    gpu: '@racks:rack4'
    all: '@io,@compute'
racks:
    rack1: 'example[0,2]'
    rack2: 'example[4-5]'
    rack3: 'example[32-159]'
    rack4: 'example[156-159]'
    old: '@rack[1,3]'
    new: '@rack[2,4]'
    rack5:
        - 'example[200-205]'  # some comment
        - 'example245'
        - 'example300 example[401-406]!example402'
cpu:
    ivy: 'example[32-63]'
    hsw: '@roles:compute!@ivy'
    padded: 'n[001-010/3],n[01-02]-ib'
";

#[test]
fn groups_of_clustershell_are_those_of_nodeset() {
    let folder = ".config/clustershell";
    let site = Site::new(&[
        (
            &format!("{folder}/groups.conf"),
            "[Main]\ndefault: roles\nautodir: $CFGDIR/groups.d\n\
            [local]\nmap: [ -f $CFGDIR/groups ] && f=$CFGDIR/groups || f=$CFGDIR/groups.d/local.cfg; sed -n 's/^$GROUP:\\(.*\\)/\\1/p' $f\n\
            all: sed -n 's/^all:\\(.*\\)/\\1/p' $CFGDIR/groups.d/local.cfg\n\
            [slurm,sl]\nmap: echo node[1-4]\n",
        ),
        (&format!("{folder}/groups.d/cluster.yaml"), GROUPS),
        (
            &format!("{folder}/groups.d/local.cfg"),
            "# flat\noss: example4 example5\nio: example[4-6],@oss\nall: example[4-6,9]\n",
        ),
    ]);
    for expression in [
        "@gpu",
        "@io",
        "@*",
        "@all",
        "@roles:gpu",
        "@racks:*",
        "@racks:rack[1-3]",
        "@racks:old",
        "@racks:rack5",
        "@cpu:*",
        "@cpu:hsw",
        "@cpu:hsw!@io",
        "@cpu:ivy^@gpu",
        "@roles:compute&@racks:rack[3-5]",
        "@racks:rack[1,2],@io!example5",
        "@compute!@gpu",
        "x[1-3],@adm!x2",
        "@cpu:padded",
        "@local:oss",
        "@local:io",
        "@local:*",
        "@io,@local:oss",
    ] {
        let arguments = ["-e", "-S", "\n", expression];
        let expected = site.command("nodeset", &arguments).output().unwrap();
        assert!(expected.status.success(), "{}", text(&expected));
        let expected = String::from_utf8(expected.stdout).unwrap();
        let expected: BTreeSet<_> = expected.lines().map(str::to_string).collect();
        assert!(!expected.is_empty(), "{expression}");
        assert_eq!(
            site.names(&["-u", "ops", "-H", expression]),
            Ok(expected),
            "{expression}"
        );
    }
    for (expression, parts) in [
        (
            "@slurm:gpu",
            &["commands", "nodeset -e -S , '@slurm:gpu'"] as &[&str],
        ),
        (
            "x1,@nowhere",
            &["--hosts:1:4:", "no group \"nowhere\"", "adm, io, compute"],
        ),
        (
            "@other:gpu",
            &["no source of groups \"other\"", "roles, racks, cpu"],
        ),
    ] {
        let said = site.names(&["-u", "ops", "-H", expression]).unwrap_err();
        for part in parts {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

/// What `--list` may print, and the groups of each host that come of it.
#[test]
fn groups_of_programs_may_have_any_name() {
    let listings = [
        r#"{"_meta": {"hostvars": {"h1": {"ansible_port": 2222}, "nowhere": {"ansible_port": 3}}},
            "tag_Name_my server": ["h1"], "us-east-1, a": {"hosts": ["h2"], "vars": {"ansible_user": "ec2"}},
            "weird/../x": {"hosts": ["h3"], "odd": 1}, "vars": {"hosts": ["h4"]}, "hosts": ["h5"],
            "children": {"children": ["'q\""]}, "nodes": ["h6"], "plugin": {"hosts": ["h7"]}, "'q\"": ["h8"],
            "h1": ["h1"], "größe": ["h9"], "defaults": ["h10"], "1": ["h11"], "a:b": ["h12"], "a[1:2]": ["h13"]}"#,
        r#"{"_meta": {"hostvars": {}}, "lonely": {"ansible_port": 99}, "empty": {}, "g": {"children": ["lonely"]}}"#,
        r#"{"_meta": {"hostvars": {}}, "all": {"children": ["new group", "ungrouped"]}, "new group": {"hosts": ["a"], "vars": {}}}"#,
    ];
    for listing in listings {
        let site = Site::new(&[
            ("program", "#!/bin/sh\ncat listing.json\n"),
            ("listing.json", listing),
        ]);
        let expected = site
            .ansible("ansible-inventory", &["-i", "program", "--list"])
            .output()
            .unwrap();
        let expected: Value = serde_json::from_slice(&expected.stdout).unwrap();
        // Of each host the groups that list it themselves.
        let mut of_hosts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (group, part) in expected.as_object().unwrap() {
            for host in part["hosts"].as_array().into_iter().flatten() {
                let host = host.as_str().unwrap().to_string();
                of_hosts.entry(host).or_default().insert(group.clone());
            }
        }
        assert!(
            of_hosts.len() > 1 || listing.contains("new group"),
            "{expected}"
        );
        let (nodes, said) = site.shown(&mut site.nodes(&["-u", "ops", "-i", "program"]));
        let name = |node: &Value| node["name"].as_str().unwrap().to_string();
        let ours: BTreeSet<_> = nodes.iter().map(name).collect();
        assert_eq!(ours, of_hosts.keys().cloned().collect(), "{said}");
        for node in &nodes {
            let groups: BTreeSet<_> = node["groups"]
                .as_array()
                .unwrap()
                .iter()
                .map(|group| group.as_str().unwrap())
                .collect();
            let listed = &of_hosts[&name(node)];
            assert!(
                listed.iter().all(|group| groups.contains(group.as_str())),
                "{node}: {listed:?}"
            );
            let variables = &expected["_meta"]["hostvars"][name(node)];
            let port = variables["ansible_port"].as_u64().unwrap_or(22);
            assert_eq!(node["port"], port, "{node}");
        }
    }
    let site = Site::new(&[
        ("program", "#!/bin/sh\ncat listing.json\n"),
        (
            "listing.json",
            "{\"_meta\": {}, \"\\u001b[2J\\n\": [\"a\"]}",
        ),
    ]);
    let output = site
        .nodes(&["-u", "ops", "-i", "program", "-o", "wide"])
        .output()
        .unwrap();
    assert!(
        output.status.success() && !output.stdout.contains(&0x1b),
        "{}",
        text(&output)
    );
}

const HOSTS: &str = "[w]\nn1\nn2 ansible_user=own\n";

/// What Ansible itself makes of its configuration here.
fn configured(command: &mut Command) -> BTreeMap<String, String> {
    let output = command.output().unwrap();
    let settings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let settings = settings.as_array().unwrap().iter().filter_map(|setting| {
        let value = match &setting["value"] {
            Value::Null => return None,
            Value::String(value) => value.clone(),
            other => other.to_string(),
        };
        Some((setting["name"].as_str()?.to_string(), value))
    });
    settings.collect()
}

#[test]
fn ansible_cfg_counts_as_it_does_for_ansible() {
    let full = "[defaults]\nremote_user = ops ; who\nprivate_key_file = keys/fleet\nremote_port: 2222\n# x\n[privilege_escalation]\nbecome = True\n";
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Pairs, Pairs); 9] = [
        (&[("ansible.cfg", full)], &[]),
        (
            &[(
                ".ansible.cfg",
                "[defaults]\nremote_user=\"home\"\nprivate_key_file=~/.ssh/k\n",
            )],
            &[],
        ),
        (
            &[
                (".ansible.cfg", "[defaults]\nremote_user=home\n"),
                ("ansible.cfg", "[defaults]\nremote_port=9\n"),
            ],
            &[],
        ),
        (
            &[
                ("other/site.cfg", full),
                ("ansible.cfg", "[defaults]\nremote_user=x\n"),
            ],
            &[("ANSIBLE_CONFIG", "other/site.cfg")],
        ),
        (
            &[("other/ansible.cfg", full)],
            &[("ANSIBLE_CONFIG", "other")],
        ),
        (
            &[("ansible.cfg", full)],
            &[("ANSIBLE_CONFIG", "nowhere.cfg")],
        ),
        (
            &[("ansible.cfg", full)],
            &[("ANSIBLE_REMOTE_USER", "root"), ("ANSIBLE_BECOME", "no")],
        ),
        (
            &[(
                "ansible.cfg",
                "[defaults]\nremote_user =\nprivate_key_file=/abs/key\n",
            )],
            &[],
        ),
        (&[], &[("ANSIBLE_PRIVATE_KEY_FILE", "/abs/key")]),
    ];
    for (files, environment) in cases {
        let site = Site::new(files);
        site.write("hosts", HOSTS);
        let mut oracle = site.ansible(
            "ansible-config",
            &["dump", "--format", "json", "-t", "base"],
        );
        let theirs = configured(oracle.envs(environment.iter().copied()));
        let mut command = site.nodes(&["-i", "hosts"]);
        let (nodes, said) = site.shown(command.envs(environment.iter().copied()).env("USER", "me"));
        let get = |name: &str| theirs.get(name).filter(|value| !value.is_empty());
        let node = &nodes[0];
        if let Some(user) = get("DEFAULT_REMOTE_USER") {
            assert_eq!(node["user"], **user, "{files:?}: {said}");
        }
        assert_eq!(nodes[1]["user"], "own");
        let port = get("DEFAULT_REMOTE_PORT").map_or(22, |port| port.parse().unwrap());
        assert_eq!(node["port"], port, "{files:?}: {said}");
        let keys: Vec<_> = get("DEFAULT_PRIVATE_KEY_FILE")
            .into_iter()
            .cloned()
            .collect();
        assert_eq!(node["identities"], Value::from(keys), "{files:?}: {said}");
        assert!(
            said.contains("counts for the hosts of Ansible's inventories"),
            "{said}"
        );
    }
}

#[test]
fn ansible_cfg_gives_way_and_loosens_nothing() {
    let text = "[defaults]\nremote_user = ops\nhost_key_checking = False\n\
        [ssh_connection]\nssh_args = -F ./ssh.cfg -o ProxyJump=gate -o StrictHostKeyChecking=no\n";
    let site = Site::new(&[
        ("ansible.cfg", text),
        ("hosts", HOSTS),
        ("nodes.yml", "nodes: [p1]\n"),
    ]);
    let (nodes, said) =
        site.shown(&mut site.nodes(&["-i", "hosts", "-i", "nodes.yml", "-u", "typed"]));
    let users: Vec<_> = nodes
        .iter()
        .map(|node| node["user"].as_str().unwrap())
        .collect();
    assert_eq!(users, ["typed"; 3]);
    assert_eq!(nodes[0]["jump"][0], "typed@gate:22");
    // Only for Ansible's own inventories.
    assert_eq!(nodes[2]["jump"].as_array().map(Vec::len), Some(0));
    for part in [
        "ansible.cfg:3: host_key_checking",
        "--host-keys",
        "--ssh-config ./ssh.cfg",
        "remote_user, ssh_args",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (_, said) = site.shown(&mut site.nodes(&["-i", "nodes.yml", "-u", "typed"]));
    assert_eq!(said, "");
    // A folder that everybody may write to says nothing of how to log in.
    let mode = fs::Permissions::from_mode(0o777);
    fs::set_permissions(site.path(), mode).unwrap();
    let (nodes, said) = site.shown(site.nodes(&["-i", "hosts"]).env("USER", "me"));
    assert_ne!(nodes[0]["user"], "ops");
    assert!(
        said.contains("ansible.cfg is not read: other users may write to its folder"),
        "{said}"
    );
}

/// kubespray leaves a kubeconfig, its kubectl and keys in the folder of the inventory.
#[test]
fn a_folder_may_hold_what_is_no_inventory() {
    let files = [
        (
            "inv/hosts.yml",
            "all:\n  hosts: {n1: {ansible_host: 10.0.0.1}, n2: {ansible_host: 10.0.0.2}}\n",
        ),
        ("inv/group_vars/all.yml", "ansible_user: ops\n"),
        ("inv/credentials/kubeadm_certificate_key.creds", "hunter2\n"),
        (
            "inv/artifacts/admin.conf",
            "apiVersion: v1\nkind: Config\nclusters: []\n",
        ),
        ("inv/artifacts/kubectl.sh", "#!/bin/sh\nexit 1\n"),
        (
            "inv/kubeconfig",
            "apiVersion: v1\nkind: Config\nusers: [{name: a, user: {token: hunter2}}]\n",
        ),
        ("inv/id.key", "hunter2\n"),
        (
            "inv/Vagrantfile",
            "NODES = 2\nVagrant.configure('2') do |config|\nend\n",
        ),
        ("inv/Makefile", "all: hosts\n\t@echo $<\n"),
        ("inv/cloud/static", "# hosts that no cloud lists\n"),
        ("inv/cloud/empty", ""),
        ("inv/old.ini", "[x]\ngone\n"),
        (
            "ansible.cfg",
            "[defaults]\ninventory_ignore_extensions = ~, .ini, .orig\n",
        ),
    ];
    let site = Site::new(&files);
    let names = site.names(&["-i", "inv"]);
    assert_eq!(
        names,
        Ok(BTreeSet::from(["n1".to_string(), "n2".to_string()]))
    );
    let (_, said) = site.shown(&mut site.nodes(&["-i", "inv"]));
    assert!(
        said.contains("inv/kubeconfig is left out") && !said.contains("hunter2"),
        "{said}"
    );
    let said = site.names(&["-i", "inv/kubeconfig"]).unwrap_err();
    assert!(
        said.contains("--kubeconfig") && !said.contains("hunter2"),
        "{said}"
    );
}

/// A file may be named by mistake, or stand in a folder: what it holds may be a password.
#[test]
fn no_error_quotes_a_line_of_a_file_that_is_no_inventory() {
    let long = "hunter2".repeat(12);
    let contents = [
        long.as_str(),
        "user:hunter2!",
        "PASS=hunter2",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2==\n-----END OPENSSH PRIVATE KEY-----",
        "password: hunter2\nx: [hunter2",
        "a *hunter2",
        "\"hunter2",
        "key: \"hunter2\\q\"",
        "[secret]\na b=c hunter2",
        "[a]\nx:hunter2",
        "admin,hunter2$",
        "ab[hunter2]",
        "n[1-hunter2]",
        "[web]\nn[hunter2]",
        "[hunter2:x y]",
        "{\"a\": hunter2}",
        "nodes: [hunter2!]",
        "root@@hunter2",
        "hunter2@@x",
        "a:hunter2",
        "10.1.hunter2..",
        "$hunter2 x",
        "all: {hosts: {x: {ansible_port: hunter2}}}",
        "all: {hosts: {x: {ansible_user: \"hunter2 x\"}}}",
        "all: {hosts: {x: {ansible_host: \"hunter2 x\"}}}",
        "all: {hosts: {x: {ansible_ssh_common_args: \"-o X=y hunter2\"}}}",
        "all: {hosts: {\"hunter2 x\": }}",
    ];
    for content in contents {
        let site = Site::new(&[
            ("inv/hosts.yml", "all: {hosts: {n1: }}\n"),
            ("inv/secret", &format!("{content}\n")),
        ]);
        for inventory in ["inv", "inv/secret"] {
            let said = site.names(&["-u", "ops", "-i", inventory]).unwrap_err();
            assert!(!said.contains("hunter2"), "{content}: {said}");
            assert!(said.contains("inv/secret:"), "{said}");
        }
    }
}

#[test]
fn toml_is_named_with_what_to_run_instead() {
    let toml =
        "[all.vars]\nhas_java = false\n\n[web.hosts]\nhost1 = {}\nhost2 = { ansible_port = 222 }\n";
    let site = Site::new(&[
        ("hosts.toml", toml),
        ("hosts", toml),
        ("ini", "[web.hosts]\nh1 x={{a}}\n"),
    ]);
    for name in ["hosts.toml", "hosts"] {
        let said = site.names(&["-u", "ops", "-i", name]).unwrap_err();
        assert!(
            said.contains("TOML")
                && said.contains("ansible-inventory -i FILE --list | prepull ... -i -"),
            "{said}"
        );
    }
    assert_eq!(
        site.names(&["-u", "ops", "-i", "ini"]),
        Ok(BTreeSet::from(["h1".to_string()]))
    );
}

/// Whoever can write an inventory could otherwise have root run anything.
#[test]
fn what_another_user_can_write_names_no_program_for_root() {
    let hosts = "a ansible_ssh_common_args='-o ProxyCommand=\"nc %h %p\"'\nb\n";
    let site = Site::new(&[("hosts", hosts)]);
    assert!(site.names(&["-i", "hosts"]).is_ok());
    let mode = fs::Permissions::from_mode(0o666);
    fs::set_permissions(site.path().join("hosts"), mode).unwrap();
    let names = site.names(&["-i", "hosts"]);
    if nix::unistd::geteuid().is_root() {
        let why = "this ProxyCommand would run as root, but other users may write to it";
        let said = names.unwrap_err();
        assert!(said.contains(why), "{said}");
        // The others are as good as ever.
        assert!(site.names(&["-i", "hosts", "--exclude", "a"]).is_ok());
    } else {
        assert!(names.is_ok());
    }
}
