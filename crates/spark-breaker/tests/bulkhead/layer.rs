//! The layer: what it answers, and what it tells the limit.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use spark_breaker::{
    Aimd, Breaker, BreakerLayer, Bulkhead, BulkheadLayer, Config, State, TimeoutLayer, Timeouts,
};
use spark_core::testing::{Behaviour, Probe, TestBody, TestClock, contract};
use spark_core::{Clock, Context, Principal, Problem, Refusal, ResponseBody, Scopes, Shape, User};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use super::{adaptive, millis, name};

fn request() -> Request<TestBody> {
    Request::new(TestBody::frames(["hello"]))
}

fn of(principal: Principal) -> Request<TestBody> {
    let mut request = request();
    let context = Context::new(Clock::system().now()).with_principal(principal);
    request.extensions_mut().insert(context);
    request
}

fn tenant(tenant: &str) -> Request<TestBody> {
    of(User::new(name("key"), name(tenant)).into())
}

fn healthy() -> Probe {
    let probe = Probe::new();
    probe.behave(Behaviour::Body(TestBody::frames(["ok"])));
    probe
}

#[tokio::test]
async fn contract_bulkhead() {
    let fixed = Bulkhead::new("primary", 64).unwrap();
    let (adaptive, _clock) = adaptive(Aimd::new(60, 64).latency(millis(1)));
    let shared = Bulkhead::new("primary", 64)
        .unwrap()
        .tenant_share(0.5)
        .unwrap();
    for bulkhead in [fixed, adaptive, shared] {
        contract::check(BulkheadLayer::new(bulkhead.clone()), request).await;
        assert_eq!((bulkhead.in_flight(), bulkhead.tenants()), (0, 0));
    }
}

