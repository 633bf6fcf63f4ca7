//! The bank's ledger, asked for over HTTP as anybody can.

use std::{fmt::Write as _, str::FromStr, time::Duration};

use bytes::Bytes;
use gantry::BoxError;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use tokio::time;

use crate::{
    books::{Charge, ChargeState, Money},
    rows::ROWS_MAX,
};

/// Longest page that is read.
const PAGE_MAX: usize = 4 << 20;
/// Longest wait for one.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the bank is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bank {
    base: String,
}

/// Why the bank's ledger is not known.
#[derive(Debug, thiserror::Error)]
pub enum BankError {
    /// No address.
    #[error("{0:?}: expected HOST:PORT or http://HOST:PORT, as `gantry ps` shows it of bank")]
    Address(String),
    /// No answer, or one that broke off.
    #[error("ask the bank for {url}")]
    Unanswered {
        /// What was asked for.
        url: String,
        /// Why there is none.
        source: BoxError,
    },
    /// Another status than OK.
    #[error("ask the bank for {url}: it answered {status}")]
    Refused {
        /// What was asked for.
        url: String,
        /// What was answered.
        status: StatusCode,
    },
    /// It goes on for ever.
    #[error("the bank's ledger has more than {ROWS_MAX} charges")]
    TooLong,
}

#[derive(Debug, Deserialize)]
struct Page {
    charges: Vec<Listed>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    charge: String,
    reference: String,
    amount_minor_units: i64,
    currency_code: String,
    state: ChargeState,
}

impl FromStr for Bank {
    type Err = BankError;

    fn from_str(text: &str) -> Result<Self, BankError> {
        let refused = || BankError::Address(text.to_owned());
        let authority = text.strip_prefix("http://").unwrap_or(text);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let base = format!("http://{authority}");
        let uri: Uri = base.parse().map_err(|_| refused())?;
        let plain = uri.path() == "/" && uri.query().is_none() && uri.port_u16().is_some();
        let plain = plain && !authority.contains('@');
        plain.then_some(Self { base }).ok_or_else(refused)
    }
}

impl Bank {
    /// Every charge there is.
    pub(crate) async fn charges(&self) -> Result<Vec<Charge>, BankError> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (mut charges, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.page(&client, &after).await?;
            charges.extend(page.charges.into_iter().map(Listed::read));
            if charges.len() > ROWS_MAX {
                return Err(BankError::TooLong);
            }
            let Some(next) = page.next else {
                return Ok(charges);
            };
            after = next;
        }
    }

    async fn page(
        &self,
        client: &Client<HttpConnector, Empty<Bytes>>,
        after: &str,
    ) -> Result<Page, BankError> {
        let url = format!("{}/ledger?after={}", self.base, escaped(after));
        let unanswered = |source: BoxError| BankError::Unanswered {
            url: url.clone(),
            source,
        };
        let exchange = async {
            let uri: Uri = url.parse().map_err(BoxError::from)?;
            let response = client.get(uri).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), PAGE_MAX).collect();
            Ok::<_, BoxError>((status, body.await?.to_bytes()))
        };
        let answered = time::timeout(TIMEOUT, exchange).await;
        let answered = answered.map_err(|late| unanswered(late.into()))?;
        let (status, body) = answered.map_err(unanswered)?;
        if status != StatusCode::OK {
            return Err(BankError::Refused { url, status });
        }
        serde_json::from_slice(&body).map_err(|error| unanswered(error.into()))
    }
}

impl Listed {
    fn read(self) -> Charge {
        Charge {
            key: self.charge,
            reference: self.reference,
            amount: Money {
                minor_units: self.amount_minor_units,
                currency_code: self.currency_code,
            },
            state: self.state,
        }
    }
}

/// A text as a query takes it.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("a string takes any text");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what `gantry ps` shows is an address, and what cannot be one is refused by name.
    /// Method: good ones and bad ones; a key that means something in a query.
    #[test]
    fn addresses_are_checked() {
        for good in ["127.0.0.1:8090", "http://bank:1", "http://[::1]:1/"] {
            assert!(good.parse::<Bank>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "bank",
            "https://bank:1",
            "http://bank:1/ledger",
            "me:pw@bank:1",
        ] {
            let error = bad.parse::<Bank>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{bad:?}")), "{error}");
        }
        assert_eq!("a-1%26b%20%C3%A9", escaped("a-1&b é"));
    }
}
