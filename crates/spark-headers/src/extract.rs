//! The nonce as an argument of an axum handler.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::StatusCode;
use http::request::Parts;
use spark_core::Problem;

use crate::nonce::CspNonce;

/// Refused with a 500 when no layer around the handler has a policy with a nonce: a page whose
/// scripts cannot run is a mistake in the wiring that shows at the first request. Take an
/// `Option<CspNonce>` where both are right.
impl<S: Sync> FromRequestParts<S> for CspNonce {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().copied().ok_or_else(|| {
            tracing::error!(
                "a handler takes a CspNonce, but no SecurityHeadersLayer around it uses Csp::NONCE"
            );
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "headers", "no_nonce")
        })
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for CspNonce {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get().copied())
    }
}
