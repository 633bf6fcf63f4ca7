//! A registry with many entries of one name, and the servers they stand for, all in this process:
//! `bench-registry COUNT`.
//!
//! Prints etcd's address, then obeys lines on its input, each answered when it is done:
//! `change SECONDS` changes attributes of entries, `replace SECONDS` takes entries away and puts
//! them back, both [`RATE`] times a second. Ends with its input.

use std::{error::Error, net::SocketAddr, time::Duration};

use etcd_client::{Channel, Client};
use gantry::{
    discovery::{Announcement, Layout},
    journal::Journal,
    server::{Router, Stack as Layers},
    shutdown::Tasks,
    transport::server::{self, Limits, Listener, Protocols},
};
use gantry_api::health::v1::health_server::HealthServer;
use gantry_bench::{
    Echo, Healthy, NAME, RATE, etcd_channel, print, proto::bench_service_server::BenchServiceServer,
};
use gantry_local::etcd::{self, Etcd};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    task::LocalSet,
    time,
};
use tower::util::BoxCloneSyncService;

/// How many replacements an entry stays away.
const AWAY: usize = RATE / 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let count = std::env::args().nth(1).unwrap_or_default().parse()?;
    Box::pin(LocalSet::new().run_until(run(count))).await
}

async fn run(count: usize) -> Result<(), Box<dyn Error>> {
    let tasks = Tasks::new(Journal::new());
    let etcd = Etcd::open(etcd::Config::default())?;
    let address = etcd.handle().address();
    tokio::task::spawn_local(etcd.run(tasks.clone()));
    let channel = Channel::Custom(BoxCloneSyncService::new(etcd_channel(&address.to_string())));
    let mut entries = Entries {
        client: Client::from_channel(channel, None).await?,
        addresses: (0..count)
            .map(|_| serve(&tasks))
            .collect::<Result<_, _>>()?,
        version: 0,
    };
    for number in 0..count {
        entries.put(number).await?;
    }
    print(address);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let (what, seconds) = line.split_once(' ').ok_or("expected WHAT SECONDS")?;
        let steps = RATE * seconds.parse::<usize>()?;
        match what {
            "change" => entries.change(steps).await?,
            "replace" => entries.replace(steps).await?,
            other => return Err(format!("{other} is neither change nor replace").into()),
        }
        print(what);
    }
    Ok(())
}

/// A server on a port of its own.
fn serve(tasks: &Tasks) -> Result<SocketAddr, Box<dyn Error>> {
    let limits = Limits::default().live();
    let listener = Listener::bind(&server::Config::default(), limits.clone())?;
    let address = listener.handle().local_addr().ok_or("no address")?;
    let router = Router::new().add(BenchServiceServer::new(Echo));
    let health = HealthServer::new(Healthy);
    let router = router.add_plain(health, gantry_api::health::v1::DESCRIPTORS)?;
    let layers = Layers::new(router, limits);
    tokio::task::spawn_local(listener.serve(layers, Protocols::Http2, tasks.clone()));
    Ok(address)
}

/// The entries of the name.
struct Entries {
    client: Client,
    addresses: Vec<SocketAddr>,
    version: usize,
}

impl Entries {
    /// Changes one entry after another.
    async fn change(&mut self, steps: usize) -> Result<(), Box<dyn Error>> {
        let mut ticks = ticks();
        for step in 0..steps {
            ticks.tick().await;
            self.version += 1;
            self.put(step % self.addresses.len()).await?;
        }
        Ok(())
    }

    /// Takes one entry after another away, and puts each back a while later.
    async fn replace(&mut self, steps: usize) -> Result<(), Box<dyn Error>> {
        let mut ticks = ticks();
        for step in 0..steps / 2 + AWAY {
            if step < steps / 2 {
                ticks.tick().await;
                let (key, _) = self.entry(step % self.addresses.len());
                self.client.delete(key, None).await?;
            }
            if let Some(back) = step.checked_sub(AWAY) {
                ticks.tick().await;
                self.put(back % self.addresses.len()).await?;
            }
        }
        Ok(())
    }

    async fn put(&mut self, number: usize) -> Result<(), Box<dyn Error>> {
        let (key, value) = self.entry(number);
        self.client.put(key, value, None).await?;
        Ok(())
    }

    fn entry(&self, number: usize) -> (String, String) {
        Layout::Etcd.encode(&Announcement {
            name: NAME.to_owned(),
            address: self.addresses[number].to_string(),
            instance: format!("bench-{number}"),
            version: self.version.to_string(),
            zone: Some("a".to_owned()),
            weight_percent: 100,
            start_time: 1_700_000_000,
            services: vec!["bench.v1.BenchService".to_owned()],
            tls: false,
        })
    }
}

fn ticks() -> time::Interval {
    let pause = Duration::from_secs(1) / u32::try_from(RATE).expect("a small number");
    time::interval(pause)
}
