//! `gantry.toml`: which services make up the system, how many of each, and what they start with.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::failure::{Failure, nearest};

/// The file that makes a folder a project.
pub(crate) const FILE: &str = "gantry.toml";

/// Replicas of one service at most; one machine runs them all.
const REPLICAS_MAX: u16 = 32;

/// A project: its folder and what its `gantry.toml` says.
#[derive(Debug)]
pub(crate) struct Project {
    /// The folder `gantry.toml` lies in; all paths in it start here.
    pub(crate) root: PathBuf,
    /// The services, by name.
    pub(crate) services: BTreeMap<String, Service>,
    /// What is put into services once they serve.
    pub(crate) seeds: Vec<Seed>,
    /// Calls worth trying, printed for pasting once everything serves.
    pub(crate) examples: Vec<Example>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    env: BTreeMap<String, String>,
    services: BTreeMap<String, Service>,
    #[serde(default)]
    seeds: Vec<Seed>,
    #[serde(default)]
    examples: Vec<Example>,
}

/// One service of the system.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    /// How many processes of it run.
    #[serde(default = "one")]
    pub(crate) replicas: u16,
    /// Services it calls: they are drained after this one.
    #[serde(default)]
    pub(crate) calls: Vec<String>,
    /// Whether it keeps data: its replicas then share one database under the state folder.
    #[serde(default)]
    pub(crate) database: bool,
    /// Whether it publishes events or consumes some: it is told of the broker then.
    #[serde(default)]
    pub(crate) broker: bool,
    /// Its program. Without one it lies beside `gantry`, has the service's name, and is what
    /// `--build` builds.
    #[serde(default)]
    pub(crate) binary: Option<PathBuf>,
    /// The address at which all its instances are reached, for those who do not look into the
    /// registry: `gantry up` listens there for them, so a restart refuses no connection. Port 0
    /// takes a free one.
    #[serde(default)]
    pub(crate) listen: Option<SocketAddr>,
    /// Whether it only plays with the others, as their customers do: it is built and run where
    /// `--demo` is given, and else is as if it were not in the file.
    #[serde(default)]
    pub(crate) demo: bool,
    /// Further environment, over the file's own `[env]`. In a value, `{name}` stands for the
    /// address at which the service `name` listens.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
}

fn one() -> u16 {
    1
}

/// Requests sent to one method each time the system has come up; the method must not mind.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seed {
    /// Who gets them.
    pub(crate) service: String,
    /// The method, `package.Service/Method`.
    pub(crate) method: String,
    /// A JSON file: one request, or an array of them for a method that takes a stream.
    pub(crate) file: PathBuf,
}

/// A call worth trying.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Example {
    /// Who is called.
    pub(crate) service: String,
    /// The method, `package.Service/Method`.
    pub(crate) method: String,
    /// The request as JSON.
    #[serde(default)]
    pub(crate) request: Option<String>,
    /// Metadata to send, as `key: value`; variables of the shell are left to it.
    #[serde(default)]
    pub(crate) header: Option<String>,
    /// A field of the answer that later examples use; kept in a variable of the shell with its
    /// name in capitals.
    #[serde(default)]
    pub(crate) keep: Option<String>,
    /// What to know about it, in a few words.
    #[serde(default)]
    pub(crate) note: Option<String>,
}

impl Project {
    /// Reads the project of the nearest folder, `from` or above, that holds a `gantry.toml`.
    pub(crate) fn find(from: &Path) -> Result<Self, Failure> {
        let root = Self::root(from)?;
        let path = root.join(FILE);
        let text = fs::read_to_string(&path)
            .map_err(|error| Failure::usage(format!("read {}: {error}", path.display())))?;
        Self::parse(root, &text)
            .map_err(|fault| Failure::usage(format!("{}: {fault}", path.display())))
    }

