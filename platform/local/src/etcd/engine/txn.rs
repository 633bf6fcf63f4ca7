//! Transactions: compare, then one of two lists of operations, all in one revision.
//!
//! All compares, those of nested transactions too, are made before anything is written; then the
//! chosen operations are checked; then they are carried out. So a transaction that is refused has
//! changed nothing.

use std::cmp::Ordering;

use bytes::Bytes;

use super::{
    Delete, DeleteAnswer, Engine, KeyValue, Put, PutAnswer, Query, Range, RangeAnswer, Refusal,
    write::Writer,
};

/// A transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Txn {
    pub(crate) compares: Vec<Compare>,
    pub(crate) success: Vec<Op>,
    pub(crate) failure: Vec<Op>,
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Range(Query),
    Put(Put),
    Delete(Delete),
    Txn(Txn),
}

/// A condition that each key of a range must meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compare {
    pub(crate) range: Range,
    pub(crate) compared: Compared,
    pub(crate) relation: Relation,
}

/// What is compared, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Compared {
    Version(i64),
    Create(i64),
    Mod(i64),
    Value(Bytes),
    Lease(i64),
}

/// How it must compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Equal,
    Greater,
    Less,
    NotEqual,
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TxnAnswer {
    pub(crate) revision: i64,
    pub(crate) succeeded: bool,
    pub(crate) answers: Vec<OpAnswer>,
}

/// What one operation of it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpAnswer {
    Range(RangeAnswer),
    Put(PutAnswer),
    Delete(DeleteAnswer),
    Txn(TxnAnswer),
}

impl Compare {
    fn holds(&self, value: &KeyValue) -> bool {
        let ordering = match &self.compared {
            Compared::Version(version) => value.version.cmp(version),
            Compared::Create(revision) => value.create_revision.cmp(revision),
            Compared::Mod(revision) => value.mod_revision.cmp(revision),
            Compared::Value(bytes) => value.value.cmp(bytes),
            Compared::Lease(lease) => value.lease.cmp(lease),
        };
        match self.relation {
            Relation::Equal => ordering == Ordering::Equal,
            Relation::Greater => ordering == Ordering::Greater,
            Relation::Less => ordering == Ordering::Less,
            Relation::NotEqual => ordering != Ordering::Equal,
        }
    }
}

/// A key that is not there, as compares see it.
const ABSENT: KeyValue = KeyValue {
    key: Bytes::new(),
    value: Bytes::new(),
    create_revision: 0,
    mod_revision: 0,
    version: 0,
    lease: 0,
};

/// Which list each transaction takes, nested ones in the order in which they are met.
type Path = Vec<bool>;

impl Engine {
    /// Carries out a transaction.
    ///
    /// # Errors
    ///
    /// If one of the chosen operations is refused; then nothing was changed.
    pub(crate) fn txn(&mut self, txn: &Txn) -> Result<TxnAnswer, Refusal> {
        let mut path = Path::new();
        self.decide(txn, &mut path);
        let mut cost = 0;
        self.check(txn, &mut path.iter().copied(), &mut cost)?;
        if cost > 0 {
            self.check_space(cost)?;
        }
        let mut writer = self.write();
        let answer = execute(&mut writer, txn, &mut path.into_iter());
        let revision = writer.revision();
        writer.finish();
        let mut answer = answer?;
        answer.revision = revision;
        Ok(answer)
    }

    fn decide(&self, txn: &Txn, path: &mut Path) {
        let succeeded = txn.compares.iter().all(|compare| self.compare(compare));
        path.push(succeeded);
        for op in chosen(txn, succeeded) {
            if let Op::Txn(nested) = op {
                self.decide(nested, path);
            }
        }
    }

    fn compare(&self, compare: &Compare) -> bool {
        let mut found = self.visible(&compare.range, self.revision).peekable();
        if found.peek().is_none() {
            // A value that is not there compares with nothing, not even with an empty one.
            return !matches!(compare.compared, Compared::Value(_)) && compare.holds(&ABSENT);
        }
        found.all(|value| compare.holds(value))
    }

    fn check(
        &self,
        txn: &Txn,
        path: &mut impl Iterator<Item = bool>,
        cost: &mut usize,
    ) -> Result<(), Refusal> {
        let succeeded = path.next().unwrap_or_default();
        for op in chosen(txn, succeeded) {
            match op {
                Op::Range(query) => self.check_revision(query.revision)?,
                Op::Put(put) => {
                    self.check_key(put)?;
                    self.check_lease(put)?;
                    *cost += put.cost();
                }
                Op::Delete(_) => {}
                Op::Txn(nested) => self.check(nested, path, cost)?,
            }
        }
        Ok(())
    }

    fn check_revision(&self, revision: i64) -> Result<(), Refusal> {
        if revision == 0 {
            Ok(())
        } else if revision > self.revision {
            Err(Refusal::FutureRevision)
        } else if revision < self.compacted {
            Err(Refusal::Compacted)
        } else {
            Ok(())
        }
    }
}

fn chosen(txn: &Txn, succeeded: bool) -> &[Op] {
    if succeeded {
        &txn.success
    } else {
        &txn.failure
    }
}

fn execute(
    writer: &mut Writer<'_>,
    txn: &Txn,
    path: &mut impl Iterator<Item = bool>,
) -> Result<TxnAnswer, Refusal> {
    let succeeded = path.next().unwrap_or_default();
    let mut answers = Vec::new();
    for op in chosen(txn, succeeded) {
        answers.push(match op {
            Op::Range(query) => OpAnswer::Range(writer.range(query)?),
            Op::Put(put) => OpAnswer::Put(writer.put(put)),
            Op::Delete(delete) => OpAnswer::Delete(writer.delete_range(delete)),
            Op::Txn(nested) => OpAnswer::Txn(execute(writer, nested, path)?),
        });
    }
    Ok(TxnAnswer {
        // Nested answers have none; the outermost gets it when all is done.
        revision: 0,
        succeeded,
        answers,
    })
}
