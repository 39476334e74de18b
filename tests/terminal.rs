//! What an operator sees in a real terminal (tmux): prepull on real nodes and on 2,000 simulated ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "support/fleet.rs"]
mod support;

#[path = "support/simulated.rs"]
mod simulated;
#[path = "support/terminal.rs"]
mod terminal;

use std::path::Path;
use std::time::{Duration, Instant};

use simulated::{IMAGE, Pull, Simulated};
use support::{APP, fleet, succeed};
use terminal::{PROMPT, Terminal};

/// prepull on a simulated fleet, as typed.
fn command(folder: &Path, fleet: &Simulated, options: &str) -> String {
    let inventory = folder.join("nodes.yml");
    fleet.inventory(&inventory);
    format!(
        "HOME={0} {1} pull -i {0}/nodes.yml -F none --host-keys off {options} {IMAGE}",
        folder.display(),
        env!("CARGO_BIN_EXE_prepull"),
    )
}

/// The counts, the first line of a frame.
fn is_counts(line: &&String) -> bool {
    line.contains(" done") && line.contains(" running") && line.contains(" left")
}

/// The bar of the whole fleet, the second line of a frame.
fn is_pace(line: &&String) -> bool {
    line.starts_with(['[', '█', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '░']) && line.contains('%')
}

/// A frame is there once and whole, and within the terminal.
fn assert_whole(screen: &[String], (width, height): (usize, usize)) {
    let text = screen.join("\n");
    assert_eq!(screen.iter().filter(is_counts).count(), 1, "{text}");
    assert_eq!(screen.iter().filter(is_pace).count(), 1, "{text}");
    let first = screen.iter().position(|line| is_counts(&line)).unwrap();
    let words = |line: &String| line.split_whitespace().next().map(String::from);
    let mut names: Vec<String> = screen[first..].iter().filter_map(words).collect();
    names.retain(|word| word.starts_with("sim-") || word.starts_with("node-"));
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "a node is there twice:\n{text}");
    assert!(screen.len() <= height, "{text}");
    assert!(
        screen.iter().all(|line| line.chars().count() <= width),
        "{text}"
    );
}

/// Nothing of a frame is left, and the shell asks at the beginning of its line.
fn assert_clean(screen: &[String]) {
    let text = screen.join("\n");
    assert!(
        !screen.iter().any(|line| is_counts(&line) || is_pace(&line)),
        "{text}"
    );
    let last = screen.iter().rev().find(|line| !line.is_empty()).unwrap();
    assert_eq!(last, PROMPT.trim_end(), "{text}");
}

fn has(screen: &[String], text: &str) -> bool {
    screen.iter().any(|line| line.contains(text))
}

/// Some nodes are refused, some have no space left, and the rest take a long time.
fn long(number: usize) -> Pull {
    match number % 10 {
        7 => Pull::Fails("Error response from daemon: denied: requested access\n"),
        9 => Pull::Fails("write /var/lib/docker/tmp/x: no space left on device\n"),
        _ => Pull::Takes(600),
    }
}

#[test]
fn two_thousand_nodes_fit_every_terminal_and_an_interrupt_ends_with_a_verdict() {
    let fleet = Simulated::start(2000, long);
    let folder = tempfile::tempdir().unwrap();
    let terminal = Terminal::open(80, 24, &[]);
    terminal.type_line(&command(folder.path(), &fleet, "-p 60 --no-journal"));
    let screen = terminal.until("two causes and progress", |screen| {
        has(screen, " failed: registry-auth (pull) on sim-00")
            && has(screen, " failed: disk-full (pull) on sim-00")
            && has(screen, " of 40.0 MB")
    });
    assert_whole(&screen, (80, 24));
    assert!(has(&screen, " left of 2000 nodes, "), "{screen:#?}");
    assert!(has(&screen, " more, at work for less time"), "{screen:#?}");
    // Whoever sits there may type something.
    terminal.key("x");
    for size in [(200, 50), (100, 30), (50, 12), (120, 9), (45, 16), (80, 24)] {
        terminal.resize(size.0, size.1);
        // Two frames on a busy machine; what is not drawn again by then is not drawn again at all.
        std::thread::sleep(Duration::from_millis(700));
        let screen = terminal.screen();
        assert_whole(&screen, size);
        if size.1 == 50 {
            let nodes = screen
                .iter()
                .filter(|line| line.starts_with("  sim-"))
                .count();
            assert!(nodes > 30, "there is room for more: {screen:#?}");
        }
    }
    terminal.key("C-c");
    let screen = terminal.until_prompt();
    assert_clean(&screen);
    let all = terminal.history();
    assert!(all.contains("NOT READY: 0 of 2000 nodes ok, "), "{all}");
    // Words are wrapped with a hanging indent.
    let unwrapped = all.replace("\n  ", " ");
    assert!(unwrapped.contains("; stopped early: interrupted"), "{all}");
    assert!(
        all.contains("not run on 1") && all.contains("\n  interrupted\n"),
        "{all}"
    );
    // A command does not fit behind its words, and is not wrapped.
    assert!(all.contains("\nTo try again:\nprepull pull -i "), "{all}");
    assert!(!all.contains("--limit"), "{all}");
}

