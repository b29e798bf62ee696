//! Files that the commands write.

use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Refuses two options that name the same file.
pub(crate) fn distinct(named: &[(&str, &Option<PathBuf>)]) -> Result<(), Failure> {
    for (index, (option, path)) in named.iter().enumerate() {
        if let Some((other, _)) = named[..index].iter().find(|(_, earlier)| path.is_some() && earlier == path) {
            return Err(Failure::usage(format!("{other} and {option} name the same file; give each its own")));
        }
    }
    Ok(())
}

/// Opens for writing and leaves the contents alone for now.
pub(crate) fn open(path: &Path) -> Result<File, Failure> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    file.map_err(|e| {
        Failure::usage(format!(
            "cannot write {}: {e}; name a file in a folder that exists and is yours",
            path.display()
        ))
    })
}

/// Writes `text` instead of what the file had.
pub(crate) fn fill(mut file: File, text: &str, what: &str) -> Result<(), Failure> {
    let write = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
    write.map_err(|e| Failure::failed(format!("cannot write {what}: {e}")))
}

/// A file of JSON objects, one a line.
pub(crate) struct JsonLines {
    file: File,
    path: PathBuf,
}

impl JsonLines {
    /// Before anything is run, so that a bad path costs nothing.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path)
            .map_err(|e| Failure::usage(format!("cannot write {}: {e}; give --json another path", path.display())))?;
        Ok(Self { file, path: path.to_owned() })
    }

    pub(crate) fn write(&mut self, object: &serde_json::Value) -> Result<(), Failure> {
        writeln!(self.file, "{object}")
            .map_err(|e| Failure::failed(format!("cannot write {}: {e}", self.path.display())))
    }
}
