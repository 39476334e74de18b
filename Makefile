# The two commands of the README. Both need Debian 12 (or like it), root and Rust, and set up everything else themselves.
.PHONY: demo test deny generated

# Starts four real nodes, pulls a private image of 80 MB onto each, shows it, and takes the nodes down.
demo:
	lab/install
	cargo build --release --locked
	lab/lab run 4 -- lab/demo

# Every check and every test, the lab's included. Without root: `cargo test` runs all that needs no lab.
test: deny
	lab/install
	cargo fmt --check
	cargo fmt --check --manifest-path lab/crictl/Cargo.toml
	cargo clippy --locked --all-targets --features lab -- -D warnings
	cargo clippy --locked --all-targets --manifest-path lab/crictl/Cargo.toml --target-dir lab/crictl/target -- -D warnings
	cargo test --locked --manifest-path lab/crictl/Cargo.toml --target-dir lab/crictl/target
	lab/oracles
	cargo test --locked --features lab

# Licences, sources and duplicate crates. Advisories need their database from the network: `cargo deny check advisories`.
deny:
	lab/install
	cargo deny --locked check bans licenses sources

# Manual pages and completions in docs/, after a change of the options.
generated:
	UPDATE=1 cargo test --locked --test generated
