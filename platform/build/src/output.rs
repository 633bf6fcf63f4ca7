//! The Rust files: one per package, its descriptors beside it, and one that includes them all.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use prost_build::Module;
use prost_reflect::FileDescriptor;

use crate::{
    Builder, Error, access, descriptors,
    rules::{self, Rules},
    services::Services,
    sources::Sources,
};

/// Name of the file that includes all others.
const INCLUDES: &str = "contracts.rs";

/// Generated code answers to its generator, not to the lints of the crate it is in.
const ALLOWED: &str = "#[allow(clippy::all, clippy::pedantic, clippy::nursery, missing_docs, \
    missing_debug_implementations, unreachable_pub, unused_qualifications, rustdoc::all)]";

/// What becomes of one protobuf package.
pub(crate) struct Package {
    module: Module,
    code: String,
    descriptors: Vec<u8>,
}

/// Generates the code of every package in `sources`.
pub(crate) fn generate(builder: &Builder, sources: &Sources) -> Result<Vec<Package>, Error> {
    let mut files: BTreeMap<Module, Vec<FileDescriptor>> = BTreeMap::new();
    for name in &sources.generated {
        let file = sources
            .pool
            .get_file_by_name(name)
            .expect("names of generated files come from the pool");
        let module = Module::from_protobuf_package_name(file.package_name());
        files.entry(module).or_default().push(file);
    }

    // prost wants to see every file, to know which types can be compared and hashed.
    let requests = sources.pool.files().map(|file| {
        let module = Module::from_protobuf_package_name(file.package_name());
        (module, file.file_descriptor_proto().clone())
    });
    let mut modules = configuration(builder, sources)
        .generate(requests.collect())
        .map_err(|source| Error::Generate { source })?;

    let rules = builder.runtime.as_ref().map(|runtime| {
        let runtime = runtime.parse().expect("the path of the runtime is Rust");
        Rules::new(&sources.pool, &builder.proto_dir, runtime)
    });
    let mut packages = Vec::new();
    let mut faults = Vec::new();
    for (module, files) in files {
        faults.extend(access::faults(&files, &builder.proto_dir));
        // Absent where the files declare nothing but options.
        let Some(mut code) = modules.remove(&module) else {
            continue;
        };
        code.push_str(&descriptors_item(&module));
        match &rules {
            Some(rules) => code.push_str(&validation(rules, &files)?),
            None => faults.extend(rules::unchecked(&files, &builder.proto_dir)),
        }
        packages.push(Package {
            code,
            descriptors: descriptors::encode(&files),
            module,
        });
    }
    faults.extend(rules.map(Rules::into_faults).unwrap_or_default());
    if faults.is_empty() {
        Ok(packages)
    } else {
        Err(Error::Rules { faults })
    }
}

fn configuration(builder: &Builder, sources: &Sources) -> prost_build::Config {
    let services = Services::new(builder.runtime.clone(), access::read(&sources.pool));
    let mut config = prost_build::Config::new();
    config
        .disable_comments([".google"])
        .enable_type_names()
        .service_generator(Box::new(services));
    if let Some(runtime) = &builder.runtime {
        config
            .prost_path(format!("{runtime}::prost"))
            .prost_types_path(format!("{runtime}::prost_types"));
    }
    config
}

fn descriptors_item(module: &Module) -> String {
    format!(
        "/// The encoded `FileDescriptorSet` of this package and of all it imports.\n\
         pub const DESCRIPTORS: &[u8] = include_bytes!(\"{}\");\n",
        descriptors_file(module)
    )
}

fn validation(rules: &Rules<'_>, files: &[FileDescriptor]) -> Result<String, Error> {
    let tokens = rules.implementations(files);
    let file = syn::parse2(tokens).map_err(|source| Error::Syntax {
        package: files
            .first()
            .map_or("", FileDescriptor::package_name)
            .to_owned(),
        source,
    })?;
    Ok(prettyplease::unparse(&file))
}

fn code_file(module: &Module) -> String {
    module.to_file_name_or("_")
}

fn descriptors_file(module: &Module) -> String {
    format!("{}.bin", code_file(module))
}

/// Writes the files of `packages` into `folder`; `selected` names packages that get a module even
/// when there is nothing in them yet.
pub(crate) fn write(folder: &Path, packages: &[Package], selected: &[String]) -> Result<(), Error> {
    for package in packages {
        let code = code_file(&package.module);
        write_file(&folder.join(code), package.code.as_bytes())?;
        let descriptors = descriptors_file(&package.module);
        write_file(&folder.join(descriptors), &package.descriptors)?;
    }

    let mut tree = Tree::default();
    for name in selected {
        tree.at(&Module::from_protobuf_package_name(name));
    }
    for package in packages {
        tree.at(&package.module).file = Some(code_file(&package.module));
    }
    let mut includes = String::from("// This file is @generated by gantry-build.\n");
    tree.print(&mut includes, 0);
    write_file(&folder.join(INCLUDES), includes.as_bytes())
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), Error> {
    fs::write(path, content).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

/// Modules as they nest.
#[derive(Default)]
struct Tree {
    file: Option<String>,
    children: BTreeMap<String, Tree>,
}

impl Tree {
    fn at(&mut self, module: &Module) -> &mut Self {
        module.parts().fold(self, |tree, part| {
            tree.children.entry(part.to_owned()).or_default()
        })
    }

    fn print(&self, text: &mut String, depth: usize) {
        let indent = "    ".repeat(depth);
        if let Some(file) = &self.file {
            let _ = writeln!(text, "{indent}include!(\"{file}\");");
        }
        for (name, child) in &self.children {
            if depth == 0 {
                let _ = writeln!(text, "{ALLOWED}");
            }
            let _ = writeln!(text, "{indent}pub mod {name} {{");
            child.print(text, depth + 1);
            let _ = writeln!(text, "{indent}}}");
        }
    }
}
