//! The program itself against a small server in this process: what it sends, and its exit codes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

#[derive(Default)]
struct Server {
    /// The mode of the mock upstream that this server is at the same time.
    mode: Mutex<String>,
    requests: AtomicU64,
    repeated: Mutex<std::collections::HashSet<String>>,
    keys: Mutex<Vec<&'static str>>,
}

/// Listens on a free port for as long as the test's process lives.
fn serve(server: Arc<Server>) -> String {
    let (address, addresses) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            address.send(listener.local_addr().unwrap()).unwrap();
            let app = Router::new()
                .route("/api/spark/generate", post(generate))
                .route("/api/spark/keys", post(issue))
                .route("/api/spark/keys/{id}", delete(revoke))
                .route("/__mode", post(set_mode))
                .with_state(server);
            axum::serve(listener, app).await.unwrap();
        });
    });
    format!("http://{}", addresses.recv().unwrap())
}

async fn generate(State(server): State<Arc<Server>>, headers: HeaderMap, body: String) -> Response {
    if headers
        .get("authorization")
        .is_none_or(|key| key != "Bearer user-key")
    {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let number = server.requests.fetch_add(1, Ordering::Relaxed);
    let mode = server.mode.lock().unwrap().clone();
    match mode.as_str() {
        "limited" if number > 5 => {
            return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response();
        }
        "error500" => {
            return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response();
        }
        "broken" => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "stall" if number > 2 => std::future::pending().await,
        _ => {}
    }
    let request: Value = serde_json::from_str(&body).unwrap();
    if request["stream"] == true {
        let events = "data: {\"delta\":\"a\"}\n\ndata: [DONE]\n\n";
        return ([("content-type", "text/event-stream")], Body::from(events)).into_response();
    }
    let hit = !server.repeated.lock().unwrap().insert(body);
    let status = if hit {
        "spark; hit"
    } else {
        "spark; fwd=uri-miss"
    };
    let answer = json!({"provider": "demo", "output": "words"}).to_string();
    ([("cache-status", status)], answer).into_response()
}

async fn issue(State(server): State<Arc<Server>>, headers: HeaderMap, body: String) -> Response {
    if headers
        .get("authorization")
        .is_none_or(|key| key != "Bearer master-key")
    {
        return (
            StatusCode::FORBIDDEN,
            json!({"detail": "not the master"}).to_string(),
        )
            .into_response();
    }
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&body["tenant"], &body["tier"]),
        (&json!("loadtest"), &json!("pro"))
    );
    server.keys.lock().unwrap().push("issued");
    (
        StatusCode::CREATED,
        json!({"id": "k1", "key": "user-key"}).to_string(),
    )
        .into_response()
}

async fn revoke(State(server): State<Arc<Server>>) -> StatusCode {
    server.keys.lock().unwrap().push("revoked");
    StatusCode::NO_CONTENT
}

async fn set_mode(State(server): State<Arc<Server>>, body: String) {
    let body: Value = serde_json::from_str(&body).unwrap();
    *server.mode.lock().unwrap() = body["mode"].as_str().unwrap().to_owned();
}

fn start(mode: &str) -> (Arc<Server>, String) {
    let server = Arc::new(Server {
        mode: Mutex::new(mode.to_owned()),
        ..Server::default()
    });
    (server.clone(), serve(server))
}

fn loadtest(arguments: &str) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spark-loadtest"));
    command
        .env_remove("SPARK_KEY")
        .args(arguments.split_whitespace());
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = [stdout, stderr].concat();
    (status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn a_steady_run_passes() {
    let (server, url) = start("ok");
    let (code, said) = loadtest(&format!(
        "steady --url {url} --key user-key --rate 200 --duration 2s --prompts 3 \
         --max-in-flight 1000 --max-p99 10s"
    ));
    assert_eq!(code, 0, "{said}");
    for word in [
        "answered, cache hit",
        "answered, provider",
        "streamed",
        "asked 200/s",
        "pass",
    ] {
        assert!(said.contains(word), "{word} is missing:\n{said}");
    }
    assert!(said.contains("in flight"), "no progress:\n{said}");
    assert!(!said.contains("user-key"), "{said}");
    // 400 arrivals and the look before them, whatever the machine is busy with.
    assert_eq!(server.requests.load(Ordering::Relaxed), 401, "{said}");
}

#[test]
fn thresholds_decide_the_exit_code() {
    let (_server, url) = start("broken");
    let arguments = format!("steady --url {url} --key user-key --rate 50 --duration 300ms");
    let (code, said) = loadtest(&arguments);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("status 500") && said.contains("FAIL  errors at most"),
        "{said}"
    );

    let (_server, url) = start("limited");
    let arguments =
        format!("steady --url {url} --key user-key --rate 50 --duration 500ms --max-p99 10s");
    let (code, said) = loadtest(&arguments);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("limited (429)"), "{said}");
    let (code, said) = loadtest(&format!("{arguments} --max-limited-rate 0.1"));
    assert_eq!(code, 1, "{said}");
}

#[test]
fn a_stall_is_seen_in_full() {
    let (_server, url) = start("stall");
    let (code, said) = loadtest(&format!(
        "steady --url {url} --key user-key --rate 50 --duration 1s --timeout 500ms --max-in-flight 4"
    ));
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("timed out") && said.contains("dropped, not sent"),
        "{said}"
    );
}

#[test]
fn a_key_is_issued_and_revoked() {
    let (server, url) = start("ok");
    let file = std::env::temp_dir().join(format!("spark-loadtest-{}", std::process::id()));
    std::fs::write(&file, "master-key\n").unwrap();
    let steady = format!(
        "steady --url {url} --master-key-file {} --duration 200ms --max-p99 10s",
        file.display()
    );
    let (code, said) = loadtest(&steady);
    assert_eq!(code, 0, "{said}");
    assert_eq!(*server.keys.lock().unwrap(), ["issued", "revoked"]);
    std::fs::write(&file, "wrong").unwrap();
    let (code, said) = loadtest(&steady);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("not the master"), "{said}");
}

#[test]
fn a_provoked_failure_is_measured_and_undone() {
    let (server, url) = start("ok");
    let (code, said) = loadtest(&format!(
        "failing --url {url} --key user-key --rate 50 --duration 2s --upstream-control {url} \
         --mix misses=1 --max-p99 10s"
    ));
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("unavailable (503)") && said.contains("answers back within"),
        "{said}"
    );
    assert_eq!(*server.mode.lock().unwrap(), "ok");
}

#[test]
fn a_run_that_cannot_begin_says_why() {
    let (_server, url) = start("ok");
    for (arguments, word) in [
        ("steady --url http://192.0.2.1".to_owned(), "--allow-remote"),
        (
            "steady --url http://127.0.0.1:1".to_owned(),
            "nothing answers",
        ),
        (format!("steady --url {url}"), "wants a key"),
        (
            format!("steady --url {url} --master-key-file /nonexistent"),
            "/nonexistent",
        ),
        (
            format!("failing --url {url} --key user-key --upstream-control http://192.0.2.1"),
            "--allow-remote",
        ),
        (
            format!("failing --url {url} --upstream-control {url} --fail-after 1h"),
            "no time to recover",
        ),
        ("steady --rate none".to_owned(), "--rate"),
    ] {
        let (code, said) = loadtest(&arguments);
        assert_eq!(code, 2, "{arguments}: {said}");
        assert!(said.contains(word), "{arguments}: {said}");
    }
}
