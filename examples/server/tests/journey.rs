//! The way of a newcomer, as the README tells it, with a real process over a real socket.
#![allow(missing_docs, reason = "a test")]

mod common;

use std::time::Duration;

use common::{Server, prompt};
use serde_json::json;

#[tokio::test]
async fn from_the_first_start_to_a_cached_answer() {
    let server = Server::start();
    assert!(
        server.master.starts_with("spark_mk_live_"),
        "the first start makes a master key"
    );
    let key = server.key("acme").await;
    assert!(key.starts_with("spark_sk_live_"));
    let user = server.client().bearer(&key);

    let first = user
        .post("/api/spark/generate", &prompt("What is a breaker?"))
        .await;
    assert_eq!(first.status, 200, "{}", first.text());
    let answer = first.json();
    assert_eq!(
        (&answer["provider"], &answer["model"]),
        (&json!("demo"), &json!("demo-1"))
    );
    assert!(
        answer["output"]
            .as_str()
            .unwrap()
            .contains("What is a breaker?")
    );
    assert_eq!(answer["finish_reason"], "stop");
    assert_eq!(answer["usage"]["input_tokens"], 4);
    assert!(answer["usage"]["output_tokens"].as_u64().unwrap() > 4);
    assert!(
        first.header("cache-status").starts_with("spark; fwd="),
        "{:?}",
        first.headers
    );

    let second = user
        .post("/api/spark/generate", &prompt("What is a breaker?"))
        .await;
    assert!(
        second.header("cache-status").starts_with("spark; hit"),
        "{:?}",
        second.headers
    );
    assert_eq!(second.body, first.body);

    let breakers = server
        .client()
        .bearer(&server.master)
        .get("/api/spark/breakers")
        .await
        .json();
    assert_eq!(
        breakers["breakers"][0]["totals"]["successes"], 1,
        "a hit asks no provider"
    );

    let usage = user.get("/api/spark/usage").await.json();
    assert_eq!(usage["tenants"]["acme"]["cache_hits"], 1);
    assert!(usage["tenants"]["acme"]["output_tokens"].as_u64().unwrap() > 4);
}

#[tokio::test]
async fn words_stream_one_by_one() {
    let server = Server::start();
    let user = server.client().bearer(&server.key("acme").await);
    let mut body = prompt("Count to ten");
    body["stream"] = true.into();
    let streamed = user.stream("/api/spark/generate", &body).await;
    assert_eq!(streamed.status, 200);
    assert_eq!(streamed.headers["content-type"], "text/event-stream");
    assert!(!streamed.broken && streamed.text().ends_with("data: [DONE]\n\n"));

    let events = streamed.events();
    let text: String = events
        .iter()
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert!(text.starts_with("You said: Count to ten."), "{text}");
    let last = events.last().unwrap();
    assert_eq!(
        (&last["provider"], &last["finish_reason"]),
        (&json!("demo"), &json!("stop"))
    );
    assert!(last["usage"]["output_tokens"].as_u64().unwrap() > 10);

    let (first, last) = (streamed.frames[0].0, streamed.frames.last().unwrap().0);
    assert!(
        last > first + Duration::from_millis(200),
        "first after {first:?}, last after {last:?}"
    );

    // A complete stream of a deterministic request is kept, and replayed as it was.
    let again = user.stream("/api/spark/generate", &body).await;
    assert!(
        again.headers["cache-status"]
            .to_str()
            .unwrap()
            .starts_with("spark; hit")
    );
    assert_eq!(again.text(), streamed.text());
}

#[tokio::test]
async fn openais_format_works_streaming_and_not() {
    let server = Server::start();
    let user = server.client().bearer(&server.key("acme").await);
    let models = user.get("/v1/models").await.json();
    assert_eq!(models["data"][0]["id"], "demo-1");

    let ask = json!({
        "model": "demo-1", "messages": [{"role": "user", "content": "hello"}],
        "user": "a field that we do not know",
    });
    let answer = user.post("/v1/chat/completions", &ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["object"], "chat.completion");
    assert!(
        answer.header("cache-status").contains("fwd=bypass"),
        "{:?}",
        answer.headers
    );

    let mut stream = ask.clone();
    stream["stream"] = true.into();
    let streamed = user.stream("/v1/chat/completions", &stream).await;
    let events = streamed.events();
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert!(
        events
            .iter()
            .all(|e| !e["choices"].as_array().unwrap().is_empty()),
        "no usage unasked"
    );

    stream["stream_options"] = json!({ "include_usage": true });
    let streamed = user.stream("/v1/chat/completions", &stream).await;
    let last = streamed.events().pop().unwrap();
    assert!(
        last["usage"]["total_tokens"].as_u64().unwrap() > 0,
        "usage where it was asked for"
    );
}

