//! The queues on disk: one [file](File) in three tables, of groups by their ids, copies of messages
//! by group and place, and a few numbers by name.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use gantry::BoxError;
use prost::Message as _;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};

use super::engine::{Declaration, Journal, Kept, KeptState, Message, Saved};
use crate::file::{File, ROW, StoreError};

/// The file's name within its folder.
const FILE_NAME: &str = "broker.redb";

/// The layout of the tables; a file of another is refused.
const FORMAT: i64 = 1;

const GROUPS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("groups");
const MESSAGES: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("messages");
const NUMBERS: TableDefinition<'_, &str, i64> = TableDefinition::new("numbers");

/// The open file; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Store {
    file: File,
}

/// A group as a row of the file.
#[derive(Clone, PartialEq, prost::Message)]
struct GroupRow {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    partitions: u32,
    #[prost(string, repeated, tag = "3")]
    topics: Vec<String>,
    #[prost(uint64, tag = "4")]
    queue_messages_max: u64,
}

/// A copy of a message as a row of the file.
#[derive(Clone, PartialEq, prost::Message)]
struct MessageRow {
    #[prost(uint32, tag = "1")]
    partition: u32,
    #[prost(string, tag = "2")]
    topic: String,
    #[prost(string, tag = "3")]
    key: String,
    #[prost(btree_map = "string, string", tag = "4")]
    headers: std::collections::BTreeMap<String, String>,
    #[prost(bytes = "bytes", tag = "5")]
    body: Bytes,
    /// None while it is ready.
    #[prost(message, optional, tag = "6")]
    delayed: Option<Delayed>,
    /// Milliseconds since 1970; none while it is no dead letter.
    #[prost(uint64, optional, tag = "7")]
    dead_time: Option<u64>,
}

/// When it comes again.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Delayed {
    /// Milliseconds since 1970.
    #[prost(uint64, tag = "1")]
    due: u64,
    /// Milliseconds that it was to wait.
    #[prost(uint64, tag = "2")]
    pause: u64,
}

impl GroupRow {
    fn of(name: &str, declared: &Declaration) -> Self {
        Self {
            name: name.to_owned(),
            partitions: u32::from(declared.partitions),
            topics: declared.topics.iter().cloned().collect(),
            queue_messages_max: declared.queue_messages_max,
        }
    }

    fn group(self) -> Result<(Arc<str>, Declaration), BoxError> {
        let declared = Declaration {
            partitions: u16::try_from(self.partitions)?,
            topics: self.topics.into_iter().collect(),
            queue_messages_max: self.queue_messages_max,
        };
        Ok((self.name.into(), declared))
    }
}

impl MessageRow {
    fn of(kept: &Kept) -> Self {
        let message = Message::clone(&kept.message);
        let (delayed, dead_time) = match kept.state {
            KeptState::Ready => (None, None),
            KeptState::Delayed { due, pause } => (Some(Delayed { due, pause }), None),
            KeptState::Dead { time } => (None, Some(time)),
        };
        Self {
            partition: u32::from(kept.partition),
            topic: message.topic,
            key: message.key,
            headers: message.headers,
            body: message.body,
            delayed,
            dead_time,
        }
    }

    fn kept(self) -> Result<Kept, BoxError> {
        let state = match (self.delayed, self.dead_time) {
            (_, Some(time)) => KeptState::Dead { time },
            (Some(Delayed { due, pause }), None) => KeptState::Delayed { due, pause },
            (None, None) => KeptState::Ready,
        };
        Ok(Kept {
            partition: u16::try_from(self.partition)?,
            state,
            message: Arc::new(Message {
                topic: self.topic,
                key: self.key,
                headers: self.headers,
                body: self.body,
            }),
        })
    }
}

impl Store {
    /// Opens the file in `folder`, which is made where it is missing, and reads all of it.
    ///
    /// # Errors
    ///
    /// See [`File::open`].
    pub(super) fn open(folder: &Path) -> Result<(Self, Saved), StoreError> {
        let (file, (), saved) = File::open(folder, FILE_NAME, FORMAT, begin, read)?;
        Ok((Self { file }, saved))
    }

    /// Writes a batch; when this ends it survives a crash. `last` is the last place or id given.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub(super) async fn write(&self, journal: Journal, last: u64) -> Result<(), StoreError> {
        let batch = move |write: &WriteTransaction| put(write, &journal, last);
        self.file.write(batch).await
    }
}

fn put(write: &WriteTransaction, journal: &Journal, last: u64) -> Result<(), BoxError> {
    let mut groups = write.open_table(GROUPS)?;
    let mut messages = write.open_table(MESSAGES)?;
    for (id, group) in &journal.groups {
        if let Some((name, declared)) = group {
            let row = GroupRow::of(name, declared).encode_to_vec();
            groups.insert(id, row.as_slice())?;
        } else {
            groups.remove(id)?;
            messages.retain_in((*id, 0)..=(*id, u64::MAX), |_, _| false)?;
        }
    }
    for (at, kept) in &journal.kept {
        match kept {
            Some(kept) => {
                let row = MessageRow::of(kept).encode_to_vec();
                messages.insert(at, row.as_slice())?;
            }
            None => {
                messages.remove(at)?;
            }
        }
    }
    let mut numbers = write.open_table(NUMBERS)?;
    numbers.insert("last", last.cast_signed())?;
    Ok(())
}

/// Makes the tables where they are missing, and says which layout they have.
fn begin(database: &Database) -> Result<(i64, ()), BoxError> {
    let write = database.begin_write()?;
    let format = {
        write.open_table(GROUPS)?;
        write.open_table(MESSAGES)?;
        let mut numbers = write.open_table(NUMBERS)?;
        let found = numbers.get("format")?.map(|it| it.value());
        let format = found.unwrap_or(FORMAT);
        if format != FORMAT {
            return Ok((format, ()));
        }
        numbers.insert("format", format)?;
        format
    };
    write.commit()?;
    Ok((format, ()))
}

/// All that is in the file, and how many bytes that is.
fn read(database: &Database) -> Result<(Saved, u64), BoxError> {
    let read = database.begin_read()?;
    let last = read.open_table(NUMBERS)?.get("last")?;
    let mut saved = Saved {
        last: last.map_or(0, |it| it.value().cast_unsigned()),
        ..Saved::default()
    };
    let mut content = 0;
    for entry in read.open_table(GROUPS)?.iter()? {
        let (id, row) = entry?;
        content += ROW + u64::try_from(row.value().len())?;
        let (name, declared) = GroupRow::decode(row.value())?.group()?;
        saved.groups.push((id.value(), name, declared));
    }
    for entry in read.open_table(MESSAGES)?.iter()? {
        let (at, row) = entry?;
        content += ROW + u64::try_from(row.value().len())?;
        let kept = MessageRow::decode(row.value())?.kept()?;
        saved.kept.push((at.value(), kept));
    }
    Ok((saved, content))
}
