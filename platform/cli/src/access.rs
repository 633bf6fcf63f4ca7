//! How a server that services share is reached, etcd or the broker: by the settings that services have
//! for it, given as options.
//!
//! What is given here is kept as the variables by which `up` tells its services, and read back as
//! a service reads them, so that `gantry` and they agree on what is valid and reach it alike.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::Path};

use gantry::{
    app,
    config::{self, Fault, Origin, Secret, Sources},
    discovery::etcd::Etcd,
    journal::Journal,
    shutdown::Tasks,
};
use gantry_events::broker::{self, Login};
use serde::{Deserialize, Serialize};

use crate::{
    args::{BrokerOptions, EtcdOptions},
    current_folder,
    failure::Failure,
};

config::section! {
    /// The part of a service's configuration that is read here.
    struct Settings {
        /// Where services register.
        etcd: section app::Etcd;
        /// What carries their events.
        broker: section broker::Config;
    }
}

/// A name and its value.
type Variable = (String, String);
type Variables = Vec<Variable>;

/// What services share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Server {
    /// Where they register.
    #[default]
    Etcd,
    /// What carries their events.
    Broker,
}

/// Keys of both sections but for the address, and what options that give them end with.
const KEYS: [(&str, &str); 6] = [
    (USER, "-user"),
    (PASSWORD, "-password-file"),
    (FILES[0], "-ca"),
    (FILES[1], "-certificate"),
    (FILES[2], "-key"),
    (NAME, "-server-name"),
];

const USER: &str = "user";
const PASSWORD: &str = "password";
const NAME: &str = "tls.server_name";

/// Those that name files, in the order of [`Options::files`].
const FILES: [&str; 4] = [
    "tls.ca",
    "tls.certificate",
    "tls.key",
    // The variable that is in the place of the password's.
    "password.file",
];

impl Server {
    /// The section of its settings; its options begin with it, too.
    fn section(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Broker => "broker",
        }
    }

    /// The key that says where it is.
    fn address(self) -> &'static str {
        match self {
            Self::Etcd => "endpoints",
            Self::Broker => "url",
        }
    }

    /// How it is spoken of.
    fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Broker => "the broker",
        }
    }

    /// The variable of a key of its section.
    fn variable(self, key: &str) -> String {
        let path = format!("{}.{key}", self.section());
        format!("GANTRY_{}", path.replace('.', "__").to_uppercase())
    }

    fn files(self) -> [String; 4] {
        FILES.map(|key| self.variable(key))
    }

    /// What of our own environment is about it.
    fn own(self) -> Variables {
        config::variables_of(self.section())
    }
}

/// How a server is reached, as options say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options<'a> {
    server: Server,
    address: Option<&'a str>,
    user: Option<&'a str>,
    server_name: Option<&'a str>,
    /// In the order of [`FILES`].
    files: [Option<&'a Path>; 4],
}

impl<'a> From<&'a EtcdOptions> for Options<'a> {
    fn from(options: &'a EtcdOptions) -> Self {
        let files = [
            &options.etcd_ca,
            &options.etcd_certificate,
            &options.etcd_key,
            &options.etcd_password_file,
        ];
        Self {
            server: Server::Etcd,
            address: options.etcd.as_deref(),
            user: options.etcd_user.as_deref(),
            server_name: options.etcd_server_name.as_deref(),
            files: files.map(Option::as_deref),
        }
    }
}

impl<'a> From<&'a BrokerOptions> for Options<'a> {
    fn from(options: &'a BrokerOptions) -> Self {
        let files = [
            &options.broker_ca,
            &options.broker_certificate,
            &options.broker_key,
            &options.broker_password_file,
        ];
        Self {
            server: Server::Broker,
            address: options.broker.as_deref(),
            user: options.broker_user.as_deref(),
            server_name: options.broker_server_name.as_deref(),
            files: files.map(Option::as_deref),
        }
    }
}

impl Options<'_> {
    fn password_file(&self) -> Option<&Path> {
        self.files[3]
    }

    /// An option that says how the server is reached, where there is one.
    fn beside(&self) -> Option<String> {
        let [ca, certificate, key, password_file] = self.files.map(|file| file.is_some());
        let given = [
            self.user.is_some(),
            password_file,
            ca,
            certificate,
            key,
            self.server_name.is_some(),
        ];
        let mut given = KEYS.into_iter().zip(given).filter(|(_, given)| *given);
        let section = self.server.section();
        given
            .next()
            .map(|((_, end), _)| format!("--{section}{end}"))
    }
}

