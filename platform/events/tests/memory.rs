//! The broker in memory: what every broker is held to.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use gantry_events::broker::{
    Broker,
    contract::{self, Running, Stand},
    memory::Memory,
};

#[derive(Debug)]
struct InMemory(Memory);

impl Stand for InMemory {
    fn client(&self) -> Arc<dyn Broker> {
        Arc::new(self.0.clone())
    }

    fn cut(&self) -> Running<'_, bool> {
        self.0.disconnect();
        self.0.reconnect();
        Box::pin(async { true })
    }

    /// It keeps everything, as one that is killed does.
    fn restart(&self) -> Running<'_, bool> {
        self.cut()
    }
}

/// Goal: the broker in memory does what every broker does, so that tests with it say something.
/// Method: run the suite against it.
#[tokio::test(start_paused = true)]
async fn it_keeps_the_contract() {
    contract::run(&InMemory(Memory::new(1))).await;
}
