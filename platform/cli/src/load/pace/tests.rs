use std::cell::Cell;

use tonic::Code;

use super::{
    super::{exchange::Volume, rates::Stage},
    *,
};

const MS: Duration = Duration::from_millis(1);

/// A server that answers after `latency`, but for a stall: what reaches it then waits for the end
/// of the stall.
struct Server {
    began: Instant,
    latency: Duration,
    stall: Option<(Duration, Duration)>,
}

fn fine() -> Ended {
    Ended {
        code: Code::Ok,
        message: String::new(),
        endpoint: None,
        first_message: None,
        sent: Volume::default(),
        received: Volume::default(),
        kept: Vec::new(),
        steps: Vec::new(),
    }
}

impl Calls for Server {
    fn prepare(&mut self, _: u64) -> (usize, impl Future<Output = Ended> + use<>) {
        let (began, latency, stall) = (self.began, self.latency, self.stall);
        let call = async move {
            if let Some((from, to)) = stall
                && (from..to).contains(&began.elapsed())
            {
                time::sleep_until(began + to).await;
            }
            time::sleep(latency).await;
            fine()
        };
        (0, call)
    }
}

fn open(rate: f64, in_flight_max: usize) -> Pace {
    Pace::Open {
        rates: Rates::Constant(rate),
        in_flight_max,
    }
}

fn for_seconds(seconds: u64) -> Limits {
    Limits {
        duration: Some(Duration::from_secs(seconds)),
        count: None,
        linger: Duration::from_secs(5),
    }
}

async fn against(
    latency: Duration,
    stall: Option<(Duration, Duration)>,
    pace: Pace,
    limits: Limits,
) -> (Tally, Finished) {
    let mut server = Server {
        began: Instant::now(),
        latency,
        stall,
    };
    let (_sender, mut interrupts) = mpsc::channel(1);
    let tally = RefCell::new(Tally::new(vec![0]));
    let finished = run(
        &pace,
        limits,
        &mut server,
        &tally,
        &mut interrupts,
        |_| {},
        || {},
    )
    .await;
    (tally.into_inner(), finished)
}

/// Goal: nothing of a stall is left out: a call that came due during it counts all of its wait.
/// Method: 100 calls a second for four seconds, a server that stalls for the third; every call was
/// sent when due, and the hundred of the stall waited from nothing to a second, evenly.
#[tokio::test(start_paused = true)]
async fn a_stall_shows_in_the_latency_of_every_call_due_in_it() {
    let stall = (Duration::from_secs(2), Duration::from_secs(3));
    let (tally, finished) = against(MS, Some(stall), open(100.0, 1_000), for_seconds(4)).await;

    assert_eq!((400, 400, 400), (tally.due, tally.sent, tally.on_schedule));
    assert_eq!(400, tally.codes.total());
    assert!(!finished.interrupted);
    let longest = tally.latency.max();
    assert!(longest >= 1_000 * MS && longest < 1_010 * MS, "{longest:?}");
    // A quarter of the calls hit the stall, and half of those waited half of it.
    let eighth = tally.latency.quantile(1.0 - 0.125);
    assert!(eighth > 480 * MS && eighth < 520 * MS, "{eighth:?}");
    let usual = tally.latency.quantile(0.74);
    assert!(usual <= 3 * MS, "{usual:?}");
    let maxima: Vec<_> = tally.seconds.iter().map(|it| it.latency_max).collect();
    assert_eq!(4, maxima.len());
    assert!(maxima[2] >= 1_000 * MS, "{maxima:?}");
    assert!(maxima[1] < 10 * MS && maxima[3] < 10 * MS, "{maxima:?}");
}

/// Goal: a closed loop sends nothing during the stall, which is why it is no measure of it.
/// Method: the same server, four calls at a time.
#[tokio::test(start_paused = true)]
async fn a_closed_loop_waits_with_the_server() {
    let stall = (Duration::from_secs(2), Duration::from_secs(3));
    let pace = Pace::Closed { concurrency: 4 };
    let (tally, _) = against(10 * MS, Some(stall), pace, for_seconds(4)).await;

    assert_eq!(tally.sent, tally.codes.total());
    let slow = tally.seconds.iter().filter(|it| it.latency_max > 500 * MS);
    assert_eq!(1, slow.count());
    assert!(tally.seconds[2].due <= 8, "{}", tally.seconds[2].due);
    assert!(tally.latency.quantile(0.99) < 20 * MS);
}

/// Goal: what finds no place is counted, and not sent later.
/// Method: a server that takes a second, 100 calls a second, 30 places.
#[tokio::test(start_paused = true)]
async fn calls_without_a_place_are_dropped_and_counted() {
    let (tally, _) = against(1_000 * MS, None, open(100.0, 30), for_seconds(3)).await;
    assert_eq!(300, tally.due);
    assert_eq!((90, 210), (tally.sent, tally.dropped));
    assert_eq!(90, tally.on_schedule);
    assert_eq!(90, tally.codes.total());
    let dropped: Vec<_> = tally.seconds.iter().map(|it| it.dropped).collect();
    assert_eq!(vec![70, 70, 70], dropped);
}

