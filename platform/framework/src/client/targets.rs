//! The targets of one process.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use http::uri::Authority;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use super::{Channel, Config, Target, methods::Throttles, repeats::REPEATS_MAX, rules::Guards};
use crate::{
    balance::{self, Balancer, NotSet, Snapshot},
    breaker::{self, Order},
    config::Live,
    contract::{self, Method},
    discovery::{self, Dns, Resolution, Resolve},
    journal::Journal,
    limit::{
        board::{Fill, Kind},
        bulkhead::Bulkhead,
    },
    policy::{Policies, Policy},
    retry::{self, Allowance, Bounds, Spent, Terms},
    shutdown::Tasks,
    transport::subchannel::{self, CONNECTS_MAX, Common, Connect, Tcp},
};

/// The targets of one process: each name is resolved and connected once, however many clients
/// use it. Clones share everything.
#[derive(Debug, Clone)]
pub struct Clients {
    shared: Arc<Shared>,
}

struct Shared {
    configs: BTreeMap<String, Config>,
    /// The same as they change; only what is marked as live in them is read from here.
    live: Live<BTreeMap<String, Config>>,
    /// Where this process runs.
    zone: Option<Arc<str>>,
    resolvers: HashMap<String, Arc<dyn Resolve>>,
    connector: Option<Arc<dyn Connect>>,
    /// What kind of name a target is that is not configured.
    default_scheme: Option<String>,
    tasks: Tasks,
    journal: Journal,
    policies: Policies,
    /// Methods that are called, by their clients and full names.
    methods: Mutex<BTreeMap<(String, &'static str), &'static Method>>,
    targets: Mutex<BTreeMap<String, Arc<Target>>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("configs", &self.configs)
            .finish_non_exhaustive()
    }
}

/// One target and its endpoints at one moment.
#[derive(Debug, Clone)]
pub struct TargetState {
    /// Its name, as configured.
    pub name: Arc<str>,
    /// Its endpoints, in the resolver's order.
    pub endpoints: Vec<Snapshot>,
}

impl Clients {
    /// Knows the targets in `configs` and connects none yet. Their tasks belong to `tasks`: when
    /// those are stopped, connections are closed. Changes of endpoints are written to `journal`.
    #[must_use]
    pub fn new(configs: BTreeMap<String, Config>, tasks: Tasks, journal: Journal) -> Self {
        let dns: Arc<dyn Resolve> = Arc::new(Dns::new(tasks.clone()));
        let shared = Shared {
            live: Live::fixed(configs.clone()),
            configs,
            zone: None,
            resolvers: HashMap::from([("dns".to_owned(), dns)]),
            connector: None,
            default_scheme: None,
            tasks,
            journal,
            policies: Policies::default(),
            methods: Mutex::default(),
            targets: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Follows `configs` in what may change while the process runs.
    ///
    /// # Panics
    ///
    /// If the clients are in use already.
    #[must_use]
    pub fn following(mut self, configs: Live<BTreeMap<String, Config>>) -> Self {
        self.unshared().live = configs;
        self
    }

    /// Resolves names of the form `scheme:///name` by `resolver`.
    ///
    /// # Panics
    ///
    /// If the clients are in use already.
    #[must_use]
    pub fn with_resolver(mut self, scheme: &str, resolver: Arc<dyn Resolve>) -> Self {
        self.unshared()
            .resolvers
            .insert(scheme.to_owned(), resolver);
        self
    }

    /// Takes the name of a target that is not configured for a name of `scheme`.
    ///
    /// # Panics
    ///
    /// If the clients are in use already.
    #[must_use]
    pub fn with_default_scheme(mut self, scheme: &str) -> Self {
        self.unshared().default_scheme = Some(scheme.to_owned());
        self
    }

    /// Prefers endpoints in `zone`, where this process runs.
    ///
    /// # Panics
    ///
    /// If the clients are in use already.
    #[must_use]
    pub fn with_zone(mut self, zone: Option<&str>) -> Self {
        self.unshared().zone = zone.map(Into::into);
        self
    }

    /// Connects through `connector` in place of TCP, as tests do.
    ///
    /// # Panics
    ///
    /// If the clients are in use already.
    #[must_use]
    pub fn with_connector(mut self, connector: Arc<dyn Connect>) -> Self {
        self.unshared().connector = Some(connector);
        self
    }

    /// Has calls follow `policies`; without them they follow the defaults.
    ///
    /// # Panics
    ///
    /// If the clients are in use already.
    #[must_use]
    pub fn with_policies(mut self, policies: Policies) -> Self {
        self.unshared().policies = policies;
        self
    }

    fn unshared(&mut self) -> &mut Shared {
        Arc::get_mut(&mut self.shared).expect("clients are set up before they are shared")
    }

    /// A client of the target `name`. The first one starts to connect it in the background;
    /// nothing waits and nothing fails here: calls to a target that is not configured do.
    #[must_use]
    pub fn client<C: contract::Client<Channel>>(&self, name: &str) -> C {
        C::from_channel(self.channel(name, C::METHODS))
    }

    /// A channel to the target `name` for calling `methods`, whose unary ones have a default
    /// deadline. See [`Clients::client`].
    #[must_use]
    pub fn channel(&self, name: &str, methods: &'static [Method]) -> Channel {
        let called = methods.iter();
        let called = called.map(|method| ((name.to_owned(), method.full_name()), method));
        self.methods_called().extend(called);
        let mut targets = self.targets();
        let target = targets
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(self.shared.start(name)));
        Channel::new(Arc::clone(target), methods, &self.shared.policies)
    }

    /// Lets go of the target `name`: it ends with the last channel to it, and a channel that is
    /// asked for later is another one.
    pub fn release(&self, name: &str) {
        drop(self.targets().remove(name));
    }

    /// The full names of all methods that some client here has by its contract.
    #[must_use]
    pub fn methods(&self) -> BTreeSet<&'static str> {
        let methods = self.methods_called();
        methods.keys().map(|(_, method)| *method).collect()
    }

