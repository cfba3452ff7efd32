//! The `openai` provider against an upstream in a process of its own.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "tests measure real time")]

mod common;

use std::time::Duration;

use common::{Server, Upstream, prompt, providers};
use serde_json::json;

const BREAKER: &str =
    "window = \"10s\", min_calls = 4, failure_rate = 0.5, open_for = \"1s\", probes = 1";
const ENV: [(&str, &str); 2] = [
    ("MOCK_KEY", "the-providers-own-key"),
    ("SPARK_CACHE_WHEN", "always"),
];

async fn server_with(upstreams: &[(&str, &Upstream)]) -> (Server, common::Client) {
    let config = format!(
        "{}\n[[ratelimit.policies]]\nname = \"requests\"\nquota = 6000\nper = \"1m\"\n",
        providers(upstreams, BREAKER)
    );
    let server = Server::with(&config, &ENV);
    let client = server.client().bearer(&server.key("acme").await);
    (server, client)
}

#[tokio::test]
async fn an_answer_comes_whole_and_streamed_and_is_cached() {
    let upstream = Upstream::start();
    let (_server, user) = server_with(&[("primary", &upstream)]).await;
    let first = user.post("/api/spark/generate", &prompt("hello")).await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(first.json()["provider"], "primary");
    let again = user.post("/api/spark/generate", &prompt("hello")).await;
    assert!(again.header("cache-status").starts_with("spark; hit"));
    assert_eq!(
        upstream.calls().await,
        1,
        "a hit does not reach the provider"
    );

    let mut body = prompt("hello");
    body["stream"] = true.into();
    let streamed = user.stream("/api/spark/generate", &body).await;
    assert!(!streamed.broken);
    let text: String = streamed
        .events()
        .iter()
        .filter_map(|e| e["delta"].as_str())
        .collect();
    assert_eq!(text, first.json()["output"].as_str().unwrap());
    assert!(streamed.frames.len() > 3, "word by word");
    assert_eq!(upstream.calls().await, 2);
}

#[tokio::test]
async fn nothing_of_the_clients_reaches_the_provider() {
    let upstream = Upstream::start();
    let (server, _) = server_with(&[("primary", &upstream)]).await;
    let key = server.key("acme").await;
    let user = server
        .client()
        .bearer(&key)
        .header("cookie", "session=secret")
        .header("x-spark-tenant", "other")
        .header("x-custom", "private")
        .header("x-forwarded-for", "192.0.2.7");
    assert_eq!(
        user.post("/api/spark/generate", &prompt("hello"))
            .await
            .status,
        200
    );
    let ask = json!({"model": "some-model", "messages": [{"role": "user", "content": "hello"}]});
    assert_eq!(user.post("/v1/chat/completions", &ask).await.status, 200);
    assert_eq!(upstream.calls().await, 2);

    let stats = upstream.stats().await;
    let headers = stats["last_headers"].as_object().unwrap();
    assert_eq!(headers["authorization"], "Bearer the-providers-own-key");
    for name in [
        "cookie",
        "x-spark-tenant",
        "x-custom",
        "x-forwarded-for",
        "x-api-key",
    ] {
        assert!(!headers.contains_key(name), "{name} reached the provider");
    }
    assert!(!stats.to_string().contains(&key));

    // The other way to send a key.
    let user = server.client().header("x-api-key", &key);
    assert_eq!(
        user.post("/api/spark/generate", &prompt("again"))
            .await
            .status,
        200
    );
    assert!(!upstream.stats().await.to_string().contains(&key));
}

