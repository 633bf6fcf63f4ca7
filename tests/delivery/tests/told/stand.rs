//! A service that publishes and consumes through a broker, and what it says of itself.

use std::{cell::Cell, sync::Arc, time::Duration};

use gantry::{
    config::{Live, Secret},
    journal::Journal,
    shutdown::Tasks,
};
use gantry_api::admin::v1::{
    EventRefusal, GetEventsRequest, GetEventsResponse, WatchJournalRequest,
    admin_service_client::AdminServiceClient, watch_journal_response::Event,
};
use gantry_delivery::contract::{PostRequest, Trouble, ledger_service_client::LedgerServiceClient};
use gantry_events::broker::{self, Group};
use gantry_harness::{
    broker::Broker,
    process::{self, Builder, Service},
    rabbitmq::{PASSWORD, RabbitMq, USER},
    wait::{self, SOON},
};
use tonic::transport::{Channel, Endpoint};

/// Its one group.
pub(crate) const GROUP: &str = "ledger.effects";

/// Pauses of its relay, in the order of tries: what follows goes on with the last.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_secs(1),
];

/// A running service.
pub(crate) struct Ledger {
    service: Service,
    posted: Cell<u32>,
}

/// A broker, as a service is told of it.
pub(crate) trait Reached {
    fn reached(&self, service: Builder) -> Builder;
}

impl Reached for RabbitMq {
    fn reached(&self, service: Builder) -> Builder {
        let service = service.set("BROKER__URL", self.url());
        service
            .set("BROKER__USER", USER)
            .set("BROKER__PASSWORD", PASSWORD)
    }
}

impl Reached for Broker {
    fn reached(&self, service: Builder) -> Builder {
        match self {
            Self::Local(_) => service.set("BROKER__URL", self.url()),
            Self::Rabbit(rabbit) => rabbit.reached(service),
        }
    }
}

/// A group beside that of the service, which has all that it publishes and is read by nobody.
pub(crate) struct AnotherGroup {
    rabbit: Arc<dyn broker::Broker>,
}

impl AnotherGroup {
    const NAME: &str = "another.effects";

    pub(crate) async fn of(server: &RabbitMq) -> Self {
        let mut config = broker::Config::to(server.url().parse().expect("a URL"));
        config.user = Some(USER.to_owned());
        config.password = Secret::new(PASSWORD);
        let journal = Journal::new();
        let tasks = Tasks::new(journal.clone());
        let rabbit = broker::connect(&Live::fixed(config), &tasks, &journal);
        let group = Group {
            name: Self::NAME.to_owned(),
            partitions: 1,
            topics: vec!["delivery.v1.Credited".to_owned()],
            queue_messages_max: None,
        };
        rabbit.declare(&group).await.expect("a group");
        Self { rabbit }
    }

    /// Waits until it has that many.
    pub(crate) async fn has(&self, count: u32) {
        wait::until("copies in another group", SOON, async || {
            let fill = self.rabbit.fill(Self::NAME).await.ok()?;
            (fill.ready == [u64::from(count)]).then_some(())
        })
        .await;
    }

    pub(crate) async fn strays_of(&self, group: &str) -> u64 {
        let fill = self.rabbit.fill(group).await;
        fill.expect("a group that is there").strays
    }
}

/// Prepares a service with settings of its own.
pub(crate) fn ledger(server: &impl Reached, settings: &[(&str, &str)]) -> Builder {
    let mut builder = server
        .reached(process::service("ledger"))
        .set("BROKER__CONNECT_TIMEOUT", "2s")
        .set("BROKER__CONFIRM_TIMEOUT", "2s")
        .set("EVENTS__RELAY__PAUSE_MIN", "200ms")
        .set("EVENTS__RELAY__PAUSE_MAX", "1s")
        .set("EVENTS__CONSUMER__PARTITIONS", "2")
        .set("TELEMETRY__LOG_FORMAT", "json");
    for (key, value) in settings {
        builder = builder.set(key, value);
    }
    builder
}

fn channel(address: std::net::SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    endpoint.expect("an address is a URL").connect_lazy()
}

impl Ledger {
    pub(crate) async fn start(server: &impl Reached, settings: &[(&str, &str)]) -> Self {
        Self {
            service: ledger(server, settings).start().await,
            posted: Cell::new(0),
        }
    }

