//! Reads the configuration again when it changes, and keeps the last good one when it is wrong.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task, time};
use tokio_util::sync::CancellationToken;

use super::{
    Entry, Fault, Faults, Live, Loaded, Origin, Publisher, Section, Sources,
    hold::{self, Held, Running},
    notice::{Eyes, Look, Notices, Schedule},
    read,
    reader::Mode,
    rule::Rule,
    sources::Texts,
    understand,
};
use crate::{
    journal::{Journal, Kind},
    shutdown::Tasks,
};

/// How late the file system may tell of a write that a look ran into.
const HINDSIGHT: Duration = Duration::from_millis(5);

/// What the journal calls it.
const SUBJECT: &str = "configuration";

/// How the configuration stands.
#[derive(Debug, Clone)]
pub struct Status {
    /// Version in use, from 1; one more for each change that took effect.
    pub version: u64,
    /// Changes that took effect.
    pub applied: u64,
    /// Changes that were refused.
    pub refused: u64,
    /// Why the files as they are now are refused; nothing while they are fine.
    pub refusal: Option<Faults>,
    /// Keys, and members of maps, whose change waits for a restart.
    pub pending: Vec<String>,
    /// Every key with its value, origin and what waits.
    pub entries: Arc<[Entry]>,
    /// Requests that are answered.
    answered: u64,
}

/// Watches and drives the reading of a process's configuration; clones share it.
#[derive(Debug, Clone)]
pub struct Handle {
    notices: watch::Sender<Notices>,
    status: watch::Receiver<Status>,
    rule: Rule,
}

impl Handle {
    /// Has changes judged by a rule, too, that needs more than the configuration. What it refuses is
    /// refused like anything else. What is in use already is not judged; it is for the whole
    /// configuration of the process, of type `C`, and there is one.
    pub fn judge_by<C: Section>(
        &self,
        rule: impl Fn(&C, &[Entry]) -> Vec<Fault> + Send + Sync + 'static,
    ) {
        self.rule.set(rule);
    }

    #[cfg(test)]
    pub(super) fn notices(&self) -> watch::Sender<Notices> {
        self.notices.clone()
    }

    /// How the configuration stands, now and after each change of that.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Reads everything again, as SIGHUP asks for, and says how it stands then.
    ///
    /// Unlike a change that is only noticed, this goes on without a file that is gone, and reads
    /// the files of secrets again. After the process began to stop, nothing is read. Dropping the
    /// future does not take the request back.
    pub async fn reload(&self) -> Status {
        let mut mine = 0;
        self.notices.send_modify(|notices| {
            notices.asked += 1;
            mine = notices.asked;
        });
        let mut status = self.status.clone();
        // An error says that nobody reads any more: the last status stands.
        let answered = status.wait_for(|status| status.answered >= mine).await;
        if let Ok(answered) = answered {
            return answered.clone();
        }
        self.status.borrow().clone()
    }
}

impl<C: Section> Loaded<C> {
    /// Puts the configuration into use, and keeps it up to date with its files in a task of
    /// `tasks` until those stop.
    ///
    /// What is wrong is refused whole, reported as an error and to `journal`, and changes nothing.
    #[must_use]
    pub fn start(self, tasks: &Tasks, journal: Journal) -> (Live<C>, Handle) {
        let (watcher, live, handle) = self.watcher(journal);
        let eyes = Eyes::open(watcher.sources.paths(), handle.notices.clone());
        let stopping = tasks.stopping();
        tasks.spawn("config", async move {
            watcher.run(stopping).await;
            drop(eyes);
        });
        (live, handle)
    }

    pub(super) fn watcher(self, journal: Journal) -> (Watcher<C>, Live<C>, Handle) {
        let publisher = Publisher::new(self.config);
        let live = publisher.live();
        let notices = watch::Sender::new(Notices::default());
        let status = watch::Sender::new(Status {
            version: 1,
            applied: 0,
            refused: 0,
            refusal: None,
            pending: Vec::new(),
            entries: self.running.entries.clone().into(),
            answered: 0,
        });
        let rule = Rule::default();
        let handle = Handle {
            notices: notices.clone(),
            status: status.subscribe(),
            rule: rule.clone(),
        };
        let watcher = Watcher {
            sources: Arc::new(self.sources),
            running: Arc::new(self.running),
            good: Arc::new(self.texts.clone()),
            last: self.texts,
            publisher,
            rule,
            notices: notices.subscribe(),
            _notices: notices,
            status,
            journal,
        };
        (watcher, live, handle)
    }
}

/// The task that owns a process's configuration.
#[derive(Debug)]
pub(super) struct Watcher<C> {
    sources: Arc<Sources>,
    running: Arc<Running>,
    /// The texts that are in use.
    good: Arc<Texts>,
    /// The texts that were judged last.
    last: Texts,
    publisher: Publisher<C>,
    rule: Rule,
    notices: watch::Receiver<Notices>,
    _notices: watch::Sender<Notices>,
    status: watch::Sender<Status>,
    journal: Journal,
}

/// What the texts of one moment are worth.
enum Verdict<C> {
    Good(Box<Next<C>>),
    Bad(Faults),
}

impl<C: Section> Verdict<C> {
    /// The same once what is to be used was judged by `rule`, too.
    fn by(self, rule: &Rule) -> Self {
        let Self::Good(next) = &self else {
            return self;
        };
        let faults = rule.judge(&next.config, &next.running.entries);
        if faults.is_empty() {
            return self;
        }
        Self::Bad(Faults::new(faults))
    }
}

