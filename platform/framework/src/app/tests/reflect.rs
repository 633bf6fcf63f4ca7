//! Reflection and health, which no service writes a line for.

use tonic::Code;
use tonic_reflection::pb::{v1, v1alpha};

use super::probe::running;
use crate::client::Channel;

async fn listed(channel: Channel) -> Result<Vec<String>, Code> {
    use v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(asked))
        .await
        .map_err(|status| status.code())?;
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    Ok(list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect())
}

async fn file_of(channel: Channel, symbol: &str) -> Vec<u8> {
    use v1alpha::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let symbol = symbol.to_owned();
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(symbol)),
    };
    let answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(asked))
        .await
        .unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::FileDescriptorResponse(found)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let [file] = &found.file_descriptor_proto[..] else {
        panic!("{found:?}");
    };
    file.clone()
}

/// Goal: whoever asks over loopback learns of every service, in both versions of reflection.
/// Method: list by v1, look one up by v1alpha, by its own name and by that of a part; the file is the
/// one that was compiled in, byte by byte.
#[tokio::test]
async fn services_are_described_on_loopback() {
    let service = running("").await;
    let mut names = listed(service.client()).await.unwrap();
    names.sort_unstable();
    let expected = vec![
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "test.Probe",
    ];
    assert_eq!(expected, names);

    let found = file_of(service.client(), "grpc.health.v1.Health").await;
    let compiled = gantry_api::health::v1::DESCRIPTORS;
    assert!(compiled.windows(found.len()).any(|part| part == found));
    let part = "grpc.health.v1.HealthCheckResponse.SERVING";
    assert_eq!(found, file_of(service.client(), part).await);
    service.stop().await;
}

/// Goal: reflection can be switched off.
/// Method: ask a service that has it off.
#[tokio::test]
async fn reflection_can_be_switched_off() {
    let service = running("reflection = false").await;
    assert_eq!(Err(Code::Unimplemented), listed(service.client()).await);
    service.stop().await;
}
