//! Tests of the known_hosts reader; `tests/ssh_openssh.rs` compares it with `ssh-keygen -F`.

use proptest::prelude::*;
use russh::keys::PrivateKey;
use russh::keys::key::safe_rng;

use super::*;

fn key() -> PublicKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519)
        .unwrap()
        .public_key()
        .clone()
}

fn ecdsa() -> PublicKey {
    let curve = russh::keys::EcdsaCurve::NistP256;
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ecdsa { curve }).unwrap();
    key.public_key().clone()
}

fn text(key: &PublicKey) -> String {
    key.to_openssh().unwrap()
}

fn index(lines: &str) -> (Index, Vec<String>) {
    let mut index = Index::default();
    let warnings = index.add(&Path::new("/known").into(), 1, lines);
    (index, warnings)
}

fn place(line: usize) -> Position {
    Position {
        file: Path::new("/known").into(),
        line,
    }
}

fn hashed(name: &str, salt: &[u8]) -> String {
    let mut whole = [b'.'; 20];
    whole[..salt.len()].copy_from_slice(salt);
    super::hashed(name, whole).unwrap()
}

impl Index {
    /// The whole way; the short cut must lead to the same.
    fn says(&self, name: &KnownName, key: &PublicKey) -> Verdict {
        let verdict = self.judge(name, key, &self.find(name, 0));
        if self.knows(name, key) {
            assert_eq!(verdict, Verdict::Known);
        }
        verdict
    }

    /// The types of the known keys, which must all be likely.
    fn types(&self, name: &KnownName) -> Vec<Algorithm> {
        let types = self.algorithms(name, &self.find(name, 0));
        let likely = self.likely_algorithms(name);
        assert!(types.iter().all(|one| likely.contains(one)));
        types
    }
}

/// The name as it stands in a file, without a second one.
fn named(name: &str) -> KnownName {
    KnownName::alias(name)
}

#[test]
fn names_carry_the_port_unless_it_is_22() {
    assert_eq!(KnownName::new("Host.Example", 22), named("host.example"));
    let name = KnownName::new("2001:DB8::7", 2222);
    assert_eq!(name.full, "[2001:db8::7]:2222");
    assert_eq!(name.principal(), "2001:db8::7");
}

#[test]
fn plain_lists_wildcards_and_ports_are_found() {
    let key = key();
    let (index, warnings) = index(&format!(
        "# a comment\n\nHost.example,10.0.0.7 {k} someone\n\t[host]:2222\t{k}\n*.dc?.example,!bad.dc1.example {k}\n",
        k = text(&key)
    ));
    assert_eq!(warnings, Vec::<String>::new());
    for name in ["host.example", "10.0.0.7", "[host]:2222", "a.dc1.example"] {
        assert_eq!(index.says(&named(name), &key), Verdict::Known, "{name}");
    }
    for name in [
        "host",
        "[host.example]:2222",
        "bad.dc1.example",
        "a.dc12.example",
        "dc1.example",
    ] {
        assert_eq!(
            index.says(&named(name), &key),
            Verdict::Unknown { authority: None },
            "{name}"
        );
    }
}

#[test]
fn hashed_names_are_found_with_and_without_port() {
    let key = key();
    let (index, _) = index(&format!(
        "{} {k}\n{} {k}\n",
        hashed("node-1", b"salt"),
        hashed("[node-2]:2222", b"another salt"),
        k = text(&key)
    ));
    assert_eq!(index.says(&named("node-1"), &key), Verdict::Known);
    assert_eq!(index.says(&named("[node-2]:2222"), &key), Verdict::Known);
    assert_eq!(
        index.says(&named("node-2"), &key),
        Verdict::Unknown { authority: None }
    );
}

#[test]
fn a_revoked_key_is_refused_though_it_is_listed_plainly_too() {
    let key = key();
    let (index, _) = index(&format!(
        "node {k}\n@revoked * {k}\nother {k}\n",
        k = text(&key)
    ));
    assert_eq!(
        index.says(&named("node"), &key),
        Verdict::Revoked { place: place(2) }
    );
}

#[test]
fn an_authority_never_makes_a_plain_key_trusted() {
    let key = key();
    let (index, _) = index(&format!("@cert-authority * {}\n", text(&key)));
    assert_eq!(
        index.says(&named("node"), &key),
        Verdict::Unknown {
            authority: Some(place(1))
        }
    );
    assert_eq!(index.types(&named("node")), vec![]);
}

#[test]
fn a_host_beside_port_22_falls_back_to_its_bare_name_unless_its_full_name_is_known() {
    let (bare, full, revoked) = (key(), key(), key());
    let (index, _) = index(&format!(
        "a {b}\nb {b}\n[b]:2222 {f}\n@revoked a {r}\n@cert-authority *.example {f}\n",
        b = text(&bare),
        f = text(&full),
        r = text(&revoked),
    ));
    let a = KnownName::new("a", 2222);
    assert_eq!(index.says(&a, &bare), Verdict::Known);
    // Another key under the bare name is not a change of the key on this port.
    assert_eq!(index.says(&a, &full), Verdict::Unknown { authority: None });
    assert_eq!(
        index.says(&a, &revoked),
        Verdict::Revoked { place: place(4) }
    );
    let b = KnownName::new("b", 2222);
    assert_eq!(index.says(&b, &full), Verdict::Known);
    assert!(matches!(index.says(&b, &bare), Verdict::Changed { .. }));
    let name = KnownName::new("c.example", 2222);
    assert_eq!(index.any_authority(&name), Some(place(5)));
    assert_eq!(index.authority(&name, full.key_data()), Some(place(5)));
    assert_eq!(index.authority(&name, bare.key_data()), None);
    assert_eq!(index.authority(&a, full.key_data()), None);
}

