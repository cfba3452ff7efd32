//! What an inspection says: findings, the action to take, and the text to hand on.

use std::{borrow::Cow, fmt, ops::Range};

/// What is done about a finding; the strictest one among a text's findings wins.
///
/// ```
/// use spark_sanitize::Action;
/// assert!(Action::Allow < Action::Flag && Action::Redact < Action::Block);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Action {
    /// The rule is off: no finding is made.
    Allow,
    /// The finding is reported; the text stays as it is.
    Flag,
    /// The finding is taken out of the forwarded text: unseen characters are stripped, control
    /// tokens are broken up by a space, anything else becomes `[removed]`.
    Redact,
    /// Nothing is forwarded.
    Block,
}

impl Action {
    /// The name as it stands in metric labels and configuration files.
    ///
    /// ```
    /// assert_eq!(spark_sanitize::Action::Block.as_str(), "block");
    /// ```
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Flag => "flag",
            Self::Redact => "redact",
            Self::Block => "block",
        }
    }
}

/// How sure a rule is that what it found is an attack, and how much harm it would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// Untidy rather than hostile.
    Low,
    /// Often innocent.
    Medium,
    /// Seldom innocent.
    High,
    /// Hardly ever written by someone who means no harm.
    Critical,
}

/// The family a rule belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// "Ignore all previous instructions" and its relatives.
    Override,
    /// Asking for the system prompt.
    Extraction,
    /// Giving the model a role that has no rules.
    Jailbreak,
    /// Tokens and headings by which a chat template marks who speaks.
    Control,
    /// Sending text out through images, links or mail.
    Exfiltration,
    /// Asking for passwords and keys.
    Secret,
    /// Text written in characters that nobody sees.
    Hidden,
    /// Characters that have no business where they stand.
    Unicode,
    /// Several grave findings in one text.
    Combined,
    /// A size limit.
    Limit,
}

impl Kind {
    /// The family's name, the first half of its rules' names.
    ///
    /// ```
    /// assert_eq!(spark_sanitize::Kind::Override.as_str(), "override");
    /// ```
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::Extraction => "extraction",
            Self::Jailbreak => "jailbreak",
            Self::Control => "control",
            Self::Exfiltration => "exfiltration",
            Self::Secret => "secret",
            Self::Hidden => "hidden",
            Self::Unicode => "unicode",
            Self::Combined => "combined",
            Self::Limit => "limit",
        }
    }
}

/// Who wrote a text, as far as the service knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The caller.
    #[default]
    User,
    /// A tool or another service answered it.
    ToolOutput,
    /// A document that was searched for.
    Retrieved,
    /// The operator: findings are reported, never acted upon (limits hold).
    Trusted,
}

/// Which reading of the text a rule matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum View {
    /// The text, folded to its plain form.
    Canonical,
    /// Text decoded from characters that nobody sees.
    Hidden,
}

/// One thing that was found. It holds a place, never a text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Finding {
    /// The family.
    pub kind: Kind,
    /// The rule, as in `"override.ignore_instructions"`: one of a fixed set.
    pub rule: &'static str,
    /// How grave it is.
    pub severity: Severity,
    /// What the policy does about it.
    pub action: Action,
    /// Where it stands, in bytes of the original text.
    pub span: Range<usize>,
    /// Which reading of the text showed it.
    pub view: View,
}

/// The outcome of [`Sanitizer::inspect`](crate::Sanitizer::inspect).
#[derive(Clone)]
pub struct Report<'t> {
    pub(crate) text: Cow<'t, str>,
    pub(crate) action: Action,
    pub(crate) findings: Vec<Finding>,
    pub(crate) omitted: usize,
    pub(crate) too_long: bool,
}

