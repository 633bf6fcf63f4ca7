//! What the tests of a consumer stand on.

use std::time::Duration;

use gantry::{
    app::{self, App, testing::Service},
    contract::prost::{self, Message as _, Name},
};
use gantry_harness::database::Place;
use gantry_store::{Config, Database, Migration, Statement, Timestamp, Transaction};
use tokio::{sync::OnceCell, time};

use crate::{
    Events, Message,
    broker::{Broker as _, DeadLetter, memory::Memory},
    consumer::{Consumer, Failure, Handle, Received},
    headers,
};

/// Longest wait for what should come soon, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// Who consumes.
pub(crate) const GROUP: &str = "test.counts";

/// An event of the tests.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Counted {
    /// What the handler goes by.
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
}

impl Name for Counted {
    const NAME: &'static str = "Counted";
    const PACKAGE: &'static str = "test.v1";
}

/// Another one, which a later version handles as well.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Told {}

impl Name for Told {
    const NAME: &'static str = "Told";
    const PACKAGE: &'static str = "test.v1";
}

const EFFECTS: Migration = Migration {
    version: 1,
    name: "effects",
    sql: "CREATE TABLE effects (
              position BIGINT NOT NULL, event_id TEXT NOT NULL, event_key TEXT NOT NULL,
              sequence BIGINT NOT NULL);
          CREATE TABLE positions (name TEXT PRIMARY KEY, position BIGINT NOT NULL);
          INSERT INTO positions (name, position) VALUES ('last', 0);",
};
const NEXT: Statement = Statement::new(
    "test.next_position",
    "UPDATE positions SET position = position + 1 WHERE name = 'last' RETURNING position",
);
const WRITE: Statement = Statement::new(
    "test.write_effect",
    "INSERT INTO effects (position, event_id, event_key, sequence) VALUES ($1, $2, $3, $4)",
);
const EFFECTS_OF: Statement = Statement::new(
    "test.list_effects",
    "SELECT event_id, event_key, sequence FROM effects ORDER BY position",
);
const SHARES: Statement = Statement::new(
    "test.shares",
    "SELECT (SELECT COUNT(*) FROM event_members WHERE shares = 1) AS members,
            (SELECT COUNT(DISTINCT owner) FROM event_partitions WHERE owner <> '') AS owners",
);
const MEMBERS: Statement = Statement::new(
    "test.members",
    "SELECT COUNT(*) AS members FROM event_members",
);
const FENCE: Statement = Statement::new(
    "test.fence",
    "SELECT MIN(fence) AS least FROM event_partitions",
);
const TAKE_OVER: Statement = Statement::new(
    "test.take_over",
    "UPDATE event_partitions SET owner = '', fence = fence + 1",
);
const HOLD: Statement = Statement::new(
    "test.hold",
    "INSERT INTO event_held (consumer, source, event_key, sequence, part, event_id, due_at)
     VALUES ('counts', '/test', $1, $2, $3, 'gone', $4)",
);
const HELD: Statement = Statement::new("test.held", "SELECT COUNT(*) AS held FROM event_held");

gantry::config::section! {
    /// Settings of the service under test.
    pub(crate) struct Settings {
        /// Its database.
        database: section Config = Config::default();
        /// Its events.
        events: section crate::Config;
    }
}

/// Writes the effect of an event.
pub(crate) async fn effect<E>(
    event: &Received<E>,
    transaction: &mut Transaction,
) -> Result<(), Failure> {
    let position = transaction.statement(&NEXT).fetch_one().await?;
    let write = transaction.statement(&WRITE);
    let write = write.bind(position.integer("position")?);
    let sequence = i64::try_from(event.sequence().unwrap_or(0)).unwrap();
    let write = write.bind(event.id()).bind(event.key()).bind(sequence);
    write.execute().await?;
    Ok(())
}

/// An effect that was had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) sequence: i64,
}

/// A database and a broker, which services of one kind share.
pub(crate) struct World {
    place: Place,
    pub(crate) broker: Memory,
    database: OnceCell<Database>,
}

impl From<Place> for World {
    fn from(place: Place) -> Self {
        let broker = Memory::new(fastrand::u64(..));
        Self {
            place,
            broker,
            database: OnceCell::new(),
        }
    }
}

impl World {
    /// Another one of the same kind, with faults by `seed`.
    pub(crate) fn another(&self, seed: u64) -> Self {
        Self {
            place: self.place.another(),
            broker: Memory::new(seed),
            database: OnceCell::new(),
        }
    }

    /// An instance of the service, which consumes with `handler` and the settings `consumer`.
    pub(crate) async fn serve(&self, consumer: &str, handler: impl Handle<Counted>) -> Service {
        let start = |it: Consumer<'_>| it.on::<Counted>(handler).start();
        self.serve_with(consumer, start).await
    }

