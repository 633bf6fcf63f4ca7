//! What the children print: every line to the instance's file, and to the screen as it comes.
//!
//! A file has a bound and one predecessor, so logs never fill a disk. The screen is lossy: a
//! terminal that does not take lines (paused, or a pipe nobody reads) holds nobody up; what it
//! misses is counted and lies in the files.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use gantry::shutdown::Tasks;
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    sync::{mpsc, oneshot},
};

use crate::output::{self, Format};

/// A log file at most; the one before it is kept, so an instance has twice as much.
const FILE_MAX: u64 = 4 << 20;

/// A line at most; a longer one is cut into several.
const LINE_MAX: u64 = 64 << 10;

/// Lines the screen may be behind.
const SCREEN_QUEUE: usize = 1_024;

/// The colours of prefixes, in turn; none of them means good or bad elsewhere.
const COLOURS: [&str; 6] = ["36", "35", "34", "96", "95", "94"];

/// Takes what the children print; clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    files: Mutex<HashMap<String, LogFile>>,
    prefixes: Mutex<Prefixes>,
    format: Format,
    screen: mpsc::Sender<Text>,
    missed: AtomicU64,
}

#[derive(Debug)]
enum Text {
    Line(String),
    Flushed(oneshot::Sender<()>),
}

#[derive(Serialize)]
struct JsonLine<'a> {
    r#type: &'static str,
    instance: &'a str,
    line: &'a str,
}

impl Logs {
    /// Logs of `instances`, and of those that join them, in `folder`, which exists; what shows them
    /// is spawned on `tasks`.
    pub(crate) fn new(
        folder: PathBuf,
        instances: &[String],
        format: Format,
        tasks: &Tasks,
    ) -> Self {
        let (screen, lines) = mpsc::channel(SCREEN_QUEUE);
        tasks.spawn("screen", show(lines, tasks.stopping().cancelled_owned()));
        Self {
            shared: Arc::new(Shared {
                folder,
                files: Mutex::default(),
                prefixes: Mutex::new(Prefixes::of(instances, output::colour())),
                format,
                screen,
                missed: AtomicU64::new(0),
            }),
        }
    }

    /// Shows a text of `gantry`'s own, in order with the children's lines.
    pub(crate) fn say(&self, text: String) {
        if self.shared.screen.try_send(Text::Line(text)).is_err() {
            self.shared.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything said so far was shown.
    pub(crate) async fn flushed(&self) {
        let (done, shown) = oneshot::channel();
        if self.shared.screen.send(Text::Flushed(done)).await.is_ok() {
            // An error means the screen is gone, and with it what it could have shown.
            drop(shown.await);
        }
    }

    /// Takes the lines of one child's stream until its end.
    pub(crate) async fn follow(self, instance: String, stream: impl AsyncRead + Unpin + Send) {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded = (&mut stream).take(LINE_MAX);
            match bounded.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            self.take(&instance, text.trim_end_matches(['\n', '\r']));
        }
    }

    fn take(&self, instance: &str, line: &str) {
        self.keep(instance, line);
        let missed = self.shared.missed.swap(0, Ordering::Relaxed);
        if missed > 0 {
            let text = format!("… {missed} lines not shown; see `gantry logs`");
            self.say(text);
        }
        self.say(match self.shared.format {
            Format::Json => output::to_json(&JsonLine {
                r#type: "log",
                instance,
                line,
            }),
            Format::Human => {
                let prefixes = &self.shared.prefixes;
                let mut prefixes = prefixes.lock().unwrap_or_else(PoisonError::into_inner);
                format!("{}{line}", prefixes.get(instance))
            }
        });
    }

    /// Writes a line to the instance's file. A disk that takes nothing is told on the screen once
    /// per line lost there; the children go on.
    fn keep(&self, instance: &str, line: &str) {
        let files = &self.shared.files;
        let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files
            .entry(instance.to_owned())
            .or_insert_with(|| LogFile::new(path_of(&self.shared.folder, instance)));
        if let Err(error) = file.write(line) {
            self.say(format!("log of {instance} not kept: {error}"));
        }
    }
}

/// The log file of an instance.
pub(crate) fn path_of(folder: &Path, instance: &str) -> PathBuf {
    folder.join(format!("{instance}.log"))
}

/// Its predecessor.
pub(crate) fn rotated(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// `orders-1 | `, all as wide as the widest at first, each in a colour where wanted.
#[derive(Debug)]
pub(crate) struct Prefixes {
    /// Instances come and go, but by few names: numbers are given out again.
    known: HashMap<String, String>,
    width: usize,
    coloured: bool,
}

impl Prefixes {
    pub(crate) fn of(instances: &[String], coloured: bool) -> Self {
        let width = instances.iter().map(String::len).max();
        let mut prefixes = Self {
            known: HashMap::new(),
            width: width.unwrap_or_default(),
            coloured,
        };
        for instance in instances {
            prefixes.get(instance);
        }
        prefixes
    }

    pub(crate) fn get(&mut self, instance: &str) -> &str {
        let (width, count) = (self.width, self.known.len());
        let coloured = self.coloured;
        let prefix = || {
            if coloured {
                let colour = COLOURS[count % COLOURS.len()];
                format!("\x1b[{colour}m{instance:width$} |\x1b[0m ")
            } else {
                format!("{instance:width$} | ")
            }
        };
        let known = self.known.entry(instance.to_owned());
        known.or_insert_with(prefix)
    }
}

/// Shows what is said until told to stop; [`Logs::flushed`] before that loses nothing.
async fn show(mut lines: mpsc::Receiver<Text>, stopping: impl Future<Output = ()>) {
    let mut screen = tokio::io::stdout();
    let mut batch = Vec::new();
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            biased;
            count = lines.recv_many(&mut batch, SCREEN_QUEUE) => if count == 0 {
                return;
            },
            () = &mut stopping => return,
        }
        let mut bytes = Vec::new();
        let mut waiting = Vec::new();
        for text in batch.drain(..) {
            match text {
                Text::Line(line) => {
                    bytes.extend_from_slice(line.as_bytes());
                    bytes.push(b'\n');
                }
                Text::Flushed(done) => waiting.push(done),
            }
        }
        // A screen that is gone stays gone; the files have it all.
        drop(screen.write_all(&bytes).await);
        drop(screen.flush().await);
        for done in waiting {
            let _ = done.send(());
        }
    }
}