/// How a server is reached, kept without a password.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    server: Server,
    variables: BTreeMap<String, String>,
    /// The password that stood in the URL, and its variable; told to services, and to nobody else.
    #[serde(skip)]
    password: Option<(String, Secret)>,
}

impl Access {
    /// As the options say, over the variables of services in our own environment; none where
    /// neither names an address.
    ///
    /// # Errors
    ///
    /// If a service would refuse it.
    pub(crate) fn given<'a>(options: impl Into<Options<'a>>) -> Result<Option<Self>, Failure> {
        let options = options.into();
        Self::given_over(options, &options.server.own())
    }

    fn given_over<'a>(
        options: impl Into<Options<'a>>,
        own: &[Variable],
    ) -> Result<Option<Self>, Failure> {
        let options = options.into();
        let server = options.server;
        let here = current_folder()?;
        let mut variables = BTreeMap::new();
        let files = server.files();
        for (name, value) in own {
            // Services run in the project's folder, which may be another one.
            let value = if files.contains(name) && !value.is_empty() {
                absolute(&here, Path::new(value))?
            } else {
                value.clone()
            };
            variables.insert(name.clone(), value);
        }
        let [address, password, password_file] =
            [server.address(), PASSWORD, FILES[3]].map(|key| server.variable(key));
        // Handed on as it came, and never kept.
        let secret = variables.remove(&password);
        if let Some(urls) = options.address {
            let urls: Vec<_> = urls.split(',').map(str::trim).collect();
            variables.insert(address.clone(), urls.join(","));
        }
        let urls = variables.get(&address);
        if urls.is_none_or(|urls| urls.trim().is_empty()) {
            let section = server.section();
            return options.beside().map_or(Ok(None), |option| {
                Err(Failure::usage(format!(
                    "{option}: expected --{section} URL beside it, or {address} in the environment"
                )))
            });
        }
        let by_file = variables.contains_key(&password_file);
        if secret.is_some() && by_file && options.password_file().is_none() {
            return Err(Failure::usage(format!(
                "{password} and {password_file} are both set; unset one of them"
            )));
        }
        for (key, text) in [(USER, options.user), (NAME, options.server_name)] {
            if let Some(text) = text {
                variables.insert(server.variable(key), text.to_owned());
            }
        }
        for (name, file) in files.into_iter().zip(options.files) {
            if let Some(file) = file {
                variables.insert(name, absolute(&here, file)?);
            }
        }
        let mut access = Self {
            server,
            variables,
            password: None,
        };
        if server == Server::Broker {
            access.take_login(&options)?;
        }
        access.read(own)?;
        Ok(Some(access))
    }

    /// Has who logs in stand beside the URL, where it stood in it as URLs of AMQP have it.
    fn take_login(&mut self, options: &Options<'_>) -> Result<(), Failure> {
        let (url, Some(login)) = Login::taken_from(self.urls()) else {
            return Ok(());
        };
        let twice = [
            (options.user.is_some(), "-user"),
            (
                options.password_file().is_some() && !login.password.is_empty(),
                "-password-file",
            ),
        ];
        if let Some((_, end)) = twice.into_iter().find(|(twice, _)| *twice) {
            return Err(Failure::usage(format!(
                "--broker{end}: expected none, as the URL says who logs in"
            )));
        }
        let [address, user, password, file] =
            [self.server.address(), USER, PASSWORD, FILES[3]].map(|key| self.server.variable(key));
        self.variables.insert(address, url);
        self.variables.insert(user, login.user);
        if !login.password.is_empty() {
            self.variables.remove(&file);
            self.password = Some((password, login.password));
        }
        Ok(())
    }

    /// A server of our own, without TLS or users.
    pub(crate) fn local(server: Server, url: String) -> Self {
        Self {
            server,
            variables: BTreeMap::from([(server.variable(server.address()), url)]),
            password: None,
        }
    }

    /// The URLs, with commas between them.
    pub(crate) fn urls(&self) -> &str {
        let address = self.server.variable(self.server.address());
        self.variables.get(&address).map_or("", String::as_str)
    }

    /// What a service is told by its environment. A password in a variable of our own it inherits.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.variables.iter();
        let variables = variables.map(|(name, value)| (name.as_str(), value.as_str()));
        let password = self.password.iter();
        variables.chain(password.map(|(name, value)| (name.as_str(), value.expose())))
    }

    /// Variables of our own environment that no service may inherit: they are not of this server.
    pub(crate) fn foreign(&self) -> Vec<String> {
        self.foreign_of(self.server.own())
    }

    fn foreign_of(&self, own: Variables) -> Vec<String> {
        let password = self.server.variable(PASSWORD);
        let own = own.into_iter().map(|(name, _)| name);
        let foreign = own.filter(|name| {
            let inherited = *name == password && self.wants_password();
            !inherited && !self.variables.contains_key(name)
        });
        foreign.collect()
    }

    /// What of our own environment counts for nothing, in a line; none where all of it does, or an
    /// option is in its place.
    pub(crate) fn ignored(&self) -> Option<String> {
        let mut foreign = self.foreign();
        let [password, by_file] = [PASSWORD, FILES[3]].map(|key| self.server.variable(key));
        foreign.retain(|name| *name != password || !self.variables.contains_key(&by_file));
        foreign.sort();
        (!foreign.is_empty()).then(|| {
            let (names, urls, server) = (foreign.join(", "), self.urls(), self.server.name());
            format!(
                "the services use {server} at {urls} alone; ignored in the environment: {names}"
            )
        })
    }

    /// Whether there is a user whose password has to be in our own environment.
    fn wants_password(&self) -> bool {
        let has = |key| self.variables.contains_key(&self.server.variable(key));
        has(USER) && !has(FILES[3]) && self.password.is_none()
    }

    /// The settings of etcd, with the password where a user wants one.
    pub(crate) fn etcd(&self) -> Result<app::Etcd, Failure> {
        Ok(self.read(&self.server.own())?.etcd)
    }

    /// The settings of the broker, likewise.
    pub(crate) fn broker(&self) -> Result<broker::Config, Failure> {
        Ok(self.read(&self.server.own())?.broker)
    }

    fn read(&self, own: &[Variable]) -> Result<Settings, Failure> {
        let passwords = [PASSWORD, FILES[3]].map(|key| self.server.variable(key));
        let secret = own
            .iter()
            .filter(|(name, _)| self.wants_password() && passwords.contains(name));
        let sources = Sources::new().variables(secret.cloned());
        match config::load::<Settings>(sources.variables(self.variables())) {
            Ok(loaded) => Ok(loaded.config().clone()),
            Err(faults) => {
                let lines: Vec<_> = faults
                    .iter()
                    .map(|fault| self.explain(fault, own))
                    .collect();
                Err(Failure::usage(lines.join("; ")))
            }
        }
    }

    /// A connection to etcd, within `tasks`.
    pub(crate) fn connect(&self, tasks: &Tasks) -> Result<Etcd, Failure> {
        Ok(app::etcd(&self.etcd()?, tasks, &Journal::new()))
    }

    /// A fault in the words of the options, or of the variable in `own` that has it.
    fn explain(&self, fault: &Fault, own: &[Variable]) -> String {
        let (server, section) = (self.server, self.server.section());
        let user = self
            .variables
            .get(&server.variable(USER))
            .filter(|_| fault.key == format!("{section}.{PASSWORD}"));
        if let (Some(user), true) = (user, fault.origin == Origin::Default) {
            return format!(
                "the user {user} of {} wants a password: set {}, or give --{section}-password-file \
                 FILE",
                server.name(),
                server.variable(PASSWORD),
            );
        }
        if let Origin::Variable(name) = &fault.origin
            && own.iter().any(|own| own.0 == *name && self.holds(own))
        {
            return format!("{name}: {}", fault.reason);
        }
        let keys = [(server.address(), "")].into_iter().chain(KEYS);
        // `tls` alone last, and where it is more than the beginning of a key.
        let spelt = keys.clone().chain([("tls is", "-ca is")]);
        let said = spelt.fold(fault.reason.clone(), |said, (key, end)| {
            said.replace(&format!("{section}.{key}"), &format!("--{section}{end}"))
        });
        let mut keys = keys;
        let of = keys.find(|(key, _)| fault.key == format!("{section}.{key}"));
        match of {
            Some((_, end)) if !said.contains(&format!("--{section}")) => {
                format!("--{section}{end}: {said}")
            }
            _ => said,
        }
    }

    /// Whether a variable of our own is in force, and no option in its place.
    fn holds(&self, (name, value): &Variable) -> bool {
        let Some(held) = self.variables.get(name) else {
            return true;
        };
        // A path was made to hold in any folder.
        let is_file = self.server.files().contains(name) && !value.is_empty();
        held == value || (is_file && Path::new(held).ends_with(value))
    }
}

fn absolute(here: &Path, file: &Path) -> Result<String, Failure> {
    let path = here.join(file);
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::usage(format!("{}: a path that is not Unicode", path.display())))
}
