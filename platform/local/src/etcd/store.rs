//! The store on disk: one redb file, written before anyone is told.
//!
//! Three tables: changes by their place, leases by id, and a few numbers by name. A batch of
//! changes is one transaction of the file, so that after a crash it is there whole or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use prost::Message as _;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::engine::{Change, Journal, KeyValue, Place, Saved};
use gantry::{BoxError, status::chain};

/// The file's name within its folder.
const FILE: &str = "etcd.redb";

/// The layout of the tables; a file of another is refused.
const FORMAT: i64 = 1;

/// Memory for pages of the file. All that is read often is in the engine.
const CACHE: usize = 4 * 1024 * 1024;

/// What the file takes beyond [`SPARE_FACTOR`] times its content is given back when it is opened.
/// A file in use is some times its content: pages are not full, and not written in place.
const SPARE: u64 = 4 * 1024 * 1024;
const SPARE_FACTOR: u64 = 4;

/// Bytes that a row takes beside its value, roughly.
const ROW: u64 = 32;

const CHANGES: TableDefinition<'_, (i64, u32), &[u8]> = TableDefinition::new("changes");
const LEASES: TableDefinition<'_, i64, i64> = TableDefinition::new("leases");
const NUMBERS: TableDefinition<'_, &str, i64> = TableDefinition::new("numbers");

/// Why the data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process, or another part of this one, has the file open.
    #[error("{path} is in use by another process")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by another version of this program.
    #[error(
        "{path} has the layout {found}, and this program reads {FORMAT}; remove it to begin anew"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The layout it has.
        found: i64,
    },
    /// The file is not what it should be.
    #[error("{path} is damaged; remove it to begin anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BoxError,
    },
    /// The file cannot be read or made.
    #[error("open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: BoxError,
    },
    /// The file cannot be written: what was to be written is not acknowledged.
    #[error("write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: BoxError,
    },
}

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
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    path: PathBuf,
    size: AtomicU64,
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
    /// time it is opened its term grows by one, and a file much larger than what is in it shrinks.
    ///
    /// # Errors
    ///
    /// If it is in use, damaged, of another layout, or cannot be read or written.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Saved, Identity), StoreError> {
        let path = folder.join(FILE);
        let failed = |source: BoxError| StoreError::Open {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(folder).map_err(|error| failed(error.into()))?;
        let mut database = open_file(&path)?;
        let identity = begin(&database, &path)?;
        let (saved, content) = read(&database).map_err(|source| StoreError::Damaged {
            path: path.clone(),
            source,
        })?;
        let length = fs::metadata(&path).map_err(|error| failed(error.into()))?;
        if length.len() > SPARE + SPARE_FACTOR * content
            && let Err(error) = database.compact()
        {
            // It is as good as before, and no reason not to serve from it. One whose disk failed
            // takes no more writes until it is opened again.
            let (file, error) = (path.display(), chain(&error));
            tracing::warn!(%file, error, "the file is larger than it need be, and did not shrink");
            drop(database);
            database = open_file(&path)?;
        }
        let store = Self {
            shared: Arc::new(Shared {
                database,
                path,
                size: AtomicU64::new(0),
            }),
        };
        store.measure();
        Ok((store, saved, identity))
    }

    /// The size of the file in bytes, as of the last write.
    pub(crate) fn size(&self) -> u64 {
        self.shared.size.load(Ordering::Relaxed)
    }

    /// Writes a batch; when this returns it survives a crash. It blocks for as long as the disk
    /// takes.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub(crate) fn write(
        &self,
        journal: &Journal,
        revision: i64,
        compacted: i64,
    ) -> Result<(), StoreError> {
        self.try_write(journal, revision, compacted)
            .map_err(|source| self.failed(source))?;
        self.measure();
        Ok(())
    }

    /// A batch could not be written.
    pub(crate) fn failed(&self, source: BoxError) -> StoreError {
        StoreError::Write {
            path: self.shared.path.clone(),
            source,
        }
    }

    fn try_write(&self, journal: &Journal, revision: i64, compacted: i64) -> Result<(), BoxError> {
        let write = self.shared.database.begin_write()?;
        {
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
        }
        write.commit()?;
        Ok(())
    }

    fn measure(&self) {
        // A size that cannot be read is shown as it was.
        if let Ok(metadata) = fs::metadata(&self.shared.path) {
            self.shared.size.store(metadata.len(), Ordering::Relaxed);
        }
    }
}

/// Opens the file, which is made where it is missing.
fn open_file(path: &Path) -> Result<Database, StoreError> {
    let builder = &mut Database::builder();
    let opened = builder.set_cache_size(CACHE).create(path);
    opened.map_err(|error| {
        let path = path.to_owned();
        match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path },
            DatabaseError::Storage(redb::StorageError::Io(error))
                if error.kind() != std::io::ErrorKind::InvalidData =>
            {
                let source = error.into();
                StoreError::Open { path, source }
            }
            error => {
                let source = error.into();
                StoreError::Damaged { path, source }
            }
        }
    })
}

/// Makes the tables where they are missing, and says who this store is.
fn begin(database: &Database, path: &Path) -> Result<Identity, StoreError> {
    let damaged = |source: BoxError| StoreError::Damaged {
        path: path.to_owned(),
        source,
    };
    let (format, identity) = try_begin(database).map_err(damaged)?;
    if format != FORMAT {
        return Err(StoreError::Format {
            path: path.to_owned(),
            found: format,
        });
    }
    Ok(identity)
}

fn try_begin(database: &Database) -> Result<(i64, Identity), BoxError> {
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
