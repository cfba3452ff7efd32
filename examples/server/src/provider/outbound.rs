//! The way out: from a chat completion to the provider that answers it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use spark_breaker::{
    Aimd, BreakerLayer, Bulkhead, BulkheadLayer, ByCause, ConfigError, Failover, Gate, Hop,
    LastResort, LlmClassify, ProviderKey, Registry, RetryBudget, RetryLayer, TimeoutLayer,
};
use spark_core::sse::is_event_stream;
use spark_core::{BoxError, Clock};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt};

use super::breakers::has_model_breakers;
use super::events::WholeEvents;
use super::{DemoProvider, Model, OpenAi, ProviderBody, ProviderError};
use crate::config::{Config, Provider, ProviderKind};

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

/// The layers around each provider, outermost first: what `stack` prints.
pub(crate) const LAYERS: [&str; 6] = [
    "failover", "retry", "breaker", "bulkhead", "timeouts", "client",
];

/// Builds the way out, behind these breakers.
///
/// # Errors
/// A sentence that names the field and the mend.
pub(crate) fn build(
    config: &Config,
    clock: &Clock,
    breakers: &Registry,
    variables: impl Fn(&str) -> Option<String>,
) -> Result<Outbound, String> {
    let mut hops = Vec::new();
    for provider in &config.providers {
        let field = |error: ConfigError| format!("providers.{}: {error}", provider.name);
        let around = Around {
            attempts: config.failover.attempts,
            provider,
            clock,
            breakers,
        };
        let hop = match provider.kind {
            ProviderKind::Demo => {
                let client = DemoProvider::new(provider.demo.clone(), clock.clone());
                around.hop(client).map_err(field)?
            }
            ProviderKind::Openai => {
                let client = OpenAi::new(provider, &variables)?;
                around.hop(client).map_err(field)?
            }
        };
        hops.push(hop);
    }
    // The failover stands outside of all: it asks the providers that list the model, in order,
    // until one answers. A stream that breaks before its first byte is no answer, and nothing of an
    // answer is handed on before the choice is made.
    let mut failover = Failover::new(hops)
        .eligible(eligible(config))
        .until_first_byte(true)
        .clock(clock.clone())
        .deadline(config.provider_deadline());
    let rules = &config.failover;
    if rules.max_hops > 0 {
        failover = failover.max_hops(rules.max_hops);
    }
    if let Some(at_most) = rules.wait_at_most.some() {
        failover = failover.last_resort(LastResort::wait_for_earliest(at_most, rules.waiting));
    }
    // A stream is cut into its events here, so that the breaker sees it as the provider sends it.
    let outbound = failover.map_response(whole_events);
    Ok(BoxCloneSyncService::new(outbound))
}

/// What is put around the client of a provider.
struct Around<'a> {
    provider: &'a Provider,
    attempts: u32,
    clock: &'a Clock,
    breakers: &'a Registry,
}

impl Around<'_> {
    fn hop<S>(&self, client: S) -> Result<Hop<Outbound>, ConfigError>
    where
        S: Service<Request<Bytes>, Response = Response<ProviderBody>, Error = ProviderError>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        let name: Arc<str> = self.provider.name.as_str().into();
        if !has_model_breakers(self.provider) {
            let breaker = self.breakers.get_or_create(&name)?;
            return self.hop_behind(BreakerLayer::new(breaker), client);
        }
        // By the model as well, so that a bad one does not take the others out.
        let key = move |head: &Parts| {
            let Model(model) = head.extensions.get()?;
            Some(ProviderKey::new(Arc::clone(&name)).model(Arc::clone(model)))
        };
        self.hop_behind(BreakerLayer::keyed(self.breakers.clone(), key), client)
    }

    fn hop_behind<S, G>(
        &self,
        breaker: BreakerLayer<LlmClassify, G>,
        client: S,
    ) -> Result<Hop<Outbound>, ConfigError>
    where
        S: Service<Request<Bytes>, Response = Response<ProviderBody>, Error = ProviderError>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        G: Gate,
    {
        let budget = RetryBudget::new(RETRY_SHARE, RETRY_RESERVE)?;
        let service = ServiceBuilder::new()
            .map_response(box_body)
            // Retries stand outside of the breaker, so that each attempt is admitted and recorded. A
            // completion is a POST that may be repeated: at worst it is paid for twice.
            .layer(
                RetryLayer::new(budget)
                    .repeat_posts()
                    .attempts(self.attempts),
            )
            // The breaker stands outside of bulkhead and timeouts, so that it sees calls that hang.
            // The client's errors tell it which limit was reached.
            .layer(breaker.classify(ByCause::new(LlmClassify::new())))
            // The bulkhead bounds what waits for this provider, to the end of each answer.
            .layer(BulkheadLayer::new(self.bulkhead()?))
            // The timeouts stand next to the client: they measure the provider and nothing of ours.
            .layer(TimeoutLayer::new(self.provider.timeouts.limits()))
            .service(client);
        Ok(Hop::new(
            self.provider.name.as_str(),
            BoxCloneSyncService::new(service),
        ))
    }

    fn bulkhead(&self) -> Result<Bulkhead, ConfigError> {
        let Provider {
            name,
            max_in_flight: max,
            min_in_flight: min,
            first_byte_target,
            tenant_share: share,
            ..
        } = self.provider;
        let bulkhead = match *min {
            0 => Bulkhead::new(name, *max)?,
            min => {
                let rules = Aimd::new(min, *max).latency(first_byte_target.some());
                Bulkhead::adaptive(name, rules, self.clock.clone())?
            }
        };
        match *share > 0.0 && *share < 1.0 {
            true => bulkhead.tenant_share(*share),
            false => Ok(bulkhead),
        }
    }
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
