//! A host that is asked for images before their registry.

use std::fmt;
use std::str::FromStr;

use super::image::Image;

/// A mirror: of one registry, or of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The registry that it mirrors; `None` for all.
    pub registry: Option<String>,
    /// `HOST[:PORT]`.
    pub host: String,
}

impl Mirror {
    /// Those of a registry, in their order.
    pub fn hosts<'a>(mirrors: &'a [Self], registry: &str) -> impl Iterator<Item = &'a str> {
        mirrors
            .iter()
            .filter(move |mirror| mirror.registry.as_deref().is_none_or(|own| own == registry))
            .map(|mirror| mirror.host.as_str())
    }
}

impl FromStr for Mirror {
    type Err = &'static str;

    /// `[REGISTRY=]HOST[:PORT]`.
    fn from_str(given: &str) -> Result<Self, Self::Err> {
        let (registry, host) = match given.split_once('=') {
            Some((registry, host)) => (Some(registry), host),
            None => (None, given),
        };
        let is_host = |host: &str| {
            // As the first component of an image's name: localhost, or with a dot or a port.
            let image: Result<Image, _> = format!("{host}/x").parse();
            image.is_ok_and(|image| image.registry() == host)
        };
        if !registry.into_iter().chain([host]).all(is_host) {
            return Err("write HOST[:PORT] or REGISTRY=HOST[:PORT], without https:// or a path");
        }
        Ok(Self {
            registry: registry.map(String::from),
            host: host.to_string(),
        })
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(out, "{registry}=")?;
        }
        out.write_str(&self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_of_one_registry_or_of_all() {
        let mirrors = [
            "docker.io=hub.example:5000",
            "10.0.0.1:5000",
            "reg.example=other.example",
        ];
        let read: Vec<Mirror> = mirrors.iter().map(|given| given.parse().unwrap()).collect();
        let hosts = |registry: &str| Mirror::hosts(&read, registry).collect::<Vec<_>>();
        assert_eq!(hosts("docker.io"), ["hub.example:5000", "10.0.0.1:5000"]);
        assert_eq!(hosts("reg.example"), ["10.0.0.1:5000", "other.example"]);
        let written: Vec<String> = read.iter().map(ToString::to_string).collect();
        assert_eq!(written, mirrors);
        for wrong in [
            "",
            "=",
            "https://m.example",
            "m.example/path",
            "a=b",
            "m.example=",
        ] {
            assert!(wrong.parse::<Mirror>().is_err(), "{wrong}");
        }
    }
}
