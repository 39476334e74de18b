//! The keys that logins stand under, and how well each is for an image. Docker Hub has several names, a key may name a
//! path, and Kubernetes allows wildcards.

use regex::Regex;

use crate::model::Image;

const DOCKER_HUB: &str = "docker.io";

/// Who wrote the keys, which says what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    /// docker, whose keys are hosts or URLs with a path that means nothing (`https://index.docker.io/v1/`), or podman,
    /// whose keys may have a path of which the longest wins (containers-auth.json(5)).
    Files,
    /// A pull secret, read as the kubelet does: patterns in the host, and any path is a prefix.
    PullSecret,
}

/// How well a key is for an image; the greatest wins.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fit(usize, String);

impl Keys {
    /// `None` when the key is not for the image at all.
    pub(super) fn fit(self, key: &str, image: &Image) -> Option<Fit> {
        match self {
            Self::Files => fit_of_files(key, image),
            Self::PullSecret => fit_of_kubelet(key, image),
        }
    }
}

/// A registry's host and port in lower case, Docker Hub under one name.
pub(super) fn host_of(key: &str) -> String {
    split(key).1
}

/// Whether there was a scheme, the host, and what follows its slash.
fn split(key: &str) -> (bool, String, &str) {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let (host, path) = bare
        .unwrap_or(key)
        .split_once('/')
        .unwrap_or((bare.unwrap_or(key), ""));
    let host = host.to_ascii_lowercase();
    let host = match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_string(),
        _ => host,
    };
    (bare.is_some(), host, path)
}

fn fit_of_files(key: &str, image: &Image) -> Option<Fit> {
    let (has_scheme, host, path) = split(key);
    let path = path.trim_end_matches('/');
    // docker's URLs end in the version of its API, which is not a path of an image.
    let path = if has_scheme || matches!(path, "v1" | "v2") {
        ""
    } else {
        path
    };
    let after = image.repository().strip_prefix(path)?;
    let whole = path.is_empty() || after.is_empty() || after.starts_with('/');
    (whole && host == host_of(image.registry())).then(|| Fit(path.len(), String::new()))
}

/// As the kubelet's keyring: the key that is last in the alphabet wins, which of two nested paths is the longer one,
/// and of a host and a pattern the host. Docker Hub's own key is used where no other is.
fn fit_of_kubelet(key: &str, image: &Image) -> Option<Fit> {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let (host, path) = bare.find('/').map_or((bare, ""), |at| bare.split_at(at));
    let is_versioned = path.starts_with("/v1/") || path.starts_with("/v2/");
    let path = if is_versioned { &path[3..] } else { path };
    let path = if path == "/" { "" } else { path };
    let target = format!("/{}", image.repository());
    if target.starts_with(path) && hosts_match(host, image.registry()) {
        return Some(Fit(1, format!("{host}{path}")));
    }
    let is_hub = host == "index.docker.io" && path.is_empty();
    (is_hub && image.registry() == DOCKER_HUB).then(|| Fit(0, String::new()))
}

/// Each part between dots is a pattern of its own; ports are equal or both missing.
fn hosts_match(pattern: &str, host: &str) -> bool {
    let ((pattern, pattern_port), (host, port)) = (port_of(pattern), port_of(host));
    let (patterns, parts) = (pattern.split('.'), host.split('.'));
    pattern_port == port
        && patterns.clone().count() == parts.clone().count()
        && patterns.zip(parts).all(|(pattern, part)| {
            Regex::new(&expression(pattern)).is_ok_and(|pattern| pattern.is_match(part))
        })
}

fn port_of(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, Some(port)),
        _ => (host, None),
    }
}

/// `*`, `?` and `[...]` as in Go's path.Match, which the kubelet uses.
fn expression(pattern: &str) -> String {
    let mut out = String::from("(?s)^");
    let mut in_class = false;
    for character in pattern.chars() {
        match character {
            '[' if !in_class => in_class = true,
            ']' => in_class = false,
            '*' if !in_class => {
                out.push_str(".*");
                continue;
            }
            '?' if !in_class => {
                out.push('.');
                continue;
            }
            '-' | '^' if in_class => {}
            other => {
                out.push_str(&regex::escape(other.encode_utf8(&mut [0; 4])));
                continue;
            }
        }
        out.push(character);
    }
    out.push('$');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best<'a>(keys: &[&'a str], image: &str) -> Option<&'a str> {
        let image: Image = image.parse().unwrap();
        let fits = keys
            .iter()
            .filter_map(|key| Some((Keys::PullSecret.fit(key, &image)?, *key)));
        fits.max().map(|(_, key)| key)
    }

    /// Cases of the kubelet's own tests (`pkg/credentialprovider/keyring_test.go`), in our words.
    #[test]
    fn pull_secrets_are_matched_as_the_kubelet_does() {
        for (key, image, fits) in [
            ("*.example.com", "reg.example.com/app", true),
            ("*.example.com", "example.com/app", false),
            ("*.example.com", "a.b.example.com/app", false),
            ("*.*.example.com", "a.b.example.com/app", true),
            ("reg*.example.com", "reg12.example.com/app", true),
            ("r?g.example.com", "rug.example.com/app", true),
            ("r[a-e]g.example.com", "rug.example.com/app", false),
            ("r[s-v]g.example.com", "rug.example.com/app", true),
            ("r[.example.com", "rug.example.com/app", false),
            ("*.example.com:5000", "reg.example.com:5000/app", true),
            ("*.example.com", "reg.example.com:5000/app", false),
            ("*.example.com:5000", "reg.example.com/app", false),
            ("reg.example.com/team", "reg.example.com/team/app", true),
            ("reg.example.com/team", "reg.example.com/teams/app", true),
            ("reg.example.com/team", "reg.example.com/other/app", false),
            ("https://reg.example.com/v1/", "reg.example.com/app", true),
            (
                "https://reg.example.com/v2/team",
                "reg.example.com/team/app",
                true,
            ),
            (
                "https://reg.example.com/other/",
                "reg.example.com/app",
                false,
            ),
            ("reg.example.com/*", "reg.example.com/app", false),
            ("https://index.docker.io/v1/", "nginx", true),
            ("index.docker.io", "docker.io/team/app", true),
            ("docker.io", "nginx", true),
            ("*.io", "nginx", true),
            ("*.io", "quay.io/app", true),
            ("https://index.docker.io/v1/", "quay.io/nginx", false),
        ] {
            assert_eq!(best(&[key], image).is_some(), fits, "{key} for {image}");
        }
    }

    #[test]
    fn of_several_keys_the_closest_wins() {
        let keys = [
            "*.example.com",
            "reg.example.com",
            "reg.example.com/team",
            "reg.example.com/team/app",
            "https://index.docker.io/v1/",
            "*.io",
        ];
        for (image, key) in [
            ("reg.example.com/team/app", "reg.example.com/team/app"),
            ("reg.example.com/team/web", "reg.example.com/team"),
            ("reg.example.com/web", "reg.example.com"),
            ("web.example.com/web", "*.example.com"),
            ("nginx", "*.io"),
        ] {
            assert_eq!(best(&keys, image), Some(key), "{image}");
        }
        assert_eq!(best(&keys[..5], "nginx"), Some(keys[4]));
    }
}
