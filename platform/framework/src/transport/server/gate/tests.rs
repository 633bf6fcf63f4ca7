//! Whom the gate lets in, and who makes room.

use std::net::IpAddr;

use super::*;

fn limits() -> Limits {
    Limits {
        connections_max: 4,
        connections_per_peer_max: 4,
        connections_waiting_max: 4,
        connections_waiting_per_peer_max: 4,
        ..Limits::default()
    }
}

/// More places than matter.
fn roomy() -> Limits {
    Limits {
        connections_max: 100_000,
        connections_per_peer_max: 100_000,
        connections_waiting_max: 100_000,
        connections_waiting_per_peer_max: 100_000,
        ..Limits::default()
    }
}

fn peer(ip: &str) -> Peer {
    Peer::Tcp((ip.parse::<IpAddr>().unwrap(), 1).into())
}

const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";
const THREE: &str = "192.0.2.3";

struct Door {
    gate: Arc<Gate>,
    limits: Limits,
}

impl Door {
    fn new(limits: Limits) -> Self {
        Self {
            gate: Arc::default(),
            limits,
        }
    }

    fn admit(&self, ip: &str) -> Result<Place, Refused> {
        Gate::admit(&self.gate, peer(ip), &self.limits)
    }

    /// One that had a call and is idle.
    fn idle(&self, ip: &str) -> Place {
        let place = self.busy(ip);
        place.ticket.usage.end();
        place
    }

    /// One with a call in flight.
    fn busy(&self, ip: &str) -> Place {
        let place = self.admit(ip).unwrap();
        assert!(place.ticket.usage.begin());
        place.requested();
        place
    }
}

fn told(place: &Place) -> Notice {
    *place.ticket.notice.borrow()
}

/// Goal: a peer beyond its own caps is refused, makes nobody go, and has its place again once one is
/// free.
/// Method: fill both caps of one peer; another one comes in all the while.
#[test]
fn a_peer_beyond_its_share_is_refused() {
    let door = Door::new(Limits {
        connections_per_peer_max: 2,
        connections_waiting_per_peer_max: 1,
        ..limits()
    });
    let silent = door.admit(ONE).unwrap();
    assert_eq!(Some(Refused::Waiting), door.admit(ONE).err());
    silent.requested();
    let second = door.admit(ONE).unwrap();
    second.requested();
    assert_eq!(Some(Refused::Peer), door.admit(ONE).err());
    let _other = door.admit(TWO).unwrap();

    drop(second);
    let again = door.admit(ONE).unwrap();
    let counts = door.gate.counts();
    assert_eq!((3, 2, 6), (counts.open, counts.waiting, counts.accepted));
    assert_eq!(1, counts.refused(Refused::Peer));
    assert_eq!([Notice::Stay; 2], [told(&silent), told(&again)]);
}

/// Goal: a connection with calls in flight makes room for nobody; places that are freed can be taken,
/// and peers that left are forgotten.
/// Method: every place busy.
#[test]
fn who_has_a_call_stays() {
    let door = Door::new(limits());
    let mut busy: Vec<_> = (0..4).map(|_| door.busy(ONE)).collect();
    assert_eq!(Some(Refused::Connections), door.admit(TWO).err());
    assert!(busy.iter().all(|place| told(place) == Notice::Stay));

    busy.pop();
    busy.push(door.admit(TWO).unwrap());
    drop(busy);
    let counts = door.gate.counts();
    assert_eq!((0, 0), (counts.open, counts.waiting));
    let lines = &door.gate.lock().lines;
    assert!(lines.is_empty(), "peers that left are forgotten");
}

/// Goal: the oldest without a call, of whoever holds the most, makes room; one that was never used
/// goes before one that was.
/// Method: newcomers where one peer holds three of four, an older one is another's, and the leaving
/// are gone at once.
#[test]
fn whoever_holds_the_most_makes_room() {
    let door = Door::new(limits());
    let older = door.idle(TWO);
    let (busy, idle) = (door.busy(ONE), door.idle(ONE));
    let silent = door.admit(ONE).unwrap();

    let third = door.idle(THREE);
    assert_eq!(Notice::Leave, told(&silent));
    drop(silent);
    let fourth = door.idle("192.0.2.4");
    assert_eq!(Notice::Leave, told(&idle));
    drop(idle);
    assert_eq!([Notice::Stay; 3], [&busy, &older, &third].map(told));

    // All hold one now, and the oldest line with an idle one is TWO's.
    let fifth = door.idle("192.0.2.5");
    assert_eq!(Notice::Leave, told(&older));
    drop(older);
    assert_eq!(
        [Notice::Stay; 4],
        [&busy, &third, &fourth, &fifth].map(told)
    );
    assert_eq!(3, door.gate.counts().evicted(Evicted::Connections));
}

