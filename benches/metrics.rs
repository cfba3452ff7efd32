//! `cargo bench -p spark-benches --bench metrics`: what a request costs that is counted.
#![allow(clippy::unwrap_used, reason = "a bench stops where its claim is wrong")]

use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, extract::Request};
use axum_prometheus::PrometheusMetricLayer;
use spark_benches::{Races, call, drain};
use spark_metrics::Metrics;

fn main() {
    let races = Races::from_args();
    // The peer starts its upkeep on a runtime; here both sides' is done between the turns.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let (peer, handle) = PrometheusMetricLayer::pair();
    let metrics = Metrics::builder().upkeep_every(None).build().unwrap();

    races.race("HTTP metrics around an axum route", |race| {
        let mut spark = router().layer(metrics.http_layer());
        let mut peer = router().layer(peer);
        let mut bare = router();

        // Both know the route's pattern, the method and the status, and time the request.
        ask(&mut spark);
        ask(&mut peer);
        let page = metrics.render();
        let counted = r#"spark_http_requests_total{method="GET",route="/items/{id}",status="200",outcome="complete"} 1"#;
        assert!(page.contains(counted), "{page}");
        assert!(page.contains("spark_http_request_duration_seconds_count"));
        let page = handle.render();
        let counted = r#"axum_http_requests_total{method="GET",status="200",endpoint="/items/{id}"} 1"#;
        assert!(page.contains(counted), "{page}");
        assert!(page.contains("axum_http_requests_duration_seconds_count"));

        race.base("bare route", move || ask(&mut bare))
            .side("spark HttpMetricsLayer", move || ask(&mut spark))
            .side("axum-prometheus PrometheusMetricLayer", move || ask(&mut peer))
            .between(|| {
                metrics.upkeep();
                handle.run_upkeep();
            })
    });
}

fn router() -> Router {
    Router::new().route("/items/{id}", get(async || "hello".into_response()))
}

fn ask(router: &mut Router) {
    let request = Request::get("/items/7").body(Body::empty()).unwrap();
    let answer = call::<_, Request>(router, request).unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(drain(answer.into_body()), 1);
}
