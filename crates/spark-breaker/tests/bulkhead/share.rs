//! One tenant's storm does not take all places.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use spark_breaker::{Aimd, Bulkhead, BulkheadFull, Place};
use spark_core::Name;

use super::{Dice, adaptive, name};

fn fill(bulkhead: &Bulkhead, tenant: &Name) -> Vec<Place> {
    std::iter::from_fn(|| bulkhead.try_enter_for(tenant).ok()).collect()
}

#[test]
fn one_tenant_alone_holds_its_share_and_no_more() {
    for (places, share, most) in [
        (64, 0.5, 32),
        (64, 0.8, 52), // 51.2, rounded up
        (10, 0.25, 3),
        (1, 0.01, 1),
        (3, 1.0, 3),
        (2, 0.9, 1),
        (10, 0.99, 9),
        (1_000, 0.001, 1),
    ] {
        let bulkhead = Bulkhead::new("primary", places).unwrap();
        let bulkhead = bulkhead.tenant_share(share).unwrap();
        let storm = fill(&bulkhead, &name("storm"));
        assert_eq!(storm.len(), most, "{share} of {places}");
        let full = bulkhead.try_enter_for(&name("storm")).unwrap_err();
        let expected = if most == places {
            BulkheadFull::Places
        } else {
            BulkheadFull::TenantShare
        };
        assert_eq!(full, expected, "{share} of {places}");
    }
}

#[test]
fn storms_leave_a_place_for_the_next_tenant() {
    let bulkhead = Bulkhead::new("primary", 100)
        .unwrap()
        .tenant_share(0.5)
        .unwrap();
    let storms: Vec<Vec<Place>> = (0..6)
        .map(|n| fill(&bulkhead, &name(&format!("t{n}"))))
        .collect();
    let held: Vec<usize> = storms.iter().map(Vec::len).collect();
    // Half of what is left, each.
    assert_eq!(held, [50, 25, 13, 6, 3, 2]);
    assert_eq!(bulkhead.tenants(), 6);
    let next = bulkhead.try_enter_for(&name("next"));
    assert!(next.is_ok());
    let full = bulkhead.try_enter_for(&name("after")).unwrap_err();
    assert_eq!(full, BulkheadFull::Places);
}

#[test]
fn without_shares_a_tenant_may_take_all() {
    let bulkhead = Bulkhead::new("primary", 5).unwrap();
    assert_eq!(fill(&bulkhead, &name("storm")).len(), 5);
    assert_eq!(bulkhead.tenants(), 0);
}

#[test]
fn shares_out_of_range_or_too_late_are_refused_by_name() {
    let bulkhead = || Bulkhead::new("primary", 5).unwrap();
    for share in [0.0, -1.0, 1.001, f64::NAN] {
        let error = bulkhead().tenant_share(share).unwrap_err().to_string();
        assert!(error.starts_with("tenant_share = "), "{error}");
    }
    let entered = bulkhead();
    let _place = entered.try_enter().unwrap();
    let error = entered.tenant_share(0.5).unwrap_err().to_string();
    assert!(
        error.ends_with("before the bulkhead is cloned or entered"),
        "{error}"
    );
}

