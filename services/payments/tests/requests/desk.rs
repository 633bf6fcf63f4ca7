//! A bank that answers when a test lets it, and remembers what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use gantry_harness::wait::SOON;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time,
};

/// What the bank has seen so far, the questions for its health apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// The head of each request, in lower case.
    pub(crate) heads: Vec<String>,
    /// Connections on which something was asked, now and at most.
    pub(crate) open: (usize, usize),
    /// Requests without an answer, now and at most.
    pub(crate) waiting: (usize, usize),
    /// Requests whose connection was closed before their answer.
    pub(crate) given_up: usize,
}

/// How many more of each are answered.
#[derive(Debug)]
struct Answers {
    charges: Semaphore,
    refunds: Semaphore,
    /// What all are answered at once, where there is something.
    refusal: Mutex<Option<&'static str>>,
}

/// The bank; ends when dropped.
pub(crate) struct Desk {
    pub(crate) address: SocketAddr,
    seen: watch::Sender<Seen>,
    answers: Arc<Answers>,
    _tasks: JoinSet<()>,
}

impl Seen {
    /// What the last request said in the header `name`.
    pub(crate) fn last(&self, name: &str) -> Option<&str> {
        let mut lines = self.heads.last()?.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
    }
}

impl Desk {
    /// Answers nobody at first.
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Answers {
            charges: Semaphore::new(0),
            refunds: Semaphore::new(0),
            refusal: Mutex::default(),
        };
        let (seen, answers) = (watch::Sender::default(), Arc::new(answers));
        let (noted, given) = (seen.clone(), Arc::clone(&answers));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, noted.clone(), Arc::clone(&given)));
            }
        });
        Self {
            address,
            seen,
            answers,
            _tasks: tasks,
        }
    }

    /// Says yes to so many charges, those that wait first.
    pub(crate) fn take(&self, count: usize) {
        self.answers.charges.add_permits(count);
    }

    /// The same for refunds.
    pub(crate) fn give_back(&self, count: usize) {
        self.answers.refunds.add_permits(count);
    }

    /// Answers all at once with this status and these headers, until told otherwise.
    pub(crate) fn refuse(&self, head: Option<&'static str>) {
        *self.answers.refusal.lock().unwrap() = head;
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// What it has seen once `enough` is true of it.
    pub(crate) async fn until(&self, enough: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.subscribe();
        let found = time::timeout(SOON, seen.wait_for(enough)).await;
        found.expect("it is seen soon").unwrap().clone()
    }
}

fn more(count: &mut (usize, usize)) {
    count.0 += 1;
    count.1 = count.1.max(count.0);
}

async fn serve(stream: TcpStream, seen: watch::Sender<Seen>, answers: Arc<Answers>) {
    let mut stream = BufReader::new(stream);
    let mut counted = false;
    while let Some(head) = request(&mut stream).await {
        if head.starts_with("get /health ") {
            let healthy = "HTTP/1.1 204 No Content\r\n\r\n";
            drop(stream.write_all(healthy.as_bytes()).await);
            continue;
        }
        let answer = if head.starts_with("post /charges ") {
            &answers.charges
        } else {
            &answers.refunds
        };
        seen.send_modify(|seen| {
            seen.heads.push(head);
            more(&mut seen.waiting);
            if !counted {
                more(&mut seen.open);
            }
        });
        counted = true;
        let refusal = *answers.refusal.lock().unwrap();
        if let Some(head) = refusal {
            seen.send_modify(|seen| seen.waiting.0 -= 1);
            let no = format!("HTTP/1.1 {head}\r\nContent-Length: 2\r\n\r\n{{}}");
            if stream.write_all(no.as_bytes()).await.is_err() {
                break;
            }
            continue;
        }
        let answered = tokio::select! {
            answer = answer.acquire() => { answer.unwrap().forget(); true }
            // Nothing more comes before the answer, but an end.
            _ = stream.fill_buf() => false,
        };
        seen.send_modify(|seen| {
            seen.waiting.0 -= 1;
            seen.given_up += usize::from(!answered);
        });
        let yes = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        if !answered || stream.write_all(yes.as_bytes()).await.is_err() {
            break;
        }
    }
    if counted {
        seen.send_modify(|seen| seen.open.0 -= 1);
    }
}

/// The head of the next request, whose body is read too.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|it| it.strip_prefix("content-length:"));
    let length = length.map_or(0, |it| it.trim().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(head)
}
