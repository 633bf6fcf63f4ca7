//! Everything `gantry` prints: results to standard output, the rest to standard error.
//!
//! A reader that went away (`gantry ps | head -1`) is no fault of ours, so write errors end the
//! output silently, as other commands do.

use std::io::{self, Write as _};

use anstream::{AutoStream, ColorChoice};
use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned, for people.
    Human,
    /// For programs.
    Json,
}

/// Prints a line of result.
pub(crate) fn line(text: &str) {
    drop(writeln!(io::stdout().lock(), "{text}"));
}

/// Prints a line about the work, not its result.
pub(crate) fn note(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Prints a line about the work over the last one that was printed so; on a terminal alone.
pub(crate) fn rewrite(text: &str) {
    let mut stderr = io::stderr().lock();
    drop(write!(stderr, "\r\x1b[2K{text}"));
}

/// Prints why the verb failed.
pub(crate) fn error(text: &str) {
    let head = if coloured(&io::stderr()) {
        "\x1b[1;31merror\x1b[0m"
    } else {
        "error"
    };
    note(&format!("{head}: {text}"));
}

/// Prints a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) {
    line(&to_json(value));
}

/// A value as one line of JSON.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our own types have string keys and serialize")
}

/// Whether standard output wants colours: a terminal, and nobody asked for none.
pub(crate) fn colour() -> bool {
    coloured(&io::stdout())
}

fn coloured<S: anstream::stream::RawStream>(stream: &S) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// A text that others wrote, which says nothing to a terminal but itself.
pub(crate) fn plain(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

/// So many of `what`, a word whose plural has an s.
pub(crate) fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// Lays rows out under their headings, two spaces apart, without trailing blanks. Cells are made
/// [plain].
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(|title| title.chars().count());
    let plain_row = |row: &[String; N]| row.each_ref().map(|cell| plain(cell));
    let rows: Vec<_> = rows.iter().map(plain_row).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let heading = heading.map(str::to_owned);
    for row in std::iter::once(&heading).chain(&rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what others wrote into a cell neither moves the cursor nor begins a line.
    /// Method: an escape sequence and an end of line.
    #[test]
    fn cells_do_not_speak_to_the_terminal() {
        let rows = [["\x1b[2Ja\nb".to_owned()]];
        assert_eq!("A\n [2Ja b", table(["A"], &rows));
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["orders-1".to_owned(), "7".to_owned()],
            ["é".to_owned(), "1234".to_owned()],
        ];
        assert_eq!(
            "NAME      PID\norders-1  7\né         1234",
            table(["NAME", "PID"], &rows)
        );
    }
}
