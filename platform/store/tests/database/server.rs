//! What only a server does: it goes away and comes back, it has schemas, users and TLS, and its
//! writers are in each other's way by rows.

use gantry_harness::{authority::Authority, postgres::Postgres, slow::Slow, wait};
use gantry_store::{Statement, Transaction};

use super::*;

/// Longest wait for what should come at once, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Takes longer than anybody waits.
const SLEEP: Statement = Statement::new("test.sleep", "SELECT 1 AS one FROM pg_sleep(3600)");

const STEPS: &[Migration] = &[COUNTERS, LABELS];

fn at(url: &str) -> Config {
    Config {
        url: url.parse().unwrap(),
        acquire_timeout: Duration::from_secs(2),
        ..Config::default()
    }
}

/// Goal: a server that is killed and started again costs calls while it is away, each by its kind
/// and in time, and nothing afterwards.
/// Method: fill the pool, kill every process of the server, read; start it, read until it answers;
/// what was committed is there, what was not is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_is_found_again() {
    let Some(mut server) = Postgres::start().await else {
        return;
    };
    let database = Database::open(&at(&server.url()), STEPS).await.unwrap();
    let reads = async || futures_of_reads(&database).await;
    reads().await;
    add_one(&database).await.unwrap();
    let mut open = database.begin("test.open").await.unwrap();
    let write = open.statement(&WRITE).bind("a").bind(50);
    write.execute().await.unwrap();

    server.kill().await;
    let error = open.commit().await.unwrap_err();
    assert_eq!(Kind::Unavailable, error.kind(), "{error:?}");
    for _ in 0..2 {
        let refused = time::timeout(SOON, database.ping()).await.unwrap();
        let error = refused.unwrap_err();
        assert_eq!(Kind::Unavailable, error.kind(), "{error:?}");
    }

    server.restart().await;
    wait::until("a server to be found again", SOON, async || {
        database.ping().await.ok()
    })
    .await;
    reads().await;
    assert_eq!(1, read(&database).await);
    add_one(&database).await.unwrap();
}

/// As many reads at once as a pool has connections, and more.
async fn futures_of_reads(database: &Database) {
    let mut reads = JoinSet::new();
    for _ in 0..16 {
        let database = database.clone();
        reads.spawn(async move { read(&database).await });
    }
    reads.join_all().await;
}

/// Goal: connections that a restart has made useless are not handed out.
/// Method: fill the pool, restart the server while nobody asks anything, then ask: not one
/// statement fails once the server answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_a_quiet_moment_costs_nothing() {
    let Some(mut server) = Postgres::start().await else {
        return;
    };
    let database = Database::open(&at(&server.url()), STEPS).await.unwrap();
    futures_of_reads(&database).await;
    server.kill().await;
    server.restart().await;
    futures_of_reads(&database).await;
    add_one(&database).await.unwrap();
}

/// Goal: a server that is there and does not answer takes no caller longer than it may, and no
/// place in the pool for good.
/// Method: all traffic through a proxy that lets nothing through for an hour, and then lets new
/// connections through; old ones are stuck for good, each of them in the middle of something.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_network_is_got_over() {
    let Some(server) = gantry_harness::postgres::shared().await else {
        return;
    };
    let proxy = Slow::to(server.address()).await;
    let real = server.address().to_string();
    let url = server.schema().replace(&real, &proxy.address.to_string());
    let config = Config {
        statement_timeout: Duration::from_millis(500),
        pool_max: 2,
        ..at(&url)
    };
    let database = Database::open(&config, STEPS).await.unwrap();
    futures_of_reads(&database).await;
    let asleep = async || database.statement(&SLEEP).fetch_one().await;
    let cut = async {
        wait::until("all connections to be in use", SOON, async || {
            (database.connections() == (2, 0)).then_some(())
        })
        .await;
        proxy.delay(Duration::from_hours(1));
    };
    let (one, other, ()) = tokio::join!(asleep(), asleep(), cut);
    for error in [one, other].map(Result::unwrap_err) {
        let kind = error.kind();
        let away = [Kind::TimedOut, Kind::Unavailable].contains(&kind);
        assert!(away, "{error:?}");
    }
    let ping = time::timeout(SOON, database.ping()).await.unwrap();
    assert!(ping.is_err());
    proxy.delay(Duration::ZERO);
    wait::until("new connections", SOON, async || database.ping().await.ok()).await;
    futures_of_reads(&database).await;
}

/// Goal: nor does one that falls silent just as a connection is given back.
/// Method: one thread, so that the network is cut before the pool asks the connection whether it is
/// well; once the network lets new connections through, the only place is there for one.
#[tokio::test]
async fn a_network_cut_at_the_return_is_got_over() {
    let Some(server) = gantry_harness::postgres::shared().await else {
        return;
    };
    let proxy = Slow::to(server.address()).await;
    let real = server.address().to_string();
    let url = server.schema().replace(&real, &proxy.address.to_string());
    let config = Config {
        pool_max: 1,
        ..at(&url)
    };
    let database = Database::open(&config, STEPS).await.unwrap();
    assert_eq!(0, read(&database).await);
    proxy.delay(Duration::from_hours(1));
    let ping = time::timeout(SOON, database.ping()).await.unwrap();
    assert!(ping.is_err());
    proxy.delay(Duration::ZERO);
    wait::until("a new connection", SOON, async || {
        database.ping().await.ok()
    })
    .await;
    assert_eq!(0, read(&database).await);
}

