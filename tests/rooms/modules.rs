//! Which module of a room uses which, read from `use` declarations and from paths in the code.
//!
//! A name that a module only hands on (`pub use child::Name`) counts as its owner's: what is used is where it is defined.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's path below `src`, as `["ssh", "config", "files"]`.
type Module = Vec<String>;

/// Modules and what each of them uses directly.
pub type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// Reads all modules of a source tree; those of tests are left out.
pub fn graph(files: &[(PathBuf, String)]) -> Graph {
    let tests = test_modules(files);
    let sources: BTreeMap<Module, Source> = files
        .iter()
        .map(|(path, text)| (module_of(path), Source::read(text)))
        .filter(|(module, _)| !tests.contains(module))
        .collect();
    let uses = |module: &Module, source: &Source| {
        let paths = source.imports.values().chain(&source.paths);
        let targets = paths.filter_map(|path| resolve(&sources, module, path, 0));
        targets.filter(|target| target != module).collect()
    };
    sources
        .iter()
        .map(|(module, source)| (module.clone(), uses(module, source)))
        .collect()
}

/// Every set of modules of which each needs each.
pub fn cycles(graph: &Graph) -> Vec<BTreeSet<Module>> {
    let reach = |from: &Module| {
        let mut seen = BTreeSet::new();
        let mut open = vec![from];
        while let Some(module) = open.pop() {
            for next in graph.get(module).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        graph.keys().map(|module| (module, reach(module))).collect();
    let mut found: Vec<BTreeSet<Module>> = Vec::new();
    for (module, others) in reached.iter().filter(|(own, to)| to.contains(**own)) {
        let knot: BTreeSet<Module> = others
            .iter()
            .filter(|other| {
                reached
                    .get(other)
                    .is_some_and(|back| back.contains(*module))
            })
            .cloned()
            .collect();
        if !found.contains(&knot) {
            found.push(knot);
        }
    }
    found
}

/// A set of modules that need each other, a line for each with what it uses of the others.
pub fn described(graph: &Graph, knot: &BTreeSet<Module>) -> String {
    let line = |module: &Module| {
        let uses = graph[module].intersection(knot).map(|used| used.join("::"));
        let uses: Vec<String> = uses.collect();
        format!("  {} -> {}\n", module.join("::"), uses.join(", "))
    };
    knot.iter().map(line).collect()
}

/// What a file says that matters here.
struct Source {
    /// The names that `use` declarations bind, and what they stand for.
    imports: BTreeMap<String, Vec<String>>,
    /// All other paths: of globs, and in the code.
    paths: Vec<Vec<String>>,
}

impl Source {
    fn read(text: &str) -> Self {
        let words = words_of(&without_tests(text));
        let mut source = Self {
            imports: BTreeMap::new(),
            paths: Vec::new(),
        };
        let mut at = 0;
        while at < words.len() {
            if words[at] == "use" && words.get(at + 1).is_some_and(|next| next != "<") {
                at += 1;
                source.import(&words, &mut at, Vec::new());
                continue;
            }
            let mut path = vec![words[at].clone()];
            at += 1;
            while words.get(at).is_some_and(|word| word == "::")
                && words.get(at + 1).is_some_and(|word| is_name(word))
            {
                path.push(words[at + 1].clone());
                at += 2;
            }
            if path.len() > 1 && is_name(&path[0]) {
                source.paths.push(path);
            }
        }
        source
    }

    /// One tree of a `use` declaration, with what stands before it.
    fn import(&mut self, words: &[String], at: &mut usize, mut path: Vec<String>) {
        while let Some(word) = words.get(*at) {
            *at += 1;
            match word.as_str() {
                "{" => loop {
                    match words.get(*at).map(String::as_str) {
                        Some("}") | None => {
                            *at += 1;
                            return;
                        }
                        Some(",") => *at += 1,
                        Some(_) => self.import(words, at, path.clone()),
                    }
                },
                "," | ";" => break,
                "}" => {
                    *at -= 1;
                    break;
                }
                "::" => {}
                "*" => {
                    self.paths.push(std::mem::take(&mut path));
                    return;
                }
                "as" => {
                    if let Some(name) = words.get(*at) {
                        self.imports.insert(name.clone(), path.clone());
                    }
                    *at += 1;
                    return;
                }
                name => path.push(name.to_string()),
            }
        }
        if path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        if let Some(name) = path.last() {
            self.imports.insert(name.clone(), path.clone());
        }
    }
}

/// The module that defines what a path names, as seen from `module`; `None` for what is not ours.
fn resolve(
    sources: &BTreeMap<Module, Source>,
    module: &Module,
    path: &[String],
    depth: usize,
) -> Option<Module> {
    // A name that stands for itself through a chain of imports has none.
    if depth > 8 {
        return None;
    }
    let mut rest = path;
    let mut here = module.clone();
    let is_relative = |word: &str| matches!(word, "super" | "self" | "crate");
    if !is_relative(&path[0]) {
        let is_child = sources.contains_key(&child(module, &path[0]));
        let known = sources.get(module)?.imports.get(&path[0]);
        match known {
            Some(import) if import != path && !is_child => {
                let full: Vec<String> = import.iter().chain(&path[1..]).cloned().collect();
                return resolve(sources, module, &full, depth + 1);
            }
            _ if is_child => {}
            _ => return None,
        }
    }
    while let Some((first, others)) = rest.split_first() {
        match first.as_str() {
            "crate" => here.clear(),
            "self" => {}
            "super" => {
                here.pop()?;
            }
            _ => break,
        }
        rest = others;
    }
    while let Some((first, others)) = rest.split_first() {
        let below = child(&here, first);
        if !sources.contains_key(&below) {
            break;
        }
        here = below;
        rest = others;
    }
    // What is left names an item. Where that module only has it from another one, the other one it is.
    if let Some((item, others)) = rest.split_first()
        && here != *module
        && let Some(import) = sources
            .get(&here)
            .and_then(|source| source.imports.get(item))
    {
        let full: Vec<String> = import.iter().chain(others).cloned().collect();
        return resolve(sources, &here, &full, depth + 1);
    }
    Some(here)
}

fn child(module: &Module, name: &str) -> Module {
    module.iter().cloned().chain([name.to_string()]).collect()
}

fn module_of(path: &Path) -> Module {
    let mut module: Module = path
        .with_extension("")
        .iter()
        .map(|part| part.to_str().unwrap().to_string())
        .collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// The modules in files of their own that are compiled for tests only.
fn test_modules(files: &[(PathBuf, String)]) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    for (path, text) in files {
        let module = module_of(path);
        for part in text.split("#[cfg(test)]\n").skip(1) {
            let mut lines = part.lines().map(str::trim);
            let Some(first) = lines.next() else { continue };
            if let Some(file) = first.strip_prefix("#[path = \"") {
                let file = file.trim_end_matches("\"]");
                found.insert(module_of(&path.with_file_name(file)));
            } else if let Some((_, name)) = first.trim_end_matches(';').rsplit_once("mod ") {
                found.insert(child(&module, name));
            }
        }
    }
    found
}

/// The text up to the module of unit tests, which closes a file.
fn without_tests(text: &str) -> String {
    let is_module = |part: &str| {
        part.strip_prefix("mod tests")
            .is_some_and(|rest| rest.starts_with(" {"))
    };
    let mut kept = Vec::new();
    for part in text.split("#[cfg(test)]\n") {
        if is_module(part) {
            break;
        }
        kept.push(part);
    }
    kept.join("\n")
}

/// Names and the signs that paths and `use` trees are made of, without comments, strings and characters.
fn words_of(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let from = hashes + 2;
            rest[from..]
                .find(&end)
                .map_or(rest.len(), |at| from + at + end.len())
        } else if first == '"' {
            string_length(rest)
        } else if first == '\'' {
            character_length(rest)
        } else if first.is_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let end = end.unwrap_or(rest.len());
            words.push(rest[..end].to_string());
            end
        } else if rest.starts_with("::") {
            words.push("::".to_string());
            2
        } else {
            if !first.is_whitespace() {
                words.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    words
}

/// How many `#` a raw string that begins here has.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character literal as a whole; of a lifetime only the sign.
fn character_length(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => text[2..].find('\'').map_or(1, |_| {
            // An escaped quote is the sign itself.
            let from = 3.min(text.len());
            text[from..].find('\'').map_or(1, |at| from + at + 1)
        }),
        Some((at, character)) if text[at + character.len_utf8()..].starts_with('\'') => {
            at + character.len_utf8() + 1
        }
        _ => 1,
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Reads the files below a folder, by their paths below it.
pub fn read(folder: &Path, files: Vec<PathBuf>) -> Vec<(PathBuf, String)> {
    let relative = |file: &PathBuf| file.strip_prefix(folder).unwrap().to_path_buf();
    let text = |file: &PathBuf| fs::read_to_string(file).unwrap();
    files
        .iter()
        .map(|file| (relative(file), text(file)))
        .collect()
}
