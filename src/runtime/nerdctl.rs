//! containerd through `nerdctl`, which takes its login as docker's client does.
//!
//! What is read here is the output of nerdctl 1 and 2 (`pkg/cmd/image/inspect.go`, `pkg/inspecttypes/native/image.go`).

use serde_json::Value;

use super::containerd::if_seen;
use super::{Ctr, containerd, keep, login, output, stock};
use crate::model::{
    CommandOutput, Failure, FailureKind, Image, KeepOutcome, LocalImage, RuntimeKind, Stage, Stock,
    text,
};
use crate::ports::{
    Description, KeepRequest, Naming, NodeCommand, PullRequest, Runtime, StockQuestion,
};

/// containerd, through `nerdctl`.
#[derive(Debug, Clone, Copy)]
pub struct Nerdctl;

const KIND: RuntimeKind = RuntimeKind::Nerdctl;

/// nerdctl 2 exits with 0 and prints nothing for an image that is not there.
const INSPECT: &str = if_seen!(
    r#"held=$(nerdctl image inspect --mode native "$1") || exit
case $held in *'"Target"'*) printf '%s\n' "$held" ;; *) echo "no such image: $1" >&2; exit 1 ;; esac"#
);

impl Runtime for Nerdctl {
    fn kind(&self) -> RuntimeKind {
        KIND
    }

    fn version<'a>(&self, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        let argv = ["nerdctl", "version", "--format", "{{json .}}"];
        containerd::command(KIND, endpoint, &argv)
    }

    fn check_alive(&self, output: &CommandOutput) -> Result<String, Failure> {
        if !output.success() {
            return Err(containerd::failure(KIND, Stage::Probe, None, output));
        }
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let components = answer["Server"]["Components"].as_array();
        let version = components
            .into_iter()
            .flatten()
            .find(|part| part["Name"] == "containerd")
            .and_then(|part| part["Version"].as_str());
        // Without a daemon it names no server, and says why on standard error.
        let Some(version) = version else {
            let mut said = vec!["nerdctl version names no containerd".to_string()];
            said.extend(output::lines(&output.stderr));
            let detail = output::detail(&said);
            return Err(Failure::new(
                FailureKind::RuntimeAbsent,
                Stage::Probe,
                detail,
            ));
        };
        let version = version.trim_start_matches('v');
        let version = text::truncate_bytes(version.as_bytes(), 100);
        Ok(format!("containerd {version}"))
    }

    fn describe<'a>(&self, endpoint: Option<&'a str>) -> [NodeCommand<'a>; 2] {
        [self.version(endpoint), containerd::socket(KIND, endpoint)]
    }

    fn read_description(
        &self,
        [_, version, socket]: [&CommandOutput; 3],
    ) -> Result<Description, Failure> {
        let runtime = self.check_alive(version)?;
        Ok(containerd::description(runtime, KIND, socket))
    }

    fn inspect<'a>(&self, image: &'a Image, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        let argv = ["sh", "-c", INSPECT, "nerdctl", image.exact()];
        containerd::command(KIND, endpoint, &argv)
    }

    fn read_inspect(
        &self,
        image: &Image,
        output: &CommandOutput,
        stage: Stage,
    ) -> Result<Option<LocalImage>, Failure> {
        if !output.success() {
            let said = String::from_utf8_lossy(&output.stderr).to_ascii_lowercase();
            if ["no such image", "no such object"]
                .iter()
                .any(|absent| said.contains(absent))
            {
                return Ok(None);
            }
            return Err(containerd::failure(KIND, stage, Some(image), output));
        }
        let entries: Vec<Value> = serde_json::from_slice(&output.stdout).map_err(|error| {
            let mut said = vec![format!(
                "nerdctl image inspect printed no list in JSON: {error}"
            )];
            said.extend(output::lines(&output.stdout));
            Failure::new(FailureKind::Unknown, stage, output::detail(&said))
        })?;
        // All names of the image's digest are listed.
        let named = |entry: &&Value| entry["Image"]["Name"] == image.exact();
        Ok(entries.iter().find(named).map(read_held))
    }

    fn is_fallback(&self) -> bool {
        true
    }

    fn data_dir<'a>(&self, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        // nerdctl tells where its own files are; where containerd's are, ctr tells if it is there.
        containerd::command(
            RuntimeKind::Ctr,
            endpoint,
            &["sh", "-c", containerd::DATA_DIR],
        )
    }

    fn pull<'a>(&self, request: &PullRequest<'a>) -> Result<NodeCommand<'a>, Failure> {
        Self::pull_with(request, &[])
    }

    fn pull_locally<'a>(&self, request: &PullRequest<'a>) -> Result<NodeCommand<'a>, Failure> {
        Self::pull_with(request, &["--insecure-registry"])
    }

    /// By ctr: nerdctl does not give names by digest.
    fn naming<'a>(&self, naming: &Naming<'a>) -> Result<[NodeCommand<'a>; 3], Failure> {
        Ctr.naming(naming)
    }

    fn names_digests(&self) -> bool {
        Ctr.names_digests()
    }

    fn keep<'a>(&self, request: &KeepRequest<'a>) -> Option<NodeCommand<'a>> {
        let argv = keep::question(KIND, request, &[]);
        Some(containerd::command(KIND, request.endpoint, &argv))
    }

    fn read_keep(&self, output: &CommandOutput) -> KeepOutcome {
        keep::read(output)
    }

    fn stock<'a>(&self, question: &StockQuestion<'a>) -> Option<NodeCommand<'a>> {
        Some(stock::question(KIND, question, &[]))
    }

    fn read_stock(&self, output: &CommandOutput) -> Stock {
        stock::read(output)
    }

    fn read_pull(&self, image: &Image, output: &CommandOutput) -> Result<(), Failure> {
        if output.success() {
            // What is held is asked afterwards.
            return Ok(());
        }
        Err(containerd::failure(KIND, Stage::Pull, Some(image), output))
    }
}

