//! What etcd refuses before it looks at its data.

use std::collections::{BTreeMap, BTreeSet};

use etcd_client::proto::{
    PbDeleteRequest, PbPutRequest, PbRangeRequest, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp,
};
use prost::Message;

use super::{MESSAGE_MAX, REQUEST_MAX, refusal::Fault};

/// Operations of a transaction, those of nested ones counted with the deepest.
const OPERATIONS_MAX: usize = 128;

/// What etcd wraps a request into before it measures it.
const WRAPPING: usize = 17;

pub(super) fn size(request: &impl Message) -> Result<(), Fault> {
    let size = request.encoded_len();
    if size > MESSAGE_MAX {
        return Err(Fault::MessageTooLarge(size));
    }
    if size + WRAPPING > REQUEST_MAX {
        return Err(Fault::TooLarge);
    }
    Ok(())
}

pub(super) fn range(request: &PbRangeRequest) -> Result<(), Fault> {
    if request.key.is_empty() {
        return Err(Fault::EmptyKey);
    }
    if !(0..=2).contains(&request.sort_order) || !(0..=4).contains(&request.sort_target) {
        return Err(Fault::SortOption);
    }
    Ok(())
}

pub(super) fn put(request: &PbPutRequest) -> Result<(), Fault> {
    if request.key.is_empty() {
        Err(Fault::EmptyKey)
    } else if request.ignore_value && !request.value.is_empty() {
        Err(Fault::ValueProvided)
    } else if request.ignore_lease && request.lease != 0 {
        Err(Fault::LeaseProvided)
    } else {
        Ok(())
    }
}

pub(super) fn delete(request: &PbDeleteRequest) -> Result<(), Fault> {
    if request.key.is_empty() {
        return Err(Fault::EmptyKey);
    }
    Ok(())
}

pub(super) fn txn(request: &PbTxnRequest) -> Result<(), Fault> {
    operations(request, OPERATIONS_MAX)?;
    overlaps(&request.success)?;
    overlaps(&request.failure)?;
    Ok(())
}

fn operations(request: &PbTxnRequest, max: usize) -> Result<(), Fault> {
    let lists = [request.success.len(), request.failure.len()];
    let most = lists.into_iter().fold(request.compare.len(), usize::max);
    let Some(left) = max.checked_sub(most) else {
        return Err(Fault::TooManyOperations);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Fault::EmptyKey);
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(PbTxnOpRequest::RequestRange(request)) => range(request)?,
            Some(PbTxnOpRequest::RequestPut(request)) => put(request)?,
            Some(PbTxnOpRequest::RequestDeleteRange(request)) => delete(request)?,
            Some(PbTxnOpRequest::RequestTxn(request)) => operations(request, left)?,
            None => return Err(Fault::NoOperation),
        }
    }
    Ok(())
}

/// What a list of operations puts and deletes.
#[derive(Default)]
struct Touched<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Spans,
}

/// Refuses a list that puts a key twice, or deletes what it puts. The two lists of a nested
/// transaction exclude each other, so both may put the same key.
fn overlaps(list: &[PbTxnRequestOp]) -> Result<Touched<'_>, Fault> {
    let mut touched = Touched::default();
    for operation in list {
        if let Some(PbTxnOpRequest::RequestDeleteRange(request)) = &operation.request {
            touched.deletes.insert(&request.key, &request.range_end);
        }
    }
    for operation in list {
        if let Some(PbTxnOpRequest::RequestTxn(request)) = &operation.request {
            let success = overlaps(&request.success)?;
            let failure = overlaps(&request.failure)?;
            for key in &success.puts {
                touched.put(key)?;
            }
            for key in failure.puts.difference(&success.puts) {
                touched.put(key)?;
            }
            touched.deletes.extend(success.deletes);
            touched.deletes.extend(failure.deletes);
        }
    }
    for operation in list {
        if let Some(PbTxnOpRequest::RequestPut(request)) = &operation.request {
            touched.put(&request.key)?;
        }
    }
    Ok(touched)
}

impl<'a> Touched<'a> {
    fn put(&mut self, key: &'a [u8]) -> Result<(), Fault> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(Fault::DuplicateKey);
        }
        Ok(())
    }
}

/// Spans of keys, merged where they touch.
#[derive(Default)]
struct Spans(BTreeMap<Vec<u8>, Vec<u8>>);

impl Spans {
    /// A span without an end is none here: etcd takes its zero byte for an end before the
    /// beginning, and lets such a deletion go with puts.
    fn insert(&mut self, key: &[u8], end: &[u8]) {
        let end = match end {
            [] => [key, &[0]].concat(),
            end => end.to_vec(),
        };
        self.merge(key.to_vec(), end);
    }

    fn extend(&mut self, other: Self) {
        for (from, to) in other.0 {
            self.merge(from, to);
        }
    }

    fn merge(&mut self, mut from: Vec<u8>, mut to: Vec<u8>) {
        if to <= from {
            return;
        }
        if let Some((before, end)) = self.0.range(..=from.clone()).next_back()
            && *end >= from
        {
            from.clone_from(before);
        }
        // Each span swallowed was inserted once, so all merges together are cheap.
        while let Some((start, end)) = self.0.range(from.clone()..).next()
            && *start <= to
        {
            to = to.max(end.clone());
            let start = start.clone();
            self.0.remove(&start);
        }
        self.0.insert(from, to);
    }

    fn contains(&self, key: &[u8]) -> bool {
        let before = self
            .0
            .range::<[u8], _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(key)));
        let last = before.into_iter().next_back();
        last.is_some_and(|(_, end)| key < end.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: spans that touch become one, and hold what they held.
    /// Method: insert in an awkward order, then ask at every edge.
    #[test]
    fn spans_merge() {
        let mut spans = Spans::default();
        for (key, end) in [
            ("d", "f"),
            ("b", "c"),
            ("a", ""),
            ("c", "d"),
            ("x", "\0"),
            ("z", "y"),
        ] {
            spans.insert(key.as_bytes(), end.as_bytes());
        }
        for (key, held) in [
            ("a", true),
            ("aa", false),
            ("b", true),
            ("czz", true),
            ("ezz", true),
            ("f", false),
            ("w", false),
            ("x", false),
            ("zzz", false),
        ] {
            assert_eq!(held, spans.contains(key.as_bytes()), "{key}");
        }
        assert_eq!(2, spans.0.len(), "{:?}", spans.0);
    }
}
