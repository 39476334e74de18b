//! Which format a text is in: the one place where that is decided.
//!
//! A file that is executable and begins with `#!` or as an ELF program is run, not read (`program`); any
//! other text is, by what it says:
//!
//! 1. JSON or YAML: the first line that says something is `---`, `- ...`, `{`, `%...` or `key:`.
//!    - a key `_meta` at the top: what `ansible-inventory --list` prints;
//!    - a group at the top with `hosts`, `vars` or `children` in it, or a key `all` or `ungrouped`: Ansible;
//!    - `nodes` with a list or text, `defaults`, `groups` with `nodes` inside them: prepull;
//!    - signs of both: an error; signs of none: prepull, whose reader says what is missing.
//! 2. INI: there is a `[section]` line.
//! 3. Otherwise lines of hosts. `name=value`, `[1:9]` and `;` comments are Ansible's; `[1-9]`, commas,
//!    `user@` and `! & ^` are host expressions; signs of both are an error. A list of bare names means the
//!    same to both: it is Ansible's where other Ansible files or `group_vars` could add to it.

use super::ansible;
use super::error::{InputError, InventoryError, Position, shortened};
use super::json;
use super::yaml::{self, Tree, Value};

/// A text in the format it was recognised as.
pub(super) enum Format {
    /// prepull's own YAML.
    Native(Tree),
    /// Ansible's YAML.
    AnsibleYaml(Tree),
    /// What `--list` prints.
    Listing(Tree),
    /// Ansible's INI.
    Ini,
    /// Host expressions.
    Lines,
    /// Bare host names.
    Names,
    /// An object of Kubernetes, a kubeconfig perhaps: no inventory.
    Kubernetes,
}

/// Decides on the format of a text.
///
/// # Errors
/// A text with signs of two formats, with both places; YAML that is none.
pub(super) fn recognise(text: &str, name: &str) -> Result<Format, InventoryError> {
    let lines = || {
        let numbered = text.lines().enumerate();
        let said = numbered.map(|(index, line)| (shortened(index + 1), line.trim()));
        said.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
    };
    if text.starts_with(ansible::VAULT) {
        let place = Position { line: 1, column: 1 };
        let fault = InputError::new("this file is encrypted by Ansible's vault")
            .with_hint("run ansible-inventory -i FILE --list --ask-vault-pass | prepull ... -i -");
        return Err(InventoryError::at(name, place, fault));
    }
    let header = lines().find(|(_, line)| is_section(line));
    match lines().find(|(_, line)| !line.starts_with(';')) {
        None => return yaml::parse("", name).map(Format::Native),
        Some((number, line)) if begins_yaml(line) => {
            if let Some((other, _)) = header.filter(|_| !line.starts_with('{')) {
                return both(name, other, number, "an INI section", "a YAML key");
            }
            let tree = if line.starts_with('{') {
                json_or_yaml(text, name)?
            } else {
                yaml::parse(text, name)?
            };
            return of_tree(tree, name);
        }
        Some(_) => {}
    }
    if let Some((number, _)) = header {
        if is_toml(text, name) {
            let place = Position {
                line: number,
                column: 1,
            };
            let fault = InputError::new("this is an inventory in TOML, which only Ansible reads")
                .with_hint("run ansible-inventory -i FILE --list | prepull ... -i -");
            return Err(InventoryError::at(name, place, fault));
        }
        return Ok(Format::Ini);
    }
    let (mut ini, mut expressions) = (None, None);
    for (number, line) in lines() {
        match sign(line) {
            Some(Sign::Ini) => ini = ini.or(Some(number)),
            Some(Sign::Expression) => expressions = expressions.or(Some(number)),
            None => {}
        }
    }
    match (ini, expressions) {
        (Some(ini), Some(other)) => both(name, ini, other, "Ansible's INI", "a host expression"),
        (Some(_), None) => Ok(Format::Ini),
        (None, Some(_)) => Ok(Format::Lines),
        (None, None) => Ok(Format::Names),
    }
}

