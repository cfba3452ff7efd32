//! Who used how much: requests, tokens, hits and refusals by tenant, bounded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as Task, Poll};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use serde::Serialize;
use spark_cache::CacheResult;
use spark_core::{Context, End, Name, Principal, Refusal, Watch, Watched, watch_response};
use tower::{Layer, Service};

/// Tenants that are counted apart; later ones share a line.
const MAX_TENANTS: usize = 10_000;

/// What one tenant used since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    pub requests: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_hits: u64,
    pub refusals: u64,
}

/// The lines of all tenants. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    lines: BTreeMap<Name, Line>,
    others: Line,
}

impl Ledger {
    /// What this tenant used.
    pub(crate) fn of(&self, tenant: &Name) -> Line {
        self.book().lines.get(tenant).copied().unwrap_or_default()
    }

    /// Every tenant's line.
    pub(crate) fn all(&self) -> BTreeMap<Name, Line> {
        self.book().lines.clone()
    }

    /// What the tenants beyond the bound used together.
    pub(crate) fn others(&self) -> Line {
        self.book().others
    }

    /// Books the tokens of a call, when a provider told them: the call may go on after its client
    /// has left, and is spent all the same.
    pub(crate) fn spend(&self, context: &Context, input: u64, output: u64) {
        let tenant = context.principal().and_then(Principal::tenant);
        self.add(tenant, |line| {
            line.input_tokens = line.input_tokens.saturating_add(input);
            line.output_tokens = line.output_tokens.saturating_add(output);
        });
    }

    fn add(&self, tenant: Option<&Name>, add: impl FnOnce(&mut Line)) {
        let Some(tenant) = tenant else { return };
        let mut book = self.book();
        if book.lines.len() >= MAX_TENANTS && !book.lines.contains_key(tenant) {
            add(&mut book.others);
        } else {
            add(book.lines.entry(tenant.clone()).or_default());
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts each request of a tenant when its response has ended, or its client has left. It stands right inside of auth.
#[derive(Clone, Debug)]
pub(crate) struct LedgerLayer(pub Ledger);

impl<S> Layer<S> for LedgerLayer {
    type Service = LedgerService<S>;

    fn layer(&self, inner: S) -> LedgerService<S> {
        LedgerService {
            ledger: self.0.clone(),
            inner,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct LedgerService<S> {
    ledger: Ledger,
    inner: S,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for LedgerService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
{
    type Response = Response<Watched<ResBody, Entry>>;
    type Error = S::Error;
    type Future = LedgerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let context = Context::of(request.extensions());
        let tenant = context
            .and_then(Context::principal)
            .and_then(Principal::tenant);
        let entry = Entry {
            ledger: self.ledger.clone(),
            tenant: tenant.cloned(),
            hit: false,
            refused: false,
        };
        LedgerFuture {
            method: request.method().clone(),
            inner: self.inner.call(request),
            entry: Some(entry),
        }
    }
}

pin_project! {
    pub(crate) struct LedgerFuture<F> {
        #[pin]
        inner: F,
        method: http::Method,
        entry: Option<Entry>,
    }
}

impl<F, ResBody, E> Future for LedgerFuture<F>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    ResBody: Body,
{
    type Output = Result<Response<Watched<ResBody, Entry>>, E>;

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = std::task::ready!(this.inner.poll(cx))?;
        let mut entry = this.entry.take().unwrap_or_default();
        entry.refused = response.extensions().get::<Refusal>().is_some();
        entry.hit = response.extensions().get() == Some(&CacheResult::Hit);
        Poll::Ready(Ok(watch_response(this.method, response, entry)))
    }
}

/// What is written when the response ends, or when there will be none.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    ledger: Ledger,
    tenant: Option<Name>,
    hit: bool,
    refused: bool,
}

impl Watch for Entry {
    fn end(self, _end: End) {}
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.ledger.add(self.tenant.as_ref(), |line| {
            line.requests += 1;
            line.cache_hits += u64::from(self.hit);
            line.refusals += u64::from(self.refused);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_beyond_the_bound_share_a_line() {
        let ledger = Ledger::default();
        for n in 0..MAX_TENANTS + 50 {
            let tenant = Name::new(&format!("t{n}")).unwrap();
            ledger.add(Some(&tenant), |line| line.requests += 1);
        }
        assert_eq!(ledger.all().len(), MAX_TENANTS);
        assert_eq!(ledger.others().requests, 50);
    }

    #[tokio::test]
    async fn a_request_whose_client_leaves_before_the_answer_is_counted_once() {
        use spark_core::{Clock, User};
        let ledger = Ledger::default();
        let tenant = Name::new("acme").unwrap();
        let request = || {
            let mut request = Request::new(());
            let user = User::new(Name::new("key").unwrap(), tenant.clone());
            Context::get_or_insert(request.extensions_mut(), &Clock::system())
                .set_principal(Principal::User(Arc::new(user)));
            request
        };
        let silent = tower::service_fn(|_: Request<()>| {
            std::future::pending::<Result<Response<String>, std::convert::Infallible>>()
        });
        drop(LedgerLayer(ledger.clone()).layer(silent).call(request()));
        assert_eq!(ledger.of(&tenant).requests, 1);

        let answers = tower::service_fn(|_: Request<()>| async {
            Ok::<_, std::convert::Infallible>(Response::new("hello".to_owned()))
        });
        let answer = LedgerLayer(ledger.clone()).layer(answers).call(request());
        drop(answer.await.unwrap());
        assert_eq!(ledger.of(&tenant).requests, 2);
    }

    #[tokio::test]
    async fn it_keeps_the_contract_of_tower() {
        use spark_core::testing::{TestBody, contract};
        let layer = LedgerLayer(Ledger::default());
        contract::check(layer, || Request::new(TestBody::frames(["hello"]))).await;
    }
}
