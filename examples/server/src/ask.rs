//! Asking a provider: one chat completion, whole or streamed, and what it used.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use spark_breaker::Answered;
use spark_core::{Clock, Context, Instant, Problem, Refusal, UsageReport, collect};
use tower::ServiceExt;

use crate::provider::{OnlyProvider, Outbound, ProviderBody, ProviderError, chat_request, data_of};

/// The longest whole answer, in bytes.
const MAX_ANSWER: usize = 16 << 20;
/// The longest error body of a provider that is passed on.
const MAX_ERROR: usize = 64 << 10;

/// One chat completion to be had.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The request in OpenAI's format; `stream_options` is set here.
    pub body: Map<String, Value>,
    pub model: String,
    /// Only this provider, not the next one either.
    pub provider: Option<String>,
    pub stream: bool,
}

/// What a provider answered.
pub(crate) enum Answer {
    Whole {
        provider: Arc<str>,
        /// As it came.
        bytes: Bytes,
        /// The same, parsed.
        completion: Value,
    },
    Stream {
        provider: Arc<str>,
        events: Events,
    },
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Refused {
    /// By us, or by nobody reachable.
    Problem(Problem),
    /// By the provider, who finds fault with the request: its status and its own words.
    Provider { status: StatusCode, body: Bytes },
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Asks the providers in their order.
pub(crate) async fn ask(
    outbound: &Outbound,
    clock: &Clock,
    context: &Context,
    mut ask: Ask,
) -> Result<Answer, Refused> {
    let wants_usage = ask
        .body
        .get("stream_options")
        .is_some_and(|o| o["include_usage"] == true);
    if ask.stream {
        // Asked for always, since the usage is counted; handed on only to who asked for it.
        let options = ask
            .body
            .entry("stream_options")
            .or_insert_with(|| json!({}));
        if let Value::Object(options) = options {
            options.insert("include_usage".to_owned(), true.into());
        }
    }
    let mut request = chat_request(Value::Object(ask.body).to_string().into(), &ask.model);
    request.extensions_mut().insert(context.clone());
    if let Some(provider) = ask.provider {
        request
            .extensions_mut()
            .insert(OnlyProvider(provider.into()));
    }

    let asked = clock.now();
    let response = outbound.clone().oneshot(request).await;
    let response = response.map_err(|error| unreachable_provider(&error))?;
    let provider = answered_by(&response);
    if !response.status().is_success() {
        return Err(refused(response).await);
    }
    let usage = Recorder {
        context: context.clone(),
        clock: clock.clone(),
        asked,
        provider: Arc::clone(&provider),
        model: ask.model.into(),
    };
    if ask.stream {
        let events = Events {
            body: response.into_body(),
            usage,
            wants_usage,
        };
        return Ok(Answer::Stream { provider, events });
    }
    let bytes = collect(response.into_body(), MAX_ANSWER).await;
    let bytes = bytes.map_err(|_| cut_off())?;
    let completion: Value = serde_json::from_slice(&bytes).map_err(|_| not_understood())?;
    if !completion["choices"].is_array() {
        return Err(not_understood().into());
    }
    usage.record(&completion["usage"]);
    Ok(Answer::Whole {
        provider,
        bytes,
        completion,
    })
}

/// A stream of chat completion chunks.
pub(crate) struct Events {
    body: ProviderBody,
    usage: Recorder,
    wants_usage: bool,
}

/// One event of a stream.
pub(crate) struct Event {
    /// As it came, with the blank line that ends it.
    pub raw: Bytes,
    /// The chunk; `None` for `[DONE]` and for comments.
    pub chunk: Option<Value>,
}

impl Events {
    /// The next event; an error when the stream breaks off, after which it is over.
    pub(crate) async fn next(&mut self) -> Option<Result<Event, Problem>> {
        loop {
            let Ok(frame) = self.body.frame().await? else {
                return Some(Err(cut_off()));
            };
            let Ok(raw) = frame.into_data() else { continue };
            let chunk: Option<Value> =
                data_of(&raw).and_then(|data| serde_json::from_slice(&data).ok());
            if let Some(chunk) = &chunk
                && chunk["usage"].is_object()
            {
                self.usage.record(&chunk["usage"]);
                let only_usage = chunk["choices"].as_array().is_none_or(Vec::is_empty);
                if only_usage && !self.wants_usage {
                    continue;
                }
            }
            return Some(Ok(Event { raw, chunk }));
        }
    }
}

/// Fills the request's usage cell.
struct Recorder {
    context: Context,
    clock: Clock,
    asked: Instant,
    provider: Arc<str>,
    model: Arc<str>,
}

impl Recorder {
    fn record(&self, usage: &Value) {
        let tokens = |key: &str| usage[key].as_u64().unwrap_or(0);
        let took = self.clock.now().saturating_duration_since(self.asked);
        self.context.usage().record(
            UsageReport::new(Arc::clone(&self.provider), Arc::clone(&self.model))
                .with_tokens(tokens("prompt_tokens"), tokens("completion_tokens"))
                .with_upstream(took),
        );
    }
}

fn answered_by(response: &Response<ProviderBody>) -> Arc<str> {
    let answered = response.extensions().get::<Answered>();
    answered.map_or_else(|| "none".into(), |answered| Arc::clone(&answered.hop))
}

/// Turns what is no success into a refusal that a client can act on.
async fn refused(response: Response<ProviderBody>) -> Refused {
    if let Some(refusal) = response.extensions().get::<Refusal>() {
        // Ours: the breaker, the bulkhead, a timeout. It is passed on as it is.
        let detail = match refusal.code {
            "breaker_open" => {
                "No provider of this model is asked at the moment, since too many calls failed."
            }
            "bulkhead_full" => "All places for calls to the provider are taken.",
            "upstream_timeout" => "The provider did not answer in time.",
            _ => "No provider could be asked.",
        };
        let mut problem = Problem::new(response.status(), refusal.by, refusal.code).detail(detail);
        if let Some(after) = refusal.retry_after {
            problem = problem.retry_after(after);
        }
        return problem.into();
    }
    let status = response.status();
    let after = retry_after(&response);
    match status.as_u16() {
        400 | 404 | 409 | 413 | 415 | 422 => {
            let body = collect(response.into_body(), MAX_ERROR)
                .await
                .unwrap_or_default();
            Refused::Provider { status, body }
        }
        429 => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "provider",
            "provider_throttled",
        )
        .detail("The provider takes no more requests at the moment.")
        .retry_after(after.unwrap_or(Duration::from_secs(1)))
        .into(),
        503 => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "provider",
            "provider_unavailable",
        )
        .detail("The provider is not available at the moment.")
        .retry_after(after.unwrap_or(Duration::from_secs(1)))
        .into(),
        _ => Problem::new(StatusCode::BAD_GATEWAY, "provider", "provider_failed")
            .detail("The provider answered with an error.")
            .into(),
    }
}

fn retry_after(response: &Response<ProviderBody>) -> Option<Duration> {
    let value = response.headers().get(http::header::RETRY_AFTER)?;
    value.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn unreachable_provider(error: &ProviderError) -> Problem {
    tracing::warn!(error = %chain(error), "no provider answered");
    Problem::new(StatusCode::BAD_GATEWAY, "provider", "provider_unreachable")
        .detail("The provider could not be reached.")
}

fn cut_off() -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, "provider", "provider_cut_off")
        .detail("The provider's answer broke off.")
}

fn not_understood() -> Problem {
    Problem::new(
        StatusCode::BAD_GATEWAY,
        "provider",
        "provider_not_understood",
    )
    .detail("The provider's answer is not a chat completion.")
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
