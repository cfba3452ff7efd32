//! The breakers, with settings as alike as they can be given. Times are the script's; `scale` is how long
//! one second of it takes.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use failsafe::failure_policy::{self, FailurePolicy};
use recloser::{AsyncRecloser, Recloser};
use spark_breaker::{Breaker, Config, FailKind, Permit};
use spark_core::testing::TestClock;
use spark_core::{Clock, Instant};
use tower::{Layer, Service, service_fn};
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, SlidingWindowType};

use crate::dice::Dice;
use crate::world::{Play, Replica, World};

/// The whole of it: ours with all of its rules.
pub(crate) const OURS: &str = "spark";

const IN_A_ROW: u32 = 5;
const PROBES: u32 = 2;

/// Ours, and nobody at all, in a time that is set: the same each time.
pub(crate) fn in_set_time(seed: u64) -> Vec<Box<dyn Play>> {
    let mut worlds: Vec<Box<dyn Play>> = vec![Box::new(World::new(NOBODY, seed, nobody, |_| ()))];
    for (name, config) in ours(1.0) {
        let hand = TestClock::new();
        let clock = hand.clock();
        let make = move |replica| Ours::new(config.clone(), seed, replica, &clock);
        let set = move |now| hand.set(Instant::from_nanos(now));
        worlds.push(Box::new(World::new(name, seed, make, set)));
    }
    worlds
}

/// All of them, by the clock of the machine.
pub(crate) fn in_real_time(seed: u64, scale: f64) -> Vec<Box<dyn Play>> {
    let mut worlds: Vec<Box<dyn Play>> = vec![Box::new(World::new(NOBODY, seed, nobody, |_| ()))];
    let clock = Clock::system();
    for (name, config) in ours(scale) {
        let clock = clock.clone();
        let make = move |replica| Ours::new(config.clone(), seed, replica, &clock);
        worlds.push(Box::new(World::new(name, seed, make, |_| ())));
    }
    for inside in [false, true] {
        let name = |outside, within| if inside { within } else { outside };
        let failsafe = move |replica| TimesOut::new(failsafe(seed, replica, scale), inside);
        let called = name("failsafe 1.3", "failsafe, timeout inside");
        worlds.push(Box::new(World::new(called, seed, failsafe, |_| ())));
        let recloser = move |_| TimesOut::new(recloser(scale), inside);
        let called = name("recloser 1.4", "recloser, timeout inside");
        worlds.push(Box::new(World::new(called, seed, recloser, |_| ())));
        let resilience = move |_| TimesOut::new(resilience(scale), inside);
        let called = name("tower-resilience 0.14", "tower-resilience, timeout inside");
        worlds.push(Box::new(World::new(called, seed, resilience, |_| ())));
    }
    worlds
}

/// A peer with the callers' timeout around it, which drops what it awaits; or inside of it, where it is
/// told of a failure.
struct TimesOut<R> {
    peer: R,
    inside: bool,
}

impl<R> TimesOut<R> {
    fn new(peer: R, inside: bool) -> Self {
        Self { peer, inside }
    }
}

impl<R: Replica> Replica for TimesOut<R> {
    type Call = R::Call;

    fn ask(&mut self) -> Option<R::Call> {
        self.peer.ask()
    }

    fn answered(&mut self, call: R::Call, well: bool) {
        self.peer.answered(call, well);
    }

    fn given_up(&mut self, call: R::Call) {
        match self.inside {
            true => self.peer.answered(call, false),
            false => drop(call),
        }
    }
}

fn seconds(seconds: f64, scale: f64) -> Duration {
    Duration::from_secs_f64(seconds * scale)
}

fn ours(scale: f64) -> Vec<(&'static str, Config)> {
    let of = |it: f64| seconds(it, scale);
    let base = Config::llm()
        .window(of(20.0))
        .min_calls(10)
        .failure_rate(0.5)
        .consecutive(IN_A_ROW)
        .slow_threshold(of(3.0))
        .slow_rate(0.5)
        .open_for(of(10.0))
        .max_open_for(of(20.0))
        .probe_timeout(of(15.0))
        .probes(PROBES);
    let ramp = of(10.0);
    vec![
        (OURS, base.clone().in_flight_slow(5).ramp(ramp)),
        ("spark, no ramp", base.clone().in_flight_slow(5)),
        (
            "spark, no jitter",
            base.clone().in_flight_slow(5).ramp(ramp).jitter(0.0),
        ),
        ("spark, no in_flight_slow", base.ramp(ramp)),
    ]
}

struct Ours(Breaker);

impl Ours {
    fn new(config: Config, seed: u64, replica: u64, clock: &Clock) -> Self {
        let seed = Dice::new(seed, 5_000 + replica).word();
        match Breaker::new("provider", config.seed(seed), clock.clone()) {
            Ok(breaker) => Self(breaker),
            Err(error) => panic!("{error}"),
        }
    }
}

impl Replica for Ours {
    type Call = Permit;

    fn ask(&mut self) -> Option<Permit> {
        self.0.try_acquire().ok()
    }

    fn answered(&mut self, call: Permit, well: bool) {
        match well {
            true => call.success(),
            false => call.failure(FailKind::Status(500)),
        }
    }
}

const NOBODY: &str = "no breaker";

struct Nobody;

fn nobody(_: u64) -> Nobody {
    Nobody
}

impl Replica for Nobody {
    type Call = ();

