//! The contract that every layer keeps, as a test.

use std::fmt::Debug;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::buffer::Buffer;
use tower::limit::ConcurrencyLimit;
use tower::{Service, ServiceExt};
use tower_layer::Layer;

use super::probe::answer;
use super::{Behaviour, Probe, ProbeError, TestBody};
use crate::BoxError;

/// Checks a layer around a [`Probe`], with a request that the layer lets pass.
///
/// - Layer, service and future are `Send`; layer and service `Sync`, `Clone` and `'static`.
/// - `poll_ready` waits for the inner service and passes its wake-up on; `call` uses the service
///   that was ready, neither an unready clone nor one made ready later; 1,000 services may be ready
///   at the same time, and leave nothing behind when they are dropped.
/// - The inner service's error comes through as it is.
/// - A dropped future drops the inner one; the next request works.
/// - Frames, trailers, size hint and end of stream come through; a broken body breaks; a body may
///   be dropped half-way.
/// - It works inside of tower's `ConcurrencyLimit` and `Buffer`, with more callers than places, and
///   when it is applied twice, to two services and to itself.
///
/// Call it in a tokio runtime.
///
/// # Panics
/// When the contract is broken, saying where.
///
/// # Example
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use spark_core::{Clock, ContextLayer, TrustedProxies};
/// use spark_core::testing::{TestBody, contract};
/// let layer = ContextLayer::new(Clock::system(), TrustedProxies::none());
/// contract::check(layer, || http::Request::new(TestBody::frames(["hello"]))).await;
/// # });
/// ```
pub async fn check<L, S, T, B, C>(layer: L, request: impl Fn() -> Request<TestBody>)
where
    L: Layer<Probe, Service = S> + Layer<S, Service = T> + Clone + Debug + Send + Sync + 'static,
    S: Service<Request<TestBody>, Response = Response<B>, Error = ProbeError>
        + Clone
        + Debug
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    T: Service<Request<TestBody>, Response = Response<C>, Error = ProbeError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    C: Body<Data = Bytes>,
    C::Error: Into<BoxError>,
{
    readied_service_is_used(&layer, &request).await;
    readiness(&layer, &request).await;
    errors(&layer, &request).await;
    cancellation(&layer, &request).await;
    bodies(&layer, &request).await;
    company(&layer, &request).await;
    twice(&layer, &request).await;
}

async fn readiness<L, S, B>(layer: &L, request: impl Fn() -> Request<TestBody>)
where
    L: Layer<Probe, Service = S>,
    S: Service<Request<TestBody>, Response = Response<B>, Error = ProbeError> + Clone,
{
    let probe = Probe::new();
    let mut service = layer.layer(probe.clone());

    probe.set_busy(true);
    let woken = Arc::new(CountingWaker::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    assert!(
        service.poll_ready(&mut cx).is_pending(),
        "poll_ready must wait for an inner service that is busy"
    );
    probe.set_busy(false);
    assert!(
        woken.0.load(Ordering::SeqCst) > 0,
        "the wake-up of the inner service got lost in poll_ready"
    );
    assert!(
        matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))),
        "poll_ready must be ready once the inner service is"
    );

    // A clone taken between poll_ready and call is not ready; the original is.
    let mut clone = service.clone();
    service
        .call(request())
        .await
        .expect("a service that was ready answers");
    clone
        .ready()
        .await
        .expect("a clone becomes ready by itself")
        .call(request())
        .await
        .expect("a clone that was ready answers");

    // All of them at the same time: what each would reserve is not given back in between.
    let mut waiting: Vec<S> = (0..1_000).map(|_| layer.layer(probe.clone())).collect();
    for service in &mut waiting {
        assert!(
            matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))),
            "poll_ready must reserve nothing that could run out"
        );
    }
    drop(waiting);
    layer
        .layer(probe)
        .oneshot(request())
        .await
        .expect("1,000 services that were made ready and dropped leave nothing behind");
}

/// Whoever readies a clone in the future of `call` passes every other check, and wastes what the
/// inner service reserved for the one that was ready: a place of a `ConcurrencyLimit` or a `Buffer`.
async fn readied_service_is_used<L, S, B>(layer: &L, request: impl Fn() -> Request<TestBody>)
where
    L: Layer<Probe, Service = S>,
    S: Service<Request<TestBody>, Response = Response<B>, Error = ProbeError>,
{
    let probe = Probe::new();
    let answer = layer.layer(probe.clone()).oneshot(request()).await;
    answer.expect("a service that was ready answers");
    assert_eq!(
        probe.readied(),
        1,
        "call must use the inner service that was ready, not make a clone ready"
    );
}

async fn errors<L, S, B>(layer: &L, request: impl Fn() -> Request<TestBody>)
where
    L: Layer<Probe, Service = S>,
    S: Service<Request<TestBody>, Response = Response<B>, Error = ProbeError>,
{
    let probe = Probe::new();
    probe.behave(Behaviour::Fail);
    let answer = layer.layer(probe).oneshot(request()).await;
    assert_eq!(
        answer.err(),
        Some(ProbeError),
        "the inner service's error must come through as it is"
    );
}

