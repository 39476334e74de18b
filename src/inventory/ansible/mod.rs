//! Ansible's inventories: INI, YAML and what executables print, with `group_vars` and `host_vars`.
//!
//! Ansible merges all of its sources into one world of groups and hosts, where the last one wins; so does
//! [`World`]. When all sources are read, each host's variables are merged as Ansible merges them, weakest
//! first: the variables of `all`, those of its groups (by depth, then `ansible_group_priority`, then name),
//! `group_vars/all`, `group_vars/GROUP`, the host's own, `host_vars/HOST`.
//!
//! Only these variables are looked at; all others may say what they like:
//!
//! | variable | meaning here |
//! | --- | --- |
//! | `ansible_host` (`ansible_ssh_host`) | what is dialled |
//! | `ansible_port` (`ansible_ssh_port`) | the port |
//! | `ansible_user` (`ansible_ssh_user`) | who logs in |
//! | `ansible_ssh_private_key_file` (`ansible_private_key_file`) | a key file |
//! | `ansible_ssh_args`, `ansible_ssh_common_args`, `ansible_ssh_extra_args` | jump hosts, ProxyCommand, and lines of ssh_config (`ssh_args`) |
//! | `ansible_become`, `ansible_become_user`, `ansible_become_method` | root through sudo or, where that is not there, doas |
//! | `ansible_become_password` and other passwords | not read: `-K` and `-k` ask |
//! | `ansible_connection` | must be ssh |
//! | `ansible_group_priority` | a group's weight among those of its depth |
//! | `prepull_runtime` | docker, crictl or auto |
//! | `prepull_runtime_endpoint` | the runtime's socket |
//!
//! `ansible.cfg` and Ansible's environment say some of them for all hosts, weaker than any inventory (`config`).
//!
//! A value that needs Ansible to be known (a template, a vaulted text) is not text to pass on: a node that
//! it would reach is refused, with the place of the value.

mod config;
mod files;
mod graph;
mod ini;
mod ini_words;
mod literal;
mod names;
mod settings;
mod ssh_args;
mod tree;
mod variables;
mod vars_files;
mod world;

pub(super) use config::Config;
pub(super) use ini::{header, read as read_ini};
pub(super) use names::is_range;
pub(super) use tree::{PARTS, read_listing, read_yaml};
pub(super) use variables::VAULT;
pub(super) use vars_files::exist_beside as vars_exist_beside;
pub(super) use world::World;
