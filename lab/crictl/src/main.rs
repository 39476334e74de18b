//! A stand-in for crictl, for the lab's nodes only: it speaks CRI to the node's real containerd and prints what the
//! transcripts show of the real one. prepull may rely on nothing else here.

mod args;
mod commands;
mod connection;
mod say;

use args::Flag;

const GLOBAL: &[Flag] = &[
    Flag(&["config", "c"], "CRI_CONFIG_FILE", true),
    Flag(
        &["runtime-endpoint", "r"],
        "CONTAINER_RUNTIME_ENDPOINT",
        true,
    ),
    Flag(&["image-endpoint", "i"], "IMAGE_SERVICE_ENDPOINT", true),
    Flag(&["timeout", "t"], "", true),
    Flag(&["debug", "D"], "", false),
    Flag(&["version", "v"], "", false),
];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if let Err(message) = run(std::env::args().skip(1).collect()).await {
        say::log("error", &message);
        std::process::exit(1);
    }
}

async fn run(line: Vec<String>) -> Result<(), String> {
    let global = args::parse(GLOBAL, &line)?;
    if global.value("version").is_some() {
        println!("crictl version unknown");
        return Ok(());
    }
    let Some((name, rest)) = global.words.split_first() else {
        return Err("no command given".into());
    };
    let endpoint = connection::configured(&global)?;
    let known: &[Flag] = match name.as_str() {
        "pull" => commands::PULL,
        "images" | "image" | "img" => commands::IMAGES,
        "inspecti" | "imagefsinfo" | "imagefs-info" => commands::INSPECT,
        "rmi" | "version" | "info" => &[],
        "config" => commands::CONFIG,
        _ => return Err(format!("No help topic for '{name}'")),
    };
    let given = args::parse(known, rest).inspect_err(|error| commands::usage(name, error))?;
    match name.as_str() {
        "pull" => commands::pull(&given, endpoint).await,
        "inspecti" => commands::inspect(&given, endpoint).await,
        "rmi" => commands::remove(&given, endpoint).await,
        "version" => commands::version(endpoint).await,
        "info" => commands::info(endpoint).await,
        "config" => commands::configured(&given, endpoint),
        "imagefsinfo" | "imagefs-info" => commands::file_system(&given, endpoint).await,
        _ => commands::list(&given, endpoint).await,
    }
}
