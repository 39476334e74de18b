//! `%h` tokens, `${NAME}` variables and `~` within values.

use std::collections::BTreeMap;
use std::path::Path;

use sha1::{Digest, Sha1};

use super::system_probe::{LocalEnv, SystemProbe};

/// What the tokens stand for, once the host, port and user are known.
#[derive(Debug, Clone)]
pub(super) struct Tokens<'a> {
    pub ambient: &'a LocalEnv,
    /// The name that is dialled.
    pub host: &'a str,
    /// The name as it was given.
    pub original: &'a str,
    /// The alias for host keys, where there is one.
    pub alias: Option<&'a str>,
    /// What `%k` is without an alias.
    pub key_name: &'a str,
    pub port: u16,
    pub user: &'a str,
    /// ProxyJump as written, or nothing.
    pub jump: &'a str,
}

/// Tokens of most options.
pub(super) const USUAL: &str = "CLdhijklnpru";
/// Tokens of `Match exec`.
pub(super) const EXEC: &str = "CLdhijklnpru";
/// Tokens of ProxyCommand.
pub(super) const PROXY: &str = "hknpr";
/// Tokens of User.
const USER: &str = "Ldhiklnpu";
/// Tokens of HostName.
pub(super) const HOSTNAME: &str = "h";

impl Tokens<'_> {
    fn value(&self, token: char) -> Option<String> {
        let ambient = self.ambient;
        Some(match token {
            'h' => self.host.to_string(),
            'n' => self.original.to_string(),
            'k' => self.alias.unwrap_or(self.key_name).to_string(),
            'p' => self.port.to_string(),
            'r' => self.user.to_string(),
            'u' => ambient.user.clone(),
            'd' => ambient.home.to_string_lossy().into_owned(),
            'i' => ambient.uid.to_string(),
            'l' => ambient.hostname.clone(),
            'L' => ambient
                .hostname
                .split('.')
                .next()
                .unwrap_or_default()
                .to_string(),
            'j' => self.jump.to_string(),
            'C' => self.hash(),
            _ => return None,
        })
    }

    /// `%C` as OpenSSH 9.2 has it; 9.6 and later hash the jump host too.
    fn hash(&self) -> String {
        let mut hash = Sha1::new();
        for part in [
            &self.ambient.hostname,
            self.host,
            &self.port.to_string(),
            self.user,
        ] {
            hash.update(part.as_bytes());
        }
        hash.finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Replaces the tokens that `allowed` names, and `%%`.
    ///
    /// # Errors
    /// A sentence, for a token that is not allowed here.
    pub fn expand(&self, text: &str, allowed: &str) -> Result<String, String> {
        replace(text, Some((self, allowed)), None)
    }

    /// Replaces tokens and `${NAME}` variables.
    ///
    /// # Errors
    /// A sentence, for a token that is not allowed here or a variable that is not set.
    pub fn expand_all(&self, text: &str) -> Result<String, String> {
        replace(text, Some((self, USUAL)), Some(&self.ambient.environment))
    }

    /// Replaces tokens and variables in User.
    ///
    /// # Errors
    /// As above.
    pub fn expand_user(&self, text: &str) -> Result<String, String> {
        replace(text, Some((self, USER)), Some(&self.ambient.environment))
    }

    /// A path: `~` first, then tokens and variables.
    ///
    /// # Errors
    /// A sentence, as above, or for a user that does not exist.
    pub fn path(&self, text: &str, system_probe: &dyn SystemProbe) -> Result<String, String> {
        self.expand_all(&home(text, &self.ambient.home, system_probe)?)
    }
}

/// Replaces what is known of Include before there is a host: variables, and the tokens of this machine and user.
///
/// # Errors
/// A sentence, for a variable that is not set, or a token that is unknown or of the host.
pub(super) fn include(text: &str, ambient: &LocalEnv) -> Result<String, String> {
    let tokens = Tokens {
        ambient,
        host: "",
        original: "",
        alias: None,
        key_name: "",
        port: 0,
        user: "",
        jump: "",
    };
    replace(text, Some((&tokens, "Ldilu")), Some(&ambient.environment))
}

/// Replaces `${NAME}` variables alone.
///
/// # Errors
/// A sentence, for a variable that is not set.
pub(super) fn variables(
    text: &str,
    environment: &BTreeMap<String, String>,
) -> Result<String, String> {
    replace(text, None, Some(environment))
}

