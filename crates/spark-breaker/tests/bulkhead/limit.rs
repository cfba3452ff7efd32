//! The rules by which an adaptive limit moves.

use proptest::prelude::*;
use spark_breaker::{Aimd, Bulkhead, BulkheadFull, Place};

use super::{adaptive, millis};

/// Takes all places.
fn fill(bulkhead: &Bulkhead) -> Vec<Place> {
    std::iter::from_fn(|| bulkhead.try_enter().ok()).collect()
}

/// A round: all places are taken, and all calls are good.
fn good_round(bulkhead: &Bulkhead) {
    for mut place in fill(bulkhead) {
        place.first_byte();
        place.succeeded();
    }
}

#[test]
fn it_grows_by_one_in_a_round_and_falls_by_a_share() {
    let (bulkhead, _clock) = adaptive(Aimd::new(2, 12).start(10).backoff(0.7));
    good_round(&bulkhead);
    assert_eq!(bulkhead.limit(), 11);
    good_round(&bulkhead);
    good_round(&bulkhead);
    assert_eq!(bulkhead.limit(), 12, "never above the max");
    let mut limits = Vec::new();
    for _ in 0..7 {
        bulkhead.try_enter().unwrap().throttled();
        limits.push(bulkhead.limit());
    }
    assert_eq!(limits, [8, 5, 3, 2, 2, 2, 2], "never below the min");
    assert_eq!(bulkhead.max(), 12);
}

#[test]
fn it_grows_by_more_where_it_is_told_to() {
    let (bulkhead, _clock) = adaptive(Aimd::new(1, 200).start(100).increase(10));
    let mut places = fill(&bulkhead);
    for place in &mut places {
        place.succeeded();
    }
    // Ten good calls raised it to 101, where not all places were taken since.
    assert_eq!(bulkhead.limit(), 101);
    drop(places);
    for _ in 0..3 {
        good_round(&bulkhead);
    }
    assert!((103..=131).contains(&bulkhead.limit()), "{bulkhead:?}");
}

#[test]
fn a_hundred_throttled_at_one_moment_lower_it_once() {
    let (bulkhead, _clock) = adaptive(Aimd::new(1, 100).backoff(0.5));
    let places = fill(&bulkhead);
    assert_eq!(places.len(), 100);
    for mut place in places {
        place.throttled();
    }
    assert_eq!(bulkhead.limit(), 50);
    // One that entered after that is heard again.
    bulkhead.try_enter().unwrap().throttled();
    assert_eq!(bulkhead.limit(), 25);
}

#[test]
fn calls_that_entered_before_a_decrease_do_not_raise_it_again() {
    let (bulkhead, _clock) = adaptive(Aimd::new(1, 20).start(10).backoff(0.5));
    let mut places = fill(&bulkhead);
    places.pop().unwrap().throttled();
    for mut place in places {
        place.succeeded();
    }
    assert_eq!(bulkhead.limit(), 5);
}

#[test]
fn it_does_not_grow_while_nobody_needs_more() {
    let (bulkhead, _clock) = adaptive(Aimd::new(1, 64).start(8));
    for _ in 0..1_000 {
        let mut seven: Vec<Place> = (0..7).map(|_| bulkhead.try_enter().unwrap()).collect();
        for place in &mut seven {
            place.succeeded();
        }
    }
    assert_eq!(bulkhead.limit(), 8);
    good_round(&bulkhead);
    assert_eq!(bulkhead.limit(), 9);
}

#[test]
fn a_late_first_byte_is_a_sign_of_overload_and_a_long_answer_is_none() {
    let rules = Aimd::new(1, 10).backoff(0.5).latency(millis(2_000));
    let (bulkhead, clock) = adaptive(rules);
    let mut place = bulkhead.try_enter().unwrap();
    clock.advance(millis(2_000));
    place.first_byte();
    clock.advance(millis(600_000));
    place.first_byte();
    place.succeeded();
    assert_eq!(bulkhead.limit(), 10, "in time to the moment");

    let mut place = bulkhead.try_enter().unwrap();
    clock.advance(millis(2_001));
    place.first_byte();
    assert_eq!(bulkhead.limit(), 5);
    place.succeeded();
    place.throttled();
    assert_eq!(bulkhead.limit(), 5, "a call is heard once");

    let mut place = bulkhead.try_enter().unwrap();
    clock.advance(millis(2_001));
    place.failed();
    assert_eq!(bulkhead.limit(), 2, "it timed out");
}

#[test]
fn what_fails_at_once_and_what_is_dropped_says_nothing() {
    let (bulkhead, clock) = adaptive(Aimd::new(1, 10).start(3).latency(millis(2_000)));
    for _ in 0..10 {
        for mut place in fill(&bulkhead) {
            place.failed();
            place.succeeded();
        }
        let mut begun = fill(&bulkhead);
        for place in &mut begun {
            place.first_byte();
        }
        clock.advance(millis(60_000));
        drop(begun);
        drop(fill(&bulkhead));
    }
    assert_eq!(bulkhead.limit(), 3);
}

