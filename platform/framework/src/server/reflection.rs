//! Describes services to whoever asks (`grpc.reflection`, v1 and v1alpha).
//!
//! Files are passed on as they were compiled in, byte by byte: options that are extensions, as rules
//! and HTTP mappings are, reach whoever asks, though this program knows no type for them.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::Uri;
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};
use tonic::{Request, Response, Status, Streaming, server::NamedService};
use tonic_reflection::pb::{
    v1::{
        self, ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
        ServiceResponse, server_reflection_request::MessageRequest as Question,
        server_reflection_response::MessageResponse as Answer,
    },
    v1alpha,
};
use tower::Service;

use crate::status::{self, Refusal};

/// The method of v1.
const V1_PATH: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// What was compiled in cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read the descriptors that are compiled in")]
pub struct Malformed(#[from] prost::DecodeError);

/// Answers for a set of files; clones share it.
#[derive(Debug, Clone)]
pub struct Reflection {
    index: Arc<Index>,
}

/// The files, by what people ask for.
#[derive(Debug, Default)]
struct Index {
    services: Vec<String>,
    files: HashMap<String, Bytes>,
    /// The file of each full name.
    symbols: HashMap<String, String>,
    /// The file of each extension, by the message it extends and its number.
    extensions: HashMap<String, HashMap<i32, String>>,
}

/// A `FileDescriptorSet` whose files are not read.
#[derive(Clone, PartialEq, prost::Message)]
struct Set {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

impl Reflection {
    /// Lists `services`, and describes the files in `sets`, each an encoded `FileDescriptorSet`.
    ///
    /// # Errors
    ///
    /// If one is not that.
    pub fn new<'a>(
        services: impl IntoIterator<Item = String>,
        sets: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, Malformed> {
        let mut index = Index {
            services: services.into_iter().collect(),
            ..Index::default()
        };
        index.services.sort_unstable();
        for set in sets {
            for file in Set::decode(set)?.file {
                index.add(file)?;
            }
        }
        Ok(Self {
            index: Arc::new(index),
        })
    }

    fn answers<R>(
        &self,
        requests: R,
    ) -> impl Stream<Item = Result<v1::ServerReflectionResponse, Status>> + Send + use<R>
    where
        R: Stream<Item = Result<v1::ServerReflectionRequest, Status>> + Send,
    {
        let index = Arc::clone(&self.index);
        requests.map(move |request| {
            let request = request?;
            let answer = index.answer(request.message_request.as_ref());
            Ok(v1::ServerReflectionResponse {
                valid_host: request.host.clone(),
                original_request: Some(request),
                message_response: Some(answer),
            })
        })
    }
}

impl Index {
    fn add(&mut self, encoded: Bytes) -> Result<(), Malformed> {
        let file = FileDescriptorProto::decode(&*encoded)?;
        let name = file.name().to_owned();
        // Sets of several services hold the same imports.
        if self.files.insert(name.clone(), encoded).is_some() {
            return Ok(());
        }
        let mut naming = Naming {
            index: self,
            file: &name,
        };
        let package = file.package();
        for message in &file.message_type {
            naming.message(package, message);
        }
        for one in &file.enum_type {
            naming.enumeration(package, one);
        }
        for extension in &file.extension {
            naming.extension(package, extension);
        }
        for service in &file.service {
            let service_name = naming.name(package, service.name());
            for method in &service.method {
                naming.name(&service_name, method.name());
            }
        }
        Ok(())
    }

    fn answer(&self, question: Option<&Question>) -> Answer {
        let found = match question {
            Some(Question::ListServices(_)) => {
                let names = self.services.iter().cloned();
                let service = names.map(|name| ServiceResponse { name }).collect();
                return Answer::ListServicesResponse(ListServiceResponse { service });
            }
            Some(Question::FileByFilename(name)) => self.files.get(name),
            Some(Question::FileContainingSymbol(symbol)) => self.file(self.symbols.get(symbol)),
            Some(Question::FileContainingExtension(wanted)) => {
                let of_type = self.extensions.get(&wanted.containing_type);
                self.file(of_type.and_then(|it| it.get(&wanted.extension_number)))
            }
            Some(Question::AllExtensionNumbersOfType(name)) => return self.numbers(name),
            None => return refused(&misread("it asks nothing")),
        };
        match found {
            Some(file) => Answer::FileDescriptorResponse(FileDescriptorResponse {
                file_descriptor_proto: vec![file.to_vec()],
            }),
            None => unknown(),
        }
    }

    fn file(&self, name: Option<&String>) -> Option<&Bytes> {
        self.files.get(name?)
    }

    fn numbers(&self, name: &str) -> Answer {
        if !self.symbols.contains_key(name) {
            return unknown();
        }
        let known = self
            .extensions
            .get(name)
            .into_iter()
            .flat_map(HashMap::keys);
        let mut extension_number: Vec<_> = known.copied().collect();
        extension_number.sort_unstable();
        Answer::AllExtensionNumbersResponse(ExtensionNumberResponse {
            base_type_name: name.to_owned(),
            extension_number,
        })
    }
}

fn unknown() -> Answer {
    refused(&Refusal::ServiceUnknown.status("nothing here is called that"))
}

fn refused(status: &Status) -> Answer {
    Answer::ErrorResponse(ErrorResponse {
        error_code: status.code().into(),
        error_message: status.message().to_owned(),
    })
}

fn misread(why: impl Into<String>) -> Status {
    status::invalid_argument([("message_request", why.into())])
}

/// Enters the names of one file.
struct Naming<'a> {
    index: &'a mut Index,
    file: &'a str,
}

impl Naming<'_> {
    /// Enters a name; answers it in full.
    fn name(&mut self, scope: &str, name: &str) -> String {
        let full = if scope.is_empty() {
            name.to_owned()
        } else {
            format!("{scope}.{name}")
        };
        self.index
            .symbols
            .insert(full.clone(), self.file.to_owned());
        full
    }

    fn message(&mut self, scope: &str, message: &DescriptorProto) {
        let name = self.name(scope, message.name());
        for field in &message.field {
            self.name(&name, field.name());
        }
        for oneof in &message.oneof_decl {
            self.name(&name, oneof.name());
        }
        for nested in &message.nested_type {
            self.message(&name, nested);
        }
        for one in &message.enum_type {
            self.enumeration(&name, one);
        }
        for extension in &message.extension {
            self.extension(&name, extension);
        }
    }

    fn enumeration(&mut self, scope: &str, one: &EnumDescriptorProto) {
        self.name(scope, one.name());
        // Values stand beside their type, not in it.
        for value in &one.value {
            self.name(scope, value.name());
        }
    }

    fn extension(&mut self, scope: &str, extension: &prost_types::FieldDescriptorProto) {
        self.name(scope, extension.name());
        let extended = extension.extendee().trim_start_matches('.');
        let numbers = self.index.extensions.entry(extended.to_owned());
        let numbers = numbers.or_default();
        numbers.insert(extension.number(), self.file.to_owned());
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl v1::server_reflection_server::ServerReflection for Reflection {
    type ServerReflectionInfoStream = Answers<v1::ServerReflectionResponse>;

    async fn server_reflection_info(
        &self,
        requests: Request<Streaming<v1::ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let answers = self.answers(requests.into_inner());
        Ok(Response::new(answers.boxed()))
    }
}

/// Serves v1alpha by a server of v1: the two differ in their name alone.
#[derive(Debug, Clone)]
pub struct Alpha<S>(S);

impl<S: NamedService> Alpha<S> {
    /// As `server` answers.
    #[must_use]
    pub fn of(server: S) -> Self {
        Self(server)
    }
}

impl<S> NamedService for Alpha<S> {
    const NAME: &'static str = v1alpha::server_reflection_server::SERVICE_NAME;
}

impl<S, B> Service<http::Request<B>> for Alpha<S>
where
    S: Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        // It has one method, and the router leads no other path here.
        *request.uri_mut() = Uri::from_static(V1_PATH);
        self.0.call(request)
    }
}
