//! `/api/spark/keys`: issue, list, rotate, suspend, resume, revoke. For the master key.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{StatusCode, Uri};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use spark_auth::{
    AuthError, Authenticator, Environment, Issued, KeyInfo, NewKey, PageMark, StoreError, UserKey,
};
use spark_core::{Context, Name, Problem};
use zeroize::Zeroizing;

use super::{fields_of, invalid, refuse};
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
    /// Those that follow: what the page before has in `next`.
    after: Option<String>,
}

#[derive(Serialize)]
struct Page<'a> {
    keys: &'a [KeyInfo],
    /// What to ask for next as `after`; null at the end.
    next: Option<String>,
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
    let (after, limit) = match query.checked() {
        Ok(checked) => checked,
        Err(problem) => return refuse(&context, problem),
    };
    let auth = app.auth.clone();
    // Many keys take a while to collect and to write, which no request should wait for.
    let page = tokio::task::spawn_blocking(move || {
        let page = auth.page(after, limit);
        let page = Page {
            keys: &page.keys,
            next: page.next.map(|mark| mark.to_string()),
        };
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

impl ListQuery {
    fn checked(&self) -> Result<(Option<PageMark>, usize), Problem> {
        let limit = self.limit.unwrap_or(PAGE);
        if !(1..=PAGE).contains(&limit) {
            return Err(invalid("limit", format!("must be from 1 to {PAGE}.")));
        }
        let after = self.after.as_deref().map(str::parse).transpose();
        let after = after.map_err(|_| {
            let mend = "must be what the page before has in `next`.";
            invalid("after", mend)
        })?;
        Ok((after, limit))
    }
}

pub(crate) async fn issue(
    State(app): State<Arc<App>>,
    context: Context,
    uri: Uri,
    body: Bytes,
) -> Response {
    let new = no_query(&uri).and_then(|()| new_key(&app.quotas(), &body));
    let new = match new {
        Ok(new) => new,
        Err(problem) => return refuse(&context, problem),
    };
    match on_disk(&app, Doing::Making, move |auth| auth.issue(new)).await {
        Ok(issued) => created(&app, &context, &issued, None),
        Err(problem) => refuse(&context, problem),
    }
}

pub(crate) async fn rotate(
    State(app): State<Arc<App>>,
    context: Context,
    uri: Uri,
    id: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Response {
    let Ok(Path(id)) = id else {
        return refuse(&context, invalid("id", "is not UTF-8."));
    };
    let overlap = match no_query(&uri).and_then(|()| overlap(&body)) {
        Ok(overlap) => overlap,
        Err(problem) => return refuse(&context, problem),
    };
    let done = on_disk(&app, Doing::Making, move |auth| {
        rotate_key(auth, &id, overlap)
    });
    match done.await {
        Ok((issued, replaced)) => created(&app, &context, &issued, Some(replaced)),
        Err(problem) => refuse(&context, problem),
    }
}

pub(crate) async fn suspend(
    State(app): State<Arc<App>>,
    context: Context,
    uri: Uri,
    id: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Response {
    let id = alone(id, &uri, &body);
    changed(&app, &context, id, Doing::Stopping, Authenticator::suspend).await
}

pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    context: Context,
    uri: Uri,
    id: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Response {
    let id = alone(id, &uri, &body);
    changed(&app, &context, id, Doing::Resuming, Authenticator::resume).await
}

pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    context: Context,
    uri: Uri,
    id: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Response {
    let id = alone(id, &uri, &body);
    changed(&app, &context, id, Doing::Stopping, Authenticator::revoke).await
}

/// The id of a request that says no more than that: what else it says would silently do nothing.
fn alone(
    id: Result<Path<String>, PathRejection>,
    uri: &Uri,
    body: &[u8],
) -> Result<String, Problem> {
    let Ok(Path(id)) = id else {
        return Err(invalid("id", "is not UTF-8."));
    };
    no_query(uri)?;
    if !body.is_empty() {
        return Err(invalid("body", "has no meaning here: leave it out."));
    }
    Ok(id)
}

fn no_query(uri: &Uri) -> Result<(), Problem> {
    match uri.query() {
        None | Some("") => Ok(()),
        Some(_) => Err(invalid("query", "has no meaning here: leave it out.")),
    }
}

/// A change that shows how the key stands afterwards.
async fn changed(
    app: &App,
    context: &Context,
    id: Result<String, Problem>,
    doing: Doing,
    change: fn(&Authenticator, &str) -> Result<KeyInfo, AuthError>,
) -> Response {
    let id = match id {
        Ok(id) => id,
        Err(problem) => return refuse(context, problem),
    };
    match on_disk(app, doing, move |auth| change(auth, &id)).await {
        Ok(info) => Json(json!(info)).into_response(),
        Err(problem) => refuse(context, problem),
    }
}

/// What was to be done to a key when its store failed.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Making,
    Stopping,
    Resuming,
}

/// Changes reach the disk before they return, so they may not run where requests do.
async fn on_disk<T: Send + 'static>(
    app: &App,
    doing: Doing,
    change: impl FnOnce(&Authenticator) -> Result<T, AuthError> + Send + 'static,
) -> Result<T, Problem> {
    let auth = app.auth.clone();
    // In the span of the request, so that the audit of the change names it.
    let span = tracing::Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(|| change(&auth))).await;
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(refusal(&error, doing)),
        Err(_) => Err(internal_error()),
    }
}

