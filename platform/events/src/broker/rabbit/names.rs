//! What is where in RabbitMQ: names and shapes of exchanges and queues, and the keys between them.
//!
//! ```text
//! gantry.events ─ <topic>.* ─▶ <group> ─▶ <group>.parts ─ #.<bucket> ─▶ <group>.<n> ─▶ consumers
//!      ▲                                    │ no such queue               │  ▲    └ too often handed out
//!   publish                                 ▼      again later: a copy    ▼  │                  ▼
//!  <topic>.<bucket>                   <group>.strays      <group>.wait.<pause> gantry.dead ─▶ <group>.dead
//!                                           │ once it is there               │            rejected: a copy ─┘
//!                                           └────────▶ gantry.return ◀───────┘ after its pause
//! ```
//!
//! All are durable, and all queues are quorum queues. Copies that wait go by `gantry.wait` as
//! `<pause>.<group>.<n>`, and come back by `gantry.return` with that key. `<group>.strays` is an exchange, the
//! alternate one of `<group>.parts`, and the queue behind it: what [strays](super::strays) come from.
//!
//! Each `<group>` hands on to `gantry.seen`, too, where those who [look](super::tail) have queues of their own, which are
//! neither: before `<group>.parts`, which would else never be without a place to hand something on to.
//! `<group>.about` holds one message: which topics the group is bound to, which RabbitMQ tells nobody.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};

use crate::{BUCKETS, broker::Group};

/// Where events are published.
pub(super) const EVENTS: &str = "gantry.events";
/// Where copies are published that come again later.
pub(super) const WAIT: &str = "gantry.wait";
/// Through which they come back.
pub(super) const RETURN: &str = "gantry.return";
/// Where what nobody could do is published.
pub(super) const DEAD: &str = "gantry.dead";

/// Where those look who want to see what is published: what some group has, and nothing else.
pub(super) const SEEN: &str = "gantry.seen";

/// What all groups share.
pub(super) const EXCHANGES: [&str; 5] = [EVENTS, WAIT, RETURN, DEAD, SEEN];

/// How long messages wait, the shortest first, and what their queues are called by: what `pause` and
/// `pause_max` of `events.consumer` come to by default.
pub(super) const PAUSES: [(Duration, &str); 5] = [
    (Duration::from_secs(1), "1s"),
    (Duration::from_secs(5), "5s"),
    (Duration::from_secs(25), "25s"),
    (Duration::from_secs(125), "125s"),
    (Duration::from_mins(10), "10min"),
];

/// Most messages in a queue unless its group says so: memory for each is small, and not nothing.
const MESSAGES_MAX: u64 = 1_000_000;

/// Most messages that wait for who looks; the oldest of more are dropped.
pub(super) const LOOKING_MAX: u64 = 10_000;

/// How often a message is handed out and comes back before it becomes a dead letter without anybody
/// having said so: what kills whoever has it would go around for ever. More than the 20 that RabbitMQ 4
/// has by default: 3 counts as well what is given back untouched, at a drain or when instances share anew.
/// What is asked to come again later is counted in a header, and begins anew here.
const DELIVERIES_MAX: i64 = 50;

/// The same where messages are only looked at; there is no other word for "never" in RabbitMQ 3.
const DELIVERIES_ENDLESS: i64 = 2_000_000_000;

/// Those lengths alone.
pub(super) const LENGTHS: [Duration; PAUSES.len()] = {
    let mut lengths = [Duration::ZERO; PAUSES.len()];
    let mut at = 0;
    while at < PAUSES.len() {
        lengths[at] = PAUSES[at].0;
        at += 1;
    }
    lengths
};

/// The word for the pause that is at least as long, or the longest.
pub(super) fn pause(after: Duration) -> &'static str {
    let fitting = PAUSES.iter().find(|(pause, _)| *pause >= after);
    fitting.map_or(PAUSES[PAUSES.len() - 1].1, |(_, word)| word)
}

/// The queue of a partition.
pub(super) fn partition(group: &str, partition: u16) -> String {
    format!("{group}.{partition}")
}

/// The queue of dead letters.
pub(super) fn dead(group: &str) -> String {
    format!("{group}.dead")
}

/// The queue of what waits that long.
pub(super) fn wait(group: &str, pause: &str) -> String {
    format!("{group}.wait.{pause}")
}

/// The exchange that spreads the events of a group over its partitions.
pub(super) fn parts(group: &str) -> String {
    format!("{group}.parts")
}

/// The queue of events whose partition has none, and the exchange through which they come there.
pub(super) fn strays(group: &str) -> String {
    format!("{group}.strays")
}

/// The queue of what is written down about the group.
pub(super) fn about(group: &str) -> String {
    format!("{group}.about")
}

