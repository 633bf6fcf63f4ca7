//! Keeps one instance registered for as long as it wants to be.
//!
//! One lease and one transaction carry all layouts, so that an instance is there in all of them or
//! in none. The lease's id is chosen once: asking for it again after an answer that was lost finds
//! it there, and leaves none behind. Nothing makes the registrar give up; whatever is lost (the
//! lease expired or was revoked, a key was deleted, etcd came back empty, this process stood
//! still) is made again.

mod heartbeat;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use etcd_client::{
    Client, Compare, CompareOp, EventType, LeaseGrantOptions, PutOptions, Txn, TxnOp, WatchOptions,
    WatchResponse, WatchStream,
};
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tonic::Code;

use self::heartbeat::Heartbeat;
use super::{BACKOFF, Error, Etcd};
use crate::{
    backoff::Backoff,
    discovery::{Announcement, Layout, Registration, registration::Config, registration::State},
    journal::{Journal, Kind},
    shutdown::Tasks,
    status::chain,
    telemetry::platform::Registrations,
};

/// How long taking a registration back is waited for.
const LEAVE_MAX: Duration = Duration::from_secs(1);
const REVOKE: &str = "revoke the lease";
/// Lifetimes of the lease between two looks at what etcd really holds, should a watch be silently
/// dead.
const LOOK_EVERY: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Register,
    Pause,
    Leave,
}

/// Looks at a registration and says what is wanted of it; clones share it.
#[derive(Debug, Clone)]
pub struct Registrar {
    wish: Arc<watch::Sender<Wish>>,
    registration: watch::Receiver<Registration>,
}

impl Registrar {
    /// Registers what is announced, in all `layouts`, once `serving` completes; where the
    /// configuration begins paused, only after [`Registrar::resume`]. Belongs to `tasks`, whose
    /// owner stops them only after [`Registrar::leave`].
    #[must_use]
    pub fn start(
        etcd: &Etcd,
        announcement: &Announcement,
        config: &Config,
        serving: impl Future<Output = ()> + Send + 'static,
        tasks: &Tasks,
        journal: Journal,
    ) -> Self {
        // Named twice is named once: etcd refuses to write a key twice at a time.
        let layouts = Layout::ALL.into_iter();
        let entries: Vec<_> = layouts
            .filter(|layout| config.layouts.contains(layout))
            .map(|layout| layout.encode(announcement))
            .collect();
        let registration = Registration {
            state: State::Waiting,
            since: Instant::now(),
            ever: false,
            made: 0,
            // Positive, as etcd wants it.
            lease: i64::from_le_bytes(fastrand::u64(1..=u64::MAX >> 1).to_le_bytes()),
            ttl: config.ttl,
            keys: entries.iter().map(|(key, _)| key.clone()).collect(),
            error: None,
        };
        let lease = registration.lease;
        let first = if config.paused {
            Wish::Pause
        } else {
            Wish::Register
        };
        let (wish, wishes) = watch::channel(first);
        let (publish, registrations) = watch::channel(registration);
        let keeper = Keeper {
            etcd: etcd.patient(heartbeat::patience(config.ttl)),
            entries,
            name: announcement.name.clone(),
            lease,
            ttl: config.ttl,
            asked: false,
            hold: Mutex::default(),
            registration: publish,
            metrics: Registrations::register(),
            journal,
        };
        let stopping = tasks.stopping();
        tasks.spawn("registration", async move {
            stopping
                .run_until_cancelled(keeper.run(wishes, serving))
                .await;
        });
        Self {
            wish: Arc::new(wish),
            registration: registrations,
        }
    }

    /// The registration, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Registration> {
        self.registration.clone()
    }

    /// Takes the registration back until [`Registrar::resume`].
    pub fn pause(&self) {
        self.want(Wish::Pause);
    }

    /// Registers again.
    pub fn resume(&self) {
        self.want(Wish::Register);
    }

    fn want(&self, wish: Wish) {
        self.wish.send_if_modified(|now| {
            // Who has left does not come back.
            let changes = *now != wish && *now != Wish::Leave;
            if changes {
                *now = wish;
            }
            changes
        });
    }

    /// Takes the registration back for good. Waits until etcd has it, for a second at most; it is
    /// tried again as long as the tasks live, and what etcd never hears of runs out with its lease.
    pub async fn leave(&self) {
        self.want(Wish::Leave);
        let mut registration = self.registration.clone();
        let left = registration.wait_for(|it| it.state == State::Left);
        // Longer than the registrar's own bound; for one whose tasks were stopped.
        drop(time::timeout(LEAVE_MAX + LEAVE_MAX / 4, left).await);
    }
}

struct Keeper {
    etcd: Etcd,
    /// Key and value in each layout.
    entries: Vec<(String, String)>,
    name: String,
    lease: i64,
    ttl: Duration,
    /// Whether etcd may have the lease: it was asked for it, and not to take it back since.
    asked: bool,
    hold: Mutex<Hold>,
    registration: watch::Sender<Registration>,
    metrics: Registrations,
    journal: Journal,
}

