//! The registry that prepull is to its nodes (`crates/pull-through`), in front of a real registry, and of what real
//! runtimes save: needs root and what lab/install installs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "support/lab.rs"]
#[allow(dead_code)] // this file needs a part of it
mod lab;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lab::{Lab, succeed};
use prepull::model::{Image, RegistryLogin, Secret};
use prepull::registry::Registries;
use pull_through::{Access, Archive, Digest, Error, Form, PullThrough, Reference, Source, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The environment variable with the state folder of the lab, for [`inside_the_lab`].
const STATE: &str = "PREPULL_TEST_STATE";
const IMAGE: &str = "registry.lab:5000/team/through:v1";

#[test]
fn real_registries_and_archives_are_served_to_real_runtimes() {
    let lab = Lab::start("through", 2, &[]);
    succeed(&mut lab.command(&["push", IMAGE, "3M", "2M", "1M"]));
    archives(&lab);
    let this = std::env::current_exe().unwrap();
    let mut inside = lab.operator(&[
        this.to_str().unwrap(),
        "--ignored",
        "--exact",
        "--nocapture",
        "inside_the_lab",
    ]);
    let said = succeed(inside.env(STATE, &lab.state));
    assert!(said.contains("1 passed"), "{said}");
}

/// Runs on the lab's network, where the registry is.
#[test]
#[ignore = "the test above runs it inside the lab"]
fn inside_the_lab() {
    let state = PathBuf::from(std::env::var_os(STATE).expect("run by the test above"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(against_the_registry(&state));
    runtime.block_on(to_runtimes(&state));
}

/// An image of an archive on its way to docker and containerd, through ports that ssh forwards from the nodes.
async fn to_runtimes(state: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let through = PullThrough::new(Store::open(folder.path(), 1 << 30).unwrap(), None);
    let saved = Arc::new(Archive::open(&state.join("saved.tar"), Form::DockerArchive).unwrap());
    let exported = Arc::new(Archive::open(&state.join("exported.tar"), Form::OciArchive).unwrap());
    let name = Reference::Tag("app:v1".into());
    let docker = through.add("team/saved", saved, &name).await.unwrap();
    let oci = through.add("team/exported", exported, &name).await.unwrap();
    let config = through.contents(&docker, |_| true).await.unwrap()[0]
        .config
        .digest;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let access = Arc::new(Access::new("node", "pw"));
    let (serving, node) = (through.clone(), Arc::clone(&access));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (serving, node) = (serving.clone(), Arc::clone(&node));
            tokio::spawn(async move { serving.serve(stream, node).await });
        }
    });
    let here = "127.0.0.1:5999";
    let on = async |node: &str, script: &str| {
        let mut ssh = tokio::process::Command::new("ssh");
        ssh.args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "ExitOnForwardFailure=yes",
        ])
        .arg("-i")
        .arg(state.join("id_ed25519"))
        .arg("-o")
        .arg(format!(
            "UserKnownHostsFile={}",
            state.join("known_hosts").display()
        ))
        .arg("-R")
        .arg(format!("{here}:127.0.0.1:{port}"))
        .args([&format!("root@{node}"), script]);
        let output = ssh.output().await.unwrap();
        let said = lab::said(&output);
        assert!(
            output.status.success(),
            "{node}: {said}: {:?}",
            access.failure()
        );
        said
    };
    for image in [&docker, &oci] {
        let name = format!("{here}/{}@{}", image.served_as, image.digest);
        let script = format!(
            "set -e; docker login -u node -p pw {here}; docker pull -q {name}
            docker inspect -f '{{{{.Id}}}}' {name}; docker rmi {name}"
        );
        assert!(on("node-1", &script).await.contains(&config.to_string()));
        let pull = format!(
            "set -e; ctr -n k8s.io images pull --plain-http -u node:pw {name}; ctr -n k8s.io images rm --sync {name}"
        );
        on("node-2", &pull).await;
    }
    let all = through.contents(&oci, |_| true).await.unwrap();
    let layers: u64 = all[0].layers.iter().map(|layer| layer.size).sum();
    assert!(access.usage().sent > layers, "{:?}", access.usage());
}

