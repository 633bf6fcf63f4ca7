//! What a target allows, against all that ever happened, counted anew each time.

use proptest::{collection::vec, prelude::*};
use tokio::runtime;

use super::*;

/// What happens to both.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// So many milliseconds pass.
    Wait(u64),
    /// A call is made.
    Call,
    /// One is to be tried again.
    Retry,
    /// One is to be hedged.
    Hedge,
    /// An attempt failed.
    Failed,
    /// An attempt succeeded.
    Succeeded,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..400_u64).prop_map(Step::Wait),
        1 => (0..15_000_u64).prop_map(Step::Wait),
        8 => Just(Step::Call),
        8 => Just(Step::Retry),
        3 => Just(Step::Hedge),
        4 => Just(Step::Failed),
        6 => Just(Step::Succeeded),
    ]
}

/// Hedges for each call.
const HEDGES: f64 = 0.05;

/// Slices of a window, as it is kept.
const SLICES: u64 = 10;

/// All that ever happened, by the slice of time it happened in.
#[derive(Debug)]
struct Model {
    share: Share,
    now: u64,
    calls: Vec<u64>,
    retries: Vec<u64>,
    hedges: Vec<u64>,
    /// In thousandths.
    tokens: u32,
}

impl Model {
    fn slice(&self) -> u64 {
        let window = u64::try_from(self.share.window.as_millis()).unwrap();
        self.now / (window / SLICES)
    }

    #[allow(clippy::cast_precision_loss)]
    fn lately(&self, happened: &[u64]) -> f64 {
        let last = self.slice();
        let lately = happened.iter().filter(|slice| **slice + SLICES > last);
        lately.count() as f64
    }

    fn retried(&mut self) -> bool {
        let seconds = self.share.window.as_secs_f64();
        let most =
            self.share.ratio * self.lately(&self.calls) + f64::from(self.share.reserve) * seconds;
        let fits = self.lately(&self.retries) + 1.0 <= most;
        if fits {
            self.retries.push(self.slice());
        }
        fits
    }

    fn hedged(&mut self) -> bool {
        let most = HEDGES * self.lately(&self.calls) + self.share.window.as_secs_f64();
        let fits = self.lately(&self.hedges) + 1.0 <= most;
        if fits {
            self.hedges.push(self.slice());
        }
        fits
    }

    fn failed(&mut self) -> bool {
        self.tokens = self.tokens.saturating_sub(1_000);
        self.tokens > 5_000
    }
}

fn check(share: Share, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let began = Instant::now();
    let (budget, tokens) = (Budget::new(share), Tokens::default());
    let mut model = Model {
        share,
        now: 0,
        calls: Vec::new(),
        retries: Vec::new(),
        hedges: Vec::new(),
        tokens: 10_000,
    };
    for step in steps {
        let now = began + Duration::from_millis(model.now);
        match step {
            Step::Wait(millis) => model.now += millis,
            Step::Call => {
                budget.call(now);
                model.calls.push(model.slice());
            }
            Step::Retry => prop_assert_eq!(model.retried(), budget.withdraw(now)),
            Step::Hedge => prop_assert_eq!(model.hedged(), budget.withdraw_hedge(HEDGES, now)),
            Step::Failed => prop_assert_eq!(model.failed(), tokens.failed()),
            Step::Succeeded => {
                tokens.succeeded();
                model.tokens = (model.tokens + 100).min(10_000);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Goal: budget and tokens allow what they promise, whatever happens and whenever.
    /// Method: calls, retries, hedges and ends at random times, put to both.
    #[test]
    fn what_is_allowed_is_what_is_promised(
        ratio in prop_oneof![Just(0.0), Just(0.1), Just(0.2), Just(1.0)],
        reserve in 0..4_u32,
        seconds in 1..20_u64,
        steps in vec(step(), 1..400),
    ) {
        let share = Share { ratio, reserve, window: Duration::from_secs(seconds) };
        // Its clock stands still: slices of both begin together.
        let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async { check(share, steps) })?;
    }
}
