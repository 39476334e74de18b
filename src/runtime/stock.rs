//! Which layers a node's store holds, and when its kubelet collects images: what a forecast asks.

use std::collections::HashSet;

use super::kubelet::with_gc;
use crate::model::stock::SHORT_DIGEST;
use crate::model::{CommandOutput, KubeletGc, RuntimeKind, Stock, text};
use crate::ports::{NodeCommand, StockQuestion};

/// The longest reason of a node that is kept, in bytes.
const REASON: usize = 300;

/// Prints what [`read`] reads: `KIND ROOT DIGESTS [CLIENT...]`. Changes nothing.
///
/// containerd and containers/storage keep compressed digests in files that root may read. docker keeps layers unpacked,
/// and its images tell theirs to everybody who may call it.
const ASK: &str = with_gc!(
    r#"kind=$1 root=$2 wanted=$3
shift 3
size=$(df -P -k "$root" 2>/dev/null | { read -r line; read -r device size line; printf %s "$size"; })
echo "size ${size:--}"
tell_kubelet
both() { { printf '%s\n' $wanted; cut -c -16 | sort -u; } | sort | uniq -d | sed 's/^/layer /'; }
chains() {
    ids=$("$@" image ls -q --no-trunc) || return
    ids=$(printf '%s\n' "$ids" | sort -u)
    if [ -n "$ids" ]; then
        told=$("$@" image inspect --format 'chain {{json .RootFS.Layers}}' $ids) || return
    fi
    printf 'images\n%s\n' "$told"
}
store=$root/io.containerd.content.v1.content
blobs=$store/blobs/sha256
listed=$root/overlay-layers/layers.json
# The folder for blobs comes with the first of them.
[ -e "$blobs" ] || blobs=$store
if [ "$kind" != docker ] && [ -r "$blobs" ] && [ -x "$blobs" ]; then
    if grep -qs '^ *discard_unpacked_layers *= *true' /etc/containerd/config.toml \
        /var/lib/rancher/k3s/agent/etc/containerd/config.toml /var/lib/rancher/rke2/agent/etc/containerd/config.toml; then
        echo 'unseen containerd discards layers once they are unpacked (discard_unpacked_layers)'
    else
        echo files
        ls "$blobs" | both
    fi
elif [ "$kind" != docker ] && [ -r "$listed" ]; then
    echo files
    grep -o '"compressed-diff-digest":"sha256:[0-9a-f]*' "$listed" | cut -d : -f 3 | both
elif [ $# -gt 0 ]; then
    chains "$@" 2>/dev/null || echo "unseen $kind did not tell the layers of its images"
else
    echo "unseen only root may see which layers are in $root (--become)"
fi"#
);

/// The question, to a runtime of this kind; docker and podman are also asked through `client`.
pub(super) fn question<'a>(
    kind: RuntimeKind,
    asked: &StockQuestion<'a>,
    client: &[&'a str],
) -> NodeCommand<'a> {
    let own = [
        "sh",
        "-c",
        ASK,
        "sh",
        kind.as_str(),
        asked.root,
        asked.layers,
    ];
    NodeCommand {
        argv: [&own, client].concat(),
        environment: Vec::new(),
        secret: None,
        stdin: b"",
    }
}

/// Reads the answer. A node that answers something else leaves its layers unknown.
pub(super) fn read(output: &CommandOutput) -> Stock {
    let mut stock = Stock::default();
    let printed = String::from_utf8_lossy(&output.stdout);
    for line in printed.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "size" => {
                let kilobytes = rest.parse::<u64>().ok();
                stock.size = kilobytes.and_then(|number| number.checked_mul(1024));
            }
            "kubelet" => stock.kubelet = read_kubelet(rest),
            "files" => stock.layers = Some(HashSet::new()),
            "layer" if rest.len() == SHORT_DIGEST => {
                stock
                    .layers
                    .get_or_insert_default()
                    .insert(rest.to_string());
            }
            "images" => stock.chains = Some(Vec::new()),
            "chain" => {
                let chain: Option<Vec<String>> = serde_json::from_str(rest).unwrap_or_default();
                stock.chains.get_or_insert_default().extend(chain);
            }
            "unseen" => stock.unknown = Some(text::truncate_bytes(rest.as_bytes(), REASON)),
            _ => {}
        }
    }
    if output.truncated {
        // What is missing from the answer may be there.
        (stock.layers, stock.chains) = (None, None);
        stock.unknown = Some("the node holds too many layers to list".into());
    }
    stock
}

