//! What stands in etcd now, for programs that look once and have somebody waiting.

use etcd_client::Client;

use super::{
    Error, Etcd,
    pages::{ENTRIES_MAX, Pages, VALUE_MAX, too_many},
};

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
    /// Everything whose key begins with `prefix`, in the order of keys and as of one revision;
    /// everything there is for an empty one. What has a value of more than 64 KiB is passed over:
    /// no instance has.
    ///
    /// # Errors
    ///
    /// If etcd cannot be reached, does not answer in time, or refuses; if there are more than
    /// 100,000 entries.
    pub async fn entries(&self, prefix: &str) -> Result<Vec<Entry>, Error> {
        let mut pages = Pages::new(&self.etcd, &self.client, prefix);
        let mut entries = Vec::new();
        while let Some(page) = pages.next().await? {
            let page = page.into_iter().filter(|kv| kv.value().len() <= VALUE_MAX);
            entries.extend(page.map(|kv| {
                let lease = kv.lease();
                let (key, value) = kv.into_key_value();
                Entry { key, value, lease }
            }));
            if entries.len() > ENTRIES_MAX {
                return Err(too_many("list", prefix));
            }
        }
        Ok(entries)
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
