//! An image reference, parsed and normalised.
//!
//! The grammar is that of the distribution project (`reference/reference.go`, `normalize.go`), which
//! docker and containerd share: a first component with a dot, a colon or an upper-case letter, or
//! `localhost`, is the registry; without one it is Docker Hub, where bare names live in `library/`.

use std::fmt;
use std::str::FromStr;

/// A normalised reference: registry, repository, and a tag or a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Image {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
    /// All of it.
    text: String,
    /// Without the tag where there is a digest, if that is another text.
    exact: Option<String>,
}

/// Why a text is not an image reference, and what would be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{given}\" is not an image reference: {problem}")]
pub struct ImageError {
    /// What was given, escaped.
    pub given: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

const DEFAULT_REGISTRY: &str = "docker.io";
/// The grammar's limit for registry and repository together, in bytes.
const NAME_LIMIT: usize = 255;

impl Image {
    /// The registry's host and port, e.g. `docker.io` or `reg.example:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path within the registry, e.g. `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `None` only when there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that was asked for.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Registry and repository without tag or digest, as runtimes list `RepoDigests`.
    pub fn name(&self) -> &str {
        &self.text[..self.registry.len() + 1 + self.repository.len()]
    }

    /// A manifest of the same repository that no registry has. To pull it shows whether the registry can be reached,
    /// and brings nothing.
    pub fn nonexistent(&self) -> Self {
        let digest = format!("sha256:{}", "0".repeat(64));
        let text = format!("{}@{digest}", self.name());
        Self {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag: None,
            digest: Some(digest),
            text,
            exact: None,
        }
    }

    /// All of it, as [`fmt::Display`] writes it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As runtimes are asked for it. Full names (`docker.io/library/nginx:latest`) mean the same to every runtime,
    /// whatever its search list.
    ///
    /// By digest alone where there is one: docker and containerd ignore a tag beside it, and CRI-O refuses the pair.
    pub fn exact(&self) -> &str {
        self.exact.as_deref().unwrap_or(&self.text)
    }
}

impl fmt::Display for Image {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl FromStr for Image {
    type Err = ImageError;

    fn from_str(given: &str) -> Result<Self, ImageError> {
        parse(given).map_err(|problem| ImageError {
            given: super::text::escape_line(given).into_owned(),
            problem,
        })
    }
}

fn parse(given: &str) -> Result<Image, String> {
    if given.is_empty() {
        return Err("it is empty; write e.g. registry.example:5000/team/app:v1".into());
    }
    if let Some(scheme) = ["https://", "http://", "docker://", "oci://"]
        .into_iter()
        .find(|scheme| given.starts_with(scheme))
    {
        return Err(format!(
            "leave \"{scheme}\" out; write {}",
            &given[scheme.len()..]
        ));
    }
    let (rest, digest) = match given.split_once('@') {
        Some((rest, digest)) => (rest, Some(check_digest(digest)?)),
        None => (given, None),
    };
    // A colon after the last slash starts the tag; one before it belongs to the registry's port.
    let after_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[after_slash..].split_once(':') {
        Some((_, tag)) => {
            let name_end = rest.len() - tag.len() - 1;
            (&rest[..name_end], Some(check_tag(tag)?))
        }
        None => (rest, None),
    };
    let (registry, repository) = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => (check_registry(first)?, path.to_string()),
        Some(_) => (DEFAULT_REGISTRY.into(), name.to_string()),
        None => (DEFAULT_REGISTRY.into(), format!("library/{name}")),
    };
    // Docker Hub's older name for the same registry.
    let registry = if registry == "index.docker.io" {
        DEFAULT_REGISTRY.to_string()
    } else {
        registry
    };
    let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository
    };
    check_repository(&repository)?;
    if registry.len() + 1 + repository.len() > NAME_LIMIT {
        return Err(format!("its name is longer than {NAME_LIMIT} characters"));
    }
    let tag = match (&tag, &digest) {
        (None, None) => Some("latest".to_string()),
        _ => tag,
    };
    let mut text = format!("{registry}/{repository}");
    let exact = match (&tag, &digest) {
        (Some(_), Some(digest)) => Some(format!("{text}@{digest}")),
        _ => None,
    };
    for (mark, part) in [(':', &tag), ('@', &digest)] {
        if let Some(part) = part {
            text.push(mark);
            text.push_str(part);
        }
    }
    Ok(Image {
        registry,
        repository,
        tag,
        digest,
        text,
        exact,
    })
}

fn is_registry(component: &str) -> bool {
    component == "localhost"
        || component.contains(['.', ':', '['])
        || component.chars().any(|c| c.is_ascii_uppercase())
}

fn check_registry(text: &str) -> Result<String, String> {
    let wrong = |what: &str| {
        Err(format!(
            "{what} in the registry \"{}\"",
            super::text::escape_line(text)
        ))
    };
    let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let Some((address, after)) = bracketed.split_once(']') else {
            return wrong("an IPv6 address without its closing ]");
        };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return wrong("something that is no IPv6 address");
        }
        match after.strip_prefix(':') {
            Some(port) => (None, Some(port)),
            None if after.is_empty() => (None, None),
            None => return wrong("something between ] and the port"),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        }
    };
    let label_is_valid = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.is_some_and(|host| !host.split('.').all(label_is_valid)) {
        return wrong("a character that no host name has");
    }
    if port
        .is_some_and(|port| port.parse::<u16>().map_or(true, |n| n == 0) || port.starts_with('+'))
    {
        return wrong("a port that is not a number from 1 to 65535");
    }
    Ok(text.to_string())
}

