//! Accounts and signing keys in SQL.

use gantry_store::{Database, Error, Migration, Row, Statement, Timestamp};
use zeroize::Zeroizing;

use crate::domain::{Account, Email};

/// The shape of the database.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "accounts",
        sql: include_str!("../migrations/0001_accounts.sql"),
    },
    Migration {
        version: 2,
        name: "roles",
        sql: include_str!("../migrations/0002_roles.sql"),
    },
];

const INSERT_ACCOUNT: Statement = Statement::new(
    "accounts.insert_account",
    "INSERT INTO accounts (account_id, email, display_name, password_hash, created_at)
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (email) DO NOTHING",
);
const FIND_PASSWORD: Statement = Statement::new(
    "accounts.find_password",
    "SELECT account_id, password_hash FROM accounts WHERE email = $1",
);
const FIND_ACCOUNT: Statement = Statement::new(
    "accounts.find_account",
    "SELECT account_id FROM accounts WHERE account_id = $1",
);
const DELETE_ROLES: Statement = Statement::new(
    "accounts.delete_roles",
    "DELETE FROM account_roles WHERE account_id = $1",
);
const INSERT_ROLE: Statement = Statement::new(
    "accounts.insert_role",
    "INSERT INTO account_roles (account_id, role) VALUES ($1, $2)",
);
const FIND_ROLES: Statement = Statement::new(
    "accounts.find_roles",
    "SELECT role FROM account_roles WHERE account_id = $1 ORDER BY role LIMIT 16",
);
const INSERT_KEY: Statement = Statement::new(
    "accounts.insert_key",
    "INSERT INTO signing_keys (kid, pkcs8, created_at) VALUES ($1, $2, $3)",
);
const NEWEST_KEY: Statement = Statement::new(
    "accounts.newest_key",
    "SELECT kid, pkcs8, created_at FROM signing_keys ORDER BY created_at DESC, kid DESC LIMIT 1",
);
const LIST_KEYS: Statement = Statement::new(
    "accounts.list_keys",
    "SELECT kid, pkcs8, created_at FROM signing_keys ORDER BY created_at DESC, kid DESC LIMIT 16",
);
const DELETE_KEYS: Statement = Statement::new(
    "accounts.delete_keys",
    "DELETE FROM signing_keys WHERE created_at < $1 AND kid <> $2",
);

/// What is kept to check a password.
#[derive(Debug)]
pub struct Credentials {
    /// The account.
    pub account_id: String,
    /// Its password's hash, in the PHC form.
    pub password_hash: String,
}

/// A signing key as it is kept.
pub struct StoredKey {
    /// Its name.
    pub kid: String,
    /// The key pair, PKCS #8 in base64.
    pub pkcs8: Zeroizing<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl std::fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredKey")
            .field("kid", &self.kid)
            .field("created_at", &self.created_at)
            .finish_non_exhaustive()
    }
}

/// The rows of this service.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Rows in `database`, which has gone through [`MIGRATIONS`].
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Adds an account, unless its address has one; answers whether it was added.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn insert(&self, account: &Account, password_hash: &str) -> Result<bool, Error> {
        let rows = self
            .database
            .statement(&INSERT_ACCOUNT)
            .bind(&account.id)
            .bind(account.email.as_str())
            .bind(&account.display_name)
            .bind(password_hash)
            .bind(account.created_at)
            .execute()
            .await?;
        Ok(rows == 1)
    }

    /// What a password of `email` is checked against.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn credentials(&self, email: &Email) -> Result<Option<Credentials>, Error> {
        let find = self.database.statement(&FIND_PASSWORD).bind(email.as_str());
        let Some(row) = find.fetch_optional().await? else {
            return Ok(None);
        };
        Ok(Some(Credentials {
            account_id: row.text("account_id")?,
            password_hash: row.text("password_hash")?,
        }))
    }

    /// Gives an account these roles in place of those it had, each once; answers whether there is such
    /// an account.
    ///
    /// # Errors
    ///
    /// If the database fails; trying again is safe.
    pub async fn set_roles(&self, account_id: &str, roles: &[String]) -> Result<bool, Error> {
        let mut transaction = self.database.begin("accounts.set_roles").await?;
        // Of two who set the roles of one account at once, one has the last word, and not each half.
        transaction.alone("roles").await?;
        let found = transaction.statement(&FIND_ACCOUNT).bind(account_id);
        if found.fetch_optional().await?.is_none() {
            transaction.rollback().await?;
            return Ok(false);
        }
        let deleted = transaction.statement(&DELETE_ROLES).bind(account_id);
        deleted.execute().await?;
        for role in roles {
            let insert = transaction.statement(&INSERT_ROLE).bind(account_id);
            insert.bind(role).execute().await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// The roles of an account, in the order of the alphabet.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn roles(&self, account_id: &str) -> Result<Vec<String>, Error> {
        let find = self.database.statement(&FIND_ROLES).bind(account_id);
        let rows = find.fetch_all().await?;
        rows.iter().map(|row| row.text("role")).collect()
    }

    /// Adds the key that `make` makes unless there is one from `since` or later, and forgets keys
    /// from before `until`; answers whether one was added. Replicas that ask together add one.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn rotate_keys(
        &self,
        since: Timestamp,
        until: Timestamp,
        make: impl FnOnce() -> StoredKey,
    ) -> Result<bool, Error> {
        let mut transaction = self.database.begin("accounts.rotate_keys").await?;
        transaction.alone("signing keys").await?;
        let newest = transaction.statement(&NEWEST_KEY).fetch_optional().await?;
        let newest = newest.as_ref().map(read_key).transpose()?;
        if newest.is_some_and(|key| key.created_at >= since) {
            transaction.rollback().await?;
            return Ok(false);
        }
        let key = make();
        transaction
            .statement(&INSERT_KEY)
            .bind(&key.kid)
            .bind(key.pkcs8.as_str())
            .bind(key.created_at)
            .execute()
            .await?;
        transaction
            .statement(&DELETE_KEYS)
            .bind(until)
            .bind(&key.kid)
            .execute()
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// All keys, the newest first.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn keys(&self) -> Result<Vec<StoredKey>, Error> {
        let rows = self.database.statement(&LIST_KEYS).fetch_all().await?;
        rows.iter().map(read_key).collect()
    }
}

fn read_key(row: &Row) -> Result<StoredKey, Error> {
    Ok(StoredKey {
        kid: row.text("kid")?,
        pkcs8: Zeroizing::new(row.text("pkcs8")?),
        created_at: row.time("created_at")?,
    })
}
