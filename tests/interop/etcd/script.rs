//! The files that hold the cases.
//!
//! ```text
//! == a name                  a case: it begins with no keys and no leases
//! put a 1                    a request; what belongs to it is indented below
//! = revision +1              the answer
//! 3.4 because some-name      where etcd 3.4 answers otherwise: a row of the table
//! 3.4 = revision +2          and its answer
//! ```
//!
//! `+1` is one after the revision at which the case began.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// A file of cases.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) path: PathBuf,
    pub(super) cases: Vec<Case>,
    /// What is said before the first case.
    preface: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) steps: Vec<Step>,
}

/// One request and what is answered.
#[derive(Debug, Default, Clone)]
pub(super) struct Step {
    /// Counted from one.
    pub(super) line: usize,
    comments: Vec<String>,
    /// The first line, and what is indented below.
    pub(super) request: Vec<String>,
    pub(super) answer: Vec<String>,
    pub(super) older: Option<Older>,
}

/// What etcd 3.4 answers instead.
#[derive(Debug, Default, Clone)]
pub(super) struct Older {
    pub(super) because: String,
    pub(super) answer: Vec<String>,
}

impl Script {
    pub(super) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a file of cases");
        let mut script = Self {
            path: path.to_owned(),
            cases: Vec::new(),
            preface: Vec::new(),
        };
        let mut comments = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if let Some(name) = line.strip_prefix("== ") {
                let before = std::mem::take(&mut comments);
                script.preface.extend(before);
                script.cases.push(Case {
                    name: name.to_owned(),
                    steps: Vec::new(),
                });
            } else if line.starts_with('#') {
                comments.push(line.to_owned());
            } else if !line.is_empty() {
                let case = script.cases.last_mut().expect("a case begins with ==");
                case.read(index + 1, line, &mut comments);
            }
        }
        script
    }

    /// Every file in `folder`.
    pub(super) fn all(folder: &Path) -> Vec<Self> {
        let entries = fs::read_dir(folder).expect("the folder of cases");
        let paths = entries.map(|entry| entry.expect("a file").path());
        let paths: BTreeSet<_> = paths.collect();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// Writes the file anew.
    pub(super) fn write(&self) {
        let mut text = String::new();
        for line in &self.preface {
            let _ = writeln!(text, "{line}");
        }
        for case in &self.cases {
            let _ = writeln!(text, "\n== {}", case.name);
            for step in &case.steps {
                step.write(&mut text);
            }
        }
        fs::write(&self.path, text.trim_start()).expect("write the cases");
    }
}

impl Case {
    fn read(&mut self, number: usize, line: &str, comments: &mut Vec<String>) {
        if line.starts_with(['=', ' ', '3']) {
            let step = self.steps.last_mut().expect("a request comes first");
            step.read(line);
            return;
        }
        self.steps.push(Step {
            line: number,
            comments: std::mem::take(comments),
            request: vec![line.to_owned()],
            ..Step::default()
        });
    }
}

impl Step {
    fn read(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("3.4 because ") {
            let older = self.older.get_or_insert_default();
            name.clone_into(&mut older.because);
        } else if let Some(answer) = line.strip_prefix("3.4 = ") {
            let older = self.older.get_or_insert_default();
            older.answer.push(answer.to_owned());
        } else if let Some(answer) = line.strip_prefix("= ") {
            self.answer.push(answer.to_owned());
        } else {
            self.request.push(line.to_owned());
        }
    }

    fn write(&self, text: &mut String) {
        for line in self.comments.iter().chain(&self.request) {
            let _ = writeln!(text, "{line}");
        }
        for line in &self.answer {
            let _ = writeln!(text, "= {line}");
        }
        if let Some(older) = &self.older {
            let _ = writeln!(text, "3.4 because {}", older.because);
            for line in &older.answer {
                let _ = writeln!(text, "3.4 = {line}");
            }
        }
    }
}

/// The names of all differences that the cases in `folder` show.
pub(super) fn differences(folder: &Path) -> BTreeSet<String> {
    let scripts = Script::all(folder);
    let cases = scripts.iter().flat_map(|script| &script.cases);
    let steps = cases.flat_map(|case| &case.steps);
    let older = steps.filter_map(|step| step.older.as_ref());
    older.map(|older| older.because.clone()).collect()
}
