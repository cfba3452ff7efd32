//! A content security policy that cannot be written wrong.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::error::HeadersError;
use crate::presets;
use crate::source::{self, Kind};

/// A content security policy: directives in the order in which they are given, each checked.
///
/// A typo in a policy is silent in the browser: `self` without its quotes is a host of that name.
/// Here it is an error while the service starts.
///
/// # Example
/// ```
/// use spark_headers::Csp;
/// let csp = Csp::api()
///     .directive("connect-src", ["'self'", "https://api.example.com"])?
///     .directive("report-to", ["csp"])?;
/// assert!(csp.to_string().ends_with("connect-src 'self' https://api.example.com; report-to csp"));
/// # Ok::<(), spark_headers::HeadersError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Csp {
    directives: Vec<Directive>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Directive {
    name: &'static str,
    values: Vec<Cow<'static, str>>,
}

impl Csp {
    /// The source that becomes `'nonce-…'`, another in every response.
    ///
    /// # Example
    /// ```
    /// use spark_headers::Csp;
    /// let csp = Csp::empty().directive("script-src", [Csp::NONCE, "'strict-dynamic'"])?;
    /// assert!(csp.uses_nonce());
    /// # Ok::<(), spark_headers::HeadersError>(())
    /// ```
    pub const NONCE: &'static str = "'nonce'";

    /// No directive: a start for a policy of your own.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_headers::Csp::empty().to_string(), "");
    /// ```
    pub fn empty() -> Self {
        Self::default()
    }

    /// For answers that are data: nothing may be loaded, framed or submitted.
    ///
    /// # Example
    /// ```
    /// assert_eq!(
    ///     spark_headers::Csp::api().to_string(),
    ///     "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    /// );
    /// ```
    pub fn api() -> Self {
        Self::of(presets::CSP_API)
    }

    /// For pages: scripts and inline styles run when they carry the nonce of their response
    /// ([`CspNonce`](crate::CspNonce)), what they load is trusted, all else comes from this origin.
    ///
    /// # Example
    /// ```
    /// assert!(spark_headers::Csp::html().uses_nonce());
    /// ```
    pub fn html() -> Self {
        Self::of(presets::CSP_HTML)
    }

