//! Catching panics of code that is not ours, and knowing where they were.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    future::Future,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use crate::{ErrorTracker, Severity, redact::without_quotes, text};

thread_local! {
    /// How many of our catches are open on this thread.
    static CATCHES: Cell<u32> = const { Cell::new(0) };
    /// Where the last panic inside of them was.
    static PLACE: RefCell<Option<(String, u32)>> = const { RefCell::new(None) };
}

/// Runs `code`; a panic in it is returned, with its place where the panic hook is installed.
pub(crate) fn catch<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    let open = Open::new();
    let result = catch_unwind(AssertUnwindSafe(code));
    drop(open);
    result.map_err(|payload| {
        let message = message_of(&*payload).to_owned();
        let place = PLACE.try_with(RefCell::take).ok().flatten();
        // A payload may panic in its turn when it is dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        Panicked { message, place }
    })
}

/// A panic that was caught.
#[derive(Debug)]
pub(crate) struct Panicked {
    message: String,
    place: Option<(String, u32)>,
}

impl Panicked {
    /// Captures it, without the data that it quotes.
    #[track_caller]
    pub(crate) fn capture(self, tracker: &ErrorTracker, route: Option<&str>) -> crate::EventId {
        let mut draft = tracker
            .event("panic")
            .severity(Severity::Critical)
            .message(without_quotes(text::head(&self.message, 16 << 10)));
        if let Some((file, line)) = self.place {
            draft = draft.at(file, line);
        }
        if let Some(route) = route {
            draft = draft.route(route);
        }
        draft.send()
    }
}

struct Open;

impl Open {
    fn new() -> Self {
        let _ = CATCHES.try_with(|open| open.set(open.get() + 1));
        let _ = PLACE.try_with(RefCell::take);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = CATCHES.try_with(|open| open.set(open.get().saturating_sub(1)));
    }
}

impl ErrorTracker {
    /// Installs a panic hook that captures panics with their place, then calls the hook that was
    /// there before. It records only: it waits for nothing and writes no log, since a panic inside
    /// of a panic hook ends the process. Panics that an [`ErrorsLayer`](crate::ErrorsLayer)
    /// catches are captured by the layer, once. Install it once: each call adds another.
    ///
    /// ```
    /// let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// tracker.install_panic_hook();
    /// let _ = std::thread::spawn(|| panic!("planned")).join();
    /// assert_eq!(tracker.recent(1)[0].message, "planned");
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn install_panic_hook(&self) {
        let tracker = self.clone();
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            tracker.on_panic(info);
            previous(info);
        }));
    }

    fn on_panic(&self, info: &PanicHookInfo<'_>) {
        // A panic inside of a capture, or of the thread's very end, is left to the previous hook.
        if Self::is_capturing() {
            return;
        }
        let place = info.location().map(|at| (at.file().to_owned(), at.line()));
        if CATCHES.try_with(Cell::get).unwrap_or(0) > 0 {
            let _ = PLACE.try_with(|known| {
                if let Ok(mut known) = known.try_borrow_mut() {
                    *known = place;
                }
            });
            return;
        }
        let mut draft = self
            .event("panic")
            .severity(Severity::Critical)
            .message(without_quotes(text::head(
                message_of(info.payload()),
                16 << 10,
            )));
        if let Some((file, line)) = place {
            draft = draft.at(file, line);
        }
        draft.send_by(false);
    }
}

fn message_of(payload: &(dyn Any + Send)) -> &str {
    let owned = || payload.downcast_ref::<String>().map(String::as_str);
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(owned)
        .unwrap_or("a panic without a message")
}

pin_project! {
    /// A future whose panic is its result. It is not polled again after one.
    pub(crate) struct CatchUnwind<F> {
        #[pin]
        inner: F,
    }
}

impl<F> CatchUnwind<F> {
    pub(crate) fn new(inner: F) -> Self {
        Self { inner }
    }
}

impl<F: Future> Future for CatchUnwind<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = self.project().inner;
        match catch(|| inner.poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    }
}