impl Nerdctl {
    fn pull_with<'a>(
        request: &PullRequest<'a>,
        options: &[&'a str],
    ) -> Result<NodeCommand<'a>, Failure> {
        // Its progress begins before it has read the login, which is removed at the first word of a client.
        let pull = if_seen!(r#"exec nerdctl pull "$@" >/dev/null"#);
        let mut argv = [&["sh", "-c", pull, "nerdctl"], options].concat();
        if let Some(platform) = request.platform {
            argv.extend(["--platform", platform]);
        }
        argv.push(request.image.exact());
        Ok(NodeCommand {
            secret: login::docker_config(request)?,
            ..containerd::command(KIND, request.endpoint, &argv)
        })
    }
}

/// An entry of `nerdctl image inspect --mode native`.
fn read_held(entry: &Value) -> LocalImage {
    let text = |value: &Value| value.as_str().map(str::to_string);
    let config = &entry["ImageConfig"];
    let layers = entry["Manifest"]["layers"].as_array();
    LocalImage {
        digest: text(&entry["Image"]["Target"]["digest"]),
        image_id: text(&entry["ImageConfigDesc"]["digest"]),
        bytes: layers.map(|layers| {
            layers
                .iter()
                .filter_map(|layer| layer["size"].as_u64())
                .sum()
        }),
        platform: containerd::platform(config),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RegistryLogin, Secret};
    use crate::ports::SecretDelivery;
    use crate::runtime::testing::output;

    #[test]
    fn the_login_is_a_directory_as_for_docker() {
        let image: Image = "reg.example/app:v1".parse().unwrap();
        let login = RegistryLogin::Password {
            username: "ci".into(),
            password: Secret::new("hunter2"),
        };
        let command = Nerdctl
            .pull(&PullRequest {
                image: &image,
                endpoint: None,
                platform: Some("linux/arm64"),
                login: Some(&login),
            })
            .unwrap();
        assert!(!format!("{command:?}").contains("hunter2"));
        assert!(
            command
                .argv
                .ends_with(&["--platform", "linux/arm64", "reg.example/app:v1"])
        );
        let local: Image = format!("127.0.0.1:4001/prepull/app@sha256:{}", "a".repeat(64))
            .parse()
            .unwrap();
        let asked = Nerdctl.pull_locally(&PullRequest {
            image: &local,
            endpoint: None,
            platform: None,
            login: Some(&login),
        });
        let asked = asked.unwrap();
        let expected = ["--insecure-registry", local.as_str()];
        assert!(asked.argv.ends_with(&expected), "{asked:?}");
        assert!(!format!("{asked:?}").contains("hunter2"));
        let Some(SecretDelivery::Directory { variable, file, .. }) = command.secret else {
            panic!("no directory");
        };
        assert_eq!((variable, file), ("DOCKER_CONFIG", "config.json"));
    }

    #[test]
    fn containerd_is_named_by_the_servers_components() {
        let said = r#"{"Client":{"Version":"v2.0.2"},"Server":{"Components":[{"Name":"containerd","Version":"v1.7.24"}]}}"#;
        assert_eq!(
            Nerdctl.check_alive(&output(0, said, "")).unwrap(),
            "containerd 1.7.24"
        );
        let failure = Nerdctl
            .check_alive(&output(0, r#"{"Client":{}}"#, ""))
            .unwrap_err();
        assert_eq!(failure.kind, FailureKind::RuntimeAbsent);
        let fatal = "time=\"2026-11-27T10:00:00Z\" level=fatal msg=\"cannot access containerd socket \\\"/run/containerd/containerd.sock\\\": no such file or directory\"\n";
        let failure = Nerdctl.check_alive(&output(1, "", fatal)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::RuntimeAbsent, "{failure}");
        assert!(failure.detail.starts_with("cannot access"), "{failure}");
    }

    #[test]
    fn an_image_is_the_entry_of_its_own_name() {
        let image: Image = "nginx:1.27".parse().unwrap();
        let entry = |name: &str| {
            format!(
                r#"{{"Image":{{"Name":"{name}","Target":{{"digest":"sha256:d"}}}},"Manifest":{{"layers":[{{"size":7}}]}},
                "ImageConfigDesc":{{"digest":"sha256:c"}},"ImageConfig":{{"os":"linux","architecture":"arm64","variant":"v8"}}}}"#
            )
        };
        let read = |names: &[&str]| {
            let entries: Vec<String> = names.iter().map(|name| entry(name)).collect();
            let printed = format!("[{}]", entries.join(","));
            Nerdctl
                .read_inspect(&image, &output(0, &printed, ""), Stage::Verify)
                .unwrap()
        };
        let held = read(&["docker.io/library/other:1", "docker.io/library/nginx:1.27"]).unwrap();
        assert_eq!(held.digest.as_deref(), Some("sha256:d"));
        assert_eq!(held.image_id.as_deref(), Some("sha256:c"));
        assert_eq!(held.platform.as_deref(), Some("linux/arm64/v8"));
        assert_eq!(held.bytes, Some(7));
        assert_eq!(read(&["docker.io/library/other:1"]), None);
        let absent =
            Nerdctl.read_inspect(&image, &output(1, "", "no such image: x"), Stage::Verify);
        assert_eq!(absent, Ok(None));
        let refused = output(
            1,
            "",
            "time=\"x\" level=fatal msg=\"failed to resolve reference \\\"docker.io/library/nginx:1.27\\\": unexpected status from HEAD request to https://x/v2/: 429 Too Many Requests\"",
        );
        assert_eq!(
            Nerdctl.read_pull(&image, &refused).unwrap_err().kind,
            FailureKind::RateLimited
        );
    }
}
