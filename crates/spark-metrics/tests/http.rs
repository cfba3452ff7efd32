//! The layer: what is counted for each way that a request can end.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use common::{Page, page};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use spark_core::{
    Clock, Context, Problem, Shape, UsageReport,
    testing::{TestBody, TestClock, contract},
};
use spark_metrics::{HttpMetricsLayer, Metrics, Route, RouteLabel};
use tower::{Layer, Service, ServiceExt, service_fn};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

struct Fixture {
    metrics: Metrics,
    clock: TestClock,
}

impl Fixture {
    fn new() -> Self {
        let clock = TestClock::new();
        let metrics = Metrics::builder().clock(clock.clock()).build().unwrap();
        Self { metrics, clock }
    }

    fn layer(&self) -> HttpMetricsLayer {
        self.metrics.http_layer()
    }

    fn page(&self) -> Page {
        page(&self.metrics)
    }

    fn in_flight(&self) -> f64 {
        self.page().get("spark_http_requests_in_flight").unwrap()
    }

    fn requests(&self, status: &str, outcome: &str) -> f64 {
        let labels =
            format!(r#"method="GET",route="unmatched",status="{status}",outcome="{outcome}""#);
        self.page()
            .get(&format!("spark_http_requests_total{{{labels}}}"))
            .unwrap_or(0.0)
    }
}

fn request() -> Request<Full<Bytes>> {
    Request::new(Full::default())
}

#[tokio::test]
async fn a_route_rule_that_panics_leaves_nothing_in_flight() {
    let fixture = Fixture::new();
    let rule = RouteLabel::by(|_, uri, _| (uri.path() == "/bad").then(|| panic!("planned")));
    let handler = service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let service = fixture.layer().route(rule).layer(handler);
    let good = service.clone().oneshot(request()).await.unwrap();
    drop(good);
    assert_eq!(fixture.in_flight(), 0.0);
    let mut bad = request();
    *bad.uri_mut() = "/bad".parse().unwrap();
    let called = std::panic::AssertUnwindSafe(|| drop(service.clone().call(bad)));
    assert!(std::panic::catch_unwind(called).is_err());
    assert_eq!(fixture.in_flight(), 0.0);
}

#[tokio::test]
async fn a_request_is_counted_when_its_body_ends() {
    let fixture = Fixture::new();
    let clock = fixture.clock.clone();
    let service = service_fn(move |_: Request<Full<Bytes>>| {
        clock.advance(Duration::from_millis(30));
        async { Ok::<_, BoxError>(Response::new(TestBody::frames(["ab", "c"]))) }
    });
    let response = fixture
        .layer()
        .layer(service)
        .oneshot(request())
        .await
        .unwrap();
    assert_eq!(fixture.in_flight(), 1.0);
    assert_eq!(fixture.requests("200", "complete"), 0.0);

    let mut body = response.into_body();
    fixture.clock.advance(Duration::from_millis(30));
    body.frame().await.unwrap().unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    body.collect().await.unwrap();
    assert_eq!(fixture.in_flight(), 0.0);
    assert_eq!(fixture.requests("200", "complete"), 1.0);
    let page = fixture.page();
    let duration = r#"spark_http_request_duration_seconds_sum{method="GET",route="unmatched",status_class="2xx"}"#;
    assert!((page.get(duration).unwrap() - 1.06).abs() < 1e-9);
    let first = r#"spark_http_time_to_first_byte_seconds_sum{method="GET",route="unmatched"}"#;
    assert!((page.get(first).unwrap() - 0.06).abs() < 1e-9);
    let bytes = r#"spark_http_response_body_bytes_sum{method="GET",route="unmatched"}"#;
    assert_eq!(page.get(bytes), Some(3.0));
    for name in page.types.keys() {
        assert!(page.help.contains_key(name), "{name} has no HELP");
    }
}

#[tokio::test]
async fn every_other_end_returns_in_flight_to_zero_and_counts_once() {
    let fixture = Fixture::new();
    let layer = fixture.layer();

    // The client leaves before the head.
    let waits = service_fn(|_: Request<Full<Bytes>>| {
        std::future::pending::<Result<Response<TestBody>, BoxError>>()
    });
    let waiting = layer.layer(waits).oneshot(request());
    assert!(
        tokio::time::timeout(Duration::from_millis(5), waiting)
            .await
            .is_err()
    );
    assert_eq!(
        (fixture.in_flight(), fixture.requests("none", "cancelled")),
        (0.0, 1.0)
    );

    // The client leaves half way through the body.
    let answers = service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, BoxError>(Response::new(TestBody::frames(["ab", "c"])))
    });
    let mut body = layer
        .layer(answers)
        .oneshot(request())
        .await
        .unwrap()
        .into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(
        (fixture.in_flight(), fixture.requests("200", "cancelled")),
        (0.0, 1.0)
    );

    // The body fails.
    let breaks = service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, BoxError>(Response::new(TestBody::frames(["ab"]).with_error()))
    });
    let body = layer
        .layer(breaks)
        .oneshot(request())
        .await
        .unwrap()
        .into_body();
    assert!(body.collect().await.is_err());
    assert_eq!(
        (fixture.in_flight(), fixture.requests("200", "error")),
        (0.0, 1.0)
    );

    // The service fails.
    let fails = service_fn(|_: Request<Full<Bytes>>| async {
        Err::<Response<TestBody>, BoxError>("no".into())
    });
    assert!(layer.layer(fails).oneshot(request()).await.is_err());
    assert_eq!(
        (fixture.in_flight(), fixture.requests("none", "error")),
        (0.0, 1.0)
    );

    // The handler panics, in its future and in `call` itself.
    let panics = service_fn(|_: Request<Full<Bytes>>| async {
        if true {
            panic!("planned")
        }
        Ok::<_, BoxError>(Response::new(TestBody::frames([])))
    });
    assert!(
        tokio::spawn(layer.layer(panics).oneshot(request()))
            .await
            .is_err()
    );
    assert_eq!(
        (fixture.in_flight(), fixture.requests("none", "cancelled")),
        (0.0, 2.0)
    );
    let panics = service_fn(
        |_: Request<Full<Bytes>>| -> std::future::Ready<Result<Response<TestBody>, BoxError>> {
            panic!("planned")
        },
    );
    assert!(
        tokio::spawn(layer.layer(panics).oneshot(request()))
            .await
            .is_err()
    );
    assert_eq!(
        (fixture.in_flight(), fixture.requests("none", "cancelled")),
        (0.0, 3.0)
    );
}

