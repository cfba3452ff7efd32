//! What is behind an error of the client.

use std::error::Error;

use crate::{Classify, FailKind, Head, Outcome, TimeoutError, Verdict};

/// A classifier for clients whose errors have a cause: where a [`TimeoutError`] is behind one, as
/// when [`ConnectTimeout`](crate::ConnectTimeout) gives up a connection, it is a failure of that
/// phase. All else is up to the classifier inside.
///
/// [`HttpClassify`](crate::HttpClassify) and [`LlmClassify`](crate::LlmClassify) alone take any type
/// of error, and look only into a [`BoxError`](spark_core::BoxError).
///
/// # Example
/// ```
/// use spark_breaker::{Breaker, BreakerLayer, ByCause, Config, LlmClassify};
/// use spark_core::Clock;
/// let breaker = Breaker::new("openai", Config::llm(), Clock::system())?;
/// // For a client of hyper-util or reqwest.
/// let layer = BreakerLayer::new(breaker).classify(ByCause::new(LlmClassify::new()));
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByCause<C>(C);

impl<C> ByCause<C> {
    /// Around a classifier.
    ///
    /// # Example
    /// ```
    /// use spark_breaker::{ByCause, HttpClassify};
    /// let classify = ByCause::new(HttpClassify);
    /// ```
    pub const fn new(inner: C) -> Self {
        Self(inner)
    }
}

impl<C, E> Classify<E> for ByCause<C>
where
    C: Classify<E>,
    E: Error + 'static,
{
    type Body = C::Body;

    fn response(&self, head: &Head<'_>) -> Verdict<C::Body> {
        self.0.response(head)
    }

    fn error(&self, error: &E) -> Outcome {
        match TimeoutError::within(error) {
            Some(error) => Outcome::failure(FailKind::Timeout(error.phase)),
            None => self.0.error(error),
        }
    }
}
