//! An answer that is kept while a better one is sought.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::RETRY_AFTER;
use http::response::Parts;
use http_body::Body;
use pin_project_lite::pin_project;
use spark_core::{BoxError, Collect, Problem, Refusal, ResponseBody, Shape, collect};
use tokio::time::{Sleep, sleep};

use crate::fault;

/// The longest body that is kept, in bytes.
const MOST: usize = 64 << 10;
/// How long it may take to read it.
const LONGEST: Duration = Duration::from_millis(500);

pin_project! {
    /// Reads an answer's body, so that it holds no connection, permit or place while another attempt
    /// is made. One that is too long or too slow, or breaks, is dropped, and a short one is put in
    /// its place; status and `Retry-After` stay.
    pub(crate) struct Keep<B> {
        parts: Option<Parts>,
        shape: Shape,
        #[pin]
        body: Collect<B>,
        #[pin]
        timer: Option<Sleep>,
    }
}

/// An answer that holds nothing but its bytes.
pub(crate) struct Kept<T> {
    pub(crate) response: Response<ResponseBody<T>>,
    /// It says that the credit is used up: asking again does not help.
    pub(crate) is_exhausted: bool,
}

impl<B: Body<Data = Bytes>> Keep<B> {
    pub(crate) fn new(response: Response<B>, shape: Shape) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            parts: Some(parts),
            shape,
            body: collect(body, MOST),
            timer: None,
        }
    }
}

impl<B> Keep<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    pub(crate) fn poll<T>(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Kept<T>> {
        let mut this = self.project();
        let read = match this.body.poll(cx) {
            Poll::Ready(read) => read.ok(),
            Poll::Pending => {
                if this.timer.is_none() {
                    this.timer.set(Some(sleep(LONGEST)));
                }
                if let Some(timer) = this.timer.as_mut().as_pin_mut() {
                    ready!(timer.poll(cx));
                }
                None
            }
        };
        Poll::Ready(keep(this.parts.take(), read, *this.shape))
    }

    /// What there is when there is no time to read it.
    pub(crate) fn cut<T>(self: Pin<&mut Self>) -> Kept<T> {
        let this = self.project();
        keep(this.parts.take(), None, *this.shape)
    }
}

fn keep<T>(parts: Option<Parts>, read: Option<Bytes>, shape: Shape) -> Kept<T> {
    // Taken once, at the end.
    let parts = parts.unwrap_or_else(|| Response::new(()).into_parts().0);
    let Some(bytes) = read else {
        return Kept {
            response: replaced(parts, shape),
            is_exhausted: false,
        };
    };
    Kept {
        is_exhausted: fault::says_exhausted(parts.status, &bytes),
        response: Response::from_parts(parts, ResponseBody::whole(bytes)),
    }
}

/// It is still the provider's answer, so what [`Problem`] says of a refusal of ours is taken out.
fn replaced<T>(parts: Parts, shape: Shape) -> Response<ResponseBody<T>> {
    let problem = Problem::new(parts.status, "provider", "provider_failed")
        .detail("The provider answered with an error.");
    let mut response = problem.into_response(shape);
    response.extensions_mut().remove::<Refusal>();
    response.extensions_mut().extend(parts.extensions);
    if let Some(after) = parts.headers.get(RETRY_AFTER) {
        response.headers_mut().insert(RETRY_AFTER, after.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use http::{HeaderValue, StatusCode};
    use http_body_util::BodyExt;
    use spark_core::testing::TestBody;

    use super::*;

    async fn kept(status: u16, body: TestBody) -> (Response<Bytes>, bool) {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        let after = HeaderValue::from_static("7");
        response.headers_mut().insert(RETRY_AFTER, after);
        response.extensions_mut().insert("extension");
        let mut keep = pin!(Keep::new(response, Shape::PROBLEM));
        let kept: Kept<TestBody> = poll_fn(|cx| keep.as_mut().poll(cx)).await;
        let (parts, body) = kept.response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(parts, bytes), kept.is_exhausted)
    }

    fn assert_is_replaced(response: &Response<Bytes>) {
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[RETRY_AFTER], "7");
        assert!(response.extensions().get::<Refusal>().is_none());
        assert_eq!(response.extensions().get::<&str>(), Some(&"extension"));
        assert!(response.body().starts_with(br#"{"type""#), "{response:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_body_is_kept_and_a_long_or_broken_one_is_replaced() {
        let body = TestBody::frames(["he"]).with_pause().with_data("llo");
        let (response, _) = kept(503, body).await;
        assert_eq!(response.body(), "hello");
        assert_eq!(response.headers()[RETRY_AFTER], "7");

        let (response, _) = kept(503, TestBody::bytes(vec![b'x'; MOST])).await;
        assert_eq!(response.body().len(), MOST);
        let (response, _) = kept(503, TestBody::bytes(vec![b'x'; MOST + 1])).await;
        assert_is_replaced(&response);
        let (response, _) = kept(503, TestBody::frames(["he"]).with_error()).await;
        assert_is_replaced(&response);
    }

    #[tokio::test]
    async fn used_up_credit_is_told_by_the_words_of_the_error_and_never_by_its_message() {
        for (status, error, expected) in [
            (429, r#"{"code":"insufficient_quota"}"#, true),
            (429, r#"{"type":"billing_error"}"#, true),
            (403, r#"{"code":"project_spend_limit_exceeded"}"#, true),
            (500, r#"{"code":"insufficient_quota"}"#, false),
            (429, r#"{"code":"rate_limit_exceeded"}"#, false),
            (429, r#"{"message":"insufficient_quota"}"#, false),
            (429, r#"{"message":"say \"insufficient_quota\""}"#, false),
        ] {
            let body = TestBody::bytes(format!("{{\"error\":{error}}}"));
            assert_eq!(kept(status, body).await.1, expected, "{status} {error}");
        }
        let words = r#"{"prompt":["insufficient_quota"]}"#;
        assert!(!kept(429, TestBody::bytes(words)).await.1);
    }
}
