//! The contract that every layer keeps.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{ReqBody, question};
use http::Request;
use spark_cache::{Cache, CacheLayer, LlmPolicy, When};
use spark_core::testing::{TestBody, contract};

fn layer() -> CacheLayer<LlmPolicy> {
    let cache = Cache::builder().build().unwrap();
    let policy = LlmPolicy::builder()
        .path("/v1/chat/completions")
        .build()
        .unwrap();
    CacheLayer::new(cache, policy)
}

/// A question that would be cached, with the body of the test kit.
fn cacheable(body: TestBody) -> Request<TestBody> {
    let request: Request<ReqBody> = question("acme", "hi");
    request.map(|_| body)
}

#[tokio::test]
async fn for_requests_that_do_not_concern_it() {
    contract::check(layer(), || Request::new(TestBody::frames(["a"]))).await;
}

#[tokio::test]
async fn for_requests_that_bypass_unread() {
    let layer = CacheLayer::new(
        Cache::builder().build().unwrap(),
        LlmPolicy::builder()
            .path("/v1/chat/completions")
            .when(When::Never)
            .build()
            .unwrap(),
    );
    contract::check(layer, || cacheable(TestBody::frames(["{}"]))).await;
}

#[tokio::test]
async fn for_requests_that_bypass_once_they_are_read() {
    contract::check(layer(), || cacheable(TestBody::frames(["{", "}"]))).await;
}

fn is_good<T: Clone + Send + Sync + std::fmt::Debug + 'static>() {}

#[test]
fn everything_is_shared_and_shown() {
    is_good::<CacheLayer<LlmPolicy>>();
    is_good::<spark_cache::CacheService<tower::util::BoxCloneSyncService<(), (), ()>, LlmPolicy>>();
    is_good::<Cache>();
    let shown = format!("{:?}", layer());
    assert!(
        shown.contains("CacheLayer") && shown.contains("chat/completions"),
        "{shown}"
    );
}
