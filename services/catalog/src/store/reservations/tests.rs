use gantry_store::{Config, Database};
use tempfile::TempDir;

use super::*;
use crate::store::MIGRATIONS;

/// Goal: a sweep finds what it forgets by age, without reading everything that was ever released.
/// Method: the engine's plan for the statement.
#[tokio::test]
async fn forgetting_follows_an_index_by_age() {
    let folder = TempDir::new().unwrap();
    let config = Config::file(folder.path().join("catalog.db"));
    let database = Database::open(&config, MIGRATIONS).await.unwrap();
    let plan = format!("EXPLAIN QUERY PLAN {FORGET_SQL}");
    let plan = Statement::new("test.plan", plan.leak());
    let rows = database
        .statement(&plan)
        .bind(code(ReservationState::Released))
        .bind(Timestamp::now())
        .bind(SWEEP_MAX)
        .fetch_all()
        .await
        .unwrap();
    let steps: Vec<_> = rows.iter().map(|row| row.text("detail").unwrap()).collect();
    assert!(
        steps
            .iter()
            .any(|step| step.contains("(state=? AND updated_at<?)")),
        "{steps:?}"
    );
}
