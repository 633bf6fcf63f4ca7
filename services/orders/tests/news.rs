//! What accounts are told of their orders, where some of it is refused.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use gantry::{
    BoxError,
    app::{App, Identity, testing::Service},
    config::Live,
};
use gantry_harness::{database::Place, wait};
use gantry_store::{Config, Database, Statement, Timestamp};
use orders::{
    config,
    domain::{CancelReason, Line, Order},
    metrics::Metrics,
    news::Teller,
    store::{MIGRATIONS, News, Placed, Store},
};
use shop_proto::notifications::v1::{
    ListNotificationsRequest, ListNotificationsResponse, RecordNotificationRequest,
    RecordNotificationResponse, WatchNotificationsRequest, WatchNotificationsResponse,
    notifications_service_server::{NotificationsService, NotificationsServiceServer},
};
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

gantry_harness::on_both!(
    news_are_due_until_they_are_told_or_set_aside,
    what_is_refused_holds_up_nobody,
    news_of_one_account_stay_in_order,
    an_outage_costs_no_news,
);

const SOON: Duration = Duration::from_secs(30);
/// Pauses grow while nobody listens, and each round may tell one alone.
const PATIENCE: Duration = Duration::from_mins(3);

/// Orders of which accounts are to be told.
struct Books {
    database: Database,
    store: Store,
}

impl Books {
    async fn open(place: &Place) -> Self {
        let config = Config {
            url: place.url().parse().unwrap(),
            ..Config::default()
        };
        let database = Database::open(&config, MIGRATIONS).await.unwrap();
        let store = Store::new(database.clone());
        Self { database, store }
    }

    /// The id of an order of `account` that is cancelled, which it is to be told.
    async fn cancelled(&self, account: &str) -> String {
        let id = uuid::Uuid::now_v7().to_string();
        let line = Line {
            sku: "TEA".to_owned(),
            quantity: 1,
            unit_price: None,
        };
        let now = Timestamp::now();
        let order = Order::place(id.clone(), account, &id, vec![line], now);
        let placed = self.store.place(order, now).await.unwrap();
        assert!(matches!(placed, Placed::New(..)), "{placed:?}");
        let reason = CancelReason::Requested;
        let cancelled = self.store.cancel(&id, reason, now).await.unwrap();
        assert!(cancelled.is_some());
        id
    }

    async fn due(&self, now: Timestamp) -> Vec<News> {
        self.store.untold(now).await.unwrap()
    }

    /// Orders whose news are set aside.
    async fn aside(&self) -> Vec<String> {
        const ASIDE: Statement = Statement::new(
            "test.aside",
            "SELECT order_id FROM order_changes WHERE untold = 2 ORDER BY order_id",
        );
        let rows = self.database.statement(&ASIDE).fetch_all().await.unwrap();
        rows.iter()
            .map(|row| row.text("order_id").unwrap())
            .collect()
    }
}

fn ids(news: &[News]) -> Vec<&str> {
    news.iter().map(|news| &*news.order_id).collect()
}

/// Goal: news are due in the order in which they came about until they are told or set aside; what is
/// held holds its account's later ones as well, and nobody else's.
/// Method: two accounts; hold, tell and set aside, and ask at different times.
async fn news_are_due_until_they_are_told_or_set_aside(place: Place) {
    let books = Books::open(&place).await;
    let ada = [books.cancelled("ada").await, books.cancelled("ada").await];
    let eve = books.cancelled("eve").await;
    let now = Timestamp::now();
    let due = books.due(now).await;
    assert_eq!([&*ada[0], &ada[1], &eve], *ids(&due));
    assert!(due.iter().all(|news| news.held.is_none()), "{due:?}");

    let until = now.after(Duration::from_mins(1));
    for tries in [1, 7] {
        books.store.hold(&due[0], tries, until).await.unwrap();
        assert_eq!([&*eve], *ids(&books.due(now).await));
        let later = books.due(until).await;
        assert_eq!([&*ada[0], &ada[1], &eve], *ids(&later));
        assert_eq!(Some(tries), later[0].held);
    }

    let later = books.due(until).await;
    assert!(books.store.set_aside(&later[0]).await.unwrap());
    assert!(!books.store.set_aside(&later[0]).await.unwrap(), "once");
    assert_eq!(ada[..1], books.aside().await);
    // Nothing is held any more.
    assert_eq!([&*ada[1], &eve], *ids(&books.due(now).await));
    for news in books.due(now).await {
        books.store.told(&news).await.unwrap();
        assert!(!books.store.set_aside(&news).await.unwrap(), "it was told");
    }
    assert!(books.due(until).await.is_empty());
    assert_eq!(ada[..1], books.aside().await);

    // One that failed after another had told them holds nothing up.
    for news in &due {
        books.store.hold(news, 1, until).await.unwrap();
    }
    let next = books.cancelled("ada").await;
    assert_eq!([&*next], *ids(&books.due(now.after(SOON)).await));
}

/// Notifications as they are asked for, each order's answered with the codes that are left for it.
#[derive(Debug, Clone, Default)]
struct Desk {
    /// Orders in the order in which they were asked for, and how they were answered.
    asked: Arc<Mutex<Vec<(String, Code)>>>,
    codes: Arc<Mutex<HashMap<String, Vec<Code>>>>,
}

impl Desk {
    /// Answers what is asked of `order` with `codes`, the last of them first, and with OK after that.
    fn fail(&self, order: &str, codes: &[Code]) {
        let mut all = self.codes.lock().unwrap();
        all.insert(order.to_owned(), codes.to_vec());
    }

