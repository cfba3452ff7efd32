//! Breakers by name, shared by whoever asks for the name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use spark_core::Clock;

use crate::metrics::{self, count};
use crate::{Breaker, Config, ConfigError, Listener, Snapshot};

/// The name of the breaker that all names share once a registry is full.
pub const OVERFLOW: &str = "other";

/// A bounded set of breakers by name. Clones share it.
///
/// Asking twice for a name gives the same breaker, so building a layer again (as axum does for each
/// route) never resets one. When the registry is full, a breaker that nobody holds and that
/// remembers no trouble makes room; when there is none, further names share one breaker called
/// `other`, so that invented names can neither fill the memory nor push out a breaker that is about
/// to open.
///
/// # Example
/// ```
/// use spark_breaker::{Config, Registry};
/// use spark_core::Clock;
/// let registry = Registry::new(100, Config::llm(), Clock::system())?;
/// let openai = registry.get_or_create("openai")?;
/// openai.try_acquire().unwrap().success();
/// assert_eq!(registry.get("openai").unwrap().snapshot().calls, 1);
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

struct Shared {
    capacity: usize,
    config: Config,
    clock: Clock,
    listener: Option<Arc<dyn Listener>>,
    breakers: RwLock<BTreeMap<Arc<str>, Breaker>>,
    overflow: Breaker,
    /// Whether it has been handed out: from then on it is one of those that are shown.
    overflown: AtomicBool,
}

impl Registry {
    /// A registry of at most `capacity` breakers, which are made with `config` unless told
    /// otherwise.
    ///
    /// # Errors
    /// [`ConfigError`] when `capacity` is zero or `config` cannot work.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, Registry};
    /// assert!(Registry::new(0, Config::llm(), spark_core::Clock::system()).is_err());
    /// ```
    pub fn new(capacity: usize, config: Config, clock: Clock) -> Result<Self, ConfigError> {
        Self::make(capacity, config, clock, None)
    }

    /// Like [`new`](Self::new); each of its breakers tells this listener of what happens to it.
    ///
    /// # Errors
    /// [`ConfigError`] when `capacity` is zero or `config` cannot work.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, Event, Registry};
    /// # use std::sync::Arc;
    /// let listener = Arc::new(|event: &Event<'_>| println!("{}: {:?}", event.name, event.kind));
    /// let clock = spark_core::Clock::system();
    /// let registry = Registry::with_listener(9, Config::llm(), clock, listener)?;
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn with_listener(
        capacity: usize,
        config: Config,
        clock: Clock,
        listener: Arc<dyn Listener>,
    ) -> Result<Self, ConfigError> {
        Self::make(capacity, config, clock, Some(listener))
    }

    fn make(
        capacity: usize,
        config: Config,
        clock: Clock,
        listener: Option<Arc<dyn Listener>>,
    ) -> Result<Self, ConfigError> {
        if capacity == 0 {
            return Err(ConfigError::out_of_range("capacity", &0, "give at least 1"));
        }
        let overflow = Breaker::make(OVERFLOW, config.clone(), clock.clone(), listener.clone())?;
        Ok(Self(Arc::new(Shared {
            capacity,
            config,
            clock,
            listener,
            breakers: RwLock::default(),
            overflow,
            overflown: AtomicBool::new(false),
        })))
    }

    /// The breaker of this name, if there is one. [`OVERFLOW`] is the name of the shared one, which
    /// is always there.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// assert!(registry.get("openai").is_none());
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn get(&self, name: &str) -> Option<Breaker> {
        if name == OVERFLOW {
            return Some(self.0.overflow.clone());
        }
        self.read().get(name).cloned()
    }

    /// The breaker of this name, made with the registry's own rules if it is new.
    ///
    /// # Errors
    /// [`ConfigError::Name`] when a breaker cannot be called so.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// assert_eq!(&**registry.get_or_create("openai")?.name(), "openai");
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn get_or_create(&self, name: &str) -> Result<Breaker, ConfigError> {
        self.get_or_create_with(name, &self.0.config)
    }

    /// The breaker of this name, made with `config` if it is new. One that is there already keeps
    /// its rules: to change them, see [`reconfigure`](Self::reconfigure).
    ///
    /// # Errors
    /// [`ConfigError`] when a new breaker cannot be made so.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// let local = registry.get_or_create_with("local", &Config::standard().probes(1))?;
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn get_or_create_with(&self, name: &str, config: &Config) -> Result<Breaker, ConfigError> {
        if let Some(breaker) = self.get(name) {
            return Ok(breaker);
        }
        let Shared {
            clock, listener, ..
        } = &*self.0;
        let new = Breaker::make(name, config.clone(), clock.clone(), listener.clone())?;
        let mut breakers = self
            .0
            .breakers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(breaker) = breakers.get(name) {
            return Ok(breaker.clone());
        }
        if breakers.len() >= self.0.capacity {
            let idle = breakers
                .iter()
                .find(|(_, breaker)| breaker.is_forgettable())
                .map(|(name, _)| Arc::clone(name));
            match idle {
                Some(idle) => breakers.remove(&idle),
                None => {
                    count!(metrics::OVERFLOWS);
                    self.0.overflown.store(true, Ordering::Relaxed);
                    return Ok(self.0.overflow.clone());
                }
            };
        }
        breakers.insert(Arc::clone(new.name()), new.clone());
        Ok(new)
    }

