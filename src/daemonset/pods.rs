//! Reads what pods and events say of one image on one node. Every text is the node's or the cluster's: never trusted.

use serde::Deserialize;

use super::objects::{IMAGE, INIT};
use super::session::{Metadata, Object};
use crate::model::{
    CommandOutput, ExitStatus, Failure, FailureKind, Image, LocalImage, PodMode, RuntimeKind,
    Stage, is_digest,
};
use crate::runtime;

/// The part of a core/v1 `Pod` that is read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: Metadata,
    pub(super) spec: PodSpec,
    pub(super) status: PodStatus,
}

impl Object for Pod {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSpec {
    node_name: String,
    affinity: serde_json::Value,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodStatus {
    pub(super) phase: String,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) conditions: Vec<Condition>,
    init_container_statuses: Vec<ContainerStatus>,
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    pub(super) r#type: String,
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerStatus {
    name: String,
    #[serde(rename = "imageID")]
    image_id: String,
    state: State,
    last_state: State,
    volume_mounts: Vec<VolumeMountStatus>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct State {
    waiting: Option<Waiting>,
    running: Option<serde::de::IgnoredAny>,
    terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Waiting {
    reason: String,
    message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Terminated {
    exit_code: i32,
    reason: String,
    message: String,
}

/// `volumeStatus.image.imageRef`, where the cluster tells what an image volume holds (KEP 5365).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct VolumeMountStatus {
    volume_status: serde_json::Value,
}

/// The part of a core/v1 `Event` that is read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Event {
    pub(super) metadata: Metadata,
    pub(super) involved_object: ObjectReference,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) r#type: String,
}

impl Object for Event {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ObjectReference {
    pub(super) uid: String,
    field_path: String,
}

impl Event {
    /// Whether it is about this image: its container's, or, for an image volume, one that names it.
    fn is_about(&self, number: usize, image: &Image) -> bool {
        let container = format!("spec.containers{{{IMAGE}{number}}}");
        let names_it = self.message.contains(&format!("\"{}\"", image.exact()));
        match self.involved_object.field_path.as_str() {
            "" => names_it,
            // A pause container's own image is not what it waits for.
            path => path == container && (names_it || !self.message.contains("image \"")),
        }
    }
}

/// What the events of one pod said.
#[derive(Debug, Clone, Default)]
pub(super) struct PodEvents {
    items: Vec<ItemEvents>,
    /// The last word of trouble that is about no image.
    pub(super) trouble: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct ItemEvents {
    is_pulling: bool,
    /// The message of the event `Pulled`.
    pulled: Option<String>,
    /// The last message of a pull that failed.
    failed: Option<String>,
}

impl PodEvents {
    /// Takes an event of the pod.
    pub(super) fn take(&mut self, event: &Event, images: &[Image]) {
        self.items.resize_with(images.len(), ItemEvents::default);
        let mut is_any = false;
        for (number, (item, image)) in self.items.iter_mut().zip(images).enumerate() {
            if !event.is_about(number, image) {
                continue;
            }
            is_any = true;
            match event.reason.as_str() {
                "Pulling" => item.is_pulling = true,
                "Pulled" => item.pulled = Some(event.message.clone()),
                // `Error: ErrImagePull` comes beside the words of the runtime.
                "Failed" | "InspectFailed" | "ErrImageNeverPull"
                    if !event.message.starts_with("Error: ") =>
                {
                    item.failed = Some(event.message.clone());
                }
                _ => {}
            }
        }
        let is_back_off = matches!(event.reason.as_str(), "BackOff" | "Failed");
        if !is_any && event.r#type == "Warning" && !is_back_off {
            self.trouble = Some(format!("{}: {}", event.reason, event.message));
        }
    }

