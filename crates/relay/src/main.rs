//! The relay as a program: it takes no arguments and speaks on standard input and output.

fn main() {}
