//! A good run, with everything in it that may be.

use std::collections::BTreeMap;

use gantry_delivery::{
    Balance, Committed, Delivery, Drain, Effect, End, Entry, Evidence, Measure, Must, Outcome,
    Process, Publication, Request, State, Strike,
};

/// The one account.
pub(crate) const KEY: &str = "ada";

pub(crate) fn request(amount: i64, outcome: Outcome) -> Request {
    Request {
        account: KEY.to_owned(),
        amount,
        poisoned: false,
        outcome,
    }
}

pub(crate) fn committed(event_id: &str, request_id: &str, sequence: u64, amount: i64) -> Committed {
    Committed {
        event_id: event_id.to_owned(),
        request_id: request_id.to_owned(),
        account: KEY.to_owned(),
        sequence,
        amount,
        state: State::Delivered,
        at: 0,
    }
}

pub(crate) fn publication(process: &str, event_id: &str, confirmed: bool) -> Publication {
    Publication {
        process: process.to_owned(),
        event_id: event_id.to_owned(),
        confirmed,
        at: 0,
    }
}

pub(crate) fn delivery(
    process: &str,
    event_id: &str,
    redelivered: bool,
    applied: bool,
    end: End,
) -> Delivery {
    Delivery {
        process: process.to_owned(),
        event_id: event_id.to_owned(),
        redelivered,
        overtaken: false,
        applied,
        end,
        at: 0,
    }
}

pub(crate) fn entry(amount: i64) -> Entry {
    Entry {
        account: KEY.to_owned(),
        amount,
    }
}

pub(crate) fn effect(
    event_id: &str,
    request_id: &str,
    place: u64,
    sequence: u64,
    amount: i64,
) -> Effect {
    Effect {
        event_id: event_id.to_owned(),
        request_id: request_id.to_owned(),
        account: KEY.to_owned(),
        place,
        sequence,
        amount,
    }
}

fn requests() -> BTreeMap<String, Request> {
    named([
        ("r1", request(10, Outcome::Ok)),
        ("r2", request(20, Outcome::Ok)),
        (
            "r3",
            Request {
                poisoned: true,
                ..request(40, Outcome::Ok)
            },
        ),
        ("r4", request(80, Outcome::Unknown)),
        ("r5", request(160, Outcome::Failed)),
        ("r6", request(320, Outcome::Unknown)),
    ])
}

fn publications() -> Vec<Publication> {
    vec![
        publication("one", "e1", true),
        publication("one", "e2", false),
        publication("two", "e2", true),
        publication("two", "e3", true),
        publication("two", "e4", true),
    ]
}

fn deliveries() -> Vec<Delivery> {
    vec![
        Delivery {
            overtaken: true,
            ..delivery("one", "e1", false, true, End::Open)
        },
        delivery("two", "e1", true, false, End::Acked),
        delivery("two", "e2", false, true, End::Acked),
        delivery("two", "e2", false, false, End::Acked),
        delivery("two", "e3", false, false, End::Rejected),
        delivery("two", "e4", false, true, End::Acked),
    ]
}

/// Three events of a key, one of them poisoned; a fourth of which nobody knows whether it was done,
/// and it was; a request that was refused, and one that came to nothing. Process `one` ended once it
/// had applied `e1` and had not acked it, and while it published `e2`.
pub(crate) fn good() -> Evidence {
    let entries = [
        ("r1", entry(10)),
        ("r2", entry(20)),
        ("r3", entry(40)),
        ("r4", entry(80)),
    ];
    let told = [
        (Measure::Added, 2),
        (Measure::Confirmed, 3),
        (Measure::Dropped, 0),
        (Measure::Delivered, 5),
        (Measure::Redelivered, 1),
        (Measure::Deduplicated, 2),
        (Measure::Acked, 4),
        (Measure::Dead, 1),
        (Measure::PutOff, 0),
        (Measure::Backlog, 0),
    ];
    let (told, least) = (BTreeMap::from(told), None);
    // It was asked, and wrote one more down after that.
    let before_leaving = Process {
        told: BTreeMap::from([(Measure::Added, 1), (Measure::Confirmed, 0)]),
        least: Some(BTreeMap::from([(Measure::Added, 1)])),
    };
    let processes = [
        ("one", Process::default()),
        ("two", Process { told, least }),
        ("three", before_leaving),
    ];
    Evidence {
        requests: requests(),
        entries: named(entries),
        committed: vec![
            committed("e1", "r1", 1, 10),
            committed("e2", "r2", 2, 20),
            committed("e3", "r3", 3, 40),
            committed("e4", "r4", 4, 80),
        ],
        added: named([("one", 1), ("two", 2), ("three", 2)]),
        publications: publications(),
        deliveries: deliveries(),
        effects: vec![
            effect("e1", "r1", 1, 1, 10),
            effect("e2", "r2", 2, 2, 20),
            effect("e4", "r4", 3, 4, 80),
        ],
        balances: named([(
            KEY,
            Balance {
                count: 3,
                amount: 110,
            },
        )]),
        dead: vec!["e3".to_owned()],
        processes: named(processes),
        must: Must {
            doubled: true,
            redelivered: true,
            deduplicated: true,
            overtaken: true,
            applied: true,
        },
        strikes: strikes(),
        ..Evidence::default()
    }
}

/// Process `one` ended as it did, the broker was gone for a while, and process `two` had come.
fn strikes() -> Vec<Strike> {
    let end = Strike {
        name: "end".to_owned(),
        process: Some("one".to_owned()),
        time: 0..10,
        must: Must {
            doubled: true,
            redelivered: true,
            deduplicated: true,
            overtaken: true,
            applied: false,
        },
        ..Strike::default()
    };
    let drain = Drain {
        backlog: 3,
        millis_max: 100,
        millis: Some(100),
    };
    let gone = Strike {
        name: "gone".to_owned(),
        time: 10..20,
        drain: Some(drain),
        ..Strike::default()
    };
    let come = Strike {
        name: "come".to_owned(),
        process: Some("two".to_owned()),
        time: 0..20,
        must: Must::APPLIED,
        ..Strike::default()
    };
    vec![end, gone, come]
}

pub(crate) fn named<T, const N: usize>(rows: [(&str, T); N]) -> BTreeMap<String, T> {
    let rows = rows.into_iter();
    rows.map(|(id, row)| (id.to_owned(), row)).collect()
}