#[tokio::test]
async fn the_second_provider_answers_when_the_first_fails() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let (_server, user) = server_with(&[("first", &first), ("second", &second)]).await;
    for mode in [
        json!({"mode": "status", "status": 401}),
        json!({"mode": "error500"}),
        json!({"mode": "rate_limited", "retry_after": 1}),
        json!({"mode": "stall_head"}),
    ] {
        first.mode(mode.clone()).await;
        let answer = user
            .post("/api/spark/generate", &prompt(&mode.to_string()))
            .await;
        assert_eq!(answer.status, 200, "{mode}: {}", answer.text());
        assert_eq!(answer.json()["provider"], "second", "{mode}");
    }
    // Only the named provider, where one is named.
    first.mode(json!({"mode": "error500"})).await;
    let mut body = prompt("only the first");
    body["provider"] = "first".into();
    let calls = second.calls().await;
    let answer = user.post("/api/spark/generate", &body).await;
    assert!(answer.status.is_server_error(), "{}", answer.text());
    assert_eq!(second.calls().await, calls);
}

#[tokio::test]
async fn the_breaker_opens_and_recovers() {
    let upstream = Upstream::start();
    let (server, user) = server_with(&[("primary", &upstream)]).await;
    let master = server.client().bearer(&server.master);
    let state = async || {
        let breakers = master.get("/api/spark/breakers").await.json();
        breakers["breakers"][0]["state"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    upstream.mode(json!({"mode": "error500"})).await;
    for n in 0..4 {
        let answer = user
            .post("/api/spark/generate", &prompt(&format!("fails {n}")))
            .await;
        assert!(answer.status.is_server_error(), "{}", answer.text());
    }
    assert_eq!(state().await, "open");
    let calls = upstream.calls().await;
    let refused = user
        .post("/api/spark/generate", &prompt("while open"))
        .await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["code"], "breaker_open");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!(wait >= 1);
    assert_eq!(upstream.calls().await, calls, "an open breaker asks nobody");

    // Readiness stays, for the cache still serves; the health says what is wrong.
    assert_eq!(server.client().get("/readyz").await.status, 200);

    upstream.mode(json!({"mode": "ok"})).await;
    tokio::time::sleep(Duration::from_secs(wait)).await;
    let recovered = async {
        loop {
            let answer = user.post("/api/spark/generate", &prompt("recovers")).await;
            if answer.status == 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), recovered)
        .await
        .expect("it recovers");
    assert_eq!(state().await, "closed");
}

#[tokio::test]
async fn a_cut_stream_is_an_error_and_is_never_cached() {
    let upstream = Upstream::start();
    let (_server, user) = server_with(&[("primary", &upstream)]).await;
    for mode in ["cut", "cut_clean"] {
        upstream.mode(json!({ "mode": mode })).await;
        let mut body = prompt(mode);
        body["stream"] = true.into();
        let cut = user.stream("/api/spark/generate", &body).await;
        assert_eq!(cut.status, 200, "the head was out before");
        assert!(
            cut.broken,
            "{mode}: the body must not look complete: {}",
            cut.text()
        );
        let last = cut.events().pop().unwrap();
        assert_eq!(
            last["error"]["code"],
            "provider_cut_off",
            "{mode}: {}",
            cut.text()
        );

        upstream.mode(json!({ "mode": "ok" })).await;
        let whole = user.stream("/api/spark/generate", &body).await;
        assert!(
            !whole.headers["cache-status"]
                .to_str()
                .unwrap()
                .contains("hit"),
            "{mode}"
        );
        assert!(!whole.broken && whole.text().ends_with("data: [DONE]\n\n"));
    }
}

#[tokio::test]
async fn answers_that_break_off_open_the_breaker() {
    for (mode, streams) in [
        ("cut_clean", true),
        ("error_in_stream", true),
        ("error_in_stream", false),
    ] {
        let upstream = Upstream::start();
        let (server, user) = server_with(&[("primary", &upstream)]).await;
        upstream.mode(json!({ "mode": mode })).await;
        for n in 0..4 {
            let mut body = prompt(&format!("breaks off {n}"));
            body["stream"] = streams.into();
            user.stream("/api/spark/generate", &body).await;
        }
        let master = server.client().bearer(&server.master);
        let breakers = master.get("/api/spark/breakers").await.json();
        assert_eq!(
            breakers["breakers"][0]["state"], "open",
            "{mode}: {breakers}"
        );
    }
}

#[tokio::test]
async fn what_a_provider_did_wrong_is_tracked_and_told_to_the_webhook() {
    let (upstream, sink) = (Upstream::start(), Upstream::start());
    let url = sink.base_url().replace("/v1", "/v1/chat/completions");
    let config = format!(
        "[errors]\nwebhook = \"{url}\"\n{}",
        providers(&[("primary", &upstream)], BREAKER)
    );
    let server = Server::with(&config, &ENV);
    let user = server.client().bearer(&server.key("acme").await);
    upstream.mode(json!({"mode": "error500"})).await;
    let refused = user
        .post("/api/spark/generate", &prompt("a private prompt"))
        .await;
    assert_eq!(refused.status, 502, "{}", refused.text());

    let errors = server
        .client()
        .bearer(&server.master)
        .get("/api/spark/errors")
        .await;
    assert_eq!(
        errors.json()["recent"][0]["kind"],
        "provider",
        "{}",
        errors.text()
    );
    assert!(!errors.text().contains("a private prompt"));
    let posted = async {
        while sink.calls().await == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), posted)
        .await
        .expect("the webhook is called");
    let body = sink.stats().await["last_body"].to_string();
    assert!(
        body.contains("provider_failed") && !body.contains("a private prompt"),
        "{body}"
    );
}

