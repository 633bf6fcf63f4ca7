//! What can be set for this service.

use std::time::Duration;

use gantry::{
    auth::{self, Rules},
    config::{self, Size},
};

use crate::access::Issuer;

config::section! {
    /// Settings of the gateway.
    pub struct Config {
        /// Requests that are not gRPC.
        pub http: section Http;
        /// Which tokens are accepted.
        pub tokens: section Tokens;
        /// How many streams each client may have open.
        pub streams: section Streams;
        /// Answers that are kept for when a backend cannot answer.
        pub stale_cache: section StaleCache;
    }
}

config::section! {
    /// Requests that are not gRPC.
    pub struct Http {
        /// Largest body of a request, or line of one that is a stream.
        pub body_max: Size = Size::mib(4), in Size::kib(1)..=Size::mib(1_024), live;
        /// Bytes of bodies that are held for all requests together. One up to 16 KiB always finds room.
        pub body_bytes_max: Size = Size::mib(64), in Size::mib(1).., live;
        /// Share of them that the bodies of one client may have, in percent; one body always may have
        /// `body_max`. Clients are told apart as in `rate`.
        pub body_client_percent: u32 = 25, in 1..=100, live;
        /// How long a body may bring less than 1 KiB, and not end. One that is a stream rests between
        /// its messages for as long as it likes.
        pub body_stall_max: Duration = Duration::from_secs(10),
            in Duration::from_millis(1)..=Duration::from_mins(1), live;
        /// Longest a call with one answer may take, whatever its caller allows; a body that is one
        /// message has nine tenths of it to come.
        pub timeout: Duration = Duration::from_secs(20),
            in Duration::from_millis(1)..=Duration::from_secs(29), live;
        /// Whose pages may ask, as browsers name them: `https://shop.example.com`, or `*` for
        /// everybody's. None unless said.
        pub origins: Vec<String> = Vec::new(), live;
        /// Whether `GET /` and `GET /openapi.json` tell what there is to ask.
        pub pages: bool = true, live;
    }
}

config::section! {
    /// Calls that are streams, in whatever protocol.
    pub struct Streams {
        /// Those that one client may have open at once, and calls whose only message it has not sent yet.
        /// Clients are told apart as in `rate`.
        pub per_client_max: u32 = 100, in 1..=100_000, live;
    }
}

config::section! {
    /// Answers that are kept for methods whose policy has a `stale_cache`. Beyond a bound those go first
    /// that were neither given nor got for the longest time.
    pub struct StaleCache {
        /// Answers that are kept; 0 is none.
        pub entries_max: usize = 10_000, in 0..=1_000_000, live;
        /// Bytes that all of them may have, with their metadata and 256 for each.
        pub bytes_max: Size = Size::mib(32), in Size::kib(1).., live;
        /// Bytes that one of them may have. A larger one is handed on as it comes, and not kept. So much is
        /// held of each answer until it is whole.
        pub entry_bytes_max: Size = Size::kib(256), in Size::kib(1)..=Size::mib(4), live;
    }
}

config::section! {
    /// Which tokens are accepted; the services verify them again.
    pub struct Tokens {
        /// Where the issuer's keys are: the URL of a JWK set, or a method that answers with one, of a
        /// service that is registered. Without it, only what is public can be called.
        pub keys: Option<Issuer> = None, restart;
        /// Who must have signed, as the issuer names itself.
        pub issuer: String = String::new(), live;
        /// Whom the tokens must be for.
        pub audience: String = String::new(), live;
        /// How far the clocks of issuer and gateway may be apart.
        pub leeway: Duration = Duration::from_mins(1), in Duration::ZERO..=Duration::from_mins(1), live;
    }
    validate = Tokens::check;
}

impl Tokens {
    /// The same as a verifier reads it.
    #[must_use]
    pub fn rules(&self) -> Rules {
        // Of services' own: what else a token must be is bounded there, once.
        auth::Tokens {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            leeway: self.leeway,
        }
        .rules()
    }

    fn check(&self, check: &mut config::Check<'_, '_>) {
        for (key, value) in [("issuer", &self.issuer), ("audience", &self.audience)] {
            if self.keys.is_some() && value.is_empty() {
                check.refuse(
                    key,
                    "expected the name that tokens say it by, as tokens.keys is set",
                );
            }
        }
    }
}
