//! `ansible.cfg` and Ansible's environment: how its inventories are read, and the weakest of what is said about their
//! hosts.

use std::path::{Path, PathBuf};

use regex::Regex;

use super::super::configparser;
use super::super::error::{InputError, InventoryError, Position};
use super::super::ownership::changeable_by_others;
use super::super::read;

/// Which variable an option stands for: `$ENVIRONMENT`, section and option.
const SETTINGS: &[(&str, &str, &str, &str)] = &[
    (
        "ansible_user",
        "ANSIBLE_REMOTE_USER",
        "defaults",
        "remote_user",
    ),
    (
        "ansible_port",
        "ANSIBLE_REMOTE_PORT",
        "defaults",
        "remote_port",
    ),
    (
        "ansible_private_key_file",
        "ANSIBLE_PRIVATE_KEY_FILE",
        "defaults",
        "private_key_file",
    ),
    (
        "ansible_ssh_args",
        "ANSIBLE_SSH_ARGS",
        "ssh_connection",
        "ssh_args",
    ),
    (
        "ansible_ssh_common_args",
        "ANSIBLE_SSH_COMMON_ARGS",
        "ssh_connection",
        "ssh_common_args",
    ),
    (
        "ansible_ssh_extra_args",
        "ANSIBLE_SSH_EXTRA_ARGS",
        "ssh_connection",
        "ssh_extra_args",
    ),
    (
        "ansible_become",
        "ANSIBLE_BECOME",
        "privilege_escalation",
        "become",
    ),
    (
        "ansible_become_method",
        "ANSIBLE_BECOME_METHOD",
        "privilege_escalation",
        "become_method",
    ),
    (
        "ansible_become_user",
        "ANSIBLE_BECOME_USER",
        "privilege_escalation",
        "become_user",
    ),
];

/// Ansible's own list of what is not an inventory in a folder.
const IGNORED_ENDINGS: &[&str] = &[
    ".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".txt", ".rst", ".orig", ".cfg", ".retry",
];

/// What was found.
#[derive(Debug, Default)]
pub(in crate::inventory) struct Config {
    /// Variables, each with what said it and where there.
    pub(super) said: Vec<(&'static str, String, String, Position)>,
    ignored_endings: Option<Vec<String>>,
    ignored_patterns: Vec<Regex>,
    /// What is left out of it.
    pub(in crate::inventory) warnings: Vec<String>,
    /// The file, for the line that says what counts.
    file: Option<PathBuf>,
}

impl Config {
    /// Reads what Ansible would read here.
    pub(in crate::inventory) fn find(home: Option<&Path>) -> Result<Self, InventoryError> {
        let named = std::env::var_os("ANSIBLE_CONFIG").map(PathBuf::from);
        let here = Path::new(".");
        let mut config = Self::default();
        let mut places = Vec::new();
        if let Some(named) = named {
            let named = expanded(&named.to_string_lossy(), home);
            places.push(if named.is_dir() {
                named.join("ansible.cfg")
            } else {
                named
            });
        }
        let own = here.join("ansible.cfg");
        if own.is_file() {
            // It may name a program to run, as ProxyCommand.
            match changeable_by_others(&own) {
                Ok(None) => places.push(own),
                Ok(Some(why)) => {
                    let warning = format!("ansible.cfg is not read: {why}");
                    config.warnings.push(warning);
                }
                Err(error) => {
                    let warning = format!("ansible.cfg cannot be looked at: {error}");
                    config.warnings.push(warning);
                }
            }
        }
        places.extend(home.map(|home| home.join(".ansible.cfg")));
        places.push(PathBuf::from("/etc/ansible/ansible.cfg"));
        let readable = |path: &&PathBuf| path.is_file() && std::fs::File::open(path).is_ok();
        if let Some(path) = places.iter().find(readable) {
            config.read(&read::file(path)?, path, home)?;
        }
        let environment = |name: &str| std::env::var(name).ok();
        config.read_environment(&environment, home)?;
        Ok(config)
    }

