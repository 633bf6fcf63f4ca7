//! How an etcd is reached: by the settings that services have for it, given as options.
//!
//! What is given here is kept as the variables by which `up` tells its services, and read back as
//! a service reads them, so that `gantry` and they agree on what is valid and reach it alike.

use std::{collections::BTreeMap, path::Path};

use gantry::{
    app,
    config::{self, Fault, Origin, Sources},
    discovery::etcd::Etcd,
    journal::Journal,
    shutdown::Tasks,
};
use serde::{Deserialize, Serialize};

use crate::{args::EtcdOptions, current_folder, failure::Failure};

/// The section of the settings.
const SECTION: &str = "etcd";

const ENDPOINTS: &str = "GANTRY_ETCD__ENDPOINTS";
const USER: &str = "GANTRY_ETCD__USER";
const PASSWORD: &str = "GANTRY_ETCD__PASSWORD";
const PASSWORD_FILE: &str = "GANTRY_ETCD__PASSWORD__FILE";
const NAME: &str = "GANTRY_ETCD__TLS__SERVER_NAME";

/// Those that name files, in the order of their options.
const FILES: [&str; 4] = [
    "GANTRY_ETCD__TLS__CA",
    "GANTRY_ETCD__TLS__CERTIFICATE",
    "GANTRY_ETCD__TLS__KEY",
    PASSWORD_FILE,
];

/// Keys, and the options that give them; a longer key before those it begins with.
const OPTIONS: [(&str, &str); 8] = [
    ("etcd.endpoints", "--etcd"),
    ("etcd.user", "--etcd-user"),
    ("etcd.password", "--etcd-password-file"),
    ("etcd.tls.ca", "--etcd-ca"),
    ("etcd.tls.certificate", "--etcd-certificate"),
    ("etcd.tls.key", "--etcd-key"),
    ("etcd.tls.server_name", "--etcd-server-name"),
    ("etcd.tls is", "--etcd-ca is"),
];

config::section! {
    /// The part of a service's configuration that is read here.
    struct Settings {
        /// Where services register.
        etcd: section app::Etcd;
    }
}

/// A name and its value.
type Variable = (String, String);
type Variables = Vec<Variable>;

/// How an etcd is reached, without a password.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    variables: BTreeMap<String, String>,
}

impl Access {
    /// As the options say, over the variables of services in our own environment; none where
    /// neither names an etcd.
    ///
    /// # Errors
    ///
    /// If a service would refuse it.
    pub(crate) fn given(options: &EtcdOptions) -> Result<Option<Self>, Failure> {
        Self::given_over(options, &config::variables_of(SECTION))
    }

    fn given_over(options: &EtcdOptions, own: &[Variable]) -> Result<Option<Self>, Failure> {
        let here = current_folder()?;
        let mut variables = BTreeMap::new();
        for (name, value) in own {
            // Services run in the project's folder, which may be another one.
            let value = if FILES.contains(&name.as_str()) && !value.is_empty() {
                absolute(&here, Path::new(value))?
            } else {
                value.clone()
            };
            variables.insert(name.clone(), value);
        }
        // Handed on as it came, and never kept.
        let password = variables.remove(PASSWORD);
        if let Some(urls) = &options.etcd {
            let urls: Vec<_> = urls.split(',').map(str::trim).collect();
            variables.insert(ENDPOINTS.to_owned(), urls.join(","));
        }
        let urls = variables.get(ENDPOINTS);
        if urls.is_none_or(|urls| urls.trim().is_empty()) {
            return options.beside().map_or(Ok(None), |option| {
                Err(Failure::usage(format!(
                    "{option}: expected --etcd URL beside it, or {ENDPOINTS} in the environment"
                )))
            });
        }
        let by_file = variables.contains_key(PASSWORD_FILE);
        if password.is_some() && by_file && options.etcd_password_file.is_none() {
            return Err(Failure::usage(format!(
                "{PASSWORD} and {PASSWORD_FILE} are both set; unset one of them"
            )));
        }
        for (name, text) in [
            (USER, &options.etcd_user),
            (NAME, &options.etcd_server_name),
        ] {
            if let Some(text) = text {
                variables.insert(name.to_owned(), text.clone());
            }
        }
        let files = [
            &options.etcd_ca,
            &options.etcd_certificate,
            &options.etcd_key,
            &options.etcd_password_file,
        ];
        for (name, file) in FILES.into_iter().zip(files) {
            if let Some(file) = file {
                variables.insert(name.to_owned(), absolute(&here, file)?);
            }
        }
        let access = Self { variables };
        access.read(own)?;
        Ok(Some(access))
    }

