//! What people are told: once, in order, and nobody else's.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gantry::{
    app::{Identity, testing::Service},
    client::Channel,
    config::Live,
    contract::prost::{Message as _, Name as _},
    journal::Journal,
    shutdown::Tasks,
};
use gantry_events::{
    Envelope, Message,
    broker::{self, Broker},
};
use gantry_harness::{database::Place, wait};
use gantry_local::broker as local;
use gantry_store::{Config, Database, Timestamp};
use notifications::{
    domain::{Event, Kind},
    store::{self, MIGRATIONS, Store},
};
use shop_proto::{
    accounts::v1::{LoginRequest, RegisterRequest, accounts_service_client::AccountsServiceClient},
    notifications::v1::{
        ListNotificationsRequest, ListNotificationsResponse, Notification,
        WatchNotificationsRequest, notifications_service_client::NotificationsServiceClient,
    },
    orders::v1::OrderConfirmed,
};
use tokio::{task::JoinSet, time};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status};
use uuid::Uuid;

gantry_harness::on_both!(
    events_are_told_once_and_to_one,
    watches_see_everything_in_order,
    positions_have_no_gaps,
    old_ones_are_forgotten,
);

/// Longest wait for what should come at once, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

const ORDER: &str = "01890000-0000-7000-8000-000000000000";

fn identity(name: &'static str) -> Identity {
    Identity {
        name,
        version: "0.0.0",
        description: "a service inside a test",
    }
}

/// Accounts, and notifications with settings that hear of orders.
struct Post {
    _place: Place,
    accounts: Service,
    notifications: Service,
    broker: Arc<dyn Broker>,
    _server: Tasks,
    told: AtomicU64,
}

/// A broker in this process; where it is.
fn serve(tasks: &Tasks) -> String {
    let server = local::Broker::open(local::Config::default()).unwrap();
    let address = server.handle().address();
    let own = tasks.clone();
    tasks.spawn("broker", async move { server.run(own).await.unwrap() });
    format!("grpc://{address}")
}

impl Post {
    async fn open(place: Place, settings: &str) -> Self {
        let toml = format!("[database]\nurl = '{}'\n", place.url_of("accounts"));
        let accounts = Service::start(identity("accounts"), &toml, accounts::start).await;
        let accounts = accounts.unwrap();
        let tasks = Tasks::new(Journal::new());
        let url = serve(&tasks);
        let config = broker::Config::to(url.parse().unwrap());
        let broker = broker::connect(&Live::fixed(config), &tasks, &Journal::new());
        let toml = format!(
            "[database]\nurl = '{}'\n[notifications]\n{settings}\n\
             [clients.accounts]\ntarget = '{}'\n[broker]\nurl = '{url}'\n",
            place.url_of("notifications"),
            accounts.address(),
        );
        let service = Service::start(identity("notifications"), &toml, notifications::start).await;
        Self {
            _place: place,
            accounts,
            notifications: service.unwrap(),
            broker,
            _server: tasks,
            told: AtomicU64::new(0),
        }
    }

    fn client(&self) -> NotificationsServiceClient<Channel> {
        self.notifications.client()
    }

    /// Opens an account; its identifier and a token.
    async fn person(&self, email: &str) -> (String, String) {
        let mut accounts: AccountsServiceClient<Channel> = self.accounts.client();
        let (email, password) = (email.to_owned(), "correct horse".to_owned());
        let register = RegisterRequest {
            email: email.clone(),
            password: password.clone(),
            display_name: String::new(),
        };
        let registered = accounts.register(register).await.unwrap().into_inner();
        let login = accounts.login(LoginRequest { email, password }).await;
        let account_id = registered.account.unwrap().account_id;
        (account_id, login.unwrap().into_inner().token)
    }

