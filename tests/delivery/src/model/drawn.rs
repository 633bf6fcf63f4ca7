//! What a seed decides of a run beside what happens in it: how the broker fails, and with which settings
//! processes work.

use std::{ops::Range, time::Duration};

use gantry_events::{broker::memory::Chances, consumer, relay};

/// How many attempts fail that are had to fail, well below those of an event.
pub(super) const FAILING: Range<u32> = 1..4;

/// How long a handler may take.
const HANDLER_TIMEOUT: Duration = Duration::from_millis(800);

/// What is done between two changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// Nothing.
    Nothing,
    /// A process is to end at a point of its work.
    EndAt,
    /// A process is to stand still at a point of its work.
    StandStillAt,
    /// A process is killed.
    Kill,
    /// A process stands still for a while.
    StandStill,
    /// The same, and the broker takes it for gone.
    StandStillAlone,
    /// Another process starts.
    Join,
    /// A process ends in order.
    Leave,
    /// The broker is away for a while.
    Disconnect,
    /// The broker takes nothing for a while.
    Block,
}

/// Of twenty, how many are what.
const DEEDS: [(Deed, usize); 10] = [
    (Deed::Nothing, 5),
    (Deed::EndAt, 6),
    (Deed::StandStillAt, 2),
    (Deed::Kill, 1),
    (Deed::StandStill, 1),
    (Deed::StandStillAlone, 1),
    (Deed::Join, 1),
    (Deed::Leave, 1),
    (Deed::Disconnect, 1),
    (Deed::Block, 1),
];

impl Deed {
    pub(super) fn of(random: &mut fastrand::Rng) -> Self {
        let all = DEEDS.iter();
        let all: Vec<_> = all
            .flat_map(|(deed, count)| std::iter::repeat_n(*deed, *count))
            .collect();
        random.choice(&all).copied().unwrap_or(Self::Nothing)
    }
}

/// How the broker fails: each way in half of the runs.
pub(super) fn chances(random: &mut fastrand::Rng, in_sequence: bool) -> Chances {
    let mut chance = |max: f64| {
        if random.bool() {
            0.0
        } else {
            random.f64() * max
        }
    };
    Chances {
        refuse: chance(0.2),
        unroutable: chance(0.2),
        block: chance(0.1),
        lose_message: chance(0.2),
        lose_confirmation: chance(0.3),
        disconnect: chance(0.1),
        double: chance(0.3),
        // Brokers keep the order of a key, and only who counts can do without.
        swap: if in_sequence { chance(0.3) } else { 0.0 },
        end: chance(0.15),
    }
}

/// So long may what is put off wait at hand.
pub(super) const AT_HAND: Duration = Duration::from_secs(3);

/// The settings of all processes of a run.
pub(super) fn config(random: &mut fastrand::Rng) -> gantry_events::Config {
    let millis = Duration::from_millis;
    gantry_events::Config {
        relay: relay::Config {
            window: *random.choice(&[1_u16, 2, 8, 256]).unwrap_or(&256),
            look_interval: millis(500),
            pause_min: millis(20),
            pause_max: millis(300),
            lease: millis(1_500),
            ..relay::Config::default()
        },
        consumer: consumer::Config {
            partitions: random.u16(1..=4),
            prefetch: random.u16(1..=8),
            handlers_max: random.usize(1..=4),
            handler_timeout: HANDLER_TIMEOUT,
            attempts_max: 12,
            attempts_in_place: random.u32(1..=3),
            pause_in_place: millis(5),
            pause: millis(random.u64(20..300)),
            pause_max: millis(600),
            // As long as any that is missing may take to come.
            gap_wait: Duration::from_mins(5),
            lease: millis(1_500),
            // By the broker, or at hand.
            rest_max: *random
                .choice(&[Duration::ZERO, AT_HAND])
                .unwrap_or(&AT_HAND),
            ..consumer::Config::default()
        },
    }
}
