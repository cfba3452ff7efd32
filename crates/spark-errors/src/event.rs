//! One error, as it is kept and sent.

use std::{borrow::Cow, error::Error, fmt, panic::Location};

use serde::{Serialize, Serializer};

use crate::{ErrorTracker, Fingerprint, Redactor, text};

/// Bytes of a message that are kept.
const MESSAGE: usize = 4 * 1024;
/// Bytes of a message that are searched for secrets before it is cut.
const SEARCHED: usize = 4 * MESSAGE;
/// Bytes of a route, a tag's value.
const SHORT: usize = 256;
const CAUSES: usize = 8;
const TAGS: usize = 16;

/// The name of one captured error, unique in a process and across restarts: sixteen hex digits.
///
/// ```
/// let tracker = spark_errors::ErrorTracker::builder().build()?;
/// let id = tracker.event("provider").message("refused").send();
/// assert_eq!(id.to_string().len(), 16);
/// # Ok::<(), spark_errors::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId(pub(crate) u64);

impl EventId {
    /// The name as a URN, for the `instance` of a problem.
    ///
    /// ```
    /// let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// let id = tracker.event("provider").send();
    /// assert_eq!(id.urn(), format!("urn:spark:event:{id}"));
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn urn(self) -> String {
        format!("urn:spark:event:{self}")
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// Worth knowing.
    Warning,
    /// Something did not work.
    #[default]
    Error,
    /// A panic.
    Critical,
}

/// One error, redacted and bounded.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Event {
    /// Its name.
    pub id: EventId,
    /// Its group.
    pub fingerprint: Fingerprint,
    /// What kind of error, as the program calls it.
    pub kind: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it says.
    pub message: String,
    /// What its sources say, outermost first; at most eight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// The type of the error, where the program knew it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_name: Option<&'static str>,
    /// Where it was captured, or where the panic was: file and line.
    pub location: String,
    /// The route of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// What else is known; at most sixteen.
    #[serde(serialize_with = "as_map", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(&'static str, String)>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Event {
    /// An upper bound of what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let tags = self.tags.iter().map(|(_, value)| value.capacity() + 64);
        let causes = self.causes.iter().map(|cause| cause.capacity() + 32);
        size_of::<Self>()
            + self.message.capacity()
            + self.location.capacity()
            + self.route.as_ref().map_or(0, String::capacity)
            + tags.chain(causes).sum::<usize>()
    }
}

