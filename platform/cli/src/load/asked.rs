//! What a run is to do: the command line, over the plan it names.

use std::{fs, path::PathBuf, time::Duration};

use gantry::retry;

use super::{
    DURATION, IN_FLIGHT_MAX, RATE_MAX,
    file::{self, File},
    harm::Planned,
    not_zero,
    pace::{Limits, Pace},
    plan::{self, Origin, Step, Usual, Wanted},
    rates::{Rates, Stage},
    retry_code, scenarios,
    tally::DURATION_MAX,
    text::Values,
};
use crate::{
    args::{Load, file_of},
    call::invoke,
    failure::Failure,
};

/// Everything that a run is to do.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Whom calls go to that do not say so themselves; empty where all do.
    target: String,
    retry: Vec<retry::Code>,
    pub(crate) values: Values,
    pub(crate) before: Vec<Step>,
    pub(crate) calls: Vec<Wanted>,
    pub(crate) faults: Vec<Planned>,
    pub(crate) pace: Pace,
    /// But for the linger, which the plan knows.
    pub(crate) limits: Limits,
}

impl Asked {
    /// What `args` ask for.
    pub(crate) fn of(args: &Load) -> Result<Self, Failure> {
        let headers = headers(args)?;
        if let Some(deadline) = args.deadline {
            not_zero(deadline).map_err(|why| Failure::usage(format!("--deadline 0s: {why}")))?;
        }
        let retry = retried(args.retry.as_deref())?;
        let stages = stages(&args.stages)?;
        let mut file = match path(args)? {
            Some(path) => file::read(&path)?,
            None => File::default(),
        };
        for step in file.calls.iter_mut().flat_map(|call| &mut call.steps) {
            // The command line has the last word.
            let given = |key: &str| headers.iter().any(|(it, _)| it.eq_ignore_ascii_case(key));
            step.headers.retain(|(key, _)| !given(key));
            step.headers.extend(headers.iter().cloned());
            step.deadline = step.deadline.or(args.deadline);
        }
        if file.calls.is_empty() {
            file.calls.push(one(args, headers)?);
        }
        let stages = if stages.is_empty() && args.rate.is_none() && args.concurrency.is_none() {
            std::mem::take(&mut file.stages)
        } else {
            stages
        };
        let target = args.target.clone().or(file.target.take());
        let asked = Self {
            values: file.values(),
            pace: pace(args, &stages)?,
            limits: limits(args, !stages.is_empty())?,
            target: target.unwrap_or_default(),
            retry,
            before: file.before,
            calls: file.calls,
            faults: file.faults,
        };
        asked.check_targets()?;
        Ok(asked)
    }

