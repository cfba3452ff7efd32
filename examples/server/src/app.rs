//! What the routes share, built once from the configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use spark_auth::{AuditQueue, Authenticator, FailureThrottle, FileStore, TracingAudit};
use spark_breaker::{Breaker, Registry};
use spark_cache::{Cache, LlmPolicy, Tuning, When};
use spark_core::{ClientIp, Clock};
use spark_errors::ErrorTracker;
use spark_health::Health;
use spark_metrics::Metrics;
use spark_ratelimit::{Concurrency, ConcurrencyLimiter, Key, Limiter, Policy, Quota, Unit};
use spark_sanitize::{Limits, Preset, Sanitizer};

use crate::ask::chain;
use crate::config::{
    CONCURRENCY, CacheWhen, Config, IpPolicy, RateLimit, SanitizeAction, SanitizePreset, TOKENS,
    TierQuota,
};
use crate::ledger::Ledger;
use crate::provider::{self, Outbound, breaker_config};
use crate::secrets::{Secrets, does_not_fit};
use crate::{hooks, watch};

/// The routes whose answers come from a model.
pub(crate) const GENERATE: &str = "/api/spark/generate";
pub(crate) const CHAT: &str = "/v1/chat/completions";

/// Audit events that may wait for the log.
const AUDIT_EVENTS: usize = 2_048;

/// What the routes share.
#[derive(Debug)]
pub(crate) struct App {
    pub config: Config,
    pub clock: Clock,
    pub auth: Authenticator,
    pub audit: AuditQueue,
    pub failures: Arc<Failures>,
    pub limits: Limiters,
    pub sanitizer: Sanitizer,
    pub cache: Cache,
    pub cache_policy: LlmPolicy,
    pub breakers: Registry,
    pub outbound: Out,
    pub errors: ErrorTracker,
    pub metrics: Metrics,
    pub health: Health,
    pub ledger: Ledger,
    /// The layers in their order, as the stack was assembled.
    pub stack: Mutex<serde_json::Map<String, serde_json::Value>>,
    /// Where the listeners listen, once they do.
    pub listening: OnceLock<Listening>,
    /// The quotas in force, which a reload changes.
    quotas: Mutex<RateLimit>,
    /// One reload at a time, its reading of the file included.
    pub reloading: Mutex<()>,
}

/// The way out, without a `Debug` of its own.
#[derive(Clone)]
pub(crate) struct Out(pub Outbound);

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outbound")
    }
}

/// Where clients, and where operators, find the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listening {
    pub public: SocketAddr,
    pub admin: SocketAddr,
}

/// The limiters.
#[derive(Clone, Debug)]
pub(crate) struct Limiters {
    pub ip: Limiter,
    pub tenant: Limiter,
    pub export: Limiter,
    /// What a tenant's answers may use.
    pub tokens: Option<Limiter>,
    /// How many answers a tenant may be given at once.
    pub concurrency: Option<ConcurrencyLimiter>,
}

