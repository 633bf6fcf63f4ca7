//! Who is let in: at the gateway by gRPC and by JSON, and at the service itself.

mod stock;

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use gantry::client::Channel;
use gantry_harness::{
    collector::Collector,
    process::get,
    system::System,
    wait::{self, SOON},
};
use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};
use shop_proto::{
    accounts::v1::{LoginRequest, RegisterRequest, accounts_service_client::AccountsServiceClient},
    catalog::v1::{
        ReleaseRequest, SeedProductsRequest, catalog_service_client::CatalogServiceClient,
    },
    orders::v1::{
        CancelOrderRequest, GetOrderRequest, ListOrdersRequest, NewOrderLine, PlaceOrderRequest,
        WatchOrderRequest, orders_service_client::OrdersServiceClient,
    },
    payments::v1::{RefundRequest, payments_service_client::PaymentsServiceClient},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, Request, Status, metadata::MetadataMap};

use crate::support::channel;

use stock::restocks;

/// What nobody but its owner may ever see.
const PASSWORD: &str = "canary-horse-battery";

/// A shop, and where its customers call.
struct Shop {
    system: System,
    gateway: SocketAddr,
    catalog: SocketAddr,
    /// Two instances; one of them.
    orders: SocketAddr,
}

fn with<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("a token");
    request.metadata_mut().insert("authorization", value);
    request
}

impl Shop {
    fn open(arguments: &[&str]) -> Self {
        let system = System::up(arguments);
        let at = |name: &str| system.address(name).parse().expect("an address");
        Self {
            gateway: at("gateway"),
            catalog: at("catalog"),
            orders: at("orders"),
            system,
        }
    }

    fn edge(&self) -> Channel {
        channel(&[self.gateway])
    }

    /// Orders by way of the gateway, and directly.
    fn orders(&self) -> [(&'static str, OrdersServiceClient<Channel>); 2] {
        [
            ("gateway", OrdersServiceClient::new(self.edge())),
            ("service", OrdersServiceClient::new(channel(&[self.orders]))),
        ]
    }

    async fn register(&self, email: &str) {
        let person = RegisterRequest {
            email: email.to_owned(),
            password: PASSWORD.to_owned(),
            display_name: String::new(),
        };
        let mut accounts = AccountsServiceClient::new(self.edge());
        accounts.register(person).await.expect("an account");
    }

    async fn log_in(&self, email: &str) -> String {
        let person = LoginRequest {
            email: email.to_owned(),
            password: PASSWORD.to_owned(),
        };
        let mut accounts = AccountsServiceClient::new(self.edge());
        let login = accounts.login(person).await.expect("a token");
        login.into_inner().token
    }

    /// Writes `text` over the file of `service` in `config/`.
    fn configure(&self, service: &str, text: &str) {
        let path = self.system.folder().join("config");
        fs::write(path.join(format!("{service}.toml")), text).expect("write a file");
    }

    /// A GET of JSON at the gateway, with a token and other headers: the status and the answer.
    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        self.ask(&format!("GET {path}"), headers, "").await
    }

    /// The same for any method, with a body.
    async fn ask(&self, what: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let mut request = format!("{what} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n");
        for (name, value) in headers {
            request.extend([name, ": ", value, "\r\n"]);
        }
        let length = body.len();
        let length = length.to_string();
        request.extend(["content-length: ", &length, "\r\n\r\n", body]);
        let mut stream = TcpStream::connect(self.gateway).await.expect("a gateway");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        let status = answer.split(' ').nth(1).and_then(|it| it.parse().ok());
        (status.expect("a status"), answer)
    }