    /// An etcd of our own, without TLS or users.
    pub(crate) fn local(url: String) -> Self {
        Self {
            variables: BTreeMap::from([(ENDPOINTS.to_owned(), url)]),
        }
    }

    /// The URLs, with commas between them.
    pub(crate) fn urls(&self) -> &str {
        self.variables.get(ENDPOINTS).map_or("", String::as_str)
    }

    /// What a service is told by its environment. A password in a variable of our own it inherits.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.variables.iter();
        variables.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Variables of our own environment that no service may inherit: they are not of this etcd.
    pub(crate) fn foreign(&self) -> Vec<String> {
        self.foreign_of(config::variables_of(SECTION))
    }

    fn foreign_of(&self, own: Variables) -> Vec<String> {
        let own = own.into_iter().map(|(name, _)| name);
        let foreign = own.filter(|name| {
            let inherited = name == PASSWORD && self.wants_password();
            !inherited && !self.variables.contains_key(name)
        });
        foreign.collect()
    }

    /// What of our own environment counts for nothing, in a line; none where all of it does, or an
    /// option is in its place.
    pub(crate) fn ignored(&self) -> Option<String> {
        let mut foreign = self.foreign();
        foreign.retain(|name| name != PASSWORD || !self.variables.contains_key(PASSWORD_FILE));
        foreign.sort();
        (!foreign.is_empty()).then(|| {
            let (names, urls) = (foreign.join(", "), self.urls());
            format!("the services use etcd at {urls} alone; ignored in the environment: {names}")
        })
    }

    /// Whether there is a user whose password has to be in our own environment.
    fn wants_password(&self) -> bool {
        self.variables.contains_key(USER) && !self.variables.contains_key(PASSWORD_FILE)
    }

    /// The settings, with the password where a user wants one.
    pub(crate) fn config(&self) -> Result<app::Etcd, Failure> {
        self.read(&config::variables_of(SECTION))
    }

    fn read(&self, own: &[Variable]) -> Result<app::Etcd, Failure> {
        let secret = own.iter().filter(|(name, _)| {
            self.wants_password() && (name == PASSWORD || name == PASSWORD_FILE)
        });
        let sources = Sources::new().variables(secret.cloned());
        match config::load::<Settings>(sources.variables(self.variables())) {
            Ok(loaded) => Ok(loaded.config().etcd.clone()),
            Err(faults) => {
                let lines: Vec<_> = faults
                    .iter()
                    .map(|fault| self.explain(fault, own))
                    .collect();
                Err(Failure::usage(lines.join("; ")))
            }
        }
    }

    /// A connection, within `tasks`.
    pub(crate) fn connect(&self, tasks: &Tasks) -> Result<Etcd, Failure> {
        Ok(app::etcd(&self.config()?, tasks, &Journal::new()))
    }

    /// A fault in the words of the options, or of the variable in `own` that has it.
    fn explain(&self, fault: &Fault, own: &[Variable]) -> String {
        let user = self
            .variables
            .get(USER)
            .filter(|_| fault.key == "etcd.password");
        if let (Some(user), true) = (user, fault.origin == Origin::Default) {
            return format!(
                "the user {user} of etcd wants a password: set {PASSWORD}, or give \
                 --etcd-password-file FILE"
            );
        }
        if let Origin::Variable(name) = &fault.origin
            && own.iter().any(|own| own.0 == *name && self.holds(own))
        {
            return format!("{name}: {}", fault.reason);
        }
        let said = fault.reason.clone();
        OPTIONS
            .iter()
            .fold(said, |said, (key, option)| said.replace(key, option))
    }

    /// Whether a variable of our own is in force, and no option in its place.
    fn holds(&self, (name, value): &Variable) -> bool {
        let Some(held) = self.variables.get(name) else {
            return true;
        };
        // A path was made to hold in any folder.
        let is_file = FILES.contains(&name.as_str()) && !value.is_empty();
        held == value || (is_file && Path::new(held).ends_with(value))
    }
}

