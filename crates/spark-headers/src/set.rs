//! The set of headers, ready to be written on a response.

use std::borrow::Cow;

use http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY, STRICT_TRANSPORT_SECURITY,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::csp::Csp;
use crate::error::HeadersError;
use crate::hsts::{Hsts, Https};
use crate::presets;
use crate::template::Policy;
use crate::write::Occasion;

/// What every response carries and what none carries; all values are made here, once.
///
/// # Example
/// ```
/// use http::{HeaderMap, header};
/// use spark_headers::{Csp, Hsts, Https, SecurityHeaders};
/// let set = SecurityHeaders::api()
///     .csp(Csp::api().directive("report-to", ["csp"])?)
///     .set("reporting-endpoints", r#"csp="https://reports.example.com/csp""#)?
///     .https(Https::Always)
///     .hsts(Hsts::default().preload_i_understand());
///
/// let mut headers = HeaderMap::new();
/// headers.insert(header::SERVER, header::HeaderValue::from_static("nginx/1.2.3"));
/// set.apply(&mut headers);
/// assert_eq!(headers["x-content-type-options"], "nosniff");
/// assert!(!headers.contains_key("server"));
/// # Ok::<(), spark_headers::HeadersError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SecurityHeaders {
    pub(crate) fixed: Vec<(HeaderName, HeaderValue)>,
    pub(crate) csp: Option<Policy>,
    pub(crate) report_only: Option<Policy>,
    pub(crate) hsts: Option<HeaderValue>,
    https: Https,
    /// Lower case, sorted.
    pub(crate) strip: Vec<Cow<'static, str>>,
}

impl SecurityHeaders {
    /// For answers that are data. [Every value](crate#what-is-sent) is listed in the manual.
    ///
    /// # Example
    /// ```
    /// let layer = spark_headers::SecurityHeadersLayer::new(spark_headers::SecurityHeaders::api());
    /// ```
    pub fn api() -> Self {
        Self::preset(&[presets::COMMON, presets::API], Csp::api())
    }

    /// For pages: their scripts need the [`CspNonce`](crate::CspNonce) of the response.
    ///
    /// # Example
    /// ```
    /// let layer = spark_headers::SecurityHeadersLayer::new(spark_headers::SecurityHeaders::html());
    /// ```
    pub fn html() -> Self {
        Self::preset(&[presets::COMMON, presets::HTML], Csp::html())
    }

    /// Sends nothing and removes nothing: a start for a set of your own.
    ///
    /// # Example
    /// ```
    /// let mut headers = http::HeaderMap::new();
    /// spark_headers::SecurityHeaders::none().apply(&mut headers);
    /// assert!(headers.is_empty());
    /// ```
    pub fn none() -> Self {
        Self {
            fixed: Vec::new(),
            csp: None,
            report_only: None,
            hsts: None,
            https: Https::Never,
            strip: Vec::new(),
        }
    }

    fn preset(lists: &[&[(&'static str, &'static str)]], csp: Csp) -> Self {
        let fixed = lists.iter().copied().flatten().map(|&(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        Self {
            fixed: fixed.collect(),
            hsts: Hsts::default().value(),
            strip: presets::STRIP
                .iter()
                .map(|name| Cow::Borrowed(*name))
                .collect(),
            ..Self::none()
        }
        .csp(csp)
    }

    /// Sends this policy. An empty one sends none.
    ///
    /// # Example
    /// ```
    /// use spark_headers::{Csp, SecurityHeaders};
    /// let set = SecurityHeaders::html().csp(Csp::html().directive("img-src", ["*"])?);
    /// # Ok::<(), spark_headers::HeadersError>(())
    /// ```
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a policy is made to be given away"
    )]
    pub fn csp(mut self, csp: Csp) -> Self {
        self.csp = Some(Policy::new(&csp));
        self
    }

