//! What holds for the calls of a method, changed while they are made.

use gantry_api::admin::v1::{
    WatchJournalRequest, admin_service_client::AdminServiceClient, watch_journal_response::Event,
};
use gantry_harness::{
    process::Service,
    wait::{self, SOON},
};
use gantry_probe::{
    HangRequest, HangResponse, OnceRequest, WaitRequest, probe_service_client::ProbeServiceClient,
};
use tokio::time::Instant;
use tonic::{Code, Streaming, transport::Channel};

use crate::support::{Callers, effect_max, ended, plain, probe};

const FILE: &str = "config/own.toml";

/// How long a call takes of those that never stop: eight at a time are 200 a second.
const PAUSE: u32 = 40;

/// What one version of the file says of one method.
struct Version {
    method: &'static str,
    says: &'static str,
    /// What becomes of calls that tell.
    tells: fn(&Told) -> bool,
}

/// What calls tell of the policies in force.
#[derive(Debug)]
struct Told {
    /// How a call ended that takes 200 ms.
    once: Code,
    /// How a second stream began, while one is open.
    second: Code,
}

impl Told {
    async fn by(client: &mut ProbeServiceClient<Channel>) -> Self {
        let request = OnceRequest {
            id: "policy".to_owned(),
            millis: 200,
            payload: Vec::new(),
        };
        let once = client.once(request).await;
        let second = stream(client).await;
        Self {
            once: once.map_or_else(|status| status.code(), |_| Code::Ok),
            second: second.map_or_else(|code| code, |_| Code::Ok),
        }
    }
}

async fn stream(client: &mut ProbeServiceClient<Channel>) -> Result<Streaming<HangResponse>, Code> {
    let request = HangRequest {
        messages: 1,
        hops: 0,
    };
    let stream = client.hang(request).await.map_err(|it| it.code())?;
    let mut stream = stream.into_inner();
    let answer = stream.message().await;
    answer.map_err(|it| it.code())?;
    Ok(stream)
}

/// Versions; each takes back what the one before it said.
const VERSIONS: [Version; 12] = [
    Version {
        method: "Once",
        says: "timeout = '50ms'",
        tells: |told| told.once == Code::DeadlineExceeded,
    },
    Version {
        method: "Once",
        says: "timeout = '20s'",
        tells: |told| told.once == Code::Ok,
    },
    Version {
        method: "Hang",
        says: "concurrency.calls_max = 1",
        tells: |told| told.second == Code::Unavailable,
    },
    Version {
        method: "Hang",
        says: "concurrency.calls_max = 2",
        tells: |told| told.second == Code::Ok,
    },
    Version {
        method: "Once",
        says: "fault = { fail_percent = 100, code = 'DATA_LOSS' }",
        tells: |told| told.once == Code::DataLoss,
    },
    Version {
        method: "Once",
        says: "fault = { fail_percent = 0 }",
        tells: |told| told.once == Code::Ok,
    },
    Version {
        method: "Hang",
        says: "timeout = '50ms'\nfault = { drop_percent = 100 }",
        tells: |told| told.second == Code::DeadlineExceeded,
    },
    Version {
        method: "Hang",
        says: "concurrency = { calls_max = 1, shares.critical = 0 }",
        tells: |told| told.second == Code::Unavailable,
    },
    Version {
        method: "Hang",
        says: "concurrency.calls_max = 0",
        tells: |told| told.second == Code::Ok,
    },
    Version {
        method: "Once",
        says: "rate = ['1/1h per address']",
        tells: |told| told.once == Code::ResourceExhausted,
    },
    Version {
        method: "Once",
        says: "rate = ['1000/1s']",
        tells: |told| told.once == Code::Ok,
    },
    Version {
        method: "Once",
        says: "timeout = '60ms'",
        tells: |told| told.once == Code::DeadlineExceeded,
    },
];

impl Version {
    /// The file, version `number`. All methods have another policy each time.
    fn file(&self, number: usize) -> String {
        format!(
            "[policies.\"probe.v1.ProbeService/*\"]\n\
             timeout = \"{}s\"\n\
             concurrency.calls_max = {}\n\
             [policies.\"probe.v1.ProbeService/{}\"]\n{}\n",
            60 + number,
            1_000 + number,
            self.method,
            self.says
        )
    }
}

/// Puts `text` in the place of the file: a part of it is no version.
fn write(service: &Service, text: &str) {
    let next = service.folder().join("next");
    std::fs::write(&next, text).expect("write the configuration");
    std::fs::rename(next, service.folder().join(FILE)).expect("replace the configuration");
}

