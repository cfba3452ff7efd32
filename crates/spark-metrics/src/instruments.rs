//! Handles, resolved once and kept: by route, then method, then status.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use http::{Method, StatusCode};
use metrics::{Counter, Gauge, Histogram, Key, Label, Metadata, Recorder, SharedString};
use spark_core::Refusal;

use crate::metrics::{
    HTTP_DURATION, HTTP_FIRST_BYTE, HTTP_IN_FLIGHT, HTTP_REFUSALS, HTTP_REQUESTS,
    HTTP_RESPONSE_BYTES,
};

static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), metrics::Level::INFO, Some(module_path!()));

/// Routes that have handles of their own; a program with more counts the rest as `other`.
const MAX_ROUTES: usize = 1_000;
/// Statuses of one route and method whose counters are kept.
const MAX_STATUSES: usize = 64;
/// Pairs of layer and code whose counters are kept.
const MAX_REFUSALS: usize = 256;

/// Where handles come from: the recorder of the thread and process, or one given.
#[derive(Clone, Default)]
pub(crate) enum Sink {
    #[default]
    Ambient,
    Given(Arc<dyn Recorder + Send + Sync>),
}

impl Sink {
    fn with<T>(&self, make: impl FnOnce(&dyn Recorder) -> T) -> T {
        match self {
            Self::Ambient => metrics::with_recorder(make),
            Self::Given(recorder) => make(recorder),
        }
    }

    pub(crate) fn counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
        self.with(|recorder| recorder.register_counter(&Key::from_parts(name, labels), &METADATA))
    }

    pub(crate) fn gauge(&self, name: &'static str) -> Gauge {
        self.with(|recorder| recorder.register_gauge(&Key::from_static_name(name), &METADATA))
    }

    pub(crate) fn histogram(&self, name: &'static str, labels: Vec<Label>) -> Histogram {
        self.with(|recorder| recorder.register_histogram(&Key::from_parts(name, labels), &METADATA))
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ambient => "ambient",
            Self::Given(_) => "given",
        })
    }
}

/// Every handle of one HTTP layer.
#[derive(Debug, Default)]
pub(crate) struct Instruments {
    in_flight: OnceLock<Gauge>,
    routes: Table<Box<str>, Arc<RouteInstruments>>,
    refusals: Table<(&'static str, &'static str), Counter>,
}

impl Instruments {
    pub(crate) fn in_flight(&self, sink: &Sink) -> &Gauge {
        self.in_flight.get_or_init(|| sink.gauge(HTTP_IN_FLIGHT))
    }

    pub(crate) fn route(&self, route: &str) -> Arc<RouteInstruments> {
        let make = |route: &str| Arc::new(RouteInstruments::new(route));
        match self
            .routes
            .get_or_insert(route, MAX_ROUTES, || route.into(), || make(route))
        {
            Some(found) => found,
            // One place beyond the cap is kept for the rest.
            None => self
                .routes
                .get_or_insert("other", MAX_ROUTES + 1, || "other".into(), || make("other"))
                .unwrap_or_else(|| make("other")),
        }
    }

    pub(crate) fn refusal(&self, sink: &Sink, refusal: &Refusal) -> Counter {
        let key = (refusal.by, refusal.code);
        let make = || {
            let labels = vec![
                Label::from_static_parts("by", refusal.by),
                Label::from_static_parts("code", refusal.code),
            ];
            sink.counter(HTTP_REFUSALS, labels)
        };
        self.refusals
            .get_or_insert(&key, MAX_REFUSALS, || key, make)
            .unwrap_or_else(make)
    }
}

/// The handles of one route.
#[derive(Debug)]
pub(crate) struct RouteInstruments {
    route: SharedString,
    methods: [OnceLock<Box<MethodInstruments>>; METHODS.len()],
}

impl RouteInstruments {
    fn new(route: &str) -> Self {
        Self {
            route: SharedString::from_shared(route.into()),
            methods: Default::default(),
        }
    }

    pub(crate) fn method(&self, method: MethodLabel) -> &MethodInstruments {
        self.methods[method.0].get_or_init(|| {
            Box::new(MethodInstruments {
                route: self.route.clone(),
                method: method.as_str(),
                durations: Default::default(),
                first_byte: OnceLock::new(),
                bytes: OnceLock::new(),
                requests: Table::default(),
            })
        })
    }
}

