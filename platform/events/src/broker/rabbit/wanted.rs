//! Which topics a group is bound to. RabbitMQ tells nobody, so it is written down in a queue of the
//! group: what was wanted before, and is not any more, has to be let go.

use std::collections::BTreeSet;

use lapin::{
    Channel,
    options::{BasicAckOptions, BasicGetOptions},
};

use crate::{
    Message,
    broker::{
        BrokerError, Group, Headers, PublishError,
        rabbit::{Shared, failure::Failure, names, topology},
    },
};

/// Most notes that are read; there is one, and one more after each crash in the middle of this.
const NOTES_MAX: usize = 100;

/// Binds a group to what it wants; to what it wanted before, too, where it `keeps` that, and else to
/// nothing else.
///
/// What is wanted is bound before it is written down, and what is not is let go of last, so a crash
/// leaves too much behind and the next time is told of it: two notes at once, both of which hold.
pub(super) async fn bring_to(
    shared: &Shared,
    channel: &Channel,
    group: &Group,
    keeps: bool,
) -> Result<(), BrokerError> {
    let name = &group.name;
    let failed = |error| Failure::from(error).about(name);
    for topic in &group.topics {
        let bound = topology::want(channel, name, topic, true).await;
        bound.map_err(failed)?;
    }
    let queue = names::about(name);
    let mut notes = Vec::new();
    while notes.len() < NOTES_MAX {
        let got = channel.basic_get(queue.as_str().into(), BasicGetOptions::default());
        let Some(note) = got.await.map_err(failed)? else {
            break;
        };
        notes.push(note.delivery);
    }
    let mut before = BTreeSet::new();
    for note in &notes {
        let text = String::from_utf8_lossy(&note.data);
        before.extend(text.lines().map(str::to_owned));
    }
    let mut wanted: BTreeSet<_> = group.topics.iter().cloned().collect();
    if keeps {
        wanted.extend(before.iter().cloned());
    }
    let lines: Vec<_> = wanted.iter().map(String::as_str).collect();
    let note = lines.join("\n");
    // Left as it is, it goes back when the channel is closed.
    if let [only] = notes.as_slice()
        && only.data == note.as_bytes()
    {
        return Ok(());
    }
    write_down(shared, &queue, note).await?;
    for topic in before.difference(&wanted) {
        let let_go = topology::want(channel, name, topic, false).await;
        let_go.map_err(failed)?;
    }
    for old in &notes {
        let acked = channel.basic_ack(old.delivery_tag, BasicAckOptions::default());
        acked.await.map_err(failed)?;
    }
    // Acks are not confirmed; what is answered after them is.
    topology::ready(channel, &queue).await.map_err(failed)?;
    Ok(())
}

async fn write_down(shared: &Shared, queue: &str, note: String) -> Result<(), BrokerError> {
    let note = Message {
        topic: String::new(),
        key: String::new(),
        headers: Headers::new(),
        body: note.into(),
    };
    let published = shared.publisher.publish(("", queue), &note, None).await;
    published.map_err(|error| refused(queue, error))
}

/// As the error of a broker: why a message about `what` was not taken.
pub(super) fn refused(what: &str, error: PublishError) -> BrokerError {
    match error {
        PublishError::Unroutable => BrokerError::Missing(what.to_owned()),
        PublishError::TimedOut => BrokerError::TimedOut,
        PublishError::Disconnected(source) => BrokerError::Disconnected(source),
        PublishError::Denied(why) => BrokerError::Denied(why),
        error @ (PublishError::Refused(_)
        | PublishError::Blocked { .. }
        | PublishError::Awaiting(_)) => BrokerError::Refused(error),
    }
}