async fn started() -> Service {
    let builder = probe().file(FILE, "").argument("--config").argument(FILE);
    builder.start().await
}

/// Calls of the probe, 200 a second.
fn callers(client: &ProbeServiceClient<Channel>) -> Callers {
    let client = client.clone();
    Callers::of(move || {
        let mut client = client.clone();
        async move {
            let request = WaitRequest {
                millis: PAUSE,
                ..WaitRequest::default()
            };
            client.wait(request).await.map(drop)
        }
    })
}

/// Waits until calls tell what `version` says, and how long that took from `changed` to when the
/// first of them was made.
async fn in_force(client: &mut ProbeServiceClient<Channel>, version: &Version) {
    let what = format!("{} of {}", version.says, version.method);
    let changed = Instant::now();
    let took = wait::until(&what, SOON, async || {
        let begun = Instant::now();
        let told = Told::by(client).await;
        (version.tells)(&told).then(|| begun - changed)
    })
    .await;
    assert!(took < effect_max(), "{what}: {took:?}");
}

/// Goal: a change of a policy is in force within a second, and costs none of the calls in flight and
/// none that come.
/// Method: 200 calls a second whose own policy changes with each version of the file; calls and streams
/// beside them tell what holds.
#[tokio::test(flavor = "multi_thread")]
async fn policies_change_under_load() {
    let service = started().await;
    let mut client = ProbeServiceClient::new(plain(service.address).await);
    let callers = callers(&client);
    let open = stream(&mut client).await.expect("a stream");
    for (number, version) in VERSIONS.iter().enumerate() {
        write(&service, &version.file(number));
        in_force(&mut client, version).await;
    }
    drop(open);
    callers.end().await;
    let ended = ended(&service, "probe.v1.ProbeService/Wait").await;
    assert_eq!(vec!["OK"], ended.keys().collect::<Vec<_>>(), "{ended:?}");
}

/// What the journal says of files that were refused.
async fn refusals(service: &Service) -> Vec<String> {
    let mut admin = AdminServiceClient::new(plain(service.side_address).await);
    let kept = WatchJournalRequest {
        kept_only: true,
        ..WatchJournalRequest::default()
    };
    let entries = admin.watch_journal(kept).await.expect("a journal");
    let mut entries = entries.into_inner();
    let mut refusals = Vec::new();
    while let Some(message) = entries.message().await.expect("an entry") {
        if let Some(Event::Entry(entry)) = message.event
            && entry.kind == "config_refused"
        {
            refusals.push(entry.detail);
        }
    }
    refusals
}

/// Goal: a policy that cannot be changes nothing, and log, journal and metrics tell of it, with the
/// line and the reason.
/// Method: wrong in three ways under load, each with a change beside it that is right by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_cannot_be_changes_nothing() {
    let service = started().await;
    let mut client = ProbeServiceClient::new(plain(service.address).await);
    let callers = callers(&client);
    let version = &VERSIONS[0];
    write(&service, &version.file(0));
    in_force(&mut client, version).await;
    let wrong = [
        ("timeout = 'soon'", "soon"),
        ("timout = '2s'", "timeout"),
        (
            "timeout = '1s'\nretry.attempt_timeout = '2s'",
            "no attempt outlasts its call",
        ),
    ];
    for (number, (says, reason)) in wrong.iter().enumerate() {
        let right = "[policies.\"probe.v1.ProbeService/Once\"]\ntimeout = '20s'\n";
        write(
            &service,
            &format!("{right}[policies.\"probe.v1.ProbeService/Wait\"]\n{says}\n"),
        );
        let line = 3 + says.lines().count();
        let place = format!("own.toml:{line}");
        let names = |text: &str| {
            let mut lines = text.lines();
            lines.any(|it| it.contains(&place) && it.contains(reason))
        };
        let refused = format!(
            "\ngantry_config_reloads_total{{outcome=\"refused\"}} {}\n",
            number + 1
        );
        let what = format!("{says} to be told of in three places");
        wait::until(&what, effect_max(), async || {
            let journal = refusals(&service).await;
            let journal = journal.last().is_some_and(|it| names(it));
            let metrics = service.get("/metrics").await?;
            let all = journal && names(&service.output()) && metrics.contains(&refused);
            all.then_some(())
        })
        .await;
        assert_eq!(number + 1, refusals(&service).await.len());
        let told = Told::by(&mut client).await;
        assert!((version.tells)(&told), "{says}: {told:?}");
    }
    callers.end().await;
}
