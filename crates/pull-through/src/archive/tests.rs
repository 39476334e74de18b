//! Archives as their programs write them, and damaged ones.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tar::{Builder, EntryType, Header};

use super::*;
use crate::manifest::{self, Content};

fn digest_of(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

fn add(tar: &mut Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes).unwrap();
}

fn link(tar: &mut Builder<Vec<u8>>, name: &str, target: &str, kind: EntryType) {
    let mut header = Header::new_gnu();
    header.set_size(0);
    header.set_entry_type(kind);
    tar.append_link(&mut header, name, target).unwrap();
}

fn written(folder: &Path, tar: Builder<Vec<u8>>) -> PathBuf {
    let path = folder.join("image.tar");
    fs::write(&path, tar.into_inner().unwrap()).unwrap();
    path
}

fn blob(archive: &Archive, digest: &Digest) -> Bytes {
    whole(&archive.local(digest).unwrap()).unwrap()
}

async fn manifest_of(archive: &Archive, name: &str) -> (Digest, manifest::Manifest) {
    let bytes = archive
        .manifest(&Reference::Tag(name.into()))
        .await
        .unwrap();
    let digest = Digest::of(&bytes);
    (digest, manifest::read(digest, &bytes).unwrap())
}

#[tokio::test]
async fn the_old_form_of_docker_save_gets_a_manifest_and_its_layers_as_they_are() {
    let (first, second) = (b"first layer".as_slice(), b"second".as_slice());
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}","{}","{}"]}}}}"#,
        digest_of(first),
        digest_of(second),
        digest_of(first),
    );
    let long = format!("{}/layer.tar", "1".repeat(120));
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, &long, first);
    add(&mut tar, "./2/layer.tar", second);
    link(
        &mut tar,
        "3/layer.tar",
        &format!("../{long}"),
        EntryType::Symlink,
    );
    add(&mut tar, "cfg.json", config.as_bytes());
    let list = format!(
        r#"[{{"Config":"cfg.json","RepoTags":["app:v1","r.example:5000/team/app:v2"],"Layers":["{long}","2/layer.tar","3/layer.tar"]}}]"#
    );
    add(&mut tar, "manifest.json", list.as_bytes());
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::open(&written(folder.path(), tar), Form::DockerArchive).unwrap();
    let (digest, read) = manifest_of(&archive, "docker.io/library/app:v1").await;
    for name in ["app:v1", "r.example:5000/team/app:v2", "v2"] {
        assert_eq!(archive.find(name).unwrap(), digest, "{name}");
    }
    for name in [
        "app",
        "app:v2",
        "r.example:5000/team/app:v1",
        "latest",
        "quay.io/app:v1",
    ] {
        let error = archive.find(name).unwrap_err().to_string();
        assert!(
            error.contains("app:v1, r.example:5000/team/app:v2"),
            "{name}: {error}"
        );
    }
    let by_digest = archive.manifest(&Reference::Digest(digest)).await.unwrap();
    assert_eq!(Digest::of(&by_digest), digest);
    let Content::Image {
        config: found,
        layers,
    } = read.content
    else {
        panic!("not an image");
    };
    assert_eq!(blob(&archive, &found.digest), config);
    let texts: Vec<Bytes> = layers
        .iter()
        .map(|layer| blob(&archive, &layer.digest))
        .collect();
    assert_eq!(texts, [first, second, first]);
    assert_eq!(layers[0].size, 11);
}

#[tokio::test]
async fn compressed_layers_of_a_docker_archive_have_their_own_digests() {
    let layer = b"\x1f\x8b and so on";
    let config = format!(
        r#"{{"rootfs":{{"diff_ids":["{}"]}}}}"#,
        digest_of(b"unpacked")
    );
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, "l.tar.gz", layer);
    add(&mut tar, "c", config.as_bytes());
    add(
        &mut tar,
        "manifest.json",
        br#"[{"Config":"c","RepoTags":null,"Layers":["l.tar.gz"]}]"#,
    );
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::open(&written(folder.path(), tar), Form::DockerArchive).unwrap();
    // It is the only one and has no name.
    let (_, read) = manifest_of(&archive, "any.example/name:v9").await;
    let Content::Image { layers, .. } = read.content else {
        panic!("not an image");
    };
    assert_eq!(layers[0].digest, Digest::of(layer));
    assert_eq!(blob(&archive, &layers[0].digest), layer.as_slice());
}

