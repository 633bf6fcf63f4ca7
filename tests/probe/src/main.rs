//! A service whose every call does what a test asks of it, and which counts what became of each.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::PathBuf,
    pin::Pin,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gantry::{
    BoxError,
    app::{self, App},
    call,
    client::Channel,
};
use tokio::time;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use gantry_probe::{
    CountRequest, CountResponse, EchoRequest, EchoResponse, GatherRequest, GatherResponse,
    HangRequest, HangResponse, OnceRequest, OnceResponse, PanicRequest, PanicResponse, WaitRequest,
    WaitResponse,
    probe_service_client::ProbeServiceClient,
    probe_service_server::{ProbeService, ProbeServiceServer},
};

gantry::config::section! {
    /// What the probe is told.
    pub struct Config {
        /// File to which each id of Once is appended; none keeps no history.
        pub history: Option<PathBuf> = None, restart;
        /// Name under which it answers.
        pub instance: String = "probe".to_owned(), restart;
        /// How many times longer than asked it waits: a slow replica.
        pub slowness: u32 = 1, restart;
    }
}

fn main() -> ExitCode {
    app::run(app::identity!(), start)
}

async fn start(app: &mut App<Config>) -> Result<(), BoxError> {
    let config = app.config().load();
    let history = match &config.history {
        Some(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
        None => None,
    };
    let probe = Probe {
        instance: config.instance.clone(),
        slowness: config.slowness,
        history: Mutex::new(history),
        next: app.client("next"),
        counts: Arc::default(),
    };
    app.serve(ProbeServiceServer::new(probe));
    Ok(())
}

#[derive(Debug)]
struct Probe {
    instance: String,
    slowness: u32,
    history: Mutex<Option<File>>,
    next: ProbeServiceClient<Channel>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    finished: AtomicU64,
    dropped: AtomicU64,
}

/// Counts one handler or stream, by whether it reached its own end.
#[derive(Debug)]
struct Running {
    counts: Arc<Counts>,
    finished: bool,
}

impl Running {
    fn begin(counts: &Arc<Counts>) -> Self {
        counts.begun.fetch_add(1, Ordering::Relaxed);
        Self {
            counts: Arc::clone(counts),
            finished: false,
        }
    }

    fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let count = if self.finished {
            &self.counts.finished
        } else {
            &self.counts.dropped
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ProbeService for Probe {
    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        let running = Running::begin(&self.counts);
        let mut request = request.into_inner();
        if request.hops > 0 {
            request.hops -= 1;
            let answer = self.next.clone().wait(request).await?;
            running.finish();
            return Ok(answer);
        }
        let pause = Duration::from_millis(request.millis.into()) * self.slowness;
        if request.spawned {
            let waiting = call::spawn(async move {
                time::sleep(pause).await;
                running.finish();
            });
            waiting
                .await
                .map_err(|_| Status::internal("the task of the call panicked"))?;
        } else {
            time::sleep(pause).await;
            running.finish();
        }
        Ok(Response::new(WaitResponse {
            instance: self.instance.clone(),
        }))
    }

    async fn once(&self, request: Request<OnceRequest>) -> Result<Response<OnceResponse>, Status> {
        let running = Running::begin(&self.counts);
        let request = request.into_inner();
        if let Some(history) = &mut *self.history.lock().unwrap_or_else(PoisonError::into_inner) {
            writeln!(history, "{}", request.id)
                .map_err(|error| Status::internal(error.to_string()))?;
        }
        time::sleep(Duration::from_millis(request.millis.into())).await;
        running.finish();
        Ok(Response::new(OnceResponse {
            instance: self.instance.clone(),
        }))
    }

    type HangStream = Answers<HangResponse>;

    async fn hang(
        &self,
        request: Request<HangRequest>,
    ) -> Result<Response<Self::HangStream>, Status> {
        let running = Running::begin(&self.counts);
        let mut request = request.into_inner();
        if request.hops > 0 {
            request.hops -= 1;
            let further = self.next.clone().hang(request).await?.into_inner();
            let relayed = further.map(move |answer| {
                let _ = &running;
                answer
            });
            return Ok(Response::new(Box::pin(relayed)));
        }
        let sent =
            tokio_stream::iter((1..=request.messages).map(|number| Ok(HangResponse { number })));
        let stream = sent.chain(tokio_stream::pending()).map(move |answer| {
            let _ = &running;
            answer
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn gather(
        &self,
        request: Request<Streaming<GatherRequest>>,
    ) -> Result<Response<GatherResponse>, Status> {
        let running = Running::begin(&self.counts);
        let mut request = request.into_inner();
        let mut messages = 0;
        while request.message().await?.is_some() {
            messages += 1;
        }
        running.finish();
        Ok(Response::new(GatherResponse { messages }))
    }

    type EchoStream = Answers<EchoResponse>;

    async fn echo(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<Self::EchoStream>, Status> {
        let mut running = Some(Running::begin(&self.counts));
        let messages = request.into_inner().map(Some);
        let answers = messages.chain(tokio_stream::once(None));
        let answers = answers.filter_map(move |message| {
            let Some(message) = message else {
                if let Some(running) = running.take() {
                    running.finish();
                }
                return None;
            };
            Some(message.map(|message| EchoResponse {
                payload: message.payload,
            }))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn panic(&self, _: Request<PanicRequest>) -> Result<Response<PanicResponse>, Status> {
        panic!("asked to");
    }

    async fn count(&self, _: Request<CountRequest>) -> Result<Response<CountResponse>, Status> {
        Ok(Response::new(CountResponse {
            begun: self.counts.begun.load(Ordering::Relaxed),
            finished: self.counts.finished.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
        }))
    }
}
