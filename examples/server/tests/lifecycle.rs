//! Start, reload, stop.
#![allow(missing_docs, reason = "a test")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests measure real time"
)]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{Server, prompt};

#[tokio::test]
async fn told_to_stop_under_load_it_finishes_what_is_under_way() {
    let mut server = Server::with(
        "[[ratelimit.policies]]\nname = \"requests\"\nquota = 60000\nper = \"1m\"\n",
        &[
            ("SPARK_DRAIN_DELAY", "1s"),
            ("SPARK_PROVIDERS_DEMO_DEMO_LATENCY", "300ms"),
            ("SPARK_CACHE_WHEN", "never"),
        ],
    );
    let user = server.client().bearer(&server.key("acme").await);
    assert_eq!(server.client().get("/readyz").await.status, 200);

    let mut calls = Vec::new();
    for n in 0..40 {
        let user = user.clone();
        calls.push(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(n * 10)).await;
            user.post("/api/spark/generate", &prompt(&format!("call {n}")))
                .await
        }));
    }
    let stream = {
        let user = user.clone();
        let mut body = prompt("a stream");
        body["stream"] = true.into();
        tokio::spawn(async move { user.stream("/api/spark/generate", &body).await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.terminate();

    // Readiness turns while connections are still accepted.
    let deadline = Instant::now() + Duration::from_millis(800);
    let mut ready = 200;
    while ready != 503 && Instant::now() < deadline {
        ready = server.client().get("/readyz").await.status.as_u16();
    }
    assert_eq!(ready, 503);
    assert_eq!(
        server.client().get("/livez").await.status,
        200,
        "draining is not dead"
    );

    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.broken),
            (200, false),
            "{}",
            answer.text()
        );
    }
    let stream = stream.await.unwrap();
    assert!(!stream.broken && stream.text().ends_with("data: [DONE]\n\n"));

    let code = end_of(&mut server, Duration::from_secs(20)).await;
    assert_eq!(code, Some(0), "{}", server.log());
}

#[test]
fn a_signal_right_after_the_start_is_not_missed() {
    for _ in 0..3 {
        let mut server = Server::start();
        server.terminate();
        let status = server.process.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", server.log());
    }
    let mut server = Server::start();
    server.signal("HUP");
    std::thread::sleep(Duration::from_millis(200));
    assert!(server.is_running(), "a hang-up reloads, and ends nothing");
}

