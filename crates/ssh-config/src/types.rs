//! Types that several parts of the resolver share.

/// Which addresses are dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressFamily {
    /// All of them.
    Any,
    /// IPv4 only.
    Inet,
    /// IPv6 only.
    Inet6,
}

/// One host to jump through, as it is written. Its own ssh_config says what is left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JumpHost {
    /// Who logs in there, where that is written.
    pub user: Option<String>,
    /// The host, without brackets.
    pub host: String,
    /// Its port, where that is written.
    pub port: Option<u16>,
}

impl JumpHost {
    /// Back to the written form, with brackets where an address needs them.
    pub fn written(&self) -> String {
        let user = self.user.as_ref().map(|user| format!("{user}@"));
        let port = self.port.map(|port| format!(":{port}"));
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        format!(
            "{}{host}{}",
            user.unwrap_or_default(),
            port.unwrap_or_default()
        )
    }
}
