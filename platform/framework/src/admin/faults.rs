//! Faults as operators ask for them and see them.

use std::time::Duration;

use gantry_api::admin::v1::Fault;
use tokio::time::Instant;
use tonic::Status;

use super::convert;
use crate::{
    fault::{Config, Ending, LONGEST, Standing},
    status,
};

/// What is asked for, judged.
pub(super) fn standing(fault: &Fault, now: Instant) -> Result<Standing, Status> {
    let refuse = |field: &str, text: &str| {
        let field = format!("fault.{field}");
        status::invalid_argument([(field, text.to_owned())])
    };
    let pattern = fault.pattern.parse();
    let pattern = pattern.map_err(|_| {
        refuse(
            "pattern",
            "must be package.Service/Method, package.Service/* or *",
        )
    })?;
    let time =
        |given: Option<prost_types::Duration>| given.map_or(Ok(Duration::ZERO), Duration::try_from);
    let delay = time(fault.delay);
    let delay = delay.map_err(|_| refuse("delay", "must not be negative"))?;
    let left = time(fault.left).ok();
    let left = left.filter(|left| !left.is_zero() && *left <= LONGEST);
    let left = left.ok_or_else(|| refuse("left", "must be more than 0s and at most a day"))?;
    let code = match fault.code.as_str() {
        "" => Config::default().code,
        name => {
            let code = status::code_named(name).filter(|code| *code != tonic::Code::Ok);
            let code = code.map(Ending);
            code.ok_or_else(|| refuse("code", "must be a gRPC code other than OK"))?
        }
    };
    let metadata = match fault.metadata.as_str() {
        "" => None,
        text => {
            let metadata = text.parse();
            Some(metadata.map_err(|_| refuse("metadata", "must be as in `name: value`"))?)
        }
    };
    let config = Config {
        delay_percent: fault.delay_percent,
        delay,
        fail_percent: fault.fail_percent,
        code,
        abort_percent: fault.abort_percent,
        drop_percent: fault.drop_percent,
        metadata,
    };
    config
        .judge()
        .map_err(|(field, reason)| refuse(field, reason))?;
    if !config.is_on() {
        return Err(refuse("fail_percent", "or another share must be above 0"));
    }
    Ok(Standing {
        pattern,
        config,
        until: now + left,
    })
}

/// What is on, for people and programs.
pub(super) fn on_wire(standing: &Standing, now: Instant) -> Fault {
    let config = &standing.config;
    Fault {
        pattern: standing.pattern.to_string(),
        delay_percent: config.delay_percent,
        delay: convert::duration(config.delay),
        fail_percent: config.fail_percent,
        code: status::code_name(config.code.0).to_owned(),
        abort_percent: config.abort_percent,
        drop_percent: config.drop_percent,
        metadata: config
            .metadata
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        left: convert::duration(standing.until.saturating_duration_since(now)),
    }
}
