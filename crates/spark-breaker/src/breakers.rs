//! The breakers of one call.

use crate::permit::IfDropped;
use crate::{Breaker, Permits, Rejected, Scope};

/// The breakers of one call: the provider's, and those of the model and of the credential where the
/// key names them. Made by [`Registry::breakers`](crate::Registry::breakers).
///
/// # Example
/// ```
/// use spark_breaker::{Config, FailKind, ProviderKey, Registry};
/// use spark_core::Clock;
/// let registry = Registry::new(100, Config::llm(), Clock::system())?;
/// let with = |key| registry.breakers(&ProviderKey::new("openai").credential(key));
/// for _ in 0..5 {
///     with("key-1")?.try_acquire().unwrap().failure(FailKind::Auth); // 401
/// }
/// assert!(with("key-1")?.try_acquire().is_err());
/// assert!(with("key-2")?.try_acquire().is_ok());
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Breakers {
    pub(crate) provider: Breaker,
    pub(crate) model: Option<Breaker>,
    pub(crate) credential: Option<Breaker>,
}

impl Breakers {
    /// Asks all of them to make one call. When one refuses, it is as if the others had not been
    /// asked: they count nothing, and no place of a probe is lost.
    ///
    /// # Errors
    /// The [`Rejected`] of the widest that is open or probed by others, or else of the widest that
    /// refuses.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, Mode, ProviderKey, Registry, Scope};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// let breakers = registry.breakers(&ProviderKey::new("openai").model("gpt-x"))?;
    /// breakers.try_acquire().unwrap().success();
    /// breakers.of(Scope::Model).unwrap().set_mode(Mode::ForcedOpen);
    /// assert_eq!(&*breakers.try_acquire().unwrap_err().name, "openai/gpt-x");
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn try_acquire(&self) -> Result<Permits, Rejected> {
        self.acquire(false, IfDropped::held_by_others())
    }

    /// Like [`try_acquire`](Self::try_acquire), for a call that no user waits for.
    ///
    /// # Errors
    /// As those of [`try_acquire`](Self::try_acquire).
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, ProviderKey, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// let breakers = registry.breakers(&ProviderKey::new("openai"))?;
    /// breakers.try_acquire_background().unwrap().success();
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn try_acquire_background(&self) -> Result<Permits, Rejected> {
        self.acquire(true, IfDropped::held_by_others())
    }

    /// The breaker of this scope, if the key names one.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, ProviderKey, Registry, Scope};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// let breakers = registry.breakers(&ProviderKey::new("openai"))?;
    /// assert!(breakers.of(Scope::Provider).is_some());
    /// assert!(breakers.of(Scope::Model).is_none());
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn of(&self, scope: Scope) -> Option<&Breaker> {
        match scope {
            Scope::Provider => Some(&self.provider),
            Scope::Model => self.model.as_ref(),
            Scope::Credential => self.credential.as_ref(),
        }
    }

    /// From the widest.
    fn all(&self) -> impl Iterator<Item = &Breaker> {
        let narrower = [&self.model, &self.credential];
        std::iter::once(&self.provider).chain(narrower.into_iter().flatten())
    }

    pub(crate) fn acquire(
        &self,
        background: bool,
        if_dropped: IfDropped,
    ) -> Result<Permits, Rejected> {
        // One that refuses says so before any other lends a place of a probe: calls that will not be
        // made must not keep others from probing.
        if let Some(refuses) = self.all().find(|breaker| breaker.refuses()) {
            refuses.acquire(background, if_dropped)?.take_back();
        }
        // Of a call that is given up the model is to blame, and of one that panics the provider.
        let of_provider = match self.model {
            Some(_) => if_dropped.or_nothing(),
            None => if_dropped,
        };
        let of_model = if_dropped.without_panic();
        let provider = self.provider.acquire(background, of_provider)?;
        let ask = |breaker: &Option<Breaker>, if_dropped| {
            let breaker = breaker.as_ref();
            breaker
                .map(|it| it.acquire(background, if_dropped))
                .transpose()
        };
        let model = match ask(&self.model, of_model) {
            Ok(model) => model,
            Err(rejected) => {
                provider.take_back();
                return Err(rejected);
            }
        };
        match ask(&self.credential, of_model.or_nothing()) {
            Ok(credential) => Ok(Permits::new(provider, model, credential)),
            Err(rejected) => {
                provider.take_back();
                if let Some(model) = model {
                    model.take_back();
                }
                Err(rejected)
            }
        }
    }
}