    /// As [`World::serve`], of a consumer that takes every type.
    pub(crate) async fn serve_in_sequence(
        &self,
        consumer: &str,
        handler: impl Handle<Counted>,
    ) -> Service {
        let start = |it: Consumer<'_>| it.on::<Counted>(handler).in_sequence().start();
        self.serve_with(consumer, start).await
    }

    /// As [`World::serve`], of a consumer that handles nothing any more.
    pub(crate) async fn serve_others(&self, consumer: &str) -> Service {
        let start = |it: Consumer<'_>| {
            it.start();
        };
        self.serve_with(consumer, start).await
    }

    /// An instance whose consumer is started by `start`, or not at all.
    pub(super) async fn serve_with(
        &self,
        consumer: &str,
        start: impl FnOnce(Consumer<'_>),
    ) -> Service {
        let unless = |name, said| if consumer.contains(name) { "" } else { said };
        let lease = unless("lease", "lease = '300ms'\n");
        let pause = unless("pause_in_place", "pause_in_place = '1ms'\n");
        let toml = format!(
            "[database]\nurl = '{}'\npool_max = 8\n\
             [events.consumer]\n{pause}{lease}{consumer}",
            self.place.url()
        );
        let broker = self.broker.clone();
        let attach = async |app: &mut App<Settings>| -> Result<(), app::BoxError> {
            let config = app.config();
            let database = config.map(|settings| &settings.database);
            let database = Database::attach(app, database, &[EFFECTS]).await?;
            let config = config.map(|settings| &settings.events);
            let broker = std::sync::Arc::new(broker);
            let events = Events::attach_to(app, &database, broker, config).await?;
            start(events.consumer("counts"));
            Ok(())
        };
        let identity = app::Identity {
            name: "test",
            ..app::identity!()
        };
        Service::start(identity, &toml, attach).await.unwrap()
    }

    /// A look at the database.
    pub(crate) async fn database(&self) -> Database {
        let open = async || {
            let config = Config {
                url: self.place.url().parse().unwrap(),
                ..Config::default()
            };
            Database::open_existing(&config).await.unwrap()
        };
        self.database.get_or_init(open).await.clone()
    }

    /// Has an event come; waits for the group, which the first instance declares.
    pub(crate) async fn publish(&self, key: &str, sequence: u64, number: u64) {
        self.send(event(key, sequence, number)).await;
    }

    pub(crate) async fn send(&self, message: Message) {
        let sent = async {
            while self.broker.publish(message.clone()).await.is_err() {
                time::sleep(Duration::from_millis(1)).await;
            }
        };
        time::timeout(SOON, sent).await.unwrap();
    }

    pub(crate) async fn effects(&self) -> Vec<Effect> {
        let database = self.database().await;
        let rows = database.statement(&EFFECTS_OF).fetch_all().await.unwrap();
        let effects = rows.iter().map(|row| Effect {
            id: row.text("event_id").unwrap(),
            key: row.text("event_key").unwrap(),
            sequence: row.integer("sequence").unwrap(),
        });
        effects.collect()
    }

    pub(crate) async fn held(&self) -> i64 {
        let database = self.database().await;
        let row = database.statement(&HELD).fetch_one().await.unwrap();
        row.integer("held").unwrap()
    }

    /// Waits until so many events are held.
    pub(crate) async fn held_is(&self, count: i64) {
        let there = async {
            while self.held().await != count {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(SOON, there).await.unwrap();
    }

    pub(crate) async fn dead_letters(&self) -> Vec<DeadLetter> {
        self.broker.dead_letters(GROUP, 0, 1_000).await.unwrap()
    }

    /// The reasons of all dead letters.
    pub(crate) async fn dead_reasons(&self) -> Vec<String> {
        let letters = self.dead_letters().await;
        let reasons = letters
            .iter()
            .map(|letter| letter.message.headers[headers::DEAD_REASON].clone());
        reasons.collect()
    }

    /// Puts all dead letters back.
    pub(crate) async fn redrive(&self) {
        for letter in self.dead_letters().await {
            let mut said = letter.message.headers.clone();
            said.insert(headers::REDRIVEN.to_owned(), "1".to_owned());
            let back = self.broker.settle_dead_letter(GROUP, &letter, Some(said));
            back.await.unwrap();
        }
    }

    /// Instances that take a share, and those that have partitions.
    pub(crate) async fn shares(&self) -> (i64, i64) {
        let database = self.database().await;
        let row = database.statement(&SHARES).fetch_one().await.unwrap();
        (
            row.integer("members").unwrap(),
            row.integer("owners").unwrap(),
        )
    }

    /// Instances there are.
    pub(crate) async fn members(&self) -> i64 {
        let database = self.database().await;
        let row = database.statement(&MEMBERS).fetch_one().await.unwrap();
        row.integer("members").unwrap()
    }

    /// Waits until so many instances share all partitions.
    pub(crate) async fn shares_are(&self, members: i64) {
        let shared = async {
            loop {
                let (found, owners) = self.shares().await;
                if (found, owners) == (members, members) {
                    return;
                }
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(SOON, shared).await.unwrap();
    }

    /// Waits until all partitions were taken so often.
    pub(crate) async fn taken(&self, times: i64) {
        let taken = async {
            // Before that there are no tables.
            while self.broker.fill(GROUP).await.is_err() {
                time::sleep(Duration::from_millis(1)).await;
            }
            let database = self.database().await;
            loop {
                let row = database.statement(&FENCE).fetch_one().await.unwrap();
                if row.optional_integer("least").unwrap() >= Some(times) {
                    return;
                }
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(SOON, taken).await.unwrap();
    }

    /// Waits until so many events are handed out and not settled.
    pub(crate) async fn handed_out(&self, count: u64) {
        let there = async {
            while self.broker.fill(GROUP).await.unwrap().unsettled < count {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(SOON, there).await.unwrap();
    }

    /// Has every partition taken by somebody else, who gives it back at once.
    pub(crate) async fn take_over(&self) {
        let database = self.database().await;
        let taken = database.statement(&TAKE_OVER).execute().await.unwrap();
        assert!(taken > 0);
    }

    /// Notes that an event comes again, and was due a time ago.
    pub(crate) async fn hold(&self, key: &str, sequence: i64, overdue: Duration) {
        let database = self.database().await;
        let hold = database.statement(&HOLD).bind(key).bind(sequence);
        let partition = i32::from(crate::bucket(key) % 8);
        let hold = hold.bind(partition).bind(Timestamp::now().before(overdue));
        hold.execute().await.unwrap();
    }

    /// Waits for so many effects.
    pub(crate) async fn effects_are(&self, count: usize) {
        let there = async {
            while self.effects().await.len() < count {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(SOON, there).await.unwrap();
    }

    /// Waits until nothing is on its way and there are so many effects.
    pub(crate) async fn quiet(&self, effects: usize) {
        let quiet = async {
            loop {
                let fill = self.broker.fill(GROUP).await.unwrap();
                let open = fill.ready.iter().sum::<u64>() + fill.unsettled + fill.delayed;
                if open == 0 && self.effects().await.len() >= effects {
                    return;
                }
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = time::timeout(SOON, quiet).await;
        let fill = self.broker.fill(GROUP).await;
        assert!(found.is_ok(), "{fill:?}, {:?}", self.effects().await);
        assert_eq!(effects, self.effects().await.len());
    }

    /// Each event has one effect, and those of a key have them in their order.
    pub(crate) async fn each_once_in_order(&self) {
        let effects = self.effects().await;
        let mut last = std::collections::BTreeMap::new();
        for effect in &effects {
            let before = last.insert(effect.key.clone(), effect.sequence);
            assert!(
                before < Some(effect.sequence),
                "{effect:?} after {before:?}: {effects:?}"
            );
        }
    }
}

impl World {
    /// Each key has every one of its events, up to `last`.
    pub(crate) async fn none_is_missing(&self, last: u64) {
        let effects = self.effects().await;
        let mut keys = std::collections::BTreeMap::<_, Vec<_>>::new();
        for effect in effects {
            keys.entry(effect.key).or_default().push(effect.sequence);
        }
        let all: Vec<_> = (1..=i64::try_from(last).unwrap()).collect();
        for (key, sequences) in keys {
            assert_eq!(all, sequences, "{key}");
        }
    }
}

/// As [`event`], of the other type.
pub(crate) fn told(key: &str, sequence: u64) -> Message {
    Message {
        topic: Told::full_name(),
        body: Told {}.encode_to_vec().into(),
        ..event(key, sequence, 0)
    }
}

/// An event, always of the same id.
pub(crate) fn event(key: &str, sequence: u64, number: u64) -> Message {
    Message {
        topic: Counted::full_name(),
        key: key.to_owned(),
        headers: [
            (headers::ID, format!("{key}-{sequence}")),
            (headers::SOURCE, "/test".to_owned()),
            (headers::SEQUENCE, sequence.to_string()),
            (headers::TIME, "2026-01-01T00:00:00Z".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        body: Counted { number }.encode_to_vec().into(),
    }
}
