//! `gantry breaker`: shows what keeps calls from those that failed, and decides in its place.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use gantry_api::admin::v1::{
    Breaker, ListBreakersRequest, SetBreakerRequest,
    admin_service_client::AdminServiceClient,
    breaker::{Mode, State},
    set_breaker_request::Order,
};
use serde::Serialize;

use crate::{
    Outcome, args, ask,
    call::{self, target::Channel},
    failure::{Failure, nearest},
    output::{self, Format},
    supervisor::Report,
};

/// A breaker, as it is printed for programs.
#[derive(Debug, Serialize)]
#[allow(
    clippy::struct_field_names,
    reason = "a row of failures is no row of a table"
)]
struct Row {
    instance: String,
    /// What the program calls it; none where it is of an endpoint.
    name: Option<String>,
    client: Option<String>,
    address: Option<String>,
    state: String,
    seconds_in_state: u64,
    mode: String,
    by_hand: bool,
    /// How long what is set by hand holds; none where it does until it is taken back.
    seconds_left: Option<u64>,
    calls: u64,
    failed: u64,
    slow: u64,
    failures_in_a_row: u64,
    opened: u64,
    next_probe_ms: Option<u64>,
}

/// Which breakers are meant, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whose {
    All,
    /// Of this name, or of the endpoints of a client of this name.
    Named(String),
    Endpoint {
        client: String,
        address: String,
    },
}

impl Whose {
    /// `payments`, `payments/127.0.0.1:7001`, or `payments-2`, which is an instance in `reports`.
    fn read(text: Option<&str>, reports: &[Report]) -> Result<Self, Failure> {
        let Some(text) = text else {
            return Ok(Self::All);
        };
        if let Some((client, address)) = text.split_once('/') {
            if address.parse::<SocketAddr>().is_err() {
                let text =
                    format!("\"{text}\": expected an endpoint as in payments/127.0.0.1:7001");
                return Err(Failure::usage(text));
            }
            return Ok(Self::Endpoint {
                client: client.to_owned(),
                address: address.to_owned(),
            });
        }
        let mut rows = reports.iter().map(|report| &report.row);
        Ok(match rows.find(|row| row.instance == text) {
            Some(row) => Self::Endpoint {
                client: row.name.clone(),
                address: row.address.clone(),
            },
            None => Self::Named(text.to_owned()),
        })
    }

    fn covers(&self, breaker: &Breaker) -> bool {
        match self {
            Self::All => true,
            Self::Named(name) => [&breaker.name, &breaker.client].contains(&name),
            Self::Endpoint { client, address } => {
                breaker.client == *client && breaker.address == *address
            }
        }
    }

    /// What is asked for, of which `known` are there; none where those are none of it.
    fn request(&self, known: &[Breaker], order: Order) -> Option<SetBreakerRequest> {
        let known = known.iter().find(|breaker| self.covers(breaker))?;
        let address = match self {
            Self::Endpoint { address, .. } => address.clone(),
            Self::All | Self::Named(_) => String::new(),
        };
        Some(SetBreakerRequest {
            name: known.name.clone(),
            client: known.client.clone(),
            address,
            order: order.into(),
            time: None,
        })
    }
}

pub(crate) async fn run(args: args::Breaker) -> Outcome {
    let reports = ask::running().await?;
    let whose = Whose::read(args.whose.as_deref(), &reports)?;
    let answers = ask::each(&args.name, &reports, async |channel, row| {
        let breakers = change(channel, &whose, &args).await?;
        let instance = &row.instance;
        Ok(breakers.into_iter().map(|it| shown(instance, it)).collect())
    });
    let answers = answers.await?;
    match args.output {
        Format::Json => output::json(&answers.rows),
        Format::Human if answers.rows.is_empty() => answers.note("no breaker is there"),
        Format::Human => output::line(&table(&answers.rows)),
    }
    answers.exit()
}

