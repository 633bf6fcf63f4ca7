//! What stands in etcd now, for programs that look once and have somebody waiting.

use etcd_client::{Client, GetOptions};

use super::{Error, Etcd, feed};

/// Keys asked for at once: whatever else is in etcd may be large.
const PAGE: i64 = 100;

/// A key, and what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The lease it goes with; 0 where it has none.
    pub lease: i64,
}

/// Reads etcd, logged in where that is configured; clones share the login.
#[derive(Clone)]
pub struct Reader {
    etcd: Etcd,
    client: Client,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("etcd", &self.etcd)
            .finish_non_exhaustive()
    }
}

impl Etcd {
    /// Logs in, where that is configured; does no I/O otherwise.
    ///
    /// # Errors
    ///
    /// If etcd cannot be reached, or knows no such user or another password.
    pub async fn reader(&self) -> Result<Reader, Error> {
        Ok(Reader {
            etcd: self.clone(),
            client: self.client().await?,
        })
    }
}

impl Reader {
    /// Everything whose key begins with `prefix`, in the order of keys; everything there is for an
    /// empty one. Read page by page, so what changes meanwhile may be there or not.
    ///
    /// # Errors
    ///
    /// If etcd cannot be reached, does not answer in time, or refuses.
    pub async fn entries(&self, prefix: &str) -> Result<Vec<Entry>, Error> {
        let mut client = self.client.clone();
        let end = feed::end_of(prefix.as_bytes());
        let mut key = feed::start_of(prefix);
        let mut entries = Vec::new();
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
            let answer = client.get(key, Some(options));
            let mut answer = self.etcd.bounded("list", answer).await?;
            let more = answer.more();
            entries.extend(answer.take_kvs().into_iter().map(|kv| {
                let lease = kv.lease();
                let (key, value) = kv.into_key_value();
                Entry { key, value, lease }
            }));
            match entries.last() {
                Some(last) if more => key = feed::above(&last.key),
                _ => return Ok(entries),
            }
        }
    }

    /// What is left of a lease, in seconds; below 0 where there is no such lease.
    ///
    /// # Errors
    ///
    /// As [`Reader::entries`].
    pub async fn lease_left_seconds(&self, lease: i64) -> Result<i64, Error> {
        let mut client = self.client.clone();
        let answer = client.lease_time_to_live(lease, None);
        let answer = self.etcd.bounded("ask for a lease", answer).await?;
        Ok(answer.ttl())
    }
}