async fn cancellation<L, S, B>(layer: &L, request: impl Fn() -> Request<TestBody>)
where
    L: Layer<Probe, Service = S>,
    S: Service<Request<TestBody>, Response = Response<B>, Error = ProbeError>,
{
    let probe = Probe::new();
    let mut service = layer.layer(probe.clone());

    let never_polled = service.ready().await.expect("ready").call(request());
    drop(never_polled);
    assert_eq!(probe.in_flight(), 0, "a future dropped unpolled leaks");

    probe.behave(Behaviour::Hang);
    {
        let mut hanging = pin!(service.ready().await.expect("ready").call(request()));
        for _ in 0..3 {
            assert!(
                poll_once(hanging.as_mut()).is_pending(),
                "the inner service hangs, and the layer answers: use a request that it lets pass"
            );
        }
        assert_eq!(
            probe.in_flight(),
            1,
            "the request must reach the inner service"
        );
    }
    assert_eq!(probe.in_flight(), 0, "a future dropped half-way leaks");

    probe.behave(Behaviour::Answer);
    service
        .ready()
        .await
        .expect("ready")
        .call(request())
        .await
        .expect("the request after a cancelled one works");
}

async fn bodies<L, S, B>(layer: &L, request: impl Fn() -> Request<TestBody>)
where
    L: Layer<Probe, Service = S>,
    S: Service<Request<TestBody>, Response = Response<B>, Error = ProbeError>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let probe = Probe::new();
    let answer_with = async |body: TestBody| {
        probe.behave(Behaviour::Body(body));
        let response = layer.layer(probe.clone()).oneshot(request()).await;
        response.expect("the probe answers").into_body()
    };

    let body = answer_with(answer()).await;
    let (data, trailers) = read(body).await.expect("the body is read to its end");
    assert_eq!(data, "hello world", "the frames must come through");
    assert!(trailers, "the trailers must come through");

    let body = answer_with(TestBody::frames(["abc"]).with_length(3)).await;
    assert_eq!(body.size_hint().exact(), Some(3), "the size hint is lost");
    assert!(!body.is_end_stream(), "a full body must not look ended");

    let body = answer_with(TestBody::frames([])).await;
    assert!(body.is_end_stream(), "an empty body must look ended");

    let paused = TestBody::frames(["a"]).with_pause().with_data("b");
    let (data, _) = read(answer_with(paused).await)
        .await
        .expect("a pause is no end");
    assert_eq!(data, "ab", "frames after a pause must come through");

    let broken = TestBody::frames(["half"]).with_error();
    assert!(
        read(answer_with(broken).await).await.is_err(),
        "a body that breaks off must not look complete"
    );

    let mut half_read = Box::pin(answer_with(answer()).await);
    next(half_read.as_mut()).await;
    drop(half_read);
}

async fn company<L, S, B>(layer: &L, request: impl Fn() -> Request<TestBody>)
where
    L: Layer<Probe, Service = S>,
    S: Service<Request<TestBody>, Response = Response<B>, Error = ProbeError>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
{
    let service = ConcurrencyLimit::new(layer.layer(Probe::new()), 2);
    let calls = (0..8).map(|_| service.clone().oneshot(request()));
    all(calls).await.expect("inside of ConcurrencyLimit");

    let service = Buffer::new(layer.layer(Probe::new()), 2);
    let calls = (0..8).map(|_| service.clone().oneshot(request()));
    all(calls).await.expect("inside of Buffer");
}

async fn twice<L, S, T, C>(layer: &L, request: impl Fn() -> Request<TestBody>)
where
    L: Layer<Probe, Service = S> + Layer<S, Service = T> + Clone,
    S: Service<Request<TestBody>, Error = ProbeError>,
    T: Service<Request<TestBody>, Response = Response<C>, Error = ProbeError>,
    C: Body<Data = Bytes>,
    C::Error: Into<BoxError>,
{
    let first: S = layer.layer(Probe::new());
    let second: S = layer.clone().layer(Probe::new());
    first.oneshot(request()).await.expect("the first service");
    second.oneshot(request()).await.expect("the second service");

    let inner: S = layer.layer(Probe::new());
    let nested: T = layer.layer(inner);
    let response = nested.oneshot(request()).await.expect("around itself");
    let (data, _) = read(response.into_body()).await.expect("around itself");
    assert_eq!(
        data, "hello world",
        "a layer around itself must not change the body"
    );
}

#[derive(Debug, Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

async fn next<B: Body>(
    mut body: Pin<&mut B>,
) -> Option<Result<http_body::Frame<B::Data>, B::Error>> {
    std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await
}

/// The data, and whether there were trailers.
async fn read<B>(body: B) -> Result<(String, bool), BoxError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    let (mut data, mut trailers) = (Vec::new(), false);
    while let Some(frame) = next(body.as_mut()).await {
        match frame.map_err(Into::into)?.into_data() {
            Ok(bytes) => data.extend_from_slice(&bytes),
            Err(_) => trailers = true,
        }
    }
    Ok((
        String::from_utf8(data).expect("the probe sends text"),
        trailers,
    ))
}

/// Runs all futures at the same time, on this task.
async fn all<F: Future<Output = Result<T, E>>, T, E>(
    futures: impl IntoIterator<Item = F>,
) -> Result<(), E> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).map(Some).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for slot in &mut futures {
            let Some(future) = slot else { continue };
            match future.as_mut().poll(cx) {
                Poll::Pending => pending = true,
                Poll::Ready(Ok(_)) => *slot = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    })
    .await
}
