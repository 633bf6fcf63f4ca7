//! The page docs/performance.md.

use std::fmt::Write as _;

use gantry_bench::Stack;

use crate::measure::Side;

/// Everything measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// Instructions per call.
    pub(crate) instructions: Vec<(Side, Stack, f64)>,
    /// CPU microseconds per call, tonic and gantry in turn.
    pub(crate) times: Vec<(Side, Vec<(f64, f64)>)>,
}

/// The page, whole.
pub(crate) fn page(results: &Results) -> String {
    let mut page = String::from(HEAD);
    page.push_str(
        "| side | bare tonic | gantry | ratio | target |\n| --- | --: | --: | --: | --: |\n",
    );
    for side in [Side::Server, Side::Client] {
        let of = |stack| {
            let found = results
                .instructions
                .iter()
                .find(|row| row.0 == side && row.1 == stack);
            found.map_or(f64::NAN, |row| row.2)
        };
        let (tonic, gantry) = (of(Stack::Tonic), of(Stack::Gantry));
        let target = if side == Side::Server { "1.05" } else { "1.00" };
        let ratio = gantry / tonic;
        writeln!(
            page,
            "| {side} | {tonic:.0} | {gantry:.0} | {ratio:.3} | ≤ {target} |"
        )
        .expect("a string takes all");
    }
    page.push_str(TIMES);
    for (side, pairs) in &results.times {
        let tonic = Spread::of(pairs.iter().map(|pair| pair.0));
        let gantry = Spread::of(pairs.iter().map(|pair| pair.1));
        let ratio = Spread::of(pairs.iter().map(|pair| pair.1 / pair.0));
        writeln!(
            page,
            "| {side} | {} | {tonic} | {gantry} | {ratio} |",
            pairs.len()
        )
        .expect("a string takes all");
    }
    page
}

const HEAD: &str = "\
# Performance

What one unary call costs, the chassis beside bare tonic: an echo of 16 bytes, release build. Written by
`cargo run --release -p gantry-bench --bin bench`; do not edit.

Gantry's side carries all it carries in production: the span, metrics, deadlines, message limits, rescue; a health
watch and a picker on the client. No trace exporter is set up. tonic's side is its own server or channel with its
defaults. The other end of each run is always tonic's.

## Instructions

User-space instructions per call, by callgrind: the difference of a run of 2,500 calls and one of 500, so start-up
cancels out. They do not depend on what else the machine does.

";

const TIMES: &str = "
## CPU time

Microseconds of CPU time (user and system) per call, server and client pinned to a core each, 32 callers on one
connection, the two stacks in turn: median (least to most). The machine is shared; trust the ratio, not the figure.

| side | pairs | bare tonic | gantry | ratio |
| --- | --: | --: | --: | --: |
";

/// Median, least and most.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 if middle > 0 => f64::midpoint(values[middle - 1], values[middle]),
            0 => f64::NAN,
            _ => values[middle],
        };
        Self {
            least: values.first().copied().unwrap_or(f64::NAN),
            median,
            most: values.last().copied().unwrap_or(f64::NAN),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.2} ({:.2} to {:.2})",
            self.median, self.least, self.most
        )
    }
}
