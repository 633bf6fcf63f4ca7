//! Describes every service that is registered, by asking whoever serves it.

use std::{
    collections::BTreeSet,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use gantry::{
    client::{Answer, Question},
    discovery::Services,
    status::{self, Refusal},
};
use tokio::time;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::pb::v1::{
    ErrorResponse, ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse,
    ServiceResponse, server_reflection_server::ServerReflection,
};

use crate::backends::{Backend, Backends};

/// What this port serves itself, beside the backends' services.
const OWN: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Backends that are asked at once.
const ASKED_MAX: usize = 16;
/// How long one of several may take for an answer: one that stands still holds up no other.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long the only one may take that can answer.
const ALONE_MAX: Duration = Duration::from_secs(5);
const UNKNOWN: &str = "no service that is registered knows it";

/// The reflection of all backends as one.
#[derive(Debug, Clone)]
pub struct Merged {
    backends: Backends,
}

impl Merged {
    /// Asks `backends`.
    #[must_use]
    pub fn new(backends: Backends) -> Self {
        Self { backends }
    }
}

/// One stream of questions.
struct Asking {
    requests: Streaming<ServerReflectionRequest>,
    backends: Backends,
    /// Who answered last. Two backends may have another version of the same file: those that belong
    /// together are to come from one.
    last: Option<Arc<Backend>>,
}

impl Asking {
    /// The answer to the next question; none after the last.
    async fn next(&mut self) -> Result<Option<ServerReflectionResponse>, Status> {
        let Some(request) = self.requests.message().await? else {
            return Ok(None);
        };
        let answer = self.answer(request.message_request.clone()).await;
        let answer = answer.unwrap_or_else(|status| {
            Answer::ErrorResponse(ErrorResponse {
                error_code: status.code().into(),
                error_message: status.message().to_owned(),
            })
        });
        Ok(Some(ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(answer),
        }))
    }

    async fn answer(&mut self, question: Option<Question>) -> Result<Answer, Status> {
        let question =
            question.ok_or_else(|| Status::invalid_argument("the request asks nothing"))?;
        let services = self.backends.services()?;
        let asked = match &question {
            Question::ListServices(_) => return Ok(list(&services)),
            Question::FileContainingSymbol(symbol) => serves(&services, symbol),
            _ => None,
        };
        if let Some(name) = asked {
            let alone = BTreeSet::from([Arc::clone(name)]);
            return self.first(alone, question, ALONE_MAX).await;
        }
        if let Some(last) = self.last.clone()
            && let Ok(answer) = ask(&last, question.clone(), ANSWER_MAX).await
        {
            return Ok(answer);
        }
        let everybody = services.values().cloned().collect();
        self.first(everybody, question, ANSWER_MAX).await
    }

    /// The first answer that is one, of those with these names; each has as long as `bound`.
    async fn first(
        &mut self,
        names: BTreeSet<Arc<str>>,
        question: Question,
        bound: Duration,
    ) -> Result<Answer, Status> {
        let backends = self.backends.clone();
        let asked = names.into_iter().map(move |name| {
            let (backends, question) = (backends.clone(), question.clone());
            async move {
                // Not before its turn: a channel is opened where there is none.
                let backend = backends.named(&name);
                let answer = ask(&backend, question, bound).await;
                (backend, answer)
            }
        });
        let mut answers = pin!(stream::iter(asked).buffer_unordered(ASKED_MAX));
        let mut refused: Option<Status> = None;
        while let Some((backend, answer)) = answers.next().await {
            match answer {
                Ok(answer) => {
                    self.last = Some(backend);
                    return Ok(answer);
                }
                Err(status) if refused.as_ref().is_none_or(|it| says(&status) > says(it)) => {
                    refused = Some(status);
                }
                Err(_) => {}
            }
        }
        Err(refused.unwrap_or_else(|| Status::not_found(UNKNOWN)))
    }
}

/// What `backend` answers within `bound`.
async fn ask(backend: &Backend, question: Question, bound: Duration) -> Result<Answer, Status> {
    let answer = time::timeout(bound, backend.ask(question)).await;
    let answer = answer.unwrap_or_else(|_| {
        let text = format!("no answer within {bound:?}");
        Err(Refusal::DeadlineExceeded.status(text))
    });
    answer.map_err(|status| match status.code() {
        Code::NotFound => Status::not_found(UNKNOWN),
        code => {
            let message = status::public(&status).unwrap_or(status.message());
            let name = backend.name();
            Status::new(code, format!("{name} cannot be read: {message}"))
        }
    })
}

/// How much a refusal says where several are asked: one that could not be read may know it, and one
/// without reflection says nothing of what others know.
fn says(refused: &Status) -> u8 {
    match refused.code() {
        Code::Unimplemented => 0,
        Code::NotFound => 1,
        _ => 2,
    }
}

/// The name of who serves `symbol`: a service, or what is in one.
fn serves<'a>(services: &'a Services, symbol: &str) -> Option<&'a Arc<str>> {
    let mut symbol = symbol;
    loop {
        if let Some(name) = services.get(symbol) {
            return Some(name);
        }
        (symbol, _) = symbol.rsplit_once('.')?;
    }
}

fn list(services: &Services) -> Answer {
    let service = services
        .keys()
        .map(ToString::to_string)
        .chain(OWN.map(str::to_owned))
        .map(|name| ServiceResponse { name })
        .collect();
    Answer::ListServicesResponse(ListServiceResponse { service })
}

#[tonic::async_trait]
impl ServerReflection for Merged {
    type ServerReflectionInfoStream =
        Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

    async fn server_reflection_info(
        &self,
        requests: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let headers = requests.metadata().as_ref();
        self.backends.hop().check("a question", headers)?;
        let asking = Asking {
            requests: requests.into_inner(),
            backends: self.backends.clone(),
            last: None,
        };
        let answers = stream::try_unfold(asking, |mut asking| async {
            let answer = asking.next().await?;
            Ok(answer.map(|answer| (answer, asking)))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
