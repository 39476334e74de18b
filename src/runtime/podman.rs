//! podman: no daemon, rootful or rootless, through its own client. It speaks as docker's does, and is read as that is.

use super::docker::{self, INSPECT};
use super::kubelet::if_seen;
use super::stock;
use crate::model::{
    CommandOutput, Failure, FailureKind, Image, LocalImage, RegistryLogin, RuntimeKind, Stage,
    Stock,
};
use crate::ports::{Description, NodeCommand, PullRequest, Runtime, SecretDelivery, StockQuestion};

/// podman, through its own client.
#[derive(Debug, Clone, Copy)]
pub struct Podman;

/// Calls podman with the store of CRI-O, which may have another one in its configuration: where crictl is missing, podman
/// is what puts images there.
macro_rules! podman {
    () => {
        r#"root=
driver=
if [ -S /run/crio/crio.sock ] && [ "$(id -u)" = 0 ]; then
    for file in /etc/crio/crio.conf /etc/crio/crio.conf.d/*; do
        [ -f "$file" ] || continue
        own=$(sed -n 's/^ *root *= *"\(.*\)".*/\1/p' "$file")
        root=${own:-$root}
        own=$(sed -n 's/^ *storage_driver *= *"\(.*\)".*/\1/p' "$file")
        driver=${own:-$driver}
    done
fi
exec "$0" ${root:+--root "$root"} ${driver:+--storage-driver "$driver"} "$@""#
    };
}

const PLAIN: &str = podman!();

/// Calls podman where the kubelet sees its images.
const SEEN: &str = if_seen!(podman!());

/// Hands podman its login as a file of its own, before which none of the node's counts (containers-auth.json(5)): a
/// login that `podman login` left there might be another one.
const WITH_LOGIN: &str = if_seen!(concat!(
    "export REGISTRY_AUTH_FILE=\"$PREPULL_LOGIN/auth.json\"\n",
    podman!()
));

impl Podman {
    /// An endpoint is that of podman's own service, which is asked as from another machine.
    fn command<'a>(
        script: &'a str,
        endpoint: Option<&'a str>,
        arguments: &[&'a str],
    ) -> NodeCommand<'a> {
        let mut argv = vec!["sh", "-c", script, "podman"];
        if let Some(endpoint) = endpoint {
            argv.extend(["--url", endpoint]);
        }
        argv.extend_from_slice(arguments);
        NodeCommand {
            argv,
            environment: Vec::new(),
            secret: None,
            stdin: b"",
        }
    }
}

