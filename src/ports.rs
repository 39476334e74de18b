//! The traits between the engine and the world: how a node is reached, and how its runtime is talked to.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::model::{
    CommandOutput, ExitStatus, Failure, FailureKind, Image, KeepOutcome, KeptState, LocalImage,
    Node, Passwords, RegistryLogin, RuntimeKind, Secret, Stage, Stock,
};

/// Reaches nodes. The product's own is SSH; tests script one.
pub trait Transport: Send + Sync {
    /// A connection to one node.
    type Session: Session;

    /// Connects and authenticates, every phase under a deadline of its own.
    ///
    /// `progress` is called with each stage as it begins.
    ///
    /// # Errors
    /// A [`Failure`] of kind unreachable, host-key, ssh-auth or connection-lost.
    fn connect(
        &self,
        node: &Node,
        progress: &(dyn Fn(Stage) + Send + Sync),
    ) -> impl Future<Output = Result<Self::Session, Failure>> + Send;

    /// Whether a password that several nodes share is tried no more, because the first of them did not accept it.
    fn has_given_up_a_password(&self) -> bool {
        false
    }
}

/// A connection to one node.
pub trait Session: Send + 'static {
    /// A command that runs there.
    type Channel: Channel;

    /// Starts a command: `line` is given to the login shell of the node's user, whichever it is.
    ///
    /// # Errors
    /// A [`Failure`] of kind connection-lost, at stage start.
    fn exec(&mut self, line: &str) -> impl Future<Output = Result<Self::Channel, Failure>> + Send;

    /// Whether its host key is another one than is known, and was taken because host keys are not checked: it may be
    /// any host, and gets no password.
    fn host_key_changed(&self) -> bool {
        false
    }

    /// Has the node listen on a port of its own 127.0.0.1. Programs on the node that connect to it are connected to the
    /// receiver of what this returns, for as long as the session lives.
    ///
    /// # Errors
    /// A [`Failure`] at stage start: of kind node-setup where the node's SSH server refuses to forward a port, else of
    /// kind connection-lost.
    fn forward_port(&mut self) -> impl Future<Output = Result<ForwardedPort, Failure>> + Send {
        let detail = "this connection cannot forward ports";
        std::future::ready(Err(Failure::new(
            FailureKind::NodeSetup,
            Stage::Start,
            detail,
        )))
    }

    /// What became of the run's passwords for becoming root; nothing where they are not counted.
    fn root_passwords(&self) -> Option<&Passwords> {
        None
    }

    /// Ends the connection politely, within a second or two; dropping it ends it rudely.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// A port of a node's 127.0.0.1.
pub struct ForwardedPort {
    /// Its number, which the node chose.
    pub port: u16,
    /// What connects to it. Connections are refused while too many wait or are open.
    pub connections: mpsc::Receiver<Box<dyn NodeStream>>,
}

/// A connection from a program on a node.
pub trait NodeStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> NodeStream for T {}

/// A command that runs on a node.
pub trait Channel: Send + 'static {
    /// Writes to its standard input. The bytes may be those of a [`Secret`]: they are not logged or kept.
    ///
    /// # Errors
    /// A [`Failure`] of kind connection-lost.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), Failure>> + Send;

    /// What comes next; `None` once the channel is closed. Cancel-safe: a dropped call loses nothing.
    ///
    /// # Errors
    /// A [`Failure`] of kind connection-lost when the connection ends before the channel does.
    fn next(&mut self) -> impl Future<Output = Result<Option<ChannelEvent>, Failure>> + Send;
}

/// Something that a running command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelEvent {
    /// Bytes of standard output.
    Stdout(Vec<u8>),
    /// Bytes of standard error.
    Stderr(Vec<u8>),
    /// It ended. More output may still follow.
    Exited(ExitStatus),
}

