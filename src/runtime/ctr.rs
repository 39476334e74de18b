//! containerd through `ctr`, where there is no other client.
//!
//! What is read here was seen from ctr 1.6, 2.1 and 2.4 (`tests/fixtures/transcripts/ctr*`).

use serde_json::Value;

use super::containerd::if_seen;
use super::local_names::with_local_names;
use super::{containerd, keep, output, stock};
use crate::model::{
    CommandOutput, Failure, FailureKind, Image, KeepOutcome, LocalImage, RegistryLogin,
    RuntimeKind, Secret, Stage, Stock, basic, is_digest, text,
};
use crate::ports::{
    Description, KeepRequest, Naming, NodeCommand, PullRequest, Runtime, SecretDelivery,
    StockQuestion,
};

/// containerd, through `ctr`.
#[derive(Debug, Clone, Copy)]
pub struct Ctr;

const KIND: RuntimeKind = RuntimeKind::Ctr;

/// Prints what is held under the name `$1`: ctr's line of it, and each manifest that it may stand for. Images whose
/// layers came but were not unpacked are not counted: ctr 1.6 leaves such a name behind when unpacking fails.
const INSPECT: &str = if_seen!(
    r#"held=$($client images ls "name==$1") || exit
row=$(printf '%s\n' "$held" | sed 1d)
status=$($client images check "name==$1" 2>/dev/null | sed '1d; s/ *$//')
case $row/$status in
    /* | *complete\ \(*false) echo "no such image: $1" >&2; exit 1 ;;
esac
printf '%s\n' "$row"
digest=$(printf '%s\n' "$row" | grep -o 'sha256:[0-9a-f]\{64\}' | tail -n 1)
manifest=$($client content get "$digest") || exit
printf 'manifest %s\n%s\n' "$digest" "$manifest"
case $manifest in *'"manifests"'*) ;; *) exit 0 ;; esac
blobs=$($client content ls -q) || exit
for digest in $(printf '%s\n' "$manifest" | grep -o 'sha256:[0-9a-f]\{64\}' | head -n 64); do
    case $blobs in *"$digest"*) printf 'manifest %s\n%s\n' "$digest" "$($client content get "$digest")" ;; esac
done"#
);

/// Pulls. ctr prints its progress from the start on, and nothing in it is needed. For a kubelet the image gets the name
/// with its digest too, as the CRI gives it.
///
/// A login becomes a header in a `hosts.toml` of our own (decision 20), which otherwise says what the node's says of
/// the registry: only hosts with the registry's own name get the header. The folders are those of `hostPaths` in
/// containerd's
/// `remotes/docker/config`. Without a table `host`, containerd 1.6 does not take the file.
///
/// ctr before 2.0 does not show that header to a token service: there curl, which reads the login from its standard input,
/// exchanges it for a token first.
///
/// With `--plain-http` first it is prepull that is asked: what the node's configuration says of registries is left out.
const PULL: &str = if_seen!(
    r#"registry=$1
repository=$2
shift 2
plain=
[ "$1" != --plain-http ] || { plain=yes; certs=/dev/null; }
ask() { curl -sS -g -m 30 ${cacert:+--cacert "$cacert"} "$@" | tr -d '\r'; }
challenged() {
    printf '%s\n' "$challenge" |
        sed -n "s/^[Ww][Ww][Ww]-[Aa]uthenticate: *[Bb]earer *.*$1=\"\([^\"]*\)\".*/\1/p" | head -n 1
}
exchange_login() {
    read -r login <"$PREPULL_LOGIN/authorization"
    case "$login $($client --version)" in
        Basic\ *containerd\ 1.* | Basic\ *containerd\ v1.*) command -v curl >/dev/null || return 0 ;;
        *) return 0 ;;
    esac
    cacert=
    own=$(
        for file in ${from:+"$from"/*.crt}; do [ ! -f "$file" ] || echo "$file"; done
        [ -z "$from" ] || sed -n 's/^ *ca *= *\[\{0,1\} *"\([^"]*\)".*/\1/p' "$from/hosts.toml" 2>/dev/null
    )
    if [ -n "$own" ]; then
        cacert=$PREPULL_LOGIN/ca.pem
        for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem; do
            [ ! -f "$file" ] || { cat "$file"; break; }
        done >"$cacert"
        printf '%s\n' "$own" | (cd "$from" && while IFS= read -r file; do cat "$file"; echo; done) >>"$cacert"
    fi
    host=$registry
    [ "$host" != docker.io ] || host=registry-1.docker.io
    challenge=$(ask -o /dev/null -D - "https://$host/v2/" 2>/dev/null)
    realm=$(challenged realm)
    case $realm in https://*) ;; *) return 0 ;; esac
    answer=$(printf 'header = "Authorization: %s"\n' "$login" |
        ask -K - -G -w '\n%{http_code}' --data-urlencode "service=$(challenged service)" \
            --data-urlencode "scope=repository:$repository:pull" "$realm" 2>"$PREPULL_LOGIN/said" | tr '\n' ' ')
    token=$(printf '%s\n' "$answer" | sed -n 's/.*"\(access_\)\{0,1\}token" *: *"\([^"]*\)".*/\2/p')
    case ${answer##* }/$token in
        200/*[!A-Za-z0-9._~+/=-]* | 200/) said='sent no token' ;;
        200/*) printf 'Bearer %s\n' "$token" >"$PREPULL_LOGIN/authorization"; return ;;
        000/*) said="did not answer: $(cat "$PREPULL_LOGIN/said")" ;;
        *) said="refused the login: http status ${answer##* }" ;;
    esac
    echo "ctr: the token service $realm $said" >&2
    exit 1
}
hosts=
[ ! -d "$certs" ] || hosts=$certs
if [ -n "${PREPULL_LOGIN-}" ]; then
    hosts=$PREPULL_LOGIN/hosts
    case $registry in *:*) escaped=${registry%:*}_${registry##*:}_ ;; *) escaped=$registry ;; esac
    from=
    for name in "$escaped" "$registry" _default; do
        [ -d "$certs/$name" ] && from=$certs/$name && break
    done
    [ -n "$plain" ] || exchange_login
    mkdir -p "$hosts/$registry" || exit
    for entry in "$certs"/*; do
        case ${entry##*/} in "$escaped" | "$registry" | \*) ;; *) ln -s "$entry" "$hosts/" ;; esac
    done
    for entry in ${from:+"$from"/*}; do
        case ${entry##*/} in hosts.toml | \*) ;; *) ln -s "$entry" "$hosts/$registry/" ;; esac
    done
    if [ -s "$from/hosts.toml" ]; then
        cat "$from/hosts.toml"
    elif [ -n "$from" ]; then
        ca=
        for file in "$from"/*.crt; do [ -f "$file" ] && ca="$ca\"$file\","; done
        [ -z "$ca" ] || printf 'ca = [%s]\n' "$ca"
        pairs=
        for file in "$from"/*.cert; do [ -f "${file%.cert}.key" ] && pairs="$pairs[\"$file\",\"${file%.cert}.key\"],"; done
        [ -z "$pairs" ] || printf 'client = [%s]\n' "$pairs"
    fi | awk -v registry="$registry" -v login="$PREPULL_LOGIN/authorization" '
        function is_own(url) {
            sub(/^[a-z]+:\/\//, "", url)
            sub(/\/.*/, "", url)
            return url == registry || registry == "docker.io" && url == "registry-1.docker.io"
        }
        function add() { print "Authorization = [\"" secret "\"]" }
        BEGIN { getline secret <login; server_is_own = 1 }
        { text = $0; gsub(/[ \t\r]/, "", text); gsub(/\047/, "\"", text) }
        text ~ /^\[(host|header)/ {
            table = text
            in_header = 0
            if (table ~ /^\[header\]/) in_header = root_has = server_is_own
            if (table ~ /^\[host/) has_hosts = 1
            if (table ~ /^\[host\."/) {
                url = table
                sub(/^\[host\."/, "", url)
                sub(/".*/, "", url)
                if (is_own(url)) {
                    in_header = table ~ /"\.header\]/
                    if (in_header || !(url in has)) has[url] = in_header
                }
            }
            print
            if (in_header) add()
            next
        }
        text ~ /^"?header"?[.=]/ {
            print "ctr: " registry ": hosts.toml has its headers in one line; write them as a table [header]" >"/dev/stderr"
            failed = 1
            exit 1
        }
        table == "" && text ~ /^server=/ { url = text; gsub(/^server="|".*/, "", url); server_is_own = is_own(url) }
        in_header && tolower(text) ~ /^"?authorization"?=/ { next }
        { print }
        END {
            if (failed) exit 1
            if (server_is_own && !root_has) { print "[header]"; add() }
            for (url in has) if (!has[url]) { print "[host.\"" url "\".header]"; add() }
            if (!has_hosts) print "[host]"
        }' >"$hosts/$registry/hosts.toml" || exit
fi
$client images pull ${hosts:+--hosts-dir "$hosts"} "$@" >/dev/null || exit
[ "$CONTAINERD_NAMESPACE" = k8s.io ] || exit 0
while [ $# -gt 1 ]; do shift; done
digest=$($client images ls "name==$1" | grep -o 'sha256:[0-9a-f]\{64\}' | tail -n 1)
case $1 in *@*) ;; *) $client images tag --force "$1" "$registry/$repository@$digest" >/dev/null 2>&1 ;; esac
exit 0"#
);

/// Gives an image its own names, those of [`PULL`]: `MODE LOCAL NAME TAG`.
const NAME: &str = concat!(
    "mode=$1 local=$2 name=$3 tag=$4\n",
    with_local_names!(
        r#"images() { $client images "$@"; }
case $mode in
    check) images ls -q >/dev/null ;;
    name)
        by_digest=$name@$digest
        [ -z "$tag" ] || [ "$CONTAINERD_NAMESPACE" = k8s.io ] || by_digest=
        for wanted in ${tag:+"$name:$tag"} $by_digest; do
            images tag --force "$local" "$wanted" >/dev/null || exit
        done
        forget
        ;;
    forget)
        forget
        sleep 1
        forget
        ;;
esac"#
    )
);

impl Ctr {
    fn pull_with<'a>(
        request: &PullRequest<'a>,
        options: &[&'a str],
    ) -> Result<NodeCommand<'a>, Failure> {
        let (registry, repository) = (request.image.registry(), request.image.repository());
        let mut argv = vec!["sh", "-c", PULL, "ctr", registry, repository];
        argv.extend(options);
        if let Some(platform) = request.platform {
            argv.extend(["--platform", platform]);
        }
        argv.push(request.image.exact());
        Ok(NodeCommand {
            secret: request
                .login
                .map(authorization)
                .transpose()?
                .map(|content| SecretDelivery::Directory {
                    variable: "PREPULL_LOGIN",
                    file: "authorization",
                    content,
                }),
            ..containerd::command(KIND, request.endpoint, &argv)
        })
    }
}

