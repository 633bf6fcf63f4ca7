//! Calls of all four kinds: what bounds, ends, judges and counts one does so to its very end.

use std::{collections::BTreeMap, time::Duration};

use gantry::{
    client::{Channel, Clients, Config},
    config::Live,
    journal::Journal,
    policy::{Policies, Policy},
    retry,
    shutdown::Tasks,
};
use gantry_harness::{
    process::Service,
    tools,
    wait::{self, SOON},
};
use gantry_probe::{
    CountRequest, EchoRequest, GatherRequest, HangRequest, WaitRequest,
    probe_service_client::ProbeServiceClient,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{self, Instant},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::support::{ended, probe};

/// How long a call may take where that is bounded.
const TIMEOUT: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unary,
    ServerStream,
    ClientStream,
    BothStream,
}

const KINDS: [Kind; 4] = [
    Kind::Unary,
    Kind::ServerStream,
    Kind::ClientStream,
    Kind::BothStream,
];

/// A call that goes on until it is ended.
#[derive(Debug)]
struct Running {
    /// Until it has sent all it sends.
    sending: Option<mpsc::Sender<()>>,
    /// The answer has begun, where it can before all is sent.
    answering: CancellationToken,
    call: JoinSet<Result<(), Status>>,
}

type Client = ProbeServiceClient<Channel>;

impl Kind {
    fn method(self) -> &'static str {
        match self {
            Self::Unary => "probe.v1.ProbeService/Wait",
            Self::ServerStream => "probe.v1.ProbeService/Hang",
            Self::ClientStream => "probe.v1.ProbeService/Gather",
            Self::BothStream => "probe.v1.ProbeService/Echo",
        }
    }

    /// Whether the answer begins while the call goes on.
    fn answers_early(self) -> bool {
        matches!(self, Self::ServerStream | Self::BothStream)
    }

    /// Whether the call ends well once its caller has sent all; others are dropped.
    fn ends_when_sent(self) -> bool {
        matches!(self, Self::ClientStream | Self::BothStream)
    }

    /// Begins a call that goes on.
    fn begin(self, client: &Client) -> Running {
        let (sending, sent) = mpsc::channel(1);
        let answering = CancellationToken::new();
        let mut call = JoinSet::new();
        call.spawn(self.call(client.clone(), sent, answering.clone()));
        Running {
            sending: Some(sending),
            answering,
            call,
        }
    }

    /// A call to its end: a message, and then one for each of `sent`.
    async fn call(
        self,
        mut client: Client,
        sent: mpsc::Receiver<()>,
        answering: CancellationToken,
    ) -> Result<(), Status> {
        let sent = tokio_stream::once(()).chain(ReceiverStream::new(sent));
        match self {
            Self::Unary => {
                let request = WaitRequest {
                    millis: 600_000,
                    ..WaitRequest::default()
                };
                client.wait(request).await.map(drop)
            }
            Self::ServerStream => {
                let request = HangRequest {
                    messages: 2,
                    hops: 0,
                };
                let mut answers = client.hang(request).await?.into_inner();
                while answers.message().await?.is_some() {
                    answering.cancel();
                }
                Ok(())
            }
            Self::ClientStream => {
                let sent = sent.map(|()| GatherRequest {});
                client.gather(sent).await.map(drop)
            }
            Self::BothStream => {
                let sent = sent.map(|()| EchoRequest::default());
                let mut answers = client.echo(sent).await?.into_inner();
                while answers.message().await?.is_some() {
                    answering.cancel();
                }
                Ok(())
            }
        }
    }

    /// A call that is over as soon as it has begun to be answered.
    async fn short(self, client: &Client) -> Result<(), Status> {
        let mut client = client.clone();
        match self {
            Self::Unary => client.wait(WaitRequest::default()).await.map(drop),
            Self::ServerStream => {
                let request = HangRequest {
                    messages: 1,
                    hops: 0,
                };
                let mut answers = client.hang(request).await?.into_inner();
                answers.message().await.map(drop)
            }
            Self::ClientStream | Self::BothStream => {
                let (_, none) = mpsc::channel(1);
                self.call(client, none, CancellationToken::new()).await
            }
        }
    }
}

impl Running {
    /// How it ended.
    async fn ended(&mut self) -> Result<(), Status> {
        let ended = self.call.join_next().await.expect("one call");
        ended.expect("no panic")
    }

    fn goes_on(&mut self) -> bool {
        self.call.try_join_next().is_none()
    }
}

/// A probe with these settings.
async fn served(settings: &str) -> Service {
    let file = "config/own.toml";
    let builder = probe().file(file, settings);
    builder.argument("--config").argument(file).start().await
}

