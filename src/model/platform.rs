//! Platforms as images name them, `os/architecture[/variant]`.

/// Whether an image for the platform `held` is one for `wanted`.
///
/// Several names for one architecture are equal, as containerd's `platforms.Normalize` has it. Runtimes often leave the
/// variant out, so a variant that either side does not name is not compared.
pub fn is_platform(held: &str, wanted: &str) -> bool {
    let (held, wanted) = (normal(held), normal(wanted));
    let names_no_variant = held[2].is_empty() || wanted[2].is_empty();
    held[..2] == wanted[..2] && (names_no_variant || held[2] == wanted[2])
}

/// System, architecture and variant.
fn normal(platform: &str) -> [String; 3] {
    let lower = platform.to_ascii_lowercase();
    let mut parts = lower.splitn(3, '/');
    let mut part = || parts.next().unwrap_or_default();
    let (os, architecture, variant) = (part(), part(), part());
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("i386" | "i486" | "i586" | "i686", _) => ("386", ""),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "7") => ("arm", "v7"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    let os = if os == "macos" { "darwin" } else { os };
    [os, architecture, variant].map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_platform_are_equal_and_others_are_not() {
        for (held, wanted) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/amd64", "Linux/x86_64"),
            ("linux/arm64", "linux/arm64/v8"),
            ("linux/arm64/v8", "linux/aarch64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v7", "linux/armhf"),
            ("linux/arm/v6", "linux/arm"),
        ] {
            assert!(is_platform(held, wanted), "{held} {wanted}");
            assert!(is_platform(wanted, held), "{wanted} {held}");
        }
        for (held, wanted) in [
            ("linux/amd64", "linux/arm64"),
            ("linux/arm/v7", "linux/arm64/v8"),
            ("linux/arm/v6", "linux/arm/v7"),
            ("linux/amd64/v3", "linux/amd64/v2"),
            ("windows/amd64", "linux/amd64"),
            ("", "linux/amd64"),
        ] {
            assert!(!is_platform(held, wanted), "{held} {wanted}");
            assert!(!is_platform(wanted, held), "{wanted} {held}");
        }
    }
}