    fn item(&self, number: usize) -> Option<&ItemEvents> {
        self.items.get(number)
    }
}

/// How an image stands on a node.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Standing {
    /// Nothing is known yet, or it is being pulled.
    Waiting { is_pulling: bool },
    /// The node holds it; `was_there` where an event says so, and `None` where no event came yet.
    Held {
        image: LocalImage,
        was_there: Option<bool>,
    },
    /// A pull failed, and the kubelet tries again.
    Trouble {
        failure: Failure,
        /// Whether it pauses before the next try.
        is_pausing: bool,
        /// Whether the words of the runtime are not known yet, only that there are some.
        is_vague: bool,
    },
}

/// The reasons of a waiting container that say that its image did not come (`pkg/kubelet/images/types.go`). Any other
/// says that something else failed after it came.
const IMAGE_REASONS: [&str; 8] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
    "ErrImagePullBackOff",
];

impl Pod {
    /// The node that it is on, or meant for: the DaemonSet controller writes it into the affinity.
    pub(super) fn node(&self) -> Option<&str> {
        if !self.spec.node_name.is_empty() {
            return Some(&self.spec.node_name);
        }
        let terms = self.spec.affinity.pointer(
            "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms",
        )?;
        let fields = terms
            .as_array()?
            .iter()
            .filter_map(|term| term["matchFields"].as_array());
        let field = fields
            .flatten()
            .find(|field| field["key"] == "metadata.name")?;
        field["values"][0].as_str()
    }

    /// Whether the scheduler put it on its node.
    pub(super) fn is_bound(&self) -> bool {
        !self.spec.node_name.is_empty()
    }

    /// Why the scheduler leaves it alone.
    pub(super) fn unschedulable(&self) -> Option<&str> {
        let is_it = |condition: &&Condition| {
            condition.r#type == "PodScheduled" && condition.status == "False"
        };
        let condition = self.status.conditions.iter().find(is_it)?;
        Some(match condition.message.as_str() {
            "" => &condition.reason,
            message => message,
        })
    }

    /// Whether the kubelet has said anything of it.
    pub(super) fn is_seen_by_kubelet(&self) -> bool {
        !self.status.container_statuses.is_empty()
            || !self.status.init_container_statuses.is_empty()
    }

    /// How an image stands here.
    pub(super) fn standing(
        &self,
        number: usize,
        image: &Image,
        mode: PodMode,
        events: &PodEvents,
    ) -> Standing {
        let name = format!("{IMAGE}{number}");
        let events = events.item(number);
        if self.status.phase == "Failed" {
            return self.failed();
        }
        let statuses = &self.status.container_statuses;
        let is_pulling = events.is_some_and(|events| events.is_pulling);
        let Some(status) = statuses.iter().find(|status| status.name == name) else {
            return self
                .init_standing(image)
                .unwrap_or(Standing::Waiting { is_pulling });
        };
        let held = || Standing::Held {
            image: LocalImage {
                digest: digest(status, image, mode),
                image_id: None,
                bytes: events.and_then(|events| size(events.pulled.as_deref()?)),
                platform: None,
            },
            was_there: events
                .and_then(|events| events.pulled.as_ref())
                .map(|said| said.contains("already present on machine")),
        };
        if status.state.running.is_some()
            || status.state.terminated.is_some()
            || status.last_state.terminated.is_some()
        {
            return held();
        }
        let Some(waiting) = &status.state.waiting else {
            return Standing::Waiting { is_pulling };
        };
        match waiting.reason.as_str() {
            "PodInitializing" => self
                .init_standing(image)
                .unwrap_or(Standing::Waiting { is_pulling: false }),
            "" | "ContainerCreating" => Standing::Waiting { is_pulling },
            reason if IMAGE_REASONS.contains(&reason) => {
                let failed = events.and_then(|events| events.failed.as_deref());
                trouble(waiting, failed, image)
            }
            _ => held(),
        }
    }

