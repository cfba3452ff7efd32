//! Time limits by phase: which one is reached, what is answered, and what does not count.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use spark_breaker::{
    Breaker, BreakerLayer, Config, ConnectTimeout, Phase, State, TimeoutError, TimeoutLayer,
    Timeouts,
};
use spark_core::Refusal;
use spark_core::testing::{Behaviour, Probe, TestBody, TestClock, contract};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn request() -> Request<TestBody> {
    Request::new(TestBody::frames(["hello"]))
}

#[tokio::test]
async fn contract_timeouts() {
    contract::check(TimeoutLayer::new(Timeouts::llm()), request).await;
    contract::check(TimeoutLayer::new(Timeouts::default()), request).await;
    let all = Timeouts {
        headers: Some(secs(20)),
        ..Timeouts::llm()
    };
    contract::check(TimeoutLayer::new(all), request).await;
}

#[test]
fn limits_that_could_never_be_reached_are_refused_by_name() {
    let none = Timeouts::default();
    let refused = |timeouts: Timeouts| timeouts.validate().unwrap_err().to_string();
    let first_byte = Some(secs(30));
    for (timeouts, field) in [
        (
            Timeouts {
                connect: Some(secs(31)),
                first_byte,
                ..none
            },
            "timeouts.connect = 31s",
        ),
        (
            Timeouts {
                headers: Some(secs(31)),
                first_byte,
                ..none
            },
            "timeouts.headers = 31s",
        ),
        (
            Timeouts {
                first_byte,
                total: Some(secs(29)),
                ..none
            },
            "timeouts.first_byte = 30s",
        ),
        (
            Timeouts {
                connect: Some(secs(9)),
                total: Some(secs(8)),
                ..none
            },
            "timeouts.connect = 9s",
        ),
        (
            Timeouts {
                idle: Some(secs(9)),
                total: Some(secs(8)),
                ..none
            },
            "timeouts.idle = 9s",
        ),
        (
            Timeouts {
                total: Some(Duration::ZERO),
                ..none
            },
            "timeouts.total = 0ns",
        ),
        (
            Timeouts {
                connect: Some(Duration::ZERO),
                ..none
            },
            "timeouts.connect = 0ns",
        ),
    ] {
        let error = refused(timeouts);
        assert!(error.starts_with(field), "{error}");
    }
    let same = Some(secs(7));
    let equal = Timeouts {
        connect: same,
        headers: same,
        first_byte: same,
        idle: same,
        total: same,
    };
    assert!(equal.validate().is_ok());
    assert!(none.validate().is_ok());
    // Between frames, and before the first one, are different waits.
    let patient = Timeouts {
        first_byte: same,
        idle: Some(secs(8)),
        ..none
    };
    assert!(patient.validate().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_late_head_is_504_and_a_failure() {
    let clock = TestClock::new();
    let rules = Config::llm().jitter(0.0).consecutive(2);
    let breaker = Breaker::new("primary", rules, clock.clock()).unwrap();
    let probe = Probe::new();
    probe.behave(Behaviour::Hang);
    let service = ServiceBuilder::new()
        .layer(BreakerLayer::new(breaker.clone()))
        .layer(TimeoutLayer::new(Timeouts {
            first_byte: Some(secs(30)),
            ..Timeouts::default()
        }))
        .service(probe.clone());
    for _ in 0..2 {
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(response.status(), 504);
        let refusal = response.extensions().get::<Refusal>().unwrap();
        assert_eq!((refusal.by, refusal.code), ("timeout", "upstream_timeout"));
        assert_eq!(probe.in_flight(), 0, "the call is given up");
    }
    assert_eq!(breaker.snapshot().state, State::Open);
}

#[tokio::test(start_paused = true)]
async fn the_shortest_limit_ends_the_wait_for_the_head_and_is_named() {
    let late = async |timeouts: Timeouts| {
        let probe = Probe::new();
        probe.behave(Behaviour::Hang);
        let start = now();
        let service = TimeoutLayer::new(timeouts).layer(probe);
        let response = service.oneshot(request()).await.unwrap();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        let error = *response.extensions().get::<TimeoutError>().unwrap();
        let waited = now() - start;
        assert!(
            waited >= error.limit && waited < error.limit + secs(1),
            "{waited:?}"
        );
        (error.phase, error.limit)
    };
    let all = Timeouts {
        headers: Some(secs(5)),
        first_byte: Some(secs(30)),
        total: Some(secs(60)),
        ..Timeouts::default()
    };
    assert_eq!(late(all).await, (Phase::Headers, secs(5)));
    let no_headers = Timeouts {
        headers: None,
        ..all
    };
    assert_eq!(late(no_headers).await, (Phase::FirstByte, secs(30)));
    let short = Timeouts {
        total: Some(secs(10)),
        ..no_headers
    };
    assert_eq!(late(short).await, (Phase::Total, secs(10)));
    // Limits of centuries are no limits, and no panic.
    let ages = Timeouts {
        first_byte: Some(Duration::MAX),
        idle: Some(Duration::MAX),
        ..short
    };
    assert_eq!(late(ages).await, (Phase::Total, secs(10)));
}

fn now() -> tokio::time::Instant {
    tokio::time::sleep(Duration::ZERO).deadline()
}

/// Sends each frame so long after the one before; then ends, or hangs.
struct Script {
    frames: VecDeque<(Duration, &'static str)>,
    hangs: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some((after, data)) = self.frames.front().copied() else {
            return if self.hangs {
                Poll::Pending
            } else {
                Poll::Ready(None)
            };
        };
        if !after.is_zero() {
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
            std::task::ready!(timer.as_mut().poll(cx));
        }
        self.timer = None;
        self.frames.pop_front();
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(data.as_bytes())))))
    }
}

