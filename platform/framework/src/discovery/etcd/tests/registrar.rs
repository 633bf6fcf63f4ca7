use std::{future, time::Duration};

use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::{
    MS,
    fake::{Fake, Kind},
    settle, until,
};
use crate::{
    discovery::{
        Announcement, Layout, Registration,
        etcd::Registrar,
        registration::{Config, State},
    },
    journal::Journal,
    shutdown::Tasks,
};

/// A registrar at work.
struct Running {
    fake: Fake,
    registrar: Registrar,
    registration: watch::Receiver<Registration>,
}

impl Running {
    /// Begins, and waits until it is registered in two layouts.
    async fn start() -> Self {
        let running = Self::at(Fake::new());
        running.registered(1).await;
        running
    }

    fn at(fake: Fake) -> Self {
        Self::serving(fake, future::ready(()))
    }

    fn serving(fake: Fake, serving: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::configured(fake, serving, Config::default())
    }

    fn configured(
        fake: Fake,
        serving: impl Future<Output = ()> + Send + 'static,
        config: Config,
    ) -> Self {
        let announcement = Announcement {
            name: "orders".into(),
            address: "10.0.0.1:1".into(),
            instance: "00ff".into(),
            version: "1.2.3".into(),
            zone: None,
            weight_percent: 100,
            start_time: 0,
            services: Vec::new(),
            tls: false,
        };
        let config = Config {
            // The first of them named again counts once.
            layouts: vec![Layout::Etcd, Layout::GoZero, Layout::Etcd],
            ..config
        };
        let (etcd, journal) = (fake.etcd(), Journal::new());
        let tasks = Tasks::new(journal.clone());
        let registrar = Registrar::start(&etcd, &announcement, &config, serving, &tasks, journal);
        Self {
            registration: registrar.watch(),
            fake,
            registrar,
        }
    }

    /// Waits until it says that it is registered, for the `made`th time.
    async fn registered(&self, made: u64) {
        until("the registration", || {
            let now = self.registration.borrow();
            (now.state == State::Registered && now.made == made).then_some(())
        })
        .await;
        let lease = self.lease();
        let keys = ["orders.rpc/00ff", "orders/10.0.0.1:1"];
        let keys = keys.map(|key| (key.to_owned(), lease));
        assert_eq!(keys, self.fake.keys()[..]);
        assert_eq!([lease], self.fake.leases()[..]);
        // So that it watches, too.
        settle().await;
    }

    fn lease(&self) -> i64 {
        self.registration.borrow().lease
    }
}

/// What can happen to a registration in etcd.
type Loss = fn(&Running);

/// Goal: whatever becomes of a registration, it is made again: at once where that is told, within
/// a second where etcd itself was gone.
/// Method: take the lease, a key of either layout, write over one, and take all that etcd has; one after the other.
#[tokio::test(start_paused = true)]
async fn what_is_lost_is_made_again() {
    let losses: [(&str, Loss, Duration); 5] = [
        ("revoked", |it| it.fake.revoke(it.lease()), 5 * MS),
        ("deleted", |it| it.fake.delete("orders/10.0.0.1:1"), 5 * MS),
        (
            "written over",
            |it| it.fake.put("orders/10.0.0.1:1", "?"),
            5 * MS,
        ),
        ("the other", |it| it.fake.delete("orders.rpc/00ff"), 5 * MS),
        ("empty", |it| it.fake.restart_empty(), 1_000 * MS),
    ];
    let running = Running::start().await;
    for (made, (name, lose, bound)) in (2..).zip(losses) {
        lose(&running);
        let lost = Instant::now();
        running.registered(made).await;
        assert!(lost.elapsed() <= bound, "{name}: {:?}", lost.elapsed());
    }
    let now = running.registration.borrow().clone();
    assert_eq!((true, None), (now.ever, now.error));
}

/// Goal: a process that stood still for longer than its lease registers again as soon as it goes
/// on.
/// Method: let the clock jump; etcd ends the lease, and says so when it is next asked.
#[tokio::test(start_paused = true)]
async fn an_expired_lease_is_made_again() {
    let running = Running::start().await;
    time::advance(Duration::from_secs(30)).await;
    let awake = Instant::now();
    running.registered(2).await;
    assert!(awake.elapsed() <= 5 * MS, "{:?}", awake.elapsed());
}

