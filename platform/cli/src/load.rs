//! `gantry load`: calls at a given rate, or so many at a time, and what became of them.
//!
//! ```text
//! args, file ─▶ asked ─▶ plan: methods by reflection, requests framed
//!                          │
//! pace: when, by rates ────▶ caller, exchange: one call, as bytes ─▶ tally, series ─▶ report
//! harm: what is done to instances meanwhile                                              │
//!                                                                            show, page ◀┘
//! ```
//!
//! Everything runs on one thread: the calls in flight are one set of futures, beside the channels'
//! own tasks.

mod asked;
mod caller;
mod exchange;
mod file;
mod harm;
mod pace;
mod page;
mod plan;
mod rates;
mod report;
mod requests;
mod scenarios;
mod series;
mod show;
mod tally;
mod text;
mod wish;

#[cfg(test)]
#[path = "../tests/support/descriptors.rs"]
mod descriptors;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use gantry::{client::Tls, retry, shutdown::Tasks};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

use self::{
    asked::Asked,
    caller::Caller,
    pace::{Limits, Pace},
    plan::{Plan, Served, Step, Usual},
    report::{Report, Run},
    show::Progress,
    tally::Tally,
};
use crate::{
    Outcome,
    args::{EtcdOptions, Load},
    call::{
        reflection::Reflection,
        target::{self, Target},
    },
    failure::{Exit, Failure},
    output::{self, Format},
};

pub(crate) use scenarios::help as scenarios;

/// How long a run is that is given neither a duration nor a count.
const DURATION: Duration = Duration::from_secs(10);

/// Calls per second at most; the timer's tick then is a thousand calls.
const RATE_MAX: f64 = 1e6;

/// Calls in flight at most.
const IN_FLIGHT_MAX: usize = 1_000_000;

pub(crate) async fn run(args: Load) -> Outcome {
    let asked = Asked::of(&args)?;
    for path in &args.reports {
        report::check_file(path)?;
    }
    let hand = match &asked.faults[..] {
        [] => None,
        faults => Some(harm::Up::find(faults).await?),
    };
    let tls = target::tls(args.ca.clone(), args.server_name.clone());
    let usual = asked.usual();
    let mut asking = Vec::new();
    let planned = async {
        let served = served(
            &asked.steps(),
            &usual,
            tls.as_ref(),
            &args.etcd,
            &mut asking,
        )
        .await?;
        Plan::of(&asked.before, &asked.calls, &usual, &served, &asked.values).await
    };
    let plan = planned.await;
    close(asking).await;
    let plan = plan?;
    let targets = follow(&plan, &asked.pace, tls.as_ref(), &args.etcd).await?;
    let channels: Rc<[_]> = targets.iter().map(|it| it.channel.clone()).collect();
    let mut caller = Caller {
        channels,
        plan,
        values: Rc::new(asked.values.clone()),
    };
    let measured = measure(&asked, &targets, &mut caller, hand.as_ref()).await;
    close(targets).await;
    finish(&args, &measured?)
}

async fn close(targets: Vec<Target>) {
    for target in targets {
        target.close().await;
    }
}

/// A code that calls may be tried again after.
fn retry_code(name: &str) -> Result<retry::Code, String> {
    let mut known = retry::Code::ALL.iter();
    let code = known.find(|code| code.as_str() == name);
    code.copied().ok_or_else(|| {
        let known = retry::Code::ALL.map(retry::Code::as_str).join(", ");
        format!("expected one of {known}")
    })
}

/// Asks everybody who is called about what they serve. They are asked on as calls are looked up,
/// over the connections in `asking`.
///
/// Those are not the ones of the run: a balancer that had seen how long these answers take would spare
/// whoever gave them, and the run would show it.
async fn served(
    steps: &[&Step],
    usual: &Usual<'_>,
    tls: Option<&Tls>,
    etcd: &EtcdOptions,
    asking: &mut Vec<Target>,
) -> Result<BTreeMap<String, Served>, Failure> {
    let mut all = BTreeMap::new();
    for step in steps {
        let name = step.whom(usual).name;
        if all.contains_key(&name) {
            continue;
        }
        let asked = async {
            let target = Target::find(&name, tls.cloned(), etcd).await?;
            let channel = target.channel.clone();
            asking.push(target);
            Reflection::of(channel).await
        };
        let asked = asked.await;
        let (reflection, services) = asked.map_err(|failure| match &step.place {
            Some(place) => Failure::new(failure.exit(), format!("{place}: {name}: {failure}")),
            None => failure,
        })?;
        let served = Served {
            reflection,
            services,
        };
        all.insert(name, served);
    }
    Ok(all)
}

