//! Why a command stopped, and the exit code that says so.

use std::fmt;
use std::process::ExitCode;

/// What went wrong, with what to do about it in the text.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line or an input makes no sense. Exit code 2.
    Usage(String),
    /// A run failed. Exit code 1.
    Failed(String),
}

impl Failure {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Failed(text) => f.write_str(text),
        }
    }
}
