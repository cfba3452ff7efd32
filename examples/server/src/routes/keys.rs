//! `/api/spark/keys`: issue, list, rotate, suspend, resume, revoke. For the master key.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use spark_auth::{
    AuthError, Authenticator, Environment, Issued, KeyInfo, NewKey, StoreError, UserKey,
};
use spark_core::{Context, Name, Problem};
use zeroize::Zeroizing;

use super::{invalid, object_of, only_known, refuse};
use crate::app::App;
use crate::config::{RateLimit, Span, check_tier};

const FIELDS: [&str; 9] = [
    "tenant",
    "label",
    "owner",
    "tier",
    "scopes",
    "ip_allow",
    "environment",
    "not_before",
    "expires_at",
];
const OBJECT: &str = "must be a JSON object.";
const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 3_600);
/// Keys on one page of the list.
const PAGE: usize = 1_000;
/// When a change may succeed that the disk has refused.
const DISK_RETRY: Duration = Duration::from_secs(5);

/// Which page of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// At most so many keys.
    limit: Option<usize>,
    /// Those that follow the key with this id.
    after: Option<String>,
}

#[derive(Serialize)]
struct Page<'a> {
    keys: &'a [KeyInfo],
    /// What to ask for next as `after`; null at the end.
    next: Option<&'a str>,
}

/// All keys, oldest first, page by page.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    context: Context,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => {
            let mend = format!("is not understood: {}.", error.body_text());
            return refuse(&context, invalid("query", mend));
        }
    };
    let auth = app.auth.clone();
    // Many keys take a while to collect and to write, which no request should wait for.
    let page = tokio::task::spawn_blocking(move || {
        let keys = auth.list();
        let page = page(&keys, &query)?;
        serde_json::to_vec(&page).map_err(|_| internal_error())
    });
    match page.await.unwrap_or_else(|_| Err(internal_error())) {
        Ok(json) => {
            let json_type = HeaderValue::from_static("application/json");
            ([(CONTENT_TYPE, json_type)], json).into_response()
        }
        Err(problem) => refuse(&context, problem),
    }
}

fn page<'a>(keys: &'a [KeyInfo], query: &ListQuery) -> Result<Page<'a>, Problem> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=PAGE).contains(&limit) {
        return Err(invalid("limit", format!("must be from 1 to {PAGE}.")));
    }
    let rest = match &query.after {
        None => keys,
        Some(id) => match keys.iter().position(|key| key.id.as_str() == id) {
            Some(at) => &keys[at + 1..],
            None => return Err(invalid("after", "is the id of no key.")),
        },
    };
    let keys = &rest[..rest.len().min(limit)];
    let last = keys.last().filter(|_| rest.len() > limit);
    Ok(Page {
        keys,
        next: last.map(|key| key.id.as_str()),
    })
}

pub(crate) async fn issue(State(app): State<Arc<App>>, context: Context, body: Bytes) -> Response {
    let new = new_key(&app.quotas(), &body);
    let new = match new {
        Ok(new) => new,
        Err(problem) => return refuse(&context, problem),
    };
    match on_disk(&app, move |auth| auth.issue(new)).await {
        Ok(issued) => created(&app, &context, &issued),
        Err(problem) => refuse(&context, problem),
    }
}

pub(crate) async fn rotate(
    State(app): State<Arc<App>>,
    context: Context,
    id: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Response {
    let Ok(Path(id)) = id else {
        return refuse(&context, invalid("id", "is not UTF-8."));
    };
    let overlap = match overlap(&body) {
        Ok(overlap) => overlap,
        Err(problem) => return refuse(&context, problem),
    };
    match on_disk(&app, move |auth| auth.rotate(&id, overlap)).await {
        Ok(issued) => created(&app, &context, &issued),
        Err(problem) => refuse(&context, problem),
    }
}

pub(crate) async fn suspend(
    State(app): State<Arc<App>>,
    context: Context,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    changed(&app, &context, id, |auth, id| auth.suspend(id)).await
}

pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    context: Context,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    changed(&app, &context, id, |auth, id| auth.resume(id)).await
}

pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    context: Context,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    changed(&app, &context, id, |auth, id| auth.revoke(id)).await
}

