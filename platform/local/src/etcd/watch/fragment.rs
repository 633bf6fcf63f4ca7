//! One answer in several messages, for callers that bound what they receive.

use etcd_client::proto::PbWatchResponse;
use prost::Message as _;

use crate::etcd::grpc::MESSAGE_MAX;

/// Cuts `response` into messages of at most [`MESSAGE_MAX`] bytes; an event is never cut.
pub(super) fn fragments(response: PbWatchResponse) -> Vec<PbWatchResponse> {
    if response.encoded_len() < MESSAGE_MAX || response.events.len() < 2 {
        return vec![response];
    }
    cut(response, MESSAGE_MAX)
}

fn cut(mut response: PbWatchResponse, message_max: usize) -> Vec<PbWatchResponse> {
    let events = std::mem::take(&mut response.events);
    let empty = PbWatchResponse {
        fragment: true,
        ..response
    };
    let around = empty.encoded_len();
    let mut pieces = Vec::new();
    let mut piece = empty.clone();
    let mut size = around;
    for event in events {
        // Its own bytes, its tag and its length.
        let more = event.encoded_len() + 6;
        if !piece.events.is_empty() && size + more >= message_max {
            pieces.push(std::mem::replace(&mut piece, empty.clone()));
            size = around;
        }
        size += more;
        piece.events.push(event);
    }
    piece.fragment = false;
    pieces.push(piece);
    pieces
}

#[cfg(test)]
mod tests {
    use etcd_client::proto::{PbEvent, PbKeyValue};

    use super::*;

    /// Goal: pieces together are the whole, each is within bounds, and only the last says it is.
    /// Method: ten events of which three fit, and one that fits nowhere.
    #[test]
    fn pieces_are_the_whole() {
        let sizes = [300; 10].into_iter().chain([5_000]);
        let events: Vec<_> = sizes
            .map(|size| PbEvent {
                kv: Some(PbKeyValue {
                    value: vec![7; size],
                    ..PbKeyValue::default()
                }),
                ..PbEvent::default()
            })
            .collect();
        let whole = PbWatchResponse {
            watch_id: 3,
            events: events.clone(),
            ..PbWatchResponse::default()
        };

        let pieces = cut(whole, 1_000);

        let counts: Vec<_> = pieces.iter().map(|piece| piece.events.len()).collect();
        assert_eq!(vec![3, 3, 3, 1, 1], counts);
        let last = pieces.len() - 1;
        for (index, piece) in pieces.iter().enumerate() {
            assert_eq!(index < last, piece.fragment);
            assert_eq!(3, piece.watch_id);
            assert!(piece.events.len() == 1 || piece.encoded_len() < 1_000);
        }
        let together = pieces.into_iter().flat_map(|piece| piece.events);
        assert_eq!(events, together.collect::<Vec<_>>());
    }
}
