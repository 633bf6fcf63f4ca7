//! `gantry dlq`: dead letters, seen, put back and dropped.

mod list;
mod settle;
mod show;

use crate::{
    Outcome,
    args::{BrokerOptions, Dlq, DlqVerb},
    broker::Reached,
};

pub(crate) async fn run(args: Dlq) -> Outcome {
    match args.verb {
        DlqVerb::List(args) => on(&args.broker, async |it| list::run(it, &args).await).await,
        DlqVerb::Show(args) => on(&args.broker, async |it| show::run(it, &args).await).await,
        DlqVerb::Redrive(args) => {
            on(&args.broker, async |it| settle::redrive(it, &args).await).await
        }
        DlqVerb::Drop(args) => on(&args.broker, async |it| settle::drop(it, &args).await).await,
    }
}

/// Does something with a broker, and lets go of it.
async fn on(options: &BrokerOptions, work: impl AsyncFnOnce(&Reached) -> Outcome) -> Outcome {
    let reached = Reached::find(options).await?;
    let outcome = work(&reached).await;
    reached.close().await;
    outcome
}
