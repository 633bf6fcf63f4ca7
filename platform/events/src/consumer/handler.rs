//! What a service writes: a handler for each type of event it wants.

use std::{fmt, future::Future, marker::PhantomData, ops::Deref, pin::Pin, sync::Arc};

use bytes::Bytes;
use gantry::{
    BoxError,
    contract::{
        prost::{self, DecodeError},
        tonic::Status,
    },
};
use gantry_store::{Timestamp, Transaction};

use super::facts::Facts;

/// A type of events: a message of a contract.
pub trait Event: prost::Message + prost::Name + Default + Send + Sync + 'static {}

impl<E: prost::Message + prost::Name + Default + Send + Sync + 'static> Event for E {}

/// Does what follows from events of one type.
///
/// What it writes through `transaction` is kept together with the note that the event is done, or not
/// at all: once for each event, however often it comes. What it does beside that (calls, files) happens
/// again with each attempt. It may be dropped at any await, and at the latest when its time is up.
///
/// Events of one key are handled one after the other, those of other keys meanwhile. The transaction
/// begins with its first statement: until then it has no connection. From then on it has one, and on
/// SQLite keeps all others from writing: what takes long comes before.
///
/// An async function is one where it needs nothing else:
///
/// ```
/// use gantry_events::{Event, Failure, Received};
/// use gantry_store::{Statement, Transaction};
///
/// const COUNT: Statement = Statement::new("tally.count", "UPDATE tally SET events = events + 1");
///
/// async fn count<E: Event>(_: &Received<E>, transaction: &mut Transaction) -> Result<(), Failure> {
///     transaction.statement(&COUNT).execute().await?;
///     Ok(())
/// }
/// ```
pub trait Handle<E: Event>: Send + Sync + 'static {
    /// Handles one event.
    ///
    /// # Errors
    ///
    /// If it could not: nothing of `transaction` is kept. It says whether to try again.
    fn handle(
        &self,
        event: &Received<E>,
        transaction: &mut Transaction,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// An async function that handles events, with nothing of its own.
///
/// Every `async fn(&Received<E>, &mut Transaction) -> Result<(), Failure>` whose future is `Send` is one, and so
/// a [`Handle`].
pub trait HandleFn<'a, E: Event>: Send + Sync + 'static {
    /// Its work.
    type Handling: Future<Output = Result<(), Failure>> + Send + 'a;

    /// Calls it.
    fn call(&self, event: &'a Received<E>, transaction: &'a mut Transaction) -> Self::Handling;
}

impl<'a, E, F, Handling> HandleFn<'a, E> for F
where
    E: Event,
    F: Fn(&'a Received<E>, &'a mut Transaction) -> Handling + Send + Sync + 'static,
    Handling: Future<Output = Result<(), Failure>> + Send + 'a,
{
    type Handling = Handling;

    fn call(&self, event: &'a Received<E>, transaction: &'a mut Transaction) -> Handling {
        self(event, transaction)
    }
}

impl<E: Event, F: for<'a> HandleFn<'a, E>> Handle<E> for F {
    async fn handle(
        &self,
        event: &Received<E>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        self.call(event, transaction).await
    }
}

/// Why an event was not handled.
#[derive(Debug)]
pub enum Failure {
    /// It may go well another time: shortly, then later, until its attempts are used up.
    Retry(BoxError),
    /// It never will: the event becomes a dead letter at once.
    Reject(BoxError),
}

impl Failure {
    /// What may go well another time.
    pub fn retry(source: impl Into<BoxError>) -> Self {
        Self::Retry(source.into())
    }

    /// What never will.
    pub fn reject(source: impl Into<BoxError>) -> Self {
        Self::Reject(source.into())
    }
}

/// While the database is away or full, or too busy to begin a transaction, an attempt does not count.
impl From<gantry_store::Error> for Failure {
    fn from(error: gantry_store::Error) -> Self {
        Self::Retry(error.into())
    }
}

/// Whatever a call ended with, it is tried again.
impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Retry(status.into())
    }
}

/// How often an event was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// This attempt, from 1.
    pub attempt: u32,
    /// After how many failed ones the event becomes a dead letter.
    pub attempts_max: u32,
    /// Whether none follows.
    pub is_last: bool,
    /// When the event was first taken up here.
    pub first_seen: Timestamp,
}

impl Attempt {
    pub(super) fn new(made: u32, attempts_max: u32, first_seen: Timestamp) -> Self {
        let attempt = made.saturating_add(1);
        Self {
            attempt,
            attempts_max,
            is_last: attempt >= attempts_max,
            first_seen,
        }
    }
}

/// An event that has come.
pub struct Received<E> {
    event: E,
    facts: Arc<Facts>,
    attempt: Attempt,
}

impl<E> Received<E> {
    /// Its identity: the same however often it comes.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.facts.id
    }

    /// What it is about; events of one key come in their order.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.facts.lane.key
    }

    /// Which service told of it, as in `/orders`.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.facts.lane.source
    }

    /// Its place among all events of its source and key, from 1; types that nobody here wants count
    /// too. None where whoever published it does not count.
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        self.facts.sequence
    }

    /// How often it was tried.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }
}

impl<E> Deref for Received<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.event
    }
}

// Neither the event nor its key: they are people's.
impl<E> fmt::Debug for Received<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("id", &self.facts.id)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// Handles events of a type that is not known any more.
pub(super) trait Decode: Send + Sync {
    /// The event in `body`, ready to be handled.
    fn decode(&self, facts: Arc<Facts>, body: Bytes) -> Result<Box<dyn Ready>, DecodeError>;
}

/// The work of a handler.
pub(super) type Handling<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

/// An event with its handler.
pub(super) trait Ready: Send {
    /// Has it handled.
    fn handle<'a>(&'a mut self, attempt: Attempt, transaction: &'a mut Transaction)
    -> Handling<'a>;
}

/// A handler of `E`.
pub(super) struct Typed<E, H> {
    handler: Arc<H>,
    event: PhantomData<fn() -> E>,
}

impl<E, H> Typed<E, H> {
    pub(super) fn new(handler: H) -> Self {
        Self {
            handler: Arc::new(handler),
            event: PhantomData,
        }
    }
}

impl<E: Event, H: Handle<E>> Decode for Typed<E, H> {
    fn decode(&self, facts: Arc<Facts>, body: Bytes) -> Result<Box<dyn Ready>, DecodeError> {
        let event = E::decode(body)?;
        let attempt = Attempt::new(0, 1, facts.first_seen);
        Ok(Box::new(Decoded {
            handler: Arc::clone(&self.handler),
            received: Received {
                event,
                facts,
                attempt,
            },
        }))
    }
}

struct Decoded<E, H> {
    handler: Arc<H>,
    received: Received<E>,
}

impl<E: Event, H: Handle<E>> Ready for Decoded<E, H> {
    fn handle<'a>(
        &'a mut self,
        attempt: Attempt,
        transaction: &'a mut Transaction,
    ) -> Handling<'a> {
        self.received.attempt = attempt;
        // In a block of its own, so that a handler that panics before its first await does so where
        // it is caught.
        Box::pin(async move { self.handler.handle(&self.received, transaction).await })
    }
}