#[tokio::test]
async fn a_key_of_ours_that_is_refused_is_no_fault_of_the_client() {
    let upstream = Upstream::start();
    let (server, user) = server_with(&[("primary", &upstream)]).await;
    upstream
        .mode(json!({"mode": "status", "status": 401}))
        .await;
    let refused = user.post("/api/spark/generate", &prompt("hello")).await;
    assert_eq!(refused.status, 502, "{}", refused.text());
    assert_eq!(refused.json()["code"], "provider_credential");
    let master = server.client().bearer(&server.master);
    let errors = master.get("/api/spark/errors").await.json();
    assert_eq!(errors["recent"][0]["kind"], "provider", "{errors}");
}

#[tokio::test]
async fn a_base_url_that_leads_nowhere_is_no_fault_of_the_client() {
    let upstream = Upstream::start();
    let config = providers(&[("primary", &upstream)], BREAKER).replace("/v1\"", "/nowhere\"");
    let server = Server::with(&config, &ENV);
    let user = server.client().bearer(&server.key("acme").await);
    let refused = user.post("/api/spark/generate", &prompt("hello")).await;
    assert_eq!(refused.status, 502, "{}", refused.text());
    assert_eq!(refused.json()["code"], "provider_failed");
    let master = server.client().bearer(&server.master);
    let errors = master.get("/api/spark/errors").await.json();
    assert_eq!(errors["recent"][0]["kind"], "provider", "{errors}");
}

#[tokio::test]
async fn a_stream_that_is_left_is_booked_all_the_same() {
    let upstream = Upstream::start();
    let (_server, user) = server_with(&[("primary", &upstream)]).await;
    upstream.mode(json!({"mode": "ok", "chunk_ms": 100})).await;
    let body = json!({
        "model": "some-model", "stream": true, "stream_options": null,
        "messages": [{"role": "user", "content": "hello"}],
    });
    let client = user.clone().header("content-type", "application/json");
    let mut left = client
        .open(http::Method::POST, "/v1/chat/completions", body.to_string())
        .await
        .into_body();
    for _ in 0..2 {
        http_body_util::BodyExt::frame(&mut left)
            .await
            .unwrap()
            .unwrap();
    }
    drop(left);
    let booked = async {
        loop {
            let usage = user.get("/api/spark/usage").await.json();
            if usage["tenants"]["acme"]["output_tokens"]
                .as_u64()
                .unwrap_or(0)
                > 0
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), booked)
        .await
        .expect("tokens are booked");
}

