use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time;

use super::*;
use crate::{Config, Migration, Statement};

const TABLE: Migration = Migration {
    version: 1,
    name: "numbers",
    sql: "CREATE TABLE numbers (number BIGINT PRIMARY KEY);",
};
const ADD: Statement = Statement::new("test.add", "INSERT INTO numbers (number) VALUES ($1)");
const COUNT: Statement = Statement::new("test.count", "SELECT COUNT(*) AS count FROM numbers");

/// Every step takes its time, and is written down.
#[derive(Debug, Default)]
struct Slow(Mutex<Vec<Step>>);

impl Steps for Slow {
    fn before(&self, step: Step) -> Wait<'_> {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        steps.push(step);
        Box::pin(time::sleep(Duration::from_millis(300)))
    }

    fn after(&self, _: Step) -> Wait<'_> {
        Box::pin(async {})
    }
}

async fn database() -> (tempfile::TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::file(folder.path().join("test.db"));
    let database = Database::open(&config, &[TABLE]).await.unwrap();
    database.fill().await.unwrap();
    (folder, database)
}

/// Goal: time passes as the steps say and not otherwise, a transaction that is given up between two
/// statements leaves nothing behind, and the next one does not wait for it.
/// Method: on the paused clock, one that is dropped in its second statement while another one waits for
/// its turn.
#[tokio::test]
async fn statements_take_the_time_that_their_steps_take() {
    let (_folder, database) = database().await;
    time::pause();
    let _clock = Clock::at(Timestamp::from_micros(5));
    let slow = Arc::new(Slow::default());
    let slowly = database.in_steps(Arc::clone(&slow) as Arc<dyn Steps>);
    let given_up = async {
        let mut transaction = slowly.begin("test.first").await.unwrap();
        transaction
            .statement(&ADD)
            .bind(1_i64)
            .execute()
            .await
            .unwrap();
        transaction
            .statement(&ADD)
            .bind(2_i64)
            .execute()
            .await
            .unwrap();
    };
    let second = async {
        let mut transaction = slowly.begin("test.second").await.unwrap();
        transaction
            .statement(&ADD)
            .bind(3_i64)
            .execute()
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    };
    let first = time::timeout(Duration::from_millis(750), given_up);
    let (first, ()) = tokio::join!(first, second);
    assert!(first.is_err());
    // Timers go by whole milliseconds.
    let passed = Timestamp::now().micros();
    assert!((1_650_005..1_660_000).contains(&passed), "{passed} µs");
    let count = slowly.statement(&COUNT).fetch_one().await.unwrap();
    assert_eq!(1, count.integer("count").unwrap());
    let steps = slow.0.lock().unwrap().clone();
    let expected = [
        Step::Begin("test.first"),
        Step::Statement("test.add"),
        Step::Statement("test.add"),
        Step::Begin("test.second"),
        Step::Statement("test.add"),
        Step::Commit("test.second"),
        Step::Statement("test.count"),
    ];
    assert_eq!(expected, *steps);
}
