//! What holds for every response: headers, a request id, bounded metrics.
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{Answer, Server, prompt};
use http::Method;
use serde_json::json;

fn check(what: &str, answer: &Answer) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(answer.header(name), value, "{what}: {name}");
    }
    assert!(
        !answer.header("content-security-policy").is_empty(),
        "{what}"
    );
    assert!(!answer.header("permissions-policy").is_empty(), "{what}");
    assert!(
        answer.header("x-request-id").len() >= 8,
        "{what}: no request id"
    );
    for (name, _) in &answer.headers {
        assert_eq!(
            answer.headers.get_all(name).iter().count(),
            1,
            "{what}: {name} twice"
        );
    }
    assert!(!answer.headers.contains_key("server"), "{what}");
}

#[tokio::test]
async fn every_response_bears_the_headers_and_a_request_id() {
    let config =
        "[[ratelimit.policies]]\nname = \"requests\"\nquota = 60\nper = \"1m\"\nburst = 5\n";
    let server = Server::with(config, &[]);
    let user = server.client().bearer(&server.key("acme").await);
    let master = server.client().bearer(&server.master);

    check("page", &server.client().get("/").await);
    check("livez", &server.client().get("/livez").await);
    check("readyz", &server.client().get("/readyz").await);
    check("startupz", &server.client().get("/startupz").await);
    check("health", &server.client().get("/api/spark/health").await);
    check("metrics", &master.get("/metrics").await);
    check(
        "200",
        &user.post("/api/spark/generate", &prompt("hello")).await,
    );
    check(
        "hit",
        &user.post("/api/spark/generate", &prompt("hello")).await,
    );
    check("400", &user.post("/api/spark/generate", &json!({})).await);
    check(
        "401",
        &server
            .client()
            .post("/api/spark/generate", &prompt("hello"))
            .await,
    );
    check("403", &user.get("/api/spark/keys").await);
    let missing = server.client().get("/no/such/thing").await;
    assert_eq!(
        (missing.status.as_u16(), missing.header("content-type")),
        (404, "application/problem+json")
    );
    check("404", &missing);
    let wrong = server.client().get("/api/spark/generate").await;
    check("405 without a key", &wrong);
    let wrong = user.send(Method::PUT, "/api/spark/generate", "").await;
    assert_eq!(wrong.status, 405, "{}", wrong.text());
    assert!(
        wrong.header("allow").contains("POST"),
        "{:?}",
        wrong.headers
    );
    check("405", &wrong);
    let large = user.clone().header("content-type", "application/json");
    check(
        "413",
        &large
            .send(Method::POST, "/api/spark/generate", vec![b'x'; 2 << 20])
            .await,
    );
    let preflight = server
        .client()
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST");
    check(
        "OPTIONS",
        &preflight
            .send(Method::OPTIONS, "/api/spark/generate", "")
            .await,
    );
    check(
        "HEAD",
        &server.client().send(Method::HEAD, "/livez", "").await,
    );
    for _ in 0..10 {
        check("429", &user.get("/v1/models").await);
    }
    assert_eq!(user.get("/v1/models").await.status, 429);

    let own = server
        .client()
        .header("x-request-id", "my-id-1234")
        .get("/livez")
        .await;
    assert_eq!(own.header("x-request-id"), "my-id-1234");
    let odd = server
        .client()
        .header("x-request-id", "<script>")
        .get("/livez")
        .await;
    assert!(!odd.header("x-request-id").contains('<'));
}

#[tokio::test]
async fn random_paths_add_no_series() {
    let server = Server::start();
    let master = server.client().bearer(&server.master);
    let series = async || {
        let page = master.get("/metrics").await;
        assert_eq!(page.status, 200);
        assert!(
            page.header("content-type")
                .starts_with("text/plain; version=0.0.4")
        );
        page.text()
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .count()
    };
    for n in 0..20 {
        server.client().get(&format!("/warm/{n}")).await;
    }
    series().await;
    let before = series().await;
    for n in 0..500 {
        server
            .client()
            .get(&format!("/{n}/{}?q={n}", n * 7919))
            .await;
    }
    assert_eq!(series().await, before);
    assert!(
        master
            .get("/metrics")
            .await
            .text()
            .contains("route=\"unmatched\"")
    );
}