/// Goal: a loss that no watch tells is found all the same: that of the lease by the next
/// keepalive, that of a key by a look now and then.
/// Method: watches that say nothing; take the lease, then a key.
#[tokio::test(start_paused = true)]
async fn a_loss_that_nobody_tells_is_found() {
    let running = Running::start().await;
    running.fake.faults(|faults| faults.silent = true);
    running.fake.revoke(running.lease());
    let lost = Instant::now();
    running.registered(2).await;
    assert!(
        lost.elapsed() <= Duration::from_secs(4),
        "{:?}",
        lost.elapsed()
    );

    running.fake.delete("orders/10.0.0.1:1");
    let lost = Instant::now();
    running.registered(3).await;
    assert!(
        lost.elapsed() <= Duration::from_secs(31),
        "{:?}",
        lost.elapsed()
    );
}

/// Goal: a keepalive that is answered with a time to live of 0 begins the registration anew, also
/// where it is the first of its stream, and neither ends it nor turns in a circle.
/// Method: an etcd that denies the lease once while it stands, then five times in a row.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_denied_is_asked_for_again() {
    let running = Running::start().await;
    let granted = async |count: usize| {
        until("another grant", || {
            (running.fake.asked(Kind::Grant) == count).then_some(())
        })
        .await;
    };
    running.fake.faults(|faults| faults.leases_denied = 1);
    let begun = Instant::now();
    granted(2).await;
    assert!(begun.elapsed() <= Duration::from_secs(4));
    // The keys were there all the time.
    running.registered(1).await;

    running.fake.faults(|faults| faults.leases_denied = 5);
    granted(3).await;
    let begun = Instant::now();
    granted(6).await;
    let now = running.registration.borrow().clone();
    assert_eq!(State::Registering, now.state);
    assert_eq!(Some("the lease is gone"), now.error.as_deref());
    granted(7).await;
    assert!(begun.elapsed() > Duration::from_secs(1), "without a pause");
    running.registered(1).await;
}

/// Goal: who may not register is not registered, and says so; neither a lease nor a registration
/// of before makes it seem so.
/// Method: refuse writes from the beginning, and when a key was deleted, and when all was lost.
#[tokio::test(start_paused = true)]
async fn a_refused_registration_is_none() {
    let fake = Fake::new();
    fake.faults(|faults| faults.read_only = true);
    let running = Running::at(fake);
    let refused = async || {
        until("the refusal", || {
            let now = running.registration.borrow();
            let told = now.error.as_deref()?.contains("PERMISSION_DENIED");
            (told && now.state == State::Registering).then_some(())
        })
        .await;
    };
    refused().await;
    time::sleep(Duration::from_secs(30)).await;
    refused().await;
    assert!(!running.registration.borrow().ever);

    let losses: [Loss; 2] = [
        |it| it.fake.delete("orders/10.0.0.1:1"),
        |it| it.fake.restart_empty(),
    ];
    for (made, lose) in (1..).zip(losses) {
        running.fake.faults(|faults| faults.read_only = false);
        running.registered(made).await;
        running.fake.faults(|faults| faults.read_only = true);
        lose(&running);
        refused().await;
    }
}

/// Goal: an etcd that takes five seconds for everything has at most one request of a kind under
/// way, and registers and keeps whoever asks, as a lease of ten seconds bears that.
/// Method: two minutes of it from the start, and two more for one that was registered before.
#[tokio::test(start_paused = true)]
async fn a_slow_etcd_is_waited_for() {
    let five = Duration::from_secs(5);
    let fake = Fake::new();
    fake.faults(|faults| faults.delay = five);
    let begun = Instant::now();
    let slow_at_once = Running::at(fake);
    slow_at_once.registered(1).await;
    assert!(begun.elapsed() <= 4 * five, "{:?}", begun.elapsed());
    let slow_later = Running::start().await;
    slow_later.fake.faults(|faults| faults.delay = five);
    for mut running in [slow_at_once, slow_later] {
        let grants = running.fake.asked(Kind::Grant);
        running.registration.mark_unchanged();
        time::sleep(Duration::from_mins(2)).await;
        running.registered(1).await;
        assert!(!running.registration.has_changed().unwrap());
        assert_eq!(grants, running.fake.asked(Kind::Grant));
        let most = running.fake.under_way_most();
        assert!(most.values().all(|most| *most <= 1), "{most:?}");
    }
}

