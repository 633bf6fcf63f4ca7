//! Public keys as their issuer publishes them: a JWK set (RFC 7517), in JSON.

use std::pin::Pin;

use serde::Deserialize;

use super::{Fetch, FetchError, PublicKey};
use crate::transport::http::{Roots, Target, UrlError};

/// Largest set that is read; an issuer has a few keys.
const SET_BYTES_MAX: usize = 64 * 1024;

#[derive(Deserialize)]
struct Set {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    kty: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    kid: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
}

impl Key {
    /// Whether tokens can be signed with it: the rest of the set is for others.
    fn is_ours(&self) -> bool {
        let says = |value: &Option<String>, expected: &[&str]| {
            value.as_deref().is_none_or(|it| expected.contains(&it))
        };
        self.kty == "OKP"
            && self.crv == "Ed25519"
            && !self.kid.is_empty()
            && says(&self.alg, &["EdDSA", "Ed25519"])
            && says(&self.usage, &["sig"])
    }
}

/// The keys in a set that sign tokens.
///
/// # Errors
///
/// If it is no set.
pub fn read_jwks(json: &[u8]) -> Result<Vec<PublicKey>, serde_json::Error> {
    let set: Set = serde_json::from_slice(json)?;
    let ours = set.keys.into_iter().filter(Key::is_ours);
    let keys = ours.map(|key| PublicKey {
        kid: key.kid,
        x: key.x,
    });
    Ok(keys.collect())
}

/// Reads keys from a URL that answers with a JWK set.
#[derive(Debug, Clone)]
pub struct Jwks {
    target: Target,
}

impl Jwks {
    /// Keys at `url`. Over `https`, the other side proves itself to this machine's root certificates.
    ///
    /// # Errors
    ///
    /// If `url` is not `http` or `https` with a host.
    pub fn at(url: &str) -> Result<Self, UrlError> {
        let target = Target::parse(url, Roots::Machine)?;
        Ok(Self { target })
    }
}

impl std::fmt::Display for Jwks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.target.url.fmt(f)
    }
}

impl Fetch for Jwks {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Vec<PublicKey>, FetchError>> + Send>> {
        let target = self.target.clone();
        Box::pin(async move {
            let tls = target.tls().await?;
            let (status, body) = target.whole(tls, "gantry-auth", SET_BYTES_MAX).await?;
            if !status.is_success() {
                return Err(format!("GET {} answered {status}", target.url).into());
            }
            Ok(read_jwks(&body)?)
        })
    }
}
