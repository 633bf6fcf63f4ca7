//! The command line.

mod calls;
mod events;
mod load;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{output::Format, shim};

pub(crate) use calls::{Breaker, Explain, Fault, Limits};
pub(crate) use events::{
    BrokerOptions, Dlq, DlqDrop, DlqList, DlqRedrive, DlqShow, DlqVerb, Events, EventsRemove,
    EventsStatus, EventsVerb, Filter, Meant, Tail,
};
pub(crate) use load::Load;

/// Run, watch and call gRPC services.
#[derive(Debug, Parser)]
#[command(
    name = "gantry",
    version,
    disable_help_subcommand = true,
    propagate_version = true
)]
#[command(after_help = "\
Examples:
  gantry up                                  start everything in gantry.toml
  gantry ps                                  what runs, and where
  gantry ls                                  who is registered
  gantry call catalog                        what catalog can be asked
  gantry logs orders -f                      what orders prints, as it comes
  gantry scale orders=3                      three instances of orders
  gantry restart orders                      new processes, one after the other, without a gap

Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration, 130 cut short by a signal.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Up(Up),
    Ps(Ps),
    Ls(Ls),
    Pause(Pause),
    Resume(Resume),
    Logs(Logs),
    Scale(Scale),
    Restart(Restart),
    /// Drain the running `gantry up`, and wait until it has ended
    Stop,
    Wait(Wait),
    Call(Call),
    Explain(Explain),
    Fault(Fault),
    Breaker(Breaker),
    Limits(Limits),
    Dlq(Dlq),
    Events(Events),
    Load(Load),
    Doctor(Doctor),
    /// Between gantry and a service; see `shim`.
    #[command(name = shim::VERB, hide = true)]
    RunChild {
        parent: u32,
        #[arg(long)]
        socket: bool,
        #[arg(last = true)]
        command: Vec<OsString>,
    },
}

/// Which etcd, if not the one of the running system, and how it is reached.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct EtcdOptions {
    /// Use the etcd at this URL instead of the running system's own; several with commas. Without it
    /// `GANTRY_ETCD__ENDPOINTS` in the environment names one
    #[arg(long, value_name = "URL")]
    pub(crate) etcd: Option<String>,
    /// For https: trust the certificates in this PEM file
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_ca: Option<PathBuf>,
    /// Certificate chain in PEM that proves who we are, where etcd asks
    #[arg(long, visible_alias = "etcd-cert", value_name = "FILE")]
    pub(crate) etcd_certificate: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_key: Option<PathBuf>,
    /// The name etcd's certificate must hold, if not the URL's
    #[arg(long, value_name = "NAME")]
    pub(crate) etcd_server_name: Option<String>,
    /// Who logs in, where etcd asks; with the password in `GANTRY_ETCD__PASSWORD`, or in a file
    #[arg(long, value_name = "NAME")]
    pub(crate) etcd_user: Option<String>,
    /// The user's password is in this file, which only its owner may read
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_password_file: Option<PathBuf>,
}

/// Start every service of gantry.toml and keep it running.
///
/// Waits until all serve, fills them with their seeds, shows what they print, starts crashed ones
/// again, and drains them in order at Ctrl-C. A second Ctrl-C ends everything at once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gantry up --build                          build the services first
  gantry up --replicas orders=3              three processes of orders
  gantry up --demo                           with customers that keep it busy
  gantry up --reset                          begin with empty databases
  gantry up --etcd http://127.0.0.1:2379     a real etcd in place of the local one
  gantry up --etcd https://10.0.0.1:2379 --etcd-ca ca.pem --etcd-user me --etcd-password-file secret
  gantry up --database postgres://me@127.0.0.1/shop
                                             PostgreSQL in place of files
  gantry up --broker amqp://127.0.0.1        RabbitMQ in place of the local broker
  gantry up --otlp http://127.0.0.1:4317     send traces to a collector")]
