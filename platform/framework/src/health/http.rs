//! Asks an address outside the platform over HTTP, and minds how long the answer takes.
//!
//! One `GET` on a connection of its own each time, so that connecting, and over `https` proving
//! itself, is part of what is checked.

use std::{path::PathBuf, time::Duration};

use http::{StatusCode, Uri};
use tokio::time::Instant;

use super::check::{Check, Effect, Kind};
use crate::{
    BoxError,
    transport::http::{Roots, Target},
};

pub use crate::transport::http::UrlError;

/// How checks name themselves to those they ask.
const USER_AGENT: &str = "gantry-health";

/// What one run found wrong.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("GET {url} answered {status}")]
    Status { url: Uri, status: StatusCode },
    #[error("GET {url} took {} ms, more than {} ms", .took.as_millis(), .latency_max.as_millis())]
    Slow {
        url: Uri,
        took: Duration,
        latency_max: Duration,
    },
}

impl Check {
    /// An address outside the platform; reports. It fails where nothing answers, where the answer
    /// is an error (400 and above), and where it takes longer than `latency_max`, from the first
    /// packet to the head of the answer.
    ///
    /// Over `https` it also fails where the other side does not prove itself to this machine's root
    /// certificates. They are read once, at the first run that finds some: those of the system, or
    /// of the file that `SSL_CERT_FILE` names.
    ///
    /// # Errors
    ///
    /// If `url` is not `http` or `https` with a host.
    pub fn http(
        name: impl Into<String>,
        url: &str,
        latency_max: Duration,
    ) -> Result<Self, UrlError> {
        let target = Target::parse(url, Roots::Machine)?;
        Ok(Self::of_target(name, target, latency_max))
    }

    /// As [`Check::http`], for an address whose certificate was signed by those in the PEM file
    /// `ca` and by no others. The file is read at every run.
    ///
    /// # Errors
    ///
    /// If `url` is not `https` with a host.
    pub fn https_with_ca(
        name: impl Into<String>,
        url: &str,
        ca: impl Into<PathBuf>,
        latency_max: Duration,
    ) -> Result<Self, UrlError> {
        let target = Target::parse(url, Roots::File(ca.into()))?;
        if !target.is_encrypted() {
            let url = url.to_owned();
            return Err(UrlError::NotHttps { url });
        }
        Ok(Self::of_target(name, target, latency_max))
    }

    fn of_target(name: impl Into<String>, target: Target, latency_max: Duration) -> Self {
        let probe = move || probe(target.clone(), latency_max);
        Self::of(name, Kind::Http, Effect::Reports, probe)
    }
}

async fn probe(target: Target, latency_max: Duration) -> Result<(), BoxError> {
    let tls = target.tls().await?;
    let begun = Instant::now();
    let status = target.head(tls, USER_AGENT).await?;
    let took = begun.elapsed();
    let url = target.url;
    if status.is_client_error() || status.is_server_error() {
        return Err(Fault::Status { url, status }.into());
    }
    if took > latency_max {
        return Err(Fault::Slow {
            url,
            took,
            latency_max,
        }
        .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
