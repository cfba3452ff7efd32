//! What is kept, for whom, and how it is given again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use spark_cache::{CacheResult, When};
use spark_core::{Context, Principal, Refusal, UsageReport};

const NOW: Duration = Duration::ZERO;

fn chat() -> Setup {
    setup(|_| async { Ok(json(CHAT)) })
}

#[tokio::test]
async fn a_hit_is_the_answer_again() {
    let setup = setup(|_| async {
        let mut response = events(stream(), NOW, Ending::Clean);
        for (name, value) in [
            ("x-request-id", "7"),
            ("ratelimit", "\"a\";r=1"),
            ("access-control-allow-origin", "*"),
            ("etag", "\"1\""),
        ] {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        Ok(response)
    });
    let first = setup.ask(question("acme", "hi")).await.unwrap();
    assert_eq!(cache_status(first.headers()), "spark; fwd=miss");
    assert_eq!(
        first.headers()["x-request-id"],
        "7",
        "who asked has everything"
    );
    assert!(!first.headers().contains_key("age"));
    assert_eq!(first.extensions().get(), Some(&CacheResult::Miss));
    assert_eq!(
        first.into_body().collect().await.unwrap().to_bytes(),
        STREAM.concat()
    );

    setup.clock.advance(Duration::from_secs(100));
    let mut again = setup.ask(question("acme", "hi")).await.unwrap();
    assert_eq!(cache_status(again.headers()), "spark; hit; ttl=500");
    assert_eq!(again.headers()["age"], "100");
    assert_eq!(again.headers()["content-type"], "text/event-stream");
    assert_eq!(again.headers()["etag"], "\"1\"");
    assert_eq!(again.headers().len(), 4);
    assert_eq!(again.extensions().get(), Some(&CacheResult::Hit));
    assert_eq!(
        again.body().size_hint().exact(),
        Some(STREAM.concat().len() as u64)
    );
    for frame in STREAM {
        let next = again
            .body_mut()
            .frame()
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap();
        assert_eq!(next, frame, "frame by frame");
    }
    assert!(again.body().is_end_stream() && again.body_mut().frame().await.is_none());
    assert_eq!(setup.calls(), 1);

    setup.clock.advance(Duration::from_secs(500));
    assert_eq!(
        setup.get(question("acme", "hi")).await.1,
        "spark; fwd=stale"
    );
    assert_eq!(setup.calls(), 2);
}

#[tokio::test]
async fn a_stream_that_is_cut_anywhere_is_never_kept() {
    let whole = STREAM.concat();
    for ending in [Ending::Clean, Ending::Error] {
        for at in 0..=whole.len() {
            let part = Bytes::from(whole.clone()).slice(..at);
            let setup = setup(move |_| {
                let part = part.clone();
                async move {
                    let frames = part.chunks(40).map(Bytes::copy_from_slice).collect();
                    Ok(events(frames, NOW, ending))
                }
            });
            let response = setup.ask(question("acme", "hi")).await.unwrap();
            let read = response.into_body().collect().await;
            assert_eq!(read.is_ok(), ending == Ending::Clean);
            let kept = setup.cache.stats().entries;
            let complete = ending == Ending::Clean && at == whole.len();
            assert_eq!(kept, u64::from(complete), "{at} of {}", whole.len());
        }
    }
}

#[tokio::test]
async fn a_json_answer_that_is_cut_anywhere_is_never_kept() {
    for at in 0..CHAT.len() {
        let setup = setup(move |_| async move { Ok(json(&CHAT[..at])) });
        setup.get(question("acme", "hi")).await;
        assert_eq!(setup.cache.stats().entries, 0, "{at}");
    }
}

#[tokio::test]
async fn an_answer_shorter_than_it_said_is_not_kept() {
    let setup = setup(|_| async {
        let mut response = events(stream(), NOW, Ending::Clean);
        let longer = STREAM.concat().len() + 1;
        response
            .headers_mut()
            .insert("content-length", longer.into());
        Ok(response)
    });
    setup.get(question("acme", "hi")).await;
    assert_eq!(setup.cache.stats().entries, 0);
    assert_eq!(setup.cache.stats().rejected, 1);
}

#[tokio::test]
async fn an_answer_of_known_length_is_kept_before_its_last_byte_is_read() {
    let setup = chat();
    let mut response = setup.ask(question("acme", "hi")).await.unwrap();
    assert_eq!(response.body().size_hint().exact(), Some(CHAT.len() as u64));
    response.body_mut().frame().await.unwrap().unwrap();
    assert!(response.body().is_end_stream());
    assert!(
        setup
            .get(question("acme", "hi"))
            .await
            .1
            .starts_with("spark; hit")
    );
}

#[tokio::test]
async fn no_failure_is_ever_kept() {
    for status in (100..=599).filter(|status| *status != 200) {
        let setup = setup(move |_| async move {
            let mut response = json(CHAT);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok(response)
        });
        for _ in 0..2 {
            assert_eq!(setup.get(question("acme", "hi")).await.0, status);
        }
        assert_eq!(
            (setup.calls(), setup.cache.stats().entries),
            (2, 0),
            "{status}"
        );
    }
}

#[tokio::test]
async fn what_is_not_fit_to_be_given_again_is_not_kept() {
    let refusal = || {
        let problem = spark_core::Problem::new(StatusCode::OK, "sanitize", "redacted");
        *problem
            .into_response::<String>(spark_core::Shape::PROBLEM)
            .extensions()
            .get::<Refusal>()
            .unwrap()
    };
    type Make = fn(Response<ResBody>) -> Response<ResBody>;
    let makes: [(&str, Make); 6] = [
        ("set-cookie", |mut r| {
            r.headers_mut().insert("set-cookie", "a=b".parse().unwrap());
            r
        }),
        ("no-store", |mut r| {
            r.headers_mut()
                .insert("cache-control", "no-store".parse().unwrap());
            r
        }),
        ("length", |r| {
            r.map(|_| boxed(Full::from(CHAT.replace("stop", "length"))))
        }),
        ("vary", |mut r| {
            r.headers_mut().insert("vary", "cookie".parse().unwrap());
            r
        }),
        ("html", |mut r| {
            r.headers_mut()
                .insert("content-type", "text/html".parse().unwrap());
            r
        }),
        ("trailers", |r| {
            let body = Full::from(CHAT).with_trailers(async { Some(Ok(http::HeaderMap::new())) });
            r.map(|_| boxed(body))
        }),
    ];
    for (name, make) in makes {
        let setup = setup(move |_| async move { Ok(make(json(CHAT))) });
        let response = setup.ask(question("acme", "hi")).await.unwrap();
        let whole = response.into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().is_some(), name == "trailers");
        setup.get(question("acme", "hi")).await;
        assert_eq!(
            (setup.calls(), setup.cache.stats().entries),
            (2, 0),
            "{name}"
        );
    }
    let refusal = refusal();
    let setup = setup(move |_| async move {
        let mut response = json(CHAT);
        response.extensions_mut().insert(refusal);
        Ok(response)
    });
    setup.get(question("acme", "hi")).await;
    setup.get(question("acme", "hi")).await;
    assert_eq!((setup.calls(), setup.cache.stats().entries), (2, 0));
}

