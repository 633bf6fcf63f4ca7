//! What is generated for a service: facts, descriptors, and servers that check what they decode.

use std::pin::Pin;

use gantry::contract::{Access, Client, Idempotency, MessageLimits, Server};
use gantry_build_rules::rules::v1::{
    Colour, DESCRIPTORS, ECHO_SERVICE_METHODS, Leaf, Plain,
    echo_service_client::EchoServiceClient,
    echo_service_server::{EchoService, EchoServiceServer},
};
use prost_reflect::{DescriptorPool, prost_types::source_code_info::Location};
use prost_types::Duration;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status, Streaming, codec::CompressionEncoding};
use tonic_types::StatusExt as _;

#[derive(Debug)]
struct Echo;

/// What the client of these tests calls: the server itself.
type Channel = EchoServiceServer<Echo>;

type Echoed = Pin<Box<dyn Stream<Item = Result<Leaf, Status>> + Send>>;

#[tonic::async_trait]
impl EchoService for Echo {
    type DownloadStream = Echoed;
    type ChatStream = Echoed;

    async fn unary(&self, request: Request<Plain>) -> Result<Response<Plain>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn download(&self, request: Request<Leaf>) -> Result<Response<Echoed>, Status> {
        // Answers are the server's own, and no rules hold for them.
        let bad = Leaf { number: -1 };
        let answers = [Ok(request.into_inner()), Ok(bad)];
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }

    async fn upload(&self, request: Request<Streaming<Leaf>>) -> Result<Response<Leaf>, Status> {
        let mut requests = request.into_inner();
        let mut last = Leaf::default();
        while let Some(leaf) = requests.next().await {
            last = leaf?;
        }
        Ok(Response::new(last))
    }

    async fn chat(&self, request: Request<Streaming<Leaf>>) -> Result<Response<Echoed>, Status> {
        Ok(Response::new(Box::pin(request.into_inner())))
    }

    async fn greet(&self, _: Request<()>) -> Result<Response<String>, Status> {
        Ok(Response::new("hello".to_owned()))
    }

    async fn wait(&self, request: Request<Duration>) -> Result<Response<()>, Status> {
        assert_eq!(request.into_inner().seconds, 1);
        Ok(Response::new(()))
    }
}

fn client() -> EchoServiceClient<Channel> {
    Client::from_channel(EchoServiceServer::new(Echo))
}

fn leaves(numbers: &[i32]) -> impl Stream<Item = Leaf> + Send + 'static {
    let leaves: Vec<_> = numbers
        .iter()
        .map(|number| Leaf { number: *number })
        .collect();
    tokio_stream::iter(leaves)
}

fn broken(status: &Status) -> Vec<String> {
    let request = status.get_details_bad_request();
    let violations = request
        .into_iter()
        .flat_map(|request| request.field_violations);
    violations.map(|violation| violation.field).collect()
}

#[test]
fn facts_of_methods_are_those_of_the_contract() {
    let facts: Vec<_> = ECHO_SERVICE_METHODS
        .iter()
        .map(|method| {
            (
                method.path,
                method.client_streaming,
                method.server_streaming,
                method.idempotency,
            )
        })
        .collect();
    let expected = [
        (
            "/rules.v1.EchoService/Unary",
            false,
            false,
            Idempotency::NoSideEffects,
        ),
        (
            "/rules.v1.EchoService/Download",
            false,
            true,
            Idempotency::Idempotent,
        ),
        (
            "/rules.v1.EchoService/Upload",
            true,
            false,
            Idempotency::Unknown,
        ),
        (
            "/rules.v1.EchoService/Chat",
            true,
            true,
            Idempotency::Unknown,
        ),
        (
            "/rules.v1.EchoService/Greet",
            false,
            false,
            Idempotency::Unknown,
        ),
        (
            "/rules.v1.EchoService/Wait",
            false,
            false,
            Idempotency::Unknown,
        ),
    ];
    assert_eq!(facts, expected);

    assert_eq!(EchoServiceServer::<Echo>::NAME, "rules.v1.EchoService");
    assert_eq!(EchoServiceServer::<Echo>::METHODS, ECHO_SERVICE_METHODS);
    assert_eq!(
        <EchoServiceClient<Channel> as Client<Channel>>::NAME,
        "rules.v1.EchoService"
    );
    assert_eq!(
        <EchoServiceClient<Channel> as Client<Channel>>::METHODS,
        ECHO_SERVICE_METHODS
    );
}

#[test]
fn methods_say_who_may_call_them() {
    let accesses = ECHO_SERVICE_METHODS.each_ref().map(|method| method.access);
    let [public, internal, token] = [Access::Public, Access::Internal, Access::Token];
    // The last three say nothing of it.
    let expected = [public, internal, token, token, token, token];
    assert_eq!(accesses, expected);
    let roles = ECHO_SERVICE_METHODS.each_ref().map(|method| method.role);
    let (night, staff) = (Some("night-staff"), Some("staff"));
    assert_eq!(roles, [None, None, night, staff, None, None]);
}

/// Goal: messages know their full names, as topics of events have them.
/// Method: two of a package.
#[test]
fn messages_know_their_names() {
    use gantry::contract::prost::Name as _;
    assert_eq!("rules.v1.Leaf", Leaf::full_name());
    assert_eq!("rules.v1.Plain", Plain::full_name());
}