    fn asked(&self) -> Vec<(String, Code)> {
        self.asked.lock().unwrap().clone()
    }

    /// How `order` was answered, each time.
    fn answers(&self, order: &str) -> Vec<Code> {
        let asked = self.asked().into_iter();
        let own = asked.filter(|(asked, _)| asked == order);
        own.map(|(_, code)| code).collect()
    }

    async fn until_told(&self, order: &str) {
        wait::until("news of an order", PATIENCE, async || {
            self.answers(order).contains(&Code::Ok).then_some(())
        })
        .await;
    }
}

type Watched = Pin<Box<dyn Stream<Item = Result<WatchNotificationsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl NotificationsService for Desk {
    type WatchNotificationsStream = Watched;

    async fn record_notification(
        &self,
        request: Request<RecordNotificationRequest>,
    ) -> Result<Response<RecordNotificationResponse>, Status> {
        let order = request.into_inner().order_id;
        let code = self
            .codes
            .lock()
            .unwrap()
            .get_mut(&order)
            .and_then(Vec::pop);
        let code = code.unwrap_or(Code::Ok);
        self.asked.lock().unwrap().push((order, code));
        match code {
            Code::Ok => Ok(Response::new(RecordNotificationResponse {})),
            code => Err(Status::new(code, "as the test wants it")),
        }
    }

    async fn list_notifications(
        &self,
        _: Request<ListNotificationsRequest>,
    ) -> Result<Response<ListNotificationsResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn watch_notifications(
        &self,
        _: Request<WatchNotificationsRequest>,
    ) -> Result<Response<Watched>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}

/// A teller at work, and whom it tells.
struct Telling {
    _desk: Service,
    teller: JoinHandle<()>,
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.teller.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "the task ends with the test")]
async fn tell(store: &Store, desk: &Desk) -> Telling {
    let identity = Identity {
        name: "notifications",
        version: "0.0.0",
        description: "a service inside a test",
    };
    let desk = desk.clone();
    let start = async |app: &mut App<()>| -> Result<(), BoxError> {
        app.serve(NotificationsServiceServer::new(desk));
        Ok(())
    };
    let service = Service::start(identity, "", start).await.unwrap();
    let teller = Teller::new(store.clone(), service.client(), Metrics::register());
    let config = Live::fixed(config::Orders {
        sweep_interval: Duration::from_millis(20),
        ..config::Orders::default()
    });
    Telling {
        _desk: service,
        teller: tokio::spawn(teller.tell(config)),
    }
}

/// Goal: news that are refused for good are asked for once, set aside and kept, and everybody else is
/// told, the same account of its later ones as well.
/// Method: the oldest of many news is refused; then a further order, once the rest is told.
async fn what_is_refused_holds_up_nobody(place: Place) {
    let books = Books::open(&place).await;
    let desk = Desk::default();
    let refused = books.cancelled("ada").await;
    desk.fail(&refused, &[Code::InvalidArgument; 9]);
    let mut others = vec![books.cancelled("ada").await];
    for number in 0..20 {
        others.push(books.cancelled(&format!("person-{number}")).await);
    }
    let _telling = tell(&books.store, &desk).await;
    for order in &others {
        desk.until_told(order).await;
    }
    let last = books.cancelled("ada").await;
    desk.until_told(&last).await;
    assert_eq!([Code::InvalidArgument], *desk.answers(&refused));
    assert_eq!([refused], *books.aside().await);
}

/// Goal: news that fail are tried again, and meanwhile hold up the later ones of their account and
/// nobody else's.
/// Method: the oldest of one account fails twice; in which order that account's are told, and when
/// another's is.
async fn news_of_one_account_stay_in_order(place: Place) {
    let books = Books::open(&place).await;
    let desk = Desk::default();
    let ada = [books.cancelled("ada").await, books.cancelled("ada").await];
    let eve = books.cancelled("eve").await;
    desk.fail(&ada[0], &[Code::Internal; 2]);
    let _telling = tell(&books.store, &desk).await;
    desk.until_told(&ada[1]).await;
    let asked = desk.asked();
    let of_ada: Vec<_> = asked.iter().filter(|(order, _)| *order != eve).collect();
    let expected = [
        &(ada[0].clone(), Code::Internal),
        &(ada[0].clone(), Code::Internal),
        &(ada[0].clone(), Code::Ok),
        &(ada[1].clone(), Code::Ok),
    ];
    assert_eq!(expected, *of_ada);
    let told = |order: &str| {
        asked
            .iter()
            .position(|it| *it == (order.to_owned(), Code::Ok))
    };
    assert!(told(&eve) < told(&ada[0]), "{asked:?}");
    assert!(books.aside().await.is_empty());
}

/// Goal: while nobody listens nothing is set aside, and everybody is told after that, also where one
/// order's call is never answered in time.
/// Method: news that find nobody several times, and one that finds nobody for longer than that.
async fn an_outage_costs_no_news(place: Place) {
    let books = Books::open(&place).await;
    let desk = Desk::default();
    let slow = books.cancelled("ada").await;
    desk.fail(&slow, &[Code::DeadlineExceeded; 1_000]);
    let mut others = Vec::new();
    for number in 0..3 {
        let order = books.cancelled(&format!("person-{number}")).await;
        desk.fail(&order, &[Code::Unavailable; 2]);
        others.push(order);
    }
    let _telling = tell(&books.store, &desk).await;
    for order in &others {
        desk.until_told(order).await;
    }
    assert!(books.aside().await.is_empty());
    desk.fail(&slow, &[]);
    desk.until_told(&slow).await;
}