/// A change that shows how the key stands afterwards.
async fn changed(
    app: &App,
    context: &Context,
    id: Result<Path<String>, PathRejection>,
    change: fn(&Authenticator, &str) -> Result<KeyInfo, AuthError>,
) -> Response {
    let Ok(Path(id)) = id else {
        return refuse(context, invalid("id", "is not UTF-8."));
    };
    match on_disk(app, move |auth| change(auth, &id)).await {
        Ok(info) => Json(json!(info)).into_response(),
        Err(problem) => refuse(context, problem),
    }
}

/// Changes reach the disk before they return, so they may not run where requests do.
async fn on_disk<T: Send + 'static>(
    app: &App,
    change: impl FnOnce(&Authenticator) -> Result<T, AuthError> + Send + 'static,
) -> Result<T, Problem> {
    let auth = app.auth.clone();
    // In the span of the request, so that the audit of the change names it.
    let span = tracing::Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(|| change(&auth))).await;
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(refusal(&error)),
        Err(_) => Err(internal_error()),
    }
}

fn internal_error() -> Problem {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Problem::new(status, "server", "internal_error")
}

/// A key and its text, shown this once.
#[derive(Serialize)]
pub(crate) struct Shown<'a> {
    #[serde(flatten)]
    info: KeyInfo,
    #[serde(serialize_with = "exposed")]
    key: &'a UserKey,
}

impl<'a> Shown<'a> {
    pub(crate) fn of(issued: &'a Issued, now: Duration) -> Self {
        Self {
            info: KeyInfo::of(&issued.record, now),
            key: &issued.key,
        }
    }

    /// On one line, in memory that is wiped.
    pub(crate) fn to_json(&self) -> Result<Zeroizing<String>, serde_json::Error> {
        // Longer than any, since growing would leave the key in freed memory.
        let mut json = Zeroizing::new(Vec::with_capacity(16 * 1024));
        serde_json::to_writer(&mut *json, self)?;
        let json = String::from_utf8(std::mem::take(&mut *json));
        json.map(Zeroizing::new).map_err(serde::ser::Error::custom)
    }
}

fn exposed<S: serde::Serializer>(key: &&UserKey, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(key.expose())
}

fn created(app: &App, context: &Context, issued: &Issued) -> Response {
    match Shown::of(issued, app.clock.unix_time()).to_json() {
        Ok(mut json) => {
            let json_type = HeaderValue::from_static("application/json");
            // The body belongs to the connection from here on, which does not wipe it.
            let body = std::mem::take(&mut *json);
            (StatusCode::CREATED, [(CONTENT_TYPE, json_type)], body).into_response()
        }
        Err(_) => refuse(context, internal_error()),
    }
}

fn refusal(error: &AuthError) -> Problem {
    if let AuthError::Store(store) = error {
        return match store {
            StoreError::Conflict { .. } => {
                Problem::new(StatusCode::CONFLICT, "auth", "key_not_changed")
                    .detail(error.to_string())
            }
            _ => {
                tracing::error!(error = %crate::ask::chain(error), "a key could not be changed");
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Problem::new(status, "auth", "key_store_unavailable")
                    .detail(format!(
                        "{error}. A key that was to be revoked or suspended is refused by this server \
                         all the same; do it once more, lest a restart comes before the disk is mended."
                    ))
                    .retry_after(DISK_RETRY)
            }
        };
    }
    let status = match error {
        AuthError::NotFound => StatusCode::NOT_FOUND,
        AuthError::Invalid { .. } => StatusCode::BAD_REQUEST,
        AuthError::AlreadyRotated { .. } | AuthError::NotActive { .. } => StatusCode::CONFLICT,
        AuthError::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    if status.is_server_error() {
        tracing::error!(error = %crate::ask::chain(error), "a key could not be changed");
    }
    let problem = Problem::new(status, "auth", "key_not_changed").detail(error.to_string());
    match error.field() {
        Some(field) => problem.param(field),
        None => problem,
    }
}

/// A network, or one address; what is wrong otherwise.
pub(crate) fn network_of(text: &str) -> Result<IpNet, String> {
    let network = text
        .parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let shown: String = text.chars().take(50).collect();
    network.map_err(|_| format!("holds {shown:?}: write networks such as \"192.0.2.0/24\"."))
}

/// `live` or `test`; what is wrong otherwise.
pub(crate) fn environment_of(text: &str) -> Result<Environment, &'static str> {
    match text {
        "live" => Ok(Environment::Live),
        "test" => Ok(Environment::Test),
        _ => Err("must be live or test."),
    }
}

