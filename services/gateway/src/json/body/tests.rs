//! Bodies that come slowly, on a paused clock.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use gantry::{config::Live, limit::rate::Limiter};
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::time::{self, Instant};

use super::*;
use crate::{config::Http, json::Bodies};

/// Pieces of a body, each after a pause; then it ends, or goes on for ever without a byte.
pub(crate) fn slow(pieces: Vec<(Duration, Vec<u8>)>, ends: bool) -> Incoming {
    let pieces = stream::iter(pieces).then(async |(pause, piece)| {
        time::sleep(pause).await;
        Ok::<_, BoxError>(Frame::data(Bytes::from(piece)))
    });
    let rest = async move {
        if !ends {
            future::pending::<()>().await;
        }
    };
    let rest = stream::once(rest).filter_map(async |()| None);
    StreamBody::new(pieces.chain(rest)).boxed_unsync()
}

/// What a body may where nothing is set.
pub(crate) fn allowance() -> Allowance {
    bodies().1
}

/// The same, with what counts it.
pub(crate) fn bodies() -> (Bodies, Allowance) {
    let bodies = Bodies::new(Live::fixed(Http::default()), Limiter::default());
    let allowance = bodies.allow(&Request::new(()).into_parts().0);
    (bodies, allowance)
}

const SECOND: Duration = Duration::from_secs(1);

/// Goal: whoever sends nothing, or a byte now and then, is refused after ten seconds, and whoever goes
/// on for longer than a call may take after that; who brings enough is read to the end.
/// Method: bodies by their pauses and pieces, each with the second of its end.
#[tokio::test(start_paused = true)]
async fn a_body_must_come_on() {
    let drip = vec![(3 * SECOND, vec![b' ']); 100];
    let enough = vec![(8 * SECOND, vec![b' '; 1_024]); 2];
    let never = vec![(9 * SECOND, vec![b' '; 1_024]); 100];
    for (what, pieces, ends, seconds, fine) in [
        ("nothing", vec![], false, 10, false),
        ("a beginning", vec![(SECOND, vec![b'{'])], false, 10, false),
        ("drips", drip, true, 10, false),
        ("enough", enough, true, 16, true),
        ("no end", never, true, 18, false),
        (
            "no end in sight",
            vec![(Duration::ZERO, vec![b' '; 1_024])],
            false,
            10,
            false,
        ),
    ] {
        let begun = Instant::now();
        let read = whole(&HeaderMap::new(), slow(pieces, ends), allowance()).await;
        assert_eq!(seconds, begun.elapsed().as_secs(), "{what}");
        assert_eq!(fine, read.is_ok(), "{what}");
        if let Err(failure) = read {
            assert_eq!(StatusCode::REQUEST_TIMEOUT, failure.http, "{what}");
            assert_eq!(tonic::Code::DeadlineExceeded, failure.status.code());
        }
    }
}

/// Goal: a stream of messages may rest between them, and not inside of one.
/// Method: lines an hour apart, then half a line.
#[tokio::test(start_paused = true)]
async fn a_stream_rests_between_its_lines_alone() {
    let file = prost_reflect::DescriptorPool::decode(tonic_types::pb::FILE_DESCRIPTOR_SET).unwrap();
    let descriptor = file.get_message_by_name("google.rpc.Status").unwrap();
    let line = b"{\"code\": 1}\n".to_vec();
    let hour = 3_600 * SECOND;
    let pieces = vec![
        (hour, line.clone()),
        (hour, line),
        (hour, b"{\"co".to_vec()),
    ];
    let Requests {
        messages,
        mut faults,
        ..
    } = Requests::lines(slow(pieces, false), allowance(), descriptor);
    let begun = Instant::now();
    let mut messages = messages.into_stream();
    let failure = {
        let mut read = 0;
        loop {
            tokio::select! {
                biased;
                failure = faults.next() => break failure,
                () = time::sleep(24 * hour) => panic!("nothing is told"),
                message = messages.next() => { message.unwrap(); read += 1 }
            }
            assert!(read <= 2);
        }
    };
    assert_eq!(StatusCode::REQUEST_TIMEOUT, failure.http, "{failure:?}");
    assert_eq!(3 * hour + 10 * SECOND, begun.elapsed());
}