#[test]
fn two_thousand_nodes_come_to_their_end_and_the_summary_says_what_to_do_about_twenty_of_them() {
    let fleet = Simulated::start(2000, |number| match number % 100 {
        37 => Pull::Fails("Error response from daemon: denied: requested access\n"),
        50 => Pull::Takes(2),
        _ => Pull::Takes(0),
    });
    let folder = tempfile::tempdir().unwrap();
    // The command that retries is typed as it stands there.
    let programs = Path::new(env!("CARGO_BIN_EXE_prepull")).parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let terminal = Terminal::open(200, 50, &[("PATH", &path)]);
    terminal.type_line(&command(folder.path(), &fleet, "-p 200"));
    terminal.until_seen(" failed: registry-auth (pull) on sim-");
    assert_whole(&terminal.screen(), (200, 50));
    until_ended(&fleet, 2000);
    let screen = terminal.until_prompt();
    assert_clean(&screen);
    let refused: Vec<String> = (0..20).map(|hundred| format!("{hundred:02}37")).collect();
    for line in [
        "NOT READY: 1980 of 2000 nodes ok, 20 failed, in ",
        " on 1980 nodes (pulled now)",
        &format!(
            "registry-auth (pull) on 20 nodes: sim-[{}]",
            refused.join(",")
        ),
        "  denied: requested access",
        "  What next: ",
        "reg.example: 1980 pulls went well, 20 tries failed (20 registry-auth)",
        "; half of the nodes took at most ",
        // What takes no time is not seen to arrive.
        "Arrived: 800.0 MB counted, all of it on 20 of 1980 nodes",
    ] {
        assert!(has(&screen, line), "{line} in {screen:#?}");
    }
    let slowest = screen
        .iter()
        .find_map(|line| line.strip_prefix("Slowest: "));
    assert!(slowest.unwrap().contains("sim-"), "{screen:#?}");
    let retry = screen
        .iter()
        .find_map(|line| line.strip_prefix("Retry just these nodes: "));
    let before = fleet.ended();
    terminal.type_line("clear");
    terminal.until("nothing", |screen| !has(screen, "Retry"));
    terminal.type_line(&format!(
        "HOME={} {}",
        folder.path().display(),
        retry.unwrap()
    ));
    let screen = terminal.until_seen("Retry just these nodes: ");
    // The first five are refused what the others would be refused, too.
    assert!(
        has(
            &screen,
            "NOT READY: 1980 of 2000 nodes ok, 5 failed, 15 not run, in "
        ),
        "{screen:#?}"
    );
    assert!(has(&screen, "(there before)"), "{screen:#?}");
    assert_eq!(fleet.ended() - before, 5);
}

