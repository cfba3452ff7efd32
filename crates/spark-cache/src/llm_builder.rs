//! The settings of the policy for model providers, checked once, at the start.

use http::header::{self, HeaderName};

use crate::entry::is_personal;
use crate::{ConfigError, LlmPolicy, When};

/// The headers by which a provider's answer differs.
const KEYED: [HeaderName; 2] = [header::ACCEPT, header::ACCEPT_LANGUAGE];
const KEYED_TEXT: [&str; 6] = [
    "anthropic-beta",
    "anthropic-version",
    "api-version",
    "openai-beta",
    "openai-organization",
    "openai-project",
];

/// An [`LlmPolicy`] in the making.
///
/// # Example
/// ```
/// use spark_cache::LlmPolicy;
/// let policy = LlmPolicy::builder().path("/v1/chat/completions").max_request_bytes(1 << 18).build()?;
/// # let _ = policy;
/// # Ok::<(), spark_cache::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct LlmPolicyBuilder {
    /// Paths, and whether they are public.
    pub(crate) paths: Vec<(String, bool)>,
    pub(crate) when: When,
    pub(crate) keyed: Vec<HeaderName>,
    pub(crate) kept: Vec<HeaderName>,
    pub(crate) namespace: String,
    pub(crate) max_request_bytes: usize,
}

impl Default for LlmPolicyBuilder {
    fn default() -> Self {
        let texts = KEYED_TEXT.map(HeaderName::from_static);
        Self {
            paths: Vec::new(),
            when: When::default(),
            keyed: KEYED.into_iter().chain(texts).collect(),
            kept: Vec::new(),
            namespace: String::new(),
            max_request_bytes: 1 << 20,
        }
    }
}

impl LlmPolicyBuilder {
    /// Opts a path in, exactly as it is written in the request.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::LlmPolicy;
    /// let builder = LlmPolicy::builder().path("/v1/chat/completions");
    /// # let _ = builder;
    /// ```
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.paths.push((path.into(), false));
        self
    }

    /// Opts a path in, and declares that its answers to the anonymous may be read by anyone. They
    /// can then tell from the time an answer takes what others have asked.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::LlmPolicy;
    /// let builder = LlmPolicy::builder().public_path("/demo");
    /// # let _ = builder;
    /// ```
    pub fn public_path(mut self, path: impl Into<String>) -> Self {
        self.paths.push((path.into(), true));
        self
    }

    /// Which questions are cached: the deterministic ones, unless said.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::{LlmPolicy, When};
    /// let builder = LlmPolicy::builder().when(When::Always);
    /// # let _ = builder;
    /// ```
    pub fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    /// Adds a header by which answers differ.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::LlmPolicy;
    /// let region = http::HeaderName::from_static("x-region");
    /// let builder = LlmPolicy::builder().keyed_header(region);
    /// # let _ = builder;
    /// ```
    pub fn keyed_header(mut self, name: HeaderName) -> Self {
        if !self.keyed.contains(&name) {
            self.keyed.push(name);
        }
        self
    }

    /// Adds a response header that is kept, beside the content's type, language and disposition,
    /// `ETag` and `Last-Modified`.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::LlmPolicy;
    /// let model = http::HeaderName::from_static("openai-model");
    /// let builder = LlmPolicy::builder().keep_header(model);
    /// # let _ = builder;
    /// ```
    pub fn keep_header(mut self, name: HeaderName) -> Self {
        self.kept.push(name);
        self
    }

    /// A text that is in every key: what decides an answer and is in no request, such as the version
    /// of the configuration that names the default provider.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::LlmPolicy;
    /// let builder = LlmPolicy::builder().namespace("2026-11");
    /// # let _ = builder;
    /// ```
    pub fn namespace(mut self, text: impl Into<String>) -> Self {
        self.namespace = text.into();
        self
    }

    /// The longest request body that is read; a longer one is answered with 413. 1 MiB unless said.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::LlmPolicy;
    /// let builder = LlmPolicy::builder().max_request_bytes(256 << 10);
    /// # let _ = builder;
    /// ```
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.max_request_bytes = bytes;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting and the mend.
    ///
    /// # Example
    /// ```
    /// # use spark_cache::LlmPolicy;
    /// let error = LlmPolicy::builder().path("v1").build().unwrap_err();
    /// assert!(error.to_string().contains("must begin with `/`"));
    /// ```
    pub fn build(self) -> Result<LlmPolicy, ConfigError> {
        if self.paths.is_empty() {
            return Err(ConfigError::NoPath);
        }
        if self.max_request_bytes == 0 {
            return Err(ConfigError::Zero {
                field: "max_request_bytes",
            });
        }
        let bad = |path: &str| !path.starts_with('/') || path.contains(['?', '#']);
        if let Some((path, _)) = self.paths.iter().find(|(path, _)| bad(path)) {
            return Err(ConfigError::Path { path: path.clone() });
        }
        if let Some(name) = self.kept.iter().find(|name| is_personal(name)) {
            return Err(ConfigError::Header { name: name.clone() });
        }
        Ok(LlmPolicy::new(self))
    }
}
