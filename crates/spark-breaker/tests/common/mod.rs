//! Providers to order, that write down what they were asked.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test takes what it needs, and fails where it cannot go on"
)]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use spark_breaker::Answered;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

pub(crate) type Answer = Result<Response<Full<Bytes>>, std::io::Error>;
pub(crate) type Client = BoxCloneSyncService<Request<Bytes>, Response<Full<Bytes>>, std::io::Error>;

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What the providers were asked, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    pub(crate) fn write(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    pub(crate) fn client(&self, name: &'static str, answer: fn() -> Answer) -> Client {
        self.answering(name, move |_| answer())
    }

    /// The answer depends on how many calls there were before.
    pub(crate) fn answering(
        &self,
        name: &'static str,
        answer: impl Fn(usize) -> Answer + Clone + Send + Sync + 'static,
    ) -> Client {
        let log = self.clone();
        let calls = Arc::new(Mutex::new(0));
        BoxCloneSyncService::new(service_fn(move |request: Request<Bytes>| {
            let body = String::from_utf8(request.into_body().to_vec()).unwrap();
            log.write(format!("{name}:{body}"));
            let before = {
                let mut calls = calls.lock().unwrap();
                *calls += 1;
                *calls - 1
            };
            let answer = answer(before);
            async move { answer }
        }))
    }
}

pub(crate) fn status<const STATUS: u16>() -> Answer {
    let mut response = Response::new(Full::from("body"));
    *response.status_mut() = StatusCode::from_u16(STATUS).unwrap();
    Ok(response)
}

/// With `Retry-After`.
pub(crate) fn wait<const STATUS: u16, const SECONDS: u64>() -> Answer {
    status::<STATUS>().map(|mut response| {
        let after = HeaderValue::from(SECONDS);
        response.headers_mut().insert("retry-after", after);
        response
    })
}

pub(crate) fn broken() -> Answer {
    Err(std::io::Error::other("connection refused"))
}

pub(crate) fn hanging() -> Client {
    BoxCloneSyncService::new(service_fn(async |_: Request<Bytes>| {
        std::future::pending::<Answer>().await
    }))
}

pub(crate) fn ask() -> Request<Bytes> {
    Request::new(Bytes::from_static(b"prompt"))
}

pub(crate) fn post() -> Request<Bytes> {
    let mut request = ask();
    *request.method_mut() = Method::POST;
    request
}

pub(crate) fn answered<B>(response: &Response<B>) -> (String, usize) {
    let answered = response.extensions().get::<Answered>().unwrap();
    (answered.hop.to_string(), answered.hops)
}

/// Tokio's clock, which tests pause.
pub(crate) fn now() -> tokio::time::Instant {
    tokio::time::sleep(Duration::ZERO).deadline()
}

pub(crate) async fn text<B>(response: Response<B>) -> String
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let body = http_body_util::BodyExt::collect(response.into_body()).await;
    String::from_utf8(body.unwrap().to_bytes().to_vec()).unwrap()
}

/// A body whose frames come after these times, each; the last may be an error.
pub(crate) fn paced(frames: Vec<(Duration, Result<&'static str, &'static str>)>) -> Paced {
    Paced {
        frames: frames.into(),
        timer: None,
    }
}

pub(crate) struct Paced {
    frames: std::collections::VecDeque<(Duration, Result<&'static str, &'static str>)>,
    timer: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        let Some((after, _)) = self.frames.front() else {
            return std::task::Poll::Ready(None);
        };
        let after = *after;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
        std::task::ready!(timer.as_mut().poll(cx));
        self.timer = None;
        let (_, frame) = self.frames.pop_front().unwrap();
        let frame = frame.map(|text| http_body::Frame::data(Bytes::from_static(text.as_bytes())));
        std::task::Poll::Ready(Some(frame.map_err(std::io::Error::other)))
    }
}

/// A provider whose body is paced.
pub(crate) fn streaming(
    frames: Vec<(Duration, Result<&'static str, &'static str>)>,
) -> BoxCloneSyncService<Request<Bytes>, Response<Paced>, Infallible> {
    BoxCloneSyncService::new(service_fn(move |_: Request<Bytes>| {
        let mut response = Response::new(paced(frames.clone()));
        let events = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert("content-type", events);
        async move { Ok(response) }
    }))
}