/// JSON is also YAML, but read much faster; YAML's `{a: b}` is not JSON.
fn json_or_yaml(text: &str, name: &str) -> Result<Tree, InventoryError> {
    json::parse(text, name).or_else(|json| {
        yaml::parse(text, name).map_err(|yaml| if json::is_meant(text) { json } else { yaml })
    })
}

fn both<T>(name: &str, at: u32, other: u32, one: &str, two: &str) -> Result<T, InventoryError> {
    let place = Position {
        line: at,
        column: 1,
    };
    let fault = InputError::new(format!(
        "this looks like {one}, but line {other} like {two}"
    ))
    .with_hint("keep one format a file");
    Err(InventoryError::at(name, place, fault))
}

/// `[web.hosts]` and `host = {}`, as Ansible's TOML has them; INI has no maps.
fn is_toml(text: &str, name: &str) -> bool {
    let has_map = |line: &str| {
        let value = line.split_once('=').map(|(_, value)| value.trim_start());
        !line.starts_with(['#', ';', '['])
            && value.is_some_and(|value| value.starts_with('{') && !value.starts_with("{{"))
    };
    let parts = [".hosts]", ".vars]", ".children]"];
    let is_part =
        |line: &str| line.starts_with('[') && parts.iter().any(|part| line.ends_with(part));
    let mut lines = text.lines().map(str::trim);
    name.ends_with(".toml") || lines.clone().any(is_part) && lines.any(has_map)
}

fn is_section(line: &str) -> bool {
    let address = |name: &str| name.parse::<std::net::Ipv6Addr>().is_ok();
    let inside = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    ansible::header(line).is_some() && !inside.is_some_and(|(inside, _)| address(inside))
}

fn begins_yaml(line: &str) -> bool {
    if line == "-"
        || ["---", "- ", "{", "%"]
            .iter()
            .any(|sign| line.starts_with(sign))
    {
        return true;
    }
    let key_end = match line.chars().next() {
        Some(quote @ ('"' | '\'')) => line[1..].find(quote).map(|at| at + 2),
        _ => line.find(|c: char| c.is_whitespace() || c == '=' || c == '#'),
    };
    let (key, rest) = line.split_at(key_end.unwrap_or(line.len()));
    let key = key.trim_end();
    key.ends_with(':') && key.len() > 1
        || key_end.is_some() && rest.trim_start().starts_with(": ")
        || key.starts_with(['"', '\'']) && rest.starts_with(':')
}

enum Sign {
    Ini,
    Expression,
}

