//! The verbs about events.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{
    Args, Subcommand,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser as _},
};
use gantry_events::{
    broker::Login,
    dead::{Name, REDRIVEN_MAX, Reason},
};

use crate::output::Format;

/// Which broker, if not the one of the running system, and how it is reached.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct BrokerOptions {
    /// Use the broker at this URL instead of the running system's own. Without it
    /// `GANTRY_BROKER__URL` in the environment names one
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<String>,
    /// For amqps: trust the certificates in this PEM file
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_ca: Option<PathBuf>,
    /// Certificate chain in PEM that proves who we are, where the broker asks
    #[arg(long, visible_alias = "broker-cert", value_name = "FILE")]
    pub(crate) broker_certificate: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_key: Option<PathBuf>,
    /// The name the broker's certificate must hold, if not the URL's
    #[arg(long, value_name = "NAME")]
    pub(crate) broker_server_name: Option<String>,
    /// Who logs in; with the password in `GANTRY_BROKER__PASSWORD`, or in a file
    #[arg(long, value_name = "NAME")]
    pub(crate) broker_user: Option<String>,
    /// The user's password is in this file, which only its owner may read
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_password_file: Option<PathBuf>,
}

impl BrokerOptions {
    /// What is worth saying of them.
    pub(crate) fn remark(&self) -> Option<&'static str> {
        let (_, login) = Login::taken_from(self.broker.as_deref()?);
        (!login?.password.is_empty()).then_some(
            "every user of this machine can read the password in --broker; \
             GANTRY_BROKER__PASSWORD in the environment keeps it",
        )
    }
}

/// Look after dead letters: events that a consumer could not do.
///
/// A group is who consumes, SERVICE.CONSUMER. An event that one rejects, or that fails as often as it
/// may be tried, becomes a dead letter of its group and waits for somebody to look: it is sent back
/// once what was wrong is mended, or dropped. Others have their own copies, and are not concerned.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gantry dlq list                                   who has dead letters
  gantry dlq list notifications.notices             which, and why
  gantry dlq show notifications.notices 17          all that is known of one
  gantry dlq redrive notifications.notices 17       once more, from the beginning
  gantry dlq redrive notifications.notices --all --reason attempts_used_up --rate 50
  gantry dlq drop notifications.notices 17 --yes    never again")]
pub(crate) struct Dlq {
    #[command(subcommand)]
    pub(crate) verb: DlqVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DlqVerb {
    List(DlqList),
    Show(DlqShow),
    Redrive(DlqRedrive),
    Drop(DlqDrop),
}

/// Show which groups have dead letters, or those of one group, the oldest first.
#[derive(Debug, Args)]
#[command(after_help = "\
With --output json, an array: of groups {group, dead_letters, ready, delayed, unsettled, consumers}, or of letters
{place, id, topic, source, partition, attempts, reason, time, redriven, body_bytes}.")]
pub(crate) struct DlqList {
    /// Whose; every group's number without one. A broker that does not tell its groups, as RabbitMQ, is
    /// asked about those of running instances
    pub(crate) group: Option<String>,
    /// Show groups without dead letters, too
    #[arg(long, conflicts_with = "group")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Show so many letters at most
    #[arg(long, value_name = "COUNT", default_value = "100")]
    pub(crate) count: NonZeroU32,
    #[command(flatten)]
    pub(crate) broker: BrokerOptions,
    /// Print a table, or a JSON array
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

/// Which letters of a group.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Filter {
    /// Of this topic alone, the full name of the event's type
    #[arg(long)]
    pub(crate) topic: Option<String>,
    /// Of this reason alone, as `list` shows it
    #[arg(long, value_parser = reasons().try_map(|word| reason(&word)))]
    pub(crate) reason: Option<Reason>,
}

/// The words for why an event is a dead letter.
fn reasons() -> PossibleValuesParser {
    let words = Reason::ALL.iter().map(|reason| reason.as_str());
    PossibleValuesParser::new(words.map(PossibleValue::new))
}

fn reason(word: &str) -> Result<Reason, String> {
    let reason = Reason::ALL.iter().find(|reason| reason.as_str() == word);
    reason
        .copied()
        .ok_or_else(|| format!("no reason is {word:?}"))
}

/// Letters of a group to do something with.
#[derive(Debug, Args)]
pub(crate) struct Meant {
    /// Whose
    pub(crate) group: String,
    /// Places, or ids of events
    #[arg(
        required_unless_present = "all",
        conflicts_with = "all",
        value_name = "LETTER"
    )]
    pub(crate) letters: Vec<Name>,
    /// All that are there now
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) filter: Filter,
}

