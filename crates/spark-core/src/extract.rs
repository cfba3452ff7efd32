//! Extractors for axum handlers (feature `axum`).

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;

use crate::{ClientIp, Clock, Context, Miswired, Problem, Shape};

/// The request's context; a new one where no [`ContextLayer`](crate::ContextLayer) stands outside.
impl<S: Send + Sync> FromRequestParts<S> for Context {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::get_or_insert(&mut parts.extensions, &Clock::system()).clone())
    }
}

/// The request's context, if there is one.
impl<S: Send + Sync> OptionalFromRequestParts<S> for Context {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(Self::of(&parts.extensions).cloned())
    }
}

static NO_ADDRESS: Miswired = Miswired::new("client_ip_extractor");

/// The address of the caller. 500 where it is not known, in the shape of the request: a handler that
/// needs an address must not be given somebody else's. `Option<ClientIp>` is for those that can do
/// without.
impl<S: Send + Sync> FromRequestParts<S> for ClientIp {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        let context = Context::of(&parts.extensions);
        if let Some(ip) = context.and_then(Context::client_ip) {
            return Ok(ip);
        }
        NO_ADDRESS.report(match context {
            None => "no context: put spark_core's ContextLayer outside of this handler",
            Some(_) => {
                "no client address: serve with spark-serve, or with axum's ConnectInfo (feature \
                 `axum`)"
            }
        });
        let problem = Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "context",
            "no_client_address",
        )
        .detail("This service is set up without the addresses of its callers.");
        let shape = Shape::of(&parts.extensions, &parts.headers);
        Err(problem.into_response::<Body>(shape).map(Body::new))
    }
}

/// The address of the caller, if it is known.
impl<S: Send + Sync> OptionalFromRequestParts<S> for ClientIp {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(Context::of(&parts.extensions).and_then(Context::client_ip))
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::Refusal;

    fn parts(context: Option<Context>) -> Parts {
        let mut request = Request::new(());
        if let Some(context) = context {
            request.extensions_mut().insert(context);
        }
        request.into_parts().0
    }

    fn context() -> Context {
        Context::new(Clock::system().now())
    }

    #[tokio::test]
    async fn the_address_of_the_context_is_the_one() {
        let ip = ClientIp::new([192, 0, 2, 7].into());
        let mut parts = parts(Some(context().with_client_ip(ip)));
        let found = <ClientIp as FromRequestParts<()>>::from_request_parts(&mut parts, &()).await;
        assert_eq!(found.unwrap(), ip);
        let found =
            <ClientIp as OptionalFromRequestParts<()>>::from_request_parts(&mut parts, &()).await;
        assert_eq!(found, Ok(Some(ip)));
    }

    #[tokio::test]
    async fn without_an_address_the_handler_is_not_reached() {
        for (context, content_type) in [
            (None, "application/problem+json"),
            (Some(context()), "application/problem+json"),
            (
                Some(context().with_shape(Shape::OPENAI)),
                "application/json",
            ),
        ] {
            let mut parts = parts(context);
            let refused =
                <ClientIp as FromRequestParts<()>>::from_request_parts(&mut parts, &()).await;
            let refused = refused.unwrap_err();
            assert_eq!(refused.status(), 500);
            assert_eq!(refused.headers()["content-type"], content_type);
            let refusal = refused.extensions().get::<Refusal>().unwrap();
            assert_eq!(refusal.code, "no_client_address");
            let none =
                <ClientIp as OptionalFromRequestParts<()>>::from_request_parts(&mut parts, &())
                    .await;
            assert_eq!(none, Ok(None));
        }
    }
}
