//! Where CRI-O keeps its images, for clients that share its store without asking it.

/// A script that begins with the function `read_storage FILE...`: sets `root`, `run` and `driver` to what these files
/// say, or to nothing. A later file wins. It reads CRI-O's files (crio.conf(5)) and containers-storage.conf(5), which
/// have other names for the same things.
macro_rules! with_storage {
    ($script:expr) => {
        concat!(
            r#"root=
run=
driver=
read_storage() {
    for file do
        [ -f "$file" ] || continue
        own=$(sed -n 's/^ *\(graph\)\{0,1\}root *= *"\(.*\)".*/\2/p' "$file")
        root=${own:-$root}
        own=$(sed -n 's/^ *runroot *= *"\(.*\)".*/\1/p' "$file")
        run=${own:-$run}
        own=$(sed -n 's/^ *\(storage_\)\{0,1\}driver *= *"\(.*\)".*/\2/p' "$file")
        driver=${own:-$driver}
    done
}
"#,
            $script
        )
    };
}
pub(super) use with_storage;