#[test]
fn rules_out_of_range_are_refused_by_name() {
    let refused = |rules: Aimd| {
        let clock = spark_core::Clock::system();
        Bulkhead::adaptive("primary", rules, clock)
            .unwrap_err()
            .to_string()
    };
    for (rules, field) in [
        (Aimd::new(0, 9), "min = 0"),
        (Aimd::new(10, 9), "min = 10"),
        (Aimd::new(1, 0), "max = 0"),
        (Aimd::new(1, 1_000_001), "max = 1000001"),
        (Aimd::new(2, 9).start(1), "start = 1"),
        (Aimd::new(2, 9).start(10), "start = 10"),
        (Aimd::new(1, 9).increase(0), "increase = 0"),
        (Aimd::new(1, 9).backoff(1.0), "backoff = 1.0"),
        (Aimd::new(1, 9).backoff(f64::NAN), "backoff = NaN"),
        (Aimd::new(1, 9).latency(millis(0)), "latency = 0ns"),
    ] {
        let error = refused(rules);
        assert!(error.starts_with(field), "{error}");
    }
}

/// The rules of [`Aimd`], written down plainly.
#[derive(Debug)]
struct Model {
    limit: usize,
    good: usize,
    reached: bool,
    decreases: usize,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Enter,
    Advance(u16),
    FirstByte(usize),
    Succeed(usize),
    Throttle(usize),
    Fail(usize),
    Drop(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let which = 0..64usize;
    prop_oneof![
        6 => Just(Op::Enter),
        1 => (0..1_500u16).prop_map(Op::Advance),
        3 => which.clone().prop_map(Op::FirstByte),
        6 => which.clone().prop_map(Op::Succeed),
        1 => which.clone().prop_map(Op::Throttle),
        1 => which.clone().prop_map(Op::Fail),
        1 => which.prop_map(Op::Drop),
    ]
}

struct Inside {
    place: Place,
    entered_after: usize,
    at: u64,
    begun: bool,
    over: bool,
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(300)
    })]

    #[test]
    fn it_moves_as_the_rules_say_and_stays_between_its_ends(
        min in 1..6usize,
        more in 0..20usize,
        increase in 1..4usize,
        backoff in 0.001..0.999f64,
        latency in proptest::option::of(1..1_000u16),
        ops in proptest::collection::vec(op(), 1..400),
    ) {
        let max = min + more;
        let increase = increase.min(max);
        let limit_of = latency.map(|late| millis(late.into()));
        let rules = Aimd::new(min, max).increase(increase).backoff(backoff).latency(limit_of);
        let (bulkhead, clock) = adaptive(rules);
        let mut model = Model { limit: max, good: 0, reached: false, decreases: 0 };
        let (mut inside, mut now) = (Vec::<Inside>::new(), 0u64);
        for op in ops {
            let late = |call: &Inside, now: u64| {
                latency.is_some_and(|limit| now - call.at > u64::from(limit))
            };
            let down = |model: &mut Model, call: &mut Inside| {
                call.over = true;
                if call.entered_after == model.decreases {
                    let thousandths = (backoff * 1_000.0).round() as usize;
                    let lowered = (model.limit * thousandths / 1_000).max(min);
                    *model = Model {
                        limit: lowered,
                        good: 0,
                        reached: false,
                        decreases: model.decreases + 1,
                    };
                }
            };
            let at = |which: usize, calls: usize| (calls > 0).then(|| which % calls);
            match op {
                Op::Enter => {
                    let entered = bulkhead.try_enter();
                    prop_assert_eq!(entered.is_ok(), inside.len() < model.limit);
                    if let Ok(place) = entered {
                        inside.push(Inside {
                            place,
                            entered_after: model.decreases,
                            at: now,
                            begun: false,
                            over: false,
                        });
                        model.reached |= inside.len() >= model.limit;
                    } else {
                        prop_assert_eq!(entered.unwrap_err(), BulkheadFull::Places);
                    }
                }
                Op::Advance(by) => {
                    now += u64::from(by);
                    clock.advance(millis(by.into()));
                }
                Op::FirstByte(which) | Op::Succeed(which) => {
                    let Some(at) = at(which, inside.len()) else { continue };
                    let call = &mut inside[at];
                    let succeeds = matches!(op, Op::Succeed(_));
                    if succeeds { call.place.succeeded() } else { call.place.first_byte() }
                    if !call.over && !call.begun {
                        if late(call, now) { down(&mut model, call) } else { call.begun = true }
                    }
                    if succeeds && !call.over {
                        call.over = true;
                        if call.entered_after == model.decreases {
                            model.good += 1;
                            if model.good >= model.limit.div_ceil(increase) {
                                if model.reached && model.limit < max {
                                    model.limit += 1;
                                }
                                model.good = 0;
                                model.reached = false;
                            }
                        }
                    }
                }
                Op::Throttle(which) => {
                    let Some(at) = at(which, inside.len()) else { continue };
                    inside[at].place.throttled();
                    if !inside[at].over { down(&mut model, &mut inside[at]) }
                }
                Op::Fail(which) => {
                    let Some(at) = at(which, inside.len()) else { continue };
                    let call = &mut inside[at];
                    call.place.failed();
                    if !call.over && !call.begun && late(call, now) { down(&mut model, call) }
                    call.over = true;
                }
                Op::Drop(which) => {
                    let Some(at) = at(which, inside.len()) else { continue };
                    drop(inside.swap_remove(at));
                }
            }
            prop_assert_eq!(bulkhead.limit(), model.limit);
            prop_assert!((min..=max).contains(&bulkhead.limit()));
            prop_assert_eq!(bulkhead.in_flight(), inside.len());
        }
        inside.clear();
        prop_assert_eq!(bulkhead.in_flight(), 0);
    }
}
