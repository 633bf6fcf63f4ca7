//! `gantry load`: calls at a constant rate, or so many at a time, and what became of them.
//!
//! ```text
//! args, scenario ─▶ plan: methods by reflection, requests framed
//!                     │
//! pace: when ─────────▶ exchange: one call, as bytes ─▶ tally ─▶ report, show
//! ```
//!
//! Everything runs on one thread: the calls in flight are one set of futures, beside the channel's
//! own tasks.

mod exchange;
mod pace;
mod plan;
mod report;
mod requests;
mod scenario;
mod show;
mod tally;
mod text;

use std::{cell::RefCell, fs, path::Path, time::Duration};

use gantry::{client::Tls, retry};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use self::{
    pace::{Limits, Pace},
    plan::{Caller, Origin, Plan, Wanted},
    report::Report,
    show::Progress,
    tally::{DURATION_MAX, Tally},
};
use crate::{
    Outcome,
    args::{Load, file_of},
    call::{
        invoke,
        reflection::Reflection,
        target::{self, Target},
    },
    failure::{Exit, Failure},
    output::{self, Format},
};

/// How long a run is that is given neither a duration nor a count.
const DURATION: Duration = Duration::from_secs(10);

/// Calls per second at most; the timer's tick then is a thousand calls.
const RATE_MAX: f64 = 1e6;

/// Calls in flight at most.
const IN_FLIGHT_MAX: usize = 1_000_000;

pub(crate) async fn run(args: Load) -> Outcome {
    let pace = pace(&args)?;
    let limits = limits(&args)?;
    let wanted = wanted(&args)?;
    if let Some(path) = &args.report {
        // Before an hour's run, not after it.
        let opened = fs::OpenOptions::new().create(true).append(true).open(path);
        opened.map_err(|error| Failure::usage(format!("write {}: {error}", path.display())))?;
    }
    let retry = retried(args.retry.as_deref())?;
    let tls = target::tls(args.ca.clone(), args.server_name.clone());
    let plan = plan(&args, tls.clone(), wanted).await?;
    let places = match pace {
        Pace::Open { in_flight_max, .. } => in_flight_max,
        Pace::Closed { concurrency } => concurrency,
    };
    let target = Target::follow(&args.target, tls, &args.etcd, places, retry).await?;
    let measured = measure(&args, &target, plan, pace, limits).await;
    target.close().await;
    finish(&args, &measured?)
}

/// How failed calls are tried again: not at all, where nobody asks for it.
fn retried(codes: Option<&[String]>) -> Result<retry::Config, Failure> {
    let Some(codes) = codes else {
        return Ok(retry::Config {
            attempts_max: 1,
            ..retry::Config::default()
        });
    };
    let codes = codes.iter().map(|name| {
        let mut known = retry::Code::ALL.iter();
        let code = known.find(|code| code.as_str() == name);
        code.copied().ok_or_else(|| {
            let known = retry::Code::ALL.map(retry::Code::as_str).join(", ");
            Failure::usage(format!("--retry {name}: expected one of {known}"))
        })
    });
    Ok(retry::Config {
        codes: codes.collect::<Result<_, _>>()?,
        ..retry::Config::default()
    })
}

/// Asks the target about the methods.
///
/// Over connections of its own: a balancer that had seen how long these answers take would spare
/// whoever gave them, and the run would show it.
async fn plan(args: &Load, tls: Option<Tls>, wanted: Vec<Wanted>) -> Result<Plan, Failure> {
    let target = Target::find(&args.target, tls, &args.etcd).await?;
    let asking = async {
        let (reflection, services) = Reflection::of(target.channel.clone()).await?;
        Plan::of(wanted, &reflection, &services).await
    };
    let plan = asking.await;
    target.close().await;
    plan
}

async fn measure(
    args: &Load,
    target: &Target,
    plan: Plan,
    pace: Pace,
    limits: (Option<Duration>, Option<u64>),
) -> Result<Report, Failure> {
    target.settled().await;
    let mut interrupts = interrupts(target)?;
    let (duration, count) = limits;
    let limits = Limits {
        duration,
        count,
        linger: plan.linger(),
    };
    let mut progress = Progress::new();
    let tally = RefCell::new(Tally::new(plan.methods.len()));
    let mut caller = Caller {
        channel: target.channel.clone(),
        plan,
    };
    let tell = |tally: &mut Tally| progress.tell(tally);
    let finished = pace::run(pace, limits, &mut caller, &tally, &mut interrupts, tell).await;
    progress.end();
    let tally = tally.into_inner();
    Ok(Report::of(
        &args.target,
        pace,
        &caller.plan,
        &tally,
        finished,
    ))
}

