//! podman: no daemon, rootful or rootless, through its own client. It speaks as docker's does, and is read as that is.

use super::docker_output::{INSPECT, check_alive, read_inspect, read_pull};
use super::kubelet::if_seen;
use super::{keep, local_names, login, stock};
use crate::model::{
    CommandOutput, Failure, Image, KeepOutcome, LocalImage, RuntimeKind, Stage, Stock,
};
use crate::ports::{
    Description, KeepRequest, Naming, NodeCommand, PullRequest, Runtime, StockQuestion,
};

/// podman, through its own client.
#[derive(Debug, Clone, Copy)]
pub struct Podman;

/// A script that begins with the options for the store of CRI-O, as `$store`, which may be another one than podman's: where
/// crictl is missing, or cannot do it, podman is what puts images there.
macro_rules! with_store {
    ($script:expr) => {
        concat!(
            $crate::runtime::crio::with_storage!(
                r#"if [ -S /run/crio/crio.sock ] && [ "$(id -u)" = 0 ]; then
    read_storage /etc/crio/crio.conf /etc/crio/crio.conf.d/*
fi
podman() {
    command podman ${root:+--root "$root"} ${driver:+--storage-driver "$driver"} ${url:+--url "$url"} "$@"
}
"#
            ),
            $script
        )
    };
}
pub(super) use with_store;

/// Calls podman with that store.
macro_rules! podman {
    () => {
        with_store!(
            r#"exec "$0" ${root:+--root "$root"} ${driver:+--storage-driver "$driver"} "$@""#
        )
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

/// A script that begins with the functions that give an image its own name, where `podman` calls podman with its store:
/// `name_locally TAGGED` and `forget`, for the local name `$local`.
///
/// podman finds an image by any name of its repository with a digest that the image has: `image rm` of a name that is
/// not there would remove another one. So names are removed as they are listed; `untag` leaves an image without its last
/// name. The local names of all ports are removed: a node that lost its power may have kept one.
macro_rules! with_local_names {
    ($script:expr) => {
        concat!(
            r#"digest=${local#*@}
repository=${local#*/}
repository=${repository%@*}
forget() {
    podman images -a --format '{{.Names}}' | tr -d '[]' | while read -r names; do
        own=
        others=
        for name in $names; do
            case $name in
                127.0.0.1:*/"$repository@$digest") own="$own $name" ;;
                *) others=yes ;;
            esac
        done
        for name in $own; do
            if [ -n "$others" ]; then
                podman untag "$name" "$name" || exit
            else
                podman image rm "$name" >/dev/null || exit
            fi
        done
    done
}
"#,
            $script
        )
    };
}
pub(super) use with_local_names;

/// Gives an image its own name: `MODE LOCAL TAGGED URL ARGUMENTS...`. Without a tagged name podman pulls with these
/// arguments.
const NAME: &str = with_store!(concat!(
    r#"mode=$1 local=$2 tagged=$3 url=$4
shift 4
[ -z "${PREPULL_LOGIN-}" ] || export REGISTRY_AUTH_FILE="$PREPULL_LOGIN/auth.json"
"#,
    with_local_names!(
        r#"case $mode in
    name)
        if [ -n "$tagged" ]; then podman tag "$local" "$tagged"; else podman "$@" >/dev/null; fi && forget
        ;;
    forget)
        forget
        sleep 1
        forget
        ;;
esac"#
    )
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

    fn pull_with<'a>(
        request: &PullRequest<'a>,
        options: &[&'a str],
    ) -> Result<NodeCommand<'a>, Failure> {
        let secret = login::containers_auth(RuntimeKind::Podman, request)?;
        let script = if secret.is_some() { WITH_LOGIN } else { SEEN };
        let arguments = pull_arguments(request, options);
        Ok(NodeCommand {
            secret,
            ..Self::command(script, request.endpoint, &arguments)
        })
    }
}

/// podman's arguments for a pull.
fn pull_arguments<'a>(request: &PullRequest<'a>, options: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = [&["pull"], options].concat();
    if let Some(platform) = request.platform {
        arguments.extend(["--platform", platform]);
    }
    arguments.push(request.image.exact());
    arguments
}

impl Runtime for Podman {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Podman
    }

    fn version<'a>(&self, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        Self::command(PLAIN, endpoint, &["version", "--format", "{{json .}}"])
    }

    fn check_alive(&self, output: &CommandOutput) -> Result<String, Failure> {
        check_alive(self.kind(), output)
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
        read_inspect(self.kind(), image, output, stage)
    }

    fn is_fallback(&self) -> bool {
        true
    }

    fn data_dir<'a>(&self, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        let format = "storage {{.Store.GraphRoot}}";
        Self::command(PLAIN, endpoint, &["info", "--format", format])
    }

    fn pull<'a>(&self, request: &PullRequest<'a>) -> Result<NodeCommand<'a>, Failure> {
        Self::pull_with(request, &[])
    }

    fn pull_locally<'a>(&self, request: &PullRequest<'a>) -> Result<NodeCommand<'a>, Failure> {
        Self::pull_with(request, &["--tls-verify=false"])
    }

    fn naming<'a>(&self, naming: &Naming<'a>) -> Result<[NodeCommand<'a>; 3], Failure> {
        let request = &naming.request;
        let pull = login::containers_auth(self.kind(), request).map(|secret| NodeCommand {
            argv: pull_arguments(request, &[]),
            environment: Vec::new(),
            secret,
            stdin: b"",
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
        let client = Self::command(PLAIN, question.endpoint, &[]);
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
    use crate::model::{ExitStatus, FailureKind, RegistryLogin, Secret};
    use crate::ports::SecretDelivery;

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
    fn a_name_by_digest_is_a_pull_with_the_registrys_login_and_a_tag_is_none() {
        let login = RegistryLogin::Password {
            username: "ci".into(),
            password: Secret::new("hunter2"),
        };
        let digest = format!("sha256:{}", "a".repeat(64));
        let local = format!("127.0.0.1:4001/prepull/app@{digest}");
        let local: Image = local.parse().unwrap();
        let by_digest: Image = format!("reg.example/app@{digest}").parse().unwrap();
        let name = |image: &Image| {
            let naming = Naming {
                request: PullRequest {
                    image,
                    endpoint: None,
                    platform: None,
                    login: Some(&login),
                },
                local: &local,
            };
            let [_, name, _] = Podman.naming(&naming).unwrap();
            let words: Vec<String> = name.argv[4..].iter().map(ToString::to_string).collect();
            (words, name.secret.is_some())
        };
        let pull = ["name", local.as_str(), "", "", "pull", by_digest.as_str()];
        assert_eq!(name(&by_digest), (pull.map(String::from).to_vec(), true));
        let tag = ["name", local.as_str(), "reg.example/app:v1", ""];
        assert_eq!(name(&image()), (tag.map(String::from).to_vec(), false));
        let asked = Podman.pull_locally(&PullRequest {
            image: &local,
            endpoint: None,
            platform: None,
            login: Some(&login),
        });
        let asked = asked.unwrap();
        let expected = ["podman", "pull", "--tls-verify=false", local.as_str()];
        assert_eq!(asked.argv[3..], expected);
        assert!(!format!("{asked:?}").contains("hunter2"));
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
