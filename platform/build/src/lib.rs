//! What a `build.rs` calls: protobuf contracts become Rust, without protoc.
//!
//! ```no_run
//! fn main() -> Result<(), gantry_build::Error> {
//!     gantry_build::configure().proto_dir("proto").package("greeter").compile()
//! }
//! ```
//!
//! and in `lib.rs` (or any module):
//!
//! ```text
//! gantry::include_contracts!();
//! ```
//!
//! That compiles every `.proto` under `proto/greeter` with [protox], and gives for each package a
//! module of the same path (`greeter::v1`) with
//!
//! - the messages, as prost makes them, each with its full name (`prost::Name`);
//! - for each service a client, a server and its trait, as tonic makes them;
//! - `impl gantry::contract::{Server, Client}`: names, descriptors, and for each method whether it
//!   streams, its `idempotency_level`, and who may call it (`gantry.access.v1.access` and
//!   `role`);
//! - `impl gantry::contract::Validate` for each message, from its `buf.validate` options. Servers
//!   check each message they decode. An option that cannot be honoured fails the build: a rule
//!   that is silently not checked is worse than none;
//! - `DESCRIPTORS`, the encoded `FileDescriptorSet` of the package with all it imports, options
//!   and comments kept, for reflection and JSON.
//!
//! `buf/validate/validate.proto`, `gantry/access/v1/access.proto`, `google/api/annotations.proto` and
//! the `google/protobuf` files can be imported as they are; the first three are in this crate. Generated code names nothing but `::gantry`, so a contract crate needs
//! `gantry` as its dependency and `gantry-build` as its build dependency, and no more.
//!
//! # Rules
//!
//! Names and meaning are those of [Protovalidate]. Honoured are
//!
//! | on | rules |
//! | --- | --- |
//! | any field | `required`, `ignore` |
//! | oneof, message | `oneof.required`, `message.oneof` |
//! | numbers | `const`, `lt`, `lte`, `gt`, `gte`, `in`, `not_in`, `finite` |
//! | bool | `const` |
//! | enum | `const`, `defined_only`, `in`, `not_in` |
//! | string | `const`, `len`, `min_len`, `max_len`, `len_bytes`, `min_bytes`, `max_bytes`, `pattern`, `prefix`, `suffix`, `contains`, `not_contains`, `in`, `not_in`, `email`, `hostname`, `ip`, `ipv4`, `ipv6`, `address`, `uri`, `uuid`, `tuuid`, `ulid` |
//! | bytes | `const`, `len`, `min_len`, `max_len`, `prefix`, `suffix`, `contains`, `in`, `not_in`, `ip`, `ipv4`, `ipv6`, `uuid` |
//! | repeated | `min_items`, `max_items`, `unique` (of scalars), `items` |
//! | map | `min_pairs`, `max_pairs`, `keys`, `values` |
//! | Duration, Timestamp | `const`, `lt`, `lte`, `gt`, `gte`, `in`, `not_in` (Duration), `lt_now`, `gt_now`, `within` (Timestamp) |
//!
//! and those of scalars on their wrappers. All others, CEL among them, fail the build with file,
//! line, field and rule.
//!
//! Cargo runs the script again when a `.proto` it read changes, or one appears; not otherwise.
//!
//! [protox]: https://docs.rs/protox
//! [Protovalidate]: https://github.com/bufbuild/protovalidate

mod access;
mod descriptors;
mod error;
mod idents;
mod output;
mod rules;
mod services;
mod sources;

use std::path::{Path, PathBuf};

pub use error::Error;

/// Begins to say what is to be compiled; [`Builder::compile`] does it.
#[must_use]
pub fn configure() -> Builder {
    Builder {
        proto_dir: PathBuf::from("proto"),
        packages: Vec::new(),
        runtime: Some("::gantry::contract".to_owned()),
        out_dir: None,
    }
}

/// What is to be compiled, and into what.
#[derive(Debug, Clone)]
pub struct Builder {
    proto_dir: PathBuf,
    packages: Vec<String>,
    runtime: Option<String>,
    out_dir: Option<PathBuf>,
}

impl Builder {
    /// The folder that imports are relative to, from the package's root; `proto` unless said.
    #[must_use]
    pub fn proto_dir(mut self, path: impl AsRef<Path>) -> Self {
        path.as_ref().clone_into(&mut self.proto_dir);
        self
    }

    /// Compiles the files of this package and of those below it: for `shop`, all in `shop/`.
    ///
    /// May be said several times. Unless said, every file of the folder is compiled. Files they
    /// import are compiled as far as their types are used.
    #[must_use]
    pub fn package(mut self, name: impl Into<String>) -> Self {
        self.packages.push(name.into());
        self
    }

    /// Generates code that does not know the platform: tonic and prost alone, nothing validated.
    ///
    /// The crate then needs `prost`, `prost-types`, `tonic` and `tonic-prost`. For crates that the
    /// platform itself stands on, or that others use without it.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.runtime = None;
        self
    }

    /// Writes here instead of into `OUT_DIR`, which cargo names to build scripts.
    #[must_use]
    pub fn out_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.out_dir = Some(path.into());
        self
    }

    /// Compiles, writes the Rust files, and tells cargo what to watch.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or written, a fault in a `.proto`, a rule that cannot be
    /// honoured. Both ways of printing the error, `{}` and `{:?}`, give a line for people per
    /// fault, so `main` can return it.
    pub fn compile(self) -> Result<(), Error> {
        let out_dir = self.out_dir.clone().map_or_else(out_dir_of_cargo, Ok)?;
        watch(&sources::watched(&self.proto_dir, &self.packages));
        let sources = sources::compile(&self.proto_dir, &self.packages)?;
        // Those imported from elsewhere are not in the folders.
        watch(&sources.read);
        let packages = output::generate(&self, &sources)?;
        output::write(&out_dir, &packages, &self.packages)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how cargo talks to build scripts"
)]
fn out_dir_of_cargo() -> Result<PathBuf, Error> {
    std::env::var_os("OUT_DIR")
        .map(PathBuf::from)
        .ok_or(Error::OutDir)
}

#[expect(clippy::print_stdout, reason = "how build scripts talk to cargo")]
fn watch(paths: &[PathBuf]) {
    for path in paths {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}