/// Goal: an etcd that is slower than a lease bears gets one request after the other, and the
/// registration is there once it is faster.
/// Method: two minutes with seven seconds for everything, counted at etcd.
#[tokio::test(start_paused = true)]
async fn a_slower_etcd_piles_nothing_up() {
    let fake = Fake::new();
    fake.faults(|faults| faults.delay = Duration::from_secs(7));
    let running = Running::at(fake);
    time::sleep(Duration::from_mins(2)).await;
    let now = running.registration.borrow().clone();
    assert_eq!(State::Registering, now.state);
    let error = now.error.unwrap_or_default();
    assert!(error.contains("no answer from etcd within 6s"), "{error}");
    let most = running.fake.under_way_most();
    assert!(most.values().all(|most| *most <= 1), "{most:?}");
    let grants = running.fake.asked(Kind::Grant);
    assert!((10..=25).contains(&grants), "{grants}");

    running.fake.faults(|faults| faults.delay = Duration::ZERO);
    running.registered(1).await;
}

/// Goal: a keepalive stream that says nothing any more is replaced before the lease ends.
/// Method: an etcd that does not answer the first of them; when it is asked over another stream.
#[tokio::test(start_paused = true)]
async fn a_silent_keepalive_is_replaced_in_time() {
    let running = Running::start().await;
    let registered = Instant::now();
    running
        .fake
        .faults(|faults| faults.unanswered = [Kind::KeepAlive].into());
    let streams = running.fake.asked(Kind::KeepAliveStream);
    until("another stream", || {
        (running.fake.asked(Kind::KeepAliveStream) > streams).then_some(())
    })
    .await;
    let replaced = registered.elapsed();
    assert!(replaced < Config::default().ttl, "{replaced:?}");
    running.fake.faults(|faults| faults.unanswered.clear());
    time::sleep(Duration::from_secs(30)).await;
    running.registered(1).await;
}

/// Goal: a registration is taken back once, and for good.
/// Method: leave twice at once and once more; resume, before etcd heard of it and after.
#[tokio::test(start_paused = true)]
async fn a_registration_is_taken_back_once() {
    let running = Running::start().await;
    let registrar = &running.registrar;
    let resume = async { registrar.resume() };
    tokio::join!(registrar.leave(), registrar.leave(), resume);
    assert!(running.fake.keys().is_empty());
    registrar.leave().await;
    registrar.resume();
    time::sleep(Duration::from_mins(1)).await;
    assert_eq!(1, running.fake.asked(Kind::Revoke));
    assert_eq!(1, running.fake.asked(Kind::Grant));
    assert!(running.fake.keys().is_empty());
    assert_eq!(State::Left, running.registration.borrow().state);
}