impl Runtime for Ctr {
    fn kind(&self) -> RuntimeKind {
        KIND
    }

    fn version<'a>(&self, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        containerd::command(
            KIND,
            endpoint,
            &["sh", "-c", "exec $client --connect-timeout 5s version"],
        )
    }

    fn check_alive(&self, output: &CommandOutput) -> Result<String, Failure> {
        if !output.success() {
            return Err(containerd::failure(KIND, Stage::Probe, None, output));
        }
        let lines = output::lines(&output.stdout);
        let server = lines.iter().skip_while(|line| !line.starts_with("Server:"));
        let version = server
            .filter_map(|line| line.trim().strip_prefix("Version:"))
            .next();
        let Some(version) = version else {
            let said = [vec!["ctr version names no server".to_string()], lines].concat();
            let detail = output::detail(&said);
            return Err(Failure::new(FailureKind::Unknown, Stage::Probe, detail));
        };
        let version = text::truncate_bytes(version.trim().as_bytes(), 100);
        Ok(format!("containerd {version}"))
    }

    fn describe<'a>(&self, endpoint: Option<&'a str>) -> [NodeCommand<'a>; 2] {
        [self.version(endpoint), containerd::socket(KIND, endpoint)]
    }

    fn read_description(
        &self,
        [_, version, socket]: [&CommandOutput; 3],
    ) -> Result<Description, Failure> {
        let runtime = self.check_alive(version)?;
        Ok(containerd::description(runtime, KIND, socket))
    }

    fn inspect<'a>(&self, image: &'a Image, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        let argv = ["sh", "-c", INSPECT, "ctr", image.exact()];
        containerd::command(KIND, endpoint, &argv)
    }

    fn read_inspect(
        &self,
        image: &Image,
        output: &CommandOutput,
        stage: Stage,
    ) -> Result<Option<LocalImage>, Failure> {
        if !output.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            if said.contains("no such image: ") {
                return Ok(None);
            }
            return Err(containerd::failure(KIND, stage, Some(image), output));
        }
        read_held(&String::from_utf8_lossy(&output.stdout))
            .map(Some)
            .ok_or_else(|| {
                let mut said = vec!["ctr printed no image that could be read".to_string()];
                said.extend(output::lines(&output.stdout));
                Failure::new(FailureKind::Unknown, stage, output::detail(&said))
            })
    }

    fn is_fallback(&self) -> bool {
        true
    }

    fn data_dir<'a>(&self, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        containerd::command(KIND, endpoint, &["sh", "-c", containerd::DATA_DIR])
    }

    fn pull<'a>(&self, request: &PullRequest<'a>) -> Result<NodeCommand<'a>, Failure> {
        Self::pull_with(request, &[])
    }

    fn pull_locally<'a>(&self, request: &PullRequest<'a>) -> Result<NodeCommand<'a>, Failure> {
        Self::pull_with(request, &["--plain-http"])
    }

    fn naming<'a>(&self, naming: &Naming<'a>) -> Result<[NodeCommand<'a>; 3], Failure> {
        let PullRequest {
            image, endpoint, ..
        } = naming.request;
        let tag = image.tag().filter(|_| image.digest().is_none());
        Ok(["check", "name", "forget"].map(|mode| {
            let (local, tag) = (naming.local.as_str(), tag.unwrap_or_default());
            let argv = ["sh", "-c", NAME, "ctr", mode, local, image.name(), tag];
            containerd::command(KIND, endpoint, &argv)
        }))
    }

    fn names_digests(&self) -> bool {
        true
    }

    fn keep<'a>(&self, request: &KeepRequest<'a>) -> Option<NodeCommand<'a>> {
        let argv = keep::question(KIND, request, &[]);
        Some(containerd::command(KIND, request.endpoint, &argv))
    }

    fn read_keep(&self, output: &CommandOutput) -> KeepOutcome {
        keep::read(output)
    }

    fn stock<'a>(&self, question: &StockQuestion<'a>) -> Option<NodeCommand<'a>> {
        Some(stock::question(KIND, question, &[]))
    }

    fn read_stock(&self, output: &CommandOutput) -> Stock {
        stock::read(output)
    }

    fn read_pull(&self, image: &Image, output: &CommandOutput) -> Result<(), Failure> {
        if output.success() {
            // What is held is asked afterwards.
            return Ok(());
        }
        let mut failure = containerd::failure(KIND, Stage::Pull, Some(image), output);
        // Not the failure's detail: what follows "authorization:" is blanked there.
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("insufficient_scope") || said.contains("anonymous token") {
            failure.detail.push_str(
                "; ctr before containerd 2 does not show a login to a registry's token service by itself: install curl on the node, or use crictl, nerdctl, or a registry token in --auth-file",
            );
        }
        Err(failure)
    }
}