#[tokio::test]
async fn two_tenants_never_share() {
    let setup = setup(|call| async move { Ok(json(CHAT.replace("hi", &call.to_string()))) });
    let ask = async |tenant: &str, text: &str| setup.get(question(tenant, text)).await.2;
    let mut seen = std::collections::HashMap::new();
    for round in 0..3 {
        for tenant in ["a", "b", "ab", "master", "public"] {
            for text in ["a", "b", "c"] {
                let answer = ask(tenant, text).await;
                let first = seen.entry((tenant, text)).or_insert_with(|| answer.clone());
                assert_eq!(*first, answer, "{round}");
            }
        }
    }
    let answers: std::collections::HashSet<_> = seen.values().collect();
    assert_eq!((answers.len(), setup.calls()), (15, 15));
}

#[tokio::test]
async fn who_is_unknown_is_not_cached_for_unless_the_path_is_public() {
    let setup = chat();
    let ask = |path: &str, principal: Option<Principal>| {
        let mut request = question("acme", "hi");
        *request.uri_mut() = path.parse().unwrap();
        let context = Context::new(setup.clock.clock().now());
        let context = match principal {
            Some(principal) => context.with_principal(principal),
            None => context,
        };
        request.extensions_mut().insert(context);
        setup.get(request)
    };
    let path = "/v1/chat/completions";
    for _ in 0..2 {
        let how = ask(path, Some(Principal::Anonymous)).await.1;
        assert_eq!(how, "spark; fwd=bypass; detail=anonymous");
        assert_eq!(
            ask(path, None).await.1,
            "spark; fwd=bypass; detail=no_principal"
        );
    }
    assert_eq!(ask("/demo", None).await.1, "spark; fwd=miss");
    assert!(
        ask("/demo", Some(Principal::Anonymous))
            .await
            .1
            .starts_with("spark; hit")
    );
    assert_eq!(
        ask("/demo", Some(Principal::Master)).await.1,
        "spark; fwd=miss"
    );
}

