//! Reading: which keys, at which revision, filtered, sorted and cut.

use std::{cmp::Ordering, ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{Engine, KeyValue, Refusal, Version, newest};

/// Some keys next to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Range {
    One(Bytes),
    /// From the first on, and before the second.
    Span(Bytes, Bytes),
    /// All from here on.
    From(Bytes),
}

impl Range {
    /// As the wire has it: no end for one key, a zero byte for no end.
    pub(crate) fn new(key: Bytes, end: Bytes) -> Self {
        match end.as_ref() {
            [] => Self::One(key),
            [0] => Self::From(key),
            _ => Self::Span(key, end),
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one == key,
            Self::Span(from, to) => from.as_ref() <= key && key < to.as_ref(),
            Self::From(from) => from.as_ref() <= key,
        }
    }

    /// Whether no key can be in it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Span(from, to) if from >= to)
    }

    fn bounds(&self) -> (Bound<&Bytes>, Bound<&Bytes>) {
        match self {
            Self::One(key) => (Bound::Included(key), Bound::Included(key)),
            // An ordered map refuses a span that ends before it begins.
            Self::Span(from, to) if from >= to => (Bound::Included(from), Bound::Excluded(from)),
            Self::Span(from, to) => (Bound::Included(from), Bound::Excluded(to)),
            Self::From(from) => (Bound::Included(from), Bound::Unbounded),
        }
    }
}

/// What to sort by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Target {
    #[default]
    Key,
    Version,
    Create,
    Mod,
    Value,
}

/// Which way to sort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// By key, ascending; ascending by any other target.
    #[default]
    None,
    Ascend,
    Descend,
}

/// A read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) range: Range,
    /// At most so many; 0 for all.
    pub(crate) limit: usize,
    /// At this revision; 0 or less for the last.
    pub(crate) revision: i64,
    pub(crate) order: Order,
    pub(crate) target: Target,
    pub(crate) keys_only: bool,
    pub(crate) count_only: bool,
    /// Bounds of the revision of the last change; 0 for none.
    pub(crate) mod_revision: (i64, i64),
    /// Bounds of the revision of creation; 0 for none.
    pub(crate) create_revision: (i64, i64),
}

impl Query {
    fn admits(&self, value: &KeyValue) -> bool {
        let within = |revision: i64, (min, max): (i64, i64)| {
            (min == 0 || revision >= min) && (max == 0 || revision <= max)
        };
        within(value.mod_revision, self.mod_revision)
            && within(value.create_revision, self.create_revision)
    }

    fn has_filters(&self) -> bool {
        self.mod_revision != (0, 0) || self.create_revision != (0, 0)
    }

    /// The order to bring values into that come by key; none if they are in it.
    fn sorting(&self) -> Order {
        match (self.order, self.target) {
            (Order::None | Order::Ascend, Target::Key) => Order::None,
            (Order::None, _) => Order::Ascend,
            (order, _) => order,
        }
    }
}

/// What a read found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RangeAnswer {
    /// The store's revision when it was read.
    pub(crate) revision: i64,
    pub(crate) values: Vec<Arc<KeyValue>>,
    pub(crate) keys_only: bool,
    /// Whether the limit cut something off.
    pub(crate) more: bool,
    /// How many there are in the range, whatever filters and limit say.
    pub(crate) count: usize,
}

impl Engine {
    /// Reads.
    ///
    /// # Errors
    ///
    /// If the revision is gone, or not yet there.
    pub(crate) fn range(&self, query: &Query) -> Result<RangeAnswer, Refusal> {
        self.range_as_of(query, self.revision)
    }

    /// As [`Engine::range`], while `current` is the revision being written.
    pub(super) fn range_as_of(&self, query: &Query, current: i64) -> Result<RangeAnswer, Refusal> {
        if query.revision > current {
            return Err(Refusal::FutureRevision);
        }
        let revision = if query.revision <= 0 {
            current
        } else {
            query.revision
        };
        if revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        let mut answer = RangeAnswer {
            revision: current,
            keys_only: query.keys_only,
            ..RangeAnswer::default()
        };
        // Without sorting or filters the first few are the answer; the rest is only counted.
        let early = query.limit > 0 && query.sorting() == Order::None && !query.has_filters();
        let enough = if early { query.limit + 1 } else { usize::MAX };
        for value in self.visible(&query.range, revision) {
            answer.count += 1;
            if !query.count_only && answer.values.len() < enough && query.admits(value) {
                answer.values.push(Arc::clone(value));
            }
        }
        sort(&mut answer.values, query.sorting(), query.target);
        if query.limit > 0 && answer.values.len() > query.limit {
            answer.values.truncate(query.limit);
            answer.more = true;
        }
        Ok(answer)
    }

    /// What is in `range` at `revision`, by key.
    pub(super) fn visible(
        &self,
        range: &Range,
        revision: i64,
    ) -> impl Iterator<Item = &Arc<KeyValue>> {
        let found = self.keys.range::<Bytes, _>(range.bounds());
        found.filter_map(move |(_, versions): (_, &Vec<Version>)| newest(versions, revision))
    }
}

fn sort(values: &mut [Arc<KeyValue>], order: Order, target: Target) {
    let by = |one: &KeyValue, other: &KeyValue| match target {
        Target::Key => one.key.cmp(&other.key),
        Target::Version => one.version.cmp(&other.version),
        Target::Create => one.create_revision.cmp(&other.create_revision),
        Target::Mod => one.mod_revision.cmp(&other.mod_revision),
        Target::Value => one.value.cmp(&other.value),
    };
    let compare: &dyn Fn(&KeyValue, &KeyValue) -> Ordering = match order {
        Order::None => return,
        Order::Ascend => &by,
        Order::Descend => &|one, other| by(other, one),
    };
    values.sort_by(|one, other| compare(one, other));
}
