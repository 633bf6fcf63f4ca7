//! What a token must be to prove anything.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;

use super::keys::Key;
use crate::journal;

/// Longest token that is looked at.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest name of a key.
const KID_BYTES_MAX: usize = 64;
/// Longest name of whom a token speaks for.
const SUBJECT_BYTES_MAX: usize = 128;
/// Roles in one token.
const ROLES_MAX: usize = 32;
/// Longest name of a role.
const ROLE_BYTES_MAX: usize = 64;
/// The only kind of token that is one: an access token (RFC 9068), not one made for another use.
const TYPE: &str = "at+jwt";

/// What tokens must say to be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Who must have signed.
    pub issuer: String,
    /// Whom the token must be for.
    pub audience: String,
    /// How far clocks may be apart.
    pub leeway: Duration,
    /// Longest life of a token.
    pub lifetime_max: Duration,
}

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whom the token speaks for, as the issuer names them.
    pub subject: String,
    /// What they may do beside what everybody may. Shared: an identity goes with each call.
    roles: Arc<[String]>,
}

impl Identity {
    /// Whether the issuer says that whoever calls has this role. Spelled in another way, it is
    /// another one.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|it| it == role)
    }
}

/// Why a token proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is longer than tokens get.
    #[error("token is too long")]
    TooLong,
    /// Its form, its header or a claim is not what the standard says.
    #[error("token is malformed")]
    Malformed,
    /// It is signed by another algorithm, is not an access token, or demands extensions.
    #[error("token is of a kind that is not accepted")]
    Kind,
    /// Its key is not one of the issuer's.
    #[error("token is signed by an unknown key")]
    UnknownKey,
    /// Its signature is not its key's.
    #[error("token has a wrong signature")]
    Signature,
    /// Somebody else signed it, or for somebody else.
    #[error("token is from or for somebody else")]
    Parties,
    /// It is over.
    #[error("token has expired")]
    Expired,
    /// It has not begun.
    #[error("token is not valid yet")]
    Early,
    /// It lives longer than tokens may.
    #[error("token lives too long")]
    Lifetime,
}

#[derive(Deserialize)]
struct Claims {
    // Text, not a list: a token has one issuer.
    #[serde(rename = "iss")]
    _iss: String,
    sub: String,
    exp: u64,
    iat: u64,
    #[serde(rename = "nbf")]
    _nbf: u64,
    // A list of text (RFC 9068, section 2.2.3.1); most tokens have none.
    #[serde(default)]
    roles: Vec<String>,
}

/// The name of the key a token says it is signed with: a word to look up, nothing more.
pub(super) fn key_name(token: &str) -> Result<String, TokenError> {
    let header = read_header(token)?;
    let kid = header.kid.ok_or(TokenError::Malformed)?;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let fine = (1..=KID_BYTES_MAX).contains(&kid.len()) && kid.bytes().all(known);
    if fine {
        Ok(kid)
    } else {
        Err(TokenError::Malformed)
    }
}

/// Reads the header; whatever it says about where keys come from (`jku`, `jwk`, `x5u`, `x5c`) is
/// not looked at.
fn read_header(token: &str) -> Result<Header, TokenError> {
    let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
    let access = header
        .typ
        .as_deref()
        .is_some_and(|typ| typ.eq_ignore_ascii_case(TYPE));
    if header.alg != Algorithm::EdDSA || header.crit.is_some() || !access {
        return Err(TokenError::Kind);
    }
    Ok(header)
}

/// Checks everything about a token but the name of its key; answers who it speaks for, and the last
/// second in which it does.
pub(super) fn check(token: &str, key: &Key, rules: &Rules) -> Result<(Identity, u64), TokenError> {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.required_spec_claims =
        HashSet::from(["exp", "nbf", "iss", "aud", "sub"].map(str::to_owned));
    validation.validate_nbf = true;
    validation.leeway = rules.leeway.as_secs();
    validation.set_issuer(&[&rules.issuer]);
    validation.set_audience(&[&rules.audience]);
    let claims = decode::<Claims>(token, &key.decoding, &validation)
        .map_err(|error| refusal(error.kind()))?
        .claims;

    let now = now();
    if claims.iat > now.saturating_add(rules.leeway.as_secs()) {
        return Err(TokenError::Early);
    }
    let lifetime = claims.exp.checked_sub(claims.iat);
    if lifetime.is_none_or(|lifetime| lifetime > rules.lifetime_max.as_secs()) {
        return Err(TokenError::Lifetime);
    }
    if !(1..=SUBJECT_BYTES_MAX).contains(&claims.sub.len()) {
        return Err(TokenError::Malformed);
    }
    let fine = |role: &String| {
        (1..=ROLE_BYTES_MAX).contains(&role.len()) && !role.chars().any(char::is_control)
    };
    if claims.roles.len() > ROLES_MAX || !claims.roles.iter().all(fine) {
        return Err(TokenError::Malformed);
    }
    let identity = Identity {
        subject: claims.sub,
        roles: claims.roles.into(),
    };
    Ok((identity, claims.exp.saturating_add(rules.leeway.as_secs())))
}

/// Seconds since 1970, as tokens tell the time.
pub(super) fn now() -> u64 {
    let since = journal::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn refusal(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::Early,
        ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience => TokenError::Parties,
        ErrorKind::InvalidAlgorithm => TokenError::Kind,
        _ => TokenError::Malformed,
    }
}