    /// The same with the client of each.
    #[must_use]
    pub fn calls(&self) -> Vec<(String, &'static Method)> {
        let methods = self.methods_called();
        let each = methods.iter();
        each.map(|((client, _), method)| (client.clone(), *method))
            .collect()
    }

    /// What calls of a method by its full name can come to by `policy`, for each client it is called
    /// through.
    #[must_use]
    pub fn bounds(&self, method: &str, policy: &Policy) -> Vec<(String, Bounds)> {
        let calls = self.calls().into_iter();
        let calls = calls.filter(|(_, called)| called.full_name() == method);
        calls
            .map(|(client, method)| {
                let config = self.shared.configs.get(&client).cloned();
                let config = config.unwrap_or_default();
                let share = self.targets().get(&client).map(|it| it.allowance.share());
                let default = method.is_unary().then_some(config.timeout_default);
                let terms = Terms {
                    idempotency: method.idempotency,
                    client_streaming: method.client_streaming,
                    timeout: policy.timeout().or(default),
                    wait_max: config.fail_fast,
                    repeats_max: REPEATS_MAX,
                    share: share.unwrap_or_default(),
                };
                let policy = retry::Policy::new(&policy.retry, &policy.hedge);
                (client, policy.bounds(&terms))
            })
            .collect()
    }

    /// Every target in use, with its endpoints as they are now.
    #[must_use]
    pub fn states(&self) -> Vec<TargetState> {
        self.targets()
            .values()
            .map(|target| TargetState {
                name: Arc::clone(&target.name),
                endpoints: target.balancer.endpoints(),
            })
            .collect()
    }

    /// The breaker of every endpoint of the targets in use, as it is now.
    #[must_use]
    pub fn breakers(&self) -> Vec<(Arc<str>, SocketAddr, breaker::Snapshot)> {
        let targets: Vec<_> = self.targets().values().cloned().collect();
        let each = targets.iter().flat_map(|target| {
            let breakers = target.balancer.breakers().into_iter();
            breakers.map(|(addr, snapshot)| (Arc::clone(&target.name), addr, snapshot))
        });
        each.collect()
    }

    /// Has the breaker of one endpoint of the target `name`, or those of all, do as `order` says until
    /// `until` or for ever, see [`Balancer::set_breakers`].
    ///
    /// # Errors
    ///
    /// If there is no such target or endpoint, or something was said of too many.
    pub fn set_breakers(
        &self,
        name: &str,
        addr: Option<SocketAddr>,
        order: Order,
        until: Option<Instant>,
    ) -> Result<(), NotSet> {
        let target = self.targets().get(name).cloned();
        let target = target.ok_or(NotSet::Unknown)?;
        target.balancer.set_breakers(addr, order, until)
    }