pub(crate) struct Up {
    /// Build every service first, with the profile gantry itself was built with
    #[arg(long)]
    pub(crate) build: bool,
    /// Run COUNT processes of NAME instead of what gantry.toml says; may be repeated
    #[arg(long, value_name = "NAME=COUNT")]
    pub(crate) replicas: Vec<String>,
    /// Run the demo too: the services of gantry.toml with `demo = true`, which play customers. What
    /// they do is in `gantry logs`
    #[arg(long)]
    pub(crate) demo: bool,
    /// Clear all data first
    #[arg(long)]
    pub(crate) reset: bool,
    #[command(flatten)]
    pub(crate) etcd: EtcdOptions,
    /// Keep data in the PostgreSQL database at this URL, each service in a schema of its own name;
    /// with the password in `GANTRY_DATABASE__PASSWORD`
    #[arg(long, value_name = "URL", conflicts_with = "reset")]
    pub(crate) database: Option<String>,
    #[command(flatten)]
    pub(crate) broker: BrokerOptions,
    /// Move the fixed ports: the local etcd listens on N + 1, the local broker on N + 2; 0 takes free
    /// ones
    #[arg(long, value_name = "N")]
    pub(crate) port_base: Option<u16>,
    /// Send traces to the OTLP collector at this URL (gRPC)
    #[arg(long, value_name = "URL")]
    pub(crate) otlp: Option<String>,
    /// Print for people, or one JSON object per line for programs
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

/// Show who is registered in etcd.
///
/// By etcd's own gRPC naming, as grpc-go and Gantry's clients read it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gantry ls                                  everybody known to the running system
  gantry ls orders --output json             array of {service, instance, address, lease_ttl_seconds, metadata}
  gantry ls --etcd http://127.0.0.1:2379     who is registered in that etcd
  gantry ls --etcd https://10.0.0.1:2379 --etcd-ca ca.pem --etcd-user me --etcd-password-file secret")]
pub(crate) struct Ls {
    /// A service; all without one
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) etcd: EtcdOptions,
    /// Print a table, or a JSON array
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

/// Take instances out of the registry; they go on serving who knows them.
///
/// Until `gantry resume`, also over crashes and `gantry restart`: whatever process takes their
/// place does not register. The next `gantry up` begins with everybody registered.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gantry pause orders-1                      one instance; `gantry ps` shows it as PAUSED
  gantry pause orders                        all there are now; later ones of `gantry scale` register")]
pub(crate) struct Pause {
    /// A service or an instance
    pub(crate) name: String,
}

/// Register instances again after a pause, and whatever takes their place.
#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// A service or an instance
    pub(crate) name: String,
}

/// Show the running instances.
///
/// REGISTRATION is what each says of itself: WAITING (it does not serve yet), REGISTERING (it should
/// be in the registry, and is not or may not be), REGISTERED, PAUSED (see `gantry pause`) or LEFT.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Print a table, or a JSON array
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

/// Show what instances printed, running or not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gantry logs                                the last lines of every instance
  gantry logs orders -f                      all orders instances, as they print
  gantry logs orders-1 --tail 1000")]
pub(crate) struct Logs {
    /// A service or an instance; all without one
    pub(crate) name: Option<String>,
    /// Go on with new lines as they come
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Lines of the past per instance
    #[arg(long, default_value_t = 50, value_name = "LINES")]
    pub(crate) tail: usize,
}

/// Wait until all instances of a service serve.
///
/// Also waits for a `gantry up` that is not there yet.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 serving, 17 timed out, 18 failed: it will not serve without help.

Example:
  gantry up & gantry wait orders --timeout 30s && gantry call orders")]
pub(crate) struct Wait {
    /// A service or an instance
    pub(crate) name: String,
    /// How long to wait
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
}

/// Run more or fewer instances of services, while everything else goes on.
///
/// What is missing is started, and waited for until it serves. What is too much drains, the
/// youngest first to go. What does not come to serve is removed again; nothing drains then.
/// The next `gantry up` runs what gantry.toml says.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gantry scale orders=3                      from however many to three
  gantry scale orders=3 catalog=2            both at once
  gantry scale orders=1 --output json        the instances after it, as an array

