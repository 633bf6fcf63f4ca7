use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Goal: a run of any length has a few hundred intervals, and nothing is lost when they grow.
/// Method: a call each second for a day, of two kinds, each later than the one before; a call that
/// ends long after.
#[test]
fn a_day_has_few_intervals() {
    let mut series = Series::new(2);
    let day = 24 * 60 * 60;
    for second in 0..day {
        let kind = usize::from(second % 2 == 1);
        let since = SECOND * second;
        series.sent(since, kind);
        series.ended(
            since,
            kind,
            Code::Ok,
            Duration::from_millis(u64::from(second)),
        );
        if second % 100 == 0 {
            series.dropped(since);
        }
    }
    assert_eq!(SECOND * 512, series.width);
    assert_eq!(169, series.intervals.len());
    let due: u64 = series.intervals.iter().map(|it| it.due).sum();
    let dropped: u64 = series.intervals.iter().map(|it| it.dropped).sum();
    assert_eq!((u64::from(day) + 864, 864), (due, dropped));
    let ended = |it: &Interval| {
        it.kinds
            .iter()
            .map(|slice| slice.codes.total())
            .sum::<u64>()
    };
    assert_eq!(
        u64::from(day),
        series.intervals.iter().map(ended).sum::<u64>()
    );
    assert_eq!(512, ended(&series.intervals[0]));
    let longest = series.intervals[0].total().latency.max();
    assert!(longest >= 505 * SECOND / 1_000 && longest <= 520 * SECOND / 1_000);
    assert_eq!(256, series.intervals[1].kinds[1].sent);

    series.ended(Duration::ZERO, 0, Code::Unavailable, SECOND);
    assert_eq!(513, ended(&series.intervals[0]));
}

/// Goal: intervals in which nothing was due are there all the same, so that times stay right.
/// Method: calls in the first and the fifth second.
#[test]
fn quiet_intervals_are_there() {
    let mut series = Series::new(1);
    series.sent(Duration::ZERO, 0);
    series.sent(SECOND * 4, 0);
    let due: Vec<_> = series.intervals.iter().map(|it| it.due).collect();
    assert_eq!(vec![1, 0, 0, 0, 1], due);
}
