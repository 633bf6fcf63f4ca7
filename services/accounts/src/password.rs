//! Passwords: hashed slowly, off the async threads, a few at a time.
//!
//! One argon2id hash takes 19 MiB and tens of milliseconds of a core. Hashes at once are bounded,
//! and so is the line for them: a flood of logins costs a fixed amount of memory and leaves the
//! other rpcs their threads.

use std::sync::Arc;

use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use gantry::BoxError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

/// Hashes and checks passwords; clones share its bounds.
#[derive(Debug, Clone)]
pub struct Passwords {
    running: Arc<Semaphore>,
    line: Arc<Semaphore>,
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
    /// If there is no memory for a first hash.
    pub fn new(running_max: usize, line_max: usize) -> Result<Self, PasswordError> {
        let decoy = hash("a password nobody has, since nothing is checked against it twice")?;
        Ok(Self {
            running: Arc::new(Semaphore::new(running_max)),
            line: Arc::new(Semaphore::new(running_max + line_max)),
            decoy: decoy.into(),
        })
    }

    /// The argon2id hash of `password` with a salt of its own, in the PHC form.
    ///
    /// # Errors
    ///
    /// If too many wait already.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, PasswordError> {
        self.run(move || hash(&password)).await
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
        self.run(move || {
            let known = hash.is_some();
            let against = hash.as_deref().unwrap_or(&decoy);
            match Argon2::default().verify_password(password.as_bytes(), against) {
                Ok(()) => Ok(known),
                Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(PasswordError::Hash(Box::new(error))),
            }
        })
        .await
    }

    /// Runs `work` once it is its turn. A caller that leaves meanwhile gives up its place in the
    /// line; work that has begun keeps its place until it ends, so that memory stays bounded.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = Arc::clone(&self.line)
            .try_acquire_owned()
            .map_err(|_| PasswordError::Busy)?;
        let turn = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let places: [OwnedSemaphorePermit; 2] = [place, turn];
        tokio::task::spawn_blocking(move || {
            let outcome = work();
            drop(places);
            outcome
        })
        .await
        .map_err(|error| PasswordError::Hash(Box::new(error)))?
    }
}

fn hash(password: &str) -> Result<String, PasswordError> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| PasswordError::Hash(Box::new(error)))
}

#[cfg(test)]
mod tests {
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
        // Not even the decoy's own password is one.
        let decoy = "a password nobody has, since nothing is checked against it twice";
        assert!(!passwords.check(secret(decoy), None).await.unwrap());
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
