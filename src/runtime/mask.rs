//! Takes the names out of a message before it is classified: an image may be called `denied/429`.
//!
//! What a message is about (references, addresses, paths, digests, media types) is chosen by people and
//! registries; what went wrong is said in plain words around it. Words that hold a `/`, `.`, `:` or `@` in
//! their middle are names and become `~`; so does a bare name in the places where a runtime puts one.

use crate::model::Image;

/// What stands for a name.
const MASK: &str = "~";

/// Beyond this many bytes a message is not read: causes stand at its start.
const LIMIT: usize = 32 * 1024;

/// Plain words that look like names.
const KEPT: [&str; 6] = [
    "i/o",
    "input/output",
    "archive/tar",
    "net/http",
    "text/html",
    "username/password",
];

/// After these words stands a name, whatever it looks like: `lookup HOST`, `pulling from host HOST`,
/// `[manifests TAG]`.
const BEFORE_ANY_NAME: [&str; 3] = ["lookup", "host", "[manifests"];

/// The same for pairs of words: `pull access denied for NAME`, `reading manifest TAG in NAME`.
const PAIRS_BEFORE_ANY_NAME: [[&str; 2]; 2] = [["denied", "for"], ["reading", "manifest"]];

/// After these words a word that is a part of the image's own name is that name, unless the two together
/// are a cause (`name unknown`, `tag invalid`).
const BEFORE_OWN_NAME: [&str; 9] = [
    "artifact",
    "by",
    "for",
    "from",
    "image",
    "in",
    "name",
    "repository",
    "tag",
];

/// The message in lower case with every name masked; its lines stay lines.
pub(super) fn plain(text: &str, image: Option<&Image>) -> String {
    let own = image.map(own_parts).unwrap_or_default();
    let mut end = text.len().min(LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let lower = text[..end].to_ascii_lowercase();
    let mut out = String::with_capacity(lower.len());
    for line in lower.lines() {
        let mut before = ["", ""];
        for word in line.split_whitespace() {
            if !out.is_empty() && !out.ends_with('\n') {
                out.push(' ');
            }
            mask_word(word, before, &own, &mut out);
            before = [before[1], word];
        }
        out.push('\n');
    }
    out
}

/// The pieces of the image's name that a message may show alone.
fn own_parts(image: &Image) -> Vec<String> {
    let repository = image.repository();
    let last = repository.rsplit('/').next().unwrap_or(repository);
    let host = image.registry().split(':').next().unwrap_or_default();
    [Some(repository), Some(last), Some(host), image.tag()]
        .into_iter()
        .flatten()
        .map(str::to_ascii_lowercase)
        .collect()
}

fn mask_word(word: &str, before: [&str; 2], own: &[String], out: &mut String) {
    // A registry's JSON, printed as it came: its fields are words of their own.
    if word.starts_with("{\"") || word.starts_with("[{\"") {
        let spaced: String = word
            .chars()
            .map(|c| {
                if "{}[]\",".contains(c) || (c == ':' && word.contains("\":\"")) {
                    ' '
                } else {
                    c
                }
            })
            .collect();
        let mut before = ["", before[1]];
        for (index, part) in spaced.split_whitespace().enumerate() {
            if index > 0 {
                out.push(' ');
            }
            mask_word(part, before, own, out);
            before = [before[1], part];
        }
        return;
    }
    let core = word.trim_matches(|c: char| "()[]{}<>\"'`:;,.!?=".contains(c));
    let is_own = own.iter().any(|part| part == core) && !["unknown", "invalid"].contains(&core);
    let is_name = (looks_like_name(core) && !KEPT.contains(&core))
        || BEFORE_ANY_NAME.contains(&before[1])
        || PAIRS_BEFORE_ANY_NAME.contains(&before)
        || (is_own && BEFORE_OWN_NAME.contains(&before[1].trim_end_matches(':')));
    if core.is_empty() || !is_name {
        out.push_str(word);
        return;
    }
    // What the image is made of decides: no store has taken its first format for long.
    out.push_str(if core.contains("distribution.manifest.v1+") {
        "schema 1"
    } else {
        MASK
    });
    // Quotes and brackets go with the name; what follows a name (`NAME: not found`) says what it is.
    if word.ends_with([':', ',', ';']) {
        out.push_str(&word[word.len() - 1..]);
    }
}

fn looks_like_name(core: &str) -> bool {
    if core.starts_with("text/html") {
        return false;
    }
    core.contains(['/', '@', ':', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_paths_and_digests_are_gone() {
        for (text, expected) in [
            (
                "Head \"http://127.0.0.1:5000/v2/denied/app/manifests/v1\": no basic auth credentials",
                "head ~: no basic auth credentials",
            ),
            (
                "pulling from host 127.0.0.1:5100 failed with status code [manifests 503]: 429 Too Many Requests",
                "pulling from host ~ failed with status code [manifests ~: 429 too many requests",
            ),
            (
                "read tcp [::1]:35472->[::1]:5450: read: connection reset by peer",
                "read tcp ~: read: connection reset by peer",
            ),
            (
                "write /run/429/data: no space left on device",
                "write ~: no space left on device",
            ),
            (
                "dial tcp: lookup denied on 127.0.0.53:53: no such host",
                "dial tcp: lookup ~ on ~: no such host",
            ),
            (
                "from remote (text/html): i/o timeout",
                "from remote (text/html): i/o timeout",
            ),
        ] {
            assert_eq!(plain(text, None).trim_end(), expected, "{text}");
        }
    }

    #[test]
    fn the_images_own_short_names_are_gone_where_a_runtime_puts_them() {
        let image: Image = "denied".parse().unwrap();
        assert_eq!(
            plain(
                "pull access denied for denied, repository does not exist",
                Some(&image)
            )
            .trim_end(),
            "pull access denied for ~, repository does not exist"
        );
        let image: Image = "reg.example/denied:unauthorized".parse().unwrap();
        assert_eq!(
            plain(
                "The repository with name 'denied' does not exist",
                Some(&image)
            )
            .trim_end(),
            "the repository with name ~ does not exist"
        );
        assert_eq!(
            plain(
                "reading manifest unauthorized in reg.example/denied: denied: no",
                Some(&image)
            )
            .trim_end(),
            "reading manifest ~ in ~: denied: no",
            "the cause stays"
        );
    }

    #[test]
    fn a_registrys_json_becomes_words() {
        assert_eq!(
            plain(
                "{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"no\"}]}",
                None
            )
            .trim_end(),
            "errors code unauthorized message no"
        );
    }
}
