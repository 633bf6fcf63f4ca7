//! The store on disk: one [file](File) in three tables, of changes by their place, leases by id,
//! and a few numbers by name.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use gantry::BoxError;
use prost::Message as _;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};

use super::engine::{Change, Journal, KeyValue, Place, Saved};
use crate::file::{File, ROW, StoreError};

/// The file's name within its folder.
const FILE_NAME: &str = "etcd.redb";

/// The layout of the tables; a file of another is refused.
const FORMAT: i64 = 1;

const CHANGES: TableDefinition<'_, (i64, u32), &[u8]> = TableDefinition::new("changes");
const LEASES: TableDefinition<'_, i64, i64> = TableDefinition::new("leases");
const NUMBERS: TableDefinition<'_, &str, i64> = TableDefinition::new("numbers");

/// Who this store is; made once and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    /// Counts starts, as an election would.
    pub(crate) term: u64,
}

impl Identity {
    /// A new one.
    pub(crate) fn random() -> Self {
        Self {
            cluster_id: fastrand::u64(1..),
            member_id: fastrand::u64(1..),
            term: 1,
        }
    }
}

/// The open file; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    file: File,
}

/// A version of a key as a row of the file.
#[derive(Clone, PartialEq, prost::Message)]
struct Row {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
    #[prost(int64, tag = "3")]
    create_revision: i64,
    #[prost(int64, tag = "4")]
    version: i64,
    #[prost(int64, tag = "5")]
    lease: i64,
    #[prost(bool, tag = "6")]
    deleted: bool,
}

impl Row {
    fn of(change: &Change) -> Self {
        match change.value.as_deref() {
            None => Self {
                key: change.key.clone(),
                deleted: true,
                ..Self::default()
            },
            Some(value) => Self {
                key: change.key.clone(),
                value: value.value.clone(),
                create_revision: value.create_revision,
                version: value.version,
                lease: value.lease,
                deleted: false,
            },
        }
    }

    fn change(self, place: Place) -> Change {
        let value = (!self.deleted).then(|| {
            Arc::new(KeyValue {
                key: self.key.clone(),
                value: self.value,
                create_revision: self.create_revision,
                mod_revision: place.revision,
                version: self.version,
                lease: self.lease,
            })
        });
        Change {
            place,
            key: self.key,
            value,
        }
    }
}

impl Store {
    /// Opens the file in `folder`, which is made where it is missing, and reads all of it. Each
    /// time it is opened its term grows by one.
    ///
    /// # Errors
    ///
    /// See [`File::open`].
    pub(crate) fn open(folder: &Path) -> Result<(Self, Saved, Identity), StoreError> {
        let (file, identity, saved) = File::open(folder, FILE_NAME, FORMAT, begin, read)?;
        Ok((Self { file }, saved, identity))
    }

    /// The size of the file in bytes, as of the last write.
    pub(crate) fn size(&self) -> u64 {
        self.file.size()
    }

    /// Writes a batch; when this ends it survives a crash.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub(crate) async fn write(
        &self,
        journal: Journal,
        revision: i64,
        compacted: i64,
    ) -> Result<(), StoreError> {
        let batch = move |write: &WriteTransaction| put(write, &journal, revision, compacted);
        self.file.write(batch).await
    }
}

fn put(
    write: &WriteTransaction,
    journal: &Journal,
    revision: i64,
    compacted: i64,
) -> Result<(), BoxError> {
    let mut changes = write.open_table(CHANGES)?;
    for change in &journal.changes {
        let Place { revision, sub } = change.place;
        let row = Row::of(change).encode_to_vec();
        changes.insert((revision, sub), row.as_slice())?;
    }
    for place in &journal.dropped {
        changes.remove((place.revision, place.sub))?;
    }
    let mut leases = write.open_table(LEASES)?;
    for (id, ttl) in &journal.leases {
        match ttl {
            Some(ttl) => leases.insert(id, ttl)?,
            None => leases.remove(id)?,
        };
    }
    let mut numbers = write.open_table(NUMBERS)?;
    numbers.insert("revision", revision)?;
    if journal.compacted {
        numbers.insert("compacted", compacted)?;
    }
    Ok(())
}

/// Makes the tables where they are missing, and says which layout they have and who this store is.
fn begin(database: &Database) -> Result<(i64, Identity), BoxError> {
    let write = database.begin_write()?;
    let (format, identity) = {
        write.open_table(CHANGES)?;
        write.open_table(LEASES)?;
        let mut numbers = write.open_table(NUMBERS)?;
        let number = |name| Ok::<_, BoxError>(numbers.get(name)?.map(|it| it.value()));
        let format = number("format")?.unwrap_or(FORMAT);
        let random = Identity::random();
        let unsigned = |number: Option<i64>| number.map(i64::cast_unsigned);
        let identity = Identity {
            cluster_id: unsigned(number("cluster")?).unwrap_or(random.cluster_id),
            member_id: unsigned(number("member")?).unwrap_or(random.member_id),
            term: unsigned(number("term")?).unwrap_or(random.term) + 1,
        };
        if format != FORMAT {
            return Ok((format, identity));
        }
        numbers.insert("format", format)?;
        numbers.insert("cluster", identity.cluster_id.cast_signed())?;
        numbers.insert("member", identity.member_id.cast_signed())?;
        numbers.insert("term", identity.term.cast_signed())?;
        (format, identity)
    };
    write.commit()?;
    Ok((format, identity))
}

/// All that is in the file, and how many bytes that is.
fn read(database: &Database) -> Result<(Saved, u64), BoxError> {
    let read = database.begin_read()?;
    let numbers = read.open_table(NUMBERS)?;
    let number = |name, otherwise: i64| {
        let found = numbers.get(name)?.map(|it| it.value());
        Ok::<_, BoxError>(found.unwrap_or(otherwise))
    };
    let mut saved = Saved {
        revision: number("revision", 1)?,
        compacted: number("compacted", -1)?,
        ..Saved::default()
    };
    let mut content = 0;
    for entry in read.open_table(LEASES)?.iter()? {
        let (id, ttl) = entry?;
        content += ROW;
        saved.leases.insert(id.value(), ttl.value());
    }
    for entry in read.open_table(CHANGES)?.iter()? {
        let (place, row) = entry?;
        let (revision, sub) = place.value();
        content += ROW + u64::try_from(row.value().len())?;
        let row = Row::decode(row.value())?;
        saved.changes.push(row.change(Place { revision, sub }));
    }
    Ok((saved, content))
}
