//! Keeping images from the kubelet's garbage collection: pins in containerd, and what to say where there are none.
//!
//! containerd 2.4 reports an image with the label `io.cri-containerd.pinned=pinned` as pinned through the CRI, as long as
//! one of the image's names has the label; 1.6 keeps the label and ignores it. CRI-O pins what its configuration names
//! (`pinned_images`), docker and podman have no pins.

use super::kubelet::with_gc;
use super::stock;
use crate::model::{CommandOutput, Image, KeepOutcome, KeptState, KubeletGc, RuntimeKind, text};
use crate::ports::{KeepRequest, NodeCommand};

/// The most of a node's reason that is taken, in bytes.
const REASON: usize = 300;

/// Pins an image, and reads the pin back: `KIND EXACT NAME UNTIL [CRICTL...]`. Prints `pinned`, `labelled` where the CRI
/// cannot be asked, or `unpinned` and why; then when the kubelet collects images.
///
/// A second label, `prepull.keep-until`, marks the pin as prepull's own, and says until when it is wanted: a time, or
/// `released`. A pin without it is left as it is. Where the pin has no effect the labels are taken off again: after an
/// upgrade of containerd they would pin an image that everybody has forgotten.
const KEEP: &str = with_gc!(
    r#"kind=$1 exact=$2 name=$3 until=$4
shift 4
label() { images label "$1" "io.cri-containerd.pinned=$2" "prepull.keep-until=$3" 2>&1 >/dev/null </dev/null; }
is_pinned() { "$@" inspecti -o json "$exact" 2>/dev/null | grep -q '"pinned": *true'; }
keep() {
    listed=$(images ls 2>&1) || { echo "unpinned ctr: $(printf '%s\n' "$listed" | tail -n 1)"; return; }
    digest=$(printf '%s\n' "$listed" | while read -r reference type found rest; do
        [ "$reference" != "$exact" ] || printf '%s\n' "$found"
    done)
    [ -n "$digest" ] || { echo "unpinned containerd has no image $exact in its namespace k8s.io"; return; }
    foreign=
    ours=
    for reference in "$exact" "$name@$digest"; do
        row=$(printf '%s\n' "$listed" | while read -r known rest; do
            [ "$known" != "$reference" ] || printf '%s\n' "$known $rest"
        done)
        case $row in
            '') ;;
            *prepull.keep-until=*) ours="$ours $reference" ;;
            *io.cri-containerd.pinned=pinned*) foreign=yes ;;
            *) ours="$ours $reference" ;;
        esac
    done
    [ -z "$foreign" ] || { echo 'pinned by something else, whose pin stays as it is'; return; }
    for reference in $ours; do
        said=$(label "$reference" pinned "$until") || { echo "unpinned ctr: $(printf '%s\n' "$said" | tail -n 1)"; return; }
    done
    [ $# -gt 0 ] || { echo labelled; return; }
    # The CRI hears of it a moment later.
    for pause in 0 1 2; do
        sleep "$pause"
        ! is_pinned "$@" || { echo pinned; return; }
    done
    for reference in $ours; do label "$reference" '' '' >/dev/null; done
    version=$("$@" version 2>/dev/null | sed -n 's/^RuntimeVersion: *//p')
    case $version in
        1.* | v1.*) echo "unpinned containerd $version ignores pins, which containerd 2 knows" ;;
        *) echo "unpinned the CRI of containerd $version does not report the pin, so it is off again" ;;
    esac
}
case $kind in
    crictl)
        address=$("$@" info 2>/dev/null | sed -n 's/^ *"containerdEndpoint": "\(.*\)".*/\1/p' | head -n 1)
        client=
        for words in ctr 'k3s ctr' 'k0s ctr' 'microk8s ctr'; do
            command -v "${words%% *}" >/dev/null && client=$words && break
        done
        images() { $client -a "$address" -n k8s.io images "$@"; }
        if [ -z "$address" ] && is_pinned "$@"; then
            echo 'pinned by the configuration of the CRI runtime'
        elif [ -z "$address" ]; then
            echo 'unpinned this CRI runtime pins only the images that its own configuration names (pinned_images in CRI-O)'
        elif [ -z "$client" ]; then
            echo 'unpinned the node has no ctr, which labels images in containerd'
        else
            keep "$@"
        fi
        ;;
    nerdctl | ctr)
        case $client in ctr | *' ctr') ;; *) client=ctr ;; esac
        images() { $client -n k8s.io images "$@"; }
        keep
        ;;
    skopeo) echo 'unpinned CRI-O pins only the images that its own configuration names (pinned_images)' ;;
    *) echo "unpinned $kind has no pins" ;;
