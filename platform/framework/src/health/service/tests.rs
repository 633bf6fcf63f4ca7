use std::time::Duration;

use tokio::time;
use tonic::{Code, Streaming};
use tonic_health::pb;

use super::*;
use crate::{
    health::Config,
    journal::Journal,
    status::{PUSHBACK, code_name},
};

const ORDERS: &str = "shop.orders.v1.OrdersService";

/// The client of another implementation, so that the wire is what is tested.
type Client = pb::health_client::HealthClient<health_server::HealthServer<Service>>;

struct Setup {
    health: Health,
    draining: CancellationToken,
    client: Client,
}

fn setup() -> Setup {
    let health = Health::new(Journal::new(), Config::default());
    let draining = CancellationToken::new();
    let service = Service::new(health.clone(), draining.clone());
    Setup {
        health,
        draining,
        client: Client::new(health_server::HealthServer::new(service)),
    }
}

fn asks(service: &str) -> pb::HealthCheckRequest {
    pb::HealthCheckRequest {
        service: service.to_owned(),
    }
}

async fn check(client: &mut Client, service: &str) -> Result<&'static str, Code> {
    let answer = client.check(asks(service)).await;
    let answer = answer.map_err(|status| status.code())?;
    Ok(answer.get_ref().status().as_str_name())
}

type Watch = Streaming<pb::HealthCheckResponse>;

async fn next(watch: &mut Watch) -> &'static str {
    match watch.message().await {
        Ok(Some(answer)) => answer.status().as_str_name(),
        Ok(None) => "END",
        Err(status) => code_name(status.code()),
    }
}

async fn watch_from(client: &mut Client, peer: Option<Peer>) -> Result<Watch, Status> {
    let mut request = Request::new(asks(""));
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    Ok(client.watch(request).await?.into_inner())
}

/// Fails if `watch` says anything within a second of the paused clock.
async fn stays_silent(watch: &mut Watch) {
    let said = time::timeout(Duration::from_secs(1), next(watch)).await;
    assert!(said.is_err(), "{said:?}");
}

/// Goal: `Check` tells the status of what is known and `NOT_FOUND` for what is not.
/// Method: the life of a process, asked at each step for the whole, a service and a stranger.
#[tokio::test]
async fn check_answers_for_what_is_known() {
    let Setup {
        health, mut client, ..
    } = setup();
    let orders = health.service(ORDERS);

    assert_eq!(Ok("NOT_SERVING"), check(&mut client, "").await);
    assert_eq!(Ok("NOT_SERVING"), check(&mut client, ORDERS).await);
    assert_eq!(Err(Code::NotFound), check(&mut client, "nobody").await);

    health.started();
    assert_eq!(Ok("SERVING"), check(&mut client, "").await);
    assert_eq!(Ok("SERVING"), check(&mut client, ORDERS).await);

    orders.unknown("still counting");
    assert_eq!(Ok("UNKNOWN"), check(&mut client, ORDERS).await);
    orders.healthy();

    health.latch();
    orders.healthy();
    assert_eq!(Ok("NOT_SERVING"), check(&mut client, "").await);
    assert_eq!(Ok("NOT_SERVING"), check(&mut client, ORDERS).await);
}

/// Goal: `Watch` tells the status at once and then changes alone.
/// Method: change and change nothing, on the paused clock, so that silence is certain.
#[tokio::test(start_paused = true)]
async fn watch_tells_the_status_and_then_changes_alone() {
    let Setup {
        health, mut client, ..
    } = setup();
    let orders = health.service(ORDERS);
    let mut watch = client.watch(asks(ORDERS)).await.unwrap().into_inner();

    assert_eq!("NOT_SERVING", next(&mut watch).await);
    stays_silent(&mut watch).await;

    health.started();
    assert_eq!("SERVING", next(&mut watch).await);

    // Changes of others, and of nothing.
    health.service("other").unhealthy("for a test");
    orders.healthy();
    stays_silent(&mut watch).await;

    orders.unhealthy("for a test");
    assert_eq!("NOT_SERVING", next(&mut watch).await);
}

/// Goal: watching a stranger says so and goes on, and the stranger may appear.
/// Method: register it while the stream is open.
#[tokio::test(start_paused = true)]
async fn watch_of_a_stranger_stays_open_until_it_appears() {
    let Setup {
        health, mut client, ..
    } = setup();
    health.started();
    let mut watch = client.watch(asks("late")).await.unwrap().into_inner();

    assert_eq!("SERVICE_UNKNOWN", next(&mut watch).await);
    stays_silent(&mut watch).await;
    health.register("late");
    assert_eq!("SERVING", next(&mut watch).await);
}

