//! An OTLP receiver for scripts: prints its address, then a line per span, until it is ended.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use gantry_harness::collector::Collector;
use tokio::time;

/// How often it looks for spans that are not printed yet.
const INTERVAL: Duration = Duration::from_millis(50);

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let collector = Collector::start().await;
    let mut output = io::stdout();
    writeln!(output, "{}", collector.address)?;
    let mut printed = 0;
    loop {
        let spans = collector.spans();
        for received in &spans[printed..] {
            writeln!(output, "{} {}", received.service, received.span.name)?;
        }
        printed = spans.len();
        output.flush()?;
        time::sleep(INTERVAL).await;
    }
}
