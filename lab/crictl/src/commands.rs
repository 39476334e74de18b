//! The commands: pull, images, inspecti, imagefsinfo, rmi, version, info, config.

use std::io::IsTerminal;
use std::time::Duration;

use k8s_cri::v1::{
    AuthConfig, Image, ImageFilter, ImageFsInfoRequest, ImageSpec, ImageStatusRequest,
    ListImagesRequest, PullImageRequest, RemoveImageRequest, StatusRequest, VersionRequest,
};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tonic::Status;

use crate::args::{Flag, Given};
use crate::connection::{connect, connect_runtime};
use crate::say;

/// Flags of `pull`.
pub const PULL: &[Flag] = &[
    Flag(&["annotation", "a"], "", true),
    Flag(&["auth"], "CRICTL_AUTH", true),
    Flag(&["creds"], "CRICTL_CREDS", true),
    Flag(&["pod-config"], "", true),
    Flag(&["pull-timeout", "pt"], "CRICTL_PULL_TIMEOUT", true),
    Flag(&["username", "u"], "", true),
];
/// Flags of `images`.
pub const IMAGES: &[Flag] = &[
    Flag(&["quiet", "q"], "", false),
    Flag(&["digests"], "", false),
    Flag(&["no-trunc"], "", false),
    Flag(&["output", "o"], "", true),
];
/// Flags of `inspecti` and `imagefsinfo`.
pub const INSPECT: &[Flag] = &[
    Flag(&["output", "o"], "", true),
    Flag(&["quiet", "q"], "", false),
];

/// Flags of `config`.
pub const CONFIG: &[Flag] = &[Flag(&["get"], "", true)];

const PULL_USAGE: &str = include_str!("pull-usage.txt");

/// What is printed on standard output for a flag that is not known.
pub fn usage(command: &str, error: &str) {
    print!("Incorrect Usage: {error}\n\n");
    if command == "pull" {
        print!("{PULL_USAGE}");
    }
}

fn image(name: &str) -> Option<ImageSpec> {
    Some(ImageSpec {
        image: name.to_owned(),
        ..ImageSpec::default()
    })
}

fn credentials(given: &Given) -> Result<Option<AuthConfig>, String> {
    match (given.value("auth"), given.value("creds")) {
        (Some(_), Some(_)) => Err("both auth and creds are given: use one of them".into()),
        (Some(auth), None) => Ok(Some(AuthConfig {
            auth: auth.to_owned(),
            ..AuthConfig::default()
        })),
        (None, Some(creds)) => {
            let (username, password) = creds.split_once(':').unwrap_or((creds, ""));
            Ok(Some(AuthConfig {
                username: username.to_owned(),
                password: password.to_owned(),
                ..AuthConfig::default()
            }))
        }
        (None, None) => Ok(None),
    }
}

/// Go's durations, as far as anyone writes them here: 1m30s, 500ms, 0.
fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|_| format!("invalid value {text:?} for flag -pull-timeout: parse error"))
}

/// `crictl pull NAME`.
pub async fn pull(given: &Given, endpoint: Option<String>) -> Result<(), String> {
    let name = given
        .words
        .first()
        .filter(|name| !name.is_empty())
        .ok_or("image name cannot be empty")?;
    let limit = duration(given.value("pull-timeout").unwrap_or("0"))?;
    if given.value("username").is_some() {
        println!("Enter Password:");
        if !std::io::stdin().is_terminal() {
            return Err("inappropriate ioctl for device".into());
        }
        return Err("the lab's stand-in does not ask for passwords".into());
    }
    let auth = credentials(given)?;
    let mut images = connect(endpoint).await?;
    let request = PullImageRequest {
        image: image(name),
        auth,
        sandbox_config: None,
    };
    let listen = |kind| signal(kind).map_err(|error| error.to_string());
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    let deadline = async {
        match limit {
            Duration::ZERO => std::future::pending().await,
            limit => tokio::time::sleep(limit).await,
        }
    };
    // Leaving this block drops the call, which tells containerd to give up.
    let answer = tokio::select! {
        answer = images.pull_image(request) => answer,
        () = deadline => Err(Status::deadline_exceeded("context deadline exceeded")),
        _ = terminate.recv() => return Err("pulling image: interrupted: context canceled".into()),
        _ = interrupt.recv() => return Err("pulling image: interrupted: context canceled".into()),
    };
    match answer {
        Ok(answer) => println!("Image is up to date for {}", answer.into_inner().image_ref),
        Err(status) => {
            say::klog(&status, name);
            return Err(format!("pulling image: {}", say::last_words(&status)));
        }
    }
    Ok(())
}