/// Goal: nobody makes room for a peer that holds as many itself: its own connection does, or none.
/// Method: two peers with two each; then one whose two are busy.
#[test]
fn a_newcomer_takes_no_more_than_others_have() {
    let door = Door::new(limits());
    let others = [door.idle(TWO), door.idle(TWO)];
    let own = [door.idle(ONE), door.idle(ONE)];
    let newcomer = door.busy(ONE);
    assert_eq!([Notice::Stay; 2], [&others[0], &others[1]].map(told));
    let leaving = own.iter().filter(|it| told(it) == Notice::Leave).count();
    assert_eq!(1, leaving);
    drop(own);

    let _second = door.busy(ONE);
    assert_eq!(Some(Refused::Connections), door.admit(ONE).err());
    assert_eq!([Notice::Stay; 2], [&others[0], &others[1]].map(told));
    drop(newcomer);
}

/// Goal: beyond the cap of those that wait, the oldest of whoever has the most makes room, and never
/// one that has spoken, however lately.
/// Method: a peer with two that wait, the older of which speaks just as it is looked at.
#[test]
fn the_oldest_that_waits_makes_room() {
    let door = Door::new(Limits {
        connections_max: 100,
        connections_waiting_max: 3,
        ..limits()
    });
    let honest = door.admit(TWO).unwrap();
    let speaking = door.admit(ONE).unwrap();
    let silent = door.admit(ONE).unwrap();
    speaking.ticket.usage.begin();

    let newcomer = door.admit(THREE).unwrap();
    assert_eq!(Notice::Leave, told(&silent));
    assert_eq!([Notice::Stay; 3], [&honest, &speaking, &newcomer].map(told));
    let counts = door.gate.counts();
    assert_eq!((4, 3), (counts.open, counts.waiting));
    assert_eq!(1, counts.evicted(Evicted::Waiting));
}

/// Goal: only so many are on their way out beside those that have places; they are hurried before
/// newcomers are refused, but not where they have a call.
/// Method: sixteen silent ones, which do not go; so two may be on their way.
#[test]
fn only_so_many_are_on_their_way_out() {
    let door = Door::new(Limits {
        connections_max: 16,
        connections_per_peer_max: 16,
        connections_waiting_max: 100,
        connections_waiting_per_peer_max: 100,
        ..limits()
    });
    let silent: Vec<_> = (0..16).map(|_| door.admit(ONE).unwrap()).collect();
    let _in = [door.admit(TWO).unwrap(), door.admit(TWO).unwrap()];
    assert_eq!(Some(Refused::Connections), door.admit(TWO).err());
    assert_eq!(18, door.gate.counts().open);
    assert_eq!([Notice::Cut; 2], [&silent[0], &silent[1]].map(told));

    let door = Door::new(Limits {
        connections_max: 1,
        ..limits()
    });
    let crossed = door.idle(ONE);
    let newcomer = door.admit(TWO).unwrap();
    crossed.ticket.usage.begin();
    assert_eq!(Some(Refused::Connections), door.admit(THREE).err());
    assert_eq!(Notice::Leave, told(&crossed), "its call goes on");
    // Taken back, it is one too many, so the other makes room and nobody comes in.
    crossed.keep();
    assert_eq!(Some(Refused::Connections), door.admit(THREE).err());
    assert_ne!(Notice::Stay, told(&newcomer));
}

/// Goal: a newcomer costs a few looks, however many connections there are; and what was found busy is
/// not looked at again first.
/// Method: five thousand busy connections of forty peers each, then one idle among one peer's many.
#[test]
fn a_newcomer_costs_a_few_looks() {
    let door = Door::new(roomy());
    let mut places = Vec::new();
    for peer in 0..40 {
        places.extend((0..125).map(|_| door.busy(&format!("198.51.100.{peer}"))));
    }
    let strict = Limits {
        connections_max: places.len(),
        ..roomy()
    };
    // Each look at one that stays moves it, by one step.
    let steps = || door.gate.lock().lines.steps();
    let before = steps();
    let refused = Gate::admit(&door.gate, peer(TWO), &strict).err();
    assert_eq!(Some(Refused::Connections), refused);
    assert!(steps() - before <= 32 * 16, "{}", steps() - before);

    places.last().unwrap().ticket.usage.end();
    let tries = (0..200).take_while(|_| Gate::admit(&door.gate, peer(TWO), &strict).is_err());
    assert!(tries.count() < 100, "the idle one is found");
    assert_eq!(Notice::Leave, told(places.last().unwrap()));
}