    /// The nearest folder, `from` or above, that holds a `gantry.toml`.
    pub(crate) fn root(from: &Path) -> Result<PathBuf, Failure> {
        from.ancestors()
            .find(|folder| folder.join(FILE).is_file())
            .map(Path::to_owned)
            .ok_or_else(|| {
                Failure::usage(format!(
                    "no {FILE} in {} or above it; run this in a project's folder",
                    from.display()
                ))
            })
    }

    fn parse(root: PathBuf, text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut project = Self {
            root,
            services: file.services,
            seeds: file.seeds,
            examples: file.examples,
        };
        let faults = project.faults();
        if !faults.is_empty() {
            return Err(faults.join("; "));
        }
        for service in project.services.values_mut() {
            for (key, value) in &file.env {
                let entry = service.env.entry(key.clone());
                entry.or_insert_with(|| value.clone());
            }
        }
        Ok(project)
    }

    /// Everything wrong with it, at once.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.services.values().all(|service| service.demo) {
            faults.push("no service in it; add [services.<name>] without `demo`".to_owned());
        }
        for (name, service) in &self.services {
            if !is_name(name) {
                faults.push(format!(
                    "[services.{name}]: a name has a letter, then letters, digits and dashes, all lower case"
                ));
            }
            if let Err(fault) = check_replicas(service.replicas) {
                faults.push(format!("[services.{name}] replicas: {fault}"));
            }
            if let Some(fault) = service.listen.and_then(check_listen) {
                faults.push(format!("[services.{name}] listen: {fault}"));
            }
            for (key, value) in &service.env {
                for fault in self.unknown_addresses(service, value) {
                    faults.push(format!("[services.{name}.env] {key}: {fault}"));
                }
            }
            for callee in &service.calls {
                if callee == name {
                    faults.push(format!("[services.{name}] calls itself"));
                } else if let Err(fault) = self.there(callee, service.demo) {
                    faults.push(format!("[services.{name}] calls: {fault}"));
                }
            }
        }
        let seeds = self.seeds.iter().map(|seed| ("seeds", &seed.service));
        let examples = self.examples.iter().map(|one| ("examples", &one.service));
        for (list, service) in seeds.chain(examples) {
            if let Err(fault) = self.there(service, false) {
                faults.push(format!("[[{list}]] service: {fault}"));
            }
        }
        faults
    }

    /// What is wrong with the addresses that `value` of `service` names.
    fn unknown_addresses(&self, service: &Service, value: &str) -> Vec<String> {
        let listens = |name: &&str| match self.services.get(*name) {
            Some(named) => named.listen.is_some() && (service.demo || !named.demo),
            None => false,
        };
        let named = addresses_in(value).filter(|name| !listens(name));
        named
            .map(|name| {
                format!("{{{name}}}: expected a service of this file with `listen`, and no demo")
            })
            .collect()
    }

    /// Whether `service` is there whenever somebody is who names it: a demo is for demos alone.
    fn there(&self, service: &str, demo: bool) -> Result<(), String> {
        self.known(service)?;
        if self.services[service].demo && !demo {
            return Err(format!(
                "{service} has `demo = true`, and runs with --demo only; expected one that always runs"
            ));
        }
        Ok(())
    }

    fn known(&self, service: &str) -> Result<(), String> {
        if self.services.contains_key(service) {
            return Ok(());
        }
        let names = self.services.keys().map(String::as_str);
        Err(format!(
            "no service \"{service}\"{}",
            nearest(service, names)
        ))
    }

    /// Keeps the demo, if it is wanted and there is one, or leaves it out.
    pub(crate) fn set_demo(&mut self, wanted: bool) -> Result<(), Failure> {
        if wanted && !self.services.values().any(|service| service.demo) {
            return Err(Failure::usage(format!(
                "--demo: no demo in {}; add `demo = true` to the [services.<name>] of a program \
                 that plays customers",
                self.root.join(FILE).display()
            )));
        }
        self.services.retain(|_, service| wanted || !service.demo);
        Ok(())
    }

    /// Sets replicas as given on the command line: `orders=3`.
    pub(crate) fn set_replicas(&mut self, setting: &str) -> Result<(), Failure> {
        let fault = |why: String| Failure::usage(format!("--replicas {setting}: {why}"));
        let (name, count) = count_of(setting).map_err(fault)?;
        self.known(&name).map_err(fault)?;
        if let Some(service) = self.services.get_mut(&name) {
            service.replicas = count;
        }
        Ok(())
    }

    /// Names of all services in the order to drain them: each group only calls into later ones.
    ///
    /// Services that call each other in a circle have no such order; they share the last group.
    pub(crate) fn drain_order(&self) -> Vec<Vec<String>> {
        let mut left: BTreeSet<&str> = self.services.keys().map(String::as_str).collect();
        let mut groups = Vec::new();
        while !left.is_empty() {
            let called: BTreeSet<&str> = left
                .iter()
                .flat_map(|name| &self.services[*name].calls)
                .map(String::as_str)
                .collect();
            let mut group: BTreeSet<&str> = left.difference(&called).copied().collect();
            if group.is_empty() {
                group.clone_from(&left);
            }
            left.retain(|name| !group.contains(name));
            groups.push(group.into_iter().map(str::to_owned).collect());
        }
        groups
    }
}

