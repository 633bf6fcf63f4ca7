use super::*;

fn ended(code: Code, message: &str, port: u16) -> Ended {
    Ended {
        code,
        message: message.to_owned(),
        endpoint: Some(SocketAddr::from(([127, 0, 0, 1], port))),
        first_message: None,
        sent: Volume::default(),
        received: Volume::default(),
        kept: Vec::new(),
        steps: Vec::new(),
    }
}

fn count(tally: &mut Tally, ended: Ended) {
    let due = Due {
        method: 0,
        at: tally.began,
    };
    tally.sent(due, tally.began);
    tally.ended(due, tally.began, tally.began, ended);
}

/// Goal: times of every length are kept to three digits.
/// Method: from a microsecond to more than is told apart.
#[tokio::test(start_paused = true)]
async fn times_of_every_length_are_kept() {
    for time in [1, 999, 2_047, 2_048, 5_000_000, 3_600_000_000_u64] {
        let mut times = Times::default();
        times.record(Duration::from_micros(time));
        let read = u64::try_from(times.max().as_micros()).unwrap();
        assert!(read.abs_diff(time) * 1_000 <= time, "{time}: {read}");
    }
    let mut times = Times::default();
    times.record(Duration::from_hours(30));
    assert!(times.max() >= TIME_MAX);
}

/// Goal: however many failures with however many words there are, few are kept, and all counted.
/// Method: messages that differ in numbers, in words, and in length.
#[tokio::test(start_paused = true)]
async fn errors_are_kept_by_kind_and_bounded() {
    let mut tally = Tally::new(vec![0]);
    for number in 0..50 {
        let message = format!("refused after {number}.{number}ms");
        count(&mut tally, ended(Code::Unavailable, &message, 1));
    }
    assert_eq!(1, tally.errors().len());
    assert_eq!(50, tally.errors()[0].count);
    assert_eq!("refused after 0.0ms", tally.errors()[0].message);

    for letters in 1..=40 {
        count(&mut tally, ended(Code::Internal, &"é".repeat(letters), 1));
    }
    assert_eq!(ERRORS_MAX, tally.errors().len());
    assert_eq!(21, tally.errors_not_shown);
    assert_eq!(90, tally.codes.total());

    let mut tally = Tally::new(vec![0]);
    count(&mut tally, ended(Code::Internal, &"é".repeat(1_000), 1));
    assert_eq!(ERROR_LENGTH_MAX, tally.errors()[0].message.chars().count());
}

/// Goal: endpoints beyond those told apart are counted together.
/// Method: a hundred too many.
#[tokio::test(start_paused = true)]
async fn endpoints_are_bounded() {
    let mut tally = Tally::new(vec![0]);
    for port in 0..356 {
        count(&mut tally, ended(Code::Ok, "", port));
    }
    assert_eq!(ENDPOINTS_MAX + 1, tally.endpoints.len());
    let (address, others) = tally.endpoints.last().unwrap();
    assert_eq!((None, 100), (*address, others.codes.total()));
}
