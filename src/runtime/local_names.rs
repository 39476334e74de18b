//! The names of images that were pulled from a port of the node's own 127.0.0.1: such a name is replaced by the image's
//! own.

use crate::model::Failure;
use crate::ports::{Naming, NodeCommand};

/// For containerd, a script about the image that was pulled under the local name `$local`, with a function `images` that calls ctr:
/// `forget` removes the local names of all ports, as a node that lost its power may have kept one. A reference by the
/// configuration's digest, which the CRI makes for each image, goes with the last name.
macro_rules! with_local_names {
    ($script:expr) => {
        concat!(
            r#"digest=${local#*@}
repository=${local#*/}
repository=${repository%@*}
names() {
    images ls | while read -r reference kind found rest; do
        [ "$found" != "$digest" ] || printf '%s\n' "$reference"
    done
}
forget() {
    all=$(names)
    others=
    for reference in $all; do
        case $reference in
            127.0.0.1:*/"$repository@$digest") images rm "$reference" >/dev/null || return ;;
            sha256:*) ;;
            *) others=yes ;;
        esac
    done
    [ -z "$others" ] || return 0
    for reference in $all; do
        case $reference in sha256:*) images rm "$reference" >/dev/null ;; esac
    done
}
"#,
            $script
        )
    };
}
pub(super) use with_local_names;

/// For docker and podman, the commands of [`crate::ports::Runtime::naming`]: `script` is called with
/// `MODE LOCAL TAGGED ENDPOINT ARGUMENTS...`, where MODE is check, name or forget.
///
/// Neither client can tag an image with a digest. Such a name is left by a pull, which finds everything there: `pull` has
/// the client's arguments for it, its login and its input.
pub(super) fn by_tag<'a>(
    script: &'a str,
    naming: &Naming<'a>,
    pull: Result<NodeCommand<'a>, Failure>,
) -> Result<[NodeCommand<'a>; 3], Failure> {
    let image = naming.request.image;
    let endpoint = naming.request.endpoint.unwrap_or_default();
    let argv = |mode: &'a str, tagged: &'a str| {
        let local = naming.local.as_str();
        vec!["sh", "-c", script, "sh", mode, local, tagged, endpoint]
    };
    let command = |mode: &'a str, tagged: &'a str| NodeCommand {
        argv: argv(mode, tagged),
        environment: Vec::new(),
        secret: None,
        stdin: b"",
    };
    let name = match image.digest() {
        None => command("name", image.as_str()),
        Some(_) => {
            let pull = pull?;
            NodeCommand {
                argv: [argv("name", ""), pull.argv].concat(),
                ..pull
            }
        }
    };
    Ok([command("check", ""), name, command("forget", "")])
}
