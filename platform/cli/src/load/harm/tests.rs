use std::cell::RefCell;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Does nothing but write down what it is asked for, and when.
struct Written {
    began: Instant,
    lines: RefCell<Vec<String>>,
    /// Whom it cannot harm, and whom it cannot heal.
    stubborn: (&'static str, &'static str),
    takes: Duration,
}

impl Written {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            lines: RefCell::default(),
            stubborn: ("", ""),
            takes: Duration::ZERO,
        }
    }

    fn write(&self, what: &str, whom: &str) {
        let at = self.began.elapsed().as_secs_f64();
        self.lines.borrow_mut().push(format!("{at} {what} {whom}"));
    }
}

impl Hand for Written {
    type Held = Vec<String>;

    async fn harm(
        &self,
        planned: &Planned,
        _: Duration,
        held: &mut Vec<String>,
    ) -> Result<(), Failure> {
        held.push(planned.whom.clone());
        time::sleep(self.takes).await;
        if planned.whom == self.stubborn.0 {
            return Err(Failure::failed("it refuses"));
        }
        self.write("harm", &planned.whom);
        Ok(())
    }

    async fn heal(&self, planned: &Planned, held: Vec<String>) -> Result<(), Failure> {
        assert_eq!(vec![planned.whom.clone()], held);
        self.write("heal", &planned.whom);
        if planned.whom == self.stubborn.1 {
            return Err(Failure::failed("it is away"));
        }
        Ok(())
    }
}

fn planned(whom: &str, at: u64, seconds: u64) -> Planned {
    Planned {
        place: "load.toml:1".to_owned(),
        whom: whom.to_owned(),
        at: SECOND * u32::try_from(at).unwrap(),
        time: Duration::from_secs(seconds),
        harm: Harm::Stop,
    }
}

/// Runs what is planned, and stops after so many seconds.
async fn stopped_after(hand: &Written, planned: &[Planned], seconds: u64) -> Vec<Done> {
    let stop = watch::Sender::new(false);
    let stopped = stop.subscribe();
    let began = hand.began;
    let running = run(planned, began, hand, &stopped, |_| {});
    let stopping = async {
        time::sleep(Duration::from_secs(seconds)).await;
        stop.send_replace(true);
    };
    tokio::join!(running, stopping).0
}

/// Goal: each fault is on in its time and no longer, in whatever order they are written.
/// Method: three, two of which overlap.
#[tokio::test(start_paused = true)]
async fn faults_are_on_in_their_time() {
    let hand = Written::new();
    let all = [planned("b", 3, 4), planned("a", 1, 3), planned("c", 8, 1)];
    let done = stopped_after(&hand, &all, 60).await;
    let expected = [
        "1 harm a", "3 harm b", "4 heal a", "7 heal b", "8 harm c", "9 heal c",
    ];
    assert_eq!(expected, hand.lines.borrow()[..]);
    let times: Vec<_> = done.iter().map(|it| (it.from, it.until)).collect();
    let at = |seconds: u64| Some(Duration::from_secs(seconds));
    assert_eq!(vec![(at(3), at(7)), (at(1), at(4)), (at(8), at(9))], times);
    assert!(done.iter().all(|it| it.error.is_none()), "{done:?}");
}

/// Goal: when a run is over or cut short, everything that is on is undone at once, and nothing more
/// is done.
/// Method: stopped while one is on, one is being switched on, and one is to come.
#[tokio::test(start_paused = true)]
async fn the_end_undoes_everything() {
    let mut hand = Written::new();
    hand.takes = SECOND;
    let all = [planned("a", 1, 60), planned("b", 4, 60), planned("c", 9, 1)];
    let begun = Instant::now();
    let stop = watch::Sender::new(false);
    let stopped = stop.subscribe();
    let running = run(&all, hand.began, &hand, &stopped, |_| {});
    let stopping = async {
        time::sleep(4_500 * SECOND / 1_000).await;
        stop.send_replace(true);
    };
    let (done, ()) = tokio::join!(running, stopping);
    let expected = ["2 harm a", "4.5 heal a", "5 harm b", "5 heal b"];
    assert_eq!(expected, hand.lines.borrow()[..]);
    assert_eq!(5 * SECOND, begun.elapsed());
    assert_eq!(
        (None, None, None),
        (done[2].from, done[2].until, done[2].error.clone())
    );
}

/// Goal: what failed half way is undone all the same, and told; as is what cannot be undone.
/// Method: one that cannot be harmed, one that cannot be healed, and one of which nothing is heard.
#[tokio::test(start_paused = true)]
async fn failures_are_undone_and_told() {
    let mut hand = Written::new();
    hand.stubborn = ("a", "b");
    let all = [planned("a", 1, 3), planned("b", 2, 3)];
    let told = RefCell::new(Vec::new());
    let stop = watch::Sender::new(false);
    let stopped = stop.subscribe();
    let tell = |line: &str| told.borrow_mut().push(line.to_owned());
    let done = run(&all, hand.began, &hand, &stopped, tell).await;
    assert_eq!(
        ["1 heal a", "2 harm b", "5 heal b"],
        hand.lines.borrow()[..]
    );
    assert_eq!(
        (None, Some("it refuses")),
        (done[0].from, done[0].error.as_deref())
    );
    assert_eq!(Some("not undone: it is away"), done[1].error.as_deref());
    assert_eq!(
        [
            "a: not stopped: it refuses",
            "b: stopped",
            "b: still stopped: it is away"
        ],
        told.borrow()[..]
    );

    let mut hand = Written::new();
    hand.takes = SECOND * 3_600;
    let done = run(&[planned("a", 1, 3)], hand.began, &hand, &stopped, |_| {}).await;
    assert_eq!(Some("no answer after 10s"), done[0].error.as_deref());
    assert_eq!(["11 heal a"], hand.lines.borrow()[..]);
}

/// Goal: whoever could stop it being gone is an end, too.
/// Method: the sender is dropped while a fault is on.
#[tokio::test(start_paused = true)]
async fn an_end_without_a_word_undoes_everything() {
    let hand = Written::new();
    let stop = watch::Sender::new(false);
    let stopped = stop.subscribe();
    let all = [planned("a", 1, 60)];
    let ending = async {
        time::sleep(2 * SECOND).await;
        drop(stop);
    };
    tokio::join!(run(&all, hand.began, &hand, &stopped, |_| {}), ending);
    assert_eq!(["1 harm a", "2 heal a"], hand.lines.borrow()[..]);
}
