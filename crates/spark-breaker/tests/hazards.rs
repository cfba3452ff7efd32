//! What goes wrong around a layer: calls that are dropped, forgotten, given up, that panic, and
//! services that are not ready.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use spark_breaker::{
    Breaker, BreakerLayer, Classify, ClassifyBody, Config, FailKind, Head, Mode, Outcome,
    ProviderKey, Reason, Registry, State, ToTheEnd, Verdict,
};
use spark_core::testing::{Behaviour, Probe, TestBody, TestClock};
use spark_core::{BoxError, End};
use tower::{Layer, Service, ServiceExt, service_fn};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn breaker(config: Config) -> (Breaker, TestClock) {
    let clock = TestClock::new();
    clock.advance(secs(1_000));
    let breaker = Breaker::new("primary", config.jitter(0.0), clock.clock()).unwrap();
    (breaker, clock)
}

/// The next call is the one probe.
fn half_open() -> (Breaker, TestClock) {
    let (breaker, clock) = breaker(Config::llm().probes(1));
    breaker.set_mode(Mode::ForcedOpen);
    breaker.set_mode(Mode::Auto);
    (breaker, clock)
}

fn request() -> Request<TestBody> {
    Request::new(TestBody::frames(["hello"]))
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A provider whose head takes three polls and whose body four.
fn slow_provider()
-> impl Service<Request<TestBody>, Response = Response<TestBody>, Error = Infallible, Future: Send>
+ Clone {
    service_fn(|_: Request<TestBody>| async {
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        let body = TestBody::frames(["a"]).with_pause().with_data("b");
        Ok::<_, Infallible>(Response::new(body))
    })
}

#[tokio::test]
async fn b4_a_call_that_is_dropped_at_any_await_point_gives_back_its_place() {
    let mut finished = 0;
    for polls in 0..8 {
        let (breaker, _clock) = half_open();
        let service = BreakerLayer::new(breaker.clone()).layer(slow_provider());
        {
            let service = service.clone();
            let mut whole = pin!(async move {
                let response = service.oneshot(request()).await.unwrap();
                response.into_body().collect().await.unwrap();
            });
            for _ in 0..polls {
                if poll(whole.as_mut()).is_ready() {
                    finished += 1;
                    break;
                }
            }
        }
        assert_eq!(breaker.snapshot().in_flight, 0, "after {polls} polls");
        // The place is free again, or the probe was good.
        let response = service.oneshot(request()).await.unwrap();
        assert_eq!(response.status(), 200, "after {polls} polls");
        response.into_body().collect().await.unwrap();
        assert_eq!(breaker.snapshot().state, State::Closed);
    }
    assert!((1..=4).contains(&finished), "both kinds were tried");
}

#[tokio::test]
async fn b4_a_response_that_is_dropped_unread_gives_back_its_place() {
    let (breaker, _clock) = half_open();
    let service = BreakerLayer::new(breaker.clone()).layer(slow_provider());
    let response = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(
        service.clone().oneshot(request()).await.unwrap().status(),
        503
    );
    drop(response);
    assert_eq!(breaker.snapshot().in_flight, 0);
    assert_eq!(service.oneshot(request()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn b4_what_is_forgotten_keeps_its_place_no_longer_than_a_probe_may_take() {
    for forgets_body in [false, true] {
        let (breaker, clock) = half_open();
        let mut service = BreakerLayer::new(breaker.clone()).layer(slow_provider());
        if forgets_body {
            let response = service.clone().oneshot(request()).await.unwrap();
            let _forgotten = ManuallyDrop::new(response.into_body());
        } else {
            let mut future = Box::pin(service.ready().await.unwrap().call(request()));
            assert!(poll(future.as_mut()).is_pending());
            let _forgotten = ManuallyDrop::new(future);
        }
        let refused = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(refused.status(), 503, "its place is taken");
        clock.advance(secs(3_600));
        let response = service.oneshot(request()).await.unwrap();
        assert_eq!(response.status(), 200, "the place is free again");
        response.into_body().collect().await.unwrap();
        assert_eq!(breaker.snapshot().state, State::Closed);
    }
}

#[tokio::test]
async fn b4_by_key_each_of_the_breakers_gets_its_place_back() {
    for polls in 0..8 {
        let clock = TestClock::new();
        clock.advance(secs(1_000));
        let rules = Config::llm().probes(1).jitter(0.0);
        let registry = Registry::new(9, rules, clock.clock()).unwrap();
        let names = ["openai", "openai/gpt-x", "openai#key-1"];
        let key = || {
            ProviderKey::new("openai")
                .model("gpt-x")
                .credential("key-1")
        };
        let layer = BreakerLayer::keyed(registry.clone(), move |_| Some(key()));
        let service = layer.layer(slow_provider());
        for name in names {
            registry.get_or_create(name).unwrap().throttle(secs(1));
        }
        clock.advance(secs(2));
        {
            let service = service.clone();
            let mut whole = pin!(async move {
                let response = service.oneshot(request()).await.unwrap();
                response.into_body().collect().await.unwrap();
            });
            for _ in 0..polls {
                if poll(whole.as_mut()).is_ready() {
                    break;
                }
            }
        }
        let response = service.oneshot(request()).await.unwrap();
        assert_eq!(response.status(), 200, "after {polls} polls");
        response.into_body().collect().await.unwrap();
        for name in names {
            let snapshot = registry.get(name).unwrap().snapshot();
            assert_eq!((snapshot.state, snapshot.in_flight), (State::Closed, 0));
        }
    }
}

/// Calls with a time limit of tower's outside of the breaker, whose clock goes as tokio's does.
async fn outer_timeouts(breaker: &Breaker, clock: &TestClock, limit: Duration) -> (u32, u32) {
    let probe = Probe::new();
    probe.behave(Behaviour::Hang);
    let inner = BreakerLayer::new(breaker.clone()).layer(probe.clone());
    let mut service = tower::timeout::TimeoutLayer::new(limit).layer(inner);
    let (mut timed_out, mut refused) = (0, 0);
    for _ in 0..200 {
        let ready = ServiceExt::<Request<TestBody>>::ready(&mut service);
        let mut call = Box::pin(ready.await.unwrap().call(request()));
        let answer: Result<_, BoxError> = call.as_mut().await;
        if answer.is_err() {
            clock.advance(limit);
        }
        drop(call);
        match answer {
            Ok(response) => {
                assert_eq!(response.status(), 503);
                refused += 1;
            }
            Err(error) => {
                assert!(error.is::<tower::timeout::error::Elapsed>());
                timed_out += 1;
            }
        }
    }
    assert_eq!(probe.in_flight(), 0);
    assert_eq!(breaker.snapshot().in_flight, 0);
    (timed_out, refused)
}

#[tokio::test(start_paused = true)]
async fn b5_two_hundred_outer_timeouts_open_it() {
    let rules = Config::llm()
        .consecutive(None)
        .min_calls(10)
        .window(secs(300));
    let (breaker, clock) = breaker(rules.abandon_after(secs(10)));
    let (timed_out, refused) = outer_timeouts(&breaker, &clock, secs(10)).await;
    assert_eq!((timed_out, refused), (10, 190));
    assert_eq!(breaker.snapshot().state, State::Open);
}

#[tokio::test(start_paused = true)]
async fn b5_clients_that_leave_after_five_ms_do_not() {
    let (breaker, clock) = breaker(Config::llm().abandon_after(secs(10)));
    let five_ms = Duration::from_millis(5);
    let (timed_out, _) = outer_timeouts(&breaker, &clock, five_ms).await;
    let snapshot = breaker.snapshot();
    assert_eq!((timed_out, snapshot.totals.cancelled), (200, 200));
    assert_eq!((snapshot.state, snapshot.calls), (State::Closed, 0));
}

/// Where something panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Call,
    Poll,
    BodyPoll,
    ClassifyResponse,
    ClassifyError,
    ClassifyData,
    ClassifyEnd,
    Nowhere,
}

fn panic_if(here: bool) {
    assert!(!here, "a panic, as it was told to");
}

#[derive(Debug, Clone, Copy)]
struct Panics(At);

impl Service<Request<TestBody>> for Panics {
    type Response = Response<PanickyBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<TestBody>) -> Self::Future {
        let at = self.0;
        panic_if(at == At::Call);
        Box::pin(async move {
            panic_if(at == At::Poll);
            match at {
                At::ClassifyError => Err("failed".into()),
                _ => Ok(Response::new(PanickyBody { at, sent: false })),
            }
        })
    }
}

struct PanickyBody {
    at: At,
    sent: bool,
}

impl Body for PanickyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        panic_if(self.at == At::BodyPoll);
        let first = !std::mem::replace(&mut self.sent, true);
        let frame = first.then(|| Ok(Frame::data(Bytes::from_static(b"x"))));
        Poll::Ready(frame)
    }
}

