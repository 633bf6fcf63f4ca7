//! Who calls, as a token of the accounts service proves it (RFC 7519, RFC 8725).
//!
//! Built as a part of its own: it knows no orders, and gets the keys from whoever it is given.

mod keys;
mod provider;
mod token;

use std::sync::Arc;

use gantry::{BoxError, config::Live};
use tonic::{Status, metadata::MetadataMap};

pub use keys::{Fetch, Keys, PublicKey};
pub use token::{Identity, Rules, TOKEN_BYTES_MAX, TokenError};

use keys::Lookup;

/// The one header that carries a token.
const AUTHORIZATION: &str = "authorization";

/// Why a call is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no token.
    #[error("expected metadata authorization: Bearer TOKEN")]
    Missing,
    /// There is more than one value, or one that is not a bearer token.
    #[error("expected exactly one metadata authorization: Bearer TOKEN")]
    Malformed,
    /// The token proves nothing here and now.
    #[error("the token is not accepted")]
    Token(#[from] TokenError),
    /// No key was ever read, so no token can be judged.
    #[error("tokens cannot be checked now; try again")]
    NoKeys,
}

/// Callers are told that their token is not accepted, and whether a new one would help: which of
/// its parts was wrong only helps somebody who forges one, and goes to the log instead.
impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NoKeys => Status::unavailable(denied.to_string()),
            Denied::Token(TokenError::Expired) => Status::unauthenticated("the token has expired"),
            Denied::Token(error) => {
                tracing::debug!(%error, "token refused");
                Status::unauthenticated(denied.to_string())
            }
            Denied::Missing | Denied::Malformed => Status::unauthenticated(denied.to_string()),
        }
    }
}

/// Checks tokens; clones share the keys.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: Arc<Keys>,
    rules: Live<Rules>,
}

impl Verifier {
    /// Checks tokens by `rules`, with keys that `fetch` reads.
    #[must_use]
    pub fn new(fetch: impl Fetch, rules: Live<Rules>) -> Self {
        provider::install();
        Self {
            keys: Arc::new(Keys::new(fetch)),
            rules,
        }
    }

    /// Who calls.
    ///
    /// # Errors
    ///
    /// If the call proves nobody.
    pub async fn identify(&self, metadata: &MetadataMap) -> Result<Identity, Denied> {
        let token = bearer(metadata)?;
        let kid = token::key_name(token)?;
        let key = match self.keys.get(&kid).await {
            Lookup::Found(key) => key,
            Lookup::Unknown => return Err(TokenError::UnknownKey.into()),
            Lookup::NoKeys => return Err(Denied::NoKeys),
        };
        Ok(token::check(token, &key, &self.rules.load())?)
    }

    /// Reads the keys now and then; runs until it is dropped.
    pub async fn keep_fresh(self) {
        self.keys.keep_fresh().await;
    }
}

/// The token of the one header there may be.
fn bearer(metadata: &MetadataMap) -> Result<&str, Denied> {
    let mut values = metadata.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Denied::Missing)?;
    if values.next().is_some() {
        return Err(Denied::Malformed);
    }
    let value = value.to_str().map_err(|_| Denied::Malformed)?;
    let (scheme, token) = value.split_once(' ').ok_or(Denied::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Denied::Malformed);
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLong.into());
    }
    Ok(token)
}

/// What reads the keys fails with.
pub type FetchError = BoxError;

#[cfg(test)]
mod tests;
