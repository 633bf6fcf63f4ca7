//! Dead letters that cannot be told by their place.

use std::time::Duration;

use gantry::journal::Kind;
use gantry_events::broker::{Broker, DeadLetter, Group, Settle};
use gantry_harness::{
    rabbitmq::{PASSWORD, RabbitMq, USER},
    wait,
};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};

use crate::stand::Server;

/// Longest wait for what should come soon, on a busy machine.
const SOON: Duration = Duration::from_mins(1);

/// Who consumes.
const GROUP: &str = "letters.all";

/// Writes what an instance does about a dead letter, with a place that is given.
async fn reject(channel: &Channel, place: i64, id: &str) {
    let mut table = FieldTable::default();
    table.insert("cloudEvents:id".into(), AMQPValue::LongString(id.into()));
    table.insert("gantry-key".into(), AMQPValue::LongString(id.into()));
    table.insert("x-gantry-place".into(), AMQPValue::LongLongInt(place));
    let key = format!("{GROUP}.0.rejected");
    put(channel, ("gantry.dead", &key), table, id).await;
}

/// Writes a message as anybody may, to an exchange with a key.
async fn put(channel: &Channel, to: (&str, &str), headers: FieldTable, body: &str) {
    let properties = BasicProperties::default().with_headers(headers);
    let options = BasicPublishOptions::default();
    let (exchange, key) = (to.0.into(), to.1.into());
    let published = channel.basic_publish(exchange, key, options, body.as_bytes(), properties);
    published.await.unwrap().await.unwrap();
}

/// Whose letters they are.
fn group() -> Group {
    Group {
        name: GROUP.to_owned(),
        partitions: 1,
        topics: vec!["letters.v1.Told".to_owned()],
        queue_messages_max: None,
    }
}

/// A channel as an instance has it, and its connection.
async fn channel(rabbitmq: &RabbitMq) -> (Connection, Channel) {
    let url = format!("amqp://{USER}:{PASSWORD}@{}", rabbitmq.address());
    let connection = Connection::connect(&url, ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let confirms = channel.confirm_select(ConfirmSelectOptions::default());
    confirms.await.unwrap();
    (connection, channel)
}

/// The letters that there are, once they are so many.
async fn letters(rabbit: &dyn Broker, count: usize) -> Vec<DeadLetter> {
    let all = async || {
        let letters = rabbit.dead_letters(GROUP, 0, 10).await.ok()?;
        (letters.len() == count).then_some(letters)
    };
    wait::until("dead letters", SOON, all).await
}

fn bodies(letters: &[DeadLetter]) -> Vec<&[u8]> {
    letters.iter().map(|it| &*it.message.body).collect()
}

/// Goal: two letters with the same place are two, and each is settled as what it is; one that is there
/// twice is one, of which nothing is left once it is settled.
/// Method: letters of two instances in the same microsecond; the second is put back, the first dropped;
/// then one that was confirmed too late and published again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_of_one_place() {
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit = server.rabbit();
    rabbit.declare(&group()).await.unwrap();
    let (_connection, channel) = channel(&*server.rabbitmq.lock().await).await;
    for id in ["one", "two"] {
        reject(&channel, 7, id).await;
    }
    let found = letters(&*rabbit, 2).await;
    assert_eq!([&b"one"[..], b"two"], *bodies(&found));
    let headers = found[1].message.headers.clone();
    let settled = rabbit.settle_dead_letter(GROUP, &found[1], Some(headers.clone()));
    settled.await.unwrap();
    let mut subscription = rabbit.subscribe(GROUP, 0, 1).await.unwrap();
    let back = subscription.next().await.unwrap().message;
    assert_eq!((&b"two"[..], &headers), (&*back.body, &back.headers));
    assert_eq!([&b"one"[..]], *bodies(&letters(&*rabbit, 1).await));
    let dropped = rabbit.settle_dead_letter(GROUP, &found[0], None);
    dropped.await.unwrap();

    for place in [8, 9, 8] {
        reject(&channel, place, "again").await;
    }
    let found = letters(&*rabbit, 2).await;
    let dropped = rabbit.settle_dead_letter(GROUP, &found[0], None);
    dropped.await.unwrap();
    let left = letters(&*rabbit, 1).await;
    assert_eq!(9, left[0].place);
    let fill = rabbit.fill(GROUP).await.unwrap();
    assert_eq!(1, fill.dead_letters);
}

/// Goal: what came with headers that fill a frame becomes a dead letter, though those of ours are added;
/// and no connection ends for it.
/// Method: reject a message with a header that is as long as a frame lets it be; the journal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_fill_a_frame() {
    let Some(server) = Server::start().await else {
        return;
    };
    let rabbit = server.rabbit();
    rabbit.declare(&group()).await.unwrap();
    let (_connection, channel) = channel(&*server.rabbitmq.lock().await).await;
    let mut headers = FieldTable::default();
    let long = AMQPValue::LongString("x".repeat(130_900).into());
    headers.insert("long".into(), long);
    put(&channel, ("", &format!("{GROUP}.0")), headers, "told").await;
    let mut subscription = rabbit.subscribe(GROUP, 0, 1).await.unwrap();
    let delivery = subscription.next().await.unwrap();
    assert_eq!(130_900, delivery.message.headers["long"].len());
    let why = [("gantry-dead-reason", "malformed")];
    let why = why.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settler = subscription.settler();
    let settled = settler.settle(delivery.tag, Settle::Reject(why.into()));
    settled.await.unwrap();
    let letter = letters(&*rabbit, 1).await.remove(0);
    assert_eq!(b"told"[..], *letter.message.body);
    let header = |name: &str| letter.message.headers.get(name).map(String::as_str);
    assert_eq!(Some("malformed"), header("gantry-dead-reason"));
    assert_eq!(
        (None, Some("1")),
        (header("long"), header("gantry-left-out"))
    );
    let (recent, _) = server.journal.watch();
    assert!(
        recent.iter().all(|it| it.kind != Kind::Broker),
        "{recent:?}"
    );
}
