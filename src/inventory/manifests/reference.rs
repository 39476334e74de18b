//! What the text of an `image` is: a reference, or something that another program replaces first.

use crate::model::{Image, ImageError};

/// What a text is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// An image.
    Image(Image),
    /// An action of a Go template: `{{ .Values.image }}`.
    Template,
    /// Something that is filled in before the manifest is applied: what, and how.
    Placeholder(&'static str, Filler),
    /// Something that the cluster fills in, once the manifest is applied.
    Late(&'static str),
    /// A pattern of a policy.
    Pattern,
    /// None of these.
    Other(ImageError),
}

/// What fills a placeholder in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filler {
    /// `oc process`, for parameters of an OpenShift template; `envsubst` for anything else.
    Variables,
    /// `ko resolve`.
    Ko,
    /// `kustomize build`, or whatever script does it.
    Script,
}

impl Filler {
    /// The command that prints what is going to run.
    pub(super) fn command(self, file: &str, in_template: bool) -> String {
        match self {
            Self::Variables if in_template => format!("oc process -f {file} | prepull images -f -"),
            Self::Variables => format!("envsubst <{file} | prepull images -f -"),
            Self::Ko => format!("ko resolve -f {file} | prepull images -f -"),
            Self::Script => {
                "kustomize build DIR | prepull images -f -, or what else fills it in".into()
            }
        }
    }
}

/// Words that stand where a name or a tag is going to.
const WORDS: [&str; 15] = [
    "IMAGE",
    "IMAGE_NAME",
    "IMAGE_TAG",
    "IMAGE_URL",
    "TAG",
    "VERSION",
    "REGISTRY",
    "REPOSITORY",
    "REPO",
    "PLACEHOLDER",
    "TODO",
    "FIXME",
    "CHANGEME",
    "CHANGE_ME",
    "XXX",
];

impl Reference {
    /// What a text is.
    pub(super) fn of(text: &str) -> Self {
        if text.trim().is_empty() {
            return Self::Late("nothing stands here; an image trigger or a webhook may fill it in");
        }
        if text == "auto" {
            return Self::Late("\"auto\" is a placeholder that Istio's injection fills in");
        }
        if text.contains("{{") {
            return Self::of_braces(text);
        }
        if text.starts_with("ko://") {
            return Self::Placeholder(
                "ko:// names Go source that ko builds into an image",
                Filler::Ko,
            );
        }
        if text.contains("$(") {
            return Self::Late("it is a parameter that is filled in when it runs");
        }
        if text.contains('$') {
            return Self::Placeholder(
                "it holds a variable that was never filled in",
                Filler::Variables,
            );
        }
        if is_placeholder(text) {
            return Self::Placeholder(
                "it is a placeholder that was never filled in",
                Filler::Script,
            );
        }
        if text.contains(['*', '?', '|', '!']) {
            return Self::Pattern;
        }
        match text.parse() {
            Ok(image) => Self::Image(image),
            Err(error) => Self::Other(error),
        }
    }

    /// Go templates name fields (`.Values`), functions and variables; what Argo fills in names its own objects.
    fn of_braces(text: &str) -> Self {
        let mut insides = text.split("{{").skip(1);
        let argo = [
            "inputs.",
            "workflow.",
            "steps.",
            "tasks.",
            "item",
            "pod.",
            "retries",
            "outputs.",
            "cronworkflow.",
            "=",
        ];
        let is_late = |inside: &str| {
            let inside = inside.trim_start_matches('-').trim_start();
            argo.iter().any(|start| inside.starts_with(start))
        };
        if insides.all(is_late) {
            return Self::Late("it is a parameter that is filled in when it runs");
        }
        Self::Template
    }
}

/// Whether a text names its tag or digest.
pub(super) fn is_explicit(text: &str) -> bool {
    let last = text.rsplit('/').next().unwrap_or_default();
    last.contains([':', '@'])
}

/// Whether a text has a registry's host in it.
pub(super) fn has_registry(text: &str) -> bool {
    let first = text.split_once('/').map(|(first, _)| first);
    first.is_some_and(|first| first == "localhost" || first.contains(['.', ':']))
}

