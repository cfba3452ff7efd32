//! What travels with a request.

use std::sync::Arc;

use http::Extensions;

use crate::{Budget, ClientIp, Clock, Instant, Principal, Shape, Usage};

/// What the layers know of a request: **one** request extension, put in at the edge by
/// [`ContextLayer`](crate::ContextLayer) and completed on the way inwards.
///
/// # Example
/// ```
/// use spark_core::{Clock, Context, Principal};
/// let mut request = http::Request::new(());
/// let context = Context::get_or_insert(request.extensions_mut(), &Clock::system());
/// context.set_principal(Principal::Anonymous);
///
/// let context = Context::of(request.extensions()).unwrap();
/// assert_eq!(context.principal(), Some(&Principal::Anonymous));
/// assert!(context.client_ip().is_none(), "nobody told the address");
/// ```
///
/// A clone is of the same request: it shares the usage and the budget, and takes the
/// [marks](Self::first_time) along as they are then.
#[derive(Clone, Debug)]
pub struct Context {
    received: Instant,
    client_ip: Option<ClientIp>,
    principal: Option<Principal>,
    background: bool,
    shape: Option<Shape>,
    usage: Usage,
    budget: Option<Arc<dyn Budget>>,
    marks: [u64; MARKS],
    marked: usize,
}

/// How many layers may mark a request.
const MARKS: usize = 8;

impl Context {
    /// A context of a request that came in at `received`, with nothing else known.
    ///
    /// # Example
    /// ```
    /// use spark_core::{Clock, Context};
    /// assert!(Context::new(Clock::system().now()).principal().is_none());
    /// ```
    pub fn new(received: Instant) -> Self {
        Self {
            received,
            client_ip: None,
            principal: None,
            background: false,
            shape: None,
            usage: Usage::default(),
            budget: None,
            marks: [0; MARKS],
            marked: 0,
        }
    }

    /// The context of a request, when an outer layer put one in.
    ///
    /// # Example
    /// ```
    /// assert!(spark_core::Context::of(&http::Extensions::new()).is_none());
    /// ```
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// The same, to be changed.
    ///
    /// # Example
    /// ```
    /// assert!(spark_core::Context::of_mut(&mut http::Extensions::new()).is_none());
    /// ```
    pub fn of_mut(extensions: &mut Extensions) -> Option<&mut Self> {
        extensions.get_mut()
    }