    /// Whether every way in refuses `token` as UNAUTHENTICATED, streams among them.
    async fn refuses(&self, case: &str, token: Option<&str>) {
        for (way, mut orders) in self.orders() {
            let list = ListOrdersRequest::default();
            let watch = WatchOrderRequest {
                order_id: "00000000-0000-4000-8000-000000000000".to_owned(),
            };
            let (list, watch) = match token {
                Some(token) => (with(list, token), with(watch, token)),
                None => (Request::new(list), Request::new(watch)),
            };
            let refused = orders.list_orders(list).await.expect_err(case);
            assert_eq!(
                Code::Unauthenticated,
                refused.code(),
                "{case}, {way}: {refused:?}"
            );
            let refused = orders.watch_order(watch).await.expect_err(case);
            assert_eq!(
                Code::Unauthenticated,
                refused.code(),
                "{case}, {way}: {refused:?}"
            );
            let shown = format!("{refused:?}");
            assert!(token.is_none_or(|it| !shown.contains(it)), "{case}, {way}");
        }
        let metadata = token.map(|token| with((), token).metadata().clone());
        self.refuses_to_restock(case, &metadata.unwrap_or_default())
            .await;
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer
            .iter()
            .map(|it| ("authorization", it.as_str()))
            .collect();
        let (status, answer) = self.get("/v1/orders", &headers).await;
        assert_eq!(401, status, "{case}: {answer}");
        assert!(
            answer.contains("www-authenticate: Bearer"),
            "{case}: {answer}"
        );
        assert!(
            token.is_none_or(|it| !answer.contains(it)),
            "{case}: {answer}"
        );
    }
}

fn part(token: &str, number: usize) -> Value {
    let text = token.split('.').nth(number).expect("three parts");
    let bytes = BASE64.decode(text).expect("base64");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// `token` with another header, and signed by nobody or with a key of ours.
fn forged(token: &str, changes: &Value, key: Option<u8>) -> String {
    let mut header = part(token, 0);
    for (name, value) in changes.as_object().expect("an object") {
        header[name] = value.clone();
    }
    let claims = token.split('.').nth(1).expect("three parts");
    let message = format!("{}.{claims}", BASE64.encode(header.to_string()));
    let signature = key.map(|seed| {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed");
        BASE64.encode(pair.sign(message.as_bytes()))
    });
    format!("{message}.{}", signature.unwrap_or_default())
}

/// Goal: nobody is let in but by a token that the shop signed for itself, and that is not over; at the
/// gateway by gRPC and by JSON, and at the service.
/// Method: no token, forged ones of each kind, names in metadata; then tokens that the shop itself
/// signs for others, and for a second only.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_good_token_lets_in() {
    let shop = Shop::open(&[]);
    shop.register("ada@example.org").await;
    let good = shop.log_in("ada@example.org").await;
    for (way, mut orders) in shop.orders() {
        let listed = orders
            .list_orders(with(ListOrdersRequest::default(), &good))
            .await;
        listed.unwrap_or_else(|status| panic!("{way}: {status:?}"));
    }
    shop.refuses("no token", None).await;
    let none = json!({});
    for (case, token) in [
        ("another key", forged(&good, &none, Some(7))),
        (
            "an unknown key",
            forged(&good, &json!({"kid": "mine"}), Some(7)),
        ),
        ("alg none", forged(&good, &json!({"alg": "none"}), None)),
        ("no signature", forged(&good, &none, None)),
        ("half a token", good[..good.len() / 2].to_owned()),
    ] {
        shop.refuses(case, Some(&token)).await;
    }

    let account = part(&good, 1)["sub"].as_str().expect("a name").to_owned();
    let names = ["x-user-id", "x-account-id", "x-forwarded-user", "subject"];
    for (way, mut orders) in shop.orders() {
        let mut request = Request::new(ListOrdersRequest::default());
        for name in names {
            let value = account.parse().expect("a name");
            request.metadata_mut().insert(name, value);
        }
        let refused = orders
            .list_orders(request)
            .await
            .expect_err("a forged name");
        assert_eq!(Code::Unauthenticated, refused.code(), "{way}: {refused:?}");
    }
    let mut metadata = MetadataMap::new();
    for name in names {
        metadata.insert(name, account.parse().expect("a name"));
    }
    shop.refuses_to_restock("a forged name", &metadata).await;
    let account = part(&good, 1)["sub"].as_str().expect("a name").to_owned();
    shop.system.set_roles(&account, &["staff"]);
    restocks(&shop, &shop.log_in("ada@example.org").await).await;
    let headers = names.map(|name| (name, account.as_str()));
    let (status, answer) = shop.get("/v1/orders", &headers).await;
    assert_eq!(401, status, "{answer}");

    shop.configure("accounts", "[tokens]\naudience = \"others\"\n");
    let others = wait::until("a token for others", SOON, async || {
        let token = shop.log_in("ada@example.org").await;
        (part(&token, 1)["aud"] == "others").then_some(token)
    });
    shop.refuses("another audience", Some(&others.await)).await;
    expired(&shop).await;
}

