//! `gantry logs`: what instances printed, from the files `up` keeps.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{signal, time};

use crate::{
    Outcome,
    args::Logs,
    failure::{Exit, Failure, nearest},
    here, output,
    supervisor::logs::{Prefixes, path_of, tail},
};

/// How often followed files are looked at.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) async fn run(args: Logs) -> Outcome {
    let (_, state) = here()?;
    let folder = state.logs();
    let instances = chosen(&folder, args.name.as_deref())?;
    let mut prefixes = Prefixes::of(&instances, output::colour());
    let mut followed: Vec<_> = instances
        .iter()
        .map(|instance| {
            Followed::new(
                path_of(&folder, instance),
                prefixes.get(instance).to_owned(),
            )
        })
        .collect();
    let mut lines = Vec::new();
    for file in &followed {
        lines.extend(stamped(&file.prefix, tail(&file.path, args.tail)));
    }
    // Stable: lines of one instance stay in their order.
    lines.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (_, line) in lines {
        output::line(&line);
    }
    if !args.follow {
        return Ok(Exit::Fine);
    }
    loop {
        tokio::select! {
            _ = signal::ctrl_c() => return Ok(Exit::Fine),
            () = time::sleep(LOOK) => {}
        }
        for file in &mut followed {
            file.show_new();
        }
    }
}

/// Instances that have a log and go by `name`.
fn chosen(folder: &Path, name: Option<&str>) -> Result<Vec<String>, Failure> {
    let mut instances = BTreeSet::new();
    // No folder is no log: nothing has run here yet.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let file = entry.file_name();
        if let Some(instance) = file.to_str().and_then(|file| file.strip_suffix(".log")) {
            instances.insert(instance.to_owned());
        }
    }
    if instances.is_empty() {
        return Err(Failure::failed(
            "nothing has run here yet; start with `gantry up`",
        ));
    }
    let Some(name) = name else {
        return Ok(instances.into_iter().collect());
    };
    let (chosen, others): (Vec<_>, Vec<_>) = instances
        .into_iter()
        .partition(|instance| instance == name || service_of(instance) == name);
    if chosen.is_empty() {
        let services: BTreeSet<_> = others.iter().map(|instance| service_of(instance)).collect();
        let near = nearest(name, services);
        return Err(Failure::usage(format!("no log of \"{name}\"{near}")));
    }
    Ok(chosen)
}

/// `orders` of `orders-2`.
fn service_of(instance: &str) -> &str {
    instance
        .rsplit_once('-')
        .map_or(instance, |(service, _)| service)
}

/// Lines with the time they begin with; one without a time belongs to the line before it.
fn stamped(prefix: &str, lines: Vec<String>) -> Vec<(String, String)> {
    let mut last = String::new();
    let stamp = |line: String| {
        if let Some(time) = time_of(&line) {
            time.clone_into(&mut last);
        }
        (last.clone(), format!("{prefix}{line}"))
    };
    lines.into_iter().map(stamp).collect()
}

/// The time a line begins with, as text that sorts: `2026-01-02T03:04:05.678` of JSON, or
/// `03:04:05.678` of text.
fn time_of(line: &str) -> Option<&str> {
    let line = line.strip_prefix(r#"{"timestamp":""#).unwrap_or(line);
    let fits = |shape: &str| {
        let bytes = line.as_bytes().get(..shape.len())?;
        let same = |(byte, shape): (&u8, u8)| match shape {
            b'd' => byte.is_ascii_digit(),
            other => *byte == other,
        };
        bytes
            .iter()
            .zip(shape.bytes())
            .all(same)
            .then_some(shape.len())
    };
    let whole = fits("dddd-dd-ddTdd:dd:dd").or_else(|| fits("dd:dd:dd"))?;
    let fraction = |c: char| c.is_ascii_digit() || c == '.';
    let end = line[whole..].find(|c| !fraction(c));
    Some(&line[..end.map_or(line.len(), |end| whole + end)])
}

/// A log read on as it grows.
#[derive(Debug)]
struct Followed {
    path: PathBuf,
    prefix: String,
    /// The file read now; kept over its rotation until its last line has been read.
    file: Option<File>,
    /// The beginning of a line whose end is not there yet.
    partial: Vec<u8>,
}

impl Followed {
    /// Follows from the end of what is there now.
    fn new(path: PathBuf, prefix: String) -> Self {
        let end = |mut file: File| file.seek(SeekFrom::End(0)).map(|_| file);
        Self {
            file: File::open(&path).and_then(end).ok(),
            path,
            prefix,
            partial: Vec::new(),
        }
    }

    fn show_new(&mut self) {
        // A file that is away for the moment of its rotation is there at the next look.
        for line in self.new_lines().unwrap_or_default() {
            output::line(&format!("{}{line}", self.prefix));
        }
    }

    fn new_lines(&mut self) -> io::Result<Vec<String>> {
        // Opened first: what comes into the old file after this, there is none, as it has moved.
        let now = File::open(&self.path)?;
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut self.partial)?;
        }
        let same = match &self.file {
            Some(file) => file.metadata()?.ino() == now.metadata()?.ino(),
            None => false,
        };
        if !same {
            self.file.insert(now).read_to_end(&mut self.partial)?;
        }
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Vec::new());
        };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        let text = String::from_utf8_lossy(&whole);
        Ok(text.lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Goal: lines of several instances come in the order of their times, whole entries together.
    /// Method: a line with a time, one of its own without, and an earlier one of another.
    #[test]
    fn lines_sort_by_the_time_they_begin_with() {
        let late = ["2026-01-02T00:00:02.5Z INFO two", "  caused by"].map(str::to_owned);
        let early = ["2026-01-02T00:00:01Z INFO one"].map(str::to_owned);
        let mut lines = stamped("a ", late.to_vec());
        lines.extend(stamped("b ", early.to_vec()));
        lines.sort_by(|(one, _), (other, _)| one.cmp(other));
        let texts: Vec<_> = lines.iter().map(|(_, text)| &text[..]).collect();
        assert_eq!("b 2026-01-02T00:00:01Z INFO one", texts[0]);
        assert_eq!("a   caused by", texts[2]);
        assert_eq!(None, time_of("no time here at all"));
        assert_eq!(Some("22:19:19.485"), time_of("22:19:19.485  INFO serving"));
        let json = r#"{"timestamp":"2026-11-23T22:06:28.62Z","level":"INFO"}"#;
        assert_eq!(Some("2026-11-23T22:06:28.62"), time_of(json));
    }

    /// Goal: following shows every whole line once, over a rotation too.
    /// Method: half a line, its other half, then a new file in its place.
    #[test]
    fn following_shows_every_line_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a-1.log");
        fs::write(&path, "past\n").unwrap();
        let mut followed = Followed::new(path.clone(), String::new());
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();

        write!(file, "one\nhal").unwrap();
        assert_eq!(vec!["one"], followed.new_lines().unwrap());
        writeln!(file, "f").unwrap();
        assert_eq!(vec!["half"], followed.new_lines().unwrap());
        assert!(followed.new_lines().unwrap().is_empty());

        writeln!(file, "last").unwrap();
        fs::rename(&path, folder.path().join("a-1.log.1")).unwrap();
        fs::write(&path, "new\n").unwrap();
        assert_eq!(vec!["last", "new"], followed.new_lines().unwrap());
    }
}
