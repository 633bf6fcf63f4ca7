//! Lists a page at a time, by key and not by position: rows that come and go meanwhile neither
//! repeat nor hide others.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

/// Rows of a page where the caller does not say.
const SIZE_DEFAULT: u32 = 50;
/// Rows of a page at most.
const SIZE_MAX: u32 = 500;
/// First byte of a token; a token of another version is refused, not misread.
const VERSION: u8 = 1;

/// Which page of a list is wanted.
///
/// `list` names the kind of list, so that a token of one list is refused by another. A token is
/// not secret and grants nothing: the statement itself decides which rows a caller may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    list: &'static str,
    size: u32,
    after: Option<String>,
}

/// A page token nobody handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a next_page_token of the same list, or nothing")]
pub struct PageTokenError;

impl Page {
    /// Reads what a caller asked for: 0 or less is the default size, too much is the maximum.
    ///
    /// # Errors
    ///
    /// If the token is none of this list's.
    pub fn read(list: &'static str, size: i32, token: &str) -> Result<Self, PageTokenError> {
        let size = match u32::try_from(size) {
            Ok(0) | Err(_) => SIZE_DEFAULT,
            Ok(size) => size.min(SIZE_MAX),
        };
        let after = if token.is_empty() {
            None
        } else {
            Some(decode(list, token).ok_or(PageTokenError)?)
        };
        Ok(Self { list, size, after })
    }

    /// The key of the last row of the page before; none for the first page.
    #[must_use]
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// How many rows to fetch: one more than the page, which tells whether there is another.
    #[must_use]
    pub fn fetch(&self) -> i64 {
        i64::from(self.size) + 1
    }

    /// Cuts `rows` to the page and answers the token of the next one, empty on the last.
    pub fn cut<T>(&self, rows: &mut Vec<T>, key: impl Fn(&T) -> String) -> String {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        if rows.len() <= size {
            return String::new();
        }
        rows.truncate(size);
        rows.last()
            .map_or_else(String::new, |row| encode(self.list, &key(row)))
    }
}

fn encode(list: &str, key: &str) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(list.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(key.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(list: &str, token: &str) -> Option<String> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
    let key = bytes
        .strip_prefix(&[VERSION])?
        .strip_prefix(list.as_bytes())?
        .strip_prefix(&[0])?;
    // PostgreSQL takes no zero byte, and no key has one.
    let key = String::from_utf8(key.to_vec()).ok();
    key.filter(|key| !key.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: pages join without gap or overlap, and the last says so.
    /// Method: walk a list of seven by threes.
    #[test]
    fn pages_join_into_the_whole_list() {
        let all = ["a", "b", "c", "d", "e", "f", "g"];
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let page = Page::read("letters", 3, &token).unwrap();
            let mut rows: Vec<&str> = all
                .into_iter()
                .filter(|row| page.after().is_none_or(|after| *row > after))
                .take(usize::try_from(page.fetch()).unwrap())
                .collect();
            token = page.cut(&mut rows, |row| (*row).to_owned());
            assert!(rows.len() <= 3);
            seen.extend(rows);
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(all.to_vec(), seen);
    }

    /// Goal: only a token of the same list is read.
    /// Method: a good token, then its mutilations.
    #[test]
    fn foreign_and_broken_tokens_are_refused() {
        let good = encode("orders", "key");
        assert_eq!(Some("key"), Page::read("orders", 1, &good).unwrap().after());
        for bad in [
            encode("order", "key"),
            encode("products", "key"),
            good[1..].to_owned(),
            format!("{good}="),
            "../../etc/passwd".to_owned(),
            "' OR 1=1".to_owned(),
            BASE64_URL_SAFE_NO_PAD.encode(b"\x02orders\0key"),
            BASE64_URL_SAFE_NO_PAD.encode(b"\x01orders\0\xff"),
            BASE64_URL_SAFE_NO_PAD.encode(b"\x01orders\0k\0ey"),
        ] {
            assert_eq!(Err(PageTokenError), Page::read("orders", 1, &bad), "{bad}");
        }
    }

    /// Goal: any size asked for becomes one the service can bear.
    /// Method: the edges.
    #[test]
    fn sizes_are_bounded() {
        for (asked, rows) in [(i32::MIN, 51), (0, 51), (1, 2), (500, 501), (i32::MAX, 501)] {
            assert_eq!(rows, Page::read("x", asked, "").unwrap().fetch(), "{asked}");
        }
    }
}
