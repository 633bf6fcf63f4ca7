//! Where this process registers, and where it finds others: what `[etcd]` and `[registration]`
//! come to.

#[cfg(not(feature = "etcd"))]
mod absent;
#[cfg(feature = "etcd")]
mod connected;

use std::{path::PathBuf, time::Duration};

use http::uri::Authority;

use crate::{
    client::Tls,
    config::{self, Secret},
};

#[cfg(not(feature = "etcd"))]
pub(super) use absent::{Registering, Registry};
#[cfg(feature = "etcd")]
pub(super) use connected::{Registering, Registry};
#[cfg(feature = "etcd")]
pub use connected::{discovering, etcd};

config::section! {
    /// Where services register and find each other. Without endpoints nothing of it is done.
    pub struct Etcd {
        /// Members of the cluster, as in `http://127.0.0.1:2379`; a host without a scheme is
        /// plaintext.
        pub endpoints: Vec<String> = Vec::new(), restart;
        /// Who logs in, where etcd asks.
        pub user: Option<String> = None, restart;
        /// The user's password.
        pub password: Secret = Secret::default(), restart;
        /// Longest wait for one answer.
        pub timeout: Duration = Duration::from_secs(3), in TIMEOUT, restart;
        /// Folder in which the last known endpoints of each name, and for a gateway the services that
        /// are registered, are kept for a start without etcd; they are not kept without one.
        pub snapshots: Option<PathBuf> = None, restart;
        /// Encrypts the connections; for `https` endpoints.
        pub tls: optional section Tls, restart;
    }
    validate = Etcd::check;
}

const TIMEOUT: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_mins(1);

impl Etcd {
    /// Whether there is an etcd to use.
    pub(super) fn is_configured(&self) -> bool {
        !self.endpoints.is_empty()
    }

    fn check_endpoints(&self, check: &mut config::Check<'_, '_>) {
        for endpoint in &self.endpoints {
            let (tls, host) = split(endpoint);
            let has_port = host
                .parse::<Authority>()
                .is_ok_and(|it| it.port_u16().is_some() && !it.host().is_empty());
            if !has_port {
                let wanted = "expected HOST:PORT, as in http://127.0.0.1:2379";
                check.refuse("endpoints", format!("{wanted}; `{endpoint}` is not"));
            } else if tls && self.tls.is_none() {
                let wanted = "expected etcd.tls.ca beside it, the certificates to trust";
                check.refuse("endpoints", format!("{wanted}, as `{endpoint}` is https"));
            } else if !tls && self.tls.is_some() {
                let wanted = "expected https:// as etcd.tls is set";
                check.refuse("endpoints", format!("{wanted}; `{endpoint}` is not"));
            }
        }
    }

    fn check(&self, check: &mut config::Check<'_, '_>) {
        if self.is_configured() && cfg!(not(feature = "etcd")) {
            let reason = "this program was built without the feature `etcd`";
            check.refuse("endpoints", reason);
        }
        if self.endpoints.iter().any(|it| split(it).1.contains('@')) {
            // It holds a password, and so does the list in any other complaint about it.
            let reason = "expected HOST:PORT alone; who logs in stands in etcd.user";
            check.refuse_unshown("endpoints", reason);
        } else {
            self.check_endpoints(check);
        }
        if self.user.is_some() == self.password.is_empty() {
            check.refuse(
                "password",
                "expected user and password together, or neither",
            );
        }
    }
}

/// Whether an endpoint wants TLS, and its host and port.
fn split(endpoint: &str) -> (bool, &str) {
    let endpoint = endpoint.trim_end_matches('/');
    match endpoint.split_once("://") {
        Some(("https", host)) => (true, host),
        Some(("http", host)) => (false, host),
        _ => (false, endpoint),
    }
}

#[cfg(all(test, feature = "etcd"))]
mod tests {
    use crate::{app::Platform, config::Sources};

    /// Goal: a password in an endpoint is refused and never shown, whatever else is wrong.
    /// Method: beside another endpoint that is wrong.
    #[test]
    fn a_password_in_an_endpoint_is_not_shown() {
        let urls = "http://gantry:hunter2@127.0.0.1:2379,nonsense";
        let sources = Sources::new().variables([("GANTRY_ETCD__ENDPOINTS", urls)]);
        let said = crate::config::load::<Platform>(sources).map(drop);
        let said = said.unwrap_err().to_string();
        assert!(said.contains("etcd.user"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}
