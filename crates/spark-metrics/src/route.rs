//! Which route a request is counted under.

use std::fmt;

use http::{Extensions, Method, Uri};

/// The label of a request that no route claimed.
pub(crate) const UNMATCHED: &str = "unmatched";

/// The route of a request, set by whoever knows it: as a request extension by a layer outside of
/// [`HttpMetricsLayer`](crate::HttpMetricsLayer), or as a **response** extension by the handler.
/// The response's wins. It is a constant of the program, never a path from the wire.
///
/// ```
/// let mut response = http::Response::new(());
/// response.extensions_mut().insert(spark_metrics::Route("/v1/models"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route(pub &'static str);

/// How [`HttpMetricsLayer`](crate::HttpMetricsLayer) finds the route of a request. Never the raw
/// path: strangers choose that.
#[derive(Clone, Copy, Default)]
pub struct RouteLabel(Rule);

#[derive(Clone, Copy, Default)]
enum Rule {
    #[default]
    Matched,
    Fixed(&'static str),
    By(fn(&Method, &Uri, &Extensions) -> Option<&'static str>),
}

impl RouteLabel {
    /// The [`Route`] extension, else axum's `MatchedPath` (feature `axum`), else `unmatched`.
    ///
    /// ```
    /// let label = spark_metrics::RouteLabel::matched();
    /// ```
    pub fn matched() -> Self {
        Self(Rule::Matched)
    }

    /// One route for everything: for a service that has only one.
    ///
    /// ```
    /// let label = spark_metrics::RouteLabel::fixed("/generate");
    /// ```
    pub fn fixed(route: &'static str) -> Self {
        Self(Rule::Fixed(route))
    }

    /// A function; where it gives `None`, the rule of [`RouteLabel::matched`] is followed.
    ///
    /// ```
    /// let label = spark_metrics::RouteLabel::by(|_, uri, _| {
    ///     uri.path().starts_with("/static/").then_some("/static/*")
    /// });
    /// ```
    pub fn by(rule: fn(&Method, &Uri, &Extensions) -> Option<&'static str>) -> Self {
        Self(Rule::By(rule))
    }

    /// Calls `with` with the route that the request tells, if it tells one.
    pub(crate) fn of_request<T>(
        self,
        method: &Method,
        uri: &Uri,
        extensions: &Extensions,
        with: impl FnOnce(&str) -> T,
    ) -> Option<T> {
        match self.0 {
            Rule::Fixed(route) => return Some(with(route)),
            Rule::By(rule) => {
                if let Some(route) = rule(method, uri, extensions) {
                    return Some(with(route));
                }
            }
            Rule::Matched => {}
        }
        of_extensions(extensions, with)
    }

    /// The same for the response, whose word goes before the request's.
    pub(crate) fn of_response<T>(
        self,
        extensions: &Extensions,
        with: impl FnOnce(&str) -> T,
    ) -> Option<T> {
        if matches!(self.0, Rule::Fixed(_)) {
            None
        } else {
            of_extensions(extensions, with)
        }
    }
}

impl fmt::Debug for RouteLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Rule::Matched => "matched",
            Rule::Fixed(route) => route,
            Rule::By(_) => "by function",
        })
    }
}

fn of_extensions<T>(extensions: &Extensions, with: impl FnOnce(&str) -> T) -> Option<T> {
    if let Some(route) = extensions.get::<Route>() {
        return Some(with(route.0));
    }
    #[cfg(feature = "axum")]
    if let Some(path) = extensions.get::<axum::extract::MatchedPath>() {
        return Some(with(path.as_str()));
    }
    None
}
