//! Futures that are ready at once, driven without a runtime.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use http_body::Body;
use tower_service::Service;

/// Polls once.
///
/// # Panics
/// When the future is not ready: then it would be timed while it waits.
pub fn turn<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a future that is timed here must be ready at once"),
    }
}

/// Calls a service that is ready, and is answered at once.
///
/// # Errors
/// The service's own.
///
/// # Panics
/// When service or future are not ready.
pub fn call<S, R>(service: &mut S, request: R) -> Result<S::Response, S::Error>
where
    S: Service<R>,
{
    let mut context = Context::from_waker(Waker::noop());
    match service.poll_ready(&mut context) {
        Poll::Ready(Ok(())) => turn(service.call(request)),
        Poll::Ready(Err(error)) => Err(error),
        Poll::Pending => panic!("a service that is timed here must be ready"),
    }
}

/// Reads a body to its end, and says how many frames it had.
///
/// # Panics
/// When the body fails or lets wait.
pub fn drain<B: Body>(body: B) -> usize {
    let mut body = pin!(body);
    let mut context = Context::from_waker(Waker::noop());
    let mut frames = 0;
    loop {
        match body.as_mut().poll_frame(&mut context) {
            Poll::Ready(None) => return frames,
            Poll::Ready(Some(Ok(_))) => frames += 1,
            Poll::Ready(Some(Err(_))) => panic!("a body that is timed here must not fail"),
            Poll::Pending => panic!("a body that is timed here must be ready"),
        }
    }
}
