//! A bound on the number of series, around any recorder.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Metadata, Recorder, SharedString, Unit,
};

use crate::{
    clean,
    metrics::{OVERFLOW, REFUSED},
};

static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), metrics::Level::INFO, Some(module_path!()));

/// How much a [`CardinalityLimit`] admits.
///
/// ```
/// let limits = spark_metrics::Limits { series_per_metric: 100, ..Default::default() };
/// assert_eq!(limits.label_value_len, 128);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Label sets per metric name; beyond it, values land in the series `overflow="true"`.
    pub series_per_metric: usize,
    /// Metric names; beyond it, new names record nothing.
    pub metrics: usize,
    /// Bytes of a label value; longer ones are cut at a character's edge.
    pub label_value_len: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            series_per_metric: 2_000,
            metrics: 1_000,
            label_value_len: 128,
        }
    }
}

/// Wraps a recorder and bounds what it can be made to hold.
///
/// * A metric that reaches its cap keeps the series it has; every further label set is recorded
///   in one more series, `{overflow="true"}`, and counted in `spark_metrics_overflow_total{metric}`.
/// * Label values are cut to a length; names and label keys that Prometheus does not know are
///   rewritten **before** they are told apart, so that `a.b` and `a_b` are one series.
/// * A name that is in use as one kind and asked for as another, or one name too many, gets a
///   handle that records nothing, counted in `spark_metrics_refused_total{reason}`.
///
/// A known series costs one look-up in a sharded map, which takes the place of the inner
/// recorder's own. Nothing is ever forgotten: do not put it around a recorder that drops idle series.
///
/// ```
/// use metrics::NoopRecorder;
/// use spark_metrics::{CardinalityLimit, Limits};
///
/// let limit = CardinalityLimit::new(NoopRecorder, Limits { series_per_metric: 2, ..Default::default() });
/// metrics::with_local_recorder(&limit, || {
///     for user in ["a", "b", "c", "d"] {
///         metrics::counter!("logins_total", "user" => user).increment(1);
///     }
/// });
/// assert_eq!(limit.series(), 3); // a, b, overflow
/// assert_eq!(limit.overflowed(), 2);
/// ```
pub struct CardinalityLimit<R> {
    inner: R,
    limits: Limits,
    double_backslashes: bool,
    counters: Shards<Counter>,
    gauges: Shards<Gauge>,
    histograms: Shards<Histogram>,
    families: RwLock<HashMap<Box<str>, Arc<Family>>>,
    series: AtomicUsize,
    overflowed: AtomicU64,
    refused: AtomicU64,
}

