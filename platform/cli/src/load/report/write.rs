//! A report as a file: whole, or as it was before.

use std::{fs, io, io::Write as _, path::Path};

use super::Report;
use crate::{failure::Failure, load::page, output};

/// Whether a report can be written there: before an hour's run, not after it. What is there stays.
pub(crate) fn check_file(path: &Path) -> Result<(), Failure> {
    let opened = fs::OpenOptions::new().create(true).append(true).open(path);
    let opened = opened.map(drop);
    opened.map_err(|error| Failure::usage(format!("write {}: {error}", path.display())))
}

/// Writes a page for people where the name says so, JSON elsewhere.
pub(crate) fn write(path: &Path, report: &Report) -> Result<(), Failure> {
    let is_page = path
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("html") || end.eq_ignore_ascii_case("htm"));
    let text = if is_page {
        page::of(report)
    } else {
        output::to_json(report) + "\n"
    };
    replace(path, &text)
        .map_err(|error| Failure::failed(format!("write {}: {error}", path.display())))
}

/// Puts a file with `text` in the place of the one at `path`: whoever reads it meanwhile reads the old
/// one or the new one, never a half.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // Something that is no file, as /dev/stdout, has nothing that could be half.
    if !path.metadata()?.is_file() {
        return fs::write(path, text);
    }
    let path = path.canonicalize()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = fs::File::create(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&new, &path));
    if written.is_err() {
        drop(fs::remove_file(&new));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a report takes the place of the one before, and leaves nothing beside it.
    /// Method: two writes; a link, whose file is meant; what is no file.
    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        check_file(&path).unwrap();
        replace(&path, "one").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let old = fs::File::open(&path).unwrap();
        replace(&link, "two").unwrap();
        assert_eq!("two", fs::read_to_string(&path).unwrap());
        assert!(link.is_symlink());
        assert_eq!("one", io::read_to_string(old).unwrap());
        assert_eq!(2, fs::read_dir(folder.path()).unwrap().count());
        replace(Path::new("/dev/null"), "three").unwrap();
        assert!(check_file(&folder.path().join("no/folder")).is_err());
    }
}
