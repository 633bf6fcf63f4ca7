//! What people are told: once, in order, and nobody else's.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use gantry::{
    app::{Identity, testing::Service},
    client::Channel,
};
use gantry_harness::database::Place;
use gantry_store::{Config, Database, Timestamp};
use notifications::{
    domain::{Event, Kind},
    store::{MIGRATIONS, Store},
};
use shop_proto::{
    accounts::v1::{LoginRequest, RegisterRequest, accounts_service_client::AccountsServiceClient},
    notifications::v1::{
        ListNotificationsRequest, ListNotificationsResponse, Notification, NotificationKind,
        RecordNotificationRequest, WatchNotificationsRequest,
        notifications_service_client::NotificationsServiceClient,
    },
};
use tokio::{task::JoinSet, time};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status};

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

/// Accounts, and notifications with settings.
struct Post {
    _place: Place,
    accounts: Service,
    notifications: Service,
}

impl Post {
    async fn open(place: Place, settings: &str) -> Self {
        let toml = format!("[database]\nurl = '{}'\n", place.url_of("accounts"));
        let accounts = Service::start(identity("accounts"), &toml, accounts::start).await;
        let accounts = accounts.unwrap();
        let toml = format!(
            "[database]\nurl = '{}'\n[notifications]\n{settings}\n\
             [clients.accounts]\ntarget = '{}'\n",
            place.url_of("notifications"),
            accounts.address(),
        );
        let service = Service::start(identity("notifications"), &toml, notifications::start).await;
        Self {
            _place: place,
            accounts,
            notifications: service.unwrap(),
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

    async fn tell(&self, id: &str, account_id: &str) {
        let request = RecordNotificationRequest {
            notification_id: id.to_owned(),
            account_id: account_id.to_owned(),
            kind: NotificationKind::OrderConfirmed.into(),
            order_id: ORDER.to_owned(),
        };
        self.client().record_notification(request).await.unwrap();
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

fn ids(notifications: &[Notification]) -> Vec<&str> {
    notifications
        .iter()
        .map(|it| &*it.notification_id)
        .collect()
}

fn code<T>(outcome: Result<T, Status>) -> Code {
    outcome.map(drop).unwrap_err().code()
}

/// Goal: an event that is told twice is one notification, its account reads it, nobody else does,
/// and without a token there is nothing to read.
/// Method: two people, one told three things, one of them twice; lists in pages; no token, a bad
/// token, a page token of another list, an event without a kind.
async fn events_are_told_once_and_to_one(place: Place) {
    let post = Post::open(place, "").await;
    let (ada, token) = post.person("ada@example.org").await;
    let (_, other) = post.person("bob@example.org").await;
    for id in ["a", "b", "a", "c"] {
        post.tell(id, &ada).await;
    }
    let first = post.list(&token, 2, "").await;
    assert_eq!(vec!["c", "b"], ids(&first.notifications));
    assert_eq!(ORDER, first.notifications[0].order_id);
    let second = post.list(&token, 2, &first.next_page_token).await;
    assert_eq!(vec!["a"], ids(&second.notifications));
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
    let request = RecordNotificationRequest {
        notification_id: "d".to_owned(),
        account_id: ada,
        order_id: ORDER.to_owned(),
        ..RecordNotificationRequest::default()
    };
    let refused = client.record_notification(request).await;
    assert_eq!(Code::InvalidArgument, code(refused));
}

/// Goal: a watch sends what there is, then each notification at once, those of other accounts not;
/// more watches than there may be are refused; a drain ends them.
/// Method: one place for a watch, and an interval longer than the test; tell before and meanwhile.
async fn watches_see_everything_in_order(place: Place) {
    let post = Post::open(place, "watchers_max = 1\nwatch_interval = '1min'").await;
    let (ada, token) = post.person("ada@example.org").await;
    for id in ["a", "b"] {
        post.tell(id, &ada).await;
    }
    let request = WatchNotificationsRequest { after_position: 1 };
    let mut client = post.client();
    let watch = client.watch_notifications(by(&token, request)).await;
    let mut watch = watch.unwrap().into_inner();
    let mut next = async || {
        let next = time::timeout(SOON, watch.next()).await.unwrap();
        next.map(|next| next.map(|it| it.notification.unwrap().notification_id))
    };
    assert_eq!("b", next().await.unwrap().unwrap());
    let refused = client.watch_notifications(by(&token, request)).await;
    assert_eq!(Code::ResourceExhausted, code(refused));
    post.tell("elsewhere", "somebody").await;
    post.tell("c", &ada).await;
    assert_eq!("c", next().await.unwrap().unwrap());
    let (ended, ()) = tokio::join!(next(), post.notifications.stop());
    assert_eq!(Code::Unavailable, code(ended.unwrap()));
}

/// Goal: whatever is recorded at once, over however many replicas, an account's positions count
/// without gaps, and nobody who looks on misses one.
/// Method: two pools record forty events, each of them twice; meanwhile one reads after what it knows.
async fn positions_have_no_gaps(place: Place) {
    const EVENTS: i64 = 40;
    let config = Config {
        url: place.url().parse().unwrap(),
        ..Config::default()
    };
    let mut stores = Vec::new();
    for _ in 0..2 {
        stores.push(Store::new(
            Database::open(&config, MIGRATIONS).await.unwrap(),
        ));
    }
    let mut tasks = JoinSet::new();
    for number in 0..EVENTS {
        for store in stores.clone() {
            tasks.spawn(async move {
                let event = Event {
                    id: format!("event-{number}"),
                    account_id: "ada".to_owned(),
                    kind: Kind::OrderCancelled,
                    order_id: ORDER.to_owned(),
                };
                i64::from(store.record(&event).await.unwrap())
            });
        }
    }
    let mut seen = Vec::new();
    let look = async {
        while seen.len() < 40 {
            let known = seen.last().copied().unwrap_or(0);
            let more = stores[0].after("ada", known).await.unwrap();
            seen.extend(more.iter().map(|it| it.position));
        }
    };
    time::timeout(SOON, look).await.unwrap();
    let new: i64 = tasks.join_all().await.into_iter().sum();
    assert_eq!(EVENTS, new);
    assert_eq!((1..=EVENTS).collect::<Vec<_>>(), seen);
}

/// Goal: what was kept long enough goes, and the rest stays; positions go on.
/// Method: forget up to a moment between two events.
async fn old_ones_are_forgotten(place: Place) {
    let config = Config {
        url: place.url().parse().unwrap(),
        ..Config::default()
    };
    let store = Store::new(Database::open(&config, MIGRATIONS).await.unwrap());
    let event = |id: &str| Event {
        id: id.to_owned(),
        account_id: "ada".to_owned(),
        kind: Kind::OrderConfirmed,
        order_id: ORDER.to_owned(),
    };
    assert!(store.record(&event("old")).await.unwrap());
    let since = Timestamp::now().after(Duration::from_micros(1));
    while Timestamp::now() <= since {
        tokio::task::yield_now().await;
    }
    assert!(store.record(&event("new")).await.unwrap());
    assert_eq!(1, store.forget(since).await.unwrap());
    let left = store.list("ada", i64::MAX, 10).await.unwrap();
    let left: Vec<_> = left.iter().map(|it| (&*it.event.id, it.position)).collect();
    assert_eq!(vec![("new", 2)], left);
}
