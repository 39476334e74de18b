# The two commands of the README. Both need Debian 12 (or like it), root and Rust, and set up everything else themselves.
.PHONY: demo test check deny advisories sbom generated book pictures package relay static

# Starts four real nodes, pulls a private image of 80 MB onto each, shows it, and takes the nodes down.
demo:
	lab/install
	cargo build --release --locked
	lab/lab run 4 -- lab/demo

# For daily work, without root or packages: format, lints, and the tests that need nothing but Rust.
check:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
	cargo test --locked

# Every check and every test, the lab's included. Without root: `cargo test` runs all that needs no lab.
test: deny
	lab/install
	cargo fmt --all --check
	cargo fmt --check --manifest-path lab/crictl/Cargo.toml
	cargo clippy --locked --all-targets --features lab -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
	cargo clippy --locked --all-targets --manifest-path lab/crictl/Cargo.toml --target-dir lab/crictl/target -- -D warnings
	cargo test --locked --manifest-path lab/crictl/Cargo.toml --target-dir lab/crictl/target
	lab/shellcheck
	lab/oracles
	# Most tests wait more than they work. Signals that are ignored here would stay ignored in prepull, which tests interrupt.
	RUST_TEST_THREADS=4 env --default-signal=HUP,INT,QUIT,TERM cargo test --locked --features lab --no-fail-fast

# Licences, sources and duplicate crates.
deny:
	lab/install
	cargo deny --locked check bans licenses sources

# Known weaknesses of dependencies, against what deny.toml says of each. The database comes from the network, which is why no
# test needs this, or from a checkout of github.com/RustSec/advisory-db: make advisories ADVISORY_DB=../advisory-db
advisories:
	lab/install
	ADVISORY_DB=$(ADVISORY_DB) lab/advisories

# What is built in, as CycloneDX: target/prepull.cdx.json. Building the tool takes a minute, which no test should.
sbom:
	command -v cargo-sbom >/dev/null || cargo install --quiet --locked --debug --version 0.10.0 cargo-sbom
	mkdir -p target
	cargo sbom --output-format cyclone_dx_json_1_6 >target/prepull.cdx.json

# Manual pages and completions in docs/, after a change of the options.
generated:
	UPDATE=1 cargo test --locked --test generated

# The documentation as a book with search, in target/book/html, its links checked. The first time it builds mdBook.
book:
	lab/book

# The recording and the screenshots of the README, from a real run on the lab.
pictures:
	lab/install
	cargo build --locked
	lab/lab run 6 -- lab/pictures

# A Debian package in target/debian.
package: relay
	lab/install
	cargo deb --locked

# The relays of --fan-out for both architectures, in target/relay.
relay:
	lab/relay

# A binary without shared libraries, in target/x86_64-unknown-linux-musl/release.
static:
	lab/static
