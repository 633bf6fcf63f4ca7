//! What a service tells of its events while something is wrong with its broker, a real RabbitMQ or the
//! local one: by its log, its metrics and its side port. Nothing is lost meanwhile, and nothing is tried
//! without pauses.

mod local;
mod stand;
mod trace;

use gantry_api::admin::v1::{
    BrokerConnection, EventOutbox, EventRefusal, broker_connection::State,
};
use gantry_harness::{
    rabbitmq::{PASSWORD, RabbitMq, USER},
    wait::{self, SOON},
};

use stand::{AnotherGroup, GROUP, Ledger, Reached};

/// A service that publishes alone.
const PUBLISHES: &[(&str, &str)] = &[("LEDGER__CONSUMES", "false")];
/// One that consumes alone.
const CONSUMES: &[(&str, &str)] = &[("LEDGER__PUBLISHES", "false")];

async fn outbox(ledger: &Ledger) -> EventOutbox {
    ledger.events().await.outbox.expect("it has an outbox")
}

async fn connection(ledger: &Ledger, purpose: &str) -> BrokerConnection {
    let shown = ledger.events().await;
    let connections = shown.broker.expect("it has a broker").connections;
    let mut connections = connections.into_iter();
    let found = connections.find(|it| it.purpose == purpose);
    found.expect("it is reached so")
}

/// Waits until a way to the broker is as wanted.
async fn becomes(ledger: &Ledger, purpose: &str, state: State) -> BrokerConnection {
    wait::until("a connection to change", SOON, async || {
        let connection = connection(ledger, purpose).await;
        (connection.state() == state).then_some(connection)
    })
    .await
}

/// Waits until the service has its queues.
async fn has_queues(ledger: &Ledger) {
    wait::until("a consumer", SOON, async || {
        let shown = ledger.events().await;
        (shown.consumers.first()?.partitions.len() == 2).then_some(())
    })
    .await;
}

/// Goal: an event that nobody wants waits, is named, and goes on once somebody does.
/// Method: publish without any group; then start who consumes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unroutable() {
    let Some(server) = RabbitMq::start().await else {
        return;
    };
    unwanted(&server).await;
}

/// Publishes what nobody wants, until somebody does.
async fn unwanted(server: &impl Reached) {
    let ledger = Ledger::start(server, PUBLISHES).await;
    for _ in 0..5 {
        ledger.post().await;
    }
    ledger.says("unroutable", EventRefusal::Unroutable, 1).await;
    let outbox = outbox(&ledger).await;
    let [waits] = &*outbox.waits else {
        panic!("{outbox:?}");
    };
    assert_eq!("delivery.v1.Credited", waits.topic);
    assert_eq!(5, waits.keys, "{outbox:?}");
    let consumer = Ledger::start(server, CONSUMES).await;
    consumer.applies(&ledger).await;
}

/// Has queues take nothing beyond a bound, publishes to them while nobody consumes, and has somebody
/// consume.
async fn refused_beyond(policy: &str) {
    let Some(server) = RabbitMq::start().await else {
        return;
    };
    // Makes the queues.
    let consumer = Ledger::start(&server, CONSUMES).await;
    has_queues(&consumer).await;
    drop(consumer);
    server.must(&[
        "set_policy",
        "bound",
        "^ledger",
        policy,
        "--apply-to",
        "queues",
    ]);
    let ledger = refused(&server).await;
    server.must(&["clear_policy", "bound"]);
    let consumer = Ledger::start(&server, CONSUMES).await;
    consumer.applies(&ledger).await;
}

/// Publishes to queues that do not take all of it, and sees what is said.
async fn refused(server: &impl Reached) -> Ledger {
    let ledger = Ledger::start(server, PUBLISHES).await;
    for _ in 0..20 {
        ledger.post().await;
    }
    ledger.says("refused", EventRefusal::Refused, 20).await;
    let outbox = outbox(&ledger).await;
    let keys: u32 = outbox.waits.iter().map(|waits| waits.keys).sum();
    assert!((1..20).contains(&keys), "{outbox:?}");
    ledger
}

/// Goal: what a full queue does not take waits, is named, and goes on once there is room.
/// Method: queues of two messages, and nobody who consumes; then somebody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_full() {
    refused_beyond(r#"{"max-length":2}"#).await;
}

/// Goal: the same where messages are nacked that a queue cannot keep, however few they are.
/// Method: queues that may have no byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nacked() {
    refused_beyond(r#"{"max-length-bytes":1}"#).await;
}

/// Goal: a broker that takes nothing is named, also by what was on its way, and all goes on once it does.
/// Method: raise its alarm, publish, and let it go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocked() {
    let Some(server) = RabbitMq::start().await else {
        return;
    };
    let ledger = Ledger::start(&server, &[]).await;
    ledger.post().await;
    ledger.applies(&ledger).await;
    server.block(true);
    for _ in 0..5 {
        ledger.post().await;
    }
    ledger.says("blocked", EventRefusal::Blocked, 1).await;
    let labels = [("outcome", "timed_out")];
    let timed_out = ledger.metric("gantry_events_published_total", &labels);
    assert!(timed_out.await < 0.5, "it is known to be blocked");
    let shown = becomes(&ledger, "publishing", State::Blocked).await;
    assert!(shown.error.contains("memory"), "{shown:?}");
    assert!(shown.state_time.is_some());
    assert_eq!(1, ledger.lines("the broker takes nothing", &[]));
    server.block(false);
    ledger.applies(&ledger).await;
    becomes(&ledger, "publishing", State::Connected).await;
    assert_eq!(1, ledger.lines("the broker takes messages again", &[]));
    assert_eq!(1, ledger.lines("events wait no more", &["blocked"]));
}

