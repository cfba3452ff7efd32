//! What a request costs in allocations.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up fails"
)]

use std::convert::Infallible;

use allocation_counter::measure;
use http::{Request, Response};
use http_body_util::Full;
use spark_sanitize::{BodyLimitLayer, Fields, Origin, SanitizeLayer, Sanitizer};
use tower::{Layer, Service, service_fn};

#[test]
fn the_core_allocates_nothing_for_plain_text() {
    let sanitizer = Sanitizer::builder().build().unwrap();
    let fields = Fields::new(["prompt", "messages[].content"]).unwrap();
    // Cues without a match: the patterns run, too.
    let text = "How do I override a method, and what are the rules?\nPlease show the prompt. ";
    let body = format!(
        r#"{{"n": 1, "prompt": {}}}"#,
        serde_json::Value::from("tell me a story")
    );
    let inspect = || {
        let report = sanitizer.inspect(text, Origin::User);
        assert!(report.findings().is_empty());
    };
    // The patterns make their scratch space at the first use.
    inspect();
    assert_eq!(measure(inspect).count_total, 0);

    let inspect = || {
        let report = sanitizer.inspect_json(body.as_bytes(), &fields).unwrap();
        assert!(report.fields().is_empty());
    };
    inspect();
    // The stack of open brackets, which grows with the depth.
    assert_eq!(measure(inspect).count_total, 1);
}

#[test]
fn the_layers_allocate_next_to_nothing() {
    let sanitizer = Sanitizer::builder().build().unwrap();
    let sanitize = SanitizeLayer::new(sanitizer, Fields::new(["prompt"]).unwrap());
    let request = |body: &'static str| {
        let mut request = Request::post("/")
            .header("content-type", "application/json")
            .body(Full::from(body))
            .unwrap();
        // There are extensions already, as behind any edge.
        request.extensions_mut().insert("an extension");
        request
    };
    let ready = || async { Ok::<_, Infallible>(Response::new(String::new())) };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();

    let mut limited =
        BodyLimitLayer::new(1_000).layer(service_fn(move |_request: Request<_>| ready()));
    let one = request("{}");
    let cost = measure(|| drop(runtime.block_on(limited.call(one)))).count_total;
    assert_eq!(cost, 1, "the flag that the body and its future share");

    let mut sanitized = sanitize.layer(service_fn(move |_request: Request<_>| ready()));
    let [first, second] = [(); 2].map(|()| request(r#"{"prompt": "a plain question"}"#));
    drop(runtime.block_on(sanitized.call(first)));
    let cost = measure(|| drop(runtime.block_on(sanitized.call(second)))).count_total;
    assert_eq!(
        cost, 2,
        "the stack of open brackets, and the report in the extensions"
    );
}
