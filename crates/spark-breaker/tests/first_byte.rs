//! When an answer has begun: time limits, bulkhead, breaker and failover say the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use spark_breaker::{Classify, ClassifyBody, Failover, Head, Hop, LlmClassify, Verdict};
use spark_core::Clock;
use spark_core::sse::Beginning;
use spark_core::testing::TestBody;
use tower::{ServiceExt, service_fn};

fn events(text: &'static str) -> Response<TestBody> {
    let response = Response::builder().header("content-type", "text/event-stream");
    response.body(TestBody::frames([text])).unwrap()
}

/// As time limits and bulkheads see it.
fn by_bytes(text: &'static str) -> bool {
    Beginning::of(events(text).headers()).is_in(text.as_bytes())
}

fn by_breaker(text: &'static str) -> bool {
    let (parts, _) = events(text).into_parts();
    let clock = Clock::system();
    let head = Head::new(&parts, &clock);
    let verdict = Classify::<Infallible>::response(&LlmClassify::new(), &head);
    let Verdict::AtTheEnd(mut body) = verdict else {
        panic!("the body decides");
    };
    body.data(&Bytes::from_static(text.as_bytes()))
}

async fn by_failover(text: &'static str) -> bool {
    let client =
        service_fn(move |_: Request<Bytes>| async move { Ok::<_, Infallible>(events(text)) });
    let failover = Failover::new(vec![Hop::new("a", client)]).until_first_byte(true);
    let answer = failover.oneshot(Request::new(Bytes::new())).await.unwrap();
    answer.status() == 200
}

#[tokio::test]
async fn all_agree_on_when_a_stream_of_whole_events_has_begun() {
    for (text, expected) in [
        ("", false),
        ("\u{feff}", false),
        ("\r\n\n\r", false),
        (": OPENROUTER PROCESSING\n\n", false),
        ("event: ping\ndata: {\"type\":\"ping\"}\n\n", false),
        (
            "event: keepalive\r\ndata: {\"type\":\"keepalive\"}\r\n\r\n",
            false,
        ),
        ("id: 1\nretry: 100\n\n", false),
        ("event: message_start\n\n", false),
        ("data:\n\n", false),
        ("data: \t\n\n", false),
        ("data: {\"choices\":[]}\n\n", true),
        ("\u{feff}data:x\r\r", true),
        (": a\n\nevent: ping\ndata: {}\n\ndata: x\n\n", true),
        (
            "event: message_start\ndata: {\"type\":\"message_start\"}\n\n",
            true,
        ),
        ("data: [DONE]\n\n", true),
    ] {
        assert_eq!(by_bytes(text), expected, "{text:?}");
        assert_eq!(by_breaker(text), expected, "{text:?}");
        assert_eq!(by_failover(text).await, expected, "{text:?}");
    }
}
