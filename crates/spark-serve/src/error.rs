//! What keeps a server from starting.

use std::io;

/// The server cannot start.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use spark_serve::Server;
/// let first = Server::bind("127.0.0.1:0").await.unwrap();
/// let taken = first.local_addr().unwrap();
/// let error = Server::bind(taken).await.unwrap_err();
/// assert!(error.to_string().starts_with("cannot listen on 127.0.0.1:"));
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}; free the address, or choose another")]
    Bind {
        /// As it was given.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A setting is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// A setting is out of its range; says which, and what would do.
///
/// # Example
/// ```
/// let error = spark_serve::Config::default().max_headers(0).validate().unwrap_err();
/// assert_eq!(error.to_string(), "max_headers is 0: give at least 1; the default is 64");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}: {mend}")]
pub struct ConfigError {
    pub(crate) field: &'static str,
    pub(crate) value: String,
    pub(crate) mend: &'static str,
}

impl ConfigError {
    /// The setting at fault, as it is called in [`Config`](crate::Config).
    ///
    /// # Example
    /// ```
    /// let error = spark_serve::Config::default().max_connections(0).validate().unwrap_err();
    /// assert_eq!(error.field(), "max_connections");
    /// ```
    pub fn field(&self) -> &'static str {
        self.field
    }
}