fn script(frames: impl IntoIterator<Item = (u64, &'static str)>, hangs: bool) -> Script {
    let frames = frames.into_iter().map(|(after, data)| (secs(after), data));
    Script {
        frames: frames.collect(),
        hangs,
        timer: None,
    }
}

/// How many frames came, and what cut the body off after how many seconds since the call.
async fn read(
    timeouts: Timeouts,
    media: &'static str,
    script: Script,
    reader: Duration,
) -> (usize, Option<(Phase, u64)>) {
    let script = std::sync::Mutex::new(Some(script));
    let client = service_fn(move |_: Request<()>| {
        let body = script.lock().unwrap().take().unwrap();
        async move {
            let response = Response::builder().header("content-type", media);
            Ok::<_, Infallible>(response.body(body).unwrap())
        }
    });
    let start = now();
    let service = TimeoutLayer::new(timeouts).layer(client);
    let mut body = pin!(service.oneshot(Request::new(())).await.unwrap().into_body());
    let mut frames = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(_) => frames += 1,
            Err(error) => {
                assert!(body.frame().await.is_none(), "nothing after an error");
                assert!(body.is_end_stream());
                let error = error.downcast::<TimeoutError>().unwrap();
                return (frames, Some((error.phase, (now() - start).as_secs())));
            }
        }
        tokio::time::sleep(reader).await;
    }
    (frames, None)
}

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";
const QUICK: Duration = Duration::ZERO;

fn dripping(every: u64, frames: usize) -> Script {
    script(std::iter::repeat_n((every, "x"), frames), false)
}

