//! The composition root: wires the rooms for each subcommand.

mod exit;
mod run;
mod stop;

use std::ffi::OsString;

use anyhow::Result;
use clap::Parser;

pub use exit::Exit;

use crate::cli::{Cli, Command, NodesArgs, NodesFormat};
use crate::report;
use crate::settings::{self, Ambient};

/// The whole program: from its arguments to its exit status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // clap's own words, help and version included; a closed pipe is no reason to complain.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Success
            };
        }
    };
    perform(&cli).unwrap_or_else(|error| {
        report::print_stderr(&report::error_text(&error));
        Exit::Usage
    })
}

/// Does what was asked. An error means that nothing was touched.
fn perform(cli: &Cli) -> Result<Exit> {
    let ambient = Ambient::of_this_process();
    match &cli.command {
        Command::Pull(args) => run::run(&settings::pull(args, &ambient)?),
        Command::Check(args) => run::run(&settings::check(args, &ambient)?),
        Command::Exec(args) => run::run(&settings::exec(args, &ambient)?),
        Command::Nodes(args) => nodes(args, &ambient),
    }
}

fn nodes(args: &NodesArgs, ambient: &Ambient) -> Result<Exit> {
    let fleet = settings::nodes(args, ambient)?;
    let text = match args.output {
        NodesFormat::Human => report::fleet_table(&fleet),
        NodesFormat::Json => pretty(&report::fleet_json(&fleet)),
    };
    report::print_stdout(&text)?;
    Ok(Exit::Success)
}

/// A JSON value for people and programs alike, with a newline at the end.
fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}