impl<E> Classify<E> for Panics {
    type Body = Panics;

    fn response(&self, _: &Head<'_>) -> Verdict<Panics> {
        panic_if(self.0 == At::ClassifyResponse);
        Verdict::AtTheEnd(*self)
    }

    fn error(&self, _: &E) -> Outcome {
        panic_if(self.0 == At::ClassifyError);
        Outcome::failure(FailKind::Transport)
    }
}

impl ClassifyBody for Panics {
    fn data(&mut self, _: &Bytes) -> bool {
        panic_if(self.0 == At::ClassifyData);
        true
    }

    fn end(self, end: End) -> Option<Outcome> {
        // Whatever a body's reader does once it has panicked, it is not asked again.
        panic_if(matches!(self.0, At::ClassifyEnd | At::ClassifyData));
        ToTheEnd.end(end)
    }
}

/// Calls once and reads the body.
fn call_whole<S, B>(mut service: S) -> Result<(), BoxError>
where
    S: Service<Request<TestBody>, Response = Response<B>, Error = BoxError>,
    B: Body<Error = BoxError>,
{
    let mut call = Box::pin(async move {
        let response = service.ready().await?.call(request()).await?;
        response.into_body().collect().await?;
        Ok(())
    });
    match poll(call.as_mut()) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("nothing here waits"),
    }
}

