//! Passwords: hashed slowly, off the async threads, a few at a time.
//!
//! One argon2id hash takes 19 MiB and tens of milliseconds of a core. Hashes at once are bounded,
//! and so are the lines for them: a flood of logins costs a fixed amount of memory and leaves the
//! other rpcs their threads. That memory is kept and used again.
//!
//! ```text
//! registrations ──▶ line ──▶ its head ──┐
//!                                       ├──▶ a turn, one by one ──▶ hash
//! logins ─────────▶ line ──▶ its head ──┘
//! ```
//!
//! Registrations and logins wait in lines of their own, and only the heads of the lines wait for a
//! turn: however many of one come, every second turn is the other's, where it wants it.

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

/// Why waiting for a place does not fail.
const NEVER_CLOSED: &str = "the semaphore is never closed";

/// Hashes and checks passwords; clones share its bounds.
#[derive(Debug, Clone)]
pub struct Passwords {
    running: Arc<Semaphore>,
    registrations: Line,
    logins: Line,
    memory: Arc<Memory>,
    // What a password is checked against where there is no account: the answer then takes as long.
    decoy: Arc<str>,
}

/// Those who wait for the same, in the order they came.
#[derive(Debug, Clone)]
struct Line {
    /// Places, of those who have a turn among them.
    places: Arc<Semaphore>,
    /// The one place from which a turn is asked for.
    head: Arc<Semaphore>,
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
    /// At most `running_max` at once, and `line_max` more waiting to register and to log in each.
    ///
    /// # Errors
    ///
    /// If the system has no randomness to give.
    pub fn new(running_max: usize, line_max: usize) -> Result<Self, PasswordError> {
        let decoy = decoy().map_err(failed)?;
        Ok(Self {
            running: Arc::new(Semaphore::new(running_max)),
            registrations: Line::new(running_max + line_max),
            logins: Line::new(running_max + line_max),
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
        let line = &self.registrations;
        self.run(line, move |memory| hash(&password, memory)).await
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
        self.run(&self.logins, move |memory| {
            let against = hash.as_deref().unwrap_or(&decoy);
            Ok(verify(&password, against, memory)? && hash.is_some())
        })
        .await
    }

    /// Runs `work` once it is its turn in `line`. A caller that leaves meanwhile gives up its place in
    /// it; work that has begun keeps its place until it ends, so that memory stays bounded.
    async fn run<T: Send + 'static>(
        &self,
        line: &Line,
        work: impl FnOnce(&mut Piece) -> Result<T, password_hash::Error> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = Arc::clone(&line.places)
            .try_acquire_owned()
            .map_err(|_| PasswordError::Busy)?;
        let head = line.head.acquire().await.expect(NEVER_CLOSED);
        // Turns go to those who ask first: of the two heads, each has one after the other.
        let turn = Arc::clone(&self.running).acquire_owned().await;
        let turn = turn.expect(NEVER_CLOSED);
        drop(head);
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

impl Line {
    fn new(places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            head: Arc::new(Semaphore::new(1)),
        }
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
    use futures_util::{
        FutureExt as _,
        future::{join, join_all},
    };

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

    /// Goal: however many registrations wait, a login is let into its line and has the turn after the
    /// next, and the other way round; and turns go to the one kind where the other wants none.
    /// Method: one turn, held until a full line of one kind and two of the other wait; in which order
    /// they run.
    #[tokio::test]
    async fn a_flood_of_one_kind_holds_up_none_of_the_other() {
        for many_are_logins in [false, true] {
            let passwords = Passwords::new(1, 4).unwrap();
            let (mut many, mut few) = (&passwords.registrations, &passwords.logins);
            if many_are_logins {
                (many, few) = (few, many);
            }
            let (gate, opened) = std::sync::mpsc::channel::<()>();
            let ran = Arc::new(std::sync::Mutex::new(Vec::new()));
            let first = passwords.run(many, move |_| Ok(opened.recv().is_err()));
            let run = |line, name: &'static str| {
                let ran = Arc::clone(&ran);
                passwords.run(line, move |_| {
                    ran.lock().unwrap().push(name);
                    Ok(false)
                })
            };
            let waiting = join_all((0..4).map(|_| run(many, "many")));
            let full = async {
                let refused = run(many, "refused").await;
                assert!(matches!(refused, Err(PasswordError::Busy)), "{refused:?}");
            };
            let others = join_all((0..2).map(|_| run(few, "few")));
            // Once all of them wait.
            let open = async { drop(gate) };
            let (first, waited, (), others, ()) =
                tokio::join!(biased; first, waiting, full, others, open);
            assert!(first.unwrap(), "it waited for the gate");
            let all = waited.into_iter().chain(others);
            assert!(all.flatten().all(|held| !held));
            let expected = ["many", "few", "many", "few", "many", "many"];
            assert_eq!(expected.as_slice(), *ran.lock().unwrap());
        }
    }

    /// Goal: whoever leaves the head of a line, or its midst, holds up nobody behind them.
    /// Method: one turn, held; three wait, the first two leave; the third runs once the turn is free.
    #[tokio::test]
    async fn whoever_leaves_a_line_gives_up_the_place() {
        let passwords = Passwords::new(1, 3).unwrap();
        let (gate, opened) = std::sync::mpsc::channel::<()>();
        let line = &passwords.logins;
        let first = passwords.run(line, move |_| Ok(opened.recv().is_err()));
        let asked = || passwords.check(secret("x"), None);
        let leaving = async {
            let (mut head, mut midst) = (Box::pin(asked()), Box::pin(asked()));
            let both = join(&mut head, &mut midst);
            assert!(both.now_or_never().is_none());
            drop((head, midst));
            drop(gate);
        };
        let (first, (), third) = tokio::join!(biased; first, leaving, asked());
        assert!(first.unwrap() && !third.unwrap());
        assert_eq!(4, line.places.available_permits());
        assert_eq!(1, line.head.available_permits());
    }
}