/// Connects to everybody who is called.
async fn follow(
    plan: &Plan,
    pace: &Pace,
    tls: Option<&Tls>,
    etcd: &EtcdOptions,
) -> Result<Vec<Target>, Failure> {
    let places = match pace {
        Pace::Open { in_flight_max, .. } => *in_flight_max,
        Pace::Closed { concurrency } => *concurrency,
    };
    let mut targets = Vec::new();
    for whom in &plan.targets {
        // Not at all, where nobody asks for it.
        let attempts_max = if whom.retry.is_empty() {
            1
        } else {
            retry::Config::default().attempts_max
        };
        let retry = retry::Config {
            attempts_max,
            codes: whom.retry.clone(),
            ..retry::Config::default()
        };
        let followed = Target::follow(&whom.name, tls.cloned(), etcd, places, retry).await;
        targets.push(followed?);
    }
    Ok(targets)
}

async fn measure(
    asked: &Asked,
    targets: &[Target],
    caller: &mut Caller,
    hand: Option<&harm::Up>,
) -> Result<Report, Failure> {
    for target in targets {
        target.settled().await;
    }
    caller.prepare_run().await?;
    let stop = Arc::new(watch::Sender::new(false));
    let tasks = targets[0].tasks();
    let mut interrupts = interrupts(tasks, Arc::clone(&stop))?;
    let limits = Limits {
        linger: caller.plan.linger(),
        ..asked.limits
    };
    let (kinds, kind_of) = caller.plan.kinds();
    let mut progress = Progress::new();
    let tally = RefCell::new(Tally::new(kind_of));
    let began = tally.borrow().began;
    let stopped = stop.subscribe();
    let sending = async {
        let tell = |tally: &mut Tally| progress.tell(tally);
        let sent = || {
            stop.send_replace(true);
        };
        let interrupts = &mut interrupts;
        pace::run(&asked.pace, limits, caller, &tally, interrupts, tell, sent).await
    };
    let harming = async {
        match hand {
            Some(hand) => harm::run(&asked.faults, began, hand, &stopped, show::tell_harm).await,
            None => Vec::new(),
        }
    };
    let (finished, faults) = tokio::join!(sending, harming);
    progress.end();
    let run = Run {
        pace: &asked.pace,
        plan: &caller.plan,
        kinds: &kinds,
        finished,
        faults,
    };
    Ok(Report::of(run, &tally.into_inner()))
}

/// Prints the report, and says what it means to a script.
fn finish(args: &Load, report: &Report) -> Outcome {
    match args.output {
        Format::Json => output::json(report),
        Format::Human => output::line(&show::summary(report)),
    }
    for path in &args.reports {
        report::write(path, report)?;
    }
    if report.interrupted {
        return Ok(Exit::Interrupted);
    }
    if report.void {
        // People have read why.
        return match args.output {
            Format::Human => Ok(Exit::Failed),
            Format::Json => Err(Failure::failed(format!(
                "the run is void: {}",
                report.void_reasons.join("; ")
            ))),
        };
    }
    if args.fail_on_error && report.failed() > 0 {
        let text = format!("{} of {} calls failed", report.failed(), report.due);
        return Err(Failure::failed(text));
    }
    Ok(Exit::Fine)
}

/// A message for each Ctrl-C, SIGTERM or end of the terminal; the first of them also turns `stop` true at once.
fn interrupts(
    tasks: &Tasks,
    stop: Arc<watch::Sender<bool>>,
) -> Result<mpsc::Receiver<()>, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| Failure::failed(format!("listen for signals: {error}")))
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    let (sender, receiver) = mpsc::channel(1);
    let stopping = tasks.stopping();
    tasks.spawn("signals", async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
                () = stopping.cancelled() => return,
            }
            stop.send_replace(true);
            if sender.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// A deadline that leaves any time at all.
fn not_zero(deadline: Duration) -> Result<Duration, String> {
    if deadline.is_zero() {
        return Err("it leaves no time for a call".to_owned());
    }
    Ok(deadline)
}
