//! The configuration: `spark.toml`, overridable value by value from the environment.

mod env;
mod failover;
mod providers;
mod schema;
mod units;

use std::path::{Path, PathBuf};
use std::time::Duration;

use spark_core::Name;

pub(crate) use env::unknown_variables;
pub(crate) use providers::*;
pub(crate) use schema::*;
pub(crate) use units::Span;

/// The names that the budget of tokens and the limit on concurrency go by, among the policies.
pub(crate) const TOKENS: &str = "tokens";
pub(crate) const CONCURRENCY: &str = "concurrency";

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
        self.ratelimit.check()?;
        let mut names = std::collections::BTreeSet::new();
        for provider in &self.providers {
            provider.check()?;
            if !names.insert(&provider.name) {
                return err(
                    format!("providers.{}.name", provider.name),
                    "give each provider a name of its own",
                );
            }
        }
        self.failover.check()?;
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

impl RateLimit {
    fn check(&self) -> Result<(), (String, String)> {
        let err = |field: &str, mend: &str| Err((format!("ratelimit.{field}"), mend.to_owned()));
        if self.policies.is_empty() {
            return err("policies", "write at least one policy");
        }
        for (name, is_taken) in [
            (TOKENS, self.tokens.is_some()),
            (CONCURRENCY, self.concurrency.is_some()),
        ] {
            if is_taken && self.policies.iter().any(|policy| policy.name == name) {
                let mend = format!(
                    "choose another name than \"{name}\", which is that of `ratelimit.{name}`"
                );
                return err(&format!("policies.{name}.name"), &mend);
            }
        }
        if let Some(tokens) = &self.tokens {
            let bursts = tokens
                .tiers
                .values()
                .flat_map(|it| [Some(it.quota), it.burst]);
            let numbers = [Some(tokens.quota), tokens.burst, Some(tokens.answer)];
            if bursts.chain(numbers).any(|number| number == Some(0)) {
                return err("tokens", "write numbers of at least 1");
            }
        }
        if let Some(concurrency) = &self.concurrency {
            if concurrency.most == 0 {
                return err("concurrency.most", "write a number of at least 1");
            }
            if let Some((tier, _)) = concurrency.tiers.iter().find(|(_, most)| **most == 0) {
                let field = format!("concurrency.tiers.{tier}");
                return err(&field, "write a number of at least 1");
            }
        }
        Ok(())
    }

    /// The names of all tiers.
    fn tiers(&self) -> std::collections::BTreeSet<&str> {
        let policies = self.policies.iter().flat_map(|it| it.tiers.keys());
        let tokens = self.tokens.iter().flat_map(|it| it.tiers.keys());
        let concurrency = self.concurrency.iter().flat_map(|it| it.tiers.keys());
        let all = policies.chain(tokens).chain(concurrency);
        all.map(String::as_str).collect()
    }
}

/// A tier that no policy names would silently mean the default quota. The error is the mend.
pub(crate) fn check_tier(limits: &RateLimit, tier: &Name) -> Result<(), String> {
    let tiers = limits.tiers();
    if tiers.contains(tier.as_str()) {
        return Ok(());
    }
    let tiers = match tiers.is_empty() {
        true => "none".to_owned(),
        false => tiers.into_iter().collect::<Vec<_>>().join(", "),
    };
    Err(format!("is in no rate limit policy; these are: {tiers}."))
}