#[tokio::test]
async fn bodies_that_are_never_polled_are_complete() {
    let fixture = Fixture::new();
    for (method, status) in [(Method::HEAD, 200), (Method::GET, 204), (Method::GET, 304)] {
        let service = service_fn(move |_: Request<Full<Bytes>>| async move {
            let mut response = Response::new(TestBody::frames(["abc"]));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok::<_, BoxError>(response)
        });
        let mut request = request();
        *request.method_mut() = method;
        drop(
            fixture
                .layer()
                .layer(service)
                .oneshot(request)
                .await
                .unwrap(),
        );
    }
    let page = fixture.page();
    assert_eq!(page.count("spark_http_requests_total{"), 3);
    assert!(
        page.samples
            .keys()
            .all(|sample| !sample.contains("cancelled"))
    );
}

#[tokio::test]
async fn strangers_add_no_series() {
    let fixture = Fixture::new();
    let service = service_fn(|_: Request<Full<Bytes>>| async {
        let mut response = Response::new(Full::<Bytes>::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        Ok::<_, Infallible>(response)
    });
    let mut service = fixture.layer().layer(service);
    let mut send = async |n: usize| {
        let mut request = request();
        *request.uri_mut() = format!("/wp-admin/{n}.php?x={n}").parse().unwrap();
        *request.method_mut() = Method::from_bytes(format!("X{n}").as_bytes()).unwrap();
        service
            .ready()
            .await
            .unwrap()
            .call(request)
            .await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap();
    };
    send(0).await;
    let before = fixture.metrics.series();
    for n in 1..20_000 {
        send(n).await;
    }
    assert_eq!(fixture.metrics.series(), before);
    let all = r#"spark_http_requests_total{method="_OTHER",route="unmatched",status="404",outcome="complete"}"#;
    assert_eq!(fixture.page().get(all), Some(20_000.0));
}

#[tokio::test]
async fn refusals_are_counted_by_layer_and_code() {
    let fixture = Fixture::new();
    let service = service_fn(|_: Request<Full<Bytes>>| async {
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "ratelimit", "rate_limited");
        Ok::<_, Infallible>(problem.into_response::<Full<Bytes>>(Shape::PROBLEM))
    });
    let response = fixture
        .layer()
        .layer(service)
        .oneshot(request())
        .await
        .unwrap();
    response.into_body().collect().await.unwrap();
    let refused = r#"spark_http_refusals_total{by="ratelimit",code="rate_limited"}"#;
    assert_eq!(fixture.page().get(refused), Some(1.0));
}