/// Show one dead letter: its headers, with what it failed with, and the size of its body.
///
/// Keys and bodies tell of people and their things, and what a handler failed with may, too. The key
/// is shown with `--key`, the body with `--body`: as JSON where the service of the group runs here and
/// describes its type, and else not at all.
#[derive(Debug, Args)]
pub(crate) struct DlqShow {
    /// Whose
    pub(crate) group: String,
    /// Its place, or the id of its event
    pub(crate) letter: Name,
    /// Show the key, too
    #[arg(long)]
    pub(crate) key: bool,
    /// Show the body, too
    #[arg(long)]
    pub(crate) body: bool,
    #[command(flatten)]
    pub(crate) broker: BrokerOptions,
    /// Print for people, or JSON
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

/// Put dead letters back into the queues they come from, where they begin anew.
///
/// Each goes to the end of its queue, so it comes after events of its key that were done meanwhile.
/// One that has gone back as often as `--redriven-max` says stays: it would only come back.
#[derive(Debug, Args)]
#[command(after_help = "\
Ctrl-C ends it with 130 after the letter at hand. The exit code is 1 where a letter stays that was
meant, or one that was named is not there.")]
pub(crate) struct DlqRedrive {
    #[command(flatten)]
    pub(crate) meant: Meant,
    /// No more than so many in a second
    #[arg(long, value_name = "PER_SECOND", default_value = "10")]
    pub(crate) rate: NonZeroU32,
    /// Leave letters that went back so often before
    #[arg(long, value_name = "COUNT", default_value_t = REDRIVEN_MAX)]
    pub(crate) redriven_max: u32,
    #[command(flatten)]
    pub(crate) broker: BrokerOptions,
    /// Print for people, or JSON
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

/// Drop dead letters for good: their consumer never does them.
#[derive(Debug, Args)]
pub(crate) struct DlqDrop {
    #[command(flatten)]
    pub(crate) meant: Meant,
    /// Do it; without this it is only said how many it would be
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) broker: BrokerOptions,
    /// Print for people, or JSON
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

/// Look at events as they pass, and at those who publish and consume them.
#[derive(Debug, Args)]
pub(crate) struct Events {
    #[command(subcommand)]
    pub(crate) verb: EventsVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventsVerb {
    Status(EventsStatus),
    Tail(Tail),
    Remove(EventsRemove),
}

/// Remove a group for good, with all events that wait in its queues and its dead letters.
///
/// It is for a consumer that there will not be any more, or that is to be made anew with another number
/// of partitions. Nothing is removed while somebody consumes it: stop that first. Where it comes back, it has
/// what is published from then on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gantry events remove notifications.notices          what would go
  gantry events remove notifications.notices --yes    it goes

With --output json, {group, ready, delayed, dead_letters}: what is gone.")]
pub(crate) struct EventsRemove {
    /// Which: SERVICE.CONSUMER
    pub(crate) group: String,
    /// Do it; without this it is only said what would go
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) broker: BrokerOptions,
    /// Print for people, or JSON
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

/// Show how events fare in running instances: how each reaches the broker, what waits to be published
/// and why, and who consumes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gantry events status                       every instance that has events
  gantry events status orders-2              one of them

With --output json, an array of {instance, broker: {system, url, connections: [{purpose, state,
seconds_in_state, error, attempts}]}, outbox: {pending, oldest_age_seconds, in_flight, keys_claimed, waits:
[{reason, topic, keys, attempts, seconds, next_attempt_ms}], refused: [{reason, count, seconds_since_last,
last_topic, last_error}], error}, consumers: [{group, state, partitions, in_flight, held, held_keys,
troubles: [{reason, partitions, seconds, attempts, error}], queued: {ready, unsettled, delayed,
dead_letters, strays}}]}. Words of `reason` are those of the metrics.")]
pub(crate) struct EventsStatus {
    /// A service or an instance; all that have events without one
    pub(crate) name: Option<String>,
    /// Print for people, or a JSON array
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

/// Show events as they are published: time, topic, source, size and trace, and never what is in them.
///
/// Nobody waits for who looks: what comes faster than it can be shown is missed, and counted. What a
/// consumer is given once more is not published, and not shown.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gantry events tail                                       all there are
  gantry events tail shop.orders.v1.OrderPlaced --count 3  the next three of a type
  gantry events tail --summary                             how many of each type, every five seconds
  gantry events tail --output json                         {time, topic, source, bytes, trace_id, id, missed}

Ctrl-C ends it, with 0.")]
pub(crate) struct Tail {
    /// Full names of types of events; all without one
    #[arg(value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
    /// Show how many there are of each type instead
    #[arg(long)]
    pub(crate) summary: bool,
    /// How often, with `--summary`
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration, requires = "summary")]
    pub(crate) every: Duration,
    /// End after so many events
    #[arg(long, value_name = "COUNT")]
    pub(crate) count: Option<NonZeroU32>,
    #[command(flatten)]
    pub(crate) broker: BrokerOptions,
    /// Print for people, or one JSON object per line
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}