fn replace(
    text: &str,
    tokens: Option<(&Tokens<'_>, &str)>,
    environment: Option<&BTreeMap<String, String>>,
) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['%', '$']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("${")
            && let Some(environment) = environment
        {
            let (name, behind) = after
                .split_once('}')
                .ok_or_else(|| format!("\"{text}\": a variable has no closing brace"))?;
            let value = environment
                .get(name)
                .ok_or_else(|| format!("\"{text}\": the environment variable {name} is not set"))?;
            out.push_str(value);
            rest = behind;
        } else if let Some(after) = rest.strip_prefix('%')
            && let Some((tokens, allowed)) = tokens
        {
            let token = after.chars().next().ok_or_else(|| {
                format!("\"{text}\" ends within a token: write %% for a percent sign")
            })?;
            let known = allowed
                .contains(token)
                .then(|| tokens.value(token))
                .flatten();
            match (token, known) {
                ('%', _) => out.push('%'),
                (_, Some(value)) => out.push_str(&value),
                _ => return Err(format!("\"{text}\": the token %{token} is not known here")),
            }
            rest = &after[token.len_utf8()..];
        } else {
            out.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Replaces `~` and `~user` at the front.
///
/// # Errors
/// A sentence, for a user that does not exist.
pub(super) fn home(
    text: &str,
    own: &Path,
    system_probe: &dyn SystemProbe,
) -> Result<String, String> {
    let Some(after) = text.strip_prefix('~') else {
        return Ok(text.to_string());
    };
    let (user, path) = after.split_once('/').unwrap_or((after, ""));
    let folder = if user.is_empty() {
        own.to_path_buf()
    } else {
        system_probe
            .home_of(user)
            .ok_or_else(|| format!("\"{text}\": there is no user {user}"))?
    };
    let folder = folder.to_string_lossy();
    let slash = if folder.ends_with('/') { "" } else { "/" };
    Ok(format!("{folder}{slash}{}", path.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system_probe::System;
    use proptest::prelude::*;

    fn ambient() -> LocalEnv {
        LocalEnv {
            user: "me".into(),
            uid: 1000,
            home: "/home/me".into(),
            hostname: "here.example".into(),
            environment: [("DIR".to_string(), "%h".to_string())].into(),
        }
    }

    fn tokens(ambient: &LocalEnv) -> Tokens<'_> {
        Tokens {
            ambient,
            host: "real.example",
            original: "web",
            alias: None,
            key_name: "web",
            port: 2222,
            user: "ops",
            jump: "",
        }
    }

    #[test]
    fn tokens_stand_for_what_they_name() {
        let ambient = ambient();
        let tokens = tokens(&ambient);
        assert_eq!(
            tokens
                .expand_all("%h %n %k %p %r %u %d %i %l %L %j %% $x ${DIR}")
                .unwrap(),
            "real.example web web 2222 ops me /home/me 1000 here.example here  % $x %h"
        );
        // printf here.examplereal.example2222ops | sha1sum
        assert_eq!(
            tokens.expand_all("%C").unwrap(),
            "82a4c399739def74af952891103eea3477941f06"
        );
    }

    #[test]
    fn unknown_tokens_and_unset_variables_are_errors() {
        let ambient = ambient();
        let tokens = tokens(&ambient);
        for wrong in ["%q", "a%", "${NOT_SET}", "${DIR", "${}", "%ö"] {
            assert!(tokens.expand_all(wrong).is_err(), "{wrong}");
        }
        assert!(tokens.expand("%n", HOSTNAME).is_err());
        assert_eq!(tokens.expand("${DIR}", PROXY).unwrap(), "${DIR}");
    }

    #[test]
    fn a_tilde_is_a_home_directory_only_in_front() {
        let own = Path::new("/home/me");
        let home = |text| home(text, own, &System).unwrap();
        assert_eq!(home("~/.ssh//x"), "/home/me/.ssh//x");
        assert_eq!(home("~//x"), "/home/me/x");
        assert_eq!(home("~"), "/home/me/");
        assert_eq!(home("/a/~"), "/a/~");
        assert_eq!(home("~root/x"), "/root/x");
        assert!(super::home("~no-such-user-here/x", own, &System).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_expanded_without_panic(text in any::<String>()) {
            let ambient = ambient();
            let _ = tokens(&ambient).expand_all(&text);
            let _ = variables(&text, &ambient.environment);
            let _ = home(&text, Path::new("/h"), &System);
        }
    }
}
