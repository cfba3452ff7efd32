//! What a tenant may use beyond requests: tokens, and how much at once.
#![allow(missing_docs, reason = "a test")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests measure real time"
)]

mod common;

use std::time::Duration;

use common::{Client, Server, Upstream, prompt, providers};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

const GENERATE: &str = "/api/spark/generate";
const CHAT: &str = "/v1/chat/completions";
/// So many that nothing comes back while a test runs.
const DAILY: &str = "[ratelimit.tokens]\nquota = 10000\nper = \"1d\"\n";
const BREAKER: &str =
    "window = \"10s\", min_calls = 6, failure_rate = 0.5, open_for = \"60s\", probes = 1";

fn chat(model: &str, text: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": text }] })
}

/// Room for every request of a test.
fn requests() -> String {
    "[[ratelimit.policies]]\nname = \"requests\"\nquota = 6000\nper = \"1m\"\n".to_owned()
}

/// What is left, as a request tells that asks for nothing: its model is not there.
async fn left(user: &Client) -> u64 {
    let answer = user.post(CHAT, &chat("no-such-model", "hello")).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    answer
        .header("x-ratelimit-remaining-tokens")
        .parse()
        .unwrap_or_else(|_| panic!("{:?}", answer.headers))
}

/// Waits until nothing is reserved any more, as when a flight has ended: then what is left.
async fn left_when_more_than(user: &Client, least: u64) -> u64 {
    let settled = async {
        loop {
            let left = left(user).await;
            if left > least {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(10), settled);
    settled.await.expect("the reservation is settled")
}

fn used(usage: &Value) -> u64 {
    ["input_tokens", "output_tokens"]
        .iter()
        .map(|key| usage[key].as_u64().unwrap())
        .sum()
}

async fn with_mock(config: &str, when: &str) -> (Upstream, Server, Client) {
    let upstream = Upstream::start();
    let config = format!(
        "{}{}{config}",
        requests(),
        providers(&[("primary", &upstream)], BREAKER)
    );
    let env = [("MOCK_KEY", "key"), ("SPARK_CACHE_WHEN", when)];
    let server = Server::with(&config, &env);
    let user = server.client().bearer(&server.key("acme").await);
    (upstream, server, user)
}

async fn with_demo(config: &str, env: &[(&str, &str)]) -> (Server, Client) {
    let server = Server::with(&format!("{}{config}", requests()), env);
    let user = server.client().bearer(&server.key("acme").await);
    (server, user)
}

#[tokio::test]
async fn who_has_used_up_its_tokens_is_told_when_there_are_more() {
    let budget = "[ratelimit.tokens]\nquota = 600\nper = \"1m\"\nburst = 60\n";
    let (server, user) = with_demo(budget, &[("SPARK_CACHE_WHEN", "never")]).await;
    let ask = |n: u32| json!({ "prompt": format!("question {n}"), "max_tokens": 50 });

    let mut n = 0;
    let refused = loop {
        let answer = user.post(GENERATE, &ask(n)).await;
        if answer.status != 200 {
            break answer;
        }
        n += 1;
    };
    assert!((1..4).contains(&n), "{n} of some 27 tokens each");
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(
        refused.header("content-type"),
        "application/problem+json",
        "{}",
        refused.text()
    );
    let problem = refused.json();
    assert_eq!(problem["code"], "rate_limited");
    assert_eq!(problem["violated-policies"], json!(["tokens"]));
    assert!(
        refused
            .header("ratelimit-policy")
            .contains("\"tokens\";q=600;w=60;spark-unit=\"tokens\""),
        "{:?}",
        refused.headers
    );
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=6).contains(&wait), "{wait}");

    let mut body = chat("demo-1", "the same in the other shape");
    body["max_tokens"] = 50.into();
    let openai = user.post(CHAT, &body).await;
    assert_eq!(openai.status, 429, "{}", openai.text());
    assert_eq!(openai.json()["error"]["code"], "rate_limited");
    assert!(!openai.header("retry-after").is_empty());

    // Other tenants have their own; what takes no tokens goes on.
    let other = server.client().bearer(&server.key("other").await);
    assert_eq!(other.post(GENERATE, &ask(0)).await.status, 200);
    assert_eq!(user.get("/v1/models").await.status, 200);

    tokio::time::sleep(Duration::from_secs(wait)).await;
    let answer = user.post(GENERATE, &ask(n)).await;
    assert_eq!(
        answer.status,
        200,
        "who waits is admitted: {}",
        answer.text()
    );

    let page = server.client().bearer(&server.master).get("/metrics").await;
    let page = page.text();
    for line in [
        "spark_ratelimit_reservations_total{scope=\"tenant\",decision=\"denied\"}",
        "spark_ratelimit_violations_total{scope=\"tenant\",policy=\"tokens\"}",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
}

#[tokio::test]
async fn a_prompt_that_is_longer_than_the_budget_is_refused_and_a_long_answer_is_not() {
    let budget = "[ratelimit.tokens]\nquota = 100\nper = \"1d\"\n";
    let (_server, user) = with_demo(budget, &[]).await;
    let long = user.post(GENERATE, &prompt(&"word ".repeat(100))).await;
    assert_eq!(long.status, 429, "{}", long.text());
    assert_eq!(long.header("retry-after"), "", "it never fits");

    // A full bucket is all that can be reserved.
    let mut body = prompt("hello");
    body["max_tokens"] = 4_000_000_000_u64.into();
    let answer = user.post(GENERATE, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn what_was_reserved_too_much_is_given_back() {
    let (_server, user) = with_demo(DAILY, &[]).await;
    assert_eq!(left(&user).await, 10_000);
    let mut body = prompt("hello");
    body["max_tokens"] = 9_000.into();
    let answer = user.post(GENERATE, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let after = left(&user).await;
    assert_eq!(after, 10_000 - used(&answer.json()["usage"]));

    // Who reads the cache uses no tokens, and needs none.
    let again = user.post(GENERATE, &body).await;
    assert!(again.header("cache-status").starts_with("spark; hit"));
    assert_eq!(left(&user).await, after);

    // Streamed and to its end, the same.
    body["stream"] = true.into();
    let streamed = user.stream(GENERATE, &body).await;
    let usage = streamed.events().pop().unwrap()["usage"].clone();
    assert_eq!(left(&user).await, after - used(&usage));
}

#[tokio::test]
async fn a_stream_that_is_left_costs_what_was_seen_of_it() {
    let (upstream, _server, user) = with_mock(DAILY, "never").await;
    upstream
        .mode(json!({ "mode": "ok", "chunk_ms": 150 }))
        .await;
    let mut body = prompt("hello");
    body["stream"] = true.into();
    let client = user.clone().header("content-type", "application/json");
    let mut stream = client
        .open(Method::POST, GENERATE, body.to_string())
        .await
        .into_body();
    stream.frame().await.unwrap().unwrap();
    stream.frame().await.unwrap().unwrap();
    let reserved = left(&user).await;
    assert_eq!(
        reserved,
        10_000 - 2 - 1_000,
        "the answer's length is unknown"
    );
    drop((stream, client));
    let cost = 10_000 - left_when_more_than(&user, reserved).await;
    // "hello" is 2 tokens, "Mock answer" is 3; a word or two more were on their way.
    assert!((5..=12).contains(&cost), "{cost}");
}

#[tokio::test]
async fn a_flight_is_paid_once_and_by_its_leader_though_he_leaves() {
    let (upstream, _server, user) = with_mock(DAILY, "always").await;
    upstream.mode(json!({ "mode": "ok", "chunk_ms": 50 })).await;
    let mut body = prompt("hello");
    body["stream"] = true.into();
    let open = async || {
        let client = user.clone().header("content-type", "application/json");
        client.open(Method::POST, GENERATE, body.to_string()).await
    };
    let mut leader = open().await.into_body();
    leader.frame().await.unwrap().unwrap();
    let reserved = left(&user).await;
    assert_eq!(reserved, 10_000 - 2 - 1_000);
    let follower = open().await;
    assert!(
        follower.headers()["cache-status"]
            .to_str()
            .unwrap()
            .contains("collapsed"),
        "{:?}",
        follower.headers()
    );
    assert_eq!(left(&user).await, reserved, "who follows reserves nothing");
    drop(leader);
    let text = follower.into_body().collect().await.unwrap().to_bytes();
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    let left = left_when_more_than(&user, reserved).await;
    let usage = user.get("/api/spark/usage").await.json();
    assert_eq!(left, 10_000 - used(&usage["tenants"]["acme"]));
    assert_eq!(upstream.calls().await, 1);
}

#[tokio::test]
async fn what_no_provider_answers_costs_nothing() {
    let (upstream, _server, user) = with_mock(DAILY, "never").await;
    let mut expected = 10_000;
    for (mode, code, cost) in [
        (json!({ "mode": "status", "status": 422 }), 422, 0),
        (json!({ "mode": "refuse" }), 502, 0),
        // It has read the prompt.
        (json!({ "mode": "stall_head" }), 504, 2),
    ] {
        upstream.mode(mode.clone()).await;
        let answer = user.post(GENERATE, &prompt("hello")).await;
        assert_eq!(answer.status, code, "{mode}: {}", answer.text());
        expected -= cost;
        assert_eq!(left(&user).await, expected, "{mode}");
    }
    upstream.mode(json!({ "mode": "error500" })).await;
    let open = async { while user.post(GENERATE, &prompt("hello")).await.status != 503 {} };
    tokio::time::timeout(Duration::from_secs(10), open)
        .await
        .expect("the breaker opens");
    assert_eq!(left(&user).await, expected);
}

#[tokio::test]
async fn one_stream_at_once_is_one() {
    let limit = "[ratelimit.concurrency]\nmost = 1\ntiers = { pro = 2 }\n";
    let env = [("SPARK_PROVIDERS_DEMO_DEMO_WORD_DELAY", "50ms")];
    let (server, user) = with_demo(limit, &env).await;
    let mut body = prompt("hello");
    body["stream"] = true.into();
    let client = user.clone().header("content-type", "application/json");
    let first = client.open(Method::POST, GENERATE, body.to_string()).await;
    assert_eq!(first.status(), 200);

    let refused = user.stream(GENERATE, &body).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.headers["retry-after"], "1");
    let problem: Value = serde_json::from_str(&refused.text()).unwrap();
    assert_eq!(problem["code"], "too_many_at_once");
    assert_eq!(problem["violated-policies"], json!(["concurrency"]));
    let refused = user.post(CHAT, &chat("demo-1", "hello")).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error"]["code"], "too_many_at_once");
    // What takes no time is not among them, and other tenants are others.
    assert_eq!(user.get("/v1/models").await.status, 200);
    let other = server.client().bearer(&server.key("other").await);
    assert_eq!(other.post(GENERATE, &prompt("hello")).await.status, 200);
    let health = server
        .client()
        .bearer(&server.master)
        .get("/api/spark/health")
        .await;
    assert!(
        health.text().contains("\"componentId\":\"concurrency\""),
        "{}",
        health.text()
    );

    first.into_body().collect().await.unwrap();
    let next = user.post(CHAT, &chat("demo-1", "hello")).await;
    assert_eq!(next.status, 200, "the first has ended: {}", next.text());

    // A stream that its client left is over, too.
    let left = client.open(Method::POST, GENERATE, body.to_string()).await;
    drop((left, client));
    let free = async {
        while user.post(CHAT, &chat("demo-1", "hello")).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), free)
        .await
        .expect("the place is free again");
}

#[tokio::test]
async fn clients_read_the_fields_that_they_know() {
    let (_server, user) = with_demo(DAILY, &[]).await;
    let official = user.post(CHAT, &chat("demo-1", "hello")).await;
    for name in ["limit", "remaining", "reset"] {
        for unit in ["requests", "tokens"] {
            let name = format!("x-ratelimit-{name}-{unit}");
            assert!(!official.header(&name).is_empty(), "{name}");
        }
    }
    assert_eq!(official.header("x-ratelimit-limit-tokens"), "10000");
    let ours = user.post(GENERATE, &prompt("hello")).await;
    let foreign = |answer: &common::Answer| {
        let names = answer.headers.keys();
        let foreign = names.filter(|name| name.as_str().starts_with("x-ratelimit"));
        foreign.count()
    };
    assert_eq!(foreign(&ours), 0, "{:?}", ours.headers);

    let options = "[ratelimit]\nx_ratelimit = true\nopenai_headers = false\n";
    let server = Server::with(options, &[]);
    let user = server.client().bearer(&server.key("acme").await);
    let official = user.post(CHAT, &chat("demo-1", "hello")).await;
    assert_eq!(foreign(&official), 3, "{:?}", official.headers);
    assert_eq!(official.header("x-ratelimit-remaining"), "19");
}

#[tokio::test]
async fn a_reload_changes_tokens_and_concurrency() {
    let limits = |tokens: &str, most: u32| {
        format!(
            "{}[ratelimit.tokens]\n{tokens}\n[ratelimit.concurrency]\nmost = {most}\n",
            requests()
        )
    };
    let server = Server::with(&limits("quota = 10000\nper = \"1d\"", 9), &[]);
    let user = server.client().bearer(&server.key("acme").await);
    let master = server.client().bearer(&server.master);
    assert_eq!(left(&user).await, 10_000);
    let reload = async |text: &str| {
        std::fs::write(server.dir.join("spark.toml"), text).unwrap();
        master.send(Method::POST, "/api/spark/reload", "").await
    };

    let tiers = "quota = 30000\nper = \"1d\"\ntiers = { gold = { quota = 70000 } }";
    let reloaded = reload(&limits(tiers, 3)).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    assert_eq!(reloaded.json()["needs_restart"], json!([]));
    assert_eq!(left(&user).await, 30_000);
    let told = user.post(CHAT, &chat("demo-1", "hello")).await;
    let told = told.header("ratelimit-policy");
    assert!(
        told.contains(", \"concurrency\";q=3;qu=\"concurrent-requests\", \"tokens\";q=30000;"),
        "{told}"
    );
    // A tier that only the tokens have is one.
    let issue = json!({ "tenant": "rich", "tier": "gold" });
    let issued = master.post("/api/spark/keys", &issue).await;
    assert_eq!(issued.status, 201, "{}", issued.text());
    let rich = server
        .client()
        .bearer(issued.json()["key"].as_str().unwrap());
    assert_eq!(left(&rich).await, 70_000);

    // No good: nothing is changed. Left out: told, and as before until the restart.
    let refused = reload(&limits("quota = 0", 1)).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let reloaded = reload(&requests()).await;
    assert_eq!(reloaded.json()["needs_restart"], json!(["ratelimit"]));
    assert_eq!(left(&rich).await, 70_000);
    let answer = rich.post(GENERATE, &prompt("hello")).await;
    let used = used(&answer.json()["usage"]);
    assert_eq!(left(&rich).await, 70_000 - used, "still reserved from");
    assert_eq!(master.post("/api/spark/keys", &issue).await.status, 201);
}