fn new_key(quotas: &RateLimit, body: &[u8]) -> Result<NewKey, Problem> {
    let fields = object_of(body, OBJECT)?;
    only_known(&fields, &FIELDS)?;
    let given = |key: &str| fields.get(key).filter(|value| !value.is_null());
    let name = |key: &str, value: &Value| {
        let text = value
            .as_str()
            .ok_or_else(|| invalid(key, "must be a text."))?;
        Name::new(text).map_err(|error| invalid(key, format!("is not valid: {error}.")))
    };
    let tenant = given("tenant").ok_or_else(|| invalid("tenant", "is missing."))?;
    let mut new = NewKey::new(name("tenant", tenant)?);
    let text = |key: &str| match given(key) {
        None => Ok(None),
        Some(value) => value
            .as_str()
            .map(Some)
            .ok_or_else(|| invalid(key, "must be a text.")),
    };
    let list = |key: &str| match given(key) {
        None => Ok(&[][..]),
        Some(value) => value
            .as_array()
            .map(Vec::as_slice)
            .ok_or_else(|| invalid(key, "must be a list of texts.")),
    };
    let time = |key: &str| match given(key) {
        None => Ok(None),
        Some(time) => {
            let mend = "must be a time in whole seconds since 1970-01-01 UTC.";
            let seconds = time.as_u64().ok_or_else(|| invalid(key, mend))?;
            Ok(Some(Duration::from_secs(seconds)))
        }
    };
    if let Some(label) = text("label")? {
        new = new.label(label);
    }
    if let Some(owner) = text("owner")? {
        new = new.owner(owner);
    }
    if let Some(tier) = given("tier") {
        let tier = name("tier", tier)?;
        check_tier(quotas, &tier).map_err(|mend| invalid("tier", mend))?;
        new = new.tier(tier);
    }
    let scopes = list("scopes")?.iter().map(|scope| name("scopes", scope));
    new = new.scopes(scopes.collect::<Result<Vec<_>, _>>()?);
    let networks = list("ip_allow")?.iter().map(|network| {
        let mend = || invalid("ip_allow", "must be a list of texts.");
        let text = network.as_str().ok_or_else(mend)?;
        network_of(text).map_err(|mend| invalid("ip_allow", mend))
    });
    new = new.ip_allow(networks.collect::<Result<Vec<_>, _>>()?);
    if let Some(text) = text("environment")? {
        let environment = environment_of(text).map_err(|mend| invalid("environment", mend))?;
        new = new.environment(environment);
    }
    Ok(new
        .not_before(time("not_before")?)
        .expires_at(time("expires_at")?))
}

