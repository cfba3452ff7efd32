//! Used-up credit, bad models, bulkheads, limits on the head, and the last resort.
#![allow(missing_docs, reason = "a test")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests measure real time"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Answer, Client, Server, Upstream, prompt, providers};
use serde_json::{Value, json};

const BREAKER: &str = "min_calls = 4, open_for = \"500ms\", probes = 1";
const LIMITS: &str = "[[ratelimit.policies]]\nname = \"requests\"\nquota = 6000\nper = \"1m\"\n";

/// A server in front of `primary`, with more lines for it and for the sections after it.
async fn server(upstream: &Upstream, provider: &str, sections: &str) -> (Server, Client, Client) {
    let config = providers(&[("primary", upstream)], BREAKER) + provider + LIMITS + sections;
    let server = Server::with(&config, &[("MOCK_KEY", "the-providers-own-key")]);
    let user = server.client().bearer(&server.key("acme").await);
    let master = server.client().bearer(&server.master);
    (server, user, master)
}

async fn ask(user: &Client, text: &str) -> Answer {
    user.post("/api/spark/generate", &prompt(text)).await
}

async fn breaker(master: &Client, name: &str) -> Value {
    let shown = master.get("/api/spark/breakers").await.json();
    let mut all = shown["breakers"].as_array().unwrap().iter();
    all.find(|it| it["name"] == name).unwrap().clone()
}

async fn sample(master: &Client, series: &str) -> Option<f64> {
    let page = master.get("/metrics").await.text();
    let mut lines = page.lines().filter_map(|line| line.strip_prefix(series));
    lines.next().map(|value| value.trim().parse().unwrap())
}

#[tokio::test]
async fn used_up_credit_is_not_probed_until_an_operator_resets_the_breaker() {
    let upstream = Upstream::start();
    let (_server, user, master) = server(&upstream, "", "").await;
    upstream.mode(json!({ "mode": "used_up" })).await;
    let refused = ask(&user, "first").await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["code"], "provider_credit_used_up");

    let shown = breaker(&master, "primary").await;
    assert_eq!(shown["state"], "open", "{shown}");
    assert_eq!(shown["exhausted"], true, "{shown}");
    assert!(shown["until"].is_null(), "nobody knows until when: {shown}");
    // Longer than it stays open for any other reason.
    upstream.mode(json!({ "mode": "ok" })).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    let refused = ask(&user, "second").await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["code"], "breaker_open");
    assert_eq!(upstream.calls().await, 1);

    let health = master.get("/api/spark/health").await.text();
    assert!(health.contains("its credit is used up"), "{health}");
    let errors = master.get("/api/spark/errors").await.json();
    let told = errors["recent"].as_array().unwrap().iter();
    let told: Vec<_> = told.filter(|it| it["kind"] == "breaker").collect();
    assert_eq!(told.len(), 1, "{errors}");
    let message = &told[0]["message"];
    assert_eq!(message, "primary is open: its credit is used up");

    let path = "/api/spark/breakers/primary/reset";
    let reset = master.post(path, &json!({})).await.json();
    assert_eq!(reset["exhausted"], false, "{reset}");
    assert_eq!(ask(&user, "third").await.status, 200);
}

#[tokio::test]
async fn the_next_provider_answers_where_the_credit_of_the_first_is_used_up() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let config = providers(&[("first", &first), ("second", &second)], BREAKER);
    let server = Server::with(&config, &[("MOCK_KEY", "key")]);
    let user = server.client().bearer(&server.key("acme").await);
    let master = server.client().bearer(&server.master);
    first
        .mode(json!({ "mode": "used_up", "retry_after": 3600 }))
        .await;
    for n in 0..2 {
        let answer = ask(&user, &format!("asked {n}")).await;
        assert_eq!(answer.json()["provider"], "second", "{}", answer.text());
    }
    assert_eq!(first.calls().await, 1);
    let shown = breaker(&master, "first").await;
    assert_eq!(shown["exhausted"], true, "{shown}");
    let wait = shown["retry_after_seconds"].as_f64().unwrap();
    assert!((3_500.0..=4_400.0).contains(&wait), "as it said: {shown}");
}

#[tokio::test]
async fn used_up_credit_is_tried_again_after_the_time_that_was_configured() {
    let upstream = Upstream::start();
    let rules = "exhausted_for = \"300ms\", open_for = \"200ms\", probes = 1";
    let config = providers(&[("primary", &upstream)], rules);
    let server = Server::with(&config, &[("MOCK_KEY", "key")]);
    let user = server.client().bearer(&server.key("acme").await);
    upstream.mode(json!({ "mode": "used_up" })).await;
    let refused = ask(&user, "first").await;
    assert_eq!(refused.json()["code"], "provider_credit_used_up");
    assert_eq!(refused.header("retry-after"), "1");
    upstream.mode(json!({ "mode": "ok" })).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(ask(&user, "second").await.status, 200);
}

