use gantry_api::admin::v1::{broker_connection, event_consumer};

use super::*;

fn at(seconds: u64) -> Timestamp {
    (SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).into()
}

fn shown() -> GetEventsResponse {
    GetEventsResponse {
        broker: Some(EventBroker {
            system: "rabbitmq".to_owned(),
            url: "amqp://rabbit".to_owned(),
            connections: vec![BrokerConnection {
                purpose: "publishing".to_owned(),
                state: broker_connection::State::Blocked.into(),
                state_time: Some(at(900)),
                error: "low on memory".to_owned(),
                attempts: 1,
            }],
        }),
        outbox: Some(EventOutbox {
            pending: 12,
            oldest_time: Some(at(995)),
            in_flight: 3,
            waits: vec![EventWait {
                reason: EventRefusal::Unroutable.into(),
                topic: "a.v1.Placed".to_owned(),
                keys: 7,
                attempts: 4,
                begin_time: Some(at(970)),
                next_attempt: Some(prost_types::Duration {
                    seconds: 2,
                    nanos: 0,
                }),
            }],
            refused: vec![RefusedEvents {
                reason: EventRefusal::TimedOut.into(),
                count: 5,
                last_time: Some(at(940)),
                last_topic: "a.v1.Placed".to_owned(),
                last_error: "not confirmed in time".to_owned(),
            }],
            ..EventOutbox::default()
        }),
        consumers: vec![EventConsumer {
            group: "orders.sums".to_owned(),
            state: event_consumer::State::Consuming.into(),
            partitions: vec![0, 1, 3],
            held: 4,
            held_keys: 1,
            troubles: vec![ConsumerTrouble {
                reason: "missing".to_owned(),
                partitions: vec![3],
                begin_time: Some(at(999)),
                error: "orders.sums.3 is not there".to_owned(),
                attempts: 2,
            }],
            fill: Some(QueueFill {
                ready: 9,
                ..QueueFill::default()
            }),
            ..EventConsumer::default()
        }],
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000)
}

/// Goal: people see of an instance how it reaches its broker, what waits and why, and who consumes, with
/// times that they can read.
/// Method: one where something is wrong everywhere.
#[test]
fn what_is_wrong_is_a_line() {
    let row = Row::of("orders-1", shown(), now()).expect("it has events");
    let expected = "\
orders-1: rabbitmq at amqp://rabbit
  publishing  BLOCKED for 1m 40s, 1 attempt: low on memory
  outbox      12 pending, the oldest for 5.0s; 3 in flight
    waits, unroutable: a.v1.Placed (7 keys) for 30s, 4 attempts, the next in 2.0s
    not taken, timed_out: 5 times, the last 1m ago, a.v1.Placed: not confirmed in time
  orders.sums CONSUMING, partitions 0-1, 3; 0 in flight, 4 held of 1 key
    queues, of all instances: 9 ready, 0 unsettled, 0 delayed, 0 dead, 0 stray
    held up, missing with partition 3 for 1.0s, 2 attempts: orders.sums.3 is not there";
    assert_eq!(expected, row.text());
}

/// Goal: programs have the words of the metrics, and nothing of an instance without events.
/// Method: the same as JSON, and one without a broker.
#[test]
fn programs_have_the_words_of_metrics() {
    let row = Row::of("orders-1", shown(), now()).expect("it has events");
    let json = serde_json::to_value(&row).unwrap();
    assert_eq!("BLOCKED", json["broker"]["connections"][0]["state"]);
    assert_eq!("unroutable", json["outbox"]["waits"][0]["reason"]);
    assert_eq!(2_000, json["outbox"]["waits"][0]["next_attempt_ms"]);
    assert_eq!("timed_out", json["outbox"]["refused"][0]["reason"]);
    assert_eq!(9, json["consumers"][0]["queued"]["ready"]);
    assert!(Row::of("bank-1", GetEventsResponse::default(), now()).is_none());
}