/// The header's value, for a string in TOML.
fn authorization(login: &RegistryLogin) -> Result<Secret, Failure> {
    let refuse = |why: &str| {
        let detail = format!("{why}; use --registry-user, or another --auth-file");
        Failure::new(FailureKind::RegistryAuth, Stage::Pull, detail)
    };
    let (scheme, value) = match login {
        RegistryLogin::Password { username, password } => {
            ("Basic ", basic(username, password.expose()))
        }
        RegistryLogin::RegistryToken(token) => ("Bearer ", token.clone()),
        RegistryLogin::IdentityToken { .. } => {
            return Err(refuse(
                "this login is an identity token, which ctr cannot be told",
            ));
        }
    };
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if !value.expose().iter().all(is_plain) {
        return Err(refuse(
            "this login is a registry token with a sign that no header takes",
        ));
    }
    // Large enough from the start: a buffer that grows leaves copies of the secret behind.
    let mut header = Vec::with_capacity(scheme.len() + value.expose().len() + 1);
    header.extend_from_slice(scheme.as_bytes());
    header.extend_from_slice(value.expose());
    header.push(b'\n');
    Ok(Secret::new(header))
}

/// Reads what [`INSPECT`] printed: the line of `ctr images ls`, then manifests, each after its digest.
///
/// An index stands for those of its manifests that the node has; with one of them the platform is known.
fn read_held(printed: &str) -> Option<LocalImage> {
    let (row, rest) = printed.split_once('\n')?;
    let columns: Vec<&str> = row.split_whitespace().collect();
    let digest = *columns.iter().find(|word| is_digest(word))?;
    let mut manifests = rest.split("manifest sha256:").filter_map(|part| {
        let (digest, json) = part.split_once('\n')?;
        let manifest: Value = serde_json::from_str(json.trim()).ok()?;
        Some((format!("sha256:{}", digest.trim()), manifest))
    });
    let (_, target) = manifests.next()?;
    let (platform, manifest) = match target["manifests"].as_array() {
        // The size is two words, and the platforms come after it.
        None => {
            let platforms = columns
                .get(5)
                .filter(|word| word.contains('/') && !word.contains(','));
            (platforms.map(ToString::to_string), target)
        }
        Some(entries) => {
            let mut held: Vec<(Option<String>, Value)> = manifests
                .filter(|(_, manifest)| manifest["layers"].is_array())
                .filter_map(|(digest, manifest)| {
                    let is_it = |entry: &&Value| entry["digest"] == digest.as_str();
                    let entry = entries.iter().find(is_it)?;
                    Some((containerd::platform(&entry["platform"]), manifest))
                })
                .collect();
            match held.len() {
                0 => return None,
                1 => held.remove(0),
                _ => (None, Value::Null),
            }
        }
    };
    let layers = manifest["layers"].as_array();
    Some(LocalImage {
        digest: Some(digest.to_string()),
        image_id: manifest["config"]["digest"].as_str().map(str::to_string),
        bytes: layers.map(|layers| {
            layers
                .iter()
                .filter_map(|layer| layer["size"].as_u64())
                .sum()
        }),
        platform,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::testing::output;

    fn image() -> Image {
        "reg.example:5000/team/app:v1".parse().unwrap()
    }

    fn digest(fill: char) -> String {
        format!("sha256:{}", fill.to_string().repeat(64))
    }

    fn pull(login: &RegistryLogin) -> Result<Vec<u8>, Failure> {
        let image = image();
        let command = Ctr.pull(&PullRequest {
            image: &image,
            endpoint: Some("unix:///run/own.sock"),
            platform: Some("linux/arm64"),
            login: Some(login),
        })?;
        assert_eq!(
            command.environment,
            [("CONTAINERD_ADDRESS", "/run/own.sock")]
        );
        let last = &command.argv[command.argv.len() - 5..];
        assert_eq!(
            last,
            [
                image.registry(),
                image.repository(),
                "--platform",
                "linux/arm64",
                image.as_str()
            ]
        );
        assert!(!format!("{command:?}").contains("hunter2"));
        match command.secret {
            Some(SecretDelivery::Directory { content, .. }) => Ok(content.expose().to_vec()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_login_is_a_header_in_a_file_and_in_no_argument() {
        let password = RegistryLogin::Password {
            username: "ci".into(),
            password: Secret::new("hunter2"),
        };
        assert_eq!(pull(&password).unwrap(), b"Basic Y2k6aHVudGVyMg==\n");
        let token = RegistryLogin::RegistryToken(Secret::new("hunter2"));
        assert_eq!(pull(&token).unwrap(), b"Bearer hunter2\n");
        for token in ["a\"b", "a\\b", "a\nb"] {
            let odd = RegistryLogin::RegistryToken(Secret::new(token));
            assert_eq!(pull(&odd).unwrap_err().kind, FailureKind::RegistryAuth);
        }
    }

    #[test]
    fn the_version_is_the_servers() {
        let said = "Client:\n  Version:  1.6.20~ds1\n\nServer:\n  Version:  2.1.9\n  UUID: x\n";
        assert_eq!(
            Ctr.check_alive(&output(0, said, "")).unwrap(),
            "containerd 2.1.9"
        );
        let failure = Ctr
            .check_alive(&output(0, "Client:\n  Version:  1\n", ""))
            .unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unknown);
        for (stderr, kind) in [
            ("ctr: command not found", FailureKind::RuntimeMissing),
            (
                "ctr: failed to dial \"/run/a.sock\": context deadline exceeded: connection error: desc = \"transport: error while dialing: dial unix:///run/a.sock: timeout\"",
                FailureKind::RuntimeAbsent,
            ),
            (
                "ctr: failed to dial \"/run/a.sock\": connection error: desc = \"transport: error while dialing: dial unix /run/a.sock: connect: permission denied\"",
                FailureKind::Privilege,
            ),
        ] {
            let code = if kind == FailureKind::RuntimeMissing {
                127
            } else {
                1
            };
            let failure = Ctr.check_alive(&output(code, "", stderr)).unwrap_err();
            assert_eq!(failure.kind, kind, "{stderr}");
        }
    }

    #[test]
    fn an_index_stands_for_the_manifest_that_the_node_has() {
        let (index, arm, amd) = (digest('a'), digest('b'), digest('c'));
        let row = |platforms: &str| {
            format!("reg.example:5000/team/app:v1 application/x {index} 76.3 MiB {platforms} -\n")
        };
        let manifest = r#"{"config":{"digest":"sha256:cfg"},
            "layers":[{"size":5},{"size":6}]}"#;
        let held =
            |printed: String| Ctr.read_inspect(&image(), &output(0, &printed, ""), Stage::Verify);
        let one = held(format!(
            "{}manifest {index}\n{manifest}\n",
            row("linux/amd64")
        ))
        .unwrap()
        .unwrap();
        assert_eq!(one.digest, Some(index.clone()));
        assert_eq!(
            (one.bytes, one.platform.as_deref()),
            (Some(11), Some("linux/amd64"))
        );
        assert_eq!(one.image_id.as_deref(), Some("sha256:cfg"));
        let list = format!(
            r#"{{"manifests":[{{"digest":"{arm}","platform":{{"os":"linux","architecture":"arm64","variant":"v8"}}}},
            {{"digest":"{amd}","platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#
        );
        let start = format!(
            "{}manifest {index}\n{list}\n",
            row("linux/amd64,linux/arm64/v8")
        );
        let of_arm = held(format!("{start}manifest {arm}\n{manifest}\n"))
            .unwrap()
            .unwrap();
        assert_eq!(of_arm.digest, Some(index.clone()));
        assert_eq!(of_arm.platform.as_deref(), Some("linux/arm64/v8"));
        let both = format!("{start}manifest {arm}\n{manifest}\nmanifest {amd}\n{manifest}\n");
        assert_eq!(held(both).unwrap().unwrap().platform, None);
        assert!(held(start).is_err());
        let absent = Ctr.read_inspect(
            &image(),
            &output(1, "", "no such image: x\n"),
            Stage::Inspect,
        );
        assert_eq!(absent, Ok(None));
    }
}
