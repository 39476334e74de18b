//! docker's API, where it tells more than its client: the request for a pull, and the answer as the client would print
//! it.
//!
//! Seen from dockerd 20.10 (`tests/fixtures/transcripts/docker-api`). The node leaves out of an answer the sizes of its
//! chunks and most of what is said about layers (`keep_answer` in `src/node/program/`); with both it reads the same.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::model::{CommandOutput, ExitStatus, RegistryLogin, Secret};
use crate::ports::PullRequest;

/// The whole request for a pull, its login included; nothing for a login that JSON cannot hold.
///
/// Without a version in its path the daemon takes it for its own version.
pub(super) fn request(pull: &PullRequest<'_>, server: &str) -> Option<Secret> {
    let image = pull.image;
    let tag = image.digest().or(image.tag()).unwrap_or("latest");
    let platform = pull.platform.map_or_else(String::new, |platform| {
        ["&platform=", &escaped(platform)].concat()
    });
    let login = match pull.login {
        Some(login) => header(login, server)?,
        None => Zeroizing::new(String::new()),
    };
    // Put together in one piece: a buffer that grows leaves copies of the secret behind.
    let parts = [
        "POST /images/create?fromImage=",
        image.name(),
        "&tag=",
        tag,
        &platform,
        " HTTP/1.1\r\nHost: d\r\nX-Registry-Auth: ",
        &login,
        "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ];
    let text = parts.concat();
    Some(match pull.login {
        Some(_) => Secret::new(text),
        None => Secret::plain(text),
    })
}

/// The login as the header wants it.
fn header(login: &RegistryLogin, server: &str) -> Option<Zeroizing<String>> {
    #[derive(Default, Serialize)]
    struct Login<'a> {
        username: &'a str,
        password: &'a str,
        identitytoken: &'a str,
        registrytoken: &'a str,
        serveraddress: &'a str,
    }
    let text = |secret| std::str::from_utf8(Secret::expose(secret)).ok();
    let mut fields = Login {
        serveraddress: server,
        ..Login::default()
    };
    match login {
        RegistryLogin::Password { username, password } => {
            fields.username = username;
            fields.password = text(password)?;
        }
        RegistryLogin::IdentityToken { token, .. } => fields.identitytoken = text(token)?,
        RegistryLogin::RegistryToken(token) => fields.registrytoken = text(token)?,
    }
    let size = [
        fields.username,
        fields.password,
        fields.identitytoken,
        fields.registrytoken,
        server,
    ]
    .map(str::len);
    // Escapes included.
    let mut json = Zeroizing::new(Vec::with_capacity(6 * size.iter().sum::<usize>() + 128));
    serde_json::to_writer(&mut *json, &fields).ok()?;
    Some(Zeroizing::new(URL_SAFE.encode(&*json)))
}

/// Text as a query holds it.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// One line of the answer's body.
#[derive(Deserialize)]
struct Message {
    id: Option<String>,
    status: Option<String>,
    #[serde(rename = "errorDetail")]
    in_stream: Option<Detail>,
    error: Option<String>,
    /// The body of an answer whose status is not a success.
    message: Option<String>,
}

#[derive(Deserialize)]
struct Detail {
    message: String,
}

