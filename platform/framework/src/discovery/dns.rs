//! Names of the domain name system, asked again and again.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net,
    sync::{Notify, watch},
    time::{self, Instant},
};

use super::{Resolution, Resolve, names::Names};
use crate::shutdown::Tasks;

/// How long an answer is taken for current.
const INTERVAL: Duration = Duration::from_secs(30);
/// Shortest time between two questions, whatever fails.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// How long a question may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Resolves `HOST:PORT`, or several with commas between them, through the operating system: at once,
/// every 30 seconds, and when endpoints fail, at least 5 seconds apart.
#[derive(Debug, Clone)]
pub struct Dns {
    tasks: Tasks,
    names: Names,
}

impl Dns {
    /// Asks nothing yet. One task per watched name belongs to `tasks`.
    #[must_use]
    pub fn new(tasks: Tasks) -> Self {
        Self {
            tasks,
            names: Names::default(),
        }
    }
}

impl Resolve for Dns {
    fn resolve(&self, name: &str) -> watch::Receiver<Resolution> {
        self.names.join(name, |watched| {
            let question = Question {
                name: name.to_owned(),
                resolutions: watched.resolutions,
                refresh: watched.hint,
            };
            let stopping = self.tasks.stopping();
            self.tasks.spawn("dns", async move {
                stopping
                    .run_until_cancelled(question.ask_while_wanted(lookup))
                    .await;
            });
        })
    }

    fn refresh(&self, name: &str) {
        self.names.hint(name);
    }
}

/// The addresses of all hosts of `names`, which commas are between. One host that is not found does
/// not hide the others.
async fn lookup(names: String) -> io::Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    let mut failed = None;
    for host in names.split(',') {
        match net::lookup_host(host).await {
            Ok(addrs) => found.extend(addrs),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

struct Question {
    name: String,
    resolutions: watch::Sender<Resolution>,
    refresh: Arc<Notify>,
}

impl Question {
    async fn ask_while_wanted<F>(self, lookup: impl Fn(String) -> F)
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        loop {
            let asked = Instant::now();
            let answer = time::timeout(TIMEOUT, lookup(self.name.clone())).await;
            self.note(answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())));
            tokio::select! {
                () = self.resolutions.closed() => return,
                () = time::sleep_until(asked + INTERVAL) => {}
                () = self.refresh.notified() => {
                    time::sleep_until(asked + PAUSE_MIN).await;
                }
            }
        }
    }

    fn note(&self, answer: io::Result<Vec<SocketAddr>>) {
        let error = match answer {
            Ok(mut addrs) if !addrs.is_empty() => {
                // Servers shuffle their answers; an order of its own makes equal lists equal.
                addrs.sort_unstable();
                addrs.dedup();
                let next = Resolution::new(addrs);
                self.resolutions.send_if_modified(|last| {
                    let changed = last.endpoints != next.endpoints || last.error.is_some();
                    *last = next;
                    changed
                });
                return;
            }
            Ok(_) => "the name has no address".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::debug!(name = self.name, error, "name not resolved");
        let error: Arc<str> = format!("resolve {}: {error}", self.name).into();
        self.resolutions.send_if_modified(|last| {
            let changed = last.error.as_ref() != Some(&error);
            last.error = Some(error);
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    struct Scripted {
        resolutions: watch::Receiver<Resolution>,
        refresh: Arc<Notify>,
        asked: Arc<AtomicUsize>,
        answer: Arc<Mutex<io::Result<Vec<SocketAddr>>>>,
        tasks: Tasks,
    }

    fn scripted(first: &[&str]) -> Scripted {
        let addrs: Vec<_> = first.iter().map(|addr| addr.parse().unwrap()).collect();
        let answer = Arc::new(Mutex::new(io::Result::Ok(addrs)));
        let asked = Arc::new(AtomicUsize::new(0));
        let resolutions = watch::Sender::default();
        let receiver = resolutions.subscribe();
        let refresh = Arc::new(Notify::new());
        let question = Question {
            name: "catalog:1".into(),
            resolutions,
            refresh: Arc::clone(&refresh),
        };
        let tasks = Tasks::new(crate::journal::Journal::new());
        let lookup = {
            let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
            move |_| {
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = match &*answer.lock().unwrap() {
                    Ok(addrs) => Ok(addrs.clone()),
                    Err(error) => Err(io::Error::from(error.kind())),
                };
                async { answer }
            }
        };
        tasks.spawn("dns", question.ask_while_wanted(lookup));
        Scripted {
            resolutions: receiver,
            refresh,
            asked,
            answer,
            tasks,
        }
    }

    /// Goal: a failing name server takes no endpoint away, and its failure is told.
    /// Method: one good answer, then failures, then good again with another list.
    #[tokio::test(start_paused = true)]
    async fn the_last_good_answer_stays() {
        let mut name = scripted(&["10.0.0.2:1", "10.0.0.1:1"]);
        name.resolutions.changed().await.unwrap();
        assert_eq!(2, name.resolutions.borrow_and_update().endpoints.len());

        *name.answer.lock().unwrap() = Err(io::ErrorKind::NotFound.into());
        name.resolutions.changed().await.unwrap();
        {
            let failed = name.resolutions.borrow_and_update();
            assert_eq!(2, failed.endpoints.len());
            assert!(failed.error.as_ref().unwrap().contains("catalog:1"));
        }

        *name.answer.lock().unwrap() = Ok(vec!["10.0.0.3:1".parse().unwrap()]);
        name.resolutions.changed().await.unwrap();
        let good = name.resolutions.borrow_and_update();
        assert_eq!(1, good.endpoints.len());
        assert!(good.error.is_none());
    }

    /// Goal: failing endpoints make it ask sooner, but not as often as they fail.
    /// Method: a hint every 100 ms for 20 s; count the questions.
    #[tokio::test(start_paused = true)]
    async fn hints_are_followed_within_bounds() {
        let mut name = scripted(&["10.0.0.1:1"]);
        name.resolutions.changed().await.unwrap();
        for _ in 0..200 {
            name.refresh.notify_one();
            time::sleep(Duration::from_millis(100)).await;
        }
        let asked = name.asked.load(Ordering::SeqCst);
        assert!((4..=5).contains(&asked), "{asked}");
    }

    /// Goal: a name nobody watches is no longer asked for.
    /// Method: drop the reader and wait for the task.
    #[tokio::test(start_paused = true)]
    async fn an_unwatched_name_is_let_go() {
        let name = scripted(&["10.0.0.1:1"]);
        drop(name.resolutions);
        while name.tasks.running() > 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Goal: the real resolver answers for the one name every machine knows.
    /// Method: localhost.
    #[tokio::test]
    async fn localhost_resolves() {
        let dns = Dns::new(Tasks::new(crate::journal::Journal::new()));
        let mut watched = dns.resolve("localhost:5001");
        let resolved = watched
            .wait_for(|resolution| !resolution.endpoints.is_empty())
            .await
            .unwrap();
        assert!(resolved.endpoints.iter().all(|e| e.addr.ip().is_loopback()));
    }
}
