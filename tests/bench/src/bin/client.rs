//! Calls the echo by either stack: `bench-client tonic|gantry ADDRESS CALLS CALLERS [median]`.
//!
//! Prints the CPU time it took, in microseconds; or how long half of the calls took at most. The
//! clock is read for that alone: it cannot be under callgrind, see `cpu_micros`.

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
    let (stack, address, calls, callers, median) = match arguments.as_slice() {
        [stack, address, calls, callers] => (stack, address, calls, callers, false),
        [stack, address, calls, callers, word] if word == "median" => {
            (stack, address, calls, callers, true)
        }
        _ => {
            let usage = "usage: bench-client tonic|gantry ADDRESS CALLS CALLERS [median]";
            return Err(usage.into());
        }
    };
    let (calls, callers): (usize, usize) = (calls.parse()?, callers.parse()?);
    match stack.parse()? {
        Stack::Tonic => {
            let channel = Endpoint::new(format!("http://{address}"))?
                .connect()
                .await?;
            if median {
                print(median_of(BenchServiceClient::new(channel), calls).await);
                return Ok(());
            }
            run(calls, callers, |left| {
                call_tonic(BenchServiceClient::new(channel.clone()), left)
            })
            .await;
        }
        Stack::Gantry => {
            let configs = BTreeMap::from([("bench".to_owned(), Config::to(address))]);
            let journal = Journal::new();
            let tasks = Tasks::new(journal.clone());
            observed(&tasks)?;
            let clients = Clients::new(configs, tasks, journal);
            let client: BenchServiceClient<Channel> = clients.client("bench");
            run(calls, callers, |left| call_gantry(client.clone(), left)).await;
        }
    }
    print(cpu_micros());
    Ok(())
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