fn described(image: &Image) -> Value {
    let username = &image.username;
    json!({"id": image.id, "repoTags": image.repo_tags, "repoDigests": image.repo_digests,
           "size": image.size.to_string(), "username": username, "pinned": image.pinned})
}

/// `crictl images [NAME]`.
pub async fn list(given: &Given, endpoint: Option<String>) -> Result<(), String> {
    let filter = given
        .words
        .first()
        .map(|name| ImageFilter { image: image(name) });
    let mut images = connect(endpoint).await?;
    let answer = images.list_images(ListImagesRequest { filter }).await;
    let mut found = answer
        .map_err(|status| format!("listing images: {}", say::last_words(&status)))?
        .into_inner()
        .images;
    found.sort_by(|one, other| one.repo_tags.cmp(&other.repo_tags));
    if given.value("output") == Some("json") {
        print_list(&found);
    } else if given.value("quiet").is_some() {
        found.iter().for_each(|image| println!("{}", image.id));
    } else {
        print_table(&found, given.value("digests").is_some());
    }
    Ok(())
}

/// Two blanks after each colon, and this order of keys: not what a JSON library would print, and parsers must bear it.
fn print_list(found: &[Image]) {
    let list = |names: &[String]| match names {
        [] => "[]".to_owned(),
        names => {
            let lines: Vec<String> = names
                .iter()
                .map(|name| format!("        {}", json!(name)))
                .collect();
            format!("[\n{}\n      ]", lines.join(",\n"))
        }
    };
    let items: Vec<String> = found
        .iter()
        .map(described)
        .zip(found)
        .map(|(fields, image)| {
            format!(
                "    {{\n      \"id\":  {},\n      \"repoTags\":  {},\n      \"repoDigests\":  {},\n      \"size\":  {},\n      \"username\":  {},\n      \"pinned\":  {}\n    }}",
                fields["id"],
                list(&image.repo_tags),
                list(&image.repo_digests),
                fields["size"],
                fields["username"],
                fields["pinned"]
            )
        })
        .collect();
    match items.as_slice() {
        [] => println!("{{\n  \"images\":  []\n}}"),
        items => println!("{{\n  \"images\":  [\n{}\n  ]\n}}", items.join(",\n")),
    }
}

