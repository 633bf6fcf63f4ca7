//! The verbs about what happens to calls.

use std::time::Duration;

use clap::Args;

use crate::output::Format;

/// Have calls of running instances fail on purpose, see which do, or end it.
///
/// A fault comes in the place of the handler or before it, in the process that serves: callers see what
/// they would of a bad day. It ends by itself after `--for`. Health, reflection and the side port are
/// left alone. Faults of `[policies]` are not shown here; one that is switched on takes their place.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gantry fault payments-2 --fail 50 --code INTERNAL     half of all calls to one instance, for ten minutes
  gantry fault payments --method shop.payments.v1.PaymentsService/Charge --delay 2s --for 1m
  gantry fault orders --drop 5 --metadata 'user-agent: grpcurl'    of some callers alone
  gantry fault payments                                 what is on
  gantry fault payments --off                           nothing any more")]
pub(crate) struct Fault {
    /// A service, for all its instances there are now, or an instance
    pub(crate) name: String,
    /// Which calls: `package.Service/Method`, `package.Service/*` or `*` (the default)
    #[arg(long, value_name = "PATTERN")]
    pub(crate) method: Option<String>,
    /// Calls wait so long first
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) delay: Option<Duration>,
    /// How many of them wait, in percent
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 100.0,
        requires = "delay"
    )]
    pub(crate) delay_percent: f64,
    /// Percent of calls that fail with `--code`
    #[arg(long, value_name = "PERCENT")]
    pub(crate) fail: Option<f64>,
    /// The code they fail with; UNAVAILABLE without it
    #[arg(long, requires = "fail")]
    pub(crate) code: Option<String>,
    /// Percent of calls whose answer breaks off without a status
    #[arg(long, value_name = "PERCENT")]
    pub(crate) abort: Option<f64>,
    /// Percent of calls that are never answered
    #[arg(long, value_name = "PERCENT")]
    pub(crate) drop: Option<f64>,
    /// Calls with this metadata alone: `name: value`, of which the value may go on
    #[arg(long)]
    pub(crate) metadata: Option<String>,
    /// How long it goes on, at most a day
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(crate) time: Duration,
    /// End the fault of `--method`, or all
    #[arg(long, conflicts_with_all = ["delay", "fail", "abort", "drop"])]
    pub(crate) off: bool,
    /// Print a table, or a JSON array
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

/// Show what holds for the calls of a method, and who says so.
///
/// Asks a process for its policies: what `[policies]` in its configuration says of the method, the
/// file and line of each value, and the defaults of the rest. A method counts under its own name,
/// whether the process serves it or calls it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gantry explain orders shop.payments.v1.PaymentsService/Charge    how orders call payments
  gantry explain payments-1 shop.payments.v1.PaymentsService/Charge --output json")]
pub(crate) struct Explain {
    /// A service or an instance; of a service the first one that runs
    pub(crate) name: String,
    /// `package.Service/Method`
    pub(crate) method: String,
    /// Print a table, or JSON
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}