/// The files of an OCI layout with one image.
fn layout(annotations: &str) -> Vec<(String, Vec<u8>)> {
    let (config, layer) = (b"{}".as_slice(), b"a layer".as_slice());
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":2}},"layers":[{{"digest":"{}","size":7}}]}}"#,
        digest_of(config),
        digest_of(layer),
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","size":{},"annotations":{{{annotations}}}}}]}}"#,
        digest_of(manifest.as_bytes()),
        manifest.len(),
    );
    let blob = |bytes: &[u8]| {
        (
            format!("blobs/sha256/{}", Digest::of(bytes).hex()),
            bytes.to_vec(),
        )
    };
    vec![
        ("index.json".into(), index.into_bytes()),
        blob(config),
        blob(layer),
        blob(manifest.as_bytes()),
    ]
}

#[tokio::test]
async fn an_oci_layout_is_read_as_a_directory_and_as_a_tar() {
    let files = layout(
        r#""org.opencontainers.image.ref.name":"v1","io.containerd.image.name":"docker.io/library/app:v1""#,
    );
    let folder = tempfile::tempdir().unwrap();
    let mut tar = Builder::new(Vec::new());
    // Docker writes both forms into one archive.
    add(&mut tar, "manifest.json", b"[]");
    for (name, bytes) in &files {
        let path = folder.path().join("layout").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        add(&mut tar, name, bytes);
    }
    let tar = written(folder.path(), tar);
    for (path, form) in [
        (folder.path().join("layout"), Form::OciDirectory),
        (tar, Form::OciArchive),
    ] {
        let archive = Archive::open(&path, form).unwrap();
        let (digest, read) = manifest_of(&archive, "app:v1").await;
        assert_eq!(
            archive
                .images()
                .map(|(digest, _)| digest)
                .collect::<Vec<_>>(),
            [digest]
        );
        let Content::Image { layers, .. } = read.content else {
            panic!("not an image");
        };
        assert_eq!(blob(&archive, &layers[0].digest), "a layer");
        assert!(archive.local(&Digest::of(b"other")).is_none());
        assert!(
            archive.find("other:v1").is_ok(),
            "its tag stands alone, too"
        );
        assert!(archive.find("app:v2").is_err());
    }
}

#[test]
fn what_is_not_an_archive_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.tar");
    let refused_as = |form: Form, why: &str| {
        let error = Archive::open(&path, form).unwrap_err().to_string();
        assert!(
            error.contains(why) && error.contains("image.tar"),
            "{error}"
        );
    };
    let refused = |why: &str| refused_as(Form::OciArchive, why);
    refused("No such file");
    fs::write(&path, b"\x1f\x8b...").unwrap();
    refused("use gunzip on it first");
    fs::write(&path, b"").unwrap();
    refused("it has no index.json");
    for (name, text, why) in [
        ("index.json", "{}", "in index.json: missing field"),
        (
            "index.json",
            r#"{"manifests":[{"digest":"../../etc/passwd"}]}"#,
            "not a digest",
        ),
        ("manifest.json", "{}", "in manifest.json"),
        (
            "manifest.json",
            r#"[{"Config":"/etc/passwd","Layers":[]}]"#,
            "which is not in it",
        ),
        (
            "manifest.json",
            r#"[{"Config":"manifest.json","Layers":[]}]"#,
            "in manifest.json: ",
        ),
    ] {
        let mut tar = Builder::new(Vec::new());
        add(&mut tar, name, text.as_bytes());
        written(folder.path(), tar);
        let form = match name {
            "manifest.json" => Form::DockerArchive,
            _ => Form::OciArchive,
        };
        refused_as(form, why);
    }
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, "index.json", &[b' '; 2000]);
    let whole = tar.into_inner().unwrap();
    fs::write(&path, &whole[..1000]).unwrap();
    refused("cut short");
    // Links that lead in a circle.
    let mut tar = Builder::new(Vec::new());
    link(&mut tar, "index.json", "a", EntryType::Symlink);
    link(&mut tar, "a", "index.json", EntryType::Link);
    written(folder.path(), tar);
    refused("it has no index.json");
}