async fn against_the_registry(state: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let certificates = folder.path().join("registry.lab:5000");
    fs::create_dir(&certificates).unwrap();
    fs::copy(state.join("ca.crt"), certificates.join("ca.crt")).unwrap();
    let password = fs::read_to_string(state.join("password")).unwrap();
    let login = RegistryLogin::Password {
        username: "ci".into(),
        password: Secret::new(password),
    };
    let image: Image = IMAGE.parse().unwrap();
    let registries = Registries::new(folder.path());
    let source = |login| Arc::new(registries.source(&image, login, None, &[])) as Arc<dyn Source>;
    let cache = folder.path().join("cache");
    let through = || PullThrough::new(Store::open(&cache, 1 << 30).unwrap(), None);
    let tag = Reference::Tag("v1".into());

    let refused = through().add("team/app", source(None), &tag).await;
    assert!(matches!(refused, Err(Error::Source(_))), "{refused:?}");

    let first = through();
    let added = first
        .add("team/app", source(Some(login.clone())), &tag)
        .await
        .unwrap();
    let contents = first.contents(&added, |_| true).await.unwrap();
    let blobs: Vec<_> = contents[0]
        .layers
        .iter()
        .chain([&contents[0].config])
        .collect();
    assert_eq!(contents[0].layers.len(), 3);
    for blob in &blobs {
        for _ in 0..3 {
            assert_eq!(Digest::of(&read(&first, &blob.digest).await), blob.digest);
        }
    }
    let all: u64 = blobs.iter().map(|blob| blob.size).sum();
    assert!(all > 6_000_000);
    assert_eq!(first.counters().fetched, all);
    drop(first);

    // A crash in the middle of a layer.
    let layer = blobs[0];
    let file = cache.join("sha256").join(layer.digest.hex());
    let half = layer.size / 2;
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(half)
        .unwrap();
    let second = through();
    let by_digest = Reference::Digest(added.digest);
    second
        .add("team/app", source(Some(login)), &by_digest)
        .await
        .unwrap();
    for blob in &blobs {
        assert_eq!(Digest::of(&read(&second, &blob.digest).await), blob.digest);
    }
    assert_eq!(second.counters().fetched, layer.size - half);
}

/// A blob, as a client of one request gets it.
async fn read(through: &PullThrough, digest: &Digest) -> Vec<u8> {
    let (mut near, far) = tokio::io::duplex(256 << 10);
    let access = Arc::new(Access::new("node", "pw"));
    let serving = tokio::spawn({
        let (through, access) = (through.clone(), Arc::clone(&access));
        async move { through.serve(far, access).await }
    });
    let request = format!(
        "GET /v2/team/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {}\r\n\r\n",
        STANDARD.encode("node:pw")
    );
    near.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.unwrap();
    serving.await.unwrap().unwrap();
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    assert!(
        head.starts_with("HTTP/1.1 200"),
        "{head}: {:?}",
        access.failure()
    );
    answer.split_off(end + 4)
}

/// What real runtimes write: docker's `save`, and containerd's `export` of the same image.
fn archives(lab: &Lab) {
    let save = r#"set -e
        mkdir /tmp/image && head -c 300000 /dev/urandom > /tmp/image/first
        tar -C /tmp/image -c . | docker import - base >&2
        printf 'FROM base\nCOPY second /second\n' > /tmp/image/Dockerfile; echo second > /tmp/image/second
        DOCKER_BUILDKIT=0 docker build -q -t app:v1 -t registry.example/team/app:v2 /tmp/image >&2
        docker save app:v1 registry.example/team/app:v2
        docker rmi -f app:v1 registry.example/team/app:v2 base >&2"#;
    let saved = lab.file("saved.tar");
    let output = fs::File::create(&saved).unwrap();
    let status = lab
        .on("node-1", &["sh", "-c", save])
        .stdout(output)
        .status()
        .unwrap();
    assert!(status.success());
    let exported = lab.file("exported.tar");
    let export = "set -e; ctr -n k8s.io images import - >&2
        ctr -n k8s.io images export - docker.io/library/app:v1
        ctr -n k8s.io images rm --sync docker.io/library/app:v1 registry.example/team/app:v2 >&2";
    let status = lab
        .on("node-2", &["sh", "-c", export])
        .stdin(Stdio::from(fs::File::open(&saved).unwrap()))
        .stdout(fs::File::create(&exported).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    // The same as a directory.
    let layout = lab.file("layout");
    fs::create_dir_all(&layout).unwrap();
    let mut tar = std::process::Command::new("tar");
    succeed(tar.args(["-x", "-C", &layout, "-f", &exported]));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut configs = Vec::new();
        for (path, form) in [
            (saved, Form::DockerArchive),
            (exported, Form::OciArchive),
            (layout, Form::OciDirectory),
        ] {
            let archive = Arc::new(Archive::open(path.as_ref(), form).unwrap());
            let folder = tempfile::tempdir().unwrap();
            let through = PullThrough::new(Store::open(folder.path(), 1 << 30).unwrap(), None);
            let name = Reference::Tag("docker.io/library/app:v1".into());
            let added = through.add("team/app", archive, &name).await.unwrap();
            let contents = through.contents(&added, |_| true).await.unwrap();
            assert_eq!(contents[0].layers.len(), 2, "{path}");
            for blob in contents[0].layers.iter().chain([&contents[0].config]) {
                let got = read(&through, &blob.digest).await;
                assert_eq!(
                    (Digest::of(&got), got.len() as u64),
                    (blob.digest, blob.size)
                );
            }
            configs.push(contents[0].config.digest);
        }
        // The same image for docker and containerd alike.
        assert_eq!(configs[0], configs[1]);
        assert_eq!(configs[1], configs[2]);
    });
}