/// Does what is asked of one process, and returns what is meant as it is then.
async fn change(
    channel: Channel,
    whose: &Whose,
    args: &args::Breaker,
) -> Result<Vec<Breaker>, Failure> {
    let mut admin = AdminServiceClient::new(channel);
    let failed = |status| call::failure(&status);
    let mut list = async || {
        let listed = admin.list_breakers(ListBreakersRequest {}).await;
        listed.map(|it| it.into_inner().breakers).map_err(failed)
    };
    let known = list().await?;
    let Some(order) = args.order() else {
        let meant = known.iter().filter(|it| whose.covers(it));
        let meant: Vec<_> = meant.cloned().collect();
        return match whose {
            Whose::Named(name) if meant.is_empty() => Err(unknown(name, &known)),
            _ => Ok(meant),
        };
    };
    let Some(asked) = whose.request(&known, order) else {
        let text = args.whose.as_deref().unwrap_or_default();
        return Err(unknown(text, &known));
    };
    let time = args.time.and_then(|time| time.try_into().ok());
    let set = admin.set_breaker(SetBreakerRequest { time, ..asked }).await;
    set.map(|set| set.into_inner().breakers).map_err(failed)
}

fn unknown(text: &str, known: &[Breaker]) -> Failure {
    let names = known.iter().flat_map(|it| [&*it.name, &*it.client]);
    let mut names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    let near = nearest(text, names.iter().copied());
    let text = match names.as_slice() {
        [] => format!("it has no breaker \"{text}\", nor any other"),
        names => format!(
            "it has no breaker \"{text}\"{near}; there are {}",
            names.join(", ")
        ),
    };
    Failure::usage(text)
}

fn shown(instance: &str, breaker: Breaker) -> Row {
    let (state, mode) = (breaker.state(), breaker.mode());
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let time = |time: Option<prost_types::Duration>| Duration::try_from(time?).ok();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let since = breaker.state_time.and_then(|since| since.try_into().ok());
    let since = since.and_then(|since: SystemTime| since.elapsed().ok());
    Row {
        instance: instance.to_owned(),
        name: given(breaker.name),
        client: given(breaker.client),
        address: given(breaker.address),
        state: word(state.as_str_name(), "STATE_"),
        seconds_in_state: since.unwrap_or_default().as_secs(),
        mode: word(mode.as_str_name(), "MODE_"),
        by_hand: breaker.by_hand,
        seconds_left: time(breaker.left).map(|time| time.as_secs()),
        calls: breaker.calls,
        failed: breaker.failed,
        slow: breaker.slow,
        failures_in_a_row: breaker.failures_in_a_row,
        opened: breaker.opened,
        next_probe_ms: time(breaker.next_probe).map(millis),
    }
}

/// `FORCED_OPEN` of `STATE_FORCED_OPEN`.
fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_owned()
}

/// What is there, for people.
fn table(rows: &[Row]) -> String {
    let heading = [
        "INSTANCE", "BREAKER", "STATE", "FOR", "FAILED", "OPENED", "DECIDES",
    ];
    let rows: Vec<_> = rows.iter().map(cells).collect();
    output::table(heading, &rows)
}

fn cells(row: &Row) -> [String; 7] {
    let breaker = match (&row.name, &row.client, &row.address) {
        (Some(name), ..) => name.clone(),
        (None, client, address) => {
            let or = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{}/{}", or(client), or(address))
        }
    };
    let failed = if row.state == word(State::Closed.as_str_name(), "STATE_") {
        let slow = match row.slow {
            0 => String::new(),
            slow => format!(", {slow} slow"),
        };
        format!("{} of {}{slow}", row.failed, row.calls)
    } else {
        "-".to_owned()
    };
    [
        row.instance.clone(),
        breaker,
        row.state.clone(),
        seconds(row.seconds_in_state),
        failed,
        row.opened.to_string(),
        decides(row),
    ]
}