/// Goal: a drain is told to who watches, and then ends the stream, so that it does not hold the
/// drain back.
/// Method: latch, read, then end.
#[tokio::test(start_paused = true)]
async fn watch_ends_with_the_drain() {
    let Setup {
        health,
        draining,
        mut client,
    } = setup();
    health.started();
    let mut watch = client.watch(asks("")).await.unwrap().into_inner();
    assert_eq!("SERVING", next(&mut watch).await);

    health.latch();
    assert_eq!("NOT_SERVING", next(&mut watch).await);
    stays_silent(&mut watch).await;

    draining.cancel();
    let end = watch.message().await.unwrap_err();
    assert_eq!(Code::Unavailable, end.code());
    assert_eq!(
        "0",
        end.metadata().get(PUSHBACK).unwrap(),
        "at once, elsewhere"
    );
}

/// Goal: a drain without delay is told all the same, before the stream ends.
/// Method: latch and end before the stream is asked again; often, as a fair choice would be a
/// matter of luck.
#[tokio::test(start_paused = true)]
async fn watch_tells_of_a_drain_without_delay() {
    for _ in 0..20 {
        let Setup {
            health,
            draining,
            mut client,
        } = setup();
        health.started();
        let mut watch = client.watch(asks("")).await.unwrap().into_inner();
        assert_eq!("SERVING", next(&mut watch).await);

        health.latch();
        draining.cancel();
        assert_eq!("NOT_SERVING", next(&mut watch).await);
        assert_eq!("UNAVAILABLE", next(&mut watch).await);
    }
}

/// Goal: watches are bounded by connection, so that nobody takes the place of another, and one
/// that ends makes room.
/// Method: fill one connection from the same host as another's, and for callers of this process;
/// then drop one.
#[tokio::test]
async fn watches_are_bounded_by_connection() {
    let Setup { mut client, .. } = setup();
    let greedy = Some(Peer::Tcp(([127, 0, 0, 1], 1_001).into()));
    let other = Some(Peer::Tcp(([127, 0, 0, 1], 1_002).into()));
    for (peer, most) in [
        (greedy, CONNECTION_WATCHERS_MAX),
        (Some(Peer::Memory), PROCESS_WATCHERS_MAX),
    ] {
        let mut open = Vec::new();
        for _ in 0..most {
            open.push(watch_from(&mut client, peer).await.unwrap());
        }
        assert_eq!("NOT_SERVING", next(&mut open[0]).await);

        let refused = watch_from(&mut client, peer).await.unwrap_err();
        assert_eq!(Code::ResourceExhausted, refused.code());
        assert_eq!("1000", refused.metadata().get(PUSHBACK).unwrap());
        let beside = watch_from(&mut client, other).await;
        assert!(beside.is_ok(), "{beside:?}");

        drop(open.pop());
        let again = watch_from(&mut client, peer).await;
        assert!(again.is_ok(), "{again:?}");
    }
}

/// Goal: connections that are done leave nothing behind.
/// Method: watch from many, let go of all.
#[test]
fn done_connections_are_forgotten() {
    let watchers = Arc::new(Watchers::default());
    let places: Vec<_> = (1..100)
        .map(|port| Watchers::admit(&watchers, Some(Peer::Tcp(([127, 0, 0, 1], port).into()))))
        .collect();
    assert_eq!(99, watchers.lock().len());
    drop(places);
    assert_eq!(0, watchers.lock().len());
}

/// Goal: `List` names every service, the whole included.
/// Method: through the contract's own client; the other implementation has no `List`.
#[tokio::test]
async fn list_names_every_service() {
    use gantry_api::health::v1::health_client::HealthClient;

    let health = Health::new(Journal::new(), Config::default());
    health.service(ORDERS).unhealthy("for a test");
    health.register("fine");
    health.started();
    let service = Service::new(health, CancellationToken::new());
    let mut client = HealthClient::new(health_server::HealthServer::new(service));

    let answer = client
        .list(HealthListRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut statuses: Vec<_> = answer
        .statuses
        .iter()
        .map(|(service, answer)| (service.as_str(), answer.status().as_str_name()))
        .collect();
    statuses.sort_unstable();
    let expected = vec![
        ("", "NOT_SERVING"),
        ("fine", "SERVING"),
        (ORDERS, "NOT_SERVING"),
    ];
    assert_eq!(expected, statuses);
}
