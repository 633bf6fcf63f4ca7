//! A service made for the tests of the gateway: it gives back what it is given.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{Stream, StreamExt as _, stream};
use gantry::contract::{prost::Message as _, prost_types};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _, pb};

mod contracts {
    gantry::include_contracts!();
}

pub use contracts::echo::v1::*;
use echo_service_server::EchoService;

/// The service; clones share what they count.
#[derive(Debug, Clone, Default)]
pub struct Echo {
    /// Streams that were let go of before their end.
    pub dropped: Arc<AtomicUsize>,
    /// The keys it answers with: name, and Ed25519 in base64url.
    pub keys: Arc<Mutex<Vec<(String, String)>>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Counts itself when dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl EchoService for Echo {
    type CountStream = Answers<CountResponse>;
    type SumsStream = Answers<SumsResponse>;
    type SecretsStream = Answers<SecretsResponse>;

    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let EchoRequest {
            message,
            note,
            notes,
        } = request.into_inner();
        Ok(Response::new(EchoResponse {
            message,
            note,
            notes,
        }))
    }

    async fn metadata(
        &self,
        request: Request<MetadataRequest>,
    ) -> Result<Response<MetadataResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        let text = |value: &tonic::codegen::http::HeaderValue| {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        let metadata: HashMap<_, _> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect();
        Ok(Response::new(MetadataResponse { metadata }))
    }

    async fn fail(&self, request: Request<FailRequest>) -> Result<Response<FailResponse>, Status> {
        let request = request.into_inner();
        let code = Code::from_i32(request.code);
        Err(match request.details() {
            fail_request::Details::Unspecified => Status::new(code, request.text),
            fail_request::Details::Retry => {
                let pause = std::time::Duration::from_millis(1_500);
                let details = ErrorDetails::with_retry_info(Some(pause));
                Status::with_error_details(code, request.text, details)
            }
            fail_request::Details::OwnAndUnknown => {
                let detail = |name: &str, value: Vec<u8>| prost_types::Any {
                    type_url: format!("type.googleapis.com/{name}"),
                    value,
                };
                let inner = Inner {
                    name: "own".to_owned(),
                };
                let status = pb::Status {
                    code: request.code,
                    message: request.text.clone(),
                    details: vec![
                        detail("echo.v1.Inner", inner.encode_to_vec()),
                        detail("nobody.Knows", vec![1, 2, 3]),
                    ],
                };
                Status::with_details(code, request.text, status.encode_to_vec().into())
            }
        })
    }

    async fn count(
        &self,
        request: Request<CountRequest>,
    ) -> Result<Response<Answers<CountResponse>>, Status> {
        let request = request.into_inner();
        let dropped = Dropped(Arc::clone(&self.dropped));
        let numbers = stream::iter(1..=i64::from(request.messages))
            .map(|number| Ok(CountResponse { number }));
        let end = async move {
            // With the stream: it is over when this is.
            let _dropped = dropped;
            if request.hang {
                std::future::pending::<()>().await;
            }
            let code = Code::from_i32(request.code);
            (code != Code::Ok).then(|| Err(Status::new(code, "counted enough")))
        };
        let end = stream::once(end).filter_map(std::future::ready);
        Ok(Response::new(Box::pin(numbers.chain(end))))
    }

    async fn sum(
        &self,
        request: Request<Streaming<SumRequest>>,
    ) -> Result<Response<SumResponse>, Status> {
        let mut requests = request.into_inner();
        let mut answer = SumResponse::default();
        while let Some(request) = requests.message().await? {
            answer.sum += request.number;
            answer.count += 1;
        }
        Ok(Response::new(answer))
    }

    async fn sums(
        &self,
        request: Request<Streaming<SumsRequest>>,
    ) -> Result<Response<Answers<SumsResponse>>, Status> {
        let sums = stream::try_unfold(
            (request.into_inner(), 0),
            |(mut requests, sum)| async move {
                let Some(request) = requests.message().await? else {
                    return Ok(None);
                };
                let sum = sum + request.number;
                Ok(Some((SumsResponse { sum }, (requests, sum))))
            },
        );
        Ok(Response::new(Box::pin(sums)))
    }

    async fn secret(
        &self,
        request: Request<SecretRequest>,
    ) -> Result<Response<SecretResponse>, Status> {
        let said = request.metadata().get("authorization");
        let said = said.and_then(|it| it.to_str().ok()).unwrap_or_default();
        Ok(Response::new(SecretResponse {
            authorization: said.to_owned(),
        }))
    }

    async fn secrets(
        &self,
        _: Request<SecretsRequest>,
    ) -> Result<Response<Answers<SecretsResponse>>, Status> {
        let numbers = stream::iter((1..=3).map(|number| Ok(SecretsResponse { number })));
        Ok(Response::new(Box::pin(numbers)))
    }

    async fn staff(&self, _: Request<StaffRequest>) -> Result<Response<StaffResponse>, Status> {
        Ok(Response::new(StaffResponse {}))
    }

    async fn between(
        &self,
        _: Request<BetweenRequest>,
    ) -> Result<Response<BetweenResponse>, Status> {
        Ok(Response::new(BetweenResponse {}))
    }

    async fn keys(&self, _: Request<KeysRequest>) -> Result<Response<KeysResponse>, Status> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = keys.iter().map(|(kid, x)| Key {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            x: x.clone(),
            kid: kid.clone(),
            key_use: "sig".to_owned(),
        });
        Ok(Response::new(KeysResponse {
            keys: keys.collect(),
        }))
    }

    async fn hidden(
        &self,
        request: Request<HiddenRequest>,
    ) -> Result<Response<HiddenResponse>, Status> {
        let data = request.into_inner().data;
        Ok(Response::new(HiddenResponse { data }))
    }
}