#[test]
fn b7_only_a_panic_of_the_inner_service_is_held_against_it() {
    for at in [
        At::Call,
        At::Poll,
        At::BodyPoll,
        At::ClassifyResponse,
        At::ClassifyError,
        At::ClassifyData,
        At::ClassifyEnd,
    ] {
        let (breaker, clock) = half_open();
        let layer = BreakerLayer::new(breaker.clone()).classify(Panics(at));
        let service = layer.layer(Panics(at));
        let caught = catch_unwind(AssertUnwindSafe(|| call_whole(service)));
        assert!(caught.is_err(), "{at:?}");
        let snapshot = breaker.snapshot();
        assert_eq!(snapshot.in_flight, 0, "{at:?}");
        if matches!(at, At::Call | At::Poll | At::BodyPoll) {
            let reason = snapshot.last_trip.unwrap().reason;
            assert_eq!(reason, Reason::ProbeFailed(FailKind::Panic), "{at:?}");
            clock.advance(secs(60));
        } else {
            assert_eq!(snapshot.totals.failures, 0, "{at:?}");
            assert_eq!(snapshot.totals.cancelled, 1, "{at:?}");
            assert_eq!(snapshot.state, State::HalfOpen, "{at:?}");
        }
        // It goes on as if nothing had been.
        let layer = layer.classify(Panics(At::Nowhere));
        call_whole(layer.layer(Panics(At::Nowhere))).unwrap();
        assert_eq!(breaker.snapshot().state, State::Closed, "{at:?}");
    }
}

