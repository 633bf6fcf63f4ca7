//! What the parts of this module promise together.

mod faults;
mod layers;
mod process;
mod reload;
mod restart;
mod secrets;

use std::{net::SocketAddr, time::Duration};

use super::*;

choice! {
    /// How lines look.
    enum Format {
        /// For people.
        Text = "text",
        /// For machines.
        Json = "json",
    }
}

section! {
    /// Where it listens.
    struct Listen {
        /// Address and port.
        /// Port 0 lets the system choose.
        address: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 0)), restart;
        /// Connections at most.
        connections_max: usize = 100, in 1..=10_000, live;
    }
}

section! {
    /// Waits.
    struct Retry {
        /// Shortest wait.
        wait_min: Duration = Duration::from_millis(50), live;
        /// Longest wait.
        wait_max: Duration = Duration::from_secs(2), live;
    }
    validate = Retry::check;
}

impl Retry {
    fn check(&self, check: &mut Check<'_, '_>) {
        if self.wait_max < self.wait_min {
            check.refuse("wait_max", "expected no less than wait_min");
        }
    }
}

section! {
    /// A peer.
    struct Peer {
        /// Where it is.
        target: Option<String> = None, restart;
        /// Its waits.
        retry: section Retry;
    }
}

section! {
    /// Everything.
    struct Root {
        /// Where it listens.
        listen: section Listen;
        /// Peers by name.
        peers: map of Peer, live;
        /// One to fall back to.
        fallback: optional section Peer, restart;
        /// How lines look.
        format: Format = Format::Text, live;
        /// Largest message.
        message_max: Size = Size::mib(4), live;
        /// Share.
        share: f64 = 0.5, in 0.0..=1.0, live;
        /// Names.
        names: Vec<String> = Vec::new(), live;
        /// Password.
        password: Secret = Secret::default(), restart;
    }
}

fn sources(toml: &str) -> Sources {
    Sources::new().text("a.toml", toml)
}

fn good(sources: Sources) -> Root {
    load::<Root>(sources).expect("a valid configuration").config
}

fn faults(sources: Sources) -> Vec<String> {
    let faults = load::<Root>(sources).expect_err("at fault");
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn without_layers_the_defaults_hold() {
    assert_eq!(Root::default(), good(Sources::new()));
}

#[test]
fn each_type_reads_from_files_and_from_the_environment() {
    let toml = r#"
        format = "json"
        message_max = "64 KiB"
        share = 1
        names = ["a", "b"]
        password = "p"
        [listen]
        address = "[::1]:80"
        connections_max = 1_000
        [peers.catalog]
        target = "a:1"
        retry.wait_max = "1h 30min"
        [fallback]
    "#;
    let from_file = good(sources(toml));
    let from_environment = good(Sources::new().variables([
        ("GANTRY_FORMAT", "json"),
        ("GANTRY_MESSAGE_MAX", "65536"),
        ("GANTRY_SHARE", "1"),
        ("GANTRY_NAMES", "a, b"),
        ("GANTRY_PASSWORD", "p"),
        ("GANTRY_LISTEN__ADDRESS", "[::1]:80"),
        ("GANTRY_LISTEN__CONNECTIONS_MAX", "1_000"),
        ("GANTRY_PEERS__CATALOG__TARGET", "a:1"),
        ("GANTRY_PEERS__CATALOG__RETRY__WAIT_MAX", "1h 30min"),
        ("GANTRY_FALLBACK__TARGET", ""),
    ]));

    assert_eq!(from_file, from_environment);
    assert_eq!(
        Duration::from_mins(90),
        from_file.peers["catalog"].retry.wait_max
    );
    assert_eq!(Size::kib(64), from_file.message_max);
    assert!(from_file.fallback.is_some());
}

/// Goal: what is in use is shown with its origin, section by section, as TOML.
/// Method: values from each layer, a key that is not set, a secret; read the outcome back.
#[test]
fn a_configuration_is_printed_with_its_origins() {
    let toml = "password = 'hunter2'\n[listen]\naddress = '127.0.0.1:80'\n[peers.catalog]";
    let sources = sources(toml)
        .variables([("GANTRY_LISTEN__CONNECTIONS_MAX", "5")])
        .set("share=0.25");

    let printed = load::<Root>(sources).expect("valid").print();

    let expected = r#"# How lines look.
format = "text"           # live, default
# Largest message.
message_max = "4MiB"      # live, default
# Share.
share = 0.25              # live, --set
# Names.
names = []                # live, default
# Password.
password = "***f52fbd32"  # restart, a.toml:1

[listen]
# Address and port.
# Port 0 lets the system choose.
address = "127.0.0.1:80"  # restart, a.toml:3
# Connections at most.
connections_max = 5       # live, GANTRY_LISTEN__CONNECTIONS_MAX

[peers.catalog]
# Where it is.
# target is not set  # restart, default

[peers.catalog.retry]
# Shortest wait.
wait_min = "50ms"  # live, default
# Longest wait.
wait_max = "2s"    # live, default
"#;
    assert_eq!(expected, printed);
    let again = load::<Root>(Sources::new().text("again", printed)).expect("valid");
    assert_eq!("127.0.0.1:80", again.config().listen.address.to_string());
}
