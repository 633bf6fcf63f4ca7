//! A good run, and each kind of mistake planted in it.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

mod good;

use std::collections::BTreeSet;

use gantry_delivery::{Balance, End, Evidence, Fault, Kind, Measure, Outcome, State};

use good::{KEY, committed, effect, entry, good};

/// A mistake.
type Spoil = fn(&mut Evidence);

/// Forgets everything of an event behind the outbox.
fn lose(it: &mut Evidence, event_id: &str) {
    it.effects.retain(|effect| effect.event_id != event_id);
    it.deliveries
        .retain(|delivery| delivery.event_id != event_id);
}

/// Has the balance of an account be another.
fn balance(it: &mut Evidence, account: &str, count: u64, amount: i64) {
    let balance = Balance { count, amount };
    it.balances.insert(account.to_owned(), balance);
}

/// Has the metrics of the process that is left say something else.
fn tell(it: &mut Evidence, measure: Measure, count: u64) {
    let process = it.processes.get_mut("two").unwrap();
    process.told.insert(measure, count);
}

/// Has a process say nothing of something.
fn forget(it: &mut Evidence, process: &str, measure: Measure) {
    let process = it.processes.get_mut(process).unwrap();
    process.told.remove(&measure);
}

/// Mistakes, with the kinds of fault that are found of each, the one that is meant first; what that
/// names, and what it says.
const PLANTED: &[(Spoil, &[Kind], &str, &str)] = &[
    // 1: no loss.
    (
        |it| {
            it.committed.remove(3);
            it.entries.remove("r4");
            it.requests.get_mut("r4").unwrap().outcome = Outcome::Ok;
        },
        &[Kind::NotCommitted, Kind::Phantom, Kind::Money],
        "r4",
        "answered with success, and there is no row and 0 events",
    ),
    (
        |it| drop(it.entries.remove("r2")),
        &[Kind::Torn],
        "e2",
        "no row and 1 events",
    ),
    (
        |it| {
            it.committed.remove(3);
            it.effects.pop();
            balance(it, KEY, 2, 30);
        },
        &[Kind::Torn],
        "r4",
        "a row and 0 events",
    ),
    (
        |it| lose(it, "e4"),
        &[Kind::Lost, Kind::Metric, Kind::Metric],
        "e4",
        "confirmed 1 times, delivered 0 times",
    ),
    (
        |it| it.effects.truncate(2),
        &[Kind::Lost],
        "e4",
        "delivered 1 times (acked), and has no effect",
    ),
    (
        |it| it.dead.clear(),
        &[Kind::Lost, Kind::Money],
        "e3",
        "(rejected)",
    ),
    // 2: no phantom.
    (
        |it| it.effects.push(effect("e9", "r9", 4, 5, 1)),
        &[Kind::Phantom],
        "e9",
        "1 effects, and was never written down",
    ),
    (
        |it| it.requests.get_mut("r4").unwrap().outcome = Outcome::Failed,
        &[Kind::DoneAfterAll],
        "e4",
        "refused for good, and there is a row and 1 events",
    ),
    (
        |it| {
            it.entries.insert("r5".to_owned(), entry(160));
        },
        &[Kind::DoneAfterAll],
        "r5",
        "a row and 0 events",
    ),
    (
        |it| drop(it.requests.remove("r4")),
        &[Kind::Unasked, Kind::Unasked],
        "e4",
        "nobody made that request",
    ),
    (
        |it| it.requests.get_mut("r4").unwrap().amount = 81,
        &[Kind::Unasked],
        "e4",
        "the event says 80 to ada; it was asked for 81 to ada",
    ),
    // 3: nothing twice, and money.
    (
        |it| it.effects.push(effect("e4", "r4", 4, 4, 80)),
        &[Kind::AppliedTwice],
        "e4",
        "in the places 3 and 4",
    ),
    (
        |it| it.committed.push(committed("e5", "r1", 5, 10)),
        &[
            Kind::CommittedTwice,
            Kind::Lost,
            Kind::MarkedUnconfirmed,
            Kind::Money,
        ],
        "e5",
        "a row and 2 events",
    ),
    (
        |it| it.effects[2].amount = 81,
        &[Kind::Money],
        "e4",
        "4 of ada, 81, for r4; written down",
    ),
    (
        |it| balance(it, KEY, 3, 111),
        &[Kind::Money],
        KEY,
        "3 effects of 111 in all, and 3 events of 110",
    ),
    (
        |it| balance(it, "bob", 1, 5),
        &[Kind::Money],
        "bob",
        "1 effects of 5 in all, and 0 events",
    ),
    (
        |it| it.requests.get_mut("r3").unwrap().poisoned = false,
        &[Kind::Buried],
        "e3",
        "could have been handled",
    ),
    (
        |it| it.dead.push("e1".to_owned()),
        &[Kind::Buried, Kind::Money],
        "e1",
        "and was applied",
    ),
    (
        |it| it.dead.push("e9".to_owned()),
        &[Kind::Buried],
        "e9",
        "of no request",
    ),
    // 4: duplicates were produced.
    (
        |it| it.deliveries[3].redelivered = true,
        &[Kind::Vacuous, Kind::Vacuous, Kind::Metric],
        "run",
        "no event was published twice",
    ),
    (
        |it| it.deliveries[1].redelivered = false,
        &[Kind::Vacuous, Kind::Vacuous, Kind::Metric],
        "run",
        "nothing came again",
    ),
    (
        |it| {
            it.deliveries[1].applied = true;
            it.deliveries[3].applied = true;
        },
        &[Kind::Vacuous, Kind::Vacuous, Kind::Metric],
        "run",
        "no delivery met an event that was done",
    ),
    (
        |it| it.deliveries[0].overtaken = false,
        &[Kind::Vacuous; 2],
        "run",
        "no message came behind one that followed it",
    ),
    (
        |it| it.deliveries[0].end = End::Acked,
        &[Kind::Vacuous],
        "end",
        "nothing came again",
    ),
    (
        |it| it.strikes[0].time = 1..10,
        &[Kind::Vacuous; 4],
        "end",
        "no event was published twice",
    ),
    (
        |it| it.strikes[0].process = Some("three".to_owned()),
        &[Kind::Vacuous; 4],
        "end",
        "no delivery met an event that was done",
    ),
    (
        |it| it.strikes[0].missed = Some("the point was not reached".to_owned()),
        &[Kind::Vacuous],
        "end",
        "not reached",
    ),
    (
        |it| it.strikes[2].process = Some("three".to_owned()),
        &[Kind::Vacuous],
        "come",
        "nothing was applied",
    ),
    (
        |it| it.strikes[1].drain.as_mut().unwrap().backlog = 0,
        &[Kind::Vacuous],
        "gone",
        "nothing had gathered",
    ),
    // 5: order.
    (
        |it| {
            it.effects[1].place = 3;
            it.effects[2].place = 2;
        },
        &[Kind::Order],
        "e2",
        "number 4 of ada was applied in place 2, number 2 after it in place 3",
    ),
    (
        |it| {
            it.committed[3].sequence = 5;
            it.effects[2].sequence = 5;
        },
        &[Kind::Gap],
        "e4",
        "number 5 of ada follows 3",
    ),
    (
        |it| {
            it.committed[3].sequence = 3;
            it.effects[2].sequence = 3;
        },
        &[Kind::Gap],
        "e4",
        "2 events have the number 3 of ada",
    ),
    // 6: what is told is what is.
    (
        |it| it.publications[4].confirmed = false,
        &[Kind::MarkedUnconfirmed, Kind::Metric],
        "e4",
        "no broker confirmed it",
    ),
    (
        |it| tell(it, Measure::Deduplicated, 1),
        &[Kind::Metric],
        "two",
        "Deduplicated is told as 1, and is 2",
    ),
    (
        |it| tell(it, Measure::Backlog, 1),
        &[Kind::Metric],
        "two",
        "Backlog is told as 1, and is 0",
    ),
    (
        |it| tell(it, Measure::Added, 3),
        &[Kind::Metric],
        "two",
        "Added is told as 3, and is 2",
    ),
    (
        |it| tell(it, Measure::Dropped, 1),
        &[Kind::Metric],
        "two",
        "Dropped is told as 1, and is 0",
    ),
    (
        |it| forget(it, "two", Measure::Delivered),
        &[Kind::Metric],
        "two",
        "Delivered is not told, and is 5",
    ),
    (
        |it| forget(it, "three", Measure::Added),
        &[Kind::Metric],
        "three",
        "Added is not told, and is 1",
    ),
    (
        |it| *it.added.get_mut("three").unwrap() = 0,
        &[Kind::Metric],
        "three",
        "Added is told as 1, and is 0",
    ),
    // 7: at rest, and soon.
    (
        |it| {
            it.left.pending = 1;
            it.committed[3].state = State::Pending;
        },
        &[Kind::Metric, Kind::NotAtRest],
        "two",
        "Backlog is told as 0, and is 1",
    ),
    (
        |it| it.left.ready = 2,
        &[Kind::NotAtRest],
        "",
        "2 messages wait",
    ),
    (
        |it| it.left.unsettled = 3,
        &[Kind::NotAtRest],
        "",
        "3 messages are handed out",
    ),
    (
        |it| it.left.delayed = 4,
        &[Kind::NotAtRest],
        "",
        "4 messages are to come again",
    ),
    (
        |it| it.left.moving = true,
        &[Kind::NotAtRest],
        "run",
        "something still changed",
    ),
    (
        |it| it.committed[3].state = State::Unroutable,
        &[Kind::NotAtRest],
        "e4",
        "given up",
    ),
    (
        |it| it.strikes[1].drain.as_mut().unwrap().millis = Some(101),
        &[Kind::Slow],
        "gone",
        "3 events had gathered, 100 ms were allowed, and it took 101 ms",
    ),
    (
        |it| it.strikes[1].drain.as_mut().unwrap().millis = None,
        &[Kind::Slow],
        "gone",
        "not gone",
    ),
];