/// Files in a directory.
fn laid_out(folder: &Path, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_directory_is_never_read_as_an_archive_of_docker() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let config = format!(
        r#"{{"rootfs":{{"diff_ids":["{}"]}}}}"#,
        Digest::of(b"secret")
    );
    let directory = folder.path().join("image");
    for named in [secret.to_str().unwrap(), "../secret", "link"] {
        let list = format!(r#"[{{"Config":"c","Layers":["{named}"]}}]"#);
        laid_out(
            &directory,
            &[
                ("c".into(), config.clone().into_bytes()),
                ("manifest.json".into(), list.into_bytes()),
            ],
        );
        let _ = symlink(&secret, directory.join("link"));
        for opened in [
            Archive::open(&directory, Form::OciDirectory),
            Archive::open(&directory, Form::DockerArchive),
        ] {
            let error = opened.unwrap_err().to_string();
            assert!(error.contains("image: it "), "{named}: {error}");
        }
    }
}

#[tokio::test]
async fn only_regular_files_of_an_oci_directory_are_opened_and_no_links() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("layout");
    laid_out(&directory, &layout(""));
    let (link, pipe) = (Digest::of(b"link"), Digest::of(b"pipe"));
    let blobs = directory.join("blobs/sha256");
    fs::write(folder.path().join("secret"), "link").unwrap();
    symlink(folder.path().join("secret"), blobs.join(link.hex())).unwrap();
    // A pipe without a writer: opening it must not block.
    mkfifo(&blobs.join(pipe.hex()), Mode::S_IRWXU).unwrap();
    let archive = Archive::open(&directory, Form::OciDirectory).unwrap();
    assert_eq!(blob(&archive, &Digest::of(b"a layer")), "a layer");
    assert!(archive.local(&link).is_none());
    assert!(archive.local(&pipe).is_none());
    for digest in [link, pipe] {
        let read = archive.manifest(&Reference::Digest(digest)).await;
        assert!(read.is_err(), "{digest}");
    }
    // A manifest that is not what its name says.
    let (wrong, name) = (Digest::of(b"wrong"), Reference::Tag("any".into()));
    fs::write(blobs.join(wrong.hex()), "secret").unwrap();
    let index = format!(r#"{{"manifests":[{{"digest":"{wrong}"}}]}}"#);
    fs::write(directory.join("index.json"), index).unwrap();
    let archive = Archive::open(&directory, Form::OciDirectory).unwrap();
    let error = archive.manifest(&name).await.unwrap_err().to_string();
    assert!(error.contains("layout is damaged"), "{error}");
    let refused = |why: &str| {
        let error = Archive::open(&directory, Form::OciDirectory)
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error}");
    };
    fs::rename(directory.join("index.json"), directory.join("index")).unwrap();
    symlink("index", directory.join("index.json")).unwrap();
    refused("index.json: it is a symbolic link");
    fs::remove_file(directory.join("index.json")).unwrap();
    mkfifo(&directory.join("index.json"), Mode::S_IRWXU).unwrap();
    refused("index.json: it is not a regular file");
    fs::rename(directory.join("blobs"), folder.path().join("blobs")).unwrap();
    symlink("../blobs", directory.join("blobs")).unwrap();
    refused("blobs in it is a symbolic link");
    let pipe = folder.path().join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let error = Archive::open(&pipe, Form::OciArchive)
        .unwrap_err()
        .to_string();
    assert!(error.contains("neither a file nor a directory"), "{error}");
}

#[test]
fn an_archive_is_read_as_the_form_that_is_meant_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let files = layout("");
    let directory = folder.path().join("layout");
    laid_out(&directory, &files);
    let tar_of = |name: &str, files: &[(String, Vec<u8>)]| {
        let mut tar = Builder::new(Vec::new());
        for (name, bytes) in files {
            add(&mut tar, name, bytes);
        }
        let path = folder.path().join(name);
        fs::write(&path, tar.into_inner().unwrap()).unwrap();
        path
    };
    let docker = |list: &str| ("manifest.json".to_string(), list.as_bytes().to_vec());
    let oci = tar_of("oci.tar", &files);
    let old = tar_of("old.tar", &[docker("[]")]);
    let both = tar_of("both.tar", &[files, vec![docker("[]")]].concat());
    let forms = [Form::OciDirectory, Form::OciArchive, Form::DockerArchive];
    for (path, wanted) in [
        (&directory, [true, false, false]),
        (&oci, [false, true, false]),
        (&old, [false, false, true]),
        // Docker 25 and later.
        (&both, [false, true, true]),
    ] {
        let opened = forms.map(|form| Archive::open(path, form).is_ok());
        assert_eq!(opened, wanted, "{}", path.display());
    }
    let error = Archive::open(&old, Form::OciArchive).unwrap_err();
    assert!(
        error.message.contains("old.tar: it has no index.json"),
        "{error}"
    );
}
