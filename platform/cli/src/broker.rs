//! The broker of a running `up`: the local one that runs in it, or another in its place.
//!
//! Services are told by the variables of their `[broker]` section, which are read here as a service
//! reads them, so that `gantry` and they agree on what is valid.

use std::collections::BTreeMap;

use gantry::{
    config::{self, Origin, Sources},
    status::chain,
};
use gantry_events::broker::Config;
use gantry_local::broker::{self, Broker, Data, Listen, OpenError};

use crate::{current_folder, failure::Failure, standin::Kind, state::StateFolder};

pub(crate) const KIND: Kind = Kind {
    name: "broker",
    port: 5_670,
    offset: 2,
    option: "--broker",
};

/// The section of the settings.
const SECTION: &str = "broker";

const URL: &str = "GANTRY_BROKER__URL";

/// Variables that name files.
const FILES: [&str; 4] = [
    "GANTRY_BROKER__PASSWORD__FILE",
    "GANTRY_BROKER__TLS__CA",
    "GANTRY_BROKER__TLS__CERTIFICATE",
    "GANTRY_BROKER__TLS__KEY",
];

config::section! {
    /// The part of a service's configuration that is read here.
    struct Settings {
        /// What carries events.
        broker: section Config;
    }
}

/// A name and its value.
type Variable = (String, String);

/// Which broker services use, and how it is reached; without a password in a variable, which they
/// inherit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reached {
    variables: BTreeMap<String, String>,
    /// Whether what our own environment says of a broker is of this one.
    inherits: bool,
}

impl Reached {
    /// The broker that the option names, or else our own environment; none where neither does.
    ///
    /// # Errors
    ///
    /// If a service would refuse it.
    pub(crate) fn given(option: Option<&str>) -> Result<Option<Self>, Failure> {
        Self::given_over(option, &config::variables_of(SECTION))
    }

    fn given_over(option: Option<&str>, own: &[Variable]) -> Result<Option<Self>, Failure> {
        let named = own.iter().find(|(name, _)| name == URL);
        let named = named.map(|(_, url)| url.as_str());
        let Some(url) = option.or(named).filter(|url| !url.trim().is_empty()) else {
            return Ok(None);
        };
        let here = current_folder()?;
        let mut variables = BTreeMap::from([(URL.to_owned(), url.to_owned())]);
        for (name, value) in own {
            if FILES.contains(&name.as_str()) && !value.is_empty() {
                // Services run in the project's folder, which may be another one.
                let path = here.join(value).display().to_string();
                variables.insert(name.clone(), path);
            }
        }
        let reached = Self {
            variables,
            inherits: true,
        };
        let inherited = own
            .iter()
            .filter(|(name, _)| !reached.variables.contains_key(name));
        let sources = Sources::new().variables(inherited.cloned());
        let sources = sources.variables(reached.variables());
        config::load::<Settings>(sources).map_err(|faults| {
            let lines = faults.iter().map(|fault| match &fault.origin {
                Origin::Variable(name) if name == URL && option.is_some() => {
                    format!("--broker: {}", fault.reason)
                }
                Origin::Variable(name) => format!("{name}: {}", fault.reason),
                _ => fault.reason.clone(),
            });
            Failure::usage(lines.collect::<Vec<_>>().join("; "))
        })?;
        Ok(Some(reached))
    }

    /// A broker of our own.
    pub(crate) fn local(url: String) -> Self {
        Self {
            variables: BTreeMap::from([(URL.to_owned(), url)]),
            inherits: false,
        }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> &str {
        self.variables.get(URL).map_or("", String::as_str)
    }

    /// What a service is told by its environment, beside what it inherits.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.variables.iter();
        variables.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Variables of our own environment that no service may inherit: they are not of this broker.
    pub(crate) fn foreign(&self) -> Vec<String> {
        self.foreign_of(config::variables_of(SECTION))
    }

    fn foreign_of(&self, own: Vec<Variable>) -> Vec<String> {
        let own = own.into_iter().map(|(name, _)| name);
        let foreign = own.filter(|name| !self.inherits && !self.variables.contains_key(name));
        foreign.collect()
    }

    /// What of our own environment counts for nothing, in a line; none where all of it does.
    pub(crate) fn ignored(&self) -> Option<String> {
        let mut foreign = self.foreign();
        foreign.sort();
        (!foreign.is_empty()).then(|| {
            let (names, url) = (foreign.join(", "), self.url());
            format!(
                "the services use the broker at {url} alone; ignored in the environment: {names}"
            )
        })
    }
}

/// Variables of our own environment that are for services with a broker alone.
pub(crate) fn all_variables() -> Vec<String> {
    let variables = config::variables_of(SECTION).into_iter();
    variables.map(|(name, _)| name).collect()
}

/// The local broker where it usually is.
pub(crate) fn usual() -> Reached {
    Reached::local(format!("grpc://{}", Kind::address(KIND.port)))
}

/// Opens the local broker on `port`, with the data of earlier runs.
pub(crate) fn open(state: &StateFolder, port: u16) -> Result<Broker, Failure> {
    let config = broker::Config {
        data: Data::Folder(state.data().join("broker")),
        listen: Listen::Address(Kind::address(port)),
        ..broker::Config::default()
    };
    Broker::open(config).map_err(|error| match error {
        OpenError::Listen(error) => KIND.taken(error),
        error => Failure::failed(chain(&error)),
    })
}
