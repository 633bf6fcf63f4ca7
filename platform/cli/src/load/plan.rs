//! What a run calls: methods with their weights, and all that can be prepared before the first
//! call is due.

mod method;

use std::{collections::BTreeMap, path::PathBuf, rc::Rc, time::Duration};

use gantry::{caller::Criticality, retry};

use super::{requests::Fault, text::Values};
use crate::{call::reflection::Reflection, failure::Failure};

pub(crate) use method::{Method, check_header};

/// How long calls without a deadline may take once no more are sent.
const LINGER: Duration = Duration::from_secs(5);

/// On top of a deadline: the channel keeps it, and says so a moment later.
const LINGER_MORE: Duration = Duration::from_millis(500);

/// Kinds told apart over time at most; each costs a histogram for each interval.
const KINDS_MAX: usize = 8;

/// What the others are called together.
const OTHERS: &str = "others";

/// A call, as somebody asked for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What the report calls it.
    pub(crate) name: String,
    /// Its share of the calls, among the weights of all.
    pub(crate) weight: u32,
    /// What it does, one after the other; each when the one before went well. At least one.
    pub(crate) steps: Vec<Step>,
}

/// One method to be called.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Where it is asked for, `file:line`; none on the command line.
    pub(crate) place: Option<String>,
    /// Whom to call, if not whom the run is for.
    pub(crate) target: Option<String>,
    /// `package.Service/Method`.
    pub(crate) method: String,
    /// The requests, as JSON.
    pub(crate) request: Option<String>,
    /// Where the requests are from.
    pub(crate) origin: Origin,
    /// Metadata, checked.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) deadline: Option<Duration>,
    /// Codes after which it is tried again; none where the run says so for all.
    pub(crate) retry: Option<Vec<retry::Code>>,
    /// Fields of the answer that are kept: under which name, and where.
    pub(crate) keep: Vec<(String, String)>,
    /// Fields of the answer that have to have these values.
    pub(crate) expect: Vec<(String, String)>,
}

/// Where a text is from, for what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file of its own.
    File(PathBuf),
    /// Something that is called so.
    Argument(String),
}

/// Somebody to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whom {
    /// As `gantry call` takes it.
    pub(crate) name: String,
    /// Codes after which calls are tried again.
    pub(crate) retry: Vec<retry::Code>,
}

/// What somebody who is called says that it serves.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) reflection: Reflection,
    /// Full names.
    pub(crate) services: Vec<String>,
}

/// What calls are told apart by over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Whom they go to.
    pub(crate) target: String,
    /// How much they say that they matter, if they do.
    pub(crate) criticality: Option<&'static str>,
}

/// All calls of a run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Whom they go to, each with a channel of its own.
    pub(crate) targets: Vec<Whom>,
    /// Calls made once, before the run, in order.
    pub(crate) before: Vec<Method>,
    pub(crate) calls: Vec<Call>,
}

/// A call, ready to be made.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) weight: u32,
    pub(crate) steps: Rc<[Method]>,
    /// What the weights have given it and calls have not used yet.
    credit: i64,
}

/// Whom calls go to that do not say so themselves.
#[derive(Debug)]
pub(crate) struct Usual<'a> {
    pub(crate) target: &'a str,
    pub(crate) retry: &'a [retry::Code],
}

impl Step {
    pub(crate) fn whom(&self, usual: &Usual<'_>) -> Whom {
        Whom {
            name: self.target.as_deref().unwrap_or(usual.target).to_owned(),
            retry: self.retry.as_deref().unwrap_or(usual.retry).to_vec(),
        }
    }
}

impl Plan {
    /// Looks everything up at those who serve it, by their names, and prepares the requests.
    /// `values` are known before the first call.
    pub(crate) async fn of(
        before: &[Step],
        calls: &[Wanted],
        usual: &Usual<'_>,
        served: &BTreeMap<String, Served>,
        values: &Values,
    ) -> Result<Self, Failure> {
        let mut making = Making {
            usual,
            served,
            targets: Vec::new(),
        };
        let mut names: Vec<_> = values.keys().cloned().collect();
        let before = making.methods(before, &mut names).await?;
        let mut prepared = Vec::new();
        for call in calls {
            let mut names = names.clone();
            let steps = making.methods(&call.steps, &mut names).await?;
            prepared.push(Call {
                name: call.name.clone(),
                weight: call.weight,
                steps: steps.into(),
                credit: 0,
            });
        }
        Ok(Self {
            targets: making.targets,
            before,
            calls: prepared,
        })
    }

