//! What is counted, and what counting costs.

use std::time::Duration;

use recloser::Recloser;
use spark_benches::{call, turn};
use spark_breaker::{Breaker, Config, Window};
use spark_core::Clock;
use tower::{Layer, service_fn};
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, SlidingWindowType};

use crate::breakers::{FAILSAFE, Failed, RECLOSER, RESILIENCE, SPARK};
use crate::found::{Found, now};

const MINUTE: Duration = Duration::from_secs(60);

fn echo(well: bool) -> std::future::Ready<Result<u64, Failed>> {
    std::future::ready(if well { Ok(1) } else { Err(Failed) })
}

/// So many failures until it refuses.
fn until_refused(mut fails: impl FnMut() -> bool) -> String {
    match (0..20_000).find(|_| fails()) {
        Some(failures) => format!("opened after {failures} failures"),
        None => "still closed after 20000 failures".to_owned(),
    }
}

pub(crate) fn a_window_of_100_calls_opens_after_50_failures_behind_10_000_successes(
    found: &mut Found,
) {
    let config = Config::standard()
        .window(Window::Count(100))
        .consecutive(None);
    let spark = Breaker::new("peer", config, Clock::system()).unwrap();
    let recloser = Recloser::custom().error_rate(0.5).closed_len(100).build();
    let peer = CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_size(100)
        .build()
        .unwrap();
    let mut peer = peer.layer(service_fn(echo));
    for _ in 0..10_000 {
        assert!(spark.run(|| Ok::<u64, Failed>(1)).is_ok());
        assert!(recloser.call(|| Ok::<u64, Failed>(1)).is_ok());
        assert!(call(&mut peer, true).is_ok());
    }
    let mut failures = 0;
    while let Err(spark_breaker::CallError::Failed(Failed)) = spark.run(|| Err::<u64, _>(Failed)) {
        failures += 1;
        assert!(failures <= 50, "it should be open by now");
    }
    found.note(SPARK, format!("opened after {failures} failures"));
    let rejected = |answer: Result<u64, _>| matches!(answer, Err(recloser::Error::Rejected));
    let words = until_refused(|| rejected(recloser.call(|| Err::<u64, _>(Failed))));
    found.note(RECLOSER, words);
    let words = until_refused(|| call(&mut peer, false).is_err_and(|it| it.is_circuit_open()));
    found.note(RESILIENCE, words);
    found.note(FAILSAFE, "has no window by count");
}

/// The fastest turn of 100 calls, in nanoseconds for one; turns of the two alternate.
fn fastest(mut few: impl FnMut(), mut many: impl FnMut()) -> (f64, f64) {
    let time = |work: &mut dyn FnMut()| {
        let start = now();
        for _ in 0..100 {
            work();
        }
        start.elapsed().as_secs_f64() * 1e9 / 100.0
    };
    let mut least = (f64::MAX, f64::MAX);
    for _ in 0..100 {
        least.0 = least.0.min(time(&mut few));
        least.1 = least.1.min(time(&mut many));
    }
    least
}

fn in_words((few, many): (f64, f64), held: usize) -> String {
    let ratio = many / few;
    format!("{ratio:.1} times as much with {held} as with 100 (unoptimised build)")
}

