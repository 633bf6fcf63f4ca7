//! Where a configuration is read from.

use std::{
    ffi::OsString,
    fmt,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use zeroize::Zeroizing;

use super::{
    Fault, Origin,
    layers::{Layers, variable_of},
};

/// The sources of one process's configuration, from which it is read at start and again at each
/// change.
///
/// A later layer has the last word: the program's defaults, `default.toml`, the service's own
/// file, `local.toml`, texts from elsewhere, the environment, the command line.
#[derive(Clone, Default)]
pub struct Sources {
    files: Vec<File>,
    texts: Vec<(Arc<str>, String)>,
    variables: Vec<(OsString, OsString)>,
    flags: Vec<String>,
}

#[derive(Debug, Clone)]
struct File {
    path: PathBuf,
    required: bool,
}

impl Sources {
    /// The program's defaults alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a service's process reads: the file it was told, or `config/<service>.toml`; its
    /// environment; and the overrides of its command line.
    #[must_use]
    pub fn of_process(service: &str, file: Option<&Path>, overrides: &[String]) -> Self {
        let mut sources = match file {
            Some(path) => Self::new().file(path),
            None => Self::new().folder("config", service),
        };
        sources.variables = std::env::vars_os().collect();
        sources.flags = overrides.to_vec();
        sources
    }

    /// Reads `default.toml`, `<service>.toml` and `local.toml` in `folder`, those that are there.
    #[must_use]
    pub fn folder(self, folder: impl AsRef<Path>, service: &str) -> Self {
        let path = folder.as_ref().join(format!("{service}.toml"));
        self.layers_around(&path, false)
    }

    /// Reads the file at `path`, which must be there, between `default.toml` and `local.toml` of
    /// its folder, those that are there.
    #[must_use]
    pub fn file(self, path: impl AsRef<Path>) -> Self {
        self.layers_around(path.as_ref(), true)
    }

    fn layers_around(mut self, path: &Path, required: bool) -> Self {
        let named = File {
            path: path.to_owned(),
            required,
        };
        let beside = |name| File {
            path: path.with_file_name(name),
            required: false,
        };
        let (default, local) = (beside("default.toml"), beside("local.toml"));
        if default.path != named.path {
            self.files.push(default);
        }
        let is_local = local.path == named.path;
        self.files.push(named);
        if !is_local {
            self.files.push(local);
        }
        self
    }

    /// Adds a layer of TOML that is in no file, above the files and below the environment;
    /// `name` says where it comes from.
    #[must_use]
    pub fn text(mut self, name: &str, toml: impl Into<String>) -> Self {
        self.texts.push((name.into(), toml.into()));
        self
    }

    /// Adds environment variables; those that do not begin with `GANTRY_` are none of ours.
    #[must_use]
    pub fn variables<N, V>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let variables = variables.into_iter();
        self.variables
            .extend(variables.map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Adds an override as the command line writes it: `section.key=value`.
    #[must_use]
    pub fn set(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// Reads the files as they are now. Blocks.
    pub(super) fn read(&self) -> Texts {
        let files = self
            .files
            .iter()
            .map(|file| match std::fs::read_to_string(&file.path) {
                Ok(text) => Text::Content(text.into()),
                Err(error) if error.kind() == ErrorKind::NotFound && !file.required => {
                    Text::Missing(None)
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    Text::Missing(Some(error.to_string()))
                }
                Err(error) => Text::Unreadable(error.to_string()),
            });
        Texts {
            files: files.collect(),
        }
    }

    /// Lays out all layers, in order; `texts` are what the files hold.
    pub(super) fn layers(&self, texts: &Texts) -> Layers {
        let mut layers = Layers::default();
        for (file, text) in self.files.iter().zip(&texts.files) {
            match text {
                Text::Content(text) => layers.text(&file.name(), text),
                Text::Missing(None) => {}
                Text::Missing(Some(reason)) | Text::Unreadable(reason) => {
                    layers.unreadable(file.origin(), reason);
                }
            }
        }
        for (name, text) in &self.texts {
            layers.text(name, text);
        }
        layers.variables(&self.variables);
        layers.flags(&self.flags);
        layers
    }

    /// The files that are read, whether or not they are there.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// The files that `before` held and `now` does not.
    pub(super) fn gone(&self, before: &Texts, now: &Texts) -> Vec<Fault> {
        let files = self.files.iter().zip(before.files.iter().zip(&now.files));
        let gone = files.filter(|(_, (before, now))| {
            matches!(before, Text::Content(_)) && matches!(now, Text::Missing(_))
        });
        gone.map(|(file, _)| Fault {
            origin: file.origin(),
            key: String::new(),
            reason: "the file is gone; put it back, or ask for a reload to go on without it"
                .to_owned(),
        })
        .collect()
    }
}

impl File {
    fn name(&self) -> Arc<str> {
        self.path.to_string_lossy().into()
    }

    fn origin(&self) -> Origin {
        Origin::File {
            name: self.name(),
            line: 0,
            column: 0,
        }
    }
}

/// What the files held at one moment.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Texts {
    files: Vec<Text>,
}

// Wiped when dropped: they may hold secrets.
#[derive(Clone, PartialEq, Eq)]
enum Text {
    Content(Zeroizing<String>),
    /// With a reason where the file has to be there.
    Missing(Option<String>),
    Unreadable(String),
}

/// The number alone: texts may hold secrets.
impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Texts({})", self.files.len())
    }
}

/// Names alone: values may be secrets.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |flag: &String| flag.split('=').next().unwrap_or_default().to_owned();
        f.debug_struct("Sources")
            .field("files", &self.files)
            .field(
                "texts",
                &self.texts.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            )
            .field("variables", &self.variables.len())
            .field("flags", &self.flags.iter().map(names).collect::<Vec<_>>())
            .finish()
    }
}

/// This process's own variables for keys of one section, as in `GANTRY_ETCD__USER` of `etcd`: for
/// programs that are told by options and start services, or do as a service would.
#[must_use]
pub fn variables_of(section: &str) -> Vec<(String, String)> {
    let prefix = format!("{}__", variable_of(section));
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        name.starts_with(&prefix).then_some((name, value))
    });
    variables.collect()
}

/// One of OpenTelemetry's own variables (`OTEL_…`), trimmed; none where it is empty.
///
/// They are not ours to declare as keys, but here is where the environment is read.
#[expect(clippy::disallowed_methods, reason = "config reads the environment")]
pub(crate) fn opentelemetry_variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}
