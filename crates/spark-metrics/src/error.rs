//! What can be wrong with a recorder's settings.

/// A recorder could not be built or installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// A global recorder is already there.
    #[error(
        "a metrics recorder is already installed in this process: install once, at the start of `main`"
    )]
    AlreadyInstalled,
    /// There is no tokio runtime to run upkeep on.
    #[error(
        "no tokio runtime: call `install` inside one, or set `upkeep_every(None)` and call `Metrics::upkeep` every few seconds yourself"
    )]
    NoRuntime,
    /// A setting is out of range.
    #[error("`{field}`: {mend}")]
    Setting {
        /// The builder method.
        field: &'static str,
        /// What to give instead.
        mend: &'static str,
    },
    /// The bounds of a histogram cannot be used.
    #[error("buckets for `{name}`: {mend}")]
    Buckets {
        /// The suffix or metric they were given for.
        name: String,
        /// What to give instead.
        mend: &'static str,
    },
}
