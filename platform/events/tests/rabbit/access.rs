//! Who may, who is believed, and what is done where nobody answers.

use std::{cell::Cell, path::PathBuf, sync::Arc, time::Duration};

use gantry::{client::Tls, config::Secret, journal::Journal, status::chain};
use gantry_events::{
    Message,
    broker::{Broker, BrokerError, Group, Headers, PublishError},
};
use gantry_harness::{
    authority::Authority,
    rabbitmq::{self, PASSWORD, RabbitMq, USER},
    slow::Slow,
    wait::{self, SOON},
};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpListener,
    time::{self, Instant},
};

use crate::stand::{config, connect};

/// The broker at `url` for whoever may do all.
fn rabbit(url: &str) -> Arc<dyn Broker> {
    connect(config(url), &Journal::new())
}

/// The same for somebody.
fn rabbit_of(url: &str, user: &str, password: &str) -> Arc<dyn Broker> {
    let mut config = config(url);
    config.user = Some(user.to_owned());
    config.password = Secret::new(password);
    connect(config, &Journal::new())
}

fn told(topic: &str) -> Message {
    Message {
        topic: topic.to_owned(),
        key: "a".to_owned(),
        headers: Headers::new(),
        body: "1".into(),
    }
}

fn group(name: &str, topic: &str) -> Group {
    Group {
        name: name.to_owned(),
        partitions: 1,
        topics: vec![topic.to_owned()],
        queue_messages_max: None,
    }
}

/// Goal: whom the broker does not know, or does not let, is told so, and never with a password.
/// Method: a wrong password, a virtual host that is none, and a user who may read alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_is_told() {
    let Some(server) = rabbitmq::shared().await else {
        return;
    };
    let address = server.address();
    let url = format!("amqp://{address}");
    for rabbit in [
        rabbit_of(&url, USER, "hush-hush"),
        rabbit(&format!("{url}/nowhere")),
    ] {
        let error = rabbit.ping().await.unwrap_err();
        assert!(matches!(error, BrokerError::Denied(_)), "{error:?}");
        let published = rabbit.publish(told("access.v1.Told")).await.unwrap_err();
        let shown = format!("{} {rabbit:?} {error:?} {published:?}", chain(&published));
        assert!(shown.contains("refuses us"), "{shown}");
        for secret in ["hush-hush", PASSWORD] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
    server.add_user("reader", "only-reads", ["^$", "^$", ".*"]);
    let reader = rabbit_of(&url, "reader", "only-reads");
    let error = reader
        .declare(&group("access.reader", "access.v1.Told"))
        .await;
    assert!(matches!(error, Err(BrokerError::Denied(_))), "{error:?}");
    let error = reader.publish(told("access.v1.Told")).await.unwrap_err();
    let PublishError::Refused(why) = error else {
        panic!("{error:?}");
    };
    assert!(why.contains("ACCESS_REFUSED"), "{why}");
}

/// Goal: whether a group has what is published from now on is known, also by whoever was not let in before;
/// one whose queues are there, and not all that they are to have, is not there yet.
/// Method: ask with a wrong password, which the server then takes, around two declarations, of which one
/// may not bind its topics at first; then while it is declared over and over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_known_once_they_are_whole() {
    let Some(server) = rabbitmq::shared().await else {
        return;
    };
    let url = format!("amqp://{}", server.address());
    // May make everything, and not read the exchange of events, which binding to it takes.
    let but_events = "^(?!gantry\\.events$).*";
    server.add_user("late", "right", [".*", ".*", but_events]);
    let rabbit = rabbit_of(&url, "late", "put-right");
    let group = group("access.late", "access.v1.Late");
    let denied = rabbit.knows(&group.name).await;
    assert!(matches!(denied, Err(BrokerError::Denied(_))), "{denied:?}");
    server.must(&["change_password", "late", "put-right"]);
    assert!(!rabbit.knows(&group.name).await.unwrap());
    let bound = rabbit.declare(&group).await;
    assert!(matches!(bound, Err(BrokerError::Denied(_))), "{bound:?}");
    rabbit.fill(&group.name).await.unwrap();
    assert!(!rabbit.knows(&group.name).await.unwrap());
    server.must(&["set_permissions", "late", ".*", ".*", ".*"]);
    wait::until("a declaration", SOON, async || {
        rabbit.declare(&group).await.ok()
    })
    .await;
    // Whoever declares reads what is written down, and nobody else sees it meanwhile.
    let done = Cell::new(false);
    let declare = async {
        for _ in 0..30 {
            rabbit.declare(&group).await.unwrap();
        }
        done.set(true);
    };
    let ask = async {
        let mut asked = 0;
        while !done.get() {
            assert!(rabbit.knows(&group.name).await.unwrap(), "{asked}");
            asked += 1;
        }
        assert!(asked > 10, "{asked}");
    };
    tokio::join!(declare, ask);
}

