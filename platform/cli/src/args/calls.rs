//! The verbs about what happens to calls.

use std::time::Duration;

use clap::Args;
use gantry_api::admin::v1::set_breaker_request::Order;

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

/// Show what keeps calls from those that failed, and decide in its place.
///
/// Breakers are in the process that calls: one for each endpoint of each of its clients, and those that
/// the program has around something else, like a bank. Each opens by itself where calls fail, and lets
/// one find out after a pause whether it may close. What is set here ends after `--for`, with `--auto`,
/// and with the process.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gantry breaker orders                           the breakers of all instances of orders
  gantry breaker orders payments-2 --open         they call this instance of payments no more
  gantry breaker orders payments --open --for 5m  nor any of payments, for five minutes
  gantry breaker payments bank --close            begin anew: the bank is back, and we know
  gantry breaker payments bank --disable          let all calls pass, and count nothing
  gantry breaker orders payments --auto           as the configuration says again

FAILED is of the calls of the window, as long as the breaker is closed; OPENED is how often it did.
An instance that cannot be asked is named on standard error, and the exit code is 1.")]
#[allow(clippy::struct_excessive_bools, reason = "one flag for each order")]
pub(crate) struct Breaker {
    /// A service, for all its instances there are now, or an instance
    pub(crate) name: String,
    /// Which of its breakers: a client, an endpoint as in `payments/127.0.0.1:7001`, an instance of the
    /// running `up`, or the name that the program gave it; all without it
    #[arg(
        required_if_eq_any = [("open", "true"), ("close", "true"), ("disable", "true"), ("metrics_only", "true"), ("auto", "true")]
    )]
    pub(crate) whose: Option<String>,
    /// Let no call pass, not even where no other endpoint can take it
    #[arg(long, group = "order")]
    pub(crate) open: bool,
    /// Close it now, forget what failed, and leave the rest to the configuration
    #[arg(long, group = "order")]
    pub(crate) close: bool,
    /// Let all calls pass, and count nothing
    #[arg(long, group = "order")]
    pub(crate) disable: bool,
    /// Let all calls pass, and count what it would do
    #[arg(long, group = "order")]
    pub(crate) metrics_only: bool,
    /// Take back what was set by hand
    #[arg(long, group = "order")]
    pub(crate) auto: bool,
    /// How long it holds, at most a day; without it until it is taken back, or the process ends
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, requires = "order", conflicts_with_all = ["close", "auto"])]
    pub(crate) time: Option<Duration>,
    /// Print a table, or a JSON array
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

impl Breaker {
    /// What is to be done; nothing where it is only looked at.
    pub(crate) fn order(&self) -> Option<Order> {
        let orders = [
            (self.open, Order::Open),
            (self.close, Order::Close),
            (self.disable, Order::Disable),
            (self.metrics_only, Order::MetricsOnly),
            (self.auto, Order::Automatic),
        ];
        let mut orders = orders.into_iter().filter(|(asked, _)| *asked);
        orders.next().map(|(_, order)| order)
    }
}

/// Show what bounds the calls of running instances, and how full it is.
///
/// Calls in flight, of the process and of each method (`concurrency`; `adaptive` is found by measuring),
/// their `queue`, what an overloaded process looks at (`lag`, `cpu`, `memory`) and refuses (`shed`, by
/// criticality), `rate`; and of each target that it calls: calls in flight (`bulkhead`), what is asked
/// of it while it fails (`throttle`), and what may be tried again (`retry budget`, `retry tokens`).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gantry limits orders                            what holds something, or has refused something
  gantry limits orders-1 --all                    every limit of one instance
  gantry limits orders --output json              array of {instance, kind, client, method, key, enforced,
                                                  used, max, refused, would_refuse}

REFUSED counts since the process began; `(would)` where a limit only shows what it would refuse.
An instance that cannot be asked is named on standard error, and the exit code is 1.")]
pub(crate) struct Limits {
    /// A service, for all its instances there are now, or an instance
    pub(crate) name: String,
    /// Show those too that hold nothing and have refused nothing
    #[arg(long)]
    pub(crate) all: bool,
    /// Print a table, or a JSON array
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}
