//! What of a group somebody has deleted while it is in use.
//!
//! Whoever consumes from a queue hears that it is gone. Of exchanges, and of queues that nobody consumes from,
//! nobody hears: what is published goes to others alone, and is confirmed. So each instance of a group looks now
//! and then, and has made again what is gone. What was published meanwhile, no group that lacked it has. Nor does
//! anybody tell what is bound to what: each group binds again what it has to the exchanges of all, of which
//! another group may have made one again.

use std::sync::Arc;

use lapin::Channel;
use tokio::time::{self, Duration};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::broker::{
    Group,
    rabbit::{
        ANSWERS, ANSWERS_MANY, Shared,
        failure::{Failure, there},
        names, topology,
    },
};

/// How often each instance looks.
const LOOK: Duration = Duration::from_secs(5);

/// What is gone.
enum Gone {
    Exchange(String),
    Queue(String),
}

/// Has made again what is gone of a group, until `stop`.
pub(super) async fn tend(shared: &Arc<Shared>, group: &Group, stop: &CancellationToken) {
    let mut looks = time::interval(LOOK);
    looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        let looked = stop.run_until_cancelled(look_after(shared, group)).await;
        // Whoever consumes tells of a broker that does not answer.
        if let Some(Err(failure)) = looked {
            debug!(group = %group.name, error = %failure, "what a group has is not looked after");
        }
    }
}

async fn look_after(shared: &Arc<Shared>, group: &Group) -> Result<(), Failure> {
    let gone = shared.in_time(ANSWERS, look(shared, group)).await?;
    if let Some(gone) = gone {
        make_again(shared, group, &gone).await?;
    }
    bound(shared, async |channel| {
        topology::bind_shared(&channel, group).await
    })
    .await
}

/// Binds something; where a queue is gone meanwhile, who consumes from it makes it again.
async fn bound(
    shared: &Shared,
    bind: impl AsyncFnOnce(Channel) -> lapin::Result<()>,
) -> Result<(), Failure> {
    let bound = async { Ok(bind(shared.channel().await?).await?) };
    match shared.in_time(ANSWERS_MANY, bound).await {
        Ok(()) | Err(Failure::Missing(_)) => Ok(()),
        Err(failure) => Err(failure),
    }
}

async fn make_again(shared: &Arc<Shared>, group: &Group, gone: &Gone) -> Result<(), Failure> {
    let (Gone::Exchange(what) | Gone::Queue(what)) = gone;
    warn!(group = %group.name, %what, "something of a group is gone, and is made again; what was published \
          meanwhile may not have come to the group");
    let restored = Box::pin(shared.restore(group, None));
    if let Err(error) = shared.within(ANSWERS_MANY, restored).await {
        warn!(group = %group.name, %error, "it cannot be made again, and is tried again");
        return Ok(());
    }
    if let Gone::Exchange(_) = gone {
        let bind = async |channel| topology::bind_partitions(&channel, group).await;
        return bound(shared, bind).await;
    }
    Ok(())
}

/// The first that is gone of what the queues of a group share.
async fn look(shared: &Shared, group: &Group) -> Result<Option<Gone>, Failure> {
    let channel = shared.channel().await?;
    let name = &group.name;
    let own = [name.clone(), names::parts(name), names::strays(name)];
    let exchanges = names::EXCHANGES.map(str::to_owned);
    for exchange in exchanges.into_iter().chain(own) {
        if there(topology::look(&channel, &exchange).await)?.is_none() {
            return Ok(Some(Gone::Exchange(exchange)));
        }
    }
    for queue in names::queues(group) {
        if queue.partition.is_some() {
            continue;
        }
        if there(topology::seen(&channel, &queue.name).await)?.is_none() {
            return Ok(Some(Gone::Queue(queue.name)));
        }
    }
    Ok(None)
}
