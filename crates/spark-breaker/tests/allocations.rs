//! Admitting, refusing and counting allocate nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use spark_breaker::{
    Aimd, Breaker, BreakerLayer, Bulkhead, Config, FailKind, Gate, HttpClassify, IgnoreKind, Mode,
    ProviderKey, Registry, Window,
};
use spark_core::Name;
use spark_core::testing::TestClock;
use tower::{Layer, Service, service_fn};

fn allocations(code: impl FnOnce()) -> u64 {
    allocation_counter::measure(code).count_total
}

#[test]
fn calls_allocate_nothing_however_many_there_were() {
    let clock = TestClock::new();
    for window in [Window::from(Duration::from_secs(60)), Window::Count(1_000)] {
        let config = Config::standard().window(window).consecutive(None);
        let breaker = Breaker::new("x", config, clock.clock()).unwrap();
        // Closed whatever the results; and handles of metrics, if there are any, are found once.
        breaker.set_mode(Mode::ForcedClosed);
        breaker.try_acquire().unwrap().success();
        let counted = allocations(|| {
            for call in 0..10_000 {
                let permit = breaker.try_acquire().unwrap();
                match call % 4 {
                    0 => permit.failure(FailKind::Transport),
                    1 => drop(permit),
                    2 => permit.ignore(IgnoreKind::Client),
                    _ => permit.success(),
                }
            }
        });
        assert_eq!(counted, 0, "{window:?}");
        assert_eq!(breaker.snapshot().totals.failures, 2_500);
    }
}

#[test]
fn a_refusal_allocates_nothing() {
    let clock = TestClock::new();
    let breaker = Breaker::new("x", Config::standard(), clock.clock()).unwrap();
    breaker.throttle(Duration::from_secs(60));
    assert!(breaker.try_acquire().is_err());
    let counted = allocations(|| {
        for _ in 0..10_000 {
            assert!(breaker.try_acquire().is_err());
        }
    });
    assert_eq!(counted, 0);
}

#[test]
fn opening_and_closing_allocates_nothing() {
    let clock = TestClock::new();
    let config = Config::standard().jitter(0.0).in_flight_slow(10);
    let breaker = Breaker::new("x", config, clock.clock()).unwrap();
    breaker.try_acquire().unwrap().success();
    let counted = allocations(|| {
        for _ in 0..100 {
            for _ in 0..5 {
                breaker.try_acquire().unwrap().failure(FailKind::Transport);
            }
            clock.advance(Duration::from_secs(120));
            for _ in 0..2 {
                breaker.try_acquire().unwrap().success();
            }
        }
    });
    assert_eq!(counted, 0);
    assert_eq!(breaker.snapshot().generation, 300);
}

#[test]
fn entering_and_leaving_a_bulkhead_allocates_nothing() {
    let rules = Aimd::new(2, 8).latency(Duration::from_secs(1));
    let bulkhead = Bulkhead::adaptive("x", rules, TestClock::new().clock()).unwrap();
    let bulkhead = bulkhead.tenant_share(0.5).unwrap();
    let tenants = ["a", "b", "c", "d"].map(|name| Name::new(name).unwrap());
    let mut refused = 0;
    let mut calls = |times: usize| {
        for _ in 0..times {
            let places = [
                &tenants[0],
                &tenants[0],
                &tenants[1],
                &tenants[2],
                &tenants[3],
            ];
            let mut places = places.map(|tenant| bulkhead.try_enter_for(tenant).ok());
            for (n, place) in places.iter_mut().enumerate() {
                match place {
                    None => refused += 1,
                    Some(place) if n == 4 => place.throttled(),
                    Some(place) => place.succeeded(),
                }
            }
        }
    };
    // Room for the tenants, and the handles of metrics, are made once.
    calls(10);
    assert_eq!(allocations(|| calls(2_000)), 0);
    assert!(refused > 0);
}

#[test]
fn a_call_by_key_allocates_nothing() {
    let registry = Registry::new(9, Config::standard(), TestClock::new().clock()).unwrap();
    let key = ProviderKey::new("openai")
        .model("gpt-x")
        .credential("key-1");
    let call = || {
        registry
            .breakers(&key)
            .unwrap()
            .try_acquire()
            .unwrap()
            .success();
    };
    call();
    assert_eq!(allocations(|| (0..1_000).for_each(|_| call())), 0);
}

fn answer(_: Request<()>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    ready(Ok(Response::new(Full::new(Bytes::from_static(b"hello")))))
}

/// What a call and the reading of its body allocate.
fn of_one_call<S, B>(service: &mut S, request: Request<()>) -> u64
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes>,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    allocations(|| {
        let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(&mut cx) else {
            panic!("it answers at once");
        };
        let mut body = pin!(response.into_body());
        while let Poll::Ready(Some(_)) = body.as_mut().poll_frame(&mut cx) {}
    })
}

fn of_layer<G: Gate>(
    layer: &BreakerLayer<HttpClassify, G>,
    request: impl Fn() -> Request<()>,
) -> u64 {
    let mut service = layer.layer(service_fn(answer));
    of_one_call(&mut service, request());
    of_one_call(&mut service, request())
}

#[test]
fn a_layer_allocates_nothing_by_one_breaker_or_by_key() {
    let clock = TestClock::new();
    let breaker = Breaker::new("x", Config::standard(), clock.clock()).unwrap();
    let one = BreakerLayer::new(breaker).classify(HttpClassify);
    assert_eq!(of_layer(&one, || Request::new(())), 0);

    #[derive(Clone)]
    struct Model(Arc<str>);
    let model = Model("gpt-x".into());
    let request = || {
        let mut request = Request::new(());
        request.extensions_mut().insert(model.clone());
        request
    };
    let names: [Arc<str>; 2] = ["openai".into(), "key-1".into()];
    let registry = Registry::new(9, Config::standard(), clock.clock()).unwrap();
    let keyed = BreakerLayer::keyed(registry.clone(), move |head| {
        let Model(model) = head.extensions.get()?;
        let [provider, credential] = names.clone();
        let key = ProviderKey::new(provider).model(Arc::clone(model));
        Some(key.credential(credential))
    });
    assert_eq!(of_layer(&keyed.classify(HttpClassify), request), 0);
    assert_eq!(
        registry
            .get("openai#key-1")
            .unwrap()
            .snapshot()
            .totals
            .successes,
        2
    );
}
