//! What running instances say of their registrations, each asked at its side port.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use gantry_api::admin::v1::{GetRegistrationRequest, admin_service_client::AdminServiceClient};
use tokio::time;

use crate::{call::target::Target, supervisor::Report};

/// Longest wait for one instance: somebody waits for the table.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Instances asked at once.
const AT_ONCE: usize = 16;

/// How an instance that has no process, and whose next one is to begin paused, is known.
const PAUSED: &str = "PAUSED";

/// Completes `reports`. What does not answer, or does not register, is left without.
///
/// Asked when somebody looks, and not by the supervisor all the time, so that a look right after
/// a change shows that change, and nobody pays who does not look.
pub(crate) async fn complete(reports: &mut [Report]) {
    let asked = stream::iter(reports).map(|report| async move {
        let row = &mut report.row;
        let (state, error) = match row.pid {
            Some(_) => said(&row.side_address).await.unzip(),
            None => (report.paused.then(|| PAUSED.to_owned()), None),
        };
        row.registration = state;
        row.registration_error = error.filter(|error| !error.is_empty());
    });
    asked.buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// The state of the registration and what is wrong with it, as the process at `side_address` says.
async fn said(side_address: &str) -> Option<(String, String)> {
    let target = Target::at(side_address, None).ok()?;
    let mut admin = AdminServiceClient::new(target.channel.clone());
    let asked = admin.get_registration(GetRegistrationRequest {});
    let answer = time::timeout(ANSWER_MAX, asked).await;
    target.close().await;
    let registration = answer.ok()?.ok()?.into_inner().registration?;
    let name = registration.state().as_str_name();
    let name = name.trim_start_matches("STATE_").to_owned();
    Some((name, registration.error))
}