/// Waits for the end of the process, and gives its code.
async fn end_of(server: &mut Server, within: Duration) -> Option<i32> {
    let deadline = Instant::now() + within;
    while server.is_running() {
        assert!(Instant::now() < deadline, "it does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.process.child.wait().unwrap().code()
}

/// A log at its most talkative, so that a pipe and a queue fill up fast.
const TALKATIVE: (&str, &str) = ("SPARK_LOG_FILTER", "trace");
const UNLIMITED: &str =
    "[ratelimit.ip]\nquota = 1000000\nper = \"1m\"\n[auth]\nmax_failures = 1000000\n";

async fn fill_the_log(server: &Server) {
    let master = server.client().bearer(&server.master);
    for _ in 0..2_000 {
        assert_eq!(master.get("/api/spark/breakers").await.status, 200);
        let wrong = server.client().bearer("nobody");
        assert_eq!(wrong.get("/api/spark/keys").await.status, 401);
        let page = master.get("/metrics").await.text();
        let lost = page.lines().filter_map(|line| {
            let lost = line.strip_prefix("spark_server_log_lines_dropped_total ")?;
            lost.parse::<f64>().ok()
        });
        if lost.sum::<f64>() > 0.0 {
            return;
        }
    }
    panic!("the log is not full");
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_neither_requests_nor_the_end() {
    let mut server = Server::with_unread_log(UNLIMITED, &[TALKATIVE]);
    fill_the_log(&server).await;
    let user = server.client().bearer(&server.key("acme").await);
    let answer = user.post("/api/spark/generate", &prompt("hello")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    server.terminate();
    let code = end_of(&mut server, Duration::from_secs(15)).await;
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn a_log_that_nobody_reads_does_not_hold_up_a_second_signal() {
    let env = [TALKATIVE, ("SPARK_DRAIN_DELAY", "30s")];
    let mut server = Server::with_unread_log(UNLIMITED, &env);
    fill_the_log(&server).await;
    server.terminate();
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.client().get("/readyz").await.status != 503 {
        assert!(Instant::now() < deadline, "it does not drain");
    }
    server.terminate();
    let code = end_of(&mut server, Duration::from_secs(5)).await;
    assert_eq!(code, Some(1));
}

/// The log of a server that was stopped while its audit waited for the log, which is read `late`.
async fn log_read_late(late: Duration) -> String {
    use std::io::Read;
    let denials = ("SPARK_LOG_FILTER", "info,spark_auth::audit=debug");
    let mut server = Server::with_unread_log(UNLIMITED, &[denials]);
    // More than a pipe takes, mostly from the audit.
    let master = server.client().bearer(&server.master);
    for _ in 0..100 {
        assert_eq!(master.get("/api/spark/breakers").await.status, 200);
    }
    let wrong = server.client().bearer(&"nobody".repeat(20));
    for _ in 0..600 {
        assert_eq!(wrong.get("/v1/models").await.status, 401);
    }
    server.key("acme").await;
    server.terminate();
    let mut log = server.process.child.stderr.take().unwrap();
    tokio::time::sleep(late).await;
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(end_of(&mut server, Duration::from_secs(15)).await, Some(0));
    read.join().unwrap()
}

#[tokio::test]
async fn the_end_waits_a_moment_for_the_audit() {
    let text = log_read_late(Duration::from_millis(700)).await;
    let (issued, drained) = (text.find("key issued"), text.find(" drained "));
    assert!(
        issued.is_some() && issued < drained,
        "{issued:?} {drained:?}"
    );
    assert!(!text.contains("the audit is not complete"), "{text}");
}

#[tokio::test]
async fn an_audit_that_the_end_did_not_wait_for_is_told() {
    let text = log_read_late(Duration::from_secs(3)).await;
    assert!(text.contains("the audit is not complete"), "{text}");
}

#[tokio::test]
async fn a_reload_changes_the_quota_and_a_bad_file_changes_nothing() {
    let policy = |quota: u32, burst: u32| {
        format!(
            "[[ratelimit.policies]]\nname = \"requests\"\nquota = {quota}\nper = \"1m\"\nburst = {burst}\n"
        )
    };
    let server = Server::with(&policy(60, 2), &[]);
    let file = server.dir.join("spark.toml");
    let user = server.client().bearer(&server.key("acme").await);
    let master = server.client().bearer(&server.master);
    while user.get("/v1/models").await.status == 200 {}

    std::fs::write(&file, policy(6_000, 1_000)).unwrap();
    let reloaded = master
        .send(http::Method::POST, "/api/spark/reload", "")
        .await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    assert_eq!(
        reloaded.json()["needs_restart"],
        serde_json::json!([]),
        "{}",
        reloaded.text()
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = user.get("/v1/models").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("ratelimit-policy").contains("q=6000"));

    // A tier that the reload brought can be given to a key.
    let gold = format!(
        "{}tiers = {{ gold = {{ quota = 9000 }} }}\n",
        policy(6_000, 1_000)
    );
    let issue = serde_json::json!({"tenant": "acme", "tier": "gold"});
    assert_eq!(master.post("/api/spark/keys", &issue).await.status, 400);
    std::fs::write(&file, gold).unwrap();
    let reloaded = master
        .send(http::Method::POST, "/api/spark/reload", "")
        .await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    let issued = master.post("/api/spark/keys", &issue).await;
    assert_eq!(issued.status, 201, "{}", issued.text());

    std::fs::write(&file, "[server]\nlisten = 3\n").unwrap();
    let refused = master
        .send(http::Method::POST, "/api/spark/reload", "")
        .await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .contains("line 2"),
        "{}",
        refused.text()
    );
    assert!(
        user.get("/v1/models")
            .await
            .header("ratelimit-policy")
            .contains("q=6000")
    );

    // Valid as TOML, and no good as a whole: nothing of it may be in force.
    for no_good in [
        "[[providers]]\nname = \"demo\"\nkind = \"demo\"\nmodels = [\"demo-1\"]\n\
         breaker = { probes = 0 }\n",
        "[log]\nfilter = \"nonsense=[[\"\n",
    ] {
        let half_good = format!("{}{no_good}", policy(7_777, 7));
        std::fs::write(&file, half_good).unwrap();
        let refused = master
            .send(http::Method::POST, "/api/spark/reload", "")
            .await;
        assert_eq!(refused.status, 422, "{}", refused.text());
    }
    assert!(
        user.get("/v1/models")
            .await
            .header("ratelimit-policy")
            .contains("q=6000")
    );

    std::fs::write(
        &file,
        format!(
            "{}[cors]\norigins = [\"https://a.example\"]\n",
            policy(60, 2)
        ),
    )
    .unwrap();
    let reloaded = master
        .send(http::Method::POST, "/api/spark/reload", "")
        .await;
    assert_eq!(
        reloaded.json()["needs_restart"],
        serde_json::json!(["cors"]),
        "{}",
        reloaded.text()
    );
}

fn run(
    args: &[&str],
    env: &[(&str, &str)],
    dir: &std::path::Path,
) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spark-server"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SPARK_") {
            command.env_remove(name);
        }
    }
    let output = command
        .args(args)
        .current_dir(dir)
        .env("SPARK_DATA_DIR", "data")
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn the_commands_do_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = run(&["check"], &[], dir.path());
    assert_eq!(
        (code, out.trim()),
        (Some(0), "the configuration is valid"),
        "{err}"
    );
    assert!(
        !dir.path().join("data").exists(),
        "a check leaves nothing behind"
    );

    std::fs::write(
        dir.path().join("bad.toml"),
        "[server]\nmax_body = \"1 MB\"\n",
    )
    .unwrap();
    let (code, _, err) = run(&["--config", "bad.toml", "check"], &[], dir.path());
    assert_eq!(code, Some(2));
    assert!(
        err.contains("line 2") && err.contains("1 MB") && err.contains("1MiB"),
        "{err}"
    );

    let (code, out, _) = run(&["keys", "new-master"], &[], dir.path());
    assert_eq!(code, Some(0));
    assert!(out.starts_with("spark_mk_live_"));

    let (code, out, err) = run(&["keys", "issue", "--tenant", "acme"], &[], dir.path());
    assert_eq!(code, Some(0), "{err}");
    let issued: serde_json::Value = serde_json::from_str(&out).unwrap();
    let id = issued["id"].as_str().unwrap();
    let (_, out, _) = run(&["keys", "list"], &[], dir.path());
    assert!(
        out.contains(id) && !out.contains(issued["key"].as_str().unwrap()),
        "{out}"
    );
    for (action, status) in [("suspend", "suspended"), ("resume", "active")] {
        let (code, out, err) = run(&["keys", action, id], &[], dir.path());
        assert_eq!(code, Some(0), "{err}");
        let info: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(info["status"], status);
    }
    let (code, out, err) = run(&["keys", "rotate", id], &[], dir.path());
    assert_eq!(code, Some(0), "{err}");
    let rotated: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(rotated["replaces"]["id"], id, "{out}");
    assert!(rotated["replaces"]["works_until"].is_u64(), "{out}");
    let (code, _, err) = run(&["keys", "revoke", id], &[], dir.path());
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("key revoked"), "the audit is visible: {err}");
    let (code, _, err) = run(&["keys", "revoke", "nobody"], &[], dir.path());
    assert_eq!(code, Some(2));
    assert!(err.contains("no key has this id"), "{err}");

    let (code, _, err) = run(
        &["healthcheck"],
        &[("SPARK_LISTEN", "127.0.0.1:1")],
        dir.path(),
    );
    assert_eq!(code, Some(1), "{err}");
    let (code, _, err) = run(&[], &[("SPARK_LISTEN", "0.0.0.0:0")], dir.path());
    assert_eq!(code, Some(2));
    assert!(err.contains("SPARK_MASTER_KEY"), "{err}");
}

