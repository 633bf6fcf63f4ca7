//! The last known endpoints of a name on disk, for a start without etcd.
//!
//! Written beside and moved into place, so that a reader sees a whole file or the one before. A
//! file that cannot be read or written costs a warning, never a call.

use std::{
    fmt::Write as _,
    fs, io,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::discovery::{Attributes, Endpoint};

/// The version of the file's form; another one is not read.
const VERSION: u32 = 1;
/// A file at most; a larger one is not ours.
const SIZE_MAX: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    endpoints: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
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

/// Where the endpoints of one name are kept.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    path: PathBuf,
}

impl Snapshot {
    /// For `name`, as resolved by `scheme`, in `folder`.
    pub(super) fn new(folder: &Path, scheme: &str, name: &str) -> Self {
        // A name is free text; what is not plain is written in hexadecimal.
        let plain = name.bytes().fold(String::new(), |mut plain, byte| {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
                plain.push(byte.into());
            } else {
                write!(plain, "%{byte:02x}").expect("a string takes any text");
            }
            plain
        });
        Self {
            path: folder.join(format!("{scheme}-{plain}.json")),
        }
    }

    /// What was written last; nothing where there is no file.
    pub(super) fn read(&self) -> io::Result<Vec<Endpoint>> {
        let size = match fs::metadata(&self.path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        if size > SIZE_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let file: File = serde_json::from_slice(&fs::read(&self.path)?)?;
        if file.version != VERSION {
            return Ok(Vec::new());
        }
        Ok(file.endpoints.into_iter().map(Into::into).collect())
    }

    /// Writes `endpoints` down in place of what was there.
    pub(super) fn write(&self, endpoints: &[Endpoint]) -> io::Result<()> {
        let file = File {
            version: VERSION,
            endpoints: endpoints.iter().map(Into::into).collect(),
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

    pub(super) fn path(&self) -> &Path {
        &self.path
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
        let snapshot = Snapshot::new(&deep, "etcd", "shop/orders ü");
        assert!(snapshot.read().unwrap().is_empty());

        let endpoints: Vec<Endpoint> = vec![
            "10.0.0.1:1".parse::<SocketAddr>().unwrap().into(),
            Endpoint {
                addr: "[::1]:2".parse().unwrap(),
                attributes: Attributes {
                    instance: Some("x".into()),
                    weight_percent: Some(50),
                    ..Attributes::default()
                },
            },
        ];
        snapshot.write(&endpoints).unwrap();
        assert_eq!(endpoints, snapshot.read().unwrap());
        assert_eq!(
            1,
            fs::read_dir(&deep).unwrap().count(),
            "nothing is left aside"
        );

        fs::write(snapshot.path(), "{\"version\":1,").unwrap();
        assert!(snapshot.read().is_err());
        fs::write(snapshot.path(), "{\"version\":2,\"endpoints\":[]}").unwrap();
        assert!(snapshot.read().unwrap().is_empty());
    }
}