/// A command to be run on a node by the node room: data, never shell text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCommand<'a> {
    /// Program and arguments. No secret is ever in here.
    pub argv: Vec<&'a str>,
    /// Environment variables without secrets.
    pub environment: Vec<(&'static str, &'a str)>,
    /// The secret it needs, and how it wants to get it.
    pub secret: Option<SecretDelivery>,
    /// What it gets as standard input; empty for `/dev/null`.
    pub stdin: &'static [u8],
}

/// How a command on a node gets its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretDelivery {
    /// A file in a directory of its own on a memory file system; the variable names the directory.
    Directory {
        /// The variable, e.g. `DOCKER_CONFIG`.
        variable: &'static str,
        /// The file's name, e.g. `config.json`.
        file: &'static str,
        /// What is in it.
        content: Secret,
    },
    /// An environment variable of that one process.
    Environment {
        /// The variable, e.g. `CRICTL_AUTH`.
        variable: &'static str,
        /// Its value; no newline, no NUL.
        value: Secret,
    },
    /// Its standard input, which stays open until the command ends. [`Secret::plain`] where nothing in it is secret.
    Input(Secret),
}

impl SecretDelivery {
    /// What is delivered.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::Directory { content, .. } => content,
            Self::Environment { value, .. } => value,
            Self::Input(text) => text,
        }
    }
}

/// What a pull needs to know.
#[derive(Debug, Clone, Copy)]
pub struct PullRequest<'a> {
    /// What to pull.
    pub image: &'a Image,
    /// The runtime's socket, where it is not the default.
    pub endpoint: Option<&'a str>,
    /// The platform to ask for.
    pub platform: Option<&'a str>,
    /// The operator's login for the image's registry.
    pub login: Option<&'a RegistryLogin>,
}

/// An image under two names.
#[derive(Debug, Clone, Copy)]
pub struct Naming<'a> {
    /// The pull of its own name.
    pub request: PullRequest<'a>,
    /// The name that it was pulled under: a port of 127.0.0.1, a repository, and the digest.
    pub local: &'a Image,
}

/// Which layers a node's store holds.
#[derive(Debug, Clone, Copy)]
pub struct StockQuestion<'a> {
    /// Where the runtime keeps its files.
    pub root: &'a str,
    /// The short digests of the layers that are asked about, each once, with blanks between them.
    pub layers: &'a str,
    /// The runtime's socket, where it is not the default.
    pub endpoint: Option<&'a str>,
}

/// An image that is to be kept from the kubelet's garbage collection.
#[derive(Debug, Clone, Copy)]
pub struct KeepRequest<'a> {
    /// The image.
    pub image: &'a Image,
    /// Until when, as the node's label has it.
    pub until: &'a str,
    /// The runtime's socket, where it is not the default.
    pub endpoint: Option<&'a str>,
}

/// What a runtime is, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its name and version, e.g. `containerd 1.7.24`.
    pub runtime: String,
    /// The program that prepull calls for it, e.g. `k3s crictl`.
    pub client: String,
    /// Its socket, where its client tells.
    pub endpoint: Option<String>,
}

/// The registry inside prepull, from which nodes pull through their connections. The product's own is in the room `via`.
pub trait ImageServer: Send + Sync {
    /// What an item of the plan is served as. Its source is asked once for the whole run.
    ///
    /// # Errors
    /// Why the source does not give it, at stage pull.
    fn image(&self, item: usize) -> BoxFuture<'_, Result<ServedImage, Failure>>;

    /// Lets one node in, with a login of its own.
    fn admit(&self) -> Arc<dyn ImageReader>;

    /// What an item is made of on one architecture, for nodes that pass it on to each other.
    ///
    /// # Errors
    /// Why the source does not give it, or why nodes cannot pass it on.
    fn parts(
        &self,
        item: usize,
        architecture: &'static str,
    ) -> BoxFuture<'_, Result<ServedParts, Failure>>;

    /// Where a node fetches an item's blobs by itself, with an authorization that was not handed out before.
    ///
    /// # Errors
    /// Why its registry gives none.
    fn origin(&self, item: usize) -> BoxFuture<'_, Result<BlobOrigin, Failure>>;
}