/// The handles of one route and method.
#[derive(Debug)]
pub(crate) struct MethodInstruments {
    route: SharedString,
    method: &'static str,
    durations: [OnceLock<Histogram>; CLASSES.len()],
    first_byte: OnceLock<Histogram>,
    bytes: OnceLock<Histogram>,
    requests: Table<(u16, &'static str), Counter>,
}

impl MethodInstruments {
    pub(crate) fn requests(
        &self,
        sink: &Sink,
        status: Option<StatusCode>,
        outcome: &'static str,
    ) -> Counter {
        let key = (status.map_or(0, |status| status.as_u16()), outcome);
        let make = || {
            let status: SharedString = match status {
                None => "none".into(),
                Some(status) if status.as_u16() > 599 => "other".into(),
                Some(status) => status.as_str().to_owned().into(),
            };
            let mut labels = self.labels();
            labels.push(Label::new("status", status));
            labels.push(Label::from_static_parts("outcome", outcome));
            sink.counter(HTTP_REQUESTS, labels)
        };
        self.requests
            .get_or_insert(&key, MAX_STATUSES, || key, make)
            .unwrap_or_else(make)
    }

    pub(crate) fn duration(&self, sink: &Sink, status: Option<StatusCode>) -> &Histogram {
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100));
        let class = if class < CLASSES.len() { class } else { 0 };
        self.durations[class].get_or_init(|| {
            let mut labels = self.labels();
            labels.push(Label::from_static_parts("status_class", CLASSES[class]));
            sink.histogram(HTTP_DURATION, labels)
        })
    }

    pub(crate) fn first_byte(&self, sink: &Sink) -> &Histogram {
        self.first_byte
            .get_or_init(|| sink.histogram(HTTP_FIRST_BYTE, self.labels()))
    }

    pub(crate) fn bytes(&self, sink: &Sink) -> &Histogram {
        self.bytes
            .get_or_init(|| sink.histogram(HTTP_RESPONSE_BYTES, self.labels()))
    }

    fn labels(&self) -> Vec<Label> {
        vec![
            Label::from_static_parts("method", self.method),
            Label::new("route", self.route.clone()),
        ]
    }
}

const METHODS: [&str; 10] = [
    "_OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// A method that the standards know, or `_OTHER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MethodLabel(usize);

impl MethodLabel {
    pub(crate) fn of(method: &Method) -> Self {
        let method = method.as_str();
        Self(
            METHODS
                .iter()
                .skip(1)
                .position(|known| *known == method)
                .map_or(0, |at| at + 1),
        )
    }

    fn as_str(self) -> &'static str {
        METHODS[self.0]
    }
}

/// A bounded map for reading: what it holds is cheap to clone.
#[derive(Debug)]
pub(crate) struct Table<K, V>(RwLock<HashMap<K, V>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Eq + Hash, V: Clone> Table<K, V> {
    /// What is under `key`, made if need be; `None` when it would be one too many.
    pub(crate) fn get_or_insert<Q>(
        &self,
        key: &Q,
        max: usize,
        own: impl FnOnce() -> K,
        make: impl FnOnce() -> V,
    ) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(found) = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
        {
            return Some(found.clone());
        }
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = map.get(key) {
            return Some(found.clone());
        }
        if map.len() >= max {
            return None;
        }
        let made = make();
        map.insert(own(), made.clone());
        Some(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_methods_are_one() {
        assert_eq!(MethodLabel::of(&Method::GET).as_str(), "GET");
        assert_eq!(MethodLabel::of(&Method::PATCH).as_str(), "PATCH");
        for strange in ["get", "PROPFIND", "X-1", "_OTHER"] {
            let method = Method::from_bytes(strange.as_bytes()).unwrap();
            assert_eq!(MethodLabel::of(&method).as_str(), "_OTHER");
        }
    }

    #[test]
    fn routes_are_bounded() {
        let instruments = Instruments::default();
        for n in 0..3_000 {
            instruments.route(&format!("/{n}"));
        }
        assert_eq!(instruments.routes.0.read().unwrap().len(), MAX_ROUTES + 1);
        assert_eq!(instruments.route("/another").route.as_ref(), "other");
        assert_eq!(instruments.route("/1").route.as_ref(), "/1");
    }
}
