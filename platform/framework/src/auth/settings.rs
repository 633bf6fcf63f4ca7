//! The settings of whoever verifies tokens.

use std::time::Duration;

use super::Rules;
use crate::config;

/// Longest life of a token that is accepted: it cannot be taken back.
const LIFETIME_MAX: Duration = Duration::from_hours(1);

config::section! {
    /// Which tokens are accepted.
    pub struct Tokens {
        /// Who must have signed, as the issuer names itself.
        pub issuer: String = String::new(), live;
        /// Whom the tokens must be for.
        pub audience: String = String::new(), live;
        /// How far the clocks of the services may be apart.
        pub leeway: Duration = Duration::from_mins(1), in Duration::ZERO..=Duration::from_mins(1), live;
    }
    validate = Tokens::check;
}

impl Tokens {
    /// The defaults of a service whose callers are proved by `issuer` to `audience`.
    #[must_use]
    pub fn of(issuer: &str, audience: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            ..Self::default()
        }
    }

    /// The same as a verifier reads it.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            leeway: self.leeway,
            lifetime_max: LIFETIME_MAX,
        }
    }

    fn check(&self, check: &mut config::Check<'_, '_>) {
        for (key, value) in [("issuer", &self.issuer), ("audience", &self.audience)] {
            if value.is_empty() {
                check.refuse(key, "expected the name that tokens say it by");
            }
        }
    }
}
