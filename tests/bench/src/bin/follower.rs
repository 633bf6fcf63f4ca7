//! A client that follows a name with many endpoints: `bench-follower ETCD COUNT`.
//!
//! Prints a line when `COUNT` endpoints are ready, then answers lines on its input: `pick CALLS` by
//! the nanoseconds of CPU time that a pick took on average, `place CALLS` by those of a place for a
//! call. Ends with its input.

use std::{error::Error, sync::Arc, time::Duration};

use gantry::{
    balance::{self, Balancer, Builder, NoEndpoint},
    config::Live,
    discovery::{
        Layout,
        etcd::{Etcd, Resolver},
    },
    journal::Journal,
    shutdown::Tasks,
    transport::subchannel::{CONNECTS_MAX, Common, Connectivity, Tcp},
};
use gantry_bench::{NAME, etcd_channel, observed, print};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    sync::{Notify, Semaphore},
    task,
    time::{self, Instant},
};

/// Longest wait for all endpoints.
const READY_MAX: Duration = Duration::from_mins(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [etcd, count] = arguments.as_slice() else {
        return Err("usage: bench-follower ETCD COUNT".into());
    };
    let tasks = Tasks::new(Journal::new());
    observed(&tasks)?;
    let balancer = follow(etcd, tasks);
    ready(&balancer, count.parse()?).await?;
    print("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let (what, calls) = line.split_once(' ').ok_or("expected WHAT CALLS")?;
        let calls = calls.parse()?;
        let took = match what {
            "pick" => pick(&balancer, calls),
            "place" => task::unconstrained(place(&balancer, calls)).await?,
            other => return Err(format!("{other} is neither pick nor place").into()),
        };
        print(took.as_nanos() / u128::from(calls.max(1)));
    }
    Ok(())
}

/// As a process has it: one watch of the name, one subchannel to each endpoint.
fn follow(etcd: &str, tasks: Tasks) -> Balancer {
    let journal = Journal::new();
    let etcd = Etcd::new(etcd_channel(etcd), None, Duration::from_secs(5));
    let resolver = Resolver::new(etcd, Layout::Etcd, None, tasks.clone(), journal.clone());
    let builder = Builder {
        name: NAME.into(),
        authority: None,
        fail_fast: Duration::from_secs(5),
        common: Common {
            config: Arc::default(),
            connector: Arc::new(Tcp),
            tasks,
            on_change: Arc::new(Notify::new()),
            connects: Arc::new(Semaphore::new(CONNECTS_MAX)),
        },
        journal,
        // Each of them, however many: their number is what is measured.
        config: Live::fixed(balance::Config {
            subset_size: 0,
            ..balance::Config::default()
        }),
        zone: None,
        seed: Builder::process_seed(),
    };
    Balancer::start(builder, Arc::new(resolver), NAME)
}

async fn ready(balancer: &Balancer, count: usize) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let endpoints = balancer.endpoints();
        let ready = endpoints
            .iter()
            .filter(|endpoint| endpoint.connectivity == Connectivity::Ready)
            .count();
        if ready == count {
            return Ok(());
        }
        if begun.elapsed() > READY_MAX {
            return Err(format!(
                "{ready} of {count} endpoints are ready: {:?}",
                endpoints.iter().find_map(|it| it.error.clone())
            ));
        }
        time::sleep(Duration::from_millis(20)).await;
    }
}

/// How long `calls` picks take, each let go of a while later and out of the time taken.
fn pick(balancer: &Balancer, calls: u32) -> Duration {
    const AT_ONCE: usize = 100;
    let mut picked = Vec::with_capacity(AT_ONCE);
    let mut took = Duration::ZERO;
    let mut left = calls as usize;
    while left > 0 {
        let now = left.min(AT_ONCE);
        let begun = cpu_time();
        picked.extend((0..now).map(|_| balancer.pick()));
        took += cpu_time().saturating_sub(begun);
        picked.clear();
        left -= now;
    }
    took
}

/// How long `calls` places take, each given back before the next.
async fn place(balancer: &Balancer, calls: u32) -> Result<Duration, NoEndpoint> {
    let begun = cpu_time();
    for _ in 0..calls {
        drop(balancer.place().await?);
    }
    Ok(cpu_time().saturating_sub(begun))
}

/// CPU time of this thread: others on its core do not count.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.try_into().expect("time does not run backwards")
}
