//! An OTLP receiver: keeps the spans that services export.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value},
};
use tokio::{net::TcpListener, task::AbortHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::wait;

/// A span and the service it came from.
#[derive(Debug, Clone)]
pub struct Received {
    /// `service.name` of the resource.
    pub service: String,
    /// The span.
    pub span: Span,
}

/// Receives spans until dropped.
#[derive(Debug)]
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    spans: Spans,
    serving: AbortHandle,
}

type Spans = Arc<Mutex<Vec<Received>>>;

impl Collector {
    /// Begins to receive.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let spans = Spans::default();
        let receiver = TraceServiceServer::new(Receiver(Arc::clone(&spans)));
        let serving = Server::builder()
            .add_service(receiver)
            .serve_with_incoming(TcpListenerStream::new(listener));
        // Owned by this handle and ended with it.
        #[allow(clippy::disallowed_methods)]
        let serving = tokio::spawn(serving).abort_handle();
        Self {
            address,
            spans,
            serving,
        }
    }

    /// What came so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Received> {
        self.spans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits for a trace that has spans of all `services`; returns all its spans.
    pub async fn trace_over(&self, services: &[&str]) -> Vec<Received> {
        self.trace_of(services, |it| it.service.clone()).await
    }

    /// Waits for a trace that has spans of all these names; returns all its spans.
    pub async fn trace_with(&self, names: &[&str]) -> Vec<Received> {
        self.trace_of(names, |it| it.span.name.clone()).await
    }

    async fn trace_of(&self, wanted: &[&str], of: impl Fn(&Received) -> String) -> Vec<Received> {
        let wanted: BTreeSet<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
        wait::until(
            "one trace with all that is wanted",
            Duration::from_secs(30),
            async || {
                let spans = self.spans();
                let traces: BTreeSet<_> = spans.iter().map(|it| it.span.trace_id.clone()).collect();
                traces.into_iter().find_map(|trace| {
                    let members: Vec<_> = spans
                        .iter()
                        .filter(|it| it.span.trace_id == trace)
                        .cloned()
                        .collect();
                    let names = members.iter().map(&of).collect();
                    wanted.is_subset(&names).then_some(members)
                })
            },
        )
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The value of an attribute, for assertions.
#[must_use]
pub fn text(attribute: &KeyValue) -> String {
    match attribute.value.as_ref().and_then(|it| it.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

#[derive(Debug)]
struct Receiver(Spans);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.into_inner().resource_spans {
            let attributes = resource
                .resource
                .map(|it| it.attributes)
                .unwrap_or_default();
            let name = attributes.into_iter().find(|it| it.key == "service.name");
            let service = match name.and_then(|it| it.value).and_then(|it| it.value) {
                Some(any_value::Value::StringValue(name)) => name,
                _ => String::new(),
            };
            for span in resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
            {
                let service = service.clone();
                spans.push(Received { service, span });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