/// What etcd has of us, as far as it said.
#[derive(Debug, Default)]
struct Hold {
    /// Since when the lease has all of its time.
    lease: Option<Instant>,
    /// Whether the keys are there, as long as the lease is.
    keys: bool,
}

impl Hold {
    /// Whether all is still there, whatever became of etcd.
    fn lives(&self, ttl: Duration) -> bool {
        self.keys && self.lease.is_some_and(|since| since.elapsed() < ttl)
    }
}

/// Why a round is over.
enum Over {
    /// The lease is gone: begin anew, at once.
    Lost(&'static str),
    /// Something failed: pause, then begin anew.
    Failed(Error),
}

impl From<Error> for Over {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused { code, .. } if code == crate::status::code_name(Code::NotFound) => {
                Self::Lost("the lease is gone")
            }
            error => Self::Failed(error),
        }
    }
}

impl Keeper {
    async fn run(mut self, mut wishes: watch::Receiver<Wish>, serving: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            _ = wishes.wait_for(|wish| *wish == Wish::Leave) => {}
            () = serving => {}
        }
        loop {
            let wish = *wishes.borrow_and_update();
            let work = async {
                match wish {
                    Wish::Register => self.stay().await,
                    Wish::Pause => self.withdraw(State::Paused).await,
                    Wish::Leave => self.withdraw(State::Left).await,
                }
                std::future::pending::<()>().await;
            };
            // Cancel-safe: what was under way at etcd is without effect once the lease is revoked,
            // and what is not ends with it. A revocation that was cut short is tried again, or the
            // lease is made again.
            tokio::select! {
                biased;
                changed = wishes.changed() => if changed.is_err() {
                    drop(time::timeout(LEAVE_MAX, self.revoke()).await);
                    return;
                },
                () = work => {}
            }
        }
    }

    /// Registers, again and again.
    async fn stay(&mut self) {
        self.set(State::Registering, None);
        let mut backoff = Backoff::new(BACKOFF).expect("the bounds are valid");
        loop {
            let made = self.registration.borrow().made;
            let over: Result<std::convert::Infallible, Over> = self.round().await;
            if self.registration.borrow().made != made {
                backoff.reset();
            }
            match over {
                Err(Over::Lost(why)) => {
                    *self.hold() = Hold::default();
                    self.set(State::Registering, Some(why));
                    // At once, but not in a circle where etcd loses it each time.
                    if self.registration.borrow().made == made {
                        time::sleep(backoff.next_pause()).await;
                    }
                }
                Err(Over::Failed(error)) => {
                    // Until the lease may have run out it is still there.
                    let state = if self.hold().lives(self.ttl) {
                        State::Registered
                    } else {
                        State::Registering
                    };
                    self.set(state, Some(&chain(&error)));
                    time::sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    /// Makes the registration and holds it, until something ends that.
    async fn round(&mut self) -> Result<std::convert::Infallible, Over> {
        let mut client = self.etcd.client().await?;
        self.grant(&mut client).await?;
        let mut heartbeat = Heartbeat::start(&self.etcd, &mut client, self.lease, self.ttl).await?;
        // Beside each other: where etcd is slow, the lease would not outlive one request after the
        // other. Cancel-safe: the first to end ends the other, and the round.
        tokio::select! {
            biased;
            over = self.keep_alive(&mut heartbeat) => over,
            over = self.keep_keys(&mut client) => over,
        }
    }

    async fn keep_alive(
        &self,
        heartbeat: &mut Heartbeat,
    ) -> Result<std::convert::Infallible, Over> {
        loop {
            self.hold().lease = Some(heartbeat.since());
            heartbeat.beat().await?;
        }
    }

    /// Writes the keys, and again whenever they are not what they should be.
    async fn keep_keys(&self, client: &mut Client) -> Result<std::convert::Infallible, Over> {
        let revision = self.put(client).await?;
        let mut events = self.watch(client, revision).await?;
        loop {
            // Cancel-safe: a message is taken whole or not at all.
            let event = time::timeout(self.ttl * LOOK_EVERY, events.message()).await;
            let Ok(event) = event else {
                self.put(client).await?;
                continue;
            };
            let event = event.map_err(|error| super::refused("watch", &error))?;
            if self.is_taken(event)? {
                tracing::warn!(
                    name = self.name,
                    "the registration was deleted or written over; it is made again"
                );
                let what = "deleted or written over";
                self.journal.record(Kind::Registration, &*self.name, what);
                self.hold().keys = false;
                self.put(client).await?;
            }
        }
    }

    /// Asks for the lease; that it is there already is as good.
    async fn grant(&mut self, client: &mut Client) -> Result<(), Error> {
        self.asked = true;
        let seconds = i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX);
        let options = LeaseGrantOptions::new().with_id(self.lease);
        let granted = client.lease_grant(seconds, Some(options));
        match self.etcd.bounded("grant a lease", granted).await {
            Ok(_) => {
                // A new one has no keys yet.
                *self.hold() = Hold::default();
                Ok(())
            }
            Err(Error::Refused { code, .. })
                if code == crate::status::code_name(Code::FailedPrecondition) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Writes all entries, unless they are there; the revision as of which they are.
    async fn put(&self, client: &mut Client) -> Result<i64, Error> {
        let there: Vec<_> = self
            .entries
            .iter()
            .flat_map(|(key, value)| {
                [
                    Compare::value(key.as_str(), CompareOp::Equal, value.as_str()),
                    Compare::lease(key.as_str(), CompareOp::Equal, self.lease),
                ]
            })
            .collect();
        let puts: Vec<_> = self
            .entries
            .iter()
            .map(|(key, value)| {
                let options = PutOptions::new().with_lease(self.lease);
                TxnOp::put(key.as_str(), value.as_str(), Some(options))
            })
            .collect();
        let made = client.txn(Txn::new().when(there).or_else(puts));
        let answer = self.etcd.bounded("register", made).await?;
        if !answer.succeeded() {
            self.registration.send_modify(|it| it.made += 1);
            self.metrics.made();
        }
        self.hold().keys = true;
        self.set(State::Registered, None);
        Ok(answer
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision))
    }

    /// Whether an answer of the watch tells of a key that was deleted, or that others wrote.
    fn is_taken(&self, answer: Option<WatchResponse>) -> Result<bool, Error> {
        let answer = answer.ok_or_else(|| ended("watch"))?;
        if answer.canceled() {
            return Err(Error::Answer {
                what: "watch",
                message: format!("cancelled by etcd: {}", answer.cancel_reason()),
            });
        }
        let ours = |kv: &etcd_client::KeyValue| {
            let mut entries = self.entries.iter();
            kv.lease() == self.lease
                && entries.any(|(key, value)| {
                    key.as_bytes() == kv.key() && value.as_bytes() == kv.value()
                })
        };
        let mut events = answer.events().iter();
        Ok(events.any(|event| {
            event.0.r#type == i32::from(EventType::Delete) || !event.kv().is_some_and(ours)
        }))
    }

    /// Watches the keys for being deleted or written over, from after `revision`.
    async fn watch(&self, client: &mut Client, revision: i64) -> Result<WatchStream, Error> {
        let options = || WatchOptions::new().with_start_revision(revision + 1);
        let mut keys = self.entries.iter().map(|(key, _)| key.as_str());
        let first = keys.next().unwrap_or_default();
        let stream = client.watch(first, Some(options()));
        let mut stream = self.etcd.bounded("watch", stream).await?;
        for key in keys {
            let more = stream.watch(key, Some(options()));
            self.etcd.bounded("watch", more).await?;
        }
        Ok(stream)
    }

    /// Takes the registration back, again and again until etcd has it: a lease lives on in an etcd
    /// that is away, and has all of its time once that is back. `state` is told when it is done or
    /// the first try has failed, which is soon.
    async fn withdraw(&mut self, state: State) {
        *self.hold() = Hold::default();
        let mut backoff = Backoff::new(BACKOFF).expect("the bounds are valid");
        let first = time::timeout(LEAVE_MAX, self.revoke()).await;
        let mut tried = first.unwrap_or(Err(Error::TimedOut {
            what: REVOKE,
            timeout: LEAVE_MAX,
        }));
        while let Err(error) = tried {
            self.set(state, Some(&format!("not taken back: {}", chain(&error))));
            time::sleep(backoff.next_pause()).await;
            tried = self.revoke().await;
        }
        self.set(state, None);
    }

    /// Takes the lease back, and with it all keys.
    async fn revoke(&mut self) -> Result<(), Error> {
        // What was never heard of may have been done all the same.
        if !self.asked {
            return Ok(());
        }
        let mut client = self.etcd.client().await?;
        let revoked = client.lease_revoke(self.lease);
        let revoked = self.etcd.bounded(REVOKE, revoked).await;
        let gone = crate::status::code_name(Code::NotFound);
        match revoked {
            Err(Error::Refused { code, .. }) if code == gone => {}
            other => _ = other?,
        }
        self.asked = false;
        Ok(())
    }

    fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State, error: Option<&str>) {
        self.metrics.registered(state == State::Registered);
        let changed = self.registration.send_if_modified(|it| {
            if it.state == state && it.error.as_deref() == error {
                return false;
            }
            if it.state != state {
                it.since = Instant::now();
            }
            it.state = state;
            it.ever |= state == State::Registered;
            it.error = error.map(Into::into);
            true
        });
        if !changed {
            return;
        }
        let name = &*self.name;
        match (error, state) {
            (Some(error), _) => tracing::warn!(name, state = state.as_str(), error, "registration"),
            (None, State::Registering) => {}
            (None, _) => tracing::info!(name, state = state.as_str(), "registration"),
        }
        let detail = match error {
            Some(error) => format!("{}: {error}", state.as_str()),
            None => state.as_str().to_owned(),
        };
        self.journal.record(Kind::Registration, name, detail);
    }
}

/// etcd's client says in words what the protocol says with a time to live of nothing.
fn lost(error: Error) -> Over {
    match error {
        Error::Answer { message, .. } if message.contains("lease not found") => {
            Over::Lost("the lease is gone")
        }
        error => error.into(),
    }
}

fn ended(what: &'static str) -> Error {
    Error::Answer {
        what,
        message: "etcd ended the stream".to_owned(),
    }
}
