//! The names that containerd keeps of images which were pulled from a port of the node's own 127.0.0.1.

/// A script about the image that was pulled under the local name `$local`, with a function `images` that calls ctr:
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