    /// Has it publish an event of another key; answers once that is written down.
    pub(crate) async fn post(&self) {
        let number = self.posted.get() + 1;
        self.posted.set(number);
        let request = PostRequest {
            request_id: format!("r-{number}"),
            account: format!("a-{number}"),
            amount: 1,
            trouble: Some(Trouble::default()),
            refused: false,
        };
        let mut client = LedgerServiceClient::new(channel(self.service.address));
        client
            .post(request)
            .await
            .expect("a change is written down");
    }

    pub(crate) fn posted(&self) -> u32 {
        self.posted.get()
    }

    fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(channel(self.service.side_address))
    }

    /// What its operators see.
    pub(crate) async fn events(&self) -> GetEventsResponse {
        let shown = self.admin().get_events(GetEventsRequest {}).await;
        shown.expect("an answer of the side port").into_inner()
    }

    /// What its journal has, as `kind subject: detail`.
    pub(crate) async fn journal(&self) -> Vec<String> {
        let request = WatchJournalRequest {
            kept_only: true,
            ..WatchJournalRequest::default()
        };
        let answer = self.admin().watch_journal(request).await;
        let mut entries = answer.expect("an answer of the side port").into_inner();
        let mut all = Vec::new();
        while let Ok(Some(next)) = entries.message().await {
            if let Some(Event::Entry(entry)) = next.event {
                all.push(format!(
                    "{} {}: {}",
                    entry.kind, entry.subject, entry.detail
                ));
            }
        }
        all
    }

    /// The sum of the series of a metric that have these labels.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = self.service.get("/metrics").await.expect("a page");
        let series = page.lines().filter(|line| {
            let named = line.strip_prefix(name);
            named.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels
                    .iter()
                    .all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
        });
        let values = series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        values.sum()
    }

    /// Attempts to publish that ended so.
    pub(crate) async fn tries(&self, outcome: &str) -> f64 {
        let labels = [("outcome", outcome)];
        self.metric("gantry_events_published_total", &labels).await
    }

    /// All that it has printed.
    pub(crate) fn output(&self) -> String {
        self.service.output()
    }

    /// Lines of its log with this message and these words.
    pub(crate) fn lines(&self, message: &str, words: &[&str]) -> usize {
        let output = self.service.output();
        let message = format!("\"message\":\"{message}\"");
        let lines = output.lines().filter(|line| line.contains(&message));
        lines
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .count()
    }

    /// Waits until it says everywhere that events wait for this reason; then sees that it tries no more
    /// often than it should, and says so once.
    pub(crate) async fn says(&self, reason: &str, refusal: EventRefusal, scopes: u32) {
        wait::until(reason, SOON, async || {
            let outbox = self.events().await.outbox?;
            let refused = outbox.refused.iter().any(|it| it.reason() == refusal);
            let waits = outbox.waits.iter().any(|it| it.reason() == refusal);
            (refused && waits && outbox.pending > 0).then_some(())
        })
        .await;
        let entry = format!("events wait, {reason}");
        let journal = self.journal().await;
        assert!(journal.iter().any(|it| it.contains(&entry)), "{journal:?}");
        let word = format!("\"reason\":\"{reason}\"");
        let before = self.tries(reason).await;
        assert!(before >= 1.0, "no try was counted as {reason}");
        let labels = [("error_type", reason), ("messaging_operation_name", "send")];
        let sent = "messaging_client_sent_messages_total";
        assert!(self.metric(sent, &labels).await >= 1.0);
        // As long as it may at most wait for one try, three times: whoever tries without a pause does so
        // many times more often.
        let longest = PAUSES[3] * 3;
        tokio::time::sleep(longest).await;
        let tries = self.tries(reason).await - before;
        let most = f64::from(scopes) * 8.0;
        assert!(tries <= most, "{tries} tries within {longest:?}, {reason}");
        assert_eq!(
            1,
            self.lines("events wait", &[&word]),
            "{}",
            self.service.output()
        );
    }

    /// Waits until everything that was posted at `posted` has had its effect here, and sees that it had
    /// it once.
    pub(crate) async fn applies(&self, posted: &Self) {
        let applied = async || {
            let labels = [("outcome", "applied")];
            self.metric("gantry_events_consumed_total", &labels).await
        };
        let all = f64::from(posted.posted());
        wait::until("every event to have its effect", SOON * 2, async || {
            (applied().await >= all).then_some(())
        })
        .await;
        wait::until("an empty outbox", SOON, async || {
            let outbox = posted.events().await.outbox?;
            (outbox.pending == 0 && outbox.waits.is_empty()).then_some(())
        })
        .await;
        let applied = applied().await;
        assert!((applied - all).abs() < 0.5, "{applied} effects of {all}");
    }
}