    pub(crate) fn usual(&self) -> Usual<'_> {
        Usual {
            target: &self.target,
            retry: &self.retry,
        }
    }

    /// All methods that are called.
    pub(crate) fn steps(&self) -> Vec<&Step> {
        let calls = self.calls.iter().flat_map(|call| &call.steps);
        self.before.iter().chain(calls).collect()
    }

    fn check_targets(&self) -> Result<(), Failure> {
        let steps = self.steps();
        let mut lost = steps.iter().filter(|step| step.target.is_none());
        match lost.next() {
            Some(step) if self.target.is_empty() => {
                let place = step.place.as_deref().unwrap_or_default();
                Err(Failure::usage(format!(
                    "{place}: no target; give it one, or the plan, or WHOM on the command line"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// The plan's file, if one is asked for.
fn path(args: &Load) -> Result<Option<PathBuf>, Failure> {
    match (&args.plan, &args.scenario) {
        (Some(path), _) => Ok(Some(path.clone())),
        (None, Some(name)) => scenarios::find(name).map(Some),
        (None, None) => Ok(None),
    }
}

/// How failed calls are tried again: not at all, where nobody asks for it.
fn retried(codes: Option<&[String]>) -> Result<Vec<retry::Code>, Failure> {
    let codes = codes.unwrap_or_default().iter().map(|name| {
        retry_code(name).map_err(|why| Failure::usage(format!("--retry {name}: {why}")))
    });
    codes.collect()
}

fn headers(args: &Load) -> Result<Vec<(String, String)>, Failure> {
    let mut headers = Vec::new();
    for header in &args.headers {
        let (key, value) = invoke::pair(header)?;
        plan::check_header(key, value, &[])
            .map_err(|why| Failure::usage(format!("-H \"{header}\": {why}")))?;
        headers.push((key.to_owned(), value.to_owned()));
    }
    Ok(headers)
}

/// The one call of a command line without a plan.
fn one(args: &Load, headers: Vec<(String, String)>) -> Result<Wanted, Failure> {
    let Some(method) = &args.method else {
        return Err(Failure::usage(
            "name a method as package.Service/Method (`gantry call WHOM` lists them), or --plan FILE",
        ));
    };
    let (request, origin) = request(args.request.as_deref())?;
    let step = Step {
        place: None,
        target: None,
        method: method.clone(),
        request,
        origin,
        headers,
        deadline: args.deadline,
        retry: None,
        keep: Vec::new(),
        expect: Vec::new(),
    };
    Ok(Wanted {
        name: method.clone(),
        weight: 1,
        steps: vec![step],
    })
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

/// Stages as on the command line: `100:30s`, `100..500:10s`.
fn stages(arguments: &[String]) -> Result<Vec<Stage>, Failure> {
    let stages = arguments.iter().map(|argument| {
        let fault = |why: String| Failure::usage(format!("--stage {argument}: {why}"));
        stage(argument).map_err(fault)
    });
    let stages: Vec<Stage> = stages.collect::<Result<_, _>>()?;
    if Rates::total(&stages) > DURATION_MAX {
        return Err(Failure::usage("--stage: up to 24h together"));
    }
    Ok(stages)
}

fn stage(argument: &str) -> Result<Stage, String> {
    let parts = argument.split_once(':');
    let (rates, time) =
        parts.ok_or("write it as RATE:TIME, as in 100:30s or 100..500:10s".to_owned())?;
    let rate = |text: &str| {
        let rate = text.trim().parse().ok();
        let rate = rate.filter(|rate: &f64| (0.0..=RATE_MAX).contains(rate));
        rate.ok_or_else(|| format!("{text}: calls per second, from 0 up to {RATE_MAX}"))
    };
    let (from, to) = rates.split_once("..").unwrap_or((rates, rates));
    let time = humantime::parse_duration(time.trim()).map_err(|error| error.to_string())?;
    if time.is_zero() || time > DURATION_MAX {
        return Err("its time: above 0s and up to 24h".to_owned());
    }
    Ok(Stage {
        from: rate(from)?,
        to: rate(to)?,
        time,
    })
}

fn pace(args: &Load, stages: &[Stage]) -> Result<Pace, Failure> {
    let places = |option: &str, count: usize| {
        if (1..=IN_FLIGHT_MAX).contains(&count) {
            return Ok(count);
        }
        let text = format!("{option} {count}: from 1 to {IN_FLIGHT_MAX}");
        Err(Failure::usage(text))
    };
    let rates = match (args.rate, args.concurrency) {
        (Some(rate), _) if rate > 0.0 && rate <= RATE_MAX => Rates::Constant(rate),
        (Some(rate), _) => {
            let text = format!("--rate {rate}: calls per second, above 0 and up to {RATE_MAX}");
            return Err(Failure::usage(text));
        }
        (None, Some(concurrency)) => {
            let concurrency = places("--concurrency", concurrency)?;
            return Ok(Pace::Closed { concurrency });
        }
        (None, None) if !stages.is_empty() => Rates::of(stages),
        (None, None) => {
            return Err(Failure::usage(
                "give --rate N for calls at a constant rate, --stage RATE:TIME for one that \
                 changes, or --concurrency N for so many at a time",
            ));
        }
    };
    Ok(Pace::Open {
        rates,
        in_flight_max: places("--in-flight-max", args.in_flight_max)?,
    })
}

fn limits(args: &Load, staged: bool) -> Result<Limits, Failure> {
    if args.count == Some(0) {
        return Err(Failure::usage("--count 0: at least one call"));
    }
    if staged && (args.duration.is_some() || args.count.is_some()) {
        return Err(Failure::usage(
            "--duration and --count: the stages of the plan say how long it is; give --rate or \
             --concurrency as well, which count instead of them",
        ));
    }
    let duration = match (args.duration, args.count) {
        (Some(duration), _) if duration.is_zero() || duration > DURATION_MAX => {
            let text = "--duration: above 0s and up to 24h; a count has no such bound";
            return Err(Failure::usage(text));
        }
        (Some(duration), _) => Some(duration),
        (None, Some(_)) => None,
        (None, None) => (!staged).then_some(DURATION),
    };
    Ok(Limits {
        duration,
        count: args.count,
        linger: Duration::ZERO,
    })
}