    fn ask(&mut self) -> Option<()> {
        Some(())
    }

    fn answered(&mut self, (): (), _: bool) {}
}

struct Failsafe<P: FailurePolicy>(failsafe::StateMachine<P, ()>);

/// Its future, too, says nothing when it is dropped, so a caller who gives up says nothing here. Its own
/// jittered backoff takes no times below a second: the same is made by hand.
fn failsafe(seed: u64, replica: u64, scale: f64) -> Failsafe<impl FailurePolicy> {
    let dice = Rc::new(RefCell::new(Dice::new(seed, 9_000 + replica)));
    let (first, most) = (seconds(10.0, scale), seconds(20.0, scale));
    let backoff = std::iter::successors(Some(first), move |wait| Some((*wait * 2).min(most)))
        .map(move |wait| wait / 2 + (wait / 2).mul_f64(dice.borrow_mut().unit()));
    let rate = failure_policy::success_rate_over_time_window(
        0.5,
        10,
        seconds(20.0, scale),
        backoff.clone(),
    );
    let policy = failure_policy::consecutive_failures(IN_A_ROW, backoff).or_else(rate);
    Failsafe(failsafe::Config::new().failure_policy(policy).build())
}

impl<P: FailurePolicy> Replica for Failsafe<P> {
    type Call = ();

    fn ask(&mut self) -> Option<()> {
        self.0.is_call_permitted().then_some(())
    }

    fn answered(&mut self, (): (), well: bool) {
        match well {
            true => self.0.on_success(),
            false => self.0.on_error(),
        }
    }
}

/// An answer that is still to come: 0, then 1 for well and 2 for failed.
type Pending = Arc<AtomicU8>;

/// A call as its caller awaits it: polled when it begins and when it is answered, dropped when not.
struct Awaited<E> {
    future: Pin<Box<dyn Future<Output = Result<(), E>>>>,
    answer: Pending,
}

async fn wait_for(answer: Pending) -> Result<(), ()> {
    poll_fn(|_| match answer.load(Ordering::Relaxed) {
        0 => Poll::Pending,
        well => Poll::Ready(if well == 1 { Ok(()) } else { Err(()) }),
    })
    .await
}

impl<E> Awaited<E> {
    /// None when it is refused at once.
    fn begin(
        answer: Pending,
        future: impl Future<Output = Result<(), E>> + 'static,
    ) -> Option<Self> {
        let mut future: Pin<Box<dyn Future<Output = Result<(), E>>>> = Box::pin(future);
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(_) => None,
            Poll::Pending => Some(Self { future, answer }),
        }
    }

    fn end(mut self, well: bool) {
        self.answer
            .store(if well { 1 } else { 2 }, Ordering::Relaxed);
        let polled = self
            .future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_ready(), "the answer is there");
    }
}

struct Reclosed(AsyncRecloser);

fn recloser(scale: f64) -> Reclosed {
    let first = seconds(10.0, scale);
    let most = seconds(20.0, scale);
    let recloser = Recloser::custom()
        .error_rate(0.5)
        // As many calls as come in 20 seconds.
        .closed_len(80)
        .half_open_len(PROBES as usize)
        .open_wait(first)
        .open_wait_strategy(move |failed: u32, wait: Duration| {
            (wait * 2_u32.saturating_pow(failed.min(10))).min(most)
        })
        .build();
    Reclosed(recloser.into())
}

impl Replica for Reclosed {
    type Call = Awaited<recloser::Error<()>>;

    fn ask(&mut self) -> Option<Self::Call> {
        let answer = Pending::default();
        let future = self.0.call(wait_for(Arc::clone(&answer)));
        Awaited::begin(answer, future)
    }

    fn answered(&mut self, call: Self::Call, well: bool) {
        call.end(well);
    }
}

struct Resilience<S>(S);

fn resilience(scale: f64) -> Resilience<impl Serve> {
    let layer = CircuitBreakerLayer::builder()
        .sliding_window_type(SlidingWindowType::TimeBased)
        .sliding_window_duration(seconds(20.0, scale))
        .minimum_number_of_calls(10)
        .consecutive_failures(IN_A_ROW as usize)
        .slow_call_duration_threshold(seconds(3.0, scale))
        .slow_call_rate_threshold(0.5)
        .wait_duration_in_open(seconds(10.0, scale))
        .permitted_calls_in_half_open(PROBES as usize)
        .build();
    match layer {
        Ok(layer) => Resilience(layer.layer(service_fn(wait_for))),
        Err(error) => panic!("{error:?}"),
    }
}

type PeerError = tower_resilience_circuitbreaker::CircuitBreakerError<()>;

/// Its service, which has no name that can be written here.
trait Serve: Service<Pending, Response = (), Error = PeerError, Future: 'static> {}

impl<S: Service<Pending, Response = (), Error = PeerError, Future: 'static>> Serve for S {}

impl<S: Serve> Replica for Resilience<S> {
    type Call = Awaited<PeerError>;

    fn ask(&mut self) -> Option<Self::Call> {
        let answer = Pending::default();
        let mut context = Context::from_waker(Waker::noop());
        match self.0.poll_ready(&mut context) {
            Poll::Ready(Ok(())) => {}
            other => panic!("it is ready, or refuses the call: {other:?}"),
        }
        Awaited::begin(Arc::clone(&answer), self.0.call(answer))
    }

    fn answered(&mut self, call: Self::Call, well: bool) {
        call.end(well);
    }
}
