//! Who may make which call, decided before it is handed on, in whatever protocol it came.
//!
//! A method says in its contract who may call it (`gantry.access.v1.access`), and which role they must
//! have (`gantry.access.v1.role`). One that says nothing, or whose contract cannot be read, wants a
//! token. The token goes on with the call, and the service verifies it again: nobody is let in
//! because a gateway was passed.

mod keys;

use std::time::Duration;

use gantry::{
    auth::{Denied, Identity, Verifier},
    config::Live,
    contract::{self, Idempotency},
    status::Refusal,
};
use http::HeaderMap;
use tokio::time::{self, Instant};
use tonic::Status;

pub use self::keys::Issuer;
use crate::{
    backends::Backends,
    catalogue::{Catalogue, names},
    config::Tokens,
};

/// How long a call waits for keys where none were read, and how often it looks for them.
const KEYS_WAIT: Duration = Duration::from_secs(5);
const KEYS_PAUSE: Duration = Duration::from_millis(100);

/// Decides who may make a call; clones share the keys.
#[derive(Debug, Clone)]
pub struct Access {
    catalogue: Catalogue,
    tokens: Option<Verifier>,
}

/// What is known of a method that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Whether it may be a stream, either way.
    pub is_stream: bool,
    /// What a second try would do.
    pub idempotency: Idempotency,
}

impl Access {
    /// Decides by what `catalogue` says of methods, and by the keys of the issuer in `config`, which
    /// are read through `backends` where it is one of them.
    #[must_use]
    pub fn new(catalogue: Catalogue, backends: Backends, config: &Live<Tokens>) -> Self {
        let issuer = config.read(|tokens| tokens.keys.clone());
        let tokens = issuer.map(|issuer| {
            let rules = config.derive(Tokens::rules);
            match issuer {
                Issuer::Url(jwks) => Verifier::new(jwks, rules),
                Issuer::Method(path) => {
                    let keys = keys::of_method(path, catalogue.clone(), backends);
                    Verifier::new(keys, rules)
                }
            }
        });
        Self { catalogue, tokens }
    }

    /// Keeps the keys fresh, for ever; at once done where there are none.
    pub async fn keep_fresh(self) {
        if let Some(tokens) = self.tokens {
            tokens.keep_fresh().await;
        }
    }

    /// Whether a call of the method at `path` with these `headers` may be handed on; answers what is
    /// known of it, and who calls where a token had to say so. Where its service `is_gone`, what that said
    /// of it holds on: a stale answer is for those alone who might call it.
    ///
    /// # Errors
    ///
    /// What it is refused with: `PERMISSION_DENIED` for what services ask each other alone, and
    /// without the role that is wanted; UNAUTHENTICATED without a valid token where one is wanted.
    pub async fn check(
        &self,
        path: &str,
        headers: &HeaderMap,
        is_gone: bool,
    ) -> Result<(Known, Option<Identity>), Status> {
        let (service, name) = names(path).unwrap_or((path, ""));
        let api = self.catalogue.knowing(service).await;
        let service = api.as_ref().and_then(|api| {
            let gone = || api.gone.services.get(service).filter(|_| is_gone);
            api.reachable(service).or_else(gone)
        });
        let Some(method) = service.and_then(|it| it.methods.get(name)) else {
            let verified = Box::pin(self.verify(headers, None)).await;
            return match (verified, service) {
                // What nobody describes may be anything.
                (Ok(identity), _) => {
                    let known = Known {
                        is_stream: true,
                        idempotency: Idempotency::Unknown,
                    };
                    Ok((known, Some(identity)))
                }
                // What is described as not there is told to anyone.
                (Err(_), Some(_)) => Err(missing(path)),
                (Err(refused), None) => Err(refused),
            };
        };
        let role = method.role.as_deref();
        let identity = match method.access {
            contract::Access::Public => None,
            contract::Access::Internal => return Err(Denied::Internal.into()),
            // In a box: calls that need no token carry no room for it.
            contract::Access::Token => Some(Box::pin(self.verify(headers, role)).await?),
        };
        let known = Known {
            is_stream: !method.is_unary(),
            idempotency: method.idempotency(),
        };
        Ok((known, identity))
    }

    async fn verify(&self, headers: &HeaderMap, role: Option<&str>) -> Result<Identity, Status> {
        let Some(tokens) = &self.tokens else {
            let text =
                "this method wants a token, and none is accepted here: tokens.keys is not set";
            return Err(Refusal::Unauthenticated.status(text));
        };
        let begun = Instant::now();
        loop {
            match tokens.identify(headers).await {
                Ok(identity) => {
                    role.map_or(Ok(()), |role| identity.require_role(role))?;
                    return Ok(identity);
                }
                // The issuer may have begun at the same time as this process, and not be found yet.
                Err(Denied::NoKeys) if begun.elapsed() < KEYS_WAIT => {
                    time::sleep(KEYS_PAUSE).await;
                }
                Err(denied) => return Err(denied.into()),
            }
        }
    }
}

/// The refusal of a method that its service does not have.
fn missing(path: &str) -> Status {
    let name = path.strip_prefix('/').unwrap_or(path);
    let (service, method) = name.split_once('/').unwrap_or((name, ""));
    Refusal::Unimplemented.status(format!("service {service} has no method {method}"))
}
