//! Keys that sign tokens (RFC 7519, RFC 8037).
//!
//! Replicas share the keys through the database. The newest signs; older ones are published for as
//! long as a token they signed can live. A new key is published before it signs, so that whoever
//! verifies has the chance to learn of it.

use std::sync::Arc;

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use gantry_store::Timestamp;
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use zeroize::Zeroizing;

use crate::{domain::Claims, store::StoredKey};

/// A key pair in use.
pub struct SigningKey {
    /// Its name in the header of tokens.
    kid: String,
    created_at: Timestamp,
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// A stored key that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("signing key {kid} cannot be read")]
pub struct KeyError {
    kid: String,
}

/// Makes a key to be stored.
///
/// # Panics
///
/// If the system has no randomness to give.
#[must_use]
pub fn generate(now: Timestamp) -> StoredKey {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .expect("the system's source of randomness does not fail once it is seeded");
    StoredKey {
        kid: uuid::Uuid::now_v7().to_string(),
        pkcs8: Zeroizing::new(BASE64_STANDARD.encode(pkcs8.as_ref())),
        created_at: now,
    }
}

impl SigningKey {
    /// Reads a stored key.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn read(stored: &StoredKey) -> Result<Self, KeyError> {
        let error = || KeyError {
            kid: stored.kid.clone(),
        };
        let pkcs8 = BASE64_STANDARD
            .decode(stored.pkcs8.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| error())?;
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| error())?;
        Ok(Self {
            kid: stored.kid.clone(),
            created_at: stored.created_at,
            pair,
        })
    }

    /// Its name.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half, base64url without padding.
    #[must_use]
    pub fn public(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.pair.public_key())
    }

    /// A token that says `claims`.
    #[must_use]
    pub fn sign(&self, claims: &Claims) -> String {
        let header = serde_json::json!({ "alg": "EdDSA", "kid": self.kid, "typ": "at+jwt" });
        let claims = serde_json::json!(claims).to_string();
        let mut token = BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.pair.sign(token.as_bytes());
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

/// The keys of one moment, the newest first.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    keys: Arc<[SigningKey]>,
}

impl KeyRing {
    /// Reads stored keys, the newest first.
    ///
    /// # Errors
    ///
    /// If one is none.
    pub fn read(stored: &[StoredKey]) -> Result<Self, KeyError> {
        let keys: Result<Vec<_>, _> = stored.iter().map(SigningKey::read).collect();
        Ok(Self { keys: keys?.into() })
    }

    /// The key that signs: the newest that was there at `published`, or the oldest of all.
    #[must_use]
    pub fn signer(&self, published: Timestamp) -> Option<&SigningKey> {
        self.keys
            .iter()
            .find(|key| key.created_at <= published)
            .or(self.keys.last())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &SigningKey> {
        self.keys.iter()
    }
}
