//! The service of the layer: which bodies are read, and what is said to the others.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body::Body;
use spark_core::{BoxError, Problem, RequestBody, ResponseBody, Shape, collect};
use tower_service::Service;

use crate::{
    future::{SanitizeFuture, State, Waiting},
    layer::Rules,
    metrics,
};

/// The service of [`SanitizeLayer`](crate::SanitizeLayer).
#[derive(Clone, Debug)]
pub struct Sanitize<S> {
    pub(crate) inner: S,
    pub(crate) rules: Arc<Rules>,
}

impl<S, B, R> Service<Request<B>> for Sanitize<S>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = SanitizeFuture<S, B>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shape = Shape::of(request.extensions(), request.headers());
        let state = match gate(&request, &self.rules) {
            Gate::Pass => State::Passing {
                future: self.inner.call(request.map(RequestBody::streaming)),
            },
            Gate::Refuse(problem) => State::Refused {
                problem: Some(problem),
            },
            Gate::Read => {
                let clone = self.inner.clone();
                let service = mem::replace(&mut self.inner, clone);
                let (parts, body) = request.into_parts();
                let rules = Arc::clone(&self.rules);
                State::Reading {
                    body: collect(body, self.rules.max_body),
                    waiting: Some(Waiting {
                        parts,
                        service,
                        rules,
                    }),
                }
            }
        };
        SanitizeFuture {
            state,
            shape,
            report: None,
        }
    }
}

enum Gate {
    Pass,
    Read,
    Refuse(Box<Problem>),
}

fn gate<B: Body>(request: &Request<B>, rules: &Rules) -> Gate {
    if request.body().is_end_stream() {
        return Gate::Pass;
    }
    let headers = request.headers();
    if !is_json(headers) {
        let writes = [Method::POST, Method::PUT, Method::PATCH].contains(request.method());
        if !writes {
            return Gate::Pass;
        }
        if rules.pass_other_types {
            metrics::unchecked();
            return Gate::Pass;
        }
        return Gate::Refuse(Box::new(
            Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "sanitize",
                "unsupported_media_type",
            )
            .detail("The body must be JSON: send it with `Content-Type: application/json`.")
            .param("Content-Type"),
        ));
    }
    if !is_plain(headers) {
        return Gate::Refuse(Box::new(
            Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "sanitize",
                "unsupported_content_encoding",
            )
            .detail("Compressed bodies are not read: send the body without `Content-Encoding`.")
            .param("Content-Encoding")
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity")),
        ));
    }
    Gate::Read
}

/// One content type, and that JSON: `application/json` or one with the suffix `+json`.
fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else {
        return false;
    };
    let Ok(value) = only.to_str() else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence
            .len()
            .checked_sub("+json".len())
            .and_then(|at| essence.get(at..))
            .is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
}

fn is_plain(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().all(|value| {
        value.to_str().is_ok_and(|value| {
            value.split(',').all(|coding| {
                coding.trim().is_empty() || coding.trim().eq_ignore_ascii_case("identity")
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &http::HeaderName, values: &[&'static str]) -> HeaderMap {
        values
            .iter()
            .map(|v| (name.clone(), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn tells_json_from_the_rest() {
        for yes in [
            "application/json",
            "APPLICATION/JSON; charset=utf-8",
            "application/x+json",
        ] {
            assert!(is_json(&headers(&CONTENT_TYPE, &[yes])), "{yes}");
        }
        for no in [
            &[][..],
            &["text/plain"],
            &["application/jsonp"],
            &["json"],
            &["application/json", "text/plain"],
        ] {
            assert!(!is_json(&headers(&CONTENT_TYPE, no)), "{no:?}");
        }
    }

    #[test]
    fn only_identity_is_plain() {
        for (values, plain) in [
            (&[][..], true),
            (&["identity"], true),
            (&["Identity, identity"], true),
            (&["gzip"], false),
            (&["identity", "gzip"], false),
            (&["identity, br"], false),
        ] {
            assert_eq!(
                is_plain(&headers(&CONTENT_ENCODING, values)),
                plain,
                "{values:?}"
            );
        }
    }
}