/// Goal: an etcd that does not answer holds up a drain for a second at most, whatever the registrar
/// is about.
/// Method: leave while registered, and while the registration is under way.
#[tokio::test(start_paused = true)]
async fn leaving_is_bounded() {
    let hour = Duration::from_hours(1);
    let registered = Running::start().await;
    registered.fake.faults(|faults| faults.delay = hour);
    let fake = Fake::new();
    fake.faults(|faults| faults.delay = hour);
    let under_way = Running::at(fake);
    until("a grant", || {
        (under_way.fake.asked(Kind::Grant) == 1).then_some(())
    })
    .await;
    for running in [registered, under_way] {
        let begun = Instant::now();
        running.registrar.leave().await;
        assert!(
            begun.elapsed() <= Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(State::Left, running.registration.borrow().state);
        assert!(running.fake.asked(Kind::Revoke) <= 1);
    }
}

/// Goal: what etcd does not hear of at once is taken back once it answers, and says so meanwhile; of
/// a pause as of the end.
/// Method: an etcd that stands still when one is paused, and when one leaves; the state and the keys,
/// before its lease could have run out.
#[tokio::test(start_paused = true)]
async fn what_etcd_did_not_hear_of_is_taken_back_later() {
    for state in [State::Paused, State::Left] {
        let running = Running::start().await;
        let begun = Instant::now();
        running
            .fake
            .faults(|faults| faults.delay = Config::default().ttl);
        if state == State::Paused {
            running.registrar.pause();
        } else {
            running.registrar.leave().await;
        }
        let told = until("the state", || {
            let now = running.registration.borrow().clone();
            (now.state == state).then_some(now.error)
        });
        let told = told.await.unwrap();
        assert!(
            told.contains("not taken back: revoke the lease: no answer"),
            "{told}"
        );
        assert!(begun.elapsed() <= Duration::from_millis(1_010));
        assert_eq!(2, running.fake.keys().len());

        running.fake.faults(|faults| faults.delay = Duration::ZERO);
        until("it to be taken back", || {
            running.fake.keys().is_empty().then_some(())
        })
        .await;
        assert!(
            begun.elapsed() < Config::default().ttl,
            "{:?}",
            begun.elapsed()
        );
        settle().await;
        let now = running.registration.borrow().clone();
        assert_eq!((state, None), (now.state, now.error));
        let most = running.fake.under_way_most();
        assert!(most.values().all(|most| *most <= 1), "{most:?}");
    }
}

/// Goal: one that is resumed before etcd heard of the pause is registered as before.
/// Method: the same, resumed while etcd stands still.
#[tokio::test(start_paused = true)]
async fn a_pause_that_was_never_heard_of_can_be_resumed() {
    let running = Running::start().await;
    running
        .fake
        .faults(|faults| faults.delay = Config::default().ttl);
    running.registrar.pause();
    until("the pause", || {
        (running.registration.borrow().state == State::Paused).then_some(())
    })
    .await;
    running.registrar.resume();
    running.fake.faults(|faults| faults.delay = Duration::ZERO);
    running.registered(1).await;
    time::sleep(Duration::from_mins(1)).await;
    running.registered(1).await;
}

/// Goal: a registration that etcd has without our knowing is taken back, too.
/// Method: etcd makes it and keeps the answer to itself; leave.
#[tokio::test(start_paused = true)]
async fn what_was_made_unheard_is_taken_back() {
    let fake = Fake::new();
    fake.faults(|faults| faults.unanswered = [Kind::Txn].into());
    let running = Running::at(fake);
    until("the keys", || {
        (running.fake.keys().len() == 2).then_some(())
    })
    .await;
    running.registrar.leave().await;
    assert!(running.fake.keys().is_empty(), "{:?}", running.fake.keys());
    assert!(running.fake.leases().is_empty());
}

/// Goal: nobody is registered before it serves, and who leaves before never was.
/// Method: leave a registrar whose service never serves.
#[tokio::test(start_paused = true)]
async fn who_never_served_is_never_registered() {
    let running = Running::serving(Fake::new(), future::pending());
    time::sleep(Duration::from_mins(1)).await;
    assert_eq!(State::Waiting, running.registration.borrow().state);
    running.registrar.leave().await;
    assert_eq!(State::Left, running.registration.borrow().state);
    assert_eq!(0, running.fake.asked(Kind::Grant));
    assert_eq!(0, running.fake.asked(Kind::Revoke));
}

/// Goal: one that begins paused asks nothing of etcd until it is resumed.
/// Method: begin paused, let an hour pass; resume.
#[tokio::test(start_paused = true)]
async fn one_that_begins_paused_waits_to_be_resumed() {
    let config = Config {
        paused: true,
        ..Config::default()
    };
    let running = Running::configured(Fake::new(), future::ready(()), config);
    until("the pause", || {
        (running.registration.borrow().state == State::Paused).then_some(())
    })
    .await;
    time::sleep(Duration::from_hours(1)).await;
    assert!(running.fake.keys().is_empty() && running.fake.leases().is_empty());

    running.registrar.resume();
    running.registered(1).await;
}
