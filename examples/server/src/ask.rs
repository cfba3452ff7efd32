//! Asking a provider: one chat completion, whole or streamed, and what it used.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use spark_breaker::Answered;
use spark_core::sse::is_event_stream;
use spark_core::{
    Clock, CollectError, Context, Instant, Problem, Refusal, UsageReport, collect, sse,
};
use spark_errors::ErrorTracker;
use tower::ServiceExt;

use crate::app::App;
use crate::ledger::Ledger;
use crate::provider::{OnlyProvider, ProviderBody, ProviderError, chat_request};
use crate::spending::{Spending, text_bytes};

/// The longest error body of a provider that is read.
const MAX_ERROR: usize = 64 << 10;
/// How long a throttled client waits for what the provider says of it.
const READ_ERROR_FOR: Duration = Duration::from_millis(500);
/// The longest that a client is asked to wait for a provider.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

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
        events: Box<Events>,
    },
}

/// Asks the providers in their order.
///
/// Where tokens are limited, an estimate is reserved first. What was used settles it: the usage, or
/// what was seen of the answer where none is told, or nothing where no provider has begun to answer.
pub(crate) async fn ask(app: &App, context: &Context, mut ask: Ask) -> Result<Answer, Problem> {
    let spending = Spending::reserve(app, context, &ask.body)?;
    let wants_usage = ask
        .body
        .get("stream_options")
        .is_some_and(|o| o["include_usage"] == true);
    if ask.stream {
        // Asked for always, since the usage is counted; handed on only to who asked for it.
        let options = ask.body.entry("stream_options").or_insert(Value::Null);
        if !options.is_object() {
            *options = json!({});
        }
        options["include_usage"] = true.into();
    }
    let mut request = chat_request(Value::Object(ask.body).to_string().into(), &ask.model);
    request.extensions_mut().insert(context.clone());
    if let Some(provider) = ask.provider {
        request
            .extensions_mut()
            .insert(OnlyProvider(provider.into()));
    }

    let asked = app.clock.now();
    let response = app.outbound.0.clone().oneshot(request).await;
    let response = match response {
        Ok(response) => response,
        Err(error) => {
            spending.settle(0);
            return Err(unreachable_provider(app, &error));
        }
    };
    let provider = answered_by(&response);
    if !response.status().is_success() {
        let refusal = response.extensions().get::<Refusal>();
        let may_have_worked = |it: &Refusal| it.by == "timeout" || it.code == "no_first_byte";
        match refusal.is_some_and(may_have_worked) {
            // It has the prompt, and may go on with it.
            true => spending.settle_at_seen(),
            false => spending.settle(0),
        }
        return Err(refused(app, &provider, response).await);
    }
    let mut usage = Recorder {
        context: context.clone(),
        clock: app.clock.clone(),
        ledger: app.ledger.clone(),
        errors: app.errors.clone(),
        asked,
        provider: Arc::clone(&provider),
        model: ask.model.into(),
        pieces: 0,
        told: None,
        spending,
        is_booked: false,
    };
    if ask.stream {
        if !is_event_stream(response.headers()) {
            usage.spending.settle_at_seen();
            return Err(usage.failed(not_understood()));
        }
        usage.spending.see(0);
        let events = Box::new(Events {
            body: response.into_body(),
            usage,
            wants_usage,
        });
        return Ok(Answer::Stream { provider, events });
    }
    let bytes = match collect(
        response.into_body(),
        app.config.server.max_answer.as_usize(),
    )
    .await
    {
        Ok(bytes) => bytes,
        // All that was reserved is spent: it is longer than anybody wants to know.
        Err(CollectError::TooLarge { .. }) => return Err(usage.failed(too_large())),
        Err(_) => {
            usage.spending.settle_at_seen();
            return Err(usage.failed(cut_off()));
        }
    };
    let completion: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let Some(choices) = completion["choices"].as_array() else {
        usage.spending.settle_at_seen();
        return Err(usage.failed(not_understood()));
    };
    // For providers that tell no usage.
    for choice in choices {
        usage.spending.see(text_bytes(&choice["message"]));
    }
    if completion["usage"].is_object() {
        usage.tell(&completion["usage"]);
    }
    usage.book();
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
    /// Whether it is `[DONE]`.
    pub is_last: bool,
}

impl Events {
    /// The next event; an error when the stream breaks off, after which it is over.
    pub(crate) async fn next(&mut self) -> Option<Result<Event, Problem>> {
        loop {
            let Ok(frame) = self.body.frame().await? else {
                return Some(Err(self.usage.failed(cut_off())));
            };
            let Ok(raw) = frame.into_data() else { continue };
            // Each frame is one event, within its limits.
            let mut splitter = sse::Splitter::new(usize::MAX);
            let event = splitter.next(&mut &raw[..]);
            let data = event.as_ref().and_then(sse::Event::data);
            let is_last = data == Some(b"[DONE]");
            if is_last {
                self.usage.book();
            }
            let chunk: Option<Value> = data.and_then(|data| serde_json::from_slice(data).ok());
            if chunk.is_some() {
                self.usage.pieces += 1;
            }
            for choice in chunk.iter().flat_map(|chunk| chunk["choices"].as_array()) {
                let deltas = choice.iter().map(|choice| text_bytes(&choice["delta"]));
                self.usage.spending.see(deltas.sum());
            }
            if let Some(chunk) = &chunk
                && chunk["usage"].is_object()
            {
                self.usage.tell(&chunk["usage"]);
                let only_usage = chunk["choices"].as_array().is_none_or(Vec::is_empty);
                if only_usage && !self.wants_usage {
                    continue;
                }
            }
            return Some(Ok(Event {
                raw,
                chunk,
                is_last,
            }));
        }
    }
}

