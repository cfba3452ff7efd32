//! The right to make one call by several breakers: which of them is told what of how it ended.

use std::time::Duration;

use spark_core::Clock;

use crate::{FailKind, IgnoreKind, Outcome, Permit, Scope};

/// The right to make one call, by all of its breakers, and the duty to say how it ended.
///
/// Each breaker is told what the end says about what it stands for:
///
/// | outcome | provider | model | credential |
/// |---|---|---|---|
/// | success | success | success | success |
/// | ignored, either kind | the same | the same | the same |
/// | failure of the provider | **failure** | nothing | nothing |
/// | failure of the model | nothing | **failure** | nothing |
/// | failure of the credential | it answers | nothing | **failure** |
/// | throttled, provider | **throttled** | nothing | nothing |
/// | throttled, model | it answers | **throttled** | nothing |
/// | throttled, credential | it answers | nothing | **throttled** |
///
/// "It answers" is [`IgnoreKind::Client`], "nothing" is [`IgnoreKind::Local`]. A failing model says
/// nothing of the provider, neither good nor bad: such answers also come from proxies in front of it.
///
/// Where the key names no model, the provider stands for it. Where it names no credential, the
/// provider stands for that too, except that a throttle that passes counts for the model, since
/// limits are usually the model's.
///
/// Dropped instead, it gives back all places: after a long wait without a first byte the model (or
/// else the provider) counts a failure, in a panic the provider does, as described at [`Permit`];
/// the others count nothing.
///
/// # Example
/// ```
/// use spark_breaker::{Config, FailKind, ProviderKey, Registry};
/// use spark_core::Clock;
/// let registry = Registry::new(100, Config::llm(), Clock::system())?;
/// let key = ProviderKey::new("openai").model("gpt-x");
/// registry.breakers(&key)?.try_acquire().unwrap().failure(FailKind::Status(500));
/// assert_eq!(registry.get("openai/gpt-x").unwrap().snapshot().failures, 1);
/// assert_eq!(registry.get("openai").unwrap().snapshot().failures, 0);
/// # Ok::<(), spark_breaker::ConfigError>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping permits gives them back without a result"]
pub struct Permits {
    provider: Permit,
    model: Option<Permit>,
    credential: Option<Permit>,
}

impl Permits {
    pub(crate) fn new(provider: Permit, model: Option<Permit>, credential: Option<Permit>) -> Self {
        Self {
            provider,
            model,
            credential,
        }
    }

    /// The call did what was asked.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, ProviderKey, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// # let breakers = registry.breakers(&ProviderKey::new("openai"))?;
    /// breakers.try_acquire().unwrap().success();
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn success(self) {
        self.record(Outcome::Success);
    }

    /// The call failed, and what [`FailKind::scope`] says is to blame.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, FailKind, ProviderKey, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// # let breakers = registry.breakers(&ProviderKey::new("openai"))?;
    /// breakers.try_acquire().unwrap().failure(FailKind::Transport);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn failure(self, kind: FailKind) {
        self.record(Outcome::failure(kind));
    }

    /// The call says nothing bad about the callee: it answered that the request was wrong
    /// ([`IgnoreKind::Client`]), or was not asked at all ([`IgnoreKind::Local`]).
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, IgnoreKind, ProviderKey, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// # let breakers = registry.breakers(&ProviderKey::new("openai"))?;
    /// breakers.try_acquire().unwrap().ignore(IgnoreKind::Client);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn ignore(self, why: IgnoreKind) {
        self.record(Outcome::Ignored(why));
    }

    /// The callee asks for fewer calls with this credential.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, ProviderKey, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// # let breakers = registry.breakers(&ProviderKey::new("openai"))?;
    /// # use std::time::Duration;
    /// breakers.try_acquire().unwrap().throttled(Some(Duration::from_secs(3)));
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn throttled(self, retry_after: Option<Duration>) {
        self.record(Outcome::throttled().with_retry_after(retry_after));
    }

    /// The callee says that waiting does not help, as when the credit of this credential is used up
    /// ([`Outcome::exhausted`]).
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, ProviderKey, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// # let breakers = registry.breakers(&ProviderKey::new("openai"))?;
    /// breakers.try_acquire().unwrap().exhausted(None);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn exhausted(self, retry_after: Option<Duration>) {
        self.record(Outcome::exhausted().with_retry_after(retry_after));
    }

    /// The call ended so.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, Outcome, ProviderKey, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// # let breakers = registry.breakers(&ProviderKey::new("openai"))?;
    /// breakers.try_acquire().unwrap().record(Outcome::Success);
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn record(self, outcome: Outcome) {
        let told = Told::of(outcome, self.model.is_some(), self.credential.is_some());
        if let Some(credential) = self.credential {
            credential.record(told.credential);
        }
        if let Some(model) = self.model {
            model.record(told.model);
        }
        self.provider.record(told.provider);
    }

    /// The first byte of the answer is here: what follows is not the callee's slowness. Later calls
    /// change nothing.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, ProviderKey, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// # let breakers = registry.breakers(&ProviderKey::new("openai"))?;
    /// let mut permits = breakers.try_acquire().unwrap();
    /// permits.first_byte();
    /// permits.success();
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn first_byte(&mut self) {
        self.each(Permit::first_byte);
    }

    /// Whether one of the breakers was half open and this call decides whether it closes.
    ///
    /// # Example
    /// ```
    /// # use spark_breaker::{Config, ProviderKey, Registry};
    /// # let registry = Registry::new(9, Config::llm(), spark_core::Clock::system())?;
    /// # let breakers = registry.breakers(&ProviderKey::new("openai"))?;
    /// assert!(!breakers.try_acquire().unwrap().is_probe());
    /// # Ok::<(), spark_breaker::ConfigError>(())
    /// ```
    pub fn is_probe(&self) -> bool {
        let probes = |permit: &Option<Permit>| permit.as_ref().is_some_and(Permit::is_probe);
        self.provider.is_probe() || probes(&self.model) || probes(&self.credential)
    }

    /// Somebody is about to say how the call went, or has done so.
    pub(crate) fn judging(&mut self, judging: bool) {
        self.each(|permit| permit.judging(judging));
    }

    fn each(&mut self, mut with: impl FnMut(&mut Permit)) {
        with(&mut self.provider);
        self.model.as_mut().map(&mut with);
        self.credential.as_mut().map(&mut with);
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.provider.clock()
    }
}

