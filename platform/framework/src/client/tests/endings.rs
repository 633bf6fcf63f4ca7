//! Every way an answer can end, and the code it ends with.

use super::{
    net::addr,
    raw::{self, Raw, SERVING},
    *,
};

/// What a scripted peer does with the only request it gets.
enum Ending {
    Reset(u32),
    ResetAfterData(u32),
    Http(&'static str, &'static str),
    HeadersOnly,
    DataOnly,
    TrailersWithoutCode,
    TrailersOnly(&'static str),
    Close,
    CloseAfterData,
}

/// Plays the ending; a connection that is to stay open is returned.
async fn play(mut peer: Raw, ending: Ending) -> Option<Raw> {
    let stream = peer.request().await;
    match ending {
        Ending::Reset(reason) => peer.reset(stream, reason).await,
        Ending::ResetAfterData(reason) => {
            peer.begin(stream).await;
            peer.data(stream, SERVING, false).await;
            peer.reset(stream, reason).await;
        }
        Ending::Http(status, kind) => {
            let headers = [(":status", status), ("content-type", kind)];
            peer.headers(stream, &headers, false).await;
            peer.data(stream, b"<h1>no</h1>", true).await;
        }
        Ending::HeadersOnly => {
            let headers = [(":status", "200"), ("content-type", "application/grpc")];
            peer.headers(stream, &headers, true).await;
        }
        Ending::DataOnly => {
            peer.begin(stream).await;
            peer.data(stream, SERVING, true).await;
        }
        Ending::TrailersWithoutCode => {
            peer.begin(stream).await;
            peer.data(stream, SERVING, false).await;
            peer.headers(stream, &[("x", "y")], true).await;
        }
        Ending::TrailersOnly(code) => {
            let headers = [
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("grpc-status", code),
            ];
            peer.headers(stream, &headers, true).await;
        }
        Ending::Close => return None,
        Ending::CloseAfterData => {
            peer.begin(stream).await;
            peer.data(stream, SERVING, false).await;
            return None;
        }
    }
    Some(peer)
}

/// Goal: every end below gRPC has the code the specification gives it, in the head of an answer
/// and in its body.
/// Method: one scripted peer per ending; the code and the attempts it saw.
#[tokio::test(start_paused = true)]
async fn every_ending_has_its_code() {
    let cases = [
        (Ending::Reset(raw::NO_ERROR), Code::Internal),
        (Ending::Reset(1), Code::Internal),
        (Ending::Reset(raw::CANCEL), Code::Cancelled),
        (Ending::Reset(11), Code::ResourceExhausted),
        (Ending::Reset(12), Code::PermissionDenied),
        (Ending::ResetAfterData(2), Code::Internal),
        (Ending::ResetAfterData(raw::CANCEL), Code::Cancelled),
        (
            Ending::ResetAfterData(raw::REFUSED_STREAM),
            Code::Unavailable,
        ),
        (Ending::ResetAfterData(11), Code::ResourceExhausted),
        (Ending::Http("400", "text/html"), Code::Internal),
        (Ending::Http("401", "text/html"), Code::Unauthenticated),
        (Ending::Http("403", "text/html"), Code::PermissionDenied),
        (Ending::Http("404", "text/html"), Code::Unimplemented),
        (Ending::Http("429", "text/html"), Code::Unavailable),
        (Ending::Http("500", "text/html"), Code::Unknown),
        (Ending::Http("502", "text/html"), Code::Unavailable),
        (Ending::Http("503", "application/grpc"), Code::Unavailable),
        (Ending::Http("200", "text/html"), Code::Unknown),
        (Ending::Http("200", "application/grpc-web"), Code::Unknown),
        (Ending::HeadersOnly, Code::Internal),
        (Ending::DataOnly, Code::Internal),
        (Ending::TrailersWithoutCode, Code::Unknown),
        (Ending::TrailersOnly("5"), Code::NotFound),
        (Ending::TrailersOnly("99"), Code::Unknown),
        (Ending::Close, Code::Unavailable),
        (Ending::CloseAfterData, Code::Unavailable),
    ];
    for (number, (ending, expected)) in cases.into_iter().enumerate() {
        let net = Net::default();
        let mut listener = net.listen(addr(1));
        let peer = spawn(async move {
            let peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
            play(peer, ending).await
        });
        let caller = Caller::new(&net, &[addr(1)]);
        let outcome = caller.check("x").await;
        assert_eq!(expected, code(&outcome), "case {number}: {outcome:?}");
        drop(peer);
        caller.stop().await;
    }
}

/// Goal: a caller learns which endpoint failed and why.
/// Method: a lost connection, and a target nobody listens on.
#[tokio::test(start_paused = true)]
async fn errors_name_the_endpoint_and_the_reason() {
    let net = Net::default();
    let mut listener = net.listen(addr(1));
    spawn(async move {
        let mut peer = Raw::accept(listener.recv().await.unwrap(), &[]).await;
        peer.request().await;
    });
    let caller = Caller::new(&net, &[addr(1)]);
    let lost = caller.check("x").await.unwrap_err();
    assert!(lost.message().contains("10.0.0.1:1"), "{lost}");

    let caller = Caller::new(&net, &[addr(7), addr(8)]);
    let began = Instant::now();
    let refused = caller.check("x").await.unwrap_err();
    assert_eq!(Code::Unavailable, refused.code());
    for part in ["peer", "10.0.0.1:7", "10.0.0.1:8", "connection refused"] {
        assert!(refused.message().contains(part), "{part}: {refused}");
    }
    assert_eq!(3, began.elapsed().as_secs());
    // Nothing has been ready for longer than the bound: the next call does not wait.
    let began = Instant::now();
    assert_eq!(Code::Unavailable, code(&caller.check("x").await));
    assert_eq!(0, began.elapsed().as_secs());
}

/// Goal: a complaint fits into the headers of an answer, however much is wrong.
/// Method: many endpoints that are not there, and a resolver that complains at length.
#[tokio::test(start_paused = true)]
async fn a_complaint_is_short() {
    let many: Vec<_> = (1..=200).map(addr).collect();
    let caller = Caller::new(&Net::default(), &many);
    let refused = caller.check("x").await.unwrap_err();
    let message = refused.message();
    assert!(message.contains("10.0.0.1:1 "), "{message}");
    assert!(message.ends_with(" and 197 more"), "{message}");
    assert!(message.len() < 1_200, "{message}");

    let names = crate::discovery::Memory::new();
    names.fail("shop", &"the registry is gone, ".repeat(1_000));
    let caller = Caller::resolving(&Net::default(), Arc::new(names), |_| {});
    let refused = caller.check("x").await.unwrap_err();
    let message = refused.message();
    assert!(message.contains("the registry is gone"), "{message}");
    assert!(message.len() < 1_200, "{message}");
}

/// Goal: a target that is not configured is an error of its calls, not of the start.
/// Method: a channel to a name without configuration.
#[tokio::test(start_paused = true)]
async fn an_unconfigured_target_fails_its_calls() {
    let caller = Caller::new(&Net::default(), &[addr(1)]);
    let mut client: HealthClient<Channel> =
        HealthClient::new(caller.clients.channel("nobody", &METHODS));
    let status = check(&mut client, "x").await.unwrap_err();
    assert_eq!(Code::Unavailable, status.code());
    assert!(
        status.message().contains("clients.nobody.target"),
        "{status}"
    );
}