#[test]
fn storms_come_to_equal_parts_and_a_quiet_tenant_is_always_let_in() {
    let bulkhead = Bulkhead::new("primary", 60)
        .unwrap()
        .tenant_share(0.8)
        .unwrap();
    let mut dice = Dice(3);
    let mut inside: HashMap<Name, Vec<(u64, Place)>> = HashMap::new();
    let (mut held, mut quiet_refused) = (HashMap::<Name, usize>::new(), 0);
    let tenants: Vec<Name> = ["a", "b", "c", "quiet"].map(name).into();
    for step in 0..8_000u64 {
        for places in inside.values_mut() {
            places.retain(|(until, _)| *until > step);
        }
        // `a` alone first; then `b` with ten times the calls, and `c` with a few.
        for (tenant, from, calls) in [("a", 0, 20), ("b", 2_000, 100), ("c", 2_000, 5)] {
            for _ in 0..if step >= from { calls } else { 0 } {
                if let Ok(place) = bulkhead.try_enter_for(&name(tenant)) {
                    let until = step + 50 + dice.below(100);
                    inside.entry(name(tenant)).or_default().push((until, place));
                }
            }
        }
        if step.is_multiple_of(200) {
            match bulkhead.try_enter_for(&name("quiet")) {
                Ok(place) => inside
                    .entry(name("quiet"))
                    .or_default()
                    .push((step + 100, place)),
                Err(_) => quiet_refused += 1,
            }
        }
        if step == 1_999 {
            assert_eq!(inside[&name("a")].len(), 48, "80 % when it is alone");
        }
        if step >= 4_000 {
            for tenant in &tenants {
                *held.entry(tenant.clone()).or_default() += inside.get(tenant).map_or(0, Vec::len);
            }
        }
    }
    assert_eq!(quiet_refused, 0);
    let mean = |tenant: &str| held[&name(tenant)] as f64 / 4_000.0;
    // 4 of 13 parts each: 18.5 of 60, give or take what one place more or less free makes.
    for tenant in ["a", "b", "c"] {
        let mean = mean(tenant);
        assert!((15.0..=21.0).contains(&mean), "{tenant} held {mean}");
    }
}

#[test]
fn a_storm_that_lowers_the_limit_does_not_keep_the_others_out() {
    let (bulkhead, _clock) = adaptive(Aimd::new(4, 100));
    let bulkhead = bulkhead.tenant_share(0.5).unwrap();
    for _ in 0..50 {
        for mut place in fill(&bulkhead, &name("storm")) {
            place.throttled();
        }
    }
    assert_eq!(bulkhead.limit(), 4);
    let storm = fill(&bulkhead, &name("storm"));
    assert_eq!(storm.len(), 2);
    assert!(bulkhead.try_enter_for(&name("other")).is_ok());
}

#[test]
fn only_tenants_with_calls_inside_are_remembered() {
    let bulkhead = Bulkhead::new("primary", 8)
        .unwrap()
        .tenant_share(0.9)
        .unwrap();
    for n in 0..10_000 {
        let place = bulkhead.try_enter_for(&name(&format!("tenant-{n}")));
        assert!(place.is_ok());
        assert_eq!(bulkhead.tenants(), 1);
    }
    let most: Vec<_> = (0..10_000)
        .map(|n| bulkhead.try_enter_for(&name(&format!("tenant-{n}"))))
        .collect();
    assert_eq!(bulkhead.tenants(), 8);
    drop(most);
    assert_eq!((bulkhead.tenants(), bulkhead.in_flight()), (0, 0));
}

#[test]
fn threads_never_hold_more_than_the_limit_and_leave_nothing_behind() {
    for share in [None, Some(0.7)] {
        let (bulkhead, _clock) = adaptive(Aimd::new(2, 6));
        let bulkhead = match share {
            Some(share) => bulkhead.tenant_share(share).unwrap(),
            None => bulkhead,
        };
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (bulkhead, inside, most) = (&bulkhead, &inside, &most);
                scope.spawn(move || {
                    let mut dice = Dice(thread);
                    let tenant = name(&format!("t{}", thread % 3));
                    for _ in 0..5_000 {
                        let Ok(mut place) = bulkhead.try_enter_for(&tenant) else {
                            std::thread::yield_now();
                            continue;
                        };
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        match dice.below(8) {
                            0 => place.throttled(),
                            1 => {}
                            _ => place.succeeded(),
                        }
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 6, "{most:?} with {share:?}");
        assert!((2..=6).contains(&bulkhead.limit()));
        assert_eq!((bulkhead.in_flight(), bulkhead.tenants()), (0, 0));
    }
}
