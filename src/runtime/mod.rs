//! What is particular to each container runtime: its commands and how to read what it prints. Pure, no I/O.
