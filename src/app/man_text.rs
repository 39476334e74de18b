//! What manual pages say beside the options: files, environment variables, and the format of inventories.

/// The heading and the lines of a section.
pub(super) type Section = (&'static str, &'static str);

/// In the page of prepull itself.
pub(super) const FILES: Section = (
    "FILES",
    "\
~/.config/prepull/config.toml  defaults of options ($XDG_CONFIG_HOME)
prepull.toml                   a project's, here or above; see prepull-config(1)
~/.local/state/prepull/runs    recorded runs ($XDG_STATE_HOME/prepull/runs)
~/.ssh/config, /etc/ssh/ssh_config
                               connections, as for ssh(1); see --ssh-config
~/.ssh/known_hosts, /etc/ssh/ssh_known_hosts
                               host keys; see --known-hosts
~/.docker/config.json, containers/auth.json
                               registry logins; see --auth-file
~/.kube/config                 the cluster of --kube; see --kubeconfig",
);

/// In the page of prepull itself.
pub(super) const ENVIRONMENT: Section = (
    "ENVIRONMENT",
    "\
PREPULL_MAX_FAILURES, ...      the default of --max-failures, and so for every
                               option but few; `prepull config` shows those set
NO_COLOR, CLICOLOR, CLICOLOR_FORCE, TERM
                               whether output has colour; see --color
LC_ALL, LC_CTYPE, LANG         whether bars are drawn with block characters
COLUMNS                        the width of tables where no terminal says it
CI                             lines instead of bars
SSH_AUTH_SOCK                  ssh-agent
KUBECONFIG                     the kubeconfig
REGISTRY_AUTH_FILE, DOCKER_CONFIG
                               registry logins
ANSIBLE_CONFIG                 settings of Ansible's inventories
HOME, XDG_STATE_HOME, XDG_CONFIG_HOME
                               where files are",
);

/// prepull-inventory(5), a section each.
pub(super) const INVENTORY: [Section; 8] = [
    (
        "NAME",
        "prepull-inventory - the nodes that prepull works on",
    ),
    (
        "DESCRIPTION",
        "\
-i FILE names an inventory: a file, a folder of files, or - for standard
input. It may be given several times. Its content says which kind it is:

  prepull's YAML      defaults, groups and nodes, as below
  Ansible's YAML, INI with group_vars and host_vars beside the file
  a program           executable; called with --list, as Ansible calls it
  a list              one host a line; # begins a comment

prepull nodes -i FILE shows what an inventory says, and connects to nothing.
An error names file, line and column.",
    ),
    (
        "FORMAT",
        "\
defaults:                       # for all nodes
  user: ops
  identity: ~/.ssh/fleet_ed25519
  become: true                  # through sudo or doas
groups:
  gpu:                          # for --limit gpu
    runtime: crictl             # docker, podman; left out, the node is asked
    runtime_endpoint: unix:///run/containerd/containerd.sock
    jump: bastion.example       # [user@]host[:port],...
    labels: {pool: gpu}
    nodes:
      - gpu[01-16].dc1.example  # a range of names
      - {name: gpu17, address: 10.0.7.17, port: 2222}
nodes:                          # in no group
  - edge-1.example",
    ),
    (
        "KEYS",
        "\
name              of one node: unique in the fleet
address           where it is, if not at its name
port              of its SSH server
user              to log in as
identity          private key file, or a list of them
jump              the hosts on the way, or none
runtime           docker, podman or crictl
runtime_endpoint  the runtime's socket
become            true: become root
labels            names and values, shown by prepull nodes -o wide",
    ),
    (
        "PRECEDENCE",
        "\
A node's settings come from, the strongest first: the command line, its own
entry, its groups (nearest first), defaults, ssh_config, what is built in.",
    ),
    (
        "ANSIBLE",
        "\
ansible_host, ansible_port, ansible_user, ansible_ssh_private_key_file,
ansible_become, ansible_become_method and the options in ansible_ssh_args,
ansible_ssh_common_args and ansible_ssh_extra_args count, with
prepull_runtime and prepull_runtime_endpoint. Templates and vault values are
errors. Options that loosen the check of host keys are left out.",
    ),
    (
        "EXAMPLES",
        "\
prepull nodes -i nodes.yml
prepull nodes -i hosts.ini --limit 'workers:!builders' -o wide
printf 'worker-1.example\\nworker-2.example\\n' | prepull nodes -i -
prepull nodes -H 'ops@node[001-128].rack[1-4]:2222' -o yaml",
    ),
    ("SEE ALSO", "prepull(1), prepull-nodes(1), ssh_config(5)"),
];