#[tokio::test]
async fn a_full_bulkhead_refuses_and_the_breaker_does_not_mind() {
    let rules = Config::llm().jitter(0.0);
    let breaker = Breaker::new("primary", rules, TestClock::new().clock()).unwrap();
    let bulkhead = Bulkhead::new("primary", 2).unwrap();
    let service = ServiceBuilder::new()
        .layer(BreakerLayer::new(breaker.clone()))
        .layer(BulkheadLayer::new(bulkhead.clone()))
        .service(healthy());
    let first = service.clone().oneshot(request()).await.unwrap();
    let second = service.clone().oneshot(request()).await.unwrap();
    for _ in 0..20 {
        let refused = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "1");
        let refusal = refused.extensions().get::<Refusal>().unwrap();
        assert_eq!((refusal.by, refusal.code), ("bulkhead", "bulkhead_full"));
        let problem = refused.into_body().collect().await.unwrap().to_bytes();
        let problem = String::from_utf8_lossy(&problem);
        assert!(problem.contains(r#""bulkhead":"primary""#), "{problem}");
    }
    let snapshot = breaker.snapshot();
    assert_eq!(
        (snapshot.state, snapshot.totals.ignored),
        (State::Closed, 20)
    );
    first.into_body().collect().await.unwrap();
    drop(second);
    assert_eq!(bulkhead.in_flight(), 0);
    assert_eq!(service.oneshot(request()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_place_is_held_to_the_end_of_the_body() {
    let bulkhead = Bulkhead::new("primary", 9).unwrap();
    let service = BulkheadLayer::new(bulkhead.clone()).layer(healthy());
    let response = service.clone().oneshot(request()).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(bulkhead.in_flight(), 1);
    body.frame().await.unwrap().unwrap();
    assert_eq!(bulkhead.in_flight(), 1);
    assert!(body.frame().await.is_none());
    assert_eq!(bulkhead.in_flight(), 0);
    let head = service.oneshot(request()).await.unwrap();
    assert_eq!(bulkhead.in_flight(), 1);
    drop(head);
    assert_eq!(bulkhead.in_flight(), 0);
}

#[tokio::test]
async fn a_tenant_with_its_share_is_refused_and_others_are_let_in() {
    let bulkhead = Bulkhead::new("primary", 4)
        .unwrap()
        .tenant_share(0.5)
        .unwrap();
    let service = BulkheadLayer::new(bulkhead.clone()).layer(healthy());
    let call = async |request| service.clone().oneshot(request).await.unwrap();
    let storm = [call(tenant("storm")).await, call(tenant("storm")).await];
    let refused = call(tenant("storm")).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "1");
    let refusal = refused.extensions().get::<Refusal>().unwrap();
    assert_eq!(
        (refusal.by, refusal.code),
        ("bulkhead", "tenant_share_full")
    );
    // Other keys of the tenant are the tenant.
    let mut other_key = User::new(name("other-key"), name("storm"));
    other_key = other_key.with_scopes(Scopes::default());
    assert_eq!(call(of(other_key.into())).await.status(), 503);
    let other = call(tenant("other")).await;
    assert_eq!(other.status(), 200);
    assert_eq!(bulkhead.tenants(), 2);
    drop((storm, other));
    assert_eq!((bulkhead.in_flight(), bulkhead.tenants()), (0, 0));
}

#[tokio::test]
async fn the_anonymous_are_one_tenant_and_do_not_keep_the_operator_out() {
    let bulkhead = Bulkhead::new("primary", 4)
        .unwrap()
        .tenant_share(0.5)
        .unwrap();
    let service = BulkheadLayer::new(bulkhead.clone()).layer(healthy());
    let call = async |request| service.clone().oneshot(request).await.unwrap();
    let anonymous = || of(Principal::Anonymous);
    let storm = [call(anonymous()).await, call(request()).await];
    assert_eq!(call(anonymous()).await.status(), 503);
    assert_eq!(
        call(request()).await.status(),
        503,
        "nor does one without a context pass"
    );
    let master = call(of(Principal::Master)).await;
    assert_eq!(master.status(), 200);
    drop((storm, master));
    assert_eq!(bulkhead.tenants(), 0);
}

/// The limit after one call, of ten; backing off leaves five.
async fn limit_after(
    answer: impl Fn() -> Result<Response<ResponseBody<TestBody>>, &'static str> + Clone + Send,
    read: bool,
) -> usize {
    let (bulkhead, _clock) = adaptive(Aimd::new(1, 10).backoff(0.5));
    let client = service_fn(move |_: Request<TestBody>| {
        let answer = answer();
        async move { answer }
    });
    let answer = BulkheadLayer::new(bulkhead.clone())
        .layer(client)
        .oneshot(request())
        .await;
    if let Ok(response) = answer
        && read
    {
        let _ = response.into_body().collect().await;
    }
    assert_eq!(bulkhead.in_flight(), 0);
    bulkhead.limit()
}

#[tokio::test]
async fn the_provider_s_throttling_lowers_the_limit_and_refusals_of_ours_do_not() {
    let status = |status: u16| {
        move || {
            let body = ResponseBody::inner(TestBody::frames(["x"]));
            Ok(Response::builder().status(status).body(body).unwrap())
        }
    };
    for lowers in [429, 503, 529] {
        assert_eq!(limit_after(status(lowers), true).await, 5, "{lowers}");
        assert_eq!(
            limit_after(status(lowers), false).await,
            5,
            "{lowers}, unread"
        );
    }
    for other in [200, 302, 400, 401, 404, 500, 502, 504] {
        assert_eq!(limit_after(status(other), true).await, 10, "{other}");
    }
    for ours in [429, 503, 529] {
        let refuse = move || {
            let status = StatusCode::from_u16(ours).unwrap();
            let problem = Problem::new(status, "breaker", "breaker_open");
            Ok(problem.into_response(Shape::PROBLEM))
        };
        assert_eq!(limit_after(refuse, true).await, 10, "{ours} of ours");
    }
    assert_eq!(limit_after(|| Err("reset"), true).await, 10);
    let broken = || {
        Ok(Response::new(ResponseBody::inner(
            TestBody::frames(["x"]).with_error(),
        )))
    };
    assert_eq!(limit_after(broken, true).await, 10);
}

#[tokio::test]
async fn answers_that_end_well_raise_the_limit_and_broken_or_unread_ones_do_not() {
    let one_round = async |behaviour: Behaviour, method: Method, read: bool| {
        let (bulkhead, _clock) = adaptive(Aimd::new(1, 9).start(1));
        let probe = Probe::new();
        probe.behave(behaviour);
        let mut request = request();
        *request.method_mut() = method;
        let service = BulkheadLayer::new(bulkhead.clone()).layer(probe);
        if let Ok(response) = service.oneshot(request).await
            && read
        {
            let _ = response.into_body().collect().await;
        }
        bulkhead.limit()
    };
    let whole = || Behaviour::Body(TestBody::frames(["a", "b"]));
    assert_eq!(one_round(whole(), Method::POST, true).await, 2);
    assert_eq!(
        one_round(whole(), Method::POST, false).await,
        1,
        "the caller went away"
    );
    assert_eq!(one_round(whole(), Method::HEAD, false).await, 2);
    let broken = Behaviour::Body(TestBody::frames(["a"]).with_error());
    assert_eq!(one_round(broken, Method::POST, true).await, 1);
    assert_eq!(one_round(Behaviour::Fail, Method::POST, true).await, 1);
}

#[tokio::test]
async fn pings_are_no_first_byte() {
    for (media, limit) in [("text/event-stream", 5), ("application/json", 10)] {
        let (bulkhead, clock) = adaptive(Aimd::new(1, 10).backoff(0.5).latency(millis(100)));
        let client = service_fn(move |_: Request<TestBody>| async move {
            let body = TestBody::frames([": a\n", "\nevent: ping\ndata: {}\n\n", "data: 1\n\n"]);
            let response = Response::builder().header("content-type", media);
            Ok::<_, Infallible>(response.body(body).unwrap())
        });
        let service = BulkheadLayer::new(bulkhead.clone()).layer(client);
        let mut body = service.oneshot(request()).await.unwrap().into_body();
        for _ in 0..2 {
            body.frame().await.unwrap().unwrap();
        }
        clock.advance(millis(101));
        while let Some(frame) = body.frame().await {
            frame.unwrap();
        }
        assert_eq!(bulkhead.limit(), limit, "{media}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_times_out_is_late() {
    // The bulkhead's clock follows tokio's paused one by hand.
    for (waited, limit) in [(101, 5), (99, 10)] {
        let (bulkhead, clock) = adaptive(Aimd::new(1, 10).backoff(0.5).latency(millis(100)));
        let hangs = service_fn(move |_: Request<TestBody>| {
            clock.advance(millis(waited));
            std::future::pending::<Result<Response<TestBody>, Infallible>>()
        });
        let service = ServiceBuilder::new()
            .layer(BulkheadLayer::new(bulkhead.clone()))
            .layer(TimeoutLayer::new(Timeouts::llm()))
            .service(hangs);
        assert_eq!(service.oneshot(request()).await.unwrap().status(), 504);
        assert_eq!(bulkhead.limit(), limit);
    }
}

#[tokio::test]
async fn under_axum_it_counts_all_routes_together() {
    use axum::Router;
    use axum::routing::get;
    let bulkhead = Bulkhead::new("app", 1).unwrap();
    let stream = || async { axum::body::Body::new(TestBody::frames(["a", "b"])) };
    let app: Router = Router::new()
        .route("/a", get(stream))
        .route("/b", get(stream))
        .layer(BulkheadLayer::new(bulkhead.clone()));
    let call = async |path: &str| {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        app.clone().oneshot(request).await.unwrap()
    };
    let first = call("/a").await;
    assert_eq!(call("/b").await.status(), 503);
    assert_eq!(
        first.into_body().collect().await.unwrap().to_bytes(),
        Bytes::from("ab")
    );
    assert_eq!(call("/b").await.status(), 200);
}
