//! Breakers by name, shared by whoever asks for the name.

use std::fmt;
use std::sync::Arc;

use spark_core::Clock;

use crate::key::scope_of;
use crate::shelf::Shelf;
use crate::{
    Breaker, Breakers, Config, ConfigError, Listener, ProviderKey, RegistryHealth, Scope, Snapshot,
};

/// The name of the breaker that all names share once a registry is full: see [`Registry`].
pub const OVERFLOW: &str = "other";

/// The same for names of models (`provider/model`), and of credentials (`provider#credential`).
const MODEL_OVERFLOW: &str = "other/other";
const CREDENTIAL_OVERFLOW: &str = "other#other";

/// A bounded set of breakers by name. Clones share it.
///
/// Asking twice for a name gives the same breaker, so building a layer again (as axum does for each
/// route) never resets one.
///
/// Names are of three kinds: plain ones, those of models (`openai/gpt-x`: `/` comes before any `#`)
/// and those of credentials (`openai#key-1`). Of each kind it holds at most as many as its capacity.
/// When they are so many, one makes room that nobody holds, that was not asked for in the time of a
/// window, and that remembers no trouble; when there is none (which is found out once a second),
/// further names of the kind share one breaker, called `other`, `other/other` or `other#other`. So
/// invented models can neither fill the memory, nor push out those that are in use or about to open,
/// nor touch the breakers of providers and credentials. To keep the place of a name that is rarely
/// asked for, hold its breaker.
///
/// Metrics are bounded too, also over time: of each kind, the first names up to the capacity have
/// series of their own, for ever. Later ones are counted under the name of the shared breaker, whose
/// state the series `spark_breaker_state` of that name goes on telling, and theirs is not told.
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
    providers: Shelf,
    models: Shelf,
    credentials: Shelf,
}

impl Registry {
    /// A registry of at most `capacity` breakers of each kind, which are made with `config` unless
    /// told otherwise.
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
        let shelf = |overflow, clock, listener| {
            Shelf::new(capacity, overflow, config.clone(), clock, listener)
        };
        Ok(Self(Arc::new(Shared {
            capacity,
            providers: shelf(OVERFLOW, clock.clone(), listener.clone())?,
            models: shelf(MODEL_OVERFLOW, clock.clone(), listener.clone())?,
            credentials: shelf(CREDENTIAL_OVERFLOW, clock, listener)?,
            config,
        })))
    }

    /// The breaker of this name, if there is one. The shared ones are always there.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// assert!(registry.get("openai").is_none());
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn get(&self, name: &str) -> Option<Breaker> {
        self.shelf(scope_of(name)).get(name)
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
    /// its rules: to change them, see [`reconfigure`](Self::reconfigure). They go with it when it makes
    /// room for another: hold the breaker to keep them.
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
        let shelf = self.shelf(scope_of(name));
        shelf.get_or_create(name, config)
    }

    /// The breakers of a call for this key, made with the registry's own rules where they are new.
    /// Those that are there already are found without allocating.
    ///
    /// # Errors
    /// [`ConfigError::Key`] when a part of the key cannot be one.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, ProviderKey, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// let key = ProviderKey::new("openai").model("gpt-x").credential("key-1");
    /// registry.breakers(&key)?.try_acquire().unwrap().success();
    /// let names: Vec<_> = registry.iter().map(|breaker| breaker.name().to_string()).collect();
    /// assert_eq!(names, ["openai", "openai#key-1", "openai/gpt-x"]);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn breakers(&self, key: &ProviderKey) -> Result<Breakers, ConfigError> {
        let of = |scope| self.of_key(key, scope).transpose();
        Ok(Breakers {
            provider: of(Scope::Provider)?.ok_or(ConfigError::Key)?,
            model: of(Scope::Model)?,
            credential: of(Scope::Credential)?,
        })
    }

    /// The same, where a part that cannot be one is taken for a name for which there is no room: a
    /// client may have chosen it.
    pub(crate) fn breakers_for_any(&self, key: &ProviderKey) -> Breakers {
        let of = |scope| {
            let breaker = self.of_key(key, scope)?;
            Some(breaker.unwrap_or_else(|_| self.shelf(scope).overflow()))
        };
        Breakers {
            provider: of(Scope::Provider).unwrap_or_else(|| self.0.providers.overflow()),
            model: of(Scope::Model),
            credential: of(Scope::Credential),
        }
    }

    /// For a call that has no key.
    pub(crate) fn breakers_for_none(&self) -> Breakers {
        Breakers {
            provider: self.0.providers.overflow(),
            model: None,
            credential: None,
        }
    }

    /// Gives other rules to the breaker of this name; its state and counts stay. `false` when there
    /// is none. Like any breaker's own rules they go with it when it makes room for another, and one
    /// that is made anew has the registry's: hold the breaker to keep them.
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

    /// Takes the breaker of this name out, whatever it remembers, as of a credential that is no longer
    /// used. Whoever holds it goes on with it, and who asks for the name again gets a new one. `None`
    /// when there is none; the shared ones stay.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// registry.get_or_create("openai#key-1")?.exhaust(None);
    /// assert!(registry.remove("openai#key-1").is_some());
    /// assert!(registry.get("openai#key-1").is_none());
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn remove(&self, name: &str) -> Option<Breaker> {
        self.shelf(scope_of(name)).remove(name)
    }

    /// The breakers in the order of their names; a shared one is among them from the time that it
    /// was first needed.
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
        let mut breakers = Vec::new();
        self.each(|breaker| breakers.push(breaker.clone()));
        breakers.sort_unstable_by(|a, b| a.name().cmp(b.name()));
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

    /// How they stand all together, and which are not well: for a health check. Waits for nothing,
    /// and allocates only for those that are not well.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, FailKind, Registry, State};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// registry.get_or_create("a")?;
    /// let b = registry.get_or_create_with("b", &Config::llm().consecutive(1))?;
    /// b.try_acquire().unwrap().failure(FailKind::Transport);
    /// let health = registry.health();
    /// assert_eq!((health.worst, health.breakers, health.unwell.len()), (State::Open, 2, 1));
    /// println!("{}", health.unwell[0]); // b is open: 1 failures in a row, the last: transport error; …
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn health(&self) -> RegistryHealth {
        let mut health = RegistryHealth::default();
        self.each(|breaker| health.add(breaker));
        health.unwell.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        health
    }

    fn of_key(&self, key: &ProviderKey, scope: Scope) -> Option<Result<Breaker, ConfigError>> {
        let config = &self.0.config;
        let shelf = self.shelf(scope);
        let found = key.name(scope, |name| shelf.get_or_create(name, config))?;
        Some(found.and_then(|breaker| breaker))
    }

    fn each(&self, mut look: impl FnMut(&Breaker)) {
        for scope in [Scope::Provider, Scope::Model, Scope::Credential] {
            self.shelf(scope).each(&mut look);
        }
    }

    fn shelf(&self, of: Scope) -> &Shelf {
        match of {
            Scope::Provider => &self.0.providers,
            Scope::Model => &self.0.models,
            Scope::Credential => &self.0.credentials,
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut breakers = 0;
        self.each(|_| breakers += 1);
        f.debug_struct("Registry")
            .field("capacity", &self.0.capacity)
            .field("breakers", &breakers)
            .finish_non_exhaustive()
    }
}