fn print_table(found: &[Image], digests: bool) {
    let short = |digest: &str| {
        digest
            .trim_start_matches("sha256:")
            .chars()
            .take(13)
            .collect::<String>()
    };
    let mut rows = vec![
        ["IMAGE", "TAG", "DIGEST", "IMAGE ID", "SIZE"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for image in found {
        let digest = image
            .repo_digests
            .first()
            .and_then(|name| name.split_once('@'));
        let names: Vec<(String, String)> = match image.repo_tags.as_slice() {
            [] => vec![(
                digest.map_or("<none>", |(name, _)| name).to_owned(),
                "<none>".to_owned(),
            )],
            tags => tags
                .iter()
                .filter_map(|tag| tag.rsplit_once(':'))
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .collect(),
        };
        for (name, tag) in names {
            let digest = digest.map_or_else(|| "<none>".to_owned(), |(_, digest)| short(digest));
            rows.push(vec![
                name,
                tag,
                digest,
                short(&image.id),
                say::size(image.size),
            ]);
        }
    }
    if !digests {
        rows.iter_mut().for_each(|row| {
            row.remove(2);
        });
    }
    say::table(&rows);
}

/// `crictl inspecti NAME`.
pub async fn inspect(given: &Given, endpoint: Option<String>) -> Result<(), String> {
    let name = given.words.first().ok_or("ID cannot be empty")?;
    if !matches!(given.value("output"), None | Some("json")) {
        return Err("the lab's stand-in prints JSON only".into());
    }
    let mut images = connect(endpoint).await?;
    let answer = images
        .image_status(ImageStatusRequest {
            image: image(name),
            verbose: true,
        })
        .await;
    let answer = answer
        .map_err(|status| {
            format!(
                "image status for {name:?} request: {}",
                say::last_words(&status)
            )
        })?
        .into_inner();
    let found = answer
        .image
        .ok_or_else(|| format!("no such image {name:?} present"))?;
    let info: Value = answer
        .info
        .get("info")
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(json!({}));
    print_json(&json!({"info": info, "status": described(&found)}));
    Ok(())
}

/// `crictl imagefsinfo`.
pub async fn file_system(given: &Given, endpoint: Option<String>) -> Result<(), String> {
    if !matches!(given.value("output"), None | Some("json")) {
        return Err("the lab's stand-in prints JSON only".into());
    }
    let mut images = connect(endpoint).await?;
    let answer = images.image_fs_info(ImageFsInfoRequest {}).await;
    let answer = answer
        .map_err(|status| {
            format!(
                "image filesystem info request: {}",
                say::last_words(&status)
            )
        })?
        .into_inner();
    let file_systems: Vec<Value> = answer
        .image_filesystems
        .iter()
        .map(|found| {
            json!({"fsId": {"mountpoint": found.fs_id.as_ref().map(|id| id.mountpoint.clone())},
                   "inodesUsed": {"value": found.inodes_used.as_ref().map_or(0, |used| used.value).to_string()},
                   "timestamp": found.timestamp.to_string(),
                   "usedBytes": {"value": found.used_bytes.as_ref().map_or(0, |used| used.value).to_string()}})
        })
        .collect();
    print_json(&json!({"status": {"containerFilesystems": [], "imageFilesystems": file_systems}}));
    Ok(())
}

/// `crictl version`.
pub async fn version(endpoint: Option<String>) -> Result<(), String> {
    let mut runtime = connect_runtime(endpoint).await?;
    let request = VersionRequest {
        version: "v1".into(),
    };
    let answer = runtime.version(request).await;
    let answer = answer
        .map_err(|status| format!("getting the runtime version: {}", say::last_words(&status)))?
        .into_inner();
    println!("Version:  {}", answer.version);
    println!("RuntimeName:  {}", answer.runtime_name);
    println!("RuntimeVersion:  {}", answer.runtime_version);
    println!("RuntimeApiVersion:  {}", answer.runtime_api_version);
    Ok(())
}

/// `crictl info`: the status, and the runtime's own words beside it.
pub async fn info(endpoint: Option<String>) -> Result<(), String> {
    let mut runtime = connect_runtime(endpoint).await?;
    let answer = runtime.status(StatusRequest { verbose: true }).await;
    let answer = answer
        .map_err(|status| format!("getting status of runtime: {}", say::last_words(&status)))?
        .into_inner();
    let mut shown = json!({"status": {"conditions": []}});
    for (name, text) in answer.info {
        shown[name] = serde_json::from_str(&text).unwrap_or(Value::String(text));
    }
    print_json(&shown);
    Ok(())
}

/// `crictl config --get runtime-endpoint`: what the configuration file says, else nothing.
pub fn configured(given: &Given, endpoint: Option<String>) -> Result<(), String> {
    match given.value("get") {
        Some("runtime-endpoint") => println!("{}", endpoint.unwrap_or_default()),
        _ => return Err("the lab's stand-in gets runtime-endpoint only".into()),
    }
    Ok(())
}

/// `crictl rmi NAME...`.
pub async fn remove(given: &Given, endpoint: Option<String>) -> Result<(), String> {
    if given.words.is_empty() {
        return Err("ID cannot be empty".into());
    }
    let mut images = connect(endpoint).await?;
    for name in &given.words {
        let answer = images
            .image_status(ImageStatusRequest {
                image: image(name),
                verbose: false,
            })
            .await;
        let answer = answer.map_err(|status| {
            format!(
                "image status request for {name:?}: {}",
                say::last_words(&status)
            )
        })?;
        let found = answer
            .into_inner()
            .image
            .ok_or_else(|| format!("no such image {name}"))?;
        let answer = images
            .remove_image(RemoveImageRequest { image: image(name) })
            .await;
        answer.map_err(|status| {
            format!(
                "error of removing image {name:?}: {}",
                say::last_words(&status)
            )
        })?;
        found
            .repo_tags
            .iter()
            .for_each(|tag| println!("Deleted: {tag}"));
    }
    Ok(())
}

fn print_json(value: &Value) {
    println!("{value:#}");
}
