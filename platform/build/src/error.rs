//! Why contracts could not be compiled, as a line for people per fault.

use std::{fmt, io, path::PathBuf};

/// Why contracts could not be compiled.
///
/// `{:?}` prints what `{}` prints, with the cause behind it: cargo shows the error that `main` of a
/// build script returns that way.
#[derive(thiserror::Error)]
pub enum Error {
    /// Not run by cargo, and no folder was said to write into.
    #[error("OUT_DIR is not set: call this from build.rs, or say out_dir")]
    OutDir,
    /// A file or folder could not be read.
    #[error("read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("write {}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A `.proto` is not what it should be: `file:line:column: what`.
    #[error("{0}")]
    Proto(String),
    /// Rules that cannot be honoured, `file:line: what: why` each.
    #[error("{}", faults.join("\n"))]
    Rules {
        /// One line for each.
        faults: Vec<String>,
    },
    /// Two packages could not become Rust, or a path of `extern_path` is not one.
    #[error("generate code")]
    Generate {
        /// Why.
        source: io::Error,
    },
    /// What was generated is not Rust; a fault in this crate or a path that is not one.
    #[error("generated code for {package} is not Rust")]
    Syntax {
        /// In which package.
        package: String,
        /// What the parser says.
        source: syn::Error,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
