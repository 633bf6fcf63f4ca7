//! What the operating system asks of the process.
//!
//! SIGTERM and SIGINT begin the drain, a second one ends the process at once, SIGHUP asks for the
//! configuration to be read again. A thread of its own waits for them, so that a second signal
//! works even where every thread of the main runtime hangs.

use std::{io, sync::mpsc, thread};

use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// The exit code upon a second signal.
const EXIT_SECOND_SIGNAL: i32 = 130;

/// What the process has been asked for since [`Signals::install`].
#[derive(Debug, Clone)]
pub struct Signals {
    stop: CancellationToken,
    reload: watch::Receiver<u64>,
}

/// Signals cannot be received.
#[derive(Debug, thiserror::Error)]
#[error("install signal handlers")]
pub struct InstallError {
    source: io::Error,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT and SIGHUP; they are caught once this returns. Call it before
    /// anything is awaited: process 1 of a container has no default action to fall back on.
    ///
    /// `last_words` runs on a second SIGTERM or SIGINT, before the process exits with 130; it
    /// must not wait for anything.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    pub fn install(last_words: impl Fn() + Send + 'static) -> Result<Self, InstallError> {
        let stop = CancellationToken::new();
        let (reload_sender, reload) = watch::channel(0);
        let (ready_sender, ready) = mpsc::sync_channel(1);
        let state = Interrupts {
            stop: stop.clone(),
            reload: reload_sender,
        };
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                let caught = runtime::Builder::new_current_thread()
                    .enable_io()
                    .build()
                    .and_then(|runtime| {
                        let caught = {
                            let _entered = runtime.enter();
                            Caught::new()
                        };
                        caught.map(|caught| (runtime, caught))
                    });
                match caught {
                    Ok((runtime, caught)) => {
                        // The receiver waits right below; it is there.
                        drop(ready_sender.send(Ok(())));
                        runtime.block_on(caught.obey(&state, &last_words));
                    }
                    Err(error) => drop(ready_sender.send(Err(error))),
                }
            })
            .map_err(|source| InstallError { source })?;
        ready
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread ended")))
            .map_err(|source| InstallError { source })?;
        Ok(Self { stop, reload })
    }

    /// Cancelled by the first SIGTERM or SIGINT.
    #[must_use]
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Changes with every SIGHUP.
    #[must_use]
    pub fn reload(&self) -> watch::Receiver<u64> {
        self.reload.clone()
    }
}

struct Caught {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Caught {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn obey(mut self, state: &Interrupts, last_words: &impl Fn()) {
        loop {
            // Cancel-safe: each arm only waits.
            let asked = tokio::select! {
                Some(()) = self.terminate.recv() => Asked::Stop,
                Some(()) = self.interrupt.recv() => Asked::Stop,
                Some(()) = self.hangup.recv() => Asked::Reload,
                else => return,
            };
            if state.on(asked) == Next::Exit {
                last_words();
                std::process::exit(EXIT_SECOND_SIGNAL);
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    Stop,
    Reload,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    Exit,
}

/// What each signal means, given those before it.
struct Interrupts {
    stop: CancellationToken,
    reload: watch::Sender<u64>,
}

impl Interrupts {
    fn on(&self, asked: Asked) -> Next {
        match asked {
            Asked::Reload => self.reload.send_modify(|count| *count += 1),
            Asked::Stop if self.stop.is_cancelled() => return Next::Exit,
            Asked::Stop => self.stop.cancel(),
        }
        Next::GoOn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the first request to stop drains, the second exits, a reload does neither.
    /// Method: the sequence of signals without the operating system.
    #[test]
    fn the_second_request_to_stop_exits() {
        let (reload, reloads) = watch::channel(0);
        let state = Interrupts {
            stop: CancellationToken::new(),
            reload,
        };

        assert_eq!(Next::GoOn, state.on(Asked::Reload));
        assert!(!state.stop.is_cancelled());
        assert_eq!(Next::GoOn, state.on(Asked::Stop));
        assert!(state.stop.is_cancelled());
        assert_eq!(Next::GoOn, state.on(Asked::Reload));
        assert_eq!(Next::Exit, state.on(Asked::Stop));
        assert_eq!(2, *reloads.borrow());
    }
}