From 1 to 32; none at all is `gantry stop`, for everything. Ctrl-C ends the waiting with 130; the
running `gantry up` finishes what was begun.")]
pub(crate) struct Scale {
    /// A service, and how many instances of it
    #[arg(required = true, value_name = "NAME=COUNT")]
    pub(crate) counts: Vec<String>,
    /// How long the new instances may take to serve
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Print a table of the instances after it, or a JSON array
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

/// Replace running instances by new ones, without a gap.
///
/// For each instance a successor with a port of its own is started and has to serve before the old
/// one is told to drain; the next one's turn comes when the old one is gone. A successor that does
/// not come to serve is removed, the old one stays, and no further one is replaced.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gantry restart orders                      all its instances, one after the other
  gantry restart orders-2 catalog            one instance, then a service
  gantry restart --all                       every service, callees before their callers

A successor takes the lowest free number: of orders-1 and orders-2 become orders-1 and orders-3.
Ctrl-C ends the waiting with 130; the replacement at hand is finished, and no further one begun.")]
pub(crate) struct Restart {
    /// A service or an instance
    #[arg(required_unless_present = "all", value_name = "NAME|INSTANCE")]
    pub(crate) names: Vec<String>,
    /// Every service
    #[arg(long, conflicts_with = "names")]
    pub(crate) all: bool,
    /// How long each successor may take to serve
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Print a table of the instances after it, or a JSON array
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

/// Call any method of any service that has reflection.
///
/// WHOM is an address, or a service or instance of the running `gantry up`. Without a method the
/// services are listed; with a service or a message instead of a method, it is described.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gantry call catalog
  gantry call catalog shop.catalog.v1.CatalogService
  gantry call catalog shop.catalog.v1.CatalogService/ListProducts '{\"pageSize\": 2}'
  gantry call 127.0.0.1:50051 pkg.Service/Method @request.json -H 'authorization: Bearer …'
  generate | gantry call catalog shop.catalog.v1.CatalogService/SeedProducts -

A method that takes a stream reads one JSON value per message; `-` sends each line of standard
input as it comes. A method that answers with a stream prints one line per message as it comes.")]
pub(crate) struct Call {
    /// An address, a name in the running `gantry up`, or `etcd:///NAME`
    #[arg(value_name = "WHOM")]
    pub(crate) target: String,
    /// package.Service/Method, or package.Service to describe it
    pub(crate) method: Option<String>,
    /// JSON, @file, or - for standard input; an empty message without one
    pub(crate) request: Option<String>,
    /// Metadata to send, `key: value`; may be repeated
    #[arg(short = 'H', long = "header", value_name = "KEY:VALUE")]
    pub(crate) headers: Vec<String>,
    /// How long the call may take; without one, unary calls 5s and streams as long as they want
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) deadline: Option<Duration>,
    #[command(flatten)]
    pub(crate) etcd: EtcdOptions,
    /// Encrypt the connection, and trust the certificates in this PEM file
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The name the server's certificate must hold, if not the address's
    #[arg(long, value_name = "NAME", requires = "ca")]
    pub(crate) server_name: Option<String>,
    /// Print aligned JSON, or one line per message
    #[arg(long, value_enum)]
    pub(crate) output: Option<CallOutput>,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CallOutput {
    /// One line per message
    Json,
    /// Indented
    Pretty,
}

/// Check that this machine and this project can run.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print for people, or a JSON array
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) output: Format,
}

/// Reads the command line; ends the program where it is wrong, or asks for help.
///
/// The help of `load` names the scenarios of the project at hand.
pub(crate) fn parse() -> Cli {
    let mut command = Cli::command();
    if std::env::args_os().any(|word| word == "load") {
        command = command.mut_subcommand("load", |load| {
            let help = load.get_after_help().map(ToString::to_string);
            let parts = [help.unwrap_or_default(), crate::load::scenarios()];
            let parts = parts.iter().filter(|part| !part.is_empty());
            load.after_help(parts.cloned().collect::<Vec<_>>().join("\n\n"))
        });
    }
    let parsed = Cli::from_arg_matches(&command.get_matches());
    parsed.unwrap_or_else(|error| error.exit())
}

/// A file given as `@path`.
pub(crate) fn file_of(argument: &str) -> Option<PathBuf> {
    argument.strip_prefix('@').map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// Goal: help shows what is written: to clap, an `n` in braces is the end of a line.
    /// Method: the placeholder and the line around it.
    #[test]
    fn the_help_of_load_shows_its_placeholders() {
        let mut cli = Cli::command();
        let load = cli.find_subcommand_mut("load").unwrap();
        let help = load.render_long_help().to_string();
        assert!(help.contains("in turn. {{ n }} in them"), "{help}");
    }

    /// Goal: what does not exist yet is refused, with the nearest that does.
    /// Method: a mistyped verb, and a flag of a later version.
    #[test]
    fn unknown_verbs_and_flags_are_refused() {
        let refuse = |words: &[&str]| Cli::try_parse_from(words).unwrap_err().to_string();
        assert!(refuse(&["gantry", "log"]).contains("'logs'"));
        assert!(refuse(&["gantry", "up", "--console"]).contains("--console"));
        assert!(refuse(&["gantry", "up", "--rest"]).contains("--reset"));
    }
}
