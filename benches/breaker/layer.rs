//! Around an HTTP service that answers at once.

use std::convert::Infallible;
use std::future::{Ready, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use spark_benches::{Races, call, drain, turn};
use spark_breaker::{Breaker, BreakerLayer, Config, HttpClassify, Window};
use spark_core::Clock;
use tower::{Layer, service_fn};
use tower_resilience_circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer, CircuitState};

use crate::HOUR;
use crate::core::open_breaker;

pub(crate) const HUNDRED: &str = "layer, allowed, window of 100 calls";
pub(crate) const SPARK: &str = "spark BreakerLayer";
pub(crate) const RESILIENCE: &str = "tower-resilience CircuitBreakerLayer";

pub(crate) fn all(races: &Races) {
    allowed(races, HUNDRED, 100);
    allowed(races, "layer, allowed, window of 100,000 calls", 100_000);
    refused(races);
}

/// Both sides look at the status; the body is read to its end on all sides, since that is when ours
/// counts.
fn allowed(races: &Races, name: &str, window: u32) {
    races.race(name, |race| {
        let config = Config::standard().window(Window::Count(window));
        let breaker = Breaker::new("peer", config, Clock::system()).unwrap();
        let counted = breaker.clone();
        let mut spark = BreakerLayer::new(breaker)
            .classify(HttpClassify)
            .layer(service_fn(answer));
        let peer = CircuitBreakerLayer::builder()
            .sliding_window_size(window as usize)
            .classify_response(|response: &Response<Full<Bytes>>| {
                response.status().is_server_error()
            })
            .build()
            .unwrap();
        let mut peer = peer.layer(service_fn(answer));
        let mut bare = service_fn(answer);

        assert_eq!(drain(call(&mut spark, request()).unwrap()), 1);
        assert_eq!(
            counted.snapshot().totals.successes,
            1,
            "it counts at the end of the body"
        );
        assert_eq!(drain(call(&mut peer, request()).unwrap()), 1);
        assert_eq!(peer.state_sync(), CircuitState::Closed);

        race.base("no-op service", move || {
            drain(call(&mut bare, request()).unwrap())
        })
        .side(SPARK, move || drain(call(&mut spark, request()).unwrap()))
        .side(RESILIENCE, move || {
            drain(call(&mut peer, request()).unwrap())
        })
    });
}

/// Ours answers with a whole 503 and `Retry-After`, the peer with an error value.
fn refused(races: &Races) {
    races.race("layer, refused", |race| {
        let mut spark = BreakerLayer::new(open_breaker())
            .classify(HttpClassify)
            .layer(service_fn(answer));
        let (peer, handle) = CircuitBreakerLayer::builder()
            .wait_duration_in_open(HOUR)
            .classify_response(|response: &Response<Full<Bytes>>| {
                response.status().is_server_error()
            })
            .build_with_handle()
            .unwrap();
        turn(handle.force_open());
        let mut peer = peer.layer(service_fn(answer));

        race.side("spark BreakerLayer, 503", move || {
            let answer = call(&mut spark, request()).unwrap();
            assert_eq!(answer.status(), 503);
            answer
        })
        .side("tower-resilience, Err(OpenCircuit)", move || {
            let answer = call(&mut peer, request());
            assert!(matches!(answer, Err(CircuitBreakerError::OpenCircuit)));
            answer
        })
    });
}

fn request() -> Request<()> {
    Request::new(())
}

fn answer(_: Request<()>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    ready(Ok(Response::new(Full::new(Bytes::from_static(b"hello")))))
}