impl<R: Recorder> CardinalityLimit<R> {
    /// Wraps `inner`.
    ///
    /// ```
    /// # use spark_metrics::{CardinalityLimit, Limits};
    /// let limit = CardinalityLimit::new(metrics::NoopRecorder, Limits::default());
    /// assert_eq!(limit.series(), 0);
    /// ```
    pub fn new(inner: R, limits: Limits) -> Self {
        Self {
            inner,
            limits,
            double_backslashes: false,
            counters: Shards::default(),
            gauges: Shards::default(),
            histograms: Shards::default(),
            families: RwLock::default(),
            series: AtomicUsize::new(0),
            overflowed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub(crate) fn doubling_backslashes(mut self) -> Self {
        self.double_backslashes = true;
        self
    }

    /// The wrapped recorder.
    ///
    /// ```
    /// # use spark_metrics::{CardinalityLimit, Limits};
    /// let limit = CardinalityLimit::new(metrics::NoopRecorder, Limits::default());
    /// let _inner: &metrics::NoopRecorder = limit.inner();
    /// ```
    pub fn inner(&self) -> &R {
        &self.inner
    }

    /// The limits in force.
    ///
    /// ```
    /// # use spark_metrics::{CardinalityLimit, Limits};
    /// let limit = CardinalityLimit::new(metrics::NoopRecorder, Limits::default());
    /// assert_eq!(limit.limits().series_per_metric, 2_000);
    /// ```
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Series held, overflow series included.
    ///
    /// ```
    /// # use spark_metrics::{CardinalityLimit, Limits};
    /// # let limit = CardinalityLimit::new(metrics::NoopRecorder, Limits::default());
    /// metrics::with_local_recorder(&limit, || metrics::gauge!("queue_length").set(3));
    /// assert_eq!(limit.series(), 1);
    /// ```
    pub fn series(&self) -> usize {
        self.series.load(Ordering::Relaxed)
    }

    /// Metric names held.
    ///
    /// ```
    /// # use spark_metrics::{CardinalityLimit, Limits};
    /// # let limit = CardinalityLimit::new(metrics::NoopRecorder, Limits::default());
    /// assert_eq!(limit.metric_names(), 0);
    /// ```
    pub fn metric_names(&self) -> usize {
        self.families
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Look-ups that landed in an overflow series.
    ///
    /// ```
    /// # use spark_metrics::{CardinalityLimit, Limits};
    /// # let limit = CardinalityLimit::new(metrics::NoopRecorder, Limits::default());
    /// assert_eq!(limit.overflowed(), 0);
    /// ```
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Look-ups that were answered with a handle that records nothing.
    ///
    /// ```
    /// # use spark_metrics::{CardinalityLimit, Limits};
    /// # let limit = CardinalityLimit::new(metrics::NoopRecorder, Limits::default());
    /// metrics::with_local_recorder(&limit, || {
    ///     metrics::counter!("jobs").increment(1);
    ///     metrics::gauge!("jobs").set(1); // another kind: refused
    /// });
    /// assert_eq!(limit.refused(), 1);
    /// ```
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn resolve<H: Handle>(&self, key: &Key, metadata: &Metadata<'_>) -> H {
        match H::shards(self).get(key) {
            Some(handle) => handle,
            None => self.admit(key, metadata),
        }
    }

    #[cold]
    fn admit<H: Handle>(&self, key: &Key, metadata: &Metadata<'_>) -> H {
        let histogram = matches!(H::KIND, Kind::Histogram);
        let key = clean::key(key, self.limits.label_value_len, histogram);
        let shards = H::shards(self);
        if let Cow::Owned(key) = &key
            && let Some(handle) = shards.get(key)
        {
            return handle;
        }
        let Some(family) = self.family(key.name(), H::KIND) else {
            return H::noop();
        };
        let cap = self.limits.series_per_metric;
        if family.series.load(Ordering::Relaxed) >= cap {
            return self.overflow(&family, metadata);
        }
        let admitted = shards.insert_with(&key, |key| {
            let place = |held| (held < cap).then_some(held + 1);
            let relaxed = Ordering::Relaxed;
            family.series.fetch_update(relaxed, relaxed, place).ok()?;
            self.series.fetch_add(1, Ordering::Relaxed);
            Some(self.register(key, metadata))
        });
        admitted.unwrap_or_else(|| self.overflow(&family, metadata))
    }

    fn register<H: Handle>(&self, key: &Key, metadata: &Metadata<'_>) -> H {
        if self.double_backslashes {
            let key = clean::with_backslashes_doubled(key);
            return H::register(&self.inner, &key, metadata);
        }
        H::register(&self.inner, key, metadata)
    }

    fn overflow<H: Handle>(&self, family: &Family, metadata: &Metadata<'_>) -> H {
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        let mut first = false;
        let (key, counter) = family.overflow.get_or_init(|| {
            first = true;
            let labels = vec![Label::from_static_parts("overflow", "true")];
            let key = Key::from_parts(SharedString::from_shared(family.name.clone()), labels);
            let labels = vec![Label::new(
                "metric",
                SharedString::from_shared(family.name.clone()),
            )];
            let counter = Key::from_parts(OVERFLOW, labels);
            (key, self.inner.register_counter(&counter, &METADATA))
        });
        counter.increment(1);
        if first {
            // Not within the cell: whoever writes the line may count it in this very metric.
            tracing::warn!(
                metric = &*family.name,
                cap = self.limits.series_per_metric,
                "a metric has reached its cap of series; further label sets are recorded as overflow=\"true\""
            );
        }
        let shards = H::shards(self);
        let handle = shards.get(key).or_else(|| {
            shards.insert_with(key, |key| {
                self.series.fetch_add(1, Ordering::Relaxed);
                Some(self.register(key, metadata))
            })
        });
        handle.unwrap_or_else(H::noop)
    }

    fn family(&self, name: &str, kind: Kind) -> Option<Arc<Family>> {
        let known = self
            .families
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned();
        let family = match known {
            Some(family) => family,
            None => {
                let mut families = self
                    .families
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                let full = families.len() >= self.limits.metrics;
                match families.get(name) {
                    Some(family) => family.clone(),
                    None if full => {
                        drop(families);
                        self.refuse("names");
                        return None;
                    }
                    None => {
                        let family = Arc::new(Family::new(name, kind));
                        families.insert(name.into(), family.clone());
                        family
                    }
                }
            }
        };
        if family.kind == kind {
            return Some(family);
        }
        if !family.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                metric = name,
                "a metric is in use as two kinds; the later one is not recorded"
            );
        }
        self.refuse("kind");
        None
    }

    fn refuse(&self, reason: &'static str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let key = Key::from_parts(REFUSED, vec![Label::from_static_parts("reason", reason)]);
        self.inner.register_counter(&key, &METADATA).increment(1);
    }
}

impl<R: Recorder> Recorder for CardinalityLimit<R> {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_counter(name, unit, description);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_gauge(name, unit, description);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_histogram(name, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.resolve(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.resolve(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.resolve(key, metadata)
    }
}

impl<R> fmt::Debug for CardinalityLimit<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CardinalityLimit")
            .field("limits", &self.limits)
            .field("series", &self.series)
            .finish_non_exhaustive()
    }
}

/// What is known of one metric name.
struct Family {
    name: Arc<str>,
    kind: Kind,
    series: AtomicUsize,
    /// The overflow series' key, and the counter of what fell into it.
    overflow: OnceLock<(Key, Counter)>,
    warned: AtomicBool,
}

impl Family {
    fn new(name: &str, kind: Kind) -> Self {
        let series = AtomicUsize::new(0);
        let warned = AtomicBool::new(false);
        Self {
            name: name.into(),
            kind,
            series,
            overflow: OnceLock::new(),
            warned,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The three handles, told apart by type.
trait Handle: Clone + Sized {
    const KIND: Kind;
    fn shards<R>(limit: &CardinalityLimit<R>) -> &Shards<Self>;
    fn register<R: Recorder>(recorder: &R, key: &Key, metadata: &Metadata<'_>) -> Self;
    fn noop() -> Self;
}

macro_rules! handle {
    ($handle:ident, $shards:ident, $register:ident) => {
        impl Handle for $handle {
            const KIND: Kind = Kind::$handle;
            fn shards<R>(limit: &CardinalityLimit<R>) -> &Shards<Self> {
                &limit.$shards
            }
            fn register<R: Recorder>(recorder: &R, key: &Key, metadata: &Metadata<'_>) -> Self {
                recorder.$register(key, metadata)
            }
            fn noop() -> Self {
                $handle::noop()
            }
        }
    };
}

handle!(Counter, counters, register_counter);
handle!(Gauge, gauges, register_gauge);
handle!(Histogram, histograms, register_histogram);

type Shard<H> = RwLock<HashMap<Key, H, BuildHasherDefault<Spread>>>;

/// Known series, in sixteen maps, so that writers rarely meet readers.
struct Shards<H>([Shard<H>; 16]);

impl<H> Default for Shards<H> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| RwLock::default()))
    }
}

impl<H: Clone> Shards<H> {
    fn shard(&self, key: &Key) -> &Shard<H> {
        // The top bits choose the shard, the others the place within it.
        let index = key.get_hash().wrapping_mul(SPREAD) >> 60;
        &self.0[(index & 15) as usize]
    }

    fn get(&self, key: &Key) -> Option<H> {
        self.shard(key)
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    /// The handle under `key`; a new one is made under the shard's lock, once.
    fn insert_with(&self, key: &Key, make: impl FnOnce(&Key) -> Option<H>) -> Option<H> {
        let mut shard = self
            .shard(key)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = shard.get(key) {
            return Some(handle.clone());
        }
        let key = key.to_retained();
        let handle = make(&key)?;
        shard.insert(key, handle.clone());
        Some(handle)
    }
}

const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// A key brings its own hash: it is only spread.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0.rotate_left(20)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(SPREAD);
    }
}
