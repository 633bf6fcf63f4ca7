//! Who calls, as a signed token proves it (RFC 7519, RFC 8725).
//!
//! A [`Verifier`] judges the token of a call by its issuer's keys, which it gets from whoever it is
//! given. A server that has one asks for a token wherever a contract does not say otherwise, and
//! handlers read the [`Identity`] by [`caller`]: it is of a type that no metadata can spell.

mod jwks;
mod keys;
mod proven;
mod provider;
mod settings;
mod token;

use std::sync::Arc;

use http::{HeaderMap, header::AUTHORIZATION};
use tonic::{Request, Status};

use crate::{BoxError, config::Live, status::Refusal};

pub use jwks::{Jwks, read_jwks};
pub use keys::{Fetch, Keys, PublicKey};
pub use settings::Tokens;
pub use token::{Identity, Rules, TOKEN_BYTES_MAX, TokenError};

use keys::Lookup;
use proven::{Proof, Proven};

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
    /// Whoever serves the method verifies no tokens, whatever is shown.
    #[error("this method wants a token, and none is accepted here: tokens are not verified")]
    Unverified,
    /// The method is one of those that services ask each other, and the call came past a gateway.
    #[error("this method is for services of the system alone")]
    Internal,
    /// No key was ever read, so no token can be judged.
    #[error("tokens cannot be checked now; try again")]
    NoKeys,
}

/// Callers are told that their token is not accepted, and whether a new one would help: which of
/// its parts was wrong only helps somebody who forges one, and goes to the log instead.
impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        let refused = Refusal::Unauthenticated;
        match denied {
            Denied::NoKeys => Refusal::NoKeys.status(denied.to_string()),
            Denied::Internal => Refusal::InternalMethod.status(denied.to_string()),
            Denied::Token(TokenError::Expired) => refused.status("the token has expired"),
            Denied::Token(error) => {
                tracing::debug!(%error, "token refused");
                refused.status(denied.to_string())
            }
            Denied::Missing | Denied::Malformed | Denied::Unverified => {
                refused.status(denied.to_string())
            }
        }
    }
}

/// Checks tokens; clones share the keys.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: Arc<Keys>,
    rules: Live<Rules>,
    proven: Arc<Proven>,
}

impl Verifier {
    /// Checks tokens by `rules`, with keys that `fetch` reads.
    #[must_use]
    pub fn new(fetch: impl Fetch, rules: Live<Rules>) -> Self {
        provider::install();
        Self {
            keys: Arc::new(Keys::new(fetch)),
            rules,
            proven: Arc::default(),
        }
    }

    /// Who calls, by the `headers` of the call.
    ///
    /// # Errors
    ///
    /// If the call proves nobody.
    pub fn identify(
        &self,
        headers: &HeaderMap,
    ) -> impl Future<Output = Result<Identity, Denied>> + Send + use<> {
        let Self {
            keys,
            rules,
            proven,
        } = self.clone();
        // What of the call is needed goes along, so that its headers are not held.
        let token = bearer(headers).map(str::to_owned);
        async move {
            let token = token?;
            let known = proven.find(&token);
            let kid = match &known {
                Some(proof) => proof.kid.clone(),
                None => token::key_name(&token)?,
            };
            let key = match keys.get(&kid).await {
                Lookup::Found(key) => key,
                Lookup::Unknown => return Err(TokenError::UnknownKey.into()),
                Lookup::NoKeys => return Err(Denied::NoKeys),
            };
            let (rules, now) = (rules.load(), token::now());
            if let Some(proof) = known.filter(|proof| proof.holds(&key, &rules, now)) {
                return Ok(proof.identity.clone());
            }
            let (identity, until) = token::check(&token, &key, &rules)?;
            let proof = Proof {
                kid,
                key,
                rules,
                from: token::now(),
                until,
                identity: identity.clone(),
            };
            proven.keep(token, proof);
            Ok(identity)
        }
    }

    /// Reads the keys now and then; runs until it is dropped.
    pub async fn keep_fresh(self) {
        self.keys.keep_fresh().await;
    }
}

impl Identity {
    /// Lets on whoever has `role`.
    ///
    /// # Errors
    ///
    /// `PERMISSION_DENIED` for everybody else. It names the role, which the contract tells anybody.
    pub fn require_role(&self, role: &str) -> Result<(), Status> {
        if self.has_role(role) {
            return Ok(());
        }
        // Contracts of others may say anything.
        let text = format!("expected a token with the role `{role:.64}` in its claim roles");
        Err(Refusal::MissingRole.status(text))
    }
}

/// Who calls a method that wants a token, as it was proved before the handler ran.
///
/// # Errors
///
/// UNAUTHENTICATED where nobody was: the process verifies no tokens, or not for this method.
pub fn caller<T>(request: &Request<T>) -> Result<Identity, Status> {
    let identity = request.extensions().get::<Identity>();
    identity.cloned().ok_or_else(|| Denied::Missing.into())
}

/// The token of the one header there may be.
fn bearer(headers: &HeaderMap) -> Result<&str, Denied> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
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
pub(crate) mod tests;