#[test]
fn a_second_interrupt_takes_the_bars_away_and_says_how_to_go_on() {
    // Nobody answers a cancel, so that the run has to wait for its nodes.
    let fleet = Simulated::start(12, |_| Pull::Deaf);
    let folder = tempfile::tempdir().unwrap();
    let terminal = Terminal::open(90, 24, &[("NO_COLOR", "1")]);
    terminal.type_line(&command(folder.path(), &fleet, ""));
    terminal.until_seen("  sim-0012  pull");
    terminal.key("C-c");
    let screen = terminal.until_seen(
        "stopping, interrupted: waiting for 12 nodes to end; Ctrl-C again ends at once",
    );
    assert_whole(&screen, (90, 24));
    terminal.key("C-c");
    let screen = terminal.until_prompt();
    assert_clean(&screen);
    assert!(
        has(&screen, "prepull: warning: ended at once"),
        "{screen:#?}"
    );
    assert!(
        terminal
            .history()
            .replace('\n', "")
            .contains("prepull pull --resume 2")
    );
    terminal.type_line("echo status=$?");
    terminal.until_seen("status=130");
    let colours = terminal.colours();
    assert!(
        !colours.contains("\u{1b}[3"),
        "NO_COLOR is set: {colours:?}"
    );
}

/// Waits until so many pulls came to their end.
fn until_ended(fleet: &Simulated, pulls: usize) {
    let began = Instant::now();
    while fleet.ended() < pulls {
        let ended = fleet.ended();
        assert!(
            began.elapsed() < Duration::from_secs(300),
            "{ended} pulls ended"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What stands from the last line on that begins with this; nothing when there is none.
fn from<'a>(screen: &'a [String], text: &str) -> &'a [String] {
    let place = screen.iter().rposition(|line| line.starts_with(text));
    &screen[place.unwrap_or(screen.len())..]
}

#[test]
fn a_stop_leaves_the_terminal_to_the_shell_and_coming_back_draws_below() {
    let fleet = Simulated::start(12, |_| Pull::Takes(600));
    let folder = tempfile::tempdir().unwrap();
    let terminal = Terminal::open(90, 60, &[]);
    // Whoever writes from the background is stopped there.
    terminal.type_line("stty tostop");
    terminal.type_line(&command(folder.path(), &fleet, "--no-journal"));
    terminal.until_seen("  sim-0012  pull");

    terminal.key("C-z");
    assert_eq!(terminal.until_prompt().iter().filter(is_counts).count(), 1);
    terminal.type_line("echo stopped-$((40 + 2))");
    terminal.until_seen("stopped-42");
    terminal.resize(80, 56);
    terminal.type_line("fg");
    terminal.until("a frame below", |screen| {
        has(from(screen, "ready> fg"), "  sim-0012  pull")
    });
    // Some more of them, over each other.
    std::thread::sleep(Duration::from_millis(1500));
    let screen = terminal.screen();
    let below = from(&screen, "stopped-42");
    assert_whole(&screen[..screen.len() - below.len()], (80, 56));
    assert_whole(below, (80, 56));

    terminal.key("C-z");
    terminal.until_prompt();
    terminal.type_line("bg");
    terminal.type_line("echo beside-$((40 + 2))");
    terminal.until_seen("beside-42");
    std::thread::sleep(Duration::from_millis(1500));
    terminal.type_line("jobs");
    let screen = terminal.until_seen("Running");
    let shell = from(&screen, "ready> bg");
    assert!(!shell.iter().any(|line| is_counts(&line)), "{screen:#?}");
    terminal.type_line("clear");
    terminal.until("nothing", |screen| !has(screen, "sim-"));
    terminal.type_line("fg");
    terminal.until_seen("  sim-0012  pull");
    assert_whole(&terminal.screen(), (80, 56));

    terminal.key("C-c");
    terminal.until_prompt();
    let history = terminal.history();
    assert!(
        history.contains("NOT READY: 0 of 12 nodes ok, 12 not run"),
        "{history}"
    );
}

#[test]
fn without_a_shell_that_could_let_it_go_on_a_stop_is_passed_over() {
    let fleet = Simulated::start(1, |_| Pull::Takes(3));
    let folder = tempfile::tempdir().unwrap();
    let terminal = Terminal::open(90, 24, &[]);
    let typed = command(folder.path(), &fleet, "--no-journal");
    terminal.type_line(&format!("exec env {typed}"));
    terminal.until_seen("  sim-0001  pull");
    terminal.key("C-z");
    until_ended(&fleet, 1);
}

/// Types something into the shell, and sees it: the terminal has its echo.
fn assert_echo(terminal: &Terminal, word: &str) {
    terminal.tmux(&["send-keys", "-l", word]);
    terminal.until_seen(word);
    terminal.key("C-u");
}

#[test]
fn whatever_ends_or_stops_a_question_leaves_the_terminal_with_its_echo() {
    let folder = tempfile::tempdir().unwrap();
    let prepull = format!(
        "HOME={} {} pull -H n1 -F none",
        folder.path().display(),
        env!("CARGO_BIN_EXE_prepull")
    );
    for (asked, options) in [
        ("SSH password:", "-k"),
        ("sudo password:", "-K"),
        ("Password of ci for reg.example:", "--registry-user ci"),
    ] {
        let terminal = Terminal::open(160, 50, &[]);
        let typed = format!("{prepull} {options} reg.example/app:v1");
        // This shell leaves the terminal as it finds it. bash would mend it.
        for (signal, status) in [("INT", 130), ("TERM", 143), ("HUP", 129), ("QUIT", 131)] {
            terminal.type_line("clear");
            terminal.type_line(&typed);
            terminal.until_seen(asked);
            terminal.tmux(&["send-keys", "-l", "hunter2"]);
            match signal {
                "INT" => terminal.key("C-c"),
                "QUIT" => terminal.key("C-\\"),
                _ => signal_prepull(&terminal, signal),
            }
            terminal.until_prompt();
            terminal.type_line("echo ended-$?");
            terminal.until_seen(&format!("ended-{status}"));
            assert_echo(&terminal, &format!("seen-after-{signal}"));
        }
        terminal.type_line("clear");
        terminal.type_line(&typed);
        terminal.until_seen(asked);
        terminal.key("C-z");
        terminal.until_prompt();
        assert_echo(&terminal, "seen-while-stopped");
        terminal.type_line("fg");
        terminal.until("the question again", |screen| {
            has(from(screen, "ready> fg"), asked)
        });
        terminal.tmux(&["send-keys", "-l", "hunter2"]);
        terminal.key("C-d");
        terminal.key("C-u");
        terminal.key("C-d");
        let screen = terminal.until_prompt();
        assert!(has(&screen, "was not answered"), "{screen:#?}");
        assert_echo(&terminal, "seen-at-the-end");
        let all = terminal.history();
        assert!(!all.contains("hunter2"), "{all}");
    }
}

/// Sends a signal to the prepull that asks on this terminal.
fn signal_prepull(terminal: &Terminal, signal: &str) {
    let shell = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]);
    let sent = std::process::Command::new("pkill")
        .args(["-x", &format!("-{signal}"), "-P", shell.trim(), "prepull"])
        .status()
        .unwrap();
    assert!(sent.success(), "there is no prepull below {shell}");
}