/// Goal: a queue that is deleted under its consumer is named, and made again; what is published
/// meanwhile arrives, though another group takes it as well.
/// Method: delete one of two, and publish.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_deleted() {
    let Some(server) = RabbitMq::start().await else {
        return;
    };
    let another = AnotherGroup::of(&server).await;
    let ledger = Ledger::start(&server, &[]).await;
    // With another group there, nothing waits for one that is late.
    has_queues(&ledger).await;
    ledger.post().await;
    ledger.applies(&ledger).await;
    server.delete_queue(&format!("{GROUP}.0"));
    for _ in 0..10 {
        ledger.post().await;
    }
    ledger.applies(&ledger).await;
    let journal = ledger.journal().await;
    for told in ["held up, missing", "held up no more, missing"] {
        let told: Vec<_> = journal.iter().filter(|it| it.contains(told)).collect();
        assert_eq!(1, told.len(), "{journal:?}");
    }
    let missing = ["\"reason\":\"missing\"", GROUP];
    assert_eq!(
        1,
        ledger.lines("a consumer is held up; it tries again", &missing)
    );
    let labels = [
        ("reason", "missing"),
        ("messaging_consumer_group_name", GROUP),
    ];
    let met = ledger.metric("gantry_events_consumer_failures_total", &labels);
    let met = met.await;
    assert!((1.0..=3.0).contains(&met), "met {met} times");
    assert!(ledger.events().await.consumers[0].troubles.is_empty());
    another.has(ledger.posted()).await;
}

/// Goal: what is published while a queue is gone that nobody makes again, is kept though another group takes
/// it, is shown, and has its effect once somebody consumes.
/// Method: end who consumes, delete one of two, and publish; then start who consumes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_deleted_while_nobody_consumes() {
    let Some(server) = RabbitMq::start().await else {
        return;
    };
    let another = AnotherGroup::of(&server).await;
    let consumer = Ledger::start(&server, CONSUMES).await;
    has_queues(&consumer).await;
    drop(consumer);
    server.delete_queue(&format!("{GROUP}.0"));
    let ledger = Ledger::start(&server, PUBLISHES).await;
    for _ in 0..20 {
        ledger.post().await;
    }
    another.has(20).await;
    let strays = another.strays_of(GROUP).await;
    assert!((1..20).contains(&strays), "{strays}");
    let consumer = Ledger::start(&server, CONSUMES).await;
    consumer.applies(&ledger).await;
    assert_eq!(0, another.strays_of(GROUP).await);
    let moved = "events whose queue was gone are there";
    wait::until("that they were moved to be told", SOON, async || {
        (consumer.lines(moved, &[GROUP]) == 1).then_some(())
    })
    .await;
    // Those that come now go the usual way.
    for _ in 0..20 {
        ledger.post().await;
    }
    consumer.applies(&ledger).await;
    assert_eq!(1, consumer.lines(moved, &[GROUP]));
}

/// Goal: a broker that does not let us in is named, and is asked after growing pauses; once it does, all
/// goes on.
/// Method: change the password under a running service and cut its connections; change it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_wrong() {
    let Some(server) = RabbitMq::start().await else {
        return;
    };
    let ledger = Ledger::start(&server, &[]).await;
    ledger.post().await;
    ledger.applies(&ledger).await;
    server.must(&["change_password", USER, "another"]);
    server.must(&["close_all_connections", "test"]);
    for _ in 0..5 {
        ledger.post().await;
    }
    ledger.says("denied", EventRefusal::Denied, 1).await;
    let publishing = becomes(&ledger, "publishing", State::Denied).await;
    assert!(publishing.error.contains("refuses us"), "{publishing:?}");
    let consuming = becomes(&ledger, "consuming", State::Denied).await;
    let before = publishing.attempts + consuming.attempts;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let attempts = async || {
        let publishing = connection(&ledger, "publishing").await.attempts;
        publishing + connection(&ledger, "consuming").await.attempts
    };
    assert!(attempts().await - before <= 20, "it does not pause");
    for connection in ["gantry publishing", "gantry consuming"] {
        let lines = ledger.lines("no connection to the broker", &[connection]);
        // Once that it is gone, and once that it is another setting that is to be looked at.
        assert!(
            (1..=2).contains(&lines),
            "{connection}: {}",
            ledger.output()
        );
    }
    let consumer = ledger.events().await.consumers.remove(0);
    assert!(
        consumer.troubles.iter().any(|it| it.reason == "denied"),
        "{consumer:?}"
    );
    server.must(&["change_password", USER, PASSWORD]);
    ledger.applies(&ledger).await;
    becomes(&ledger, "publishing", State::Connected).await;
    let over = ledger.lines("events wait no more", &["denied"]);
    assert_eq!(1, over, "{}", ledger.output());
    let page = ledger.journal().await.join("\n");
    assert!(!page.contains(PASSWORD), "{page}");
}
