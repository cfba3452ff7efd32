//! Hooks that hang, fail, panic, recurse; and the webhook over a real socket.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use spark_core::testing::TestClock;
use spark_errors::{
    Delivery, ErrorTracker, Event, Hook, HookError, MemoryHook, TrackerBuilder, WebhookHook,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Answers each attempt with what the function says.
struct Scripted<F>(AtomicU32, F);

impl<F: Fn(u32) -> Delivery<'static> + Send + Sync> Hook for Scripted<F> {
    fn name(&self) -> &str {
        "scripted"
    }

    fn deliver(&self, _: Arc<Event>) -> Delivery<'_> {
        (self.1)(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn builder() -> TrackerBuilder {
    ErrorTracker::builder()
        .log(false)
        .per_group(u32::MAX, Duration::from_secs(60))
}

fn scripted(script: impl Fn(u32) -> Delivery<'static> + Send + Sync + 'static) -> TrackerBuilder {
    builder().hook(Scripted(AtomicU32::new(0), script))
}

fn retry() -> Result<(), HookError> {
    Err(HookError::Retry {
        reason: "planned".into(),
        after: None,
    })
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again() {
    let tracker = scripted(|n| Box::pin(async move { if n < 2 { retry() } else { Ok(()) } }))
        .build()
        .unwrap();
    tracker.event("x").send();
    assert_eq!(tracker.flush(Duration::from_secs(60)).await, 0);
    let hook = &tracker.stats().hooks[0];
    assert_eq!((hook.delivered, hook.dropped), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_not_tried_again() {
    let attempts = Arc::new(AtomicU32::new(0));
    let counter = attempts.clone();
    let tracker = scripted(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Err(HookError::Rejected("no".into())) })
    });
    let tracker = tracker.build().unwrap();
    tracker.event("x").send();
    tracker.flush(Duration::from_secs(60)).await;
    assert_eq!(attempts.load(Ordering::Relaxed), 1);
    assert_eq!(tracker.stats().hooks[0].dropped, 1);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_hangs_is_cut_drops_are_counted_and_flush_keeps_its_deadline() {
    let tracker = scripted(|_| Box::pin(std::future::pending()))
        .hook_queue(8)
        .build()
        .unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "the paused clock of the runtime is meant"
    )]
    let began = tokio::time::Instant::now();
    for _ in 0..100 {
        tracker.event("x").send();
    }
    assert!(began.elapsed().is_zero(), "captures do not wait");
    let left = tracker.flush(Duration::from_secs(2)).await;
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    assert!(left > 0 && left <= 9, "{left}");
    assert!(tracker.stats().hooks[0].dropped >= 91);
    assert_eq!(
        tracker.recent(1_000).len(),
        100,
        "what is kept does not depend on hooks"
    );
    // In the end each is given up.
    assert_eq!(tracker.flush(Duration::from_secs(600)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_keeps_failing_rests_and_then_tries_again() {
    let clock = TestClock::new();
    let attempts = Arc::new(AtomicU32::new(0));
    let (counter, healthy) = (attempts.clone(), Arc::new(AtomicU32::new(0)));
    let well = healthy.clone();
    let tracker = scripted(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        let well = well.load(Ordering::Relaxed) == 1;
        Box::pin(async move { if well { Ok(()) } else { retry() } })
    });
    let tracker = tracker
        .clock(clock.clock())
        .hook_attempts(1, Duration::ZERO)
        .build()
        .unwrap();
    for _ in 0..10 {
        tracker.event("x").send();
    }
    tracker.flush(Duration::from_secs(60)).await;
    assert_eq!(attempts.load(Ordering::Relaxed), 3);
    assert!(tracker.stats().hooks[0].resting);
    healthy.store(1, Ordering::Relaxed);
    clock.advance(Duration::from_secs(30));
    tracker.event("x").send();
    tracker.flush(Duration::from_secs(60)).await;
    let hook = &tracker.stats().hooks[0];
    assert_eq!((hook.delivered, hook.dropped, hook.resting), (1, 10, false));
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_lives_on_and_the_others_do_not_notice() {
    let memory = MemoryHook::new(100);
    let tracker = scripted(|n| {
        assert!(n != 0, "planned, in deliver itself");
        Box::pin(async move {
            if n < 2 {
                panic!("planned, in its future")
            } else {
                Ok(())
            }
        })
    });
    let tracker = tracker.hook(memory.clone()).build().unwrap();
    tracker.event("x").send();
    assert_eq!(tracker.flush(Duration::from_secs(60)).await, 0);
    assert_eq!(tracker.stats().hooks[0].delivered, 1);
    assert_eq!(memory.events().len(), 1);
}

#[tokio::test]
async fn what_a_hook_captures_goes_to_no_hook() {
    let own: Arc<Mutex<Option<ErrorTracker>>> = Arc::default();
    let inner = own.clone();
    let tracker = scripted(move |_| {
        let tracker = inner.lock().unwrap().clone();
        Box::pin(async move {
            tracker.unwrap().event("inside").message("again").send();
            Ok(())
        })
    });
    let tracker = tracker.build().unwrap();
    *own.lock().unwrap() = Some(tracker.clone());
    tracker.event("x").send();
    assert_eq!(tracker.flush(Duration::from_secs(5)).await, 0);
    let hook = &tracker.stats().hooks[0];
    assert_eq!((hook.delivered, hook.dropped), (1, 1));
    assert_eq!(tracker.stats().captured, 2);
    own.lock().unwrap().take();
}

#[tokio::test]
async fn the_task_of_a_hook_ends_with_the_tracker() {
    let memory = MemoryHook::new(10);
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let tracker = builder().hook(memory.clone()).build().unwrap();
    tracker.event("x").send();
    assert_eq!(alive(), 1);
    drop(tracker);
    tokio::time::timeout(Duration::from_secs(5), async {
        while alive() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(memory.events().len(), 1, "what was queued is delivered");
}

/// Answers one connection with `answer`, and gives what came.
async fn sink(listener: &TcpListener, answer: &str) -> String {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut came = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = socket.read(&mut buffer).await.unwrap();
        came.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&came);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            });
            if read == 0 || body.len() >= length.unwrap_or(0) {
                break;
            }
        }
    }
    socket.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(came).unwrap()
}

fn header<'h>(request: &'h str, name: &str) -> &'h str {
    let line = request
        .lines()
        .find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
    line.and_then(|line| line.split_once(": "))
        .map(|(_, value)| value)
        .unwrap_or_default()
}

