//! Memory to hash in, kept between hashes.
//!
//! An allocator keeps what is freed with the thread that freed it. Allocated anew for each hash,
//! memory would stay with every thread that has ever hashed; kept here, there is as much of it as
//! was in use at once.

use std::sync::{Mutex, PoisonError};

use argon2::{Block, password_hash};

/// Pieces of memory that nobody hashes in.
#[derive(Debug, Default)]
pub(super) struct Memory {
    idle: Mutex<Vec<Piece>>,
}

/// The memory of one hash.
#[derive(Default)]
pub(super) struct Piece(Vec<Block>);

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piece")
            .field("blocks", &self.0.len())
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// Does `work` with the piece that was used last, or with a new one while all are in use.
    pub(super) fn lend<T>(&self, work: impl FnOnce(&mut Piece) -> T) -> T {
        let piece = self.idle().pop();
        let mut piece = piece.unwrap_or_default();
        let outcome = work(&mut piece);
        self.idle().push(piece);
        outcome
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Piece>> {
        // A list of idle pieces is whole between any two statements.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Piece {
    /// At least `count` blocks, with whatever is in them.
    ///
    /// # Errors
    ///
    /// If there is no memory for them.
    pub(super) fn blocks(&mut self, count: usize) -> Result<&mut [Block], password_hash::Error> {
        if self.0.len() < count {
            let missing = count - self.0.len();
            self.0
                .try_reserve_exact(missing)
                .map_err(|_| password_hash::Error::OutOfMemory)?;
            self.0.resize(count, Block::new());
        }
        Ok(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: there are as many pieces as were in use at once, and never more.
    /// Method: borrow one after the other, then one within another, then again.
    #[test]
    fn pieces_are_used_again() {
        let memory = Memory::default();
        let place = |piece: &mut Piece| piece.blocks(8).unwrap().as_ptr().addr();
        let first = memory.lend(place);
        assert_eq!(first, memory.lend(place));
        memory.lend(|piece| {
            assert_eq!(first, place(piece));
            assert_ne!(first, memory.lend(place));
        });
        assert_eq!(2, memory.idle().len());
        assert_eq!(first, memory.lend(place), "the one used last");
        assert_eq!(2, memory.idle().len());
    }
}