/// Goal: ten thousand calls a second are sent in batches, each on schedule.
/// Method: one second of them.
#[tokio::test(start_paused = true)]
async fn a_high_rate_is_kept_in_batches() {
    let (tally, _) = against(MS, None, open(10_000.0, 1_000), for_seconds(1)).await;
    assert_eq!((10_000, 10_000), (tally.sent, tally.on_schedule));
    let late = tally.send_delay.max();
    assert!(late <= 3 * MS, "{late:?}");
}

/// Goal: when this program itself is held up, calls are sent late, the lateness is measured, and
/// latency counts from when they were due all the same.
/// Method: call 100 moves the clock by a second, as a stopped process would see it.
#[tokio::test(start_paused = true)]
async fn being_held_up_shows_as_lateness() {
    struct HeldUp;
    impl Calls for HeldUp {
        fn prepare(&mut self, number: u64) -> (usize, impl Future<Output = Ended> + use<>) {
            let call = async move {
                if number == 100 {
                    time::advance(Duration::from_secs(1)).await;
                }
                fine()
            };
            (0, call)
        }
    }
    let (_sender, mut interrupts) = mpsc::channel(1);
    let tally = RefCell::new(Tally::new(vec![0]));
    let (pace, limits) = (open(100.0, 1_000), for_seconds(4));
    run(
        &pace,
        limits,
        &mut HeldUp,
        &tally,
        &mut interrupts,
        |_| {},
        || {},
    )
    .await;
    let tally = tally.into_inner();
    assert_eq!((400, 400), (tally.due, tally.sent));
    // Those due in the second that was lost, but for the last of them.
    let late = tally.sent - tally.on_schedule;
    assert!((97..=100).contains(&late), "{late}");
    assert!(tally.latency.max() >= 980 * MS, "{:?}", tally.latency.max());
}

/// Goal: a run follows its stages on the clock, and ends with the last.
/// Method: a ramp up, a hold and a ramp down; the calls of each second, all on schedule.
#[tokio::test(start_paused = true)]
async fn stages_are_followed() {
    let stage = |from, to, seconds| Stage {
        from,
        to,
        time: Duration::from_secs(seconds),
    };
    let pace = Pace::Open {
        rates: Rates::of(&[
            stage(0.0, 100.0, 2),
            stage(100.0, 100.0, 1),
            stage(100.0, 0.0, 2),
        ]),
        in_flight_max: 1_000,
    };
    let limits = Limits {
        duration: None,
        ..for_seconds(0)
    };
    let (tally, finished) = against(MS, None, pace, limits).await;
    let due: Vec<_> = tally.seconds.iter().map(|it| it.due).collect();
    assert_eq!(vec![25, 75, 100, 75, 25], due);
    assert_eq!((300, 300), (tally.sent, tally.on_schedule));
    assert!(finished.sending < Duration::from_secs(5), "{finished:?}");
}

/// Goal: a count ends a run, and what does not end is cut after the linger.
/// Method: ten calls that never answer, and a linger of five seconds.
#[tokio::test(start_paused = true)]
async fn what_never_ends_is_cut() {
    let limits = Limits {
        duration: None,
        count: Some(10),
        linger: Duration::from_secs(5),
    };
    let began = Instant::now();
    let hour = Duration::from_hours(1);
    let (tally, finished) = against(hour, None, open(100.0, 1_000), limits).await;
    assert_eq!((10, 10), (tally.due, tally.open()));
    assert!(finished.sending <= 95 * MS, "{:?}", finished.sending);
    let took = began.elapsed();
    assert!(took >= 5_090 * MS && took < 5_200 * MS, "{took:?}");
}

/// Goal: the first interrupt ends the sending and waits, the second cuts.
/// Method: calls of half an hour, interrupts after one and after two seconds.
#[tokio::test(start_paused = true)]
async fn interrupts_end_the_sending_then_the_run() {
    let mut server = Server {
        began: Instant::now(),
        latency: Duration::from_mins(30),
        stall: None,
    };
    let (sender, mut interrupts) = mpsc::channel(1);
    let tally = RefCell::new(Tally::new(vec![0]));
    let limits = Limits {
        linger: Duration::from_hours(1),
        ..for_seconds(60)
    };
    let began = Instant::now();
    let told = Cell::new(0);
    let pace = open(10.0, 1_000);
    let sent = Cell::new(0);
    let tell = |_: &mut _| told.set(told.get() + 1);
    let end = || sent.set(sent.get() + 1);
    let running = run(
        &pace,
        limits,
        &mut server,
        &tally,
        &mut interrupts,
        tell,
        end,
    );
    let interrupting = async {
        for _ in 0..2 {
            time::sleep(1_050 * MS).await;
            sender.send(()).await.unwrap();
        }
    };
    let (finished, ()) = tokio::join!(running, interrupting);
    assert!(finished.interrupted);
    assert_eq!(11, tally.borrow().sent);
    assert_eq!(11, tally.borrow().open());
    assert_eq!(2, told.get());
    assert_eq!(1, sent.get());
    assert!(began.elapsed() < 2_200 * MS, "{:?}", began.elapsed());
}
