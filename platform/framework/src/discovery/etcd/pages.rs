//! All keys under one prefix, page by page and as of one revision: the one way lists are read.
//!
//! Whatever else is in etcd may be large. So what one answer may hold is stated here, not left to
//! a default; a page that comes out larger is asked for again in smaller ones, and a value that
//! can be nobody's instance is dropped with its page.

use etcd_client::{Client, GetOptions, KeyValue, KvClient, ResponseHeader};
use tonic::Code;

use super::{Error, Etcd};
use crate::status;

/// The largest answer that is taken. etcd takes 1.5 MiB in one request, and advises against more
/// than 10 MiB: one value of whatever size it may have fits.
pub(super) const ANSWER_MAX: usize = 16 << 20;
/// A page that is no larger than this may be followed by one of twice as many keys.
const ANSWER_SMALL: usize = ANSWER_MAX / 4;
/// Keys asked for at first, and at most, at once.
const PAGE: i64 = 100;
const PAGE_MAX: i64 = 1_000;
/// The largest value that is looked at: far more than an instance needs in any layout.
pub(super) const VALUE_MAX: usize = 64 << 10;
/// Entries of one prefix at most: far more than a name has, and a bound all the same. What comes
/// beyond over a watch is left out and told of, also when others go, until the next list; a list
/// with more is refused.
pub(super) const ENTRIES_MAX: usize = 100_000;

/// Where etcd is in its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Which cluster it is.
    pub(super) cluster: u64,
    /// Its revision.
    pub(super) revision: i64,
}

impl From<&ResponseHeader> for Position {
    fn from(header: &ResponseHeader) -> Self {
        Self {
            cluster: header.cluster_id(),
            revision: header.revision(),
        }
    }
}

/// Reads one prefix, once.
pub(super) struct Pages<'a> {
    etcd: &'a Etcd,
    client: KvClient,
    /// What comes next; none after the last page.
    key: Option<Vec<u8>>,
    end: Vec<u8>,
    /// How many keys are asked for next.
    size: i64,
    position: Option<Position>,
}

impl<'a> Pages<'a> {
    /// Reads everything under `prefix`; everything there is for an empty one.
    pub(super) fn new(etcd: &'a Etcd, client: &Client, prefix: &str) -> Self {
        Self {
            etcd,
            client: client.kv_client().max_decoding_message_size(ANSWER_MAX),
            key: Some(start_of(prefix)),
            end: end_of(prefix.as_bytes()),
            size: PAGE,
            position: None,
        }
    }

    /// As of when all pages are; known from the first one on.
    pub(super) fn position(&self) -> Option<Position> {
        self.position
    }

    /// The next page; none after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, Error> {
        let Some(key) = self.key.take() else {
            return Ok(None);
        };
        let mut answer = loop {
            let mut options = GetOptions::new()
                .with_range(self.end.clone())
                .with_limit(self.size);
            if let Some(Position { revision, .. }) = self.position {
                options = options.with_revision(revision);
            }
            let answer = self.client.get(key.clone(), Some(options));
            match self.etcd.bounded("list", answer).await {
                Err(error) if self.size > 1 && is_too_large(&error) => self.size /= 2,
                answer => break answer?,
            }
        };
        if self.position.is_none() {
            self.position = answer.header().map(Into::into);
        }
        let more = answer.more();
        let page = answer.take_kvs();
        self.key = page.last().filter(|_| more).map(|last| above(last.key()));
        let sizes = page.iter().map(|kv| kv.key().len() + kv.value().len());
        if sizes.sum::<usize>() <= ANSWER_SMALL {
            self.size = (self.size * 2).min(PAGE_MAX);
        }
        Ok(Some(page))
    }
}

/// Whether fewer keys may be answered: the decoder, or a proxy in between, takes no such message.
fn is_too_large(error: &Error) -> bool {
    let codes = [Code::OutOfRange, Code::ResourceExhausted].map(status::code_name);
    // What etcd itself says with these codes is that a revision is gone, or that it is busy.
    matches!(error, Error::Refused { code, message, .. }
        if codes.contains(code) && !message.starts_with("etcdserver:"))
}

/// That there is more under a prefix than is read.
pub(super) fn too_many(what: &'static str, prefix: &str) -> Error {
    let place = match prefix {
        "" => String::new(),
        prefix => format!(" under {prefix}"),
    };
    Error::Answer {
        what,
        message: format!("more than {ENTRIES_MAX} keys{place}"),
    }
}

/// The least key that begins with `prefix`. To etcd an empty key is none; no key is below this one.
fn start_of(prefix: &str) -> Vec<u8> {
    match prefix {
        "" => vec![0],
        prefix => prefix.into(),
    }
}

/// The least key above `key`.
fn above(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The least key above all that begin with `prefix`.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a smaller page is asked for where an answer is too large, and nowhere else.
    /// Method: what the decoder, a proxy and etcd itself say with the same codes, and others.
    #[test]
    fn a_smaller_page_answers_size_alone() {
        let refused = |code, message: &str| {
            is_too_large(&Error::Refused {
                what: "range",
                code: status::code_name(code),
                message: message.to_owned(),
            })
        };
        assert!(refused(
            Code::OutOfRange,
            "decoded message length too large"
        ));
        assert!(refused(Code::ResourceExhausted, "message larger than max"));
        assert!(!refused(
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted"
        ));
        assert!(!refused(
            Code::ResourceExhausted,
            "etcdserver: too many requests"
        ));
        assert!(!refused(Code::Unavailable, "etcdserver: no leader"));
    }
}
