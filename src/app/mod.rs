//! The composition root: wires the rooms for each subcommand.