    /// Tells that an order of `account_id` is confirmed, as orders do; the event.
    async fn tell(&self, account_id: &str) -> Message {
        let confirmed = OrderConfirmed {
            order_id: ORDER.to_owned(),
            account_id: account_id.to_owned(),
            ..OrderConfirmed::default()
        };
        let envelope = Envelope {
            id: Uuid::now_v7(),
            source: "/orders".to_owned(),
            sequence: self.told.fetch_add(1, Ordering::Relaxed) + 1,
            time: Timestamp::now(),
            traceparent: None,
            tracestate: None,
        };
        let topic = OrderConfirmed::full_name();
        let message = Message {
            headers: envelope.headers(&topic, ORDER),
            topic,
            key: ORDER.to_owned(),
            body: confirmed.encode_to_vec().into(),
        };
        self.publish(&message).await;
        message
    }

    /// Publishes an event, once there is who wants it.
    async fn publish(&self, message: &Message) {
        wait::until("the event to be taken", SOON, async || {
            self.broker.publish(message.clone()).await.ok()
        })
        .await;
    }

    /// Waits until so many are listed.
    async fn listed(&self, token: &str, count: usize) {
        wait::until("notifications", SOON, async || {
            let list = self.list(token, 500, "").await;
            assert!(list.notifications.len() <= count, "{list:?}");
            (list.notifications.len() == count).then_some(())
        })
        .await;
    }

    async fn list(&self, token: &str, size: i32, page: &str) -> ListNotificationsResponse {
        let request = ListNotificationsRequest {
            page_size: size,
            page_token: page.to_owned(),
        };
        let listed = self.client().list_notifications(by(token, request)).await;
        listed.unwrap().into_inner()
    }
}

fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

fn id(message: &Message) -> &str {
    &message.headers["id"]
}

fn ids(notifications: &[Notification]) -> Vec<&str> {
    notifications
        .iter()
        .map(|it| &*it.notification_id)
        .collect()
}

fn code<T>(outcome: Result<T, Status>) -> Code {
    outcome.map(drop).unwrap_err().code()
}

/// Goal: an event that comes twice is one notification, its account reads it, nobody else does,
/// and without a token there is nothing to read.
/// Method: two people, one told three things, one of them twice; lists in pages; no token, a bad
/// token, a page token of another list.
async fn events_are_told_once_and_to_one(place: Place) {
    let post = Post::open(place, "").await;
    let (ada, token) = post.person("ada@example.org").await;
    let (_, other) = post.person("bob@example.org").await;
    let one = post.tell(&ada).await;
    let two = post.tell(&ada).await;
    post.publish(&one).await;
    let three = post.tell(&ada).await;
    post.listed(&token, 3).await;
    let first = post.list(&token, 2, "").await;
    assert_eq!(vec![id(&three), id(&two)], ids(&first.notifications));
    assert_eq!(ORDER, first.notifications[0].order_id);
    let second = post.list(&token, 2, &first.next_page_token).await;
    assert_eq!(vec![id(&one)], ids(&second.notifications));
    assert_eq!("", second.next_page_token);
    assert!(post.list(&other, 2, "").await.notifications.is_empty());

    let mut client = post.client();
    let request = ListNotificationsRequest::default();
    let refused = client.list_notifications(request.clone()).await;
    assert_eq!(Code::Unauthenticated, code(refused));
    let refused = client
        .list_notifications(by("no.token.atall", request))
        .await;
    assert_eq!(Code::Unauthenticated, code(refused));
    let request = WatchNotificationsRequest::default();
    let refused = client.watch_notifications(request).await;
    assert_eq!(Code::Unauthenticated, code(refused));
    let request = ListNotificationsRequest {
        page_token: "x".to_owned(),
        ..ListNotificationsRequest::default()
    };
    let refused = client.list_notifications(by(&token, request)).await;
    assert_eq!(Code::InvalidArgument, code(refused));
}

