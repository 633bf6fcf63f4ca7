//! Who may call which method, as `gantry.access.v1.access` and `gantry.access.v1.role` say it.

use std::{collections::HashMap, path::Path};

use prost_reflect::{DescriptorPool, FileDescriptor, MethodDescriptor};

use crate::rules;

/// Longest name of a role.
const ROLE_BYTES_MAX: usize = 64;

/// Who may call each method that says so, by its full name: `package.Service.Method`.
pub(crate) type Accesses = HashMap<String, Said>;

/// What a method says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Said {
    pub(crate) access: Access,
    /// The role its tokens must carry.
    pub(crate) role: Option<String>,
}

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Access {
    #[default]
    Token,
    Public,
    Internal,
}

/// What the methods in `pool` say; one that says nothing, or nothing known, wants a token.
pub(crate) fn read(pool: &DescriptorPool) -> Accesses {
    let methods = pool
        .services()
        .flat_map(|it| it.methods().collect::<Vec<_>>());
    methods
        .map(|method| (method.full_name().to_owned(), said(&method)))
        .filter(|(_, said)| *said != Said::default())
        .collect()
}

fn said(method: &MethodDescriptor) -> Said {
    let pool = method.parent_pool();
    let options = method.options();
    let value = |name: &str| {
        let option = pool.get_extension_by_name(name)?;
        let value = options.has_extension(&option);
        value.then(|| options.get_extension(&option).into_owned())
    };
    let access = value("gantry.access.v1.access").and_then(|it| it.as_enum_number());
    let role = value("gantry.access.v1.role").and_then(|it| it.as_str().map(str::to_owned));
    let access = match access {
        Some(2) => Access::Public,
        Some(3) => Access::Internal,
        _ => Access::Token,
    };
    Said { access, role }
}

/// Roles in `files` that cannot be asked for, a line for people each: beside an access that wants no
/// token nobody would look at one, and a name that no issuer gives would lock everybody out.
pub(crate) fn faults(files: &[FileDescriptor], root: &Path) -> Vec<String> {
    let services = files.iter().flat_map(FileDescriptor::services);
    let methods = services.flat_map(|it| it.methods().collect::<Vec<_>>());
    let faults = methods.filter_map(|method| {
        let Said { access, role } = said(&method);
        let role = role?;
        let why = match access {
            Access::Public => "is asked of nobody beside ACCESS_PUBLIC; expected ACCESS_TOKEN",
            Access::Internal => "is asked of nobody beside ACCESS_INTERNAL; expected ACCESS_TOKEN",
            Access::Token if !is_role(&role) => {
                "is no role; expected 1 to 64 lower-case letters, digits and dashes"
            }
            Access::Token => return None,
        };
        let file = method.parent_file();
        let line = rules::line(&file, method.path()).unwrap_or(1);
        let place = root.join(file.name());
        let (place, name) = (place.display(), method.full_name());
        Some(format!(
            "{place}:{line}: method {name}: role `{role}` {why}"
        ))
    });
    faults.collect()
}

fn is_role(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=ROLE_BYTES_MAX).contains(&text.len()) && text.bytes().all(word)
}
