//! The shell protocol between us and a node: start, watch, cancel, collect, clean up.
