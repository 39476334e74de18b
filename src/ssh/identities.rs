//! The keys and the password that we can log in with: read once, before the first connection.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use russh::keys::Certificate;
use russh::keys::ssh_key::public::KeyData;

use super::agent::{self, Agent, AgentKey};
use super::key_candidate::KeyCandidate;
use super::key_files::{self, KeyFile};
use super::{HostSettings, LoginMethod, SshError, SshOptions};
use crate::model::{Node, Secret};

/// Asks the operator for the passphrase of a key file, where the number says how often it was asked before; `None`
/// where there is no answer.
pub type AskPassphrase<'a> = &'a dyn Fn(&Path, u32) -> Option<Secret>;

/// All that we can log in with. Shared by all connections of a run.
pub(super) struct Identities {
    files: HashMap<PathBuf, KeyFile>,
    /// Those that CertificateFile names.
    certificates: HashMap<PathBuf, Certificate>,
    agents: HashMap<PathBuf, (Agent, Vec<AgentKey>)>,
    /// What could not be used and why: told to an operator who is refused.
    pub(super) notes: Vec<String>,
}

impl Identities {
    /// Asks the agents for their keys, reads the key files that the nodes name, and the default ones where a
    /// node names none, and asks for the passphrases of those that cannot do without.
    ///
    /// # Errors
    /// A file that a node names and that is missing. A node whose named files are all no use, while there is
    /// neither a password nor another key of an agent. A password that is not UTF-8.
    pub(super) fn read(
        options: &SshOptions,
        nodes: &[Node],
        ask: AskPassphrase<'_>,
    ) -> Result<Self, SshError> {
        let mut passwords = options
            .password
            .iter()
            .chain(options.jump_passwords.values());
        if passwords.any(|password| std::str::from_utf8(password.expose()).is_err()) {
            return Err(SshError::Password);
        }
        let mut identities = Self {
            files: HashMap::new(),
            certificates: HashMap::new(),
            agents: HashMap::new(),
            notes: Vec::new(),
        };
        let mut silent = HashSet::new();
        for host in &options.hosts {
            if let Some(path) = &host.agent
                && !identities.agents.contains_key(path)
                && silent.insert(path)
            {
                identities.list_agent(path, host);
            }
            for path in &host.certificates {
                identities.read_certificate(path);
            }
        }
        let uses = uses(options, nodes);
        for login in &uses {
            identities.read_files(login.host, login.named)?;
        }
        for login in &uses {
            identities.unlock(login, ask);
        }
        for login in &uses {
            identities.check(login)?;
        }
        Ok(identities)
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn list_agent(&mut self, path: &Path, host: &HostSettings) {
        match agent::list(path) {
            Ok(held) => {
                // Sooner than the login's own deadline: the agent gets the blame.
                let agent = Agent::new(path.to_owned(), host.connect_timeout * 3 / 4);
                self.agents.insert(path.to_owned(), (agent, held));
            }
            Err(error) => self.note(format!(
                "the ssh-agent at {} was not used: {error}",
                path.display()
            )),
        }
    }

    fn read_certificate(&mut self, path: &Path) {
        if self.certificates.contains_key(path) {
            return;
        }
        match key_files::certificate(path) {
            Ok(None) => {}
            Ok(Some(certificate)) => {
                self.certificates.insert(path.to_owned(), certificate);
            }
            Err(reason) => self.note(format!(
                "the certificate {} was not used: {reason}",
                path.display()
            )),
        }
    }

    fn read_files(&mut self, host: &HostSettings, named: &[PathBuf]) -> Result<(), SshError> {
        for path in candidates(host, named) {
            if self.files.contains_key(path) {
                continue;
            }
            match KeyFile::read(path) {
                Ok(file) => {
                    self.files.insert(path.clone(), file);
                }
                Err(error) if !named.is_empty() => return Err(error),
                // A default file that is not there.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Asks for passphrases: of all keys that are named, of default ones only where nothing else could log in.
    fn unlock(&mut self, login: &Use<'_>, ask: AskPassphrase<'_>) {
        let Use { host, named, .. } = *login;
        if host.batch_mode || !host.methods.contains(&LoginMethod::PublicKey) {
            return;
        }
        for path in candidates(host, named) {
            if named.is_empty()
                && (login.has_password || !self.offer(host, named).unwrap_or_default().is_empty())
            {
                return;
            }
            let held = self
                .files
                .get(path)
                .is_some_and(|file| self.holds(host, file));
            if let Some(file) = self.files.get_mut(path)
                && file.is_encrypted()
                && !held
            {
                file.unlock(host.password_prompts, ask);
            }
        }
    }

    /// Notes what is of no use.
    fn check(&mut self, login: &Use<'_>) -> Result<(), SshError> {
        let Use { host, named, .. } = *login;
        if !host.methods.contains(&LoginMethod::PublicKey) {
            return Ok(());
        }
        let offer = self.offer(host, named).unwrap_or_default();
        let is_hopeless = offer.is_empty() && !login.has_password;
        if let Some(key) = offer.iter().find(|key| key.wants_touch()) {
            let note = format!(
                "the key {key} is in a FIDO device: each login with it may wait a minute for somebody to touch it"
            );
            self.note(note);
        }
        let all = candidates(host, named);
        let files: Vec<&KeyFile> = all.iter().filter_map(|path| self.files.get(path)).collect();
        let of_use = |file: &&KeyFile| file.private.is_some() || self.holds(host, file);
        let (good, bad): (Vec<_>, Vec<_>) = files.into_iter().partition(of_use);
        let mut bad = bad.into_iter().filter_map(KeyFile::lacking);
        // As with `ssh`, the agent's other keys may do.
        if !named.is_empty() && good.is_empty() && is_hopeless {
            return bad.next().map_or(Ok(()), Err);
        }
        // Where there is only the public key, its owner has put the other one elsewhere on purpose.
        let is_missing = |error: &SshError| matches!(error, SshError::File { error, .. } if error.kind() == ErrorKind::NotFound);
        let notes: Vec<String> = bad
            .filter(|error| !is_missing(error))
            .map(|error| format!("not used: {error}"))
            .collect();
        for note in notes {
            self.note(note);
        }
        Ok(())
    }

    fn agent(&self, host: &HostSettings) -> Option<&(Agent, Vec<AgentKey>)> {
        self.agents.get(host.agent.as_ref()?)
    }

    /// Whether the host's agent holds the key of this file, or a certificate for it.
    fn holds(&self, host: &HostSettings, file: &KeyFile) -> bool {
        let (Some((_, held)), Some(public)) = (self.agent(host), &file.public) else {
            return false;
        };
        held.iter().any(|held| held.key() == public.key_data())
    }

    /// What to offer a host where these files are named. As OpenSSH's client does, but for one thing: named
    /// files come before the agent's other keys in any case, so that many of those do not exhaust the server's
    /// patience. First the certificates of CertificateFile; then the named files, each after the certificate beside it;
    /// without any, the default ones that the agent holds. Then what else the agent holds, unless IdentitiesOnly is
    /// set, then the other default files.
    ///
    /// # Errors
    /// The first file that no node named when this was made.
    pub(super) fn offer<'a>(
        &'a self,
        host: &'a HostSettings,
        named: &'a [PathBuf],
    ) -> Result<Vec<KeyCandidate<'a>>, &'a Path> {
        if let Some(unread) = named.iter().find(|path| !self.files.contains_key(*path)) {
            return Err(unread);
        }
        let files: Vec<&KeyFile> = candidates(host, named)
            .iter()
            .filter_map(|path| self.files.get(path))
            .collect();
        let agent = self.agent(host);
        let held = agent.map_or(&[][..], |(_, held)| held);
        let make = |key, certificate, origin| {
            KeyCandidate::new(
                key,
                certificate,
                agent.map(|(agent, held)| (agent, held.as_slice())),
                &files,
                origin,
            )
        };
        let mut all: Vec<KeyCandidate<'a>> = Vec::new();
        // With IdentitiesOnly a certificate needs its key among the files, even where the agent holds it.
        let is_named = |key: &KeyData| {
            let mut public = files.iter().filter_map(|file| file.public.as_ref());
            public.any(|public| public.key_data() == key)
        };
        for path in &host.certificates {
            if let Some(certificate) = self.certificates.get(path)
                && (!host.identities_only || is_named(certificate.public_key()))
            {
                all.push(make(
                    certificate.public_key(),
                    Some(certificate),
                    path.as_path(),
                ));
            }
        }
        let mut last = Vec::new();
        for file in &files {
            let Some(public) = &file.public else { continue };
            let beside = file.certificate.as_ref().filter(|certificate| {
                host.certificates.is_empty() && certificate.public_key() == public.key_data()
            });
            let place = if named.is_empty() && !self.holds(host, file) {
                &mut last
            } else {
                &mut all
            };
            if let Some(certificate) = beside {
                place.push(make(public.key_data(), Some(certificate), &file.path));
            }
            place.push(make(public.key_data(), None, &file.path));
        }
        if !host.identities_only {
            let from_agent = Path::new("agent");
            all.extend(
                held.iter()
                    .map(|held| make(held.key(), held.certificate(), from_agent)),
            );
        }
        all.append(&mut last);
        let mut chosen: Vec<KeyCandidate<'a>> = Vec::with_capacity(all.len());
        for mut offer in all {
            let known = chosen.iter().any(|other| other.is_same(&offer));
            if offer.can_sign() && !known && offer.allow(host) {
                chosen.push(offer);
            }
        }
        Ok(chosen)
    }
}

/// The files to try: those that are named, or else the default ones.
fn candidates<'a>(host: &'a HostSettings, named: &'a [PathBuf]) -> &'a [PathBuf] {
    if named.is_empty() {
        &host.default_identities
    } else {
        named
    }
}

/// What a login can be tried with, apart from what an agent holds.
struct Use<'a> {
    host: &'a HostSettings,
    named: &'a [PathBuf],
    has_password: bool,
}

/// Each combination that the run's logins have, once.
fn uses<'a>(options: &'a SshOptions, nodes: &'a [Node]) -> Vec<Use<'a>> {
    let mut seen = HashSet::new();
    let mut uses = Vec::new();
    for node in nodes {
        let hops = node.jump.iter().map(|hop| {
            let named = match hop.identities.as_slice() {
                [] => node.identities.as_slice(),
                own => own,
            };
            let has_password = options.password_of(hop).is_some();
            (hop.ssh_settings, named, has_password)
        });
        let own = (
            node.ssh_settings,
            node.identities.as_slice(),
            options.password.is_some(),
        );
        for (number, named, has_password) in hops.chain([own]) {
            if let Some(host) = options.hosts.get(number)
                && seen.insert((number, named, has_password))
            {
                uses.push(Use {
                    host,
                    named,
                    has_password,
                });
            }
        }
    }
    uses
}

#[cfg(test)]
#[path = "identities_tests.rs"]
mod tests;
