//! A runtime for tests: asks the fake clients, and reads what they print.

use prepull::model::{
    CommandOutput, Failure, FailureKind, Image, LocalImage, RuntimeKind, Secret, Stage,
};
use prepull::ports::{Description, Naming, NodeCommand, PullRequest, Runtime, SecretDelivery};

/// Asks `client`, which is called like the kind unless a test wants it missing.
pub struct FakeRuntime {
    pub kind: RuntimeKind,
    pub client: &'static str,
    /// docker's way (a directory) or crictl's (a variable).
    pub secret: Option<Secret>,
    /// What docker's daemon itself is asked.
    pub question: Option<Secret>,
    pub stdin: &'static [u8],
}

impl FakeRuntime {
    pub fn new(kind: RuntimeKind) -> Self {
        Self {
            kind,
            client: kind.as_str(),
            secret: None,
            question: None,
            stdin: b"",
        }
    }

    fn command<'a>(&self, arguments: &[&'a str]) -> NodeCommand<'a> {
        NodeCommand {
            argv: [&[self.client], arguments].concat(),
            environment: vec![("PLAIN", "it's $(id) `x`\n\"é\"")],
            secret: None,
            stdin: b"",
        }
    }
}

fn words(output: &CommandOutput) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Runtime for FakeRuntime {
    fn kind(&self) -> RuntimeKind {
        self.kind
    }

    fn version<'a>(&self, _: Option<&'a str>) -> NodeCommand<'a> {
        self.command(&["version"])
    }

    fn check_alive(&self, output: &CommandOutput) -> Result<String, Failure> {
        let kind = match output.exit {
            prepull::model::ExitStatus::Code(0) => return Ok(String::new()),
            prepull::model::ExitStatus::Code(127) => FailureKind::RuntimeMissing,
            _ => FailureKind::RuntimeDown,
        };
        Err(Failure::new(kind, Stage::Probe, words(output)))
    }

    fn describe<'a>(&self, _: Option<&'a str>) -> [NodeCommand<'a>; 2] {
        [self.command(&["version"]), self.command(&["socket"])]
    }

    fn read_description(
        &self,
        [_, version, _]: [&CommandOutput; 3],
    ) -> Result<Description, Failure> {
        self.check_alive(version)?;
        let version = String::from_utf8_lossy(&version.stdout);
        Ok(Description {
            client: String::new(),
            runtime: format!("{} {}", self.kind, version.trim()),
            endpoint: None,
        })
    }

    fn inspect<'a>(&self, image: &'a Image, _: Option<&'a str>) -> NodeCommand<'a> {
        self.command(&["inspect", image.as_str()])
    }

    fn read_inspect(
        &self,
        _: &Image,
        output: &CommandOutput,
        stage: Stage,
    ) -> Result<Option<LocalImage>, Failure> {
        if output.success() {
            let printed = String::from_utf8_lossy(&output.stdout);
            let mut words = printed.split_whitespace().map(String::from);
            return Ok(Some(LocalImage {
                digest: words.next(),
                image_id: None,
                bytes: None,
                platform: words.next(),
            }));
        }
        if words(output).contains("no such image") {
            return Ok(None);
        }
        Err(Failure::new(FailureKind::RuntimeDown, stage, words(output)))
    }

    fn data_dir<'a>(&self, _: Option<&'a str>) -> NodeCommand<'a> {
        self.command(&["info"])
    }

    fn pull<'a>(&self, request: &PullRequest<'a>) -> Result<NodeCommand<'a>, Failure> {
        let mut command = self.command(&["pull", request.image.as_str()]);
        command.stdin = self.stdin;
        command.secret = self.secret.clone().map(|secret| match self.kind {
            RuntimeKind::Docker | RuntimeKind::Podman => SecretDelivery::Directory {
                variable: "DOCKER_CONFIG",
                file: "config.json",
                content: secret,
            },
            _ => SecretDelivery::Environment {
                variable: "CRICTL_AUTH",
                value: secret,
            },
        });
        Ok(command)
    }

    fn daemon_pull<'a>(&self, _: &PullRequest<'a>) -> Option<NodeCommand<'a>> {
        let question = self.question.clone()?;
        Some(NodeCommand {
            secret: Some(SecretDelivery::Input(question)),
            ..self.command(&["system", "dial-stdio"])
        })
    }

    fn naming<'a>(&self, _: &Naming<'a>) -> Result<[NodeCommand<'a>; 3], Failure> {
        Ok(["check", "name", "forget"].map(|mode| self.command(&["naming", mode])))
    }

    fn read_pull(&self, _: &Image, output: &CommandOutput) -> Result<(), Failure> {
        if output.success() {
            return Ok(());
        }
        Err(Failure::new(
            FailureKind::RegistryAuth,
            Stage::Pull,
            words(output),
        ))
    }
}
