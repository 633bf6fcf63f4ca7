//! What the service under test does: writes changes down with their events, and applies those that come.

use std::{sync::Arc, time::Duration};

use gantry::crash;
use gantry_events::{Failure, Handle, Outbox, Received};
use gantry_store::{Database, Error, Migration, Statement, Transaction};
use tokio::time;

use crate::{
    contract::{Credited, Debited, PostRequest, Trouble},
    log::{Line, Log},
};

/// The tables of the publisher and of the consumer. An event that is applied twice is seen: nothing
/// keeps it from being there twice.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "ledger",
    sql: "
        CREATE TABLE entries (
            request_id TEXT PRIMARY KEY,
            account TEXT NOT NULL,
            amount BIGINT NOT NULL
        );
        CREATE TABLE balances (
            account TEXT PRIMARY KEY,
            effects BIGINT NOT NULL,
            amount BIGINT NOT NULL
        );
        CREATE TABLE effects (
            account TEXT NOT NULL,
            place BIGINT NOT NULL,
            event_id TEXT NOT NULL,
            request_id TEXT NOT NULL,
            sequence BIGINT NOT NULL,
            amount BIGINT NOT NULL,
            PRIMARY KEY (account, place)
        );",
}];

const ENTER: Statement = Statement::new(
    "ledger.enter",
    "INSERT INTO entries (request_id, account, amount) VALUES ($1, $2, $3)
     ON CONFLICT (request_id) DO NOTHING",
);
const BALANCE: Statement = Statement::new(
    "ledger.balance",
    "INSERT INTO balances (account, effects, amount) VALUES ($1, 1, $2)
     ON CONFLICT (account) DO UPDATE SET
         effects = balances.effects + 1, amount = balances.amount + excluded.amount
     RETURNING effects",
);
const APPLY: Statement = Statement::new(
    "ledger.apply",
    "INSERT INTO effects (account, place, event_id, request_id, sequence, amount)
     VALUES ($1, $2, $3, $4, $5, $6)",
);

/// How a change was written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Posted {
    /// It was not there, and is.
    New,
    /// It was there.
    Known,
    /// It is not there, as was wanted.
    Refused,
}

/// Writes a change down with its event.
///
/// # Errors
///
/// If the database fails; it may be written down all the same.
pub(crate) async fn post(
    database: &Database,
    outbox: &Outbox,
    request: PostRequest,
) -> Result<Posted, Error> {
    crash::point("ledger.p0");
    let mut transaction = database.begin("ledger.post").await?;
    let enter = transaction.statement(&ENTER).bind(&request.request_id);
    let enter = enter.bind(&request.account).bind(request.amount);
    if enter.execute().await? == 0 {
        transaction.rollback().await?;
        return Ok(Posted::Known);
    }
    let PostRequest {
        request_id,
        account,
        amount,
        trouble,
        refused,
    } = request;
    let key = account.clone();
    if amount < 0 {
        let amount = -amount;
        let event = Debited {
            request_id,
            account,
            amount,
            trouble,
        };
        outbox.add(&mut transaction, &key, &event).await?;
    } else {
        let event = Credited {
            request_id,
            account,
            amount,
            trouble,
        };
        outbox.add(&mut transaction, &key, &event).await?;
    }
    if refused {
        transaction.rollback().await?;
        return Ok(Posted::Refused);
    }
    transaction.commit().await?;
    Ok(Posted::New)
}

/// Applies events.
#[derive(Debug, Clone)]
pub(crate) struct Apply {
    pub(crate) log: Arc<Log>,
    /// How long it waits first, as for another service.
    pub(crate) wait: Duration,
}

/// A change, whichever event tells of it.
struct Change<'a> {
    request_id: &'a str,
    account: &'a str,
    amount: i64,
    trouble: Option<&'a Trouble>,
}

impl Apply {
    async fn apply<E>(
        &self,
        event: &Received<E>,
        change: Change<'_>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        let Change {
            request_id,
            account,
            amount,
            trouble,
        } = change;
        if !self.wait.is_zero() {
            time::sleep(self.wait).await;
        }
        let balance = transaction.statement(&BALANCE).bind(account).bind(amount);
        let place = balance.fetch_one().await?.integer("effects")?;
        let sequence = event.sequence().and_then(|it| i64::try_from(it).ok());
        let apply = transaction.statement(&APPLY).bind(account).bind(place);
        let apply = apply.bind(event.id()).bind(request_id);
        apply
            .bind(sequence.unwrap_or(-1))
            .bind(amount)
            .execute()
            .await?;
        // At the end: what is written by then must go.
        if trouble.is_some_and(|it| it.poisoned) {
            return Err(Failure::reject("poisoned, as was asked for"));
        }
        if trouble.is_some_and(|it| event.attempt().attempt <= it.attempts) {
            return Err(Failure::retry("one of the attempts that fail"));
        }
        let (log, event_id) = (Arc::clone(&self.log), event.id().to_owned());
        transaction.after_commit(move || log.add(&Line::Applied { event_id }));
        Ok(())
    }
}

impl Handle<Credited> for Apply {
    async fn handle(
        &self,
        event: &Received<Credited>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        let change = Change {
            request_id: &event.request_id,
            account: &event.account,
            amount: event.amount,
            trouble: event.trouble.as_ref(),
        };
        self.apply(event, change, transaction).await
    }
}

impl Handle<Debited> for Apply {
    async fn handle(
        &self,
        event: &Received<Debited>,
        transaction: &mut Transaction,
    ) -> Result<(), Failure> {
        let change = Change {
            request_id: &event.request_id,
            account: &event.account,
            amount: -event.amount,
            trouble: event.trouble.as_ref(),
        };
        self.apply(event, change, transaction).await
    }
}
