//! Which calls have passed this gateway already. One that is registered as an instance of a service,
//! by mistake or behind another gateway, would else call itself for as long as there is room. Services
//! tell by it which calls come from outside.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gantry::{client::Channel, server::GATEWAYS, status::Refusal};
use http::{HeaderMap, HeaderValue, header};
use tonic::Status;

/// When such a call is worth another try: it may meet another instance.
const PAUSE: Duration = Duration::from_secs(1);

/// This gateway among those that a call passes (RFC 9110, section 7.6.3).
#[derive(Debug, Clone)]
pub struct Hop {
    /// What it calls itself: anything that no other does.
    name: Arc<str>,
    told: Arc<AtomicBool>,
}

impl Hop {
    /// One that no call has passed yet.
    #[must_use]
    pub fn new() -> Self {
        let name = format!("{GATEWAYS}{:016x}", RandomState::new().hash_one(()));
        Self {
            name: name.into(),
            told: Arc::default(),
        }
    }

    /// `channel`, whose calls say that they passed here.
    #[must_use]
    pub fn mark(&self, channel: Channel) -> Channel {
        match HeaderValue::try_from(format!("2.0 {}", self.name)) {
            Ok(value) => channel.saying(header::VIA, value),
            Err(_) => channel,
        }
    }

    /// Refuses a call of `what` with these `headers` that passed here before.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE: another instance may be a real one.
    pub fn check(&self, what: &str, headers: &HeaderMap) -> Result<(), Status> {
        let mut passed = headers.get_all(header::VIA).iter();
        let passed = passed.any(|it| it.to_str().is_ok_and(|it| it.contains(&*self.name)));
        if !passed {
            return Ok(());
        }
        let text =
            format!("{what} came back to the gateway: it is registered as an instance of it");
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(error = text, "a call came back");
        }
        Err(Refusal::NoEndpoint.status_with_pause(text, PAUSE))
    }
}

impl Default for Hop {
    fn default() -> Self {
        Self::new()
    }
}