/// The key of an event.
pub(super) fn event_key(topic: &str, bucket: u16) -> String {
    format!("{topic}.{bucket}")
}

/// The keys of all events of a topic.
pub(super) fn topic_pattern(topic: &str) -> String {
    format!("{topic}.*")
}

/// The key of a copy that waits; by it the copy finds its way back.
pub(super) fn wait_key(pause: &str, group: &str, partition: u16) -> String {
    format!("{pause}.{group}.{partition}")
}

/// The key of a stray on the way to its partition.
pub(super) fn stray_key(group: &str, partition: u16) -> String {
    format!("stray.{group}.{partition}")
}

/// The key of a dead letter that somebody rejected.
pub(super) fn rejected_key(group: &str, partition: u16) -> String {
    format!("{group}.{partition}.rejected")
}

/// Which partition a dead letter comes from, by its key.
pub(super) fn partition_of(dead_key: &str) -> Option<u16> {
    dead_key.rsplit('.').nth(1)?.parse().ok()
}

/// One binding: from an exchange, by keys of a pattern.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Binding {
    pub(super) exchange: String,
    pub(super) pattern: String,
}

/// One queue, with all that it is bound to.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: String,
    /// Which one it is the queue of; none where the group has it for all.
    pub(super) partition: Option<u16>,
    pub(super) arguments: FieldTable,
    pub(super) bindings: Vec<Binding>,
}

/// The queues of a group.
pub(super) fn queues(group: &Group) -> Vec<Queue> {
    let partitions = (0..group.partitions).map(|number| of_partition(group, number));
    let waiting = PAUSES.iter().map(|pause| of_wait(group, *pause));
    let dead = Queue {
        name: dead(&group.name),
        partition: None,
        arguments: arguments([
            (
                "x-delivery-limit",
                AMQPValue::LongLongInt(DELIVERIES_ENDLESS),
            ),
            ("x-overflow", text("reject-publish")),
            ("x-max-length", count(MESSAGES_MAX)),
        ]),
        bindings: vec![binding(DEAD, format!("{}.*.*", group.name))],
    };
    let about = Queue {
        name: about(&group.name),
        partition: None,
        arguments: arguments([(
            "x-delivery-limit",
            AMQPValue::LongLongInt(DELIVERIES_ENDLESS),
        )]),
        bindings: Vec::new(),
    };
    let strays = Queue {
        name: strays(&group.name),
        partition: None,
        arguments: arguments([
            ("x-single-active-consumer", AMQPValue::Boolean(true)),
            (
                "x-delivery-limit",
                AMQPValue::LongLongInt(DELIVERIES_ENDLESS),
            ),
            ("x-overflow", text("reject-publish")),
            ("x-max-length", count(MESSAGES_MAX)),
        ]),
        bindings: vec![binding(&strays(&group.name), "#".to_owned())],
    };
    let others = [dead, about, strays];
    partitions.chain(waiting).chain(others).collect()
}

/// The bindings by which partitions have what is published, with the queue of each.
pub(super) fn spread(group: &Group) -> impl Iterator<Item = (String, Binding)> {
    let parts = parts(&group.name);
    (0..BUCKETS).map(move |bucket| {
        let queue = partition(&group.name, bucket % group.partitions);
        (queue, binding(&parts, format!("#.{bucket}")))
    })
}

/// What is said of the exchange that spreads events: where those go that it cannot hand on.
pub(super) fn of_parts(group: &str) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("alternate-exchange".into(), text(&strays(group)));
    table
}

fn of_partition(group: &Group, number: u16) -> Queue {
    let name = &group.name;
    let returned = binding(RETURN, format!("*.{name}.{number}"));
    // RabbitMQ compares this key and refuses another one: so it refuses another number of partitions,
    // which would have keys change their queue.
    let dead_key = format!("{name}.{number}.of-{}", group.partitions);
    Queue {
        name: partition(name, number),
        partition: Some(number),
        arguments: arguments([
            ("x-single-active-consumer", AMQPValue::Boolean(true)),
            ("x-delivery-limit", AMQPValue::LongLongInt(DELIVERIES_MAX)),
            // A full queue says so, where by default it would drop the oldest.
            ("x-overflow", text("reject-publish")),
            (
                "x-max-length",
                count(group.queue_messages_max.unwrap_or(MESSAGES_MAX)),
            ),
            ("x-dead-letter-exchange", text(DEAD)),
            ("x-dead-letter-routing-key", text(&dead_key)),
            ("x-dead-letter-strategy", text("at-least-once")),
        ]),
        bindings: vec![returned],
    }
}