/// What a line without a section tells about its file.
fn sign(line: &str) -> Option<Sign> {
    if line.starts_with(';') {
        return Some(Sign::Ini);
    }
    let line = line.split_once('#').map_or(line, |(said, _)| said).trim();
    let (host, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    if rest.contains('=') {
        return Some(Sign::Ini);
    }
    if line.contains([',', '@', '!', '&', '^']) {
        return Some(Sign::Expression);
    }
    let (_, inside) = host.split_once('[')?;
    let inside = inside.split_once(']').map_or(inside, |(inside, _)| inside);
    if ansible::is_range(inside) {
        Some(Sign::Ini)
    } else {
        Some(Sign::Expression)
    }
}

fn of_tree(tree: Tree, name: &str) -> Result<Format, InventoryError> {
    let Value::Map(entries) = &tree.value else {
        return Ok(Format::Native(tree));
    };
    let has = |tree: &Tree, keys: &[&str]| match &tree.value {
        Value::Map(entries) => entries
            .iter()
            .any(|(key, _)| keys.contains(&key.text.as_str())),
        _ => false,
    };
    if let Some((key, _)) = entries.iter().find(|(key, _)| key.text == "plugin") {
        let fault =
            InputError::new("this configures an inventory plugin, which only Ansible can run")
                .with_hint("run ansible-inventory -i FILE --list | prepull ... -i -");
        return Err(InventoryError::at(name, key.place, fault));
    }
    let is_text = |wanted: &str| {
        let found = entries.iter().find(|(key, _)| key.text == wanted);
        found.is_some_and(|(_, tree)| matches!(tree.value, Value::Text(_)))
    };
    if is_text("apiVersion") && is_text("kind") {
        return Ok(Format::Kubernetes);
    }
    if entries.iter().any(|(key, _)| key.text == "_meta") {
        return Ok(Format::Listing(tree));
    }
    let ansible = entries.iter().find(|(key, tree)| {
        matches!(key.text.as_str(), "all" | "ungrouped") || has(tree, ansible::PARTS)
    });
    let native = entries.iter().find(|(key, tree)| match key.text.as_str() {
        "nodes" => matches!(tree.value, Value::List(_) | Value::Text(_)),
        "defaults" => matches!(tree.value, Value::Map(_)) && !has(tree, ansible::PARTS),
        "groups" => match &tree.value {
            Value::Map(groups) => groups.iter().any(|(_, group)| has(group, &["nodes"])),
            _ => false,
        },
        _ => false,
    });
    match (ansible, native) {
        (Some((one, _)), Some((two, _))) => {
            let fault = InputError::new(format!(
                "\"{}\" is a group of Ansible's, but \"{}\" in line {} a key of prepull's own format",
                one.text, two.text, two.place.line
            ))
            .with_hint("keep one format a file");
            Err(InventoryError::at(name, one.place, fault))
        }
        (Some(_), None) => Ok(Format::AnsibleYaml(tree)),
        _ => Ok(Format::Native(tree)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match recognise(text, "f") {
            Ok(Format::Native(_)) => "native".into(),
            Ok(Format::AnsibleYaml(_)) => "ansible".into(),
            Ok(Format::Listing(_)) => "listing".into(),
            Ok(Format::Ini) => "ini".into(),
            Ok(Format::Lines) => "lines".into(),
            Ok(Format::Names) => "names".into(),
            Ok(Format::Kubernetes) => "kubernetes".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_format_is_known_by_its_content() {
        for (text, format) in [
            ("apiVersion: v1\nkind: Config\nusers: []\n", "kubernetes"),
            ("nodes:\n- a\n", "native"),
            ("# x\n---\nnodes: a\n", "native"),
            ("groups: {g: {nodes: [a]}}\n", "native"),
            ("", "native"),
            ("usr: x\n", "native"),
            ("- a\n", "native"),
            ("all:\n  hosts:\n    a:\n", "ansible"),
            ("nodes:\n  hosts:\n    a:\n", "ansible"),
            ("'web':\n  children: {x: }\n", "ansible"),
            ("{\"_meta\": {\"hostvars\": {}}}", "listing"),
            ("[web]\na\n", "ini"),
            ("; x\na\n", "ini"),
            ("a ansible_host=b\n", "ini"),
            ("a[1:3]\n", "ini"),
            ("a[1-3]\n", "lines"),
            ("a # x\nops@b\n", "lines"),
            ("a,b\n", "lines"),
            ("[2001:db8::7]:22\n", "lines"),
            ("[2001:db8::7]\n", "lines"),
            ("a\nb:2222\n10.0.0.1\n2001:db8::7\n", "names"),
        ] {
            assert_eq!(shown(text), format, "{text:?}");
        }
    }

    #[test]
    fn signs_of_two_formats_or_of_none_are_an_error_with_their_places() {
        for (text, start) in [
            (
                "a[1:3]\nb[1-3]\n",
                "f:1:1: this looks like Ansible's INI, but line 2",
            ),
            (
                "all:\n[web]\n",
                "f:2:1: this looks like an INI section, but line 1",
            ),
            (
                "nodes: [a]\nweb:\n  hosts: {a: }\n",
                "f:2:1: \"web\" is a group of Ansible's",
            ),
            ("plugin: aws_ec2\n", "f:1:1: this configures"),
            (
                "$ANSIBLE_VAULT;1.1;AES256\n61\n",
                "f:1:1: this file is encrypted",
            ),
            (
                "{\"_meta\": {},\n \"g\": [\"a\"}",
                "f:2:11: this is not JSON: expected",
            ),
            ("{nodes: [a}", "f:1:"),
        ] {
            assert!(shown(text).starts_with(start), "{text:?}: {}", shown(text));
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[a:=\\[\\]{}'\"# \n;,-]{0,20}|\\PC*") {
            let _ = recognise(&text, "f");
        }
    }
}
