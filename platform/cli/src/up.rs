//! `gantry up`: the whole system, from start to drain.

mod show;
mod surroundings;

use std::{collections::BTreeMap, io, path::Path, sync::Arc, time::Duration};

use gantry::{config, journal::Journal, shutdown::Tasks, transport::server::holder};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::{self, Instant},
};

pub(crate) use self::show::Show;
use self::surroundings::Surroundings;
use crate::{
    Outcome,
    access::Access,
    args::Up,
    block_on, broker, build,
    database::Database,
    failure::{Exit, Failure},
    here,
    project::{self, Project, Service},
    registrations, registry, seed,
    state::{Lock, StateFolder},
    supervisor::{
        Ended, Socket, Spec, State, Supervisor,
        control::{self, Servers},
        logs::{Logs, path_of, tail},
        system::System,
    },
};

/// A start that takes longer than this is talked about; it goes on all the same.
const START_SLOW: Duration = Duration::from_secs(30);

/// How long one instance may drain. Services bound their own drain at 28 s; this is for one that
/// does not.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// How long children may take to be gone after SIGKILL, and our own tasks to end.
const END_MAX: Duration = Duration::from_secs(2);

/// Last lines shown of an instance that would not start.
const LAST_LINES: usize = 20;

pub(crate) fn run(args: &Up) -> Outcome {
    let (mut project, state) = here()?;
    let given = Access::given(&args.etcd)?;
    let database = args.database.as_deref().map(Database::given).transpose()?;
    let given_broker = Access::given(&args.broker)?;
    project.set_demo(args.demo)?;
    for setting in &args.replicas {
        project.set_replicas(setting)?;
    }
    state.create()?;
    let lock = state.lock()?;
    if args.reset {
        state.clear_data()?;
    }
    if args.build {
        build::build(&project)?;
    }
    let ports = (
        registry::KIND.port(args.port_base)?,
        broker::KIND.port(args.port_base)?,
    );
    // What is not there is told of before anything is opened.
    let settings = Settings {
        database: database.as_ref(),
        ..Settings::default()
    };
    specs(&project, &state, settings)?;
    block_on(async {
        let surroundings = Surroundings::open(&project, &state, (given, given_broker), ports)?;
        let sockets = listen(&project, args.port_base)?;
        let settings = Settings {
            sockets: Some(&sockets),
            etcd: Some(&surroundings.etcd_access),
            broker: surroundings.broker_access.as_ref(),
            database: database.as_ref(),
            otlp: args.otlp.as_deref(),
        };
        let specs = specs(&project, &state, settings)?;
        let system = Running::start(args, project, state, &lock, specs, surroundings)?;
        let remarks = [
            database.as_ref().and_then(Database::remark),
            args.broker.remark(),
        ];
        for remark in remarks.into_iter().flatten() {
            system.show.note(remark);
        }
        system.until_stopped().await
    })
}

/// Listens for the services that are reached at an address of their own.
fn listen(project: &Project, port_base: Option<u16>) -> Result<Sockets, Failure> {
    let mut sockets = Sockets::new();
    for (name, service) in &project.services {
        let Some(mut address) = service.listen else {
            continue;
        };
        // With --port-base 0 every port is a free one.
        match port_base {
            Some(base) if address.port() != 0 => address.set_port(base),
            _ => {}
        }
        let socket = Socket::bind(address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Failure::failed(format!(
                "port {} of {name} is taken by {}; move it with --port-base N, \
                 or with [services.{name}] listen in {}",
                address.port(),
                holder::of(address).as_deref().unwrap_or("another process"),
                project::FILE,
            )),
            _ => Failure::failed(format!("[services.{name}] listen {address}: {error}")),
        })?;
        sockets.insert(name.clone(), socket);
    }
    Ok(sockets)
}

/// Where gantry listens for services, by their names.
pub(crate) type Sockets = BTreeMap<String, Socket>;

/// What every service is told of the world around it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settings<'a> {
    /// Where it and others listen.
    pub(crate) sockets: Option<&'a Sockets>,
    /// Where to register, and how that is reached.
    pub(crate) etcd: Option<&'a Access>,
    /// Where to publish events, and to consume them.
    pub(crate) broker: Option<&'a Access>,
    /// Where to keep data, if not in files.
    pub(crate) database: Option<&'a Database>,
    /// Where to send traces.
    pub(crate) otlp: Option<&'a str>,
}

