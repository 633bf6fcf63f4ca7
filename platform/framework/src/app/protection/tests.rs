use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::{self, Instant};

use super::*;
use crate::{
    config::Live,
    journal::Journal,
    limit::shed::Machine,
    server::{Router, Stack},
    shutdown::Tasks,
    transport::{
        memory,
        server::{Limits, Listener},
        wire::Wire,
    },
};

/// A machine whose memory is as the test says, in percent.
#[derive(Debug, Clone, Default)]
struct Told(Arc<AtomicU32>);

impl Machine for Told {
    fn cpu(&mut self, _: Duration) -> Option<f64> {
        None
    }

    fn memory(&mut self) -> Option<f64> {
        Some(f64::from(self.0.load(Ordering::Relaxed)) / 100.0)
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Goal: a process whose memory is short has its connections go in good order, one after the other, and
/// takes new ones; once it has memory again, those stay.
/// Method: ten connections and a machine that says 91, 92 and 85 percent; when each is told to go.
#[tokio::test(start_paused = true)]
async fn connections_become_fewer_while_memory_is_short() {
    let (connector, incoming) = memory::network();
    let limits = Limits::default().live();
    let listener = Listener::memory(incoming, limits.clone());
    let handle = listener.handle();
    let (machine, tasks) = (Told::default(), Tasks::new(Journal::new()));
    let shedder = Shedder::new(
        Live::fixed(crate::limit::shed::Config::default()),
        Cap::default(),
    );
    let thinning = thin(handle.clone(), shedder.short_of_memory(), tasks.stopping());
    tasks.spawn("connections", thinning);
    let watch = shedder.watch(machine.clone(), tasks.journal(), tasks.stopping());
    tasks.spawn("load", watch);
    let stack = Stack::new(Router::new(), limits);
    let protocols = stack.protocols();
    tasks.spawn("listener", listener.serve(stack, protocols, tasks.clone()));
    let connect = || async {
        let wire = Wire::over(connector.connect().await.unwrap()).await;
        wire.call(Wire::request("/no.Such/Method"), b"")
            .await
            .unwrap();
        wire
    };

    let mut wires = Vec::new();
    for _ in 0..10 {
        wires.push(connect().await);
    }
    machine.0.store(91, Ordering::Relaxed);
    time::sleep(SECOND * 60).await;
    assert_eq!(10, handle.counts().open);

    machine.0.store(92, Ordering::Relaxed);
    let began = Instant::now();
    let went = futures_util::future::join_all(wires.iter_mut().map(|wire| async {
        wire.ended().await.unwrap();
        began.elapsed()
    }))
    .await;
    let (first, last) = (went.iter().min().unwrap(), went.iter().max().unwrap());
    assert!(*last <= SECOND * 11, "{went:?}");
    assert!(*last >= *first + SECOND, "{went:?}");

    // One that comes is let be for a while, and stays if there is memory by then.
    let mut late = connect().await;
    time::sleep(SECOND * 9).await;
    assert_eq!(1, handle.counts().open);
    machine.0.store(85, Ordering::Relaxed);
    let stays = time::timeout(SECOND * 60, late.ended()).await;
    assert!(stays.is_err(), "{stays:?}");
    assert!(tasks.stop_within(SECOND * 5).await.is_empty());
}
