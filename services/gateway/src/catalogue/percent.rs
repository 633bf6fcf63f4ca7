//! Escapes of paths and queries, strictly: what is broken is refused, and never guessed.

/// Something that stands for no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A `%` without two hexadecimal digits.
    #[error("a `%` is not followed by two hexadecimal digits")]
    Escape,
    /// Bytes that are no text.
    #[error("the escapes do not make UTF-8")]
    Text,
}

/// `text` without its escapes.
///
/// # Errors
///
/// If they stand for no text.
pub fn decode(text: &str) -> Result<String, Broken> {
    decode_where(text, |_| true, false)
}

/// As [`decode`], with slashes left as they came: `%2F` is no border of a segment.
///
/// # Errors
///
/// If the escapes stand for no text.
pub fn decode_path(text: &str) -> Result<String, Broken> {
    decode_where(text, |byte| byte != b'/', false)
}

/// As [`decode`], for a part of a query, where `+` is a space.
///
/// # Errors
///
/// If the escapes stand for no text.
pub fn decode_query(text: &str) -> Result<String, Broken> {
    decode_where(text, |_| true, true)
}

fn decode_where(text: &str, wanted: impl Fn(u8) -> bool, plus: bool) -> Result<String, Broken> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits = [bytes.next(), bytes.next()];
                let [Some(high), Some(low)] = digits.map(|it| it.and_then(digit)) else {
                    return Err(Broken::Escape);
                };
                let meant = high << 4 | low;
                if wanted(meant) {
                    decoded.push(meant);
                } else {
                    decoded.push(b'%');
                    decoded.extend(digits.into_iter().flatten());
                }
            }
            b'+' if plus => decoded.push(b' '),
            byte => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map_err(|_| Broken::Text)
}

fn digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_or_refused() {
        let text = |text: &str| Ok(text.to_owned());
        let cases = [
            ("a-b", text("a-b"), text("a-b"), text("a-b")),
            ("a%20b+c", text("a b+c"), text("a b+c"), text("a b c")),
            ("a%2Fb%2fc", text("a/b/c"), text("a%2Fb%2fc"), text("a/b/c")),
            ("%C3%a9", text("é"), text("é"), text("é")),
            (
                "%2",
                Err(Broken::Escape),
                Err(Broken::Escape),
                Err(Broken::Escape),
            ),
            (
                "%zz",
                Err(Broken::Escape),
                Err(Broken::Escape),
                Err(Broken::Escape),
            ),
            (
                "%ff",
                Err(Broken::Text),
                Err(Broken::Text),
                Err(Broken::Text),
            ),
        ];
        for (given, plain, path, query) in cases {
            assert_eq!(plain, decode(given), "{given}");
            assert_eq!(path, decode_path(given), "{given}");
            assert_eq!(query, decode_query(given), "{given}");
        }
    }
}
