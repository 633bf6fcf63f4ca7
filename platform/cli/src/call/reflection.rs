//! Asks a server what it serves (`grpc.reflection`, v1 and before it v1alpha).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use http::uri::PathAndQuery;
use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tokio::time;
use tonic::{Code, IntoRequest as _, Status, client::Grpc};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use super::target::Channel;
use crate::failure::Failure;

/// The methods that answer, newest first. Their messages are the same on the wire, so that one
/// set of types does for both.
const METHODS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// How long one question may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Files one symbol may stand on; a server that sends more is not describing a contract.
const FILES_MAX: usize = 4_096;

/// A server that describes itself.
#[derive(Debug)]
pub(crate) struct Reflection {
    channel: Channel,
    method: &'static str,
}

impl Reflection {
    /// Finds the version `channel`'s server speaks, and its services' full names.
    pub(crate) async fn of(channel: Channel) -> Result<(Self, Vec<String>), Failure> {
        let mut refused = None;
        for method in METHODS {
            let reflection = Self {
                channel: channel.clone(),
                method,
            };
            let question = MessageRequest::ListServices(String::new());
            match reflection.ask(question).await {
                Ok(MessageResponse::ListServicesResponse(list)) => {
                    let mut names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
                    names.sort();
                    return Ok((reflection, names));
                }
                Ok(_) => return Err(unreadable("list of services")),
                Err(status) if status.code() == Code::Unimplemented => refused = Some(status),
                Err(status) => return Err(super::errors::failure(&status)),
            }
        }
        Err(refused.map_or_else(
            || unreadable("list of services"),
            |_| {
                Failure::failed(
                    "the server has no reflection; without it its methods cannot be known",
                )
            },
        ))
    }

    /// Everything `symbol` stands on: its file and all that it imports.
    pub(crate) async fn pool(&self, symbol: &str) -> Result<DescriptorPool, Failure> {
        let mut files = BTreeMap::<String, FileDescriptorProto>::new();
        let mut wanted = VecDeque::from([MessageRequest::FileContainingSymbol(symbol.to_owned())]);
        while let Some(question) = wanted.pop_front() {
            if let MessageRequest::FileByFilename(name) = &question
                && files.contains_key(name)
            {
                continue;
            }
            let answer = self.ask(question).await;
            let answer = answer.map_err(|status| match status.code() {
                Code::NotFound => Failure::usage(format!("the server does not know {symbol}")),
                _ => super::errors::failure(&status),
            })?;
            let MessageResponse::FileDescriptorResponse(answer) = answer else {
                return Err(unreadable(symbol));
            };
            for bytes in answer.file_descriptor_proto {
                let file = FileDescriptorProto::decode(&*bytes).map_err(|_| unreadable(symbol))?;
                let imports = file.dependency.iter().cloned();
                wanted.extend(imports.map(MessageRequest::FileByFilename));
                files.insert(file.name().to_owned(), file);
            }
            if files.len() > FILES_MAX || wanted.len() > FILES_MAX * 16 {
                return Err(unreadable(symbol));
            }
        }
        let file = files.into_values().collect();
        DescriptorPool::from_file_descriptor_set(FileDescriptorSet { file })
            .map_err(|error| Failure::failed(format!("the description of {symbol}: {error}")))
    }

    async fn ask(&self, question: MessageRequest) -> Result<MessageResponse, Status> {
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(question),
        };
        let mut client =
            Grpc::new(self.channel.clone()).max_decoding_message_size(super::MESSAGE_MAX);
        let exchange = async {
            client.ready().await.map_err(super::errors::unreachable)?;
            let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
            let requests = tokio_stream::once(request).into_request();
            let path = PathAndQuery::from_static(self.method);
            let mut answers = client.streaming(requests, path, codec).await?.into_inner();
            answers.message().await
        };
        let answer = time::timeout(ANSWER_MAX, exchange).await.map_err(|_| {
            Status::deadline_exceeded("the server did not answer a question about its services")
        })??;
        match answer.and_then(|answer| answer.message_response) {
            Some(MessageResponse::ErrorResponse(error)) => Err(Status::new(
                Code::from_i32(error.error_code),
                error.error_message,
            )),
            Some(answer) => Ok(answer),
            None => Err(Status::internal("the server ended its reflection unasked")),
        }
    }
}

fn unreadable(what: &str) -> Failure {
    Failure::failed(format!(
        "the server's reflection answers nonsense for {what}"
    ))
}
