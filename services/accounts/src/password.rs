//! Passwords: hashed slowly, off the async threads, a few at a time.
//!
//! One argon2id hash takes 19 MiB and tens of milliseconds of a core. Hashes at once are bounded,
//! and so is the line for them: a flood of logins costs a fixed amount of memory and leaves the
//! other rpcs their threads. That memory is kept and used again.

mod memory;

use std::sync::Arc;

use argon2::{
    ARGON2ID_IDENT, Algorithm, Argon2, Params, Version,
    password_hash::{
        self,
        phc::{Output, ParamsString, PasswordHash, Salt},
    },
};
use gantry::BoxError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use self::memory::{Memory, Piece};

/// Hashes and checks passwords; clones share its bounds.
#[derive(Debug, Clone)]
pub struct Passwords {
    running: Arc<Semaphore>,
    line: Arc<Semaphore>,
    memory: Arc<Memory>,
    // What a password is checked against where there is no account: the answer then takes as long.
    decoy: Arc<str>,
}

/// Why a password was neither hashed nor checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many wait already.
    #[error("too many passwords wait to be checked")]
    Busy,
    /// The hash in the database is none, or there was no memory for one.
    #[error("hash a password")]
    Hash(#[source] BoxError),
}

impl Passwords {
    /// At most `running_max` at once and `line_max` more waiting.
    ///
    /// # Errors
    ///
    /// If the system has no randomness to give.
    pub fn new(running_max: usize, line_max: usize) -> Result<Self, PasswordError> {
        let decoy = decoy().map_err(failed)?;
        Ok(Self {
            running: Arc::new(Semaphore::new(running_max)),
            line: Arc::new(Semaphore::new(running_max + line_max)),
            memory: Arc::default(),
            decoy: decoy.to_string().into(),
        })
    }

    /// The argon2id hash of `password` with a salt of its own, in the PHC form.
    ///
    /// # Errors
    ///
    /// If too many wait already.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, PasswordError> {
        self.run(move |memory| hash(&password, memory)).await
    }

    /// Whether `password` is the one of `hash`. Without a hash it is not, and finding that out
    /// takes as long.
    ///
    /// # Errors
    ///
    /// If too many wait already, or `hash` is none.
    pub async fn check(
        &self,
        password: Zeroizing<String>,
        hash: Option<String>,
    ) -> Result<bool, PasswordError> {
        let decoy = Arc::clone(&self.decoy);
        self.run(move |memory| {
            let against = hash.as_deref().unwrap_or(&decoy);
            Ok(verify(&password, against, memory)? && hash.is_some())
        })
        .await
    }

    /// Runs `work` once it is its turn. A caller that leaves meanwhile gives up its place in the
    /// line; work that has begun keeps its place until it ends, so that memory stays bounded.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Piece) -> Result<T, password_hash::Error> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = Arc::clone(&self.line)
            .try_acquire_owned()
            .map_err(|_| PasswordError::Busy)?;
        let turn = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let places: [OwnedSemaphorePermit; 2] = [place, turn];
        let memory = Arc::clone(&self.memory);
        tokio::task::spawn_blocking(move || {
            // With a turn: pieces in use are never more than hashes that may run.
            let outcome = memory.lend(work);
            drop(places);
            outcome
        })
        .await
        .map_err(failed)?
        .map_err(failed)
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> PasswordError {
    PasswordError::Hash(Box::new(error))
}

/// A hash yet to be computed: with the terms of this service and a salt of its own.
fn blank() -> Result<PasswordHash, password_hash::Error> {
    Ok(PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(Version::default().into()),
        params: ParamsString::try_from(&Params::default())?,
        salt: Some(Salt::new(&password_hash::generate_salt())?),
        hash: None,
    })
}

/// The hash of no password anybody knows.
fn decoy() -> Result<PasswordHash, password_hash::Error> {
    let random = [
        password_hash::generate_salt(),
        password_hash::generate_salt(),
    ];
    Ok(PasswordHash {
        hash: Some(Output::new(random.as_flattened())?),
        ..blank()?
    })
}

