//! What was known last on disk, for a start without etcd: the endpoints of a name, and the services
//! that are registered.
//!
//! Written beside and moved into place, so that a reader sees a whole file or the one before. A
//! file that cannot be read or written costs a warning, never a call.

use std::{
    fmt::Write as _, fs, io, io::Write as _, marker::PhantomData, net::SocketAddr, path::Path,
    sync::Arc, time::Duration,
};

use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    task::{JoinError, JoinHandle, spawn_blocking},
    time::Instant,
};

use crate::discovery::{Attributes, Endpoint, Services};

/// The version of the file's form; another one is not read.
const VERSION: u32 = 1;
/// A file at most; a larger one is not ours.
const SIZE_MAX: u64 = 64 << 20;

/// How long etcd may take to give a first list before the snapshot takes its place.
pub(super) const FIRST_LIST_MAX: Duration = Duration::from_secs(1);
/// Shortest time between two snapshots on disk.
const PAUSE: Duration = Duration::from_secs(1);
/// Time before one that could not be written is tried again.
const PAUSE_FAILED: Duration = Duration::from_secs(30);

/// What is kept on disk.
pub(super) trait Kept: Clone + PartialEq + Send + 'static {
    /// Its form there.
    type Form: Serialize + DeserializeOwned + Send;

    /// As it is written.
    fn form(&self) -> Self::Form;
    /// As it was read.
    fn of(form: Self::Form) -> Self;
}

#[derive(Serialize, Deserialize)]
struct File<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

/// What every version of a file says.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Endpoints {
    endpoints: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Names {
    services: Services,
}

impl Kept for Arc<[Endpoint]> {
    type Form = Endpoints;

    fn form(&self) -> Endpoints {
        let endpoints = self.iter().map(Into::into).collect();
        Endpoints { endpoints }
    }

    fn of(form: Endpoints) -> Self {
        form.endpoints.into_iter().map(Into::into).collect()
    }
}

impl Kept for Arc<Services> {
    type Form = Names;

    fn form(&self) -> Names {
        let services = Services::clone(self);
        Names { services }
    }

    fn of(form: Names) -> Self {
        Self::new(form.services)
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Row {
    addr: SocketAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight_percent: Option<u32>,
}

/// Where something is kept.
#[derive(Debug)]
pub(super) struct Snapshot<T> {
    path: Arc<Path>,
    kept: PhantomData<fn() -> T>,
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self {
            path: Arc::clone(&self.path),
            kept: PhantomData,
        }
    }
}

impl Snapshot<Arc<[Endpoint]>> {
    /// The endpoints of `name`, as resolved by `scheme`, in `folder`.
    pub(super) fn of_name(folder: &Path, scheme: &str, name: &str) -> Self {
        // A name is free text; what is not plain is written in hexadecimal.
        let plain = name.bytes().fold(String::new(), |mut plain, byte| {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
                plain.push(byte.into());
            } else {
                write!(plain, "%{byte:02x}").expect("a string takes any text");
            }
            plain
        });
        Self::at(&folder.join(format!("{scheme}-{plain}.json")))
    }
}

impl Snapshot<Arc<Services>> {
    /// The services that are registered, in `folder`.
    pub(super) fn of_services(folder: &Path) -> Self {
        Self::at(&folder.join("services.json"))
    }
}

impl<T: Kept> Snapshot<T> {
    fn at(path: &Path) -> Self {
        Self {
            path: path.into(),
            kept: PhantomData,
        }
    }

    /// What was written last; nothing where there is no file.
    fn read(&self) -> io::Result<Option<T>> {
        let size = match fs::metadata(&self.path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if size > SIZE_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let bytes = fs::read(&self.path)?;
        let versioned: Versioned = serde_json::from_slice(&bytes)?;
        if versioned.version != VERSION {
            return Ok(None);
        }
        let file: File<T::Form> = serde_json::from_slice(&bytes)?;
        Ok(Some(T::of(file.content)))
    }

    /// Writes `what` down in place of what was there.
    fn write(&self, what: &T) -> io::Result<()> {
        let file = File {
            version: VERSION,
            content: what.form(),
        };
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        // Of its own for each process: several may share the folder.
        let aside = self
            .path
            .with_extension(format!("{}.tmp", std::process::id()));
        let mut written = fs::File::create(&aside)?;
        written.write_all(&serde_json::to_vec(&file)?)?;
        written.sync_all()?;
        fs::rename(&aside, &self.path)?;
        // The new name too, or a power cut brings the old file back; harmless, but not what was
        // asked for.
        fs::File::open(folder)?.sync_all()
    }
}

/// Writes snapshots off the async threads, one at a time, the newest at last.
pub(super) struct Writer<T> {
    snapshot: Snapshot<T>,
    /// What is to be written, until it is.
    wanted: Option<T>,
    written: Option<T>,
    next: Option<Instant>,
    running: Option<(T, JoinHandle<io::Result<()>>)>,
    failing: bool,
}

impl<T: Kept> Writer<T> {
    pub(super) fn new(snapshot: Snapshot<T>) -> Self {
        Self {
            snapshot,
            wanted: None,
            written: None,
            next: None,
            running: None,
            failing: false,
        }
    }

