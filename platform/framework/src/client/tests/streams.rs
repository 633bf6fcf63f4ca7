//! Requests and answers that take their time.

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, uri::PathAndQuery};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, client::Grpc};
use tonic_prost::ProstCodec;

use super::{
    net::addr,
    raw::{self, Raw, SERVING},
    *,
};

/// Sends every message back as it comes, beginning its answer at once.
fn echo(net: &Net) {
    let mut listener = net.listen(addr(1));
    spawn(async move {
        while let Some(io) = listener.recv().await {
            // One stream must not take the window of all others.
            let mut connection = h2::server::Builder::new()
                .initial_connection_window_size(1 << 20)
                .handshake(io)
                .await
                .unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                spawn(echo_one(request.into_body(), respond));
            }
        }
    });
}

async fn echo_one(mut body: h2::RecvStream, mut respond: h2::server::SendResponse<Bytes>) {
    let head = Response::builder().header("content-type", "application/grpc");
    let head = head.body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    while let Some(Ok(mut data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
            let Some(Ok(room)) = room else { return };
            let part = data.split_to(room.min(data.len()));
            if stream.send_data(part, false).is_err() {
                return;
            }
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    drop(stream.send_trailers(trailers));
}

type Message = HealthCheckRequest;

fn message(text: impl Into<String>) -> Message {
    Message {
        service: text.into(),
    }
}

/// A bidirectional call.
async fn converse(
    caller: &Caller,
    requests: impl futures_core::Stream<Item = Message> + Send + 'static,
) -> Result<Streaming<Message>, Status> {
    let mut grpc = Grpc::new(caller.clients.channel("peer", &METHODS));
    let path = PathAndQuery::from_static("/echo.Echo/Converse");
    let codec = ProstCodec::<Message, Message>::default();
    let answer = grpc
        .streaming(tonic::Request::new(requests), path, codec)
        .await?;
    Ok(answer.into_inner())
}

/// Goal: both directions of a stream run on their own.
/// Method: answers are read before the next request is made; then the caller ends it.
#[tokio::test(start_paused = true)]
async fn both_directions_run_on_their_own() {
    let net = Net::default();
    echo(&net);
    let caller = Caller::new(&net, &[addr(1)]);
    let (requests, receiver) = mpsc::channel(1);
    let mut answers = converse(&caller, ReceiverStream::new(receiver))
        .await
        .unwrap();
    for number in 0..100 {
        requests.send(message(number.to_string())).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(number.to_string(), answer.service);
    }
    drop(requests);
    assert!(answers.message().await.unwrap().is_none());
    caller.stop().await;
}

/// Goal: messages larger than any window get through whole, both ways, at once.
/// Method: twenty of 1 MB, read only after all were offered.
#[tokio::test(start_paused = true)]
async fn large_messages_get_through_both_ways() {
    let net = Net::default();
    echo(&net);
    let caller = Caller::new(&net, &[addr(1)]);
    let texts: Vec<_> = (0..20_u8)
        .map(|number| char::from(b'a' + number).to_string().repeat(1_000_000))
        .collect();
    let requests = tokio_stream::iter(texts.clone().into_iter().map(message));
    let answers = converse(&caller, requests).await.unwrap();
    let received = answers.map(|answer| answer.unwrap().service);
    let received: Vec<_> = patient(received.collect()).await;
    assert!(texts == received);
    caller.stop().await;
}

/// Goal: a reader that stops reading holds back its peer, and nobody else on the connection.
/// Method: one stream of 20 MB unread, a second one over the same connection meanwhile.
#[tokio::test(start_paused = true)]
async fn an_unread_stream_holds_back_only_itself() {
    let net = Net::default();
    echo(&net);
    let caller = Caller::with(&net, &[addr(1)], |config| config.connections_max = 1);
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let endless = tokio_stream::iter((0..200).map(move |_| {
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        message("x".repeat(100_000))
    }));
    let unread = converse(&caller, endless).await.unwrap();
    tokio::time::sleep(1_000 * MS).await;
    let sent = sent.load(std::sync::atomic::Ordering::SeqCst);
    assert!(sent < 60, "{sent} of 200 left although nobody reads");

    let requests = tokio_stream::iter((0..50).map(|_| message("y".repeat(100_000))));
    let answers = converse(&caller, requests).await.unwrap();
    assert_eq!(50, patient(answers.count()).await);
    assert_eq!(1, net.connects(addr(1)));
    drop(unread);
    caller.stop().await;
}

/// Goal: an answer that ends early ends the call, and the rest of the request is not pursued.
/// Method: the peer answers while the request is still open.
#[tokio::test(start_paused = true)]
async fn an_early_answer_ends_the_call() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    let peer = spawn(async move {
        let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        let stream = peer.expect(raw::HEADERS).await.stream;
        peer.begin(stream).await;
        peer.data(stream, &[0, 0, 0, 0, 0], false).await;
        peer.trailers(stream, "0").await;
        let reset = peer.expect(raw::RST_STREAM).await;
        assert_eq!(stream, reset.stream);
    });
    let (requests, receiver) = mpsc::channel(1);
    requests.send(message("first")).await.unwrap();
    let mut answers = converse(&caller, ReceiverStream::new(receiver))
        .await
        .unwrap();
    assert!(answers.message().await.unwrap().is_some());
    assert!(answers.message().await.unwrap().is_none());
    peer.await.unwrap();
    // Nobody takes requests any more.
    requests.closed().await;
    caller.stop().await;
}

/// Goal: a reset stops the request, whether or not anybody reads the answer.
/// Method: the answer has begun and stays unread; the source of requests must be let go.
#[tokio::test(start_paused = true)]
async fn a_reset_lets_go_of_the_request() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    let peer = spawn(async move {
        let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        let stream = peer.expect(raw::HEADERS).await.stream;
        peer.begin(stream).await;
        tokio::time::sleep(10 * MS).await;
        peer.reset(stream, raw::CANCEL).await;
        peer
    });
    let (requests, receiver) = mpsc::channel(1);
    let unread = converse(&caller, ReceiverStream::new(receiver))
        .await
        .unwrap();
    patient(requests.closed()).await;
    drop(unread);
    drop(peer.await);
    caller.stop().await;
}