#[test]
fn another_key_is_a_change_even_when_its_type_differs() {
    let known = key();
    let (index, _) = index(&format!("node {}\n", text(&known)));
    for offered in [key(), ecdsa()] {
        let Verdict::Changed { known: was, place } = index.says(&named("node"), &offered) else {
            panic!("a changed key must not look unknown");
        };
        assert_eq!(was.key_data(), known.key_data());
        assert_eq!(place.line, 1);
    }
    assert_eq!(index.types(&named("node")), vec![Algorithm::Ed25519]);
}

#[test]
fn lines_that_cannot_be_read_are_named_and_trust_nobody() {
    let key = key();
    let blob = text(&key).split(' ').nth(1).unwrap().to_owned();
    let (index, warnings) = index(&format!(
        "node ssh-rsa {blob}\nnode\n@wrong node {k}\nnode ssh-ed25519 AAAA!\n|1|x node {k}\n|2|a|b {k}\nnode ssh-ed25519 AAAA\n@revoked\n",
        k = text(&key)
    ));
    assert_eq!(warnings.len(), 8, "{warnings:#?}");
    assert!(
        warnings[0].starts_with("/known:1: line ignored: "),
        "{}",
        warnings[0]
    );
    assert!(warnings[7].starts_with("/known:8: "));
    assert_eq!(
        index.says(&named("node"), &key),
        Verdict::Unknown { authority: None }
    );
}

#[test]
fn lines_added_later_are_seen_and_can_be_looked_at_alone() {
    let (key, name) = (key(), named("node"));
    let (mut index, _) = index("other ssh-ed25519 AAAA\n");
    assert_eq!(
        index.says(&name, &key),
        Verdict::Unknown { authority: None }
    );
    let before = index.len();
    index.add(
        &Path::new("/known").into(),
        7,
        &format!("{} {}\n", hashed("node", b"salt"), text(&key)),
    );
    assert_eq!(index.says(&name, &key), Verdict::Known);
    assert_eq!(index.find(&name, before), index.find(&name, 0));
    assert_eq!(index.find(&name, index.len()), Vec::<usize>::new());
}

#[test]
fn hashed_lines_make_their_types_likely_for_everybody() {
    let ecdsa = ecdsa();
    let p256 = ecdsa.algorithm();
    let (index, _) = index(&format!(
        "{} {}\nnode,*.example {}\n",
        hashed("other", b"salt"),
        text(&ecdsa),
        text(&key())
    ));
    assert_eq!(
        index.likely_algorithms(&named("stranger")),
        vec![p256.clone()]
    );
    for name in ["node", "a.example"] {
        let likely = index.likely_algorithms(&named(name));
        assert_eq!(likely, [p256.clone(), Algorithm::Ed25519], "{name}");
        assert_eq!(index.types(&named(name)), [Algorithm::Ed25519]);
    }
}

proptest! {
    #[test]
    fn no_line_makes_the_reader_panic(line in "\\PC{0,80}") {
        let _ = parse(&line);
    }

    #[test]
    fn almost_a_line_makes_no_panic(marker in "(@[a-z-]{0,15} )?", hosts in "[|!*?,a-z0-9\\[\\]:=+/]{0,40}", rest in "[ \ta-zA-Z0-9+/=-]{0,60}") {
        let _ = parse(&format!("{marker}{hosts} {rest}"));
    }
}

/// The judge of what a line matches: OpenSSH itself.
#[cfg(feature = "lab")]
mod against_openssh {
    use std::collections::BTreeSet;
    use std::process::Command;

    use super::*;

    /// The numbers of the lines that `ssh-keygen -F` finds.
    fn found_by_openssh(file: &Path, name: &str) -> BTreeSet<usize> {
        let output = Command::new("ssh-keygen")
            .args(["-F", name, "-f"])
            .arg(file)
            .output()
            .expect("ssh-keygen is missing: install Debian's package openssh-client");
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter_map(|line| line.strip_prefix("# Host ")?.split_once(" found: line "))
            .map(|(_, number)| number.split(' ').next().unwrap().parse().unwrap())
            .collect()
    }

    fn hosts() -> impl Strategy<Value = String> {
        let pattern = "!?([ab]{1,2}|[ab*?]{1,4}|\\[[ab*?]{1,3}\\]:(22|2222))";
        prop_oneof![
            proptest::collection::vec(pattern, 1..4).prop_map(|list| list.join(",")),
            ("[ab]{1,2}|\\[[ab]{1,2}\\]:2222", "[a-z]{20}")
                .prop_map(|(name, salt)| hashed(&name, salt.as_bytes())),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn the_same_lines_are_found(
            lines in proptest::collection::vec(("(@revoked |@cert-authority |@wrong |# |\t )?", hosts()), 1..12),
            names in proptest::collection::vec("[ab]{1,2}|\\[[ab]{1,2}\\]:(2222|22)", 1..4),
        ) {
            let key = text(&key());
            let lines: Vec<String> = lines.iter().map(|(marker, hosts)| format!("{marker}{hosts} {key}\n")).collect();
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("known_hosts");
            std::fs::write(&file, lines.concat()).unwrap();
            let (index, _) = index(&lines.concat());
            for name in names {
                let found: BTreeSet<usize> = index.find(&named(&name), 0).iter().map(|number| index.entries[*number].place.line).collect();
                prop_assert_eq!(found, found_by_openssh(&file, &name), "{} in\n{}", name, lines.concat());
            }
        }
    }
}