fn as_map<S: Serializer>(tags: &[(&str, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(tags.iter().map(|(key, value)| (key, value)))
}

/// An error on its way to a tracker: made by [`ErrorTracker::event`], ended by
/// [`send`](Draft::send). Everything given is redacted and cut before it is kept.
#[must_use = "nothing is captured until `send`"]
pub struct Draft<'t> {
    tracker: &'t ErrorTracker,
    kind: &'static str,
    severity: Severity,
    message: String,
    causes: Vec<String>,
    type_name: Option<&'static str>,
    location: Cow<'static, str>,
    line: u32,
    route: Option<String>,
    tags: Vec<(&'static str, String)>,
    group: Option<Fingerprint>,
}

impl<'t> Draft<'t> {
    pub(crate) fn new(
        tracker: &'t ErrorTracker,
        kind: &'static str,
        at: &'static Location<'static>,
    ) -> Self {
        Self {
            tracker,
            kind,
            severity: Severity::Error,
            message: String::new(),
            causes: Vec::new(),
            type_name: None,
            location: at.file().into(),
            line: at.line(),
            route: None,
            tags: Vec::new(),
            group: None,
        }
    }

    /// The error: its message, its sources and its type.
    ///
    /// ```
    /// # let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// let error = std::io::Error::other("disk full");
    /// tracker.event("storage").error(&error).send();
    /// assert_eq!(tracker.recent(1)[0].message, "disk full");
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn error<E: Error + ?Sized>(mut self, error: &E) -> Self {
        self.type_name = Some(std::any::type_name::<E>());
        self.message = self.clean(&text::display(&Displayed(error), SEARCHED), MESSAGE);
        let mut next = error.source();
        while let Some(source) = next
            && self.causes.len() < CAUSES
        {
            let cause = self.clean(&text::display(&source, MESSAGE), MESSAGE / 4);
            self.causes.push(cause);
            next = source.source();
        }
        self
    }

    /// A message, where there is no error value.
    ///
    /// ```
    /// # let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// tracker.event("queue").message("stuck for 30 s").send();
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn message(mut self, message: impl fmt::Display) -> Self {
        self.message = self.clean(&text::display(&message, SEARCHED), MESSAGE);
        self
    }

    /// How bad it is; [`Severity::Error`] unless set.
    ///
    /// ```
    /// # let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// tracker.event("queue").severity(spark_errors::Severity::Warning).send();
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// The route of the request: a pattern of the program, not the path from the wire.
    ///
    /// ```
    /// # let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// tracker.event("provider").route("/v1/chat/completions").send();
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn route(mut self, route: &str) -> Self {
        self.route = Some(self.clean(route, SHORT));
        self
    }

    /// Something else that is known; at most sixteen are kept.
    ///
    /// ```
    /// # let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// tracker.event("provider").tag("provider", "primary").tag("attempt", 2).send();
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn tag(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        if self.tags.len() < TAGS {
            // With its key before it, a value may turn out to be a secret.
            let value = text::display(&value, MESSAGE);
            let pair = format!("{key}={value}");
            let value = match self.tracker.redactor().redact(&pair) {
                Cow::Borrowed(_) => self.clean(&value, SHORT),
                Cow::Owned(_) => "[redacted]".into(),
            };
            self.tags.push((key, value));
        }
        self
    }

    /// The group, where the program knows better what is alike.
    ///
    /// ```
    /// # use spark_errors::{ErrorTracker, Fingerprint};
    /// # let tracker = ErrorTracker::builder().build()?;
    /// tracker.event("job").group(Fingerprint::chosen("nightly export")).send();
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn group(mut self, group: Fingerprint) -> Self {
        self.group = Some(group);
        self
    }

    /// The place, where it is not that of the call.
    pub(crate) fn at(mut self, file: String, line: u32) -> Self {
        self.location = file.into();
        self.line = line;
        self
    }

    /// Captures it. Takes some microseconds, never waits for a hook, never fails.
    ///
    /// ```
    /// # let tracker = spark_errors::ErrorTracker::builder().build()?;
    /// let id = tracker.event("provider").message("refused").send();
    /// assert_eq!(tracker.recent(1)[0].id, id);
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn send(self) -> EventId {
        self.send_by(true)
    }

    /// `log`: whether a `tracing` event may be written, which a panic hook must not.
    pub(crate) fn send_by(self, log: bool) -> EventId {
        let location = format!("{}:{}", short_path(&self.location), self.line);
        let own = || Fingerprint::of(self.kind, self.type_name, &location, &self.message);
        let fingerprint = self.group.unwrap_or_else(own);
        let event = Event {
            id: self.tracker.next_id(),
            fingerprint,
            kind: self.kind,
            severity: self.severity,
            message: self.message,
            causes: self.causes,
            type_name: self.type_name,
            location,
            route: self.route,
            tags: self.tags,
            at_ms: self.tracker.now_ms(),
        };
        self.tracker.accept(event, log)
    }

    fn clean(&self, raw: &str, max: usize) -> String {
        clean(self.tracker.redactor(), raw, max)
    }
}

impl fmt::Debug for Draft<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// First redacted, then cut: the other way round, half a secret would no longer look like one.
fn clean(redactor: &Redactor, raw: &str, max: usize) -> String {
    let raw = text::head(raw, SEARCHED);
    text::head(&redactor.redact(raw), max).to_owned()
}

/// A path that does not depend on the machine it was built on.
fn short_path(path: &str) -> &str {
    let path = path.split_once("/registry/src/").map_or(path, |(_, rest)| {
        rest.split_once('/').map_or(rest, |(_, inside)| inside)
    });
    path.strip_prefix("/rustc/")
        .and_then(|rest| rest.split_once('/'))
        .map_or(path, |(_, p)| p)
}

struct Displayed<'e, E: ?Sized>(&'e E);

impl<E: Error + ?Sized> fmt::Display for Displayed<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_do_not_tell_the_machine() {
        assert_eq!(short_path("src/a.rs"), "src/a.rs");
        assert_eq!(
            short_path("/h/.cargo/registry/src/index-1/dep-1.0/src/b.rs"),
            "dep-1.0/src/b.rs"
        );
        assert_eq!(
            short_path("/rustc/0123/library/core/src/c.rs"),
            "library/core/src/c.rs"
        );
    }

    #[test]
    fn a_secret_as_long_as_the_mark_does_not_pass_as_a_plain_tag() {
        let tag = |key, value: &str| {
            let tracker = ErrorTracker::builder().log(false).build().unwrap();
            tracker.event("login").tag(key, value).send();
            tracker.recent(1)[0].tags[0].1.clone()
        };
        for length in 1..40 {
            assert_eq!(
                tag("password", &"h".repeat(length)),
                "[redacted]",
                "{length}"
            );
        }
        assert_eq!(tag("attempt", "2"), "2");
    }

    #[test]
    fn a_secret_across_the_cut_is_not_halved() {
        let raw = format!("{} sk-{}", "x".repeat(90), "s".repeat(50));
        assert!(!clean(&Redactor::new(), &raw, 100).contains("ss"));
    }
}
