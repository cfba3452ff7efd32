//! Extractors for axum handlers (feature `axum`).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::Response;
use http::request::Parts;
use spark_core::{Context, Miswired, Principal, Problem, Shape, User};

use crate::answer::Challenges;
use crate::layer::DEFAULT_REALM;

/// Whoever calls, the anonymous included. 401 where no [`AuthLayer`](crate::AuthLayer) stands
/// outside, which is counted as mis-wired.
///
/// Extractors call the realm `spark`, whatever the layer calls it: where that matters, let a
/// [`RequireLayer`](crate::RequireLayer) with a realm of its own refuse first.
///
/// # Example
/// ```
/// use spark_auth::Caller;
/// async fn handler(Caller(principal): Caller) -> &'static str {
///     if principal.is_master() { "all" } else { "yours" }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Caller(pub Principal);

/// The holder of a user key. 401 for the anonymous, 403 for the master key.
///
/// # Example
/// ```
/// use spark_auth::UserCaller;
/// async fn handler(UserCaller(user): UserCaller) -> String {
///     format!("hello {}", user.tenant)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct UserCaller(pub Arc<User>);

/// The holder of the master key. 401 for the anonymous, 403 for a user key. A handler that takes
/// this argument cannot be reached otherwise, whatever layers are forgotten.
///
/// # Example
/// ```
/// use spark_auth::MasterCaller;
/// async fn handler(_: MasterCaller) -> &'static str {
///     "the control plane"
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MasterCaller;

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        (principal(parts).cloned().map(Self)).ok_or_else(|| answer(parts, challenges().missing()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for UserCaller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        match principal(parts) {
            Some(Principal::User(user)) => Ok(Self(Arc::clone(user))),
            Some(Principal::Master) => {
                let detail = "The master key does not open this route: use a user key.";
                Err(answer(parts, challenges().forbidden(detail)))
            }
            _ => Err(answer(parts, challenges().missing())),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MasterCaller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        match principal(parts) {
            Some(Principal::Master) => Ok(Self),
            Some(Principal::User(_)) => {
                let detail = "This route needs the master key.";
                Err(answer(parts, challenges().forbidden(detail)))
            }
            _ => Err(answer(parts, challenges().missing())),
        }
    }
}

static NO_PRINCIPAL: Miswired = Miswired::new("auth_extractor");

fn principal(parts: &Parts) -> Option<&Principal> {
    let principal = Context::of(&parts.extensions).and_then(Context::principal);
    if principal.is_none() {
        NO_PRINCIPAL.report("no principal: put the auth layer outside of this handler");
    }
    principal
}

fn challenges() -> Challenges {
    Challenges::new(DEFAULT_REALM, None)
}

fn answer(parts: &Parts, problem: Problem) -> Response {
    let shape = Shape::of(&parts.extensions, &parts.headers);
    problem.into_response::<Body>(shape).map(Body::new)
}
