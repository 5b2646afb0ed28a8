//! How a command ends: its exit code, and the error of one that never came to a report.

pub use crate::core::answer::ExitCode;

/// Why a command ended without a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Something asked for cannot be done; no load was started.
    #[error("{0}")]
    Usage(String),
    /// What was under way could not go on.
    #[error("{0}")]
    Incomplete(String),
}

impl Failure {
    /// What the process exits with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::Usage,
            Self::Incomplete(_) => ExitCode::Incomplete,
        }
    }
}