#[tokio::test]
async fn a_conversation_becomes_a_file() {
    let server = Server::start();
    let user = server.client().bearer(&server.key("acme").await);
    let items = json!([{"role": "user", "content": "=HYPERLINK(\"http://x\")"}]);
    for (format, content_type) in [
        ("json", "application/json"),
        ("markdown", "text/markdown"),
        ("csv", "text/csv"),
    ] {
        let body = json!({ "format": format, "items": items });
        let answer = user.post("/api/export", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.header("content-type").starts_with(content_type));
        assert!(
            answer
                .header("content-disposition")
                .starts_with("attachment; filename=")
        );
        if format == "csv" {
            assert!(answer.text().contains("\"'=HYPERLINK"), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_person_with_a_browser_is_greeted() {
    let server = Server::start();
    let page = server.client().get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    let text = page.text();
    assert!(text.contains(&format!("http://{}/api/spark/generate", server.address())));
    assert!(text.contains("/api/spark/health") && text.contains("README.md"));
    assert!(!text.contains("{{"), "a placeholder is left");
    let policy = page.header("content-security-policy");
    let nonce = text
        .split("nonce=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert!(policy.contains(&format!("'nonce-{nonce}'")), "{policy}");
    assert_ne!(
        server
            .client()
            .get("/")
            .await
            .header("content-security-policy"),
        policy
    );
}

#[tokio::test]
async fn the_life_of_a_key() {
    let server = Server::start();
    let master = server.client().bearer(&server.master);
    let body =
        json!({ "tenant": "acme", "label": "ci", "tier": "pro", "scopes": ["metrics:read"] });
    let issued = master.post("/api/spark/keys", &body).await.json();
    let (id, key) = (
        issued["id"].as_str().unwrap(),
        issued["key"].as_str().unwrap(),
    );
    assert_eq!(
        (&issued["tenant"], &issued["tier"]),
        (&json!("acme"), &json!("pro"))
    );

    let listed = master.get("/api/spark/keys").await;
    assert_eq!(listed.json()["keys"][0]["id"], id);
    assert!(!listed.text().contains(key), "a key is shown once");
    assert_eq!(listed.header("cache-control"), "no-store");
    assert_eq!(
        server.client().bearer(key).get("/metrics").await.status,
        200
    );

    let rotated = master
        .post(
            &format!("/api/spark/keys/{id}/rotate"),
            &json!({"overlap": "1h"}),
        )
        .await;
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    let new_key = rotated.json()["key"].as_str().unwrap().to_owned();
    let old = master.get("/api/spark/keys").await.json()["keys"][0].clone();
    assert_eq!(
        rotated.json()["replaces"],
        json!({"id": id, "works_until": old["expires_at"]})
    );
    for key in [key, &new_key] {
        assert_eq!(
            server.client().bearer(key).get("/v1/models").await.status,
            200
        );
    }
    let path = format!("/api/spark/keys/{id}");
    let revoked = master.send(http::Method::DELETE, &path, "").await;
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    assert_eq!(
        server.client().bearer(key).get("/v1/models").await.status,
        401
    );
    assert_eq!(
        server
            .client()
            .header("x-api-key", &new_key)
            .get("/v1/models")
            .await
            .status,
        200
    );

    // A key that was issued one moment before `kill -9` is still there.
    let mut server = server;
    let last = server.key("late").await;
    server.kill_and_restart();
    assert_eq!(
        server.client().bearer(&last).get("/v1/models").await.status,
        200
    );
    assert_eq!(
        server.client().bearer(key).get("/v1/models").await.status,
        401,
        "still revoked"
    );
}

#[tokio::test]
async fn a_key_is_suspended_bound_to_networks_and_found_on_its_page() {
    let mut server = Server::start();
    let master = server.client().bearer(&server.master);
    let models = async |server: &Server, key: &str| {
        let answer = server.client().bearer(key).get("/v1/models").await;
        answer.status.as_u16()
    };
    let issue = async |body: serde_json::Value| {
        let issued = master.post("/api/spark/keys", &body).await;
        assert_eq!(issued.status, 201, "{}", issued.text());
        assert_eq!(issued.header("content-type"), "application/json");
        issued.json()
    };
    let here = issue(json!({
        "tenant": "acme", "owner": "ada@acme.example", "environment": "test",
        "ip_allow": ["127.0.0.1", "10.0.0.0/8"],
    }))
    .await;
    let elsewhere = issue(json!({"tenant": "acme", "ip_allow": ["10.0.0.0/8"]})).await;
    let later = issue(json!({"tenant": "acme", "not_before": 4_000_000_000_u64})).await;
    assert_eq!(here["owner"], "ada@acme.example");
    assert_eq!(here["ip_allow"], json!(["127.0.0.1/32", "10.0.0.0/8"]));
    let key = here["key"].as_str().unwrap().to_owned();
    assert!(key.starts_with("spark_sk_test_"), "{key}");
    assert_eq!(models(&server, &key).await, 200);
    for refused in [&elsewhere, &later] {
        assert_eq!(models(&server, refused["key"].as_str().unwrap()).await, 401);
    }

    let path = format!("/api/spark/keys/{}", here["id"].as_str().unwrap());
    let change = async |server: &Server, action: &str| {
        let master = server.client().bearer(&server.master);
        let path = format!("{path}/{action}");
        let answer = master.send(http::Method::POST, &path, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(change(&server, "suspend").await, "suspended");
    assert_eq!(models(&server, &key).await, 401);
    server.kill_and_restart();
    assert_eq!(models(&server, &key).await, 401, "still suspended");
    assert_eq!(change(&server, "resume").await, "active");
    assert_eq!(models(&server, &key).await, 200);

    // Page by page.
    let master = server.client().bearer(&server.master);
    let mut ids = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = master.get(&format!("/api/spark/keys{query}")).await.json();
        let keys = page["keys"].as_array().unwrap();
        assert!(keys.len() <= 2);
        ids.extend(keys.iter().map(|key| key["id"].clone()));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        query = format!("?limit=2&after={next}");
    }
    let expected = [&here, &elsewhere, &later].map(|issued| issued["id"].clone());
    assert_eq!(ids, expected);
    for (query, param) in [
        ("?limit=0", "limit"),
        ("?limit=x", "query"),
        ("?after=nobody", "after"),
        ("?page=2", "query"),
    ] {
        let refused = master.get(&format!("/api/spark/keys{query}")).await;
        assert_eq!(refused.status, 400, "{query}");
        assert_eq!(refused.json()["param"], param, "{}", refused.text());
    }
}

/// What a request on a key says beyond what is understood would silently do nothing.
#[tokio::test]
async fn what_is_not_understood_of_a_change_is_refused() {
    let server = Server::start();
    let key = server.key("acme").await;
    let master = server.client().bearer(&server.master);
    let listed = master.get("/api/spark/keys").await.json();
    let id = listed["keys"][0]["id"].as_str().unwrap();
    let path = format!("/api/spark/keys/{id}");
    let post = http::Method::POST;
    for (method, path, body, param) in [
        (
            &post,
            format!("{path}/rotate"),
            r#"{"overlpa":"0s"}"#,
            "overlpa",
        ),
        (&post, format!("{path}/rotate?overlap=0s"), "", "query"),
        (
            &post,
            "/api/spark/keys?tier=pro".to_owned(),
            r#"{"tenant":"a"}"#,
            "query",
        ),
        (&post, format!("{path}/suspend?for=1h"), "", "query"),
        (&post, format!("{path}/suspend"), r#"{"for":"1h"}"#, "body"),
        (&post, format!("{path}/resume"), "{}", "body"),
        (
            &http::Method::DELETE,
            format!("{path}?after=1h"),
            "",
            "query",
        ),
        (
            &http::Method::DELETE,
            path.clone(),
            r#"{"after":"1h"}"#,
            "body",
        ),
    ] {
        let client = master.clone().header("content-type", "application/json");
        let refused = client.send(method.clone(), &path, body).await;
        assert_eq!(refused.status, 400, "{path}: {}", refused.text());
        let problem = refused.json();
        assert_eq!(
            (&problem["code"], &problem["param"]),
            (&json!("invalid_field"), &json!(param)),
            "{path}"
        );
    }
    let user = server.client().bearer(&key);
    assert_eq!(
        user.get("/v1/models").await.status,
        200,
        "nothing was changed"
    );
    let listed = master.get("/api/spark/keys").await.json();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1, "{listed}");
}

/// That the audit goes through a queue costs neither an event at the end nor the request's id.
#[tokio::test]
async fn what_was_done_to_keys_is_in_the_log() {
    let mut server = Server::start();
    let key = server.key("acme").await;
    let user = server.client().bearer(&key);
    assert_eq!(user.get("/v1/models").await.status, 200);
    let listed = server.client().bearer(&server.master);
    let listed = listed.get("/api/spark/keys").await.json();
    let id = listed["keys"][0]["id"].as_str().unwrap().to_owned();
    assert!(listed["keys"][0]["last_used_at"].is_u64(), "{listed}");
    server.terminate();
    server.process.child.wait().unwrap();
    let log = server.log();
    let line = |word: &str| {
        let line = log.lines().find(|line| line.contains(word));
        line.unwrap_or_else(|| panic!("no {word}: {log}"))
    };
    let issued = line("key issued");
    assert!(
        issued.contains(&id) && issued.contains("path=\"/api/spark/keys\" id="),
        "{issued}"
    );
    assert!(line("master key used").contains("127.0.0.1"));
    assert!(!log.contains(&key) && !log.contains(&server.master));

    // When it was last used was written at the end.
    server.kill_and_restart();
    let master = server.client().bearer(&server.master);
    let listed = master.get("/api/spark/keys").await.json();
    assert!(listed["keys"][0]["last_used_at"].is_u64(), "{listed}");
}