/// `HIGH LOW AGE yes|no`.
fn read_kubelet(told: &str) -> Option<KubeletGc> {
    let mut words = told.split(' ');
    let percent = |word: Option<&str>| word?.parse().ok().filter(|percent: &u8| *percent <= 100);
    let default = KubeletGc::DEFAULT;
    let (high, low) = (percent(words.next()), percent(words.next()));
    let age = words.next().filter(|age| {
        !age.trim_end_matches(char::is_alphabetic)
            .trim_matches(['0', '.'])
            .is_empty()
    });
    Some(KubeletGc {
        is_known: words.next() == Some("yes") && high.is_some(),
        high: high.unwrap_or(default.high),
        low: low.unwrap_or(default.low),
        max_age: age.map(|age| text::truncate_bytes(age.as_bytes(), 40)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ExitStatus;
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    fn output(stdout: &str) -> CommandOutput {
        CommandOutput {
            exit: ExitStatus::Code(0),
            stdout: stdout.into(),
            stderr: Vec::new(),
            truncated: false,
        }
    }

    /// Runs the question with `/proc` and `/etc/containerd` in `folder`.
    fn asked(folder: &Path, kind: &str, wanted: &str, client: &[&str]) -> Stock {
        let here = folder.to_str().unwrap();
        let script = ASK
            .replace("/proc/", &format!("{here}/proc/"))
            .replace("/etc/", &format!("{here}/etc/"))
            .replace("/var/", &format!("{here}/var/"));
        let root = format!("{here}/root");
        let answer = Command::new("sh")
            .args(["-c", &script, "sh", kind, &root, wanted])
            .args(client)
            .output()
            .unwrap();
        read(&output(&String::from_utf8(answer.stdout).unwrap()))
    }

    fn kubelet(folder: &Path, cmdline: &str) {
        let process = folder.join("proc/77");
        fs::create_dir_all(&process).unwrap();
        fs::write(process.join("comm"), "kubelet\n").unwrap();
        fs::write(process.join("status"), "NSpid:\t77\n").unwrap();
        fs::write(process.join("cmdline"), cmdline.replace(' ', "\0")).unwrap();
    }

    #[test]
    fn blobs_that_are_there_are_named_and_a_node_without_a_kubelet_collects_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = folder
            .path()
            .join("root/io.containerd.content.v1.content/blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        for name in ["a", "b"] {
            fs::write(blobs.join(name.repeat(64)), "").unwrap();
        }
        let wanted = format!("{} {}", "a".repeat(16), "c".repeat(16));
        let stock = asked(folder.path(), "crictl", &wanted, &[]);
        assert_eq!(stock.layers, Some(HashSet::from(["a".repeat(16)])));
        assert_eq!((stock.kubelet, stock.unknown), (None, None));
        assert!(stock.size.is_some_and(|size| size > 0));
        // Layers go once they are unpacked: what is not there may not be needed either.
        fs::create_dir_all(folder.path().join("etc/containerd")).unwrap();
        let config = "    discard_unpacked_layers = true\n";
        fs::write(folder.path().join("etc/containerd/config.toml"), config).unwrap();
        let stock = asked(folder.path(), "ctr", &wanted, &[]);
        assert_eq!(stock.layers, None);
        assert!(stock.unknown.unwrap().contains("discard_unpacked_layers"));
    }

    #[test]
    fn a_store_that_cannot_be_read_is_told_and_not_guessed() {
        let folder = tempfile::tempdir().unwrap();
        let stock = asked(folder.path(), "crictl", "", &[]);
        assert_eq!((stock.layers, stock.chains), (None, None));
        assert!(stock.unknown.unwrap().starts_with("only root may see"));
        // A containerd that never held an image.
        let store = folder
            .path()
            .join("root/io.containerd.content.v1.content/ingest");
        fs::create_dir_all(store).unwrap();
        let stock = asked(folder.path(), "crictl", "abc", &[]);
        assert_eq!((stock.layers, stock.unknown), (Some(HashSet::new()), None));
        let stock = asked(folder.path(), "docker", "", &["false"]);
        assert!(stock.unknown.unwrap().starts_with("docker did not tell"));
    }

    #[test]
    fn cri_o_lists_its_layers_in_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("root/overlay-layers");
        fs::create_dir_all(&place).unwrap();
        let layer = format!(
            "[{{\"compressed-diff-digest\":\"sha256:{}\"}}]",
            "a".repeat(64)
        );
        fs::write(place.join("layers.json"), layer).unwrap();
        let stock = asked(folder.path(), "crictl", &"a".repeat(16), &[]);
        assert_eq!(stock.layers, Some(HashSet::from(["a".repeat(16)])));
    }

    #[test]
    fn docker_tells_the_layers_of_its_images() {
        let folder = tempfile::tempdir().unwrap();
        let docker = folder.path().join("docker");
        let script = "#!/bin/sh\ncase $2 in\nls) echo sha256:1; echo sha256:2; echo sha256:1 ;;\n\
            inspect) shift 4; [ \"$*\" = 'sha256:1 sha256:2' ] && printf 'chain [\"sha256:x\"]\\nchain null\\n' ;;\nesac\n";
        fs::write(&docker, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&docker, mode).unwrap();
        let stock = asked(folder.path(), "docker", "", &[docker.to_str().unwrap()]);
        assert_eq!(stock.chains, Some(vec![vec!["sha256:x".to_string()]]));
    }

    #[test]
    fn thresholds_come_from_the_configuration_its_drop_ins_and_flags() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        let gc = || asked(here, "crictl", "", &[]).kubelet.unwrap();
        let path = here.join("kubelet.yaml");
        let with = format!("kubelet --v=2 --config={}", path.display());
        kubelet(here, &with);
        assert_eq!(gc(), KubeletGc::DEFAULT, "it cannot be read");
        fs::write(&path, "kind: KubeletConfiguration\nimageGCHighThresholdPercent: 70\nimageMaximumGCAge: 168h\n").unwrap();
        let mut expected = KubeletGc {
            high: 70,
            low: 80,
            max_age: Some("168h".into()),
            is_known: true,
        };
        assert_eq!(gc(), expected);
        fs::create_dir(here.join("conf.d")).unwrap();
        fs::write(
            here.join("conf.d/10.conf"),
            "{\n  \"imageGCHighThresholdPercent\": 60, \n\"imageMaximumGCAge\": \"0s\"}",
        )
        .unwrap();
        kubelet(
            here,
            &format!("{with} --config-dir {}", here.join("conf.d").display()),
        );
        (expected.high, expected.max_age) = (60, None);
        assert_eq!(gc(), expected);
        kubelet(
            here,
            &format!("{with} --image-gc-high-threshold 50 --image-gc-low-threshold=40"),
        );
        assert_eq!((gc().high, gc().low), (50, 40));
        kubelet(here, "k3s server --kubelet-arg=image-gc-high-threshold=55");
        assert_eq!((gc().high, gc().is_known), (55, true));
    }

    #[test]
    fn a_hostile_answer_is_no_fact() {
        let mut told = output(
            "kubelet 900 x y z\nsize 99999999999999999999\nchain {\nlayer ../..\nunseen \u{1b}[2J",
        );
        let stock = read(&told);
        assert_eq!(stock.kubelet.unwrap().high, 85);
        assert_eq!((stock.size, stock.layers), (None, None));
        told.truncated = true;
        assert_eq!(read(&told).chains, None);
    }
}
