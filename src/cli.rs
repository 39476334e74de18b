//! The command line as clap definitions, nothing more.