impl App {
    /// Builds everything; nothing listens yet.
    ///
    /// # Errors
    /// A sentence that names the field and the mend.
    pub(crate) fn build(
        config: Config,
        store: FileStore,
        secrets: Secrets,
        metrics: Metrics,
        variables: impl Fn(&str) -> Option<String>,
    ) -> Result<Arc<Self>, String> {
        let clock = Clock::system();
        let audit = AuditQueue::new(TracingAudit, AUDIT_EVENTS)
            .map_err(|e| format!("the audit cannot start: {e}"))?;
        let auth = Authenticator::builder()
            .clock(clock.clone())
            .pepper(secrets.pepper)
            .previous_pepper(secrets.previous_pepper)
            .store(store)
            .audit(audit.clone())
            .master(secrets.master)
            .previous_master(secrets.previous_master)
            .max_keys(config.auth.max_keys)
            .build()
            .map_err(|e| does_not_fit(&e))?;
        let limits = Limiters {
            ip: limiter(
                &config,
                &clock,
                vec![ip_policy("ip", &config.ratelimit.ip)?],
            )?,
            tenant: limiter(&config, &clock, tenant_policies(&config)?)?,
            export: limiter(
                &config,
                &clock,
                vec![ip_policy("export", &config.ratelimit.export)?],
            )?,
            tokens: match token_policy(&config)? {
                None => None,
                Some(policy) => Some(limiter(&config, &clock, vec![policy])?),
            },
            concurrency: concurrency(&config)?.map(ConcurrencyLimiter::new),
        };
        let failures = Arc::new(Failures(limiter(
            &config,
            &clock,
            vec![failure_policy(&config)?],
        )?));
        let cache = cache(&config, &clock)?;
        let cache_policy = LlmPolicy::builder()
            .path(GENERATE)
            .path(CHAT)
            .when(when(config.cache.when))
            .max_request_bytes(config.server.max_body.as_usize())
            .build()
            .map_err(|e| format!("cache: {}", chain(&e)))?;
        let errors = hooks::tracker(&config, &clock, &variables)?;
        let breakers = provider::registry(&config, &clock, &errors)?;
        let outbound = provider::build(&config, &clock, &breakers, &variables)?;
        let health = watch::health(watch::Watched {
            clock: clock.clone(),
            breakers: breakers.clone(),
            metrics: metrics.clone(),
            errors: errors.clone(),
            cache: cache.clone(),
            auth: auth.clone(),
            limits: limits.clone(),
        })?;
        Ok(Arc::new(Self {
            sanitizer: sanitizer(&config)?,
            reloading: Mutex::new(()),
            quotas: Mutex::new(config.ratelimit.clone()),
            config,
            clock,
            auth,
            audit,
            failures,
            limits,
            cache,
            cache_policy,
            breakers,
            outbound: Out(outbound),
            errors,
            metrics,
            health,
            ledger: Ledger::default(),
            stack: Mutex::default(),
            listening: OnceLock::new(),
        }))
    }

    /// The layers as they are assembled.
    pub(crate) fn stack(&self) -> serde_json::Value {
        let stack = self.stack.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::Value::Object(stack.clone())
    }

    /// The quotas in force.
    pub(crate) fn quotas(&self) -> MutexGuard<'_, RateLimit> {
        self.quotas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new configuration in force, as far as that goes without a restart. All of it is
    /// checked before any of it is changed.
    ///
    /// # Errors
    /// A sentence that names the field and the mend; then nothing was changed.
    pub(crate) fn reload(&self, new: &Config) -> Result<Reloaded, String> {
        let tenant = tenant_policies(new)?;
        let ip = vec![ip_policy("ip", &new.ratelimit.ip)?];
        let export = vec![ip_policy("export", &new.ratelimit.export)?];
        let failures = vec![failure_policy(new)?];
        let tokens: Vec<Policy> = token_policy(new)?.into_iter().collect();
        let concurrency = concurrency(new)?;
        // Each part is built once for nothing, so that what cannot be put in force is known before
        // anything is.
        for policies in [&tenant, &ip, &export, &failures, &tokens] {
            if !policies.is_empty() {
                limiter(new, &self.clock, policies.clone())?;
            }
        }
        cache(new, &self.clock)?;
        sanitizer(new)?;
        for provider in &new.providers {
            Breaker::new(&provider.name, breaker_config(provider), self.clock.clone())
                .map_err(|e| format!("providers.{}.breaker: {e}", provider.name))?;
        }

        let limit = |limiter: &Limiter, policies| {
            let done = limiter.reconfigure(policies);
            done.map_err(|e| format!("ratelimit: {e}"))
        };
        limit(&self.limits.tenant, tenant)?;
        if let (Some(limiter), false) = (&self.limits.tokens, tokens.is_empty()) {
            limit(limiter, tokens)?;
        }
        if let (Some(limiter), Some(concurrency)) = (&self.limits.concurrency, concurrency) {
            limiter.reconfigure(concurrency);
        }
        self.put_in_force(&new.ratelimit);
        limit(&self.limits.ip, ip)?;
        limit(&self.limits.export, export)?;
        limit(&self.failures.0, failures)?;
        let tuning = Tuning::new()
            .ttl(new.cache.ttl.duration())
            .max_entry_bytes(new.cache.max_entry_bytes.bytes());
        let tuned = self.cache.reconfigure(&tuning);
        tuned.map_err(|e| format!("cache: {}", chain(&e)))?;
        self.cache_policy.set_when(when(new.cache.when));
        let mut needs_restart = needs_restart(&self.config, new);
        let unknown = provider::reconfigure(&self.breakers, new)?;
        needs_restart.extend(unknown.iter().map(|name| format!("providers.{name}")));
        needs_restart.sort();
        Ok(Reloaded {
            applied: RELOADABLE.map(str::to_owned).to_vec(),
            needs_restart,
        })
    }