/// Who decides what passes, and what comes next.
fn decides(row: &Row) -> String {
    let hand = if row.by_hand {
        "by hand"
    } else {
        "by configuration"
    };
    let mut parts = Vec::new();
    if row.mode == word(Mode::Automatic.as_str_name(), "MODE_") && !row.by_hand {
        parts.push("itself".to_owned());
    } else {
        parts.push(format!("{}, {hand}", row.mode));
    }
    if let Some(left) = row.seconds_left {
        parts.push(format!("{} left", seconds(left)));
    }
    match row.next_probe_ms {
        Some(0) => parts.push("the next call finds out".to_owned()),
        Some(time) => parts.push(format!(
            "one call finds out in {}",
            seconds(time.div_ceil(1_000))
        )),
        None => {}
    }
    parts.join(", ")
}

fn seconds(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(address: &str) -> Breaker {
        Breaker {
            client: "payments".to_owned(),
            address: address.to_owned(),
            state: State::Closed.into(),
            mode: Mode::Automatic.into(),
            ..Breaker::default()
        }
    }

    fn bank() -> Breaker {
        Breaker {
            name: "bank".to_owned(),
            client: String::new(),
            address: String::new(),
            ..endpoint("")
        }
    }

    /// Goal: people see what each breaker is, what it has counted and who decides, in columns.
    /// Method: one that is closed, one that is open, one that is set by hand for a time.
    #[test]
    fn breakers_are_a_table() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let all = [
            Breaker {
                calls: 20,
                failed: 3,
                slow: 1,
                ..bank()
            },
            Breaker {
                state: State::Open.into(),
                opened: 2,
                next_probe: seconds(7),
                ..endpoint("127.0.0.1:7001")
            },
            Breaker {
                state: State::ForcedOpen.into(),
                mode: Mode::ForcedOpen.into(),
                by_hand: true,
                left: seconds(90),
                ..endpoint("127.0.0.1:7002")
            },
        ];
        let rows: Vec<_> = all.into_iter().map(|it| shown("orders-1", it)).collect();
        let expected = "\
INSTANCE  BREAKER                  STATE        FOR  FAILED           OPENED  DECIDES
orders-1  bank                     CLOSED       0s   3 of 20, 1 slow  0       itself
orders-1  payments/127.0.0.1:7001  OPEN         0s   -                2       itself, one call finds out in 7s
orders-1  payments/127.0.0.1:7002  FORCED_OPEN  0s   -                0       FORCED_OPEN, by hand, 1m 30s left";
        assert_eq!(expected, table(&rows));
    }

    /// Goal: what is written finds the breakers that it means: by the program's name, all of a client,
    /// or one endpoint; and what is not there is refused with what is.
    /// Method: each way to write it, against a bank and two endpoints.
    #[test]
    fn breakers_are_found_by_what_is_written() {
        let known = [bank(), endpoint("127.0.0.1:1"), endpoint("127.0.0.1:2")];
        let meant = |text: &str| {
            let whose = Whose::read(Some(text), &[]).unwrap();
            let meant = known.iter().filter(|it| whose.covers(it)).count();
            let asked = whose.request(&known, Order::Open);
            let asked = asked.map(|it| (it.name, it.client, it.address));
            (meant, asked.unwrap_or_default())
        };
        let owned = |name: &str, client: &str, address: &str| {
            (name.to_owned(), client.to_owned(), address.to_owned())
        };
        assert_eq!((1, owned("bank", "", "")), meant("bank"));
        assert_eq!((2, owned("", "payments", "")), meant("payments"));
        let one = owned("", "payments", "127.0.0.1:2");
        assert_eq!((1, one), meant("payments/127.0.0.1:2"));
        assert_eq!((0, owned("", "", "")), meant("catalog"));
        Whose::read(Some("payments/two"), &[]).unwrap_err();
        let told = unknown("payment", &known).to_string();
        assert_eq!(
            "it has no breaker \"payment\" (did you mean \"payments\"?); there are bank, payments",
            told
        );
    }
}
