//! Around hyper's own client, over a real socket, without a framework.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use spark_breaker::{
    Breaker, BreakerLayer, Config, ProviderKey, Registry, State, TimeoutError, TimeoutLayer,
    Timeouts,
};
use spark_core::{BoxError, Clock};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

/// One word, and then what the path says.
struct Words {
    path: String,
    sent: usize,
}

impl http_body::Body for Words {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.sent += 1;
        match (self.sent, self.path.as_str()) {
            (1, _) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"one "))))),
            (2, "/cut") => {
                // Lets hyper send what it has.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            (3, "/cut") => Poll::Ready(Some(Err(std::io::Error::other("cut")))),
            (2, "/stall") => {
                self.sent -= 1;
                Poll::Pending
            }
            (2, _) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"two"))))),
            _ => Poll::Ready(None),
        }
    }
}

async fn provider(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let service = hyper::service::service_fn(async |request: Request<Incoming>| {
                let path = request.uri().path().to_owned();
                let mut response = Response::new(());
                if path == "/down" {
                    *response.status_mut() = StatusCode::BAD_GATEWAY;
                }
                let sent = 0;
                Ok::<_, std::io::Error>(response.map(|()| Words { path, sent }))
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// hyper's client, of a provider that runs until the test ends.
async fn client()
-> impl Service<Request<Empty<Bytes>>, Response = Response<Incoming>, Error = BoxError> + Clone {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(provider(listener));
    service_fn(move |request: Request<Empty<Bytes>>| async move {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    })
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(path).header("host", "local");
    request.body(Empty::new()).unwrap()
}

#[tokio::test]
async fn bare_hyper() {
    let rules = Config::llm()
        .consecutive(2)
        .open_for(Duration::from_millis(200));
    let breaker = Breaker::new("local", rules.jitter(0.0), Clock::system()).unwrap();
    let service = ServiceBuilder::new()
        .layer(BreakerLayer::new(breaker.clone()))
        .layer(TimeoutLayer::new(Timeouts {
            idle: Some(Duration::from_millis(100)),
            ..Timeouts::llm()
        }))
        .service(client().await);
    let get = async |path: &str| service.clone().oneshot(get(path)).await.unwrap();

    let whole = get("/").await.into_body().collect().await.unwrap();
    assert_eq!(whole.to_bytes(), "one two");
    assert_eq!(breaker.snapshot().totals.successes, 1);

    assert!(get("/cut").await.into_body().collect().await.is_err());
    let stalled = get("/stall").await.into_body().collect().await.unwrap_err();
    assert!(stalled.is::<TimeoutError>(), "{stalled}");
    assert_eq!(breaker.snapshot().state, State::Open, "both were failures");

    assert_eq!(get("/").await.status(), 503);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(get("/down").await.status(), 502, "the probe fails");
    assert_eq!(get("/").await.status(), 503);
    tokio::time::sleep(Duration::from_millis(450)).await;
    for _ in 0..2 {
        get("/").await.into_body().collect().await.unwrap();
    }
    assert_eq!(breaker.snapshot().state, State::Closed);
    assert_eq!(breaker.snapshot().in_flight, 0);
}

#[tokio::test]
async fn bare_hyper_by_key() {
    let rules = Config::llm().consecutive(2);
    let registry = Registry::new(9, rules, Clock::system()).unwrap();
    let by_path = |head: &Parts| {
        let model = head.uri.path().trim_start_matches('/');
        Some(ProviderKey::new("local").model(model))
    };
    let service = BreakerLayer::keyed(registry.clone(), by_path).layer(client().await);
    let get = async |path: &str| service.clone().oneshot(get(path)).await.unwrap();
    for status in [502, 502, 503] {
        assert_eq!(get("/down").await.status(), status);
    }
    let whole = get("/up").await.into_body().collect().await.unwrap();
    assert_eq!(whole.to_bytes(), "one two");
    for _ in 0..2 {
        assert!(get("/cut").await.into_body().collect().await.is_err());
    }
    assert_eq!(get("/cut").await.status(), 503);
    let unwell = registry.health().unwell.into_iter().map(|it| it.name);
    assert!(unwell.eq(["local/cut".into(), "local/down".into()]));
    assert_eq!(registry.get("local").unwrap().snapshot().in_flight, 0);
}
