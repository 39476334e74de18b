//! What host keys cost in known_hosts files of hashed names: the budget is one second for 10,000 hosts in a file of 10,000
//! lines, from reading it to the last verdict. `cargo bench --bench known_hosts` prints the table.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // no part of the program: a panic is a failed measurement

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prepull::ssh::known_hosts::{Index, KnownName, Verdict, hashed};
use russh::keys::PublicKey;

/// Hosts that are not in the file, or not with the key that they show: each costs a walk through the file.
const WALKS: usize = 100;

fn main() {
    println!(
        "| hosts | lines | read ms | all known ms | together ms | one that is unknown ms | one that changed ms |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for (hosts, types) in [(1_000, 1), (10_000, 1), (10_000, 3)] {
        measure(hosts, types);
    }
}

/// A file with so many keys for each host; the hosts show their first.
fn measure(hosts: usize, types: usize) {
    let names: Vec<KnownName> = (0..hosts)
        .map(|number| KnownName::new(&format!("node-{number}.dc1.example"), 22))
        .collect();
    let keys: Vec<PublicKey> = (0..hosts * types).map(|_| key()).collect();
    let mut text = String::new();
    for (number, key) in keys.iter().enumerate() {
        let name = names[number / types].to_string();
        let name = hashed(&name, std::array::from_fn(|_| fastrand::u8(..))).unwrap();
        writeln!(text, "{name} {}", key.to_openssh().unwrap()).unwrap();
    }

    let start = Instant::now();
    let mut index = Index::default();
    let warnings = index.add(&Path::new("known_hosts").into(), 1, &text);
    let read = start.elapsed();
    assert!(warnings.is_empty(), "{warnings:?}");

    let start = Instant::now();
    for (name, key) in names.iter().zip(keys.iter().step_by(types)) {
        assert!(!index.likely_algorithms(name).is_empty());
        assert!(index.knows(name, key));
    }
    let known = start.elapsed();

    let walk = |name: &dyn Fn(usize) -> KnownName, wanted: fn(&Verdict) -> bool| {
        let start = Instant::now();
        for number in 0..WALKS {
            let (name, key) = (name(number), key());
            assert!(!index.knows(&name, &key));
            let verdict = index.judge(&name, &key, &index.find(&name, 0));
            assert!(wanted(&verdict), "{verdict:?}");
        }
        start.elapsed() / u32::try_from(WALKS).unwrap()
    };
    let unknown = walk(
        &|number| KnownName::new(&format!("new-{number}"), 22),
        |verdict| matches!(verdict, Verdict::Unknown { .. }),
    );
    let changed = walk(&|number| names[number].clone(), |verdict| {
        matches!(verdict, Verdict::Changed { .. })
    });
    let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
    println!(
        "| {hosts} | {} | {} | {} | {} | {} | {} |",
        hosts * types,
        ms(read),
        ms(known),
        ms(read + known),
        ms(unknown),
        ms(changed)
    );
}

/// A key that nobody has: nothing here verifies a signature.
fn key() -> PublicKey {
    let kind = b"ssh-ed25519";
    let mut blob = vec![0, 0, 0, 11];
    blob.extend(kind);
    blob.extend([0, 0, 0, 32]);
    blob.extend((0..32).map(|_| fastrand::u8(..)));
    let text = format!("ssh-ed25519 {}", STANDARD.encode(blob));
    PublicKey::from_openssh(&text).unwrap()
}