/// An image that nodes can pull from prepull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedImage {
    /// Its repository there.
    pub repository: String,
    /// The digest of its manifest or index.
    pub digest: String,
}

/// What an image is made of on one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedParts {
    /// The name that it is pulled by.
    pub image: ServedImage,
    /// Its index, if it has one, and its manifests: digest, media type, bytes.
    pub manifests: Vec<(String, String, Bytes)>,
    /// The digests and sizes of the blobs that these name.
    pub blobs: Vec<(String, u64)>,
}

impl ServedParts {
    /// The bytes of all blobs.
    pub fn bytes(&self) -> u64 {
        let sizes = self.blobs.iter().map(|(_, size)| *size);
        sizes.fold(0, u64::saturating_add)
    }
}

/// Where the blobs of an image are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobOrigin {
    /// What a digest is appended to.
    pub base: String,
    /// The header `Authorization` that is wanted there.
    pub authorization: Option<Secret>,
    /// Certificates in PEM to trust beside those of the node.
    pub authorities: Vec<String>,
}

/// A registry that nodes may be led to.
pub trait OriginSource: Send + Sync {
    /// Where an image's blobs are, with an authorization that was not handed out before. The registry is asked for its
    /// `manifest`, which costs it next to nothing and shows that it gives the image.
    ///
    /// # Errors
    /// What came back, for the operator.
    fn origin<'a>(&'a self, manifest: &'a str) -> BoxFuture<'a, Result<BlobOrigin, String>>;
}

/// One node's way into an [`ImageServer`].
pub trait ImageReader: Send + Sync {
    /// The login that the node has to show.
    fn login(&self) -> &RegistryLogin;

    /// Serves a connection to its end.
    fn serve(&self, stream: Box<dyn NodeStream>) -> BoxFuture<'static, ()>;

    /// How many requests came with the login.
    fn requests(&self) -> u64;

    /// Why the last request that failed on this side failed, for the operator.
    fn failure(&self) -> Option<String>;
}

/// Gives a run's logins again: what a cloud's helper hands out lives for minutes or hours.
pub trait CredentialSource: Send + Sync {
    /// The login for each image of the plan, in its order.
    ///
    /// # Errors
    /// Why they cannot be had, for the operator.
    fn ask(&self) -> BoxFuture<'_, Result<Vec<Option<RegistryLogin>>, String>>;
}

/// One container runtime: builds commands and reads their output. Pure, no I/O.
pub trait Runtime: Send + Sync {
    /// Which one.
    fn kind(&self) -> RuntimeKind;

