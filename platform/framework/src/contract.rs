//! What generated code promises: the facts of each method, and the rules of each message.
//!
//! `gantry-build` implements [`Server`], [`Client`] and [`Validate`] for what it generates; the
//! rest of the platform works from these facts and never from names.

pub mod check;
mod pattern;
mod violations;

use std::marker::PhantomData;

use prost::Message;
use prost_types::method_options::IdempotencyLevel;
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

pub use self::pattern::{NoPattern, Pattern, Patterns};
pub use self::violations::{At, Validate, Violation, Violations};
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
    /// Who may call it.
    pub access: Access,
    /// The role that the token of a call must carry (`gantry.access.v1.role`). Where there is one a
    /// token is wanted, whatever `access` says.
    pub role: Option<&'static str>,
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

    /// Whether it belongs to a service by which others see how a process is: gRPC's own (health,
    /// reflection) or the platform's. What is done to the calls of a service is not done to these.
    #[must_use]
    pub fn is_for_operation(&self) -> bool {
        let service = self.service();
        service.starts_with("grpc.") || service.starts_with("gantry.")
    }

    /// Whether a call must say who makes it.
    #[must_use]
    pub fn wants_token(&self) -> bool {
        self.access == Access::Token || self.role.is_some()
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

impl Idempotency {
    /// What the options of a described method say.
    #[must_use]
    pub fn of(options: Option<&prost_types::MethodOptions>) -> Self {
        match options.map(prost_types::MethodOptions::idempotency_level) {
            Some(IdempotencyLevel::NoSideEffects) => Self::NoSideEffects,
            Some(IdempotencyLevel::Idempotent) => Self::Idempotent,
            Some(IdempotencyLevel::IdempotencyUnknown) | None => Self::Unknown,
        }
    }
}

/// Who may call a method (`gantry.access.v1.Access`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Whoever shows a valid token. So it is where nothing is said.
    Token,
    /// Anyone.
    Public,
    /// Services of the system, on their own ports; refused at the edge.
    Internal,
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

/// The codec of generated servers: protobuf, and every decoded message checked by its rules.
///
/// A message that breaks them ends the stream with `INVALID_ARGUMENT` and all violations, before
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
        if violations.is_empty() {
            Ok(Some(message))
        } else {
            Err(status::invalid_argument(
                violations
                    .into_found()
                    .into_iter()
                    .map(|violation| (violation.field, violation.description)),
            ))
        }
    }

    fn buffer_settings(&self) -> tonic::codec::BufferSettings {
        self.inner.buffer_settings()
    }
}