    fn read(&mut self, text: &str, path: &Path, home: Option<&Path>) -> Result<(), InventoryError> {
        let name = path.display().to_string();
        let name = name.strip_prefix("./").unwrap_or(&name).to_string();
        let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let folder = whole.parent().unwrap_or(Path::new("/"));
        self.file = Some(PathBuf::from(&name));
        for entry in configparser::parse(text, Some(';')) {
            let value = unquoted(&entry.value);
            let is = |section: &str, key: &str| entry.section == section && entry.key == key;
            let setting = SETTINGS
                .iter()
                .find(|(_, _, section, key)| is(section, key));
            if let Some((variable, ..)) = setting {
                self.say(variable, value, &name, entry.place, folder, home);
            } else if is("defaults", "inventory_ignore_extensions")
                || is("inventory", "ignore_extensions")
            {
                self.ignored_endings = Some(list(value));
            } else if is("defaults", "inventory_ignore_patterns")
                || is("inventory", "ignore_patterns")
            {
                let wrong = |fault| InventoryError::at(&name, entry.place, fault);
                self.ignored_patterns = patterns(value).map_err(wrong)?;
            } else if (is("defaults", "host_key_checking")
                || is("ssh_connection", "host_key_checking"))
                && matches!(
                    value.to_ascii_lowercase().as_str(),
                    "false" | "no" | "off" | "0" | "n" | "f"
                )
            {
                self.warnings.push(format!(
                    "{name}:{}: host_key_checking is not switched off by it; --host-keys says what prepull does",
                    entry.place.line
                ));
            }
        }
        Ok(())
    }

    fn read_environment(
        &mut self,
        environment: &dyn Fn(&str) -> Option<String>,
        home: Option<&Path>,
    ) -> Result<(), InventoryError> {
        for (variable, name, ..) in SETTINGS {
            if let Some(value) = environment(name) {
                let source = format!("${name}");
                self.say(
                    variable,
                    &value,
                    &source,
                    Position::default(),
                    Path::new(""),
                    home,
                );
            }
        }
        if let Some(value) = environment("ANSIBLE_INVENTORY_IGNORE") {
            self.ignored_endings = Some(list(&value));
        }
        if let Some(value) = environment("ANSIBLE_INVENTORY_IGNORE_REGEX") {
            let wrong = |fault| InventoryError::of_file("$ANSIBLE_INVENTORY_IGNORE_REGEX", fault);
            self.ignored_patterns = patterns(&value).map_err(wrong)?;
        }
        Ok(())
    }

    fn say(
        &mut self,
        variable: &'static str,
        value: &str,
        source: &str,
        place: Position,
        folder: &Path,
        home: Option<&Path>,
    ) {
        self.said.retain(|(known, ..)| *known != variable);
        if value.is_empty() {
            return;
        }
        // Its paths start where the file is; a template is told later, as everywhere.
        let value = match variable {
            "ansible_ssh_args" | "ansible_ssh_common_args" | "ansible_ssh_extra_args" => {
                self.without_config_file(value, source, place)
            }
            "ansible_private_key_file" if !value.contains("{{") => {
                folder.join(expanded(value, home)).display().to_string()
            }
            _ => value.to_string(),
        };
        self.said.push((variable, value, source.to_string(), place));
    }

    /// The arguments without `-F FILE`: which ssh_config counts is said on the command line.
    fn without_config_file(&mut self, arguments: &str, source: &str, place: Position) -> String {
        let mut kept = Vec::new();
        let mut words = arguments.split_whitespace();
        while let Some(word) = words.next() {
            match word.strip_prefix("-F") {
                Some(rest) => {
                    let file = if rest.is_empty() {
                        words.next().unwrap_or_default()
                    } else {
                        rest
                    };
                    self.warnings.push(format!(
                        "{source}:{}: -F is not read there; give prepull --ssh-config {file}",
                        place.line
                    ));
                }
                None => kept.push(word),
            }
        }
        kept.join(" ")
    }

    /// Whether a file or folder of this name is not an inventory to Ansible.
    pub(in crate::inventory) fn leaves_out(&self, name: &str) -> bool {
        let by_ending = match &self.ignored_endings {
            Some(endings) => endings.iter().any(|ending| name.ends_with(ending.as_str())),
            None => IGNORED_ENDINGS.iter().any(|ending| name.ends_with(ending)),
        };
        by_ending
            || self
                .ignored_patterns
                .iter()
                .any(|pattern| pattern.is_match(name))
    }

