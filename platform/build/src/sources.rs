//! From files to descriptors: which `.proto` files are meant, and what is in them.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use prost_reflect::{DescriptorPool, FileDescriptor, Kind, MessageDescriptor};
use protox::file::{
    ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
};

use crate::Error;

/// Path by which contracts import the validation options.
pub(crate) const VALIDATE: &str = "buf/validate/validate.proto";

/// Path by which contracts import the option that says who may call a method.
const ACCESS: &str = "gantry/access/v1/access.proto";

/// Contracts of options that come with this crate, by the path they are imported by.
const BUNDLED: [(&str, &str); 4] = [
    (
        VALIDATE,
        include_str!("../../../proto/buf/validate/validate.proto"),
    ),
    (
        ACCESS,
        include_str!("../../../proto/gantry/access/v1/access.proto"),
    ),
    (
        "google/api/annotations.proto",
        include_str!("../../../proto/google/api/annotations.proto"),
    ),
    (
        "google/api/http.proto",
        include_str!("../../../proto/google/api/http.proto"),
    ),
];

/// The compiled files.
pub(crate) struct Sources {
    /// Every file, with all it imports.
    pub(crate) pool: DescriptorPool,
    /// Names of the files that code is generated for, sorted.
    pub(crate) generated: Vec<String>,
    /// The files that were read.
    pub(crate) read: Vec<PathBuf>,
}

/// Compiles the files of `packages`, or every one, below `proto_dir`.
pub(crate) fn compile(proto_dir: &Path, packages: &[String]) -> Result<Sources, Error> {
    let mut names = Vec::new();
    for folder in folders(proto_dir, packages) {
        if folder.exists() {
            find(&folder, proto_dir, &mut names)?;
        }
    }
    names.sort();

    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(proto_dir.to_owned()));
    resolver.add(Bundled);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    for name in &names {
        compiler
            .open_file(name)
            .map_err(|error| fault(proto_dir, &error))?;
    }

    let pool = compiler.descriptor_pool();
    let generated = with_used(&pool, &names);
    let read = compiler.files().filter_map(|file| file.path());
    Ok(Sources {
        read: read.map(Path::to_owned).collect(),
        pool,
        generated,
    })
}

/// What cargo must watch: the folders of `packages`, or the nearest that exists, since cargo takes
/// one that does not for a change at every build.
pub(crate) fn watched(proto_dir: &Path, packages: &[String]) -> Vec<PathBuf> {
    folders(proto_dir, packages)
        .into_iter()
        .map(|folder| {
            let existing = folder.ancestors().find(|path| path.exists());
            existing.unwrap_or(&folder).to_owned()
        })
        .collect()
}

fn folders(proto_dir: &Path, packages: &[String]) -> Vec<PathBuf> {
    if packages.is_empty() {
        return vec![proto_dir.to_owned()];
    }
    packages
        .iter()
        .map(|package| proto_dir.join(package.replace('.', "/")))
        .collect()
}

fn find(folder: &Path, proto_dir: &Path, names: &mut Vec<String>) -> Result<(), Error> {
    let unreadable = |source| Error::Read {
        path: folder.to_owned(),
        source,
    };
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            find(&path, proto_dir, names)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            let name = path.strip_prefix(proto_dir).unwrap_or(&path);
            // Names in descriptors have slashes on every system.
            let parts: Vec<_> = name.iter().map(|part| part.to_string_lossy()).collect();
            names.push(parts.join("/"));
        }
    }
    Ok(())
}

/// `names`, and every file that their messages and services use types of.
fn with_used(pool: &DescriptorPool, names: &[String]) -> Vec<String> {
    // Their code is in prost-types.
    let is_elsewhere = |package: &str| package == "google.protobuf";
    let mut found: HashSet<String> = names.iter().cloned().collect();
    let mut waiting: Vec<String> = names.to_vec();
    while let Some(file) = waiting.pop().and_then(|name| pool.get_file_by_name(&name)) {
        for used in used_by(&file) {
            if !is_elsewhere(used.package_name()) && found.insert(used.name().to_owned()) {
                waiting.push(used.name().to_owned());
            }
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort();
    found
}

fn used_by(file: &FileDescriptor) -> Vec<FileDescriptor> {
    let mut used = Vec::new();
    let mut messages: Vec<MessageDescriptor> = file.messages().collect();
    while let Some(message) = messages.pop() {
        messages.extend(message.child_messages());
        used.extend(message.fields().filter_map(|field| match field.kind() {
            Kind::Message(message) => Some(message.parent_file()),
            Kind::Enum(kind) => Some(kind.parent_file()),
            _ => None,
        }));
    }
    for service in file.services() {
        for method in service.methods() {
            used.push(method.input().parent_file());
            used.push(method.output().parent_file());
        }
    }
    used
}

/// The options of validation, of access and of HTTP, for projects that do not carry the files themselves.
struct Bundled;

impl FileResolver for Bundled {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let bundled = BUNDLED.iter().find(|(path, _)| *path == name);
        match bundled {
            Some((_, source)) => File::from_source(name, source),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// The fault as `path:line:column: what`, where the compiler knows the place.
fn fault(proto_dir: &Path, error: &protox::Error) -> Error {
    // Only its Debug form has the place.
    let text = format!("{error:?}");
    let at_file = error.file().is_some_and(|file| text.starts_with(file));
    Error::Proto(if at_file {
        format!("{}/{text}", proto_dir.display())
    } else {
        text
    })
}

#[cfg(test)]
mod tests;