esac
tell_kubelet"#
);

/// Lists or releases what prepull pinned: `MODE [IMAGE...]`, in every containerd that is found. Prints one line for each
/// name of an image.
const KEPT: &str = r#"mode=$0
client=
for words in ctr 'k3s ctr' 'k0s ctr' 'microk8s ctr'; do
    command -v "${words%% *}" >/dev/null && client=$words && break
done
[ -n "$client" ] || exit 0
code=0
for socket in "${CONTAINERD_ADDRESS-}" /run/k3s/containerd/containerd.sock /run/k0s/containerd.sock \
    /var/snap/microk8s/common/run/containerd.sock /run/containerd/containerd.sock; do
    [ -S "$socket" ] || continue
    images() { $client -a "$socket" -n k8s.io images "$@"; }
    listed=$(images ls) || { code=1; continue; }
    kept=$(printf '%s\n' "$listed" | sed -n 's/^\([^ ]*\)  *[^ ]*  *\(sha256:[0-9a-f]*\) .*prepull\.keep-until=\([^, ]*\).*/\1 \2 \3/p')
    while read -r reference digest until; do
        [ -n "$reference" ] || continue
        is_meant=
        [ $# -gt 0 ] || is_meant=yes
        for image in "$@"; do
            [ "$reference" != "$image" ] || is_meant=yes
            # The name by digest of an image that is given by its tag.
            [ "$reference" != "${image%:*}@$digest" ] || ! printf '%s\n' "$listed" | grep -F "$image " | grep -qF "$digest" || is_meant=yes
        done
        [ -n "$is_meant" ] || continue
        if [ "$mode" = list ]; then
            echo "$reference until $until"
        elif images label "$reference" io.cri-containerd.pinned= prepull.keep-until= >/dev/null </dev/null; then
            echo "released $reference"
        else
            code=1
        fi
    done <<END
$kept
END
done
exit $code"#;

/// The program that pins an image. crictl is asked through `client`; containerd's own clients have their environment.
pub(super) fn question<'a>(
    kind: RuntimeKind,
    request: &KeepRequest<'a>,
    client: &[&'a str],
) -> Vec<&'a str> {
    let image: &'a Image = request.image;
    let own = [
        "sh",
        "-c",
        KEEP,
        "sh",
        kind.as_str(),
        image.exact(),
        image.name(),
        request.until,
    ];
    [&own, client].concat()
}

/// Asks a node whose runtime has no pins when its kubelet collects images.
pub(super) fn without_pins<'a>(kind: RuntimeKind, request: &KeepRequest<'a>) -> NodeCommand<'a> {
    NodeCommand {
        argv: question(kind, request, &[]),
        environment: Vec::new(),
        secret: None,
        stdin: b"",
    }
}

/// The program that lists (`list`) or releases (`release`) what prepull pinned: these images, or all of them.
pub fn kept(mode: &str, images: &[Image]) -> Vec<String> {
    let words = ["sh", "-c", KEPT, mode].into_iter();
    words
        .chain(images.iter().map(Image::exact))
        .map(String::from)
        .collect()
}

