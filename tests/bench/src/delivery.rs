//! Measures what events cost, beside clients of the brokers alone.
//!
//! The broker has a core; whoever publishes or consumes has another, together with its database: so a
//! broker is kept as busy as it can be by what costs nothing beside, and what else costs shows where
//! there is not enough of that other core.

mod page;
mod stand;

use std::str::FromStr;

use gantry_bench::events::ADD_TURNS;

pub(crate) use self::page::{HEADING, section};
use self::stand::{Outcome, Stand};

/// Which broker, with which database of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pair {
    RabbitPostgres,
    LocalSqlite,
    RabbitSqlite,
    LocalPostgres,
}

impl Pair {
    /// Those whose every part is measured.
    const WHOLE: [Self; 2] = [Self::RabbitPostgres, Self::LocalSqlite];
    /// Those of which the relay is.
    const RELAY: [Self; 4] = [
        Self::RabbitPostgres,
        Self::RabbitSqlite,
        Self::LocalSqlite,
        Self::LocalPostgres,
    ];

    fn is_rabbit(self) -> bool {
        matches!(self, Self::RabbitPostgres | Self::RabbitSqlite)
    }

    fn is_postgres(self) -> bool {
        matches!(self, Self::RabbitPostgres | Self::LocalPostgres)
    }
}

impl FromStr for Pair {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "rabbitmq+postgres" => Ok(Self::RabbitPostgres),
            "rabbitmq+sqlite" => Ok(Self::RabbitSqlite),
            "local+postgres" => Ok(Self::LocalPostgres),
            "local+sqlite" => Ok(Self::LocalSqlite),
            _ => Err(()),
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Events,
    /// The relay alone, on that one alone where one is named.
    Relay(Option<Pair>),
}

impl Part {
    fn is_of(self, pair: Pair) -> bool {
        match self {
            Self::Events | Self::Relay(None) => true,
            Self::Relay(Some(one)) => one == pair,
        }
    }
}

/// Keys that fill the window, and some that cannot.
const KEYS: usize = 1_000;
const KEYS_FEW: usize = 8;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    rounds: usize,
    published: usize,
    published_few: usize,
    consumed: usize,
    paced: usize,
    added: usize,
}

impl Load {
    /// Enough for figures that hold.
    pub(crate) fn of(rounds: usize) -> Self {
        Self {
            rounds,
            published: 60_000,
            published_few: 4_000,
            consumed: 8_000,
            paced: 250,
            added: 2_000,
        }
    }

    /// As little as shows that all of it runs.
    pub(crate) fn quick() -> Self {
        Self {
            rounds: 1,
            published: 2_000,
            published_few: 400,
            consumed: 800,
            paced: 50,
            added: 200,
        }
    }
}

/// What was measured of one pair, by round.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    bare: Vec<Outcome>,
    relay: Vec<Outcome>,
    relay_few: Vec<Outcome>,
    acks: Vec<Outcome>,
    rows: Vec<Outcome>,
    consumer: Vec<Outcome>,
    /// Microseconds of half of all, and of 99 of a hundred.
    latency_bare: Vec<(f64, f64)>,
    latency: Vec<(f64, f64)>,
    /// Transactions with a row, and with its event as well.
    row: Vec<Outcome>,
    added: Vec<Outcome>,
}

/// What was measured, by pair.
pub(crate) type Figures = Vec<(Pair, Measured)>;

/// Measures both ends; pairs whose broker or database cannot be had here are left out.
pub(crate) fn measure(part: Part, load: Load) -> Result<Figures, String> {
    let stand = Stand::start()?;
    let pairs = Pair::RELAY.into_iter();
    let pairs = pairs.filter(|pair| part.is_of(*pair) && stand.has(*pair));
    let mut figures: Figures = pairs.map(|pair| (pair, Measured::default())).collect();
    for round in 1..=load.rounds {
        for (pair, measured) in &mut figures {
            eprintln!("events, {pair}, round {round} of {}", load.rounds);
            relay(&stand, *pair, load, measured)?;
            if part == Part::Events && Pair::WHOLE.contains(pair) {
                rest(&stand, *pair, load, measured)?;
            }
        }
    }
    Ok(figures)
}

fn relay(stand: &Stand, pair: Pair, load: Load, measured: &mut Measured) -> Result<(), String> {
    let Load {
        published,
        published_few,
        ..
    } = load;
    let bare = stand.bare(pair, "publish", (published, KEYS), false)?;
    measured.bare.push(bare);
    let relay = stand.service(pair, "relay", (published, KEYS))?;
    measured.relay.push(relay);
    let relay = stand.service(pair, "relay", (published_few, KEYS_FEW))?;
    measured.relay_few.push(relay);
    Ok(())
}

fn rest(stand: &Stand, pair: Pair, load: Load, measured: &mut Measured) -> Result<(), String> {
    let many = (load.consumed, KEYS);
    measured.acks.push(stand.bare(pair, "acks", many, false)?);
    measured.rows.push(stand.bare(pair, "rows", many, true)?);
    let consumer = stand.service(pair, "consume", many)?;
    measured.consumer.push(consumer);
    let paced = (load.paced, KEYS);
    let latency = stand.bare(pair, "latency", paced, false)?;
    measured.latency_bare.push(latency.two()?);
    let latency = stand.service(pair, "latency", paced)?;
    measured.latency.push(latency.two()?);
    let added = (load.added, KEYS);
    let [row, with_event] = stand.in_turns(pair, "add", added, ADD_TURNS)?;
    measured.row.push(row);
    measured.added.push(with_event);
    Ok(())
}