impl Runtime for Podman {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Podman
    }

    fn version<'a>(&self, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        Self::command(PLAIN, endpoint, &["version", "--format", "{{json .}}"])
    }

    fn check_alive(&self, output: &CommandOutput) -> Result<String, Failure> {
        docker::check_alive(self.kind(), output)
    }

    fn describe<'a>(&self, endpoint: Option<&'a str>) -> [NodeCommand<'a>; 2] {
        [self.version(endpoint), self.data_dir(endpoint)]
    }

    fn read_description(
        &self,
        [_, version, _]: [&CommandOutput; 3],
    ) -> Result<Description, Failure> {
        Ok(Description {
            runtime: self.check_alive(version)?,
            client: self.kind().to_string(),
            endpoint: None,
        })
    }

    fn inspect<'a>(&self, image: &'a Image, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        Self::command(SEEN, endpoint, &[INSPECT, &[image.exact()]].concat())
    }

    fn read_inspect(
        &self,
        image: &Image,
        output: &CommandOutput,
        stage: Stage,
    ) -> Result<Option<LocalImage>, Failure> {
        docker::read_inspect(self.kind(), image, output, stage)
    }

    fn is_fallback(&self) -> bool {
        true
    }

    fn data_dir<'a>(&self, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        let format = "storage {{.Store.GraphRoot}}";
        Self::command(PLAIN, endpoint, &["info", "--format", format])
    }

    fn pull<'a>(&self, request: &PullRequest<'a>) -> Result<NodeCommand<'a>, Failure> {
        let mut arguments = vec!["pull"];
        if let Some(platform) = request.platform {
            arguments.extend(["--platform", platform]);
        }
        arguments.push(request.image.exact());
        let Some(login) = request.login else {
            return Ok(Self::command(SEEN, request.endpoint, &arguments));
        };
        if let RegistryLogin::RegistryToken(_) = login {
            return Err(Failure::new(
                FailureKind::RegistryAuth,
                Stage::Pull,
                "this login is a registry token, which podman cannot be told; use --registry-user, or another --auth-file",
            ));
        }
        Ok(NodeCommand {
            secret: Some(SecretDelivery::Directory {
                variable: "PREPULL_LOGIN",
                file: "auth.json",
                content: docker::config_json(request.image, login)?,
            }),
            ..Self::command(WITH_LOGIN, request.endpoint, &arguments)
        })
    }

    fn stock<'a>(&self, question: &StockQuestion<'a>) -> Option<NodeCommand<'a>> {
        let client = Self::command(PLAIN, question.endpoint, &[]);
        Some(stock::question(self.kind(), question, &client.argv))
    }

    fn read_stock(&self, output: &CommandOutput) -> Stock {
        stock::read(output)
    }

    fn read_pull(&self, image: &Image, output: &CommandOutput) -> Result<(), Failure> {
        docker::read_pull(self.kind(), image, output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ExitStatus, Secret};

    fn image() -> Image {
        "reg.example/app:v1".parse().unwrap()
    }

    fn pull<'a>(
        image: &'a Image,
        login: Option<&'a RegistryLogin>,
    ) -> Result<NodeCommand<'a>, Failure> {
        Podman.pull(&PullRequest {
            image,
            endpoint: None,
            platform: Some("linux/arm64"),
            login,
        })
    }

    #[test]
    fn a_login_is_a_file_of_its_own_and_in_no_argument() {
        let login = RegistryLogin::Password {
            username: "ci".into(),
            password: Secret::new("hunter2"),
        };
        let image = image();
        let command = pull(&image, Some(&login)).unwrap();
        assert_eq!(
            command.argv,
            [
                "sh",
                "-c",
                WITH_LOGIN,
                "podman",
                "pull",
                "--platform",
                "linux/arm64",
                "reg.example/app:v1"
            ]
        );
        assert!(!format!("{command:?}").contains("hunter2"));
        let Some(SecretDelivery::Directory {
            variable,
            file,
            content,
        }) = command.secret
        else {
            panic!("no file");
        };
        assert_eq!((variable, file), ("PREPULL_LOGIN", "auth.json"));
        assert_eq!(
            content.expose(),
            br#"{"auths":{"reg.example":{"auth":"Y2k6aHVudGVyMg=="}}}"#
        );
        let token = RegistryLogin::RegistryToken(Secret::new("hunter2"));
        let failure = pull(&image, Some(&token)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::RegistryAuth);
        assert!(!failure.detail.contains("hunter2"), "{failure}");
    }

    #[test]
    fn an_endpoint_is_a_service_of_podmans() {
        let asked = Podman.version(Some("unix:///run/podman/podman.sock"));
        assert_eq!(
            asked.argv[3..],
            [
                "podman",
                "--url",
                "unix:///run/podman/podman.sock",
                "version",
                "--format",
                "{{json .}}"
            ]
        );
    }

    #[test]
    fn a_pull_that_was_ended_is_no_success_though_podman_exits_with_0() {
        let ended = CommandOutput {
            exit: ExitStatus::Code(0),
            stdout: Vec::new(),
            stderr: b"Trying to pull reg.example/app:v1...\nCopying blob sha256:7b65\n".to_vec(),
            truncated: false,
        };
        let failure = Podman.read_pull(&image(), &ended).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unknown);
        let killed = CommandOutput {
            exit: ExitStatus::Code(137),
            ..ended.clone()
        };
        let failure = Podman.read_pull(&image(), &killed).unwrap_err();
        assert_eq!(failure.detail, "podman was ended by signal number 9");
        let done = CommandOutput {
            stdout: format!("{}\n", "9".repeat(64)).into_bytes(),
            ..ended
        };
        assert_eq!(Podman.read_pull(&image(), &done), Ok(()));
    }
}
