//! What a request may use beyond being one request.

use std::fmt;

use crate::Problem;

/// What a request may use beyond being one request, such as tokens: put into the
/// [`Context`](crate::Context) by the layer that limits it, and there for the handler to reserve
/// from. One budget belongs to one request.
///
/// The layer that gives a budget settles it by the [`Usage`](crate::Usage) when the response body
/// has ended and the usage is known; when it is not, by what was observed. What is neither settled
/// nor observed stays charged at the reservation. What is told twice counts once: the first
/// settlement stands.
///
/// # Example
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use http::StatusCode;
/// use spark_core::{Budget, Context, Instant, Problem};
///
/// /// One request's access to a tenant's tokens.
/// #[derive(Debug)]
/// struct Tokens {
///     left: Arc<Mutex<u64>>,
///     request: Mutex<Request>,
/// }
///
/// #[derive(Debug, Default)]
/// struct Request {
///     reserved: u64,
///     observed: Option<u64>,
///     settled: bool,
/// }
///
/// impl Budget for Tokens {
///     fn reserve(&self, units: u64) -> Result<(), Problem> {
///         let mut left = self.left.lock().unwrap();
///         let Some(rest) = left.checked_sub(units) else {
///             return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "tokens", "out_of_tokens"));
///         };
///         *left = rest;
///         self.request.lock().unwrap().reserved += units;
///         Ok(())
///     }
///
///     fn observe(&self, units: u64) {
///         let observed = &mut self.request.lock().unwrap().observed;
///         *observed = (*observed).max(Some(units));
///     }
///
///     fn settle(&self, units: u64) {
///         let mut request = self.request.lock().unwrap();
///         if !std::mem::replace(&mut request.settled, true) {
///             let mut left = self.left.lock().unwrap();
///             *left = (*left + request.reserved).saturating_sub(units);
///         }
///     }
/// }
///
/// impl Drop for Tokens {
///     fn drop(&mut self) {
///         let observed = self.request.lock().unwrap().observed;
///         if let Some(units) = observed {
///             self.settle(units);
///         }
///     }
/// }
///
/// // The layer, on the way in:
/// let left = Arc::new(Mutex::new(1_000));
/// let tokens = Tokens { left: Arc::clone(&left), request: Mutex::default() };
/// let mut context = Context::new(Instant::default());
/// context.set_budget(Arc::new(tokens));
///
/// // The handler, once the request is parsed:
/// let budget = context.budget().unwrap();
/// budget.reserve(600)?;
/// assert!(budget.reserve(600).is_err());
/// // … and with each piece of the answer:
/// budget.observe(120);
///
/// // The layer, when the answer has ended:
/// budget.settle(150);
/// drop(context);
/// assert_eq!(*left.lock().unwrap(), 850);
/// # Ok::<(), Problem>(())
/// ```
pub trait Budget: fmt::Debug + Send + Sync {
    /// Reserves an estimate. A second reservation of one request adds to the first.
    ///
    /// # Errors
    /// The answer to give, such as a 429: then nothing was reserved.
    ///
    /// # Example
    /// ```
    /// use spark_core::{Budget, Problem};
    /// fn before_the_call(budget: &dyn Budget, prompt: &str, answer: u64) -> Result<(), Problem> {
    ///     budget.reserve(answer.saturating_add(prompt.len() as u64 / 4))
    /// }
    /// ```
    fn reserve(&self, units: u64) -> Result<(), Problem>;

    /// So much was used until now: what is settled when the request ends before its usage is known.
    /// The highest value told counts.
    ///
    /// # Example
    /// ```
    /// use spark_core::Budget;
    /// fn on_each_chunk(budget: &dyn Budget, prompt_tokens: u64, chunks: u64) {
    ///     budget.observe(prompt_tokens.saturating_add(chunks));
    /// }
    /// ```
    fn observe(&self, units: u64);

    /// `units` were used: the difference to the reservation is charged or given back. Once: what
    /// comes later changes nothing.
    ///
    /// # Example
    /// ```
    /// use spark_core::Budget;
    /// fn answered_from_memory(budget: &dyn Budget) {
    ///     budget.settle(0);
    /// }
    /// ```
    fn settle(&self, units: u64);
}