/// Reads the answer to [`question`].
pub(super) fn read(output: &CommandOutput) -> KeepOutcome {
    let printed = String::from_utf8_lossy(&output.stdout);
    let told = printed.lines().find_map(|line| {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let state = match word {
            "pinned" => KeptState::Pinned,
            "labelled" => KeptState::Unconfirmed,
            "unpinned" => KeptState::NotPinned,
            _ => return None,
        };
        Some((state, text::truncate_bytes(rest.trim().as_bytes(), REASON)))
    });
    let (state, reason) = told.unwrap_or_else(|| {
        let said = text::truncate_bytes(output.stderr.trim_ascii(), REASON);
        (
            KeptState::NotPinned,
            format!("the node did not say whether it keeps the image: {said}"),
        )
    });
    let gc = stock::read(output).kubelet;
    let note = match state {
        KeptState::Pinned => reason,
        KeptState::Unconfirmed => format!(
            "labelled for containerd 2, which honours the label; without crictl on the node nothing confirms that; otherwise {}",
            KubeletGc::in_words(gc.as_ref())
        ),
        KeptState::NotPinned => format!("{reason}; {}", KubeletGc::in_words(gc.as_ref())),
    };
    KeepOutcome {
        state,
        note: Some(note).filter(|note| !note.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ExitStatus;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::process::Command;

    const DIGEST: &str = "sha256:02affdb46852f3ded94355aea3e5a3a478f2e5ae3fb16222756b0d06f688649f";
    const NAME: &str = "registry.lab:5000/team/app";

    /// Keeps names and labels in a file, and prints them as ctr 2.4 does (`tests/fixtures/transcripts/ctr-24.jsonl`).
    const CTR: &str = r#"#!/bin/sh
names=$(dirname "$0")/names
[ -e "$names" ] || { echo 'ctr: failed to dial: permission denied' >&2; exit 1; }
while [ "$1" != images ]; do shift; done
case $2 in
    ls)
        echo 'time="2026-11-27T13:03:27Z" level=warning msg="DEPRECATION"' >&2
        echo 'REF TYPE DIGEST SIZE PLATFORMS LABELS'
        while read -r name labels; do
            echo "$name     application/vnd.docker.distribution.manifest.v2+json DIGEST 11.5 MiB linux/amd64 ${labels:--} "
        done <"$names"
        ;;
    label)
        name=$3
        shift 3
        for pair; do
            awk -v name="$name" -v pair="$pair" '$1 != name { print; next } {
                key = pair; sub(/=.*/, "=", key); count = split($2, all, ","); out = ""
                for (i = 1; i <= count; i++) if (index(all[i], key) != 1) out = out "," all[i]
                if (pair != key) out = out "," pair
                print $1, substr(out, 2)
            }' "$names" >"$names.new" && mv "$names.new" "$names"
        done
        ;;
esac
"#;

    /// Knows pins from version 2 on.
    const CRICTL: &str = r#"#!/bin/sh
here=$(dirname "$0")
case $1 in
    info) cat "$here/info" ;;
    version) printf 'RuntimeName:  containerd\nRuntimeVersion:  %s\n' "$(cat "$here/version")" ;;
    inspecti)
        pinned=false
        case $(cat "$here/version") in 2.*) ! grep -q pinned=pinned "$here/names" || pinned=true ;; esac
        printf '{\n  "status": {\n    "pinned": %s\n' "$pinned"
        ;;