/// Every service of `project`, and how its processes are started.
pub(crate) fn specs(
    project: &Project,
    state: &StateFolder,
    settings: Settings<'_>,
) -> Result<Vec<Spec>, Failure> {
    let mut specs = Vec::new();
    let mut missing = Vec::new();
    for (name, service) in &project.services {
        let program = service
            .program(name, &project.root)
            .map_err(|error| Failure::failed(format!("find gantry's own folder: {error}")))?;
        if !program.is_file() {
            missing.push(program.display().to_string());
        }
        specs.push(Spec {
            service: name.clone(),
            replicas: service.replicas,
            program,
            arguments: arguments(name, &project.root),
            environment: environment(name, service, state, settings)?,
            socket: settings.sockets.and_then(|all| all.get(name)).cloned(),
            hidden: hidden(service, settings),
            folder: project.root.clone(),
            drain_max: DRAIN_MAX,
        });
    }
    if missing.is_empty() {
        Ok(specs)
    } else {
        let missing = missing.join(", ");
        Err(Failure::usage(format!(
            "not built: {missing}; build with `gantry up --build`"
        )))
    }
}

/// Variables of our own environment that are not for the service: those of another etcd or broker,
/// and of a database or a broker where it has none, as it would refuse them.
fn hidden(service: &Service, settings: Settings<'_>) -> Vec<String> {
    let mut hidden = settings.etcd.map(Access::foreign).unwrap_or_default();
    let names_of = |section| {
        let variables = config::variables_of(section).into_iter();
        variables.map(|(name, _)| name).collect::<Vec<_>>()
    };
    if !service.database {
        hidden.extend(names_of("database"));
    }
    hidden.extend(match settings.broker {
        _ if !service.broker => names_of("broker"),
        Some(broker) => broker.foreign(),
        None => Vec::new(),
    });
    hidden
}

/// The service's own configuration file, where it has one; the common one lies beside it.
fn arguments(name: &str, root: &Path) -> Vec<String> {
    let file = format!("config/{name}.toml");
    if root.join(&file).is_file() {
        vec!["--config".to_owned(), file]
    } else {
        Vec::new()
    }
}

fn environment(
    name: &str,
    service: &Service,
    state: &StateFolder,
    Settings {
        sockets,
        etcd,
        broker,
        database,
        otlp,
    }: Settings<'_>,
) -> Result<Vec<(String, String)>, Failure> {
    let mut environment = Vec::new();
    let mut set = |key: &str, value: String| environment.push((key.to_owned(), value));
    if service.database {
        let url = if let Some(database) = database {
            database.url_of(name)?
        } else {
            let file = state.data().join(format!("{name}.db"));
            format!("sqlite://{}", file.display())
        };
        set("GANTRY_DATABASE__URL", url);
    }
    if let Some(access) = etcd {
        for (name, value) in access.variables() {
            set(name, value.to_owned());
        }
        let names = state.data().join("names");
        set("GANTRY_ETCD__SNAPSHOTS", names.display().to_string());
    }
    if let Some(broker) = broker.filter(|_| service.broker) {
        for (name, value) in broker.variables() {
            set(name, value.to_owned());
        }
    }
    if let Some(url) = otlp {
        set("OTEL_EXPORTER_OTLP_ENDPOINT", url.to_owned());
    }
    // Last, so that gantry.toml has the last word.
    for (key, value) in &service.env {
        let sockets = sockets.into_iter().flatten();
        let value = sockets.fold(value.clone(), |value, (name, socket)| {
            value.replace(&format!("{{{name}}}"), &socket.address.to_string())
        });
        set(key, value);
    }
    Ok(environment)
}

/// A started system.
#[derive(Debug)]
struct Running {
    project: Project,
    state: StateFolder,
    supervisor: Supervisor<System>,
    tasks: Tasks,
    show: Show,
    started: Instant,
    signals: Signals,
    stop: watch::Receiver<bool>,
}

/// The signals that end `up`.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