/// Fills the request's usage cell and the ledger, and tells the tracker what went wrong.
struct Recorder {
    context: Context,
    clock: Clock,
    ledger: Ledger,
    errors: ErrorTracker,
    asked: Instant,
    provider: Arc<str>,
    model: Arc<str>,
    /// Pieces of a stream so far.
    pieces: u64,
    /// Tokens in and out, as far as the provider told them.
    told: Option<(u64, u64)>,
    spending: Spending,
    is_booked: bool,
}

impl Recorder {
    /// Some providers tell with each piece what was used so far, so the most that was told counts.
    fn tell(&mut self, usage: &Value) {
        let tokens = |key: &str| usage[key].as_u64().unwrap_or(0);
        let (input, output) = self.told.unwrap_or_default();
        self.told = Some((
            input.max(tokens("prompt_tokens")),
            output.max(tokens("completion_tokens")),
        ));
    }

    /// Books what was told, or one token a piece where nothing was; once.
    fn book(&mut self) {
        if std::mem::replace(&mut self.is_booked, true) {
            return;
        }
        if self.told.is_none() {
            // The pieces are less than what was seen.
            self.spending.settle_at_seen();
        }
        let (input, output) = self.told.unwrap_or((0, self.pieces));
        let took = self.clock.now().saturating_duration_since(self.asked);
        let report = UsageReport::new(Arc::clone(&self.provider), Arc::clone(&self.model))
            .with_tokens(input, output)
            .with_upstream(took);
        if self.context.usage().record(report) {
            self.ledger.spend(&self.context, input, output);
        }
    }

    fn failed(&self, problem: Problem) -> Problem {
        track(&self.errors, &self.provider, &problem);
        problem
    }
}

impl Drop for Recorder {
    /// A stream that was left before its end was spent as far as it came.
    fn drop(&mut self) {
        if self.told.is_some() || self.pieces > 0 {
            self.book();
        }
    }
}

/// A failure of a provider, for the error tracker and its hooks.
fn track(errors: &ErrorTracker, provider: &str, problem: &Problem) {
    errors
        .event("provider")
        .message(format_args!("{}: {}", problem.code(), problem.message()))
        .tag("provider", provider)
        .send();
}

fn answered_by(response: &Response<ProviderBody>) -> Arc<str> {
    let answered = response.extensions().get::<Answered>();
    answered.map_or_else(|| "none".into(), |answered| Arc::clone(&answered.hop))
}

/// Turns what is no success into a refusal that a client can act on.
async fn refused(app: &App, provider: &str, response: Response<ProviderBody>) -> Problem {
    if let Some(refusal) = response.extensions().get::<Refusal>() {
        // Ours: the breaker, the bulkhead, a timeout. It is passed on as it is.
        let detail = match refusal.code {
            "breaker_open" => {
                "No provider of this model is asked at the moment: too many calls failed, or it asked for that."
            }
            "bulkhead_full" => "All places for calls to the provider are taken.",
            "tenant_share_full" => "This tenant has too many calls to the provider under way.",
            "upstream_timeout" | "deadline_exceeded" => "The provider did not answer in time.",
            "provider_credential" => "The provider does not accept this server's own credential.",
            "no_first_byte" => "The provider's answer broke off before it began.",
            _ => "No provider could be asked.",
        };
        let mut problem = Problem::new(response.status(), refusal.by, refusal.code).detail(detail);
        if let Some(after) = refusal.retry_after {
            problem = problem.retry_after(after);
        }
        if refusal.by == "timeout"
            || matches!(refusal.code, "provider_credential" | "no_first_byte")
        {
            track(&app.errors, provider, &problem);
        }
        return problem;
    }
    let status = response.status();
    let wait = retry_after(app, &response);
    let unavailable = |code, detail: &'static str| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "provider", code)
            .detail(detail)
            .retry_after(wait)
    };
    let problem = match status.as_u16() {
        400 | 404 | 409 | 413 | 415 | 422 => match provider_refused(response).await {
            Some(problem) => return problem,
            None => provider_failed(),
        },
        429 => {
            let throttled = unavailable(
                "provider_throttled",
                "The provider takes no more requests at the moment.",
            );
            // Its breaker reads along, and learns whether that will pass.
            let read = collect(response.into_body(), MAX_ERROR);
            let _ = tokio::time::timeout(READ_ERROR_FOR, read).await;
            credit_used_up(app, provider).unwrap_or(throttled)
        }
        503 => unavailable(
            "provider_unavailable",
            "The provider is not available at the moment.",
        ),
        _ => provider_failed(),
    };
    track(&app.errors, provider, &problem);
    problem
}