#[tokio::test]
async fn a_bad_model_leaves_the_others_of_its_provider_in_service() {
    let upstream = Upstream::start();
    let config = providers(&[("primary", &upstream)], BREAKER)
        .replace("[\"some-model\"]", "[\"good\", \"meta/bad\"]")
        .replace("500ms", "1m");
    let config = config + LIMITS + "[failover]\nattempts = 1\n";
    let server = Server::with(&config, &[("MOCK_KEY", "key")]);
    let user = server.client().bearer(&server.key("acme").await);
    let master = server.client().bearer(&server.master);
    let ask = async |model: &str, text: &str| {
        let mut asked = prompt(text);
        asked["model"] = model.into();
        user.post("/api/spark/generate", &asked).await
    };
    upstream
        .mode(json!({ "mode": "error500", "model": "meta/bad" }))
        .await;
    for n in 0..4 {
        assert_eq!(ask("meta/bad", &format!("fails {n}")).await.status, 502);
        assert_eq!(ask("good", &format!("answers {n}")).await.status, 200);
    }
    let refused = ask("meta/bad", "refused").await;
    assert_eq!(refused.json()["code"], "breaker_open", "{}", refused.text());
    assert_eq!(ask("good", "still").await.status, 200);
    for (name, state) in [
        ("primary", "closed"),
        ("primary/good", "closed"),
        ("primary/meta/bad", "open"),
    ] {
        let shown = breaker(&master, name).await;
        assert_eq!(shown["state"], state, "{shown}");
    }
    assert!(
        breaker(&master, "primary/meta/bad").await["until"].is_u64(),
        "an operator sees until when"
    );
    let health = master.get("/api/spark/health").await.text();
    assert!(health.contains("primary/meta/bad is open"), "{health}");

    // An operator's words are for the model alone.
    let act = |name: &str, action: &str| {
        let path = format!("/api/spark/breakers/{name}/{action}");
        let master = master.clone();
        async move { master.post(&path, &json!({})).await }
    };
    upstream.mode(json!({ "mode": "ok" })).await;
    let reset = act("primary%2Fmeta%2Fbad", "reset").await;
    assert_eq!(reset.json()["name"], "primary/meta/bad", "{}", reset.text());
    assert_eq!(ask("meta/bad", "again").await.status, 200);
    act("primary%2Fgood", "open").await;
    assert_eq!(ask("good", "taken out").await.status, 503);
    assert_eq!(ask("meta/bad", "left in").await.status, 200);
    assert_eq!(act("primary%2Fother", "open").await.status, 404);
}

#[tokio::test]
async fn a_reload_reaches_the_breakers_of_models() {
    let upstream = Upstream::start();
    let config = providers(&[("primary", &upstream)], BREAKER)
        .replace("[\"some-model\"]", "[\"good\", \"bad\"]")
        + LIMITS;
    let server = Server::with(&config, &[("MOCK_KEY", "key")]);
    let user = server.client().bearer(&server.key("acme").await);
    let master = server.client().bearer(&server.master);
    let quicker = config.replace("min_calls = 4", "min_calls = 4, consecutive = 1");
    std::fs::write(server.dir.join("spark.toml"), quicker).unwrap();
    let reloaded = master.post("/api/spark/reload", &json!({})).await.json();
    assert_eq!(reloaded["needs_restart"], json!([]), "{reloaded}");

    upstream.mode(json!({ "mode": "error500" })).await;
    let mut asked = prompt("fails");
    asked["model"] = "bad".into();
    user.post("/api/spark/generate", &asked).await;
    let shown = breaker(&master, "primary/bad").await;
    assert_eq!(shown["state"], "open", "{shown}");
}

#[tokio::test]
async fn an_adaptive_bulkhead_is_lowered_by_a_throttling_provider() {
    let upstream = Upstream::start();
    let places = "max_in_flight = 10\nmin_in_flight = 2\nfirst_byte_target = \"500ms\"\n";
    let (_server, user, master) = server(&upstream, places, "").await;
    assert_eq!(ask(&user, "well").await.status, 200);
    let limit = "spark_bulkhead_limit{bulkhead=\"primary\"}";
    assert_eq!(sample(&master, limit).await, Some(10.0));

    let throttles = json!({ "mode": "rate_limited", "retry_after": 60 });
    upstream.mode(throttles).await;
    assert_eq!(ask(&user, "throttled").await.status, 503);
    assert_eq!(sample(&master, limit).await, Some(7.0));
    let lowered = "spark_bulkhead_backoffs_total{bulkhead=\"primary\",cause=\"throttled\"}";
    assert_eq!(sample(&master, lowered).await, Some(1.0));
}

#[tokio::test]
async fn a_late_first_byte_lowers_an_adaptive_bulkhead() {
    let upstream = Upstream::start();
    let places = "max_in_flight = 10\nmin_in_flight = 2\nfirst_byte_target = \"100ms\"\n";
    let (_server, user, master) = server(&upstream, places, "").await;
    upstream
        .mode(json!({ "mode": "ok", "latency_ms": 300 }))
        .await;
    assert_eq!(ask(&user, "late").await.status, 200);
    let limit = "spark_bulkhead_limit{bulkhead=\"primary\"}";
    assert_eq!(sample(&master, limit).await, Some(7.0));
}

