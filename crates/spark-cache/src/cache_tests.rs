use std::future::Future;
use std::pin::pin;
use std::sync::atomic::AtomicUsize;
use std::task::Poll;

use spark_core::testing::TestClock;

use super::*;
use crate::FetchError;

fn key(i: usize) -> CacheKey {
    CacheKey::builder(Scope::Master)
        .field("i", &i.to_be_bytes())
        .build()
}

#[test]
fn an_entry_lives_for_its_time() {
    let clock = TestClock::new();
    let minute = Duration::from_secs(60);
    let cache = Cache::builder()
        .clock(clock.clock())
        .ttl(minute)
        .build()
        .unwrap();
    cache.put(key(0), Answer::new("a"));
    clock.advance(minute - Duration::from_nanos(1));
    assert!(cache.get(&key(0)).is_some());
    clock.advance(Duration::from_nanos(1));
    assert!(cache.get(&key(0)).is_none());
    cache.put(key(0), Answer::new("b"));
    assert_eq!(cache.get(&key(0)).unwrap().frames(), ["b"]);

    clock.advance(Duration::from_secs(31));
    cache
        .reconfigure(&Tuning::new().ttl(Duration::from_secs(30)))
        .unwrap();
    assert!(cache.get(&key(0)).is_none(), "a shorter time holds at once");
    cache.reconfigure(&Tuning::new().ttl(2 * minute)).unwrap();
    assert!(cache.get(&key(0)).is_some());
    clock.advance(Duration::from_secs(29));
    assert!(
        cache.get(&key(0)).is_none(),
        "a longer one is for new entries"
    );
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses), (3, 3));
}

#[test]
fn bytes_are_bounded() {
    let cache = Cache::builder()
        .max_bytes(64 << 10)
        .max_entry_bytes(8 << 10)
        .build()
        .unwrap();
    for i in 0..500 {
        let stored = cache.put(key(i), Answer::new(vec![0; i * 20]));
        assert_eq!(stored, i * 20 + 360 <= 8 << 10, "{i}");
        assert!(cache.stats().bytes <= 64 << 10, "{:?}", cache.stats());
    }
    let stats = cache.stats();
    assert!(
        stats.entries > 0 && stats.evictions > 0 && stats.rejected > 0,
        "{stats:?}"
    );
}

