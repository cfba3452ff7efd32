//! The configuration: `spark.toml`, overridable value by value from the environment.

mod env;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use spark_core::Name;

pub(crate) use env::unknown_variables;
pub(crate) use units::{ByteSize, Span};

/// Everything that can be configured. Every field has a default.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub server: Server,
    pub auth: Auth,
    pub ratelimit: RateLimit,
    pub cache: Cache,
    pub sanitize: Sanitize,
    pub cors: Cors,
    pub errors: Errors,
    pub log: Log,
    #[serde(default = "Provider::only_demo")]
    pub providers: Vec<Provider>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Server {
    pub listen: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_listen: Option<SocketAddr>,
    pub data_dir: PathBuf,
    pub trusted_proxies: Vec<IpNet>,
    pub client_ip_header: ClientIpHeader,
    pub max_body: ByteSize,
    /// The longest whole answer of a provider.
    pub max_answer: ByteSize,
    pub max_connections: usize,
    /// Requests under way, of all callers; more are refused with 503 at once.
    pub max_in_flight: usize,
    pub header_read_timeout: Span,
    /// How long readiness is 503 while connections are still accepted.
    pub drain_delay: Span,
    /// How long requests under way may take after that.
    pub drain_deadline: Span,
    /// Whether clients reach the server over HTTPS: then HSTS is sent.
    pub https: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: None,
            data_dir: PathBuf::from("spark-data"),
            trusted_proxies: Vec::new(),
            client_ip_header: ClientIpHeader::XForwardedFor,
            max_body: ByteSize::mib(1),
            max_answer: ByteSize::mib(4),
            max_connections: 10_000,
            max_in_flight: 1_024,
            header_read_timeout: Span::secs(10),
            drain_delay: Span::secs(5),
            drain_deadline: Span::secs(25),
            https: false,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClientIpHeader {
    XForwardedFor,
    Forwarded,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Auth {
    pub mode: AuthMode,
    /// Bad credentials that one address may show before it has to wait.
    pub max_failures: u64,
    pub failure_window: Span,
    pub max_keys: usize,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: AuthMode::Required,
            max_failures: 10,
            failure_window: Span::secs(60),
            max_keys: 100_000,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuthMode {
    Required,
    Optional,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RateLimit {
    pub policies: Vec<Policy>,
    pub ip: IpPolicy,
    /// The quota of `POST /api/export`, which has one of its own.
    pub export: IpPolicy,
    /// Places in each table of callers; 16 bytes each.
    pub capacity: usize,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            policies: vec![Policy {
                name: "requests".to_owned(),
                quota: 60,
                per: Span::secs(60),
                burst: Some(20),
                tiers: BTreeMap::from([(
                    "pro".to_owned(),
                    TierQuota {
                        quota: 600,
                        burst: Some(100),
                    },
                )]),
            }],
            ip: IpPolicy {
                quota: 6_000,
                per: Span::secs(60),
                burst: None,
            },
            export: IpPolicy {
                quota: 10,
                per: Span::secs(60),
                burst: None,
            },
            capacity: 65_536,
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    pub name: String,
    pub quota: u64,
    pub per: Span,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    #[serde(default)]
    pub tiers: BTreeMap<String, TierQuota>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TierQuota {
    pub quota: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IpPolicy {
    pub quota: u64,
    pub per: Span,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cache {
    pub max_bytes: ByteSize,
    pub max_entry_bytes: ByteSize,
    pub ttl: Span,
    pub when: CacheWhen,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            max_bytes: ByteSize::mib(64),
            max_entry_bytes: ByteSize::mib(1),
            ttl: Span::secs(600),
            when: CacheWhen::Deterministic,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CacheWhen {
    Deterministic,
    Always,
    Never,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sanitize {
    pub preset: SanitizePreset,
    /// Characters of one prompt or message.
    pub max_prompt_chars: usize,
    pub max_json_depth: usize,
    /// What is done with the findings of a rule or of a family of rules, where it is not the
    /// preset's choice.
    pub actions: BTreeMap<String, SanitizeAction>,
}

impl Default for Sanitize {
    fn default() -> Self {
        Self {
            preset: SanitizePreset::Balanced,
            max_prompt_chars: 100_000,
            max_json_depth: 32,
            actions: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SanitizePreset {
    Monitor,
    Balanced,
    Strict,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SanitizeAction {
    Allow,
    Flag,
    Redact,
    Block,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cors {
    /// Origins whose pages may call the API, as `https://app.example`. None by default.
    pub origins: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Errors {
    /// Events kept for `GET /api/spark/errors`.
    pub ring: usize,
    /// Where events are posted as JSON; https unless it is loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// The environment variable that holds the secret that signs them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_secret_env: Option<String>,
}

impl Default for Errors {
    fn default() -> Self {
        Self {
            ring: 256,
            webhook: None,
            webhook_secret_env: None,
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub format: LogFormat,
    /// A `tracing` filter, as `info` or `info,spark_breaker=debug`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Provider {
    pub name: String,
    pub kind: ProviderKind,
    /// For `openai`: the base URL, as `https://api.example/v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// For `openai`: the environment variable that holds the provider's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    pub models: Vec<String>,
    #[serde(default)]
    pub timeouts: Timeouts,
    #[serde(default)]
    pub breaker: Breaker,
    /// Calls to this provider under way at the same time.
    #[serde(default = "default_max_in_flight")]
    pub max_in_flight: usize,
    #[serde(default)]
    pub demo: Demo,
}

fn default_max_in_flight() -> usize {
    256
}

impl Provider {
    fn only_demo() -> Vec<Self> {
        vec![Self {
            name: "demo".to_owned(),
            kind: ProviderKind::Demo,
            base_url: None,
            api_key_env: None,
            models: vec!["demo-1".to_owned()],
            timeouts: Timeouts::default(),
            breaker: Breaker::default(),
            max_in_flight: default_max_in_flight(),
            demo: Demo::default(),
        }]
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProviderKind {
    Demo,
    Openai,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Timeouts {
    pub connect: Span,
    pub first_byte: Span,
    pub idle: Span,
    pub total: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Span::secs(2),
            first_byte: Span::secs(30),
            idle: Span::secs(15),
            total: Span::secs(120),
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Breaker {
    pub window: Span,
    pub min_calls: u32,
    pub failure_rate: f64,
    pub open_for: Span,
    pub probes: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            window: Span::secs(30),
            min_calls: 10,
            failure_rate: 0.5,
            open_for: Span::secs(10),
            probes: 2,
        }
    }
}

/// How the embedded provider behaves, so that a newcomer can watch the breaker open.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Demo {
    pub latency: Span,
    pub word_delay: Span,
    /// The share of calls that fail, from 0 to 1; spread evenly, the same on every run.
    pub failure_rate: f64,
    /// The share of streams that stop without ending.
    pub stall_rate: f64,
    /// The share of answers that are cut off half-way.
    pub truncate_rate: f64,
}

impl Default for Demo {
    fn default() -> Self {
        Self {
            latency: Span::millis(20),
            word_delay: Span::millis(20),
            failure_rate: 0.0,
            stall_rate: 0.0,
            truncate_rate: 0.0,
        }
    }
}

impl Config {
    /// Reads the file, if there is one, lays the environment over it, and checks the whole.
    ///
    /// # Errors
    /// [`ConfigError`] names the line or the variable, the value, and the mend.
    pub(crate) fn load(
        path: Option<&Path>,
        variables: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let text = match path {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                path: path.to_owned(),
                source,
            })?,
        };
        let shown = path.map_or_else(|| "the defaults".to_owned(), |p| p.display().to_string());
        let mut config: Self = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: shown.clone(),
            // Its own text shows the line and points at the value.
            reason: source.to_string(),
        })?;
        if config.providers.is_empty() {
            config.providers = Provider::only_demo();
        }
        // The file first, so that what it has wrong is not blamed on a variable.
        config
            .check()
            .map_err(|(field, mend)| ConfigError::Invalid {
                place: place(&text, &shown, &field),
                field,
                mend,
            })?;
        env::overlay(&config, variables)
    }

    /// Rules that no type expresses. The field at fault and the mend, when one is broken.
    fn check(&self) -> Result<(), (String, String)> {
        let err = |field: String, mend: &str| Err((field, mend.to_owned()));
        let server = &self.server;
        if server.admin_listen == Some(server.listen) && server.listen.port() != 0 {
            return err(
                "server.admin_listen".into(),
                "choose another port than `listen` has",
            );
        }
        for (field, value) in [
            ("server.max_connections", server.max_connections),
            ("server.max_in_flight", server.max_in_flight),
            ("ratelimit.capacity", self.ratelimit.capacity),
            ("auth.max_keys", self.auth.max_keys),
            ("errors.ring", self.errors.ring),
            ("sanitize.max_prompt_chars", self.sanitize.max_prompt_chars),
            ("sanitize.max_json_depth", self.sanitize.max_json_depth),
        ] {
            if value == 0 {
                return err(field.into(), "write a number of at least 1");
            }
        }
        if server.max_body.bytes() == 0 {
            return err("server.max_body".into(), "write a size such as \"1MiB\"");
        }
        if server.header_read_timeout.duration().is_zero() {
            return err(
                "server.header_read_timeout".into(),
                "write a time such as \"10s\"",
            );
        }
        if self.ratelimit.policies.is_empty() {
            return err("ratelimit.policies".into(), "write at least one policy");
        }
        let mut names = std::collections::BTreeSet::new();
        for provider in &self.providers {
            let field = |key: &str| format!("providers.{}.{key}", provider.name);
            if Name::new(&provider.name).is_err() {
                return err(
                    "providers.name".into(),
                    "write 1 to 64 of A-Z a-z 0-9 . _ : - (it appears in metrics and logs)",
                );
            }
            if !names.insert(&provider.name) {
                return err(field("name"), "give each provider a name of its own");
            }
            if provider.models.is_empty() || provider.models.iter().any(String::is_empty) {
                return err(
                    field("models"),
                    "list at least one model, none of them empty",
                );
            }
            if provider.max_in_flight == 0 {
                return err(field("max_in_flight"), "write a number of at least 1");
            }
            if provider.kind == ProviderKind::Openai {
                let Some(url) = &provider.base_url else {
                    return err(
                        field("base_url"),
                        "write the base URL, as \"https://api.example/v1\"",
                    );
                };
                if let Err(mend) = crate::provider::check_base_url(url) {
                    return err(field("base_url"), mend);
                }
            }
            for (key, rate) in [
                ("breaker.failure_rate", provider.breaker.failure_rate),
                ("demo.failure_rate", provider.demo.failure_rate),
                ("demo.stall_rate", provider.demo.stall_rate),
                ("demo.truncate_rate", provider.demo.truncate_rate),
            ] {
                if !(0.0..=1.0).contains(&rate) {
                    return err(field(key), "write a share from 0.0 to 1.0");
                }
            }
        }
        for origin in &self.cors.origins {
            if http::HeaderValue::from_str(origin).is_err() || !origin.contains("://") {
                return err(
                    "cors.origins".into(),
                    "write origins such as \"https://app.example\"",
                );
            }
        }
        Ok(())
    }

    /// The providers' models, without repetition, in order of preference.
    pub(crate) fn models(&self) -> Vec<&str> {
        let mut models: Vec<&str> = Vec::new();
        for model in self.providers.iter().flat_map(|p| &p.models) {
            if !models.contains(&model.as_str()) {
                models.push(model);
            }
        }
        models
    }

    /// A tier that no policy names would silently mean the default quota. The error is the mend.
    pub(crate) fn check_tier(&self, tier: &Name) -> Result<(), String> {
        let policies = &self.ratelimit.policies;
        let mut tiers: Vec<&str> = policies
            .iter()
            .flat_map(|p| p.tiers.keys().map(String::as_str))
            .collect();
        if tiers.contains(&tier.as_str()) {
            return Ok(());
        }
        tiers.dedup();
        let tiers = if tiers.is_empty() {
            "none".to_owned()
        } else {
            tiers.join(", ")
        };
        Err(format!("is in no rate limit policy; these are: {tiers}."))
    }

    /// The longest that one request to the providers may take.
    pub(crate) fn provider_deadline(&self) -> Duration {
        let longest = self
            .providers
            .iter()
            .map(|p| p.timeouts.total.duration())
            .max();
        longest.unwrap_or(Duration::from_secs(120))
    }
}

/// The line of a field such as `cache.ttl` or `providers.demo.max_in_flight`, when the text shows it
/// in its section; no guess otherwise.
fn place(text: &str, shown: &str, field: &str) -> String {
    let mut parts = field.split('.');
    let section = parts.next().unwrap_or_default();
    let key = parts.next_back().unwrap_or_default();
    let entry = parts.next().map(|name| format!("name = \"{name}\""));
    let mut within = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with('[') {
            let header = line.trim_start_matches('[').trim_end_matches([']', ' ']);
            within = header == section && entry.is_none();
        } else if entry
            .as_deref()
            .is_some_and(|entry| line.starts_with(entry))
        {
            within = true;
        }
        let value = line.strip_prefix(key).map(str::trim_start);
        if within && value.is_some_and(|value| value.starts_with('=')) {
            return format!("{shown}, line {}", index + 1);
        }
    }
    shown.to_owned()
}

/// Why the configuration is no good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    #[error("the configuration {path} cannot be read: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is not a valid configuration:\n{reason}")]
    Parse { path: String, reason: String },
    #[error("{place}: `{field}` is not valid: {mend}")]
    Invalid {
        place: String,
        field: String,
        mend: String,
    },
    #[error("the environment variable {variable} is not valid: {reason}")]
    Variable { variable: String, reason: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spark.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path), |name| {
            let found = variables.iter().find(|(n, _)| *n == name)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn without_a_file_everything_has_a_default() {
        let config = Config::load(None, |_| None).unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.models(), ["demo-1"]);
    }

    #[test]
    fn the_documented_file_is_understood() {
        let config = load(include_str!("../../spark.toml"), &[]).unwrap();
        assert_eq!(config.ratelimit.policies[0].tiers["pro"].quota, 600);
    }

    #[test]
    fn an_unknown_field_names_its_line() {
        let error = load("[server]\nlisten = \"127.0.0.1:1\"\nlissten = 3\n", &[]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("line 3") && text.contains("lissten"),
            "{text}"
        );
    }

    #[test]
    fn a_bad_value_names_the_line_the_value_and_the_mend() {
        let error = load("[cache]\nttl = \"10 parsecs\"\n", &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(error.contains("10 parsecs"), "{error}");
        assert!(error.contains("10s"), "the mend is missing: {error}");

        let error = load("[server]\nmax_connections = 0\n", &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("line 2") && error.contains("at least 1"),
            "{error}"
        );

        // The line of the right section, where several have such a field.
        let text = "[server]\nmax_in_flight = 9\n[[providers]]\nname = \"a\"\nkind = \"demo\"\n\
                    models = [\"m\"]\nmax_in_flight = 0\n";
        let error = load(text, &[]).unwrap_err().to_string();
        assert!(error.contains("line 7"), "{error}");
    }

    #[test]
    fn the_environment_overrides_each_value() {
        let config = load(
            "[server]\nlisten = \"127.0.0.1:1\"\n",
            &[
                ("SPARK_LISTEN", "127.0.0.1:2"),
                ("SPARK_ADMIN_LISTEN", "127.0.0.1:3"),
                ("SPARK_TRUSTED_PROXIES", "10.0.0.0/8, fd00::/8"),
                ("SPARK_AUTH_MODE", "optional"),
                ("SPARK_CACHE_TTL", "1s"),
                ("SPARK_RATELIMIT_POLICIES_REQUESTS_QUOTA", "7"),
                ("SPARK_RATELIMIT_POLICIES_REQUESTS_TIERS_PRO_QUOTA", "70"),
                ("SPARK_PROVIDERS_DEMO_DEMO_FAILURE_RATE", "0.5"),
                ("SPARK_ERRORS_WEBHOOK", "http://127.0.0.1:9/"),
                ("SPARK_RATELIMIT_IP_BURST", "9"),
                ("SPARK_RATELIMIT_POLICIES_REQUESTS_TIERS_PRO_BURST", "8"),
            ],
        )
        .unwrap();
        assert_eq!(config.server.listen.port(), 2);
        assert_eq!(config.server.admin_listen.unwrap().port(), 3);
        assert_eq!(config.server.trusted_proxies.len(), 2);
        assert_eq!(config.auth.mode, AuthMode::Optional);
        assert_eq!(config.cache.ttl.duration(), Duration::from_secs(1));
        assert_eq!(config.ratelimit.policies[0].quota, 7);
        assert_eq!(config.ratelimit.policies[0].tiers["pro"].quota, 70);
        assert!((config.providers[0].demo.failure_rate - 0.5).abs() < f64::EPSILON);
        assert!(config.errors.webhook.is_some());
        assert_eq!(config.ratelimit.ip.burst, Some(9));
        assert_eq!(config.ratelimit.policies[0].tiers["pro"].burst, Some(8));
    }

    #[test]
    fn a_bad_variable_is_named() {
        for (name, value) in [
            ("SPARK_LISTEN", "nowhere"),
            ("SPARK_MAX_CONNECTIONS", "many"),
            ("SPARK_AUTH_MODE", "maybe"),
            ("SPARK_RATELIMIT_CAPACITY", "0"),
            ("SPARK_PROVIDERS_DEMO_MODELS", ""),
        ] {
            let error = load("", &[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn an_openai_provider_needs_a_sound_base_url() {
        for url in ["", "ftp://x/v1", "http://user:pass@h/v1", "nonsense"] {
            let text = format!(
                "[[providers]]\nname = \"p\"\nkind = \"openai\"\nmodels = [\"m\"]\nbase_url = \"{url}\"\n"
            );
            let error = load(&text, &[]).unwrap_err().to_string();
            assert!(error.contains("base_url"), "{url}: {error}");
        }
    }
}
