//! What every shell has to pass where docker's daemon itself is asked to pull.

use std::future::pending;
use std::time::{Duration, Instant};

use prepull::model::{FailureKind, Layer, Secret};
use prepull::node::Interrupted;

use super::runtime::FakeRuntime;
use super::scenarios::{How, MINUTE, assert_pulled, docker_with, hostile, pull, pull_how, told_by};
use super::{Place, Shells, contains, find, hostile, processes};

/// A docker whose daemon is asked; its client has a login of its own kind.
pub fn asked(question: &str) -> FakeRuntime {
    FakeRuntime {
        question: Some(Secret::new(question)),
        ..docker_with("s3cret")
    }
}

/// Reads a request and answers it; `still SECONDS STATUS ID DETAIL` says a line again and again for as long.
const DAEMON: &str = r#"while IFS= read -r line && [ "$line" != "$(printf '\r')" ]; do printf '%s\n' "$line"; done >"$FAKE/request"
say() { printf '%x\r\n%s\r\n\r\n' $((${#1} + 2)) "$1"; }
layer() { say "{\"status\":\"$1\",\"progressDetail\":{$3},\"id\":\"$2\"}"; }
still() { left=$(($1 * 5)); shift; while [ $left -gt 0 ]; do layer "$@"; sleep 0.2; left=$((left - 1)); done; }
printf 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
say '{"status":"Pulling from team/app","id":"v1"}'
"#;
const LAST_CHUNK: &str = "printf '0\\r\\n\\r\\n'\n";

fn how(stall: Option<Duration>) -> How<'static> {
    How::patient(stall)
}

/// The request arrives unchanged, in nobody's arguments or environment and in no file, and has no end.
pub async fn dockers_daemon_is_asked_and_no_file_holds_the_login(shells: &Shells) {
    let place = Place::new(shells).noisy();
    let user = hostile::User::on(&place);
    let secret = format!("unseen-unseen-unseen {}", hostile().replace('\n', " "));
    let watches = format!(
        r#"exec 3<&0
(cat >/dev/null; touch "$FAKE/input-ended") <&3 &
env >"$FAKE/environment"
{} -rlaF -D skip unseen-unseen "$(dirname "$(readlink /proc/self/fd/2)")" >"$FAKE/found"
touch "$FAKE/started"
while ! [ -e "$FAKE/go" ]; do sleep 0.05; done
[ ! -e "$FAKE/input-ended" ] || exit 9
"#,
        find("grep", "grep").display()
    );
    place.write("fake/system", &format!("{DAEMON}{watches}{LAST_CHUNK}"));
    let watching = async {
        place.started().await;
        let seen = processes(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            contains(&line, b"unseen-unseen-unseen")
        });
        assert_eq!(seen, []);
        tokio::time::sleep(Duration::from_millis(300)).await;
        place.write("fake/go", "");
    };
    let question = format!("POST / HTTP/1.1\r\n{secret}\r\n\r\n");
    let runtime = asked(&question);
    let (ended, ()) = tokio::join!(pull(&place, &runtime, None, pending()), watching);
    assert_pulled(&ended, shells);
    assert_eq!(
        place.text("fake/request"),
        format!("POST / HTTP/1.1\r\n{secret}\r\n")
    );
    assert_eq!(place.text("fake/found"), "");
    assert!(!contains(&place.read("fake/environment"), b"unseen"));
    assert!(
        !place.text("fake/log").contains("docker pull"),
        "{}",
        place.text("fake/log")
    );
    place.assert_clean().await;
    for folder in ["/tmp", "/dev/shm"] {
        // Nor the place where it would have been.
        assert!(!user.private(folder).exists(), "{shells:?}: {folder}");
    }
}

/// A layer's size is known when it begins to arrive, and the sum when all of them are.
pub async fn what_the_daemon_tells_of_layers_is_told_in_bytes(shells: &Shells) {
    let place = Place::new(shells);
    let says = r#"sleep 0.5
layer 'Already exists' aaaaaaaaaaaa
layer 'Pulling fs layer' bbbbbbbbbbbb
layer 'Pulling fs layer' cccccccccccc
layer Waiting cccccccccccc
still 3 Downloading bbbbbbbbbbbb '"current":100,"total":1000'
layer 'Download complete' bbbbbbbbbbbb
still 3 Downloading cccccccccccc '"current":20,"total":500'
layer 'Download complete' cccccccccccc
still 3 Extracting bbbbbbbbbbbb '"current":500,"total":1000'
layer 'Pull complete' bbbbbbbbbbbb
"#;
    place.write("fake/system", &format!("{DAEMON}{says}{LAST_CHUNK}"));
    let layer = |digit: &str, bytes| Layer {
        digest: format!("sha256:{}", digit.repeat(64)),
        bytes,
    };
    let known = [layer("a", 7), layer("b", 1000), layer("c", 500)];
    let runtime = asked("POST / HTTP/1.1\r\n\r\n");
    let expected = [(100, Some(1500)), (1020, Some(1500)), (1500, Some(1500))];
    for layers in [None, Some(&known[..])] {
        let how = How {
            layers,
            ..how(Some(MINUTE))
        };
        let (ended, mut told, arrived) = told_by(&place, how, &runtime).await;
        assert_pulled(&ended, shells);
        told.retain(|told| told.0 > 0);
        if layers.is_none() {
            // The other's size shows when it begins.
            assert_eq!(told.remove(0), (100, None));
        }
        let expected = &expected[usize::from(layers.is_none())..];
        assert_eq!(told, expected, "{shells:?}");
        assert_eq!(arrived, Some(1500), "{shells:?}");
        std::fs::remove_file(place.path("fake/held")).unwrap();
    }
    place.assert_clean().await;
}

/// docker 29's `dial-stdio` ignores TERM and INT and ends with HUP. A client that ignores all three is killed a second later.
pub async fn a_client_that_ignores_signals_is_ended_at_once(shells: &Shells) {
    let waits = "touch \"$FAKE/started\"; while :; do sleep 0.1; done\n";
    for (traps, ends_with_hup) in [
        (
            "trap '' TERM INT; trap 'touch \"$FAKE/hup\"; exit' HUP\n",
            true,
        ),
        ("trap '' TERM INT HUP\n", false),
    ] {
        let place = Place::new(shells);
        place.write("fake/system", &format!("{traps}{DAEMON}{waits}"));
        let cancelled = std::sync::OnceLock::new();
        let cancel = async {
            place.started().await;
            cancelled.get_or_init(Instant::now);
        };
        let ended = pull(&place, &asked("POST / HTTP/1.1\r\n\r\n"), None, cancel).await;
        assert_eq!(ended, Err(Interrupted::Cancelled), "{shells:?}");
        // A busy machine gets more than the 2 s that it should take, but less than the 5 s of an operator's command.
        let took = cancelled.get().unwrap().elapsed();
        assert!(took < Duration::from_secs(4), "{shells:?}: {took:?}");
        assert_eq!(place.exists("fake/hup"), ends_with_hup, "{shells:?}");
        assert_eq!(place.folders().len(), 0);
        place.assert_clean().await;
    }
}

/// Also where it is over before anybody asks how far it is. A layer whose size was never said makes it unknown.
pub async fn what_the_daemon_brought_is_counted_at_the_end(shells: &Shells) {
    let place = Place::new(shells);
    let begins = "layer 'Already exists' aaaaaaaaaaaa\nlayer 'Pulling fs layer' bbbbbbbbbbbb\n";
    let size = "layer Downloading bbbbbbbbbbbb '\"current\":100,\"total\":1000'\n";
    let ends = "layer 'Download complete' bbbbbbbbbbbb\nlayer 'Pull complete' bbbbbbbbbbbb\n";
    let runtime = asked("POST / HTTP/1.1\r\n\r\n");
    for (says, expected) in [
        (format!("{begins}{size}{ends}"), Some(1000)),
        (format!("{begins}{ends}"), None),
        (String::new(), Some(0)),
    ] {
        place.write("fake/system", &format!("{DAEMON}{says}{LAST_CHUNK}"));
        let (ended, _, arrived) = told_by(&place, how(None), &runtime).await;
        assert_pulled(&ended, shells);
        assert_eq!(arrived, expected, "{shells:?} {says}");
        std::fs::remove_file(place.path("fake/held")).unwrap();
    }
    place.assert_clean().await;
}

/// Logins of the node's own, signatures, and a client that cannot join us to the daemon.
pub async fn what_only_the_client_can_do_is_left_to_it(shells: &Shells) {
    let own_login = r#"{"auths": {"reg.example": {"auth": "Y2k6cHc="}}}"#;
    let too_old = "echo 'Usage: docker system COMMAND'; echo 'no such command' >&2; exit 1";
    let answers = format!("{DAEMON}{LAST_CHUNK}");
    for (with_login, config, trust, system, expected) in [
        (true, own_login, false, answers.as_str(), "system"),
        (false, own_login, false, &answers, "pull"),
        (false, "{}", false, &answers, "system"),
        (true, "{}", true, &answers, "pull"),
        (true, "{}", false, too_old, "system pull"),
        (false, "{}", false, too_old, "system pull"),
    ] {
        let mut place = Place::new(shells);
        std::fs::create_dir_all(place.path("home/.docker")).unwrap();
        place.write("home/.docker/config.json", config);
        place.write("fake/system", system);
        place.write(
            "fake/pull",
            "sleep 5; cat \"$DOCKER_CONFIG/config.json\" >\"$FAKE/secret\"",
        );
        if trust {
            place.environment("DOCKER_CONTENT_TRUST", "1");
        }
        let mut runtime = asked("POST / HTTP/1.1\r\n\r\n");
        if !with_login {
            runtime.secret = None;
        }
        // A way that shows nothing is not taken for a stall, whatever was hoped of the one before.
        let is_left = expected.ends_with("pull");
        let how = how(is_left.then_some(Duration::from_secs(3)));
        let ended = pull_how(how, &place, &runtime, &|_| {}, pending()).await;
        assert_pulled(&ended, shells);
        let log = place.text("fake/log");
        let asked: Vec<&str> = log
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|word| *word != "inspect")
            .collect();
        assert_eq!(asked.join(" "), expected, "{shells:?} {config} {log}");
        if with_login && is_left {
            assert_eq!(place.text("fake/secret"), "s3cret");
        }
        place.assert_clean().await;
    }
}

/// Lines without end, numbers without sense, layers without number: bounded, and the end is still seen.
pub async fn a_hostile_daemon_costs_little(shells: &Shells) {
    let says = r#"sleep 0.5
layer Downloading '../../../x' '"current":1,"total":2'
layer Downloading 'aaaaaaaaaaaa:1:1:comes bbbbbbbbbbbb' '"current":1,"total":2'
layer Downloading dddddddddddd '"current":99999999999999999999,"total":2'
layer Downloading dddddddddddd '"current":$(id),"total":`id`'
number=100000000000
while [ $number -lt 100000001000 ]; do layer Downloading $number '"current":5,"total":10'; number=$((number + 1)); done
head -c 300000 /dev/zero | tr '\0' x
echo
still 3 Downloading $((number - 990)) '"current":6,"total":10'
say '{"errorDetail":{"message":"the last word"}}'
"#;
    let place = Place::new(shells);
    place.write(
        "fake/system",
        &format!("{DAEMON}{says}{LAST_CHUNK}exit 1\n"),
    );
    let runtime = asked("POST / HTTP/1.1\r\n\r\n");
    let ended = pull_how(how(Some(MINUTE)), &place, &runtime, &|_| {}, pending()).await;
    let failure = ended.unwrap_err().failed().unwrap();
    assert_eq!(failure.kind, FailureKind::RegistryAuth, "{failure}");
    place.assert_clean().await;

    // A line without end: the client is ended by the pipe that nobody reads any more.
    place.write(
        "fake/system",
        &format!("{DAEMON}exec tr '\\0' x </dev/zero\n"),
    );
    let began = Instant::now();
    let ended = pull(&place, &runtime, Some(MINUTE), pending()).await;
    assert!(ended.is_err(), "{ended:?}");
    assert!(began.elapsed() < MINUTE * 3, "{shells:?}");
    place.assert_clean().await;
}