fn absolute(here: &Path, file: &Path) -> Result<String, Failure> {
    let path = here.join(file);
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::usage(format!("{}: a path that is not Unicode", path.display())))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn options(etcd: &str) -> EtcdOptions {
        EtcdOptions {
            etcd: Some(etcd.to_owned()),
            ..EtcdOptions::default()
        }
    }

    /// What options come to: variables, or the line that refuses them.
    fn check(options: &EtcdOptions) -> Result<Vec<(String, String)>, String> {
        let access = Access::given(options).map_err(|failure| failure.to_string())?;
        let access = access.expect("an etcd is named");
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Ok(access.variables().map(owned).collect())
    }

    /// Goal: services are told what the options say, with paths that hold in any folder, and never
    /// a password.
    /// Method: all options; the variables.
    #[test]
    fn options_become_the_variables_of_services() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "hidden\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&secret, mode).unwrap();
        let given = EtcdOptions {
            etcd_ca: Some(PathBuf::from("ca.pem")),
            etcd_certificate: Some(PathBuf::from("/own.pem")),
            etcd_key: Some(PathBuf::from("/own.key")),
            etcd_server_name: Some("etcd.internal".to_owned()),
            etcd_user: Some("gantry".to_owned()),
            etcd_password_file: Some(secret.clone()),
            ..options("https://10.0.0.1:2379, https://10.0.0.2:2379")
        };
        let ca = std::env::current_dir().unwrap().join("ca.pem");
        let expected = [
            (ENDPOINTS, "https://10.0.0.1:2379,https://10.0.0.2:2379"),
            (PASSWORD_FILE, secret.to_str().unwrap()),
            ("GANTRY_ETCD__TLS__CA", ca.to_str().unwrap()),
            ("GANTRY_ETCD__TLS__CERTIFICATE", "/own.pem"),
            ("GANTRY_ETCD__TLS__KEY", "/own.key"),
            ("GANTRY_ETCD__TLS__SERVER_NAME", "etcd.internal"),
            (USER, "gantry"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(Ok(expected.to_vec()), check(&given));
        let config = Access::given(&given).unwrap().unwrap().config().unwrap();
        assert_eq!("hidden", config.password.expose());
        assert_eq!(2, config.endpoints.len());
    }

    fn own(variables: &[(&str, &str)]) -> Variables {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        variables.iter().map(owned).collect()
    }

    /// Goal: variables of the environment name an etcd as options do, with paths that hold in any
    /// folder; options go above them, also a password's file above the password itself.
    /// Method: an etcd by variables alone; the same with options beside it.
    #[test]
    fn options_go_above_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "by file").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&secret, mode).unwrap();
        let environment = own(&[
            (ENDPOINTS, "https://10.0.0.1:2379"),
            ("GANTRY_ETCD__TLS__CA", "pki/ca.pem"),
            ("GANTRY_ETCD__TIMEOUT", "2s"),
            (USER, "gantry"),
            (PASSWORD, "by variable"),
        ]);
        let named = |options: &EtcdOptions| {
            let access = Access::given_over(options, &environment);
            access.unwrap().expect("an etcd is named")
        };
        let access = named(&EtcdOptions::default());
        let ca = std::env::current_dir().unwrap().join("pki/ca.pem");
        assert_eq!("https://10.0.0.1:2379", access.urls());
        assert_eq!(
            ca.to_str().unwrap(),
            access.variables["GANTRY_ETCD__TLS__CA"]
        );
        assert!(!access.variables.contains_key(PASSWORD), "kept");
        let config = access.read(&environment).unwrap();
        assert_eq!("by variable", config.password.expose());
        assert!(access.foreign_of(environment.clone()).is_empty());

        let access = named(&EtcdOptions {
            etcd_user: Some("other".to_owned()),
            etcd_password_file: Some(secret),
            ..options("https://10.0.0.2:2379")
        });
        let config = access.read(&environment).unwrap();
        assert_eq!(
            ("by file", Some("other")),
            (config.password.expose(), config.user.as_deref())
        );
        assert_eq!(["https://10.0.0.2:2379"], config.endpoints[..]);
        assert_eq!([PASSWORD], access.foreign_of(environment)[..]);
    }

    /// Goal: what the environment says of another etcd reaches neither the local one's services nor
    /// those of an etcd without a user.
    /// Method: what is not handed on.
    #[test]
    fn another_etcds_variables_are_foreign() {
        let environment = own(&[
            (USER, "gantry"),
            (PASSWORD, "x"),
            ("GANTRY_ETCD__TLS__CA", "y"),
        ]);
        let local = Access::local("http://127.0.0.1:2379".to_owned());
        let names = environment.iter().map(|(name, _)| name.clone());
        assert_eq!(names.collect::<Vec<_>>(), local.foreign_of(environment));
        let environment = own(&[(PASSWORD, "x")]);
        let open = Access::given_over(&options("http://10.0.0.1:2379"), &environment);
        assert_eq!(
            [PASSWORD],
            open.unwrap().unwrap().foreign_of(environment)[..]
        );
    }

    /// Goal: an option or a variable that says how an etcd is reached, where none is named, is not
    /// taken for one; two passwords are refused, as a service does.
    /// Method: each once.
    #[test]
    fn half_an_etcd_is_none() {
        let user = own(&[(USER, "gantry"), (ENDPOINTS, "")]);
        assert_eq!(
            None,
            Access::given_over(&EtcdOptions::default(), &user).unwrap()
        );
        let ca = EtcdOptions {
            etcd_ca: Some(PathBuf::from("/ca.pem")),
            ..EtcdOptions::default()
        };
        let said = Access::given_over(&ca, &user).unwrap_err().to_string();
        assert!(
            said.contains("--etcd-ca") && said.contains(ENDPOINTS),
            "{said}"
        );
        let both = own(&[(PASSWORD, "hunter2"), (PASSWORD_FILE, "/secret")]);
        let said = Access::given_over(&options("http://10.0.0.1:2379"), &both);
        let said = said.unwrap_err().to_string();
        assert!(
            said.contains(PASSWORD_FILE) && !said.contains("hunter2"),
            "{said}"
        );
    }

    /// Goal: a mistake in the environment is told by the name of its variable, where no option took
    /// its place.
    /// Method: an address that is none, by variable, and by an option above a right one.
    #[test]
    fn mistakes_of_the_environment_are_told_by_variable() {
        let wrong = own(&[(ENDPOINTS, "etcd.internal")]);
        let said = Access::given_over(&EtcdOptions::default(), &wrong).unwrap_err();
        let said = said.to_string();
        assert!(said.starts_with("GANTRY_ETCD__ENDPOINTS: "), "{said}");
        assert!(!said.contains("--etcd"), "{said}");
        let right = own(&[(ENDPOINTS, "http://10.0.0.1:2379")]);
        for beside in [right, own(&[(ENDPOINTS, "")]), own(&[(ENDPOINTS, "it:1")])] {
            let said = Access::given_over(&options("ftp://it:1"), &beside).unwrap_err();
            assert!(!said.to_string().contains(ENDPOINTS), "{said}");
        }
    }

    /// Goal: what cannot be is refused in one line that names the option to mend it, and shows no
    /// password.
    /// Method: each mistake once.
    #[test]
    fn mistakes_are_refused_by_option() {
        let https = || options("https://127.0.0.1:2379");
        let ca = || Some(PathBuf::from("/ca.pem"));
        let cases = [
            (https(), "--etcd-ca beside it"),
            (
                EtcdOptions {
                    etcd_ca: ca(),
                    ..options("http://127.0.0.1:2379")
                },
                "expected https:// as --etcd-ca is set",
            ),
            (
                options("http://gantry:hunter2@127.0.0.1:2379"),
                "who logs in stands in --etcd-user",
            ),
            (options("etcd.internal"), "expected HOST:PORT"),
            (
                EtcdOptions {
                    etcd_ca: ca(),
                    etcd_key: ca(),
                    ..https()
                },
                "--etcd-key",
            ),
            (
                EtcdOptions {
                    etcd_user: Some("gantry".to_owned()),
                    ..options("http://127.0.0.1:2379")
                },
                "the user gantry of etcd wants a password",
            ),
        ];
        for (given, words) in cases {
            let said = check(&given).unwrap_err();
            assert!(said.contains(words), "{words} in {said}");
            assert!(!said.contains("hunter2") && !said.contains('\n'), "{said}");
        }
    }
}