#[test]
fn a_password_for_standard_input_is_asked_for_at_a_terminal_also_when_a_run_is_resumed() {
    let fleet = Simulated::start(1, |_| Pull::Fails("manifest unknown"));
    let folder = tempfile::tempdir().unwrap();
    let terminal = Terminal::open(100, 50, &[]);
    let options = "--registry-user ci --registry-password-stdin";
    let typed = command(folder.path(), &fleet, options);
    for typed in [
        typed,
        format!(
            "HOME={} {} pull --resume last",
            folder.path().display(),
            env!("CARGO_BIN_EXE_prepull")
        ),
    ] {
        terminal.type_line("clear");
        terminal.type_line(&typed);
        terminal.until_seen("Password of ci for reg.example:");
        terminal.type_line("hunter2");
        let screen = terminal.until_prompt();
        assert!(has(&screen, "NOT READY: 0 of 1 node ok"), "{screen:#?}");
        let all = terminal.history();
        assert!(!all.contains("hunter2"), "{all}");
    }
}

#[test]
fn log_lines_and_the_frame_do_not_tear_each_other() {
    let fleet = Simulated::start(40, |number| Pull::Takes((number % 3) as u32));
    let folder = tempfile::tempdir().unwrap();
    let terminal = Terminal::open(70, 14, &[]);
    terminal.type_line(&command(folder.path(), &fleet, "-p 8 -v"));
    let screen = terminal.until_prompt();
    assert_clean(&screen);
    let history = terminal.history();
    for number in 1..=40 {
        let line = format!(
            " node={} image={IMAGE} status=pulled digest=sha256:",
            Simulated::name(number)
        );
        assert_eq!(history.matches(&line).count(), 1, "{line} in {history}");
    }
    assert!(
        history.contains("READY: 40 of 40 nodes ok, in "),
        "{history}"
    );
    assert!(
        !history.lines().any(|line| is_counts(&&line.to_string())),
        "{history}"
    );
}

