//! Services that come, go and are broken.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use gantry::{
    client::{Channel, Reflection},
    testing::telemetry,
};
use gateway_echo::{
    CountRequest, EchoRequest, EchoResponse, echo_service_client::EchoServiceClient,
};
use http::{StatusCode, uri::PathAndQuery};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time,
};
use tonic::{Code, Request, client::Grpc, metadata::AsciiMetadataValue};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use crate::{
    access::TOKENS,
    support::{ECHO, Edge, echo, gateway, services},
    token::good,
};

/// Waits until `path` is answered with `status`.
async fn until(edge: &Edge, path: &str, status: StatusCode) {
    let answered = async {
        while edge.get(path).await.status != status {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(Duration::from_secs(20), answered)
        .await
        .expect(path);
}

/// Goal: a service with rules is there once it is registered. Once it is not, callers are told to come
/// back for a while, whatever they speak, and it is described no more.
/// Method: take it out of the directory, and put it back; and out once more as its only server ends.
#[tokio::test]
async fn services_come_and_go() {
    let edge = Edge::start().await;
    assert_eq!(StatusCode::OK, edge.get("/v1/echo").await.status);
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    edge.registered.send_replace(Some(services(&[])));
    until(&edge, "/v1/echo", unavailable).await;
    let answer = edge.get("/v1/echo").await;
    assert_eq!(Some("5"), answer.header("retry-after"), "{answer:?}");
    assert_eq!(14, answer.json()["code"]);
    let text = answer.json()["message"].to_string();
    assert!(text.contains(ECHO), "{text}");
    let path = "/echo.v1.EchoService/Echo";
    let answer = edge.post(path, "{}").await;
    assert_eq!(unavailable, answer.status, "{answer:?}");
    assert_eq!("unavailable", answer.json()["code"]);
    let document = edge.get("/openapi.json").await;
    assert!(!document.text().contains("/v1/echo"), "{document:?}");
    for path in ["/v1/nowhere", "/echo.v1.EchoService/Nothing"] {
        assert_eq!(StatusCode::NOT_FOUND, edge.get(path).await.status, "{path}");
    }
    edge.registered
        .send_replace(Some(services(&[(ECHO, "echo")])));
    until(&edge, "/v1/echo", StatusCode::OK).await;

    let Edge {
        gateway,
        echo,
        registered,
        ..
    } = edge;
    registered.send_replace(Some(services(&[])));
    echo.stop().await;
    let mut client: EchoServiceClient<Channel> = gateway.client();
    let refused = async {
        loop {
            let refused = client.echo(EchoRequest::default()).await;
            let refused = refused.expect_err("it is stopped");
            if refused.message().contains("is registered") {
                return refused;
            }
        }
    };
    let refused = time::timeout(Duration::from_secs(20), refused).await;
    let refused = refused.expect("it is not told that it went");
    assert_eq!(Code::Unavailable, refused.code(), "{refused:?}");
    let pushback = refused.metadata().get("grpc-retry-pushback-ms");
    assert_eq!("5000", pushback.unwrap(), "{refused:?}");
    let mut grpc = Grpc::new(gateway.client::<Channel>());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/never.There/Was");
    let codec = ProstCodec::<EchoRequest, EchoResponse>::default();
    let unknown = grpc.unary(Request::new(EchoRequest::default()), path, codec);
    assert_eq!(Code::Unimplemented, unknown.await.unwrap_err().code());
}

/// Goal: one that cannot be reached, or does not describe what it registered, is in no other's way.
/// Method: three services, of which one is nowhere and one is not what its server describes.
#[tokio::test]
async fn a_broken_service_is_in_no_others_way() {
    let (echo, dropped) = echo().await;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let known = services(&[
        (ECHO, "echo"),
        ("a.Nowhere", "nowhere"),
        ("a.Other", "echo"),
    ]);
    let (registered, known) = watch::channel(Some(known));
    let targets = [
        ("echo", echo.address()),
        ("nowhere", nowhere.local_addr().unwrap()),
    ];
    let gateway = gateway(&targets, known, "").await;
    let edge = Edge {
        gateway,
        echo,
        dropped,
        registered,
    };
    // Once everybody was asked; and long before whoever stands still was given up.
    until(&edge, "/v1/echo", StatusCode::OK).await;
    drop(Arc::clone(&edge.dropped));
}

/// An address that leads to another, until dropped.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    pub(crate) leads_to: watch::Sender<Option<SocketAddr>>,
    /// Whether nothing goes through any more, and nobody is told.
    pub(crate) is_hung: watch::Sender<bool>,
    _accepting: JoinSet<()>,
}

impl Wire {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_hung, hung) = watch::channel(false);
        let (leads_to, end) = watch::channel(None);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let (mut end, mut hung) = (end.clone(), hung.clone());
                connections.spawn(async move {
                    let end = end.wait_for(Option::is_some).await.unwrap().unwrap();
                    let mut far = TcpStream::connect(end).await?;
                    tokio::select! {
                        copied = copy_bidirectional(&mut near, &mut far) => return copied,
                        hung = hung.wait_for(|hung| *hung) => drop(hung),
                    }
                    std::future::pending().await
                });
            }
        });
        Self {
            address,
            leads_to,
            is_hung,
            _accepting: accepting,
        }
    }
}

