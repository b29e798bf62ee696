//! The files that describe a machine: `/proc` and `/sys`, or a copy of another machine's under some directory.

use std::cell::RefCell;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::str::FromStr;

use super::cpulist::CpuList;

/// Reads files below a root. What is missing is unknown; what is there but makes no sense is unknown too, and noted.
pub(super) struct Tree {
    root: PathBuf,
    warnings: RefCell<Vec<String>>,
}

impl Tree {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, warnings: RefCell::default() }
    }

    pub(super) fn warn(&self, text: String) {
        self.warnings.borrow_mut().push(text);
    }

    pub(super) fn into_warnings(self) -> Vec<String> {
        self.warnings.into_inner()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The text of a file, without the newline at its end.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        match fs::read(self.path(path)) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Some(text.strip_suffix('\n').unwrap_or(&text).to_owned()),
                Err(_) => {
                    self.warn(format!("{path}: not text"));
                    None
                }
            },
            Err(error) => {
                // A file of a device that is off answers with an odd error: it is as good as not there.
                if error.kind() == ErrorKind::PermissionDenied {
                    self.warn(format!("{path}: {error}"));
                }
                None
            }
        }
    }

    pub(super) fn list(&self, path: &str) -> Option<CpuList> {
        self.text(path).and_then(|text| self.parse_list(path, &text))
    }

    pub(super) fn parse_list(&self, path: &str, text: &str) -> Option<CpuList> {
        CpuList::parse(text).map_err(|why| self.warn(format!("{path}: {why}"))).ok()
    }

    pub(super) fn number<T: FromStr>(&self, path: &str) -> Option<T> {
        self.text(path).and_then(|text| self.parse_number(path, &text))
    }

    pub(super) fn parse_number<T: FromStr>(&self, path: &str, text: &str) -> Option<T> {
        let number = text.parse().ok();
        if number.is_none() {
            self.warn(format!("{path}: '{}' is not a number", text.escape_debug()));
        }
        number
    }

    /// The value after `name:` in a file of such lines.
    pub(super) fn field(&self, path: &str, name: &str) -> Option<String> {
        self.text(path)?.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    }
}