/// Method, continued: short-lived tokens, and no leeway.
async fn expired(shop: &Shop) {
    shop.configure("accounts", "[tokens]\nlifetime = \"1s\"\n");
    for service in ["catalog", "orders"] {
        shop.configure(service, "[tokens]\nleeway = \"0s\"\n");
    }
    let gateway = shop.system.folder().join("config/gateway.toml");
    let text = fs::read_to_string(&gateway).expect("it is there");
    let text = text.replace("[tokens]\n", "[tokens]\nleeway = \"0s\"\n");
    fs::write(&gateway, text).expect("write a file");
    let short = wait::until("a short-lived token", SOON, async || {
        let token = shop.log_in("ada@example.org").await;
        let claims = part(&token, 1);
        let lifetime = claims["exp"].as_u64()? - claims["iat"].as_u64()?;
        (lifetime == 1 && claims["aud"] == "shop").then_some(token)
    });
    let short = short.await;
    wait::until("its end, everywhere", SOON, async || {
        for (_, mut orders) in shop.orders() {
            let list = with(ListOrdersRequest::default(), &short);
            let refused = orders.list_orders(list).await.err()?;
            if refused.message() != "the token has expired" {
                return None;
            }
        }
        let metadata = with((), &short);
        let outcomes = shop.restock(metadata.metadata()).await;
        let over = |outcome: Result<(), Status>| {
            outcome.is_err_and(|refused| refused.message() == "the token has expired")
        };
        let all = outcomes.into_iter().all(|(_, outcome)| over(outcome));
        all.then_some(())
    })
    .await;
    shop.refuses("expired", Some(&short)).await;
}

/// Goal: another person's order is as if it were not there, and what services ask each other is for
/// nobody who comes by the gateway.
/// Method: two people, an order of one, every method with its name by the other.
#[tokio::test(flavor = "multi_thread")]
async fn other_peoples_orders_are_not_there() {
    let shop = Shop::open(&[]);
    for email in ["ada@example.org", "eve@example.org"] {
        shop.register(email).await;
    }
    let ada = shop.log_in("ada@example.org").await;
    let eve = shop.log_in("eve@example.org").await;
    let [(_, mut orders), _] = shop.orders();
    let order = PlaceOrderRequest {
        request_id: "hers".to_owned(),
        lines: vec![NewOrderLine {
            sku: "TEA-EARL-GREY".to_owned(),
            quantity: 1,
        }],
    };
    let placed = orders
        .place_order(with(order, &ada))
        .await
        .expect("an order");
    let order_id = placed.into_inner().order.expect("an order").order_id;

    for (way, mut orders) in shop.orders() {
        let order_id = order_id.clone();
        let get = GetOrderRequest {
            order_id: order_id.clone(),
        };
        let cancel = CancelOrderRequest {
            order_id: order_id.clone(),
        };
        let watch = WatchOrderRequest { order_id };
        let mut refused: Vec<Status> = Vec::new();
        refused.extend(orders.get_order(with(get, &eve)).await.err());
        refused.extend(orders.cancel_order(with(cancel, &eve)).await.err());
        match orders.watch_order(with(watch, &eve)).await {
            Err(status) => refused.push(status),
            Ok(stream) => refused.extend(stream.into_inner().message().await.err()),
        }
        let codes: Vec<_> = refused.iter().map(Status::code).collect();
        assert_eq!([Code::NotFound; 3].as_slice(), codes, "{way}: {refused:?}");
    }
    let bearer = format!("Bearer {eve}");
    let headers = [("authorization", bearer.as_str())];
    let (status, answer) = shop.get(&format!("/v1/orders/{order_id}"), &headers).await;
    assert_eq!(404, status, "{answer}");
    let bearer = format!("Bearer {ada}");
    let headers = [("authorization", bearer.as_str())];
    let (status, answer) = shop.get(&format!("/v1/orders/{order_id}"), &headers).await;
    assert_eq!(200, status, "{answer}");

    services_alone(&shop, order_id, &ada).await;
}

