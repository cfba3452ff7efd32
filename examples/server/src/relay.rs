//! A provider's stream, event by event, as a response.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::json;
use spark_core::{BoxError, Problem};

use crate::ask::{Event, Events};

enum State<F> {
    Relaying(Box<Events>, F),
    /// The error was told; now the body fails, so that nobody takes it for complete.
    Failing,
    Over,
}

/// Streams what `translate` makes of each event.
///
/// When the provider's stream breaks off, an event `{"error": …}` tells the client, and then the
/// body fails: the connection closes without the end of the body, caches and metrics see it too.
pub(crate) fn stream(
    events: Box<Events>,
    translate: impl FnMut(&Event) -> Option<Bytes> + Send + 'static,
) -> Response {
    let frames = stream::unfold(State::Relaying(events, translate), |state| async move {
        match state {
            State::Relaying(mut events, mut translate) => loop {
                match events.next().await? {
                    Ok(event) => {
                        if let Some(bytes) = translate(&event) {
                            return Some((Ok(bytes), State::Relaying(events, translate)));
                        }
                    }
                    Err(problem) => return Some((Ok(error_event(&problem)), State::Failing)),
                }
            },
            State::Failing => {
                // Gives the connection a turn to send what it holds before it is cut.
                tokio::task::yield_now().await;
                Some((
                    Err(BoxError::from("the provider's answer broke off")),
                    State::Over,
                ))
            }
            State::Over => None,
        }
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Asks a proxy in front not to hold the words back.
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

fn error_event(problem: &Problem) -> Bytes {
    let error = json!({ "error": {
        "message": problem.message(),
        "type": "server_error",
        "code": problem.code(),
        "param": null,
    }});
    format!("data: {error}\n\n").into()
}