    /// What a limit on tokens or concurrency begins or ends with stands in the layers, which stay.
    fn put_in_force(&self, new: &RateLimit) {
        let mut quotas = self.quotas();
        let mut new = new.clone();
        if new.tokens.is_some() != quotas.tokens.is_some() {
            new.tokens = quotas.tokens.take();
        }
        if new.concurrency.is_some() != quotas.concurrency.is_some() {
            new.concurrency = quotas.concurrency.take();
        }
        *quotas = new;
    }
}

/// What a reload puts in force.
const RELOADABLE: [&str; 7] = [
    "ratelimit (but capacity, header fields, whether there are tokens and concurrency)",
    "auth.max_failures",
    "auth.failure_window",
    "cache.ttl",
    "cache.max_entry_bytes",
    "cache.when",
    "providers.*.breaker",
];

/// What a reload did.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Reloaded {
    pub applied: Vec<String>,
    /// What differs from what the server was started with, and stays as it was.
    pub needs_restart: Vec<String>,
}

/// The sections that differ apart from what a reload can change.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let still = |config: &Config| {
        let mut config = config.clone();
        let limits = config.ratelimit;
        config.ratelimit = RateLimit {
            capacity: limits.capacity,
            x_ratelimit: limits.x_ratelimit,
            openai_headers: limits.openai_headers,
            retry_jitter: limits.retry_jitter,
            // That they are there, whatever they say.
            tokens: limits.tokens.map(|_| crate::config::Tokens::of(1)),
            concurrency: limits
                .concurrency
                .map(|_| crate::config::Concurrency::of(1)),
            ..Default::default()
        };
        let default = crate::config::Auth::default();
        config.auth.max_failures = default.max_failures;
        config.auth.failure_window = default.failure_window;
        let default = crate::config::Cache::default();
        config.cache.ttl = default.ttl;
        config.cache.when = default.when;
        config.cache.max_entry_bytes = default.max_entry_bytes;
        for provider in &mut config.providers {
            provider.breaker = crate::config::Breaker::default();
        }
        toml::Table::try_from(config).unwrap_or_default()
    };
    let (old, new) = (still(old), still(new));
    let differs = |key: &&String| old.get(*key) != new.get(*key);
    new.keys().filter(differs).cloned().collect()
}

/// How often an address may show a bad credential.
#[derive(Debug)]
pub(crate) struct Failures(Limiter);

impl Failures {
    fn key(ip: Option<ClientIp>) -> Key {
        ip.map_or_else(Key::shared, |ip| Key::network(ip, 64))
    }
}

impl FailureThrottle for Failures {
    fn permit(&self, ip: Option<ClientIp>) -> Result<(), Duration> {
        let decision = self.0.peek(&Self::key(ip), None, 1);
        if decision.allowed() {
            return Ok(());
        }
        Err(decision.retry_after().unwrap_or(Duration::from_secs(1)))
    }

    fn record(&self, ip: Option<ClientIp>) {
        self.0.penalize(&Self::key(ip), None, 1);
    }
}

fn cache(config: &Config, clock: &Clock) -> Result<Cache, String> {
    Cache::builder()
        .clock(clock.clone())
        .max_bytes(config.cache.max_bytes.bytes())
        .max_entry_bytes(config.cache.max_entry_bytes.bytes())
        .ttl(config.cache.ttl.duration())
        .build()
        .map_err(|e| format!("cache: {}", chain(&e)))
}

