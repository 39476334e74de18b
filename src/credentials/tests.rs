//! Tests of registry logins: which one is found, and that none is ever shown.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::model::{LoginSource, RegistryLogin, basic};

const SECRET: &str = "hunter2";

fn image(text: &str) -> Image {
    text.parse().unwrap()
}

/// base64 of `ci:hunter2`.
const AUTH: &str = "Y2k6aHVudGVyMg==";

fn file(text: &str) -> AuthFile {
    AuthFile::parse(text.as_bytes(), Path::new("/c/config.json")).unwrap()
}

fn found(text: &str, reference: &str) -> Option<(String, Vec<u8>)> {
    opened(file(text).login(&image(reference)).unwrap()?)
}

/// The user name and the secret of a login, or the name of its kind where it is a token.
fn opened(found: Credential) -> Option<(String, Vec<u8>)> {
    let (name, secret) = match found.login {
        RegistryLogin::Password { username, password } => (username, password),
        RegistryLogin::IdentityToken { username, token } => (format!("identity:{username}"), token),
        RegistryLogin::RegistryToken(token) => ("registry".to_string(), token),
    };
    Some((name, secret.expose().to_vec()))
}

fn refused(text: &str, reference: &str) -> String {
    let result = AuthFile::parse(text.as_bytes(), Path::new("/c/config.json"))
        .and_then(|file| file.login(&image(reference)));
    let error = result.expect_err(text);
    format!("{error} {error:?}")
}

#[test]
fn both_forms_of_an_entry_are_read() {
    let ci = Some(("ci".to_string(), SECRET.as_bytes().to_vec()));
    let auth = format!(
        r#"{{"auths":{{"reg.example:5000":{{"auth":"{AUTH}"}}}},"HttpHeaders":{{"a":1}}}}"#
    );
    assert_eq!(found(&auth, "reg.example:5000/app:v1"), ci);
    assert_eq!(found(&auth, "reg.example/app:v1"), None);
    assert_eq!(found(&auth.replace("==", ""), "reg.example:5000/app"), ci);
    let plain = r#"{"auths":{"reg.example":{"username":"ci","password":"hunter2","auth":""}}}"#;
    assert_eq!(found(plain, "reg.example/app"), ci);
    let nul = r#"{"auths":{"reg.example":{"auth":"Y2k6aHVudGVyMgAA"}}}"#;
    assert_eq!(found(nul, "reg.example/app"), ci);
    let colons = r#"{"auths":{"reg.example":{"auth":"Y2k6YTpi"}}}"#;
    assert_eq!(
        found(colons, "reg.example/app"),
        Some(("ci".into(), b"a:b".to_vec()))
    );
}

#[test]
fn keys_are_matched_as_docker_does() {
    for key in [
        "reg.example",
        "https://reg.example",
        "https://reg.example/v1/",
        "http://reg.example/v2",
        "reg.example/v1/",
        "REG.example",
        "https://reg.example/any/path",
    ] {
        let text = format!(r#"{{"auths":{{"{key}":{{"auth":"{AUTH}"}}}}}}"#);
        assert!(found(&text, "reg.example/team/app").is_some(), "{key}");
        assert!(found(&text, "reg.example.evil/team/app").is_none(), "{key}");
        assert!(found(&text, "docker.io/team/app").is_none(), "{key}");
    }
    for key in [
        "docker.io",
        "index.docker.io",
        "registry-1.docker.io",
        "https://index.docker.io/v1/",
    ] {
        let text = format!(r#"{{"auths":{{"{key}":{{"auth":"{AUTH}"}}}}}}"#);
        assert!(found(&text, "nginx").is_some(), "{key}");
        assert!(found(&text, "reg.example/nginx").is_none(), "{key}");
    }
}

#[test]
fn the_longest_path_that_fits_wins() {
    let text = r#"{"auths":{
        "reg.example":{"username":"all","password":"x"},
        "reg.example/team":{"username":"team","password":"x"},
        "reg.example/team/app":{"username":"app","password":"x"},
        "reg.example/team/empty":{}
    }}"#;
    for (reference, user) in [
        ("reg.example/team/app:v1", "app"),
        ("reg.example/team/app/part", "app"),
        ("reg.example/team/apple", "team"),
        ("reg.example/teams/app", "all"),
        ("reg.example/team/empty", "team"),
    ] {
        assert_eq!(found(text, reference).unwrap().0, user, "{reference}");
    }
}