esac
"#;

    fn place(version: &str, names: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        write("ctr", &CTR.replace("DIGEST 11", &format!("{DIGEST} 11")));
        write("crictl", CRICTL);
        write("version", version);
        write(
            "info",
            "    \"containerdEndpoint\": \"/run/containerd/containerd.sock\",\n",
        );
        write("names", names);
        folder
    }

    fn run(folder: &Path, words: &[&str]) -> CommandOutput {
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let answer = Command::new(words[0])
            .args(&words[1..])
            .env("PATH", path)
            .env("CONTAINERD_ADDRESS", folder.join("containerd.sock"))
            .output()
            .unwrap();
        CommandOutput {
            exit: ExitStatus::Code(answer.status.code().unwrap_or(255).try_into().unwrap()),
            stdout: answer.stdout,
            stderr: answer.stderr,
            truncated: false,
        }
    }

    fn ask(folder: &Path, kind: RuntimeKind) -> KeepOutcome {
        let image: Image = format!("{NAME}:v1").parse().unwrap();
        let request = KeepRequest {
            image: &image,
            until: "2026-12-05T00:00:00Z",
            endpoint: None,
        };
        let client: &[&str] = match kind {
            RuntimeKind::Crictl => &["crictl"],
            _ => &[],
        };
        let mut words = question(kind, &request, client);
        // The environment of containerd's clients.
        let script = format!("client=ctr; {KEEP}");
        words[2] = &script;
        read(&run(folder, &words))
    }

    fn names(folder: &Path) -> String {
        fs::read_to_string(folder.join("names")).unwrap()
    }

    /// As the CRI of containerd leaves them, and another tag.
    fn as_pulled() -> String {
        format!("{NAME}:v1 a=b\n{NAME}@{DIGEST} a=b\n{NAME}:old a=b\nsha256:91b7 a=b\n")
    }

    #[test]
    fn a_pin_is_on_both_names_is_read_back_and_comes_off_all_of_them() {
        let folder = place("2.4.0", &as_pulled());
        let kept_now = ask(folder.path(), RuntimeKind::Crictl);
        assert_eq!((kept_now.state, kept_now.note), (KeptState::Pinned, None));
        let label = "a=b,io.cri-containerd.pinned=pinned,prepull.keep-until=2026-12-05T00:00:00Z";
        let pinned = format!(
            "{NAME}:v1 {label}\n{NAME}@{DIGEST} {label}\n{NAME}:old a=b\nsha256:91b7 a=b\n"
        );
        assert_eq!(names(folder.path()), pinned);
        // Once more, for longer: still ours.
        assert_eq!(
            ask(folder.path(), RuntimeKind::Crictl).state,
            KeptState::Pinned
        );

        let _socket = UnixListener::bind(folder.path().join("containerd.sock")).unwrap();
        let act = |mode: &str, images: &[&str]| {
            let images: Vec<Image> = images.iter().map(|image| image.parse().unwrap()).collect();
            let words = kept(mode, &images);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let output = run(folder.path(), &words);
            assert!(output.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let listed = format!(
            "{NAME}:v1 until 2026-12-05T00:00:00Z\n{NAME}@{DIGEST} until 2026-12-05T00:00:00Z\n"
        );
        assert_eq!(act("list", &[]), listed);
        for mode in ["list", "release"] {
            assert_eq!(act(mode, &["registry.lab:5000/team/other:v1"]), "");
        }
        // A pin that something else made stays.
        let pause = "registry.k8s.io/pause:3.10 io.cri-containerd.pinned=pinned\n";
        let pinned = pinned + pause;
        fs::write(folder.path().join("names"), &pinned).unwrap();
        assert_eq!(names(folder.path()), pinned);
        let image = format!("{NAME}:v1");
        let released = format!("released {NAME}:v1\nreleased {NAME}@{DIGEST}\n");
        assert_eq!(act("release", &[&image]), released);
        assert_eq!(names(folder.path()), as_pulled() + pause);
        assert_eq!(act("list", &[]), "");
        assert_eq!(act("release", &[]), "");
    }

    #[test]
    fn a_label_without_effect_is_taken_off_and_told() {
        let folder = place("1.6.20~ds1", &as_pulled());
        let KeepOutcome { state, note } = ask(folder.path(), RuntimeKind::Crictl);
        assert_eq!(state, KeptState::NotPinned);
        let note = note.unwrap();
        assert!(
            note.starts_with("containerd 1.6.20~ds1 ignores pins, which containerd 2 knows; "),
            "{note}"
        );
        assert!(note.contains("kubelet"), "{note}");
        assert_eq!(names(folder.path()), as_pulled());
    }

    #[test]
    fn a_pin_of_something_else_stays_as_it_is() {
        let foreign = format!("{NAME}:v1 io.cri-containerd.pinned=pinned\n");
        let folder = place("2.4.0", &foreign);
        let KeepOutcome { state, note } = ask(folder.path(), RuntimeKind::Crictl);
        assert_eq!(state, KeptState::Pinned);
        assert!(note.unwrap().contains("by something else"));
        assert_eq!(names(folder.path()), foreign);
    }

    #[test]
    fn where_nothing_can_pin_that_is_said() {
        let folder = place("2.4.0", &as_pulled());
        let note = |kind| {
            let KeepOutcome { state, note } = ask(folder.path(), kind);
            (state, note.unwrap())
        };
        let (state, said) = note(RuntimeKind::Ctr);
        assert_eq!(state, KeptState::Unconfirmed);
        assert!(said.contains("without crictl"), "{said}");
        let (state, said) = note(RuntimeKind::Docker);
        assert_eq!(state, KeptState::NotPinned);
        assert!(said.starts_with("docker has no pins; "), "{said}");
        fs::write(folder.path().join("info"), "{}").unwrap();
        fs::write(folder.path().join("names"), as_pulled()).unwrap();
        let (state, said) = note(RuntimeKind::Crictl);
        assert_eq!(state, KeptState::NotPinned);
        assert!(said.contains("pinned_images in CRI-O"), "{said}");
        // As CRI-O reports an image that its configuration names.
        fs::write(folder.path().join("names"), "pinned=pinned\n").unwrap();
        let (state, said) = note(RuntimeKind::Crictl);
        assert_eq!(state, KeptState::Pinned);
        assert!(said.contains("configuration"), "{said}");
        let full = place("2.4.0", "");
        fs::remove_file(full.path().join("names")).unwrap();
        let said = ask(full.path(), RuntimeKind::Crictl).note.unwrap();
        assert!(said.contains("permission denied"), "{said}");
        let gone = place("2.4.0", "other:v1 a=b\n");
        let said = ask(gone.path(), RuntimeKind::Crictl).note.unwrap();
        assert!(said.contains("has no image"), "{said}");
    }
}
