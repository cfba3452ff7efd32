//! The providers, as they are configured.

use serde::{Deserialize, Serialize};
use spark_breaker::OVERFLOW;
use spark_core::Name;

use super::units::Span;

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
    /// How far that is lowered where the provider throttles; 0 for not at all.
    #[serde(default)]
    pub min_in_flight: usize,
    /// It is lowered, too, where a first byte takes longer; 0 for whatever that takes.
    #[serde(default = "Span::zero")]
    pub first_byte_target: Span,
    /// How much of the places one tenant may hold; 1 or 0 for all of them.
    #[serde(default = "all")]
    pub tenant_share: f64,
    #[serde(default)]
    pub demo: Demo,
}

fn default_max_in_flight() -> usize {
    256
}

fn all() -> f64 {
    1.0
}

impl Provider {
    pub(super) fn only_demo() -> Vec<Self> {
        vec![Self {
            name: "demo".to_owned(),
            kind: ProviderKind::Demo,
            base_url: None,
            api_key_env: None,
            models: vec!["demo-1".to_owned()],
            timeouts: Timeouts::default(),
            breaker: Breaker::default(),
            max_in_flight: default_max_in_flight(),
            min_in_flight: 0,
            first_byte_target: Span::zero(),
            tenant_share: all(),
            demo: Demo::default(),
        }]
    }

    /// Rules that no type expresses. The field at fault and the mend, when one is broken.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let err = |key: &str, mend: &str| {
            Err((format!("providers.{}.{key}", self.name), mend.to_owned()))
        };
        if Name::new(&self.name).is_err() {
            let mend = format!(
                "write 1 to 64 of A-Z a-z 0-9 . _ : - (it appears in metrics and logs), not {:?}",
                self.name
            );
            return Err(("providers.name".to_owned(), mend));
        }
        if self.name == OVERFLOW {
            return err("name", "choose another name: this one is taken");
        }
        if self.models.is_empty() || self.models.iter().any(String::is_empty) {
            return err("models", "list at least one model, none of them empty");
        }
        if self.kind == ProviderKind::Openai {
            let Some(url) = &self.base_url else {
                let mend = "write the base URL, as \"https://api.example/v1\"";
                return err("base_url", mend);
            };
            if let Err(mend) = crate::provider::check_base_url(url) {
                return err("base_url", mend);
            }
        }
        for (key, rate) in [
            ("tenant_share", self.tenant_share),
            ("breaker.failure_rate", self.breaker.failure_rate),
            ("breaker.slow_rate", self.breaker.slow_rate),
            ("demo.failure_rate", self.demo.failure_rate),
            ("demo.stall_rate", self.demo.stall_rate),
            ("demo.truncate_rate", self.demo.truncate_rate),
        ] {
            if !(0.0..=1.0).contains(&rate) {
                return err(key, "write a share from 0.0 to 1.0");
            }
        }
        let in_order = self.timeouts.check().and_then(|()| self.check_places());
        in_order.or_else(|(key, mend)| err(key, mend))
    }

    /// The key and the mend.
    fn check_places(&self) -> Result<(), (&'static str, &'static str)> {
        if self.max_in_flight == 0 {
            return Err(("max_in_flight", "write a number of at least 1"));
        }
        let target = self.first_byte_target.duration();
        if self.min_in_flight == 0 {
            let mend = "set `min_in_flight`, too: without it, no time changes the limit";
            return match target.is_zero() {
                true => Ok(()),
                false => Err(("first_byte_target", mend)),
            };
        }
        if self.min_in_flight > self.max_in_flight {
            let mend = "write at most `max_in_flight`, or 0 for a limit that stays";
            return Err(("min_in_flight", mend));
        }
        if self.max_in_flight > MOST_ADAPTIVE {
            let mend = "write at most 1000000, or `min_in_flight = 0` for a limit that stays";
            return Err(("max_in_flight", mend));
        }
        if target >= self.timeouts.first_byte.duration() {
            let mend = "write less than `timeouts.first_byte`, at which a call ends";
            return Err(("first_byte_target", mend));
        }
        Ok(())
    }
}

/// The highest limit that moves.
const MOST_ADAPTIVE: usize = 1_000_000;

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
    /// To the head of the answer; 0 for as long as `first_byte`.
    pub headers: Span,
    pub first_byte: Span,
    pub idle: Span,
    pub total: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Span::secs(2),
            headers: Span::zero(),
            first_byte: Span::secs(30),
            idle: Span::secs(15),
            total: Span::secs(120),
        }
    }
}

impl Timeouts {
    /// As the layers take them.
    pub(crate) fn limits(&self) -> spark_breaker::Timeouts {
        spark_breaker::Timeouts {
            connect: Some(self.connect.duration()),
            headers: self.headers.some(),
            first_byte: Some(self.first_byte.duration()),
            idle: Some(self.idle.duration()),
            total: Some(self.total.duration()),
        }
    }

    /// The key and the mend.
    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        for (key, time) in [
            ("timeouts.connect", self.connect),
            ("timeouts.first_byte", self.first_byte),
            ("timeouts.idle", self.idle),
            ("timeouts.total", self.total),
        ] {
            if time.duration().is_zero() {
                return Err((key, "write a time such as \"10s\""));
            }
        }
        match self.limits().validate() {
            Ok(()) => Ok(()),
            // None is zero, so one is longer than one that ends later.
            Err(spark_breaker::ConfigError::OutOfRange { field, .. }) => Err((
                field,
                "write at most the time of what ends later, which would otherwise cut it off: \
                 connect, headers (unless 0), first_byte, total, in this order, and idle before total",
            )),
            Err(_) => Err(("timeouts", "write times such as \"10s\"")),
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Breaker {
    pub window: Span,
    pub min_calls: u32,
    pub failure_rate: f64,
    /// Failures in a row that open it; 0 for none.
    pub consecutive: u32,
    /// A call is slow when its first byte takes so long; 0 for `timeouts.first_byte`.
    pub slow_threshold: Span,
    /// The share of slow calls that opens it; 0 for none.
    pub slow_rate: f64,
    /// So many calls that are slow and still under way open it; 0 for none.
    pub in_flight_slow: u32,
    pub open_for: Span,
    /// How far it grows; 0 for twelve times `open_for`.
    pub max_open_for: Span,
    /// The longest `Retry-After` that is believed; 0 for as long as `max_open_for`.
    pub max_retry_after: Span,
    /// How long it stays open when the provider's credit is used up and it does not say until when;
    /// 0 for until an operator acts.
    pub exhausted_for: Span,
    pub probes: u32,
    /// Good probes that close it; 0 for as many as `probes`.
    pub success_needed: u32,
    /// Over how long all calls are let through again.
    pub ramp: Span,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            window: Span::secs(30),
            min_calls: 10,
            failure_rate: 0.5,
            consecutive: 5,
            slow_threshold: Span::zero(),
            slow_rate: 0.0,
            in_flight_slow: 0,
            open_for: Span::secs(10),
            max_open_for: Span::zero(),
            max_retry_after: Span::zero(),
            exhausted_for: Span::zero(),
            probes: 2,
            success_needed: 0,
            ramp: Span::zero(),
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
