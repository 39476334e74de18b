//! What the help says before and after the options: examples first, exit statuses last.

/// What a command is for, examples, then its usage and options, grouped by purpose.
pub(super) const TEMPLATE: &str = "\
{about-with-newline}
{before-help}{usage-heading} {usage}

{all-args}{after-help}";

pub(super) const PREPULL: &str = "\
Examples:
  prepull pull -i nodes.yml registry.example:5000/team/app:v2
  prepull check -i nodes.yml app:v2        does every node hold it?
  prepull nodes -i nodes.yml               who would be warmed?
  prepull exec -i nodes.yml -- df -h /var  run a command on every node
  prepull hosts scan -i nodes.yml          compare and record host keys";

/// Below the options of `-h`.
pub(super) const MORE: &str = "\
All options: --help. How inventories are written: prepull man inventory";

/// A line of `-h`, by its option.
macro_rules! line {
    (inventory) => {
        "  -i, --inventory FILE       nodes: YAML or INI as for Ansible, or a list\n"
    };
    (hosts) => {
        "  -H, --hosts EXPR           nodes by name: 'ops@worker[01-40].example'\n"
    };
    (kube) => {
        "      --kube                 ask the Kubernetes API for the nodes\n"
    };
    (selector) => {
        "  -l, --selector LABELS      only Kubernetes nodes with these labels\n"
    };
    (limit) => {
        "      --limit PATTERN        only these nodes or groups\n"
    };
    (exclude) => {
        "      --exclude PATTERN      all but these\n"
    };
    (probe) => {
        "      --probe                connect: system, runtime, free space, clock\n"
    };
    (user) => {
        "  -u, --user NAME            log in to the nodes as this user\n"
    };
    (become) => {
        "  -b, --become               become root there; -K asks for sudo's password\n"
    };
    (registry_user) => {
        "      --registry-user NAME   log in to the registry; asks for the password\n"
    };
    (manifests) => {
        "      --manifests FILE       the images that Kubernetes manifests name\n"
    };
    (preflight) => {
        "      --preflight            ask all nodes first: runtime, room, registry\n"
    };
    (parallel) => {
        "  -p, --parallel N           nodes at work at one time\n"
    };
    (waves) => {
        "      --waves SIZES          go in waves, e.g. 1,10%,100%\n"
    };
    (dry_run) => {
        "  -n, --dry-run              print the plan and connect to nothing\n"
    };
    (output) => {
        "  -o, --output FORMAT        human, json or jsonl\n"
    };
    (output_of_nodes) => {
        "  -o, --output FORMAT        human, wide, json, yaml or name\n"
    };
}

/// The text of `-h`: examples, then the options that matter most.
macro_rules! short {
    ($examples:literal, $($option:ident)*) => {
        concat!("Examples:\n", $examples, "\n", $(line!($option)),*)
    };
}

pub(super) const PULL_SHORT: &str = short!(
    "  prepull pull -i nodes.yml registry.example:5000/team/app:v2
  prepull pull --resume last           what the last pull left open
",
    inventory hosts limit user become registry_user preflight waves dry_run output
);

pub(super) const CHECK_SHORT: &str = short!(
    "  prepull check -i nodes.yml app:v2
  prepull check -i nodes.yml --manifests deploy/ -o json
",
    inventory hosts limit exclude user become manifests parallel dry_run output
);

pub(super) const NODES_SHORT: &str = short!(
    "  prepull nodes -i nodes.yml --limit 'gpu:!gpu17'
  prepull nodes -i nodes.yml --probe registry.example:5000/team/app:v2
",
    inventory hosts kube selector limit exclude probe user become output_of_nodes
);

pub(super) const EXEC_SHORT: &str = short!(
    "  prepull exec -i nodes.yml -- df -h /var/lib/docker
  prepull exec -i nodes.yml -b -- sh -c 'journalctl -u docker | tail -3'
",
    inventory hosts limit exclude user become parallel waves dry_run output
);