    /// Asks client and daemon for their versions: tells whether the runtime answers.
    fn version<'a>(&self, endpoint: Option<&'a str>) -> NodeCommand<'a>;

    /// Reads the answer to [`Runtime::version`]: what answers there, for people.
    ///
    /// # Errors
    /// A [`Failure`] at stage probe: runtime-missing, runtime-down, privilege, node-setup.
    fn check_alive(&self, output: &CommandOutput) -> Result<String, Failure>;

    /// Asks for what [`Runtime::read_description`] reads: the version, and the client with its socket.
    fn describe<'a>(&self, endpoint: Option<&'a str>) -> [NodeCommand<'a>; 2];

    /// Reads the answers to [`Runtime::data_dir`] and [`Runtime::describe`].
    ///
    /// # Errors
    /// A [`Failure`] at stage probe, as for [`Runtime::check_alive`].
    fn read_description(&self, answers: [&CommandOutput; 3]) -> Result<Description, Failure>;

    /// Asks whether the node holds the image. Exit status 0 means yes.
    fn inspect<'a>(&self, image: &'a Image, endpoint: Option<&'a str>) -> NodeCommand<'a>;

    /// Reads the answer to [`Runtime::inspect`]; `None` when the image is not there.
    ///
    /// # Errors
    /// A [`Failure`] at `stage`, which is inspect or verify.
    fn read_inspect(
        &self,
        image: &Image,
        output: &CommandOutput,
        stage: Stage,
    ) -> Result<Option<LocalImage>, Failure>;

    /// Whether a probe takes it only where no other client is installed: it also answers on a node whose images another
    /// runtime keeps, while that one is down (podman has no daemon; docker's package brings a containerd).
    fn is_fallback(&self) -> bool {
        false
    }

    /// Asks where the runtime keeps its files, and in whose layout: a line `containerd PATH`, `docker PATH` or
    /// `storage PATH` (containers/storage), or the CRI's JSON with a line `"containerdRootDir": "PATH"` or `"crio":`.
    /// A runtime that does not answer is looked for in its usual places.
    fn data_dir<'a>(&self, endpoint: Option<&'a str>) -> NodeCommand<'a>;

    /// The pull.
    ///
    /// # Errors
    /// A [`Failure`] at stage pull when this runtime cannot do what is asked.
    fn pull<'a>(&self, request: &PullRequest<'a>) -> Result<NodeCommand<'a>, Failure>;

    /// The pull of a name that leads to prepull: a port of the node's 127.0.0.1 that speaks plain HTTP and wants the
    /// login of the request.
    ///
    /// # Errors
    /// As for [`Runtime::pull`].
    fn pull_locally<'a>(&self, request: &PullRequest<'a>) -> Result<NodeCommand<'a>, Failure> {
        self.pull(request)
    }

    /// A question to the daemon itself, which pulls and tells more than the client would.
    ///
    /// Its answer begins with `HTTP/`. The node does not ask, or goes on to [`Runtime::pull`], where only the client
    /// can do it, or cannot be joined to the daemon.
    fn daemon_pull<'a>(&self, _request: &PullRequest<'a>) -> Option<NodeCommand<'a>> {
        None
    }

    /// Gives an image that was pulled under another name its own. Three commands: the first tells whether that can be
    /// done on this node, the second does it and removes the other name, the third removes the other name alone, also
    /// one that an earlier pull left behind.
    ///
    /// The registry is asked for nothing, except for a digest where [`Runtime::names_digests`] is false.
    ///
    /// # Errors
    /// A [`Failure`] at stage pull when this runtime cannot do it.
    fn naming<'a>(&self, _naming: &Naming<'a>) -> Result<[NodeCommand<'a>; 3], Failure> {
        let kind = self.kind();
        let detail = format!("prepull cannot have {kind} give an image another name");
        Err(Failure::new(FailureKind::NodeSetup, Stage::Pull, detail))
    }

    /// Whether it names an image by digest without its registry. Otherwise the second command of [`Runtime::naming`] is
    /// an ordinary pull of that digest, which finds all layers there.
    fn names_digests(&self) -> bool {
        false
    }

    /// Asks which layers the store holds, and when the node's kubelet collects images. `None` where this runtime has no
    /// means for it.
    fn stock<'a>(&self, _question: &StockQuestion<'a>) -> Option<NodeCommand<'a>> {
        None
    }

    /// Reads the answer to [`Runtime::stock`].
    fn read_stock(&self, _output: &CommandOutput) -> Stock {
        Stock::default()
    }

    /// Pins an image that is there, and reads the pin back. `None` where prepull knows no way.
    fn keep<'a>(&self, _request: &KeepRequest<'a>) -> Option<NodeCommand<'a>> {
        None
    }

    /// Reads the answer to [`Runtime::keep`].
    fn read_keep(&self, _output: &CommandOutput) -> KeepOutcome {
        KeepOutcome {
            state: KeptState::NotPinned,
            note: None,
        }
    }

    /// Reads how a pull ended, whichever way was taken. Success here is not yet proof: the image is inspected
    /// afterwards.
    ///
    /// # Errors
    /// A [`Failure`] at stage pull, whose kind comes from what the runtime printed.
    fn read_pull(&self, image: &Image, output: &CommandOutput) -> Result<(), Failure>;
}
