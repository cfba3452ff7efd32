//! The future of the layer: read the body, judge it, call the inner service.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_LENGTH, request::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use spark_core::{BoxError, Collect, CollectError, Problem, RequestBody, ResponseBody, Shape};
use tower_service::Service;

use crate::{
    body::BodyTooLarge,
    error::JsonError,
    json_report::{FieldReport, JsonReport},
    layer::{Rules, SanitizeReport},
    limit_layer::too_large,
    metrics,
    report::Action,
};

pin_project! {
    /// The future of [`Sanitize`](crate::Sanitize).
    pub struct SanitizeFuture<S, B>
    where
        S: Service<Request<RequestBody<B>>>,
    {
        #[pin]
        pub(crate) state: State<S, B, S::Future>,
        pub(crate) shape: Shape,
        pub(crate) report: Option<SanitizeReport>,
    }
}

pin_project! {
    #[project = StateProj]
    pub(crate) enum State<S, B, F> {
        Reading { #[pin] body: Collect<B>, waiting: Option<Waiting<S>> },
        Passing { #[pin] future: F },
        Refused { problem: Option<Box<Problem>> },
    }
}

/// What waits for the body.
pub(crate) struct Waiting<S> {
    pub(crate) parts: Parts,
    pub(crate) service: S,
    pub(crate) rules: Arc<Rules>,
}

impl<S, B, R> Future for SanitizeFuture<S, B>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Reading { body, waiting } => {
                    let read = ready!(body.poll(cx));
                    // It is taken when the body is read, which is once.
                    let Some(Waiting {
                        mut parts,
                        mut service,
                        rules,
                    }) = waiting.take()
                    else {
                        return Poll::Pending;
                    };
                    match judge(read, &mut parts, &rules, this.report) {
                        Ok(bytes) => State::Passing {
                            future: service
                                .call(Request::from_parts(parts, RequestBody::whole(bytes))),
                        },
                        Err(problem) => State::Refused {
                            problem: Some(problem),
                        },
                    }
                }
                StateProj::Passing { future } => {
                    let mut response = ready!(future.poll(cx))?.map(ResponseBody::inner);
                    // Most reports are empty, and an extension costs three allocations.
                    if let Some(report) = this.report.take().filter(|r| r.fields.is_some()) {
                        response.extensions_mut().insert(report);
                    }
                    return Poll::Ready(Ok(response));
                }
                StateProj::Refused { problem } => {
                    let Some(problem) = problem.take() else {
                        return Poll::Pending;
                    };
                    metrics::refusal(problem.code());
                    let mut response = problem.into_response(*this.shape);
                    if let Some(report) = this.report.take() {
                        response.extensions_mut().insert(report);
                    }
                    return Poll::Ready(Ok(response));
                }
            };
            this.state.set(next);
        }
    }
}

impl<S: Service<Request<RequestBody<B>>>, B> fmt::Debug for SanitizeFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SanitizeFuture").finish_non_exhaustive()
    }
}

/// The bytes to hand on, or the refusal.
fn judge(
    read: Result<Bytes, CollectError>,
    parts: &mut Parts,
    rules: &Rules,
    report: &mut Option<SanitizeReport>,
) -> Result<Bytes, Box<Problem>> {
    let bytes = read.map_err(|error| Box::new(unreadable(&error)))?;
    let mut seen = rules
        .sanitizer
        .inspect_json(&bytes, &rules.fields)
        .map_err(|error| Box::new(invalid(&error)))?;
    count(seen.fields());
    let refusal = refusal(&seen, rules);
    let changed = seen.take_new_body();
    let action = seen.action();
    let fields = seen.into_fields();
    let fields = (!fields.is_empty()).then(|| fields.into());
    *report = Some(SanitizeReport { action, fields });
    if let Some(problem) = refusal {
        return Err(Box::new(problem));
    }
    if let Some(report) = report.as_ref() {
        parts.extensions.insert(report.clone());
    }
    let Some(body) = changed.map(Bytes::from) else {
        return Ok(bytes);
    };
    if parts.headers.contains_key(CONTENT_LENGTH) {
        parts
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    Ok(body)
}

fn count(fields: &[FieldReport]) {
    for finding in fields.iter().flat_map(|field| &field.findings) {
        metrics::finding(finding.rule, finding.action.as_str());
    }
}

fn unreadable(error: &CollectError) -> Problem {
    if let CollectError::TooLarge { limit } = error {
        return too_large(*limit);
    }
    // A body limit further out says so by its error.
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(BodyTooLarge { limit }) = error.downcast_ref() {
            return too_large(*limit);
        }
        source = error.source();
    }
    Problem::new(StatusCode::BAD_REQUEST, "sanitize", "body_unreadable")
        .detail("The request body could not be read to its end: send it again.")
}

fn invalid(error: &JsonError) -> Problem {
    let mut detail = error.to_string();
    if let Some(first) = detail.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let problem = Problem::new(StatusCode::BAD_REQUEST, "sanitize", error.code())
        .detail(format!("{detail}."));
    let problem = match error.field() {
        Some(field) => problem.param(field.to_owned()),
        None => problem,
    };
    match error {
        JsonError::Syntax { line, column, .. } => problem
            .member("line", (*line).into())
            .member("column", (*column).into()),
        JsonError::NotUtf8 { offset } => problem.member("offset", (*offset).into()),
        _ => problem,
    }
}

fn refusal(seen: &JsonReport<'_>, rules: &Rules) -> Option<Problem> {
    if seen.action() != Action::Block {
        return None;
    }
    let field = seen.blocked_field().unwrap_or_default().to_owned();
    if seen.is_too_long() {
        let limit = rules.sanitizer.limits().max_prompt_chars;
        return Some(
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "sanitize", "prompt_too_long")
                .detail(format!(
                    "`{field}` is longer than {limit} characters: shorten it."
                ))
                .param(field)
                .member("limit", limit.into()),
        );
    }
    // The rule is named to the operator, and to nobody who would like to get around it.
    let rule = seen
        .fields()
        .iter()
        .flat_map(|f| &f.findings)
        .find(|f| f.action == Action::Block)
        .map_or("", |f| f.rule);
    tracing::info!(field, rule, "a prompt was blocked");
    Some(
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "sanitize",
            "prompt_blocked",
        )
        .detail(format!(
            "The text in `{field}` was refused by the content filter: reword it."
        ))
        .param(field),
    )
}