    /// What was written last, if it can be read.
    pub(super) async fn read(&self) -> Option<T> {
        let snapshot = self.snapshot.clone();
        let read = spawn_blocking(move || snapshot.read()).await;
        match read {
            Ok(Ok(kept)) => kept,
            Ok(Err(error)) => {
                let file = self.snapshot.path.display();
                tracing::warn!(%file, %error, "a snapshot of the registry cannot be read");
                None
            }
            // The runtime is going down.
            Err(_) => None,
        }
    }

    /// When something waits to be written.
    pub(super) fn due(&self) -> Option<Instant> {
        self.wanted.as_ref().and(self.next)
    }

    /// `what` is to be written, unless it was already.
    pub(super) fn want(&mut self, what: &T, now: Instant) {
        if self.written.as_ref() == Some(what) && self.running.is_none() {
            self.wanted = None;
            return;
        }
        self.wanted = Some(what.clone());
        self.next.get_or_insert(now);
    }

    /// Begins to write what is due, and takes in what became of what was begun.
    pub(super) fn write(&mut self, now: Instant) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        // The disk is slow: the newest list later, not every list.
        self.next = Some(now + PAUSE);
        if let Some((what, task)) = &mut self.running {
            let Some(ended) = task.now_or_never() else {
                return;
            };
            let what = what.clone();
            self.running = None;
            if !self.has_ended(what, ended) {
                self.next = Some(now + PAUSE_FAILED);
                return;
            }
        }
        if self.wanted == self.written {
            self.wanted = None;
        }
        let Some(wanted) = self.wanted.clone() else {
            return;
        };
        let (snapshot, what) = (self.snapshot.clone(), wanted.clone());
        let task = spawn_blocking(move || snapshot.write(&what));
        self.running = Some((wanted, task));
    }

    /// Takes in what became of writing `what`. Says whether it is written.
    fn has_ended(&mut self, what: T, ended: Result<io::Result<()>, JoinError>) -> bool {
        match ended {
            Ok(Ok(())) => {
                self.failing = false;
                self.written = Some(what);
                true
            }
            Ok(Err(error)) => {
                if !std::mem::replace(&mut self.failing, true) {
                    let file = self.snapshot.path.display();
                    tracing::warn!(%file, %error, "a snapshot of the registry cannot be written");
                }
                false
            }
            // The runtime is going down.
            Err(_) => false,
        }
    }
}

impl From<&Endpoint> for Row {
    fn from(Endpoint { addr, attributes }: &Endpoint) -> Self {
        Self {
            addr: *addr,
            instance: attributes.instance.clone(),
            version: attributes.version.clone(),
            zone: attributes.zone.clone(),
            weight_percent: attributes.weight_percent,
        }
    }
}

impl From<Row> for Endpoint {
    fn from(row: Row) -> Self {
        Self {
            addr: row.addr,
            attributes: Attributes {
                instance: row.instance,
                version: row.version,
                zone: row.zone,
                weight_percent: row.weight_percent,
                held: false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is written is read, by whatever name; nothing and garbage take nothing down.
    /// Method: an odd name in a folder that is not there yet; then break the file.
    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        let snapshot = Snapshot::of_name(&deep, "etcd", "shop/orders ü");
        assert!(snapshot.read().unwrap().is_none());

        let endpoints: Arc<[Endpoint]> = Arc::new([
            "10.0.0.1:1".parse::<SocketAddr>().unwrap().into(),
            Endpoint {
                addr: "[::1]:2".parse().unwrap(),
                attributes: Attributes {
                    instance: Some("x".into()),
                    weight_percent: Some(50),
                    ..Attributes::default()
                },
            },
        ]);
        snapshot.write(&endpoints).unwrap();
        assert_eq!(Some(endpoints), snapshot.read().unwrap());
        assert_eq!(
            1,
            fs::read_dir(&deep).unwrap().count(),
            "nothing is left aside"
        );

        let services = Snapshot::of_services(&deep);
        let names = Arc::new(Services::from([("shop.Orders".into(), "orders".into())]));
        services.write(&names).unwrap();
        assert_eq!(Some(names), services.read().unwrap());

        fs::write(&snapshot.path, "{\"version\":1,").unwrap();
        assert!(snapshot.read().is_err());
        fs::write(&snapshot.path, "{\"version\":2,\"others\":[]}").unwrap();
        assert!(snapshot.read().unwrap().is_none());
    }
}