#[test]
fn a_key_is_issued_with_all_that_it_may_have() {
    let dir = tempfile::tempdir().unwrap();
    let all = [
        "keys",
        "issue",
        "--tenant",
        "acme",
        "--owner",
        "ada@acme.example",
        "--ip-allow",
        "10.0.0.0/8",
        "--ip-allow",
        "192.0.2.7",
        "--env",
        "test",
        "--not-before",
        "1900000000",
        "--expires-at",
        "2000000000",
    ];
    let (code, out, err) = run(&all, &[], dir.path());
    assert_eq!(code, Some(0), "{err}");
    let issued: serde_json::Value = serde_json::from_str(&out).unwrap();
    for (field, expected) in [
        ("owner", serde_json::json!("ada@acme.example")),
        (
            "ip_allow",
            serde_json::json!(["10.0.0.0/8", "192.0.2.7/32"]),
        ),
        ("environment", serde_json::json!("test")),
        ("not_before", serde_json::json!(1_900_000_000)),
        ("expires_at", serde_json::json!(2_000_000_000)),
    ] {
        assert_eq!(issued[field], expected, "{out}");
    }
    assert!(err.contains("made a pepper"), "warnings are visible: {err}");
    for (flag, value) in [("--env", "prod"), ("--ip-allow", "10.0.0.0/99")] {
        let args = ["keys", "issue", "--tenant", "acme", flag, value];
        let (code, _, err) = run(&args, &[], dir.path());
        assert_eq!(code, Some(2));
        assert!(err.contains(flag), "{err}");
    }
}

