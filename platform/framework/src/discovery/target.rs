//! What a client is pointed at, as people write it.

use std::{net::SocketAddr, str::FromStr};

use http::uri::Authority;

/// What a client is pointed at: `127.0.0.1:5001,127.0.0.1:5002`, `dns:///catalog.internal:443` or
/// `etcd:///catalog`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// These addresses, always.
    Fixed(Vec<SocketAddr>),
    /// A name that the resolver of `scheme` knows.
    Named {
        /// Which kind of name it is.
        scheme: String,
        /// The name itself.
        name: String,
    },
}

/// Why a target cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// There is nothing to connect to.
    #[error("a target names at least one address")]
    Empty,
    /// Neither an address nor a name with a scheme.
    #[error("`{0}` is not IP:PORT; a host name is written dns:///HOST:PORT")]
    NotAnAddress(String),
    /// A name in a form its scheme does not know.
    #[error("`{0}` is not of the form SCHEME:///NAME, as in dns:///HOST:PORT")]
    NotAName(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if let Some((scheme, rest)) = text.split_once(':')
            && rest.starts_with("//")
        {
            let name = rest.strip_prefix("///").unwrap_or_default();
            let known = !scheme.is_empty() && !name.is_empty() && !name.contains('/');
            let fits = known && (scheme != "dns" || name.split(',').all(is_host_and_port));
            return if fits {
                Ok(Self::Named {
                    scheme: scheme.to_owned(),
                    name: name.to_owned(),
                })
            } else {
                Err(TargetError::NotAName(text.to_owned()))
            };
        }
        let addrs = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                part.parse()
                    .map_err(|_| TargetError::NotAnAddress(part.to_owned()))
            })
            .collect::<Result<Vec<SocketAddr>, _>>()?;
        if addrs.is_empty() {
            return Err(TargetError::Empty);
        }
        Ok(Self::Fixed(addrs))
    }
}

impl Target {
    /// The authority requests name; none where each endpoint is its own.
    #[must_use]
    pub fn authority(&self) -> Option<Authority> {
        match self {
            Self::Fixed(_) => None,
            Self::Named { name, .. } => name.parse().ok(),
        }
    }
}

fn is_host_and_port(name: &str) -> bool {
    name.parse::<Authority>()
        .is_ok_and(|authority| authority.port_u16().is_some() && !authority.host().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what people write is read, and what cannot be meant is refused with a hint.
    /// Method: each form and its near misses.
    #[test]
    fn targets_are_read_as_people_write_them() {
        let one = "127.0.0.1:5001".parse().unwrap();
        let two = "[::1]:5002".parse().unwrap();
        assert_eq!(Ok(Target::Fixed(vec![one])), "127.0.0.1:5001".parse());
        assert_eq!(
            Ok(Target::Fixed(vec![one, two])),
            " 127.0.0.1:5001, [::1]:5002 ".parse()
        );
        assert_eq!(
            Ok(Target::Named {
                scheme: "dns".into(),
                name: "catalog.internal:443".into()
            }),
            "dns:///catalog.internal:443".parse()
        );
        assert_eq!(Err(TargetError::Empty), " , ".parse::<Target>());
        for wrong in ["localhost:5001", "127.0.0.1", "127.0.0.1:99999"] {
            assert!(
                matches!(wrong.parse::<Target>(), Err(TargetError::NotAnAddress(_))),
                "{wrong}"
            );
        }
        for wrong in [
            "dns:///catalog",
            "dns://catalog:443",
            "dns:///",
            "://x",
            "dns:///a/b:1",
        ] {
            assert!(
                matches!(wrong.parse::<Target>(), Err(TargetError::NotAName(_))),
                "{wrong}"
            );
        }
    }
}
