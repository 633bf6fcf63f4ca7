//! Files of JSON lines that are only ever added to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use serde::{Serialize, de::DeserializeOwned};

/// A file of JSON lines. What was added is there when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lines {
    file: Mutex<File>,
}

impl Lines {
    /// The file at `path`, made where it is missing.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            file: Mutex::new(file),
        })
    }

    /// Adds a line in one write, so that the end of the process leaves none in pieces.
    pub(crate) fn add(&self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&text)
    }

    /// Adds a line, and ends once it is on disk.
    pub(crate) fn add_for_good(&self, line: &impl Serialize) -> io::Result<()> {
        self.add(line)?;
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.sync_data()
    }
}

/// The lines of a file, in their order.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    Ok(read_from(path, 0)?.0)
}

/// The whole lines of a file from the byte `from` on, and where the next begin.
pub(crate) fn read_from<T: DeserializeOwned>(path: &Path, from: u64) -> io::Result<(Vec<T>, u64)> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n');
    let whole = &bytes[..end.map_or(0, |end| end + 1)];
    let lines = serde_json::Deserializer::from_slice(whole).into_iter();
    let lines = lines.collect::<Result<_, _>>()?;
    let length = u64::try_from(whole.len()).unwrap_or(u64::MAX);
    Ok((lines, from + length))
}
