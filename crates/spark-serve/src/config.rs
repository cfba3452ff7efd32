//! What a server allows its clients.

use std::time::Duration;

use crate::error::ConfigError;

/// How long, how much and how many. The defaults hold for an API in front of browsers and programs.
///
/// # Example
/// ```
/// use std::time::Duration;
/// let config = spark_serve::Config::default()
///     .max_connections(2_000)
///     .body_deadline(Duration::from_secs(120))
///     .drain_delay(Duration::from_secs(5));
/// config.validate()?;
/// # Ok::<(), spark_serve::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub(crate) header_read_timeout: Duration,
    pub(crate) body_idle_timeout: Option<Duration>,
    pub(crate) body_deadline: Option<Duration>,
    pub(crate) write_idle_timeout: Option<Duration>,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_ip: Option<usize>,
    pub(crate) max_header_bytes: usize,
    pub(crate) max_headers: usize,
    pub(crate) tcp_nodelay: bool,
    pub(crate) keep_alive: bool,
    pub(crate) drain_delay: Duration,
    pub(crate) drain_deadline: Duration,
}

/// hyper adds the timeout to a clock reading, and panics in every connection where that overflows.
const MOST_HEADER_READ_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// hyper makes room for so many before it reads one, and a `HeaderMap` takes no more than 24,576.
const MOST_HEADERS: usize = 10_000;

impl Default for Config {
    fn default() -> Self {
        Self {
            header_read_timeout: Duration::from_secs(10),
            body_idle_timeout: Some(Duration::from_secs(10)),
            body_deadline: Some(Duration::from_secs(30)),
            write_idle_timeout: Some(Duration::from_secs(30)),
            max_connections: 10_000,
            max_connections_per_ip: None,
            max_header_bytes: 32 * 1024,
            max_headers: 64,
            tcp_nodelay: true,
            keep_alive: true,
            drain_delay: Duration::ZERO,
            drain_deadline: Duration::from_secs(25),
        }
    }
}