impl Running {
    /// Starts every process. Everything that can be refused has been before the first of them.
    fn start(
        args: &Up,
        project: Project,
        state: StateFolder,
        lock: &Lock,
        specs: Vec<Spec>,
        mut surroundings: Surroundings,
    ) -> Result<Self, Failure> {
        let signals = Signals::new()
            .map_err(|error| Failure::failed(format!("listen for signals: {error}")))?;
        let listener = state.listen(lock)?;
        let tasks = Tasks::new(Journal::new());
        let instances: Vec<_> = specs.iter().flat_map(Spec::instances).collect();
        let logs = Logs::new(state.logs(), &instances, args.output, &tasks);
        let started = Instant::now();
        let broker = surroundings.broker_access.as_ref().map(Access::urls);
        let etcd = surroundings.etcd_access.urls();
        let show = Show::new(logs.clone(), args.output, etcd, broker);
        for ignored in surroundings.ignored() {
            show.note(&ignored);
        }
        surroundings.keep(&state, &tasks, &show);
        let world = Arc::new(System::new(tasks.clone(), logs.clone()));
        let supervisor = Supervisor::start(&world, specs, project.drain_order(), &tasks)?;
        let (stop, stop_asked) = watch::channel(false);
        let members = supervisor.clone();
        let servers = Servers {
            etcd: surroundings.etcd_access,
            broker: surroundings.broker_access,
        };
        let control = control::serve(listener, members, servers, stop, tasks.clone());
        tasks.spawn("control", control);
        show.changes(&supervisor, &tasks);
        Ok(Self {
            project,
            state,
            supervisor,
            tasks,
            show,
            started,
            signals,
            stop: stop_asked,
        })
    }

    async fn until_stopped(mut self) -> Outcome {
        let outcome = tokio::select! {
            failure = come_up(&self.project, &self.supervisor, &self.show, self.started) => {
                Err(failure)
            }
            () = self.signals.next() => Ok(Exit::Fine),
            // The other end lives as long as the control task.
            _ = self.stop.wait_for(|asked| *asked) => Ok(Exit::Fine),
        };
        if let Err(failure) = &outcome {
            self.explain(failure);
        }
        let exit = self.drain().await;
        outcome.map_or_else(|failure| Err(failure.into()), |_| Ok(exit))
    }

    /// Ends everything in order; a further signal ends everything at once.
    async fn drain(&mut self) -> Exit {
        self.show
            .note("draining; Ctrl-C again ends everything at once");
        let exit = tokio::select! {
            () = self.supervisor.drain() => Exit::Fine,
            () = self.signals.next() => {
                // SIGKILL leaves a process no choice, only the kernel some work.
                drop(time::timeout(END_MAX, self.supervisor.kill()).await);
                Exit::Interrupted
            }
        };
        drop(time::timeout(END_MAX, self.show.flushed()).await);
        drop(self.tasks.stop_within(END_MAX).await);
        exit
    }

    /// Shows the last words of an instance that will not start.
    fn explain(&self, failure: &NotUp) {
        let path = path_of(&self.state.logs(), &failure.instance);
        for line in tail(&path, LAST_LINES) {
            self.show.note(&format!("  {line}"));
        }
    }
}

/// An instance that did not start.
#[derive(Debug)]
struct NotUp {
    instance: String,
    ended: Option<Ended>,
}

impl From<NotUp> for Failure {
    fn from(failure: NotUp) -> Self {
        let instance = &failure.instance;
        let (exit, how) = match &failure.ended {
            Some(ended) if ended.is_configuration() => (
                Exit::Usage,
                format!("refused its configuration; see above, or `gantry logs {instance}`"),
            ),
            Some(ended) => (
                Exit::Failed,
                format!("{ended}; see above, or `gantry logs {instance}`"),
            ),
            None => (Exit::Failed, "did not start".to_owned()),
        };
        Self::new(exit, format!("{instance} {how}"))
    }
}

/// Waits until everything serves, fills it, tells people, and then for ever. Returns only if an
/// instance will not start.
async fn come_up(
    project: &Project,
    supervisor: &Supervisor<System>,
    show: &Show,
    started: Instant,
) -> NotUp {
    let serving = supervisor.all_serving();
    tokio::pin!(serving);
    let mut result = time::timeout(START_SLOW, &mut serving).await;
    if result.is_err() {
        show.slow(&supervisor.reports());
        result = Ok(serving.await);
    }
    if let Ok(Err(id)) = result {
        let instance = id.to_string();
        let mut listed = supervisor.list().into_iter();
        let ended = listed
            .find(|listed| listed.instance == instance)
            .and_then(|listed| listed.status.borrow().ended.clone());
        return NotUp { instance, ended };
    }
    let took = started.elapsed();
    for one in &project.seeds {
        let reports = supervisor.reports();
        let serving = reports
            .iter()
            .find(|report| report.row.name == one.service && report.row.state == State::Serving);
        let planted = match serving {
            Some(report) => seed::plant(project, one, &report.row.address).await,
            None => Err(Failure::failed("it does not serve any more")),
        };
        match planted {
            Ok(done) => show.note(&done),
            Err(failure) => show.note(&format!("seeding {}: {failure}", one.service)),
        }
    }
    let mut reports = supervisor.reports();
    registrations::complete(&mut reports).await;
    show.ready(project, &reports, took);
    std::future::pending().await
}