#[tokio::test]
async fn the_metrics_know_the_tokens_of_a_stream_that_was_left() {
    let upstream = Upstream::start();
    let config = providers(&[("primary", &upstream)], BREAKER);
    let server = Server::with(&config, &[ENV[0], ("SPARK_CACHE_WHEN", "never")]);
    let user = server.client().bearer(&server.key("acme").await);
    upstream.mode(json!({"mode": "ok", "chunk_ms": 100})).await;
    let mut body = prompt("hello");
    body["stream"] = true.into();
    let client = user.header("content-type", "application/json");
    let mut left = client
        .open(http::Method::POST, "/api/spark/generate", body.to_string())
        .await
        .into_body();
    for _ in 0..2 {
        http_body_util::BodyExt::frame(&mut left)
            .await
            .unwrap()
            .unwrap();
    }
    drop((left, client));
    let master = server.client().bearer(&server.master);
    let counted = async {
        while !master.get("/metrics").await.text().contains(
            "spark_ai_tokens_total{provider=\"primary\",model=\"some-model\",type=\"output\"}",
        ) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), counted)
        .await
        .expect("tokens are counted");
}

#[tokio::test]
async fn a_stalled_stream_is_cut_by_the_idle_limit() {
    let upstream = Upstream::start();
    let (_server, user) = server_with(&[("primary", &upstream)]).await;
    upstream.mode(json!({ "mode": "stall" })).await;
    let mut body = prompt("stalls");
    body["stream"] = true.into();
    let start = std::time::Instant::now();
    let cut = user.stream("/api/spark/generate", &body).await;
    assert!(cut.broken, "{}", cut.text());
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "the idle limit is 1 s"
    );
}

#[tokio::test]
async fn calls_that_hang_open_the_breaker_before_any_has_ended() {
    let upstream = Upstream::start();
    // A slow call is one of 300 ms, long before the limit of 1 s cuts it off.
    let breaker = "consecutive = 0, min_calls = 1000, slow_threshold = \"300ms\", \
                   in_flight_slow = 3, open_for = \"30s\"";
    let server = Server::with(&providers(&[("primary", &upstream)], breaker), &ENV);
    let user = server.client().bearer(&server.key("acme").await);
    upstream.mode(json!({ "mode": "stall_head" })).await;
    let hung: Vec<_> = (0..3)
        .map(|n| {
            let user = user.clone();
            let asked = prompt(&format!("hangs {n}"));
            tokio::spawn(async move { user.post("/api/spark/generate", &asked).await.status })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let refused = user.post("/api/spark/generate", &prompt("the next")).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    let master = server.client().bearer(&server.master);
    let breakers = master.get("/api/spark/breakers").await.json();
    let why = &breakers["breakers"][0]["last_trip"]["reason"];
    assert_eq!(why, "3 calls wait for longer than is slow", "{breakers}");
    for hung in hung {
        assert!(hung.await.unwrap().is_server_error());
    }
}

#[tokio::test]
async fn an_operator_lets_a_breaker_only_watch() {
    let upstream = Upstream::start();
    let (server, user) = server_with(&[("primary", &upstream)]).await;
    let master = server.client().bearer(&server.master);
    let path = |action: &str| format!("/api/spark/breakers/primary/{action}");
    let watching = master.post(&path("metrics_only"), &json!({})).await.json();
    assert_eq!(watching["mode"], "metrics_only", "{watching}");
    upstream.mode(json!({ "mode": "error500" })).await;
    for n in 0..6 {
        let asked = prompt(&format!("fails {n}"));
        let failed = user.post("/api/spark/generate", &asked).await;
        assert_eq!(failed.status, 502, "{n}: {}", failed.text());
    }
    let breakers = master.get("/api/spark/breakers").await.json();
    let shown = &breakers["breakers"][0];
    assert_eq!(shown["state"], "closed", "{breakers}");
    assert!(shown["would_trip"]["reason"].is_string(), "{breakers}");

    let off = master.post(&path("disable"), &json!({})).await.json();
    assert_eq!(off["mode"], "disabled", "{off}");
    let unknown = master.post(&path("explode"), &json!({})).await;
    assert_eq!(unknown.status, 404, "{}", unknown.text());
}
