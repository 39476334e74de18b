//! The composition root: wires the rooms for each subcommand.

mod background;
mod exit;
mod run;
mod stop;

use std::ffi::OsString;

use anyhow::Result;
use clap::Parser;

use background::SshBackground;
pub use exit::Exit;

use crate::cli::{Cli, Command, NodesFormat};
use crate::inventory::Asked;
use crate::model::text::printable;
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
    let login = match &cli.command {
        Command::Pull(args) => &args.reach.ssh.login,
        Command::Check(args) => &args.reach.ssh.login,
        Command::Exec(args) => &args.reach.ssh.login,
        Command::Nodes(args) => &args.login,
    };
    let ssh = SshBackground::read(login.ssh_config.as_deref())?;
    let behind = |asked: &Asked<'_>| ssh.ask(asked);
    let settings = match &cli.command {
        Command::Pull(args) => settings::pull(args, &ambient, &behind)?,
        Command::Check(args) => settings::check(args, &ambient, &behind)?,
        Command::Exec(args) => settings::exec(args, &ambient, &behind)?,
        Command::Nodes(args) => {
            let fleet = settings::nodes(args, &ambient, &behind)?;
            warn(&ssh.warnings());
            let text = match args.output {
                NodesFormat::Human => report::fleet_table(&fleet),
                NodesFormat::Json => pretty(&report::fleet_json(&fleet)),
            };
            report::print_stdout(&text)?;
            return Ok(Exit::Success);
        }
    };
    warn(&ssh.warnings());
    run::run(&settings, &ssh)
}

/// What is not as the operator may expect, once, before anything starts.
fn warn(warnings: &[String]) {
    for warning in warnings {
        report::print_stderr(&format!("prepull: warning: {}\n", printable(warning)));
    }
}

/// A JSON value for people and programs alike, with a newline at the end.
fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}