#[test]
fn a_terminal_that_does_not_read_costs_the_run_nothing() {
    let fleet = Simulated::start(20, |_| Pull::Takes(1));
    let folder = tempfile::tempdir().unwrap();
    let terminal = Terminal::open(80, 24, &[]);
    terminal.type_line(&command(folder.path(), &fleet, "-p 4 -v"));
    terminal.until_seen(" running");
    terminal.key("C-s");
    until_ended(&fleet, 20);
    // It was not just that nothing was to be written.
    assert!(!has(&terminal.screen(), "READY"));
    terminal.key("C-q");
    assert_clean(&terminal.until_prompt());
    assert!(terminal.history().contains("READY: 20 of 20 nodes ok"));
}

#[test]
fn dumb_terminals_pipes_and_cis_get_lines() {
    let fleet = Simulated::start(2, |_| Pull::Takes(0));
    let folder = tempfile::tempdir().unwrap();
    let typed = command(folder.path(), &fleet, "");
    for (name, value, rest, is_coloured) in [
        ("TERM", "dumb", "", false),
        ("CI", "true", "", true),
        ("NONE", "", " 2>&1 | cat", false),
        ("CLICOLOR_FORCE", "1", " 2>&1 | cat", true),
        ("NONE", "", " --progress lines", true),
        ("NO_COLOR", "1", " --progress lines", false),
    ] {
        let terminal = Terminal::open(200, 24, &[(name, value)]);
        terminal.type_line(&format!("{typed}{rest}"));
        let screen = terminal.until_prompt();
        for line in [
            " status=started command=pull nodes=2 image=",
            " status=ended done=2 running=0",
        ] {
            assert!(has(&screen, line), "{name}={value}{rest}: {screen:#?}");
        }
        for node in ["sim-0001", "sim-0002"] {
            let pulled = format!("s node={node} image={IMAGE} status=pulled digest=sha256:");
            assert!(has(&screen, &pulled), "{name}={value}{rest}: {screen:#?}");
        }
        assert!(has(&screen, "READY: 2 of 2 nodes ok"), "{screen:#?}");
        let history = terminal.colours();
        let coloured = history.contains("\u{1b}[");
        assert_eq!(coloured, is_coloured, "{name}={value}{rest}: {history:?}");
    }
}

#[test]
fn twelve_real_nodes_are_seen_to_pull_and_the_summary_says_that_they_are_ready() {
    let lab = fleet();
    // 960 MB in all: slow enough to look at it.
    succeed(&mut lab.command(&["registry", "rate", "640mbit"]));
    let terminal = Terminal::open(100, 30, &[("HOME", &lab.file("home"))]);
    let prepull = |arguments: &[&str]| {
        let typed = support::command(&lab, arguments);
        let words = std::iter::once(typed.get_program()).chain(typed.get_args());
        let words: Vec<_> = words
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        words.join(" ")
    };
    terminal.type_line(&prepull(&["pull", "--registry-user", "ci", APP]));
    terminal.until_seen("Password of ci for registry.lab:5000:");
    terminal.type_line(&lab.password());
    let screen = terminal.until("bytes of all nodes", |screen| {
        screen
            .iter()
            .filter(|line| line.starts_with("  node-") && line.contains(" MB"))
            .count()
            > 8
    });
    assert_whole(&screen, (100, 30));
    assert!(
        has(&screen, " 12 running") && has(&screen, " of 80.0 MB"),
        "{screen:#?}"
    );
    for size in [(200, 40), (60, 10), (100, 30)] {
        terminal.resize(size.0, size.1);
        std::thread::sleep(Duration::from_millis(700));
        assert_whole(&terminal.screen(), size);
    }
    let screen = terminal.until_prompt();
    assert_clean(&screen);
    let history = terminal.history();
    assert!(!history.contains(&lab.password()[..24]));
    assert!(
        history.contains("READY: 12 of 12 nodes ok, in "),
        "{history}"
    );
    assert!(history.contains("on 12 nodes (pulled now)"), "{history}");
    assert!(history.contains("Slowest: node-"), "{history}");
    assert!(history.contains("Arrived: "), "{history}");
}
