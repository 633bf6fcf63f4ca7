//! A breaker against one that is too simple to be wrong.

use proptest::{collection::vec, prelude::*};

use super::*;

/// What happens to both.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// So many milliseconds pass.
    Wait(u64),
    /// A call is made.
    Call,
    /// One of those under way ends.
    End(usize, Verdict),
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        3 => Just(Verdict::Success),
        1 => Just(Verdict::Ignored),
        2 => (0..3_000_u64).prop_map(|ms| Verdict::Soft(Some(Duration::from_millis(ms)))),
        6 => Just(Verdict::Hard),
    ];
    prop_oneof![
        1 => (0..1_500_u64).prop_map(Step::Wait),
        1 => (0..50_u64).prop_map(Step::Wait),
        6 => Just(Step::Call),
        6 => (any::<usize>(), verdict).prop_map(|(which, verdict)| Step::End(which, verdict)),
    ]
}

fn settings() -> impl Strategy<Value = Config> {
    let rates = prop_oneof![Just(0.2), Just(0.5), Just(1.0)];
    let slow = prop_oneof![Just(0_u64), Just(200)];
    (0..5_u32, 1..8_u32, rates, slow).prop_map(|(failures_in_a_row, calls_min, rate, slow)| {
        Config {
            failures_in_a_row,
            calls_min,
            failure_rate: rate,
            slow_rate: rate,
            slow_call: Duration::from_millis(slow),
            window: SECOND,
            pause_min: Duration::from_millis(100),
            pause_max: Duration::from_secs(1),
            pause_jitter: 0.0,
            probe_time_max: Duration::from_millis(400),
            ..Config::default()
        }
    })
}

/// All that ever happened, asked anew each time; times in milliseconds.
#[derive(Debug)]
struct Model {
    config: Config,
    now: u64,
    is: Is,
    /// Counts every change, and never begins anew.
    period: usize,
    failed_probes: u32,
    row: u32,
    /// When calls of this period ended, whether they failed, and whether they were slow.
    ended: Vec<(u64, bool, bool)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Is {
    Closed,
    Open(u64),
    Trying(u64),
}

/// A call that passed: when, in which period, and whether to try again.
#[derive(Debug, Clone, Copy)]
struct Passed {
    at: u64,
    period: usize,
    tries: bool,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

impl Model {
    fn becomes(&mut self, is: Is) {
        self.is = is;
        self.period += 1;
        self.row = 0;
        self.ended.clear();
    }

    fn opens(&mut self, least: u64) {
        let pause = millis(self.config.pause_min) << self.failed_probes;
        let longest = millis(self.config.pause_max);
        self.becomes(Is::Open(self.now + pause.min(longest).max(least)));
    }

    fn admit(&mut self) -> Option<Passed> {
        let tries = match self.is {
            Is::Closed => false,
            Is::Open(until) | Is::Trying(until) if self.now < until => return None,
            Is::Open(_) | Is::Trying(_) => true,
        };
        if tries {
            self.becomes(Is::Trying(self.now + millis(self.config.probe_time_max)));
        }
        let (at, period) = (self.now, self.period);
        Some(Passed { at, period, tries })
    }

    fn end(&mut self, call: Passed, verdict: Verdict) {
        if call.period != self.period {
            return;
        }
        let slow_call = millis(self.config.slow_call);
        let slow = slow_call > 0 && self.now - call.at >= slow_call;
        if call.tries {
            match verdict {
                Verdict::Success if !slow => {
                    self.failed_probes = 0;
                    self.becomes(Is::Closed);
                }
                Verdict::Ignored => self.becomes(Is::Trying(0)),
                verdict => {
                    self.failed_probes += 1;
                    let asked = match verdict {
                        Verdict::Soft(Some(asked)) => asked.min(self.config.pause_max),
                        _ => Duration::ZERO,
                    };
                    self.opens(millis(asked));
                }
            }
            return;
        }
        match verdict {
            Verdict::Ignored => return,
            Verdict::Success => self.row = 0,
            Verdict::Hard => self.row += 1,
            _ => {}
        }
        self.ended
            .push((self.now, verdict != Verdict::Success, slow));
        let counts = self.counts();
        let row = self.config.failures_in_a_row;
        let in_a_row = verdict == Verdict::Hard && row > 0 && self.row >= row;
        let too_many = counts.calls >= self.config.calls_min.into()
            && (counts.failure_rate() >= self.config.failure_rate
                || counts.slow_rate() >= self.config.slow_rate);
        if in_a_row || too_many {
            self.failed_probes = 0;
            self.opens(0);
        }
    }

    fn counts(&self) -> Counts {
        let part = |at: u64| at / 100;
        let of = |&&(at, ..): &&(u64, bool, bool)| part(self.now) - part(at) < 10;
        let within: Vec<_> = self.ended.iter().filter(of).collect();
        let count = |what: fn(&(u64, bool, bool)) -> bool| {
            within.iter().filter(|it| what(it)).count() as u64
        };
        Counts {
            calls: count(|_| true),
            failed: count(|it| it.1),
            slow: count(|it| it.2),
        }
    }
}

fn check(steps: Vec<Step>, config: &Config) -> Result<(), TestCaseError> {
    let begin = Instant::now();
    let core = Core::new(begin);
    let mut model = Model {
        config: config.clone(),
        now: 0,
        is: Is::Closed,
        period: 0,
        failed_probes: 0,
        row: 0,
        ended: Vec::new(),
    };
    let mut under_way = Vec::new();
    for step in steps {
        let now = begin + Duration::from_millis(model.now);
        match step {
            Step::Wait(time) => model.now += time,
            Step::Call => {
                let expected = model.admit();
                let would = core.admits_at(now, config);
                let admitted = core.admit(now, config);
                prop_assert_eq!(expected.is_some(), admitted.is_ok());
                let tries = expected.is_some_and(|passed| passed.tries);
                prop_assert_eq!(expected.is_none(), matches!(would, Admits::No(_)));
                prop_assert_eq!(tries, would == Admits::Probe);
                if let (Some(passed), Ok(admission)) = (expected, admitted) {
                    prop_assert_eq!(passed.tries, admission.change.is_some());
                    under_way.push((passed, admission.ticket));
                }
            }
            Step::End(which, verdict) if !under_way.is_empty() => {
                let (passed, ticket) = under_way.swap_remove(which % under_way.len());
                let took = Duration::from_millis(model.now - passed.at);
                let before = model.period;
                model.end(passed, verdict);
                let ended = Ended { verdict, took, now };
                let change = core.end(ticket, ended, config);
                prop_assert_eq!(before != model.period, change.is_some());
            }
            Step::End(..) => {}
        }
        let now = begin + Duration::from_millis(model.now);
        let (state, until) = match model.is {
            Is::Closed => (State::Closed, None),
            Is::Open(until) => (State::Open, Some(until)),
            Is::Trying(until) => (State::HalfOpen, Some(until)),
        };
        let until = until.map(|until| begin + Duration::from_millis(until));
        prop_assert_eq!(state, core.state(config));
        prop_assert_eq!(until, core.next_probe_at());
        prop_assert_eq!(u64::from(model.row), core.failures_in_a_row());
        prop_assert_eq!(model.counts(), core.counts(now, config));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Goal: whatever happens in whatever order, the breaker does what its rules say.
    /// Method: arbitrary calls, ends and pauses, against the same rules written down naively.
    #[test]
    fn it_does_as_the_model_does(steps in vec(step(), 1..300), config in settings()) {
        check(steps, &config)?;
    }
}