#[tokio::test]
async fn the_webhook_posts_signed_json_without_secrets_and_heeds_answers() {
    use hmac::{Hmac, KeyInit, Mac};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/T0P", listener.local_addr().unwrap());
    let clock = TestClock::new();
    clock.set_unix_time(Duration::from_secs(1_700_000_000));
    let hook = WebhookHook::new(&url)
        .unwrap()
        .secret("s3cret")
        .clock(clock.clock());
    let tracker = builder()
        .hook(hook)
        .hook_attempts(3, Duration::from_millis(10))
        .build()
        .unwrap();
    let id = tracker
        .event("provider")
        .message("refused, password=hunter2hunter2")
        .send();

    let close = "connection: close\r\ncontent-length: 0\r\n\r\n";
    let busy = format!("HTTP/1.1 429 Too Many Requests\r\nretry-after: 0\r\n{close}");
    let first = sink(&listener, &busy).await;
    let second = sink(&listener, &format!("HTTP/1.1 204 No Content\r\n{close}")).await;
    assert_eq!(tracker.flush(Duration::from_secs(5)).await, 0);
    let stats = &tracker.stats().hooks[0];
    assert_eq!((stats.delivered, stats.dropped), (1, 0));

    for request in [first, second] {
        assert!(request.starts_with("POST /hooks/T0P HTTP/1.1\r\n"));
        assert_eq!(header(&request, "x-spark-event"), id.to_string());
        assert_eq!(header(&request, "x-spark-timestamp"), "1700000000");
        let body = request.split_once("\r\n\r\n").unwrap().1;
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"s3cret").unwrap();
        mac.update(format!("1700000000.{body}").as_bytes());
        let expected: String = mac
            .finalize()
            .into_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            header(&request, "x-spark-signature"),
            format!("v1={expected}")
        );
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json["type"], "spark.error");
        assert_eq!(json["event"]["message"], "refused, password=[redacted]");
        assert!(!request.contains("hunter2"));
    }
}

#[tokio::test]
async fn a_webhook_that_is_not_there_or_closes_early_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let hook = WebhookHook::new(&url).unwrap();
    let tracker = builder()
        .hook(hook)
        .hook_attempts(2, Duration::from_millis(1))
        .build()
        .unwrap();
    tracker.event("x").send();
    drop(listener.accept().await.unwrap());
    drop(listener);
    assert_eq!(tracker.flush(Duration::from_secs(10)).await, 0);
    assert_eq!(tracker.stats().hooks[0].dropped, 1);
}
