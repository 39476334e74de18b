//! Finding the runtime's socket: the configuration file, the variables, the default endpoints, the first call.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use k8s_cri::v1::ImageFsInfoRequest;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::args::Given;
use crate::say;

/// The client of the image service.
pub type Images = ImageServiceClient<Channel>;
/// The client of the runtime service.
pub type Runtimes = RuntimeServiceClient<Channel>;

const DEFAULT_CONFIG: &str = "/etc/crictl.yaml";
const DEFAULTS: [&str; 3] = [
    "unix:///run/containerd/containerd.sock",
    "unix:///run/crio/crio.sock",
    "unix:///var/run/cri-dockerd.sock",
];
/// How long the real one keeps asking a socket that is not there.
const PATIENCE: Duration = Duration::from_millis(3500);

/// The endpoint that flags, variables or the configuration file name. Warns as crictl does.
pub fn configured(global: &Given) -> Result<Option<String>, String> {
    let path = global.value("config").unwrap_or(DEFAULT_CONFIG);
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let beside = std::env::current_exe()
                .unwrap_or_default()
                .with_file_name("crictl.yaml");
            let next = beside.display();
            say::log(
                "warning",
                &format!("Config {path:?} does not exist, trying next: \"{next}\""),
            );
            match std::fs::read_to_string(&beside) {
                Ok(text) => text,
                Err(_) if path == DEFAULT_CONFIG => String::new(),
                Err(error) => {
                    return Err(format!(
                        "get server config: load config file: stat {next}: {}",
                        go_words(&error)
                    ));
                }
            }
        }
        Err(error) => {
            return Err(format!(
                "get server config: load config file: open {path}: {}",
                go_words(&error)
            ));
        }
    };
    let setting = |key: &str| {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(value.trim().trim_matches(['"', '\'']).to_owned()).filter(|value| !value.is_empty())
    };
    let given = |name: &str| global.value(name).map(str::to_owned);
    Ok(given("image-endpoint")
        .or_else(|| given("runtime-endpoint"))
        .or_else(|| setting("image-endpoint"))
        .or_else(|| setting("runtime-endpoint")))
}

fn go_words(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "no such file or directory",
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::ConnectionRefused => "connection refused",
        _ => "input/output error",
    }
}

/// The client of the image service at the endpoint.
pub async fn connect(endpoint: Option<String>) -> Result<Images, String> {
    let channel = open(endpoint).await?;
    Ok(ImageServiceClient::new(channel).max_decoding_message_size(64 << 20))
}

/// The client of the runtime service at the endpoint.
pub async fn connect_runtime(endpoint: Option<String>) -> Result<Runtimes, String> {
    Ok(RuntimeServiceClient::new(open(endpoint).await?))
}

/// Connect, and make the first call that proves the other side speaks CRI.
async fn open(endpoint: Option<String>) -> Result<Channel, String> {
    if let Some(endpoint) = endpoint {
        return connect_to(&endpoint, PATIENCE).await;
    }
    let list = DEFAULTS.join(" ");
    say::log(
        "warning",
        &format!(
            "Image connect using default endpoints: [{list}]. As the default settings are now deprecated, you should set the endpoint instead."
        ),
    );
    let mut last = String::new();
    for endpoint in DEFAULTS {
        match connect_to(endpoint, PATIENCE).await {
            Ok(channel) => return Ok(channel),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_to(endpoint: &str, patience: Duration) -> Result<Channel, String> {
    let path = match endpoint.split_once("://") {
        Some(("unix", path)) => path,
        None => endpoint,
        Some((scheme, _)) => {
            tokio::time::sleep(patience).await;
            return Err(format!("protocol {scheme:?} not supported"));
        }
    };
    let path = Path::new(path).to_owned();
    let failed = |why: String| {
        format!(
            "validate service connection: validate CRI v1 image API for endpoint {endpoint:?}: {why}"
        )
    };
    let give_up = Instant::now() + patience;
    while let Err(error) = UnixStream::connect(&path).await {
        if Instant::now() >= give_up {
            let dial = format!(
                "transport: Error while dialing: dial unix {}: connect: {}",
                path.display(),
                go_words(&error)
            );
            return Err(failed(format!(
                "rpc error: code = Unavailable desc = connection error: desc = {dial:?}"
            )));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // The address is never used: the connector below knows the socket.
    let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(
        tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }),
    );
    let mut images = ImageServiceClient::new(channel.clone());
    match tokio::time::timeout(
        Duration::from_secs(10),
        images.image_fs_info(ImageFsInfoRequest {}),
    )
    .await
    {
        Ok(Ok(_)) => Ok(channel),
        Ok(Err(status)) => Err(failed(say::rpc_error(&status))),
        Err(_) => Err(failed(
            "rpc error: code = DeadlineExceeded desc = context deadline exceeded".into(),
        )),
    }
}