/// Goal: many who are busy hide nobody who is not, also where each of them has more.
/// Method: seventy busy peers with three connections each, and one with two idle ones.
#[test]
fn the_busy_hide_nobody() {
    let door = Door::new(roomy());
    let mut places = Vec::new();
    for peer in 0..70 {
        places.extend((0..3).map(|_| door.busy(&format!("198.51.100.{peer}"))));
    }
    let idle = [door.idle(ONE), door.idle(ONE)];
    let strict = Limits {
        connections_max: places.len() + idle.len(),
        ..roomy()
    };
    // One of the busy looks between, and is no help to them either.
    let between = || drop(Gate::admit(&door.gate, peer("198.51.100.0"), &strict));
    let tries = (0..10).take_while(|_| {
        between();
        Gate::admit(&door.gate, peer(TWO), &strict).is_err()
    });
    assert_eq!(2, tries.count(), "31 at a time");
    assert_eq!(Notice::Leave, told(&idle[0]));
}

/// Goal: what is told of a cap is told once, however many connections it concerns, and its end once.
/// Method: a hundred newcomers at a full house; then less and less of a crowd, on the paused clock.
#[tokio::test(start_paused = true)]
async fn a_cap_is_told_of_once() {
    use crate::{
        journal::Kind,
        testing::telemetry::{Line, capture},
    };
    let capture = capture();
    let door = Door::new(limits());
    let journal = Journal::new();
    door.gate.write_to(journal.clone());
    let busy: Vec<_> = (0..4).map(|_| door.busy(ONE)).collect();
    for _ in 0..100 {
        assert!(door.admit(TWO).is_err());
    }
    let ease = async || {
        tokio::time::timeout(std::time::Duration::from_mins(1), door.gate.due())
            .await
            .expect("it is due");
        door.gate.ease(&door.limits);
    };
    ease().await;
    assert_eq!(1, journal.watch().0.len(), "the house is still full");
    drop(busy);
    ease().await;
    let due = tokio::time::timeout(std::time::Duration::from_hours(1), door.gate.due()).await;
    assert!(due.is_err(), "nothing is reached");

    let entries = journal.watch().0;
    let entries: Vec<_> = entries
        .iter()
        .map(|it| (it.kind, it.subject.as_str(), it.detail.as_str()))
        .collect();
    let limit = "limits.connections_max";
    let reached = "reached at 4: 4 open, 0 waiting, 4 of 192.0.2.1";
    let over = "over after 20 s: 0 closed to make room, 100 refused";
    assert_eq!(
        [(Kind::Limit, limit, reached), (Kind::Limit, limit, over)],
        entries[..]
    );

    let _full = [door.idle(ONE), door.idle(ONE)];
    let own = Limits {
        connections_per_peer_max: 2,
        ..limits()
    };
    assert!(Gate::admit(&door.gate, peer(ONE), &own).is_err());
    assert_eq!(2, journal.watch().0.len(), "one peer's own are its own");
    let levels: Vec<_> = capture.lines().iter().map(Line::level).collect();
    assert_eq!(["WARN", "INFO", "WARN"], levels[..]);
}

/// Goal: an IPv6 caller cannot multiply itself within its own network; IPv4 written as IPv6 is the
/// same caller.
/// Method: addresses of one /64, of another, and a mapped one.
#[test]
fn an_ipv6_peer_is_its_network() {
    let door = Door::new(Limits {
        connections_per_peer_max: 1,
        ..limits()
    });
    let _one = door.admit("2001:db8:0:1::1").unwrap();
    let again = door.admit("2001:db8:0:1:ffff::9");
    assert_eq!(Some(Refused::Peer), again.err());
    let _other = door.admit("2001:db8:0:2::1").unwrap();
    let _four = door.admit(ONE).unwrap();
    assert_eq!(Some(Refused::Peer), door.admit("::ffff:192.0.2.1").err());
}