/// Goal: a watch sends what there is, then each notification at once, those of other accounts not;
/// more watches than there may be are refused; a drain ends them.
/// Method: one place for a watch, and an interval longer than the test; tell before and meanwhile.
async fn watches_see_everything_in_order(place: Place) {
    let post = Post::open(place, "watchers_max = 1\nwatch_interval = '1min'").await;
    let (ada, token) = post.person("ada@example.org").await;
    post.tell(&ada).await;
    let second = post.tell(&ada).await;
    post.listed(&token, 2).await;
    let request = WatchNotificationsRequest { after_position: 1 };
    let mut client = post.client();
    let watch = client.watch_notifications(by(&token, request)).await;
    let mut watch = watch.unwrap().into_inner();
    let mut next = async || {
        let next = time::timeout(SOON, watch.next()).await.unwrap();
        next.map(|next| next.map(|it| it.notification.unwrap().notification_id))
    };
    assert_eq!(id(&second), next().await.unwrap().unwrap());
    let refused = client.watch_notifications(by(&token, request)).await;
    assert_eq!(Code::ResourceExhausted, code(refused));
    post.tell("somebody").await;
    let third = post.tell(&ada).await;
    assert_eq!(id(&third), next().await.unwrap().unwrap());
    let (ended, ()) = tokio::join!(next(), post.notifications.stop());
    assert_eq!(Code::Unavailable, code(ended.unwrap()));
}

/// Keeps an event in a transaction of its own.
async fn record(database: &Database, event: &Event) {
    let mut transaction = database.begin("test.record").await.unwrap();
    store::record(&mut transaction, event).await.unwrap();
    transaction.commit().await.unwrap();
}

/// Goal: whatever is recorded at once, over however many replicas, an account's positions count
/// without gaps, and nobody who looks on misses one.
/// Method: two pools record twenty events each; meanwhile one reads after what it knows.
async fn positions_have_no_gaps(place: Place) {
    const EVENTS: i64 = 40;
    let config = Config {
        url: place.url().parse().unwrap(),
        ..Config::default()
    };
    let mut replicas = Vec::new();
    for _ in 0..2 {
        replicas.push(Database::open(&config, MIGRATIONS).await.unwrap());
    }
    let mut tasks = JoinSet::new();
    for (number, database) in (0..EVENTS).zip(replicas.iter().cycle()) {
        let database = database.clone();
        tasks.spawn(async move {
            let event = Event {
                id: format!("event-{number}"),
                account_id: "ada".to_owned(),
                kind: Kind::OrderCancelled,
                order_id: ORDER.to_owned(),
            };
            record(&database, &event).await;
        });
    }
    let store = Store::new(replicas[0].clone());
    let mut seen = Vec::new();
    let look = async {
        while seen.len() < 40 {
            let known = seen.last().copied().unwrap_or(0);
            let more = store.after("ada", known).await.unwrap();
            seen.extend(more.iter().map(|it| it.position));
        }
    };
    time::timeout(SOON, look).await.unwrap();
    tasks.join_all().await;
    assert_eq!((1..=EVENTS).collect::<Vec<_>>(), seen);
}

/// Goal: what was kept long enough goes, and the rest stays; positions go on.
/// Method: forget up to a moment between two events.
async fn old_ones_are_forgotten(place: Place) {
    let config = Config {
        url: place.url().parse().unwrap(),
        ..Config::default()
    };
    let database = Database::open(&config, MIGRATIONS).await.unwrap();
    let store = Store::new(database.clone());
    let event = |id: &str| Event {
        id: id.to_owned(),
        account_id: "ada".to_owned(),
        kind: Kind::OrderConfirmed,
        order_id: ORDER.to_owned(),
    };
    record(&database, &event("old")).await;
    let since = Timestamp::now().after(Duration::from_micros(1));
    while Timestamp::now() <= since {
        tokio::task::yield_now().await;
    }
    record(&database, &event("new")).await;
    assert_eq!(1, store.forget(since).await.unwrap());
    let left = store.list("ada", i64::MAX, 10).await.unwrap();
    let left: Vec<_> = left.iter().map(|it| (&*it.event.id, it.position)).collect();
    assert_eq!(vec![("new", 2)], left);
}