impl<'t> Report<'t> {
    /// The text to hand on: the original when nothing was changed, empty when it is blocked.
    ///
    /// ```
    /// # use spark_sanitize::{Origin, Sanitizer};
    /// # let sanitizer = Sanitizer::builder().build()?;
    /// assert_eq!(sanitizer.inspect("so\u{200B}up", Origin::User).text(), "soup");
    /// # Ok::<(), spark_sanitize::BuildError>(())
    /// ```
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text to hand on, without a copy.
    ///
    /// ```
    /// # use spark_sanitize::{Origin, Sanitizer};
    /// let sanitizer = Sanitizer::builder().build()?;
    /// let text = sanitizer.inspect("plain", Origin::User).into_text();
    /// assert!(matches!(text, std::borrow::Cow::Borrowed("plain")));
    /// # Ok::<(), spark_sanitize::BuildError>(())
    /// ```
    pub fn into_text(self) -> Cow<'t, str> {
        self.text
    }

    /// The strictest action among the findings.
    ///
    /// ```
    /// # use spark_sanitize::{Action, Origin, Sanitizer};
    /// # let sanitizer = Sanitizer::builder().build()?;
    /// assert_eq!(sanitizer.inspect("[INST]", Origin::User).action(), Action::Flag);
    /// # Ok::<(), spark_sanitize::BuildError>(())
    /// ```
    pub fn action(&self) -> Action {
        self.action
    }

    /// Whether the text must not be used.
    ///
    /// ```
    /// # use spark_sanitize::{Origin, Sanitizer};
    /// # let sanitizer = Sanitizer::builder().build()?;
    /// assert!(!sanitizer.inspect("Good morning.", Origin::User).is_blocked());
    /// # Ok::<(), spark_sanitize::BuildError>(())
    /// ```
    pub fn is_blocked(&self) -> bool {
        self.action == Action::Block
    }

    /// What was found, by place.
    ///
    /// ```
    /// # use spark_sanitize::{Origin, Sanitizer};
    /// # let sanitizer = Sanitizer::builder().build()?;
    /// let report = sanitizer.inspect("Why [INST]?", Origin::User);
    /// assert_eq!(report.findings()[0].span, 4..10);
    /// # Ok::<(), spark_sanitize::BuildError>(())
    /// ```
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many findings were counted for the action but not kept, because the list is bounded.
    ///
    /// ```
    /// # use spark_sanitize::{Origin, Sanitizer};
    /// # let sanitizer = Sanitizer::builder().build()?;
    /// assert_eq!(sanitizer.inspect("x\u{200B}".repeat(9).as_str(), Origin::User).omitted(), 1);
    /// # Ok::<(), spark_sanitize::BuildError>(())
    /// ```
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Whether the text was refused for its length, unread.
    ///
    /// ```
    /// # use spark_sanitize::{Origin, Sanitizer};
    /// # let sanitizer = Sanitizer::builder().build()?;
    /// assert!(sanitizer.inspect(&"x".repeat(100_001), Origin::User).is_too_long());
    /// # Ok::<(), spark_sanitize::BuildError>(())
    /// ```
    pub fn is_too_long(&self) -> bool {
        self.too_long
    }
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("action", &self.action)
            .field("text_bytes", &self.text.len())
            .field("findings", &self.findings)
            .field("omitted", &self.omitted)
            .finish()
    }
}

/// A bounded list of findings that never forgets the strictest action.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) findings: Vec<Finding>,
    pub(crate) action: Action,
    pub(crate) omitted: usize,
}

/// Findings kept for one text, and for one rule within it.
const KEPT: usize = 64;
const KEPT_PER_RULE: usize = 8;

impl Collector {
    pub(crate) fn new() -> Self {
        Self {
            findings: Vec::new(),
            action: Action::Allow,
            omitted: 0,
        }
    }

    pub(crate) fn push(&mut self, finding: Finding) {
        self.action = self.action.max(finding.action);
        if let Some(last) = self
            .findings
            .iter_mut()
            .rev()
            .find(|f| f.rule == finding.rule)
            && last.view == finding.view
            && last.span.end >= finding.span.start
            && last.span.start <= finding.span.start
        {
            last.span.end = last.span.end.max(finding.span.end);
            return;
        }
        let same = self
            .findings
            .iter()
            .filter(|f| f.rule == finding.rule)
            .count();
        if same >= KEPT_PER_RULE || self.findings.len() >= KEPT {
            self.omitted = self.omitted.saturating_add(1);
        } else {
            self.findings.push(finding);
        }
    }
}
