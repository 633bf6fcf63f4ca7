//! Requests, events and effects: nothing lost, nothing invented, nothing twice, all in order.

use std::collections::{BTreeMap, BTreeSet};

use super::{Case, Kind};
use crate::evidence::{Balance, Committed, Effect, Outcome, count};

impl Case<'_> {
    pub(super) fn books(&mut self) {
        self.requests();
        self.events();
        self.effects();
        self.dead_letters();
        self.numbers();
        self.order();
        self.money();
    }

    /// What people were told, against what was written down.
    fn requests(&mut self) {
        for (id, request) in &self.all.requests {
            let events = self.events.get(id.as_str()).map_or(&[][..], Vec::as_slice);
            let ids = [&[id.as_str()], events].concat();
            let row = self.all.entries.contains_key(id);
            let there = format!(
                "there is {} row and {} events",
                if row { "a" } else { "no" },
                events.len()
            );
            let fault = match (request.outcome, row, events.len()) {
                (Outcome::Ok, false, 0) => {
                    let found = format!("it was answered with success, and {there}");
                    Some(Kind::NotCommitted.of(ids, found))
                }
                (Outcome::Ok | Outcome::Unknown, true, 1) | (_, false, 0) => None,
                (Outcome::Failed, _, _) => {
                    let found = format!("it was refused for good, and {there}");
                    Some(Kind::DoneAfterAll.of(ids, found))
                }
                (_, true, 2..) => Some(Kind::CommittedTwice.of(ids, there)),
                (_, _, _) => Some(Kind::Torn.of(ids, there)),
            };
            self.faults.extend(fault);
        }
    }

    /// What was written down, against what was asked for.
    fn events(&mut self) {
        for event in &self.all.committed {
            let asked = self.all.requests.get(&event.request_id);
            let same = asked.is_some_and(|asked| {
                asked.account == event.account && asked.amount == event.amount
            });
            if !same {
                let (account, amount) = (&event.account, event.amount);
                let asked = asked.map_or_else(
                    || "nobody made that request".to_owned(),
                    |asked| format!("it was asked for {} to {}", asked.amount, asked.account),
                );
                let found = format!("the event says {amount} to {account}; {asked}");
                let ids = [&event.event_id, &event.request_id];
                self.faults.push(Kind::Unasked.of(ids, found));
            }
        }
        for id in self.all.entries.keys() {
            if !self.all.requests.contains_key(id) {
                let found = "there is a row of it, and nobody made that request";
                self.faults.push(Kind::Unasked.of([id], found));
            }
        }
    }

    /// Effects against what was written down.
    fn effects(&mut self) {
        let mut applied = BTreeMap::<&str, Vec<&Effect>>::new();
        for effect in &self.all.effects {
            applied.entry(&effect.event_id).or_default().push(effect);
        }
        for (id, effects) in &applied {
            let Some(event) = self.committed.get(id) else {
                let found = format!(
                    "it has {} effects, and was never written down",
                    effects.len()
                );
                self.faults.push(Kind::Phantom.of([*id], found));
                continue;
            };
            if let Some(other) = effects.iter().find(|effect| !tells(effect, event)) {
                let Effect {
                    account,
                    amount,
                    sequence,
                    request_id,
                    ..
                } = other;
                let found = format!(
                    "applied as number {sequence} of {account}, {amount}, for {request_id}; written \
                     down as number {} of {}, {}, for {}",
                    event.sequence, event.account, event.amount, event.request_id
                );
                self.faults.push(Kind::Money.of([*id], found));
            }
            if effects.len() > 1 {
                let places: Vec<_> = effects.iter().map(|it| it.place.to_string()).collect();
                let found = format!("it was applied in the places {}", places.join(" and "));
                self.faults.push(Kind::AppliedTwice.of([*id], found));
            }
        }
        let dead: BTreeSet<_> = self.all.dead.iter().map(String::as_str).collect();
        for event in &self.all.committed {
            let id = event.event_id.as_str();
            if applied.contains_key(id) || dead.contains(id) {
                continue;
            }
            let deliveries = self.all.deliveries.iter().filter(|it| it.event_id == id);
            let ends: Vec<_> = deliveries.map(|it| format!("{:?}", it.end)).collect();
            let publications = self.all.publications.iter().filter(|it| it.event_id == id);
            let confirmed = count(publications.filter(|it| it.confirmed));
            let found = format!(
                "number {} of {} is {:?} in the outbox, was confirmed {confirmed} times, delivered \
                 {} times ({}), and has no effect",
                event.sequence,
                event.account,
                event.state,
                ends.len(),
                ends.join(" "),
            );
            self.faults.push(Kind::Lost.of([id], found.to_lowercase()));
        }
    }

    /// Only what nobody can handle may become a dead letter, and then it is not done.
    fn dead_letters(&mut self) {
        let applied = self.all.effects.iter().map(|it| it.event_id.as_str());
        let applied: BTreeSet<_> = applied.collect();
        let dead: BTreeSet<_> = self.all.dead.iter().map(String::as_str).collect();
        for id in dead {
            let event = self.committed.get(id);
            let request = event.and_then(|event| self.all.requests.get(&event.request_id));
            let found = match request {
                _ if applied.contains(id) => "it is a dead letter, and was applied",
                None => "it is a dead letter of no request",
                Some(request) if !request.poisoned => {
                    "it is a dead letter, and could have been handled"
                }
                Some(_) => continue,
            };
            self.faults.push(Kind::Buried.of([id], found));
        }
    }

    /// The events of each key are numbered from 1, without gaps.
    fn numbers(&mut self) {
        let mut numbers = BTreeMap::<&str, BTreeMap<u64, Vec<&str>>>::new();
        for event in &self.all.committed {
            let of = numbers.entry(&event.account).or_default();
            of.entry(event.sequence).or_default().push(&event.event_id);
        }
        for (account, numbers) in numbers {
            let mut expected = 1;
            for (number, ids) in numbers {
                let found = match ids.len() {
                    1 if number == expected => None,
                    1 => Some(format!(
                        "number {number} of {account} follows {}",
                        expected - 1
                    )),
                    count => Some(format!(
                        "{count} events have the number {number} of {account}"
                    )),
                };
                self.faults
                    .extend(found.map(|found| Kind::Gap.of(ids, found)));
                expected = number + 1;
            }
        }
    }

    /// The events of each key were applied in the order of their numbers.
    fn order(&mut self) {
        let mut applied = BTreeMap::<&str, BTreeMap<u64, &Effect>>::new();
        for effect in &self.all.effects {
            let of = applied.entry(&effect.account).or_default();
            of.insert(effect.place, effect);
        }
        for (account, effects) in applied {
            let effects: Vec<_> = effects.into_values().collect();
            for pair in effects.windows(2) {
                let [before, after] = [pair[0], pair[1]];
                // The same once more is a fault of its own.
                if before.sequence <= after.sequence {
                    continue;
                }
                let found = format!(
                    "number {} of {account} was applied in place {}, number {} after it in place {}",
                    before.sequence, before.place, after.sequence, after.place
                );
                let ids = [&before.event_id, &after.event_id];
                self.faults.push(Kind::Order.of(ids, found));
            }
        }
    }

    /// The balances are the sums of what was written down, but for what is a dead letter.
    fn money(&mut self) {
        let dead: BTreeSet<_> = self.all.dead.iter().collect();
        let mut due = BTreeMap::<&str, Balance>::new();
        let alive = self.all.committed.iter();
        for event in alive.filter(|it| !dead.contains(&it.event_id)) {
            let balance = due.entry(&event.account).or_default();
            balance.count += 1;
            balance.amount += event.amount;
        }
        let accounts: BTreeSet<_> = due.keys().copied().collect();
        let accounts = accounts
            .into_iter()
            .chain(self.all.balances.keys().map(String::as_str))
            .collect::<BTreeSet<_>>();
        for account in accounts {
            let due = due.get(account).copied().unwrap_or_default();
            let is = self.all.balances.get(account).copied().unwrap_or_default();
            if due != is {
                let found = format!(
                    "{} effects of {} in all, and {} events of {} in all are to be applied",
                    is.count, is.amount, due.count, due.amount
                );
                self.faults.push(Kind::Money.of([account], found));
            }
        }
    }
}

/// Whether an effect is what its event says.
fn tells(effect: &Effect, event: &Committed) -> bool {
    effect.request_id == event.request_id
        && effect.account == event.account
        && effect.sequence == event.sequence
        && effect.amount == event.amount
}
