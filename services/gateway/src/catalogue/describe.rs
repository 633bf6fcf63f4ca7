//! What a service says of itself, read.

use std::{collections::BTreeMap, sync::Arc};

use gantry::contract::{Access, Idempotency};
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_reflect::{DescriptorPool, MethodDescriptor};

use super::rule::Bindings;

/// Methods of one service that are described; a service with more is none.
const METHODS_MAX: usize = 1_000;

/// A service that described itself.
#[derive(Debug)]
pub struct Service {
    /// Its methods by name.
    pub methods: BTreeMap<String, Arc<Method>>,
    /// Its ways in HTTP.
    pub bindings: Bindings,
    /// Its files, comments where it has them.
    pub pool: DescriptorPool,
}

/// A method that can be called.
#[derive(Debug)]
pub struct Method {
    /// What it takes and gives.
    pub descriptor: MethodDescriptor,
    /// Where it is called.
    pub path: PathAndQuery,
    /// Who may call it.
    pub access: Access,
    /// The role that tokens must carry.
    pub role: Option<Box<str>>,
}

impl Method {
    /// What a second try would do; one without side effects may be a GET.
    #[must_use]
    pub fn idempotency(&self) -> Idempotency {
        Idempotency::of(self.descriptor.method_descriptor_proto().options.as_ref())
    }

    /// Whether it takes one message and gives one.
    #[must_use]
    pub fn is_unary(&self) -> bool {
        !self.descriptor.is_client_streaming() && !self.descriptor.is_server_streaming()
    }
}

/// Who may call the method, as its option says; one that says nothing known wants a token.
fn access(descriptor: &MethodDescriptor) -> Access {
    const PUBLIC: i32 = 2;
    const INTERNAL: i32 = 3;
    let pool = descriptor.parent_pool();
    let Some(option) = pool.get_extension_by_name("gantry.access.v1.access") else {
        return Access::Token;
    };
    let options = descriptor.options();
    match options.get_extension(&option).as_enum_number() {
        Some(PUBLIC) => Access::Public,
        Some(INTERNAL) => Access::Internal,
        _ => Access::Token,
    }
}

/// The role that the option of the method says; one that no token can carry is one all the same, and
/// nobody may call the method.
fn role(descriptor: &MethodDescriptor) -> Option<Box<str>> {
    let pool = descriptor.parent_pool();
    let option = pool.get_extension_by_name("gantry.access.v1.role")?;
    let options = descriptor.options();
    if !options.has_extension(&option) {
        return None;
    }
    let role = options.get_extension(&option);
    Some(role.as_str().unwrap_or_default().into())
}

/// A set of files that are encoded already.
#[derive(Clone, PartialEq, prost::Message)]
struct Encoded {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

impl Service {
    /// Reads what `files` say of the service `name`.
    ///
    /// # Errors
    ///
    /// If they do not belong together, or say nothing of it.
    pub fn read(name: &str, file: Vec<Vec<u8>>) -> Result<Self, String> {
        let set = Encoded { file }.encode_to_vec();
        let pool = DescriptorPool::decode(set.as_slice())
            .map_err(|error| format!("its files do not belong together: {error}"))?;
        let service = pool
            .get_service_by_name(name)
            .ok_or("its files do not describe it")?;
        if service.methods().len() > METHODS_MAX {
            return Err(format!("it has more than {METHODS_MAX} methods"));
        }
        let mut methods = BTreeMap::new();
        let mut bindings = Bindings::default();
        for descriptor in service.methods() {
            let path = format!("/{name}/{}", descriptor.name());
            let path = PathAndQuery::try_from(path)
                .map_err(|_| format!("`{}` is no name of a method", descriptor.name()))?;
            let name = descriptor.name().to_owned();
            let role = role(&descriptor);
            let access = match access(&descriptor) {
                // A contradiction, which must not let anybody in.
                Access::Public if role.is_some() => Access::Token,
                access => access,
            };
            let method = Arc::new(Method {
                descriptor,
                path,
                access,
                role,
            });
            bindings.read(&method);
            methods.insert(name, method);
        }
        Ok(Self {
            methods,
            bindings,
            pool,
        })
    }
}
