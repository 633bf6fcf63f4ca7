//! One request as etcd's client makes it, and its answer.

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, GetOptions, KeyValue, LeaseGrantOptions,
    PutOptions, ResponseHeader, Txn, TxnOp, TxnOpResponse,
};
use tonic::Code;

use super::entry;
use crate::record::{Entries, Outcome, TTL, What};

/// Only what the store itself refuses certainly did not happen.
pub(super) fn failed(error: &Error) -> Outcome {
    match error {
        Error::GRpcStatus(status)
            if matches!(
                status.code(),
                Code::NotFound
                    | Code::OutOfRange
                    | Code::InvalidArgument
                    | Code::FailedPrecondition
            ) =>
        {
            Outcome::Refused(status.message().to_owned())
        }
        _ => Outcome::Unknown,
    }
}

/// Asks for `what`.
pub(super) async fn ask(client: &mut Client, key: &str, what: &What) -> Result<Outcome, Error> {
    match what {
        What::Grant(_) | What::Revoke(_) | What::KeepAlive(_) => lease(client, what).await,
        What::Swap { .. } | What::Many { .. } => transaction(client, key, what).await,
        _ => single(client, key, what).await,
    }
}

fn done<'a>(
    header: Option<&ResponseHeader>,
    applied: bool,
    before: impl IntoIterator<Item = &'a KeyValue>,
) -> Outcome {
    Outcome::Done {
        revision: header.map_or(0, ResponseHeader::revision),
        applied,
        before: entries(before),
    }
}

fn entries<'a>(found: impl IntoIterator<Item = &'a KeyValue>) -> Entries {
    let named = |kv: &KeyValue| (String::from_utf8_lossy(kv.key()).into_owned(), entry(kv));
    found.into_iter().map(named).collect()
}

async fn single(client: &mut Client, key: &str, what: &What) -> Result<Outcome, Error> {
    Ok(match what {
        What::Put { value, lease } => {
            let options = PutOptions::new().with_lease(*lease).with_prev_key();
            let answer = client.put(key, value.as_str(), Some(options)).await?;
            done(answer.header(), true, answer.prev_key())
        }
        What::Delete => {
            let options = DeleteOptions::new().with_prev_key();
            let answer = client.delete(key, Some(options)).await?;
            done(answer.header(), answer.deleted() > 0, answer.prev_kvs())
        }
        What::Compact(revision) => {
            let answer = client.compact(*revision, None).await?;
            done(answer.header(), true, None)
        }
        What::Range { to, revision } => {
            let options = GetOptions::new().with_revision(*revision);
            let options = if to.is_empty() {
                options
            } else {
                options.with_range(to.as_str())
            };
            let answer = client.get(key, Some(options)).await?;
            done(answer.header(), false, answer.kvs())
        }
        _ => {
            let answer = client.get(key, None).await?;
            done(answer.header(), false, answer.kvs())
        }
    })
}

async fn transaction(client: &mut Client, key: &str, what: &What) -> Result<Outcome, Error> {
    let before = || Some(PutOptions::new().with_prev_key());
    let transaction = match what {
        What::Swap { modified, value } => Txn::new()
            .when([Compare::mod_revision(key, CompareOp::Equal, *modified)])
            .and_then([TxnOp::put(key, value.as_str(), before())])
            .or_else([TxnOp::get(key, None)]),
        What::Many { changes, lease } => {
            let changes = changes.iter().map(|(key, value)| {
                if let Some(value) = value {
                    let options = before().map(|options| options.with_lease(*lease));
                    TxnOp::put(key.as_str(), value.as_str(), options)
                } else {
                    let options = DeleteOptions::new().with_prev_key();
                    TxnOp::delete(key.as_str(), Some(options))
                }
            });
            Txn::new().and_then(changes.collect::<Vec<_>>())
        }
        _ => unreachable!("it is a transaction"),
    };
    let answer = client.txn(transaction).await?;
    let mut found = Entries::new();
    let mut changed = false;
    for response in answer.op_responses() {
        match response {
            TxnOpResponse::Put(put) => {
                changed = true;
                found.extend(entries(put.prev_key()));
            }
            TxnOpResponse::Delete(delete) => {
                changed |= delete.deleted() > 0;
                found.extend(entries(delete.prev_kvs()));
            }
            TxnOpResponse::Get(get) => found.extend(entries(get.kvs())),
            TxnOpResponse::Txn(_) => {}
        }
    }
    Ok(Outcome::Done {
        revision: answer.header().map_or(0, ResponseHeader::revision),
        applied: changed,
        before: found,
    })
}

async fn lease(client: &mut Client, what: &What) -> Result<Outcome, Error> {
    Ok(match what {
        What::Grant(id) => {
            let options = LeaseGrantOptions::new().with_id(*id);
            let ttl = TTL.as_secs().cast_signed();
            let answer = client.lease_grant(ttl, Some(options)).await?;
            done(answer.header(), true, None)
        }
        What::Revoke(id) => {
            let answer = client.lease_revoke(*id).await?;
            done(answer.header(), true, None)
        }
        What::KeepAlive(id) => match client.lease_keep_alive(*id).await {
            Ok((mut keeper, mut answers)) => {
                keeper.keep_alive().await?;
                let answer = answers.message().await?;
                let alive = answer.as_ref().is_some_and(|answer| answer.ttl() > 0);
                done(answer.as_ref().and_then(|it| it.header()), alive, None)
            }
            // This is how that client says that there is none.
            Err(Error::LeaseKeepAliveError(_)) => Outcome::Refused(NO_LEASE.to_owned()),
            Err(error) => return Err(error),
        },
        _ => unreachable!("it is about a lease"),
    })
}

/// What a lease that is not there is refused with.
pub(crate) const NO_LEASE: &str = "etcdserver: requested lease not found";
