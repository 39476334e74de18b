//! What a DaemonSet that pulls images is to look like, and where.

use std::collections::BTreeMap;

use super::image::Image;

choice! {
    /// How a pod makes its node pull an image without running anything in it.
    PodMode {
        /// Image volumes where the cluster, all nodes and their runtimes have them, else no-op.
        #[default]
        Auto = "auto",
        /// Mounts each image as a volume of a pause container (Kubernetes 1.35, or 1.33 with its feature gate).
        ImageVolume = "image-volume",
        /// Runs a static program in each image that only sleeps.
        NoOp = "no-op",
    }
}

/// A DaemonSet that pulls images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DaemonSetSpec {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What its pods make their nodes pull.
    pub images: Vec<Image>,
    /// Whether the registry is asked where the image is there.
    pub always_pull: bool,
    /// How.
    pub mode: PodMode,
    /// The image with the static program of [`PodMode::NoOp`], `/bin/busybox`.
    pub no_op_image: String,
    /// The image that runs in pods of [`PodMode::ImageVolume`].
    pub pause_image: String,
    /// What its pods tolerate; empty for every taint.
    pub tolerations: Vec<Toleration>,
    /// Pull secrets of its namespace.
    pub pull_secrets: Vec<String>,
    /// The priority of its pods.
    pub priority_class: Option<String>,
    /// Which nodes.
    pub nodes: NodeChoice,
}

/// A toleration, as `KEY[=VALUE][:EFFECT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toleration {
    /// The taint's key.
    pub key: String,
    /// Its value; `None` for any.
    pub value: Option<String>,
    /// Its effect; `None` for any.
    pub effect: Option<String>,
}

/// A taint of a node (core/v1 `Taint`).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl Toleration {
    /// Reads `KEY[=VALUE][:EFFECT]`.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (rest, effect) = match text.rsplit_once(':') {
            Some((rest, effect)) => (rest, Some(effect)),
            None => (text, None),
        };
        if let Some(effect) = effect
            && !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect)
        {
            return Err("the effect is NoSchedule, PreferNoSchedule or NoExecute".into());
        }
        let (key, value) = match rest.split_once('=') {
            Some((key, value)) => (key, Some(value.to_string())),
            None => (rest, None),
        };
        if key.is_empty() {
            return Err("write KEY[=VALUE][:EFFECT], e.g. dedicated=gpu:NoSchedule".into());
        }
        Ok(Self {
            key: key.to_string(),
            value,
            effect: effect.map(str::to_string),
        })
    }

    /// Whether a pod with this toleration is let onto a node with this taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.key == taint.key
            && self
                .value
                .as_ref()
                .is_none_or(|value| *value == taint.value)
            && self
                .effect
                .as_ref()
                .is_none_or(|effect| *effect == taint.effect)
    }
}

/// The taints that the DaemonSet controller tolerates for its pods (`pkg/controller/daemon/util`).
pub const TOLERATED: [&str; 6] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/unschedulable",
];

/// Which nodes a DaemonSet is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeChoice {
    /// What their labels have to be, all of it.
    pub labels: Vec<LabelRequirement>,
    /// These nodes alone; `None` for all that the labels allow.
    pub names: Option<Vec<String>>,
}

impl NodeChoice {
    /// Whether a node of this name and with these labels is meant.
    pub fn chooses(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        match &self.names {
            Some(names) => names.iter().any(|one| one == name),
            None => self.labels.iter().all(|one| one.holds(labels)),
        }
    }
}

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRequirement {
    /// The label.
    pub key: String,
    /// How it is compared.
    pub operator: LabelOperator,
    /// With what.
    pub values: Vec<String>,
}

/// How a label is compared (core/v1 `NodeSelectorOperator`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelOperator {
    /// The label has one of the values.
    In,
    /// It has none of them, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl LabelOperator {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
        }
    }
}

impl LabelRequirement {
    /// A label that is not there.
    pub fn without(key: &str) -> Self {
        Self {
            key: key.to_string(),
            operator: LabelOperator::DoesNotExist,
            values: Vec::new(),
        }
    }

    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            LabelOperator::In => value.is_some_and(|value| self.values.contains(value)),
            LabelOperator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }

    /// Reads a label selector as `kubectl -l` takes it: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_all(selector: &str) -> Result<Vec<Self>, String> {
        let mut depth = 0_usize;
        let parts = selector.split(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        });
        let parts = parts.map(str::trim).filter(|part| !part.is_empty());
        parts.map(Self::parse).collect()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let new = |key: &str, operator, values: Vec<String>| {
            let is_key = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
            let key = key.trim();
            if key.is_empty() || !key.chars().all(is_key) {
                return Err(format!("\"{text}\" names no label: write e.g. pool=gpu"));
            }
            Ok(Self {
                key: key.to_string(),
                operator,
                values,
            })
        };
        if let Some((head, list)) = text.split_once('(') {
            let values = list
                .strip_suffix(')')
                .ok_or_else(|| format!("\"{text}\" has no )"))?;
            let values = values
                .split(',')
                .map(|value| value.trim().to_string())
                .collect();
            return match head.split_whitespace().collect::<Vec<_>>()[..] {
                [key, "in"] => new(key, LabelOperator::In, values),
                [key, "notin"] => new(key, LabelOperator::NotIn, values),
                _ => Err(format!("\"{text}\": write KEY in (A,B) or KEY notin (A,B)")),
            };
        }
        let one = |value: &str| vec![value.trim().to_string()];
        if let Some((key, value)) = text.split_once("!=") {
            return new(key, LabelOperator::NotIn, one(value));
        }
        if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            return new(key, LabelOperator::In, one(value));
        }
        match text.strip_prefix('!') {
            Some(key) => new(key, LabelOperator::DoesNotExist, Vec::new()),
            None => new(text, LabelOperator::Exists, Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_as_kubectl_takes_them() {
        let read = LabelRequirement::parse_all(
            "pool=gpu,zone in (a, b),tier!=edge,!old,arch==amd64,x notin (y),z",
        )
        .unwrap();
        let shown: Vec<String> = read
            .iter()
            .map(|one| {
                format!(
                    "{} {} {}",
                    one.key,
                    one.operator.as_str(),
                    one.values.join("|")
                )
            })
            .collect();
        let expected = [
            "pool In gpu",
            "zone In a|b",
            "tier NotIn edge",
            "old DoesNotExist ",
            "arch In amd64",
            "x NotIn y",
            "z Exists ",
        ];
        assert_eq!(shown, expected);
        for wrong in ["=b", "zone in (a", "zone near (a)", "a b", "!"] {
            assert!(LabelRequirement::parse_all(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tolerations_are_read_and_compared_as_the_scheduler_does() {
        let taint = |value: &str, effect: &str| Taint {
            key: "dedicated".into(),
            value: value.into(),
            effect: effect.into(),
        };
        let gpu = Toleration::parse("dedicated=gpu:NoSchedule").unwrap();
        assert!(gpu.tolerates(&taint("gpu", "NoSchedule")));
        assert!(!gpu.tolerates(&taint("cpu", "NoSchedule")));
        assert!(!gpu.tolerates(&taint("gpu", "NoExecute")));
        assert!(
            Toleration::parse("dedicated")
                .unwrap()
                .tolerates(&taint("cpu", "NoExecute"))
        );
        assert!(
            !Toleration::parse("other")
                .unwrap()
                .tolerates(&taint("cpu", "NoExecute"))
        );
        for wrong in ["", "=x", "a:Never", ":NoSchedule"] {
            assert!(Toleration::parse(wrong).is_err(), "{wrong}");
        }
    }
}