/// Goal: TLS is believed by whoever signed the certificate, and by nothing else.
/// Method: a server with a certificate of one's own; trust its authority, another one, and this machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_believed_by_who_signed_them() {
    let authority = Authority::new("ours");
    let Some(server) = RabbitMq::secured(&authority).await else {
        return;
    };
    let url = server.url();
    let trusting = |ca: PathBuf| {
        let mut config = config(&url);
        config.tls = Some(Tls {
            ca: Some(ca),
            ..Tls::default()
        });
        connect(config, &Journal::new())
    };
    let rabbit_of_ours = trusting(authority.ca());
    let group = group("access.tls", "access.v1.Secured");
    rabbit_of_ours.declare(&group).await.unwrap();
    rabbit_of_ours
        .publish(told("access.v1.Secured"))
        .await
        .unwrap();
    let mut subscription = rabbit_of_ours.subscribe("access.tls", 0, 1).await.unwrap();
    let next = time::timeout(Duration::from_secs(30), subscription.next()).await;
    assert_eq!(b"1".as_slice(), next.unwrap().unwrap().message.body);
    let other = Authority::new("another");
    for wrong in [
        trusting(other.ca()),
        trusting("/nowhere/ca.pem".into()),
        rabbit(&url.replace("amqps", "amqp")),
    ] {
        let error = wrong.ping().await.unwrap_err();
        let shown = chain(&error);
        assert!(matches!(error, BrokerError::Disconnected(_)), "{shown}");
    }
}

/// Goal: a broker that is not there is tried again after pauses, however often somebody asks.
/// Method: ask without a pause for some seconds, and count who comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_tried_without_a_pause() {
    let gone = gantry_harness::process::free_address();
    let way = Slow::to(gone).await;
    let rabbit = rabbit(&format!("amqp://{}", way.address));
    let started = Instant::now();
    let mut asked = 0;
    while started.elapsed() < Duration::from_secs(4) {
        let publish = rabbit.publish(told("access.v1.Told"));
        let (published, pinged) = tokio::join!(publish, rabbit.ping());
        assert!(
            matches!(published, Err(PublishError::Disconnected(_))),
            "{published:?}"
        );
        pinged.unwrap_err();
        // Whoever gives up while a try is on its way makes it no shorter.
        drop(time::timeout(Duration::from_millis(1), rabbit.ping()).await);
        asked += 1;
    }
    // 100 ms, growing by 1.8, for each of two connections.
    assert!(
        way.accepted() <= 24,
        "{} tries, asked {asked} times",
        way.accepted()
    );
}

/// Goal: a broker that takes connections and says nothing is given up, and nothing is left open.
/// Method: something that only listens; ask, and have each of its connections end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_silence() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let rabbit = rabbit(&format!("amqp://{address}"));
    let accepted = async {
        let (mut connection, _) = silent.accept().await.unwrap();
        let started = Instant::now();
        let mut said = Vec::new();
        // All of it: the first words of AMQP, and then its end.
        let read = connection.read_to_end(&mut said);
        time::timeout(Duration::from_secs(20), read)
            .await
            .expect("an end")
            .unwrap();
        assert!(said.starts_with(b"AMQP"), "{said:?}");
        started.elapsed()
    };
    let (error, open) = tokio::join!(rabbit.ping(), accepted);
    let error = error.unwrap_err();
    assert!(matches!(error, BrokerError::TimedOut), "{error:?}");
    assert!(open < Duration::from_secs(10), "open for {open:?}");
}