pub(super) const PULL: &str = "\
Examples:
  prepull pull -i nodes.yml registry.example:5000/team/app:v2
  prepull pull -H 'worker[01-40].example' --registry-user ci app:v2
  prepull pull --kube -l pool=gpu -u ops -b app:v2
  prepull pull -i nodes.yml --waves 1,10%,100% --deadline 1h app:v2
  helm template chart | prepull pull -i nodes.yml --manifests -
  prepull pull -i nodes.yml --report run.html --report run.xml app:v2
  prepull pull --resume last               what the last run left open";

pub(super) const CHECK: &str = "\
Examples:
  prepull check -i nodes.yml app:v2
  prepull check -i nodes.yml --manifests deploy/ -o json";

pub(super) const NODES: &str = "\
Examples:
  prepull nodes -i nodes.yml --limit 'gpu:!gpu17'
  prepull nodes -H 'worker[01-40].example' -o name
  prepull nodes --kube --context prod -l pool=gpu -o wide
  prepull nodes -i nodes.yml --probe registry.example:5000/team/app:v2";

pub(super) const HOSTS: &str = "\
Examples:
  prepull hosts scan -i nodes.yml          compare, then answer y
  prepull hosts scan -i nodes.yml -o json >keys.json";

pub(super) const EXEC: &str = "\
Examples:
  prepull exec -i nodes.yml -- df -h /var/lib/docker
  prepull exec -i nodes.yml --limit gpu -b -- sh -c 'journalctl -u docker | tail -3'";

pub(super) const DAEMONSET: &str = "\
Examples:
  prepull pull --kube --via daemonset --create-namespace app:v2   apply, wait, remove
  prepull daemonset render app:v2 | kubectl apply -f -
  prepull daemonset status                 what became of it";

pub(super) const DAEMONSET_RENDER: &str = "\
Examples:
  prepull daemonset render -n warm --create-namespace app:v2 | kubectl apply -f -
  prepull daemonset render -n warm --rbac | kubectl apply -f -";

pub(super) const DAEMONSET_APPLY: &str = "\
Examples:
  prepull daemonset apply --create-namespace registry.example:5000/team/app:v2
  prepull daemonset apply -l pool=gpu --image-pull-secret regcred app:v2";

pub(super) const DAEMONSET_STATUS: &str = "\
Examples:
  prepull daemonset status
  prepull daemonset status --no-wait -o json";

pub(super) const DAEMONSET_REMOVE: &str = "\
Examples:
  prepull daemonset remove -n warm";

pub(super) const KEEP: &str = "\
Examples:
  prepull keep list -i nodes.yml -b
  prepull keep release -i nodes.yml -b registry.example:5000/team/app:v2";

pub(super) const IMAGES: &str = "\
Examples:
  prepull images -f deploy/ -f job.yml
  helm template chart | prepull images -f - -o wide";

pub(super) const RUNS: &str = "\
Examples:
  prepull runs list
  prepull runs show last
  prepull runs report last --html run.html";

pub(super) const CONFIG: &str = "\
Examples:
  prepull config
  PREPULL_PARALLEL=8 prepull config

Defaults come from, the strongest first: PREPULL_* variables (PREPULL_MAX_FAILURES
for --max-failures), prepull.toml here or above, ~/.config/prepull/config.toml.
";

pub(super) const COMPLETIONS: &str = "\
Examples:
  source <(prepull completions bash)             in ~/.bashrc
  source <(prepull completions zsh)              in ~/.zshrc, after compinit
  prepull completions fish | source              in ~/.config/fish/config.fish";

pub(super) const MAN: &str = "\
Examples:
  prepull man pull | man -l -
  prepull man runs show > prepull-runs-show.1";

/// The exit statuses that every command has.
pub(super) const EXIT: &str = "\
Exit status:
  0              every node is as wanted
  1              at least one is not
  2              wrong usage or input: nothing was touched
  3              stopped early by a limit, a failed wave or the deadline
  129, 130, 143  hung up, interrupted, terminated: what ran was cancelled";
