//! Presets, limits, and the policy made of them when a sanitizer is built.

use std::sync::Arc;

use crate::{
    error::BuildError,
    report::{Action, Kind, Origin, Severity},
    rules::{Engine, RULES_MAX},
    ruleset::{RULES, Rule},
    sanitizer::{Inner, Sanitizer},
};

/// Where a policy starts from.
///
/// | | unseen characters | control tokens | override, system prompt, persona | the rest |
/// |---|---|---|---|---|
/// | `Monitor` | flag | flag | flag | flag |
/// | `Balanced` | strip | flag (foreign text: redact) | block | flag |
/// | `Strict` | strip | redact | block | block from high severity, else flag |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Preset {
    /// Reports, and changes nothing. Limits hold.
    Monitor,
    /// Blocks what is hardly ever innocent.
    #[default]
    Balanced,
    /// Blocks what is seldom innocent; expect complaints.
    Strict,
}

/// What is too much. Every limit is checked before the costly part of the work.
///
/// ```
/// let limits = spark_sanitize::Limits { max_prompt_chars: 4_000, ..Default::default() };
/// assert_eq!(limits.max_depth, 32);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Limits {
    /// Characters in one inspected text.
    pub max_prompt_chars: usize,
    /// Levels of nesting in a JSON body.
    pub max_depth: usize,
    /// Keys and values in a JSON body, together.
    pub max_values: usize,
    /// Bytes of any one JSON string, as it stands in the body.
    pub max_string_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_prompt_chars: 100_000,
            max_depth: 32,
            max_values: 100_000,
            max_string_bytes: 1 << 20,
        }
    }
}

/// Builds a [`Sanitizer`]; everything is checked here, nothing while requests are served.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct SanitizerBuilder {
    preset: Preset,
    limits: Limits,
    actions: Vec<(String, Action)>,
    normalize: bool,
}

impl SanitizerBuilder {
    /// The policy to start from; [`Preset::Balanced`] unless said.
    ///
    /// ```
    /// use spark_sanitize::{Preset, Sanitizer};
    /// let watches = Sanitizer::builder().preset(Preset::Monitor).build()?;
    /// # Ok::<(), spark_sanitize::BuildError>(())
    /// ```
    pub fn preset(mut self, preset: Preset) -> Self {
        self.preset = preset;
        self
    }

    /// Other limits.
    ///
    /// ```
    /// use spark_sanitize::{Limits, Sanitizer};
    /// let limits = Limits { max_prompt_chars: 4_000, ..Limits::default() };
    /// let sanitizer = Sanitizer::builder().limits(limits).build()?;
    /// # Ok::<(), spark_sanitize::BuildError>(())
    /// ```
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Another action for a rule (`"override.german"`) or a family (`"override"`), for every
    /// origin. A rule's own setting outweighs its family's, and a later one an earlier one.
    ///
    /// ```
    /// use spark_sanitize::{Action, Sanitizer};
    /// let sanitizer = Sanitizer::builder()
    ///     .action("override", Action::Flag)
    ///     .action("control.token", Action::Redact)
    ///     .build()?;
    /// # Ok::<(), spark_sanitize::BuildError>(())
    /// ```
    pub fn action(mut self, rule_or_family: impl Into<String>, action: Action) -> Self {
        self.actions.push((rule_or_family.into(), action));
        self
    }

    /// Hands the text on in Unicode's form NFKC. Off unless said: it rewrites full-width letters,
    /// ligatures and mathematical letters, which readers notice. Detection folds them in any case.
    ///
    /// ```
    /// use spark_sanitize::{Origin, Sanitizer};
    /// let sanitizer = Sanitizer::builder().normalize(true).build()?;
    /// assert_eq!(sanitizer.inspect("ﬁn", Origin::User).text(), "fin");
    /// # Ok::<(), spark_sanitize::BuildError>(())
    /// ```
    pub fn normalize(mut self, yes: bool) -> Self {
        self.normalize = yes;
        self
    }

