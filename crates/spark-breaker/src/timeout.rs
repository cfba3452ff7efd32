//! Time limits for the phases of a call, and what says that one was reached.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use spark_core::BoxError;

use crate::metrics::{self, count};
use crate::{ConfigError, ConnectTimeout};

/// How long the phases of a call may take. `None` is without limit.
///
/// [`TimeoutLayer`](crate::TimeoutLayer) keeps all of them but `connect`, which belongs to the
/// client's connector ([`Timeouts::connector`]): it alone knows when it is connected. The others
/// cover it where the connector has no limit of its own.
///
/// # Example
/// ```
/// use spark_breaker::Timeouts;
/// use std::time::Duration;
/// let timeouts = Timeouts { total: Some(Duration::from_secs(120)), ..Timeouts::llm() };
/// assert_eq!(timeouts.first_byte, Some(Duration::from_secs(30)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// From the first look at the address to a connection that can be used: name, TCP and TLS.
    pub connect: Option<Duration>,
    /// From the call to the head of the response. Of an answer that is not streamed, the head comes
    /// when the model has finished.
    pub headers: Option<Duration>,
    /// From the call to the first byte of the body. Some providers send the head of a stream at
    /// once and its first word much later, so neither the head ends this phase, nor a frame without
    /// data, nor, in an event stream, comments (`: working`) and pings
    /// ([`Beginning`](spark_core::sse::Beginning)).
    pub first_byte: Option<Duration>,
    /// From one frame of the body to the next, while we wait for it. A ping is a sign of life
    /// here; a frame without data is none.
    pub idle: Option<Duration>,
    /// From the call to the end of the body.
    pub total: Option<Duration>,
}

impl Timeouts {
    /// For model providers: 5 s to connect, 30 s to the first byte, 15 s between frames, 10 minutes
    /// in all. The head has no limit of its own, since that on the first byte holds for it too.
    ///
    /// # Example
    /// ```
    /// assert!(spark_breaker::Timeouts::llm().validate().is_ok());
    /// ```
    pub const fn llm() -> Self {
        Self {
            connect: Some(Duration::from_secs(5)),
            headers: None,
            first_byte: Some(Duration::from_secs(30)),
            idle: Some(Duration::from_secs(15)),
            total: Some(Duration::from_secs(600)),
        }
    }

    /// For those who read them from a file: says which of them cannot work. A layer takes them as
    /// they are.
    ///
    /// # Errors
    /// [`ConfigError`] when one is zero, or longer than one that ends later: connect, headers,
    /// first byte, total, in this order; and an idle time longer than the total. The longer one
    /// would never be reached.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::Timeouts;
    /// use std::time::Duration;
    /// let timeouts = Timeouts { idle: Some(Duration::ZERO), ..Timeouts::llm() };
    /// assert!(timeouts.validate().is_err());
    /// let timeouts = Timeouts { total: Some(Duration::from_secs(20)), ..Timeouts::llm() };
    /// let error = timeouts.validate().unwrap_err();
    /// assert!(error.to_string().starts_with("timeouts.first_byte = 30s"), "{error}");
    /// ```
    pub fn validate(&self) -> Result<(), ConfigError> {
        let idle = ("timeouts.idle", self.idle);
        let in_order = [
            ("timeouts.connect", self.connect),
            ("timeouts.headers", self.headers),
            ("timeouts.first_byte", self.first_byte),
            ("timeouts.total", self.total),
        ];
        let error = |field, limit, mend| Err(ConfigError::out_of_range(field, &limit, mend));
        for (field, limit) in in_order.into_iter().chain([idle]) {
            if let Some(Duration::ZERO) = limit {
                let mend = "give a longer time, or leave it out for none";
                return error(field, Duration::ZERO, mend);
            }
        }
        for (at, (field, limit)) in in_order.into_iter().enumerate() {
            let later = in_order.iter().skip(at + 1).filter_map(|(_, later)| *later);
            if let (Some(limit), Some(later)) = (limit, later.min())
                && limit > later
            {
                let mend = "give at most the shortest of the phases that end later \
                            (headers, first_byte, total), or leave it out";
                return error(field, limit, mend);
            }
        }
        match (self.idle, self.total) {
            (Some(idle), Some(total)) if idle > total => error(
                "timeouts.idle",
                idle,
                "give at most the total, or leave it out",
            ),
            _ => Ok(()),
        }
    }

    /// A connector that keeps the limit on connecting, around the client's own.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::Timeouts;
    /// use hyper_util::client::legacy::connect::HttpConnector;
    /// let connector = Timeouts::llm().connector(HttpConnector::new());
    /// ```
    pub fn connector<C>(&self, inner: C) -> ConnectTimeout<C> {
        ConnectTimeout::new(inner, self.connect)
    }
}

/// The phase of a call that took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// There was no connection.
    Connect,
    /// The head of the response did not come.
    Headers,
    /// The first byte of the response did not come.
    FirstByte,
    /// The next frame of the body did not come.
    Idle,
    /// The call as a whole was not over.
    Total,
}

impl Phase {
    /// `connect`, `headers`, `first_byte`, `idle` or `total`.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_breaker::Phase::Idle.as_str(), "idle");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Headers => "headers",
            Self::FirstByte => "first_byte",
            Self::Idle => "idle",
            Self::Total => "total",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A time limit was reached: what [`ConnectTimeout`] and the response body fail with, and an
/// extension of the response with which [`TimeoutLayer`](crate::TimeoutLayer) answers for a late
/// head.
///
/// # Example
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use http::{Request, Response};
/// use spark_breaker::{Phase, TimeoutError, TimeoutLayer, Timeouts};
/// use std::time::Duration;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// let headers = Some(Duration::from_millis(5));
/// let client = ServiceBuilder::new()
///     .layer(TimeoutLayer::new(Timeouts { headers, ..Timeouts::default() }))
///     .service(service_fn(async |_: Request<String>| {
///         std::future::pending::<Result<Response<String>, std::io::Error>>().await
///     }));
/// let response = client.oneshot(Request::new(String::new())).await.unwrap();
/// let error = response.extensions().get::<TimeoutError>().unwrap();
/// assert_eq!(error.phase, Phase::Headers);
/// # });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the provider took too long: over {limit:?} ({phase})")]
#[non_exhaustive]
pub struct TimeoutError {
    /// Which limit.
    pub phase: Phase,
    /// How long it is.
    pub limit: Duration,
}

impl TimeoutError {
    pub(crate) fn new(phase: Phase, limit: Duration) -> Self {
        count!(metrics::TIMEOUTS, "phase" => phase.as_str());
        Self { phase, limit }
    }

    /// The time limit that is behind an error: clients wrap what their connector fails with.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::TimeoutError;
    /// assert!(TimeoutError::within(&std::io::Error::other("reset")).is_none());
    /// ```
    pub fn within<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// The same, where nothing is known of the error's type: of one in a box, or of this one itself.
    pub(crate) fn behind(error: &dyn Any) -> Option<&Self> {
        match error.downcast_ref::<BoxError>() {
            Some(error) => Self::within(&**error),
            None => error.downcast_ref(),
        }
    }
}
