//! The values of fields: bounded, and free of control characters.

use std::fmt::{self, Write};

/// Longest value of one field, in bytes before escaping.
pub(super) const VALUE_MAX: usize = 1_024;

/// What stands at the end of a value that was cut.
pub(super) const CUT: &str = "…";

/// Formats `value` into `out`, cut at [`VALUE_MAX`]; formatting stops there.
pub(super) fn format_cut(value: &dyn fmt::Debug, out: &mut String) {
    out.clear();
    // Fails only at the cut, and then what was written stands.
    let _ = write!(Cut { out }, "{value:?}");
}

/// The start of `value`, at most [`VALUE_MAX`] bytes, and whether it was cut.
pub(super) fn cut(value: &str) -> (&str, bool) {
    let end = value.floor_char_boundary(VALUE_MAX);
    (&value[..end], end < value.len())
}

struct Cut<'a> {
    out: &'a mut String,
}

impl Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = (VALUE_MAX + 1).saturating_sub(self.out.len());
        let end = text.floor_char_boundary(room);
        self.out.push_str(&text[..end]);
        if end == text.len() {
            Ok(())
        } else {
            // One character beyond the bound, so that `cut` sees there was more.
            if self.out.len() <= VALUE_MAX {
                self.out.extend(text[end..].chars().next());
            }
            Err(fmt::Error)
        }
    }
}

/// Whether `character` could break a line, move a cursor or hide text.
pub(super) fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
