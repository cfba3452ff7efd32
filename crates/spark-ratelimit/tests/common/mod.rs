//! What several of the tests need: limiters on a clock that is moved by hand, requests of this or
//! that caller, and what a response says.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use spark_core::testing::TestClock;
use spark_core::{ClientIp, Context, Instant, Name, Principal, User};
use spark_ratelimit::{Key, Limiter, LimiterBuilder, Policy, Quota};
use tower::{Service, service_fn};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn quota(n: u64, per: Duration, burst: u64) -> Quota {
    Quota::new(n, per).unwrap().burst(burst).unwrap()
}

pub(crate) fn policy(name: &str, n: u64, per: Duration) -> Policy {
    Policy::new(name, Quota::new(n, per).unwrap()).unwrap()
}

pub(crate) fn limiter(clock: &TestClock, policies: impl IntoIterator<Item = Policy>) -> Limiter {
    let builder = Limiter::builder().clock(clock.clock()).capacity(256);
    let policies = policies.into_iter();
    policies
        .fold(builder, LimiterBuilder::policy)
        .build()
        .unwrap()
}

pub(crate) fn remaining(limiter: &Limiter, key: Key, tier: Option<&str>) -> u64 {
    limiter.peek(&key, tier, 0).tightest().remaining
}

pub(crate) fn hello()
-> impl Service<Request<()>, Response = Response<String>, Error = Infallible, Future: Send> + Clone
{
    service_fn(|_: Request<()>| async { Ok(Response::new("hello".to_owned())) })
}

pub(crate) fn ip(text: &str) -> ClientIp {
    ClientIp::new(text.parse().unwrap())
}

pub(crate) fn from_ip(address: &str) -> Request<()> {
    let mut request = Request::new(());
    let context = Context::new(Instant::default()).with_client_ip(ip(address));
    request.extensions_mut().insert(context);
    request
}

pub(crate) fn from(principal: Principal) -> Request<()> {
    let mut request = from_ip("192.0.2.1");
    let context = Context::of_mut(request.extensions_mut()).unwrap();
    context.set_principal(principal);
    request
}

pub(crate) fn tenant(tenant: &str) -> Principal {
    User::new(Name::new("k").unwrap(), Name::new(tenant).unwrap()).into()
}

pub(crate) fn acme() -> Key {
    Key::tenant(&Name::new("acme").unwrap())
}

/// A field of a response; several lines of it with `, ` between them.
pub(crate) fn field<B>(response: &Response<B>, name: &str) -> Option<String> {
    let lines = response.headers().get_all(name).iter();
    let lines: Vec<&str> = lines.map(|line| line.to_str().unwrap()).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// The seconds of `Retry-After`.
pub(crate) fn retry_after<B>(response: &Response<B>) -> u64 {
    field(response, "retry-after").unwrap().parse().unwrap()
}

/// The `t` of `RateLimit`.
pub(crate) fn told_t<B>(response: &Response<B>) -> u64 {
    let field = field(response, "ratelimit").unwrap();
    field.rsplit_once(";t=").unwrap().1.parse().unwrap()
}