    fn of(directives: &'static [(&'static str, &'static [&'static str])]) -> Self {
        let directives = directives.iter().map(|&(name, values)| Directive {
            name,
            values: values.iter().map(|value| Cow::Borrowed(*value)).collect(),
        });
        Self {
            directives: directives.collect(),
        }
    }

    /// Reads a policy as it stands in a header; [`Csp::NONCE`] may stand in it.
    ///
    /// # Errors
    /// As [`directive`](Self::directive); also when a directive stands twice.
    ///
    /// # Example
    /// ```
    /// use spark_headers::Csp;
    /// let csp = Csp::parse("default-src 'self'; script-src 'self' 'nonce'")?;
    /// assert!(csp.uses_nonce());
    /// assert!(Csp::parse("default-src 'self'; default-src *").is_err());
    /// # Ok::<(), spark_headers::HeadersError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, HeadersError> {
        let mut csp = Self::empty();
        for part in text.split(';') {
            let mut words = part.split_ascii_whitespace();
            let Some(name) = words.next() else { continue };
            if csp.find(name).is_some() {
                return Err(HeadersError::RepeatedDirective {
                    directive: name.to_owned(),
                });
            }
            csp = csp.directive(name, words.map(str::to_owned))?;
        }
        Ok(csp)
    }

    /// Sets one directive, in place of an earlier one of that name.
    ///
    /// | directives | values |
    /// |---|---|
    /// | `default-src`, `script-src[-elem\|-attr]`, `style-src[-elem\|-attr]`, `img-src`, `font-src`, `connect-src`, `media-src`, `object-src`, `manifest-src`, `worker-src`, `child-src`, `frame-src` | `'none'` alone, or `'self'` and other keywords, hosts, schemes, hashes, [`Csp::NONCE`] |
    /// | `base-uri`, `form-action`, `frame-ancestors` | `'none'` alone, or `'self'`, hosts, schemes |
    /// | `upgrade-insecure-requests` | none; sent only where the request came over https |
    /// | `sandbox` | `allow-…` flags, or none |
    /// | `trusted-types`, `require-trusted-types-for` | names of policies; `'script'` |
    /// | `report-to`, `report-uri` | the name of one endpoint; addresses |
    ///
    /// # Errors
    /// An unknown directive; a value that does not belong there: a keyword without its quotes,
    /// `;`, `,`, a space or a line break in it, `'none'` beside others, a nonce that is written out.
    ///
    /// # Example
    /// ```
    /// use spark_headers::Csp;
    /// let csp = Csp::html().directive("img-src", ["'self'", "https://images.example.com"])?;
    /// assert!(Csp::html().directive("img-src", ["x; script-src *"]).is_err());
    /// # let _ = csp;
    /// # Ok::<(), spark_headers::HeadersError>(())
    /// ```
    pub fn directive<I>(mut self, name: &str, values: I) -> Result<Self, HeadersError>
    where
        I: IntoIterator,
        I::Item: Into<Cow<'static, str>>,
    {
        let (name, kind) =
            source::directive(name).ok_or_else(|| HeadersError::UnknownDirective {
                directive: name.to_owned(),
            })?;
        let values: Vec<Cow<'static, str>> = values.into_iter().map(Into::into).collect();
        check_all(name, kind, &values)?;
        let directive = Directive { name, values };
        match self.find(name) {
            Some(at) => self.directives[at] = directive,
            None => self.directives.push(directive),
        }
        Ok(self)
    }

    /// Takes one directive out; no error if it is not there.
    ///
    /// # Example
    /// ```
    /// use spark_headers::Csp;
    /// let csp = Csp::html().without("upgrade-insecure-requests");
    /// assert!(!csp.to_string().contains("upgrade"));
    /// ```
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.directives
            .retain(|directive| !directive.name.eq_ignore_ascii_case(name));
        self
    }

    /// Whether [`Csp::NONCE`] stands in it.
    ///
    /// # Example
    /// ```
    /// assert!(!spark_headers::Csp::api().uses_nonce());
    /// ```
    pub fn uses_nonce(&self) -> bool {
        self.directives
            .iter()
            .any(|directive| directive.values.iter().any(|v| v == Self::NONCE))
    }

    /// The policy for plain http: without what would turn its addresses into https.
    pub(crate) fn plain(&self) -> Self {
        self.clone().without("upgrade-insecure-requests")
    }

    /// The policy when there is no nonce to be had: what needs one is forbidden.
    ///
    /// `'unsafe-inline'` goes with it. Beside a nonce it is for browsers of old, and all others
    /// ignore it; alone it would let everything inline run.
    pub(crate) fn without_nonce(&self) -> Self {
        let mut csp = self.clone();
        for Directive { values, .. } in &mut csp.directives {
            if !values.iter().any(|value| value == Self::NONCE) {
                continue;
            }
            values.retain(|value| value != Self::NONCE && value != "'unsafe-inline'");
            if values.is_empty() {
                values.push(Cow::Borrowed("'none'"));
            }
        }
        csp
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.directives
            .iter()
            .position(|directive| directive.name.eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Csp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, directive) in self.directives.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            f.write_str(directive.name)?;
            for value in &directive.values {
                write!(f, " {value}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Csp {
    type Err = HeadersError;

    fn from_str(text: &str) -> Result<Self, HeadersError> {
        Self::parse(text)
    }
}

fn check_all(
    directive: &'static str,
    kind: Kind,
    values: &[Cow<'static, str>],
) -> Result<(), HeadersError> {
    let refuse = |value: &str, mend| {
        Err(HeadersError::Source {
            directive,
            value: value.to_owned(),
            mend,
        })
    };
    for value in values {
        if let Err(mend) = source::check(kind, value) {
            return refuse(value, mend);
        }
    }
    if values.is_empty() && !matches!(kind, Kind::Flag | Kind::Sandbox) {
        return refuse("", "no value; write 'none' to forbid all");
    }
    if values.len() > 1 {
        if values.iter().any(|value| value == "'none'") {
            return refuse("'none'", "stands alone, or not at all");
        }
        if kind == Kind::ReportTo {
            return refuse(&values[1], "one endpoint only");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_presets_are_what_a_reader_would_write() {
        for csp in [Csp::api(), Csp::html()] {
            assert_eq!(Csp::parse(&csp.to_string()).unwrap(), csp);
        }
    }

    #[test]
    fn a_directive_is_replaced_in_place() {
        let csp = Csp::api().directive("Default-Src", ["'self'"]).unwrap();
        assert!(
            csp.to_string()
                .starts_with("default-src 'self'; frame-ancestors")
        );
    }

    #[test]
    fn lists_that_fall() {
        let refused = |name: &str, values: &[&'static str]| {
            Csp::empty()
                .directive(name, values.iter().copied())
                .is_err()
        };
        assert!(refused("img-src", &[]));
        assert!(refused("img-src", &["'none'", "'self'"]));
        assert!(refused("report-to", &["a", "b"]));
        assert!(refused("image-src", &["'self'"]));
        assert!(refused("upgrade-insecure-requests", &["1"]));
        assert!(!refused("upgrade-insecure-requests", &[]));
        assert!(!refused("sandbox", &[]));
    }

    #[test]
    fn without_a_nonce_nothing_inline_runs() {
        let csp = Csp::parse("script-src 'nonce'; style-src 'self' 'nonce'").unwrap();
        assert_eq!(
            csp.without_nonce().to_string(),
            "script-src 'none'; style-src 'self'"
        );
        let fallback = "script-src 'nonce' 'unsafe-inline'; style-src 'unsafe-inline' 'nonce' 'self'; \
                        style-src-attr 'unsafe-inline'";
        assert_eq!(
            Csp::parse(fallback).unwrap().without_nonce().to_string(),
            "script-src 'none'; style-src 'self'; style-src-attr 'unsafe-inline'"
        );
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_one_header_and_reads_back(
            name in prop::sample::select(vec![
                "img-src", "script-src", "frame-ancestors", "sandbox", "trusted-types", "report-uri",
            ]),
            values in prop::collection::vec(
                prop_oneof![
                    any::<String>(),
                    "[!-~]{0,20}",
                    "(https?://)?(\\*\\.)?[a-z]{1,5}\\.[a-z]{1,3}(:[0-9]{1,5})?(/[a-z;,%/]{0,6})?",
                    "'?(self|none|nonce|strict-dynamic)'?",
                ],
                0..4,
            ),
        ) {
            if let Ok(csp) = Csp::empty().directive(name, values.clone()) {
                let text = csp.to_string();
                prop_assert!(http::HeaderValue::from_str(&text).is_ok());
                prop_assert!(!text.contains([';', ',', '\r', '\n']));
                prop_assert_eq!(text.split(' ').count(), values.len() + 1);
                prop_assert_eq!(Csp::parse(&text).unwrap(), csp);
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in any::<String>()) {
            if let Ok(csp) = Csp::parse(&text) {
                prop_assert_eq!(Csp::parse(&csp.to_string()).unwrap(), csp);
            }
        }
    }
}