#[test]
fn only_the_first_key_makes_a_pepper_and_a_foreign_one_makes_none() {
    let dir = tempfile::tempdir().unwrap();
    let pepper = dir.path().join("data/pepper");
    let keys = |args: &[&str], env: &[(&str, &str)]| {
        let args: Vec<&str> = std::iter::once("keys")
            .chain(args.iter().copied())
            .collect();
        run(&args, env, dir.path())
    };
    for args in [&["list"][..], &["revoke", "x"], &["rotate", "x"]] {
        let (code, _, _) = keys(args, &[]);
        assert_eq!(code, Some(2), "{args:?}");
        assert!(!pepper.exists(), "{args:?} made a pepper");
    }
    let (code, out, err) = keys(&["issue", "--tenant", "acme"], &[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(pepper.exists());
    let issued: serde_json::Value = serde_json::from_str(&out).unwrap();
    let id = issued["id"].as_str().unwrap();

    // Another pepper, as of a shell that does not know the server's.
    let foreign = "0123456789abcdeffedcba98765432100f1e2d3c4b5a69788796a5b4c3d2e1f0";
    let foreign = [("SPARK_PEPPER", foreign)];
    for args in [&["issue", "--tenant", "acme"][..], &["rotate", id]] {
        let (code, _, err) = keys(args, &foreign);
        assert_eq!(code, Some(2), "{args:?}");
        assert!(err.contains("pepper"), "{err}");
    }
    // It may be the next one, and says so.
    let old = std::fs::read_to_string(&pepper).unwrap();
    let both = [foreign[0], ("SPARK_PEPPER_PREVIOUS", old.trim())];
    let (code, _, err) = keys(&["issue", "--tenant", "acme"], &both);
    assert_eq!(code, Some(0), "{err}");

    // A pepper that is lost: no key is made, and those that leaked can be taken back.
    std::fs::remove_file(&pepper).unwrap();
    for args in [&["issue", "--tenant", "acme"][..], &["rotate", id]] {
        let (code, _, err) = keys(args, &[]);
        assert_eq!(code, Some(2), "{args:?}");
        assert!(err.contains("SPARK_PEPPER"), "{err}");
    }
    let listen = [("SPARK_LISTEN", "127.0.0.1:0")];
    let (code, _, err) = run(&[], &listen, dir.path());
    assert_eq!(code, Some(2));
    assert!(err.contains("SPARK_PEPPER"), "{err}");
    let (code, out, err) = keys(&["list"], &[]);
    assert_eq!((code, out.lines().count()), (Some(0), 2), "{err}");
    for args in [["suspend", id], ["resume", id]] {
        let (code, _, err) = keys(&args, &[]);
        assert_eq!(code, Some(0), "{err}");
    }
    for line in out.lines() {
        let info: serde_json::Value = serde_json::from_str(line).unwrap();
        let (code, _, err) = keys(&["revoke", info["id"].as_str().unwrap()], &[]);
        assert_eq!(code, Some(0), "{err}");
    }
    assert!(!pepper.exists());
    // Nothing lives of which the pepper is missing, so that there may be a new one.
    let (code, _, err) = keys(&["issue", "--tenant", "acme"], &[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(pepper.exists());
}

#[tokio::test]
async fn peppers_and_master_keys_are_rotated() {
    let mut server = Server::start();
    let key = server.key("acme").await;
    let data = server.dir.join("data");
    let restart = |server: Server, env: &[(&str, &str)]| {
        server.terminate();
        let mut server = server;
        server.process.child.wait().unwrap();
        server.restart_with(env);
        server
    };
    // A new pepper: keys of the old one work on, and move over as they are used.
    std::fs::rename(data.join("pepper"), data.join("pepper.old")).unwrap();
    let previous = [("SPARK_PEPPER_PREVIOUS_FILE", "data/pepper.old")];
    server = restart(server, &previous);
    let user = server.client().bearer(&key);
    assert_eq!(user.get("/v1/models").await.status, 200);
    let master = server.client().bearer(&server.master);
    assert_eq!(master.get("/api/spark/keys").await.status, 200);

    // A new master key, which is made under the new pepper; the old pepper is of the past then.
    let new = run(&["keys", "new-master"], &[], &server.dir).1;
    let old = server.master.clone();
    let until = (std::time::SystemTime::now() + Duration::from_secs(6))
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .to_string();
    let without_end = [
        ("SPARK_LISTEN", "127.0.0.1:0"),
        ("SPARK_DATA_DIR", "other"),
        ("SPARK_MASTER_KEY", new.trim()),
        ("SPARK_MASTER_KEY_PREVIOUS", old.as_str()),
    ];
    let (code, _, err) = run(&[], &without_end, &server.dir);
    assert_eq!(code, Some(2));
    assert!(err.contains("SPARK_MASTER_KEY_PREVIOUS_UNTIL"), "{err}");
    let env = [
        ("SPARK_MASTER_KEY", new.trim()),
        ("SPARK_MASTER_KEY_PREVIOUS", old.as_str()),
        ("SPARK_MASTER_KEY_PREVIOUS_UNTIL", until.as_str()),
    ];
    server = restart(server, &env);
    let user = server.client().bearer(&key);
    assert_eq!(user.get("/v1/models").await.status, 200, "it moved over");
    let ask = async |key: &str| {
        let master = server.client().bearer(key);
        master.get("/api/spark/keys").await.status.as_u16()
    };
    assert_eq!(ask(new.trim()).await, 200);
    let mut status = ask(&old).await;
    assert_eq!(status, 200);
    let deadline = Instant::now() + Duration::from_secs(20);
    while status == 200 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(500)).await;
        status = ask(&old).await;
    }
    assert_eq!(status, 401, "its time is over");
    assert_eq!(ask(new.trim()).await, 200);
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_changes_nothing() {
    let server = Server::start();
    let other = run(&["keys", "new-master"], &[], &server.dir).1;
    let env = [
        ("SPARK_LISTEN", "127.0.0.1:0"),
        ("SPARK_MASTER_KEY", other.trim()),
    ];
    let (code, _, err) = run(&[], &env, &server.dir);
    assert_eq!(code, Some(2), "{err}");
    assert!(
        server.dir.join("data/master.key").exists() && server.dir.join("data/master.mac").exists()
    );
    let master = server.client().bearer(&server.master);
    assert_eq!(master.get("/api/spark/keys").await.status, 200);
}

#[test]
fn only_what_issues_keys_makes_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for args in [
        &["list"][..],
        &["suspend", "x"],
        &["resume", "x"],
        &["revoke", "x"],
        &["rotate", "x"],
    ] {
        let args: Vec<&str> = std::iter::once("keys")
            .chain(args.iter().copied())
            .collect();
        let (code, out, err) = run(&args, &[], dir.path());
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}: {err}");
        assert!(err.contains("there is no key store in data"), "{err}");
        assert!(!data.exists(), "{args:?} made a folder");
    }
    // What is refused leaves nothing behind either.
    let long = "x".repeat(129);
    for (flag, value) in [
        ("--tier", "no-such-tier"),
        ("--label", &long),
        ("--scope", "a:*:b"),
        ("--owner", ""),
        ("--env", "prod"),
        ("--ip-allow", "10.0.0.0/99"),
        ("--expires-at", "1"),
        // Milliseconds.
        ("--expires-at", "1900000000000"),
        ("--not-before", "253402300800"),
    ] {
        let args = ["keys", "issue", "--tenant", "acme", flag, value];
        let (code, _, err) = run(&args, &[], dir.path());
        assert_eq!(code, Some(2), "{flag} {value}");
        assert!(err.contains(flag), "{flag}: {err}");
        assert!(!data.exists(), "{flag} {value} made a folder");
    }
}

/// A key that the server made is kept under the pepper of then.
#[test]
fn a_master_key_under_a_forgotten_pepper_says_what_to_set() {
    let mut server = Server::start();
    server.terminate();
    server.process.child.wait().unwrap();
    std::fs::remove_file(server.dir.join("data/pepper")).unwrap();
    let (code, _, err) = run(&[], &[("SPARK_LISTEN", "127.0.0.1:0")], &server.dir);
    assert_eq!(code, Some(2));
    assert!(err.contains("SPARK_MASTER_KEY"), "{err}");
}

#[test]
fn a_running_server_holds_its_keys() {
    let server = Server::start();
    let (code, _, err) = run(&["keys", "list"], &[], &server.dir);
    assert_eq!(code, Some(2));
    assert!(
        err.contains("/api/spark/keys"),
        "the error names the route: {err}"
    );
    let listen = server.address().to_string();
    let (code, _, err) = run(&["healthcheck"], &[("SPARK_LISTEN", &listen)], &server.dir);
    assert_eq!(code, Some(0), "{err}");
}

#[test]
fn the_limits_are_told_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let limits = |most: u32| {
        let text = format!(
            "[ratelimit]\nretry_jitter = \"5s\"\n[ratelimit.tokens]\nquota = 9000\nper = \"1h\"\n\
             [ratelimit.concurrency]\nmost = {most}\n"
        );
        std::fs::write(dir.path().join("spark.toml"), text).unwrap();
    };
    limits(3);
    let (code, out, err) = run(&["--config", "spark.toml", "stack"], &[], dir.path());
    assert_eq!(code, Some(0), "{err}");
    let told = out.lines().find(|line| line.contains("tenant_limit"));
    let told = told.unwrap_or_default();
    for words in [
        "requests: 60 per 1m",
        "tokens: 9000 per 1h",
        "concurrency: 3 at once",
        "retry jitter: 5s",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    limits(0);
    let (code, _, err) = run(&["--config", "spark.toml", "check"], &[], dir.path());
    assert_ne!(code, Some(0));
    assert!(
        err.contains("line 7") && err.contains("ratelimit.concurrency.most"),
        "{err}"
    );
}

#[test]
fn the_order_of_the_layers() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = run(&["stack"], &[], dir.path());
    assert_eq!(code, Some(0), "{err}");
    let names: Vec<&str> = out
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(
        names,
        [
            "edge",
            "last_resort",
            "request_id",
            "trace",
            "context",
            "metrics",
            "security_headers",
            "cors",
            "catch_panic",
            "probes",
            "load_shed",
            "body_limit",
            "ip_limit",
            "data",
            "auth",
            "ledger",
            "require",
            "tenant_limit",
            "sanitize",
            "cache",
            "control",
            "no_store",
            "auth",
            "require",
            "audit",
            "outbound",
            "failover",
            "retry",
            "breaker",
            "bulkhead",
            "timeouts",
            "client",
        ]
    );
}
