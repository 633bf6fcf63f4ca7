//! Handlers that panic.

use tokio_stream::StreamExt as _;
use tonic::{Code, Response};

use super::probe::{Messages, Probe, STREAM, Served, UNARY};
use crate::transport::wire::{Reply, Wire, framed};

/// The id that caller and log share.
fn id_of(reply: &Reply) -> String {
    let message = reply.message();
    let id = message.strip_prefix("internal error ").expect("an id");
    assert_eq!(16, id.len());
    id.to_owned()
}

/// Goal: a handler that panics is INTERNAL with an id of its own, without what it said, and the
/// connection serves the next call.
/// Method: panic, panic, then answer, all on one connection.
#[tokio::test]
async fn a_panic_is_internal_and_the_process_lives() {
    let served = Served::probe(Probe::unary(|request| async move {
        assert_ne!(b"secret", &request.get_ref()[..], "secret");
        Ok(Response::new(request.into_inner()))
    }));
    let wire = Wire::over(served.connector.connect().await.unwrap()).await;

    let first = wire.call(Wire::request(UNARY), b"secret").await.unwrap();
    let second = wire.call(Wire::request(UNARY), b"secret").await.unwrap();
    assert_eq!(Some(Code::Internal), first.code());
    assert_ne!(id_of(&first), id_of(&second));
    assert!(!format!("{first:?}").contains("secret"));

    let third = wire.call(Wire::request(UNARY), b"fine").await.unwrap();
    assert_eq!(Some(Code::Ok), third.code());
}

/// Goal: a panic after the first message ends the stream with INTERNAL.
/// Method: a stream of one message and a panic.
#[tokio::test]
async fn a_panic_within_a_stream_ends_it() {
    let served = Served::probe(Probe::stream(|_| async {
        let messages = tokio_stream::iter([1, 2]).then(|number| async move {
            // A wait between them, so that the first is on its way before the second panics.
            tokio::task::yield_now().await;
            assert_eq!(1, number, "the second message");
            Ok(b"one".to_vec())
        });
        let messages: Messages = Box::pin(messages);
        Ok(Response::new(messages))
    }));
    let wire = Wire::over(served.connector.connect().await.unwrap()).await;
    let sent = wire.send(Wire::request(STREAM)).await.unwrap();
    let reply = sent.reply().await.unwrap();
    assert_eq!(framed(b"one"), reply.data);
    assert_eq!(Some(Code::Internal), reply.code());
    id_of(&reply);
}
