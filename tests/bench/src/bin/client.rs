//! Calls the echo by either stack: `bench-client tonic|gantry ADDRESS CALLS CALLERS [median|rate]`.
//!
//! Prints the CPU time it took, in microseconds; or how long half of the calls took at most; or how
//! many ended in a second. The clock is read for those two alone: it cannot be under callgrind, see
//! `cpu_micros`.

use std::{collections::BTreeMap, error::Error, time::Duration};

use gantry::{
    client::{Channel, Clients, Config},
    journal::Journal,
    shutdown::Tasks,
};
use gantry_bench::{
    Stack, cpu_micros, observed, print,
    proto::{EchoRequest, bench_service_client::BenchServiceClient},
};
use tokio::{
    task::{JoinSet, LocalSet},
    time::Instant,
};
use tonic::transport::Endpoint;

const PAYLOAD: usize = 16;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let ([stack, address, calls, callers] | [stack, address, calls, callers, _]) =
        arguments.as_slice()
    else {
        let usage = "usage: bench-client tonic|gantry ADDRESS CALLS CALLERS [median|rate]";
        return Err(usage.into());
    };
    let median = arguments.get(4).is_some_and(|word| word == "median");
    let timed = arguments.get(4).is_some_and(|word| word == "rate");
    let (calls, callers): (usize, usize) = (calls.parse()?, callers.parse()?);
    let mut rate = None;
    match stack.parse()? {
        Stack::Tonic => {
            let channel = Endpoint::new(format!("http://{address}"))?
                .connect()
                .await?;
            if median {
                print(median_of(BenchServiceClient::new(channel), calls).await);
                return Ok(());
            }
            let caller = |left| call_tonic(BenchServiceClient::new(channel.clone()), left);
            if timed {
                rate = Some(rate_of(calls, callers, caller).await);
            } else {
                run(calls, callers, caller).await;
            }
        }
        Stack::Gantry => {
            let configs = BTreeMap::from([("bench".to_owned(), Config::to(address))]);
            let journal = Journal::new();
            let tasks = Tasks::new(journal.clone());
            observed(&tasks)?;
            let clients = Clients::new(configs, tasks, journal);
            let client: BenchServiceClient<Channel> = clients.client("bench");
            let caller = |left| call_gantry(client.clone(), left);
            if timed {
                rate = Some(rate_of(calls, callers, caller).await);
            } else {
                run(calls, callers, caller).await;
            }
        }
    }
    print(rate.unwrap_or_else(cpu_micros));
    Ok(())
}

/// How many of `calls` end in a second, once a tenth as many have been made.
async fn rate_of<F>(calls: usize, callers: usize, caller: impl Fn(usize) -> F) -> u64
where
    F: Future<Output = ()> + 'static,
{
    // Until everything is connected and in caches.
    run(calls / 10, callers, &caller).await;
    let began = Instant::now();
    run(calls, callers, caller).await;
    let micros = began.elapsed().as_micros().max(1);
    let rate = calls as u128 * 1_000_000 / micros;
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Divides `calls` among `callers`, each making its share one after another.
async fn run<F>(calls: usize, callers: usize, caller: impl Fn(usize) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let local = LocalSet::new();
    local
        .run_until(async {
            let mut running = JoinSet::new();
            for number in 0..callers {
                let share = calls / callers + usize::from(number < calls % callers);
                running.spawn_local(caller(share));
            }
            while let Some(ended) = running.join_next().await {
                ended.expect("no caller fails");
            }
        })
        .await;
}

async fn call_tonic(mut client: BenchServiceClient<tonic::transport::Channel>, calls: usize) {
    for _ in 0..calls {
        let request = EchoRequest {
            payload: vec![7; PAYLOAD],
        };
        client.echo(request).await.expect("no call fails");
    }
}

/// Microseconds that half of `calls` take at most, one after the other.
async fn median_of(client: BenchServiceClient<tonic::transport::Channel>, calls: usize) -> u128 {
    // Until everything is connected and in caches.
    call_tonic(client.clone(), calls / 10).await;
    let mut took = Vec::with_capacity(calls);
    for _ in 0..calls {
        let began = Instant::now();
        call_tonic(client.clone(), 1).await;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    took.get(calls / 2).map_or(0, Duration::as_micros)
}

async fn call_gantry(mut client: BenchServiceClient<Channel>, calls: usize) {
    for _ in 0..calls {
        let request = EchoRequest {
            payload: vec![7; PAYLOAD],
        };
        client.echo(request).await.expect("no call fails");
    }
}