/// The line of a field such as `cache.ttl` or `providers.demo.max_in_flight`, when the text shows it
/// in its section; no guess otherwise, nor where several entries have such a field.
fn place(text: &str, shown: &str, field: &str) -> String {
    let mut parts = field.split('.');
    let section = parts.next().unwrap_or_default();
    let key = parts.next_back().unwrap_or_default();
    let entry = parts.next();
    // A section within the section, or an entry of a list.
    let header_of_entry = entry.map(|name| format!("{section}.{name}"));
    let entry = entry.map(|name| format!("name = \"{name}\""));
    let mut within = false;
    let mut found = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with('[') {
            let header = line.trim_start_matches('[').trim_end_matches([']', ' ']);
            within = match &header_of_entry {
                None => header == section,
                Some(entry) => header == entry,
            };
        } else if entry
            .as_deref()
            .is_some_and(|entry| line.starts_with(entry))
        {
            within = true;
        }
        let value = line.strip_prefix(key).map(str::trim_start);
        if within && value.is_some_and(|value| value.starts_with('=')) {
            if found.is_some() {
                return shown.to_owned();
            }
            found = Some(index + 1);
        }
    }
    match found {
        Some(line) => format!("{shown}, line {line}"),
        None => shown.to_owned(),
    }
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
        let defaults = Config::load(None, |_| None).unwrap();
        assert_eq!(format!("{config:?}"), format!("{defaults:?}"));
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

        // No line where it may be another's: the name of the second provider is no good.
        let provider = |name: &str| {
            format!("[[providers]]\nname = \"{name}\"\nkind = \"demo\"\nmodels = [\"m\"]\n")
        };
        let text = provider("good") + &provider("bad name");
        let error = load(&text, &[]).unwrap_err().to_string();
        assert!(
            !error.contains("line ") && error.contains("bad name"),
            "{error}"
        );
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
    fn a_variable_begins_a_budget_of_tokens_or_a_limit_on_concurrency() {
        let variables = [
            ("SPARK_RATELIMIT_TOKENS_QUOTA", "9000"),
            ("SPARK_RATELIMIT_TOKENS_BURST", "500"),
            ("SPARK_RATELIMIT_CONCURRENCY_MOST", "3"),
            ("SPARK_RATELIMIT_OPENAI_HEADERS", "false"),
            ("SPARK_RATELIMIT_RETRY_JITTER", "5s"),
        ];
        let limits = load("", &variables).unwrap().ratelimit;
        let tokens = limits.tokens.unwrap();
        assert_eq!((tokens.quota, tokens.burst), (9_000, Some(500)));
        assert_eq!(tokens.per.duration(), Duration::from_secs(60));
        assert_eq!(limits.concurrency.unwrap().most, 3);
        assert!(!limits.openai_headers);
        assert_eq!(limits.retry_jitter.duration(), Duration::from_secs(5));
        assert!(load("", &[]).unwrap().ratelimit.tokens.is_none());

        let text = "[ratelimit.tokens]\nquota = 10\ntiers = { pro = { quota = 20 } }\n\
                    [ratelimit.concurrency]\nmost = 1\ntiers = { pro = 2 }\n";
        let variables = [
            ("SPARK_RATELIMIT_TOKENS_TIERS_PRO_BURST", "30"),
            ("SPARK_RATELIMIT_CONCURRENCY_TIERS_PRO", "4"),
        ];
        let limits = load(text, &variables).unwrap().ratelimit;
        let tokens = limits.tokens.as_ref().unwrap();
        assert_eq!(
            (tokens.burst_of(None), tokens.burst_of(Some("pro"))),
            (10, 30)
        );
        assert_eq!(limits.concurrency.as_ref().unwrap().tiers["pro"], 4);
        assert!(check_tier(&limits, &Name::new("pro").unwrap()).is_ok());
    }

    #[test]
    fn what_limits_tokens_and_concurrency_is_checked() {
        for (text, words) in [
            ("[ratelimit.tokens]\nquota = 0\n", "ratelimit.tokens"),
            ("[ratelimit.tokens]\nper = \"1m\"\n", "quota"),
            ("[ratelimit.concurrency]\n\nmost = 0\n", "line 3"),
            (
                "[ratelimit.concurrency]\nmost = 1\ntiers = { pro = 0 }\n",
                "concurrency.tiers.pro",
            ),
            (
                "[ratelimit.tokens]\nquota = 1\n[[ratelimit.policies]]\nname = \"tokens\"\n\
                 quota = 1\nper = \"1m\"\n",
                "another name",
            ),
        ] {
            let error = load(text, &[]).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn what_of_a_provider_cannot_work_is_refused_with_the_mend() {
        for (lines, field, mend) in [
            ("min_in_flight = 257", "min_in_flight", "max_in_flight"),
            ("max_in_flight = 0", "max_in_flight", "at least 1"),
            (
                "max_in_flight = 2000000\nmin_in_flight = 1",
                "max_in_flight",
                "1000000",
            ),
            (
                "first_byte_target = \"1s\"",
                "first_byte_target",
                "`min_in_flight`",
            ),
            (
                "min_in_flight = 1\nfirst_byte_target = \"30s\"",
                "first_byte_target",
                "`timeouts.first_byte`",
            ),
            ("tenant_share = 1.1", "tenant_share", "share from"),
            ("tenant_share = nan", "tenant_share", "share from"),
            (
                "timeouts = { first_byte = \"3m\" }",
                "timeouts.first_byte",
                "total",
            ),
            (
                "timeouts = { headers = \"31s\" }",
                "timeouts.headers",
                "first_byte",
            ),
            ("timeouts = { idle = \"3m\" }", "timeouts.idle", "total"),
            ("timeouts = { total = \"0s\" }", "timeouts.total", "10s"),
        ] {
            let text = format!(
                "[[providers]]\nname = \"p\"\nkind = \"demo\"\nmodels = [\"m\"]\n{lines}\n"
            );
            let error = load(&text, &[]).unwrap_err().to_string();
            assert!(
                error.contains(&format!("`providers.p.{field}`")) && error.contains(mend),
                "{lines}: {error}"
            );
        }
        let name = "[[providers]]\nname = \"other\"\nkind = \"demo\"\nmodels = [\"m\"]\n";
        assert!(load(name, &[]).is_err(), "a breaker has that name");
    }

    #[test]
    fn places_tenants_and_the_last_resort_can_be_configured() {
        let text = "[failover]\nwait_at_most = \"2s\"\n[[providers]]\nname = \"p\"\n\
                    kind = \"demo\"\nmodels = [\"m\"]\nmin_in_flight = 4\ntenant_share = 0.5\n";
        let variables = [
            ("SPARK_FAILOVER_ATTEMPTS", "1"),
            ("SPARK_PROVIDERS_P_FIRST_BYTE_TARGET", "5s"),
        ];
        let config = load(text, &variables).unwrap();
        assert_eq!(config.failover.attempts, 1);
        assert_eq!(
            config.providers[0].first_byte_target.duration(),
            Duration::from_secs(5)
        );
        for key in ["attempts", "waiting"] {
            let error = load(&format!("[failover]\n{key} = 0\n"), &[]).unwrap_err();
            assert!(error.to_string().contains("line 2"), "{error}");
        }
    }

    #[test]
    fn variables_are_judged_together() {
        let variables = [
            ("SPARK_PROVIDERS_DEMO_KIND", "openai"),
            ("SPARK_PROVIDERS_DEMO_BASE_URL", "http://127.0.0.1:9/v1"),
        ];
        let config = load("", &variables).unwrap();
        assert_eq!(config.providers[0].kind, ProviderKind::Openai);
        let error = load("", &variables[..1]).unwrap_err().to_string();
        assert!(error.contains("SPARK_PROVIDERS_DEMO_KIND"), "{error}");
        assert!(error.contains("base_url"), "{error}");
    }

    #[test]
    fn a_bad_variable_is_named() {
        for (name, value) in [
            ("SPARK_LISTEN", "nowhere"),
            ("SPARK_MAX_CONNECTIONS", "many"),
            ("SPARK_AUTH_MODE", "maybe"),
            ("SPARK_RATELIMIT_CAPACITY", "0"),
            ("SPARK_PROVIDERS_DEMO_MODELS", ""),
            ("SPARK_RATELIMIT_CONCURRENCY_MOST", "0"),
            ("SPARK_RATELIMIT_TOKENS_QUOTA", "0"),
            ("SPARK_RATELIMIT_TOKENS_PER", "1m"),
            ("SPARK_RATELIMIT_RETRY_JITTER", "5"),
        ] {
            let error = load("", &[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_password_in_a_variable_is_not_shown() {
        let variables = [
            ("SPARK_PROVIDERS_DEMO_KIND", "openai"),
            ("SPARK_PROVIDERS_DEMO_BASE_URL", "http://user:hunter2@h/v1"),
        ];
        let error = load("", &variables).unwrap_err().to_string();
        assert!(error.contains("SPARK_PROVIDERS_DEMO_BASE_URL"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
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