#[tokio::test]
async fn one_tenant_gets_its_share_of_a_provider_and_no_more() {
    let upstream = Upstream::start();
    let places = "max_in_flight = 4\ntenant_share = 0.5\n";
    let (server, acme, master) = server(&upstream, places, "").await;
    let other = server.client().bearer(&server.key("other").await);
    upstream.mode(json!({ "mode": "stall_head" })).await;
    let storm = |user: &Client, n: usize| {
        let user = user.clone();
        tokio::spawn(async move { ask(&user, &format!("storm {n}")).await })
    };
    let hung = [storm(&acme, 1), storm(&acme, 2)];
    let inside = async {
        while upstream.calls().await < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), inside)
        .await
        .expect("both are inside");
    let refused = ask(&acme, "beyond its share").await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["code"], "tenant_share_full");
    assert_eq!(refused.header("retry-after"), "1");

    upstream.mode(json!({ "mode": "ok" })).await;
    let answer = ask(&other, "another tenant").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let refusals = "spark_bulkhead_rejections_total{bulkhead=\"primary\",reason=\"tenant_share\"}";
    assert_eq!(sample(&master, refusals).await, Some(1.0));
    for hung in hung {
        assert_eq!(hung.await.unwrap().json()["code"], "upstream_timeout");
    }
}

#[tokio::test]
async fn the_head_of_an_answer_has_a_limit_of_its_own() {
    let upstream = Upstream::start();
    let config = providers(&[("primary", &upstream)], BREAKER)
        .replace(
            "connect = \"1s\"",
            "connect = \"200ms\", headers = \"300ms\"",
        )
        .replace("first_byte = \"1s\"", "first_byte = \"5s\"");
    let server = Server::with(&config, &[("MOCK_KEY", "key")]);
    let user = server.client().bearer(&server.key("acme").await);
    let master = server.client().bearer(&server.master);
    upstream.mode(json!({ "mode": "stall_head" })).await;
    let start = Instant::now();
    let refused = ask(&user, "no head").await;
    assert_eq!(refused.status, 504, "{}", refused.text());
    assert_eq!(refused.json()["code"], "upstream_timeout");
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "300 ms is the limit"
    );
    let late = "spark_breaker_timeouts_total{phase=\"headers\"}";
    assert_eq!(sample(&master, late).await, Some(1.0));
}

#[tokio::test]
async fn pings_are_no_first_byte() {
    let upstream = Upstream::start();
    let (_server, user, _) = server(&upstream, "", "").await;
    // The limit is 1 s.
    upstream
        .mode(json!({ "mode": "ok", "pings": 100, "chunk_ms": 100 }))
        .await;
    let mut asked = prompt("pings");
    asked["stream"] = true.into();
    let refused = user.post("/api/spark/generate", &asked).await;
    assert_eq!(refused.status, 504, "{}", refused.text());
    assert_eq!(refused.json()["code"], "upstream_timeout");

    upstream
        .mode(json!({ "mode": "ok", "pings": 3, "chunk_ms": 5 }))
        .await;
    let answer = user.stream("/api/spark/generate", &asked).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.text().ends_with("data: [DONE]\n\n"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn the_last_resort_waits_for_a_provider_that_comes_back_soon() {
    let upstream = Upstream::start();
    let failover = "[failover]\nattempts = 1\nwait_at_most = \"3s\"\nwaiting = 1\n";
    let (_server, user, master) = server(&upstream, "", failover).await;
    upstream.mode(json!({ "mode": "error500" })).await;
    for n in 0..4 {
        assert_eq!(ask(&user, &format!("fails {n}")).await.status, 502);
    }
    assert_eq!(upstream.calls().await, 4, "one attempt each");
    assert_eq!(breaker(&master, "primary").await["state"], "open");

    upstream.mode(json!({ "mode": "ok" })).await;
    let first = {
        let user = user.clone();
        tokio::spawn(async move { ask(&user, "waits").await })
    };
    let waits = "spark_failover_waits_total{result=\"waited\"}";
    let waiting = async {
        while sample(&master, waits).await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), waiting)
        .await
        .expect("it waits");
    // There is room for one.
    let second = ask(&user, "finds no room").await;
    assert_eq!(second.json()["code"], "breaker_open", "{}", second.text());
    let first = first.await.unwrap();
    assert_eq!(first.status, 200, "{}", first.text());
}

#[tokio::test]
async fn no_more_providers_are_asked_than_allowed() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let config = providers(&[("first", &first), ("second", &second)], BREAKER);
    let config = config + "[failover]\nmax_hops = 1\n";
    let server = Server::with(&config, &[("MOCK_KEY", "key")]);
    let user = server.client().bearer(&server.key("acme").await);
    first.mode(json!({ "mode": "status", "status": 529 })).await;
    assert_eq!(ask(&user, "fails").await.status, 502);
    assert_eq!(second.calls().await, 0);
}