struct Next<C> {
    config: C,
    running: Running,
    pending: Vec<String>,
}

impl<C: Section> Watcher<C> {
    pub(super) async fn run(mut self, stopping: CancellationToken) {
        let mut schedule = Schedule::new(time::Instant::now());
        loop {
            let (at, look) = schedule.next();
            // Cancel-safe: each arm either has happened or has not.
            tokio::select! {
                () = stopping.cancelled() => return,
                changed = self.notices.changed() => {
                    changed.expect("this task holds a sender itself");
                    let notices = *self.notices.borrow_and_update();
                    schedule.note(time::Instant::now(), notices);
                }
                () = time::sleep_until(at) => self.look(look, &mut schedule).await,
            }
        }
    }

    /// Looks at the files, and judges what is new.
    async fn look(&mut self, look: Look, schedule: &mut Schedule) {
        let before = *self.notices.borrow();
        schedule.begun(time::Instant::now());
        let sources = Arc::clone(&self.sources);
        let Ok(texts) = task::spawn_blocking(move || sources.read()).await else {
            return;
        };
        let asked = before.asked > self.status.borrow().answered;
        if texts == self.last && !asked {
            return;
        }
        if look == Look::Poll {
            schedule.found(time::Instant::now());
            return;
        }
        time::sleep(HINDSIGHT).await;
        if self.notices.borrow().signs != before.signs {
            schedule.again(time::Instant::now());
            return;
        }
        self.judge(texts, asked, before.asked).await;
    }

    async fn judge(&mut self, texts: Texts, asked: bool, answers: u64) {
        let (sources, running) = (Arc::clone(&self.sources), Arc::clone(&self.running));
        let (good, now) = (Arc::clone(&self.good), texts.clone());
        let rule = self.rule.clone();
        let verdict = task::spawn_blocking(move || {
            let gone = sources.gone(&good, &now);
            if !gone.is_empty() && !asked {
                return Verdict::Bad(Faults::new(gone));
            }
            judge(&sources, &now, &running).by(&rule)
        });
        match verdict.await {
            Ok(Verdict::Good(next)) => {
                self.good = Arc::new(texts.clone());
                self.apply(*next);
            }
            Ok(Verdict::Bad(faults)) => self.refuse(faults),
            // What a section does while it is read must not cost the process its watcher.
            Err(_) => self.refuse(Faults::new(vec![Fault {
                origin: Origin::Default,
                key: String::new(),
                reason: "a rule of the configuration panicked".to_owned(),
            }])),
        }
        self.last = texts;
        self.status.send_modify(|status| status.answered = answers);
    }

    fn apply(&mut self, next: Next<C>) {
        let changed = hold::changed(&self.running.entries, &next.running.entries);
        let mut version = self.status.borrow().version;
        if !changed.is_empty() {
            version = self.publisher.publish(next.config);
            let keys = changed.join(", ");
            tracing::info!(version, keys, "configuration applied");
            let detail = format!("version {version}: {keys}");
            self.journal.record(Kind::ConfigApplied, SUBJECT, detail);
        }
        if next.pending != self.status.borrow().pending && !next.pending.is_empty() {
            let keys = next.pending.join(", ");
            tracing::warn!(keys, "a change of configuration waits for a restart");
            let detail = format!("waits for a restart: {keys}");
            self.journal.record(Kind::ConfigApplied, SUBJECT, detail);
        }
        let entries = next.running.entries.clone().into();
        self.running = Arc::new(next.running);
        self.status.send_modify(|status| {
            status.applied += u64::from(status.version != version);
            status.version = version;
            status.refusal = None;
            status.pending = next.pending;
            status.entries = entries;
        });
    }

    fn refuse(&mut self, faults: Faults) {
        for fault in faults.iter() {
            tracing::error!(%fault, "configuration refused, the last good one stays");
        }
        let detail = faults.to_string();
        self.journal.record(Kind::ConfigRefused, SUBJECT, detail);
        self.status.send_modify(|status| {
            status.refused += 1;
            status.refusal = Some(faults);
        });
    }
}

/// Reads `texts` whole, then again with what has to wait for a restart as it runs.
fn judge<C: Section>(sources: &Sources, texts: &Texts, running: &Running) -> Verdict<C> {
    let layers = sources.layers(texts);
    let table = layers.merge();
    let (config, notes) = match understand::<C>(&layers, &table) {
        Ok(understood) => understood,
        Err(faults) => return Verdict::Bad(faults),
    };
    let held = Held::new(running, &table, &layers.origins, &notes);
    if held.pending.is_empty() {
        let running = notes.running(table, layers.origins);
        return Verdict::Good(Box::new(Next {
            config,
            running,
            pending: Vec::new(),
        }));
    }
    let (config, mut mixed) = read::<C>(&held.table, &held.origins, Mode::Values);
    if !mixed.faults.is_empty() {
        let together = format!(
            " (valid by itself, but not before a restart changes {})",
            held.pending.join(", ")
        );
        for fault in &mut mixed.faults {
            fault.reason.push_str(&together);
        }
        return Verdict::Bad(Faults::new(mixed.faults));
    }
    held.mark(&mut mixed.entries, &notes.entries);
    Verdict::Good(Box::new(Next {
        config,
        pending: held.pending,
        running: mixed.running(held.table, held.origins),
    }))
}
