//! When the bank is left alone, and how it is found to be back.

use gantry::config as settings;
use tonic_types::StatusExt as _;

use super::*;

/// Opens after two failures in a row, for a short and exact time.
const BREAKER: &str = "[bank.breaker]\nfailures_in_a_row = 2\npause_min = '50ms'\n\
                       pause_max = '50ms'\npause_jitter = 0.0\n";

/// A bank as payments see it, at `url`, that is left alone after two failures in a row, for long.
fn bank_at(url: String) -> Bank {
    let config = config::Bank {
        url,
        breaker: gantry::breaker::Config {
            failures_in_a_row: 2,
            pause_min: Duration::from_hours(1),
            pause_max: Duration::from_hours(1),
            ..gantry::breaker::Config::default()
        },
        ..config::Bank::default()
    };
    let journal = Journal::new();
    let tasks = Tasks::new(journal.clone());
    let breaker = Breaker::new("bank", Live::fixed(config.breaker.clone()), journal);
    Bank::new(Live::fixed(config), tasks, breaker).unwrap()
}

/// Whether the bank is asked each of so many times.
async fn asked(bank: &Bank, times: usize) -> Vec<bool> {
    let amount = Money {
        minor_units: 750,
        currency_code: "EUR".to_owned(),
    };
    let mut asked = Vec::new();
    for _ in 0..times {
        let charged = bank.charge("one", &amount).await;
        asked.push(!matches!(charged, Err(Unanswered::NotAsked(_))));
    }
    asked
}

/// Whether a caller was told to come back, as the bank is left alone.
fn left_alone(outcome: &Result<PaymentState, Status>) -> bool {
    let Err(status) = outcome else { return false };
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    let told = status.metadata().contains_key("grpc-retry-pushback-ms");
    status.code() == Code::Unavailable && reason == Some("BREAKER_OPEN") && told
}

/// Goal: a bank that fails is left alone, and callers are told so at once and when to come back; it is
/// asked by one at a time until it answers, and then by all.
/// Method: failures; callers at once; one of which the bank lets wait, and callers meanwhile; then
/// it answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_bank_that_is_away_is_asked_by_one_at_a_time() {
    let (place, desk) = (Place::file(), Desk::open().await);
    let payments = payments_with(&place, &desk, BREAKER).await;
    let pay = |at: usize| {
        let client = payments.client_without_retries();
        charge(client, format!("charge-{at}"), PATIENCE)
    };
    desk.refuse(Some("503 Service Unavailable"));
    for at in 0..2 {
        let failed = pay(at).await;
        assert!(unanswered(&failed) && !left_alone(&failed), "{failed:?}");
    }
    // Each that comes after a pause finds out that nothing is better.
    for at in 0..20 {
        assert!(unanswered(&pay(at).await));
    }
    desk.refuse(None);
    let asked = desk.seen().heads.len();
    let mut trying = JoinSet::new();
    // All but one come back, once one waits at the bank; until then all do.
    loop {
        for at in 0..20 {
            trying.spawn(pay(at));
        }
        while trying.len() > 1 {
            let refused = trying.join_next().await.unwrap().unwrap();
            assert!(left_alone(&refused), "{refused:?}");
        }
        tokio::select! {
            _ = desk.until(|seen| seen.waiting.0 == 1) => break,
            refused = trying.join_next() => assert!(left_alone(&refused.unwrap().unwrap())),
        }
    }
    for at in 0..20 {
        assert!(left_alone(&pay(at).await));
    }
    let seen = desk.seen();
    assert_eq!((asked + 1, (1, 1)), (seen.heads.len(), seen.waiting));
    assert_eq!(PaymentState::Pending, known(&payments, "charge-0").await);

    desk.take(100);
    let tried = trying.join_next().await.unwrap().unwrap();
    assert_eq!(PaymentState::Charged, tried.unwrap());
    for at in 0..20 {
        assert_eq!(PaymentState::Charged, pay(at).await.unwrap());
    }
}

/// Goal: the bank is left alone when it fails, and not when it refuses what it was asked, or is busy
/// and says when it is not.
/// Method: answers of each kind, three times each; a bank that is not there.
#[tokio::test]
async fn the_bank_is_judged_by_its_answers() {
    for (head, third) in [
        ("402 Payment Required", true),
        ("404 Not Found", true),
        ("429 Too Many Requests", true),
        ("503 Service Unavailable\r\nRetry-After: 7", true),
        ("503 Service Unavailable", false),
        ("500 Internal Server Error", false),
        ("nonsense", false),
    ] {
        let desk = Desk::open().await;
        desk.refuse(Some(head));
        let bank = bank_at(format!("http://{}", desk.address));
        assert_eq!(vec![true, true, third], asked(&bank, 3).await, "{head}");
    }
    let nobody = bank_at("http://127.0.0.1:1".to_owned());
    assert_eq!(vec![true, true, false], asked(&nobody, 3).await);
}

/// Goal: a bank that does not answer is left alone, unless those who asked had no time.
/// Method: a bank that lets all wait; callers with less time than it may take, and with as much.
#[tokio::test(start_paused = true)]
async fn a_caller_in_a_hurry_says_nothing_about_the_bank() {
    let desk = Desk::open().await;
    let bank = bank_at(format!("http://{}", desk.address));
    let hurried = || call(TraceContext::root(false), Some(Duration::from_secs(3)));
    for _ in 0..5 {
        assert_eq!(vec![true], Scoped::new(hurried(), asked(&bank, 1)).await);
    }
    assert_eq!(vec![true, true, false], asked(&bank, 3).await);
}

/// Goal: settings by which two requests would find out at once about a bank that is away are refused.
/// Method: a request that may take longer than it is waited for.
#[test]
fn a_request_may_not_outlast_its_turn_to_try() {
    let load = |timeout: &str| {
        let toml = format!("[bank]\ntimeout = '{timeout}'\nbreaker.probe_time_max = '5s'");
        settings::load::<payments::Config>(settings::Sources::new().text("a.toml", toml))
    };
    assert!(load("5s").is_ok());
    let faults = load("6s").unwrap_err().to_string();
    assert!(faults.contains("bank.timeout"), "{faults}");
    assert!(faults.contains("breaker.probe_time_max"), "{faults}");
}
