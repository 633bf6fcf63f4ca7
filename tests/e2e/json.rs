//! The shop by plain HTTP, through the gateway.

use std::{fs, path::Path, process::Command};

use gantry_harness::{
    collector::Collector,
    system::System,
    tools,
    wait::{self, SOON},
};
use serde_json::{Value, json};

/// The customer's own trace.
const TRACE: &str = "61637573746f6d657273686f70737477";

/// A customer of the shop who has curl.
struct Customer {
    url: String,
    token: String,
}

/// An answer of HTTP.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

impl Customer {
    fn curl(&self, path: &str, arguments: &[&str]) -> Answer {
        let mut command = Command::new("curl");
        command
            .args([
                "-sS",
                "--http1.1",
                "--max-time",
                "20",
                "-w",
                "\n%{http_code}",
            ])
            .args([
                "-H",
                &format!("traceparent: 00-{TRACE}-00000000000000c1-01"),
            ]);
        if !self.token.is_empty() {
            command.args(["-H", &format!("authorization: Bearer {}", self.token)]);
        }
        let output = tools::run(command.arg(format!("{}{path}", self.url)).args(arguments));
        let (body, status) = output.trim_end().rsplit_once('\n').expect("a status");
        Answer {
            status: status.parse().expect("a number"),
            body: body.to_owned(),
        }
    }

    #[track_caller]
    fn fine(&self, path: &str, arguments: &[&str]) -> Value {
        let answer = self.curl(path, arguments);
        assert_eq!(200, answer.status, "{path}: {answer:?}");
        answer.json()
    }

    fn register(&self, email: &str) {
        let person = person(email);
        let registered = self.fine("/v1/accounts:register", &["--json", &person]);
        assert_eq!(email, registered["account"]["email"], "{registered}");
        let again = self.curl("/v1/accounts:register", &["--json", &person]);
        assert_eq!((409, 6), (again.status, code(&again)), "{again:?}");
    }

    /// Gets a token; the account that it speaks for.
    fn log_in(&mut self, email: &str) -> String {
        let person = person(email);
        let logged_in = self.fine("/v1/accounts:login", &["--json", &person]);
        let text = |name: &str| logged_in[name].as_str().expect("a text").to_owned();
        self.token = text("token");
        text("accountId")
    }
}

fn person(email: &str) -> String {
    json!({"email": email, "password": "correct horse battery"}).to_string()
}

fn code(answer: &Answer) -> i64 {
    answer.json()["code"].as_i64().expect("a code")
}

fn curl() -> bool {
    let found = Command::new("curl").arg("--version").output().is_ok();
    if !found {
        tools::skip("curl is not installed");
    }
    found
}

/// Goal: everything the public may do is done by plain HTTP, and one trace tells of all of it.
/// Method: register, log in, list, place, read, watch and cancel by curl, and import as one of the
/// staff, over HTTP/1.1, within a trace of the customer's; an OTLP receiver collects the spans.
#[tokio::test(flavor = "multi_thread")]
async fn a_customer_shops_by_json() {
    if !curl() {
        return;
    }
    let collector = Collector::start().await;
    let otlp = format!("http://{}", collector.address);
    let system = System::up(&["--otlp", &otlp]);
    let somebody = || Customer {
        url: format!("http://{}", system.address("gateway")),
        token: String::new(),
    };
    let (mut customer, mut clerk) = (somebody(), somebody());
    customer.register("json@example.com");
    customer.log_in("json@example.com");
    clerk.register("clerk@example.com");
    let account = clerk.log_in("clerk@example.com");
    system.set_roles(&account, &["staff"]);
    clerk.log_in("clerk@example.com");
    import_and_list(&clerk, &customer, system.folder());
    let order = place_and_watch(&customer);
    news_come(&customer, &order).await;
    what_is_wrong_is_told(&customer, &order);

    let trace = u128::from_str_radix(TRACE, 16).expect("a trace's id");
    let trace = trace.to_be_bytes();
    let wanted = [
        ("gateway", "POST /v1/orders"),
        ("orders", "shop.orders.v1.OrdersService/PlaceOrder"),
        ("catalog", "shop.catalog.v1.CatalogService/Reserve"),
        ("payments", "shop.payments.v1.PaymentsService/Charge"),
        ("bank", "POST /charges"),
    ];
    wait::until("one trace over all of them", SOON, async || {
        let spans = collector.spans();
        let own = spans.iter().filter(|it| it.span.trace_id == trace);
        let own: Vec<_> = own
            .map(|it| (it.service.as_str(), it.span.name.as_str()))
            .collect();
        wanted.iter().all(|it| own.contains(it)).then_some(())
    })
    .await;
}

fn import_and_list(clerk: &Customer, customer: &Customer, folder: &Path) {
    let rows = (0..3).map(|number| {
        let row = json!({
            "sku": format!("JSON-{number}"), "name": "A thing", "priceMinorUnits": "100",
            "currencyCode": "EUR", "initialStock": 5,
        });
        format!("{row}\n")
    });
    let file = folder.join("rows.ndjson");
    fs::write(&file, rows.collect::<String>()).expect("there is room");
    let file = format!("@{}", file.display());
    let header = ["-H", "content-type: application/x-ndjson"];
    let arguments = [&["--data-binary", file.as_str()][..], &header].concat();
    let refused = customer.curl("/v1/products:import", &arguments);
    assert_eq!((403, 7), (refused.status, code(&refused)), "{refused:?}");
    let imported = clerk.fine("/v1/products:import", &arguments);
    assert_eq!("3", imported["createdCount"], "{imported}");
    let listed = customer.fine("/v1/products?page_size=500", &[]);
    let products = listed["products"].as_array().expect("products");
    let ours = |product: &&Value| {
        product["sku"]
            .as_str()
            .is_some_and(|it| it.starts_with("JSON-"))
    };
    assert_eq!(3, products.iter().filter(ours).count(), "{listed}");
}

