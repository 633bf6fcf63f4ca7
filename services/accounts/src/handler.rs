//! gRPC in, gRPC out: converts, and decides which status an outcome is.

use std::time::Duration;

use gantry::{config::Live, status};
use gantry_store::Timestamp;
use shop_proto::accounts::v1::{
    Account as AccountMessage, GetJwksRequest, GetJwksResponse, Jwk, LoginRequest, LoginResponse,
    RegisterRequest, RegisterResponse, SetRolesRequest, SetRolesResponse,
    accounts_service_server::AccountsService,
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use crate::{
    config::Tokens,
    domain::{Account, Claims, Email},
    keys::Keys,
    metrics::{Failure, Metrics},
    password::{PasswordError, Passwords},
    store::Store,
};

/// When to come back if too many passwords are being checked: some are done by then.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// The rpcs of this service.
#[derive(Debug, Clone)]
pub struct Accounts {
    store: Store,
    passwords: Passwords,
    keys: Keys,
    tokens: Live<Tokens>,
    metrics: Metrics,
}

/// How a login ended that gave no token.
struct Refused {
    reason: Failure,
    status: Status,
}

impl Refused {
    fn new(reason: Failure, status: Status) -> Self {
        Self { reason, status }
    }

    /// The same words whether the account or the password is wrong.
    fn credentials(reason: Failure) -> Self {
        let status = Status::unauthenticated("email or password is wrong");
        Self::new(reason, status)
    }

    fn password(error: &PasswordError) -> Self {
        let reason = match error {
            PasswordError::Busy => Failure::Busy,
            PasswordError::Hash(_) => Failure::Internal,
        };
        Self::new(reason, password_status(error))
    }
}

impl From<gantry_store::Error> for Refused {
    fn from(error: gantry_store::Error) -> Self {
        Self::new(Failure::Internal, error.into())
    }
}

fn password_status(error: &PasswordError) -> Status {
    match error {
        PasswordError::Busy => status::busy(
            "too many passwords wait to be checked; try again",
            BUSY_PAUSE,
        ),
        PasswordError::Hash(_) => {
            tracing::error!(error = %status::chain(error), "password was not hashed");
            Status::internal("the password could not be checked")
        }
    }
}

impl Accounts {
    /// The rpcs over these parts.
    #[must_use]
    pub fn new(
        store: Store,
        passwords: Passwords,
        keys: Keys,
        tokens: Live<Tokens>,
        metrics: Metrics,
    ) -> Self {
        Self {
            store,
            passwords,
            keys,
            tokens,
            metrics,
        }
    }

    async fn token_for(&self, request: LoginRequest) -> Result<LoginResponse, Refused> {
        let password = Zeroizing::new(request.password);
        // What is no address has no account; that takes as long to find out as a wrong password.
        let credentials = match Email::parse(&request.email) {
            Ok(email) => self.store.credentials(&email).await?,
            Err(_) => None,
        };
        let (account_id, hash) = credentials
            .map(|known| (known.account_id, known.password_hash))
            .unzip();
        let right = self
            .passwords
            .check(password, hash)
            .await
            .map_err(|error| Refused::password(&error))?;
        let account_id = match account_id {
            Some(account_id) if right => account_id,
            Some(_) => return Err(Refused::credentials(Failure::WrongPassword)),
            None => return Err(Refused::credentials(Failure::UnknownAccount)),
        };
        // Read only now: an account that nobody proved to be theirs costs no more than one that
        // is not there.
        let roles = self.store.roles(&account_id).await?;
        let now = Timestamp::now();
        let claims = Claims::new(&self.tokens.load().terms(), &account_id, roles, now);
        let ring = self.keys.ring();
        let key = ring.signer(Keys::published(now)).ok_or_else(|| {
            Refused::new(
                Failure::Internal,
                Status::internal("there is no signing key"),
            )
        })?;
        Ok(LoginResponse {
            token: key.sign(&claims),
            expire_time: Some(claims.expires_at().into()),
            account_id,
        })
    }
}

#[tonic::async_trait]
impl AccountsService for Accounts {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let request = request.into_inner();
        let password = Zeroizing::new(request.password);
        let email = Email::parse(&request.email)
            .map_err(|error| status::invalid_argument([("email", error.to_string())]))?;
        let hash = self
            .passwords
            .hash(password)
            .await
            .map_err(|error| password_status(&error))?;
        let account = Account {
            id: uuid::Uuid::now_v7().to_string(),
            email,
            display_name: request.display_name.trim().to_owned(),
            created_at: Timestamp::now(),
        };
        if !self.store.insert(&account, &hash).await? {
            return Err(Status::already_exists("this address has an account"));
        }
        Ok(Response::new(RegisterResponse {
            account: Some(account_message(account)),
        }))
    }

    async fn login(
        &self,
        request: Request<LoginRequest>,
    ) -> Result<Response<LoginResponse>, Status> {
        let started = Instant::now();
        self.metrics.requests.increment();
        let outcome = self.token_for(request.into_inner()).await;
        self.metrics.duration.record_duration(started.elapsed());
        match outcome {
            Ok(response) => {
                self.metrics.success.increment();
                Ok(Response::new(response))
            }
            Err(refused) => {
                self.metrics.failure.with(refused.reason).increment();
                Err(refused.status)
            }
        }
    }

    async fn set_roles(
        &self,
        request: Request<SetRolesRequest>,
    ) -> Result<Response<SetRolesResponse>, Status> {
        let SetRolesRequest {
            account_id,
            mut roles,
        } = request.into_inner();
        // Identifiers are kept in lower case; a contract's `uuid` may be in any.
        let account_id = account_id.to_lowercase();
        if !self.store.set_roles(&account_id, &roles).await? {
            return Err(Status::not_found("there is no such account"));
        }
        roles.sort();
        tracing::info!(account_id, ?roles, "an account has these roles now");
        Ok(Response::new(SetRolesResponse { roles }))
    }

    async fn get_jwks(
        &self,
        _: Request<GetJwksRequest>,
    ) -> Result<Response<GetJwksResponse>, Status> {
        let keys = self.keys.ring();
        let keys = keys.iter().map(|key| Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            x: key.public(),
            kid: key.kid().to_owned(),
            alg: "EdDSA".to_owned(),
            key_use: "sig".to_owned(),
        });
        Ok(Response::new(GetJwksResponse {
            keys: keys.collect(),
        }))
    }
}

fn account_message(account: Account) -> AccountMessage {
    AccountMessage {
        account_id: account.id,
        email: account.email.to_string(),
        display_name: account.display_name,
        create_time: Some(account.created_at.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whoever comes while too many log in is told when to come back.
    /// Method: the status of a full line, read as a caller does.
    #[test]
    fn a_full_line_says_when_to_come_back() {
        let status = password_status(&PasswordError::Busy);
        assert_eq!(tonic::Code::Unavailable, status.code());
        let pushback = status.metadata().get("grpc-retry-pushback-ms");
        assert_eq!("1000", pushback.unwrap());
    }
}