#[tokio::test(start_paused = true)]
async fn bodies_are_cut_off_when_they_stall_or_never_end() {
    let idle = Timeouts {
        idle: Some(secs(15)),
        ..Timeouts::default()
    };
    assert_eq!(
        read(idle, JSON, dripping(14, 100), QUICK).await,
        (100, None)
    );
    let cut = Some((Phase::Idle, 15));
    assert_eq!(read(idle, JSON, dripping(16, 100), QUICK).await, (0, cut));
    // A first word may take longer than the ones that follow, but not for ever.
    let both = Timeouts {
        first_byte: Some(secs(30)),
        ..idle
    };
    let cut = Some((Phase::Idle, 35));
    assert_eq!(read(both, JSON, dripping(20, 2), QUICK).await, (1, cut));
    let cut = Some((Phase::FirstByte, 30));
    assert_eq!(read(both, JSON, dripping(31, 2), QUICK).await, (0, cut));
    assert_eq!(read(both, JSON, dripping(14, 9), QUICK).await, (9, None));
    let total = Timeouts {
        total: Some(secs(60)),
        ..Timeouts::default()
    };
    assert_eq!(read(total, JSON, dripping(1, 59), QUICK).await, (59, None));
    let cut = Some((Phase::Total, 60));
    assert_eq!(read(total, JSON, dripping(7, 100), QUICK).await, (8, cut));
    let all = Timeouts {
        total: Some(secs(60)),
        ..both
    };
    assert_eq!(read(all, JSON, dripping(7, 100), QUICK).await, (8, cut));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_always_has_one_more_frame_does_not_outlive_its_total() {
    let all = Timeouts {
        total: Some(secs(60)),
        idle: Some(secs(5)),
        first_byte: Some(secs(3)),
        ..Timeouts::default()
    };
    // After one wait, so that the timer was last set for something else.
    let endless = script(
        [(4, "x"), (1, "x")].into_iter().chain([(0, "x"); 500]),
        false,
    );
    let only_total = Timeouts {
        first_byte: None,
        ..all
    };
    let (frames, cut) = read(only_total, JSON, endless, secs(1)).await;
    assert_eq!(cut, Some((Phase::Total, 60)), "after {frames} frames");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_not_the_providers_fault() {
    let idle = Timeouts {
        idle: Some(secs(15)),
        ..Timeouts::default()
    };
    assert_eq!(read(idle, JSON, dripping(1, 3), secs(100)).await, (3, None));
    let both = Timeouts {
        first_byte: Some(secs(30)),
        ..idle
    };
    assert_eq!(read(both, JSON, dripping(1, 3), secs(100)).await, (3, None));
}

#[tokio::test(start_paused = true)]
async fn pings_for_ever_do_not_end_the_wait_for_the_first_byte() {
    let timeouts = Timeouts {
        first_byte: Some(secs(30)),
        idle: Some(secs(15)),
        ..Timeouts::default()
    };
    let cut = Some((Phase::FirstByte, 30));
    for ping in [
        ": ping\n\n",
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        "event: keepalive\r\ndata: {}\r\n\r\n",
        "retry: 100\n\n",
    ] {
        let pings = script([(7, ping); 100], false);
        assert_eq!(read(timeouts, EVENTS, pings, QUICK).await, (4, cut));
    }
    // Cut over frames in the middle of a comment.
    let halves = [
        (7, ": OPENROUTER PR"),
        (7, "OCESSING: 1\r"),
        (7, "\n\r\n:"),
        (7, "x\n"),
        (9, "data: 1\n\n"),
    ];
    assert_eq!(
        read(timeouts, EVENTS, script(halves, false), QUICK).await,
        (4, cut)
    );
    // Of another media type they are data.
    let pings = script([(7, ": ping\n\n"); 100], false);
    assert_eq!(read(timeouts, JSON, pings, QUICK).await, (100, None));
}

#[tokio::test(start_paused = true)]
async fn after_the_first_byte_and_without_a_limit_on_it_pings_are_a_sign_of_life() {
    let idle = Timeouts {
        idle: Some(secs(15)),
        ..Timeouts::default()
    };
    let pings = [(14, ": ping\n\n"); 10];
    assert_eq!(
        read(idle, EVENTS, script(pings, false), QUICK).await,
        (10, None)
    );
    let first_byte = Timeouts {
        first_byte: Some(secs(30)),
        ..idle
    };
    let answer = [(20, "data: 1\n\n")].into_iter().chain(pings);
    assert_eq!(
        read(first_byte, EVENTS, script(answer, true), QUICK).await,
        (11, Some((Phase::Idle, 20 + 140 + 15)))
    );
}

#[tokio::test(start_paused = true)]
async fn frames_without_data_end_neither_wait() {
    let both = Timeouts {
        first_byte: Some(secs(30)),
        idle: Some(secs(15)),
        ..Timeouts::default()
    };
    let empty = script([(7, ""); 100], false);
    let cut = Some((Phase::FirstByte, 30));
    assert_eq!(read(both, JSON, empty, QUICK).await, (4, cut));
    let then_empty = script([(1, "x")].into_iter().chain([(7, ""); 100]), false);
    let cut = Some((Phase::Idle, 16));
    assert_eq!(read(both, JSON, then_empty, QUICK).await, (3, cut));
}

#[tokio::test(start_paused = true)]
async fn answers_without_a_body_have_no_first_byte_to_wait_for() {
    let timeouts = Timeouts {
        first_byte: Some(secs(30)),
        ..Timeouts::default()
    };
    for (method, status) in [(Method::HEAD, 200), (Method::GET, 204)] {
        let client = service_fn(move |_: Request<()>| async move {
            let response = Response::builder().status(status);
            Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
        });
        let service = TimeoutLayer::new(timeouts).layer(client);
        let request = Request::builder().method(method).body(()).unwrap();
        let body = service.oneshot(request).await.unwrap().into_body();
        tokio::time::sleep(secs(100)).await;
        assert!(body.is_end_stream());
        assert!(body.collect().await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_never_answers_is_given_up() {
    let never = service_fn(|_: Uri| std::future::pending::<Result<(), Infallible>>());
    let timeouts = Timeouts {
        connect: Some(secs(2)),
        ..Timeouts::default()
    };
    let start = now();
    let error = timeouts
        .connector(never)
        .oneshot(Uri::default())
        .await
        .unwrap_err();
    assert_eq!((now() - start).as_secs(), 2);
    let error = TimeoutError::within(&*error).unwrap();
    assert_eq!((error.phase, error.limit), (Phase::Connect, secs(2)));

    let slow = service_fn(|_: Uri| async {
        tokio::time::sleep(secs(100)).await;
        Ok::<_, Infallible>("connected")
    });
    let unlimited = Timeouts::default().connector(slow);
    assert_eq!(
        unlimited.oneshot(Uri::default()).await.unwrap(),
        "connected"
    );

    let refused = service_fn(async |_: Uri| Err::<(), _>(std::io::Error::other("refused")));
    let error = ConnectTimeout::new(refused, secs(2))
        .oneshot(Uri::default())
        .await;
    let error = error.unwrap_err();
    assert!(TimeoutError::within(&*error).is_none());
    assert!(
        error.is::<std::io::Error>(),
        "the connector's own error comes through"
    );
}

/// A ping every 20 ms, for ever.
struct Pings(Option<Pin<Box<Sleep>>>);

impl Body for Pings {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let pause = || Box::pin(tokio::time::sleep(Duration::from_millis(20)));
        std::task::ready!(self.0.get_or_insert_with(pause).as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b": ping\n\n")))))
    }
}