#[test]
fn what_is_purged_is_gone() {
    let cache = Cache::builder().build().unwrap();
    let scope = |tenant: &str| Scope::Tenant(tenant.parse().unwrap());
    let of = |tenant: &str| CacheKey::builder(scope(tenant)).build();
    for tenant in ["a", "b", "c"] {
        cache.put(of(tenant), Answer::new("x"));
    }
    cache.purge_scope(&scope("a"));
    assert!(cache.get(&of("a")).is_none() && cache.get(&of("b")).is_some());
    cache.invalidate(&of("b"));
    assert!(cache.get(&of("b")).is_none() && cache.get(&of("c")).is_some());
    cache.purge_all();
    assert!(cache.get(&of("c")).is_none());
    assert_eq!((cache.stats().entries, cache.stats().bytes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn equal_questions_are_asked_once() {
    let cache = Cache::builder().build().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let asked: Vec<_> = (0..100)
        .map(|_| {
            let (cache, calls) = (cache.clone(), Arc::clone(&calls));
            tokio::spawn(async move {
                cache
                    .get_or_fetch(key(0), || async move {
                        calls.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        Ok(Answer::new("a"))
                    })
                    .await
            })
        })
        .collect();
    for answer in asked {
        assert_eq!(answer.await.unwrap().unwrap().frames(), ["a"]);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.collapsed, stats.entries), (1, 99, 1));
    assert_eq!((stats.flights, stats.waiters), (0, 0));
}

#[tokio::test]
async fn failures_reach_everyone_and_are_not_kept() {
    let cache = Cache::builder().build().unwrap();
    let failing = || async {
        tokio::task::yield_now().await;
        Err("no".into())
    };
    let both = tokio::join!(
        cache.get_or_fetch(key(0), failing),
        cache.get_or_fetch(key(0), failing)
    );
    assert!(matches!(
        both,
        (Err(FetchError::Failed(_)), Err(FetchError::Failed(_)))
    ));
    let panicking = || async {
        tokio::task::yield_now().await;
        panic!("on purpose")
    };
    let both = tokio::join!(
        cache.get_or_fetch(key(0), panicking),
        cache.get_or_fetch(key(0), panicking)
    );
    assert!(matches!(
        both,
        (Err(FetchError::Panicked), Err(FetchError::Panicked))
    ));
    let answer = cache
        .get_or_fetch(key(0), || async { Ok(Answer::new("a")) })
        .await
        .unwrap();
    assert_eq!(answer.frames(), ["a"]);
    assert_eq!((cache.stats().flights, cache.0.flights.len()), (0, 0));
}

#[tokio::test]
async fn an_answer_that_is_too_heavy_is_given_to_who_fetched_it() {
    for builder in [
        Cache::builder().max_entry_bytes(1_000),
        Cache::builder().max_inflight_bytes(1_000),
    ] {
        let cache = builder.build().unwrap();
        let calls = AtomicUsize::new(0);
        let heavy = || {
            calls.fetch_add(1, Ordering::SeqCst);
            async {
                tokio::task::yield_now().await;
                Ok(Answer::new(vec![7; 5_000]))
            }
        };
        let (first, second) = tokio::join!(
            cache.get_or_fetch(key(0), heavy),
            cache.get_or_fetch(key(0), heavy)
        );
        assert_eq!(first.unwrap().frames()[0].len(), 5_000);
        assert_eq!(second.unwrap().frames()[0].len(), 5_000);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        let stats = cache.stats();
        assert_eq!(
            (stats.flights, stats.waiters, stats.inflight_bytes),
            (0, 0, 0)
        );
    }
}

#[tokio::test]
async fn who_waited_for_a_fetch_that_was_dropped_fetches_alone() {
    let cache = Cache::builder().build().unwrap();
    let Joined::Leader(ticket, reader) = cache.join(key(0), true) else {
        panic!("the first leads");
    };
    let mut follower = pin!(cache.get_or_fetch(key(0), || async { Ok(Answer::new("its own")) }));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(follower.as_mut().poll(&mut cx).is_pending());
    drop((ticket, reader));
    assert_eq!(follower.await.unwrap().frames(), ["its own"]);
}

#[tokio::test]
async fn a_fetch_from_before_a_purge_is_not_kept() {
    let cache = Cache::builder().build().unwrap();
    let purged = cache.clone();
    let old = || async move {
        purged.invalidate(&key(0));
        Ok(Answer::new("old"))
    };
    assert_eq!(
        cache.get_or_fetch(key(0), old).await.unwrap().frames(),
        ["old"]
    );
    assert!(cache.get(&key(0)).is_none());
}

#[tokio::test(start_paused = true)]
async fn who_leaves_stops_nothing_unless_told_so() {
    for (abandon, kept) in [(Abandon::Finish, true), (Abandon::Cancel, false)] {
        let cache = Cache::builder().when_abandoned(abandon).build().unwrap();
        let slow = || async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(Answer::new("a"))
        };
        let wait = Duration::from_millis(10);
        assert!(
            tokio::time::timeout(wait, cache.get_or_fetch(key(0), slow))
                .await
                .is_err()
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(cache.get(&key(0)).is_some(), kept, "{abandon:?}");
        assert_eq!(
            (cache.stats().flights, cache.stats().inflight_bytes),
            (0, 0)
        );
    }
}

#[test]
fn without_a_runtime_a_fetch_is_an_error() {
    let cache = Cache::builder().build().unwrap();
    let mut fetch = pin!(cache.get_or_fetch(key(0), || async { Ok(Answer::new("a")) }));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(matches!(
        fetch.as_mut().poll(&mut cx),
        Poll::Ready(Err(FetchError::Aborted))
    ));
}