#[tokio::test]
async fn the_runbook_explains_each_metric() {
    let runbook = include_str!("../RUNBOOK.md");
    let server = Server::with("", &[("SPARK_RATELIMIT_TOKENS_QUOTA", "100000")]);
    let user = server.client().bearer(&server.key("acme").await);
    user.post("/api/spark/generate", &prompt("hello")).await;
    user.post("/api/spark/generate", &json!({})).await;
    let page = server
        .client()
        .bearer(&server.master)
        .get("/metrics")
        .await
        .text();
    let mut metrics = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split_whitespace().next().unwrap();
        assert!(
            runbook.contains(&format!("`{name}`")),
            "the runbook has no word of {name}"
        );
        metrics += 1;
    }
    assert!(metrics > 20, "{page}");
}

#[tokio::test]
async fn health_tells_the_status_to_anyone_and_the_details_to_the_master() {
    let server = Server::start();
    let public = server.client().get("/api/spark/health").await;
    assert_eq!(public.status, 200);
    assert_eq!(public.header("content-type"), "application/health+json");
    assert_eq!(public.json()["status"], "pass", "{}", public.text());
    assert!(
        public.json().get("checks").is_none(),
        "no internals: {}",
        public.text()
    );
    let detailed = server
        .client()
        .bearer(&server.master)
        .get("/api/spark/health")
        .await
        .json();
    let checks = detailed["checks"].as_object().unwrap();
    for name in ["breakers", "metrics", "errors", "cache", "keys", "limits"] {
        assert!(
            checks.keys().any(|key| key.starts_with(name)),
            "{name}: {detailed}"
        );
    }
    let user = server.client().bearer(&server.key("acme").await);
    assert!(
        user.get("/api/spark/health")
            .await
            .json()
            .get("checks")
            .is_none()
    );
}

#[tokio::test]
async fn the_operators_routes_have_a_listener_of_their_own_where_one_is_configured() {
    let server = Server::with("", &[("SPARK_ADMIN_LISTEN", "127.0.0.1:0")]);
    // The keys' route has left the public listener.
    let public = server.client().bearer(&server.master);
    assert_eq!(public.get("/api/spark/keys").await.status, 404);
    assert_eq!(public.get("/metrics").await.status, 404);
    assert_eq!(public.get("/livez").await.status, 200);

    let admin = common::Client::new(server.process.admin.unwrap());
    let answer = admin
        .clone()
        .bearer(&server.master)
        .get("/api/spark/keys")
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(admin.get("/api/spark/keys").await.status, 401);
    assert_eq!(
        admin.get("/metrics").await.status,
        200,
        "who reaches it may scrape it"
    );
    assert_eq!(admin.get("/").await.status, 404);
    let stack = admin
        .bearer(&server.master)
        .get("/api/spark/stack")
        .await
        .json();
    for part in ["edge", "data", "control", "outbound"] {
        assert!(
            !stack[part].as_array().unwrap().is_empty(),
            "{part}: {stack}"
        );
    }
}

#[tokio::test]
async fn a_key_in_the_wrong_place_is_in_no_log() {
    let server = Server::start();
    let key = server.key("acme").await;
    let master = server.client().bearer(&server.master);
    master
        .send(Method::POST, &format!("/api/spark/keys/{key}/rotate"), "")
        .await;
    let odd = master.send(Method::DELETE, "/api/spark/keys/%ff", "").await;
    assert_eq!(odd.status, 400);
    assert_eq!(odd.header("content-type"), "application/problem+json");
    let log = server.log();
    assert!(log.contains("[key]"), "{log}");
    for secret in [&key, &server.master] {
        assert!(!log.contains(secret.as_str()), "{log}");
    }
}