    /// Every limit on what is asked of the targets in use, with what it holds at `now`.
    #[must_use]
    pub fn limits(&self, now: Instant) -> Vec<Fill> {
        let targets: Vec<_> = self.targets().values().cloned().collect();
        targets
            .iter()
            .flat_map(|target| target.fills(now))
            .collect()
    }

    fn methods_called(
        &self,
    ) -> std::sync::MutexGuard<'_, BTreeMap<(String, &'static str), &'static Method>> {
        let methods = self.shared.methods.lock();
        methods.unwrap_or_else(PoisonError::into_inner)
    }

    fn targets(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Target>>> {
        self.shared
            .targets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn start(&self, name: &str) -> Target {
        let config = self.configs.get(name).cloned().unwrap_or_default();
        let by_name = || {
            let scheme = self.default_scheme.as_ref()?;
            Some(format!("{scheme}:///{name}"))
        };
        let target = config.target.clone().or_else(by_name);
        let target = target.as_deref().map(str::parse::<discovery::Target>);
        let authority = match &target {
            Some(Ok(target)) => target.authority(),
            _ => None,
        };
        let connector = self.connector(&config, authority.as_ref());
        let builder = balance::Builder {
            name: name.into(),
            authority,
            fail_fast: config.fail_fast,
            common: Common {
                config: Arc::new(config.subchannel()),
                connector,
                tasks: self.tasks.clone(),
                on_change: Arc::new(Notify::new()),
                connects: Arc::new(Semaphore::new(CONNECTS_MAX)),
            },
            journal: self.journal.clone(),
            config: self.balance(name),
            zone: self.zone.clone(),
            seed: balance::Builder::process_seed(),
        };
        let balancer = match target {
            Some(Ok(discovery::Target::Fixed(addrs))) => {
                Balancer::constant(builder, Resolution::new(addrs))
            }
            Some(Ok(discovery::Target::Named { scheme, name })) => {
                match self.resolvers.get(&scheme) {
                    Some(resolver) => Balancer::start(builder, Arc::clone(resolver), &name),
                    None => broken(builder, format!("no resolver knows `{scheme}:///` names")),
                }
            }
            Some(Err(error)) => broken(builder, error.to_string()),
            None => broken(builder, format!("clients.{name}.target is not set")),
        };
        let target: Arc<str> = name.into();
        Target {
            balancer,
            timeout_default: config.timeout_default,
            guards: Guards::follow(&self.live, name),
            bulkhead: Bulkhead::default(),
            allowance: Allowance::new(&target),
            throttles: Throttles::default(),
            name: target,
        }
    }

    fn balance(&self, name: &str) -> Live<balance::Config> {
        let (name, default) = (name.to_owned(), Config::default());
        self.live.derive(move |configs| {
            let config = configs.get(&name).unwrap_or(&default);
            config.balance.clone()
        })
    }

    fn connector(&self, config: &Config, authority: Option<&Authority>) -> Arc<dyn Connect> {
        let plain: Arc<dyn Connect> = match &self.connector {
            Some(connector) => Arc::clone(connector),
            None => Arc::new(Tcp),
        };
        let Some(tls) = &config.tls else {
            return plain;
        };
        let server_name = tls
            .server_name
            .clone()
            .or_else(|| authority.map(|authority| authority.host().to_owned()));
        Arc::new(subchannel::Tls::new(plain, tls.files(), server_name))
    }
}

impl Target {
    fn fills(&self, now: Instant) -> Vec<Fill> {
        let Guards {
            calls_max,
            throttled,
        } = self.guards.read(|guards| *guards);
        let spent = |kind, spent: Spent| Fill {
            max: Some(spent.max),
            refused: spent.refused,
            ..Fill::new(kind, spent.used)
        };
        let mut fills = vec![
            self.bulkhead.fill(calls_max),
            spent(Kind::RetryBudget, self.allowance.budget_spent(now)),
            spent(Kind::RetryTokens, self.allowance.tokens_spent()),
        ];
        if throttled {
            fills.extend(self.throttles.fills(now));
        }
        for fill in &mut fills {
            fill.client = self.name.to_string();
        }
        fills
    }
}

/// A target whose calls fail, saying why.
fn broken(builder: balance::Builder, error: String) -> Balancer {
    tracing::warn!(
        client = &*builder.name,
        error,
        "calls to this target will fail"
    );
    let resolution = Resolution {
        error: Some(error.into()),
        ..Resolution::default()
    };
    Balancer::constant(builder, resolution)
}