/// `{"overlap": "1h"}`; without a body, a day. `"0s"` ends the old key at once.
fn overlap(body: &[u8]) -> Result<Duration, Problem> {
    if body.is_empty() {
        return Ok(DEFAULT_OVERLAP);
    }
    match object_of(body, OBJECT)?.get("overlap") {
        None => Ok(DEFAULT_OVERLAP),
        Some(Value::String(text)) => match text.parse::<Span>() {
            Ok(span) => Ok(span.duration()),
            Err(error) => Err(invalid("overlap", format!("is not valid: {error}."))),
        },
        Some(_) => Err(invalid("overlap", "must be a time such as \"1h\".")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_at_fault_is_named() {
        let config = crate::config::Config::load(None, |_| None).unwrap();
        let quotas = &config.ratelimit;
        for (body, param) in [
            ("nonsense", "body"),
            ("[]", "body"),
            ("{}", "tenant"),
            (r#"{"tenant":"two words"}"#, "tenant"),
            (r#"{"tenant":"a","tire":"pro"}"#, "tire"),
            (r#"{"tenant":"a","tier":"typo"}"#, "tier"),
            (r#"{"tenant":"a","scopes":"x"}"#, "scopes"),
            (r#"{"tenant":"a","expires_at":-1}"#, "expires_at"),
            (r#"{"tenant":"a","not_before":"soon"}"#, "not_before"),
            (r#"{"tenant":"a","owner":7}"#, "owner"),
            (r#"{"tenant":"a","environment":"prod"}"#, "environment"),
            (r#"{"tenant":"a","ip_allow":"10.0.0.0/8"}"#, "ip_allow"),
            (r#"{"tenant":"a","ip_allow":["10.0.0.0/33"]}"#, "ip_allow"),
            (r#"{"tenant":"a","ip_allow":[10]}"#, "ip_allow"),
        ] {
            assert_eq!(
                new_key(quotas, body.as_bytes()).unwrap_err().param_name(),
                Some(param),
                "{body}"
            );
        }
        assert!(new_key(quotas, br#"{"tenant":"a","label":null,"tier":"pro"}"#).is_ok());
        let all = br#"{"tenant":"a","label":"ci","owner":"ada","tier":"pro","scopes":["x:read"],
            "ip_allow":["10.0.0.0/8","2001:db8::1"],"environment":"test","not_before":1,
            "expires_at":2000000000}"#;
        assert!(new_key(quotas, all).is_ok());
        assert_eq!(overlap(b"").unwrap(), DEFAULT_OVERLAP);
        assert_eq!(overlap(br#"{"overlap":"0s"}"#).unwrap(), Duration::ZERO);
        assert!(overlap(br#"{"overlap":"soon"}"#).is_err());
    }

    fn auth() -> Authenticator {
        Authenticator::builder()
            .pepper(spark_auth::Pepper::generate().unwrap())
            .store(spark_auth::MemoryStore::new())
            .build()
            .unwrap()
    }

    #[test]
    fn the_pages_hold_every_key_once() {
        let auth = auth();
        for _ in 0..7 {
            auth.issue(NewKey::new(Name::new("acme").unwrap())).unwrap();
        }
        let keys = auth.list();
        for limit in [None, Some(1), Some(3), Some(6), Some(7), Some(8)] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = page(&keys, &ListQuery { limit, after }).unwrap();
                found.extend(page.keys.iter().map(|key| key.id.clone()));
                after = page.next.map(str::to_owned);
                if after.is_none() {
                    break;
                }
            }
            let expected: Vec<_> = keys.iter().map(|key| key.id.clone()).collect();
            assert_eq!(found, expected, "{limit:?}");
        }
        for (limit, after, param) in [
            (Some(0), None, "limit"),
            (Some(PAGE + 1), None, "limit"),
            (None, Some("nobody".to_owned()), "after"),
        ] {
            let refused = page(&keys, &ListQuery { limit, after }).err().unwrap();
            assert_eq!(refused.param_name(), Some(param));
        }
    }

    #[test]
    fn a_store_that_fails_is_for_later_and_a_conflict_is_not() {
        let failed = AuthError::Store(StoreError::Other("the disk is gone".into()));
        let problem = refusal(&failed);
        assert_eq!(problem.status(), 503);
        let response = problem.into_response::<axum::body::Body>(spark_core::Shape::PROBLEM);
        assert_eq!(response.headers()["retry-after"], "5");
        let id = Name::new("abcdefghijkl").unwrap();
        let conflict = AuthError::Store(StoreError::Conflict { id });
        assert_eq!(refusal(&conflict).status(), 409);
    }

    #[test]
    fn a_new_key_is_shown_whole() {
        let auth = auth();
        let networks = (0..32).map(|at| format!("2001:db8:ffff:{at:x}::/64").parse().unwrap());
        let scopes = (0..32).map(|at| Name::new(&format!("{at:02}{}", "s".repeat(62))).unwrap());
        let new = NewKey::new(Name::new("acme").unwrap())
            .label("\"".repeat(128))
            .owner("\\".repeat(128))
            .ip_allow(networks)
            .scopes(scopes);
        let issued = auth.issue(new).unwrap();
        let json = Shown::of(&issued, Duration::ZERO).to_json().unwrap();
        assert!(json.len() < 16 * 1024, "{}", json.len());
        let shown: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(shown["key"], issued.key.expose());
        assert_eq!(shown["id"], issued.record.id.as_str());
        assert_eq!(shown["ip_allow"].as_array().unwrap().len(), 32);
    }
}
