//! Services as tonic generates them, and what the platform wants to know of each.

use proc_macro2::TokenStream;
use prost_build::{Method, Service, ServiceGenerator};
use prost_types::method_options::IdempotencyLevel;
use quote::{format_ident, quote};
use tonic_build::CodeGenBuilder;

use crate::access::{Access, Accesses, Said};

/// Generates the code of services; with a runtime also the facts about them.
#[derive(Debug)]
pub(crate) struct Services {
    runtime: Option<String>,
    accesses: Accesses,
}

impl Services {
    /// For code that names `runtime`, or tonic and prost alone.
    pub(crate) fn new(runtime: Option<String>, accesses: Accesses) -> Self {
        Self { runtime, accesses }
    }

    fn tokens(&self, service: &Service) -> TokenStream {
        let generator = {
            let mut generator = CodeGenBuilder::new();
            // tonic's own connect functions would need its transport; channels come from elsewhere.
            generator.emit_package(true).build_transport(false);
            generator
        };
        let codec = self.runtime.as_ref().map_or_else(
            || "tonic_prost::ProstCodec".to_owned(),
            |runtime| format!("{runtime}::tonic_prost::ProstCodec"),
        );
        let validating = self
            .runtime
            .as_ref()
            .map_or_else(|| codec.clone(), |runtime| format!("{runtime}::Codec"));

        let mut tokens = generator.generate_client(&Described::new(service, &codec), "super");
        tokens.extend(generator.generate_server(&Described::new(service, &validating), "super"));
        if let Some(runtime) = &self.runtime {
            let runtime = path(runtime);
            tokens = naming_tonic(tokens, &runtime);
            tokens.extend(methods(service, &self.accesses, &runtime));
            tokens.extend(server(service, &runtime));
            tokens.extend(client(service, &runtime));
        }
        tokens
    }
}

impl ServiceGenerator for Services {
    fn generate(&mut self, service: Service, buf: &mut String) {
        let file = syn::parse2(self.tokens(&service)).expect("tonic-build generates Rust");
        buf.push_str(&prettyplease::unparse(&file));
    }
}

/// `path` as tokens.
fn path(path: &str) -> TokenStream {
    path.parse().expect("the path of the runtime is Rust")
}