    /// What is wrong with the init container, which holds all images up.
    fn init_standing(&self, image: &Image) -> Option<Standing> {
        let statuses = &self.status.init_container_statuses;
        let status = statuses.iter().find(|status| status.name == INIT)?;
        let said = |standing| match standing {
            Standing::Trouble {
                failure,
                is_pausing,
                is_vague,
            } => Standing::Trouble {
                failure: Failure {
                    detail: format!("the pod's init container cannot start: {}", failure.detail),
                    ..failure
                },
                is_pausing,
                is_vague,
            },
            other => other,
        };
        if let Some(waiting) = &status.state.waiting
            && !matches!(
                waiting.reason.as_str(),
                "" | "ContainerCreating" | "PodInitializing" | "CrashLoopBackOff"
            )
        {
            return Some(said(trouble(waiting, None, image)));
        }
        let ended = status
            .state
            .terminated
            .as_ref()
            .or(status.last_state.terminated.as_ref());
        let ended = ended.filter(|ended| ended.exit_code != 0)?;
        let detail = format!(
            "the init container, which brings the program that sleeps, ended with status {}: {} {}",
            ended.exit_code, ended.reason, ended.message
        );
        Some(Standing::Trouble {
            failure: Failure::new(FailureKind::NoPod, Stage::Start, detail.trim()),
            is_pausing: false,
            is_vague: false,
        })
    }

    /// The kubelet has given the pod up; the controller makes another one.
    fn failed(&self) -> Standing {
        let (reason, message) = (&self.status.reason, &self.status.message);
        let lower = format!("{reason} {message}").to_lowercase();
        let is_disk = ["ephemeral-storage", "disk", "imagefs", "nodefs"]
            .iter()
            .any(|word| lower.contains(word));
        let kind = if is_disk {
            FailureKind::DiskFull
        } else {
            FailureKind::NoPod
        };
        let detail = format!("the kubelet ended the pod ({reason}): {message}");
        Standing::Trouble {
            failure: Failure::new(kind, Stage::Start, detail),
            is_pausing: false,
            is_vague: false,
        }
    }
}

/// What a waiting container means, in the runtime's words where they are known.
fn trouble(waiting: &Waiting, failed: Option<&str>, image: &Image) -> Standing {
    let reason = waiting.reason.as_str();
    // Older kubelets say no more than this; newer ones put the cause behind it.
    let own = match waiting.message.strip_prefix("Back-off pulling image ") {
        Some(rest) => rest.split_once(": ").map(|(_, cause)| cause),
        None => Some(waiting.message.as_str()).filter(|message| !message.is_empty()),
    };
    let said = own.or(failed);
    let text = said.unwrap_or(&waiting.message);
    let detail = match text.is_empty() {
        true => reason,
        false => text,
    };
    let output = CommandOutput {
        exit: ExitStatus::Code(1),
        stdout: Vec::new(),
        stderr: detail.as_bytes().to_vec(),
        truncated: false,
    };
    let read = runtime::of_kind(RuntimeKind::Crictl).read_pull(image, &output);
    let mut failure = Failure {
        detail: detail.to_string(),
        ..read
            .err()
            .unwrap_or_else(|| Failure::new(FailureKind::Unknown, Stage::Pull, ""))
    };
    if failure.kind == FailureKind::Unknown {
        failure.kind = match reason {
            "InvalidImageName" => FailureKind::ImageInvalid,
            "RegistryUnavailable" => FailureKind::RegistryUnavailable,
            "ImageInspectError" => FailureKind::RuntimeDown,
            "SignatureValidationFailed" | "ErrImageNeverPull" => FailureKind::NodeSetup,
            _ => FailureKind::Unknown,
        };
    }
    Standing::Trouble {
        failure,
        is_pausing: reason.contains("BackOff"),
        is_vague: said.is_none(),
    }
}

/// The digest that a container status tells: `REPOSITORY@sha256:...`, with containerd and CRI-O.
fn digest(status: &ContainerStatus, image: &Image, mode: PodMode) -> Option<String> {
    let of = |reference: &str| {
        let (_, digest) = reference.rsplit_once('@')?;
        is_digest(digest).then(|| digest.to_string())
    };
    let volume = status
        .volume_mounts
        .iter()
        .find_map(|mount| of(mount.volume_status.pointer("/image/imageRef")?.as_str()?));
    // In the pod of an image volume the container's own image is another one.
    let own = (mode != PodMode::ImageVolume).then(|| of(&status.image_id));
    volume
        .or_else(|| image.digest().map(str::to_string))
        .or_else(|| own.flatten())
}

/// `... Image size: 29150479 bytes.`, which kubelets say since 1.29.
fn size(said: &str) -> Option<u64> {
    let (_, rest) = said.split_once("Image size: ")?;
    rest.split(' ').next()?.parse().ok()
}