/// Goal: a good run passes, and whatever is wrong in another is found and named.
/// Method: a good run with a crash, duplicates, a poisoned event and requests of every outcome, then
/// each mistake planted in it; the kinds of fault that follow from it and no others, the one that is
/// meant with the name of what it is about.
#[test]
fn planted_faults_are_found() {
    assert_eq!(Vec::<Fault>::new(), good().faults());
    for (spoil, kinds, id, words) in PLANTED {
        let mut evidence = good();
        spoil(&mut evidence);
        let faults = evidence.faults();
        let mut found: Vec<_> = faults.iter().map(|it| it.kind).collect();
        let mut expected = kinds.to_vec();
        found.sort();
        expected.sort();
        assert_eq!(expected, found, "{words}: {faults:#?}");
        let first = faults.iter().filter(|it| it.kind == kinds[0]);
        let named = first
            .clone()
            .any(|it| id.is_empty() || it.ids.iter().any(|it| it == id));
        assert!(named, "{id}: {faults:#?}");
        let told = first.clone().any(|it| it.found.contains(words));
        assert!(told, "{words}: {faults:#?}");
    }
}

/// Goal: no kind of fault is there for nothing, and each has its assertion and a name of its own.
/// Method: the first kinds of all that is planted against the list of all.
#[test]
fn every_kind_is_planted() {
    let planted: BTreeSet<_> = PLANTED.iter().flat_map(|it| it.1).copied().collect();
    assert_eq!(BTreeSet::from(Kind::ALL), planted);
    let names: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(Kind::ALL.len(), names.len());
    let assertions: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.assertion()).collect();
    assert_eq!((1..=7).collect::<BTreeSet<_>>(), assertions);
}

