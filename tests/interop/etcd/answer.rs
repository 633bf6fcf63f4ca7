//! Answers as cases write them: everything that is the same wherever it is asked.

use std::fmt::Write as _;

use etcd_client::proto::{
    PbDeleteResponse, PbKeyValue, PbLeaseGrantResponse, PbLeaseKeepAliveResponse,
    PbLeaseLeasesResponse, PbLeaseTimeToLiveResponse, PbMemberListResponse, PbPutResponse,
    PbRangeResponse, PbResponseHeader, PbResponseOp, PbStatusResponse, PbTxnOpResponse,
    PbTxnResponse,
};
use tonic::Status;

use super::words::text;

/// What an answer says in lines; revisions are told from `base`.
pub(super) trait Answer {
    fn lines(&self, base: i64) -> Vec<String>;
}

/// A revision, told from `base`.
pub(super) fn relative(revision: i64, base: i64) -> String {
    match revision {
        0 => "none".to_owned(),
        revision => format!("{:+}", revision - base),
    }
}

/// The revision of a header, and whether the rest of it is there.
pub(super) fn revision(header: Option<&PbResponseHeader>, base: i64) -> String {
    let Some(header) = header else {
        return "no header".to_owned();
    };
    let revision = relative(header.revision, base);
    let whole = header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0;
    let empty = header.cluster_id == 0 && header.member_id == 0 && header.raft_term == 0;
    let rest = match (whole, empty) {
        (true, _) => "",
        (_, true) => " alone",
        _ => " with half a header",
    };
    format!("revision {revision}{rest}")
}

pub(super) fn refused(status: &Status) -> String {
    format!("refused {:?}: {}", status.code(), status.message())
}

pub(super) fn key_value(kv: &PbKeyValue, base: i64) -> String {
    let mut said = format!(
        "{} {} create {} mod {} version {}",
        text(&kv.key),
        text(&kv.value),
        relative(kv.create_revision, base),
        relative(kv.mod_revision, base),
        kv.version
    );
    if kv.lease != 0 {
        let _ = write!(said, " lease {}", kv.lease);
    }
    said
}

fn before(kvs: &[PbKeyValue], base: i64) -> Vec<String> {
    let lines = kvs
        .iter()
        .map(|kv| format!("before {}", key_value(kv, base)));
    lines.collect()
}

impl Answer for PbRangeResponse {
    fn lines(&self, base: i64) -> Vec<String> {
        let header = revision(self.header.as_ref(), base);
        let more = if self.more { " more" } else { "" };
        let mut lines = vec![format!("{header} count {}{more}", self.count)];
        lines.extend(self.kvs.iter().map(|kv| key_value(kv, base)));
        lines
    }
}

impl Answer for PbPutResponse {
    fn lines(&self, base: i64) -> Vec<String> {
        let mut lines = vec![revision(self.header.as_ref(), base)];
        lines.extend(before(self.prev_kv.as_slice(), base));
        lines
    }
}

impl Answer for PbDeleteResponse {
    fn lines(&self, base: i64) -> Vec<String> {
        let header = revision(self.header.as_ref(), base);
        let mut lines = vec![format!("{header} deleted {}", self.deleted)];
        lines.extend(before(&self.prev_kvs, base));
        lines
    }
}

impl Answer for PbTxnResponse {
    fn lines(&self, base: i64) -> Vec<String> {
        let header = revision(self.header.as_ref(), base);
        let taken = if self.succeeded { "then" } else { "else" };
        let mut lines = vec![format!("{header} {taken}")];
        let inner = self.responses.iter().flat_map(|it| it.lines(base));
        lines.extend(inner.map(|line| format!("  {line}")));
        lines
    }
}

impl Answer for PbResponseOp {
    fn lines(&self, base: i64) -> Vec<String> {
        match &self.response {
            Some(PbTxnOpResponse::ResponseRange(answer)) => answer.lines(base),
            Some(PbTxnOpResponse::ResponsePut(answer)) => answer.lines(base),
            Some(PbTxnOpResponse::ResponseDeleteRange(answer)) => answer.lines(base),
            Some(PbTxnOpResponse::ResponseTxn(answer)) => answer.lines(base),
            None => vec!["nothing".to_owned()],
        }
    }
}

