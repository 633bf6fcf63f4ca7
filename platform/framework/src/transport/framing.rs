//! Messages on a stream: where one ends and the next begins.
//!
//! gRPC puts five bytes before each message: flags, and its length ("PROTOCOL-HTTP2",
//! `Length-Prefixed-Message`). Both ends follow them without holding a message.

/// One byte of flags, four of length.
const PREFIX: usize = 5;

/// Where a stream stands between its messages.
#[derive(Debug, Default)]
pub struct Framing {
    /// Bytes of the current message still to come.
    message: usize,
    prefix: [u8; PREFIX],
    /// Bytes of the next prefix that have come.
    prefix_read: usize,
    begun: usize,
}

/// A message beyond the bound.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Its length, as its prefix says.
    pub length: usize,
    /// Where in the data its prefix begins; zero also if it began in earlier data.
    pub begins: usize,
}

impl Framing {
    /// Whether the stream may end here: no message has begun that is not whole.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.message == 0 && self.prefix_read == 0
    }

    /// How many messages have begun, as far as their prefixes are whole.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.begun
    }

    /// The message that has begun and is not whole: its length, and how much of it has come.
    #[must_use]
    pub fn unfinished(&self) -> Option<(usize, usize)> {
        let length = length_in(self.prefix);
        (self.message > 0).then(|| (length, length - self.message))
    }

    /// Reads on.
    ///
    /// # Errors
    ///
    /// A message longer than `message_max`; the stream is not read further.
    pub fn advance(&mut self, data: &[u8], message_max: usize) -> Result<(), TooLarge> {
        // Nearly every piece is one message: there is nothing to follow.
        if self.is_between_messages()
            && let Some((prefix, message)) = data.split_first_chunk()
            && length_in(*prefix) == message.len()
            && message.len() <= message_max
        {
            self.begun += 1;
            return Ok(());
        }
        let mut at = 0;
        while at < data.len() {
            let rest = &data[at..];
            if self.message > 0 {
                let passed = self.message.min(rest.len());
                self.message -= passed;
                at += passed;
                continue;
            }
            let begins = at;
            let carried = self.prefix_read > 0;
            let read = (PREFIX - self.prefix_read).min(rest.len());
            self.prefix[self.prefix_read..self.prefix_read + read].copy_from_slice(&rest[..read]);
            self.prefix_read += read;
            at += read;
            if self.prefix_read == PREFIX {
                let length = length_in(self.prefix);
                if length > message_max {
                    let begins = if carried { 0 } else { begins };
                    return Err(TooLarge { length, begins });
                }
                self.begun += 1;
                self.message = length;
                self.prefix_read = 0;
            }
        }
        Ok(())
    }
}

/// The length of the message after `prefix`.
fn length_in(prefix: [u8; PREFIX]) -> usize {
    let [_, length @ ..] = prefix;
    usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.resize(PREFIX + length as usize, 7);
        bytes
    }

    /// Goal: every message is measured, however the stream is cut into pieces.
    /// Method: messages around the bound, in pieces of every size.
    #[test]
    fn messages_are_measured_across_pieces() {
        let fitting = [message(0), message(10), message(3)].concat();
        let beyond = [message(10), message(11)].concat();
        for size in 1..=beyond.len() {
            let mut framing = Framing::default();
            assert!(
                fitting
                    .chunks(size)
                    .all(|piece| framing.advance(piece, 10).is_ok())
            );

            let mut framing = Framing::default();
            let found = beyond
                .chunks(size)
                .find_map(|piece| framing.advance(piece, 10).err());
            assert_eq!(
                Some(11),
                found.map(|large| large.length),
                "pieces of {size}"
            );
        }
    }

    /// Goal: what came before a message that is too large may pass.
    /// Method: both in one piece.
    #[test]
    fn a_large_message_is_told_from_those_before_it() {
        let stream = [message(4), message(50)].concat();
        let found = Framing::default().advance(&stream, 10);
        let expected = TooLarge {
            length: 50,
            begins: PREFIX + 4,
        };
        assert_eq!(Err(expected), found);
    }

    /// Goal: a stream that breaks off inside a message is told from one that ends after it.
    /// Method: every cut of two messages; only three of them are between messages.
    #[test]
    fn a_cut_inside_a_message_is_seen() {
        let stream = [message(2), message(0)].concat();
        let ends: Vec<_> = (0..=stream.len())
            .filter(|cut| {
                let mut framing = Framing::default();
                framing.advance(&stream[..*cut], 10).unwrap();
                let within = framing.unfinished();
                let length = if *cut > PREFIX + 2 { 0 } else { 2 };
                assert!(
                    within.is_none_or(|it| it == (length, cut - PREFIX)),
                    "{cut}"
                );
                framing.is_between_messages()
            })
            .collect();
        assert_eq!(vec![0, PREFIX + 2, 2 * PREFIX + 2], ends);
    }
}
