//! The registry of a running `up`: the local etcd that runs in it, and what stands in any etcd.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry::{
    discovery::{
        Layout,
        etcd::{Entry, Error},
    },
    journal::Journal,
    shutdown::Tasks,
    status::chain,
};
use gantry_local::etcd::{Config, Data, Etcd, Listen, OpenError};
use serde::Serialize;
use serde_json::Value;
use tokio::time;

use crate::{
    access::{Access, Server},
    failure::Failure,
    standin::Kind,
    state::StateFolder,
};

pub(crate) const KIND: Kind = Kind {
    name: "etcd",
    port: 2_379,
    offset: 1,
    option: "--etcd",
};

/// Longest wait for the whole table; each of etcd's answers has the settings' own bound.
const TABLE_MAX: Duration = Duration::from_secs(10);

/// Leases asked for at once: a registry of a thousand costs some sixty round trips, and an etcd is
/// not flooded by somebody who looks.
const AT_ONCE: usize = 16;

/// How long the connections may take to end.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// The local etcd where it usually is.
pub(crate) fn usual() -> Access {
    Access::local(Server::Etcd, format!("http://{}", Kind::address(KIND.port)))
}

/// Opens the local etcd on `port`, with the data of earlier runs.
pub(crate) fn open(state: &StateFolder, port: u16) -> Result<Etcd, Failure> {
    let config = Config {
        data: Data::Folder(state.data().join("etcd")),
        listen: Listen::Address(Kind::address(port)),
        ..Config::default()
    };
    Etcd::open(config).map_err(|error| match error {
        OpenError::Listen(error) => KIND.taken(error),
        error => Failure::failed(chain(&error)),
    })
}

/// One registration, as `gantry ls` shows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) service: String,
    /// Empty where whoever registered did not say.
    pub(crate) instance: String,
    pub(crate) address: String,
    /// What is left of it; null where it has no lease.
    pub(crate) lease_ttl_seconds: Option<i64>,
    pub(crate) metadata: Value,
}

/// Everything registered by etcd's gRPC naming in the etcd of `access`, or what is under one name.
pub(crate) async fn list(access: &Access, name: Option<&str>) -> Result<Vec<Row>, Failure> {
    let prefix = name.map(|name| format!("{name}/")).unwrap_or_default();
    let tasks = Tasks::new(Journal::new());
    let etcd = access.connect(&tasks)?;
    // On the heap: etcd's clients are large.
    let reading = Box::pin(async {
        let reader = etcd.reader().await?;
        let entries = reader.entries(&prefix).await?;
        let rows = entries.iter().filter_map(|it| Some((row(it)?, it.lease)));
        let left = async |lease| reader.lease_left_seconds(lease).await;
        with_leases(rows.collect(), left).await
    });
    let read = within(access, reading).await;
    drop(tasks.stop_within(CLOSE_MAX).await);
    read
}

/// Looks whether the etcd of `access` can be read where it keeps a target such as `etcd:///orders`.
///
/// # Errors
///
/// If it cannot; nobody being there is no error.
pub(crate) async fn look(access: &Access, target: &str) -> Result<(), Failure> {
    let Some((scheme, name)) = target.split_once(":///") else {
        return Ok(());
    };
    let mut layouts = Layout::ALL.into_iter();
    let Some(layout) = layouts.find(|layout| layout.as_str() == scheme) else {
        return Ok(());
    };
    let tasks = Tasks::new(Journal::new());
    let etcd = access.connect(&tasks)?;
    let prefix = layout.prefix(name);
    let reading = Box::pin(async { etcd.reader().await?.entries(&prefix).await });
    let read = within(access, reading).await;
    drop(tasks.stop_within(CLOSE_MAX).await);
    read.map(drop)
}

/// What etcd answers, or why not in one line.
async fn within<T>(
    access: &Access,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    let at = access.urls();
    match time::timeout(TABLE_MAX, answer).await {
        Ok(answer) => {
            answer.map_err(|error| Failure::failed(format!("ask etcd at {at}: {}", chain(&error))))
        }
        Err(_) => Err(Failure::failed(format!(
            "ask etcd at {at}: not all was answered within {TABLE_MAX:?}"
        ))),
    }
}

/// Each row with what is `left` of its lease, which is asked for several at once; 0 is no lease.
async fn with_leases<E>(
    rows: Vec<(Row, i64)>,
    left: impl AsyncFn(i64) -> Result<i64, E>,
) -> Result<Vec<Row>, E> {
    let left = &left;
    let asked = stream::iter(rows).map(|(mut row, lease)| async move {
        if lease != 0 {
            row.lease_ttl_seconds = Some(left(lease).await?);
        }
        Ok(row)
    });
    asked.buffered(AT_ONCE).try_collect().await
}

/// What a key says of an instance; other things live in etcd, too.
fn row(entry: &Entry) -> Option<Row> {
    let (service, _) = str::from_utf8(&entry.key).ok()?.rsplit_once('/')?;
    let mut value: Value = serde_json::from_slice(&entry.value).ok()?;
    let address = value.get("Addr")?.as_str()?.to_owned();
    let metadata = value
        .get_mut("Metadata")
        .map(Value::take)
        .unwrap_or_default();
    let instance = metadata.get("instance").and_then(Value::as_str);
    Some(Row {
        service: service.to_owned(),
        instance: instance.unwrap_or_default().to_owned(),
        address,
        lease_ttl_seconds: None,
        metadata,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn rows(count: i64) -> Vec<(Row, i64)> {
        let rows = (0..count).map(|lease| {
            let row = Row {
                service: "orders".to_owned(),
                instance: lease.to_string(),
                address: String::new(),
                lease_ttl_seconds: None,
                metadata: Value::Null,
            };
            (row, lease)
        });
        rows.collect()
    }

    /// Goal: leases are asked for several at once and not without bound, and the rows stay in order.
    /// Method: a hundred rows, the first without a lease; answers that take less time the later
    /// they were asked for.
    #[tokio::test(start_paused = true)]
    async fn leases_are_asked_for_some_at_once() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let left = async |lease: i64| {
            let count = now.fetch_add(1, Ordering::Relaxed) + 1;
            most.fetch_max(count, Ordering::Relaxed);
            time::sleep(Duration::from_millis(200 - lease.cast_unsigned())).await;
            now.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, ()>(lease)
        };
        let listed = with_leases(rows(100), left).await.unwrap();
        assert_eq!(AT_ONCE, most.into_inner());
        let ttls: Vec<_> = listed.iter().map(|row| row.lease_ttl_seconds).collect();
        let expected: Vec<_> = (0..100)
            .map(|ttl| Some(ttl).filter(|ttl| *ttl > 0))
            .collect();
        assert_eq!(expected, ttls);
        let order: Vec<_> = listed
            .iter()
            .map(|row| row.instance.parse::<usize>().unwrap())
            .collect();
        assert_eq!((0..100).collect::<Vec<usize>>(), order);
    }

    /// Goal: a lease that cannot be asked for fails the list, as it did one by one.
    /// Method: refuse one of many.
    #[tokio::test]
    async fn a_lease_that_is_refused_fails_the_list() {
        let left = async |lease| if lease == 7 { Err("refused") } else { Ok(1) };
        let listed = with_leases(rows(20), left).await.map(|rows| rows.len());
        assert_eq!(Err("refused"), listed);
    }
}