impl Answer for etcd_client::proto::PbCompactionResponse {
    fn lines(&self, base: i64) -> Vec<String> {
        vec![revision(self.header.as_ref(), base)]
    }
}

impl Answer for PbLeaseGrantResponse {
    fn lines(&self, base: i64) -> Vec<String> {
        let header = revision(self.header.as_ref(), base);
        // Ids that were drawn are large; cases give small ones.
        let id = match self.id {
            given @ 0..1_000_000 => given.to_string(),
            ..0 => "negative".to_owned(),
            _ => "drawn".to_owned(),
        };
        vec![format!("{header} lease {id} ttl {}", self.ttl)]
    }
}

impl Answer for etcd_client::proto::PbLeaseRevokeResponse {
    fn lines(&self, base: i64) -> Vec<String> {
        vec![revision(self.header.as_ref(), base)]
    }
}

impl Answer for PbLeaseKeepAliveResponse {
    fn lines(&self, base: i64) -> Vec<String> {
        let header = revision(self.header.as_ref(), base);
        vec![format!("{header} lease {} ttl {}", self.id, self.ttl)]
    }
}

impl Answer for PbLeaseTimeToLiveResponse {
    fn lines(&self, base: i64) -> Vec<String> {
        let header = revision(self.header.as_ref(), base);
        // Time goes on while cases are read.
        let fresh = (self.granted_ttl - 5..=self.granted_ttl).contains(&self.ttl);
        let left = match self.ttl {
            _ if self.granted_ttl > 0 && fresh => "fresh".to_owned(),
            ttl => ttl.to_string(),
        };
        let mut lines = vec![format!(
            "{header} lease {} granted {} ttl {left}",
            self.id, self.granted_ttl
        )];
        // They come in no order.
        let mut keys: Vec<_> = self.keys.iter().map(|key| text(key)).collect();
        keys.sort();
        lines.extend(keys);
        lines
    }
}

impl Answer for PbLeaseLeasesResponse {
    fn lines(&self, base: i64) -> Vec<String> {
        let header = revision(self.header.as_ref(), base);
        let ids = self.leases.iter().map(|lease| format!(" {}", lease.id));
        vec![format!("{header} leases{}", ids.collect::<String>())]
    }
}

impl Answer for PbMemberListResponse {
    fn lines(&self, base: i64) -> Vec<String> {
        let mut lines = vec![revision(self.header.as_ref(), base)];
        let own = self.header.as_ref().map(|header| header.member_id);
        for member in &self.members {
            let says = |yes: bool, what: &str| {
                if yes {
                    what.to_owned()
                } else {
                    format!("no {what}")
                }
            };
            lines.push(format!(
                "{}, {}, {}, {}",
                says(own == Some(member.id), "answers itself"),
                says(!member.name.is_empty(), "name"),
                says(member.client_ur_ls.len() == 1, "client url"),
                says(member.is_learner, "learner"),
            ));
        }
        lines
    }
}

impl Answer for PbStatusResponse {
    fn lines(&self, base: i64) -> Vec<String> {
        let header = revision(self.header.as_ref(), base);
        let own = self.header.as_ref().map(|header| header.member_id);
        let term = self.header.as_ref().map(|header| header.raft_term);
        let mut version = self.version.split('.').map(str::parse::<u32>);
        let mut part = || version.next().and_then(Result::ok).unwrap_or_default();
        let version = format!("{}.{}", part(), part());
        vec![
            header,
            format!(
                "version {version} storage version {:?}",
                self.storage_version
            ),
            format!("leads: {}", own == Some(self.leader)),
            format!("term as in the header: {}", term == Some(self.raft_term)),
            format!("counts: {}", self.raft_index >= self.raft_applied_index),
            format!(
                "takes room: {}",
                self.db_size > 0 && self.db_size_in_use > 0
            ),
            format!("has a bound: {}", self.db_size_quota > 0),
            format!("errors {:?} learner {}", self.errors, self.is_learner),
        ]
    }
}
