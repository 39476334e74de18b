//! Manifests against PyYAML, which reads YAML 1.1 as most users write it: generated layouts, each with the same images.
//! `lab/install` installs it.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test file: a panic is a failed test

use std::fs;
use std::process::Command;

use prepull::inventory::images_in;

/// Prints, for each file, the images of all containers in it, in order.
const ORACLE: &str = r#"
import json, sys, yaml

def images(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "containers" and isinstance(inner, list):
                for item in inner:
                    if isinstance(item, dict) and "image" in item:
                        yield item["image"]
            yield from images(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from images(inner)

for path in sys.argv[1:]:
    with open(path, "rb") as file:
        documents = yaml.load_all(file, getattr(yaml, "CBaseLoader", yaml.BaseLoader))
        print(json.dumps(list(dict.fromkeys(image for document in documents for image in images(document)))))
"#;

fn python(arguments: &[String]) -> Vec<Vec<String>> {
    let output = Command::new("python3")
        .args(["-c", ORACLE])
        .args(arguments)
        .output();
    let output = output.expect("python3 is missing: run lab/install");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "is python3-yaml there (lab/install)? {said}"
    );
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Writes documents in ways that differ in everything but their meaning.
struct Writer {
    random: fastrand::Rng,
    out: String,
    keys: usize,
    images: usize,
}

impl Writer {
    fn chance(&mut self, of: u8) -> bool {
        self.random.u8(..of) == 0
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.random.usize(..of.len())]
    }

    /// Comments and empty lines, as many as anybody has written.
    fn remarks(&mut self) {
        if !self.chance(3) {
            return;
        }
        let most = if self.chance(8) { 150 } else { 4 };
        for _ in 0..self.random.usize(1..=most) {
            let indent = " ".repeat(self.random.usize(..9));
            let text = self.pick(&[
                "#",
                "# - a: b",
                "# {{ x }}",
                "#--- 'it\"",
                "",
                "# image: no:v1",
                "## |",
            ]);
            self.out.push_str(&format!("{indent}{text}\n"));
        }
    }

    fn line_end(&mut self) {
        if self.chance(5) {
            let remark = self.pick(&[" # why: \"not", "  #", " # {{ .x }}"]);
            self.out.push_str(remark);
        }
        self.out.push('\n');
        self.remarks();
    }

    fn image(&mut self) -> String {
        self.images += 1;
        let name = self.pick(&[
            "app",
            "reg.example/team/app",
            "reg.example:5000/a_b/c-d",
            "localhost/x",
        ]);
        format!("{name}{}:v{}", self.images, self.random.u8(..))
    }

    /// A scalar that stays on its line.
    fn scalar(&mut self, text: &str) -> String {
        match self.random.u8(..4) {
            0 => format!("'{}'", text.replace('\'', "''")),
            1 => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            2 if self.chance(4) => format!("!!str {text}"),
            _ => text.to_string(),
        }
    }

    fn noise(&mut self, indent: usize) {
        let pad = " ".repeat(indent);
        self.keys += 1;
        let key = format!("{pad}k{}", self.keys);
        match self.random.u8(..9) {
            0 => {
                let style = self.pick(&["|", ">", "|-", ">+", "|2"]);
                self.out.push_str(&format!("{key}: {style}\n"));
                for line in [
                    "# not a remark",
                    "containers:",
                    "- image: no:v1",
                    "",
                    "--- x",
                    "'\"{{ y }}",
                ] {
                    match line {
                        "" => self.out.push('\n'),
                        line => self.out.push_str(&format!("{pad}  {line}\n")),
                    }
                }
            }
            1 => self.out.push_str(&format!(
                "{pad}\"k{}: #\": 'it''s # no remark'\n",
                self.keys
            )),
            2 => self
                .out
                .push_str(&format!("{key}: one\n{pad}  two # remark\n")),
            3 => {
                let text = format!("\"a\n{pad}  # in the text\n\n{pad}  b\\\n{pad}  c\"");
                self.out.push_str(&format!("{key}: {text}\n"));
            }
            4 => self
                .out
                .push_str(&format!("{key}: http://a.b/#c\n{key}h: a#b\n")),
            5 => {
                let anchor = format!("a{}", self.keys);
                self.out.push_str(&format!(
                    "{key}: &{anchor} {{k: v, l: [1, 2]}}\n{key}u: *{anchor}\n{key}m:\n{pad}  <<: *{anchor}\n{pad}  m: 1\n"
                ));
            }
            6 => self
                .out
                .push_str(&format!("{pad}? k{}\n{pad}: value\n", self.keys)),
            7 => {
                let flow =
                    format!("{{a: [b, {{c: d}},\n{pad} # remark\n{pad}  'e'], \"f\":g, h: }}");
                self.out.push_str(&format!("{key}: {flow}\n{key}n: ~\n"));
            }
            _ => self
                .out
                .push_str(&format!("{key}: yes\n{key}o: 010\n{key}t: 12:30:45\n")),
        }
        self.remarks();
    }

    fn containers(&mut self, indent: usize) {
        let pad = " ".repeat(indent);
        let count = self.random.usize(1..4);
        let images: Vec<String> = (0..count).map(|_| self.image()).collect();
        if self.chance(4) {
            let items: Vec<String> = images
                .iter()
                .map(|image| format!("{{name: c, image: {}}}", self.scalar(image)))
                .collect();
            let between = self.pick(&[", ", ",\n        # remark\n        "]);
            self.out
                .push_str(&format!("{pad}containers: [{}]", items.join(between)));
            self.line_end();
            return;
        }
        self.out.push_str(&format!("{pad}containers:"));
        self.line_end();
        // A list may stand where its key does.
        let pad = if self.chance(2) {
            format!("{pad}  ")
        } else {
            pad
        };
        for image in images {
            let written = self.scalar(&image);
            match self.random.u8(..4) {
                0 => self
                    .out
                    .push_str(&format!("{pad}-\n{pad}  image: {written}")),
                1 => self
                    .out
                    .push_str(&format!("{pad}- image:\n{pad}    {written}")),
                2 => self.out.push_str(&format!(
                    "{pad}- image: >-\n{pad}    {image}\n{pad}  name: c"
                )),
                _ => self
                    .out
                    .push_str(&format!("{pad}-   name: c\n{pad}    image: {written}")),
            }
            self.line_end();
        }
    }

    fn document(&mut self) {
        self.remarks();
        for line in ["apiVersion: v1", "kind: Pod", "metadata: {name: x}"] {
            self.out.push_str(line);
            self.line_end();
        }
        if self.chance(2) {
            self.noise(0);
        }
        self.out.push_str("spec:");
        self.line_end();
        if self.chance(2) {
            self.noise(2);
        }
        self.containers(2);
        if self.chance(2) {
            self.noise(2);
        }
    }

    fn file(mut self) -> Vec<u8> {
        if self.chance(6) {
            self.out.push_str("%YAML 1.1\n# remark\n---\n");
        }
        for number in 0..self.random.usize(1..4) {
            if number > 0 {
                let border = self.pick(&[
                    "---\n",
                    "--- # border\n",
                    "...\n---\n",
                    "---   \n",
                    "---\n---\n",
                ]);
                self.out.push_str(border);
            }
            self.document();
        }
        if self.chance(4) {
            let end = self.pick(&["...\n", "---\n", "---\n# the end\n"]);
            self.out.push_str(end);
        }
        if self.chance(4) {
            self.out = self.out.replace('\n', "\r\n");
        }
        match self.random.u8(..4) {
            0 => format!("\u{feff}{}", self.out).into_bytes(),
            _ => self.out.into_bytes(),
        }
    }
}

#[test]
fn any_layout_names_the_images_that_pyyaml_finds() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for seed in 0..300 {
        let writer = Writer {
            random: fastrand::Rng::with_seed(seed),
            out: String::new(),
            keys: 0,
            images: 0,
        };
        let path = folder.path().join(format!("{seed}.yml"));
        fs::write(&path, writer.file()).unwrap();
        paths.push(path.display().to_string());
    }
    let expected = python(&paths);
    assert_eq!(expected.len(), paths.len());
    let mut total = 0;
    for (path, expected) in paths.iter().zip(expected) {
        let found = prepull::inventory::images(&[path.into()]);
        let text = || String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        let found = found.unwrap_or_else(|error| panic!("{error}\n{}", text()));
        let parsed = expected.iter().map(|image| image.parse().unwrap());
        let expected: Vec<prepull::model::Image> = parsed.collect();
        let images: Vec<_> = found.images.into_iter().map(|named| named.image).collect();
        assert_eq!(images, expected, "{}", text());
        assert!(
            found.warnings.is_empty(),
            "{:?}\n{}",
            found.warnings,
            text()
        );
        total += images.len();
    }
    assert!(total > 500, "{total}");
}

#[test]
fn what_pyyaml_refuses_is_refused() {
    let before = "kind: Pod\napiVersion: v1\n";
    let texts = [
        "a: b: c\n",
        "a: [1, 2\nb: 3\n",
        "a:\n\tb: 1\n",
        "a: 'x\n",
        "a: \"\\q\"\n",
        "- a\nb: 1\n",
        "a: *nowhere\n",
        "a: 1\n  b: 2\n",
        "a: @x\n",
        "a: `x`\n",
        "{a: 1}}\n",
        "a: %x\n",
        "a: |\n  x\n y\n",
    ];
    let folder = tempfile::tempdir().unwrap();
    for text in texts {
        let text = format!("{before}{text}");
        let path = folder.path().join("m.yml");
        fs::write(&path, &text).unwrap();
        let output = Command::new("python3")
            .args(["-c", ORACLE])
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).to_string();
        assert!(said.contains("yaml."), "{text}: {said}");
        assert!(images_in(&text, "m").is_err(), "{text}");
    }
}