/// However old the call is by then.
#[test]
fn b7_a_classifier_that_panics_late_is_not_the_callees_doing() {
    for at in [At::ClassifyResponse, At::ClassifyError, At::ClassifyData] {
        let (breaker, _clock) = breaker(Config::llm().abandon_after(Duration::ZERO));
        let layer = BreakerLayer::new(breaker.clone()).classify(Panics(at));
        let service = layer.layer(Panics(at));
        let caught = catch_unwind(AssertUnwindSafe(|| call_whole(service)));
        assert!(caught.is_err(), "{at:?}");
        let totals = breaker.snapshot().totals;
        assert_eq!((totals.failures, totals.cancelled), (0, 1), "{at:?}");

        let rules = Config::llm().abandon_after(Duration::ZERO);
        let registry = Registry::new(9, rules, TestClock::new().clock()).unwrap();
        let key = |_: &_| Some(ProviderKey::new("openai").model("gpt-x"));
        let layer = BreakerLayer::keyed(registry.clone(), key).classify(Panics(at));
        let service = layer.layer(Panics(at));
        assert!(catch_unwind(AssertUnwindSafe(|| call_whole(service))).is_err());
        for snapshot in registry.snapshots() {
            let totals = snapshot.totals;
            assert_eq!((totals.failures, totals.cancelled), (0, 1), "{at:?}");
        }
    }
}

#[test]
fn b7_a_panic_that_is_caught_further_out_counts_at_once() {
    let (breaker, _clock) = breaker(Config::llm().consecutive(1));
    let mut service = BreakerLayer::new(breaker.clone()).layer(Panics(At::Poll));
    let mut future = Box::pin(service.call(request()));
    let caught = catch_unwind(AssertUnwindSafe(|| poll(future.as_mut()).is_ready()));
    assert!(caught.is_err());
    assert_eq!(breaker.snapshot().state, State::Open);
    drop(future);
    assert_eq!(breaker.snapshot().in_flight, 0);
}

#[test]
fn b7_by_key_a_panic_is_the_providers() {
    let registry = Registry::new(9, Config::llm(), TestClock::new().clock()).unwrap();
    let layer = BreakerLayer::keyed(registry.clone(), |_| {
        Some(ProviderKey::new("openai").model("gpt-x"))
    });
    for at in [At::Call, At::Poll, At::ClassifyResponse, At::ClassifyData] {
        let service = layer.clone().classify(Panics(at)).layer(Panics(at));
        let caught = catch_unwind(AssertUnwindSafe(|| call_whole(service)));
        assert!(caught.is_err(), "{at:?}");
    }
    let totals = |name| registry.get(name).unwrap().snapshot().totals;
    assert_eq!(
        (totals("openai").failures, totals("openai").cancelled),
        (2, 2)
    );
    assert_eq!(totals("openai/gpt-x").failures, 0);
    assert_eq!(registry.get("openai").unwrap().snapshot().in_flight, 0);
}

#[test]
fn b7_a_panic_elsewhere_says_nothing_about_calls_that_it_drops() {
    let (breaker, _clock) = breaker(Config::llm());
    let probe = Probe::new();
    probe.behave(Behaviour::Hang);
    let mut service = BreakerLayer::new(breaker.clone()).layer(probe);
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Service::<Request<TestBody>>::poll_ready(&mut service, &mut cx).is_ready());
        let mut pending = Box::pin(service.call(request()));
        assert!(poll(pending.as_mut()).is_pending());
        let mut waits = Box::pin(breaker.call(std::future::pending::<Result<(), ()>>));
        assert!(poll(waits.as_mut()).is_pending());
        panic!("something else");
    }));
    assert!(caught.is_err());
    let snapshot = breaker.snapshot();
    assert_eq!(
        (snapshot.totals.failures, snapshot.totals.cancelled),
        (0, 2)
    );
}

