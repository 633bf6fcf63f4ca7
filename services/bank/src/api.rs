//! HTTP in, HTTP out.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Query, Request, State as Shared},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use gantry::{config::Live, shutdown::Tasks, telemetry::http::Route};
use gantry_store::Error;
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time};

use crate::{
    config::Charges,
    control::{Behaviour, Control, Fate},
    store::{Charge, PAGE, State, Store, Total},
};

/// Longest body that is read.
const BODY_MAX: usize = 16 * 1_024;
/// Longest idempotency key, and longest reference.
const KEY_MAX: usize = 128;

/// What the API is made of.
#[derive(Debug, Clone)]
pub(crate) struct Bank {
    /// The rows.
    pub(crate) store: Store,
    /// How the bank behaves.
    pub(crate) control: Control,
    /// Which charges are taken.
    pub(crate) charges: Live<Charges>,
    /// Work goes on in them when its caller has gone.
    pub(crate) tasks: Tasks,
}

/// The API over `bank`.
pub(crate) fn router(bank: Bank) -> Router {
    Router::new()
        .route("/charges", post(charge))
        .route("/refunds", post(refund))
        .route("/health", get(health))
        .layer(middleware::from_fn_with_state(bank.clone(), behave))
        .route("/ledger", get(ledger))
        .route("/control", put(set_control).get(control))
        .layer(middleware::map_response(name_route))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(bank)
}

/// A refusal, and why.
#[derive(Debug)]
struct Refused(StatusCode, String);

#[derive(Debug, Serialize)]
struct Fault {
    error: String,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        (status, Json(Fault { error })).into_response()
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        tracing::error!(%error, "the ledger failed");
        Self(
            StatusCode::SERVICE_UNAVAILABLE,
            "the ledger is away".to_owned(),
        )
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChargeRequest {
    amount_minor_units: i64,
    currency_code: String,
    reference: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RefundRequest {
    charge: String,
}

#[derive(Debug, Deserialize)]
struct After {
    #[serde(default)]
    after: String,
}

#[derive(Debug, Serialize)]
struct Ledger {
    totals: Vec<Total>,
    charges: Vec<Charge>,
    /// Asks for the next page, by `after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Has requests fail and take their time, as the day is. What was begun is done, whether or not its
/// caller waits for it.
async fn behave(Shared(bank): Shared<Bank>, request: Request, next: Next) -> Response {
    let fate = bank.control.fate();
    let failed = || Refused(StatusCode::SERVICE_UNAVAILABLE, "a bad day".to_owned());
    if fate.fails {
        time::sleep(fate.pause).await;
        return failed().into_response();
    }
    let Fate { pause, forgets, .. } = fate;
    let (tell, told) = oneshot::channel();
    bank.tasks.spawn("request", async move {
        time::sleep(pause).await;
        let response = next.run(request).await;
        time::sleep(pause).await;
        // Nobody may be left to hear it.
        drop(tell.send(response));
    });
    match told.await {
        Ok(response) if !forgets => response,
        _ => failed().into_response(),
    }
}

async fn name_route(path: Option<axum::extract::MatchedPath>, mut response: Response) -> Response {
    if let Some(path) = path {
        response
            .extensions_mut()
            .insert(Route(path.as_str().into()));
    }
    response
}

async fn charge(
    Shared(bank): Shared<Bank>,
    headers: HeaderMap,
    Json(request): Json<ChargeRequest>,
) -> Result<(StatusCode, Json<Charge>), Refused> {
    let key = idempotency_key(&headers)?;
    let ChargeRequest {
        amount_minor_units,
        currency_code,
        reference,
    } = request;
    let refused = |why: &str| Refused(StatusCode::BAD_REQUEST, why.to_owned());
    if amount_minor_units <= 0 {
        return Err(refused("amount_minor_units: expected more than 0"));
    }
    if currency_code.len() != 3 || !currency_code.bytes().all(|it| it.is_ascii_uppercase()) {
        return Err(refused("currency_code: expected three capital letters"));
    }
    if reference.is_empty() || reference.len() > KEY_MAX {
        return Err(refused("reference: expected 1 to 128 bytes"));
    }
    let wanted = Charge {
        charge: key,
        reference,
        amount_minor_units,
        currency_code,
        state: if amount_minor_units > bank.charges.load().amount_max {
            State::Declined
        } else {
            State::Charged
        },
    };
    let charge = bank.store.charge(&wanted).await?;
    let same = |charge: &Charge| {
        let Charge {
            reference,
            amount_minor_units,
            currency_code,
            ..
        } = charge;
        (
            reference.clone(),
            *amount_minor_units,
            currency_code.clone(),
        )
    };
    let status = match charge.state {
        State::Void => StatusCode::CONFLICT,
        _ if same(&charge) != same(&wanted) => {
            let why = "the Idempotency-Key stands for another charge";
            return Err(Refused(StatusCode::UNPROCESSABLE_ENTITY, why.to_owned()));
        }
        State::Charged => StatusCode::OK,
        State::Declined => StatusCode::PAYMENT_REQUIRED,
        State::Refunded => StatusCode::CONFLICT,
    };
    Ok((status, Json(charge)))
}

async fn refund(
    Shared(bank): Shared<Bank>,
    headers: HeaderMap,
    Json(request): Json<RefundRequest>,
) -> Result<Json<Charge>, Refused> {
    // A refund is of the whole charge, so its own key has nothing to tell apart.
    idempotency_key(&headers)?;
    if request.charge.is_empty() || request.charge.len() > KEY_MAX {
        let why = "charge: expected the Idempotency-Key of the charge";
        return Err(Refused(StatusCode::BAD_REQUEST, why.to_owned()));
    }
    Ok(Json(bank.store.refund(&request.charge).await?))
}

fn idempotency_key(headers: &HeaderMap) -> Result<String, Refused> {
    let key = headers
        .get("idempotency-key")
        .and_then(|key| key.to_str().ok());
    let key = key.filter(|key| !key.is_empty() && key.len() <= KEY_MAX);
    key.map(str::to_owned).ok_or_else(|| {
        let why = "Idempotency-Key: expected 1 to 128 bytes of ASCII";
        Refused(StatusCode::BAD_REQUEST, why.to_owned())
    })
}

async fn health() -> StatusCode {
    StatusCode::NO_CONTENT
}

async fn ledger(
    Shared(bank): Shared<Bank>,
    Query(After { after }): Query<After>,
) -> Result<Json<Ledger>, Refused> {
    let charges = bank.store.list(&after).await?;
    let last = charges.last().filter(|_| charges.len() == PAGE);
    Ok(Json(Ledger {
        totals: bank.store.totals().await?,
        next: last.map(|charge| charge.charge.clone()),
        charges,
    }))
}

async fn control(Shared(bank): Shared<Bank>) -> Json<Behaviour> {
    Json(bank.control.get())
}

async fn set_control(
    Shared(bank): Shared<Bank>,
    Json(behaviour): Json<Behaviour>,
) -> Result<Json<Behaviour>, Refused> {
    let refused = |why| Refused(StatusCode::BAD_REQUEST, why);
    bank.control.set(behaviour).map_err(refused)?;
    tracing::info!(?behaviour, "the bank behaves anew");
    Ok(Json(behaviour))
}
