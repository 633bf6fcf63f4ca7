use futures_util::FutureExt as _;
use tokio::time;

use super::*;

const CRITICAL: Criticality = Criticality::Critical;

/// As in `CoDel` (RFC 8289), and as it ships.
const RULES: Rules = Rules {
    calls_max: 8,
    target: Duration::from_millis(5),
    interval: Duration::from_millis(100),
};

fn join(queue: &Queue<u32>) -> Waiting<u32> {
    queue.join(CRITICAL, RULES).unwrap()
}

/// Gives these to whoever is next.
fn serve(queue: &Queue<u32>, what: &[u32]) {
    let mut what = what.iter().copied();
    queue.serve(RULES, |_| what.next());
}

/// What a call has been told so far.
fn told(waiting: &mut Waiting<u32>) -> Option<Result<u32, Refused>> {
    waiting.now_or_never()
}

async fn pass(millis: u64) {
    time::advance(Duration::from_millis(millis)).await;
}

/// Goal: a line that comes and goes serves in the order in which calls came.
/// Method: three calls, served one by one within the interval; then again after a pause.
#[tokio::test(start_paused = true)]
async fn a_short_line_is_served_in_order() {
    let queue = Queue::default();
    for _ in 0..3 {
        let mut calls: Vec<_> = (0..3).map(|_| join(&queue)).collect();
        pass(99).await;
        for number in 0..3 {
            serve(&queue, &[number]);
        }
        let told: Vec<_> = calls.iter_mut().map(told).collect();
        assert_eq!(vec![Some(Ok(0)), Some(Ok(1)), Some(Ok(2))], told);
        assert!(queue.is_empty());
        pass(99).await;
    }
}

/// Goal: where somebody has been waiting for 100 ms, who came last is served first, and nobody waits for
/// more than 5 ms; once the line is empty it is as before.
/// Method: a line whose first is never served; calls before and after that moment.
#[tokio::test(start_paused = true)]
async fn a_standing_line_serves_who_came_last_and_cuts_the_rest() {
    let queue = Queue::default();
    let mut first = join(&queue);
    pass(98).await;
    let mut calls: Vec<_> = (0..3).map(|_| join(&queue)).collect();
    assert_eq!(None, told(&mut first));
    pass(2).await;
    assert_eq!(Some(Err(Refused::Overdue)), told(&mut first), "100 ms");
    serve(&queue, &[7]);
    let all: Vec<_> = calls.iter_mut().map(told).collect();
    assert_eq!(vec![None, None, Some(Ok(7))], all);
    pass(3).await;
    for call in &mut calls[..2] {
        assert_eq!(Some(Err(Refused::Overdue)), told(call), "5 ms");
    }
    assert!(queue.is_empty());

    let (mut one, mut other) = (join(&queue), join(&queue));
    pass(99).await;
    serve(&queue, &[1]);
    assert_eq!((Some(Ok(1)), None), (told(&mut one), told(&mut other)));
}

/// Goal: the line is bounded; who gives up, or is cut, makes room.
/// Method: fill it, and let one go.
#[tokio::test(start_paused = true)]
async fn a_call_that_goes_makes_room() {
    let queue = Queue::default();
    let mut calls: Vec<_> = (0..8).map(|_| join(&queue)).collect();
    assert_eq!(Some(Refused::Full), queue.join(CRITICAL, RULES).err());
    calls.pop();
    assert_eq!(7, queue.len());
    calls.push(join(&queue));
    assert_eq!(Some(Refused::Full), queue.join(CRITICAL, RULES).err());
    drop(calls);
    assert!(queue.is_empty());
}

/// Goal: what was given to a call that went away is not lost.
/// Method: drop one that was served and has not looked; the value counts who holds it.
#[tokio::test(start_paused = true)]
async fn what_is_given_to_a_call_that_goes_is_dropped() {
    let queue = Queue::default();
    let call = queue.join(CRITICAL, RULES).unwrap();
    let place = Arc::new(());
    let mut given = Some(Arc::clone(&place));
    queue.serve(RULES, |_| given.take());
    assert_eq!(2, Arc::strong_count(&place));
    drop(call);
    assert_eq!(1, Arc::strong_count(&place));
}

/// Goal: calls that matter more are served first, and take the room of those that matter less, the last
/// of the least.
/// Method: a full line of all kinds; who matters as little as the least, and more.
#[tokio::test(start_paused = true)]
async fn calls_that_matter_more_go_first() {
    use Criticality::{CriticalPlus, Sheddable, SheddablePlus};
    let rules = Rules {
        calls_max: 3,
        ..RULES
    };
    let queue = Queue::default();
    let join = |criticality| queue.join(criticality, rules);
    let mut least = join(Sheddable).unwrap();
    let mut last_of_least = join(Sheddable).unwrap();
    let mut less = join(SheddablePlus).unwrap();
    assert_eq!(Some(Refused::Full), join(Sheddable).err());

    let mut critical = join(CRITICAL).unwrap();
    assert_eq!(Some(Err(Refused::Displaced)), told(&mut last_of_least));
    let mut most = join(CriticalPlus).unwrap();
    assert_eq!(Some(Err(Refused::Displaced)), told(&mut least));
    assert_eq!(3, queue.len());

    for (number, call) in [&mut most, &mut critical, &mut less]
        .into_iter()
        .enumerate()
    {
        let number = u32::try_from(number).unwrap();
        serve(&queue, &[number]);
        assert_eq!(Some(Ok(number)), told(call));
    }
}

/// Goal: whoever may have nothing more does not keep others from what is theirs.
/// Method: calls of two kinds wait, and there is something for the lesser alone.
#[tokio::test(start_paused = true)]
async fn a_share_is_given_past_those_that_have_none() {
    let queue = Queue::default();
    let mut critical = queue.join(CRITICAL, RULES).unwrap();
    let mut sheddable = queue.join(Criticality::Sheddable, RULES).unwrap();
    let mut given = Some(1);
    queue.serve(RULES, |criticality| {
        (criticality == Criticality::Sheddable)
            .then(|| given.take())
            .flatten()
    });
    assert_eq!(
        (None, Some(Ok(1))),
        (told(&mut critical), told(&mut sheddable))
    );
}
