//! What can be configured: the fields of `spark.toml`, with their defaults.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::failover::Failover;
use super::providers::Provider;
use super::units::{ByteSize, Span};

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
    pub failover: Failover,
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
    /// Whether the master key opens the data routes, too.
    pub master_on_data: bool,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: AuthMode::Required,
            max_failures: 10,
            failure_window: Span::secs(60),
            max_keys: 100_000,
            master_on_data: false,
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
    /// Places in each table of callers; 17 bytes each.
    pub capacity: usize,
    /// Also the fields `X-RateLimit-*`.
    pub x_ratelimit: bool,
    /// OpenAI's fields `x-ratelimit-*-requests` and `-tokens`, on the routes under `/v1`.
    pub openai_headers: bool,
    /// The most by which a `Retry-After` is stretched, so that not all come back at once.
    pub retry_jitter: Span,
    /// What a tenant may use of its models; without it, only requests are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// How many requests to models a tenant may have under way at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
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
            x_ratelimit: false,
            openai_headers: true,
            retry_jitter: Span::millis(0),
            tokens: None,
            concurrency: None,
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

/// A budget of tokens: an estimate is reserved for each call, and settled by what was used.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tokens {
    pub quota: u64,
    #[serde(default = "Tokens::per")]
    pub per: Span,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// What is reserved for an answer whose length the client does not limit.
    #[serde(default = "Tokens::answer")]
    pub answer: u64,
    #[serde(default)]
    pub tiers: BTreeMap<String, TierQuota>,
}

impl Tokens {
    const fn per() -> Span {
        Span::secs(60)
    }

    const fn answer() -> u64 {
        1_000
    }

    /// So many a minute.
    pub(crate) const fn of(quota: u64) -> Self {
        Self {
            quota,
            per: Self::per(),
            burst: None,
            answer: Self::answer(),
            tiers: BTreeMap::new(),
        }
    }

    /// The most that may be reserved at once.
    pub(crate) fn burst_of(&self, tier: Option<&str>) -> u64 {
        match tier.and_then(|tier| self.tiers.get(tier)) {
            Some(tier) => tier.burst.unwrap_or(tier.quota),
            None => self.burst.unwrap_or(self.quota),
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Concurrency {
    pub most: u32,
    #[serde(default)]
    pub tiers: BTreeMap<String, u32>,
}

impl Concurrency {
    /// So many at once.
    pub(crate) const fn of(most: u32) -> Self {
        Self {
            most,
            tiers: BTreeMap::new(),
        }
    }
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