fn of_wait(group: &Group, (pause, word): (Duration, &str)) -> Queue {
    let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
    Queue {
        name: wait(&group.name, word),
        partition: None,
        arguments: arguments([
            ("x-message-ttl", count(millis)),
            ("x-overflow", text("reject-publish")),
            ("x-max-length", count(MESSAGES_MAX)),
            ("x-dead-letter-exchange", text(RETURN)),
            ("x-dead-letter-strategy", text("at-least-once")),
        ]),
        bindings: vec![binding(WAIT, format!("{word}.{}.*", group.name))],
    }
}

/// What is said of a queue of who looks.
pub(super) fn of_looking() -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-max-length".into(), count(LOOKING_MAX));
    table.insert("x-overflow".into(), text("drop-head"));
    table
}

fn binding(exchange: &str, pattern: String) -> Binding {
    Binding {
        exchange: exchange.to_owned(),
        pattern,
    }
}

fn arguments<const N: usize>(pairs: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), text("quorum"));
    for (name, value) in pairs {
        table.insert(name.into(), value);
    }
    table
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn count(count: u64) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(count).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a message waits for at least as long as is asked, by the pauses there are.
    /// Method: ask for lengths around them.
    #[test]
    fn pauses_are_rounded_up() {
        let cases = [
            (0, "1s"),
            (1_000, "1s"),
            (1_001, "5s"),
            (24_999, "25s"),
            (125_000, "125s"),
            (125_001, "10min"),
            (3_600_000, "10min"),
        ];
        for (millis, word) in cases {
            assert_eq!(word, pause(Duration::from_millis(millis)), "{millis} ms");
        }
    }

    /// Goal: no queue drops what it has no room for, and none loses what becomes a dead letter on its way.
    /// Method: what is said of the queues of a group as it is declared; nothing else shows it, as a broker
    /// that stands by itself loses nothing.
    #[test]
    fn queues_are_told_to_lose_nothing() {
        let group = Group {
            name: "a.b".to_owned(),
            partitions: 2,
            topics: Vec::new(),
            queue_messages_max: None,
        };
        let said = |queue: &Queue, name: &str| queue.arguments.inner().get(name).cloned();
        for queue in queues(&group) {
            let name = queue.name.as_str();
            assert_eq!(Some(text("quorum")), said(&queue, "x-queue-type"), "{name}");
            let expected = |wanted: bool, value: AMQPValue| wanted.then_some(value);
            let (is_dead, is_about) = (name == "a.b.dead", name == "a.b.about");
            let is_strays = name == "a.b.strays";
            let refuses = expected(!is_about, text("reject-publish"));
            assert_eq!(refuses, said(&queue, "x-overflow"), "{name}");
            let passes_on = expected(!is_dead && !is_about && !is_strays, text("at-least-once"));
            assert_eq!(passes_on, said(&queue, "x-dead-letter-strategy"), "{name}");
            let limit = if name.contains(".wait.") {
                None
            } else if is_dead || is_about || is_strays {
                Some(AMQPValue::LongLongInt(DELIVERIES_ENDLESS))
            } else {
                Some(AMQPValue::LongLongInt(DELIVERIES_MAX))
            };
            assert_eq!(limit, said(&queue, "x-delivery-limit"), "{name}");
        }
    }

    /// Goal: each bucket goes to one partition, the one that keys of it are told to be in.
    /// Method: look at the bindings of groups of all sizes.
    #[test]
    fn each_bucket_has_one_partition() {
        for partitions in 1..=BUCKETS {
            let group = Group {
                name: "a.b".to_owned(),
                partitions,
                topics: Vec::new(),
                queue_messages_max: None,
            };
            let mut seen = vec![None; usize::from(BUCKETS)];
            for (queue, binding) in spread(&group) {
                assert_eq!("a.b.parts", binding.exchange);
                let number = queue.strip_prefix("a.b.").expect("a partition");
                let number = number.parse().expect("a partition");
                let bucket = binding.pattern.strip_prefix("#.").expect("a pattern");
                let bucket: usize = bucket.parse().expect("a bucket");
                assert_eq!(None, seen[bucket].replace(number), "twice: {bucket}");
            }
            for (bucket, partition) in (0..BUCKETS).zip(seen) {
                assert_eq!(Some(bucket % partitions), partition);
            }
        }
    }

    /// Goal: where a dead letter comes from is known, whoever made it one.
    /// Method: read keys of both kinds, and what is none.
    #[test]
    fn dead_letters_tell_their_partition() {
        assert_eq!(Some(7), partition_of(&rejected_key("a.b.c", 7)));
        assert_eq!(Some(7), partition_of("a.b.c.7.of-8"));
        assert_eq!(None, partition_of("a.b.c"));
        assert_eq!(None, partition_of(""));
    }
}
