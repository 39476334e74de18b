//! Values that are written as one word of a few: on the command line, in inventories and in JSON.

/// A value that is written as one word of a few.
pub trait Choice: Copy + PartialEq + Send + Sync + 'static {
    /// Each value with its word and one sentence for the operator, which may be empty. In the order in which they are
    /// shown.
    fn all() -> Vec<(Self, &'static str, &'static str)>;

    /// The value that is written as `word`, upper and lower case being the same.
    fn from_word(word: &str) -> Option<Self> {
        let mut all = Self::all().into_iter();
        all.find_map(|(value, its, _)| its.eq_ignore_ascii_case(word).then_some(value))
    }
}

/// Lists the values of a [`Choice`] once: the enum, its words and what they mean to an operator follow from it.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        $name:ident {
            $($(#[doc = $help:literal])+ $(#[$default:ident])? $value:ident = $word:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[doc = $help])+ $(#[$default])? $value,)*
        }

        impl $name {
            /// The word that it is written as.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)*
                }
            }
        }

        impl $crate::model::Choice for $name {
            fn all() -> Vec<(Self, &'static str, &'static str)> {
                vec![$((Self::$value, $word, concat!($($help),+).trim()),)*]
            }
        }
    };
}

choice! {
    /// Whether to pull what is already there.
    PullWhen {
        /// Ask the registry in any case.
        Always = "always",
        /// Leave a node alone that holds the image.
        #[default]
        Missing = "missing",
    }
}

choice! {
    /// Where nodes pull from.
    PullVia {
        /// From the images' registries.
        #[default]
        Registry = "registry",
        /// From prepull, through the SSH connections; from the registry where that cannot be done.
        Ssh = "ssh",
        /// From prepull alone: no node asks a registry or gets a registry login.
        SshOnly = "ssh-only",
        /// From the registries, by pods of a DaemonSet instead of SSH; with --kube.
        DaemonSet = "daemonset",
    }
}

choice! {
    /// What becomes of nodes that have no pod of the DaemonSet.
    RestVia {
        /// They fail, and the message says why there is no pod.
        #[default]
        None = "none",
        /// They pull over SSH, in the same run.
        Ssh = "ssh",
    }
}

choice! {
    /// What is done with a host whose key is not in known_hosts. A changed or revoked key is refused in any case, but for
    /// `Off`.
    HostKeyPolicy {
        /// An unknown key stops that node.
        #[default]
        Strict = "strict",
        /// An unknown key is recorded and accepted.
        AcceptNew = "accept-new",
        /// Every key is accepted: whoever answers gets the credentials.
        Off = "off",
    }
}

choice! {
    /// The types of a Kubernetes node's addresses (core/v1 `NodeAddressType`), as the API writes them.
    AddressType {
        /// An address within the cluster's network.
        #[default]
        InternalIp = "InternalIP",
        /// An address from outside.
        ExternalIp = "ExternalIP",
        /// What the node calls itself.
        Hostname = "Hostname",
        /// A name within the cluster's network.
        InternalDns = "InternalDNS",
        /// A name from outside.
        ExternalDns = "ExternalDNS",
    }
}

choice! {
    /// How a run is shown while it goes on.
    ProgressStyle {
        /// Bars on a terminal, lines elsewhere.
        #[default]
        Auto = "auto",
        /// Bars.
        Bars = "bars",
        /// One line for each change.
        Lines = "lines",
        /// Nothing until the end.
        None = "none",
    }
}

choice! {
    /// When to use colour.
    ColorChoice {
        /// On a terminal, unless NO_COLOR is set.
        #[default]
        Auto = "auto",
        /// Always.
        Always = "always",
        /// Never.
        Never = "never",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_as_its_value() {
        for (value, word, _) in AddressType::all() {
            assert_eq!(value.as_str(), word);
            assert_eq!(AddressType::from_word(word), Some(value));
        }
        assert_eq!(
            AddressType::from_word("hostname"),
            Some(AddressType::Hostname)
        );
        assert_eq!(PullWhen::from_word("sometimes"), None);
    }
}
