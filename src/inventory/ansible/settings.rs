//! A host's merged variables as a node's settings.

use std::path::{Path, PathBuf};

use super::super::error::InputError;
use super::super::layers::{self, NodeSettings};
use super::super::names::{self, NAME_LIMIT};
use super::super::native::{self, Origin};
use super::ssh_args::SshArguments;
use super::variables::{Content, Said, Spot, Variables};

/// What is wrong, and where that was said.
type Wrong = (Spot, InputError);

/// The address, where it is not the name, and the settings of a host. `may_run` tells whether what stands at a spot may
/// name a program to run on this machine.
pub(super) fn read(
    host: &str,
    spot: Spot,
    said: &Variables,
    home: Option<&Path>,
    may_run: &dyn Fn(Spot) -> Result<(), InputError>,
) -> Result<(Option<String>, NodeSettings), Wrong> {
    let reader = Reader { host, said };
    reader.connection()?;
    let address = reader.checked(&["ansible_ssh_host", "ansible_host"], |text| {
        let plain = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let plain = plain.unwrap_or(text);
        names::check_host(plain).map(|()| plain.to_string())
    })?;
    let name = match address {
        Some(_) => alias(host),
        None => names::check_host(host).map_err(|fault| {
            if host.contains('@') {
                fault.with_hint("write the user as ansible_user=NAME")
            } else {
                fault
            }
        }),
    };
    name.map_err(|fault| (spot, fault))?;
    let origin = Origin {
        name: String::new(),
        // As for ssh, a relative path starts where the program was started.
        folder: PathBuf::new(),
        home: home.map(Path::to_path_buf),
    };
    let arguments = reader.ssh_arguments(may_run)?;
    let settings = NodeSettings {
        user: reader.checked(&["ansible_ssh_user", "ansible_user"], |text| {
            names::check_user(text).map(|()| text.to_string())
        })?,
        port: reader.checked(&["ansible_ssh_port", "ansible_port"], names::parse_port)?,
        identities: reader.checked(
            &["ansible_ssh_private_key_file", "ansible_private_key_file"],
            |text| native::path(text, &origin).map(|path| vec![path]),
        )?,
        jump: arguments.jump,
        proxy_command: arguments.proxy_command,
        ssh_options: (!arguments.options.is_empty()).then_some(arguments.options),
        runtime: reader.checked(&["prepull_runtime"], layers::parse_runtime)?,
        endpoint: reader.checked(&["prepull_runtime_endpoint"], layers::parse_endpoint)?,
        become_root: reader.become_root()?,
        ..NodeSettings::default()
    };
    Ok((address.filter(|address| address != host), settings))
}

/// A name that is not dialled may be more than a host name, but must not look like an option.
fn alias(name: &str) -> Result<(), InputError> {
    let fits = |c: char| c.is_ascii_graphic() && !"'\"`,".contains(c);
    if name.is_empty()
        || name.len() > NAME_LIMIT
        || name.starts_with('-')
        || !name.chars().all(fits)
    {
        return Err(InputError::new("this is no name for a node")
            .with_hint("use letters, digits and - . _"));
    }
    Ok(())
}

struct Reader<'a> {
    host: &'a str,
    said: &'a Variables,
}

impl<'a> Reader<'a> {
    /// The text of the first of these names that has one.
    fn text(&self, names: &[&'static str]) -> Result<Option<(&'static str, &'a str, Spot)>, Wrong> {
        for name in names {
            let Some(Said { content, spot }) = self.said.get(name) else {
                continue;
            };
            let refused = |what: &str| {
                InputError::new(format!("\"{name}\" of the node \"{}\" {what}", self.host))
                    .with_hint("write its value, or leave the node out with --exclude")
            };
            match content {
                Content::Nothing => {}
                Content::Vaulted => {
                    return Err((*spot, refused("is encrypted by Ansible's vault")));
                }
                Content::Compound => return Err((*spot, refused("is a list or map"))),
                Content::Text(text)
                    if ["{{", "{%", "{#"].iter().any(|sign| text.contains(sign)) =>
                {
                    return Err((
                        *spot,
                        refused("is a template, which only Ansible can fill in"),
                    ));
                }
                Content::Text(text) => return Ok(Some((name, text, *spot))),
            }
        }
        Ok(None)
    }

    fn checked<T>(
        &self,
        names: &[&'static str],
        read: impl Fn(&str) -> Result<T, InputError>,
    ) -> Result<Option<T>, Wrong> {
        let Some((name, text, spot)) = self.text(names)? else {
            return Ok(None);
        };
        read(text).map(Some).map_err(|fault| {
            let message = format!("{name} of the node \"{}\": {}", self.host, fault.message);
            (spot, InputError { message, ..fault })
        })
    }

    fn connection(&self) -> Result<(), Wrong> {
        self.checked(&["ansible_connection"], |text| {
            let plain = text.rsplit('.').next().unwrap_or(text);
            match plain {
                "ssh" | "smart" | "paramiko" | "paramiko_ssh" => Ok(()),
                _ => Err(InputError::new(format!("a \"{text}\" connection, not ssh"))
                    .with_hint("leave the node out with --exclude")),
            }
        })
        .map(|_| ())
    }

    fn ssh_arguments(
        &self,
        may_run: &dyn Fn(Spot) -> Result<(), InputError>,
    ) -> Result<SshArguments, Wrong> {
        let all = std::cell::RefCell::new(SshArguments::default());
        // In the order in which Ansible hands them to ssh, for which the first one counts.
        for name in [
            "ansible_ssh_args",
            "ansible_ssh_common_args",
            "ansible_ssh_extra_args",
        ] {
            let had_command = all.borrow().proxy_command.is_some();
            self.checked(&[name], |text| all.borrow_mut().add(text))?;
            if !had_command
                && all.borrow().proxy_command.is_some()
                && let Some((_, _, spot)) = self.text(&[name])?
            {
                may_run(spot).map_err(|fault| (spot, fault))?;
            }
        }
        Ok(all.into_inner())
    }

    fn become_root(&self) -> Result<Option<bool>, Wrong> {
        let wanted = self.checked(&["ansible_become"], truth)?;
        if wanted == Some(true) {
            self.only("ansible_become_user", &["root"])?;
            self.only("ansible_become_method", &["sudo", "doas"])?;
        }
        Ok(wanted)
    }

    fn only(&self, name: &'static str, right: &[&str]) -> Result<(), Wrong> {
        self.checked(&[name], |text| {
            let plain = text.rsplit('.').next().unwrap_or(text);
            if right.contains(&plain) {
                Ok(())
            } else {
                Err(InputError::new(format!("\"{text}\" is not supported"))
                    .with_hint("prepull becomes root, through sudo or doas"))
            }
        })
        .map(|_| ())
    }
}

/// Ansible's words for truth, on top of YAML's.
fn truth(text: &str) -> Result<bool, InputError> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "y" | "t" => Ok(true),
        "0" | "n" | "f" => Ok(false),
        plain => native::truth(plain),
    }
}
