//! The state folder, `.gantry`: data, logs, and what belongs to the one running `up`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Seek as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::FlockOperation;
use tokio::{
    net::{UnixListener, UnixStream},
    time,
};

use crate::failure::Failure;

/// How long an `up` may take from its last answer to its end, and how often that is looked for.
const FREED_MAX: Duration = Duration::from_secs(5);
const FREED_PAUSE: Duration = Duration::from_millis(10);

/// Where one project keeps what it writes.
#[derive(Debug, Clone)]
pub(crate) struct StateFolder {
    root: PathBuf,
}

impl StateFolder {
    /// The state folder of the project at `root`; nothing is touched yet.
    pub(crate) fn of(root: &Path) -> Self {
        Self {
            root: root.join(".gantry"),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// Databases.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// One file per instance.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Makes the folders, readable by their owner alone: databases and logs are nobody else's.
    pub(crate) fn create(&self) -> Result<(), Failure> {
        for folder in [self.data(), self.logs(), self.run()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(|error| {
                    Failure::failed(format!("create {}: {error}", folder.display()))
                })?;
        }
        Ok(())
    }

    /// Removes all data.
    pub(crate) fn clear_data(&self) -> Result<(), Failure> {
        let data = self.data();
        fs::remove_dir_all(&data)
            .map_err(|error| Failure::failed(format!("clear {}: {error}", data.display())))?;
        self.create()
    }

    /// Makes this process the one that runs here, for as long as the lock lives.
    ///
    /// The kernel frees it when the process ends in whatever way, so a stale file blocks nobody.
    pub(crate) fn lock(&self) -> Result<Lock, Failure> {
        let path = self.run().join("lock");
        let fail = |error: io::Error| Failure::failed(format!("lock {}: {error}", path.display()));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(fail)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(fail)?;
                return Err(Failure::failed(format!(
                    "`gantry up` (process {}) already runs on {}; stop it with `gantry stop`",
                    holder.trim(),
                    self.root.display()
                )));
            }
            Err(error) => return Err(fail(error.into())),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()))
            .map_err(fail)?;
        Ok(Lock { _file: file })
    }

    /// Completes once nobody runs here, or after [`FREED_MAX`]. Cancel-safe.
    pub(crate) async fn freed(&self) {
        let Ok(file) = File::open(self.run().join("lock")) else {
            return;
        };
        let freed = async {
            while rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
                time::sleep(FREED_PAUSE).await;
            }
        };
        // Whoever starts next is told of the holder, if it is there still.
        let _ = time::timeout(FREED_MAX, freed).await;
    }

    /// Opens the socket other `gantry` commands talk to, for its owner alone.
    ///
    /// Needs the [`Lock`], which proves that a socket already there is left over.
    pub(crate) fn listen(&self, _held: &Lock) -> Result<UnixListener, Failure> {
        let path = self.run().join(CONTROL);
        let fail = |error: io::Error| Failure::failed(format!("open {}: {error}", path.display()));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        let folder = File::open(self.run()).map_err(fail)?;
        let listener = UnixListener::bind(short(&folder)).map_err(fail)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(fail)?;
        Ok(listener)
    }

    /// Connects to the running `up`; `None` when there is none.
    pub(crate) async fn connect(&self) -> Result<Option<UnixStream>, Failure> {
        let fail = |error: io::Error| {
            Failure::failed(format!(
                "reach the `gantry up` of {}: {error}",
                self.root.display()
            ))
        };
        let folder = match File::open(self.run()) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        match UnixStream::connect(short(&folder)).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::ConnectionRefused
                        // It ended before it took the connection up.
                        | io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(fail(error)),
        }
    }
}

/// Name of the socket in the run folder.
const CONTROL: &str = "control";

/// The socket's path through its open folder: a socket's path has 107 bytes at most, and projects
/// lie deeper than that.
fn short(folder: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{CONTROL}", folder.as_raw_fd()))
}

/// Proof that this process alone runs on its state folder.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: one state folder has one `up`; the second is told who holds it.
    /// Method: lock twice, drop the first, lock again.
    #[test]
    fn the_second_lock_is_refused_with_the_holder() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::of(folder.path());
        state.create().unwrap();
        let first = state.lock().unwrap();

        let refused = state.lock().unwrap_err().to_string();
        assert!(
            refused.contains(&format!("process {}", std::process::id())),
            "{refused}"
        );

        drop(first);
        state.lock().unwrap();
    }

    /// Goal: whoever waits for the end of an `up` may start the next one at once.
    /// Method: a lock that goes a while later; one that stays.
    #[tokio::test(start_paused = true)]
    async fn the_end_is_when_the_lock_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::of(folder.path());
        state.freed().await;
        state.create().unwrap();
        let lock = state.lock().unwrap();
        let begun = time::Instant::now();
        let ending = async {
            time::sleep(Duration::from_secs(1)).await;
            drop(lock);
        };
        tokio::join!(state.freed(), ending);
        assert!(begun.elapsed() >= Duration::from_secs(1));

        let _stays = state.lock().unwrap();
        let begun = time::Instant::now();
        state.freed().await;
        assert_eq!(FREED_MAX, begun.elapsed());
    }

    /// Goal: a deep folder has a control socket all the same, and only its owner may use it.
    /// Method: a path longer than a socket address; look at the mode; connect.
    #[tokio::test]
    async fn a_deep_folder_has_a_private_socket() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        let state = StateFolder::of(&deep);
        assert!(state.connect().await.unwrap().is_none(), "nothing there");
        state.create().unwrap();
        assert!(state.connect().await.unwrap().is_none(), "nobody listens");

        let lock = state.lock().unwrap();
        let listener = state.listen(&lock).unwrap();
        let mode = fs::metadata(state.run().join(CONTROL))
            .unwrap()
            .permissions();
        assert_eq!(0o600, mode.mode() & 0o777);
        assert!(state.connect().await.unwrap().is_some());

        drop(listener);
        assert!(state.connect().await.unwrap().is_none(), "left over");
        state.listen(&lock).unwrap();
    }
}
