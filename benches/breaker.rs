//! `cargo bench -p spark-benches --bench breaker`: is the callee fit to be asked?
#![allow(clippy::unwrap_used, reason = "a bench stops where its claim is wrong")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::time::Duration;

use bytes::Bytes;
use failsafe::{CircuitBreaker, backoff, failure_policy};
use http::{Request, Response};
use http_body_util::Full;
use recloser::Recloser;
use spark_benches::{Races, call, drain, turn};
use spark_breaker::{
    Breaker, BreakerLayer, CallError, Config, FailKind, HttpClassify, State, Window,
};
use spark_core::Clock;
use tower::{Layer, service_fn};
use tower_resilience_circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer, CircuitState};

const HOUR: Duration = Duration::from_secs(3_600);

fn main() {
    let races = Races::from_args();
    allowed(&races);
    refused(&races);
    layer(&races, "layer, allowed, window of 100 calls", 100);
    layer(&races, "layer, allowed, window of 10,000 calls", 10_000);
    refusing_layer(&races);
}

/// A call that succeeds, through a breaker that is closed.
fn allowed(races: &Races) {
    races.race("core, allowed", |race| {
        let spark = Breaker::new("peer", Config::standard(), Clock::system()).unwrap();
        let counted = spark.clone();
        let default = failsafe::Config::new().build();
        let consecutive = consecutive();
        let recloser = Recloser::custom().error_rate(0.5).closed_len(100).build();

        assert!(matches!(turn(counted.call(succeed)), Ok(1)));
        assert_eq!(counted.snapshot().totals.successes, 1, "it counts");

        race.side("spark Breaker::call", move || {
            let answer = turn(spark.call(succeed));
            assert!(answer.is_ok());
            answer
        })
        .side("recloser call", move || {
            let answer = recloser.call(|| Ok::<u64, Failed>(1));
            assert!(answer.is_ok());
            answer
        })
        .side("failsafe call, default policy", move || {
            let answer = default.call(|| Ok::<u64, Failed>(1));
            assert!(answer.is_ok());
            answer
        })
        .side("failsafe call, failures in a row only", move || {
            let answer = consecutive.call(|| Ok::<u64, Failed>(1));
            assert!(answer.is_ok());
            answer
        })
    });
}

/// A call that is not made, since the breaker is open.
fn refused(races: &Races) {
    races.race("core, refused", |race| {
        let spark = open_breaker();
        let recloser = Recloser::custom()
            .error_rate(0.5)
            .closed_len(10)
            .open_wait(HOUR)
            .build();
        let failsafe = consecutive();
        for _ in 0..20 {
            let _ = recloser.call(|| Err::<u64, Failed>(Failed));
            let _ = failsafe.call(|| Err::<u64, Failed>(Failed));
        }
        race.side("spark Breaker::call", move || {
            let answer = turn(spark.call(succeed));
            assert!(matches!(answer, Err(CallError::Rejected(_))));
            answer
        })
        .side("recloser call", move || {
            let answer = recloser.call(|| Ok::<u64, Failed>(1));
            assert!(matches!(answer, Err(recloser::Error::Rejected)));
            answer
        })
        .side("failsafe call, failures in a row only", move || {
            let answer = failsafe.call(|| Ok::<u64, Failed>(1));
            assert!(matches!(answer, Err(failsafe::Error::Rejected)));
            answer
        })
    });
}

/// Around an HTTP service that answers at once. Both sides look at the status; the body is read to
/// its end on all sides, since that is when ours counts.
fn layer(races: &Races, name: &str, window: u32) {
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
        .side("spark BreakerLayer", move || {
            drain(call(&mut spark, request()).unwrap())
        })
        .side("tower-resilience CircuitBreakerLayer", move || {
            drain(call(&mut peer, request()).unwrap())
        })
    });
}

/// Ours answers with a whole 503 and `Retry-After`, the peer with an error value.
fn refusing_layer(races: &Races) {
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

#[derive(Debug)]
struct Failed;

async fn succeed() -> Result<u64, Failed> {
    Ok(1)
}

fn open_breaker() -> Breaker {
    let config = Config::standard().open_for(HOUR).max_open_for(HOUR);
    let breaker = Breaker::new("peer", config, Clock::system()).unwrap();
    for _ in 0..5 {
        breaker.try_acquire().unwrap().failure(FailKind::Transport);
    }
    assert_eq!(breaker.snapshot().state, State::Open);
    breaker
}

fn consecutive()
-> failsafe::StateMachine<failure_policy::ConsecutiveFailures<backoff::Constant>, ()> {
    let policy = failure_policy::consecutive_failures(5, backoff::constant(HOUR));
    failsafe::Config::new().failure_policy(policy).build()
}

fn request() -> Request<()> {
    Request::new(())
}

fn answer(_: Request<()>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    ready(Ok(Response::new(Full::new(Bytes::from_static(b"hello")))))
}
