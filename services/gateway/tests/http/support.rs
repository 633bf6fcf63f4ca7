//! An echo behind a gateway, and a client of plain HTTP.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, sync::atomic::AtomicUsize};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::Map};
use gantry::{
    app::{Identity, testing::Service},
    discovery::{Directory, Services},
};
use gateway_echo::{Echo, echo_service_server::EchoServiceServer};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use crate::token;

pub(crate) const ECHO: &str = "echo.v1.EchoService";

/// A gateway, and the echo that it knows.
pub(crate) struct Edge {
    pub(crate) gateway: Service,
    pub(crate) echo: Service,
    pub(crate) dropped: Arc<AtomicUsize>,
    pub(crate) registered: watch::Sender<Option<Arc<Services>>>,
}

/// An answer of HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) async fn of(response: http::Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        Self {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Each line.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        let lines = self.text().lines();
        lines.map(|it| serde_json::from_str(it).unwrap()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|it| it.to_str().ok())
    }

    /// The field that a refusal names, and what it says of it.
    #[track_caller]
    pub(crate) fn violation(&self) -> (String, String) {
        let violation = &self.json()["details"][0]["fieldViolations"][0];
        let text = |name: &str| violation[name].as_str().unwrap_or_default().to_owned();
        (text("field"), text("description"))
    }
}

fn identity(name: &'static str) -> Identity {
    Identity {
        name,
        version: "0.1.0",
        description: "A service of tests.",
    }
}

/// Starts an echo.
pub(crate) async fn echo() -> (Service, Arc<AtomicUsize>) {
    let echo = Echo::default();
    let keys = vec![token::public("key-1", 1)];
    *echo.keys.lock().unwrap() = keys;
    let dropped = Arc::clone(&echo.dropped);
    let service = Service::start(identity("echo"), "", async move |app| {
        let _: &mut gantry::app::App<()> = app;
        app.serve(EchoServiceServer::new(echo));
        Ok(())
    });
    (service.await.unwrap(), dropped)
}

/// Starts a gateway that finds names at these addresses.
pub(crate) async fn gateway(
    targets: &[(&str, SocketAddr)],
    services: watch::Receiver<Option<Arc<Services>>>,
    settings: &str,
) -> Service {
    let targets = targets
        .iter()
        .map(|(name, address)| format!("[clients.{name}]\ntarget = '{address}'\n"));
    let toml = format!("{settings}\n{}", targets.collect::<String>());
    let directory = Directory::following(services);
    let start =
        async move |app: &mut gantry::app::App<gateway::Config>| gateway::serve(app, directory);
    Service::start(identity("gateway"), &toml, start)
        .await
        .unwrap()
}

/// The directory with these services, each by who serves it.
pub(crate) fn services(services: &[(&str, &str)]) -> Arc<Services> {
    let services = services.iter();
    let services: BTreeMap<Arc<str>, Arc<str>> = services
        .map(|(service, name)| ((*service).into(), (*name).into()))
        .collect();
    Arc::new(services)
}

impl Edge {
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// With these settings of the gateway.
    pub(crate) async fn with(settings: &str) -> Self {
        let (echo, dropped) = echo().await;
        let (registered, known) = watch::channel(Some(services(&[(ECHO, "echo")])));
        let gateway = gateway(&[("echo", echo.address())], known, settings).await;
        Self {
            gateway,
            echo,
            dropped,
            registered,
        }
    }

    /// Stops the echo. One that nobody knows is in its place.
    pub(crate) async fn stop_echo(&mut self) {
        let (unknown, _) = echo().await;
        std::mem::replace(&mut self.echo, unknown).stop().await;
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path), "").await
    }

    /// POST of JSON.
    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = self.request(Method::POST, path);
        self.send(request.header("content-type", "application/json"), body)
            .await
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let url = format!("http://{}{path}", self.gateway.address());
        Request::builder().method(method).uri(url)
    }

    pub(crate) async fn send(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Answer {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = request.body(Full::new(body.into())).unwrap();
        Answer::of(client.request(request).await.unwrap()).await
    }

    /// A request whose body is what is sent, for as long as the sender is kept.
    pub(crate) fn slow(
        &self,
        path: &str,
        content_type: &str,
    ) -> (mpsc::Sender<Bytes>, Request<Slow>) {
        let request = self.request(Method::POST, path);
        slow(request.header("content-type", content_type))
    }
}

/// As [`Edge::slow`], of any request.
pub(crate) fn slow(request: http::request::Builder) -> (mpsc::Sender<Bytes>, Request<Slow>) {
    let (pieces, sent) = mpsc::channel(1);
    let frame: fn(Bytes) -> Result<Frame<Bytes>, std::io::Error> = |piece| Ok(Frame::data(piece));
    let body = StreamBody::new(ReceiverStream::new(sent).map(frame));
    (pieces, request.body(body).unwrap())
}

/// A body as it is sent.
pub(crate) type Slow =
    StreamBody<Map<ReceiverStream<Bytes>, fn(Bytes) -> Result<Frame<Bytes>, std::io::Error>>>;