#[tokio::test]
async fn usage_is_recorded_with_bounded_models() {
    let fixture = Fixture::new();
    let layer = fixture.layer().models(["known"]);
    for (model, tokens) in [("known", 3), ("attacker-1", 5), ("attacker-2", 7)] {
        let service = service_fn(move |request: Request<Full<Bytes>>| async move {
            let usage = Context::of(request.extensions()).unwrap().usage().clone();
            let report = UsageReport::new("primary", model)
                .with_tokens(tokens, 1)
                .with_upstream(Duration::from_millis(250));
            usage.record(report);
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("x")))
        });
        let mut request = request();
        Context::get_or_insert(request.extensions_mut(), &fixture.clock.clock());
        let response = layer.layer(service).oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let page = fixture.page();
    let tokens = |model: &str, kind: &str| {
        page.get(&format!(
            r#"spark_ai_tokens_total{{provider="primary",model="{model}",type="{kind}"}}"#
        ))
    };
    assert_eq!(tokens("known", "input"), Some(3.0));
    assert_eq!(tokens("other", "input"), Some(12.0));
    assert_eq!(tokens("other", "output"), Some(2.0));
    assert_eq!(
        page.get(r#"spark_ai_requests_total{provider="primary",model="other"}"#),
        Some(2.0)
    );
    let upstream = r#"spark_ai_upstream_duration_seconds_sum{provider="primary",model="known"}"#;
    assert_eq!(page.get(upstream), Some(0.25));
    for name in page.types.keys() {
        assert!(page.help.contains_key(name), "{name} has no HELP");
    }
}

#[tokio::test]
async fn the_route_comes_from_a_constant_of_the_program() {
    let fixture = Fixture::new();
    let answer = |route: Option<Route>| {
        service_fn(move |_: Request<Full<Bytes>>| async move {
            let mut response = Response::new(Full::<Bytes>::default());
            response.extensions_mut().extend(
                route
                    .map(|route| {
                        let mut extensions = http::Extensions::new();
                        extensions.insert(route);
                        extensions
                    })
                    .unwrap_or_default(),
            );
            Ok::<_, Infallible>(response)
        })
    };
    let layer = fixture.layer();
    drop(
        layer
            .layer(answer(Some(Route("/from-response"))))
            .oneshot(request())
            .await,
    );
    let mut tagged = request();
    tagged.extensions_mut().insert(Route("/from-request"));
    drop(layer.layer(answer(None)).oneshot(tagged).await);
    let fixed = layer.clone().route(RouteLabel::fixed("/fixed"));
    drop(
        fixed
            .layer(answer(Some(Route("/ignored"))))
            .oneshot(request())
            .await,
    );
    let by = layer.route(RouteLabel::by(|_, uri, _| {
        (uri.path() == "/").then_some("/root")
    }));
    drop(by.layer(answer(None)).oneshot(request()).await);
    let page = fixture.page();
    for route in ["/from-response", "/from-request", "/fixed", "/root"] {
        let sample = format!(
            r#"spark_http_requests_total{{method="GET",route="{route}",status="200",outcome="complete"}}"#
        );
        assert_eq!(page.get(&sample), Some(1.0), "{route}");
    }
}

#[tokio::test]
async fn the_ambient_recorder_is_found_at_the_first_request() {
    let layer = HttpMetricsLayer::new(Clock::system());
    let metrics = Metrics::builder().build().unwrap();
    let _guard = metrics::set_default_local_recorder(metrics.recorder());
    let service = service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    drop(layer.layer(service).oneshot(request()).await);
    assert_eq!(page(&metrics).count("spark_http_requests_total{"), 1);
}

#[tokio::test]
async fn the_tower_contract_is_kept() {
    let metrics = Metrics::builder().build().unwrap();
    contract::check(metrics.http_layer(), || {
        Request::new(TestBody::frames(["x"]))
    })
    .await;
    let page = page(&metrics);
    assert_eq!(page.get("spark_http_requests_in_flight"), Some(0.0));
}