fn is_placeholder(text: &str) -> bool {
    let marked = |open: &str, close: &str| {
        let inside = text.split_once(open).map(|(_, rest)| rest);
        inside.is_some_and(|rest| rest.contains(close))
    };
    if marked("<", ">")
        || marked("%", "%")
        || marked("@@", "@@")
        || marked("#{", "}")
        || marked("{", "}")
        || marked("[[", "]]")
        || marked("((", "))")
    {
        return true;
    }
    if text.contains(' ') && !text.contains(|c: char| c.is_ascii_lowercase()) {
        return true;
    }
    let mut words = text.split(['/', ':', '@']);
    let dunder = |word: &str| {
        let inside = word.split_once("__").map(|(_, rest)| rest);
        inside.is_some_and(|rest| {
            let inside = rest.split_once("__").map(|(inside, _)| inside);
            inside.is_some_and(|inside| {
                !inside.is_empty() && !inside.contains(|c: char| c.is_ascii_lowercase())
            })
        })
    };
    let capitals = |word: &str| {
        let parts = word.to_ascii_uppercase().replace('-', "_");
        WORDS.contains(&word)
            || [
                "REPLACE_ME",
                "REPLACEME",
                "CHANGE_ME",
                "CHANGEME",
                "PLACEHOLDER",
            ]
            .contains(&parts.as_str())
            || ["REPLACE_", "YOUR_", "MY_", "IMAGE_", "INSERT_"]
                .iter()
                .any(|start| word.starts_with(start))
            || parts.starts_with("YOUR_") && word.starts_with(|c: char| c.is_ascii_uppercase())
            || word.ends_with("_IMAGE")
            || word.ends_with("_TAG")
            || word.ends_with("_PLACEHOLDER")
    };
    words.any(|word| dunder(word) || capitals(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_told_from_images_by_what_they_are() {
        for (text, start) in [
            ("nginx", "Image"),
            ("reg.example:5000/team/app:v1", "Image"),
            ("minio/minio:RELEASE.2023-01-01T00-00-00Z", "Image"),
            ("app:V1.2_GA", "Image"),
            ("app__x:v1__2", "Image"),
            ("localhost:5000/my_app:tag", "Image"),
            (
                "a@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                "Image",
            ),
            ("{{ .Values.image }}:v1", "Template"),
            ("{{- include \"image\" . }}", "Template"),
            ("reg/{{ image }}", "Template"),
            ("{{inputs.parameters.image}}", "Late"),
            (
                "{{workflow.parameters.registry}}/app:{{ workflow.parameters.tag }}",
                "Late",
            ),
            ("$(params.image)", "Late"),
            ("auto", "Late"),
            (" ", "Late"),
            ("${IMAGE}:${TAG}", "Placeholder"),
            ("reg.example/app:$TAG", "Placeholder"),
            ("ko://github.com/example/cmd", "Placeholder"),
            ("IMAGE_URL", "Placeholder"),
            ("reg.example/app:__TAG__", "Placeholder"),
            ("__IMAGE__", "Placeholder"),
            ("reg.example/app:REPLACE_ME", "Placeholder"),
            ("replace-me", "Placeholder"),
            ("REPLACE_IMAGE", "Placeholder"),
            ("<image>", "Placeholder"),
            ("<your registry>/app", "Placeholder"),
            ("%IMAGE%", "Placeholder"),
            ("FILLED BY THE OPERATOR", "Placeholder"),
            ("reg.example/app@sha256:placeholder", "Placeholder"),
            ("@@IMAGE@@", "Placeholder"),
            ("#{image}#", "Placeholder"),
            ("REGISTRY/app:TAG", "Placeholder"),
            ("gcr.io/YOUR_PROJECT/app:v1", "Placeholder"),
            ("*/app:*", "Pattern"),
            ("!*:latest", "Pattern"),
            ("no image", "Other"),
            ("https://example.com/a.png", "Other"),
        ] {
            let shown = format!("{:?}", Reference::of(text));
            assert!(shown.starts_with(start), "{text}: {shown}");
        }
    }
}
