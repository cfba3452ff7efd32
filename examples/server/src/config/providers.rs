//! The providers, as they are configured.

use serde::{Deserialize, Serialize};

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
    #[serde(default)]
    pub demo: Demo,
}

fn default_max_in_flight() -> usize {
    256
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
            slow_threshold: Span::secs(0),
            slow_rate: 0.0,
            in_flight_slow: 0,
            open_for: Span::secs(10),
            max_open_for: Span::secs(0),
            max_retry_after: Span::secs(0),
            probes: 2,
            success_needed: 0,
            ramp: Span::secs(0),
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