    /// Gives other rules to the breaker of this name; its state and counts stay. `false` when there
    /// is none.
    ///
    /// # Errors
    /// [`ConfigError`] when the rules cannot work; the old ones then stay.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// registry.get_or_create("openai")?;
    /// assert!(registry.reconfigure("openai", Config::llm().probes(3))?);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn reconfigure(&self, name: &str, config: Config) -> Result<bool, ConfigError> {
        match self.get(name) {
            Some(breaker) => breaker.reconfigure(config).map(|()| true),
            None => config.validate().map(|()| false),
        }
    }

    /// The breakers in the order of their names; the one that is shared once the registry is full is
    /// among them from then on.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// registry.get_or_create("b")?;
    /// registry.get_or_create("a")?;
    /// let names: Vec<_> = registry.iter().map(|breaker| breaker.name().to_string()).collect();
    /// assert_eq!(names, ["a", "b"]);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Breaker> + use<> {
        let mut breakers: Vec<_> = self.read().values().cloned().collect();
        if self.0.overflown.load(Ordering::Relaxed) {
            let at = breakers.partition_point(|breaker| &**breaker.name() < OVERFLOW);
            breakers.insert(at, self.0.overflow.clone());
        }
        breakers.into_iter()
    }

    /// How each stands, in the order of their names.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// registry.get_or_create("openai")?;
    /// assert_eq!(&*registry.snapshots()[0].name, "openai");
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.iter().map(|breaker| breaker.snapshot()).collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Arc<str>, Breaker>> {
        self.0
            .breakers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("capacity", &self.0.capacity)
            .field("breakers", &self.read().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FailKind, Permit, State};
    use spark_core::testing::TestClock;
    use std::time::Duration;

    #[test]
    fn invented_names_cannot_push_out_a_breaker_that_remembers_trouble() {
        let registry = Registry::new(4, Config::standard(), Clock::system()).unwrap();
        for _ in 0..3 {
            let real = registry.get_or_create("real").unwrap();
            real.try_acquire().unwrap().failure(FailKind::Transport);
            for junk in 0..100 {
                let junk = registry.get_or_create(&format!("junk-{junk}")).unwrap();
                junk.try_acquire().unwrap().ignore(crate::IgnoreKind::Local);
            }
        }
        assert_eq!(registry.get("real").unwrap().snapshot().failures, 3);
        assert_eq!(registry.iter().count(), 4);
    }

    #[test]
    fn b12_invented_names_that_fail_do_not_fill_it_for_good() {
        let clock = TestClock::new();
        clock.advance(Duration::from_secs(1_000));
        let registry = Registry::new(4, Config::standard(), clock.clock()).unwrap();
        let real = registry.get_or_create("real").unwrap();
        for n in 0..10 {
            for _ in 0..5 {
                real.try_acquire().map_or_else(drop, Permit::success);
                real.try_acquire().unwrap().failure(FailKind::Transport);
                let junk = registry.get_or_create(&format!("junk-{n}")).unwrap();
                let _ = junk.try_acquire().map(|it| it.failure(FailKind::Transport));
            }
            real.reset();
            real.try_acquire().unwrap().failure(FailKind::Transport);
            // By then the trouble of whoever was not called again is long over.
            clock.advance(Duration::from_secs(20));
            real.try_acquire().unwrap().failure(FailKind::Transport);
            clock.advance(Duration::from_secs(20));
        }
        drop(real);
        let kept = registry.get("real").unwrap().snapshot().failures;
        assert_eq!(kept, 1, "the one in trouble stays");
        let names: Vec<_> = registry.iter().map(|it| it.name().to_string()).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(names.contains(&"junk-9".to_owned()), "{names:?}");
        assert!(!names.contains(&OVERFLOW.to_owned()), "{names:?}");
    }

    #[test]
    fn a_full_registry_shares_one_breaker() {
        let registry = Registry::new(1, Config::standard(), Clock::system()).unwrap();
        let held = registry.get_or_create("held").unwrap();
        let more = registry.get_or_create("more").unwrap();
        let again = registry.get_or_create("again").unwrap();
        assert_eq!((&**more.name(), &**again.name()), (OVERFLOW, OVERFLOW));
        assert_eq!(&**held.name(), "held");

        for _ in 0..5 {
            more.try_acquire().unwrap().failure(FailKind::Transport);
        }
        assert!(again.try_acquire().is_err(), "it is one breaker");
        let shown: Vec<_> = registry.snapshots().into_iter().map(|s| s.state).collect();
        assert_eq!(shown, [State::Closed, State::Open], "held, other");
        registry.get(OVERFLOW).unwrap().reset();
        assert!(again.try_acquire().is_ok(), "an operator can reach it");
        let by_name = registry.get_or_create(OVERFLOW).unwrap();
        by_name.set_mode(crate::Mode::ForcedOpen);
        assert!(more.try_acquire().is_err(), "no second one has its name");
    }
}
