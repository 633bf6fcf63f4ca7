use super::*;
use crate::broker::memory::Memory;

const LONG: Duration = Duration::from_mins(10);

/// What is written on the group of the tests.
fn group(topics: &[&str]) -> Group {
    Group {
        name: "test.counts".to_owned(),
        partitions: 1,
        topics: texts(topics),
        queue_messages_max: None,
    }
}

fn texts<C: FromIterator<String>>(texts: &[&str]) -> C {
    texts.iter().map(|it| (*it).to_owned()).collect()
}

/// A look of the first of these instances, which want these topics, all together.
fn view(members: &[&str], topics: &[&str]) -> View {
    View {
        members: texts(members),
        topics: texts(topics),
        is_first: true,
        ..View::default()
    }
}

/// What a broker has the group want, once it was told.
async fn told(wants: &Wants, broker: &Memory) -> Vec<String> {
    wants.tell_once(broker).await.unwrap();
    broker.topics("test.counts")
}

/// A broker at which A and C are wanted, and an instance that handles A.
async fn begun() -> (Memory, Wants) {
    let broker = Memory::new(1);
    broker.declare(&group(&["A", "C"])).await.unwrap();
    (broker, Wants::new(group(&["A"])))
}

/// Goal: nothing is let go that another instance wants, however long that goes on.
/// Method: one that handles less than the other; looks over an hour.
#[tokio::test(start_paused = true)]
async fn what_another_instance_wants_is_not_let_go() {
    let (broker, wants) = begun().await;
    for _ in 0..6 {
        wants.seen(&view(&["me", "you"], &["A", "C"]), LONG);
        assert_eq!(["A", "C"], *told(&wants, &broker).await);
        time::advance(LONG).await;
    }
}

/// Goal: what nobody wants is let go of after long, and by one instance; and what one wants who comes
/// then is added, even if that one was not seen when it was let go of.
/// Method: looks without the other before and after that time, of the first and of another instance; the
/// other has told the broker in between.
#[tokio::test(start_paused = true)]
async fn what_nobody_wants_is_let_go_after_long() {
    let (broker, wants) = begun().await;
    wants.seen(&view(&["me", "you"], &["A", "C"]), LONG);
    assert_eq!(["A", "C"], *told(&wants, &broker).await);
    let first = view(&["me"], &["A"]);
    let other = View {
        is_first: false,
        ..view(&["me"], &["A"])
    };
    for (look, passed, expected) in [
        (&first, Duration::ZERO, &["A", "C"][..]),
        (&first, LONG / 2, &["A", "C"]),
        (&other, LONG, &["A", "C"]),
    ] {
        time::advance(passed).await;
        wants.tell_once(&broker).await.unwrap();
        wants.seen(look, LONG);
        assert_eq!(expected, told(&wants, &broker).await);
    }
    wants.seen(&first, LONG);
    broker.declare(&group(&["C", "D"])).await.unwrap();
    assert_eq!(["A"], *told(&wants, &broker).await);
    wants.seen(&view(&["me", "you"], &["A", "C", "D"]), LONG);
    assert_eq!(["A", "C", "D"], *told(&wants, &broker).await);
}

/// Goal: what a broker did not do is told again, and nothing is let go that may be wanted by then.
/// Method: a broker that cannot be reached while something is to be let go of.
#[tokio::test(start_paused = true)]
async fn what_failed_is_told_again() {
    let (broker, wants) = begun().await;
    let alone = view(&["me"], &["A"]);
    wants.seen(&alone, LONG);
    assert_eq!(["A", "C"], *told(&wants, &broker).await);
    time::advance(LONG).await;
    wants.seen(&alone, LONG);
    broker.disconnect();
    assert!(wants.tell_once(&broker).await.is_err());
    broker.reconnect();
    wants.seen(&view(&["me", "you"], &["A", "C"]), LONG);
    assert_eq!(["A", "C"], *told(&wants, &broker).await);
}
