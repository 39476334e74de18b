//! Every option that `ssh` knows: how its value is read, and what is said of those that only `ssh` itself can honour.

use super::algorithms::Family;

/// How an option's value is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// One of these words, in any case; the second of the pair is what it means.
    Choice(&'static [(&'static str, &'static str)]),
    /// Seconds, or `1h30m`, or `none`.
    Time,
    /// A whole number from 0 on.
    Number,
    /// A port number or the name of a service.
    Port,
    /// One word.
    Text,
    /// The rest of the line as it is written.
    Command,
    /// Hosts to jump through.
    Jump,
    /// A list of algorithms.
    Algorithms(Family),
    /// Words, where `none` stands alone.
    Words,
    /// One word a line; the lines add up.
    Files,
    /// A path that may be an environment variable.
    AgentPath,
    /// yes, no, or a path as above.
    ForwardAgent,
    /// AddKeysToAgent's own form.
    AddKeys,
    /// Domain names.
    Domains,
    /// `list:list` pairs.
    Cnames,
    /// Names of environment variables; the lines add up.
    SendEnv,
    /// `NAME=value` pairs.
    SetEnv,
    /// At least so many and at most so many words, not looked at any further.
    Loose(usize, usize),
    /// Opens a block for hosts.
    Host,
    /// Opens a block with conditions.
    Match,
    /// Reads other files.
    Include,
    /// Once had a meaning; `ssh` says nothing.
    Dropped,
    /// Not in this `ssh`; it says so and goes on.
    Unsupported,
}

/// What to say where a setting is not honoured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Warn {
    /// Values that change nothing; of SendEnv, patterns of names.
    pub harmless: &'static [&'static str],
    /// What happens instead.
    pub why: &'static str,
    /// Only where the operator's own file says it: distributions set it for everybody in the system's file.
    pub own_file_only: bool,
}

/// One option.
#[derive(Debug)]
pub(super) struct Spec {
    /// In lower case.
    pub name: &'static str,
    pub kind: Kind,
    pub warn: Option<Warn>,
}

const fn option(name: &'static str, kind: Kind) -> Spec {
    Spec {
        name,
        kind,
        warn: None,
    }
}

const fn warned(
    name: &'static str,
    kind: Kind,
    harmless: &'static [&'static str],
    why: &'static str,
) -> Spec {
    Spec {
        name,
        kind,
        warn: Some(Warn {
            harmless,
            why,
            own_file_only: false,
        }),
    }
}

const FLAG: Kind = Kind::Choice(&[
    ("yes", "yes"),
    ("true", "yes"),
    ("no", "no"),
    ("false", "no"),
]);
const FLAG_OR_ASK: Kind = Kind::Choice(&[
    ("yes", "yes"),
    ("true", "yes"),
    ("no", "no"),
    ("false", "no"),
    ("ask", "ask"),
]);
const LEVELS: Kind = Kind::Choice(&[
    ("quiet", "quiet"),
    ("fatal", "fatal"),
    ("error", "error"),
    ("info", "info"),
    ("verbose", "verbose"),
    ("debug", "debug1"),
    ("debug1", "debug1"),
    ("debug2", "debug2"),
    ("debug3", "debug3"),
]);

/// Other names of the same options.
const ALIASES: [(&str, &str); 15] = [
    (
        "challengeresponseauthentication",
        "kbdinteractiveauthentication",
    ),
    ("skeyauthentication", "kbdinteractiveauthentication"),
    ("tisauthentication", "kbdinteractiveauthentication"),
    ("dsaauthentication", "pubkeyauthentication"),
    ("identityfile2", "identityfile"),
    ("keepalive", "tcpkeepalive"),
    ("hostbasedkeytypes", "hostbasedacceptedalgorithms"),
    ("pubkeyacceptedkeytypes", "pubkeyacceptedalgorithms"),
    ("smartcarddevice", "pkcs11provider"),
    // Debian's own.
    ("protocolkeepalives", "serveraliveinterval"),
    ("setuptimeout", "serveraliveinterval"),
    ("useblacklistedkeys", "useroaming"),
    ("cipher", "useroaming"),
    ("fallbacktorsh", "useroaming"),
    ("usersh", "useroaming"),
];

/// The option of this name, which is in lower case.
pub(super) fn find(name: &str) -> Option<&'static Spec> {
    let name = ALIASES
        .iter()
        .find_map(|(alias, target)| (*alias == name).then_some(*target))
        .unwrap_or(name);
    OPTIONS.iter().find(|spec| spec.name == name)
}

/// For tests that try every option.
#[cfg(test)]
pub(super) fn by_index(index: usize) -> Option<&'static Spec> {
    OPTIONS.get(index)
}

const HOSTKEY_CHOICES: Kind = Kind::Choice(&[
    ("yes", "yes"),
    ("true", "yes"),
    ("no", "off"),
    ("false", "off"),
    ("off", "off"),
    ("ask", "ask"),
    ("accept-new", "accept-new"),
]);

const NO: &[&str] = &["no"];
const NONE: &[&str] = &["none"];