impl Config {
    /// How long a client may take for the head of a request, from the connection or from the last
    /// response on; the connection is closed then. 10 s. It bounds how long a kept-alive connection
    /// may be idle, too.
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// let config = spark_serve::Config::default().header_read_timeout(Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn header_read_timeout(mut self, timeout: Duration) -> Self {
        self.header_read_timeout = timeout;
        self
    }

    /// How long a client may pause within the body of a request; the body breaks then with a
    /// [`BodyTimeout`](crate::BodyTimeout), and the client is told 408. 10 s; `None` for ever.
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// let config = spark_serve::Config::default().body_idle_timeout(Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn body_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.body_idle_timeout = timeout.into();
        self
    }

    /// How long a client may take for the whole body of a request, from the first time that somebody
    /// waits for it; otherwise as [`body_idle_timeout`](Self::body_idle_timeout). 30 s; `None` for
    /// ever, as for uploads over slow lines.
    ///
    /// # Example
    /// ```
    /// let config = spark_serve::Config::default().body_deadline(None);
    /// ```
    #[must_use]
    pub fn body_deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.body_deadline = deadline.into();
        self
    }

    /// How long a client may leave a response unread while there is more to send; the connection is
    /// closed then. 30 s; `None` for ever. A stream that has nothing to send is not cut.
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// let config = spark_serve::Config::default().write_idle_timeout(Duration::from_secs(10));
    /// ```
    #[must_use]
    pub fn write_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.write_idle_timeout = timeout.into();
        self
    }

    /// How many connections may be open. Those beyond are accepted and closed at once, which a client
    /// notices at once: they do not wait in the kernel behind those of an attacker. 10,000.
    ///
    /// # Example
    /// ```
    /// let config = spark_serve::Config::default().max_connections(500);
    /// ```
    #[must_use]
    pub fn max_connections(mut self, max: usize) -> Self {
        self.max_connections = max;
        self
    }

    /// How many of them may come from one address, or from one IPv6 /64. No limit of its own until
    /// you say: behind a proxy, all of them come from one.
    ///
    /// # Example
    /// ```
    /// let config = spark_serve::Config::default().max_connections_per_ip(100);
    /// ```
    #[must_use]
    pub fn max_connections_per_ip(mut self, max: impl Into<Option<usize>>) -> Self {
        self.max_connections_per_ip = max.into();
        self
    }

    /// How large the head of a request may be: 431 beyond. It is the size of the connection's buffer
    /// too, so that all connections together hold `max_connections` times as much at most. 32 KiB.
    ///
    /// # Example
    /// ```
    /// let config = spark_serve::Config::default().max_header_bytes(16 * 1024);
    /// ```
    #[must_use]
    pub fn max_header_bytes(mut self, bytes: usize) -> Self {
        self.max_header_bytes = bytes;
        self
    }

    /// How many headers a request may have: 431 beyond. 64.
    ///
    /// # Example
    /// ```
    /// let config = spark_serve::Config::default().max_headers(100);
    /// ```
    #[must_use]
    pub fn max_headers(mut self, max: usize) -> Self {
        self.max_headers = max;
        self
    }

    /// Whether small writes leave at once. True.
    ///
    /// # Example
    /// ```
    /// let config = spark_serve::Config::default().tcp_nodelay(false);
    /// ```
    #[must_use]
    pub fn tcp_nodelay(mut self, nodelay: bool) -> Self {
        self.tcp_nodelay = nodelay;
        self
    }

    /// Whether a connection may carry one request after another. True.
    ///
    /// # Example
    /// ```
    /// let config = spark_serve::Config::default().keep_alive(false);
    /// ```
    #[must_use]
    pub fn keep_alive(mut self, keep_alive: bool) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// For how long connections are still accepted after the shutdown was asked for, so that load
    /// balancers have the time to notice that readiness has turned. None.
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// let config = spark_serve::Config::default().drain_delay(Duration::from_secs(5));
    /// ```
    #[must_use]
    pub fn drain_delay(mut self, delay: Duration) -> Self {
        self.drain_delay = delay;
        self
    }

    /// How long requests under way may take to finish once nothing is accepted any more; then they
    /// are cut. 25 s.
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// let config = spark_serve::Config::default().drain_deadline(Duration::from_secs(10));
    /// ```
    #[must_use]
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.drain_deadline = deadline;
        self
    }

    /// Whether a server would take it; [`Server::config`](crate::Server::config) asks.
    ///
    /// # Errors
    /// A timeout of zero, a limit of zero, `max_header_bytes` below 8192, `max_headers` above 10,000,
    /// or a `header_read_timeout` of more than a day.
    ///
    /// # Example
    /// ```
    /// spark_serve::Config::default().validate()?;
    /// # Ok::<(), spark_serve::ConfigError>(())
    /// ```
    pub fn validate(&self) -> Result<(), ConfigError> {
        let some = |option: Option<Duration>| option.unwrap_or(Duration::MAX);
        for (field, value, mend) in [
            (
                "header_read_timeout",
                self.header_read_timeout,
                "give some time; the default is 10 s",
            ),
            (
                "body_idle_timeout",
                some(self.body_idle_timeout),
                "give some time, or None; the default is 10 s",
            ),
            (
                "body_deadline",
                some(self.body_deadline),
                "give some time, or None; the default is 30 s",
            ),
            (
                "write_idle_timeout",
                some(self.write_idle_timeout),
                "give some time, or None; the default is 30 s",
            ),
        ] {
            if value.is_zero() {
                return Err(ConfigError {
                    field,
                    value: format!("{value:?}"),
                    mend,
                });
            }
        }
        if self.header_read_timeout > MOST_HEADER_READ_TIMEOUT {
            return Err(ConfigError {
                field: "header_read_timeout",
                value: format!("{:?}", self.header_read_timeout),
                mend: "give at most a day; the default is 10 s",
            });
        }
        if self.max_headers > MOST_HEADERS {
            return Err(ConfigError {
                field: "max_headers",
                value: self.max_headers.to_string(),
                mend: "give at most 10000; the default is 64",
            });
        }
        for (field, value, least, mend) in [
            (
                "max_connections",
                self.max_connections,
                1,
                "give at least 1; the default is 10000",
            ),
            (
                "max_connections_per_ip",
                self.max_connections_per_ip.unwrap_or(usize::MAX),
                1,
                "give at least 1, or None",
            ),
            (
                "max_header_bytes",
                self.max_header_bytes,
                8192,
                "give at least 8192; the default is 32768",
            ),
            (
                "max_headers",
                self.max_headers,
                1,
                "give at least 1; the default is 64",
            ),
        ] {
            if value < least {
                return Err(ConfigError {
                    field,
                    value: value.to_string(),
                    mend,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let zero = Duration::ZERO;
        for (config, field) in [
            (
                Config::default().header_read_timeout(zero),
                "header_read_timeout",
            ),
            (
                Config::default().body_idle_timeout(zero),
                "body_idle_timeout",
            ),
            (Config::default().body_deadline(zero), "body_deadline"),
            (
                Config::default().write_idle_timeout(zero),
                "write_idle_timeout",
            ),
            (Config::default().max_connections(0), "max_connections"),
            (
                Config::default().max_connections_per_ip(0),
                "max_connections_per_ip",
            ),
            (Config::default().max_header_bytes(8191), "max_header_bytes"),
            (Config::default().max_headers(0), "max_headers"),
            (Config::default().max_headers(10_001), "max_headers"),
            (
                Config::default().header_read_timeout(Duration::MAX),
                "header_read_timeout",
            ),
        ] {
            assert_eq!(config.validate().unwrap_err().field(), field);
        }
        let lenient = Config::default()
            .body_idle_timeout(None)
            .body_deadline(None)
            .write_idle_timeout(None)
            .max_header_bytes(8192)
            .drain_deadline(zero);
        assert_eq!(lenient.validate(), Ok(()));
    }
}