/// Goal: a gateway that is registered as an instance of a service does not call itself for ever, and
/// says what is wrong.
/// Method: one whose address is behind the name of a service, called with a good token by gRPC, and
/// asked what the service looks like.
#[tokio::test]
async fn a_gateway_does_not_call_itself() {
    let (echo, dropped) = echo().await;
    let wire = Wire::start().await;
    let known = services(&[(ECHO, "echo"), ("loop.v1.LoopService", "loop")]);
    let (registered, known) = watch::channel(Some(known));
    let targets = [("echo", echo.address()), ("loop", wire.address)];
    let gateway = gateway(&targets, known, TOKENS).await;
    wire.leads_to.send_replace(Some(gateway.address()));
    let edge = Edge {
        gateway,
        echo,
        dropped,
        registered,
    };
    until(&edge, "/v1/echo", StatusCode::OK).await;
    let mut grpc = Grpc::new(edge.gateway.client::<Channel>());
    let token: AsciiMetadataValue = format!("Bearer {}", good()).parse().unwrap();
    let refused = async {
        loop {
            let mut request = Request::new(EchoRequest::default());
            request
                .metadata_mut()
                .insert("authorization", token.clone());
            let path = PathAndQuery::from_static("/loop.v1.LoopService/Call");
            let codec = ProstCodec::<EchoRequest, EchoResponse>::default();
            grpc.ready().await.unwrap();
            let refused = grpc.unary(request, path, codec).await.unwrap_err();
            // The gateway itself is not ready for a moment, at both of its ends.
            if !refused.message().contains("is ready") {
                return refused;
            }
        }
    };
    let refused = time::timeout(Duration::from_secs(20), refused).await;
    let refused = refused.expect("it is never ready");
    assert_eq!(Code::Unavailable, refused.code(), "{refused:?}");
    let text = "/loop.v1.LoopService/Call came back to the gateway";
    assert!(refused.message().contains(text), "{refused:?}");

    let (reflection, _) = Reflection::of(edge.gateway.client()).await.unwrap();
    let refused = reflection.files("loop.v1.LoopService").await.unwrap_err();
    let text = "came back to the gateway";
    assert!(refused.message().contains(text), "{refused:?}");
}