fn hash(password: &str, memory: &mut Piece) -> Result<String, password_hash::Error> {
    let blank = blank()?;
    let hash = PasswordHash {
        hash: Some(output(&blank, password, memory)?),
        ..blank
    };
    Ok(hash.to_string())
}

fn verify(password: &str, hash: &str, memory: &mut Piece) -> Result<bool, password_hash::Error> {
    let known = PasswordHash::new(hash)?;
    let expected = known.hash.as_ref();
    let expected = expected.ok_or(password_hash::Error::EncodingInvalid)?;
    // Outputs are compared in constant time.
    Ok(output(&known, password, memory)? == *expected)
}

/// What comes of `password` on the terms and with the salt of `hash`.
fn output(
    hash: &PasswordHash,
    password: &str,
    memory: &mut Piece,
) -> Result<Output, password_hash::Error> {
    let algorithm = Algorithm::try_from(hash.algorithm.as_str())?;
    let version = hash.version.map(Version::try_from).transpose()?;
    let params = Params::try_from(hash)?;
    let salt = hash.salt.as_ref();
    let salt = salt.ok_or(password_hash::Error::SaltInvalid)?;
    let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
    let blocks = memory.blocks(params.block_count())?;
    let mut bytes = [0; Output::MAX_LENGTH];
    let bytes = bytes.get_mut(..length);
    let bytes = bytes.ok_or(password_hash::Error::OutputSize)?;
    let argon2 = Argon2::new(algorithm, version.unwrap_or_default(), params);
    argon2.hash_password_into_with_memory(password.as_bytes(), salt, bytes, blocks)?;
    Ok(Output::new(bytes)?)
}

#[cfg(test)]
mod tests {
    use argon2::{PasswordHasher as _, PasswordVerifier as _};

    use super::*;

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    /// Goal: the right password passes, no other does, and without an account none does.
    /// Method: hash one, check a few.
    #[tokio::test]
    async fn only_the_right_password_passes() {
        let passwords = Passwords::new(1, 8).unwrap();
        let hash = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        let other = passwords.hash(secret("correct horse")).await.unwrap();
        assert_ne!(hash, other, "each hash has a salt of its own");
        for (password, passes) in [
            ("correct horse", true),
            ("Correct horse", false),
            ("", false),
        ] {
            let checked = passwords.check(secret(password), Some(hash.clone())).await;
            assert_eq!(passes, checked.unwrap(), "{password}");
        }
        assert!(!passwords.check(secret("x"), None).await.unwrap());
    }

    /// Goal: a hash is what argon2 makes of a password by itself, in used memory as in fresh.
    /// Method: several of each; the library checks them, and they check what the library made.
    #[tokio::test]
    async fn hashes_are_those_of_argon2() {
        let passwords = Passwords::new(1, 8).unwrap();
        for password in ["correct horse", "battery", ""] {
            let hash = passwords.hash(secret(password)).await.unwrap();
            let checked = Argon2::default().verify_password(password.as_bytes(), &*hash);
            assert_eq!(Ok(()), checked, "{password}");
            let theirs = Argon2::default().hash_password(password.as_bytes());
            let theirs = theirs.unwrap().to_string();
            let checked = passwords.check(secret(password), Some(theirs)).await;
            assert!(checked.unwrap(), "{password}");
        }
    }

    /// Goal: a damaged hash is a failure, not a wrong password.
    /// Method: check against text.
    #[tokio::test]
    async fn a_damaged_hash_is_a_failure() {
        let passwords = Passwords::new(1, 8).unwrap();
        let checked = passwords
            .check(secret("x"), Some("plain text".to_owned()))
            .await;
        assert!(
            matches!(checked, Err(PasswordError::Hash(_))),
            "{checked:?}"
        );
    }

    /// Goal: a full line refuses at once, and places come back.
    /// Method: fill a line of one beside the one that runs, ask once more, then let all end.
    #[tokio::test]
    async fn a_full_line_refuses_at_once() {
        let passwords = Passwords::new(1, 1).unwrap();
        let asked = || passwords.check(secret("x"), None);
        let (one, two, three) = tokio::join!(biased; asked(), asked(), asked());
        assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
        assert!(matches!(three, Err(PasswordError::Busy)), "{three:?}");
        assert!(asked().await.is_ok());
    }
}
