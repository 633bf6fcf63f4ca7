//! Calls the echo by either stack: `bench-client tonic|gantry ADDRESS CALLS CALLERS`.
//!
//! Prints the CPU time it took, in microseconds.

use std::{collections::BTreeMap, error::Error};

use gantry::{
    client::{Channel, Clients, Config},
    journal::Journal,
    shutdown::Tasks,
};
use gantry_bench::{
    Stack, cpu_micros, observed, print,
    proto::{EchoRequest, bench_service_client::BenchServiceClient},
};
use tokio::task::{JoinSet, LocalSet};
use tonic::transport::Endpoint;

const PAYLOAD: usize = 16;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [stack, address, calls, callers] = arguments.as_slice() else {
        return Err("usage: bench-client tonic|gantry ADDRESS CALLS CALLERS".into());
    };
    let (calls, callers): (usize, usize) = (calls.parse()?, callers.parse()?);
    match stack.parse()? {
        Stack::Tonic => {
            let channel = Endpoint::new(format!("http://{address}"))?
                .connect()
                .await?;
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

async fn call_gantry(mut client: BenchServiceClient<Channel>, calls: usize) {
    for _ in 0..calls {
        let request = EchoRequest {
            payload: vec![7; PAYLOAD],
        };
        client.echo(request).await.expect("no call fails");
    }
}