#[tokio::test]
async fn the_client_may_ask_for_something_fresher() {
    let setup = setup(|call| async move { Ok(json(CHAT.replace("hi", &call.to_string()))) });
    let ask = |directive: &str| {
        let mut request = question("acme", "hi");
        request
            .headers_mut()
            .insert("cache-control", directive.parse().unwrap());
        setup.get(request)
    };
    let (status, how, body) = ask("only-if-cached").await;
    assert_eq!(
        (status, how.as_str()),
        (StatusCode::GATEWAY_TIMEOUT, "spark; detail=only_if_cached")
    );
    assert!(body.contains("only_if_cached"));
    assert_eq!(setup.calls(), 0);
    assert_eq!(
        ask("no-store").await.1,
        "spark; fwd=bypass; detail=no_store"
    );
    assert_eq!(ask("max-age=60").await.1, "spark; fwd=miss");
    assert!(ask("only-if-cached").await.1.starts_with("spark; hit"));
    setup.clock.advance(Duration::from_secs(61));
    assert!(ask("max-age=61").await.1.starts_with("spark; hit"));
    assert_eq!(
        ask("max-age=60, only-if-cached").await.0,
        StatusCode::GATEWAY_TIMEOUT
    );
    assert_eq!(ask("min-fresh=540").await.1, "spark; fwd=request");
    assert_eq!(ask("no-cache").await.1, "spark; fwd=request");
    let (_, how, body) = ask("max-age=9").await;
    assert!(
        how.starts_with("spark; hit") && body.contains("\"3\""),
        "{how} {body}: the refreshed one"
    );
}