/// Goal: reflection and JSON see all that was written: imports, options and comments.
/// Method: read the set into an empty pool, and ask for one of each.
#[test]
fn descriptors_are_complete_and_keep_options_and_comments() {
    assert_eq!(EchoServiceServer::<Echo>::DESCRIPTORS, DESCRIPTORS);
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("nothing is missing");

    let text = pool
        .get_message_by_name("rules.v1.Text")
        .expect("it is in the contract");
    let options = text
        .get_field_by_name("uuid")
        .expect("it is in the contract")
        .options();
    let names: Vec<_> = options
        .extensions()
        .map(|(option, _)| option.full_name().to_owned())
        .collect();
    assert_eq!(names, ["buf.validate.field"]);

    let file = pool
        .get_file_by_name("rules/v1/rules.proto")
        .expect("it was compiled");
    let service = pool
        .get_service_by_name("rules.v1.EchoService")
        .expect("it is in the contract");
    let unary = service.methods().next().expect("it has methods");
    let info = file
        .file_descriptor_proto()
        .source_code_info
        .as_ref()
        .expect("comments are kept");
    let comment = info.location.iter().find(|at| at.path == unary.path());
    assert_eq!(
        comment.map(Location::leading_comments),
        Some(" Answers with the request.\n")
    );
    let all_say_something = info
        .location
        .iter()
        .all(|at| at.leading_comments.is_some() || at.trailing_comments.is_some());
    assert!(all_say_something, "positions nobody asks for are left out");

    let other = pool
        .get_file_by_name("google/protobuf/descriptor.proto")
        .expect("it is imported");
    let info = other
        .file_descriptor_proto()
        .source_code_info
        .clone()
        .unwrap_or_default();
    assert_eq!(info.location, [], "Google's prose is left out");
}

#[tokio::test]
async fn a_request_that_breaks_rules_never_reaches_the_handler() {
    let status = client()
        .unary(Plain::default())
        .await
        .expect_err("it breaks rules");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        status.message(),
        "always: must have at least 2 characters (and 4 more)"
    );
    let expected = [
        "always",
        "required",
        "required_list",
        "required_map",
        "required_enum",
    ];
    assert_eq!(broken(&status), expected);

    let good = Plain {
        always: "ab".to_owned(),
        required: "a".to_owned(),
        required_list: vec![0],
        required_map: [(String::new(), 0)].into(),
        required_enum: Colour::Red.into(),
        ..Plain::default()
    };
    let answer = client().unary(good.clone()).await.expect("it breaks none");
    assert_eq!(answer.into_inner(), good);
}

#[tokio::test]
async fn every_message_of_a_stream_is_checked() {
    let last = client()
        .upload(leaves(&[1, 2]))
        .await
        .expect("all are good");
    assert_eq!(last.into_inner().number, 2);
    let status = client()
        .upload(leaves(&[1, -1, 2]))
        .await
        .expect_err("the second is bad");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(broken(&status), ["number"]);

    let mut answers = client()
        .chat(leaves(&[1, -1, 2]))
        .await
        .expect("it begins well")
        .into_inner();
    let first = answers.message().await.expect("the first is good");
    assert_eq!(first, Some(Leaf { number: 1 }));
    let status = answers.message().await.expect_err("the second is bad");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn answers_are_not_judged() {
    let mut answers = client()
        .download(Leaf::default())
        .await
        .expect("the request is good")
        .into_inner();
    assert_eq!(
        answers.message().await.expect("good"),
        Some(Leaf { number: 0 })
    );
    assert_eq!(
        answers.message().await.expect("bad, and passed on"),
        Some(Leaf { number: -1 })
    );
}

#[tokio::test]
async fn well_known_types_are_taken_and_given_as_they_are() {
    let answer = client().greet(()).await.expect("nothing is wrong");
    assert_eq!(answer.into_inner(), "hello");
    let second = Duration {
        seconds: 1,
        nanos: 0,
    };
    client().wait(second).await.expect("nothing is wrong");
}

#[tokio::test]
async fn limits_bound_single_messages_both_ways() {
    let limits = MessageLimits {
        receive_max: 64,
        send_max: 64,
    };
    let server = EchoServiceServer::new(Echo).with_limits(limits);
    let mut client = EchoServiceClient::new(server);
    let request = |length: usize| Plain {
        always: "a".repeat(length),
        required: "a".to_owned(),
        required_list: vec![0],
        required_map: [(String::new(), 0)].into(),
        required_enum: Colour::Red.into(),
        ..Plain::default()
    };
    client.unary(request(20)).await.expect("it is small enough");
    let status = client
        .unary(request(200))
        .await
        .expect_err("it is too large");
    assert_eq!(status.code(), Code::OutOfRange);
}

#[tokio::test]
async fn answers_are_compressed_where_the_caller_takes_it() {
    let limits = MessageLimits {
        receive_max: 1_000,
        send_max: 1_000,
    };
    let server = EchoServiceServer::new(Echo).with_limits(limits);
    let mut client = EchoServiceClient::new(server.clone())
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let answer = client.upload(leaves(&[1])).await.expect("both know gzip");
    let encoding = |answer: &Response<Leaf>| answer.metadata().get("grpc-encoding").cloned();
    assert_eq!(encoding(&answer).expect("it is compressed"), "gzip");
    assert_eq!(answer.into_inner().number, 1);

    let answer = EchoServiceClient::new(server)
        .upload(leaves(&[1]))
        .await
        .expect("it is plain");
    assert_eq!(encoding(&answer), None);
}
