//! What can be wrong with the settings: always what was named, what it got, and what it takes.

/// Settings that make no run. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A value that a setting does not take.
    #[error("{place}: {problem}")]
    Value {
        /// The flag, and where its value came from if not from the command line.
        place: String,
        /// What it got and what it takes.
        problem: String,
    },
    /// Nothing was given for a setting without a default.
    #[error("--{name} is missing: expected {takes} (or set {variable}, or `{name}` in a plan file)")]
    Missing {
        /// The flag without its dashes.
        name: &'static str,
        /// Its values.
        takes: &'static str,
        /// Its variable.
        variable: &'static str,
    },
    /// A plan file that cannot be read or says what it must not.
    #[error("--plan: {path}: {problem}")]
    PlanFile {
        /// The file.
        path: String,
        /// What is wrong, with line and key.
        problem: String,
    },
}

/// The words of every value error: what it got, what it takes.
pub fn got(got: impl std::fmt::Display, takes: impl std::fmt::Display) -> String {
    format!("got '{got}', expected {takes}")
}
