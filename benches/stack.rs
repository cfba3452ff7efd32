//! `cargo bench -p spark-benches --bench stack`: what all the layers add to a request.
#![allow(clippy::unwrap_used, reason = "a bench stops where its claim is wrong")]

#[path = "stack/bare.rs"]
mod bare;
#[path = "stack/peer.rs"]
mod peer;
#[path = "stack/spark.rs"]
mod spark;

use std::cell::Cell;
use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum_prometheus::PrometheusMetricLayer;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use serde_json::json;
use spark_benches::Races;
use spark_metrics::Metrics;
use tokio::runtime::Runtime;
use tower::{Service, ServiceExt};

fn main() {
    let races = Races::from_args();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let inside = runtime.enter();
    let key = spark::key();
    // One recorder for the process; our HTTP metrics have one of their own. The upkeep of both is
    // done between the turns.
    let (layer, handle) = PrometheusMetricLayer::pair();
    let metrics = Metrics::builder().upkeep_every(None).build().unwrap();
    drop(inside);

    for case in [Case::NoCache, Case::Hit, Case::Miss] {
        races.race(case.name(), |race| {
            let inside = runtime.enter();
            let ask = Asking {
                runtime: &runtime,
                secret: HeaderValue::from_str(&format!("Bearer {}", key.text)).unwrap(),
                question: question(),
                case,
                asked: Cell::new(0),
            };
            let cached = !matches!(case, Case::NoCache);
            let mut bare = bare::service();
            let mut ours = spark::service(key.auth.clone(), metrics.http_layer(), cached, false);
            let mut sanitized =
                spark::service(key.auth.clone(), metrics.http_layer(), cached, true);
            let mut peer = peer::service(&key.text, layer.clone(), cached);
            drop(inside);

            ask.check(&mut bare, &[]);
            let cached = cached.then_some(("cache-status", "spark; "));
            for service in [&mut ours as &mut dyn Check, &mut sanitized] {
                let mut expected = vec![("ratelimit", "\"requests\""), ("x-frame-options", "DENY")];
                expected.extend(cached);
                service.check(&ask, &expected);
            }
            ask.check(
                &mut peer,
                &[("x-ratelimit-limit", "4"), ("x-frame-options", "DENY")],
            );

            let (metrics, handle) = (&metrics, &handle);
            let [a, b, c, d] = [&ask; 4].map(Asking::again);
            race.base("bare axum", move || a.ask(&mut bare).0)
                .side("spark, the peer's jobs", move || b.ask(&mut ours).0)
                .side("hand-assembled peer", move || c.ask(&mut peer).0)
                .side("spark, and its sanitizer", move || d.ask(&mut sanitized).0)
                .between(move || {
                    metrics.upkeep();
                    handle.run_upkeep();
                })
        });
    }
}

#[derive(Clone, Copy)]
enum Case {
    NoCache,
    Hit,
    Miss,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::NoCache => "whole stack, no cache",
            Self::Hit => "whole stack, cache hit",
            Self::Miss => "whole stack, cache miss",
        }
    }
}

/// A client in the same process: no sockets, the request's making and the body's reading included
/// on all sides.
struct Asking<'a> {
    runtime: &'a Runtime,
    secret: HeaderValue,
    question: (String, String),
    case: Case,
    asked: Cell<u64>,
}

impl Asking<'_> {
    fn again(&self) -> Self {
        Self {
            secret: self.secret.clone(),
            question: self.question.clone(),
            asked: Cell::new(0),
            ..*self
        }
    }

    fn ask<S, B>(&self, service: &mut S) -> (HeaderMap, Bytes)
    where
        S: Service<Request<Body>, Response = Response<B>>,
        S::Error: std::fmt::Debug,
        B: http_body::Body<Data = Bytes>,
        B::Error: std::fmt::Debug,
    {
        let request = self.request();
        self.runtime.block_on(async {
            let answer = service.ready().await.unwrap().call(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            let (parts, body) = answer.into_parts();
            (parts.headers, body.collect().await.unwrap().to_bytes())
        })
    }

    /// Asks twice, and looks at what the second answer says.
    fn check<S, B>(&self, service: &mut S, expected: &[(&str, &str)])
    where
        S: Service<Request<Body>, Response = Response<B>>,
        S::Error: std::fmt::Debug,
        B: http_body::Body<Data = Bytes>,
        B::Error: std::fmt::Debug,
    {
        self.ask(service);
        let (headers, body) = self.ask(service);
        for (name, value) in expected {
            let found = headers
                .get(*name)
                .unwrap_or_else(|| panic!("no {name}: {headers:?}"));
            assert!(found.to_str().unwrap().starts_with(value), "{headers:?}");
        }
        if let Some(status) = headers.get("cache-status") {
            let hit = status.to_str().unwrap().contains("hit");
            assert_eq!(hit, matches!(self.case, Case::Hit), "{status:?}");
        }
        assert!(body.ends_with(b"}"), "{body:?}");
        assert!((900..1_300).contains(&body.len()), "{}", body.len());
    }

    fn request(&self) -> Request<Body> {
        let n = match self.case {
            Case::Miss => self.asked.replace(self.asked.get() + 1),
            Case::NoCache | Case::Hit => 0,
        };
        let (head, tail) = &self.question;
        let body = format!("{head}{n:012}{tail}");
        let mut request = Request::post("/api/generate")
            .header(HOST, "spark.example.com")
            .header(USER_AGENT, "bench/1.0")
            .header(ACCEPT, "*/*")
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, self.secret.clone())
            .body(Body::from(body))
            .unwrap();
        let peer = SocketAddr::from(([192, 0, 2, 7], 4_711));
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    }
}

/// So that two kinds of one stack can stand in a list.
trait Check {
    fn check(&mut self, ask: &Asking<'_>, expected: &[(&str, &str)]);
}

impl<S, B> Check for S
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    fn check(&mut self, ask: &Asking<'_>, expected: &[(&str, &str)]) {
        ask.check(self, expected);
    }
}

/// 1 KB of JSON, of which the number is new each time where that is asked for.
fn question() -> (String, String) {
    let talk = "We were speaking of the harbour, and of the ships that lie there in winter. ";
    let prompt = format!("{}And which is number #?", talk.repeat(12));
    let body = json!({ "model": "gpt-5-mini", "temperature": 0, "prompt": prompt }).to_string();
    let (head, tail) = body.split_once('#').unwrap();
    (head.to_owned(), tail.to_owned())
}
