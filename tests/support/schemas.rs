//! The forms of what prepull writes, and validators that are not ours: Debian's python3-jsonschema and xmllint (lab/install).

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Checks each line of standard input against a schema in which nothing may stand that it does not name.
const VALIDATOR: &str = "\
import json, pathlib, sys
from jsonschema import Draft202012Validator, RefResolver
from jsonschema.exceptions import best_match
def strict(part):
    if isinstance(part, dict):
        part = {key: strict(value) for key, value in part.items()}
        if part.get('type') == 'object':
            part['additionalProperties'] = False
    elif isinstance(part, list):
        part = [strict(value) for value in part]
    return part
folder, name = sys.argv[1:]
schemas = {path.name: strict(json.loads(path.read_text())) for path in pathlib.Path(folder).iterdir()}
for schema in schemas.values():
    Draft202012Validator.check_schema(schema)
wanted = schemas[name]
resolver = RefResolver.from_schema(wanted, store={schema['$id']: schema for schema in schemas.values()})
validator = Draft202012Validator(wanted, resolver=resolver)
lines = sys.stdin.read().splitlines()
for number, line in enumerate(lines, 1):
    error = best_match(validator.iter_errors(json.loads(line)))
    if error:
        sys.exit(f'{name}: line {number}: {error.json_path}: {error.message[:500]}')
print(len(lines))
";

/// Every line must fit the schema `name`; what it does not name is an error too.
pub fn validate(name: &str, lines: &[String]) {
    if let Err(why) = fits(name, lines) {
        panic!("{why}");
    }
}

/// What the validator says against the lines, if it says anything.
pub fn fits(name: &str, lines: &[String]) -> Result<(), String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema");
    // Debian's own, whatever other Python there is.
    let mut child = Command::new("/usr/bin/python3")
        .args(["-W", "ignore", "-c", VALIDATOR])
        .args([folder.as_os_str(), name.as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 cannot be run: see lab/install");
    let mut stdin = child.stdin.take().unwrap();
    // A validator that ends early says why on standard error.
    let _ = stdin.write_all(lines.join("\n").as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        lines.len().to_string()
    );
    Ok(())
}

/// The file must be JUnit XML as CI systems accept it.
pub fn check_junit(path: &Path) {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/junit.xsd");
    let output = Command::new("xmllint")
        .args(["--noout", "--nonet", "--schema"])
        .args([&schema, path])
        .output()
        .expect("xmllint cannot be run: see lab/install");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