/// What each is told.
#[derive(Debug, PartialEq)]
struct Told {
    provider: Outcome,
    model: Outcome,
    credential: Outcome,
}

/// It works, whatever it answered.
const ANSWERS: Outcome = Outcome::Ignored(IgnoreKind::Client);

const NOTHING: Outcome = Outcome::Ignored(IgnoreKind::Local);

impl Told {
    fn of(outcome: Outcome, has_model: bool, has_credential: bool) -> Self {
        let (scope, throttled, passes) = match outcome {
            Outcome::Success | Outcome::Ignored(_) => {
                return Self {
                    provider: outcome,
                    model: outcome,
                    credential: outcome,
                };
            }
            Outcome::Failure { scope, .. } => (scope, false, false),
            Outcome::Throttled {
                scope, terminal, ..
            } => (scope, true, !terminal),
        };
        let is_credentials = scope == Scope::Credential;
        let for_model = scope == Scope::Model || is_credentials && passes;
        let blamed = if is_credentials && has_credential {
            Scope::Credential
        } else if for_model && has_model {
            Scope::Model
        } else {
            Scope::Provider
        };
        let others = if throttled || is_credentials {
            ANSWERS
        } else {
            NOTHING
        };
        let told = |it, else_told| if it == blamed { outcome } else { else_told };
        Self {
            provider: told(Scope::Provider, others),
            model: told(Scope::Model, NOTHING),
            credential: told(Scope::Credential, NOTHING),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Scope = Scope::Provider;
    const M: Scope = Scope::Model;
    const C: Scope = Scope::Credential;

    /// Who is blamed, by what the key names: nothing else, a model, a credential, both; and what the
    /// provider is told where it is somebody else.
    fn expect(outcome: Outcome, blamed: [Scope; 4], provider: Outcome) {
        for (case, blamed) in blamed.into_iter().enumerate() {
            let told = Told::of(outcome, case % 2 == 1, case >= 2);
            let expected = Told {
                provider: if blamed == P { outcome } else { provider },
                model: if blamed == M { outcome } else { NOTHING },
                credential: if blamed == C { outcome } else { NOTHING },
            };
            assert_eq!(told, expected, "case {case}");
        }
    }

    #[test]
    fn each_is_told_what_the_end_says_about_it() {
        for outcome in [Outcome::Success, ANSWERS, NOTHING] {
            for (model, credential) in [(false, false), (true, false), (false, true), (true, true)]
            {
                let told = Told::of(outcome, model, credential);
                assert_eq!(
                    (told.provider, told.model, told.credential),
                    (outcome, outcome, outcome)
                );
            }
        }
        let failed = |scope| Outcome::failure(FailKind::Status(503)).with_scope(scope);
        let throttled = |scope| Outcome::throttled().with_scope(scope);
        let exhausted = |scope| Outcome::exhausted().with_scope(scope);
        expect(failed(P), [P, P, P, P], NOTHING);
        expect(failed(M), [P, M, P, M], NOTHING);
        expect(failed(C), [P, P, C, C], ANSWERS);
        expect(throttled(P), [P, P, P, P], ANSWERS);
        expect(throttled(M), [P, M, P, M], ANSWERS);
        expect(throttled(C), [P, M, C, C], ANSWERS);
        expect(exhausted(P), [P, P, P, P], ANSWERS);
        expect(exhausted(M), [P, M, P, M], ANSWERS);
        expect(exhausted(C), [P, P, C, C], ANSWERS);
    }

    #[test]
    fn a_time_to_come_back_goes_along() {
        let wait = Duration::from_secs(9);
        let throttled = Outcome::throttled().with_retry_after(wait);
        assert_eq!(Told::of(throttled, true, true).credential, throttled);
        let failed = Outcome::failure(FailKind::Status(503)).with_retry_after(wait);
        assert_eq!(Told::of(failed, true, true).model, failed);
    }
}