/// Does something while the thread unwinds.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn b7_what_is_called_while_the_thread_unwinds_is_judged_by_itself() {
    let (breaker, _clock) = breaker(Config::llm().consecutive(None));
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _on_drop = OnDrop(|| {
            assert!(std::thread::panicking());
            drop(breaker.try_acquire().unwrap());
            breaker.run(|| Ok::<_, ()>(())).unwrap();
        });
        panic!("something else");
    }));
    assert!(caught.is_err());
    let totals = breaker.snapshot().totals;
    assert_eq!(
        (totals.failures, totals.cancelled, totals.successes),
        (0, 1, 1)
    );
}

#[test]
fn b7_a_call_that_panics_is_a_failure_however_it_is_made() {
    let (breaker, _clock) = breaker(Config::llm().consecutive(None));
    let panics = || -> Result<(), ()> { panic!("the call") };
    let _ = catch_unwind(AssertUnwindSafe(|| breaker.run(panics)));
    let _ = catch_unwind(AssertUnwindSafe(|| {
        poll(pin!(breaker.call(|| async { panics() }))).is_ready()
    }));
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let made: fn() -> std::future::Ready<Result<(), ()>> = || panic!("before its future");
        poll(pin!(breaker.call(made))).is_ready()
    }));
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let _permit = breaker.try_acquire().unwrap();
        let _ = panics();
    }));
    let later = breaker.call(|| async {
        tokio::task::yield_now().await;
        panics()
    });
    let mut later = Box::pin(later);
    assert!(poll(later.as_mut()).is_pending());
    let _ = catch_unwind(AssertUnwindSafe(|| poll(later.as_mut()).is_ready()));
    assert_eq!(breaker.snapshot().totals.failures, 5);
    assert_eq!(breaker.snapshot().in_flight, 0);
}

#[tokio::test]
async fn b9_services_that_were_ready_and_dropped_hold_nothing() {
    let (breaker, _clock) = half_open();
    let layer = BreakerLayer::new(breaker.clone());
    for _ in 0..10_000 {
        let mut service = layer.layer(Probe::new());
        ServiceExt::<Request<TestBody>>::ready(&mut service)
            .await
            .unwrap();
    }
    assert_eq!(breaker.snapshot().in_flight, 0);
    let response = layer.layer(Probe::new()).oneshot(request()).await;
    assert_eq!(response.unwrap().status(), 200);
}

#[tokio::test]
async fn b9_an_open_breaker_refuses_though_the_inner_service_is_never_ready() {
    let busy = Probe::new();
    busy.set_busy(true);
    let (breaker, clock) = breaker(Config::llm().probes(1));
    let service = BreakerLayer::new(breaker.clone()).layer(busy.clone());
    let status = || {
        let mut call = pin!(service.clone().oneshot(request()));
        match poll(call.as_mut()) {
            Poll::Ready(response) => Some(response.unwrap().status().as_u16()),
            Poll::Pending => None,
        }
    };
    assert_eq!(status(), None, "closed, it waits");
    breaker.set_mode(Mode::ForcedOpen);
    assert_eq!(status(), Some(503));
    breaker.reset();
    breaker.throttle(secs(5));
    assert_eq!(status(), Some(503));
    clock.advance(secs(6));
    assert_eq!(status(), None, "due for a probe, it waits");
    let probe = breaker.try_acquire().unwrap();
    assert_eq!(status(), Some(503), "the place of the probe is taken");
    drop(probe);
    assert_eq!(status(), None);
    assert_eq!((busy.readied(), busy.calls()), (0, 0));
}

