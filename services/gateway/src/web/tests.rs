//! Frames of requests, on a paused clock.

use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::time::{self, Instant};
use tonic::Code;

use super::*;
use crate::json::body_tests::{allowance, slow};

const SECOND: Duration = Duration::from_secs(1);

/// What is read of `pieces`, and what is wrong with them.
async fn read(
    pieces: Vec<(Duration, Vec<u8>)>,
    is_text: bool,
    is_single: bool,
    ends: bool,
) -> (Vec<u8>, Option<Status>) {
    let (fault, mut faults) = Faults::channel();
    let mut body = Decoded {
        body: slow(pieces, ends),
        pace: allowance().pace,
        begun: BytesMut::new(),
        framing: Framing::default(),
        is_text,
        is_single,
        fault: Some(fault),
    };
    let mut bytes = Vec::new();
    loop {
        tokio::select! {
            biased;
            failure = faults.next() => return (bytes, Some(*failure.status)),
            frame = body.frame() => match frame {
                None => return (bytes, None),
                Some(frame) => bytes.extend_from_slice(frame.unwrap().data_ref().unwrap()),
            }
        }
    }
}

const MESSAGE: [u8; 7] = [0, 0, 0, 0, 2, 8, 1];

/// Goal: what is wrong with the frames of a request is told as what it is, and nothing of it is handed
/// on.
/// Method: bodies with one fault each.
#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_told() {
    let two = [MESSAGE, MESSAGE].concat();
    let (invalid, unimplemented) = (Code::InvalidArgument, Code::Unimplemented);
    for (what, piece, is_text, code, taken) in [
        ("bad base64", &b"AAA!"[..], true, invalid, 0),
        ("half a group", b"AAAAAA", true, invalid, 3),
        ("two messages", &two, false, unimplemented, 0),
        ("no message", &[], false, unimplemented, 0),
    ] {
        let pieces = vec![(Duration::ZERO, piece.to_vec())];
        let (bytes, status) = read(pieces, is_text, true, true).await;
        assert_eq!(Some(code), status.map(|it| it.code()), "{what}");
        assert_eq!(taken, bytes.len(), "{what}");
    }
    for (piece, is_single) in [(&MESSAGE[..], true), (&two, false), (&[], false)] {
        let pieces = vec![(Duration::ZERO, piece.to_vec())];
        let (bytes, status) = read(pieces, false, is_single, true).await;
        assert_eq!((piece, None), (&*bytes, status.map(|it| it.code())));
    }
}

/// Goal: a stream may rest between its messages, and a request with one message not even then.
/// Method: bodies that stop at one point each; what was taken of them, and when they are refused.
#[tokio::test(start_paused = true)]
async fn what_stalls_is_told() {
    let hour = 3_600 * SECOND;
    let one = vec![(Duration::ZERO, MESSAGE.to_vec())];
    let rests = vec![
        (hour, MESSAGE.to_vec()),
        (hour, MESSAGE.to_vec()),
        (hour, vec![0]),
    ];
    for (what, pieces, is_single, taken, after) in [
        ("nothing", vec![], true, 0, 10 * SECOND),
        ("no end", one, true, 7, 10 * SECOND),
        ("half a message", rests, false, 15, 3 * hour + 10 * SECOND),
    ] {
        let begun = Instant::now();
        let read = read(pieces, false, is_single, false);
        let read = time::timeout(24 * hour, read).await;
        let (bytes, status) = read.unwrap_or_else(|_| panic!("{what}: nothing is told"));
        assert_eq!(Some(Code::DeadlineExceeded), status.map(|it| it.code()));
        assert_eq!((taken, after), (bytes.len(), begun.elapsed()), "{what}");
    }
}