const OPTIONS: &[Spec] = &[
    option("host", Kind::Host),
    option("match", Kind::Match),
    option("include", Kind::Include),
    // Who, where and how.
    option("hostname", Kind::Text),
    option("user", Kind::Text),
    option("port", Kind::Port),
    option("tag", Kind::Text),
    option("refuseconnection", Kind::Text),
    option("ignoreunknown", Kind::Text),
    option(
        "addressfamily",
        Kind::Choice(&[("any", "any"), ("inet", "inet"), ("inet6", "inet6")]),
    ),
    option("bindaddress", Kind::Text),
    option("bindinterface", Kind::Text),
    option("proxycommand", Kind::Command),
    option("proxyjump", Kind::Jump),
    warned(
        "proxyusefdpass",
        FLAG,
        NO,
        "a ProxyCommand that passes a socket back is not supported: only its stdin and stdout are used",
    ),
    option("connecttimeout", Kind::Time),
    option("connectionattempts", Kind::Number),
    option("serveraliveinterval", Kind::Time),
    option("serveralivecountmax", Kind::Number),
    option("tcpkeepalive", FLAG),
    option("compression", Kind::Choice(&[("yes", "yes"), ("no", "no")])),
    option("batchmode", FLAG),
    option(
        "canonicalizehostname",
        Kind::Choice(&[
            ("yes", "yes"),
            ("true", "yes"),
            ("no", "no"),
            ("false", "no"),
            ("always", "always"),
        ]),
    ),
    option("canonicaldomains", Kind::Domains),
    option("canonicalizemaxdots", Kind::Number),
    option("canonicalizefallbacklocal", FLAG),
    option("canonicalizepermittedcnames", Kind::Cnames),
    // Proving who we are.
    option("identityfile", Kind::Files),
    option("certificatefile", Kind::Files),
    option("identitiesonly", FLAG),
    option("identityagent", Kind::AgentPath),
    option("addkeystoagent", Kind::AddKeys),
    option("preferredauthentications", Kind::Text),
    option(
        "pubkeyauthentication",
        Kind::Choice(&[
            ("yes", "yes"),
            ("true", "yes"),
            ("no", "no"),
            ("false", "no"),
            ("unbound", "unbound"),
            ("host-bound", "host-bound"),
        ]),
    ),
    option("passwordauthentication", FLAG),
    option("kbdinteractiveauthentication", FLAG),
    warned(
        "kbdinteractivedevices",
        Kind::Text,
        &[],
        "the server chooses the keyboard-interactive method",
    ),
    option("numberofpasswordprompts", Kind::Number),
    warned(
        "hostbasedauthentication",
        FLAG,
        NO,
        "host-based authentication is not tried",
    ),
    Spec {
        name: "gssapiauthentication",
        kind: FLAG,
        warn: Some(Warn {
            harmless: NO,
            why: "Kerberos (GSSAPI) authentication is not tried",
            own_file_only: true,
        }),
    },
    warned(
        "gssapikeyexchange",
        FLAG,
        NO,
        "Kerberos key exchange is not tried: the host key must be known",
    ),
    option("gssapidelegatecredentials", FLAG),
    option("gssapitrustdns", FLAG),
    option("gssapirenewalforcesrekey", FLAG),
    option("gssapiclientidentity", Kind::Text),
    option("gssapiserveridentity", Kind::Text),
    option("gssapikexalgorithms", Kind::Text),
    warned(
        "pkcs11provider",
        Kind::Text,
        NONE,
        "keys on a PKCS#11 token are not used directly: add them to an agent with ssh-add -s",
    ),
    warned(
        "securitykeyprovider",
        Kind::Text,
        &["internal", "none"],
        "security keys are used through an agent only, with the agent's own provider",
    ),
    option("pubkeyacceptedalgorithms", Kind::Algorithms(Family::Key)),
    option("hostbasedacceptedalgorithms", Kind::Algorithms(Family::Key)),
    option("enablesshkeysign", FLAG),
    warned(
        "forwardagent",
        Kind::ForwardAgent,
        NO,
        "the agent is not forwarded to the node",
    ),
    // Host keys.
    option("stricthostkeychecking", HOSTKEY_CHOICES),
    option("userknownhostsfile", Kind::Words),
    option("globalknownhostsfile", Kind::Words),
    warned(
        "knownhostscommand",
        Kind::Command,
        NONE,
        "the command is not run: host keys come from the known_hosts files only",
    ),
    option("hostkeyalias", Kind::Text),
    option("revokedhostkeys", Kind::Text),
    option("hashknownhosts", FLAG),
    option("updatehostkeys", FLAG_OR_ASK),
    warned(
        "checkhostip",
        FLAG,
        NO,
        "the node's address is not checked in known_hosts, only its name",
    ),
    warned(
        "verifyhostkeydns",
        FLAG_OR_ASK,
        NO,
        "SSHFP records are not looked up: the host key must be in known_hosts",
    ),
    warned(
        "nohostauthenticationforlocalhost",
        FLAG,
        NO,
        "host keys are checked for localhost too",
    ),
    option("requiredrsasize", Kind::Number),
    option("visualhostkey", FLAG),
    option(
        "fingerprinthash",
        Kind::Choice(&[
            ("md5", "md5"),
            ("sha1", "sha1"),
            ("sha256", "sha256"),
            ("sha384", "sha384"),
            ("sha512", "sha512"),
        ]),
    ),
    // The connection's own protection.
    option("hostkeyalgorithms", Kind::Algorithms(Family::Key)),
    option("casignaturealgorithms", Kind::Algorithms(Family::Signature)),
    option("kexalgorithms", Kind::Algorithms(Family::Kex)),
    option("ciphers", Kind::Algorithms(Family::Cipher)),
    option("macs", Kind::Algorithms(Family::Mac)),
    warned(
        "rekeylimit",
        Kind::Loose(1, 2),
        &["default"],
        "the connection is re-keyed after 1 GiB or one hour, whatever is set here",
    ),
    // What runs on the node and beside it.
    option(
        "requesttty",
        Kind::Choice(&[
            ("yes", "yes"),
            ("true", "yes"),
            ("no", "no"),
            ("false", "no"),
            ("force", "force"),
            ("auto", "auto"),
        ]),
    ),
    warned(
        "remotecommand",
        Kind::Command,
        NONE,
        "the command is not run on the node, only what this program runs",
    ),
    option("localcommand", Kind::Command),
    warned("permitlocalcommand", FLAG, NO, "LocalCommand is not run"),
    option(
        "sessiontype",
        Kind::Choice(&[
            ("none", "none"),
            ("subsystem", "subsystem"),
            ("default", "default"),
        ]),
    ),
    option("stdinnull", FLAG),
    option("forkafterauthentication", FLAG),
    warned(
        "sendenv",
        Kind::SendEnv,
        // Distributions send these for everybody; they change how things look, which the caller settles.
        &[
            "LANG",
            "LANGUAGE",
            "LC_*",
            "TERM",
            "COLORTERM",
            "NO_COLOR",
            "XMODIFIERS",
        ],
        "no environment variable is sent to the node",
    ),
    warned(
        "setenv",
        Kind::SetEnv,
        &[],
        "no environment variable is set on the node",
    ),
    option(
        "controlmaster",
        Kind::Choice(&[
            ("yes", "yes"),
            ("true", "yes"),
            ("no", "no"),
            ("false", "no"),
            ("auto", "auto"),
            ("ask", "ask"),
            ("autoask", "autoask"),
        ]),
    ),
    warned(
        "controlpath",
        Kind::Text,
        NONE,
        "a connection that ssh already shares is not used: every node is logged in to anew",
    ),
    option("controlpersist", Kind::Loose(1, 1)),
    option("localforward", Kind::Loose(2, 2)),
    option("remoteforward", Kind::Loose(1, 2)),
    option("dynamicforward", Kind::Loose(1, 1)),
    option("permitremoteopen", Kind::Loose(1, usize::MAX)),
    option("clearallforwardings", FLAG),
    option("exitonforwardfailure", FLAG),
    option("gatewayports", FLAG),
    option("forwardx11", FLAG),
    option("forwardx11trusted", FLAG),
    option("forwardx11timeout", Kind::Time),
    option("xauthlocation", Kind::Text),
    option(
        "tunnel",
        Kind::Choice(&[
            ("ethernet", "ethernet"),
            ("point-to-point", "point-to-point"),
            ("yes", "point-to-point"),
            ("true", "point-to-point"),
            ("no", "no"),
            ("false", "no"),
        ]),
    ),
    option("tunneldevice", Kind::Loose(1, 1)),
    option("streamlocalbindmask", Kind::Loose(1, 1)),
    option("streamlocalbindunlink", FLAG),
    option("escapechar", Kind::Loose(1, 1)),
    option("enableescapecommandline", FLAG),
    option("ipqos", Kind::Loose(1, 2)),
    option("loglevel", LEVELS),
    option("logverbose", Kind::Words),
    option("syslogfacility", Kind::Text),
    option("obscurekeystroketiming", Kind::Loose(1, 1)),
    option("channeltimeout", Kind::Loose(1, usize::MAX)),
    option("versionaddendum", Kind::Command),
    option("warnweakcrypto", Kind::Loose(1, usize::MAX)),
    // Gone.
    option("protocol", Kind::Dropped),
    option("useroaming", Kind::Dropped),
    option("globalknownhostsfile2", Kind::Dropped),
    option("rhostsauthentication", Kind::Dropped),
    option("userknownhostsfile2", Kind::Dropped),
    option("useprivilegedport", Kind::Dropped),
    option("afstokenpassing", Kind::Unsupported),
    option("kerberosauthentication", Kind::Unsupported),
    option("kerberostgtpassing", Kind::Unsupported),
    option("rsaauthentication", Kind::Unsupported),
    option("rhostsrsaauthentication", Kind::Unsupported),
    option("compressionlevel", Kind::Unsupported),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alias_leads_to_an_option_and_no_name_stands_twice() {
        for (alias, target) in ALIASES {
            assert_eq!(find(alias).unwrap().name, target);
        }
        let mut names: Vec<_> = OPTIONS.iter().map(|spec| spec.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(names.iter().all(|name| *name == name.to_lowercase()));
    }
}
