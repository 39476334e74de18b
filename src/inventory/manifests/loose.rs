//! What looks like an image where nothing says that a node pulls it: environment variables and arguments of operators,
//! settings in ConfigMaps. Named in warnings, never taken.

use super::super::error::Position;
use super::super::yaml::{Tree, Value};
use super::parts::{entry, text};
use super::reference::{Reference, has_registry, is_explicit};
use crate::model::Image;

/// What an image's name never ends with: other sorts of images, and documents.
const OTHERS: [&str; 14] = [
    ".png", ".svg", ".jpg", ".jpeg", ".gif", ".ico", ".webp", ".qcow2", ".iso", ".img", ".raw",
    ".vmdk", ".xz", ".gz",
];

/// Whether a key is named as one of an image is.
pub(super) fn is_image_key(key: &str) -> bool {
    if key.starts_with("image_") {
        return true;
    }
    let key = key.to_ascii_lowercase().replace(['_', '-'], "");
    let ends = [
        "image",
        "images",
        "imagename",
        "imageref",
        "imagereference",
        "imageurl",
        "imageuri",
    ];
    ends.iter().any(|end| key.ends_with(end))
}

/// Whether a text is more likely an image than something else that is called one.
pub(super) fn is_likely(text: &str) -> bool {
    image(text).is_some()
}

/// Whether a text names a file or is not a name at all.
pub(super) fn is_of_another_sort(text: &str) -> bool {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    text.contains("://") && !text.starts_with("ko://")
        || OTHERS.iter().any(|end| text.ends_with(end))
        || text.chars().all(is_number) && !text.is_empty()
        || matches!(text, "true" | "false")
}

/// Whether a text is an image whatever its field is called: a registry's host, a path, and a tag or a digest.
pub(super) fn is_whole(text: &str) -> bool {
    let Some((host, path)) = text.split_once('/') else {
        return false;
    };
    let (name, port) = host.split_once(':').unwrap_or((host, "0"));
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let top = name.rsplit('.').next().unwrap_or_default();
    let is_named = name.contains('.') && top.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_address = name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok();
    name.chars().all(is_host)
        && (is_named || is_address)
        && port.parse::<u16>().is_ok()
        && !path.starts_with('/')
        && is_explicit(text)
        && !is_source(text)
        && image(text).is_some()
}

/// Whether a text names a place that holds source code, not images.
pub(super) fn is_source(text: &str) -> bool {
    let host = text.split('/').next().unwrap_or_default();
    matches!(host, "github.com" | "gitlab.com" | "bitbucket.org")
}

fn image(text: &str) -> Option<Image> {
    let is_whole = is_explicit(text) || has_registry(text);
    match Reference::of(text) {
        Reference::Image(image) if is_whole && !is_of_another_sort(text) => Some(image),
        _ => None,
    }
}

/// Something that looks like an image and is not taken.
pub(super) struct LeftOut {
    pub(super) place: Position,
    /// Where it stands and how it is written.
    pub(super) what: String,
    pub(super) image: Option<Image>,
}

/// The environment and the arguments of a container: `RELATED_IMAGE_X`, `--config-reloader=IMAGE`.
pub(super) fn environment(tree: &Tree, list: Option<&str>) -> Vec<LeftOut> {
    let mut found = Vec::new();
    if list == Some("env") {
        let name = entry(tree, "name").and_then(text).unwrap_or_default();
        let value = entry(tree, "value").and_then(|value| Some((value.place, text(value)?)));
        let is_called = name.to_ascii_uppercase().contains("IMAGE");
        let value = value.filter(|(_, text)| is_called || is_whole(text));
        if let Some((place, image)) = value.and_then(|(place, text)| Some((place, image(text)?))) {
            let what = format!("the environment variable {name} \"{image}\"");
            found.push(LeftOut {
                place,
                what,
                image: Some(image),
            });
        }
    }
    for key in ["args", "command"] {
        let Some(Value::List(items)) = entry(tree, key).map(|tree| &tree.value) else {
            continue;
        };
        for item in items {
            let Some((option, value)) = text(item).and_then(|text| text.split_once('=')) else {
                continue;
            };
            let is_meant = is_image_key(option)
                || is_explicit(value) && has_registry(value) && value.matches('/').count() > 1;
            let is_option = option.starts_with('-') && !value.contains(',');
            if let Some(image) = image(value).filter(|_| is_option && is_meant) {
                let what = format!("the argument {option}=\"{image}\"");
                found.push(LeftOut {
                    place: item.place,
                    what,
                    image: Some(image),
                });
            }
        }
    }
    found
}

/// Why values for a chart are not taken.
pub(super) const OF_VALUES: &str = "left out, for these are values for a chart; give what it renders to: helm template CHART | prepull images -f -";

/// What the operator learns about each.
pub(super) const WHY: &str = "left out; name it too if this program has nodes pull it";

/// The settings in a ConfigMap: a field that is called an image, or a line `image: ...` in a file.
pub(super) fn config_map(tree: &Tree) -> Vec<LeftOut> {
    let mut found = Vec::new();
    let data = entry(tree, "data");
    let Some(Value::Map(entries)) = data.map(|tree| &tree.value) else {
        return found;
    };
    for (key, value) in entries {
        // Knative's settings explain themselves in a field of this name.
        let Some(written) = text(value).filter(|_| key.text != "_example") else {
            continue;
        };
        if is_image_key(&key.text) && is_likely(written) {
            let what = format!("data.{} \"{written}\"", key.text);
            found.push(LeftOut {
                place: value.place,
                what,
                image: image(written),
            });
            continue;
        }
        for (field, said) in settings(written) {
            if is_image_key(&field) && is_likely(&said) {
                let what = format!("data.{}, {field} \"{said}\"", key.text);
                found.push(LeftOut {
                    place: value.place,
                    what,
                    image: image(&said),
                });
            }
        }
    }
    found
}

/// The lines `KEY: VALUE` and `KEY=VALUE` of a file.
fn settings(text: &str) -> impl Iterator<Item = (String, String)> {
    let bare = |text: &str| {
        text.trim()
            .trim_end_matches(',')
            .trim_matches(['"', '\'', '-', ' '])
            .to_string()
    };
    let lines = text.lines().filter_map(|line| line.split_once([':', '=']));
    lines.map(move |(field, said)| (bare(field), bare(said)))
}

/// The values for a chart that stand in one text, as far as they name images: the first of them, and how many more.
pub(super) fn chart_values(text: &str) -> Option<(String, usize)> {
    let is_image = |(field, said): &(String, String)| {
        is_whole(said)
            || is_image_key(field) && is_likely(said)
            || field == "repository" && has_registry(said) && is_likely(said) && !is_source(said)
    };
    let mut found = settings(text).filter(is_image);
    let (field, said) = found.next()?;
    Some((format!("{field} \"{said}\""), found.count()))
}
