//! A peer whose answers a test decides by their number, over any number of addresses.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use h2::{SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::time::{self, Instant};
use tonic::Code;

use super::{Net, raw::SERVING, spawn};

/// How a request is answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reply {
    /// With a message and OK.
    Serves,
    /// The same after a time.
    ServesLate(Duration),
    /// With trailers alone, and these pushbacks.
    Fails(Code, &'static [&'static str]),
    /// The same before any of the request is read.
    FailsAtOnce(Code),
    /// With headers, and trailers after a time; together where it is none.
    FailsAfterHeaders(Duration, Code),
    /// With headers, a message, and trailers.
    FailsAfterMessage(Code),
    /// Not at all.
    Hangs,
    /// Not as gRPC.
    IsNoGrpc(u16),
}

/// A request as the peer saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) addr: SocketAddr,
    /// What it said in `grpc-previous-rpc-attempts`.
    pub(super) previous: Option<String>,
    pub(super) body: Vec<u8>,
}

type Answers = Arc<dyn Fn(usize) -> Reply + Send + Sync>;

/// The peer; clones share it.
#[derive(Clone)]
pub(super) struct Script {
    answers: Answers,
    begun: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
    resets: Arc<AtomicUsize>,
}

impl Script {
    /// Answers request by request, wherever it comes.
    pub(super) fn start(
        net: &Net,
        addrs: &[SocketAddr],
        answers: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let script = Self {
            answers: Arc::new(answers),
            begun: Arc::default(),
            seen: Arc::default(),
            resets: Arc::default(),
        };
        for addr in addrs {
            let (addr, mut listener) = (*addr, net.listen(*addr));
            let script = script.clone();
            spawn(async move {
                while let Some(io) = listener.recv().await {
                    let mut connection = h2::server::handshake(io).await.unwrap();
                    let script = script.clone();
                    spawn(async move {
                        while let Some(Ok((request, respond))) = connection.accept().await {
                            spawn(script.clone().handle(addr, request, respond));
                        }
                    });
                }
            });
        }
        script
    }

    /// Requests so far, in the order in which they were whole.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Requests so far, those that are not whole yet included.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// How many of those that hang were given up.
    pub(super) fn resets(&self) -> usize {
        self.resets.load(Ordering::SeqCst)
    }

    async fn handle(
        self,
        addr: SocketAddr,
        request: Request<h2::RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        let reply = (self.answers)(self.begun.fetch_add(1, Ordering::SeqCst));
        let (head, mut body) = request.into_parts();
        let previous = head.headers.get("grpc-previous-rpc-attempts");
        let mut seen = Seen {
            at: Instant::now(),
            addr,
            previous: previous.map(|value| value.to_str().unwrap().to_owned()),
            body: Vec::new(),
        };
        if !matches!(reply, Reply::FailsAtOnce(_)) {
            while let Some(Ok(data)) = body.data().await {
                seen.body.extend(&data);
                drop(body.flow_control().release_capacity(data.len()));
            }
        }
        self.seen.lock().unwrap().push(seen);
        match reply {
            Reply::Hangs => {
                let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                assert_eq!(h2::Reason::CANCEL, reset.unwrap());
                self.resets.fetch_add(1, Ordering::SeqCst);
            }
            Reply::Fails(code, pushback) => trailers_only(&mut respond, code, pushback),
            Reply::FailsAtOnce(code) => trailers_only(&mut respond, code, &[]),
            Reply::FailsAfterHeaders(pause, code) => {
                let stream = begin(&mut respond);
                if !pause.is_zero() {
                    time::sleep(pause).await;
                }
                end(stream, code);
            }
            Reply::Serves => serve(&mut respond, Code::Ok),
            Reply::ServesLate(pause) => {
                time::sleep(pause).await;
                serve(&mut respond, Code::Ok);
            }
            Reply::FailsAfterMessage(code) => serve(&mut respond, code),
            Reply::IsNoGrpc(status) => {
                let head = Response::builder().status(status).body(()).unwrap();
                drop(respond.send_response(head, true));
            }
        }
    }
}

fn head() -> Response<()> {
    let head = Response::builder().header("content-type", "application/grpc");
    head.body(()).unwrap()
}

fn trailers_only(respond: &mut SendResponse<Bytes>, code: Code, pushback: &[&'static str]) {
    let mut head = head();
    let headers = head.headers_mut();
    headers.insert("grpc-status", HeaderValue::from(code as i32));
    for value in pushback {
        let value = HeaderValue::from_static(value);
        headers.append("grpc-retry-pushback-ms", value);
    }
    drop(respond.send_response(head, true));
}

fn begin(respond: &mut SendResponse<Bytes>) -> Option<SendStream<Bytes>> {
    respond.send_response(head(), false).ok()
}

fn end(stream: Option<SendStream<Bytes>>, code: Code) {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code as i32));
    if let Some(mut stream) = stream {
        drop(stream.send_trailers(trailers));
    }
}

fn serve(respond: &mut SendResponse<Bytes>, code: Code) {
    let mut stream = begin(respond);
    if let Some(stream) = &mut stream {
        drop(stream.send_data(Bytes::from_static(SERVING), false));
    }
    end(stream, code);
}
