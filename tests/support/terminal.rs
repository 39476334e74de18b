//! A real terminal: a tmux server of the test's own, with one window that runs a shell.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a busy machine may take to show something.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the shell asks with.
pub const PROMPT: &str = "ready> ";

/// A terminal with a shell in it.
pub struct Terminal {
    folder: tempfile::TempDir,
}

impl Terminal {
    /// A terminal of `width` columns and `height` lines, whose shell has these variables.
    pub fn open(width: usize, height: usize, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let terminal = Self { folder };
        let mut shell = String::from("exec env");
        for name in ["CI", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            shell.push_str(&format!(" -u {name}"));
        }
        for (name, value) in variables {
            shell.push_str(&format!(" {name}='{value}'"));
        }
        shell.push_str(&format!(" PS1='{PROMPT}' sh"));
        let (width, height) = (width.to_string(), height.to_string());
        let size = ["-x", &width, "-y", &height];
        let mut words = vec!["-f", "/dev/null", "new-session", "-d"];
        words.extend(size);
        words.push(&shell);
        terminal.tmux(&words);
        terminal.tmux(&["set-option", "-g", "window-size", "manual"]);
        terminal.until("the shell", |screen| {
            screen[0].starts_with(PROMPT.trim_end())
        });
        terminal
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("tmux")
    }

    /// Runs a command of tmux, and returns what it prints.
    pub fn tmux(&self, words: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(self.socket())
            .args(words)
            .output()
            .expect("tmux cannot be run: lab/install installs it");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {words:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Types a line.
    pub fn type_line(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.key("Enter");
    }

    /// Presses a key, such as `C-c`.
    pub fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    pub fn resize(&self, width: usize, height: usize) {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height]);
    }

    /// What is on the screen: as many lines as it has, without the blanks at their ends.
    pub fn screen(&self) -> Vec<String> {
        let text = self.tmux(&["capture-pane", "-p"]);
        text.lines()
            .map(|line| line.trim_end().to_string())
            .collect()
    }

    /// What is on the screen and above it.
    pub fn history(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-J", "-S", "-"])
    }

    /// The same, with colours as escape sequences.
    pub fn colours(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e", "-J", "-S", "-"])
    }

    /// Waits until the screen is as wanted, and returns it.
    pub fn until(&self, what: &str, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
        let began = Instant::now();
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            let text = screen.join("\n");
            assert!(
                began.elapsed() < PATIENCE,
                "{what} is not to be seen:\n{text}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a line has this in it.
    pub fn until_seen(&self, text: &str) -> Vec<String> {
        self.until(text, |screen| screen.iter().any(|line| line.contains(text)))
    }

    /// Waits for the shell to ask again, and returns the screen.
    pub fn until_prompt(&self) -> Vec<String> {
        let prompt = PROMPT.trim_end();
        self.until("the prompt", |screen| {
            let last = screen.iter().rev().find(|line| !line.is_empty());
            last.is_some_and(|line| line == prompt)
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux")
            .arg("-S")
            .arg(self.socket())
            .arg("kill-server")
            .output();
    }
}
