//! Counts the requests of HTTP on their way to a service, and how many are there at once.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use hyper::{Request, Response, Uri, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{net::TcpListener, task::JoinSet};

/// In front of one address; ends when dropped.
#[derive(Debug)]
pub struct Turnstile {
    /// Where to connect in place of the real address.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Counts {
    passed: AtomicUsize,
    within: AtomicUsize,
    most: AtomicUsize,
}

/// One request that is there, until dropped.
struct Within<'a>(&'a Counts);

impl<'a> Within<'a> {
    fn enter(counts: &'a Counts) -> Self {
        counts.passed.fetch_add(1, SeqCst);
        let within = counts.within.fetch_add(1, SeqCst) + 1;
        counts.most.fetch_max(within, SeqCst);
        Self(counts)
    }
}

impl Drop for Within<'_> {
    fn drop(&mut self) {
        self.0.within.fetch_sub(1, SeqCst);
    }
}

impl Turnstile {
    /// Passes requests on to `target`. Those for a path of `uncounted` are not counted.
    ///
    /// # Panics
    ///
    /// If there is no port.
    pub async fn to(target: SocketAddr, uncounted: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        let counts = Arc::<Counts>::default();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&counts);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (client, counts) = (client.clone(), Arc::clone(&shared));
                let pass = service_fn(move |request: Request<Incoming>| {
                    let (client, counts) = (client.clone(), Arc::clone(&counts));
                    async move {
                        let counted = request.uri().path() != uncounted;
                        let _within = counted.then(|| Within::enter(&counts));
                        pass(&client, target, request).await
                    }
                });
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), pass);
                connections.spawn(async move {
                    // Whoever went away has heard what there was to hear.
                    drop(connection.await);
                });
            }
        });
        Self {
            address,
            counts,
            _tasks: tasks,
        }
    }

    /// Requests that have come so far.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.counts.passed.load(SeqCst)
    }

    /// Requests that are not answered yet.
    #[must_use]
    pub fn within(&self) -> usize {
        self.counts.within.load(SeqCst)
    }

    /// The most that were there at once since this was last asked.
    #[must_use]
    pub fn most(&self) -> usize {
        self.counts.most.swap(0, SeqCst)
    }
}

async fn pass(
    client: &Client<HttpConnector, Incoming>,
    target: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>, Error> {
    let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
    let url = format!("http://{target}{path}");
    *request.uri_mut() = url.parse::<Uri>().expect("an address and a path");
    client.request(request).await
}
