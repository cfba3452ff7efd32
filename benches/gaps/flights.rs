//! One load for many callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::block_on;
use crate::found::{Found, now};
use crate::loaders::{Loader, Polled, load};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn a_waiter_is_polled_at_most_three_times_in_half_a_second(found: &mut Found) {
    for loader in Loader::all() {
        let (begun, polls) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        block_on(async {
            let leader = tokio::spawn((loader.ask)(load(millis(500), &begun)));
            sleep(millis(5)).await;
            let waiter = Polled {
                future: Box::pin((loader.ask)(load(millis(500), &begun))),
                polls: Arc::clone(&polls),
            };
            assert_eq!(waiter.await, Some(7));
            assert_eq!(leader.await.unwrap(), Some(7));
        });
        assert_eq!(begun.load(Ordering::Relaxed), 1, "it waited");
        let polls = polls.load(Ordering::Relaxed);
        found.note(loader.name, format!("{polls} polls"));
        if loader.is_ours() {
            assert!(polls <= 3, "{polls}");
        }
    }
}

/// A load of 200 ms, of which the first caller leaves after 170 ms.
pub(crate) fn a_leader_who_leaves_costs_no_second_call(found: &mut Found) {
    for loader in Loader::all() {
        let begun = Arc::default();
        let start = now();
        let waited = block_on(async {
            let leader = tokio::spawn((loader.ask)(load(millis(200), &begun)));
            sleep(millis(20)).await;
            let waiter = tokio::spawn((loader.ask)(load(millis(200), &begun)));
            sleep(millis(150)).await;
            leader.abort();
            waiter.await.unwrap()
        });
        let (calls, took) = (begun.load(Ordering::Relaxed), start.elapsed());
        let words = match waited {
            Some(_) => format!("answered after {} ms, with", took.as_millis()),
            None => "an error for who waited, after".to_owned(),
        };
        let plural = if calls == 1 { "" } else { "s" };
        found.note(loader.name, format!("{words} {calls} call{plural}"));
        if loader.is_ours() {
            assert_eq!((waited, calls), (Some(7), 1));
        }
    }
}

/// One after the other, each waits for 20 ms; the load takes 200 ms.
pub(crate) fn twenty_callers_with_less_patience_than_the_load_takes_fill_the_cache_with_one_call(
    found: &mut Found,
) {
    for loader in Loader::all() {
        let begun = Arc::default();
        block_on(async {
            for _ in 0..20 {
                let _ = timeout(millis(20), (loader.ask)(load(millis(200), &begun))).await;
            }
            sleep(millis(250)).await;
        });
        let (calls, kept) = (begun.load(Ordering::Relaxed), (loader.kept)());
        let words = match kept {
            Some(true) => "filled",
            Some(false) => "not filled",
            None => "keeps nothing",
        };
        let plural = if calls == 1 { "" } else { "s" };
        found.note(loader.name, format!("{calls} call{plural}, {words}"));
        if loader.is_ours() {
            assert_eq!((calls, kept), (1, Some(true)));
        }
    }
}