    /// Sends this policy as `Content-Security-Policy-Report-Only` too: what it would forbid is
    /// reported to its `report-to`, and let through.
    ///
    /// # Example
    /// ```
    /// use spark_headers::{Csp, SecurityHeaders};
    /// let stricter = Csp::html().directive("img-src", ["'none'"])?.directive("report-to", ["csp"])?;
    /// let set = SecurityHeaders::html().csp_report_only(stricter);
    /// # Ok::<(), spark_headers::HeadersError>(())
    /// ```
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a policy is made to be given away"
    )]
    pub fn csp_report_only(mut self, csp: Csp) -> Self {
        self.report_only = Some(Policy::new(&csp));
        self
    }

    /// Sends this in answer to requests that came over [`https`](Self::https).
    ///
    /// # Example
    /// ```
    /// use spark_headers::{Hsts, SecurityHeaders};
    /// let set = SecurityHeaders::api().hsts(Hsts::years(1));
    /// ```
    #[must_use]
    pub fn hsts(mut self, hsts: Hsts) -> Self {
        self.hsts = hsts.value();
        self
    }

    /// How the layer knows that a request came over https; [`Https::Never`] until you say.
    ///
    /// # Example
    /// ```
    /// use spark_headers::{Https, SecurityHeaders};
    /// let set = SecurityHeaders::api().https(Https::Always);
    /// ```
    #[must_use]
    pub fn https(mut self, https: Https) -> Self {
        self.https = https;
        self
    }

    /// Sends one more header, or another value of one that the set has.
    ///
    /// # Errors
    /// A name or a value that HTTP does not allow, such as one with a line break. The policies and
    /// HSTS are refused here too: they have setters that check them.
    ///
    /// # Example
    /// ```
    /// use spark_headers::SecurityHeaders;
    /// let set = SecurityHeaders::api().set("cross-origin-resource-policy", "cross-origin")?;
    /// assert!(SecurityHeaders::api().set("x-frame-options", "DENY\r\nset-cookie: a=b").is_err());
    /// # Ok::<(), spark_headers::HeadersError>(())
    /// ```
    pub fn set(mut self, name: impl AsRef<str>, value: &str) -> Result<Self, HeadersError> {
        let name = header_name(name.as_ref())?;
        for (own, header, setter) in [
            (CONTENT_SECURITY_POLICY, "Content-Security-Policy", "csp"),
            (
                CONTENT_SECURITY_POLICY_REPORT_ONLY,
                "Content-Security-Policy-Report-Only",
                "csp_report_only",
            ),
            (
                STRICT_TRANSPORT_SECURITY,
                "Strict-Transport-Security",
                "hsts",
            ),
        ] {
            if name == own {
                return Err(HeadersError::HasItsOwnSetter {
                    name: header,
                    setter,
                });
            }
        }
        let value = HeaderValue::from_str(value).map_err(|_| HeadersError::Value {
            name: name.as_str().to_owned(),
        })?;
        match self.fixed.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.fixed.push((name, value)),
        }
        Ok(self)
    }

    /// Does not send this header; what a handler sets stays. No error if the set has none of it.
    ///
    /// # Example
    /// ```
    /// let set = spark_headers::SecurityHeaders::api().remove("x-dns-prefetch-control");
    /// ```
    #[must_use]
    pub fn remove(mut self, name: impl AsRef<str>) -> Self {
        let name = name.as_ref();
        let is = |header: &HeaderName| header.as_str().eq_ignore_ascii_case(name);
        self.fixed.retain(|(known, _)| !is(known));
        if is(&CONTENT_SECURITY_POLICY) {
            self.csp = None;
        }
        if is(&CONTENT_SECURITY_POLICY_REPORT_ONLY) {
            self.report_only = None;
        }
        if is(&STRICT_TRANSPORT_SECURITY) {
            self.hsts = None;
        }
        self
    }

    /// Takes these off every response, besides `Server`, `X-Powered-By` and the others that the two
    /// presets take off.
    ///
    /// # Errors
    /// A name that HTTP does not allow.
    ///
    /// # Example
    /// ```
    /// let set = spark_headers::SecurityHeaders::api().strip(["x-backend-node"])?;
    /// # Ok::<(), spark_headers::HeadersError>(())
    /// ```
    pub fn strip<I>(mut self, names: I) -> Result<Self, HeadersError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        for name in names {
            let name = header_name(name.as_ref())?;
            if let Err(at) = self
                .strip
                .binary_search_by(|known| known.as_ref().cmp(name.as_str()))
            {
                self.strip.insert(at, Cow::Owned(name.as_str().to_owned()));
            }
        }
        Ok(self)
    }

    /// Leaves this one on the response after all.
    ///
    /// # Example
    /// ```
    /// let set = spark_headers::SecurityHeaders::api().keep("x-b3-traceid");
    /// ```
    #[must_use]
    pub fn keep(mut self, name: impl AsRef<str>) -> Self {
        self.strip
            .retain(|known| !known.eq_ignore_ascii_case(name.as_ref()));
        self
    }

    /// Writes the set on a response that no layer sees, such as that of a last-resort panic handler.
    ///
    /// Without a nonce: a policy that uses one is sent with all that needs it forbidden. Without
    /// HSTS, unless the set says [`Https::Always`].
    ///
    /// # Example
    /// ```
    /// let last_resort = spark_headers::SecurityHeaders::api();
    /// let mut response = http::Response::new(());
    /// *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    /// last_resort.apply(response.headers_mut());
    /// assert_eq!(response.headers()["cache-control"], "no-store, max-age=0");
    /// ```
    pub fn apply(&self, headers: &mut HeaderMap) {
        let secure = self.https == Https::Always;
        self.write(
            headers,
            Occasion {
                secure,
                ..Occasion::default()
            },
        );
    }

    pub(crate) fn uses_nonce(&self) -> bool {
        let uses = |policy: &Option<Policy>| policy.as_ref().is_some_and(Policy::uses_nonce);
        uses(&self.csp) || uses(&self.report_only)
    }

    pub(crate) fn https_source(&self) -> &Https {
        &self.https
    }
}

fn header_name(name: &str) -> Result<HeaderName, HeadersError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeadersError::Name {
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn injection_is_refused() {
        let set = |name: &str, value: &str| SecurityHeaders::none().set(name, value).unwrap_err();
        assert!(matches!(
            set("x-a", "b\r\nx-c: d"),
            HeadersError::Value { .. }
        ));
        assert!(matches!(set("x-a\r\nx-b", "c"), HeadersError::Name { .. }));
        assert!(matches!(set("", "c"), HeadersError::Name { .. }));
        assert!(matches!(
            set("Strict-Transport-Security", "max-age=1"),
            HeadersError::HasItsOwnSetter { setter: "hsts", .. }
        ));
        assert!(SecurityHeaders::none().strip(["a b"]).is_err());
    }
}