/// Over time, a minute: the calls of all turns are added to those that are held.
pub(crate) fn a_window_of_100_000_calls_costs_what_one_of_100_costs(found: &mut Found) {
    let spark = |held: usize| {
        let config = Config::standard().window(MINUTE).slow_rate(0.5);
        let breaker = Breaker::new("peer", config, Clock::system()).unwrap();
        let ask = move || assert!(breaker.run(|| Ok::<u64, Failed>(1)).is_ok());
        (0..held).for_each(|_| ask());
        ask
    };
    let costs = fastest(spark(100), spark(100_000));
    found.note(SPARK, in_words(costs, 100_000));
    assert!(costs.1 < 2.0 * costs.0, "{costs:?}");

    let recloser = |held: usize| {
        let recloser = Recloser::custom().closed_len(held).build();
        let ask = move || assert!(recloser.call(|| Ok::<u64, Failed>(1)).is_ok());
        (0..held).for_each(|_| ask());
        ask
    };
    let costs = fastest(recloser(100), recloser(100_000));
    found.note(RECLOSER, in_words(costs, 100_000) + ", by count");

    // A hundred thousand would take minutes to get there. Its small window is made anew for each turn, or
    // the turns themselves would fill it.
    let peer = |held: usize| {
        let peer = CircuitBreakerLayer::builder()
            .sliding_window_type(SlidingWindowType::TimeBased)
            .sliding_window_duration(MINUTE)
            .build()
            .unwrap();
        let mut peer = peer.layer(service_fn(echo));
        let mut ask = move || assert!(call(&mut peer, true).is_ok());
        (0..held).for_each(|_| ask());
        ask
    };
    let time = |ask: &mut dyn FnMut()| {
        let start = now();
        for _ in 0..20 {
            ask();
        }
        start.elapsed().as_secs_f64()
    };
    let few = (0..10)
        .map(|_| time(&mut peer(100)))
        .fold(f64::MAX, f64::min);
    let mut many = peer(5_000);
    let many = (0..10).map(|_| time(&mut many)).fold(f64::MAX, f64::min);
    found.note(RESILIENCE, in_words((few, many), 5_000));
}

/// A success and a refusal of each, when they are warm.
pub(crate) fn a_call_allocates_nothing(found: &mut Found) {
    let allocated = |mut ask: Box<dyn FnMut() + '_>| {
        ask();
        let counted = allocation_counter::measure(|| (0..1_000).for_each(|_| ask()));
        counted.count_total as f64 / 1_000.0
    };
    let words = |allowed: f64, refused: f64| format!("{allowed} allowed, {refused} refused");
    let (long, all) = (MINUTE, 5);

    let config = Config::standard()
        .slow_rate(0.5)
        .in_flight_slow(100)
        .open_for(long);
    let spark = Breaker::new("peer", config, Clock::system()).unwrap();
    let allowed = allocated(Box::new(|| {
        spark.try_acquire().unwrap().success();
        assert!(spark.run(|| Ok::<u64, Failed>(1)).is_ok());
    }));
    (0..all).for_each(|_| assert!(spark.run(|| Err::<u64, _>(Failed)).is_err()));
    let refused = allocated(Box::new(|| assert!(spark.try_acquire().is_err())));
    found.note(SPARK, words(allowed, refused));
    assert!(allowed == 0.0 && refused == 0.0);

    let backoff = failsafe::backoff::constant(long);
    let policy = failsafe::failure_policy::consecutive_failures(all, backoff);
    let failsafe = failsafe::Config::new().failure_policy(policy).build();
    let ask = |well: bool| {
        use failsafe::CircuitBreaker as _;
        failsafe.call(|| if well { Ok(1) } else { Err(Failed) })
    };
    let allowed = allocated(Box::new(|| assert!(ask(true).is_ok())));
    (0..all).for_each(|_| assert!(ask(false).is_err()));
    let refused = allocated(Box::new(|| assert!(ask(true).is_err())));
    found.note(FAILSAFE, words(allowed, refused));

    let recloser = Recloser::custom().closed_len(10).open_wait(long).build();
    let allowed = allocated(Box::new(|| {
        assert!(recloser.call(|| Ok::<u64, Failed>(1)).is_ok());
    }));
    (0..20).for_each(|_| assert!(recloser.call(|| Err::<u64, _>(Failed)).is_err()));
    let refused = allocated(Box::new(|| {
        assert!(recloser.call(|| Ok::<u64, Failed>(1)).is_err());
    }));
    found.note(RECLOSER, words(allowed, refused));

    let (layer, handle) = CircuitBreakerLayer::builder()
        .wait_duration_in_open(long)
        .build_with_handle()
        .unwrap();
    let mut peer = layer.layer(service_fn(echo));
    let allowed = allocated(Box::new(|| assert!(call(&mut peer, true).is_ok())));
    turn(handle.force_open());
    let refused = allocated(Box::new(|| assert!(call(&mut peer, true).is_err())));
    let with = match cfg!(feature = "peer-metrics") {
        true => ", its metrics included",
        false => "",
    };
    found.note(RESILIENCE, words(allowed, refused) + with);
}