    /// Compiles the rules.
    ///
    /// # Errors
    /// When an action names no rule and no family, or a limit is 0.
    ///
    /// # Example
    /// ```
    /// let error = spark_sanitize::Sanitizer::builder()
    ///     .action("overide", spark_sanitize::Action::Flag)
    ///     .build()
    ///     .unwrap_err();
    /// assert!(error.to_string().starts_with("`overide` is neither"));
    /// ```
    pub fn build(self) -> Result<Sanitizer, BuildError> {
        let Limits {
            max_prompt_chars,
            max_depth,
            max_values,
            max_string_bytes,
        } = self.limits;
        for (field, limit) in [
            ("max_prompt_chars", max_prompt_chars),
            ("max_depth", max_depth),
            ("max_values", max_values),
            ("max_string_bytes", max_string_bytes),
        ] {
            if limit == 0 {
                return Err(BuildError::ZeroLimit { field });
            }
        }
        let mut chosen = [None; RULES_MAX];
        for by_rule in [false, true] {
            for (name, action) in &self.actions {
                let mut known = false;
                for (rule, slot) in RULES.iter().zip(&mut chosen) {
                    let family = rule.kind.as_str() == name;
                    known |= family || rule.name == name;
                    if (rule.name == name && by_rule) || (family && !by_rule) {
                        *slot = Some(*action);
                    }
                }
                if !known {
                    return Err(BuildError::UnknownRule { name: name.clone() });
                }
            }
        }
        let policies = [
            Origin::User,
            Origin::ToolOutput,
            Origin::Retrieved,
            Origin::Trusted,
        ]
        .map(|origin| Policy::new(self.preset, origin, &chosen));
        Ok(Sanitizer(Arc::new(Inner {
            engine: Engine::new()?,
            limits: self.limits,
            normalize: self.normalize,
            policies,
        })))
    }
}

/// The action for each rule, for one origin.
#[derive(Clone, Debug)]
pub(crate) struct Policy([Action; RULES_MAX]);

impl Policy {
    fn new(preset: Preset, origin: Origin, chosen: &[Option<Action>; RULES_MAX]) -> Self {
        let mut actions = [Action::Allow; RULES_MAX];
        for ((rule, chosen), action) in RULES.iter().zip(chosen).zip(&mut actions) {
            *action = chosen.unwrap_or_else(|| default_action(rule, preset, origin));
            if origin == Origin::Trusted && rule.kind != Kind::Limit {
                *action = (*action).min(Action::Flag);
            }
        }
        Self(actions)
    }

    pub(crate) fn action(&self, rule: usize) -> Action {
        self.0.get(rule).copied().unwrap_or(Action::Allow)
    }
}

fn default_action(rule: &Rule, preset: Preset, origin: Origin) -> Action {
    let balanced = match origin {
        Origin::ToolOutput | Origin::Retrieved => rule.foreign,
        Origin::User | Origin::Trusted => rule.user,
    };
    match (preset, rule.kind) {
        (_, Kind::Limit) => Action::Block,
        (Preset::Monitor, _) => balanced.min(Action::Flag),
        (Preset::Balanced, _) => balanced,
        (Preset::Strict, Kind::Control) => balanced.max(Action::Redact),
        (Preset::Strict, _) if rule.severity >= Severity::High => Action::Block,
        (Preset::Strict, _) => balanced.max(Action::Flag),
    }
}

/// A rule's name, family and gravity, for documents and configuration pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleInfo {
    /// The name, as metrics and findings have it.
    pub name: &'static str,
    /// The family.
    pub kind: Kind,
    /// How grave it is.
    pub severity: Severity,
    /// The balanced preset's action for what a caller writes.
    pub default_action: Action,
}

/// Lists every rule.
///
/// ```
/// assert!(spark_sanitize::rules().any(|r| r.name == "override.ignore_instructions"));
/// ```
pub fn rules() -> impl Iterator<Item = RuleInfo> {
    RULES.iter().map(|rule| RuleInfo {
        name: rule.name,
        kind: rule.kind,
        severity: rule.severity,
        default_action: rule.user,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset;

    #[test]
    fn unknown_names_and_empty_limits_are_refused() {
        let unknown = Sanitizer::builder().action("overide", Action::Flag).build();
        assert!(unknown.unwrap_err().to_string().contains("`overide`"));
        let limits = Limits {
            max_depth: 0,
            ..Limits::default()
        };
        let zero = Sanitizer::builder().limits(limits).build();
        assert!(zero.unwrap_err().to_string().contains("`max_depth`"));
    }

    #[test]
    fn a_rule_outweighs_its_family_in_either_order() {
        for rule_first in [true, false] {
            let builder = Sanitizer::builder();
            let builder = if rule_first {
                builder
                    .action("hidden.bits", Action::Allow)
                    .action("hidden", Action::Flag)
            } else {
                builder
                    .action("hidden", Action::Flag)
                    .action("hidden.bits", Action::Allow)
            };
            let policy = builder.build().unwrap().0.policies[0].clone();
            assert_eq!(policy.action(ruleset::PAYLOAD), Action::Flag);
            assert_eq!(policy.action(ruleset::BITS), Action::Allow);
        }
    }

    #[test]
    fn every_rule_has_its_place() {
        assert!(RULES.len() <= RULES_MAX);
    }
}
