//! Which of the digests that a runtime lists is the image's own.

use crate::model::{Image, is_digest};

/// The digest under which the image's own repository knows it.
///
/// One image may be listed under several repositories, and docker writes Docker Hub's names short
/// (`nginx@sha256:...`): each entry is parsed as a reference, which normalises it, and its repository must
/// be the image's. Another repository's digest would be true of the bytes but not of the name.
///
/// A repository may have several manifests of one image (pushed again with another compression): then
/// the digest that was asked for, else the one listed first.
pub(super) fn digest_of<'a>(
    image: &Image,
    repo_digests: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let own: Vec<&str> = repo_digests
        .into_iter()
        .filter_map(|entry| entry.split_once('@'))
        .filter(|(name, digest)| is_digest(digest) && is_name(image, name))
        .map(|(_, digest)| digest)
        .collect();
    let asked_for = own.iter().find(|digest| Some(**digest) == image.digest());
    asked_for.or(own.first()).map(ToString::to_string)
}

/// Whether this is the image's own repository, written in full as most of them are, or not.
fn is_name(image: &Image, name: &str) -> bool {
    name == image.name()
        || name
            .parse::<Image>()
            .is_ok_and(|other| other.name() == image.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(fill: char) -> String {
        format!("sha256:{}", fill.to_string().repeat(64))
    }

    #[test]
    fn only_the_images_own_repository_counts() {
        let entries = [
            format!("mirror.example/library/nginx@{}", digest('a')),
            format!("nginx@{}", digest('b')),
            format!("team/app@{}", digest('c')),
            "<none>@<none>".to_string(),
        ];
        let found =
            |name: &str| digest_of(&name.parse().unwrap(), entries.iter().map(String::as_str));
        assert_eq!(found("nginx:1.27"), Some(digest('b')));
        assert_eq!(found("docker.io/team/app"), Some(digest('c')));
        assert_eq!(found("mirror.example/library/nginx"), Some(digest('a')));
        assert_eq!(found("other.example/library/nginx"), None);
    }

    #[test]
    fn the_digest_that_was_asked_for_comes_before_others_of_the_repository() {
        let entries = [
            format!("reg.example/app@{}", digest('a')),
            format!("reg.example/app@{}", digest('b')),
        ];
        let list = || entries.iter().map(String::as_str);
        let pinned: Image = format!("reg.example/app:v1@{}", digest('b'))
            .parse()
            .unwrap();
        assert_eq!(digest_of(&pinned, list()), Some(digest('b')));
        assert_eq!(
            digest_of(&"reg.example/app:v1".parse().unwrap(), list()),
            Some(digest('a'))
        );
    }
}
