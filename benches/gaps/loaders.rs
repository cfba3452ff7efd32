//! Ours and its peers behind one face: one load for all who ask for the same.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use spark_cache::{Answer, Cache, CacheKey, Scope};
use tower::{Layer, ServiceExt, service_fn};
use tower_resilience_coalesce::CoalesceLayer;

use crate::work::Work;

pub(crate) const SPARK: &str = "spark";
pub(crate) const MOKA: &str = "moka 0.12";
pub(crate) const QUICK: &str = "quick_cache 0.7.0";
pub(crate) const COALESCE: &str = "tower-resilience-coalesce 0.14.0";

/// What is loaded.
pub(crate) type Load = Work<u64>;
/// A caller who waits for it; nothing, where it cannot be had.
pub(crate) type Ask = Pin<Box<dyn Future<Output = Option<u64>> + Send>>;

pub(crate) struct Loader {
    pub(crate) name: &'static str,
    /// Asks for the same thing each time.
    pub(crate) ask: Box<dyn Fn(Load) -> Ask>,
    /// Whether it is kept by now; a loader that keeps nothing says so.
    pub(crate) kept: Box<dyn Fn() -> Option<bool>>,
}

impl Loader {
    /// Ours first.
    pub(crate) fn all() -> [Self; 4] {
        [spark(), moka(), quick(), coalesce()]
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.name == SPARK
    }
}

/// A load that takes so long, and counts that it began.
pub(crate) fn load(takes: Duration, begun: &Arc<AtomicUsize>) -> Load {
    let begun = Arc::clone(begun);
    Work::new(async move {
        begun.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(takes).await;
        7
    })
}

fn spark() -> Loader {
    let cache = Cache::builder().build().unwrap();
    let key = CacheKey::builder(Scope::Master).build();
    let keeper = cache.clone();
    let ask = move |load: Load| -> Ask {
        let cache = cache.clone();
        Box::pin(async move {
            let load = || async { Ok(Answer::new(load.await.to_string())) };
            let entry = cache.get_or_fetch(key, load).await.ok()?;
            String::from_utf8_lossy(&entry.frames()[0]).parse().ok()
        })
    };
    Loader {
        name: SPARK,
        ask: Box::new(ask),
        kept: Box::new(move || Some(keeper.get(&key).is_some())),
    }
}

fn moka() -> Loader {
    let cache: moka::future::Cache<u8, u64> = moka::future::Cache::new(100);
    let keeper = cache.clone();
    let ask = move |load: Load| -> Ask {
        let cache = cache.clone();
        Box::pin(async move { Some(cache.get_with(0, load).await) })
    };
    Loader {
        name: MOKA,
        ask: Box::new(ask),
        kept: Box::new(move || Some(keeper.contains_key(&0))),
    }
}

fn quick() -> Loader {
    let cache: Arc<quick_cache::sync::Cache<u8, u64>> =
        Arc::new(quick_cache::sync::Cache::new(100));
    let keeper = Arc::clone(&cache);
    let ask = move |load: Load| -> Ask {
        let cache = Arc::clone(&cache);
        Box::pin(async move {
            let load = async { Ok::<u64, Infallible>(load.await) };
            cache.get_or_insert_async(&0, load).await.ok()
        })
    };
    Loader {
        name: QUICK,
        ask: Box::new(ask),
        kept: Box::new(move || Some(keeper.get(&0).is_some())),
    }
}

fn coalesce() -> Loader {
    let service = service_fn(|load: Load| async move { Ok::<u64, Infallible>(load.await) });
    let service = CoalesceLayer::new(|_: &Load| 0_u8).layer(service);
    let ask = move |load: Load| -> Ask {
        let asked = service.clone().oneshot(load);
        Box::pin(async move { asked.await.ok() })
    };
    Loader {
        name: COALESCE,
        ask: Box::new(ask),
        kept: Box::new(|| None),
    }
}

/// Counts how often it is polled.
pub(crate) struct Polled<F> {
    pub(crate) future: Pin<Box<F>>,
    pub(crate) polls: Arc<AtomicUsize>,
}

impl<F: Future> Future for Polled<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.future.as_mut().poll(cx)
    }
}
