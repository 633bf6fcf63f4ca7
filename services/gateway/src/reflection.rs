//! Describes every service that is registered, by asking whoever serves it.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use gantry::client::{Answer, Channel, Question, Reflection};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::pb::v1::{
    ErrorResponse, FILE_DESCRIPTOR_SET, ListServiceResponse, ServerReflectionRequest,
    ServerReflectionResponse, ServiceResponse,
    server_reflection_server::{ServerReflection, ServerReflectionServer},
};

use crate::backends::Backends;

/// What this port serves itself, beside the backends' services.
const OWN: [&str; 2] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
];

/// The reflection of all backends as one.
#[derive(Debug, Clone)]
pub struct Merged {
    backends: Backends,
}

/// Serves it, with its descriptors.
#[must_use]
pub fn server(merged: Merged) -> (ServerReflectionServer<Merged>, &'static [u8]) {
    (ServerReflectionServer::new(merged), FILE_DESCRIPTOR_SET)
}

impl Merged {
    /// Asks `backends`.
    #[must_use]
    pub fn new(backends: Backends) -> Self {
        Self { backends }
    }

    async fn answer(&self, question: Option<Question>) -> Result<Answer, Status> {
        match question {
            Some(Question::ListServices(_)) => self.list(),
            Some(Question::FileContainingSymbol(symbol)) => self.symbol(symbol).await,
            Some(question) => self.first(self.channels()?, question).await,
            None => Err(Status::invalid_argument("the request asks nothing")),
        }
    }

    fn list(&self) -> Result<Answer, Status> {
        let services = self.backends.services()?;
        let service = services
            .keys()
            .map(ToString::to_string)
            .chain(OWN.map(str::to_owned))
            .map(|name| ServiceResponse { name })
            .collect();
        Ok(Answer::ListServicesResponse(ListServiceResponse {
            service,
        }))
    }

    /// The backend of a service is asked alone; of any other symbol, one after the other.
    async fn symbol(&self, symbol: String) -> Result<Answer, Status> {
        let all = self.backends.all()?;
        let serves = all.iter().find(|(service, _)| {
            let rest = symbol.strip_prefix(&**service);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        let asked = match serves {
            Some((_, channel)) => vec![channel.clone()],
            None => self.channels()?,
        };
        self.first(asked, Question::FileContainingSymbol(symbol))
            .await
    }

    /// One channel of each backend.
    fn channels(&self) -> Result<Vec<Channel>, Status> {
        let mut channels: Vec<_> = self.backends.all()?.into_iter().map(|it| it.1).collect();
        channels.sort_by(|one, other| one.name().cmp(other.name()));
        channels.dedup_by(|one, other| one.name() == other.name());
        Ok(channels)
    }

    /// The first answer that is one.
    async fn first(&self, channels: Vec<Channel>, question: Question) -> Result<Answer, Status> {
        let mut refused = Status::not_found("no service that is registered knows it");
        for channel in channels {
            let name = channel.name().to_owned();
            let answer = async {
                let (reflection, _) = Reflection::of(channel).await?;
                reflection.ask(question.clone()).await
            };
            match answer.await {
                Ok(answer) => return Ok(answer),
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) => {
                    let text = format!("{name} cannot be read: {}", status.message());
                    refused = Status::new(status.code(), text);
                }
            }
        }
        Err(refused)
    }
}

/// A refusal, as an answer.
fn told(status: &Status) -> Answer {
    Answer::ErrorResponse(ErrorResponse {
        error_code: status.code().into(),
        error_message: status.message().to_owned(),
    })
}

#[tonic::async_trait]
impl ServerReflection for Merged {
    type ServerReflectionInfoStream =
        Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

    async fn server_reflection_info(
        &self,
        requests: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let merged = self.clone();
        let answers = requests.into_inner().then(move |request| {
            let merged = merged.clone();
            async move {
                let request = request?;
                let answer = merged.answer(request.message_request.clone()).await;
                let answer = answer.unwrap_or_else(|status| told(&status));
                Ok(ServerReflectionResponse {
                    valid_host: request.host.clone(),
                    original_request: Some(request),
                    message_response: Some(answer),
                })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