/// The id of an order that was placed, confirmed and cancelled.
fn place_and_watch(customer: &Customer) -> String {
    let order = json!({"request_id": "json-1", "lines": [{"sku": "JSON-1", "quantity": 2}]});
    let placed = customer.fine("/v1/orders", &["--json", &order.to_string()]);
    let id = placed["order"]["orderId"]
        .as_str()
        .expect("an id")
        .to_owned();
    let path = format!("/v1/orders/{id}");
    let read = customer.fine(&path, &[]);
    assert_eq!("200", read["order"]["total"]["minorUnits"], "{read}");
    let listed = customer.fine("/v1/orders", &[]);
    assert_eq!(id, listed["orders"][0]["orderId"], "{listed}");
    assert_eq!(
        "ORDER_STATE_CONFIRMED", placed["order"]["state"],
        "{placed}"
    );

    let cancelled = customer.fine(&format!("{path}:cancel"), &["-X", "POST"]);
    assert_eq!(
        "ORDER_STATE_CANCELLED", cancelled["order"]["state"],
        "{cancelled}"
    );
    let watched = customer.curl(&format!("{path}:watch"), &["-N"]);
    assert_eq!(200, watched.status, "{watched:?}");
    let last = watched.body.lines().last().expect("a line");
    let last: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(
        "ORDER_STATE_CANCELLED", last["order"]["state"],
        "{watched:?}"
    );
    id
}

/// Lists and watches what the customer is told of `order`; nobody else is told.
async fn news_come(customer: &Customer, order: &str) {
    let kinds = [
        "NOTIFICATION_KIND_ORDER_CONFIRMED",
        "NOTIFICATION_KIND_ORDER_CANCELLED",
    ];
    let whole = |told: &[Value]| {
        told.len() == 2
            && kinds.iter().all(|kind| {
                told.iter()
                    .any(|it| it["kind"] == *kind && it["orderId"] == order)
            })
    };
    wait::until("news of the order", SOON, async || {
        let listed = customer.fine("/v1/notifications?page_size=5", &[]);
        whole(listed["notifications"].as_array()?).then_some(())
    })
    .await;

    // The stream has no end of its own; curl ends it.
    let watch = format!("{}/v1/notifications:watch?after_position=0", customer.url);
    let bearer = format!("authorization: Bearer {}", customer.token);
    let mut curl = Command::new("curl");
    curl.args([
        "-sSN",
        "--http1.1",
        "--max-time",
        "3",
        "-H",
        &bearer,
        &watch,
    ]);
    let output = tools::output(&mut curl);
    let watched = String::from_utf8_lossy(&output.stdout).into_owned();
    let told: Vec<Value> = watched
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["notification"].take())
        .collect();
    assert!(whole(&told), "{watched}");

    let stranger = Customer {
        url: customer.url.clone(),
        token: String::new(),
    };
    for path in ["/v1/notifications", "/v1/notifications:watch"] {
        let refused = stranger.curl(path, &[]);
        assert_eq!((401, 16), (refused.status, code(&refused)), "{refused:?}");
    }
}

fn what_is_wrong_is_told(customer: &Customer, order: &str) {
    let stranger = Customer {
        url: customer.url.clone(),
        token: String::new(),
    };
    let path = format!("/v1/orders/{order}");
    let unknown = "/v1/orders/00000000-0000-4000-8000-000000000000";
    let broken = r#"{"requestId": "x", "lines": [{"sku": "JSON-1", "quantity": "many"}]}"#;
    for (who, path, arguments, status, code) in [
        (&stranger, path.as_str(), &[][..], 401, 16),
        (customer, unknown, &[], 404, 5),
        (customer, "/v1/orders/x", &[], 400, 3),
        (customer, "/v1/orders", &["--json", broken], 400, 3),
        (customer, "/v1/nowhere", &[], 404, 5),
        (customer, "/v1/orders", &["-X", "DELETE"], 405, 12),
        // What services ask each other is not to be had here.
        (customer, "/v1/reservations", &["--json", "{}"], 404, 5),
    ] {
        let answer = who.curl(path, arguments);
        assert_eq!(
            (status, code),
            (answer.status, self::code(&answer)),
            "{path}: {answer:?}"
        );
    }
    let told = customer.curl("/v1/orders", &["--json", broken]);
    let field = &told.json()["details"][0]["fieldViolations"][0]["field"];
    assert_eq!("lines[0].quantity", *field, "{told:?}");
}

/// Goal: the lines of README.md do what it says.
/// Method: those with curl in a shell, at the address of a gateway of this test.
#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_the_readme_shop_by_json() {
    if !curl() {
        return;
    }
    let system = System::up(&[]);
    let readme = fs::read_to_string(tools::root().join("README.md")).expect("it is there");
    let (_, lines) = readme.split_once("```sh\nAPI=").expect("lines of JSON");
    let (lines, _) = lines.split_once("```").expect("their end");
    let lines = format!("API={lines}");
    let gateway = system.address("gateway");
    assert!(lines.contains("127.0.0.1:8080"), "{lines}");
    let lines = lines.replace("127.0.0.1:8080", &gateway);
    let said = wait::until("the gateway to know the shop", SOON, async || {
        let output = tools::output(Command::new("bash").args(["-c", &lines]));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // The watch goes on after that; curl ends it.
        said.contains("ORDER_STATE_CONFIRMED").then_some(said)
    })
    .await;
    for expected in ["grace@example.com", "\"products\"", "\"orderId\""] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
}
