//! How an authenticator is put together, and checked before the first request.

use std::sync::Arc;

use spark_core::Clock;

use crate::audit::{AuditSink, TracingAudit};
use crate::authenticator::Authenticator;
use crate::error::BuildError;
use crate::index::{Index, KeyId};
use crate::master::MasterVerifier;
use crate::pepper::Pepper;
use crate::record::KeyRecord;
use crate::store::KeyStore;
use crate::words::Brand;

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
    pub(crate) index: Index,
    /// The store's when it was loaded.
    pub(crate) sequence: u64,
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

    /// How many keys are kept at most, those that ended included: [`DEFAULT_MAX_KEYS`] unless told
    /// otherwise. A full store forgets the key that ended first, and refuses when none has ended.
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
        let loaded = store.load()?;
        let records = loaded.records;
        if records.len() > max_keys {
            let found = records.len();
            return Err(BuildError::TooManyKeys {
                found,
                max: max_keys,
            });
        }
        let now = clock.unix_time();
        let is_live = |record: &&KeyRecord| record.ended_at(now).is_none();
        let live = records.iter().filter(is_live).count();
        let lost = (records.iter().filter(is_live))
            .filter(|record| !known.contains(&Some(record.pepper)))
            .count();
        if live > 0 && lost == live {
            let given = pepper.id();
            return Err(BuildError::WrongPepper { keys: live, given });
        }
        if lost > 0 {
            tracing::warn!(
                keys = lost,
                "some keys were made under a pepper that was not given: they are refused"
            );
        }
        let records = records
            .into_iter()
            .map(|record| match KeyId::of(record.id.as_str()) {
                Some(id) => Ok((id, record)),
                None => Err(BuildError::InvalidId { id: record.id }),
            })
            .collect::<Result<Vec<_>, _>>()?;

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
            index: Index::new(records),
            sequence: loaded.sequence,
        }))
    }
}