fn check_repository(path: &str) -> Result<(), String> {
    if path.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(format!(
            "a repository is written in lower case: {}",
            super::text::escape_line(&path.to_lowercase())
        ));
    }
    for component in path.split('/') {
        if component.is_empty() {
            return Err("a part of its repository is empty".into());
        }
        if let Some(bad) = component
            .chars()
            .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-'))
        {
            return Err(format!(
                "a repository has only a-z, 0-9, and . _ - between them, not \"{}\"",
                super::text::escape_line(&bad.to_string())
            ));
        }
        if !has_valid_separators(component) {
            return Err(format!(
                "in \"{component}\" the separators stand wrong: one dot, one or two underscores, or hyphens, between letters or digits"
            ));
        }
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, given that only those characters are there.
fn has_valid_separators(component: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_alphanumeric();
    component.starts_with(is_alphanumeric)
        && component.ends_with(is_alphanumeric)
        && component
            .split(is_alphanumeric)
            .filter(|separator| !separator.is_empty())
            .all(|separator| {
                matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
            })
}

fn check_tag(tag: &str) -> Result<String, String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_valid = tag.len() <= 128
        && tag.starts_with(is_word)
        && tag.chars().all(|c| is_word(c) || c == '.' || c == '-');
    if is_valid {
        Ok(tag.to_string())
    } else {
        Err(format!(
            "\"{}\" is no tag: up to 128 letters, digits, and _ . - after the first",
            super::text::escape_line(tag)
        ))
    }
}

/// Whether a text is a digest: an algorithm that the grammar knows, and as many hexadecimal digits as it has.
pub fn is_digest(digest: &str) -> bool {
    let length = match digest.split_once(':') {
        Some(("sha256", _)) => 64,
        Some(("sha384", _)) => 96,
        Some(("sha512", _)) => 128,
        _ => 0,
    };
    let hex = digest.split_once(':').map_or("", |(_, hex)| hex);
    let is_hex = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    length > 0 && hex.len() == length && is_hex
}

fn check_digest(digest: &str) -> Result<String, String> {
    match is_digest(digest) {
        true => Ok(digest.to_string()),
        false => Err(format!(
            "\"{}\" is no digest: sha256: and 64 lower-case hexadecimal digits",
            super::text::escape_line(digest)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:512e2f267b7ba8a5e845e6440634f9854d1ee6274befced7fad948d1aa0b4f6e";

    #[test]
    fn references_are_normalised_as_docker_and_containerd_do() {
        for (given, expected) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("team/app", "docker.io/team/app:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/app:v1", "localhost/app:v1"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            (
                "reg.example:5000/team/app:v1",
                "reg.example:5000/team/app:v1",
            ),
            ("[2001:db8::7]:5000/app:v1", "[2001:db8::7]:5000/app:v1"),
            ("UPPER/app:v1", "UPPER/app:v1"),
            ("a__b/c-d.e_f:V1", "docker.io/a__b/c-d.e_f:V1"),
        ] {
            assert_eq!(
                given.parse::<Image>().unwrap().to_string(),
                expected,
                "{given}"
            );
        }
        let pinned: Image = format!("reg.example/app@{DIGEST}").parse().unwrap();
        assert_eq!(pinned.tag(), None);
        assert_eq!(pinned.digest(), Some(DIGEST));
        let both: Image = format!("reg.example/app:v1@{DIGEST}").parse().unwrap();
        assert_eq!(both.to_string(), format!("reg.example/app:v1@{DIGEST}"));
        assert_eq!(
            (both.registry(), both.name()),
            ("reg.example", "reg.example/app")
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (given, part) in [
            ("", "it is empty"),
            ("https://reg.example/app", "write reg.example/app"),
            ("reg.example/Team/App:v1", "lower case: team/app"),
            ("reg.example/app:v1:v2", "\"v1:v2\" is no tag"),
            ("reg.example/app:", "is no tag"),
            ("reg.example/app v1", "not \" \""),
            ("reg.example/app@sha256:abcd", "64 lower-case hexadecimal"),
            ("reg.example/app@md5:abcd", "is no digest"),
            ("reg.example:port/app", "from 1 to 65535"),
            ("reg..example/app", "no host name"),
            ("reg.example//app", "is empty"),
            ("reg.example/", "is empty"),
            ("a___b", "separators stand wrong"),
            ("-app", "separators stand wrong"),
            ("$(reboot)", "not \"$\""),
            ("reg.example/a\nb", "not \"\\n\""),
        ] {
            let error = given.parse::<Image>().expect_err(given).to_string();
            assert!(error.contains(part), "{given}: {error}");
        }
        let long = format!("reg.example/{}", "a".repeat(255));
        assert!(long.parse::<Image>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_normalised_for_good(given in ".{0,80}") {
            if let Ok(image) = given.parse::<Image>() {
                let again: Image = image.to_string().parse().unwrap();
                prop_assert_eq!(image, again);
            }
        }

        #[test]
        fn well_formed_references_keep_their_parts(
            host in "[a-z]{1,8}\\.[a-z]{2,5}", port in 1u16.., repository in "[a-z0-9]{1,9}(/[a-z0-9]{1,9}){0,3}", tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
        ) {
            let image: Image = format!("{host}:{port}/{repository}:{tag}").parse().unwrap();
            prop_assert_eq!(image.registry(), format!("{host}:{port}"));
            prop_assert_eq!(image.repository(), repository);
            prop_assert_eq!(image.tag(), Some(tag.as_str()));
        }
    }
}
