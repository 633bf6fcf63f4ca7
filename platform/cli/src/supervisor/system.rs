//! The real [`World`]: child processes, loopback ports, health over the network.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    pin::pin,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gantry::{
    client::{Channel, Clients, Config},
    journal::Journal,
    shutdown::Tasks,
};
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time,
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{
    logs::Logs,
    machine::Health,
    world::{Ended, Launch, Place, Process, World},
};
use crate::shim;

/// Longest a look at an instance's health may take.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// What tells a process of sockets handed to it: those of gantry itself are not its services'.
const HANDED_ON: [&str; 4] = [
    "LISTEN_FDS",
    "LISTEN_FDS_FIRST_FD",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
];

/// Starts real processes.
#[derive(Debug)]
pub(crate) struct System {
    tasks: Tasks,
    logs: Logs,
    links: Links,
}

impl System {
    /// Children write to `logs`; what reads from them is spawned on `tasks`.
    pub(crate) fn new(tasks: Tasks, logs: Logs) -> Self {
        Self {
            tasks,
            logs,
            links: Links::default(),
        }
    }
}

/// The channels by which running processes are asked for their health.
#[derive(Debug, Clone, Default)]
struct Links {
    open: Arc<Mutex<HashMap<SocketAddr, (Channel, Tasks)>>>,
}

impl Links {
    /// The channel to `address`; connects it the first time.
    fn to(&self, address: SocketAddr) -> Channel {
        let connect = || {
            let tasks = Tasks::new(Journal::new());
            let config = Config {
                // Health is what we ask for.
                health: false,
                ..Config::to(address.to_string())
            };
            let configs = BTreeMap::from([("probe".to_owned(), config)]);
            let clients = Clients::new(configs, tasks.clone(), Journal::new());
            (clients.channel("probe", &[]), tasks)
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (channel, _) = open.entry(address).or_insert_with(connect);
        channel.clone()
    }

    /// Closes the channel to `address`: the process there is gone, and the next one is another.
    fn cut(&self, address: SocketAddr) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, tasks)) = open.remove(&address) {
            tasks.stopping().cancel();
        }
    }
}

impl World for System {
    type Process = Running;

    fn places(&self, count: usize) -> io::Result<Vec<Place>> {
        // All listeners are held until all ports are known, so that none is handed out twice.
        let listeners = (0..count * 2)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<io::Result<Vec<_>>>()?;
        let addresses = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<io::Result<Vec<_>>>()?;
        let place = |pair: &[SocketAddr]| Place {
            address: pair[0],
            shared: false,
            side_address: pair[1],
        };
        Ok(addresses.chunks_exact(2).map(place).collect())
    }

    fn taken(&self, place: Place) -> bool {
        let own = (!place.shared).then_some(place.address);
        let mut own = own.into_iter().chain([place.side_address]);
        own.any(|address| TcpListener::bind(address).is_err())
    }

    fn start(&self, launch: &Launch) -> io::Result<Running> {
        // Checked here because the child would only find out after it is a child.
        fs::metadata(&launch.program)?;
        let mut arguments = vec![
            OsString::from(shim::VERB),
            OsString::from(std::process::id().to_string()),
        ];
        let stdin = match &launch.socket {
            Some(socket) => {
                arguments.push(OsString::from(shim::SOCKET));
                Stdio::from(OwnedFd::from(socket.listener.try_clone()?))
            }
            None => Stdio::null(),
        };
        arguments.extend([
            OsString::from("--"),
            launch.program.clone().into_os_string(),
        ]);
        arguments.extend(launch.arguments.iter().map(OsString::from));
        // This very program, even if a build has replaced its file since.
        let mut command = Command::new("/proc/self/exe");
        let hidden = launch.hidden.iter().map(String::as_str);
        for name in hidden.chain(HANDED_ON) {
            command.env_remove(name);
        }
        let mut child = command
            .args(arguments)
            .envs(launch.environment.iter().map(|(key, value)| (key, value)))
            .current_dir(&launch.folder)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C in the terminal is for gantry, which drains in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().expect("a process not waited for has an id");
        if let Some(out) = child.stdout.take() {
            let read = self.logs.clone().follow(launch.instance.clone(), out);
            self.tasks.spawn("standard output of an instance", read);
        }
        if let Some(err) = child.stderr.take() {
            let read = self.logs.clone().follow(launch.instance.clone(), err);
            self.tasks.spawn("standard error of an instance", read);
        }
        Ok(Running {
            pid,
            child,
            address: launch.place.address,
            links: self.links.clone(),
        })
    }

    async fn probe(&self, place: Place) -> Health {
        let look = async {
            let ready = ready(place.side_address).await;
            // At a shared address another instance may answer.
            ready && (place.shared || serving(self.links.to(place.address)).await)
        };
        match time::timeout(PROBE_MAX, look).await {
            Ok(true) => Health::Serving,
            _ => Health::Not,
        }
    }
}

/// Whether gRPC health says that the process as a whole serves.
async fn serving(channel: Channel) -> bool {
    let request = HealthCheckRequest::default();
    let answer = HealthClient::new(channel).check(request).await;
    answer.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving)
}

/// Whether `GET /readyz` at the side port says 200.
async fn ready(address: SocketAddr) -> bool {
    let look = async || -> Result<bool, gantry::BoxError> {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get("/readyz")
            .header(header::HOST, address.to_string())
            .header(header::CONNECTION, "close")
            .body(Empty::<bytes::Bytes>::new())?;
        let mut answer = pin!(sender.send_request(request));
        let answer = tokio::select! {
            answer = &mut answer => answer,
            // Drives the exchange; at its end the answer is there, or never will be.
            _ = connection => answer.await,
        };
        Ok(answer?.status().is_success())
    };
    look().await.unwrap_or(false)
}

/// A child process, leader of its own group.
#[derive(Debug)]
pub(crate) struct Running {
    pid: u32,
    child: Child,
    address: SocketAddr,
    links: Links,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.links.cut(self.address);
    }
}

impl Running {
    fn id(&self) -> Option<Pid> {
        // Only while it has not been waited for: after that, its number may be another's.
        self.child
            .id()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
    }
}

impl Process for Running {
    fn pid(&self) -> u32 {
        self.pid
    }

    async fn wait(&mut self) -> Ended {
        match self.child.wait().await {
            Ok(status) => ended(status),
            Err(error) => Ended::Failed(error.to_string()),
        }
    }

    fn drain(&self) {
        if let Some(pid) = self.id() {
            // It may have ended by now; then it is waited for next.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    fn kill(&self) {
        if let Some(pid) = self.id() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Code(code),
        (None, Some(signal)) => Ended::Signal(signal),
        (None, None) => Ended::Failed("neither exited nor was ended".to_owned()),
    }
}

/// Memory of a process that lies in RAM; 0 when it is gone.
pub(crate) fn rss_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| {
        let value = line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?;
        value.trim().parse::<u64>().ok()
    });
    kilobytes.unwrap_or_default() * 1_024
}
