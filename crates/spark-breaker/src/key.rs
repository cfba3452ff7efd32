//! Whom a call is for.

use std::sync::Arc;

use crate::config::is_name;
use crate::{ConfigError, Scope};

/// Whom a call is for: a provider, one of its models, and the credential that it is made with.
///
/// From it come the names of up to three breakers: `openai`, `openai/gpt-x` and `openai#key-1`. The
/// provider's name has neither `/` nor `#` in it, so that no two keys share a name by accident; the
/// others may, as in `meta/llama-3`. Each is made of printable ASCII characters without spaces,
/// quotes or backslashes, and has at most 128 of them with the provider's; these names are shown to
/// callers, in logs and in metrics.
///
/// The credential is what you call it, as `key-1`. **Never give the secret itself.**
///
/// # Example
/// ```
/// use spark_breaker::ProviderKey;
/// let key = ProviderKey::new("openai").model("gpt-x").credential("key-1");
/// assert_ne!(key, ProviderKey::new("openai"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use]
pub struct ProviderKey {
    provider: Arc<str>,
    model: Option<Arc<str>>,
    credential: Option<Arc<str>>,
}

impl ProviderKey {
    /// A call to this provider.
    ///
    /// # Example
    /// ```
    /// let key = spark_breaker::ProviderKey::new("openai");
    /// ```
    pub fn new(provider: impl Into<Arc<str>>) -> Self {
        Self {
            provider: provider.into(),
            model: None,
            credential: None,
        }
    }

    /// For this model. A name that clients choose is safe here: see [`Registry`](crate::Registry).
    ///
    /// # Example
    /// ```
    /// let key = spark_breaker::ProviderKey::new("openai").model("gpt-x");
    /// ```
    pub fn model(mut self, model: impl Into<Arc<str>>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// With the credential that is called so. Not the secret itself.
    ///
    /// # Example
    /// ```
    /// let key = spark_breaker::ProviderKey::new("openai").credential("key-1");
    /// ```
    pub fn credential(mut self, id: impl Into<Arc<str>>) -> Self {
        self.credential = Some(id.into());
        self
    }

    /// Runs `with` on the name of the breaker of this scope, which is made without allocating.
    /// `None` when there is none in the key.
    pub(crate) fn name<T>(
        &self,
        scope: Scope,
        with: impl FnOnce(&str) -> T,
    ) -> Option<Result<T, ConfigError>> {
        let (separator, part) = match scope {
            Scope::Provider => return Some(self.provider_name().map(with)),
            Scope::Model => (MODEL, self.model.as_deref()?),
            Scope::Credential => (CREDENTIAL, self.credential.as_deref()?),
        };
        Some(self.provider_name().and_then(|provider| {
            let mut buffer = [0; LONGEST];
            let name = join(&mut buffer, provider, separator, part).ok_or(ConfigError::Key)?;
            Ok(with(name))
        }))
    }

    fn provider_name(&self) -> Result<&str, ConfigError> {
        let plain = is_name(&self.provider) && scope_of(&self.provider) == Scope::Provider;
        plain.then_some(&*self.provider).ok_or(ConfigError::Key)
    }
}

const MODEL: u8 = b'/';
const CREDENTIAL: u8 = b'#';
const LONGEST: usize = 128;

/// Of what the breaker of this name is: the first separator says so.
pub(crate) fn scope_of(name: &str) -> Scope {
    let mut bytes = name.bytes();
    match bytes.find(|byte| matches!(*byte, MODEL | CREDENTIAL)) {
        Some(MODEL) => Scope::Model,
        Some(_) => Scope::Credential,
        None => Scope::Provider,
    }
}

/// `None` unless it is a name of which both parts have something.
fn join<'a>(
    buffer: &'a mut [u8; LONGEST],
    provider: &str,
    separator: u8,
    part: &str,
) -> Option<&'a str> {
    let at = provider.len();
    let end = at + 1 + part.len();
    if part.is_empty() || end > LONGEST {
        return None;
    }
    buffer[..at].copy_from_slice(provider.as_bytes());
    buffer[at] = separator;
    buffer[at + 1..end].copy_from_slice(part.as_bytes());
    let name = std::str::from_utf8(&buffer[..end]).ok()?;
    is_name(name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(key: &ProviderKey, scope: Scope) -> Option<Result<String, ConfigError>> {
        key.name(scope, str::to_owned)
    }

    #[test]
    fn names_cannot_clash() {
        let key = ProviderKey::new("a").model("b#c/d").credential("b/c");
        let names = [Scope::Provider, Scope::Model, Scope::Credential]
            .map(|scope| name(&key, scope).unwrap().unwrap());
        assert_eq!(names, ["a", "a/b#c/d", "a#b/c"]);
        assert_eq!(
            names.map(|name| scope_of(&name)),
            [Scope::Provider, Scope::Model, Scope::Credential]
        );
        for provider in ["a/b", "a#b", "", "two words", "é"] {
            let key = ProviderKey::new(provider).model("m").credential("c");
            for scope in [Scope::Provider, Scope::Model, Scope::Credential] {
                assert_eq!(name(&key, scope), Some(Err(ConfigError::Key)), "{provider}");
            }
        }
    }

    #[test]
    fn a_key_without_a_part_has_no_name_for_it() {
        let key = ProviderKey::new("a");
        assert_eq!(name(&key, Scope::Model), None);
        assert_eq!(name(&key, Scope::Credential), None);
    }

    #[test]
    fn parts_that_are_no_names_are_refused() {
        let long = "m".repeat(127);
        for model in ["", "two words", "quo\"te", "é", "\n", &long] {
            let key = ProviderKey::new("a").model(model);
            let named = name(&key, Scope::Model);
            assert_eq!(named, Some(Err(ConfigError::Key)), "{model:?}");
        }
        let key = ProviderKey::new("a").model(&long[1..]);
        assert_eq!(name(&key, Scope::Model).unwrap().unwrap().len(), LONGEST);
    }
}
