//! The shop found through etcd by clients of other families, unchanged.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use gantry_harness::{
    etcd::{Etcd, Version, ctl, keys},
    system::System,
    tools,
    wait::{self, SOON},
};
use serde_json::Value;

/// Goal: whoever asks etcd sees who is there, in the local one and in a real one.
/// Method: `etcdctl get --prefix ""` on both, beside what `gantry ps` and `gantry ls` say.
#[tokio::test]
async fn etcdctl_shows_who_is_registered() {
    let Some(real) = Etcd::start(Version::V36).await else {
        return;
    };
    for arguments in [vec![], vec!["--etcd".to_owned(), real.url()]] {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let system = System::up(&arguments);
        let mut expected: Vec<_> = system
            .instances()
            .iter()
            // These are known by their addresses.
            .filter(|it| !["bank", "gateway"].contains(&it.name.as_str()))
            .map(|it| format!("{}/{}", it.name, it.address))
            .collect();
        expected.sort_unstable();
        assert_eq!(Some(expected.clone()), keys(&system.etcd(), ""));
        let got = ctl(
            &system.etcd(),
            &["get", "--prefix", "", "--print-value-only"],
        );
        for value in String::from_utf8_lossy(&got.stdout).lines() {
            let value: Value = serde_json::from_str(value).expect("JSON");
            assert!(value["Addr"].is_string() && value["Op"] == 0, "{value}");
        }
        let rows: Value = listed(&system);
        let rows = rows.as_array().expect("an array");
        let mut seen: Vec<_> = rows
            .iter()
            .map(|row| {
                assert!(
                    row["lease_ttl_seconds"].as_i64().is_some_and(|ttl| ttl > 0),
                    "{row}"
                );
                assert!(
                    row["instance"].as_str().is_some_and(|it| !it.is_empty()),
                    "{row}"
                );
                let text = |key: &str| row[key].as_str().expect("text").to_owned();
                format!("{}/{}", text("service"), text("address"))
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(expected, seen);
    }
}

fn listed(system: &System) -> Value {
    let listed = system.gantry(&["ls", "--output", "json"]);
    assert!(listed.status.success(), "{listed:?}");
    serde_json::from_slice(&listed.stdout).expect("JSON")
}

/// A program that calls until its input ends.
struct Calling {
    child: Child,
}

impl Calling {
    fn start(program: &Path, etcd: &str, name: &str) -> Self {
        let mut child = Command::new(program)
            .args([etcd, name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start a client");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let first = lines.next().expect("a line").expect("text");
        assert_eq!("calling", first);
        Self { child }
    }

    fn finish(mut self) -> Value {
        // The end of its input is its signal.
        let mut input = self.child.stdin.take().expect("piped");
        input.flush().expect("it reads");
        drop(input);
        let output = self.child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

/// Goal: a grpc-go program that knows a name and etcd calls the service, and follows it through
/// changes of its size without a failed call.
/// Method: etcd's own resolver, round robin; scale from one to three and back; on both etcds.
#[tokio::test]
async fn grpc_go_follows_a_service() {
    let (Some(program), Some(real)) = (tools::find("grpcgo"), Etcd::start(Version::V36).await)
    else {
        return;
    };
    for arguments in [vec![], vec!["--etcd".to_owned(), real.url()]] {
        let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        arguments.extend(["--replicas", "orders=1"]);
        let system = System::up(&arguments);
        let calling = Calling::start(&program, &system.etcd(), "orders");
        let scale = |count: &str| {
            let scaled = system.gantry(&["scale", count]);
            assert!(scaled.status.success(), "{scaled:?}");
        };
        scale("orders=3");
        // Long enough for a turn of each.
        tokio::time::sleep(Duration::from_secs(2)).await;
        scale("orders=1");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let told = calling.finish();
        assert_eq!(Some(0), told["failed"].as_array().map(Vec::len), "{told}");
        assert_eq!(
            Some(3),
            told["peers"].as_object().map(serde_json::Map::len),
            "{told}"
        );
        assert!(
            told["calls"].as_u64().is_some_and(|calls| calls > 200),
            "{told}"
        );
    }
}

/// Goal: a go-zero client finds and calls the service through go-zero's own layout, beside which
/// all others stand.
/// Method: all layouts in real etcd 3.6 and in the local one; zrpc's client by its key.
#[tokio::test]
async fn go_zero_finds_its_layout() {
    let (Some(program), Some(real)) = (tools::find("zero"), Etcd::start(Version::V36).await) else {
        return;
    };
    for arguments in [vec![], vec!["--etcd".to_owned(), real.url()]] {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let system = System::up_with(
            &[("GANTRY_REGISTRATION__LAYOUTS", "etcd,go-zero,kratos,kitex")],
            &arguments,
        );
        let url = system.etcd();
        let host = url.strip_prefix("http://").expect("a URL");
        let told = tools::run(Command::new(&program).args([host, "orders.rpc"]));
        assert_eq!(
            20,
            told.lines().filter(|line| *line == "SERVING").count(),
            "{told}"
        );
        for prefix in ["/microservices/orders/", "kitex/registry-etcd/orders/"] {
            let there = wait::until(prefix, SOON, async || keys(&url, prefix)).await;
            assert_eq!(2, there.len(), "{prefix}");
        }
    }
}

/// Goal: a Python program calls an instance by the address that `gantry ls` gives.
/// Method: grpcio's health client.
#[tokio::test]
async fn python_calls_by_address() {
    let Some(python) = tools::find("python/bin/python") else {
        return;
    };
    let system = System::up(&[]);
    let rows = listed(&system);
    let rows = rows.as_array().expect("an array");
    let orders = rows.iter().find(|row| row["service"] == "orders");
    let address = orders
        .and_then(|row| row["address"].as_str())
        .expect("orders");
    let program = "import sys, grpc\n\
        from grpc_health.v1 import health_pb2 as pb, health_pb2_grpc as health\n\
        stub = health.HealthStub(grpc.insecure_channel(sys.argv[1]))\n\
        print(stub.Check(pb.HealthCheckRequest(service='shop.orders.v1.OrdersService')).status)\n";
    let told = tools::run(Command::new(python).args(["-c", program, address]));
    assert_eq!("1", told.trim());
}