async fn provider(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = hyper::service::service_fn(async |request: Request<Incoming>| {
            if request.uri().path() == "/no-head" {
                std::future::pending::<()>().await;
            }
            let response = Response::builder().header("content-type", EVENTS);
            Ok::<_, Infallible>(response.body(Pings(None)).unwrap())
        });
        let io = TokioIo::new(stream);
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
    }
}

#[tokio::test]
async fn the_phase_that_was_late_is_told_around_hyper_s_client_over_a_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(provider(listener));
    // To `nowhere` there is never a connection.
    let connector = service_fn(move |uri: Uri| {
        Box::pin(async move {
            if uri.host() == Some("nowhere") {
                std::future::pending::<()>().await;
            }
            TcpStream::connect(address).await.map(TokioIo::new)
        })
    });
    let timeouts = Timeouts {
        connect: Some(Duration::from_millis(100)),
        headers: Some(Duration::from_millis(200)),
        first_byte: Some(Duration::from_millis(300)),
        ..Timeouts::default()
    };
    timeouts.validate().unwrap();
    let client = Client::builder(TokioExecutor::new())
        .build::<_, Empty<Bytes>>(timeouts.connector(connector));
    let client = TimeoutLayer::new(timeouts).layer(client);
    let get = async |uri: &'static str| {
        let request = Request::get(uri).body(Empty::new()).unwrap();
        client.clone().oneshot(request).await
    };

    let error = get("http://nowhere/").await.unwrap_err();
    assert_eq!(TimeoutError::within(&error).unwrap().phase, Phase::Connect);
    let late = get("http://local/no-head").await.unwrap();
    let error = late.extensions().get::<TimeoutError>().unwrap();
    assert_eq!((late.status().as_u16(), error.phase), (504, Phase::Headers));
    let pings = get("http://local/pings").await.unwrap();
    assert_eq!(pings.status(), 200);
    let error = pings.into_body().collect().await.unwrap_err();
    let error = TimeoutError::within(&*error).unwrap();
    assert_eq!(error.phase, Phase::FirstByte);
    server.abort();
}
