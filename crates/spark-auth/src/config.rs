//! How an authenticator is put together, and checked before the first request.

use std::sync::Arc;
use std::time::Duration;

use spark_core::Clock;

use crate::audit::{AuditSink, TracingAudit};
use crate::authenticator::Authenticator;
use crate::error::BuildError;
use crate::index::KeyId;
use crate::master::MasterVerifier;
use crate::memory::Memory;
use crate::pepper::Pepper;
use crate::record::KeyRecord;
use crate::store::KeyStore;
use crate::words::{Brand, Environment};

/// How many keys are kept unless told otherwise, those that ended included.
pub const DEFAULT_MAX_KEYS: usize = 100_000;

/// Builds an [`Authenticator`]. A pepper and a store are needed; the rest has defaults.
///
/// # Example
/// ```
/// use spark_auth::{Authenticator, Brand, MasterVerifier, MemoryStore, Pepper};
/// let pepper = Pepper::generate()?;
/// let master = MasterVerifier::from_secret(&pepper, "8f2K-zR41-vQ9x-Lm3T-w7Yb-Hd6S-cJ0p")?;
/// let auth = Authenticator::builder()
///     .pepper(pepper)
///     .store(MemoryStore::new())
///     .master(master)
///     .brand(Brand::new("acme")?)
///     .max_keys(1_000)
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct AuthenticatorBuilder {
    clock: Option<Clock>,
    pepper: Option<Pepper>,
    previous_pepper: Option<Pepper>,
    store: Option<Arc<dyn KeyStore>>,
    master: Option<MasterVerifier>,
    previous_master: Option<MasterVerifier>,
    audit: Option<Arc<dyn AuditSink>>,
    brand: Brand,
    max_keys: Option<usize>,
    environments: Option<Environments>,
    accept_lost_keys: bool,
}

/// What a built authenticator is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) pepper: Pepper,
    pub(crate) previous_pepper: Option<Pepper>,
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) master: Option<MasterVerifier>,
    pub(crate) previous_master: Option<MasterVerifier>,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) brand: Brand,
    pub(crate) max_keys: usize,
    pub(crate) environments: Environments,
    pub(crate) memory: Memory,
}

/// Which keys of users are accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Environments {
    live: bool,
    test: bool,
}

impl Environments {
    pub(crate) fn contain(self, environment: Environment) -> bool {
        match environment {
            Environment::Live => self.live,
            Environment::Test => self.test,
        }
    }
}

impl AuthenticatorBuilder {
    /// The clock; the system's unless told otherwise.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// let builder = Authenticator::builder().clock(spark_core::Clock::system());
    /// ```
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// The pepper under which new keys are kept.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// let builder = Authenticator::builder().pepper(Pepper::generate()?);
    /// # Ok::<(), PepperError>(())
    /// ```
    pub fn pepper(mut self, pepper: Pepper) -> Self {
        self.pepper = Some(pepper);
        self
    }

    /// The pepper before it: keys and master keys made under it still work.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// let (new, old) = (Pepper::generate()?, Pepper::generate()?);
    /// let builder = Authenticator::builder().pepper(new).previous_pepper(old);
    /// # Ok::<(), PepperError>(())
    /// ```
    pub fn previous_pepper(mut self, pepper: impl Into<Option<Pepper>>) -> Self {
        self.previous_pepper = pepper.into();
        self
    }

    /// Where keys are kept.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// let builder = Authenticator::builder().store(MemoryStore::new());
    /// ```
    pub fn store(mut self, store: impl KeyStore + 'static) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// The master key. Without one, no credential opens the control plane.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # fn example(pepper: &Pepper) -> Result<(), MasterKeyError> {
    /// let text = std::env::var("SPARK_MASTER_KEY").unwrap_or_default();
    /// let builder = Authenticator::builder().master(MasterVerifier::from_secret(pepper, &text)?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn master(mut self, master: impl Into<Option<MasterVerifier>>) -> Self {
        self.master = master.into();
        self
    }

    /// The master key before it, which still works, until its
    /// [deadline](MasterVerifier::expires_at) if it has one. Its uses are audited as such.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # fn example(new: MasterVerifier, old: MasterVerifier) {
    /// let builder = Authenticator::builder().master(new).previous_master(old);
    /// # }
    /// ```
    pub fn previous_master(mut self, master: impl Into<Option<MasterVerifier>>) -> Self {
        self.previous_master = master.into();
        self
    }

    /// Where audit events go; to `tracing` unless told otherwise.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// let builder = Authenticator::builder().audit(TracingAudit);
    /// ```
    pub fn audit(mut self, sink: impl AuditSink + 'static) -> Self {
        self.audit = Some(Arc::new(sink));
        self
    }

    /// The first word of new keys; `spark` unless told otherwise. Keys of other brands in the
    /// store go on working.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// let builder = Authenticator::builder().brand(Brand::new("acme")?);
    /// # Ok::<(), KeyError>(())
    /// ```
    pub fn brand(mut self, brand: Brand) -> Self {
        self.brand = brand;
        self
    }

