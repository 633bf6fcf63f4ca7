//! What generated code promises: the facts of each method, and the rules of each message.
//!
//! `gantry-build` implements [`Server`], [`Client`] and [`Validate`] for what it generates; the
//! rest of the platform works from these facts and never from names.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{DecodeBuf, Decoder},
};

// Generated code names these by way of this module, so that a crate of contracts depends on the
// platform alone and always on the versions that match it.
pub use prost;
pub use prost_types;
pub use tonic;
pub use tonic_prost;

use crate::status;

/// Includes what `gantry-build` generated for this crate, as modules that follow the packages.
#[macro_export]
macro_rules! include_contracts {
    () => {
        include!(concat!(env!("OUT_DIR"), "/contracts.rs"));
    };
}

/// One rpc of a service.
#[derive(Debug, PartialEq, Eq)]
pub struct Method {
    /// The path on the wire: `/package.Service/Method`.
    pub path: &'static str,
    /// Whether the caller sends a stream.
    pub client_streaming: bool,
    /// Whether the server answers with a stream.
    pub server_streaming: bool,
    /// What a second try would do.
    pub idempotency: Idempotency,
}

impl Method {
    /// The full name of the service: `package.Service`.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.split().0
    }

    /// The name of the method within its service.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.split().1
    }

    /// The name by which telemetry and policies know the method: `package.Service/Method`.
    #[must_use]
    pub fn full_name(&self) -> &'static str {
        self.path.strip_prefix('/').unwrap_or(self.path)
    }

    /// Whether it is one request and one answer.
    #[must_use]
    pub fn is_unary(&self) -> bool {
        !self.client_streaming && !self.server_streaming
    }

    fn split(&self) -> (&'static str, &'static str) {
        self.full_name()
            .split_once('/')
            .unwrap_or((self.full_name(), ""))
    }
}

/// What a second try of a call would do (`google.protobuf.MethodOptions.IdempotencyLevel`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Idempotency {
    /// Not said: a second try may do everything again.
    Unknown,
    /// It only reads.
    NoSideEffects,
    /// It has the effect of one try, however often it is tried.
    Idempotent,
}

/// Bounds on single messages, applied to a generated server for one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// Largest message received, in bytes after decompression.
    pub receive_max: usize,
    /// Largest message sent, in bytes before compression.
    pub send_max: usize,
}

/// A generated server.
pub trait Server: Clone + Send + Sync + 'static {
    /// Full name of the service: `package.Service`.
    const NAME: &'static str;
    /// Its methods, in the order of the proto file.
    const METHODS: &'static [Method];
    /// The encoded `FileDescriptorSet` that describes it, imports and options included.
    const DESCRIPTORS: &'static [u8];

    /// The same server with these bounds, and gzip both ways where the caller wants it.
    #[must_use]
    fn with_limits(self, limits: MessageLimits) -> Self;
}

/// A generated client over a channel of type `C`.
pub trait Client<C>: Sized {
    /// Full name of the service: `package.Service`.
    const NAME: &'static str;
    /// Its methods, in the order of the proto file.
    const METHODS: &'static [Method];

    /// A client over `channel`; no I/O.
    fn from_channel(channel: C) -> Self;
}

/// A message with rules, generated from `buf.validate` options.
pub trait Validate {
    /// Adds every broken rule of this message, and of the messages in it, to `violations`.
    fn validate(&self, violations: &mut Violations);
}

/// Every broken rule of one message, in field order.
#[derive(Debug, Default)]
pub struct Violations {
    path: Vec<String>,
    found: Vec<Violation>,
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path to the field from the request: `lines[0].quantity`.
    pub field: String,
    /// What the value must be, as a sentence for the caller.
    pub description: String,
    /// The rule, as `buf.validate` names it: `uint32.gte`.
    pub rule: &'static str,
}

impl Violations {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `field` of the current message breaks `rule`.
    pub fn add(&mut self, field: &str, rule: &'static str, description: impl Into<String>) {
        let mut path = self.path.join(".");
        if !path.is_empty() && !field.is_empty() {
            path.push('.');
        }
        path.push_str(field);
        self.found.push(Violation {
            field: path,
            description: description.into(),
            rule,
        });
    }

    /// Checks a message held by `field` of the current one.
    pub fn within(&mut self, field: &str, message: &impl Validate) {
        self.path.push(field.to_owned());
        message.validate(self);
        self.path.pop();
    }

    /// Checks an element of the repeated or map field `field`.
    pub fn within_element(
        &mut self,
        field: &str,
        key: impl std::fmt::Display,
        message: &impl Validate,
    ) {
        self.within(&format!("{field}[{key}]"), message);
    }

    /// What was found.
    #[must_use]
    pub fn found(&self) -> &[Violation] {
        &self.found
    }
}

/// The codec of generated servers: protobuf, and every decoded message checked by its rules.
///
/// A message that breaks them ends the stream with INVALID_ARGUMENT and all violations, before
/// the handler sees it. Generated clients use `tonic_prost::ProstCodec`: answers are not judged.
#[derive(Debug)]
pub struct Codec<T, U> {
    messages: PhantomData<(T, U)>,
}

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self {
            messages: PhantomData,
        }
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Validate + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <tonic_prost::ProstCodec<T, U> as tonic::codec::Codec>::Encoder;
    type Decoder =
        ValidatingDecoder<<tonic_prost::ProstCodec<T, U> as tonic::codec::Codec>::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        tonic_prost::ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ValidatingDecoder {
            inner: tonic_prost::ProstCodec::<T, U>::default().decoder(),
        }
    }
}

/// Decodes by `D`, then checks.
#[derive(Debug)]
pub struct ValidatingDecoder<D> {
    inner: D,
}

impl<D> Decoder for ValidatingDecoder<D>
where
    D: Decoder<Error = Status>,
    D::Item: Validate,
{
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let Some(message) = self.inner.decode(source)? else {
            return Ok(None);
        };
        let mut violations = Violations::new();
        message.validate(&mut violations);
        if violations.found.is_empty() {
            Ok(Some(message))
        } else {
            Err(status::invalid_argument(
                violations
                    .found
                    .into_iter()
                    .map(|violation| (violation.field, violation.description)),
            ))
        }
    }

    fn buffer_settings(&self) -> tonic::codec::BufferSettings {
        self.inner.buffer_settings()
    }
}
