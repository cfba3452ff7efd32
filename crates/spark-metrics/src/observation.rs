//! One request, from its arrival to the end of its response body.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode, response};
use spark_core::{Context, End, Instant, Refusal, Usage, Watch};

use crate::{
    instruments::{MethodLabel, RouteInstruments},
    layer::Shared,
    route::UNMATCHED,
};

/// Counts one request when it ends, however it ends: by the end of its body, by an error of the
/// service, or by being dropped, which is what a panic, a timeout outside and a client that went
/// away look like from here.
#[derive(Debug)]
pub struct Observation {
    shared: Arc<Shared>,
    method: MethodLabel,
    route: Option<Arc<RouteInstruments>>,
    status: Option<StatusCode>,
    started: Instant,
    usage: Option<Usage>,
    first_byte: bool,
    bytes: u64,
    counted: bool,
}

impl Observation {
    pub(crate) fn begin<B>(shared: &Arc<Shared>, request: &Request<B>) -> Self {
        let settings = &shared.settings;
        let extensions = request.extensions();
        let route = settings
            .route
            .of_request(request.method(), request.uri(), extensions, |r| {
                shared.instruments.route(r)
            });
        // Only now: the rule of the route is not ours, and may panic.
        shared.instruments.in_flight(&settings.sink).increment(1);
        Self {
            shared: shared.clone(),
            method: MethodLabel::of(request.method()),
            route,
            status: None,
            started: settings.clock.now(),
            usage: Context::of(extensions).map(|context| context.usage().clone()),
            first_byte: false,
            bytes: 0,
            counted: false,
        }
    }

    /// The head of the response is there.
    pub(crate) fn answered(&mut self, head: &response::Parts) {
        self.status = Some(head.status);
        let shared = &self.shared;
        let settings = &shared.settings;
        let route = |route: &str| shared.instruments.route(route);
        if let Some(route) = settings.route.of_response(&head.extensions, route) {
            self.route = Some(route);
        }
        if let Some(refusal) = head.extensions.get::<Refusal>() {
            shared
                .instruments
                .refusal(&settings.sink, refusal)
                .increment(1);
        }
    }

    /// The service gave an error instead of a response.
    pub(crate) fn failed(mut self) {
        self.count("error");
    }

    fn count(&mut self, outcome: &'static str) {
        self.counted = true;
        let Shared {
            settings,
            instruments,
            ai,
        } = &*self.shared;
        let sink = &settings.sink;
        instruments.in_flight(sink).decrement(1);
        let route = self
            .route
            .take()
            .unwrap_or_else(|| instruments.route(UNMATCHED));
        let handles = route.method(self.method);
        handles.requests(sink, self.status, outcome).increment(1);
        let took = settings.clock.now().saturating_duration_since(self.started);
        handles.duration(sink, self.status).record(took);
        if self.status.is_some() {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a body beyond 2^52 bytes may be rounded"
            )]
            handles.bytes(sink).record(self.bytes as f64);
        }
        if let Some(report) = self.usage.as_ref().and_then(Usage::get) {
            ai.record(sink, &settings.models, report);
        }
    }
}

impl Watch for Observation {
    fn data(&mut self, data: &Bytes) {
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        if self.first_byte || data.is_empty() {
            return;
        }
        self.first_byte = true;
        let Shared {
            settings,
            instruments,
            ..
        } = &*self.shared;
        let took = settings.clock.now().saturating_duration_since(self.started);
        let route = self
            .route
            .get_or_insert_with(|| instruments.route(UNMATCHED));
        route
            .method(self.method)
            .first_byte(&settings.sink)
            .record(took);
    }

    fn end(mut self, end: End) {
        self.count(match end {
            End::Complete => "complete",
            End::Error => "error",
            End::Cancelled => "cancelled",
        });
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        if !self.counted {
            self.count("cancelled");
        }
    }
}