    /// How many live keys there may be, and how many are kept with those that ended:
    /// [`DEFAULT_MAX_KEYS`] unless told otherwise. When there are as many, the one that ended first
    /// is forgotten for a new one; when none has ended, no new one is made, but for a rotation
    /// without overlap, which needs no room: the key that it replaces is revoked and forgotten. A
    /// bound that was lowered takes effect over several calls, of which each forgets up to 1,000.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// let builder = Authenticator::builder().max_keys(1_000);
    /// ```
    pub fn max_keys(mut self, max: usize) -> Self {
        self.max_keys = Some(max);
        self
    }

    /// Of which environments user keys are accepted; of both unless told otherwise, and then the
    /// word in a key is but a label. Neither other keys are issued then, nor do they work. The
    /// master key is not asked, since the operator has chosen it.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # use spark_core::Name;
    /// let auth = Authenticator::builder()
    ///     .pepper(Pepper::generate()?)
    ///     .store(MemoryStore::new())
    ///     .environments(&[Environment::Live])
    ///     .build()?;
    /// let test = NewKey::new(Name::new("acme")?).environment(Environment::Test);
    /// assert_eq!(auth.issue(test).unwrap_err().field(), Some("environment"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn environments(mut self, accepted: &[Environment]) -> Self {
        self.environments = Some(Environments {
            live: accepted.contains(&Environment::Live),
            test: accepted.contains(&Environment::Test),
        });
        self
    }

    /// Whether to start although live keys in the store were made under a pepper that was not
    /// given, so that they are refused. Not unless told so, since that is mostly a mistake.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// let builder = Authenticator::builder().accept_lost_keys(true);
    /// ```
    pub fn accept_lost_keys(mut self, accept: bool) -> Self {
        self.accept_lost_keys = accept;
        self
    }

    /// Reads the store and checks that everything fits together.
    ///
    /// # Errors
    /// [`BuildError`] says what is missing or does not fit, and the mend.
    ///
    /// # Example
    /// ```
    /// use spark_auth::{Authenticator, BuildError};
    /// assert!(matches!(Authenticator::builder().build(), Err(BuildError::NoPepper)));
    /// ```
    pub fn build(self) -> Result<Authenticator, BuildError> {
        let pepper = self.pepper.ok_or(BuildError::NoPepper)?;
        let store = self.store.ok_or(BuildError::NoStore)?;
        let clock = self.clock.unwrap_or_default();
        let max_keys = self.max_keys.unwrap_or(DEFAULT_MAX_KEYS);
        let known = [
            Some(pepper.id()),
            self.previous_pepper.as_ref().map(Pepper::id),
        ];

        for master in [&self.master, &self.previous_master].into_iter().flatten() {
            if !known.contains(&Some(master.pepper())) {
                let wanted = master.pepper();
                return Err(BuildError::MasterPepper { wanted });
            }
        }
        let environments = self.environments.unwrap_or(Environments {
            live: true,
            test: true,
        });
        if !environments.live && !environments.test {
            return Err(BuildError::NoEnvironment);
        }
        let loaded = store.load()?;
        let records = loaded
            .records
            .into_iter()
            .map(|record| match KeyId::of(record.id.as_str()) {
                Some(id) => Ok((id, record)),
                None => Err(BuildError::InvalidId { id: record.id }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let memory = Memory::new(records, loaded.sequence);
        let now = trusted_now(&clock, &memory);
        let is_live = |record: &KeyRecord| record.ended_at(now).is_none();
        let is_lost = |record: &KeyRecord| !known.contains(&Some(record.pepper));
        let found = memory.count(is_live);
        if found > max_keys {
            return Err(BuildError::TooManyKeys {
                found,
                max: max_keys,
            });
        }
        let lost = memory.count(|record| is_live(record) && is_lost(record));
        if lost > 0 && !self.accept_lost_keys {
            let given = pepper.id();
            return Err(BuildError::WrongPepper { keys: lost, given });
        }
        if lost > 0 {
            tracing::warn!(
                keys = lost,
                "live keys were made under a pepper that was not given: they are refused"
            );
        }

        Ok(Authenticator::new(Parts {
            clock,
            pepper,
            previous_pepper: self.previous_pepper,
            store,
            master: self.master,
            previous_master: self.previous_master,
            audit: self.audit.unwrap_or_else(|| Arc::new(TracingAudit)),
            brand: self.brand,
            max_keys,
            environments,
            memory,
        }))
    }
}

/// A date that was reset must not bring expired keys back to life.
fn trusted_now(clock: &Clock, memory: &Memory) -> Duration {
    let (now, latest) = (clock.unix_time(), memory.latest());
    let behind = latest.saturating_sub(now);
    if behind > Duration::from_secs(60) {
        tracing::warn!(
            ?behind,
            "the system's date is earlier than the last change of a key: keys expire by the latter \
             until the date has caught up"
        );
    }
    now.max(latest)
}
