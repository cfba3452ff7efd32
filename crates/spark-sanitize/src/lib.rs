#![doc = include_str!("docs/manual.md")]
#![forbid(unsafe_code)]

mod body;
mod classes;
mod config;
mod edit;
mod error;
mod fields;
mod future;
mod hidden;
mod json;
mod json_report;
mod layer;
mod limit_layer;
pub mod metrics;
mod offsets;
mod report;
mod rules;
mod ruleset;
mod sanitizer;
mod service;
mod tokens;
mod unicode;
mod view;

pub use body::{BodyTooLarge, LimitedBody};
pub use config::{Limits, Preset, RuleInfo, SanitizerBuilder, rules};
pub use error::{BuildError, JsonError};
pub use fields::Fields;
pub use future::SanitizeFuture;
pub use json::check_json;
pub use json_report::{FieldReport, JsonReport};
pub use layer::{SanitizeLayer, SanitizeReport};
pub use limit_layer::{BodyLimit, BodyLimitFuture, BodyLimitLayer};
pub use report::{Action, Finding, Kind, Origin, Report, Severity, View};
pub use sanitizer::Sanitizer;
pub use service::Sanitize;
