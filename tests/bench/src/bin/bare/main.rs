//! Publishes and consumes the same messages with a client of the broker alone:
//! `bench-bare WHAT BROKER COUNT KEYS [DATABASE]`, where WHAT is
//!
//! - `publish`: ready messages, as many unconfirmed as a relay has;
//! - `acks`: what is in the queues, acknowledged and no more;
//! - `rows`: the same, with a row for each before that, in a transaction of its own;
//! - `latency`: some messages a second, each from its publication to its arrival.
//!
//! It prepares that, says so, waits for a line on its input, and prints how it went.

mod amqp;
mod grpc;

use std::{env::args, sync::Arc, time::Duration};

use gantry::contract::prost::Message as _;
use gantry_bench::{
    events::{Failed, HANDLERS, PARTITIONS, WINDOW, begins, message, pace, tell},
    print,
    proto::Happened,
};
use gantry_events::Message;
use gantry_store::{Config, Database, Migration, Statement};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};

use self::{amqp::Amqp, grpc::Grpc};

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "effects",
    sql: "CREATE TABLE effects (number BIGINT NOT NULL, event_id TEXT NOT NULL);",
}];
const WRITE: Statement = Statement::new(
    "bare.write",
    "INSERT INTO effects (number, event_id) VALUES ($1, $2)",
);

/// A client of a broker.
trait Client: Sized {
    /// A message as it is sent.
    type Ready;
    type Queue: Queue + 'static;

    async fn connect(place: &str) -> Result<Self, Failed>;

    fn ready(message: Message) -> Self::Ready;

    /// Sends it, and answers once there is room for another one in the window of that size.
    async fn publish(&mut self, ready: Self::Ready, window: usize) -> Result<(), Failed>;

    /// Answers once all is confirmed.
    async fn confirmed(&mut self) -> Result<(), Failed>;

    async fn queue(&mut self, partition: u16) -> Result<Self::Queue, Failed>;
}

/// The messages of one queue.
trait Queue: Send {
    /// The next one: what settles it, and its body.
    fn next(&mut self) -> impl Future<Output = Result<(u64, Vec<u8>), Failed>> + Send;

    fn ack(&mut self, tag: u64) -> impl Future<Output = Result<(), Failed>> + Send;
}

/// What is measured.
struct Measured {
    what: String,
    count: usize,
    keys: usize,
    database: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<_> = args().skip(1).collect();
    let [what, place, count, keys, database @ ..] = arguments.as_slice() else {
        return Err("usage: bench-bare WHAT BROKER COUNT KEYS [DATABASE]".into());
    };
    let measured = Measured {
        what: what.clone(),
        count: count.parse()?,
        keys: keys.parse()?,
        database: database.first().cloned(),
    };
    if let Some(place) = place.strip_prefix("grpc://") {
        run::<Grpc>(place, measured).await
    } else {
        run::<Amqp>(place, measured).await
    }
}

async fn run<C: Client>(place: &str, measured: Measured) -> Result<(), Failed> {
    let client = C::connect(place).await?;
    let Measured { count, keys, .. } = measured;
    match measured.what.as_str() {
        "publish" => publish(client, (count, keys)).await,
        "acks" | "rows" => consume(client, (count, keys), measured.database).await,
        "latency" => latency(client, (count, keys)).await,
        other => Err(format!("{other} is nothing that is measured").into()),
    }
}

async fn publish<C: Client>(mut client: C, (count, keys): (usize, usize)) -> Result<(), Failed> {
    let ready: Vec<_> = (0..count)
        .map(|number| C::ready(message(number, keys)))
        .collect();
    let begun = begins().await?;
    for ready in ready {
        client.publish(ready, WINDOW).await?;
    }
    client.confirmed().await?;
    begun.ended();
    Ok(())
}

async fn consume<C: Client>(
    mut client: C,
    (count, keys): (usize, usize),
    database: Option<String>,
) -> Result<(), Failed> {
    for number in 0..count {
        client
            .publish(C::ready(message(number, keys)), WINDOW)
            .await?;
    }
    client.confirmed().await?;
    let mut writes = None;
    if let Some(url) = database {
        let config = Config {
            url: url.parse()?,
            ..Config::default()
        };
        let database = Database::open(&config, MIGRATIONS).await?;
        writes = Some((database, Arc::new(Semaphore::new(HANDLERS))));
    }
    let mut tasks = JoinSet::new();
    let (done, mut all) = mpsc::channel(count.max(1));
    let begun = begins().await?;
    for partition in 0..PARTITIONS {
        let mut queue = client.queue(partition).await?;
        let (done, writes) = (done.clone(), writes.clone());
        tasks.spawn(async move {
            loop {
                let (tag, body) = queue.next().await?;
                if let Some((database, places)) = &writes {
                    let _place = places.acquire().await?;
                    write(database, &body).await?;
                }
                queue.ack(tag).await?;
                done.send(Instant::now()).await?;
            }
        });
    }
    let mut first = None;
    for _ in 0..count {
        tokio::select! {
            one = all.recv() => first = first.or(one),
            Some(ended) = tasks.join_next() => {
                let ended: Result<(), Failed> = ended?;
                ended?;
            }
        }
    }
    first.map_or(begun, |at| begun.at(at)).ended();
    Ok(())
}

async fn write(database: &Database, body: &[u8]) -> Result<(), Failed> {
    let event = Happened::decode(body)?;
    let mut transaction = database.begin("bare.write").await?;
    let number = i64::try_from(event.number)?;
    let write = transaction.statement(&WRITE).bind(number).bind("an event");
    write.execute().await?;
    transaction.commit().await?;
    Ok(())
}

async fn latency<C: Client>(mut client: C, (count, keys): (usize, usize)) -> Result<(), Failed> {
    let (came, mut all) = mpsc::channel(count.max(1));
    let mut tasks: JoinSet<Result<(), Failed>> = JoinSet::new();
    for partition in 0..PARTITIONS {
        let mut queue = client.queue(partition).await?;
        let came = came.clone();
        tasks.spawn(async move {
            loop {
                let (tag, body) = queue.next().await?;
                let now = Instant::now();
                let number = usize::try_from(Happened::decode(&*body)?.number)?;
                came.send((number - 1, now)).await?;
                queue.ack(tag).await?;
            }
        });
    }
    let begun = begins().await?;
    let (mut ticks, mut took) = (pace(), Vec::<Duration>::new());
    for number in 0..count {
        ticks.tick().await;
        let ready = C::ready(message(number, keys));
        let sent = Instant::now();
        client.publish(ready, 1).await?;
        let (came, at) = all.recv().await.ok_or("the queues have ended")?;
        if came != number {
            return Err(format!("{came} came in place of {number}").into());
        }
        took.push(at.duration_since(sent));
    }
    begun.ended();
    tell(took);
    tasks.abort_all();
    Ok(())
}

/// Says that the broker did not take a message.
fn not_taken(told: impl std::fmt::Debug) -> Failed {
    print("not taken");
    format!("not taken: {told:?}").into()
}