fn limiter(config: &Config, clock: &Clock, policies: Vec<Policy>) -> Result<Limiter, String> {
    let builder = Limiter::builder()
        .clock(clock.clone())
        .capacity(config.ratelimit.capacity);
    let builder = policies
        .into_iter()
        .fold(builder, |builder, policy| builder.policy(policy));
    builder.build().map_err(|e| format!("ratelimit: {e}"))
}

fn quota(
    quota: u64,
    per: Duration,
    burst: Option<u64>,
) -> Result<Quota, spark_ratelimit::ConfigError> {
    let quota = Quota::new(quota, per)?;
    burst.map_or(Ok(quota), |burst| quota.burst(burst))
}

fn tenant_policies(config: &Config) -> Result<Vec<Policy>, String> {
    let policies = config.ratelimit.policies.iter().map(|it| {
        let all = quota(it.quota, it.per.duration(), it.burst);
        policy(&it.name, all, it.per.duration(), &it.tiers)
            .map_err(|e| format!("ratelimit.policies.{}: {e}", it.name))
    });
    policies.collect()
}

fn token_policy(config: &Config) -> Result<Option<Policy>, String> {
    let Some(it) = &config.ratelimit.tokens else {
        return Ok(None);
    };
    let all = quota(it.quota, it.per.duration(), it.burst);
    let made = policy(TOKENS, all, it.per.duration(), &it.tiers);
    let made = made.map_err(|e| format!("ratelimit.tokens: {e}"))?;
    Ok(Some(made.unit(Unit::Tokens)))
}

fn policy(
    name: &str,
    all: Result<Quota, spark_ratelimit::ConfigError>,
    per: Duration,
    tiers: &BTreeMap<String, TierQuota>,
) -> Result<Policy, spark_ratelimit::ConfigError> {
    let mut made = Policy::new(name, all?)?;
    for (name, tier) in tiers {
        made = made.tier(name, quota(tier.quota, per, tier.burst)?);
    }
    Ok(made)
}

fn concurrency(config: &Config) -> Result<Option<Concurrency>, String> {
    let Some(limit) = &config.ratelimit.concurrency else {
        return Ok(None);
    };
    let made = Concurrency::new(CONCURRENCY, limit.most);
    let tiers = limit.tiers.iter();
    tiers
        .fold(made, |made, (name, most)| made?.tier(name, *most))
        .map(Some)
        .map_err(|e| format!("ratelimit.concurrency: {e}"))
}

fn ip_policy(name: &str, policy: &IpPolicy) -> Result<Policy, String> {
    quota(policy.quota, policy.per.duration(), policy.burst)
        .and_then(|quota| Policy::new(name, quota))
        .map_err(|e| format!("ratelimit.{name}: {e}"))
}

fn failure_policy(config: &Config) -> Result<Policy, String> {
    Quota::new(
        config.auth.max_failures,
        config.auth.failure_window.duration(),
    )
    .and_then(|quota| Policy::new("failures", quota))
    .map_err(|e| format!("auth.max_failures: {e}"))
}

fn when(when: CacheWhen) -> When {
    match when {
        CacheWhen::Deterministic => When::Deterministic,
        CacheWhen::Always => When::Always,
        CacheWhen::Never => When::Never,
    }
}

fn sanitizer(config: &Config) -> Result<Sanitizer, String> {
    use spark_sanitize::Action;
    let preset = match config.sanitize.preset {
        SanitizePreset::Monitor => Preset::Monitor,
        SanitizePreset::Balanced => Preset::Balanced,
        SanitizePreset::Strict => Preset::Strict,
    };
    let limits = Limits {
        max_prompt_chars: config.sanitize.max_prompt_chars,
        max_depth: config.sanitize.max_json_depth,
        ..Limits::default()
    };
    let builder = Sanitizer::builder().preset(preset).limits(limits);
    let builder = config
        .sanitize
        .actions
        .iter()
        .fold(builder, |builder, (rule, action)| {
            let action = match action {
                SanitizeAction::Allow => Action::Allow,
                SanitizeAction::Flag => Action::Flag,
                SanitizeAction::Redact => Action::Redact,
                SanitizeAction::Block => Action::Block,
            };
            builder.action(rule, action)
        });
    builder.build().map_err(|e| format!("sanitize: {e}"))
}