fn internal_error() -> Problem {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Problem::new(status, "server", "internal_error")
}

/// What becomes of a key that was rotated.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Replaced {
    id: String,
    /// From when on it no longer works, in seconds since 1970.
    works_until: u64,
}

/// Rotates a key, and tells how long the old one works on.
///
/// # Errors
/// Those of the authenticator.
pub(crate) fn rotate_key(
    auth: &Authenticator,
    id: &str,
    overlap: Duration,
) -> Result<(Issued, Replaced), AuthError> {
    let issued = auth.rotate(id, overlap)?;
    let end = auth
        .get(id)
        .and_then(|old| old.revoked_at.or(old.expires_at));
    let replaced = Replaced {
        id: id.to_owned(),
        // One that was forgotten for want of room ended with the rotation.
        works_until: end.unwrap_or(issued.record.created_at.as_secs()),
    };
    Ok((issued, replaced))
}

/// A key and its text, shown this once.
#[derive(Serialize)]
pub(crate) struct Shown<'a> {
    #[serde(flatten)]
    info: KeyInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<Replaced>,
    #[serde(serialize_with = "exposed")]
    key: &'a UserKey,
}

impl<'a> Shown<'a> {
    pub(crate) fn of(issued: &'a Issued, replaces: Option<Replaced>, now: Duration) -> Self {
        Self {
            info: KeyInfo::of(&issued.record, now),
            replaces,
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

fn created(app: &App, context: &Context, issued: &Issued, replaces: Option<Replaced>) -> Response {
    match Shown::of(issued, replaces, app.clock.unix_time()).to_json() {
        Ok(mut json) => {
            let json_type = HeaderValue::from_static("application/json");
            // The body belongs to the connection from here on, which does not wipe it.
            let body = std::mem::take(&mut *json);
            (StatusCode::CREATED, [(CONTENT_TYPE, json_type)], body).into_response()
        }
        Err(_) => refuse(context, internal_error()),
    }
}

fn refusal(error: &AuthError, doing: Doing) -> Problem {
    match error {
        AuthError::Store(StoreError::Conflict { .. }) => not_changed(StatusCode::CONFLICT, error),
        AuthError::Store(_) => {
            // The caller is not told what the folder is called.
            tracing::error!(error = %crate::ask::chain(error), ?doing, "a key could not be changed");
            let mend = match doing {
                Doing::Making => {
                    "No key was handed out. Look at the list before you try again: where only the \
                     answer of the disk was lost, a key may stand there of which nobody has the text."
                }
                Doing::Stopping => {
                    "This server refuses the key all the same; do it once more, lest a restart comes \
                     before the disk is mended."
                }
                Doing::Resuming => "The key stays suspended; try again.",
            };
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Problem::new(status, "auth", "key_store_unavailable")
                .detail(format!(
                    "The change did not reach the disk; the log says why. {mend}"
                ))
                .retry_after(DISK_RETRY)
        }
        AuthError::Invalid { field, problem } => {
            invalid(*field, format!("is not valid: {problem}."))
        }
        AuthError::NotFound => not_changed(StatusCode::NOT_FOUND, error),
        AuthError::AlreadyRotated { .. } | AuthError::NotActive { .. } => {
            not_changed(StatusCode::CONFLICT, error)
        }
        AuthError::Full { .. } => not_changed(StatusCode::INSUFFICIENT_STORAGE, error),
        _ => not_changed(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

fn not_changed(status: StatusCode, error: &AuthError) -> Problem {
    if status.is_server_error() {
        tracing::error!(error = %crate::ask::chain(error), "a key could not be changed");
    }
    Problem::new(status, "auth", "key_not_changed").detail(error.to_string())
}

/// A time, as the routes and the command line take it; what is wrong otherwise.
pub(crate) fn time_of(seconds: u64) -> Result<Duration, &'static str> {
    // The end of the year 9999.
    if seconds > 253_402_300_799 {
        return Err(TIME);
    }
    Ok(Duration::from_secs(seconds))
}

const TIME: &str = "must be a time in whole seconds since 1970-01-01 UTC, in the year 9999 at the \
                    latest; milliseconds are too large.";

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
    let fields = fields_of(body, &FIELDS)?;
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
            let seconds = time.as_u64().ok_or(TIME);
            let time = seconds.and_then(time_of);
            time.map(Some).map_err(|mend| invalid(key, mend))
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
    let networks = list("ip_allow")?;
    if networks.is_empty() && given("ip_allow").is_some() {
        let mend = "is empty: leave it out for a key that works from anywhere.";
        return Err(invalid("ip_allow", mend));
    }
    let networks = networks.iter().map(|network| {
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
    match fields_of(body, &["overlap"])?.get("overlap") {
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
            (r#"{"tenant":"a","ip_allow":[]}"#, "ip_allow"),
            (r#"{"tenant":"a","tenant":"b"}"#, "tenant"),
            (r#"{"tenant":"a","expires_at":1900000000000}"#, "expires_at"),
            (r#"{"tenant":"a","not_before":253402300800}"#, "not_before"),
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
        for (body, param) in [
            (r#"{"overlap":"soon"}"#, "overlap"),
            (r#"{"overlpa":"0s"}"#, "overlpa"),
            (r#"{"overlap":"0s","overlap":"1d"}"#, "overlap"),
            (r#""0s""#, "body"),
        ] {
            let refused = overlap(body.as_bytes()).unwrap_err();
            assert_eq!(refused.param_name(), Some(param), "{body}");
        }
        assert_eq!(
            time_of(253_402_300_799),
            Ok(Duration::from_secs(253_402_300_799))
        );
    }

    fn auth() -> Authenticator {
        Authenticator::builder()
            .pepper(spark_auth::Pepper::generate().unwrap())
            .store(spark_auth::MemoryStore::new())
            .build()
            .unwrap()
    }

    #[test]
    fn a_page_is_asked_for_by_its_mark() {
        for (limit, after, param) in [
            (Some(0), None, "limit"),
            (Some(PAGE + 1), None, "limit"),
            (None, Some("nobody"), "after"),
            (None, Some(""), "after"),
        ] {
            let after = after.map(str::to_owned);
            let refused = ListQuery { limit, after }.checked().unwrap_err();
            assert_eq!(refused.param_name(), Some(param));
        }
        let after = Some("1900000000000-abcdefghijkl".to_owned());
        let (after, limit) = ListQuery { limit: None, after }.checked().unwrap();
        assert_eq!((after.is_some(), limit), (true, PAGE));
    }

    #[test]
    fn what_a_rotation_replaces_is_told() {
        let auth = auth();
        let first = auth.issue(NewKey::new(Name::new("acme").unwrap())).unwrap();
        let hour = Duration::from_secs(3_600);
        let id = first.record.id.as_str();
        let (second, replaced) = rotate_key(&auth, id, hour).unwrap();
        assert_eq!(replaced.id, id);
        assert_eq!(Some(replaced.works_until), auth.get(id).unwrap().expires_at);
        let id = second.record.id.as_str();
        let (third, replaced) = rotate_key(&auth, id, Duration::ZERO).unwrap();
        let now = third.record.created_at.as_secs();
        assert_eq!((replaced.id.as_str(), replaced.works_until), (id, now));
        let json = Shown::of(&third, Some(replaced), Duration::ZERO)
            .to_json()
            .unwrap();
        let shown: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(shown["replaces"], json!({"id": id, "works_until": now}));
    }

    #[test]
    fn a_store_that_fails_is_for_later_and_a_conflict_is_not() {
        for (doing, says) in [
            (Doing::Making, "No key was handed out"),
            (Doing::Stopping, "refuses the key all the same"),
            (Doing::Resuming, "stays suspended"),
        ] {
            let failed = AuthError::Store(StoreError::Uncertain {
                path: "/srv/of/ours/keys.redb".into(),
            });
            let problem = refusal(&failed, doing);
            assert_eq!(problem.status(), 503);
            let response = problem.into_response::<axum::body::Body>(spark_core::Shape::PROBLEM);
            assert_eq!(response.headers()["retry-after"], "5");
            let problem = refusal(&failed, doing);
            let detail = problem.message();
            assert!(
                detail.contains(says) && !detail.contains("/srv"),
                "{detail}"
            );
        }
        let id = Name::new("abcdefghijkl").unwrap();
        let conflict = AuthError::Store(StoreError::Conflict { id });
        assert_eq!(refusal(&conflict, Doing::Making).status(), 409);
    }

    #[test]
    fn a_bad_field_is_told_alike_whoever_finds_it() {
        let config = crate::config::Config::load(None, |_| None).unwrap();
        let here = new_key(&config.ratelimit, br#"{"tenant":"a","label":7}"#).unwrap_err();
        let new = NewKey::new(Name::new("acme").unwrap()).label("");
        let there = refusal(&auth().issue(new).unwrap_err(), Doing::Making);
        for problem in [here, there] {
            assert_eq!(problem.code(), "invalid_field");
            assert_eq!(problem.param_name(), Some("label"));
            let detail = problem.message();
            assert!(
                detail.starts_with("`label` ") && detail.ends_with('.'),
                "{detail}"
            );
        }
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
        let json = Shown::of(&issued, None, Duration::ZERO).to_json().unwrap();
        assert!(json.len() < 16 * 1024, "{}", json.len());
        let shown: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(shown["key"], issued.key.expose());
        assert_eq!(shown["id"], issued.record.id.as_str());
        assert_eq!(shown["ip_allow"].as_array().unwrap().len(), 32);
    }
}
