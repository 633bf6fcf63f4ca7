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

/// How an etcd is reached, without a password.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    variables: BTreeMap<String, String>,
}

impl Access {
    /// As the options say, over the variables of services in our own environment; none where no
    /// etcd is named.
    ///
    /// # Errors
    ///
    /// If a service would refuse it.
    pub(crate) fn given(options: &EtcdOptions) -> Result<Option<Self>, Failure> {
        let Some(urls) = &options.etcd else {
            return Ok(None);
        };
        let own = config::variables_of(SECTION).into_iter();
        let mut variables: BTreeMap<_, _> = own.filter(|(name, _)| *name != PASSWORD).collect();
        let urls: Vec<_> = urls.split(',').map(str::trim).collect();
        variables.insert(ENDPOINTS.to_owned(), urls.join(","));
        if let Some(user) = &options.etcd_user {
            variables.insert(USER.to_owned(), user.clone());
        }
        if let Some(name) = &options.etcd_server_name {
            variables.insert("GANTRY_ETCD__TLS__SERVER_NAME".to_owned(), name.clone());
        }
        let here = current_folder()?;
        let files = [
            ("GANTRY_ETCD__TLS__CA", &options.etcd_ca),
            ("GANTRY_ETCD__TLS__CERTIFICATE", &options.etcd_certificate),
            ("GANTRY_ETCD__TLS__KEY", &options.etcd_key),
            (PASSWORD_FILE, &options.etcd_password_file),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                // Services run in the project's folder, which may be another one.
                variables.insert(name.to_owned(), absolute(&here, file)?);
            }
        }
        let access = Self { variables };
        access.config()?;
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

    /// The settings, with the password where a user wants one.
    pub(crate) fn config(&self) -> Result<app::Etcd, Failure> {
        let mut sources = Sources::new().variables(self.variables());
        if self.variables.contains_key(USER) {
            let own = config::variables_of(SECTION).into_iter();
            let secret = own.filter(|(name, _)| name == PASSWORD || name == PASSWORD_FILE);
            // Of two for one key the later holds.
            sources = Sources::new().variables(secret).variables(self.variables());
        }
        match config::load::<Settings>(sources) {
            Ok(loaded) => Ok(loaded.config().etcd.clone()),
            Err(faults) => {
                let lines: Vec<_> = faults.iter().map(|fault| self.explain(fault)).collect();
                Err(Failure::usage(lines.join("; ")))
            }
        }
    }

    /// A connection, within `tasks`.
    pub(crate) fn connect(&self, tasks: &Tasks) -> Result<Etcd, Failure> {
        Ok(app::etcd(&self.config()?, tasks, &Journal::new()))
    }

    /// A fault in the words of the options.
    fn explain(&self, fault: &Fault) -> String {
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
        let said = OPTIONS
            .iter()
            .fold(fault.reason.clone(), |said, (key, option)| {
                said.replace(key, option)
            });
        match &fault.origin {
            Origin::Variable(name) if !self.variables.contains_key(name) => {
                format!("{name}: {said}")
            }
            _ => said,
        }
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
