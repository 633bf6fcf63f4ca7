//! Asks a server what it serves (`grpc.reflection`, v1 and before it v1alpha).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use http::uri::PathAndQuery;
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tokio::time;
use tonic::{Code, IntoRequest as _, Status, client::Grpc};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::Channel;
use crate::status::{self, Refusal};

pub use tonic_reflection::pb::v1::{
    server_reflection_request::MessageRequest as Question,
    server_reflection_response::MessageResponse as Answer,
};

/// The methods that answer, newest first. Their messages are the same on the wire, so that one
/// set of types does for both.
const METHODS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// How long one question may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Largest answer.
const MESSAGE_MAX: usize = 64 << 20;

/// Files one symbol may stand on; a server that sends more is not describing a contract.
const FILES_MAX: usize = 4_096;

/// A server that describes itself.
#[derive(Debug, Clone)]
pub struct Reflection {
    channel: Channel,
    method: &'static str,
}

impl Reflection {
    /// Finds the version that `channel`'s server speaks, and its services' full names.
    ///
    /// # Errors
    ///
    /// UNIMPLEMENTED if it has no reflection, INTERNAL if it answers nonsense, or what the call
    /// failed with.
    pub async fn of(channel: Channel) -> Result<(Self, Vec<String>), Status> {
        for method in METHODS {
            let reflection = Self {
                channel: channel.clone(),
                method,
            };
            match reflection.ask(Question::ListServices(String::new())).await {
                Ok(Answer::ListServicesResponse(list)) => {
                    let mut names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
                    names.sort();
                    return Ok((reflection, names));
                }
                Ok(_) => return Err(nonsense("list of services")),
                Err(status) if status.code() == Code::Unimplemented => {}
                Err(status) => return Err(status),
            }
        }
        Err(Refusal::Unimplemented
            .status("the server has no reflection; without it its methods cannot be known"))
    }

    /// Everything `symbol` stands on: its file and all that it imports.
    ///
    /// # Errors
    ///
    /// `NOT_FOUND` if the server does not know it, INTERNAL if it answers nonsense, or what the call
    /// failed with.
    pub async fn files(&self, symbol: &str) -> Result<FileDescriptorSet, Status> {
        let mut file = Vec::new();
        for encoded in self.encoded_files(symbol).await? {
            file.push(FileDescriptorProto::decode(&*encoded).map_err(|_| nonsense(symbol))?);
        }
        Ok(FileDescriptorSet { file })
    }

    /// As [`Reflection::files`], byte by byte as the server has them: with the options that are
    /// extensions, for which typed files have no room. In the order of their names.
    ///
    /// # Errors
    ///
    /// As [`Reflection::files`].
    pub async fn encoded_files(&self, symbol: &str) -> Result<Vec<Vec<u8>>, Status> {
        let mut files = BTreeMap::<String, Vec<u8>>::new();
        let mut bytes = 0;
        let mut wanted = VecDeque::from([Question::FileContainingSymbol(symbol.to_owned())]);
        while let Some(question) = wanted.pop_front() {
            if let Question::FileByFilename(name) = &question
                && files.contains_key(name)
            {
                continue;
            }
            let Answer::FileDescriptorResponse(answer) = self.ask(question).await? else {
                return Err(nonsense(symbol));
            };
            for encoded in answer.file_descriptor_proto {
                let file = FileDescriptorProto::decode(&*encoded).map_err(|_| nonsense(symbol))?;
                let imports = file.dependency.iter().cloned();
                wanted.extend(imports.map(Question::FileByFilename));
                bytes += encoded.len();
                files.insert(file.name().to_owned(), encoded);
            }
            if files.len() > FILES_MAX || wanted.len() > FILES_MAX * 16 || bytes > MESSAGE_MAX {
                return Err(nonsense(symbol));
            }
        }
        Ok(files.into_values().collect())
    }

    /// The answer to one question, over a stream of its own.
    ///
    /// # Errors
    ///
    /// What the server refuses it with, `DEADLINE_EXCEEDED` where it takes longer than five seconds,
    /// or what the call failed with.
    pub async fn ask(&self, question: Question) -> Result<Answer, Status> {
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(question),
        };
        let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX);
        let exchange = async {
            client.ready().await?;
            let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
            let requests = tokio_stream::once(request).into_request();
            let path = PathAndQuery::from_static(self.method);
            let mut answers = client.streaming(requests, path, codec).await?.into_inner();
            answers.message().await
        };
        let answer = time::timeout(ANSWER_MAX, exchange).await.map_err(|_| {
            Refusal::DeadlineExceeded
                .status("the server did not answer a question about its services")
        })??;
        match answer.and_then(|answer| answer.message_response) {
            Some(Answer::ErrorResponse(error)) => {
                Err(status::told(error.error_code, error.error_message))
            }
            Some(answer) => Ok(answer),
            None => Err(status::broken("the server ended its reflection unasked")),
        }
    }
}

fn nonsense(what: &str) -> Status {
    status::broken(format!(
        "the server's reflection answers nonsense for {what}"
    ))
}