impl Service {
    /// The program of the service `name`: what `gantry.toml` says, or beside the running `gantry`.
    pub(crate) fn program(&self, name: &str, root: &Path) -> io::Result<PathBuf> {
        match &self.binary {
            Some(binary) => Ok(root.join(binary)),
            None => Ok(std::env::current_exe()?.with_file_name(name)),
        }
    }
}

/// The names in braces in `value`, as of services.
fn addresses_in(value: &str) -> impl Iterator<Item = &str> {
    let pieces = value.split('{').skip(1);
    pieces
        .filter_map(|piece| Some(piece.split_once('}')?.0))
        .filter(|name| is_name(name))
}

/// Plaintext is for this machine alone.
fn check_listen(address: SocketAddr) -> Option<String> {
    let fault = || format!("{address}: expected a loopback address, such as 127.0.0.1:8080");
    (!address.ip().is_loopback()).then(fault)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// A service and how many of it, as given on the command line: `orders=3`.
pub(crate) fn count_of(setting: &str) -> Result<(String, u16), String> {
    let parts = setting.split_once('=');
    let (name, count) = parts.ok_or_else(|| "write it as name=count".to_owned())?;
    let count = count
        .parse()
        .map_err(|_| format!("from 1 to {REPLICAS_MAX}"))?;
    check_replicas(count)?;
    Ok((name.to_owned(), count))
}

/// Whether a service may have `count` instances. Not none: a name that nobody answers to is no
/// part of a running system, and its callers would be told of nobody.
pub(crate) fn check_replicas(count: u16) -> Result<(), String> {
    if (1..=REPLICAS_MAX).contains(&count) {
        Ok(())
    } else {
        Err(format!("{count}; from 1 to {REPLICAS_MAX}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Project, String> {
        Project::parse(PathBuf::from("/project"), text)
    }

    /// Goal: callers drain before what they call.
    /// Method: a chain, a diamond and a circle.
    #[test]
    fn callers_drain_before_what_they_call() {
        let chain = parse("services.a.calls = ['b']\nservices.b.calls = ['c']\n[services.c]");
        assert_eq!(
            vec![vec!["a"], vec!["b"], vec!["c"]],
            chain.unwrap().drain_order()
        );

        let diamond = parse(
            "services.top.calls = ['left', 'right']\nservices.left.calls = ['base']\n\
             services.right.calls = ['base']\n[services.base]",
        );
        assert_eq!(
            vec![vec!["top"], vec!["left", "right"], vec!["base"]],
            diamond.unwrap().drain_order()
        );

        let circle = parse(
            "services.edge.calls = ['a']\nservices.a.calls = ['b']\nservices.b.calls = ['a']",
        );
        assert_eq!(
            vec![vec!["edge"], vec!["a", "b"]],
            circle.unwrap().drain_order()
        );
    }

    /// Goal: a mistake is named with its place, and all mistakes at once.
    /// Method: several wrong files, and words the message must hold.
    #[test]
    fn mistakes_are_named() {
        let cases: [(&str, &[&str]); 9] = [
            ("[services]", &["no service in it"]),
            ("services.a.replicsa = 2", &["replicsa", "replicas"]),
            ("services.a.replicas = 0", &["[services.a] replicas: 0"]),
            (
                "services.orders.calls = ['catalgo', 'orders']\n[services.catalog]",
                &["did you mean \"catalog\"", "calls itself"],
            ),
            ("[services.Orders]", &["lower case"]),
            (
                "[services.a]\n[[seeds]]\nservice = 'b'\nmethod = 'm'\nfile = 'f'",
                &["[[seeds]] service: no service \"b\""],
            ),
            ("services.a.demo = true", &["no service in it"]),
            (
                "services.a.calls = ['play']\nservices.play.demo = true",
                &["[services.a] calls: play has `demo = true`", "--demo"],
            ),
            (
                "[services.a.env]\nPLAY = '{play}'\n\
                 [services.play]\ndemo = true\nlisten = '127.0.0.1:0'",
                &["[services.a.env] PLAY: {play}", "no demo"],
            ),
        ];
        for (text, words) in cases {
            let fault = parse(text).expect_err(text);
            for word in words {
                assert!(fault.contains(word), "{word:?} in {fault:?}");
            }
        }
    }

    /// Goal: the project in this repository is sound.
    /// Method: read its gantry.toml, and the seeds it names.
    #[test]
    fn our_own_project_is_sound() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let project = Project::find(root).unwrap();
        assert!(!project.examples.is_empty());
        for seed in &project.seeds {
            let text = fs::read_to_string(root.join(&seed.file)).unwrap();
            let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
            assert!(!rows.is_empty(), "{}", seed.file.display());
        }
    }

    /// Goal: a demo is there where it is asked for, and only there; asking in vain says what to do.
    /// Method: a project with a demo and one without, both ways.
    #[test]
    fn a_demo_is_there_when_asked_for() {
        let names = |project: &Project| project.services.keys().cloned().collect::<Vec<_>>();
        let text = "[services.a]\n[services.play]\ndemo = true\ncalls = ['a']";
        let mut with = parse(text).unwrap();
        with.set_demo(true).unwrap();
        assert_eq!(vec!["a", "play"], names(&with));
        assert_eq!(vec![vec!["play"], vec!["a"]], with.drain_order());

        let mut without = parse(text).unwrap();
        without.set_demo(false).unwrap();
        assert_eq!(vec!["a"], names(&without));
        assert!(without.set_replicas("play=2").is_err());

        let fault = parse("[services.a]").unwrap().set_demo(true).unwrap_err();
        let fault = fault.to_string();
        assert!(!fault.contains('\n'), "{fault}");
        for word in ["--demo", "/project/gantry.toml", "`demo = true`"] {
            assert!(fault.contains(word), "{word:?} in {fault:?}");
        }
    }

    #[test]
    fn environment_of_a_service_goes_over_that_of_all() {
        let project = parse(
            "[env]\nGANTRY_A = 'all'\nGANTRY_B = 'all'\n[services.one.env]\nGANTRY_B = 'one'",
        )
        .unwrap();
        let env = &project.services["one"].env;
        assert_eq!(("all", "one"), (&*env["GANTRY_A"], &*env["GANTRY_B"]));
    }

    #[test]
    fn replicas_are_set_by_name_within_bounds() {
        let mut project = parse("[services.orders]").unwrap();
        project.set_replicas("orders=3").unwrap();
        assert_eq!(3, project.services["orders"].replicas);
        for wrong in ["orders", "orders=0", "orders=33", "orders=x", "order=1"] {
            assert!(project.set_replicas(wrong).is_err(), "{wrong}");
        }
        assert_eq!(3, project.services["orders"].replicas);
    }
}
