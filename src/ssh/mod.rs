//! The transport over SSH: connects, checks host keys, authenticates, runs commands. The only user of russh.
