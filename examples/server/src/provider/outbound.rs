//! The way out: from a chat completion to the provider that answers it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use spark_breaker::{
    Breaker, BreakerLayer, Bulkhead, BulkheadLayer, Config as BreakerConfig, ConfigError, Failover,
    Hop, Registry, RetryBudget, RetryLayer, TimeoutLayer, Timeouts,
};
use spark_core::{BoxError, Clock};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt};

use super::events::WholeEvents;
use super::{DemoProvider, Model, OpenAi, ProviderBody, ProviderError, is_event_stream};
use crate::config::{Config, Provider, ProviderKind, Span};

/// Takes a chat completion, answers with a provider's response, or with a refusal of ours. A stream
/// comes one server-sent event per frame, and fails when it ends before its last event,
/// `data: [DONE]`.
pub(crate) type Outbound =
    BoxCloneSyncService<Request<Bytes>, Response<ProviderBody>, ProviderError>;

/// Only the provider of this name is asked: an extension of the request.
#[derive(Clone, Debug)]
pub(crate) struct OnlyProvider(pub Arc<str>);

/// Retries may add a tenth to the calls, and ten at once after a quiet time.
const RETRY_SHARE: f64 = 0.1;
const RETRY_RESERVE: u32 = 10;

/// By how much a probe's time is longer than a call may take.
const LONGER: Duration = Duration::from_secs(30);

/// The layers around each provider, outermost first: what `stack` prints.
pub(crate) const LAYERS: [&str; 6] = [
    "failover", "retry", "breaker", "bulkhead", "timeouts", "client",
];

/// Builds the way out, and the registry of its breakers.
///
/// # Errors
/// A sentence that names the field and the mend.
pub(crate) fn build(
    config: &Config,
    clock: &Clock,
    variables: impl Fn(&str) -> Option<String>,
) -> Result<(Outbound, Registry), String> {
    let text = |error: ConfigError| error.to_string();
    let registry = Registry::new(
        config.providers.len().max(1),
        BreakerConfig::llm(),
        clock.clone(),
    )
    .map_err(text)?;
    let mut hops = Vec::new();
    for provider in &config.providers {
        let field = |error: ConfigError| format!("providers.{}: {error}", provider.name);
        let breaker = registry
            .get_or_create_with(&provider.name, &breaker_config(provider))
            .map_err(field)?;
        let hop = match provider.kind {
            ProviderKind::Demo => {
                let client = DemoProvider::new(provider.demo.clone(), clock.clone());
                hop(provider, &breaker, client).map_err(field)?
            }
            ProviderKind::Openai => {
                let client = OpenAi::new(provider, &variables)?;
                hop(provider, &breaker, client).map_err(field)?
            }
        };
        hops.push(hop);
    }
    // The failover stands outside of all: it asks the providers that list the model, in order,
    // until one answers. A stream that breaks before its first byte is no answer, and nothing of an
    // answer is handed on before the choice is made.
    let failover = Failover::new(hops)
        .eligible(eligible(config))
        .until_first_byte(true)
        .clock(clock.clone())
        .deadline(config.provider_deadline());
    // A stream is cut into its events here, so that the breaker sees it as the provider sends it.
    let outbound = failover.map_response(whole_events);
    Ok((BoxCloneSyncService::new(outbound), registry))
}

fn hop<S>(provider: &Provider, breaker: &Breaker, client: S) -> Result<Hop<Outbound>, ConfigError>
where
    S: Service<Request<Bytes>, Response = Response<ProviderBody>, Error = ProviderError>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    let bulkhead = Bulkhead::new(&provider.name, provider.max_in_flight)?;
    let service = ServiceBuilder::new()
        .map_response(box_body)
        // Retries stand outside of the breaker, so that each attempt is admitted and recorded. A
        // completion is a POST that may be repeated: at worst it is paid for twice.
        .layer(RetryLayer::new(RetryBudget::new(RETRY_SHARE, RETRY_RESERVE)?).repeat_posts())
        // The breaker stands outside of bulkhead and timeouts, so that it sees calls that hang.
        .layer(BreakerLayer::new(breaker.clone()))
        // The bulkhead bounds what waits for this provider, to the end of each answer.
        .layer(BulkheadLayer::new(bulkhead))
        // The timeouts stand next to the client: they measure the provider and nothing of ours.
        .layer(TimeoutLayer::new(timeouts(provider)))
        .service(client);
    Ok(Hop::new(
        provider.name.as_str(),
        BoxCloneSyncService::new(service),
    ))
}

fn box_body<B>(response: Response<B>) -> Response<ProviderBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

fn whole_events<B>(response: Response<B>) -> Response<ProviderBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if !response.status().is_success() || !is_event_stream(response.headers()) {
        return box_body(response);
    }
    response.map(|body| WholeEvents::new(body).boxed_unsync())
}

/// A provider is asked for the models that it lists, and only it where the client named it.
fn eligible(config: &Config) -> impl Fn(&Parts, &str) -> bool + Send + Sync + 'static {
    let models: BTreeMap<String, Vec<String>> = config
        .providers
        .iter()
        .map(|provider| (provider.name.clone(), provider.models.clone()))
        .collect();
    move |request, hop| {
        let only = request.extensions.get::<OnlyProvider>();
        let model = request.extensions.get::<Model>();
        only.is_none_or(|only| &*only.0 == hop)
            && model.is_none_or(|model| {
                let listed = models.get(hop);
                listed.is_some_and(|models| models.iter().any(|m| **m == *model.0))
            })
    }
}

/// The breaker's settings as they are configured: 0 is for what is off, or goes by another setting.
pub(crate) fn breaker_config(provider: &Provider) -> BreakerConfig {
    let breaker = &provider.breaker;
    let or = |span: Span, other| match span.duration() {
        Duration::ZERO => other,
        span => span,
    };
    let open_for = breaker.open_for.duration();
    let max_open_for = or(breaker.max_open_for, open_for.saturating_mul(12));
    let first_byte = provider.timeouts.first_byte.duration();
    BreakerConfig::llm()
        .window(breaker.window.duration())
        .min_calls(breaker.min_calls)
        .failure_rate(breaker.failure_rate)
        .consecutive(some(breaker.consecutive))
        .slow_threshold(or(breaker.slow_threshold, first_byte))
        .slow_rate((breaker.slow_rate > 0.0).then_some(breaker.slow_rate))
        .in_flight_slow(some(breaker.in_flight_slow))
        .open_for(open_for)
        .max_open_for(max_open_for)
        .max_retry_after(or(breaker.max_retry_after, max_open_for))
        .probes(breaker.probes)
        .success_needed(some(breaker.success_needed))
        // Later than the time limit, which ends a probe that hangs, and is to count.
        .probe_timeout(provider.timeouts.total.duration() + LONGER)
        .ramp(breaker.ramp.duration())
}

fn some(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

fn timeouts(provider: &Provider) -> Timeouts {
    Timeouts {
        first_byte: Some(provider.timeouts.first_byte.duration()),
        idle: Some(provider.timeouts.idle.duration()),
        total: Some(provider.timeouts.total.duration()),
        // The client's connector keeps that on connecting; that on the first byte covers the head.
        ..Timeouts::default()
    }
}