#[tokio::test]
async fn it_is_switched_over_while_in_use() {
    let setup = chat();
    let sampled = || with_body("acme", r#"{"temperature":1}"#);
    assert_eq!(
        setup.get(sampled()).await.1,
        "spark; fwd=bypass; detail=not_deterministic"
    );
    setup.policy.set_when(When::Always);
    assert_eq!(setup.get(sampled()).await.1, "spark; fwd=miss");
    assert!(setup.get(sampled()).await.1.starts_with("spark; hit"));
    setup.policy.set_when(When::Never);
    assert_eq!(
        setup.get(sampled()).await.1,
        "spark; fwd=bypass; detail=never"
    );
}

#[tokio::test]
async fn what_does_not_concern_it_is_untouched() {
    let setup = setup(|_| async { Ok(Response::new(boxed(String::from("hello")))) });
    let mut get = question("acme", "hi");
    *get.method_mut() = Method::GET;
    let mut other = question("acme", "hi");
    *other.uri_mut() = "/v1/models".parse().unwrap();
    for request in [get, other] {
        let response = setup.ask(request).await.unwrap();
        assert!(response.headers().is_empty());
        assert!(response.extensions().get::<CacheResult>().is_none());
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "hello"
        );
    }
    let stats = setup.cache.stats();
    assert_eq!((stats.bypassed, stats.misses), (0, 0));
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused() {
    let setup = chat();
    let long = format!(r#"{{"temperature":0,"prompt":"{}"}}"#, "a".repeat(1 << 20));
    let (status, how, body) = setup.get(with_body("acme", &long)).await;
    assert_eq!((status, how.as_str()), (StatusCode::PAYLOAD_TOO_LARGE, ""));
    assert!(body.contains("body_too_large") && setup.calls() == 0);
}

#[tokio::test]
async fn ten_megabytes_are_delivered_and_not_kept() {
    const FRAME: usize = 64 << 10;
    for declared in [true, false] {
        let setup = setup(move |_| async move {
            let frames: Vec<_> = (0..160u8).map(|i| Bytes::from(vec![i; FRAME])).collect();
            let mut response = events(frames, NOW, Ending::Clean);
            if declared {
                response
                    .headers_mut()
                    .insert("content-length", (160 * FRAME).into());
            }
            Ok(response)
        });
        let mut body = setup.ask(question("acme", "hi")).await.unwrap().into_body();
        let (mut read, mut most) = (0, 0);
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.iter().all(|byte| usize::from(*byte) == read / FRAME));
            read += data.len();
            most = most.max(setup.cache.stats().inflight_bytes);
            tokio::task::yield_now().await;
        }
        assert_eq!(read, 160 * FRAME);
        assert!(most <= 1 << 20, "{most}");
        let stats = setup.cache.stats();
        assert_eq!((stats.entries, stats.rejected), (0, 1));
        drop(body);
        tokio::task::yield_now().await;
        assert_eq!(setup.cache.stats().inflight_bytes, 0);
        let again = setup.ask(question("acme", "hi")).await.unwrap();
        assert_eq!(
            cache_status(again.headers()),
            "spark; fwd=miss; detail=hit_for_miss"
        );
    }
}

#[tokio::test]
async fn many_answers_stay_within_the_bound() {
    let setup = setup_with(
        |builder| builder.max_bytes(100_000).max_entry_bytes(10_000),
        |call| async move { Ok(json(CHAT.replace("hi", &"a".repeat(call * 40)))) },
    );
    for i in 0..300 {
        setup.get(question("acme", &i.to_string())).await;
        setup.cache.run_pending();
        assert!(setup.cache.stats().bytes <= 100_000);
    }
    let stats = setup.cache.stats();
    assert!(
        stats.entries > 5 && stats.evictions > 0 && stats.rejected > 0,
        "{stats:?}"
    );
}

#[tokio::test]
async fn usage_belongs_to_who_caused_it() {
    let usages = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let setup = chat();
    let inner = {
        let policy = setup.policy.clone();
        let handler =
            tower::service_fn(move |request: Request<spark_core::RequestBody<ReqBody>>| {
                let usage = Context::of(request.extensions()).unwrap().usage().clone();
                assert!(
                    request.body().as_whole().is_some(),
                    "the body is handed on whole"
                );
                async move {
                    tokio::task::yield_now().await;
                    usage.record(UsageReport::new("demo", "m").with_tokens(3, 4));
                    Ok::<_, spark_core::BoxError>(json(CHAT))
                }
            });
        tower::Layer::layer(
            &spark_cache::CacheLayer::new(setup.cache.clone(), policy),
            handler,
        )
    };
    let ask = async || {
        let request = question("acme", "hi");
        let usage = Context::of(request.extensions()).unwrap().usage().clone();
        usages.lock().unwrap().push(usage);
        let response = tower::ServiceExt::oneshot(inner.clone(), request)
            .await
            .unwrap();
        response.into_body().collect().await.unwrap();
    };
    tokio::join!(ask(), ask());
    ask().await;
    let used: Vec<_> = usages
        .lock()
        .unwrap()
        .iter()
        .map(|usage| usage.get().is_some())
        .collect();
    assert_eq!(
        used,
        [true, false, false],
        "the flight's, a reader's, a hit's"
    );
}
