//! Input limits, Unicode cleaning and prompt-injection findings for tower services.
#![forbid(unsafe_code)]

mod classes;
mod config;
mod edit;
mod error;
mod offsets;
mod report;
mod rules;
mod ruleset;
mod sanitizer;
mod unicode;
mod view;

pub use config::{Limits, Preset, RuleInfo, SanitizerBuilder, rules};
pub use error::{BuildError, JsonError};
pub use report::{Action, Finding, Kind, Origin, Report, Severity, View};
pub use sanitizer::Sanitizer;
