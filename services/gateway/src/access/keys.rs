//! Where the keys are that tokens are signed with.

use std::{borrow::Cow, fmt, time::Duration};

use gantry::{
    BoxError,
    auth::{Fetch, Jwks, read_jwks},
    config::{Given, Mismatch, Setting},
};
use http::uri::PathAndQuery;
use tonic::{Request, client::Grpc};

use crate::{backends::Backends, call::Whole, catalogue::Catalogue, json};

/// Longest a service is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// Largest set of keys that is read.
const SET_BYTES_MAX: usize = 64 * 1024;

/// Whoever signs tokens, as the configuration names it.
#[derive(Debug, Clone)]
pub enum Issuer {
    /// A URL that answers with a JWK set.
    Url(Jwks),
    /// A method of a service that is registered; its answer in JSON is a JWK set.
    Method(PathAndQuery),
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(jwks) => jwks.fmt(f),
            Self::Method(path) => f.write_str(path.path().trim_start_matches('/')),
        }
    }
}

impl PartialEq for Issuer {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Setting for Issuer {
    fn kind() -> Cow<'static, str> {
        "URL or method".into()
    }

    fn expected() -> Cow<'static, str> {
        "the URL of a JWK set, or a method that answers with one such as \
         \"shop.v1.Service/GetJwks\""
            .into()
    }

    fn read(given: Given<'_>) -> Result<Self, Mismatch> {
        let text = given.text().ok_or_else(Mismatch::default)?.trim();
        if text.contains("://") {
            if text.contains('@') {
                let because = "keys are public; expected a URL without a name or password";
                return Err(Mismatch::because(because));
            }
            let jwks = Jwks::at(text).map_err(|error| Mismatch::because(error.to_string()))?;
            return Ok(Self::Url(jwks));
        }
        let is_name = |part: &str| {
            let known = |it: char| it.is_ascii_alphanumeric() || "._".contains(it);
            !part.is_empty() && part.chars().all(known)
        };
        let parts = text.split_once('/');
        let sound = parts.is_some_and(|(service, method)| is_name(service) && is_name(method));
        let path = PathAndQuery::try_from(format!("/{text}")).ok();
        path.filter(|_| sound)
            .map(Self::Method)
            .ok_or_else(Mismatch::default)
    }

    fn show(&self) -> Option<String> {
        Some(format!("\"{self}\""))
    }
}

/// Reads keys from the method at `path`, of whoever has registered its service.
pub(super) fn of_method(
    path: PathAndQuery,
    catalogue: Catalogue,
    backends: Backends,
) -> impl Fetch {
    move || {
        let (path, catalogue, backends) = (path.clone(), catalogue.clone(), backends.clone());
        async move {
            let api = catalogue
                .api()
                .await
                .ok_or("the services were not read yet")?;
            let described = api.method(path.path());
            let method = described
                .filter(|it| it.is_unary())
                .ok_or_else(|| format!("no service that is registered has the method {path}"))?;
            let name = method.descriptor.parent_service().full_name().to_owned();
            let mut grpc = Grpc::new(backends.of(&name)?).max_decoding_message_size(SET_BYTES_MAX);
            let mut request = Request::new(bytes::Bytes::new());
            request.set_timeout(ANSWER_MAX);
            let answer = grpc.unary(request, path, Whole).await?;
            let json = json::write_message(&method.descriptor.output(), answer.get_ref())?;
            let keys = read_jwks(&json)?;
            Ok::<_, BoxError>(keys)
        }
    }
}