/// Prints the report, and says what it means to a script.
fn finish(args: &Load, report: &Report) -> Outcome {
    match args.output {
        Format::Json => output::json(report),
        Format::Human => output::line(&show::summary(report)),
    }
    if let Some(path) = &args.report {
        write(path, report)?;
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

fn write(path: &Path, report: &Report) -> Result<(), Failure> {
    fs::write(path, output::to_json(report) + "\n")
        .map_err(|error| Failure::failed(format!("write {}: {error}", path.display())))
}

/// A message for each Ctrl-C or SIGTERM.
fn interrupts(target: &Target) -> Result<mpsc::Receiver<()>, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| Failure::failed(format!("listen for signals: {error}")))
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let (sender, receiver) = mpsc::channel(1);
    let stopping = target.tasks().stopping();
    target.tasks().spawn("signals", async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = stopping.cancelled() => return,
            }
            if sender.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

fn pace(args: &Load) -> Result<Pace, Failure> {
    let places = |option: &str, count: usize| {
        if (1..=IN_FLIGHT_MAX).contains(&count) {
            return Ok(count);
        }
        let text = format!("{option} {count}: from 1 to {IN_FLIGHT_MAX}");
        Err(Failure::usage(text))
    };
    match (args.rate, args.concurrency) {
        (Some(rate), _) if rate > 0.0 && rate <= RATE_MAX => Ok(Pace::Open {
            rate,
            in_flight_max: places("--in-flight-max", args.in_flight_max)?,
        }),
        (Some(rate), _) => Err(Failure::usage(format!(
            "--rate {rate}: calls per second, above 0 and up to {RATE_MAX}"
        ))),
        (None, Some(concurrency)) => Ok(Pace::Closed {
            concurrency: places("--concurrency", concurrency)?,
        }),
        (None, None) => Err(Failure::usage(
            "give --rate N for calls at a constant rate, or --concurrency N for so many at a time",
        )),
    }
}

fn limits(args: &Load) -> Result<(Option<Duration>, Option<u64>), Failure> {
    if args.count == Some(0) {
        return Err(Failure::usage("--count 0: at least one call"));
    }
    let duration = match (args.duration, args.count) {
        (Some(duration), _) if duration.is_zero() || duration > DURATION_MAX => {
            let text = "--duration: above 0s and up to 24h; a count has no such bound";
            return Err(Failure::usage(text));
        }
        (Some(duration), _) => Some(duration),
        (None, Some(_)) => None,
        (None, None) => Some(DURATION),
    };
    Ok((duration, args.count))
}

fn wanted(args: &Load) -> Result<Vec<Wanted>, Failure> {
    let mut headers = Vec::new();
    for header in &args.headers {
        let (key, value) = invoke::pair(header)?;
        plan::check_header(key, value)
            .map_err(|why| Failure::usage(format!("-H \"{header}\": {why}")))?;
        headers.push((key.to_owned(), value.to_owned()));
    }
    if let Some(deadline) = args.deadline {
        not_zero(deadline).map_err(|why| Failure::usage(format!("--deadline 0s: {why}")))?;
    }
    if let Some(path) = &args.scenario {
        let mut wanted = scenario::read(path)?;
        for one in &mut wanted {
            // The command line has the last word.
            let given = |key: &str| headers.iter().any(|(it, _)| it.eq_ignore_ascii_case(key));
            one.headers.retain(|(key, _)| !given(key));
            one.headers.extend(headers.iter().cloned());
            one.deadline = one.deadline.or(args.deadline);
        }
        return Ok(wanted);
    }
    let Some(method) = &args.method else {
        return Err(Failure::usage(
            "name a method as package.Service/Method (`gantry call WHOM` lists them), or --scenario FILE",
        ));
    };
    let (request, origin) = request(args.request.as_deref())?;
    Ok(vec![Wanted {
        place: None,
        name: method.clone(),
        method: method.clone(),
        weight: 1,
        request,
        origin,
        headers,
        deadline: args.deadline,
    }])
}

fn request(argument: Option<&str>) -> Result<(Option<String>, Origin), Failure> {
    let Some(path) = argument.and_then(file_of) else {
        let origin = Origin::Argument("request".to_owned());
        return Ok((argument.map(str::to_owned), origin));
    };
    let text = fs::read_to_string(&path)
        .map_err(|error| Failure::usage(format!("read {}: {error}", path.display())))?;
    Ok((Some(text), Origin::File(path)))
}

/// A deadline that leaves any time at all.
fn not_zero(deadline: Duration) -> Result<Duration, String> {
    if deadline.is_zero() {
        return Err("it leaves no time for a call".to_owned());
    }
    Ok(deadline)
}