#[tokio::test]
async fn b9_a_call_that_is_let_through_after_all_waits_until_the_inner_service_is_ready() {
    let busy = Probe::new();
    busy.set_busy(true);
    let (breaker, _clock) = breaker(Config::llm().probes(1));
    breaker.set_mode(Mode::ForcedOpen);
    let mut service = BreakerLayer::new(breaker.clone()).layer(busy.clone());
    let ready = ServiceExt::<Request<TestBody>>::ready(&mut service);
    assert!(poll(pin!(ready)).is_ready(), "the busy one is not asked");
    breaker.set_mode(Mode::Auto);
    let call = service.call(request());
    assert_eq!(breaker.snapshot().in_flight, 1, "it is the probe");
    let mut call = Box::pin(tokio::spawn(async move {
        let response = call.await.unwrap();
        response.into_body().collect().await.unwrap();
    }));
    for _ in 0..10 {
        tokio::task::yield_now().await;
        assert!(poll(call.as_mut()).is_pending());
    }
    assert_eq!(busy.calls(), 0);
    busy.set_busy(false);
    call.await.unwrap();
    assert_eq!((busy.readied(), busy.calls()), (1, 1));
    assert_eq!(breaker.snapshot().state, State::Closed);

    // And its place comes back when it is given up while it waits.
    breaker.set_mode(Mode::ForcedOpen);
    let ready = ServiceExt::<Request<TestBody>>::ready(&mut service);
    assert!(poll(pin!(ready)).is_ready(), "the busy one is not asked");
    breaker.set_mode(Mode::Auto);
    busy.set_busy(true);
    let mut call = Box::pin(service.call(request()));
    assert!(poll(call.as_mut()).is_pending());
    drop(call);
    assert_eq!(breaker.snapshot().in_flight, 0);
    assert!(breaker.try_acquire().unwrap().is_probe());
}

/// Never ready: fails, or panics, when it is asked.
#[derive(Clone)]
struct NeverReady {
    panics: bool,
}

impl Service<Request<TestBody>> for NeverReady {
    type Response = Response<TestBody>;
    type Error = BoxError;
    type Future = std::future::Pending<Result<Response<TestBody>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        panic_if(self.panics);
        Poll::Ready(Err("closed for ever".into()))
    }

    fn call(&mut self, _: Request<TestBody>) -> Self::Future {
        panic!("called though it was not ready")
    }
}

#[test]
fn b9_an_inner_service_that_fails_to_become_ready_has_failed() {
    for panics in [false, true] {
        let (breaker, _clock) = half_open();
        breaker.set_mode(Mode::ForcedOpen);
        let mut service = BreakerLayer::new(breaker.clone()).layer(NeverReady { panics });
        let mut ready = pin!(poll_fn(|cx| service.poll_ready(cx)));
        assert!(poll(ready.as_mut()).is_ready());
        breaker.set_mode(Mode::Auto);
        let mut call = Box::pin(service.call(request()));
        let polled = catch_unwind(AssertUnwindSafe(|| match poll(call.as_mut()) {
            Poll::Ready(Err(error)) => error.to_string(),
            _ => panic!("it fails at once"),
        }));
        let kind = match panics {
            false => {
                assert_eq!(polled.unwrap(), "closed for ever");
                FailKind::Transport
            }
            true => FailKind::Panic,
        };
        let trip = breaker.snapshot().last_trip.unwrap();
        assert_eq!(trip.reason, Reason::ProbeFailed(kind));
    }
}

#[tokio::test]
async fn b9_a_service_that_was_ready_before_it_opened_is_the_one_that_is_called() {
    let probe = Probe::new();
    let (breaker, _clock) = breaker(Config::llm());
    let mut service = BreakerLayer::new(breaker.clone()).layer(probe.clone());
    ServiceExt::<Request<TestBody>>::ready(&mut service)
        .await
        .unwrap();
    breaker.set_mode(Mode::ForcedOpen);
    ServiceExt::<Request<TestBody>>::ready(&mut service)
        .await
        .unwrap();
    breaker.set_mode(Mode::Auto);
    let clone = service.clone();
    service.call(request()).await.unwrap();
    assert_eq!((probe.readied(), probe.calls()), (1, 1));
    clone.oneshot(request()).await.unwrap();
    assert_eq!((probe.readied(), probe.calls()), (2, 2));
}
