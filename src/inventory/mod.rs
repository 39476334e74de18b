//! Where nodes come from: inventory files and host expressions, resolved to a fleet.
