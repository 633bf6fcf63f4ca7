//! Transactions as cases write them.
//!
//! ```text
//! txn
//!   if version a = 1         compares: a target, keys, a relation, a value
//!   then put a 2
//!   then *3 put k{} v        three operations, numbered
//!   then txn
//!     if ...                 a nested one
//!   else range a
//! ```

use etcd_client::proto::{PbCompare, PbTargetUnion, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp};

use super::{
    command::{delete, put, range},
    words::Words,
};

/// The transaction that the indented `lines` say.
pub(super) fn txn(lines: &[String], base: i64) -> PbTxnRequest {
    let mut request = PbTxnRequest::default();
    let Some(first) = lines.first() else {
        return request;
    };
    let indent = indentation(first);
    let mut rest = lines;
    while let Some((line, following)) = rest.split_first() {
        let deeper = following
            .iter()
            .take_while(|line| indentation(line) > indent);
        let (nested, after) = following.split_at(deeper.count());
        rest = after;
        let line = line.trim_start();
        let (word, said) = line.split_once(' ').expect("something after the word");
        match word {
            "if" => request
                .compare
                .extend(repeated(said).iter().map(|it| compare(it, base))),
            "then" => request.success.extend(operations(said, nested, base)),
            "else" => request.failure.extend(operations(said, nested, base)),
            _ => panic!("not understood: {line}"),
        }
    }
    request
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// `*3 put k{} v` as three lines.
fn repeated(said: &str) -> Vec<String> {
    let Some((count, line)) = said.strip_prefix('*').and_then(|it| it.split_once(' ')) else {
        return vec![said.to_owned()];
    };
    let count: usize = count.parse().expect("a number");
    let lines = (0..count).map(|number| line.replace("{}", &number.to_string()));
    lines.collect()
}

fn operations(said: &str, nested: &[String], base: i64) -> Vec<PbTxnRequestOp> {
    let lines = repeated(said);
    let operations = lines.iter().map(|line| operation(line, nested, base));
    operations
        .map(|request| PbTxnRequestOp { request })
        .collect()
}

fn operation(line: &str, nested: &[String], base: i64) -> Option<PbTxnOpRequest> {
    let (word, _) = line.split_once(' ').unwrap_or((line, ""));
    Some(match word {
        "range" => PbTxnOpRequest::RequestRange(range(line, base)),
        "put" => PbTxnOpRequest::RequestPut(put(line, base)),
        "delete" => PbTxnOpRequest::RequestDeleteRange(delete(line, base)),
        "txn" => PbTxnOpRequest::RequestTxn(txn(nested, base)),
        "nothing" => return None,
        _ => panic!("not understood: {line}"),
    })
}

fn compare(line: &str, base: i64) -> PbCompare {
    let mut words = Words::new(line, 4, base);
    let name = words.next();
    let (key, range_end) = words.keys();
    let relation = words.next();
    let value = words.next();
    // `create/mod` says one target in one place and another in the other.
    let (target, union) = name.split_once('/').unwrap_or((name, name));
    let target_union = match union {
        "version" => Some(PbTargetUnion::Version(words.parse(value))),
        "create" => Some(PbTargetUnion::CreateRevision(words.parse(value))),
        "mod" => Some(PbTargetUnion::ModRevision(words.parse(value))),
        "value" => Some(PbTargetUnion::Value(super::words::bytes(value))),
        "lease" => Some(PbTargetUnion::Lease(words.parse(value))),
        "none" => None,
        _ => panic!("not understood: {line}"),
    };
    words.end();
    let place = |names: &[&str], name: &str| {
        let place = names.iter().position(|it| *it == name);
        let place = place.unwrap_or_else(|| panic!("not understood: {line}"));
        i32::try_from(place).expect("a small number")
    };
    PbCompare {
        result: place(&["=", ">", "<", "!="], relation),
        target: place(&["version", "create", "mod", "value", "lease"], target),
        key,
        range_end,
        target_union,
    }
}
