//! The verb that calls methods at a rate.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::EtcdOptions;
use crate::output::Format;

const HELP: &str = "\
Examples:
  gantry load catalog shop.catalog.v1.CatalogService/ListProducts '{\"pageSize\": 2}' --rate 500
  gantry load 127.0.0.1:5001,127.0.0.1:5002 pkg.Service/Method @requests.jsonl --rate 200 --duration 1m
  gantry load catalog shop.catalog.v1.CatalogService/ListProducts \\
    --stage 0..500:10s --stage 500:30s --stage 2000:5s --report load.html
  gantry load orders shop.orders.v1.OrdersService/PlaceOrder --concurrency 8 --count 1000 \\
    -H 'authorization: Bearer …' '{\"requestId\": \"{{ uuid }}\", \"lines\": […]}'
  gantry load --plan spike.toml --report report.json --report report.html
  gantry load --scenario mixed --rate 50 --duration 1m

Requests are JSON values one after another, taken in turn. {{ n }} in them, and in metadata, is the
number of the call, {{ uuid }} a new UUID. A method that takes a stream gets all values in each call,
or, where each value is an array, an array in each. A stream of answers is read to its end, or to
the deadline.

A plan is a TOML file of [[calls]], each with method, and where wanted name, weight, target, request
(JSON or @file), metadata, criticality, deadline and retry; of [[stages]] with duration, and rate, or
from and to; and of [[faults]] with at, for and whom, and what `gantry fault` takes, or do = \"stop\",
\"kill\" or \"pause\". Faults end with the run, however it ends:

  target = \"gateway\"
  deadline = \"2s\"
  [[calls]]
  method = \"shop.catalog.v1.CatalogService/ListProducts\"
  weight = 3
  request = '{\"pageSize\": 2}'
  criticality = \"SHEDDABLE\"
  [[stages]]
  duration = \"10s\"
  from = 50
  to = 500
  [[faults]]
  at = \"3s\"
  for = \"4s\"
  whom = \"catalog-1\"
  fail = 50
  code = \"INTERNAL\"

Calls may follow from each other ([[calls.steps]], [[before]], keep, expect): docs/operating.md has all
keys. What the command line says counts over the plan: WHOM, pace and metadata.

Ctrl-C ends the sending and the faults, and still reports; a second one cuts the calls in flight.

Exit codes: 0 a valid run, 1 a void one (under 99 % of the calls were sent on schedule, or got a
status at all, or a fault was not switched on or off), or with --fail-on-error one with failed calls,
2 wrong usage, 130 interrupted.";

/// Call methods at a rate, and measure what becomes of the calls.
///
/// WHOM is an address, several with commas between them, or a service or instance of the running
/// `gantry up`, whose instances are followed as they come and go. The methods are known by
/// reflection. With --rate, --stage or the stages of a plan calls are sent on schedule whatever the
/// server does, and latency counts from when a call was due; with --concurrency each call waits for
/// another to end.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Load {
    /// An address, several, or a name in the running `gantry up`; a plan may say it instead
    #[arg(value_name = "WHOM", required_unless_present_any = ["plan", "scenario"])]
    pub(crate) target: Option<String>,
    /// package.Service/Method
    #[arg(conflicts_with_all = ["plan", "scenario"])]
    pub(crate) method: Option<String>,
    /// JSON with placeholders, or @file; an empty message without one
    pub(crate) request: Option<String>,
    /// Do what the plan in this file says
    #[arg(long, value_name = "FILE", conflicts_with = "scenario")]
    pub(crate) plan: Option<PathBuf>,
    /// Do what the plan of the project with this name says: config/load/NAME.toml
    #[arg(long, value_name = "NAME")]
    pub(crate) scenario: Option<PathBuf>,
    /// Send so many calls per second, whatever becomes of them
    #[arg(long, value_name = "CALLS", conflicts_with = "concurrency")]
    pub(crate) rate: Option<f64>,
    /// Send so many calls per second for a time, as 100:30s, or more and more of them, or less, as
    /// 100..500:10s; repeated, one after the other
    #[arg(long = "stage", value_name = "RATE:TIME", conflicts_with_all = ["rate", "concurrency", "duration", "count"])]
    pub(crate) stages: Vec<String>,
    /// Keep so many calls in flight, each sent when another has ended
    #[arg(long, value_name = "CALLS")]
    pub(crate) concurrency: Option<usize>,
    /// Send calls for so long; 10s without this or --count
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Send so many calls
    #[arg(long, value_name = "CALLS")]
    pub(crate) count: Option<u64>,
    /// How long a call may take; without one, unary calls 5s and streams as long as they want
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) deadline: Option<Duration>,
    /// Metadata to send, `key: value`; may be repeated
    #[arg(short = 'H', long = "header", value_name = "KEY:VALUE")]
    pub(crate) headers: Vec<String>,
    /// On schedule: a call that is due while so many are in flight is dropped, and counted
    #[arg(long, value_name = "CALLS", default_value_t = 10_000)]
    pub(crate) in_flight_max: usize,
    /// Try calls that end with these codes again as services do, where the contract says that it does
    /// no harm; UNAVAILABLE alone without any
    #[arg(long, value_name = "CODES", value_delimiter = ',', num_args = 0..=1, default_missing_value = "UNAVAILABLE")]
    pub(crate) retry: Option<Vec<String>>,
    /// Exit with 1 if any call failed or was dropped
    #[arg(long)]
    pub(crate) fail_on_error: bool,
    /// Write the report to this file as well: a page with charts as FILE.html, else JSON; may be repeated
    #[arg(long = "report", value_name = "FILE")]
    pub(crate) reports: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) etcd: EtcdOptions,
    /// Encrypt the connections, and trust the certificates in this PEM file
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The name the servers' certificates must hold, if not the address's
    #[arg(long, value_name = "NAME", requires = "ca")]
    pub(crate) server_name: Option<String>,
    /// Print tables, or the report as JSON
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}
