//! One upstream call for many callers, whoever comes and goes.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and tokio's paused clock is a test's own"
)]

mod common;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use http::{HeaderMap, Request, Response, StatusCode, request, response};
use http_body_util::BodyExt;
use spark_cache::{
    Cache, CacheKey, CacheLayer, Freshness, Lookup, Policy, Public, Route, Scope, Verdict,
};
use spark_core::testing::{Behaviour, Probe, TestBody};
use spark_core::{Problem, Refusal, RequestBody, Shape};
use tower::{Layer, ServiceExt, service_fn};

const BEAT: Duration = Duration::from_millis(10);

async fn all(
    setup: &Setup,
    n: usize,
) -> Vec<Result<(StatusCode, String, String), tokio::task::JoinError>> {
    let tasks: Vec<_> = (0..n)
        .map(|_| {
            let asked = setup.ask(question("acme", "hi"));
            tokio::spawn(async move {
                let response = asked.await.unwrap();
                let (status, how) = (response.status(), cache_status(response.headers()));
                let body = response.into_body().collect().await.unwrap().to_bytes();
                (status, how, String::from_utf8(body.to_vec()).unwrap())
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await);
    }
    answers
}

fn settled(setup: &Setup) {
    let stats = setup.cache.stats();
    assert_eq!(
        (stats.flights, stats.waiters, stats.inflight_bytes),
        (0, 0, 0),
        "{stats:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hundred_equal_requests_are_one_call() {
    let setup = setup(|_| async {
        tokio::time::sleep(5 * BEAT).await;
        Ok(events(stream(), BEAT, Ending::Clean))
    });
    let answers = all(&setup, 100).await;
    assert_eq!(setup.calls(), 1);
    let collapsed = answers
        .into_iter()
        .map(|answer| {
            let (status, how, body) = answer.unwrap();
            assert_eq!((status, body), (StatusCode::OK, STREAM.concat()));
            how
        })
        .filter(|how| how == "spark; fwd=miss; collapsed")
        .count();
    assert_eq!(collapsed, 99);
    assert!(
        setup
            .get(question("acme", "hi"))
            .await
            .1
            .starts_with("spark; hit")
    );
    settled(&setup);
    assert_eq!(setup.cache.stats().collapsed, 99);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_equal_requests_are_one_call_on_many_threads() {
    let setup = setup(|_| async {
        tokio::time::sleep(5 * BEAT).await;
        Ok(events(stream(), BEAT, Ending::Clean))
    });
    for answer in all(&setup, 100).await {
        assert_eq!(answer.unwrap().2, STREAM.concat());
    }
    assert_eq!(setup.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_leaves_costs_nobody_anything() {
    let setup = setup(|_| async {
        tokio::time::sleep(5 * BEAT).await;
        Ok(events(stream(), BEAT, Ending::Clean))
    });
    let leader = tokio::spawn(setup.ask(question("acme", "hi")));
    tokio::task::yield_now().await;
    let asked = setup.ask(question("acme", "hi"));
    let follower = tokio::spawn(async move {
        let response = asked.await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    });
    tokio::time::sleep(BEAT).await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    assert_eq!(follower.await.unwrap(), STREAM.concat());
    assert_eq!(setup.calls(), 1);
    assert!(
        setup
            .get(question("acme", "hi"))
            .await
            .1
            .starts_with("spark; hit")
    );
    settled(&setup);
}

#[tokio::test(start_paused = true)]
async fn twenty_short_deadlines_still_fill_the_cache() {
    let setup = setup(|_| async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        Ok(json(CHAT))
    });
    for _ in 0..20 {
        let asked = setup.ask(question("acme", "hi"));
        assert!(
            tokio::time::timeout(Duration::from_millis(400), asked)
                .await
                .is_err()
        );
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(setup.calls(), 1);
    assert_eq!(setup.get(question("acme", "hi")).await.2, CHAT);
    assert_eq!(setup.calls(), 1);
    settled(&setup);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_polled_when_there_is_something() {
    let setup = setup(|_| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(json(CHAT))
    });
    let leader = tokio::spawn(setup.ask(question("acme", "hi")));
    tokio::task::yield_now().await;
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    let mut asked = setup.ask(question("acme", "hi"));
    let follower = tokio::spawn(async move {
        std::future::poll_fn(|cx: &mut Context<'_>| {
            counted.fetch_add(1, Ordering::SeqCst);
            asked.as_mut().poll(cx)
        })
        .await
    });
    assert!(follower.await.unwrap().is_ok() && leader.await.unwrap().is_ok());
    assert!(polls.load(Ordering::SeqCst) <= 3, "{polls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_reaches_everyone_and_is_forgotten() {
    let setup = setup(|call| async move {
        tokio::time::sleep(BEAT).await;
        assert!(call > 0, "on purpose");
        Ok(json(CHAT))
    });
    let answers = all(&setup, 10).await;
    let panicked = answers
        .iter()
        .filter(|answer| answer.as_ref().is_err_and(|e| e.is_panic()));
    assert_eq!(
        panicked.count(),
        1,
        "it goes on in the request that began the flight"
    );
    let told = answers.iter().flatten().filter(|(status, how, body)| {
        *status == StatusCode::INTERNAL_SERVER_ERROR
            && how == "spark; fwd=miss; collapsed"
            && body.contains("upstream_panicked")
            && !body.contains("on purpose")
    });
    assert_eq!((told.count(), setup.calls()), (9, 1));
    assert_eq!(setup.get(question("acme", "hi")).await.1, "spark; fwd=miss");
    settled(&setup);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_call_itself_or_in_the_body_is_no_different() {
    let policy = setup(|_| async { Ok(json(CHAT)) }).policy;
    let cache = spark_cache::Cache::builder().build().unwrap();
    let probe = Probe::new();
    let service = spark_cache::CacheLayer::new(cache.clone(), policy).layer(probe.clone());
    probe.behave(Behaviour::Panic);
    let asked = tokio::spawn(service.clone().oneshot(question("acme", "hi")));
    assert!(asked.await.unwrap_err().is_panic());
    assert_eq!(cache.stats().flights, 0);

    let setup = setup_body(Ending::Panic);
    let response = setup.ask(question("acme", "hi")).await.unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    assert_eq!(error.to_string(), "the upstream service panicked");
    assert_eq!(setup.cache.stats().entries, 0);
    settled(&setup);
}

fn setup_body(ending: Ending) -> Setup {
    setup(move |_| async move { Ok(events(stream(), BEAT, ending)) })
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_once_to_each_and_never_kept() {
    let setup = setup(|_| async {
        tokio::time::sleep(BEAT).await;
        Err("connection refused to 10.0.0.7".into())
    });
    let mut failing = Vec::new();
    for _ in 0..5 {
        failing.push(tokio::spawn(setup.ask(question("acme", "hi"))));
        tokio::task::yield_now().await;
    }
    let (mut own, mut told) = (0, 0);
    for task in failing {
        match task.await.unwrap() {
            Err(error) => {
                assert_eq!(error.to_string(), "connection refused to 10.0.0.7");
                own += 1;
            }
            Ok(response) => {
                assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
                let refusal = response.extensions().get::<Refusal>().unwrap();
                assert_eq!((refusal.by, refusal.code), ("cache", "upstream_failed"));
                let body = response.into_body().collect().await.unwrap().to_bytes();
                assert!(!String::from_utf8_lossy(&body).contains("10.0.0.7"));
                told += 1;
            }
        }
    }
    assert_eq!((own, told, setup.calls()), (1, 4, 1));
    assert!(setup.ask(question("acme", "hi")).await.is_err());
    assert_eq!(setup.calls(), 2);
    settled(&setup);
}

#[tokio::test(start_paused = true)]
async fn a_failing_provider_is_not_asked_by_each_who_waited() {
    let setup = setup(|_| async {
        tokio::time::sleep(BEAT).await;
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "breaker", "breaker_open")
            .retry_after(Duration::from_secs(7));
        Ok(problem.into_response::<ResBody>(Shape::PROBLEM).map(boxed))
    });
    let tasks: Vec<_> = (0..10)
        .map(|_| tokio::spawn(setup.ask(question("acme", "hi"))))
        .collect();
    for task in tasks {
        let response = task.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "7");
        assert_eq!(
            response.extensions().get::<Refusal>().unwrap().code,
            "breaker_open"
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("breaker_open"));
    }
    assert_eq!(setup.calls(), 1);
    assert_eq!(setup.cache.stats().entries, 0);
    settled(&setup);
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_a_coding_says_so_to_each_who_waited() {
    let setup = setup(|_| async {
        tokio::time::sleep(BEAT).await;
        let mut response = json("\x1f\u{fffd} not plain");
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
            .headers_mut()
            .insert("content-encoding", "gzip".parse().unwrap());
        Ok(response)
    });
    let tasks: Vec<_> = (0..3)
        .map(|_| tokio::spawn(setup.ask(question("acme", "hi"))))
        .collect();
    for task in tasks {
        let response = task.await.unwrap().unwrap();
        assert_eq!(response.headers()["content-encoding"], "gzip");
    }
    assert_eq!(setup.calls(), 1);
    settled(&setup);
}

/// A policy of somebody who thought of nothing.
#[derive(Debug)]
struct Anything;

impl Policy for Anything {
    fn route(&self, _: &request::Parts, _: Option<&spark_core::Context>) -> Route {
        Route::Read
    }

    fn request(&self, _: &request::Parts, _: &Bytes, _: Option<&spark_core::Context>) -> Lookup {
        Lookup::Use {
            key: CacheKey::builder(Scope::Public(Public::anyone_may_read())).build(),
            freshness: Freshness::default(),
        }
    }

    fn response(&self, _: &response::Parts) -> Verdict {
        Verdict::Store { ttl: None }
    }

    fn complete(&self, _: &HeaderMap, _: &[u8]) -> Result<(), &'static str> {
        Ok(())
    }
}

#[tokio::test]
async fn whatever_a_policy_says_no_coding_and_no_part_is_kept() {
    for (status, header, value) in [
        (200, "content-encoding", "gzip"),
        (206, "content-range", "bytes 0-1/9"),
        (200, "content-range", "bytes 0-1/9"),
    ] {
        let cache = Cache::builder().build().unwrap();
        let service = CacheLayer::new(cache.clone(), Anything).layer(service_fn(
            move |_: Request<RequestBody<ReqBody>>| async move {
                let mut response = json("ab");
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                response
                    .headers_mut()
                    .insert(header, value.parse().unwrap());
                Ok::<_, spark_core::BoxError>(response)
            },
        ));
        for _ in 0..2 {
            let asked: Asked = Box::pin(service.clone().oneshot(question("acme", "hi")));
            let response = asked.await.unwrap();
            assert_eq!(response.headers()[header], value, "{status}");
            assert_eq!(
                response.into_body().collect().await.unwrap().to_bytes(),
                "ab"
            );
        }
        assert_eq!(cache.stats().entries, 0, "{header}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_what_may_not_be_kept_asks_side_by_side() {
    let setup = setup(|_| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut response = json(CHAT);
        response
            .headers_mut()
            .insert("cache-control", "no-store".parse().unwrap());
        Ok(response)
    });
    let clock = tokio::time::sleep(Duration::from_millis(2_100));
    let answers = tokio::select! {
        answers = all(&setup, 100) => answers,
        () = clock => panic!("they wait for each other"),
    };
    assert_eq!(setup.calls(), 100);
    assert!(
        answers
            .into_iter()
            .all(|answer| answer.unwrap().1 == "spark; fwd=miss")
    );

    let clock = tokio::time::sleep(Duration::from_millis(1_100));
    let answers = tokio::select! {
        answers = all(&setup, 100) => answers,
        () = clock => panic!("they wait for the first one again"),
    };
    let hfm = "spark; fwd=miss; detail=hit_for_miss";
    assert!(answers.into_iter().all(|answer| answer.unwrap().1 == hfm));
    setup.clock.advance(Duration::from_secs(6));
    assert_eq!(setup.get(question("acme", "hi")).await.1, "spark; fwd=miss");
    settled(&setup);
}

#[tokio::test(start_paused = true)]
async fn a_client_error_is_for_who_caused_it() {
    let setup = setup(|_| async {
        tokio::time::sleep(BEAT).await;
        Ok(Response::builder()
            .status(403)
            .body(boxed(String::from("no")))
            .unwrap())
    });
    let answers = all(&setup, 5).await;
    assert!(
        answers
            .into_iter()
            .all(|answer| answer.unwrap().0 == StatusCode::FORBIDDEN)
    );
    assert_eq!(setup.calls(), 5);
    settled(&setup);
}

#[tokio::test(start_paused = true)]
async fn the_first_frame_is_there_before_the_last_is_made() {
    let setup = setup(|_| async { Ok(events(stream(), Duration::from_secs(1), Ending::Clean)) });
    let start = tokio::time::Instant::now();
    let mut leader = setup.ask(question("acme", "hi")).await.unwrap().into_body();
    let first = leader.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(
        (first, start.elapsed().as_secs()),
        (Bytes::from(STREAM[0]), 1)
    );
    // One that comes later catches up, and is not held up by one that does not read.
    let mut late = setup.ask(question("acme", "hi")).await.unwrap().into_body();
    let first = late.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(
        (first, start.elapsed().as_secs()),
        (Bytes::from(STREAM[0]), 1)
    );
    assert_eq!(
        late.collect().await.unwrap().to_bytes(),
        STREAM[1..].concat()
    );
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(
        leader.collect().await.unwrap().to_bytes(),
        STREAM[1..].concat()
    );
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(setup.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn flights_and_waiters_are_bounded_and_the_rest_passes() {
    let slow = |_| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(json(CHAT))
    };
    let setup = setup_with(|builder| builder.max_flights(1).max_waiters(2), slow);
    let leader = tokio::spawn(setup.ask(question("acme", "hi")));
    tokio::task::yield_now().await;
    let other = setup.get(question("acme", "something else")).await;
    assert_eq!(
        (other.1.as_str(), other.2.as_str()),
        ("spark; fwd=bypass; detail=full", CHAT)
    );
    leader
        .await
        .unwrap()
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    setup.cache.purge_all();

    let answers = all(&setup, 10).await;
    let passed = answers.into_iter().filter(|answer| {
        answer
            .as_ref()
            .is_ok_and(|(_, how, _)| how == "spark; fwd=bypass; detail=full")
    });
    assert_eq!(passed.count(), 7);
    settled(&setup);
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_is_bounded_in_all() {
    const BOUND: u64 = 1_000;
    let setup = setup_with(
        |builder| builder.max_inflight_bytes(BOUND),
        |_| async { Ok(events(stream(), BEAT, Ending::Clean)) },
    );
    let tasks: Vec<_> = (0..20)
        .map(|i: u32| {
            let asked = setup.ask(question("acme", &i.to_string()));
            tokio::spawn(async move {
                tokio::time::sleep(i * BEAT / 2).await;
                let body = asked.await.unwrap().into_body();
                body.collect().await.unwrap().to_bytes()
            })
        })
        .collect();
    for _ in 0..200 {
        tokio::time::sleep(BEAT / 10).await;
        assert!(setup.cache.stats().inflight_bytes <= BOUND);
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), STREAM.concat());
    }
    let stats = setup.cache.stats();
    assert!((1..20).contains(&stats.entries), "{stats:?}");
    assert_eq!(stats.entries + stats.rejected, 20, "{stats:?}");
    settled(&setup);
}

#[tokio::test(start_paused = true)]
async fn who_waits_reserves_nothing() {
    let setup = setup(|_| async { Ok(json(CHAT)) });
    let handler = tower::service_fn(|_| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, spark_core::BoxError>(json(CHAT))
    });
    let layer = spark_cache::CacheLayer::new(setup.cache.clone(), setup.policy.clone());
    let service = layer.layer(tower::limit::ConcurrencyLimit::new(handler, 2));
    let ask = |text: &str| service.clone().oneshot(question("acme", text));
    let start = tokio::time::Instant::now();
    let first = ask("a");
    let second = ask("a");
    let other = async {
        tokio::time::sleep(BEAT).await;
        ask("b").await
    };
    let (first, second, other) = tokio::join!(first, second, other);
    assert!(first.is_ok() && second.is_ok() && other.is_ok());
    assert!(
        start.elapsed() < Duration::from_millis(1_100),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(setup.cache.stats().collapsed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_purge_on_the_way_keeps_nothing_and_disturbs_nobody() {
    let setup = setup(|_| async { Ok(events(stream(), BEAT, Ending::Clean)) });
    let response = setup.ask(question("acme", "hi")).await.unwrap();
    setup
        .cache
        .purge_scope(&spark_cache::Scope::Tenant("acme".parse().unwrap()));
    let second = setup.ask(question("acme", "hi")).await.unwrap();
    assert_eq!(
        setup.calls(),
        2,
        "after a purge nobody joins what began before it"
    );
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        STREAM.concat()
    );
    assert_eq!(
        second.into_body().collect().await.unwrap().to_bytes(),
        STREAM.concat()
    );
    assert_eq!(setup.cache.stats().entries, 1, "the second one's");
    settled(&setup);
}

#[tokio::test(start_paused = true)]
async fn callers_that_come_and_go_at_random_leave_nothing_behind() {
    let mut seed = 0x9e37_79b9_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    for _ in 0..200 {
        let ending = [Ending::Clean, Ending::Error, Ending::Panic][random(3) as usize];
        let setup = setup_body(ending);
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (asked, delay, patience) =
                    (setup.ask(question("acme", "hi")), random(60), random(80));
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(delay)).await;
                    let read = async {
                        let response = asked.await.unwrap();
                        response
                            .into_body()
                            .collect()
                            .await
                            .map(|body| body.to_bytes())
                    };
                    tokio::time::timeout(Duration::from_millis(patience), read).await
                })
            })
            .collect();
        for task in tasks {
            if let Ok(Ok(body)) = task.await.unwrap() {
                assert_eq!(body, STREAM.concat());
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        settled(&setup);
        let kept = setup.cache.stats().entries;
        assert_eq!(kept, u64::from(ending == Ending::Clean));
        if ending == Ending::Clean {
            assert_eq!(setup.calls(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nor_do_they_on_many_threads() {
    for round in 0..40u64 {
        let ending = [Ending::Clean, Ending::Error, Ending::Panic][(round % 3) as usize];
        let setup = setup(move |_| async move {
            Ok(events(stream(), Duration::from_micros(round * 20), ending))
        });
        let tasks: Vec<_> = (0..16u64)
            .map(|i| {
                let asked = setup.ask(question("acme", "hi"));
                tokio::spawn(async move {
                    let read = async {
                        let response = asked.await.unwrap();
                        response
                            .into_body()
                            .collect()
                            .await
                            .map(|body| body.to_bytes())
                    };
                    tokio::time::timeout(Duration::from_micros((i * 997) % 7_000), read).await
                })
            })
            .collect();
        for task in tasks {
            if let Ok(Ok(body)) = task.await.unwrap() {
                assert_eq!(body, STREAM.concat());
            }
        }
        let waited = async {
            while setup.cache.stats().flights > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waited)
            .await
            .unwrap();
        if ending == Ending::Clean {
            assert_eq!((setup.calls(), setup.cache.stats().entries), (1, 1));
        } else {
            assert_eq!(setup.cache.stats().entries, 0);
        }
    }
}

#[tokio::test]
async fn a_layer_around_itself_does_not_wait_for_itself() {
    let setup = setup(|_| async { Ok(json(CHAT)) });
    let layer = spark_cache::CacheLayer::new(setup.cache.clone(), setup.policy.clone());
    let probe = Probe::new();
    probe.behave(Behaviour::Body(TestBody::bytes(CHAT)));
    let nested = layer.layer(layer.layer(probe.clone()));
    let mut asked = pin!(nested.oneshot(question("acme", "hi")));
    let response = tokio::time::timeout(Duration::from_secs(5), asked.as_mut()).await;
    assert!(response.unwrap().is_ok());
    assert_eq!(probe.calls(), 1);
}