/// How the target is called: each call once, and not fewer for those that failed.
fn config(service: &Service) -> Config {
    let mut config = Config::to(service.address.to_string());
    config.timeout_default = Duration::from_mins(5);
    config.throttle.enabled = false;
    config
}

fn clients(config: Config, timeout: Duration) -> Clients {
    let configs = BTreeMap::from([("probe".to_owned(), config)]);
    let journal = Journal::new();
    let policy = Policy {
        timeout,
        retry: retry::Config {
            attempts_max: 1,
            ..retry::Config::default()
        },
        ..Policy::default()
    };
    let policies = BTreeMap::from([("*".to_owned(), policy)]);
    let clients = Clients::new(configs, Tasks::new(journal.clone()), journal);
    clients.with_policies(Policies::new(&Live::fixed(policies)))
}

fn client(config: Config) -> Client {
    clients(config, Duration::ZERO).client("probe")
}

/// While one call goes on, a second one is refused; when it is over, that is not.
async fn held_to_one(kind: Kind, client: &Client) {
    let what = format!("{kind:?}: a call to take the only place");
    let mut first = kind.begin(client);
    let refused = wait::until(&what, SOON, async || {
        let refused = kind.short(client).await.err();
        if first.goes_on() {
            return refused;
        }
        // The other came first.
        first = kind.begin(client);
        None
    })
    .await;
    assert_eq!(Code::Unavailable, refused.code(), "{kind:?}: {refused:?}");
    let pushback = refused.metadata().get("grpc-retry-pushback-ms");
    assert!(pushback.is_some(), "{kind:?}: {refused:?}");
    if kind.answers_early() {
        first.answering.cancelled().await;
        let refused = kind.short(client).await;
        assert!(refused.is_err(), "{kind:?}: it is answered and not over");
    }
    assert!(first.goes_on(), "{kind:?}");
    if kind.ends_when_sent() {
        first.sending = None;
        first.ended().await.expect("it ends well");
    } else {
        drop(first);
    }
    let what = format!("{kind:?}: its place to be free");
    wait::until(&what, SOON, async || kind.short(client).await.ok()).await;
}

/// Goal: who bounds how many calls are in flight counts each to the end of its stream: the limit of a
/// method, of the process, and of what one target is asked.
/// Method: one may be; of each kind one goes on, answered where it can be, and a second one comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_held_to_the_end() {
    let method = "[policies.\"probe.v1.ProbeService/*\".concurrency]\ncalls_max = 1\n";
    let process = "[concurrency]\ncalls_max = 1\n";
    for settings in [method, process] {
        let service = served(settings).await;
        for kind in KINDS {
            held_to_one(kind, &client(config(&service))).await;
        }
    }
    let service = served("").await;
    let mut one = config(&service);
    one.bulkhead.calls_max = 1;
    for kind in KINDS {
        held_to_one(kind, &client(one.clone())).await;
    }
}

/// Goal: a quota counts a call of any kind once, when it begins, however long it goes on and however many
/// messages it has; who has spent it is told when to come back.
/// Method: two calls an hour of each method; one that goes on, a second beside it, and a third.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_counts_a_call_once() {
    let quota = |kind: Kind| {
        let method = kind.method();
        format!("[policies.\"{method}\"]\nrate = [\"2/1h per address\"]\n")
    };
    let service = served(&KINDS.map(quota).concat()).await;
    let client = client(config(&service));
    for kind in KINDS {
        let mut first = kind.begin(&client);
        if kind.answers_early() {
            first.answering.cancelled().await;
        }
        if let Some(sending) = first.sending.as_ref().filter(|_| kind.ends_when_sent()) {
            for _ in 0..3 {
                sending.send(()).await.expect("it goes on");
            }
        }
        let second = kind.short(&client).await;
        second.unwrap_or_else(|status| panic!("{kind:?}: {status:?}"));
        wait_for_begun(&service, kind).await;
        let third = kind.short(&client).await.expect_err("a third call");
        assert_eq!(Code::ResourceExhausted, third.code(), "{kind:?}: {third:?}");
        let pushback = third.metadata().get("grpc-retry-pushback-ms");
        let pushback = pushback.and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
        let hour = 3_600_000;
        assert!(
            pushback.is_some_and(|it| it > 0 && it <= hour),
            "{kind:?}: {third:?}"
        );
        assert!(first.goes_on(), "{kind:?}");
    }
}

/// Waits until two calls of its method have begun to be served.
async fn wait_for_begun(service: &Service, kind: Kind) {
    let method = kind.method();
    let begun = format!("\ngrpc_server_call_started_total{{grpc_method=\"{method}\"}} 2\n");
    let what = format!("{kind:?}: two calls");
    wait::until(&what, SOON, async || {
        let metrics = service.get("/metrics").await?;
        metrics.contains(&begun).then_some(())
    })
    .await;
}