/// The output of `docker system dial-stdio` as `docker pull` would have printed it; nothing where no daemon answered.
///
/// Its first line tells it from what the client itself prints. What is neither whole nor an error is one: a daemon that
/// goes away closes the connection, and the client sees no more in it.
pub(super) fn escape_multiline(output: &CommandOutput) -> Option<CommandOutput> {
    let answer = String::from_utf8_lossy(&output.stdout);
    let mut lines = answer.lines().map(|line| line.trim_end_matches('\r'));
    let first = lines.next().filter(|line| line.starts_with("HTTP/"))?;
    let status = first.split_once(' ').map_or("", |(_, status)| status);
    let is_success = status.split(' ').next() == Some("200");
    let (mut said, mut errors) = (format!("{first}\n"), Vec::new());
    let mut is_whole = false;
    for line in lines.skip_while(|line| !line.is_empty()) {
        if let Ok(message) = serde_json::from_str::<Message>(line) {
            let error = message.in_stream.map(|detail| detail.message);
            errors.extend(error.or(message.error).or(message.message));
            let id = message.id.map(|id| format!("{id}: ")).unwrap_or_default();
            said.extend(message.status.map(|status| format!("{id}{status}\n")));
        } else if line == "0" {
            is_whole = true;
        } else if line.bytes().any(|byte| !byte.is_ascii_hexdigit()) {
            errors.push(line.to_string());
        }
    }
    let (exit, mut complaint) = match &output.exit {
        _ if !is_success && errors.is_empty() => (
            ExitStatus::Code(1),
            format!("request returned {status} for API route and version"),
        ),
        _ if !is_success => (
            ExitStatus::Code(1),
            format!("Error response from daemon: {}", errors.join("\n")),
        ),
        _ if !errors.is_empty() => (ExitStatus::Code(1), errors.join("\n")),
        ExitStatus::Code(0) if !is_whole => (
            ExitStatus::Code(1),
            "error during connect: the daemon's answer broke off".to_string(),
        ),
        exit => (exit.clone(), String::new()),
    };
    complaint.push('\n');
    complaint.push_str(&String::from_utf8_lossy(&output.stderr));
    Some(CommandOutput {
        exit,
        stdout: said.into_bytes(),
        stderr: complaint.into_bytes(),
        truncated: output.truncated,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Image;

    fn answered(stdout: &str) -> CommandOutput {
        let output = CommandOutput {
            exit: ExitStatus::Code(0),
            stdout: stdout.into(),
            stderr: Vec::new(),
            truncated: false,
        };
        escape_multiline(&output).unwrap()
    }

    fn sent(image: &str, platform: Option<&str>, login: Option<&RegistryLogin>) -> Option<String> {
        let image: Image = image.parse().unwrap();
        let pull = PullRequest {
            image: &image,
            endpoint: None,
            platform,
            login,
        };
        let request = request(&pull, "reg.example")?;
        assert_eq!(request.is_plain(), login.is_none());
        Some(String::from_utf8(request.expose().to_vec()).unwrap())
    }

    #[test]
    fn a_request_names_image_and_platform_and_ends_once() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (image, platform, query) in [
            (
                "nginx",
                None,
                "fromImage=docker.io/library/nginx&tag=latest".to_string(),
            ),
            (
                &format!("reg.example:5000/app:v1@{digest}"),
                Some("linux/arm/v7&x=\r\n"),
                format!(
                    "fromImage=reg.example:5000/app&tag={digest}&platform=linux%2Farm%2Fv7%26x%3D%0D%0A"
                ),
            ),
        ] {
            assert_eq!(
                sent(image, platform, None).unwrap(),
                format!(
                    "POST /images/create?{query} HTTP/1.1\r\nHost: d\r\nX-Registry-Auth: \r\n\
                     Content-Length: 0\r\nConnection: close\r\n\r\n"
                )
            );
        }
    }

    #[test]
    fn a_login_of_any_kind_is_in_the_header() {
        let secret = || Secret::new("hunter2\"\r\n\u{1}é");
        let username = "c\"i".to_string();
        for (login, fields) in [
            (
                RegistryLogin::Password {
                    username: username.clone(),
                    password: secret(),
                },
                [&username, "hunter2\"\r\n\u{1}é", "", ""],
            ),
            (
                RegistryLogin::IdentityToken {
                    username: username.clone(),
                    token: secret(),
                },
                ["", "", "hunter2\"\r\n\u{1}é", ""],
            ),
            (
                RegistryLogin::RegistryToken(secret()),
                ["", "", "", "hunter2\"\r\n\u{1}é"],
            ),
        ] {
            let text = sent("reg.example/app", None, Some(&login)).unwrap();
            let header = text.lines().nth(2).unwrap();
            let value = header.strip_prefix("X-Registry-Auth: ").unwrap();
            let json: serde_json::Value =
                serde_json::from_slice(&URL_SAFE.decode(value).unwrap()).unwrap();
            let names = ["username", "password", "identitytoken", "registrytoken"];
            assert_eq!(names.map(|name| json[name].as_str().unwrap()), fields);
            assert_eq!(json["serveraddress"], "reg.example");
        }
        let no_text = RegistryLogin::RegistryToken(Secret::new([0xff]));
        assert_eq!(sent("reg.example/app", None, Some(&no_text)), None);
    }

    const BEGUN: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n47\r\n\
        {\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"6a758fe320d3\"}\r\n\r\n";

    #[test]
    fn an_answer_reads_as_the_client_prints_it() {
        for (rest, code, complaint) in [
            ("0\r\n\r\n", 0, "\n"),
            (
                "",
                1,
                "error during connect: the daemon's answer broke off\n",
            ),
            (
                "20\r\n{\"errorDetail\":{\"code\":1,\"message\":\"no\"},\"error\":\"nope\"}\r\n\r\n0\r\n\r\n",
                1,
                "no\n",
            ),
            ("{\"error\":\"nope\"}\n", 1, "nope\n"),
            // An answer that is not understood is not a success.
            ("5\r\n{\"sta\r\n0\r\n\r\n", 1, "{\"sta\n"),
            ("{\"status\":7}\n0\n", 1, "{\"status\":7}\n"),
        ] {
            let printed = answered(&format!("{BEGUN}{rest}"));
            assert_eq!(printed.exit, ExitStatus::Code(code), "{rest}");
            assert_eq!(
                printed.stdout,
                b"HTTP/1.1 200 OK\n6a758fe320d3: Pulling fs layer\n"
            );
            assert_eq!(String::from_utf8_lossy(&printed.stderr), complaint);
        }
        for (answer, complaint) in [
            (
                "HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n{\"message\":\"manifest unknown\"}\n",
                "Error response from daemon: manifest unknown\n",
            ),
            (
                "HTTP/1.1 404 Not Found\r\n\r\n404 page not found\n",
                "Error response from daemon: 404 page not found\n",
            ),
            (
                "HTTP/1.1 502 Bad Gateway\r\n\r\n",
                "request returned 502 Bad Gateway for API route and version\n",
            ),
            (
                "HTTP/\n0\n",
                "request returned  for API route and version\n",
            ),
        ] {
            let printed = answered(answer);
            assert_eq!(printed.exit, ExitStatus::Code(1), "{answer}");
            assert_eq!(String::from_utf8_lossy(&printed.stderr), complaint);
        }
    }

    #[test]
    fn what_is_no_answer_is_left_to_the_client() {
        for stdout in ["", "v1: Pulling from team/app\n", "http/1.1 200 OK\r\n"] {
            let output = CommandOutput {
                stdout: stdout.into(),
                ..answered(BEGUN)
            };
            assert_eq!(escape_multiline(&output), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// A whole answer without an error is the one success, wherever it is cut and whatever stands in it.
        #[test]
        fn only_a_whole_answer_is_a_success(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "{\"status\":\"x\"}\r\n", "\r\n", "1f\r\n", "0\r\n", "{", "}", "\"error\":\"no\"", "\u{1b}[2J", "é", ": ",
                ]),
                0..12,
            ),
            cut in 0usize..200,
        ) {
            let body = parts.concat();
            let mut answer = format!("{BEGUN}{body}").into_bytes();
            answer.truncate(BEGUN.len() + cut);
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let printed = answered(&answer);
            let lines: Vec<&str> = answer[BEGUN.len()..].lines().map(|line| line.trim_end_matches('\r')).collect();
            let is_whole = lines.contains(&"0");
            let is_understood = lines.iter().all(|line| {
                line.bytes().all(|byte| byte.is_ascii_hexdigit()) || ["{\"status\":\"x\"}", "{}"].contains(line)
            });
            prop_assert_eq!(printed.exit == ExitStatus::Code(0), is_whole && is_understood, "{}", answer);
        }
    }
}