/// Goal: schemas of one database are as far apart as files.
/// Method: two services with tables of one name and other steps; one of a new name is made.
#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_databases_of_their_own() {
    let Some(server) = gantry_harness::postgres::shared().await else {
        return;
    };
    let (one, other) = (at(&server.schema()), at(&server.schema()));
    let one = Database::open(&one, STEPS).await.unwrap();
    let steps = [Migration {
        version: 1,
        name: "other counters",
        sql: "CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
              INSERT INTO counters (name, value) VALUES ('a', 40);",
    }];
    let other = Database::open(&other, &steps).await.unwrap();
    add_one(&one).await.unwrap();
    add_one(&other).await.unwrap();
    assert_eq!((1, 41), (read(&one).await, read(&other).await));
}

/// Goal: who may not come in is told so, and neither password nor any part of it is.
/// Method: a wrong password in the URL, then the right one beside it.
#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_asked_for_and_not_told() {
    let Some(server) = gantry_harness::postgres::shared().await else {
        return;
    };
    let right = server.schema();
    let (head, rest) = right.split_once('@').unwrap();
    let (user, password) = head.rsplit_once(':').unwrap();
    let wrong = at(&format!("{user}:guess-7f3a@{rest}"));
    let error = Database::open(&wrong, STEPS).await.unwrap_err();
    let text = format!("{error:?} {}", gantry::status::chain(&error));
    assert!(matches!(error, OpenError::Connect { .. }), "{text}");
    assert!(text.contains("password authentication failed"), "{text}");
    assert!(!text.contains("7f3a"), "{text}");
    let beside = Config {
        password: gantry::config::Secret::new(password),
        ..at(&format!("{user}@{rest}"))
    };
    assert!(!format!("{beside:?}").contains(password));
    Database::open(&beside, STEPS).await.unwrap();
}

/// Goal: TLS is what the URL says: who the server is, is made sure of, and nothing is sent without.
/// Method: a server with a certificate of an authority of our own; trust it, trust nobody, ask for
/// no TLS, and ask a server without for it.
#[tokio::test(flavor = "multi_thread")]
async fn servers_prove_who_they_are() {
    let authority = Authority::new("ours");
    let Some(server) = Postgres::secured(&authority).await else {
        return;
    };
    let ca = authority.ca();
    let ca = ca.display();
    let outcome = async |url: String| Database::open(&at(&url), STEPS).await;
    let url = server.url();
    for good in [
        format!("{url}?sslmode=verify-full&sslrootcert={ca}"),
        format!("{url}?sslmode=verify-ca&sslrootcert={ca}"),
        format!("{url}?sslmode=require"),
    ] {
        outcome(good).await.unwrap();
    }
    let plain = gantry_harness::postgres::shared().await.unwrap();
    for bad in [
        format!("{url}?sslmode=verify-full"),
        format!("{url}?sslmode=disable"),
        url.clone(),
        format!("{}&sslmode=require", plain.schema()),
    ] {
        let refused = outcome(bad.clone()).await;
        assert!(matches!(refused, Err(OpenError::Connect { .. })), "{bad}");
    }
}

/// Writes `value` under `name`.
async fn write(transaction: &mut Transaction, name: &str) -> Result<(), gantry_store::Error> {
    let write = transaction.statement(&WRITE).bind(name).bind(1);
    write.execute().await.map(drop)
}

/// Goal: of transactions that wait for each other one goes on, and the other is told to come again.
/// Method: two that change two rows crosswise; wait for both.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_in_each_others_way_one_goes_on() {
    let Some(server) = gantry_harness::postgres::shared().await else {
        return;
    };
    let config = Config {
        busy_timeout: SOON,
        statement_timeout: SOON,
        ..at(&server.schema())
    };
    let database = Database::open(&config, STEPS).await.unwrap();
    let insert = database.statement(&INSERT).bind("b").bind(0);
    insert.execute().await.unwrap();
    let mut one = database.begin("test.one").await.unwrap();
    let mut other = database.begin("test.other").await.unwrap();
    write(&mut one, "a").await.unwrap();
    write(&mut other, "b").await.unwrap();
    let crosswise = async {
        let ends = tokio::join!(
            async {
                let outcome = write(&mut one, "b").await;
                (outcome, one.commit().await)
            },
            async {
                let outcome = write(&mut other, "a").await;
                (outcome, other.commit().await)
            }
        );
        [ends.0, ends.1]
    };
    let ends = time::timeout(SOON, crosswise).await.unwrap();
    let (good, bad): (Vec<_>, Vec<_>) = ends.into_iter().partition(|end| end.0.is_ok());
    assert_eq!((1, 1), (good.len(), bad.len()));
    assert!(good[0].1.is_ok());
    assert_eq!(Kind::Busy, bad[0].0.as_ref().unwrap_err().kind());
    // What failed is not committed by halves.
    assert!(bad[0].1.is_err());
}

/// Goal: what a caller gave up does not go on at the server.
/// Method: a statement without end is cut; ask the server what it does.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_ends_at_the_server_too() {
    const ACTIVE: Statement = Statement::new(
        "test.active",
        "SELECT COUNT(*) AS active FROM pg_stat_activity
         WHERE state = 'active' AND query LIKE '%pg_sleep(3600)%' AND pid <> pg_backend_pid()",
    );
    let Some(server) = gantry_harness::postgres::shared().await else {
        return;
    };
    let config = Config {
        statement_timeout: Duration::from_millis(300),
        ..at(&server.schema())
    };
    let database = Database::open(&config, STEPS).await.unwrap();
    let slow = database.statement(&SLEEP).fetch_one().await;
    assert_eq!(Kind::TimedOut, slow.unwrap_err().kind());
    let left = time::timeout(
        Duration::from_millis(50),
        database.statement(&SLEEP).fetch_one(),
    );
    assert!(left.await.is_err());
    wait::until("the server to be done", SOON, async || {
        let row = database.statement(&ACTIVE).fetch_one().await.ok()?;
        (row.integer("active").unwrap() == 0).then_some(())
    })
    .await;
}
