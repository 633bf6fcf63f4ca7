//! A file of rows, written before anyone is told.
//!
//! A batch is one transaction of the file, so that after a crash it is there whole or not at all.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redb::{
    CommitError, Database, DatabaseError, StorageError, TableError, TransactionError,
    WriteTransaction,
};
use tokio::{task::spawn_blocking, time::Instant};

use gantry::{BoxError, status::chain};

/// Memory for pages of the file. All that is read often is elsewhere in memory.
const CACHE: usize = 4 * 1024 * 1024;

/// What the file takes beyond [`SPARE_FACTOR`] times its content is given back when it is opened.
/// A file in use is some times its content: pages are not full, and not written in place.
const SPARE: u64 = 4 * 1024 * 1024;
const SPARE_FACTOR: u64 = 4;

/// Bytes that a row takes beside its value, roughly.
pub(crate) const ROW: u64 = 32;

/// A write to disk that takes longer is told.
const SLOW: Duration = Duration::from_secs(1);

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
        "{path} has the layout {found}, and this program reads {expected}; remove it to begin anew"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The layout it has.
        found: i64,
        /// The layout this program has.
        expected: i64,
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

/// An open file; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct File {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    path: PathBuf,
    size: AtomicU64,
}

impl File {
    /// Opens the file `name` in `folder`; both are made where they are missing. `begin` makes its
    /// tables and says which layout it has; `read` reads all of it, and says how many bytes that
    /// is: a file much larger than that shrinks.
    ///
    /// # Errors
    ///
    /// If it is in use, damaged, not of the `layout`, or cannot be read or written.
    pub(crate) fn open<B, R>(
        folder: &Path,
        name: &str,
        layout: i64,
        begin: impl FnOnce(&Database) -> Result<(i64, B), BoxError>,
        read: impl FnOnce(&Database) -> Result<(R, u64), BoxError>,
    ) -> Result<(Self, B, R), StoreError> {
        let path = folder.join(name);
        let failed = |source: BoxError| StoreError::Open {
            path: path.clone(),
            source,
        };
        let damaged = |source: BoxError| StoreError::Damaged {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(folder).map_err(|error| failed(error.into()))?;
        let mut database = open(&path)?;
        // A disk that is full says nothing of what is there.
        let (found, known) = begin(&database).map_err(|source| {
            let unwritten = is_of_disk(&source);
            if unwritten {
                failed(source)
            } else {
                damaged(source)
            }
        })?;
        if found != layout {
            return Err(StoreError::Format {
                path,
                found,
                expected: layout,
            });
        }
        let (saved, content) = read(&database).map_err(damaged)?;
        let length = fs::metadata(&path).map_err(|error| failed(error.into()))?;
        if length.len() > SPARE + SPARE_FACTOR * content
            && let Err(error) = database.compact()
        {
            // It is as good as before, and no reason not to serve from it. One whose disk failed
            // takes no more writes until it is opened again.
            let (file, error) = (path.display(), chain(&error));
            tracing::warn!(%file, error, "the file is larger than it need be, and did not shrink");
            drop(database);
            database = open(&path)?;
        }
        let file = Self {
            shared: Arc::new(Shared {
                database,
                path,
                size: AtomicU64::new(0),
            }),
        };
        file.measure();
        Ok((file, known, saved))
    }

    /// The size of the file in bytes, as of the last write.
    pub(crate) fn size(&self) -> u64 {
        self.shared.size.load(Ordering::Relaxed)
    }

    /// Writes a batch as one transaction; when this ends it survives a crash. Dropped meanwhile, it
    /// is written all the same.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub(crate) async fn write<F>(&self, batch: F) -> Result<(), StoreError>
    where
        F: FnOnce(&WriteTransaction) -> Result<(), BoxError> + Send + 'static,
    {
        let file = self.clone();
        let begun = Instant::now();
        let written = spawn_blocking(move || {
            let write = file.shared.database.begin_write()?;
            batch(&write)?;
            write.commit()?;
            file.measure();
            Ok::<_, BoxError>(())
        });
        let written = written.await.unwrap_or_else(|error| Err(error.into()));
        let elapsed = begun.elapsed();
        if elapsed > SLOW {
            tracing::warn!(seconds = elapsed.as_secs_f64(), "slow write to disk");
        }
        written.map_err(|source| StoreError::Write {
            path: self.shared.path.clone(),
            source,
        })
    }

    fn measure(&self) {
        // A size that cannot be read is shown as it was.
        if let Ok(metadata) = fs::metadata(&self.shared.path) {
            self.shared.size.store(metadata.len(), Ordering::Relaxed);
        }
    }
}

/// Whether it is the disk that failed, and not what is written there.
fn is_of_disk(error: &BoxError) -> bool {
    let storage = error
        .downcast_ref::<StorageError>()
        .or_else(|| match error.downcast_ref()? {
            TransactionError::Storage(error) => Some(error),
            _ => None,
        })
        .or_else(|| match error.downcast_ref()? {
            TableError::Storage(error) => Some(error),
            _ => None,
        })
        .or_else(|| match error.downcast_ref()? {
            CommitError::Storage(error) => Some(error),
            _ => None,
        });
    match storage {
        Some(StorageError::Io(error)) => error.kind() != io::ErrorKind::InvalidData,
        Some(StorageError::PreviousIo) => true,
        _ => false,
    }
}

/// Opens the file, which is made where it is missing.
fn open(path: &Path) -> Result<Database, StoreError> {
    let builder = &mut Database::builder();
    let opened = builder.set_cache_size(CACHE).create(path);
    opened.map_err(|error| {
        let path = path.to_owned();
        match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path },
            DatabaseError::Storage(StorageError::Io(error))
                if error.kind() != io::ErrorKind::InvalidData =>
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

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(error: impl Into<BoxError>) -> StoreError {
        let folder = tempfile::tempdir().expect("a folder");
        let begin = |_: &Database| Err::<(i64, ()), _>(error.into());
        let opened = File::open(folder.path(), "x.redb", 1, begin, |_| Ok(((), 0)));
        opened.map(drop).expect_err("a beginning that fails")
    }

    /// Goal: nobody is told to remove what is good because a disk is full.
    /// Method: have a file begin with failures of the disk, and of what is there.
    #[test]
    fn a_disk_that_fails_is_no_damage() {
        let full = || StorageError::Io(io::ErrorKind::StorageFull.into());
        let of_disk = [
            begun(full()),
            begun(TransactionError::from(full())),
            begun(TableError::from(full())),
            begun(CommitError::from(full())),
            begun(StorageError::PreviousIo),
        ];
        for error in of_disk {
            assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
        }
        let torn = StorageError::Io(io::ErrorKind::InvalidData.into());
        for storage in [StorageError::Corrupted("x".to_owned()), torn] {
            let error = begun(TransactionError::from(storage));
            assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        }
    }
}