/// Goal: what was produced is counted, and shown, and a fault is told of what was done at its time.
/// Method: the good run in numbers, and a part of it; faults in it; one in words.
#[test]
fn runs_are_told_in_numbers() {
    let summary = good().summary();
    assert_eq!(
        (6, 3, 4),
        (summary.requests, summary.acked, summary.committed)
    );
    assert_eq!((6, 2), (summary.deliveries, summary.duplicates));
    assert_eq!(
        (1, 1, 2),
        (summary.doubled, summary.redelivered, summary.deduplicated)
    );
    assert_eq!(1, summary.dead);
    let mut evidence = good();
    evidence.committed[1].at = 12;
    evidence.deliveries[3].at = 11;
    let gone = evidence.summary_of(&evidence.strikes[1]);
    let counts = [
        gone.committed,
        gone.deliveries,
        gone.duplicates,
        gone.doubled,
    ];
    assert_eq!([1, 1, 1, 1], counts);
    lose(&mut evidence, "e2");
    let faults = evidence.faults();
    let lost = faults.iter().find(|it| it.kind == Kind::Lost).unwrap();
    assert_eq!("gone", evidence.strike_of(lost).unwrap().name);
    evidence.strikes[0].missed = Some("not done".to_owned());
    let vacuous = evidence.faults().into_iter();
    let vacuous: Vec<_> = vacuous.filter(|it| it.kind == Kind::Vacuous).collect();
    assert_eq!(
        "end",
        evidence.strike_of(vacuous.last().unwrap()).unwrap().name
    );
    let mut evidence = good();
    evidence.left.delayed = 1;
    let fault = evidence.faults().remove(0).to_string();
    assert!(fault.starts_with("not_at_rest (assertion 7)"), "{fault}");
}
