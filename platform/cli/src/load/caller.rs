//! Makes the calls of a plan: one method, or several that follow each other.

use std::{future::Future, rc::Rc};

use gantry::{client::Channel, status::code_name};
use tokio::time::Instant;
use tonic::Code;

use super::{
    exchange::{Ended, StepEnded, Volume},
    pace::Calls,
    plan::{Method, Plan},
    text::Values,
};
use crate::failure::Failure;

/// Calls what a plan says, over a channel for each of its targets.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) channels: Rc<[Channel]>,
    pub(crate) plan: Plan,
    /// What is known to every call.
    pub(crate) values: Rc<Values>,
}

impl Caller {
    /// Makes the calls that come before the run, one after the other, and keeps what they answer.
    ///
    /// # Errors
    ///
    /// At the first that does not go well.
    pub(crate) async fn prepare_run(&mut self) -> Result<(), Failure> {
        let mut values = Values::clone(&self.values);
        for method in &self.plan.before {
            let ended = step(method, &self.channels, 0, &values).await;
            if ended.code != Code::Ok {
                let (code, why) = (code_name(ended.code), &ended.message);
                let text = format!("before the run: {}: {code}: {why}", method.path);
                return Err(Failure::failed(text));
            }
            values.extend(ended.kept);
        }
        self.values = Rc::new(values);
        Ok(())
    }
}

impl Calls for Caller {
    fn prepare(&mut self, number: u64) -> (usize, impl Future<Output = Ended> + use<>) {
        let chosen = self.plan.choose();
        let steps = Rc::clone(&self.plan.calls[chosen].steps);
        let channels = Rc::clone(&self.channels);
        let values = Rc::clone(&self.values);
        // The first request is made by the time it is due, not within its latency.
        let first = steps[0].exchange(number, &values);
        let channel = channels[steps[0].target].clone();
        let call = async move {
            let begun = Instant::now();
            let ended = match first {
                Ok(exchange) => exchange.run(channel).await,
                Err(why) => Ended::unsent(why),
            };
            if steps.len() == 1 {
                return ended;
            }
            journey(&steps, &channels, number, &values, (ended, begun)).await
        };
        (chosen, call)
    }
}

/// Goes on after the first step of a call for as long as each goes well; what it ends with is what
/// the last one that was made ended with.
async fn journey(
    steps: &[Method],
    channels: &[Channel],
    number: u64,
    values: &Values,
    (mut ended, mut begun): (Ended, Instant),
) -> Ended {
    let mut values = values.clone();
    let mut made = Vec::new();
    let mut sent = Volume::default();
    let mut received = Volume::default();
    let first_message = ended.first_message;
    for next in 1.. {
        made.push(StepEnded {
            code: ended.code,
            time: begun.elapsed(),
            sent: ended.sent,
            received: ended.received,
        });
        sent.add(ended.sent);
        received.add(ended.received);
        let Some(method) = steps.get(next).filter(|_| ended.code == Code::Ok) else {
            break;
        };
        values.extend(std::mem::take(&mut ended.kept));
        begun = Instant::now();
        ended = step(method, channels, number, &values).await;
    }
    if ended.code != Code::Ok
        && let Some(failed) = steps.get(made.len() - 1)
    {
        ended.message = format!("{}: {}", failed.path, ended.message);
    }
    Ended {
        first_message,
        sent,
        received,
        steps: made,
        ..ended
    }
}

async fn step(method: &Method, channels: &[Channel], number: u64, values: &Values) -> Ended {
    match method.exchange(number, values) {
        Ok(exchange) => exchange.run(channels[method.target].clone()).await,
        Err(why) => Ended::unsent(why),
    }
}