    /// One line of what counts, where anything does.
    pub(in crate::inventory) fn summary(&self) -> Option<String> {
        let options: Vec<_> = self
            .said
            .iter()
            .filter_map(|(variable, _, source, _)| {
                let (.., key) = SETTINGS.iter().find(|(known, ..)| known == variable)?;
                Some(if source.starts_with('$') {
                    source.as_str()
                } else {
                    *key
                })
            })
            .collect();
        if options.is_empty() {
            return None;
        }
        let file = self.file.as_ref().map_or_else(
            || "Ansible's environment".into(),
            |path| path.display().to_string(),
        );
        Some(format!(
            "{file} counts for the hosts of Ansible's inventories, weaker than what these say: {}",
            options.join(", ")
        ))
    }
}

fn list(value: &str) -> Vec<String> {
    let items = value.split([',', '\n']).map(str::trim);
    items
        .filter(|item| !item.is_empty())
        .map(str::to_string)
        .collect()
}

fn patterns(value: &str) -> Result<Vec<Regex>, InputError> {
    let compiled = list(value).into_iter().map(|pattern| {
        Regex::new(&pattern).map_err(|_| {
            InputError::new("this is no regular expression that prepull can read")
                .with_hint("name the inventory file itself with -i")
        })
    });
    compiled.collect()
}

fn unquoted(value: &str) -> &str {
    let inside = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

fn expanded(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Config {
        let mut config = Config::default();
        config
            .read(
                text,
                Path::new("/site/ansible.cfg"),
                Some(Path::new("/home/me")),
            )
            .unwrap();
        config
    }

    fn said(config: &Config) -> Vec<(&str, &str, u32)> {
        let said = config.said.iter();
        said.map(|(variable, value, _, place)| (*variable, value.as_str(), place.line))
            .collect()
    }

    #[test]
    fn options_become_the_variables_that_they_stand_for() {
        let text = "[defaults]\nremote_user = 'ops' ; who\nprivate_key_file = keys/fleet\nforks = 50\n\
            [ssh_connection]\nssh_args = -o ProxyJump=gate\n    -o ConnectTimeout=5\n[privilege_escalation]\nbecome = True\n";
        let config = read(text);
        assert_eq!(
            said(&config),
            [
                ("ansible_user", "ops", 2),
                ("ansible_private_key_file", "/site/keys/fleet", 3),
                (
                    "ansible_ssh_args",
                    "-o ProxyJump=gate -o ConnectTimeout=5",
                    6
                ),
                ("ansible_become", "True", 9),
            ]
        );
        let summary = config.summary().unwrap();
        assert!(
            summary.contains("/site/ansible.cfg")
                && summary.ends_with("remote_user, private_key_file, ssh_args, become"),
            "{summary}"
        );
        assert_eq!(
            said(&read("[defaults]\nprivate_key_file = ~/.ssh/k\n")),
            [("ansible_private_key_file", "/home/me/.ssh/k", 2)]
        );
        assert!(read("[ssh]\nremote_user = x\n").summary().is_none());
    }

    #[test]
    fn the_environment_is_stronger_than_the_file() {
        let mut config = read("[defaults]\nremote_user = ops\n");
        let environment = |name: &str| (name == "ANSIBLE_REMOTE_USER").then(|| "root".to_string());
        config.read_environment(&environment, None).unwrap();
        assert_eq!(said(&config), [("ansible_user", "root", 0)]);
    }

    #[test]
    fn what_is_left_out_of_folders_may_be_listed() {
        let standard = read("");
        assert!(
            standard.leaves_out("notes.md")
                && !standard.leaves_out("hosts.ini")
                && !standard.leaves_out("x.creds")
        );
        let config = read(
            "[defaults]\ninventory_ignore_extensions = ~, .creds, .ini\ninventory_ignore_patterns = ^old_, x$\n",
        );
        assert!(
            config.leaves_out("x.creds")
                && config.leaves_out("hosts.ini")
                && !config.leaves_out("notes.md")
        );
        assert!(
            config.leaves_out("old_hosts")
                && config.leaves_out("boxx")
                && !config.leaves_out("hosts")
        );
        let mut config = Config::default();
        let refused = config
            .read(
                "[inventory]\nignore_patterns = (\n",
                Path::new("a.cfg"),
                None,
            )
            .unwrap_err();
        assert!(refused.to_string().starts_with("a.cfg:2:1: "), "{refused}");
    }

    #[test]
    fn host_keys_are_checked_whatever_it_says() {
        let config = read("[defaults]\nhost_key_checking = False\n");
        assert!(
            config.said.is_empty() && config.warnings[0].contains("--host-keys"),
            "{:?}",
            config.warnings
        );
    }
}