#[test]
fn a_login_kept_elsewhere_is_told_and_never_skipped() {
    for (text, keeper) in [
        (r#"{"credsStore":"desktop"}"#, "docker-credential-desktop"),
        (
            r#"{"auths":{"reg.example":{}},"credsStore":"pass"}"#,
            "docker-credential-pass",
        ),
        (
            r#"{"credHelpers":{"reg.example":"ecr-login"},"credsStore":"pass"}"#,
            "docker-credential-ecr-login",
        ),
    ] {
        let shown = refused(text, "reg.example/app");
        for part in [
            "/c/config.json",
            "reg.example",
            keeper,
            "--registry-user",
            "--no-auth",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
        assert!(!shown.contains(SECRET), "{shown}");
    }
    // What a helper that is not there would have given may stand in the file.
    let other = r#"{"credHelpers":{"other.example":"ecr-login"}}"#;
    assert_eq!(found(other, "reg.example/app"), None);
    let entry_wins =
        format!(r#"{{"auths":{{"reg.example":{{"auth":"{AUTH}"}}}},"credsStore":"pass"}}"#);
    assert!(found(&entry_wins, "reg.example/app").is_some());
}

#[test]
fn a_broken_file_is_told_with_its_place_and_without_its_content() {
    for (text, part) in [
        ("{", "/c/config.json:1:1: this is not JSON"),
        ("\u{feff}{", "/c/config.json:1:1: this is not JSON"),
        ("{\n \"auths\": hunter2", "/c/config.json:2:"),
        (r#"{"auths":"hunter2"}"#, "wrong type"),
        (r#"["hunter2"]"#, "wrong type"),
        (r#"{"auths":{"reg.example":"hunter2"}}"#, "wrong type"),
        (r#"{"auths":{"reg.example":{"auth":7}}}"#, "wrong type"),
        (
            r#"{"auths":{"reg.example":{"auth":"hunter2!"}}}"#,
            "not base64",
        ),
        (
            r#"{"auths":{"reg.example":{"auth":"aHVudGVyMg=="}}}"#,
            "no colon",
        ),
        (
            r#"{"auths":{"reg.example":{"auth":"Y2k6"}}}"#,
            "no password",
        ),
        (
            r#"{"auths":{"reg.example":{"auth":"Omh1bnRlcjI="}}}"#,
            "user name",
        ),
        (
            r#"{"auths":{"reg.example":{"auth":"/zpodW50ZXIy"}}}"#,
            "not UTF-8",
        ),
        (
            r#"{"auths":{"reg.example":{"username":"a:b","password":"hunter2"}}}"#,
            "user name",
        ),
        (
            r#"{"auths":{"reg.example":{"username":"a","password":"hunter2\u0000x"}}}"#,
            "NUL",
        ),
        (
            r#"{"auths":{"reg.example":{"password":"hunter2"}}}"#,
            "user name",
        ),
    ] {
        let shown = refused(text, "reg.example/app");
        assert!(shown.contains(part), "{text}: {shown}");
        assert!(shown.contains("/c/config.json"), "{shown}");
        assert!(
            !shown.contains(SECRET) && !shown.contains("aHVudGVyMg"),
            "{shown}"
        );
    }
    assert!(refused(&"{\"x\":".repeat(100_000), "a").contains("not JSON"));
    let unused = r#"{"auths":{"other.example":{"auth":"!"}}}"#;
    assert_eq!(
        found(unused, "reg.example/app"),
        None,
        "only what is needed is opened"
    );
    assert_eq!(found(r#"{"auths":null}"#, "reg.example/app"), None);
}

#[test]
fn debug_shows_no_secret() {
    let text = format!(
        r#"{{"auths":{{"a":{{"auth":"{AUTH}"}},"b":{{"username":"u","password":"hunter2"}},"c":{{"identitytoken":"hunter2"}}}}}}"#
    );
    let file = file(&text);
    let shown = format!("{file:?} {:?}", file.login(&image("b.example/x")));
    assert!(!shown.contains(SECRET) && !shown.contains(AUTH), "{shown}");
}

#[test]
fn the_default_files_follow_the_environment() {
    let env = |pairs: &'static [(&str, &str)]| {
        default_auth_files(move |name| {
            let (_, value) = pairs.iter().find(|(key, _)| *key == name)?;
            Some(OsString::from(value))
        })
    };
    assert_eq!(
        env(&[("HOME", "/h")]),
        [
            "/h/.docker/config.json",
            "/h/.config/containers/auth.json",
            "/h/.dockercfg"
        ]
        .map(PathBuf::from)
    );
    assert_eq!(
        env(&[
            ("DOCKER_CONFIG", "/d"),
            ("XDG_RUNTIME_DIR", "/run/user/1"),
            ("XDG_CONFIG_HOME", "/x"),
        ]),
        [
            "/d/config.json",
            "/run/user/1/containers/auth.json",
            "/x/containers/auth.json"
        ]
        .map(PathBuf::from)
    );
    assert_eq!(
        env(&[("DOCKER_CONFIG", "/d"), ("REGISTRY_AUTH_FILE", "/r.json")]),
        [PathBuf::from("/r.json"), PathBuf::from("/d/config.json")]
    );
    assert_eq!(env(&[("REGISTRY_AUTH_FILE", "")]), [] as [PathBuf; 0]);
}

fn user(name: &str) -> Option<Credential> {
    Some(Credential {
        login: RegistryLogin::Password {
            username: name.into(),
            password: Secret::new(SECRET),
        },
        source: LoginSource::Prompt,
    })
}

fn names(sources: &LoginSources, images: &[&str], files: &[PathBuf]) -> Vec<Option<String>> {
    let images: Vec<_> = images.iter().map(|text| image(text)).collect();
    let sources = LoginSources {
        default_files: files.to_vec(),
        ..sources.clone()
    };
    let found = logins(&sources, &images).unwrap();
    found
        .logins
        .into_iter()
        .map(|login| Some(opened(login?)?.0))
        .collect()
}

#[test]
fn a_given_user_is_for_the_named_registries_and_files_for_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(
        &path,
        format!(r#"{{"auths":{{"b.example":{{"auth":"{AUTH}"}}}}}}"#),
    )
    .unwrap();
    let files = [folder.path().join("none.json"), path.clone()];
    let images = ["a.example/x", "b.example/y", "nginx"];
    let some = |name: &str| Some(name.to_string());

    let all = LoginSources {
        user: user("me"),
        ..LoginSources::default()
    };
    assert_eq!(
        names(&all, &["a.example/x", "a.example/y"], &files),
        [some("me"), some("me")]
    );
    let one = LoginSources {
        registries: vec!["a.example".into()],
        ..all.clone()
    };
    assert_eq!(names(&one, &images, &files), [some("me"), some("ci"), None]);
    let hub = LoginSources {
        registries: vec!["index.docker.io".into()],
        no_auth: true,
        ..all.clone()
    };
    assert_eq!(names(&hub, &images, &files), [None, None, some("me")]);
    let only = LoginSources {
        registries: vec!["a.example".into()],
        ..LoginSources::default()
    };
    assert_eq!(names(&only, &images, &files), [None, None, None]);
    let none = LoginSources {
        no_auth: true,
        ..LoginSources::default()
    };
    assert_eq!(names(&none, &images, &files), [None, None, None]);
    let named = LoginSources {
        auth_file: Some(path),
        ..LoginSources::default()
    };
    assert_eq!(names(&named, &images, &[]), [None, some("ci"), None]);
}

#[test]
fn one_password_goes_to_one_registry_unless_more_are_named() {
    let given = |registries: &[&str]| LoginSources {
        user: user("me"),
        registries: registries.iter().map(ToString::to_string).collect(),
        ..LoginSources::default()
    };
    let images: Vec<Image> = ["reg.example/x", "metrics.evil.example/y", "nginx"]
        .map(image)
        .into();
    let refused = logins(&given(&[]), &images).unwrap_err().to_string();
    for part in [
        "3: docker.io, metrics.evil.example, reg.example",
        "--registry",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    // Names of Docker Hub are one registry, ports are several.
    let hub: Vec<Image> = [
        "nginx",
        "docker.io/team/app",
        "index.docker.io/team/app",
        "registry-1.docker.io/team/app",
    ]
    .map(image)
    .into();
    assert!(
        logins(&given(&[]), &hub)
            .unwrap()
            .logins
            .iter()
            .all(Option::is_some)
    );
    let ports: Vec<Image> = ["reg.example/x", "reg.example:5000/x"].map(image).into();
    assert!(logins(&given(&[]), &ports).is_err());
    // A registry is named as a whole, not as the beginning of another.
    let alike: Vec<Image> = [
        "reg.example/x",
        "reg.example.evil/x",
        "reg.example:5000/x",
        "xreg.example/x",
    ]
    .map(image)
    .into();
    let found = logins(&given(&["https://REG.example/v2/"]), &alike).unwrap();
    let has_login: Vec<bool> = found.logins.iter().map(Option::is_some).collect();
    assert_eq!(has_login, [true, false, false, false]);
    let both = logins(&given(&["reg.example", "docker.io"]), &images).unwrap();
    let has_login: Vec<bool> = both.logins.iter().map(Option::is_some).collect();
    assert_eq!(has_login, [true, false, true]);
}

#[test]
fn the_login_for_one_registry_is_for_no_other() {
    let keys = [
        "docker.io",
        "https://index.docker.io/v1/",
        "reg.example",
        "https://reg.example:5000",
        "reg.example/team",
        "quay.io",
    ];
    let images = [
        "nginx",
        "reg.example/team/app",
        "reg.example/other",
        "reg.example:5000/app",
        "quay.io/app",
        "reg.example.evil/team/app",
        "evil/reg.example/team",
        "evil.example/docker.io/app",
    ];
    let host = |key: &str| {
        let bare = key
            .trim_start_matches("https://")
            .split('/')
            .next()
            .unwrap();
        bare.replace("index.docker.io", "docker.io")
    };
    for key in keys {
        let text = format!(r#"{{"auths":{{"{key}":{{"auth":"{AUTH}"}}}}}}"#);
        let secret = AuthFile::parse_pull_secret(text.as_bytes(), "s", false).unwrap();
        for reference in images {
            let is_its_own = image(reference).registry() == host(key);
            let is_found = found(&text, reference).is_some();
            assert!(is_its_own || !is_found, "{key} for {reference}");
            let is_found = secret.login(&image(reference)).unwrap().is_some();
            assert!(
                is_its_own || !is_found,
                "the pull secret's {key} for {reference}"
            );
        }
    }
}

#[test]
fn files_are_read_as_they_are_found_in_the_field() {
    let ci = Some(("ci".to_string(), SECRET.as_bytes().to_vec()));
    let whole = format!(
        "{{\r\n  \"auths\": {{\r\n    \"reg.example\": {{\"auth\": \"{AUTH}\"}}\r\n  }}\r\n}}\r\n"
    );
    for text in [
        whole.clone(),
        // Written by an editor of Windows, and what docker does not look at.
        format!("\u{feff}{whole}"),
        format!("{whole}}}\n"),
        format!("{whole}\0\0"),
        // Names of fields are read in any case, as everything written in Go does; the last of two counts.
        format!(r#"{{"Auths":{{"reg.example":{{"Auth":"{AUTH}"}}}}}}"#),
        format!(r#"{{"auths":{{"reg.example":{{"auth":"b3RoZXI6eA==","auth":"{AUTH}"}}}}}}"#),
        format!(r#"{{"auths":{{"other.example":{{}}}},"auths":{{"reg.example":{{"auth":"{AUTH}"}}}}}}"#),
        r#"{"auths":{"reg.example":{"UserName":"ci","Password":"hunter2"}}}"#.to_string(),
        // Folded by `base64`, without padding, and with the NUL bytes of old versions of docker.
        r#"{"auths":{"reg.example":{"auth":"Y2k6\naHVudGVyMg==\n"}}}"#.to_string(),
        r#"{"auths":{"reg.example":{"auth":"Y2k6\r\naHVudGVyMg"}}}"#.to_string(),
        r#"{"auths":{"reg.example":{"auth":"Y2k6AGh1bnRlcjIAAA=="}}}"#.to_string(),
        r#"{"auths":{"reg.example":{"auth":"Y2k6aHVudGVyMg==","email":null,"other":[1]},"x":null},"credsStore":null,"credHelpers":null}"#.to_string(),
        // The old form, with what a configuration has beside it.
        format!(r#"{{"reg.example":{{"auth":"{AUTH}","email":"a@example.com"}}}}"#),
        format!("\u{feff}{{\"https://reg.example/v1/\":{{\"auth\":\"{AUTH}\"}},\"proxies\":{{\"password\":\"x\"}},\"detachKeys\":\"x\"}}"),
    ] {
        assert_eq!(found(&text, "reg.example/app"), ci, "{text}");
        assert_eq!(file(&text).without_logins(), None, "{text}");
    }
    for (text, why) in [
        ("", "neither"),
        (" \r\n", "neither"),
        ("\u{feff}", "neither"),
        ("null", "neither"),
        (
            "{}",
            "neither \"auths\" nor \"credHelpers\" nor \"credsStore\"",
        ),
        (
            r#"{"HttpHeaders":{"auth":"x"},"proxies":{"default":{"username":"x"}}}"#,
            "neither",
        ),
        (r#"{"auths":{}}"#, "no entry"),
        (r#"{"auths":{"reg.example":{}}}"#, "no entry"),
    ] {
        assert_eq!(found(text, "reg.example/app"), None, "{text}");
        let warning = file(text).without_logins().unwrap();
        assert!(
            warning.starts_with("/c/config.json: it holds no registry login: "),
            "{warning}"
        );
        assert!(warning.contains(why), "{text}: {warning}");
    }
    for wide in [b"\xff\xfe{\0".as_slice(), b"\xfe\xff\0{"] {
        let error = AuthFile::parse(wide, Path::new("x"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("UTF-16"), "{error}");
    }
    let bare = format!("\u{feff}{{\"reg.example\":{{\"auth\":\"{AUTH}\"}}}}");
    let secret = AuthFile::parse_pull_secret(bare.as_bytes(), "team/old", true).unwrap();
    assert!(secret.login(&image("reg.example/app")).unwrap().is_some());
    let secret = AuthFile::parse_pull_secret(bare.as_bytes(), "team/new", false).unwrap();
    assert!(
        secret.login(&image("reg.example/app")).unwrap().is_none(),
        "the kubelet reads the form that the type says"
    );
    let warning = secret.without_logins().unwrap();
    assert!(
        warning.starts_with("pull secret team/new: ") && warning.contains("no \"auths\""),
        "{warning}"
    );
}

#[test]
fn a_named_file_without_a_login_gets_a_warning_and_a_default_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, "{\"detachKeys\": \"ctrl-x\"}").unwrap();
    let warnings = |sources: LoginSources| {
        logins(&sources, &[image("reg.example/app")])
            .unwrap()
            .warnings
    };
    let named = warnings(LoginSources {
        auth_file: Some(path.clone()),
        ..LoginSources::default()
    });
    assert_eq!(named.len(), 1, "{named:?}");
    let secrets = warnings(LoginSources {
        pull_secrets: vec![secret("team/pull", "{}", false)],
        default_files: vec![path],
        ..LoginSources::default()
    });
    assert_eq!(secrets.len(), 1, "{secrets:?}");
    assert!(secrets[0].contains("team/pull"), "{secrets:?}");
}

#[test]
fn wrong_sources_are_told() {
    let images = [image("a.example/x")];
    let fails = |sources: LoginSources| logins(&sources, &images).unwrap_err().to_string();
    let missing = fails(LoginSources {
        auth_file: Some("/no/such".into()),
        ..LoginSources::default()
    });
    assert!(
        missing.contains("/no/such") && missing.contains("--auth-file"),
        "{missing}"
    );
    let colon = fails(LoginSources {
        user: user("a:b"),
        ..LoginSources::default()
    });
    assert!(colon.contains("colon"), "{colon}");
    let registry = fails(LoginSources {
        user: user("a"),
        registries: vec!["b.example".into()],
        ..LoginSources::default()
    });
    assert!(registry.contains("--registry b.example"), "{registry}");
    let folder = tempfile::tempdir().unwrap();
    let directory = fails(LoginSources {
        auth_file: Some(folder.path().into()),
        ..LoginSources::default()
    });
    assert!(
        directory.contains("cannot read the registry logins"),
        "{directory}"
    );
}

#[test]
fn a_second_file_is_read_only_when_it_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
    std::fs::write(
        &good,
        format!(r#"{{"auths":{{"a.example":{{"auth":"{AUTH}"}}}}}}"#),
    )
    .unwrap();
    std::fs::write(&bad, "{").unwrap();
    let sources = LoginSources {
        default_files: vec![good, bad],
        ..LoginSources::default()
    };
    assert!(logins(&sources, &[image("a.example/x")]).is_ok());
    assert!(logins(&sources, &[image("b.example/x")]).is_err());
}

#[test]
fn tokens_are_read_as_docker_writes_them() {
    for (entry, kind) in [
        (r#"{"identitytoken":"hunter2"}"#, "identity:"),
        (
            r#"{"auth":"Y2k6","identitytoken":"hunter2"}"#,
            "identity:ci",
        ),
        (
            r#"{"auth":"Y2k6","password":"x","identitytoken":"hunter2"}"#,
            "identity:ci",
        ),
        (r#"{"registrytoken":"hunter2"}"#, "registry"),
    ] {
        let text = format!(r#"{{"auths":{{"reg.example":{entry}}}}}"#);
        assert_eq!(
            found(&text, "reg.example/app"),
            Some((kind.to_string(), SECRET.as_bytes().to_vec())),
            "{entry}"
        );
    }
}

fn secret(name: &str, json: &str, is_bare: bool) -> PullSecret {
    let json = json.to_string();
    PullSecret {
        name: name.into(),
        read: Arc::new(move || {
            Ok(PullSecretContent {
                json: Secret::new(json.as_str()),
                is_bare,
            })
        }),
    }
}

#[test]
fn pull_secrets_come_before_files_and_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let entries = format!(r#"{{"auths":{{"c.example":{{"auth":"{AUTH}"}}}}}}"#);
    std::fs::write(&path, entries).unwrap();
    let entry = |name: &str| format!(r#"{{"username":"{name}","password":"hunter2"}}"#);
    let first = format!(r#"{{"auths":{{"*.example":{}}}}}"#, entry("first"));
    let old = format!(
        r#"{{"b.example":{},"docker.io":{}}}"#,
        entry("second"),
        entry("hub")
    );
    let images = ["a.example/x", "b.example/y", "c.example/z", "nginx"];
    let some = |name: &str| Some(name.to_string());
    let with = |pull_secrets| LoginSources {
        pull_secrets,
        ..LoginSources::default()
    };
    let (first, old) = (
        secret("first", &first, false),
        secret("team/old", &old, true),
    );
    let both = with(vec![first.clone(), old.clone()]);
    assert_eq!(
        names(&both, &images, std::slice::from_ref(&path)),
        [some("first"), some("first"), some("first"), some("hub")]
    );
    assert_eq!(
        names(
            &with(vec![old, first]),
            &images,
            std::slice::from_ref(&path)
        ),
        [some("first"), some("second"), some("first"), some("hub")]
    );
    let none = with(vec![secret("none", "{}", false)]);
    assert_eq!(
        names(&none, &images, &[path]),
        [None, None, some("ci"), None]
    );
}

#[test]
fn a_pull_secret_starts_no_program_and_its_faults_name_it() {
    let marks = tempfile::tempdir().unwrap();
    let helper = format!(r#"{{"credsStore":"../../{}"}}"#, marks.path().display());
    let images = [image("reg.example/app")];
    let ask = |json: &str| {
        let sources = LoginSources {
            pull_secrets: vec![secret("team/pull", json, false)],
            ..LoginSources::default()
        };
        logins(&sources, &images).map(|found| found.logins)
    };
    assert_eq!(ask(&helper).unwrap(), [None]);
    assert_eq!(
        ask(r#"{"credHelpers":{"reg.example":"x"}}"#).unwrap(),
        [None]
    );
    for broken in [
        "hunter2",
        r#"{"auths":{"reg.example":{"auth":"hunter2!"}}}"#,
    ] {
        let error = ask(broken).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("pull secret team/pull"), "{shown}");
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(file) = AuthFile::parse(&bytes, Path::new("x")) {
            let _ = file.login(&image("nginx"));
        }
    }

    #[test]
    fn no_error_shows_what_an_entry_holds(
        key in "(https://)?reg\\.example(/[a-z]{0,3}){0,2}",
        field in "auth|username|password|identitytoken|other",
        prefix in "[a-zA-Z0-9+/=:]{0,6}",
    ) {
        let marker = "QZJXKWVQ";
        let text = format!(r#"{{"auths":{{"{key}":{{"{field}":"{prefix}{marker}"}}}}}}"#);
        let file = AuthFile::parse(text.as_bytes(), Path::new("x")).unwrap();
        if let Err(error) = file.login(&image("reg.example/app")) {
            let shown = format!("{error} {error:?}");
            prop_assert!(!shown.contains(marker));
        }
    }

    #[test]
    fn any_user_and_password_survive_the_way_through_a_file(user in "[^:\\x00-\\x1f\\x7f-\\x9f]{1,20}", password in "[^\\x00]{1,40}") {
        let auth = String::from_utf8(basic(&user, password.as_bytes()).expose().to_vec()).unwrap();
        let text = format!(r#"{{"auths":{{"reg.example":{{"auth":"{auth}"}}}}}}"#);
        let found = AuthFile::parse(text.as_bytes(), Path::new("x")).unwrap().login(&image("reg.example/a"));
        prop_assert_eq!(opened(found.unwrap().unwrap()), Some((user, password.into_bytes())));
    }
}