/// Lets each module of `tokens` know the runtime's tonic by its name, so that the crate they are
/// in needs no tonic of its own.
fn naming_tonic(tokens: TokenStream, runtime: &TokenStream) -> TokenStream {
    let mut file: syn::File = syn::parse2(tokens).expect("tonic-build generates Rust");
    for item in &mut file.items {
        if let syn::Item::Mod(module) = item
            && let Some((_, items)) = &mut module.content
        {
            items.insert(0, syn::parse_quote!(use #runtime::tonic;));
        }
    }
    quote!(#file)
}

fn full_name(service: &Service) -> String {
    if service.package.is_empty() {
        service.proto_name.clone()
    } else {
        format!("{}.{}", service.package, service.proto_name)
    }
}

fn methods_ident(service: &Service) -> proc_macro2::Ident {
    use heck::ToShoutySnakeCase as _;
    format_ident!("{}_METHODS", service.name.to_shouty_snake_case())
}

fn methods(service: &Service, accesses: &Accesses, runtime: &TokenStream) -> TokenStream {
    let ident = methods_ident(service);
    let name = full_name(service);
    let documentation = format!(" The methods of `{name}`, in the order of its file.");
    let count = service.methods.len();
    let methods = service.methods.iter().map(|method| {
        let path = format!("/{name}/{}", method.proto_name);
        let client_streaming = method.client_streaming;
        let server_streaming = method.server_streaming;
        let idempotency = match method.options.idempotency_level() {
            IdempotencyLevel::IdempotencyUnknown => quote!(Unknown),
            IdempotencyLevel::NoSideEffects => quote!(NoSideEffects),
            IdempotencyLevel::Idempotent => quote!(Idempotent),
        };
        let full_name = format!("{name}.{}", method.proto_name);
        let Said { access, role } = accesses.get(&full_name).cloned().unwrap_or_default();
        let role = role.map_or_else(|| quote!(None), |role| quote!(Some(#role)));
        let access = match access {
            Access::Token => quote!(Token),
            Access::Public => quote!(Public),
            Access::Internal => quote!(Internal),
        };
        quote! {
            #runtime::Method {
                path: #path,
                client_streaming: #client_streaming,
                server_streaming: #server_streaming,
                idempotency: #runtime::Idempotency::#idempotency,
                access: #runtime::Access::#access,
                role: #role,
            }
        }
    });
    quote! {
        #[doc = #documentation]
        pub static #ident: [#runtime::Method; #count] = [#(#methods),*];
    }
}

/// The module of the server or client, as tonic names it.
fn module(service: &Service, kind: &str) -> proc_macro2::Ident {
    let mut snake = String::new();
    for (at, letter) in service.name.char_indices() {
        if at > 0 && letter.is_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    format_ident!("{snake}_{kind}")
}

fn server(service: &Service, runtime: &TokenStream) -> TokenStream {
    let module = module(service, "server");
    let handler = format_ident!("{}", service.name);
    let server = format_ident!("{}Server", service.name);
    let name = full_name(service);
    let methods = methods_ident(service);
    quote! {
        impl<T: #module::#handler> #runtime::Server for #module::#server<T> {
            const NAME: &'static str = #name;
            const METHODS: &'static [#runtime::Method] = &#methods;
            const DESCRIPTORS: &'static [u8] = DESCRIPTORS;

            fn with_limits(self, limits: #runtime::MessageLimits) -> Self {
                self.max_decoding_message_size(limits.receive_max)
                    .max_encoding_message_size(limits.send_max)
                    .accept_compressed(#runtime::tonic::codec::CompressionEncoding::Gzip)
                    .send_compressed(#runtime::tonic::codec::CompressionEncoding::Gzip)
            }
        }
    }
}

fn client(service: &Service, runtime: &TokenStream) -> TokenStream {
    let module = module(service, "client");
    let client = format_ident!("{}Client", service.name);
    let name = full_name(service);
    let methods = methods_ident(service);
    quote! {
        impl<C> #runtime::Client<C> for #module::#client<C>
        where
            C: #runtime::tonic::client::GrpcService<#runtime::tonic::body::Body>,
            C::Error: Into<#runtime::tonic::codegen::StdError>,
            C::ResponseBody: #runtime::tonic::codegen::Body<Data = #runtime::tonic::codegen::Bytes>
                + Send
                + 'static,
            <C::ResponseBody as #runtime::tonic::codegen::Body>::Error:
                Into<#runtime::tonic::codegen::StdError> + Send,
        {
            const NAME: &'static str = #name;
            const METHODS: &'static [#runtime::Method] = &#methods;

            fn from_channel(channel: C) -> Self {
                Self::new(channel)
            }
        }
    }
}

/// A service as tonic-build asks about it.
struct Described<'a> {
    service: &'a Service,
    methods: Vec<DescribedMethod>,
}

struct DescribedMethod {
    method: Method,
    codec: String,
}

impl<'a> Described<'a> {
    fn new(service: &'a Service, codec: &str) -> Self {
        let methods = service.methods.iter().map(|method| DescribedMethod {
            method: method.clone(),
            codec: codec.to_owned(),
        });
        Self {
            service,
            methods: methods.collect(),
        }
    }
}

impl tonic_build::Service for Described<'_> {
    type Comment = String;
    type Method = DescribedMethod;

    fn name(&self) -> &str {
        &self.service.name
    }

    fn package(&self) -> &str {
        &self.service.package
    }

    fn identifier(&self) -> &str {
        &self.service.proto_name
    }

    fn methods(&self) -> &[Self::Method] {
        &self.methods
    }

    fn comment(&self) -> &[Self::Comment] {
        &self.service.comments.leading
    }
}

impl tonic_build::Method for DescribedMethod {
    type Comment = String;

    fn name(&self) -> &str {
        &self.method.name
    }

    fn identifier(&self) -> &str {
        &self.method.proto_name
    }

    fn codec_path(&self) -> &str {
        &self.codec
    }

    fn client_streaming(&self) -> bool {
        self.method.client_streaming
    }

    fn server_streaming(&self) -> bool {
        self.method.server_streaming
    }

    fn comment(&self) -> &[Self::Comment] {
        &self.method.comments.leading
    }

    fn deprecated(&self) -> bool {
        self.method.options.deprecated()
    }

    fn request_response_name(&self, parent: &str, _: bool) -> (TokenStream, TokenStream) {
        (
            within(parent, &self.method.input_type),
            within(parent, &self.method.output_type),
        )
    }
}

/// A type as prost names it in the package, named from the module `parent` leads out of.
fn within(parent: &str, name: &str) -> TokenStream {
    // Well-known types become `()` and the like, or absolute paths.
    const OF_RUST: [&str; 9] = [
        "()", "bool", "f32", "f64", "i32", "i64", "u32", "u64", "String",
    ];
    if name.starts_with("::") || OF_RUST.contains(&name) {
        path(name)
    } else {
        path(&format!("{parent}::{name}"))
    }
}