/// Goal: where no backend answers, callers are told which service and when to come back, and nothing
/// of where its instances are; in each protocol, before an answer and within one.
/// Method: an echo behind a wire that is cut in the midst of a stream, and stays cut.
#[tokio::test]
async fn nobody_outside_is_told_where_instances_are() {
    let (echo, dropped) = echo().await;
    let wire = Wire::start().await;
    wire.leads_to.send_replace(Some(echo.address()));
    let address = wire.address;
    let (registered, known) = watch::channel(Some(services(&[(ECHO, "echo")])));
    let gateway = gateway(&[("echo", address)], known, "").await;
    let edge = Edge {
        gateway,
        echo,
        dropped,
        registered,
    };
    assert_eq!(StatusCode::OK, edge.get("/v1/echo").await.status);
    let mut client: EchoServiceClient<Channel> = edge.gateway.client();
    let request = CountRequest {
        messages: 1,
        hang: true,
        ..CountRequest::default()
    };
    let mut stream = client.count(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    drop(wire);

    let lost = stream.message().await.unwrap_err();
    let refused = client.echo(EchoRequest::default()).await.unwrap_err();
    for (status, text) in [(lost, "was lost"), (refused, "no instance is ready")] {
        assert_eq!(Code::Unavailable, status.code(), "{status:?}");
        let message = status.message();
        assert!(
            message.starts_with(ECHO) && message.contains(text),
            "{message}"
        );
        assert!(!message.contains("127.0.0.1"), "{message}");
        let pause = status.get_details_retry_info().unwrap().retry_delay;
        assert_eq!(Some(Duration::from_secs(1)), pause);
    }
    for path in ["/v1/echo", "/echo.v1.EchoService/Echo"] {
        let answer = edge.post(path, "{}").await;
        assert_eq!(StatusCode::SERVICE_UNAVAILABLE, answer.status, "{answer:?}");
        assert_eq!(Some("1"), answer.header("retry-after"), "{answer:?}");
        assert!(answer.text().contains(ECHO), "{answer:?}");
        assert!(!answer.text().contains("127.0.0.1"), "{answer:?}");
    }
    let (reflection, _) = Reflection::of(edge.gateway.client()).await.unwrap();
    let unread = reflection.files(ECHO).await.unwrap_err();
    assert!(
        unread.message().contains("no instance is ready"),
        "{unread:?}"
    );
    assert!(!unread.message().contains("127.0.0.1"), "{unread:?}");
}

/// Goal: a service that cannot be read is told of once, however often it is asked again.
/// Method: one that its server does not describe; the lines once it was asked three times as often
/// as when the first line came.
#[tokio::test]
async fn a_broken_service_is_told_of_once() {
    let captured = telemetry::capture();
    let (echo, dropped) = echo().await;
    let (registered, known) = watch::channel(Some(services(&[("a.Other", "echo")])));
    let gateway = gateway(&[("echo", echo.address())], known, "").await;
    let told = || {
        let lines = captured.lines();
        let told = |line: &telemetry::Line| line.message().starts_with("service cannot be read");
        lines.into_iter().filter(told).collect::<Vec<_>>()
    };
    let asked = || {
        let spans = captured.spans();
        let reflection = |span: &&telemetry::Span| span.name.ends_with("/ServerReflectionInfo");
        spans.iter().filter(reflection).count()
    };
    let once = async {
        while told().is_empty() || asked() == 0 {
            time::sleep(Duration::from_millis(20)).await;
        }
        asked()
    };
    let once = time::timeout(Duration::from_secs(20), once)
        .await
        .expect("a line and a span of what was asked");
    let thrice = async {
        while asked() < 3 * once {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(Duration::from_secs(20), thrice)
        .await
        .expect("it is asked again, and again");
    let told = told();
    assert_eq!(1, told.len(), "{told:?}");
    assert_eq!("WARN", told[0].level());
    assert_eq!(Some("echo"), told[0].get("backend").as_deref());
    drop((gateway, dropped, registered));
}

/// Goal: clients that know the older reflection alone are told the same, or nothing where it is off.
/// Method: list by v1alpha, and read the file of a service behind; the same with it off.
#[tokio::test]
async fn the_older_reflection_is_spoken() {
    use tonic_reflection::pb::v1alpha::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest as Question,
        server_reflection_response::MessageResponse as Answer,
    };
    let ask = async |edge: &Edge, question| {
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(question),
        };
        let channel: gantry::client::Channel = edge.gateway.client();
        let mut client = ServerReflectionClient::new(channel);
        let answers = client.server_reflection_info(tokio_stream::once(request));
        let answer = answers.await?.into_inner().message().await?;
        Ok::<_, tonic::Status>(answer.unwrap().message_response.unwrap())
    };
    let edge = Edge::start().await;
    let list = Question::ListServices(String::new());
    let listed = ask(&edge, list.clone()).await.unwrap();
    let Answer::ListServicesResponse(listed) = listed else {
        panic!("{listed:?}");
    };
    let names: Vec<_> = listed.service.into_iter().map(|it| it.name).collect();
    let expected = [
        ECHO,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    assert_eq!(expected[..], names);
    let file = Question::FileContainingSymbol(ECHO.to_owned());
    let file = ask(&edge, file).await.unwrap();
    assert!(
        matches!(file, Answer::FileDescriptorResponse(_)),
        "{file:?}"
    );

    let silent = Edge::with("reflection = false").await;
    let refused = ask(&silent, list).await.unwrap_err();
    assert_eq!(tonic::Code::Unimplemented, refused.code());
}
