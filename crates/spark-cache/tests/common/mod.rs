//! A provider to order, and a client for it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "no test uses all of it, and a test fails by panicking"
)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use spark_cache::{Cache, CacheBody, CacheLayer, CacheService, LlmPolicy, When};
use spark_core::testing::TestClock;
use spark_core::{BoxError, Context, Principal, RequestBody, User};
use tower::util::BoxCloneService;
use tower::{Layer, ServiceExt, service_fn};

pub const CHAT: &str = r#"{"choices":[{"finish_reason":"stop","message":{"content":"hi"}}]}"#;
pub const STREAM: [&str; 4] = [
    "data: {\"choices\":[{\"delta\":{\"content\":\"h\"}}]}\n\n",
    "data: {\"choices\":[{\"delta\":{\"content\":\"i\"}}]}\n\n",
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: [DONE]\n\n",
];

pub type ReqBody = Full<Bytes>;
// An error of its own: rustc cannot yet prove `BoxError: Into<BoxError>` within an async block.
pub type ResBody = UnsyncBoxBody<Bytes, std::io::Error>;
pub type Inner = BoxCloneService<Request<RequestBody<ReqBody>>, Response<ResBody>, BoxError>;
pub type Service = CacheService<Inner, LlmPolicy>;
pub type Asked = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;
pub type Answer = Response<CacheBody<ResBody>>;

/// Everything that a test holds.
pub struct Setup {
    pub cache: Cache,
    pub policy: LlmPolicy,
    pub clock: TestClock,
    pub calls: Arc<AtomicUsize>,
    pub service: Service,
}

impl Setup {
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Boxed: rustc cannot yet prove within an async block that a `dyn` service is `'static`.
    pub fn ask(&self, request: Request<ReqBody>) -> Asked {
        Box::pin(self.service.clone().oneshot(request))
    }

    /// Asks, and reads the answer.
    pub async fn get(&self, request: Request<ReqBody>) -> (StatusCode, String, String) {
        let response = self.ask(request).await.unwrap();
        let status = response.status();
        let how = cache_status(response.headers());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, how, String::from_utf8(body.to_vec()).unwrap())
    }
}

pub fn cache_status(headers: &HeaderMap) -> String {
    headers
        .get("cache-status")
        .map(|value| value.to_str().unwrap().to_owned())
        .unwrap_or_default()
}

pub fn setup<F, Fut>(answer: F) -> Setup
where
    F: Fn(usize) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response<ResBody>, BoxError>> + Send + 'static,
{
    setup_with(|builder| builder, answer)
}

pub fn setup_with<F, Fut>(
    configure: impl FnOnce(spark_cache::Builder) -> spark_cache::Builder,
    answer: F,
) -> Setup
where
    F: Fn(usize) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response<ResBody>, BoxError>> + Send + 'static,
{
    let clock = TestClock::new();
    let cache = configure(Cache::builder().clock(clock.clock()))
        .build()
        .unwrap();
    let policy = LlmPolicy::builder()
        .path("/v1/chat/completions")
        .public_path("/demo")
        .when(When::Deterministic)
        .build()
        .unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let inner = service_fn(move |request: Request<RequestBody<ReqBody>>| {
        drop(request);
        answer(counted.fetch_add(1, Ordering::SeqCst))
    });
    let service = CacheLayer::new(cache.clone(), policy.clone()).layer(BoxCloneService::new(inner));
    Setup {
        cache,
        policy,
        clock,
        calls,
        service,
    }
}

/// A question of a tenant.
pub fn question(tenant: &str, text: &str) -> Request<ReqBody> {
    with_body(
        tenant,
        &format!(r#"{{"temperature":0,"messages":["{text}"]}}"#),
    )
}

pub fn with_body(tenant: &str, body: &str) -> Request<ReqBody> {
    let user = User::new("key".parse().unwrap(), tenant.parse().unwrap());
    let context =
        Context::new(TestClock::new().clock().now()).with_principal(Principal::from(user));
    Request::post("/v1/chat/completions")
        .header("content-type", "application/json")
        .extension(context)
        .body(Full::from(body.to_owned()))
        .unwrap()
}

pub fn json(body: impl Into<Bytes>) -> Response<ResBody> {
    Response::builder()
        .header("content-type", "application/json")
        .body(boxed(Full::new(body.into())))
        .unwrap()
}

pub fn boxed<B>(body: B) -> ResBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(std::io::Error::other).boxed_unsync()
}

/// Events with a pause before each, and what ends them.
pub fn events(frames: Vec<Bytes>, pause: Duration, end: Ending) -> Response<ResBody> {
    let body = Paced {
        frames: frames.into(),
        pause,
        sleep: None,
        end,
    };
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(boxed(body))
        .unwrap()
}

#[derive(Clone, Copy, PartialEq)]
pub enum Ending {
    Clean,
    Error,
    Panic,
    Never,
}

struct Paced {
    frames: std::collections::VecDeque<Bytes>,
    pause: Duration,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    end: Ending,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let pause = self.pause;
        if !pause.is_zero() {
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            std::task::ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        match (self.frames.pop_front(), self.end) {
            (Some(frame), _) => Poll::Ready(Some(Ok(Frame::data(frame)))),
            (None, Ending::Clean) => Poll::Ready(None),
            (None, Ending::Error) => Poll::Ready(Some(Err("cut".into()))),
            (None, Ending::Panic) => panic!("on purpose"),
            (None, Ending::Never) => Poll::Pending,
        }
    }
}

pub fn stream() -> Vec<Bytes> {
    STREAM.map(Bytes::from).into()
}
