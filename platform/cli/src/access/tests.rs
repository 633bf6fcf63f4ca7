use std::path::PathBuf;

use super::*;

const ENDPOINTS: &str = "GANTRY_ETCD__ENDPOINTS";
const USER_NAME: &str = "GANTRY_ETCD__USER";
const SECRET: &str = "GANTRY_ETCD__PASSWORD";
const SECRET_FILE: &str = "GANTRY_ETCD__PASSWORD__FILE";

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
        (SECRET_FILE, secret.to_str().unwrap()),
        ("GANTRY_ETCD__TLS__CA", ca.to_str().unwrap()),
        ("GANTRY_ETCD__TLS__CERTIFICATE", "/own.pem"),
        ("GANTRY_ETCD__TLS__KEY", "/own.key"),
        ("GANTRY_ETCD__TLS__SERVER_NAME", "etcd.internal"),
        (USER_NAME, "gantry"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(Ok(expected.to_vec()), check(&given));
    let config = Access::given(&given).unwrap().unwrap().etcd().unwrap();
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
        (USER_NAME, "gantry"),
        (SECRET, "by variable"),
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
    assert!(!access.variables.contains_key(SECRET), "kept");
    let config = access.read(&environment).unwrap().etcd;
    assert_eq!("by variable", config.password.expose());
    assert!(access.foreign_of(environment.clone()).is_empty());

    let access = named(&EtcdOptions {
        etcd_user: Some("other".to_owned()),
        etcd_password_file: Some(secret),
        ..options("https://10.0.0.2:2379")
    });
    let config = access.read(&environment).unwrap().etcd;
    assert_eq!(
        ("by file", Some("other")),
        (config.password.expose(), config.user.as_deref())
    );
    assert_eq!(["https://10.0.0.2:2379"], config.endpoints[..]);
    assert_eq!([SECRET], access.foreign_of(environment)[..]);
}

/// Goal: what the environment says of another etcd reaches neither the local one's services nor
/// those of an etcd without a user.
/// Method: what is not handed on.
#[test]
fn another_etcds_variables_are_foreign() {
    let environment = own(&[
        (USER_NAME, "gantry"),
        (SECRET, "x"),
        ("GANTRY_ETCD__TLS__CA", "y"),
    ]);
    let local = Access::local(Server::Etcd, "http://127.0.0.1:2379".to_owned());
    let names = environment.iter().map(|(name, _)| name.clone());
    assert_eq!(names.collect::<Vec<_>>(), local.foreign_of(environment));
    let environment = own(&[(SECRET, "x")]);
    let open = Access::given_over(&options("http://10.0.0.1:2379"), &environment);
    assert_eq!([SECRET], open.unwrap().unwrap().foreign_of(environment)[..]);
}

/// Goal: an option or a variable that says how an etcd is reached, where none is named, is not
/// taken for one; two passwords are refused, as a service does.
/// Method: each once.
#[test]
fn half_an_etcd_is_none() {
    let user = own(&[(USER_NAME, "gantry"), (ENDPOINTS, "")]);
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
    let both = own(&[(SECRET, "hunter2"), (SECRET_FILE, "/secret")]);
    let said = Access::given_over(&options("http://10.0.0.1:2379"), &both);
    let said = said.unwrap_err().to_string();
    assert!(
        said.contains(SECRET_FILE) && !said.contains("hunter2"),
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

/// Goal: a broker is reached as an etcd is, by options of its own name, which mistakes are told by.
/// Method: a URL, with and without what our own environment says beside; wrong ones.
#[test]
fn a_broker_is_reached_by_options_of_its_own() {
    let options = |url: &str| BrokerOptions {
        broker: Some(url.to_owned()),
        ..BrokerOptions::default()
    };
    let timeout = ("GANTRY_BROKER__CONFIRM_TIMEOUT", "7s");
    let url = ("GANTRY_BROKER__URL", "grpc://127.0.0.1:5670");
    let environment = own(&[timeout, ("GANTRY_BROKER__URL", "grpc://127.0.0.1:1")]);
    let access = Access::given_over(&options(url.1), &environment).unwrap();
    let access = access.expect("a broker is named");
    assert_eq!(vec![timeout, url], access.variables().collect::<Vec<_>>());
    let config = access.read(&environment).unwrap().broker;
    assert_eq!(url.1, config.url.to_string());
    assert!(access.foreign_of(environment.clone()).is_empty());
    let local = Access::local(Server::Broker, url.1.to_owned());
    let names = environment.iter().map(|(name, _)| name.clone());
    let foreign: Vec<_> = names.filter(|name| name != url.0).collect();
    assert_eq!(foreign, local.foreign_of(environment));
    let refused = |options: &BrokerOptions| {
        let said = Access::given_over(options, &[]).unwrap_err().to_string();
        assert!(!said.contains("hunter2"), "{said}");
        said
    };
    let ca = BrokerOptions {
        broker_ca: Some(PathBuf::from("/ca.pem")),
        ..BrokerOptions::default()
    };
    let said = refused(&ca);
    assert!(
        said.starts_with("--broker-ca: expected --broker URL"),
        "{said}"
    );
    let said = refused(&options("grpc://me:hunter2@127.0.0.1:5670"));
    assert!(said.contains("--broker-user"), "{said}");
    let said = refused(&options("127.0.0.1:5670"));
    assert!(said.starts_with("--broker: "), "{said}");
}