/// A call that goes on is ended after `TIMEOUT`.
async fn cut(kind: Kind, client: &Client) {
    let begun = Instant::now();
    let mut call = kind.begin(client);
    let ended = time::timeout(SOON, call.ended()).await.expect("it ends");
    let took = begun.elapsed();
    let status = ended.expect_err("it does not end by itself");
    assert_eq!(
        Code::DeadlineExceeded,
        status.code(),
        "{kind:?}: {status:?}"
    );
    let answering = call.answering.is_cancelled();
    assert!(answering || !kind.answers_early(), "{kind:?}: unanswered");
    assert!(took >= TIMEOUT, "{kind:?}: {took:?}");
    let in_time = took < TIMEOUT + Duration::from_millis(50);
    assert!(!tools::timed() || in_time, "{kind:?}: {took:?}");
}

/// Goal: a timeout ends a call that goes on, whichever end knows of it, and its handler.
/// Method: a policy where calls are served, then one where they are made; callers who set no deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_a_call_that_goes_on() {
    let settings = "[policies.\"probe.v1.ProbeService/*\"]\ntimeout = \"300ms\"\n";
    let service = served(settings).await;
    for kind in KINDS {
        cut(kind, &client(config(&service))).await;
        let ended = ended(&service, kind.method()).await;
        let one = BTreeMap::from([("DEADLINE_EXCEEDED".to_owned(), 1)]);
        assert_eq!(one, ended, "{kind:?}");
    }
    all_dropped(&service).await;
    let service = served("").await;
    for kind in KINDS {
        let clients = clients(config(&service), TIMEOUT);
        cut(kind, &clients.client("probe")).await;
    }
    all_dropped(&service).await;
}

/// Waits until nothing is done any more for one call of each kind.
async fn all_dropped(service: &Service) {
    let mut counter = client(config(service));
    wait::until("handlers to be dropped", SOON, async || {
        let counts = counter.count(CountRequest {}).await.expect("counts");
        let counts = counts.into_inner();
        assert_eq!(0, counts.finished, "{counts:?}");
        (counts.dropped == KINDS.len() as u64).then_some(())
    })
    .await;
}

/// Goal: five calls in a row that fail open the breaker of their endpoint, also where that shows only
/// after the head of an answer.
/// Method: calls that fail, and calls whose answers break off.
#[tokio::test(flavor = "multi_thread")]
async fn failures_open_the_breaker() {
    for fault in ["fail_percent = 100", "abort_percent = 100"] {
        let settings = format!("[policies.\"probe.v1.ProbeService/*\".fault]\n{fault}\n");
        let service = served(&settings).await;
        for kind in KINDS {
            let clients = clients(config(&service), Duration::ZERO);
            let client: Client = clients.client("probe");
            for number in 0..5 {
                assert!(!is_shut(&clients), "{kind:?}, {fault}: after {number}");
                let failed = kind.short(&client).await;
                failed.expect_err("every call fails");
            }
            assert!(is_shut(&clients), "{kind:?}, {fault}");
        }
    }
}

fn is_shut(clients: &Clients) -> bool {
    let states = clients.states();
    let mut endpoints = states.iter().flat_map(|state| &state.endpoints);
    endpoints.any(|endpoint| endpoint.breaker.is_shut())
}

/// Goal: a call of many messages is one call to those who count.
/// Method: one of each kind that ends well, and what the service says of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_counts_once() {
    let service = served("").await;
    let client = client(config(&service));
    for kind in KINDS {
        match kind {
            Kind::Unary => kind.short(&client).await.expect("it ends well"),
            // It never ends well: whoever has enough goes away.
            Kind::ServerStream => {
                let first = kind.begin(&client);
                first.answering.cancelled().await;
                drop(first);
            }
            Kind::ClientStream | Kind::BothStream => {
                let mut call = kind.begin(&client);
                let sending = call.sending.take().expect("it goes on");
                for _ in 0..3 {
                    sending.send(()).await.expect("it goes on");
                }
                drop(sending);
                call.ended().await.expect("it ends well");
            }
        }
        let code = match kind {
            Kind::ServerStream => "CANCELLED",
            _ => "OK",
        };
        let one = BTreeMap::from([(code.to_owned(), 1)]);
        let what = format!("{kind:?} to be counted");
        wait::until(&what, SOON, async || {
            let ended = ended(&service, kind.method()).await;
            assert!(ended.values().sum::<u64>() <= 1, "{ended:?}");
            (ended == one).then_some(())
        })
        .await;
        let metrics = service.get("/metrics").await.expect("metrics");
        let started = format!(
            "\ngrpc_server_call_started_total{{grpc_method=\"{}\"}} 1\n",
            kind.method()
        );
        assert!(metrics.contains(&started), "{metrics}");
    }
}