/// Method, continued: methods that services, or whoever runs them, call.
async fn services_alone(shop: &Shop, order_id: String, ada: &str) {
    let release = ReleaseRequest {
        reservation_id: order_id.clone(),
    };
    let mut catalog = CatalogServiceClient::new(shop.edge());
    let refused = catalog.release(with(release, ada)).await;
    let refused = refused.expect_err("a method of services");
    assert_eq!(Code::PermissionDenied, refused.code(), "{refused:?}");
    let seeds = tokio_stream::iter([SeedProductsRequest::default()]);
    let refused = catalog.seed_products(with(seeds, ada)).await;
    let refused = refused.expect_err("a method of whoever runs the shop");
    assert_eq!(Code::PermissionDenied, refused.code(), "{refused:?}");
    let refund = RefundRequest {
        payment_id: order_id,
    };
    let refused = async || {
        let mut payments = PaymentsServiceClient::new(shop.edge());
        let refused = payments.refund(with(refund.clone(), ada)).await;
        refused.expect_err("a method of services")
    };
    let by_gateway = refused().await;
    assert_eq!(Code::PermissionDenied, by_gateway.code(), "{by_gateway:?}");

    // Also where the gateway cannot know, as payments are described to nobody.
    shop.configure("payments", "reflection = false\n");
    for service in ["payments", "gateway"] {
        let restarted = shop.system.gantry(&["restart", service]);
        assert!(restarted.status.success(), "{restarted:?}");
    }
    let by_service = refused().await;
    assert_eq!(Code::PermissionDenied, by_service.code(), "{by_service:?}");
}

/// Everything that the processes of `folder` logged.
fn logs(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            text.push_str(&logs(&path));
        } else if path.extension().is_some_and(|it| it == "log") {
            text.push_str(&fs::read_to_string(path).unwrap_or_default());
        }
    }
    text
}

/// Goal: passwords and tokens, good ones and bad ones, are in no log line, metric or span.
/// Method: register, log in and call with good and forged tokens, everything logged and traced; look
/// for each of them, and for what must be there.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_told() {
    let collector = Collector::start().await;
    let otlp = format!("http://{}", collector.address);
    let shop = Shop::open(&["--otlp", &otlp]);
    for service in ["accounts", "orders", "gateway"] {
        let path = shop.system.folder().join(format!("config/{service}.toml"));
        let text = fs::read_to_string(&path).expect("it is there");
        let text = format!("{text}\n[telemetry]\nlog_level = \"trace\"\n");
        fs::write(&path, text).expect("write a file");
    }
    let folder = shop.system.folder().join(".gantry");
    let worthless = [("authorization", "Bearer worthless")];
    wait::until("finer lines", SOON, async || {
        drop(shop.get("/v1/orders", &worthless).await);
        logs(&folder).contains("token refused").then_some(())
    })
    .await;
    shop.register("ada@example.org").await;
    let good = shop.log_in("ada@example.org").await;
    let bad = forged(&good, &json!({}), Some(7));
    for (_, mut orders) in shop.orders() {
        let list = ListOrdersRequest::default();
        orders
            .list_orders(with(list.clone(), &good))
            .await
            .expect("a list");
        orders
            .list_orders(with(list, &bad))
            .await
            .expect_err("refused");
    }
    let bearer = format!("Bearer {bad}");
    let (status, _) = shop.get("/v1/orders", &[("authorization", &bearer)]).await;
    assert_eq!(401, status);
    let spans = wait::until("the spans", 2 * Duration::from_secs(10), async || {
        let spans = collector.spans();
        let of_orders = spans.iter().any(|it| it.service == "orders");
        let of_gateway = spans.iter().any(|it| it.service == "gateway");
        (of_orders && of_gateway).then_some(spans)
    })
    .await;
    let mut told = format!("{spans:?}");
    for instance in shop.system.instances() {
        let Ok(address) = instance.side_address.parse() else {
            continue;
        };
        told.push_str(&get(address, "/metrics").await.unwrap_or_default());
    }
    told.push_str(&logs(&folder));
    assert!(told.contains("ListOrders"), "something was told");
    let signature = |token: &str| token.rsplit('.').next().unwrap_or_default().to_owned();
    for secret in [
        PASSWORD.to_owned(),
        good.clone(),
        bad.clone(),
        signature(&good),
        signature(&bad),
    ] {
        assert!(!told.contains(&secret), "{secret} was told");
    }
}
