//! docker: the `docker` client on the node and the daemon behind it.

use super::docker_output::{INSPECT, check_alive, read_inspect, read_pull};
use super::kubelet::if_seen;
use super::{docker_api, keep, local_names, login, output, stock};
use crate::model::{
    CommandOutput, Failure, Image, KeepOutcome, LocalImage, RuntimeKind, Stage, Stock,
};
use crate::ports::{
    Description, KeepRequest, Naming, NodeCommand, PullRequest, Runtime, SecretDelivery,
    StockQuestion,
};

/// The docker daemon, through the `docker` client.
#[derive(Debug, Clone, Copy)]
pub struct Docker;

/// Calls docker where the kubelet sees its images.
const IF_SEEN: &[&str] = &["sh", "-c", if_seen!(r#"exec "$0" "$@""#)];

/// Asks docker, or podman in its place, where its files are.
const DATA_DIR: &str = r#""$0" "$@" 'docker {{.DockerRootDir}}' || { echo; "$0" "$@" 'storage {{.Store.GraphRoot}}'; }"#;

/// Gives an image its own name: `MODE LOCAL TAGGED ENDPOINT ARGUMENTS...`. Without a tagged name docker pulls with these
/// arguments: by digest it finds only what it pulled under the image's own name.
///
/// The local names of all ports are removed: a node that lost its power may have kept one. One that is removed while the
/// daemon still ends a cancelled pull may come back, once.
const NAME: &str = r#"mode=$1 local=$2 tagged=$3 endpoint=$4
shift 4
digest=${local#*@}
repository=${local#*/}
repository=${repository%@*}
ask() { docker ${endpoint:+-H "$endpoint"} "$@"; }
forget() {
    ask image ls -a --digests --no-trunc --format '{{.Repository}}@{{.Digest}}' | while read -r name; do
        case $name in
            127.0.0.1:*/"$repository@$digest") ask image rm "$name" >/dev/null || exit ;;
        esac
    done
}
case $mode in
    name)
        if [ -n "$tagged" ]; then ask image tag "$local" "$tagged"; else ask "$@" >/dev/null; fi &&
            ask image rm "$local" >/dev/null && forget
        ;;
    forget)
        forget
        sleep 1
        forget
        ;;
esac"#;

impl Docker {
    fn command<'a>(
        start: &[&'a str],
        endpoint: Option<&'a str>,
        arguments: &[&'a str],
    ) -> NodeCommand<'a> {
        let mut argv = [start, &["docker"]].concat();
        if let Some(endpoint) = endpoint {
            argv.extend(["-H", endpoint]);
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

/// CLI 28 asks for a login when the registry refuses the one it has, and waits for ever on /dev/null or a closed input; at
/// an empty line on a pipe it gives up at once.
const NO_ANSWER: &[u8] = b"\n";

/// docker's arguments for a pull.
fn pull_arguments<'a>(request: &PullRequest<'a>) -> Vec<&'a str> {
    let mut arguments = vec!["pull"];
    if let Some(platform) = request.platform {
        arguments.extend(["--platform", platform]);
    }
    arguments.push(request.image.exact());
    arguments
}

impl Runtime for Docker {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Docker
    }

    fn version<'a>(&self, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        Self::command(&[], endpoint, &["version", "--format", "{{json .}}"])
    }

    fn check_alive(&self, output: &CommandOutput) -> Result<String, Failure> {
        check_alive(self.kind(), output)
    }

    fn describe<'a>(&self, endpoint: Option<&'a str>) -> [NodeCommand<'a>; 2] {
        let socket = [
            "context",
            "inspect",
            "--format",
            "{{.Endpoints.docker.Host}}",
        ];
        [
            self.version(endpoint),
            Self::command(&[], endpoint, &socket),
        ]
    }

    fn read_description(
        &self,
        [_, version, socket]: [&CommandOutput; 3],
    ) -> Result<Description, Failure> {
        let (client, endpoint) = output::client_and_socket(socket, "docker");
        Ok(Description {
            runtime: self.check_alive(version)?,
            client,
            endpoint,
        })
    }

    fn inspect<'a>(&self, image: &'a Image, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        Self::command(IF_SEEN, endpoint, &[INSPECT, &[image.exact()]].concat())
    }

    fn read_inspect(
        &self,
        image: &Image,
        output: &CommandOutput,
        stage: Stage,
    ) -> Result<Option<LocalImage>, Failure> {
        read_inspect(self.kind(), image, output, stage)
    }

    fn data_dir<'a>(&self, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        Self::command(&["sh", "-c", DATA_DIR], endpoint, &["info", "--format"])
    }

    fn pull<'a>(&self, request: &PullRequest<'a>) -> Result<NodeCommand<'a>, Failure> {
        Ok(NodeCommand {
            secret: login::docker_config(request)?,
            stdin: NO_ANSWER,
            ..Self::command(IF_SEEN, request.endpoint, &pull_arguments(request))
        })
    }

    fn daemon_pull<'a>(&self, request: &PullRequest<'a>) -> Option<NodeCommand<'a>> {
        let asked = docker_api::request(request, login::server_of(request.image))?;
        Some(NodeCommand {
            secret: Some(SecretDelivery::Input(asked)),
            ..Self::command(IF_SEEN, request.endpoint, &["system", "dial-stdio"])
        })
    }

    fn naming<'a>(&self, naming: &Naming<'a>) -> Result<[NodeCommand<'a>; 3], Failure> {
        let request = &naming.request;
        let pull = login::docker_config(request).map(|secret| NodeCommand {
            argv: pull_arguments(request),
            environment: Vec::new(),
            secret,
            stdin: NO_ANSWER,
        });
        local_names::by_tag(NAME, naming, pull)
    }

    fn keep<'a>(&self, request: &KeepRequest<'a>) -> Option<NodeCommand<'a>> {
        Some(keep::without_pins(self.kind(), request))
    }

    fn read_keep(&self, output: &CommandOutput) -> KeepOutcome {
        keep::read(output)
    }

    fn stock<'a>(&self, question: &StockQuestion<'a>) -> Option<NodeCommand<'a>> {
        let client = Self::command(&[], question.endpoint, &[]);
        Some(stock::question(self.kind(), question, &client.argv))
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
    use crate::model::{ExitStatus, RegistryLogin, Secret, basic};
    use crate::runtime::testing::image;

    fn request(image: &Image) -> PullRequest<'_> {
        PullRequest {
            image,
            endpoint: None,
            platform: None,
            login: None,
        }
    }

    #[test]
    fn commands_name_endpoint_platform_and_the_full_image() {
        let nginx = image("nginx");
        let command = Docker
            .pull(&PullRequest {
                endpoint: Some("unix:///run/user/1000/docker.sock"),
                platform: Some("linux/arm64"),
                ..request(&nginx)
            })
            .unwrap();
        assert_eq!(
            command.argv[3..],
            [
                "docker",
                "-H",
                "unix:///run/user/1000/docker.sock",
                "pull",
                "--platform",
                "linux/arm64",
                "docker.io/library/nginx:latest"
            ]
        );
        assert_eq!(command.stdin, b"\n", "so that no login prompt waits");
        assert_eq!(command.secret, None, "the node's own login is used");
        assert_eq!(command.environment, []);
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = image(&format!("reg.example/app:v1@{digest}"));
        assert_eq!(
            Docker.inspect(&pinned, None).argv[3..],
            [
                "docker",
                "image",
                "inspect",
                "--format",
                "{{json .RepoDigests}} {{.Os}}/{{.Architecture}} {{.Size}} {{.Id}}",
                &format!("reg.example/app@{digest}"),
            ]
        );
    }

    #[test]
    fn a_login_travels_as_a_config_file_and_nowhere_else() {
        let secret = "hunter2\"";
        let user_and_password = basic("c\"i", secret.as_bytes());
        let user_and_password = std::str::from_utf8(user_and_password.expose()).unwrap();
        let password = RegistryLogin::Password {
            username: "c\"i".into(),
            password: Secret::new(secret),
        };
        let identity = RegistryLogin::IdentityToken {
            username: "c\"i".into(),
            token: Secret::new(secret),
        };
        let registry = RegistryLogin::RegistryToken(Secret::new(secret));
        let hub = "https://index.docker.io/v1/";
        for (name, key, login, field, value) in [
            (
                "reg.example:5000/app",
                "reg.example:5000",
                &password,
                "auth",
                user_and_password,
            ),
            ("nginx", hub, &password, "auth", user_and_password),
            ("nginx", hub, &identity, "identitytoken", secret),
            ("nginx", hub, &registry, "registrytoken", secret),
        ] {
            let image = image(name);
            let command = Docker
                .pull(&PullRequest {
                    login: Some(login),
                    ..request(&image)
                })
                .unwrap();
            let shown = format!("{command:?}");
            assert!(
                !shown.contains(user_and_password) && !shown.contains("hunter2"),
                "{shown}"
            );
            let Some(SecretDelivery::Directory {
                variable,
                file,
                content,
            }) = command.secret
            else {
                panic!("no config file");
            };
            assert_eq!((variable, file), ("DOCKER_CONFIG", "config.json"));
            let json: serde_json::Value = serde_json::from_slice(content.expose()).unwrap();
            assert_eq!(json, serde_json::json!({"auths": {key: {field: value}}}));
        }
    }

    #[test]
    fn a_description_names_the_daemon_and_its_socket() {
        let said = |code, text: &str| CommandOutput {
            exit: ExitStatus::Code(code),
            stdout: text.into(),
            stderr: Vec::new(),
            truncated: false,
        };
        let version = said(0, "{\"Server\":{\"Version\":\"28.2.2\"}}\n");
        let (root, silent) = (said(0, "/var/lib/docker\n"), said(1, ""));
        let socket = said(0, "unix:///var/run/docker.sock\n");
        for (socket, expected) in [
            (&socket, Some("unix:///var/run/docker.sock".to_string())),
            (&silent, None),
        ] {
            assert_eq!(
                Docker.read_description([&root, &version, socket]),
                Ok(Description {
                    runtime: "docker 28.2.2".into(),
                    client: "docker".into(),
                    endpoint: expected,
                })
            );
        }
        assert!(Docker.read_description([&root, &silent, &socket]).is_err());
    }
}
