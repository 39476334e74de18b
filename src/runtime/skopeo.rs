//! skopeo: has no store of its own, but copies images into that of CRI-O. For nodes that have neither crictl nor podman.

use serde::Deserialize;
use std::collections::BTreeMap;

use super::crio::with_storage;
use super::docker_output::{failure, read_pull};
use super::kubelet::with_kubelet;
use super::{keep, login, output, stock};
use crate::model::{
    CommandOutput, Failure, FailureKind, Image, KeepOutcome, LocalImage, RuntimeKind, Stage, Stock,
    is_digest, text,
};
use crate::ports::{Description, KeepRequest, NodeCommand, PullRequest, Runtime, StockQuestion};

/// skopeo, beside CRI-O.
#[derive(Debug, Clone, Copy)]
pub struct Skopeo;

/// A script that begins with the store of CRI-O, as `$store`, `$root` and `$driver`: what its configuration says, or that
/// of containers/storage (containers-storage.conf(5)). Without CRI-O no pod would use what skopeo copies.
macro_rules! beside_crio {
    ($script:literal) => {
        with_kubelet!(with_storage!(concat!(
            r#"if ! runs crio; then
    echo 'skopeo is here, but no CRI-O, whose images it could copy' >&2
    exit 127
fi
read_storage /etc/containers/storage.conf /etc/crio/crio.conf /etc/crio/crio.conf.d/*
root=${root:-/var/lib/containers/storage}
driver=${driver:-overlay}
store="containers-storage:[$driver@$root+${run:-/run/containers/storage}]"
"#,
            $script
        )))
    };
}

const VERSION: &str = beside_crio!(r#"exec "$0" --version"#);

const DATA_DIR: &str = beside_crio!(r#"echo "storage $root""#);

/// Prints the platform, and the store's own record of the image: skopeo does not tell the digest of an index.
const INSPECT: &str = beside_crio!(
    r#""$0" inspect --format '{{.Os}}/{{.Architecture}}' "$store$1" || exit
sed 's/},{"id":"/}\n{"id":"/g' "$root/$driver-images/images.json" |
    grep -F -e "\"$1\"" -e "\"manifest-${1#*@}\"" | head -n 1"#
);

/// Copies image `$1`; further arguments are skopeo's own. A login is a file that comes before the node's own
/// (containers-auth.json(5)).
const PULL: &str = beside_crio!(
    r#"image=$1
shift
[ -z "${PREPULL_LOGIN:-}" ] || export REGISTRY_AUTH_FILE="$PREPULL_LOGIN/auth.json"
exec "$0" "$@" copy "docker://$image" "$store$image""#
);

/// How skopeo says that an image is not in the store.
const ABSENT: &str = "does not resolve to an image ID";

/// An image as containers/storage keeps it, in `images.json`.
#[derive(Deserialize)]
struct Record {
    id: String,
    digest: Option<String>,
    #[serde(default, rename = "big-data-digests")]
    data: BTreeMap<String, String>,
}

impl Record {
    /// The digest that was asked for, else that of the index which the image was chosen from, else the manifest's: as
    /// other runtimes tell it.
    fn digest_of(&self, image: &Image) -> Option<String> {
        let manifests = self.data.keys();
        let manifests = manifests.filter_map(|name| name.strip_prefix("manifest-"));
        let known: Vec<&str> = manifests.filter(|name| is_digest(name)).collect();
        let own = self.digest.as_deref().filter(|digest| is_digest(digest));
        let asked_for = image.digest().filter(|digest| known.contains(digest));
        let index = known.iter().copied().find(|digest| Some(*digest) != own);
        asked_for.or(index).or(own).map(String::from)
    }
}

impl Skopeo {
    fn command<'a>(script: &'static str, arguments: &[&'a str]) -> NodeCommand<'a> {
        NodeCommand {
            argv: [&["sh", "-c", script, "skopeo"], arguments].concat(),
            environment: Vec::new(),
            secret: None,
            stdin: b"",
        }
    }
}

impl Runtime for Skopeo {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Skopeo
    }

    fn version<'a>(&self, _: Option<&'a str>) -> NodeCommand<'a> {
        Self::command(VERSION, &[])
    }

    fn check_alive(&self, output: &CommandOutput) -> Result<String, Failure> {
        if !output.success() {
            return Err(failure(self.kind(), Stage::Probe, None, output));
        }
        let printed = text::truncate_bytes(output.stdout.trim_ascii(), 100);
        Ok(printed.replacen("skopeo version", "skopeo", 1))
    }

    fn describe<'a>(&self, endpoint: Option<&'a str>) -> [NodeCommand<'a>; 2] {
        [self.version(endpoint), self.data_dir(endpoint)]
    }

    fn read_description(
        &self,
        [_, version, _]: [&CommandOutput; 3],
    ) -> Result<Description, Failure> {
        Ok(Description {
            runtime: format!("{}, for CRI-O", self.check_alive(version)?),
            client: self.kind().to_string(),
            endpoint: None,
        })
    }

    fn inspect<'a>(&self, image: &'a Image, _: Option<&'a str>) -> NodeCommand<'a> {
        Self::command(INSPECT, &[image.exact()])
    }

    fn read_inspect(
        &self,
        image: &Image,
        output: &CommandOutput,
        stage: Stage,
    ) -> Result<Option<LocalImage>, Failure> {
        if !output.success() {
            return match String::from_utf8_lossy(&output.stderr).contains(ABSENT) {
                true => Ok(None),
                false => Err(failure(self.kind(), stage, Some(image), output)),
            };
        }
        let printed = String::from_utf8_lossy(&output.stdout);
        let mut lines = printed.lines();
        let platform = lines.next().map(String::from);
        // The first record of the file begins its list.
        let record = lines.next().unwrap_or_default().trim_start_matches('[');
        let mut records = serde_json::Deserializer::from_str(record).into_iter::<Record>();
        let Some(Ok(record)) = records.next() else {
            let said = "the store of CRI-O has no record of the image that skopeo finds there";
            let words = [&[said.to_string()], &output::lines(&output.stdout)[..]].concat();
            return Err(Failure::new(
                FailureKind::Unknown,
                stage,
                output::detail(&words),
            ));
        };
        Ok(Some(LocalImage {
            digest: record.digest_of(image),
            image_id: Some(format!("sha256:{}", record.id)),
            bytes: None,
            platform,
        }))
    }

    fn is_fallback(&self) -> bool {
        true
    }

    fn data_dir<'a>(&self, _: Option<&'a str>) -> NodeCommand<'a> {
        Self::command(DATA_DIR, &[])
    }

    fn pull<'a>(&self, request: &PullRequest<'a>) -> Result<NodeCommand<'a>, Failure> {
        let mut arguments = vec![request.image.exact()];
        let parts = request.platform.into_iter().flat_map(|p| p.splitn(3, '/'));
        for (option, part) in ["--override-os", "--override-arch", "--override-variant"]
            .into_iter()
            .zip(parts)
        {
            arguments.extend([option, part]);
        }
        let secret = login::containers_auth(self.kind(), request)?;
        Ok(NodeCommand {
            secret,
            ..Self::command(PULL, &arguments)
        })
    }

    fn keep<'a>(&self, request: &KeepRequest<'a>) -> Option<NodeCommand<'a>> {
        Some(keep::without_pins(self.kind(), request))
    }

    fn read_keep(&self, output: &CommandOutput) -> KeepOutcome {
        keep::read(output)
    }

    fn stock<'a>(&self, question: &StockQuestion<'a>) -> Option<NodeCommand<'a>> {
        Some(stock::question(self.kind(), question, &[]))
    }

    fn read_stock(&self, output: &CommandOutput) -> Stock {
        stock::read(output)
    }

    fn read_pull(&self, image: &Image, output: &CommandOutput) -> Result<(), Failure> {
        read_pull(self.kind(), image, output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RegistryLogin, Secret};
    use crate::runtime::testing::output;

    fn image() -> Image {
        "reg.example/app:v1".parse().unwrap()
    }

    #[test]
    fn a_pull_names_the_platform_and_hides_the_login() {
        let image = image();
        let login = RegistryLogin::Password {
            username: "ci".into(),
            password: Secret::new("hunter2"),
        };
        let request = PullRequest {
            image: &image,
            endpoint: None,
            platform: Some("linux/arm64"),
            login: Some(&login),
        };
        let command = Skopeo.pull(&request).unwrap();
        assert_eq!(
            command.argv[3..],
            [
                "skopeo",
                "reg.example/app:v1",
                "--override-os",
                "linux",
                "--override-arch",
                "arm64"
            ]
        );
        assert!(command.secret.is_some() && !format!("{command:?}").contains("hunter2"));
        let token = RegistryLogin::RegistryToken(Secret::new("hunter2"));
        let refused = Skopeo.pull(&PullRequest {
            login: Some(&token),
            ..request
        });
        assert_eq!(refused.unwrap_err().kind, FailureKind::RegistryAuth);
    }

    #[test]
    fn the_digest_is_that_of_the_index_or_the_one_that_was_asked_for() {
        let [index, manifest] = ['a', 'b'].map(|c| format!("sha256:{}", c.to_string().repeat(64)));
        let record = format!(
            r#"[{{"id":"cc","digest":"{manifest}","names":["reg.example/app:v1"],"big-data-digests":{{"manifest":"{manifest}","manifest-{index}":"{index}","manifest-{manifest}":"{manifest}"}},"created":"x"}}]"#
        );
        let held = |image: &str| {
            let printed = output(0, &format!("linux/amd64\n{record}\n"), "");
            let image = image.parse().unwrap();
            Skopeo.read_inspect(&image, &printed, Stage::Inspect)
        };
        let by_tag = held("reg.example/app:v1").unwrap().unwrap();
        assert_eq!(by_tag.digest, Some(index));
        assert_eq!(by_tag.image_id.as_deref(), Some("sha256:cc"));
        assert_eq!(by_tag.platform.as_deref(), Some("linux/amd64"));
        let by_digest = held(&format!("reg.example/app@{manifest}"));
        assert_eq!(by_digest.unwrap().unwrap().digest, Some(manifest));
    }

    #[test]
    fn what_skopeo_says_gets_its_kind() {
        let absent = "time=\"x\" level=fatal msg=\"Error parsing image name \\\"containers-storage:[overlay@/s+/r]reg.example/app:v1\\\": reference \\\"[overlay@/s+/r]reg.example/app:v1\\\" does not resolve to an image ID: identifier is not an image\"\n";
        let answer = Skopeo.read_inspect(&image(), &output(1, "", absent), Stage::Inspect);
        assert_eq!(answer, Ok(None));
        let refused = "time=\"x\" level=fatal msg=\"initializing source docker://reg.example/app:v1: pinging container registry reg.example: Get \\\"https://reg.example/v2/\\\": dial tcp 10.0.0.1:443: connect: connection refused\"\n";
        let failure = Skopeo.read_pull(&image(), &output(1, "", refused));
        let failure = failure.unwrap_err();
        assert_eq!(failure.kind, FailureKind::RegistryUnavailable, "{failure}");
        assert!(
            failure.detail.starts_with("initializing source"),
            "{failure}"
        );
        let unauthorized = "time=\"x\" level=fatal msg=\"initializing source docker://reg.example/app:v1: reading manifest v1 in reg.example/app: unauthorized: authentication required\"\n";
        let failure = Skopeo.read_pull(&image(), &output(1, "", unauthorized));
        assert_eq!(failure.unwrap_err().kind, FailureKind::RegistryAuth);
        let no_crio = output(
            127,
            "",
            "skopeo is here, but no CRI-O, whose images it could copy\n",
        );
        let failure = Skopeo.check_alive(&no_crio).unwrap_err();
        assert_eq!(failure.kind, FailureKind::RuntimeMissing);
    }
}
