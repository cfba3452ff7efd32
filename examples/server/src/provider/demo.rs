//! The embedded provider: the same text for the same prompt, and faults on demand.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use spark_core::{BoxError, Clock};
use tower::Service;

use super::events::EventError;
use super::{ProviderBody, ProviderError};
use crate::config::Demo;

/// A provider without a network: it answers in OpenAI's wire format.
#[derive(Clone, Debug)]
pub(crate) struct DemoProvider(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Demo,
    clock: Clock,
    calls: AtomicU64,
}

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Faults {
    fail: bool,
    stall: bool,
    truncate: bool,
}

impl DemoProvider {
    pub(crate) fn new(config: Demo, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            config,
            clock,
            calls: AtomicU64::new(0),
        }))
    }
}

impl Service<Request<Bytes>> for DemoProvider {
    type Response = Response<ProviderBody>;
    type Error = ProviderError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ProviderError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ProviderError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let call = inner.calls.fetch_add(1, Ordering::Relaxed);
            let faults = Faults {
                fail: falls_on(call, inner.config.failure_rate),
                stall: falls_on(call, inner.config.stall_rate),
                truncate: falls_on(call, inner.config.truncate_rate),
            };
            tokio::time::sleep(inner.config.latency.duration()).await;
            Ok(inner.answer(request.body(), faults))
        })
    }
}

impl Inner {
    fn answer(&self, body: &Bytes, faults: Faults) -> Response<ProviderBody> {
        if faults.fail {
            return error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "server_error",
                "The demo provider fails, as configured.",
            );
        }
        let Ok(asked) = serde_json::from_slice::<Value>(body) else {
            return error(
                StatusCode::BAD_REQUEST,
                "invalid_request_error",
                "The body is not JSON.",
            );
        };
        let completion = Completion::of(&asked, self.clock.unix_time());
        if asked["stream"] == true {
            let usage = asked["stream_options"]["include_usage"] == true;
            self.stream(&completion, usage, faults)
        } else {
            completion.whole(faults)
        }
    }

    fn stream(
        &self,
        completion: &Completion,
        usage: bool,
        faults: Faults,
    ) -> Response<ProviderBody> {
        let mut events = completion.events(usage);
        if faults.stall || faults.truncate {
            events.truncate(events.len() / 2);
        }
        let delay = self.config.word_delay.duration();
        let words = stream::iter(events)
            .enumerate()
            .then(move |(index, event)| async move {
                if index > 0 {
                    tokio::time::sleep(delay).await;
                }
                Ok::<_, BoxError>(Frame::data(Bytes::from(event)))
            });
        let end = stream::once(async move {
            if faults.stall {
                std::future::pending::<()>().await;
            }
            Err(BoxError::from(EventError::Truncated))
        });
        let cut = faults.stall || faults.truncate;
        let body = StreamBody::new(words.chain(end.take(usize::from(cut))));
        respond("text/event-stream", body.boxed_unsync())
    }
}

/// What is answered to one prompt.
struct Completion {
    id: String,
    created: u64,
    model: String,
    words: Vec<String>,
    finish_reason: &'static str,
    input_tokens: usize,
}

impl Completion {
    fn of(asked: &Value, now: Duration) -> Self {
        let prompt = last_user_text(asked);
        let model = asked["model"].as_str().unwrap_or("demo-1").to_owned();
        let quoted: Vec<&str> = prompt.split_whitespace().take(12).collect();
        let text = format!(
            "You said: {}. This is the demo provider of spark-server: it needs no network and \
             gives the same answer to the same prompt.",
            quoted.join(" ")
        );
        let mut words: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
        let limit = asked["max_completion_tokens"]
            .as_u64()
            .or(asked["max_tokens"].as_u64());
        let limit = limit
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(usize::MAX);
        let finish_reason = if words.len() > limit {
            "length"
        } else {
            "stop"
        };
        words.truncate(limit);
        Self {
            id: format!("chatcmpl-demo-{:016x}", fnv1a(prompt.as_bytes())),
            created: now.as_secs(),
            model,
            words,
            finish_reason,
            input_tokens: prompt.split_whitespace().count(),
        }
    }

    fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.words.len(),
            "total_tokens": self.input_tokens + self.words.len(),
        })
    }

    fn whole(&self, faults: Faults) -> Response<ProviderBody> {
        let body = json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": self.words.concat() },
                "finish_reason": self.finish_reason,
            }],
            "usage": self.usage(),
        });
        let bytes = Bytes::from(body.to_string());
        if faults.stall {
            let never = stream::pending::<Result<Frame<Bytes>, BoxError>>();
            return respond("application/json", StreamBody::new(never).boxed_unsync());
        }
        if faults.truncate {
            let half = bytes.slice(..bytes.len() / 2);
            let cut = [Ok(Frame::data(half)), Err(EventError::Truncated.into())];
            return respond(
                "application/json",
                StreamBody::new(stream::iter(cut)).boxed_unsync(),
            );
        }
        respond("application/json", whole(bytes))
    }

    fn events(&self, usage: bool) -> Vec<String> {
        let chunk = |choices: Value, usage: Option<Value>| {
            let mut chunk = json!({
                "id": self.id,
                "object": "chat.completion.chunk",
                "created": self.created,
                "model": self.model,
                "choices": choices,
            });
            if let Some(usage) = usage {
                chunk["usage"] = usage;
            }
            format!("data: {chunk}\n\n")
        };
        let delta = |delta: Value, finish: Option<&str>| {
            let choice = json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
            chunk(choice, None)
        };
        let mut events = vec![delta(json!({ "role": "assistant", "content": "" }), None)];
        events.extend(
            self.words
                .iter()
                .map(|word| delta(json!({ "content": word }), None)),
        );
        events.push(delta(json!({}), Some(self.finish_reason)));
        if usage {
            events.push(chunk(json!([]), Some(self.usage())));
        }
        events.push("data: [DONE]\n\n".to_owned());
        events
    }
}

/// The text of the last user message, of either form.
fn last_user_text(asked: &Value) -> String {
    let messages = asked["messages"].as_array();
    let user = messages
        .into_iter()
        .flatten()
        .rfind(|message| message["role"] == "user");
    match user.map(|message| &message["content"]) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

/// Spreads a share evenly over the calls: of any `n` in a row, `n × share` or one more.
fn falls_on(call: u64, share: f64) -> bool {
    let count = |calls: u64| (calls as f64 * share).floor();
    count(call + 1) > count(call)
}

/// FNV-1a: an id that looks like one, and is the same on every run.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn error(status: StatusCode, kind: &str, message: &str) -> Response<ProviderBody> {
    let body =
        json!({ "error": { "message": message, "type": kind, "code": null, "param": null } });
    let mut response = respond("application/json", whole(body.to_string().into()));
    *response.status_mut() = status;
    response
}

fn whole(bytes: Bytes) -> ProviderBody {
    Full::new(bytes)
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

fn respond(content_type: &'static str, body: ProviderBody) -> Response<ProviderBody> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;
    use crate::config::Span;
    use crate::provider::chat_request;

    async fn ask(config: Demo, body: Value) -> (StatusCode, Result<String, BoxError>) {
        let demo = DemoProvider::new(config, Clock::system());
        let request = chat_request(body.to_string().into(), "demo-1");
        let response = demo.oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await;
        (
            status,
            body.map(|b| String::from_utf8(b.to_bytes().to_vec()).unwrap()),
        )
    }

    fn quick() -> Demo {
        Demo {
            latency: Span::millis(0),
            word_delay: Span::millis(0),
            ..Demo::default()
        }
    }

    fn prompt(stream: bool) -> Value {
        json!({
            "model": "demo-1", "stream": stream, "stream_options": {"include_usage": true},
            "messages": [{"role": "user", "content": "what is a breaker?"}],
        })
    }

    #[tokio::test]
    async fn the_same_prompt_gets_the_same_text_whole_and_streamed() {
        let (_, whole) = ask(quick(), prompt(false)).await;
        let whole: Value = serde_json::from_str(&whole.unwrap()).unwrap();
        let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(text.contains("what is a breaker?"));

        let (_, stream) = ask(quick(), prompt(true)).await;
        let stream = stream.unwrap();
        let mut streamed = String::new();
        for event in stream
            .split("\n\n")
            .filter_map(|e| e.strip_prefix("data: "))
        {
            if let Ok(chunk) = serde_json::from_str::<Value>(event) {
                streamed += chunk["choices"][0]["delta"]["content"]
                    .as_str()
                    .unwrap_or_default();
            }
        }
        assert_eq!(streamed, text);
        assert!(stream.ends_with("data: [DONE]\n\n"));
        assert!(stream.contains("\"total_tokens\""));
    }

    #[tokio::test]
    async fn faults_come_as_configured() {
        let (status, _) = ask(
            Demo {
                failure_rate: 1.0,
                ..quick()
            },
            prompt(false),
        )
        .await;
        assert_eq!(status, 500);
        for stream in [false, true] {
            let (_, cut) = ask(
                Demo {
                    truncate_rate: 1.0,
                    ..quick()
                },
                prompt(stream),
            )
            .await;
            assert!(cut.is_err(), "stream: {stream}");
        }
    }

    #[test]
    fn a_share_is_spread_evenly() {
        for (share, expected) in [(0.0, 0), (0.25, 25), (0.5, 50), (1.0, 100)] {
            let failed = (0..100).filter(|call| falls_on(*call, share)).count();
            assert_eq!(failed, expected);
        }
    }

    #[test]
    fn max_tokens_ends_the_text() {
        let mut asked = prompt(false);
        asked["max_tokens"] = json!(2);
        let completion = Completion::of(&asked, Duration::ZERO);
        assert_eq!(
            (completion.words.len(), completion.finish_reason),
            (2, "length")
        );
    }
}
