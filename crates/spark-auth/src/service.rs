//! The service that [`AuthLayer`](crate::AuthLayer) makes.

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use http::{Request, Response};
use spark_core::{Context, Principal, Problem, ResponseBody, Shape};
use tower_service::Service;

use crate::answer;
use crate::credential::{self, CredentialError};
use crate::future::AuthFuture;
use crate::layer::Shared;
use crate::metrics::Decision;

/// Made by [`AuthLayer`](crate::AuthLayer).
///
/// # Example
/// ```
/// # use spark_auth::*;
/// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
/// use tower_layer::Layer;
/// let service: AuthService<&str> = AuthLayer::required(auth).layer("the inner service");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct AuthService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> AuthService<S> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for AuthService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = AuthFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        match self.shared.admit(&mut request) {
            Ok(()) => AuthFuture::pass(self.inner.call(request)),
            Err(problem) => {
                let shape = Shape::of(request.extensions(), request.headers());
                AuthFuture::refuse(problem, shape)
            }
        }
    }
}

impl Shared {
    fn admit<B>(&self, request: &mut Request<B>) -> Result<(), Problem> {
        if Context::of(request.extensions()).is_none() {
            self.no_context
                .report("no context: put spark_core's ContextLayer outside of the auth layer");
        }
        let principal = self.identify(request)?;
        credential::put_away(request.headers_mut(), self.keep_credentials);
        Context::get_or_insert(request.extensions_mut(), self.authenticator.clock())
            .set_principal(principal);
        Ok(())
    }

    fn identify<B>(&self, request: &Request<B>) -> Result<Principal, Problem> {
        let context = Context::of(request.extensions());
        let client_ip = context.and_then(Context::client_ip);
        let token = match credential::credential(request.headers()) {
            Ok(Some(token)) => token,
            Ok(None) => return self.identify_silent(request, context),
            Err(error) => {
                self.count(match error {
                    CredentialError::Scheme => Decision::UnsupportedScheme,
                    _ => Decision::InvalidRequest,
                });
                return Err(self.challenges.unusable(error));
            }
        };
        if let Some(throttle) = &self.throttle {
            if client_ip.is_none() {
                self.no_address
                    .report("no client address: all callers share one allowance of failures; serve with spark-serve, or with axum's ConnectInfo");
            }
            if let Err(after) = throttle.permit(client_ip) {
                // Who shares an address with someone who guesses is not shut out.
                if let Some(user) = self.authenticator.working_user_key(token, client_ip) {
                    self.count(Decision::User);
                    return Ok(user);
                }
                self.count(Decision::Throttled);
                return Err(answer::throttled(after));
            }
        }
        match self.authenticator.verify_from(token, client_ip) {
            Ok(principal) => {
                self.count(match principal {
                    Principal::Master => Decision::Master,
                    _ => Decision::User,
                });
                Ok(principal)
            }
            Err(reason) => {
                self.count(reason.into());
                if let Some(throttle) = &self.throttle {
                    throttle.record(client_ip);
                }
                Err(self.challenges.invalid())
            }
        }
    }

    /// Who calls without a credential: whoever an auth layer further out has found, or nobody.
    fn identify_silent<B>(
        &self,
        request: &Request<B>,
        context: Option<&Context>,
    ) -> Result<Principal, Problem> {
        match context.and_then(Context::principal) {
            None | Some(Principal::Anonymous) => {}
            Some(known) => {
                self.count(Decision::Outer);
                return Ok(known.clone());
            }
        }
        if self.is_optional || self.exempt.contains(request.uri().path()) {
            self.count(Decision::Anonymous);
            Ok(Principal::Anonymous)
        } else {
            self.count(Decision::Missing);
            Err(self.challenges.missing())
        }
    }

    fn count(&self, decision: Decision) {
        self.counters.count(decision, || self.authenticator.len());
    }
}