/// Another try does not help before somebody has paid, or before the time that the provider gave.
fn credit_used_up(app: &App, provider: &str) -> Option<Problem> {
    let breaker = app.breakers.get(provider)?.snapshot();
    let problem = Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "provider",
        "provider_credit_used_up",
    )
    .detail("This server's credit with the provider is used up.");
    breaker.exhausted.then(|| match breaker.retry_after {
        Some(after) => problem.retry_after(after),
        None => problem,
    })
}

/// The provider finds fault with the request. Of its words only those go on that are an error of
/// OpenAI's shape: whatever else it sends may tell of its insides. `None` when it has no such route:
/// then `base_url` is at fault, and no client.
async fn provider_refused(response: Response<ProviderBody>) -> Option<Problem> {
    let status = response.status();
    let body = collect(response.into_body(), MAX_ERROR).await;
    let told: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let word = |key: &str| told["error"][key].as_str().map(str::to_owned);
    if status == StatusCode::NOT_FOUND && !told["error"].is_object() {
        return None;
    }
    let mut problem = Problem::new(status, "provider", "provider_refused");
    problem = problem.detail(match word("message") {
        Some(message) => format!("The provider finds fault with the request: {message}"),
        None => "The provider finds fault with the request.".to_owned(),
    });
    if let Some(param) = word("param") {
        problem = problem.param(param);
    }
    Some(problem)
}

/// What the provider says, within what its breaker would believe; else a second.
fn retry_after(app: &App, response: &Response<ProviderBody>) -> Duration {
    let (headers, now) = (response.headers(), app.clock.unix_time());
    let mut after = spark_breaker::retry_after(headers, now);
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        after = after.or_else(|| spark_breaker::reset_after(headers, now));
    }
    after.unwrap_or(Duration::from_secs(1)).min(MAX_RETRY_AFTER)
}

fn unreachable_provider(app: &App, error: &ProviderError) -> Problem {
    app.errors.capture("provider", error);
    Problem::new(StatusCode::BAD_GATEWAY, "provider", "provider_unreachable")
        .detail("The provider could not be reached.")
}

fn provider_failed() -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, "provider", "provider_failed")
        .detail("The provider answered with an error.")
}

fn too_large() -> Problem {
    Problem::new(
        StatusCode::BAD_GATEWAY,
        "provider",
        "provider_answer_too_large",
    )
    .detail("The provider's answer is longer than `server.max_answer`: stream it, or lower `max_tokens`.")
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

#[cfg(test)]
mod tests {
    use http_body::Frame;
    use http_body_util::StreamBody;
    use spark_core::{Name, Principal, User};

    use super::*;

    /// What is booked after `reads` events of a stream.
    async fn booked(events: &'static [&str], reads: usize) -> (u64, u64) {
        let clock = Clock::system();
        let tenant = Name::new("acme").unwrap();
        let user = User::new(Name::new("key").unwrap(), tenant.clone());
        let ledger = Ledger::default();
        let usage = Recorder {
            context: Context::new(clock.now()).with_principal(Principal::User(user.into())),
            asked: clock.now(),
            clock,
            ledger: ledger.clone(),
            errors: ErrorTracker::builder().build().unwrap(),
            provider: "p".into(),
            model: "m".into(),
            pieces: 0,
            told: None,
            spending: Spending::default(),
            is_booked: false,
        };
        let frames = events.iter().map(|event| {
            let event = format!("data: {event}\n\n");
            Ok(Frame::data(Bytes::from(event)))
        });
        let mut events = Events {
            body: StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync(),
            usage,
            wants_usage: true,
        };
        for _ in 0..reads {
            events.next().await.unwrap().unwrap();
        }
        drop(events);
        let line = ledger.of(&tenant);
        (line.input_tokens, line.output_tokens)
    }

    #[tokio::test]
    async fn what_was_told_of_the_usage_is_booked_once() {
        const SO_FAR: &[&str] = &[
            r#"{"choices":[{}],"usage":{"prompt_tokens":7,"completion_tokens":1}}"#,
            r#"{"choices":[{}],"usage":{"prompt_tokens":7,"completion_tokens":2}}"#,
            r#"{"choices":[{}],"usage":{"prompt_tokens":7,"completion_tokens":30}}"#,
            "[DONE]",
        ];
        assert_eq!(booked(SO_FAR, 4).await, (7, 30));
        assert_eq!(booked(SO_FAR, 2).await, (7, 2), "the client left");

        const NEVER: &[&str] = &[r#"{"choices":[{}]}"#, r#"{"choices":[{}]}"#, "[DONE]"];
        assert_eq!(booked(NEVER, 3).await, (0, 2), "one token a piece");
        assert_eq!(booked(NEVER, 0).await, (0, 0));
    }
}
