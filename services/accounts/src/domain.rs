//! Rules for accounts and tokens; nothing here knows of gRPC or SQL.

use std::{fmt, time::Duration};

use gantry_store::Timestamp;
use serde::Serialize;

/// Longest address, by RFC 5321.
const EMAIL_BYTES_MAX: usize = 254;

/// An address in the form it is compared in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

/// A text that is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address such as ada@example.org")]
pub struct EmailError;

impl Email {
    /// Reads an address: without surrounding space, in lower case.
    ///
    /// # Errors
    ///
    /// If nobody could be reached under it.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        let text = text.trim().to_lowercase();
        let (local, domain) = text.split_once('@').ok_or(EmailError)?;
        let fine = !local.is_empty()
            && !domain.is_empty()
            && !domain.contains('@')
            && text.len() <= EMAIL_BYTES_MAX
            && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        if fine {
            Ok(Self(text))
        } else {
            Err(EmailError)
        }
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A person's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Identifies it for good.
    pub id: String,
    /// Where the person is reached.
    pub email: Email,
    /// How the person wants to be called.
    pub display_name: String,
    /// When it was opened.
    pub created_at: Timestamp,
}

/// Who signs tokens for whom, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Who signs.
    pub issuer: String,
    /// Who is to accept the token.
    pub audience: String,
    /// How long a token lives.
    pub lifetime: Duration,
}

/// What a token says (RFC 7519, section 4.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// Who signed it.
    pub iss: String,
    /// The account it speaks for.
    pub sub: String,
    /// Who is to accept it.
    pub aud: String,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
    /// When it was signed.
    pub iat: i64,
    /// When it begins.
    pub nbf: i64,
    /// What the account may do beside what everybody may (RFC 9068, section 2.2.3.1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
}

impl Claims {
    /// The claims of a token for `account_id` with these `roles`, signed `now`.
    #[must_use]
    pub fn new(terms: &Terms, account_id: &str, roles: Vec<String>, now: Timestamp) -> Self {
        Self {
            iss: terms.issuer.clone(),
            sub: account_id.to_owned(),
            aud: terms.audience.clone(),
            exp: now.after(terms.lifetime).seconds(),
            iat: now.seconds(),
            nbf: now.seconds(),
            roles,
        }
    }

    /// When the token ends.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        Timestamp::from_micros(self.exp.saturating_mul(1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: addresses that reach the same person compare equal; what is none is refused.
    /// Method: spellings and misspellings.
    #[test]
    fn addresses_are_normalised_or_refused() {
        for text in ["ada@example.org", " Ada@Example.ORG ", "ADA@example.org\n"] {
            assert_eq!("ada@example.org", Email::parse(text).unwrap().as_str());
        }
        let long = format!("{}@example.org", "a".repeat(250));
        for text in [
            "",
            "@",
            "ada",
            "ada@",
            "@example.org",
            "a@b@c",
            "a b@c",
            "a@b\0c",
            &long,
        ] {
            assert_eq!(Err(EmailError), Email::parse(text), "{text:?}");
        }
    }

    /// Goal: a token begins now and ends when its terms say, in whole seconds.
    /// Method: a time within a second.
    #[test]
    fn claims_follow_the_terms() {
        let terms = Terms {
            issuer: "shop".to_owned(),
            audience: "services".to_owned(),
            lifetime: Duration::from_mins(15),
        };
        let now = Timestamp::from_micros(1_700_000_000_999_999);
        let claims = Claims::new(&terms, "42", Vec::new(), now);
        assert_eq!(1_700_000_000, claims.iat);
        assert_eq!(1_700_000_000, claims.nbf);
        assert_eq!(1_700_000_900, claims.exp);
        assert_eq!(1_700_000_900, claims.expires_at().seconds());
        assert_eq!(
            ("shop", "42", "services"),
            (&*claims.iss, &*claims.sub, &*claims.aud)
        );
    }
}
