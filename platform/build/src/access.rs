//! Who may call which method, as `gantry.access.v1.access` says it.

use std::collections::HashMap;

use prost_reflect::DescriptorPool;

/// Who may call each method that says so, by its full name: `package.Service.Method`.
pub(crate) type Accesses = HashMap<String, Access>;

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
    let Some(option) = pool.get_extension_by_name("gantry.access.v1.access") else {
        return Accesses::new();
    };
    let methods = pool
        .services()
        .flat_map(|it| it.methods().collect::<Vec<_>>());
    let said = methods.filter_map(|method| {
        let options = method.options();
        let access = match options.get_extension(&option).as_enum_number()? {
            2 => Access::Public,
            3 => Access::Internal,
            _ => Access::Token,
        };
        Some((method.full_name().to_owned(), access))
    });
    said.collect()
}
