//! Checks that hang, panic and are asked for by a thousand at once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use spark_core::testing::TestClock;
use spark_health::{CheckResult, Gate, Health, HealthBuilder, Readiness, Status};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

fn up(builder: HealthBuilder) -> Health {
    let health = builder.build().unwrap();
    health.started();
    health
}

fn counted(runs: &Arc<AtomicUsize>, takes: Duration) -> impl Fn() -> Pending + use<> {
    let runs = Arc::clone(runs);
    move || {
        runs.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            sleep(takes).await;
            CheckResult::pass()
        })
    }
}

type Pending = std::pin::Pin<Box<dyn Future<Output = CheckResult> + Send>>;

async fn json(health: &Health) -> Value {
    serde_json::to_value(health.report().await).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_fails_in_time_and_holds_up_no_other_gate() {
    let health = up(Health::builder()
        .check("hangs", Gate::Warn, std::future::pending::<CheckResult>)
        .check_fn("well", Gate::Ready, CheckResult::pass));
    let ready = tokio::time::timeout(Duration::from_millis(1), health.ready()).await;
    assert_eq!(
        ready.unwrap(),
        Readiness::Ready,
        "readiness waits for its own gates only"
    );

    let report = tokio::time::timeout(3 * SECOND, json(&health))
        .await
        .unwrap();
    assert_eq!(report["status"], "warn");
    assert_eq!(report["checks"]["hangs"][0]["status"], "fail");
    assert_eq!(
        report["checks"]["hangs"][0]["output"],
        "the check gave no answer within 2s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_hangs_makes_it_unready() {
    let health =
        up(Health::builder().check("hangs", Gate::Ready, std::future::pending::<CheckResult>));
    assert_eq!(health.ready().await, Readiness::Failing);
}

#[tokio::test]
async fn a_panic_is_a_failure() {
    let panics = || -> CheckResult { panic!("password: hunter2") };
    let health = up(Health::builder()
        .ttl(Duration::ZERO)
        .check_fn("sync", Gate::Ready, panics)
        .check("async", Gate::Info, || async {
            panic!("on purpose") as CheckResult
        })
        .check("at-once", Gate::Info, || -> Pending {
            panic!("before the future is there")
        }));
    for _ in 0..3 {
        assert_eq!(health.ready().await, Readiness::Failing);
        let report = json(&health).await;
        for check in ["sync", "async", "at-once"] {
            assert_eq!(report["checks"][check][0]["output"], "the check panicked");
        }
        assert!(!report.to_string().contains("hunter2"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_who_ask_at_once_cause_one_run() {
    let runs = Arc::new(AtomicUsize::new(0));
    let clock = TestClock::new();
    let health = up(Health::builder()
        .clock(clock.clock())
        .check(
            "one",
            Gate::Ready,
            counted(&runs, Duration::from_millis(50)),
        )
        .check("two", Gate::Info, counted(&runs, Duration::from_millis(50))));
    for round in 1..=3 {
        let asking: Vec<_> = (0..1_000)
            .map(|number| {
                let health = health.clone();
                tokio::spawn(async move {
                    if number % 2 == 0 {
                        assert!(health.ready().await.is_ready());
                    } else {
                        assert_eq!(health.report().await.status(), Status::Pass);
                    }
                })
            })
            .collect();
        for asked in asking {
            asked.await.unwrap();
        }
        assert_eq!(
            runs.load(Ordering::SeqCst),
            2 * round,
            "one run of each in round {round}"
        );
        clock.advance(2 * SECOND);
    }
}

#[tokio::test]
async fn an_answer_is_remembered_for_its_time() {
    let runs = Arc::new(AtomicUsize::new(0));
    let clock = TestClock::new();
    let builder = Health::builder().clock(clock.clock()).ttl(5 * SECOND);
    let health = up(builder.check("one", Gate::Ready, counted(&runs, Duration::ZERO)));
    for (after, expected) in [(0, 1), (4, 1), (1, 2), (4, 2), (1, 3)] {
        clock.advance(after * SECOND);
        health.ready().await;
        health.report().await;
        assert_eq!(runs.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_does_not_stop_the_run() {
    let runs = Arc::new(AtomicUsize::new(0));
    let health = up(Health::builder().check("slow", Gate::Ready, counted(&runs, SECOND)));
    assert!(
        tokio::time::timeout(SECOND / 10, health.ready())
            .await
            .is_err()
    );
    assert!(health.ready().await.is_ready());
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_blocks_its_thread_is_not_run_again_meanwhile() {
    let runs = Arc::new(AtomicUsize::new(0));
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let counter = Arc::clone(&runs);
    let health = up(Health::builder()
        .ttl(Duration::ZERO)
        .timeout(Duration::from_millis(50))
        .check_fn("blocks", Gate::Ready, move || {
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = held.lock().unwrap().recv();
            CheckResult::pass()
        }));
    for _ in 0..5 {
        assert_eq!(health.ready().await, Readiness::Failing);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    drop(release);
}

#[tokio::test]
async fn gates_weigh_differently() {
    for (gate, found, ready, whole) in [
        (Gate::Ready, CheckResult::fail("x"), false, Status::Fail),
        (Gate::Ready, CheckResult::warn("x"), true, Status::Warn),
        (Gate::Warn, CheckResult::fail("x"), true, Status::Warn),
        (Gate::Info, CheckResult::fail("x"), true, Status::Pass),
        (Gate::Ready, CheckResult::pass(), true, Status::Pass),
    ] {
        let health = up(Health::builder().check_fn("one", gate, move || found.clone()));
        assert_eq!(health.ready().await.is_ready(), ready);
        let report = health.report().await;
        assert_eq!(report.status(), whole);
        let code = if whole == Status::Fail { 503 } else { 200 };
        assert_eq!(report.into_response().status(), code);
    }
}

#[tokio::test]
async fn the_phases_go_one_way() {
    let health = Health::builder().build().unwrap();
    assert_eq!(
        (health.ready().await, health.is_started()),
        (Readiness::Starting, false)
    );
    assert_eq!(json(&health).await["output"], "starting");
    health.started();
    assert_eq!(health.ready().await, Readiness::Ready);
    health.begin_drain();
    health.started();
    assert_eq!(
        (health.ready().await, health.is_started()),
        (Readiness::Draining, true)
    );
    assert_eq!(json(&health).await["status"], "fail");
    assert_eq!(
        health.live(),
        Status::Pass,
        "a draining process is not to be killed"
    );
}

#[tokio::test]
async fn the_detailed_report_is_as_the_draft_has_it() {
    let clock = TestClock::new();
    let health = up(Health::builder()
        .clock(clock.clock())
        .service_id("spark")
        .release("1.2.3")
        .description("a gateway")
        .check_fn("breakers:state", Gate::Warn, || {
            CheckResult::warn("1 of 2 open")
                .observed(1, "breakers")
                .part("primary", CheckResult::fail("open"))
                .part("secondary", CheckResult::pass())
        }));
    clock.advance(90 * SECOND);
    let response = health.report().await.into_response();
    assert_eq!(
        response.headers()["content-type"],
        "application/health+json"
    );
    assert_eq!(response.headers()["cache-control"], "no-store");
    let time = "2026-01-01T00:01:30Z";
    let expected = json!({
        "status": "warn",
        "releaseId": "1.2.3",
        "serviceId": "spark",
        "description": "a gateway",
        "checks": {
            "breakers:state": [
                {"status": "warn", "observedValue": 1, "observedUnit": "breakers",
                 "output": "1 of 2 open", "time": time},
                {"componentId": "primary", "status": "fail", "output": "open", "time": time},
                {"componentId": "secondary", "status": "pass", "time": time},
            ],
            "uptime": [{"status": "pass", "observedValue": 90, "observedUnit": "s", "time": time}],
        },
    });
    assert_eq!(
        serde_json::from_str::<Value>(response.body()).unwrap(),
        expected
    );
}

#[tokio::test]
async fn strangers_see_the_status_alone() {
    let health = up(Health::builder()
        .service_id("spark")
        .release("1.2.3")
        .check_fn("store", Gate::Ready, || {
            CheckResult::fail("postgres://user:secret@10.0.0.1")
        }));
    let response = health.report().await.public().into_response();
    assert_eq!(response.status(), 503);
    assert_eq!(response.body(), r#"{"status":"fail"}"#);
    assert!(!format!("{health:?}").contains("secret"));
}

#[test]
fn outside_of_a_runtime_it_fails_instead_of_panicking() {
    let health = up(Health::builder().check_fn("one", Gate::Ready, CheckResult::pass));
    let mut ready = std::pin::pin!(health.ready());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let polled = ready.as_mut().poll(&mut cx);
    assert_eq!(polled, std::task::Poll::Ready(Readiness::Failing));
}

#[test]
fn a_builder_says_what_is_wrong() {
    let one = |name: &str| Health::builder().check_fn(name, Gate::Info, CheckResult::pass);
    assert!(one("a b").build().is_err());
    assert!(one("uptime").build().is_err());
    assert!(
        one("a")
            .check_fn("a", Gate::Info, CheckResult::pass)
            .build()
            .is_err()
    );
    assert!(one("a").timeout(Duration::ZERO).build().is_err());
    assert!(one("a").ttl(Duration::ZERO).build().is_ok());
}