    /// The context of a request; a new one where no [`ContextLayer`](crate::ContextLayer) stands
    /// outside, so that a single crate works alone.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Clock, Context};
    /// let mut extensions = http::Extensions::new();
    /// Context::get_or_insert(&mut extensions, &Clock::system()).set_background(true);
    /// assert!(Context::of(&extensions).unwrap().is_background());
    /// ```
    pub fn get_or_insert<'a>(extensions: &'a mut Extensions, clock: &Clock) -> &'a mut Self {
        extensions.get_or_insert_with(|| Self::new(clock.now()))
    }

    /// When the request came in.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Context, Instant};
    /// assert_eq!(Context::new(Instant::from_nanos(5)).received().as_nanos(), 5);
    /// ```
    pub fn received(&self) -> Instant {
        self.received
    }

    /// The caller's address; `None` when the accept loop did not tell the peer's.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Context, Instant};
    /// assert!(Context::new(Instant::default()).client_ip().is_none());
    /// ```
    pub fn client_ip(&self) -> Option<ClientIp> {
        self.client_ip
    }

    /// The caller; `None` when no authentication layer stands outside.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Context, Instant};
    /// assert!(Context::new(Instant::default()).principal().is_none());
    /// ```
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// Whether no user waits for the answer, as when a cache refreshes an entry: the breaker
    /// prefers such requests as probes.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Context, Instant};
    /// assert!(!Context::new(Instant::default()).is_background());
    /// ```
    pub fn is_background(&self) -> bool {
        self.background
    }

    /// The cell for what the request costs at the provider.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Context, Instant};
    /// assert!(Context::new(Instant::default()).usage().get().is_none());
    /// ```
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// What the request may use beyond being one request; `None` when no layer limits that.
    ///
    /// # Example
    /// ```
    /// use spark_core::{Context, Problem};
    /// fn before_the_call(context: &Context, tokens: u64) -> Result<(), Problem> {
    ///     match context.budget() {
    ///         Some(budget) => budget.reserve(tokens),
    ///         None => Ok(()),
    ///     }
    /// }
    /// # use spark_core::Instant;
    /// assert!(before_the_call(&Context::new(Instant::default()), 1_000).is_ok());
    /// ```
    pub fn budget(&self) -> Option<&Arc<dyn Budget>> {
        self.budget.as_ref()
    }

    /// How a refusal is written for this request, when the edge chose it;
    /// see [`Shape::of`](crate::Shape::of).
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Context, Instant};
    /// assert!(Context::new(Instant::default()).shape().is_none());
    /// ```
    pub fn shape(&self) -> Option<Shape> {
        self.shape
    }

    /// Sets the caller.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Context, Instant, Principal};
    /// let mut context = Context::new(Instant::default());
    /// context.set_principal(Principal::Master);
    /// assert!(context.principal().is_some_and(Principal::is_master));
    /// ```
    pub fn set_principal(&mut self, principal: Principal) {
        self.principal = Some(principal);
    }

    /// Says whether anyone waits for the answer.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Context, Instant};
    /// let mut context = Context::new(Instant::default());
    /// context.set_background(true);
    /// assert!(context.is_background());
    /// ```
    pub fn set_background(&mut self, background: bool) {
        self.background = background;
    }

    /// Sets the budget: that of the innermost layer is the one that the handler finds.
    ///
    /// # Example
    /// ```
    /// # use std::sync::Arc;
    /// # use spark_core::{Budget, Context, Instant, Problem};
    /// #[derive(Debug)]
    /// struct Unlimited;
    ///
    /// impl Budget for Unlimited {
    ///     fn reserve(&self, _units: u64) -> Result<(), Problem> {
    ///         Ok(())
    ///     }
    ///     fn observe(&self, _units: u64) {}
    ///     fn settle(&self, _units: u64) {}
    /// }
    ///
    /// let mut context = Context::new(Instant::default());
    /// context.set_budget(Arc::new(Unlimited));
    /// assert!(context.budget().is_some());
    /// ```
    pub fn set_budget(&mut self, budget: Arc<dyn Budget>) {
        self.budget = Some(budget);
    }

    /// Marks the request: `true` when this mark was not on it yet. It is for layers that must not
    /// act twice on a request to which they are applied twice, such as a limiter.
    ///
    /// There is room for eight marks, in place. When it is used up, the answer is `true` and
    /// nothing is remembered: better to act twice than not at all.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Context, Instant};
    /// const CHARGED: u64 = 0x5eed;
    /// let mut context = Context::new(Instant::default());
    /// assert!(context.first_time(CHARGED));
    /// assert!(!context.first_time(CHARGED), "charged already");
    /// ```
    pub fn first_time(&mut self, mark: u64) -> bool {
        if self.is_marked(mark) {
            return false;
        }
        if let Some(free) = self.marks.get_mut(self.marked) {
            *free = mark;
            self.marked += 1;
        }
        true
    }

    /// Whether the request bears this mark.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Context, Instant};
    /// let mut context = Context::new(Instant::default());
    /// assert!(!context.is_marked(0x5eed));
    /// context.first_time(0x5eed);
    /// assert!(context.is_marked(0x5eed));
    /// ```
    pub fn is_marked(&self, mark: u64) -> bool {
        self.marks[..self.marked].contains(&mark)
    }

    /// The same context with the caller's address.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{ClientIp, Context, Instant};
    /// let context = Context::new(Instant::default())
    ///     .with_client_ip(ClientIp::new([192, 0, 2, 7].into()));
    /// assert!(context.client_ip().is_some());
    /// ```
    #[must_use]
    pub fn with_client_ip(mut self, client_ip: impl Into<Option<ClientIp>>) -> Self {
        self.client_ip = client_ip.into();
        self
    }

    /// The same context with the caller.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Context, Instant, Principal};
    /// let context = Context::new(Instant::default()).with_principal(Principal::Anonymous);
    /// assert!(context.principal().is_some());
    /// ```
    #[must_use]
    pub fn with_principal(mut self, principal: Principal) -> Self {
        self.principal = Some(principal);
        self
    }

    /// The same context with the shape of its refusals.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Context, Instant, Shape};
    /// let context = Context::new(Instant::default()).with_shape(Shape::OPENAI);
    /// assert!(context.shape().is_some());
    /// ```
    #[must_use]
    pub fn with_shape(mut self, shape: Shape) -> Self {
        self.shape = Some(shape);
        self
    }

    /// The same context, said to be in the background or not.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{Context, Instant};
    /// assert!(Context::new(Instant::default()).with_background(true).is_background());
    /// ```
    #[must_use]
    pub fn with_background(mut self, background: bool) -> Self {
        self.background = background;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_new_once_while_there_is_room() {
        let mut context = Context::new(Instant::default());
        for mark in [0, 1, u64::MAX, 7, 20, 21, 22, 23] {
            assert!(context.first_time(mark), "{mark}");
            assert!(!context.first_time(mark), "{mark}");
        }
        assert!(context.first_time(8));
        assert!(context.first_time(8), "forgotten: there is no room");
        assert!(!context.first_time(0), "the others stand");
    }

    #[test]
    fn a_clone_takes_the_marks_along_as_they_are() {
        let mut context = Context::new(Instant::default());
        assert!(context.first_time(1));
        let mut clone = context.clone();
        assert!(!clone.first_time(1));
        assert!(clone.first_time(2));
        assert!(context.first_time(2), "the clone's marks are its own");
    }
}