    /// How long what is in flight at the end may take.
    pub(crate) fn linger(&self) -> Duration {
        let longest = self.calls.iter().map(|call| {
            let steps = call.steps.iter();
            let deadlines = steps.map(|step| step.deadline.unwrap_or(LINGER));
            deadlines.fold(Duration::ZERO, Duration::saturating_add)
        });
        longest.max().unwrap_or(LINGER) + LINGER_MORE
    }

    /// The kinds of calls there are, and which each call is.
    pub(crate) fn kinds(&self) -> (Vec<Kind>, Vec<usize>) {
        let mut kinds: Vec<Kind> = Vec::new();
        let of = self.calls.iter().map(|call| {
            let kind = Kind {
                target: self.target_of(call).to_owned(),
                criticality: call.criticality(),
            };
            let known = kinds.iter().position(|other| *other == kind);
            known.unwrap_or_else(|| {
                if kinds.len() < KINDS_MAX {
                    kinds.push(kind);
                } else if let Some(last) = kinds.last_mut() {
                    *last = Kind {
                        target: OTHERS.to_owned(),
                        criticality: None,
                    };
                }
                kinds.len() - 1
            })
        });
        let of = of.collect();
        (kinds, of)
    }

    /// Whom a call goes to first.
    pub(crate) fn target_of(&self, call: &Call) -> &str {
        let target = call.steps.first().map_or(0, |step| step.target);
        self.targets.get(target).map_or("", |whom| &whom.name)
    }

    /// Whom calls go to, each once.
    pub(crate) fn target(&self) -> String {
        let steps = self.calls.iter().flat_map(|call| call.steps.iter());
        let mut names: Vec<&str> = Vec::new();
        for whom in steps.filter_map(|step| self.targets.get(step.target)) {
            if !names.contains(&&*whom.name) {
                names.push(&whom.name);
            }
        }
        names.join(", ")
    }

    /// The next call: each as often as its weight says, evenly mixed.
    pub(crate) fn choose(&mut self) -> usize {
        let mut chosen = 0;
        let mut total = 0;
        let mut most = i64::MIN;
        for (index, call) in self.calls.iter_mut().enumerate() {
            let weight = i64::from(call.weight);
            total += weight;
            call.credit += weight;
            if call.credit > most {
                (chosen, most) = (index, call.credit);
            }
        }
        if let Some(call) = self.calls.get_mut(chosen) {
            call.credit -= total;
        }
        chosen
    }
}

impl Call {
    /// How much it says that it matters, if it does.
    pub(crate) fn criticality(&self) -> Option<&'static str> {
        let headers = self.steps.first()?.headers();
        Criticality::of(headers, true, None).map(Criticality::as_str)
    }

    /// The methods it calls, `package.Service/Method`.
    pub(crate) fn path(&self) -> String {
        let paths: Vec<_> = self.steps.iter().map(|step| &*step.path).collect();
        paths.join(", ")
    }
}

/// A plan in the making.
struct Making<'a> {
    usual: &'a Usual<'a>,
    served: &'a BTreeMap<String, Served>,
    targets: Vec<Whom>,
}

impl Making<'_> {
    /// Prepares steps that follow each other, and adds to `names` what they keep.
    async fn methods(
        &mut self,
        steps: &[Step],
        names: &mut Vec<String>,
    ) -> Result<Vec<Method>, Failure> {
        let mut methods = Vec::new();
        for step in steps {
            let whom = step.whom(self.usual);
            let served = self.served.get(&whom.name);
            let served =
                served.ok_or_else(|| Failure::failed(format!("{}: unknown", whom.name)))?;
            let known = self.targets.iter().position(|other| *other == whom);
            let target = known.unwrap_or_else(|| {
                self.targets.push(whom);
                self.targets.len() - 1
            });
            methods.push(Method::of(step, target, served, names).await?);
            names.extend(step.keep.iter().map(|(name, _)| name.clone()));
        }
        Ok(methods)
    }
}

impl Origin {
    pub(crate) fn failure(&self, fault: &Fault) -> Failure {
        Failure::usage(self.fault(fault))
    }

    /// What is wrong with a text of this origin, and where.
    pub(crate) fn fault(&self, fault: &Fault) -> String {
        let Fault { line, why } = fault;
        match self {
            Self::File(path) => format!("{}:{line}: {why}", path.display()),
            Self::Argument(name) if *line > 1 => format!("{name}: line {line}: {why}"),
            Self::Argument(name) => format!("{name}: {why}"),
        }
    }
}

#[cfg(test)]
mod tests;