/// A file with a bound.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    open: Option<(File, u64)>,
}

impl LogFile {
    fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self
            .open
            .as_ref()
            .is_some_and(|(_, size)| *size >= FILE_MAX)
        {
            fs::rename(&self.path, rotated(&self.path))?;
            self.open = None;
        }
        if self.open.is_none() {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&self.path)?;
            let size = file.metadata()?.len();
            self.open = Some((file, size));
        }
        let (file, size) = self.open.as_mut().expect("it was opened above");
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        file.write_all(&bytes)?;
        *size += bytes.len() as u64;
        Ok(())
    }
}

/// The last lines of a log, its predecessor's included.
pub(crate) fn tail(path: &Path, lines: usize) -> Vec<String> {
    let read = |path: &Path| {
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let now = read(path);
    let mut kept: Vec<String> = now.lines().rev().take(lines).map(str::to_owned).collect();
    if kept.len() < lines {
        let missing = lines - kept.len();
        let before = read(&rotated(path));
        kept.extend(before.lines().rev().take(missing).map(str::to_owned));
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a log never holds more than two files' worth, and the tail spans both.
    /// Method: write three files' worth of numbered lines.
    #[test]
    fn a_log_is_bounded_and_its_tail_spans_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(folder.path(), "orders-1");
        let mut file = LogFile::new(path.clone());
        let filler = "x".repeat(64 << 10);
        let count = 3 * FILE_MAX / (64 << 10);
        for number in 0..count {
            file.write(&format!("{number} {filler}")).unwrap();
        }

        let size = |path: &Path| fs::metadata(path).unwrap().len();
        assert!(size(&path) + size(&rotated(&path)) <= 2 * FILE_MAX + (128 << 10));
        assert_eq!(2, fs::read_dir(folder.path()).unwrap().count());
        let across = usize::try_from(size(&path) / (64 << 10) + 2).unwrap();
        let numbers = tail(&path, across)
            .iter()
            .map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap())
            .collect::<Vec<_>>();
        assert_eq!(across, numbers.len());
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert_eq!(Some(&(count - 1)), numbers.last());
    }

    /// Goal: a child that prints without end of line takes bounded memory and loses nothing.
    /// Method: one line of three bounds, then a short one.
    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let tasks = Tasks::new(gantry::journal::Journal::new());
        let names = ["a-1".to_owned()];
        let logs = Logs::new(folder.path().to_owned(), &names, Format::Human, &tasks);
        let long = usize::try_from(LINE_MAX).unwrap() * 3;
        let text = format!("{}\nend", "y".repeat(long));

        logs.follow("a-1".to_owned(), text.as_bytes()).await;

        let lines = tail(&path_of(folder.path(), "a-1"), 100);
        let kept: usize = lines.iter().map(String::len).sum();
        assert_eq!(long + 3, kept);
        assert_eq!(Some("end"), lines.last().map(String::as_str));
        assert!(lines.iter().all(|line| line.len() <= long / 3));
    }

    #[test]
    fn prefixes_are_aligned_and_plain_without_colour() {
        let names = ["orders-1".to_owned(), "a-1".to_owned()];
        let mut plain = Prefixes::of(&names, false);
        assert_eq!("orders-1 | ", plain.get("orders-1"));
        assert_eq!("a-1      | ", plain.get("a-1"));
        assert_eq!("a-2      | ", plain.get("a-2"), "it joined later");
    }
}
