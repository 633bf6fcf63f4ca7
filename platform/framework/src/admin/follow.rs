//! The journal as a stream: what it keeps, then what happens.

use std::collections::VecDeque;

use futures_core::Stream;
use futures_util::stream;
use gantry_api::admin::v1::{
    JournalEntry, WatchJournalRequest, WatchJournalResponse, watch_journal_response::Event,
};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::journal::{Entry, Journal};

/// The entries `request` asks for. Ends when `stopping` is cancelled, after what is written by
/// then.
pub(super) fn entries(
    journal: &Journal,
    request: &WatchJournalRequest,
    stopping: CancellationToken,
) -> impl Stream<Item = Result<WatchJournalResponse, Status>> + Send + use<> {
    let (past, live) = journal.watch();
    let after = request.after_sequence;
    let past: VecDeque<_> = past
        .into_iter()
        .filter(|entry| entry.sequence > after)
        .collect();
    let reader = Reader {
        // What was asked for and is not kept any more is lost to this reader too.
        missed: past.front().map_or(0, |first| first.sequence - after - 1),
        past,
        live: (!request.kept_only).then_some(live),
        after,
        stopping,
    };
    stream::unfold(reader, |mut reader| async {
        let event = reader.next().await?;
        Some((Ok(WatchJournalResponse { event: Some(event) }), reader))
    })
}

struct Reader {
    missed: u64,
    past: VecDeque<Entry>,
    live: Option<Receiver<Entry>>,
    after: u64,
    stopping: CancellationToken,
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        if self.missed > 0 {
            return Some(Event::Missed(std::mem::take(&mut self.missed)));
        }
        if let Some(entry) = self.past.pop_front() {
            return Some(Event::Entry(convert(entry)));
        }
        let live = self.live.as_mut()?;
        loop {
            let received = tokio::select! {
                // What is written already is sent before the end is.
                biased;
                received = live.recv() => received,
                () = self.stopping.cancelled() => return None,
            };
            match received {
                // A reader may ask for what is yet to come.
                Ok(entry) if entry.sequence <= self.after => {}
                Ok(entry) => return Some(Event::Entry(convert(entry))),
                Err(RecvError::Lagged(missed)) => return Some(Event::Missed(missed)),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn convert(entry: Entry) -> JournalEntry {
    JournalEntry {
        sequence: entry.sequence,
        time: Some(entry.time.into()),
        kind: entry.kind.as_str().to_owned(),
        subject: entry.subject,
        detail: entry.detail,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;
    use crate::journal::{CAPACITY, Kind};

    fn journal(entries: usize) -> Journal {
        let journal = Journal::new();
        for number in 1..=entries {
            journal.record(Kind::ConfigApplied, "file", number.to_string());
        }
        journal
    }

    fn asked(after_sequence: u64, kept_only: bool) -> WatchJournalRequest {
        WatchJournalRequest {
            after_sequence,
            kept_only,
        }
    }

    /// Positive for entries, negative for how many were missed.
    async fn read(
        stream: impl Stream<Item = Result<WatchJournalResponse, Status>>,
        most: usize,
    ) -> Vec<i64> {
        stream
            .take(most)
            .map(|item| match item.unwrap().event.unwrap() {
                Event::Entry(entry) => i64::try_from(entry.sequence).unwrap(),
                Event::Missed(missed) => -i64::try_from(missed).unwrap(),
            })
            .collect()
            .await
    }

    /// Goal: a reader gets what is kept and then what happens, from where he says.
    /// Method: three kept entries, one later, from the begin and from the second on.
    #[tokio::test]
    async fn past_and_live_entries_follow_each_other() {
        for (after, expected) in [(0, vec![1, 2, 3, 4]), (2, vec![3, 4]), (3, vec![4])] {
            let journal = journal(3);
            let stream = entries(&journal, &asked(after, false), CancellationToken::new());
            journal.record(Kind::Draining, "process", "");
            assert_eq!(
                expected,
                read(stream, expected.len()).await,
                "after {after}"
            );
        }
    }

    /// Goal: the stream ends after what is kept where that is asked, and with the side port
    /// otherwise, after what is written by then.
    /// Method: read to the end.
    #[tokio::test]
    async fn the_stream_ends_when_asked_and_with_the_side_port() {
        let journal = journal(2);
        let kept = entries(&journal, &asked(0, true), CancellationToken::new());
        assert_eq!(vec![1, 2], read(kept, usize::MAX).await);

        let stopping = CancellationToken::new();
        let live = entries(&journal, &asked(1, false), stopping.clone());
        journal.record(Kind::Stopped, "process", "");
        stopping.cancel();
        assert_eq!(vec![2, 3], read(live, usize::MAX).await);
    }

    /// Goal: a reader knows how many entries he did not get, be they gone before he came or lost
    /// while he was slow.
    /// Method: write more than is kept, before and while nobody reads.
    #[tokio::test]
    async fn what_is_missed_is_counted() {
        let many = CAPACITY + 5;
        let journal = journal(many);
        let late = entries(&journal, &asked(0, true), CancellationToken::new());
        assert_eq!(vec![-5, 6], read(late, 2).await);

        let journal = self::journal(0);
        let slow = entries(&journal, &asked(0, false), CancellationToken::new());
        for _ in 0..many {
            journal.record(Kind::ConfigApplied, "file", "");
        }
        assert_eq!(vec![-5, 6], read(slow, 2).await);
    }
}