/// Goal: a request that fails at its own source ends the call with the source's status, before
/// the answer begins and after, and the peer is told by a reset.
/// Method: a cancelled request stream.
#[tokio::test(start_paused = true)]
async fn a_request_that_fails_at_its_source_is_reset() {
    for begun in [false, true] {
        let net = Net::default();
        let mut listener = net.listen(addr(1));
        let caller = Caller::new(&net, &[addr(1)]);
        let peer = spawn(async move {
            let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
            let stream = peer.expect(raw::HEADERS).await.stream;
            if begun {
                peer.begin(stream).await;
                peer.data(stream, SERVING, false).await;
            }
            let reset = peer.expect(raw::RST_STREAM).await;
            assert_eq!(stream, reset.stream);
            assert_eq!(&raw::CANCEL.to_be_bytes()[..], &reset.payload);
        });
        let broken = futures_util::stream::once(async {
            tokio::time::sleep(100 * MS).await;
            Err::<http_body::Frame<Bytes>, _>(Status::data_loss("the file ended"))
        });
        let body = Body::new(http_body_util::StreamBody::new(broken));
        let request = Request::post("/echo.Echo/Converse").body(body).unwrap();
        let mut channel = caller.clients.channel("peer", &METHODS);
        let status = match channel.call(request).await {
            Err(status) => status,
            Ok(answer) => {
                use http_body_util::BodyExt as _;
                patient(answer.into_body().collect()).await.unwrap_err()
            }
        };
        assert_eq!(Code::DataLoss, status.code(), "{status}");
        peer.await.unwrap();
        caller.stop().await;
    }
}

/// Goal: a request is one HEADERS and one DATA frame, absolute, and says who asks.
/// Method: a unary call, frame by frame, and its headers as h2 reads them.
#[tokio::test(start_paused = true)]
async fn a_unary_request_is_two_frames() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    spawn(async move {
        let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        let head = peer.next().await.unwrap();
        assert_eq!((raw::HEADERS, 0), (head.kind, head.flags & raw::END_STREAM));
        let data = peer.next().await.unwrap();
        assert_eq!((raw::DATA, raw::END_STREAM), (data.kind, data.flags));
        peer.answer(head.stream).await;
    });
    caller.check("x").await.unwrap();
    caller.stop().await;

    let net = Net::default();
    let mut listener = net.listen(addr(1));
    let caller = Caller::new(&net, &[addr(1)]);
    let mut client = caller.client();
    spawn(async move {
        let mut request = tonic::Request::new(message("x"));
        request
            .metadata_mut()
            .insert("x-own", "untouched".parse().unwrap());
        client.check(request).await
    });
    let mut connection = h2::server::handshake(listener.recv().await.unwrap())
        .await
        .unwrap();
    let (request, _respond) = connection.accept().await.unwrap().unwrap();
    assert_eq!(
        "http://10.0.0.1:1/grpc.health.v1.Health/Check",
        request.uri()
    );
    assert_eq!("POST", request.method());
    for (name, value) in [
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", concat!("gantry/", env!("CARGO_PKG_VERSION"))),
        ("x-own", "untouched"),
    ] {
        assert_eq!(value, request.headers()[name], "{name}");
    }
    let traced = call::TraceContext::extract(request.headers());
    assert!(traced.is_some());
}
