//! The stack: every layer in its order, with the reason in a sentence above it.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::routing::{delete, get, post};
use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Request, Response, StatusCode};
use serde_json::{Value, json};
use spark_auth::{AuthLayer, RequireLayer};
use spark_breaker::{Bulkhead, BulkheadLayer};
use spark_cache::CacheLayer;
use spark_core::{Context, Name, Problem};
use spark_errors::ErrorsLayer;
use spark_headers::{SecurityHeaders, SecurityHeadersLayer};
use spark_health::ProbesLayer;
use spark_metrics::MatchedPathLayer;
use spark_ratelimit::{Headers, KeyBy, RateLimitLayer};
use spark_sanitize::{BodyLimitLayer, Fields, SanitizeLayer};
use tower::util::{BoxCloneSyncService, option_layer};
use tower::{ServiceBuilder, ServiceExt};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::app::{App, CHAT, GENERATE};
use crate::config::{AuthMode, CONCURRENCY, Span, TOKENS};
use crate::edge::{
    LastResort, REQUEST_ID, context, cors, metrics, security_headers, trace, trusted,
    without_odd_request_id,
};
use crate::ledger::LedgerLayer;
use crate::provider;
use crate::routes::{chat, export, generate, keys, operator, page, usage};

/// The whole server as one service.
pub(crate) type Stack = BoxCloneSyncService<Request<spark_serve::Body>, Response<Body>, Infallible>;

/// Which listener a stack is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plane {
    /// Everything: there is one listener.
    All,
    /// The data routes: the operator's have a listener of their own.
    Public,
    /// The operator's routes.
    Admin,
}

/// The names of the layers, written down where each is put on, so that what is printed is what is
/// there.
#[derive(Debug, Default)]
struct Names(Vec<(&'static str, String)>);

impl Names {
    fn add<L>(&mut self, name: &'static str, settings: impl Into<String>, layer: L) -> L {
        self.0.push((name, settings.into()));
        layer
    }

    fn to_json(&self) -> Value {
        let layer =
            |(name, settings): &(&str, String)| json!({ "layer": name, "settings": settings });
        self.0.iter().map(layer).collect()
    }
}

/// Assembles the stack.
///
/// # Errors
/// A sentence that names the field and the mend.
pub(crate) fn build(app: &Arc<App>, plane: Plane) -> Result<Stack, String> {
    assemble(app, plane, Router::new())
}

fn assemble(app: &Arc<App>, plane: Plane, mut router: Router<Arc<App>>) -> Result<Stack, String> {
    let mut data = Names::default();
    let mut control = Names::default();
    let mut edge = Names::default();

    if plane != Plane::Admin {
        router = router
            .merge(data_routes(app, &mut data)?)
            .merge(page_route(app)?);
    }
    if plane != Plane::Public {
        router = router.merge(control_routes(app, plane, &mut control)?);
    }
    let router = router
        .merge(health_route(app))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        // The metrics stand outside of the router and learn the route from this.
        .layer(MatchedPathLayer)
        .with_state(Arc::clone(app));

    let config = &app.config.server;
    let headers = security_headers(app, SecurityHeaders::api())?;
    let name = if plane == Plane::Admin {
        "admin"
    } else {
        "server"
    };
    let in_flight = Bulkhead::new(name, config.max_in_flight).map_err(|e| e.to_string())?;
    let ip_limit = &app.config.ratelimit.ip;

    let stack = ServiceBuilder::new()
        // The last resort: what panics in the layers below still gets an answer, with headers.
        .layer(edge.add(
            "last_resort",
            "500, prebuilt headers",
            CatchPanicLayer::custom(LastResort::new(&headers)),
        ))
        // A request id before anything else, so that everything below can name the request; a
        // client's own is kept only where it is short and plain.
        .map_request(|request: Request<spark_serve::Body>| without_odd_request_id(request))
        .layer(edge.add(
            "request_id",
            REQUEST_ID.as_str(),
            SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid),
        ))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        // The trace spans all the work on a request; it holds neither query, headers nor body.
        .layer(edge.add("trace", "method, path, request id", trace()))
        // The context is what the layers below know of the request: address, time, shape, usage.
        .layer(edge.add("context", trusted(app), context(app)))
        // The metrics stand outside of every refusal, so that refusals count.
        .layer(edge.add(
            "metrics",
            format!("{} models", app.config.models().len()),
            metrics(app),
        ))
        // Security headers stand outside of whatever may refuse or panic, so that all bear them.
        .layer(edge.add(
            "security_headers",
            "api",
            SecurityHeadersLayer::new(headers),
        ))
        // CORS stands outside of auth, since a preflight cannot bear credentials.
        .layer(edge.add(
            "cors",
            format!("origins: {}", app.config.cors.origins.len()),
            option_layer(cors(app)?),
        ))
        // CORS answers preflights with an empty body, so the body below is one that can be empty.
        .map_response(into_axum_body)
        // Panics below become problems, and errors are tracked.
        .layer(edge.add(
            "catch_panic",
            "500, tracked",
            ErrorsLayer::new(app.errors.clone()),
        ))
        // Probes leave here: they need neither room nor quota.
        .layer(edge.add(
            "probes",
            "/livez /readyz /startupz",
            ProbesLayer::new(app.health.clone()),
        ))
        // Too much at once is refused before any work is done for it.
        .layer(edge.add(
            "load_shed",
            format!("{} in flight", config.max_in_flight),
            BulkheadLayer::new(in_flight),
        ))
        // The body is counted as it streams, before anyone reads it.
        .layer(edge.add(
            "body_limit",
            config.max_body.to_string(),
            BodyLimitLayer::new(config.max_body.as_usize()),
        ))
        // The address's quota stands before auth: a flood of bad keys costs no more than this.
        .layer(
            edge.add(
                "ip_limit",
                format!("{} per {}", ip_limit.quota, ip_limit.per),
                RateLimitLayer::new(app.limits.ip.clone())
                    .scope("ip")
                    .key(KeyBy::client_ip())
                    .headers(Headers::OnRefusal),
            ),
        )
        .service(router);

    describe(app, [("edge", edge), ("data", data), ("control", control)]);
    Ok(BoxCloneSyncService::new(stack.map_response(into_axum_body)))
}

/// Keeps what was assembled for those who ask; each plane may add its part.
fn describe(app: &App, parts: [(&str, Names); 3]) {
    let mut stack = app.stack.lock().unwrap_or_else(PoisonError::into_inner);
    for (part, names) in parts {
        if !names.0.is_empty() {
            stack.insert(part.to_owned(), names.to_json());
        }
    }
    stack.insert("outbound".to_owned(), json!(provider::LAYERS));
}

/// The data plane, right inside of the address's quota.
fn data_routes(app: &Arc<App>, names: &mut Names) -> Result<Router<Arc<App>>, String> {
    let required = app.config.auth.mode == AuthMode::Required;
    let mode = if required { "required" } else { "optional" };
    let auth = match required {
        true => AuthLayer::required(app.auth.clone()),
        false => AuthLayer::optional(app.auth.clone()),
    };
    let mut callers = vec!["user"];
    let mut require = RequireLayer::user();
    if !required {
        callers.push("anonymous");
        require = require.or_anonymous();
    }
    if app.config.auth.master_on_data {
        callers.push("master");
        require = require.or_master();
    }
    let callers = callers.join(" or ");
    let outer = ServiceBuilder::new()
        // Who calls. A bad credential is refused in every mode; guesses are slowed down.
        .layer(names.add("auth", mode, auth.throttle(app.failures.clone())))
        // The ledger counts what each tenant asks for, refusals by the layers below included.
        .layer(names.add("ledger", "by tenant", LedgerLayer(app.ledger.clone())));
    let preset = format!("{:?}", app.config.sanitize.preset).to_lowercase();
    let users = require;
    let tenant_limit = tenant_limit(app);

    let prompts = prompts()?;
    let inner = |limit: RateLimitLayer, names: &mut Names| {
        ServiceBuilder::new()
            // Data routes are for users: the master key stays at home, unless an operator lets it in.
            .layer(names.add("require", callers.as_str(), users.clone()))
            // The tenant's quota stands before all costly work; hits of the cache count, too.
            .layer(names.add("tenant_limit", limits_in_words(app), limit))
            // Clean input, before the cache, so that a blocked prompt never reaches its store.
            .layer(names.add(
                "sanitize",
                preset.clone(),
                SanitizeLayer::new(app.sanitizer.clone(), prompts.clone()),
            ))
            // The cache stands next to the handler: what it answers reaches no provider.
            .layer(names.add(
                "cache",
                format!("{}, {}", app.config.cache.max_bytes, app.config.cache.ttl),
                CacheLayer::new(app.cache.clone(), app.cache_policy.clone()),
            ))
    };
    let asking_limit = asking_limit(app, tenant_limit.clone());
    let generate = Router::new()
        .route(GENERATE, post(generate::generate))
        .layer(inner(asking_limit.clone(), names));
    let chat = Router::new().route(CHAT, post(chat::completions)).layer(
        // The same layers, named already.
        inner(openai_fields(app, asking_limit), &mut Names::default()),
    );
    let models = Router::new().route("/v1/models", get(chat::models)).layer(
        ServiceBuilder::new()
            .layer(users.clone())
            .layer(openai_fields(app, tenant_limit.clone())),
    );
    // An export reaches no model: its JSON is checked, its texts are left alone.
    let no_prompts = Fields::new([]).map_err(|e| e.to_string())?;
    let export = Router::new()
        .route("/api/export", post(export::export))
        .layer(
            ServiceBuilder::new()
                .layer(users)
                .layer(RateLimitLayer::new(app.limits.export.clone()).scope("export"))
                .layer(SanitizeLayer::new(app.sanitizer.clone(), no_prompts)),
        );
    // The master sees the usage of all, so this route is for more than users.
    let usage = Router::new()
        .route("/api/spark/usage", get(usage::usage))
        .layer(
            ServiceBuilder::new()
                .layer(RequireLayer::user().or_master())
                .layer(tenant_limit),
        );

    Ok(generate
        .merge(chat)
        .merge(models)
        .merge(export)
        .merge(usage)
        .layer(outer))
}

/// The tenant's quota of requests, as on every route of the data plane but the export.
fn tenant_limit(app: &App) -> RateLimitLayer {
    let config = &app.config.ratelimit;
    let layer = RateLimitLayer::new(app.limits.tenant.clone())
        .scope("tenant")
        .retry_jitter(config.retry_jitter.duration());
    match config.x_ratelimit {
        true => layer.x_ratelimit(),
        false => layer,
    }
}

/// The same where models answer, which takes tokens, and time: there a tenant may be limited in
/// both. Who has used them up may still list the models and look at its usage.
fn asking_limit(app: &App, mut layer: RateLimitLayer) -> RateLimitLayer {
    if let Some(tokens) = &app.limits.tokens {
        layer = layer.budget(tokens.clone());
    }
    if let Some(concurrency) = &app.limits.concurrency {
        layer = layer.concurrency(concurrency.clone());
    }
    layer
}

/// With the fields that clients of OpenAI's API read.
fn openai_fields(app: &App, layer: RateLimitLayer) -> RateLimitLayer {
    match app.config.ratelimit.openai_headers {
        true => layer.openai_headers(),
        false => layer,
    }
}

/// The tenant's limits as they were configured.
fn limits_in_words(app: &App) -> String {
    let config = &app.config.ratelimit;
    let quota = |name: &str, quota, per: Span| format!("{name}: {quota} per {per}");
    let policies = config.policies.iter();
    let mut words: Vec<String> = policies
        .map(|policy| quota(&policy.name, policy.quota, policy.per))
        .collect();
    let tokens = config.tokens.as_ref();
    words.extend(tokens.map(|tokens| quota(TOKENS, tokens.quota, tokens.per)));
    let concurrency = config.concurrency.as_ref();
    words.extend(concurrency.map(|limit| format!("{CONCURRENCY}: {} at once", limit.most)));
    if config.x_ratelimit {
        words.push("x-ratelimit fields".to_owned());
    }
    if config.openai_headers {
        words.push("openai's fields on /v1".to_owned());
    }
    let jitter = config.retry_jitter;
    if !jitter.duration().is_zero() {
        words.push(format!("retry jitter: {jitter}"));
    }
    words.join(", ")
}

/// The control plane: never sanitized, never cached, never in the optional mode.
fn control_routes(
    app: &Arc<App>,
    plane: Plane,
    names: &mut Names,
) -> Result<Router<Arc<App>>, String> {
    let auth = AuthLayer::required(app.auth.clone()).throttle(app.failures.clone());
    let no_store =
        SetResponseHeaderLayer::overriding(CACHE_CONTROL, HeaderValue::from_static("no-store"));

    let outer = ServiceBuilder::new()
        // Nothing that an operator sees may stay in a cache, a refusal neither.
        .layer(names.add("no_store", "always", no_store.clone()))
        // Who calls; required, whatever the mode of the data plane.
        .layer(names.add("auth", "required", auth.clone()))
        // Only the master.
        .layer(names.add("require", "master", RequireLayer::master()));
    // Who did what, from where: one line in the log.
    let outer = outer.layer(names.add("audit", "log", axum::middleware::from_fn(operator::audit)));

    let master = Router::new()
        .route("/api/spark/keys", get(keys::list).post(keys::issue))
        .route("/api/spark/keys/{id}", delete(keys::revoke))
        .route("/api/spark/keys/{id}/rotate", post(keys::rotate))
        .route("/api/spark/keys/{id}/suspend", post(keys::suspend))
        .route("/api/spark/keys/{id}/resume", post(keys::resume))
        .route("/api/spark/errors", get(operator::errors))
        .route("/api/spark/breakers", get(operator::breakers))
        .route(
            "/api/spark/breakers/{name}/{action}",
            post(operator::set_breaker),
        )
        .route("/api/spark/stack", get(operator::stack))
        .route("/api/spark/reload", post(operator::reload))
        .layer(outer);
    let scrape = Router::new()
        .route("/metrics", get(operator::metrics))
        .route("/api/metrics", get(operator::metrics));
    let scrape = if plane == Plane::Admin {
        // Who reaches the admin listener may scrape it.
        scrape.layer(no_store)
    } else {
        let scope = Name::new("metrics:read").map_err(|e| e.to_string())?;
        let require = RequireLayer::scope(scope).or_master();
        scrape.layer(
            ServiceBuilder::new()
                .layer(no_store)
                .layer(auth)
                .layer(require),
        )
    };
    Ok(master.merge(scrape))
}

/// The status for anyone, the details for the master: a bad key is refused here, too.
fn health_route(app: &Arc<App>) -> Router<Arc<App>> {
    let auth = AuthLayer::optional(app.auth.clone()).throttle(app.failures.clone());
    Router::new()
        .route("/api/spark/health", get(operator::health))
        .layer(auth)
}

/// The one page for people, under the headers for HTML.
fn page_route(app: &Arc<App>) -> Result<Router<Arc<App>>, String> {
    let headers = security_headers(app, SecurityHeaders::html())?;
    Ok(Router::new()
        .route("/", get(page::page))
        .layer(SecurityHeadersLayer::new(headers)))
}

/// The texts of a request that a model will read.
fn prompts() -> Result<Fields, String> {
    Fields::new(["prompt", "messages[].content", "messages[].content[].text"])
        .map_err(|e| e.to_string())
}

async fn not_found(context: Context) -> axum::response::Response {
    let problem =
        Problem::new(StatusCode::NOT_FOUND, "server", "not_found").detail("There is nothing here.");
    crate::routes::refuse(&context, problem)
}

async fn method_not_allowed(context: Context) -> axum::response::Response {
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "server",
        "method_not_allowed",
    )
    .detail("This route knows other methods: see `Allow`.");
    crate::routes::refuse(&context, problem)
}

fn into_axum_body<B>(response: Response<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<spark_core::BoxError>,
{
    response.map(Body::new)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use spark_metrics::Metrics;
    use spark_serve::Server;

    use super::*;
    use crate::config::Config;
    use crate::secrets;

    fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_panic_is_answered_with_headers_and_tracked() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::load(None, |_| None).unwrap();
        config.server.data_dir = dir.path().to_owned();
        let metrics = Metrics::builder().build().unwrap();
        let store = spark_auth::FileStore::open(dir.path()).unwrap();
        let secrets = secrets::scratch().unwrap();
        let app = App::build(config, store, secrets, metrics, |_| None).unwrap();
        let panics = Router::new().route(
            "/panics",
            axum::routing::get(|| async {
                if true {
                    panic!("a handler panics")
                }
            }),
        );
        let stack = assemble(&app, Plane::All, panics).unwrap();
        let server = Server::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let serving = tokio::spawn(server.serve(stack, std::future::pending()));

        let answer = tokio::task::spawn_blocking(move || get(address, "/panics"))
            .await
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
        for header in [
            "content-type: application/problem+json",
            "x-content-type-options: nosniff",
            "x-request-id: ",
            "content-security-policy: ",
        ] {
            assert!(answer.contains(header), "{header}: {answer}");
        }
        assert!(
            !answer.contains("a handler panics"),
            "what a panic says stays inside: {answer}"
        );
        assert_eq!(app.errors.stats().groups, 1);
        serving.abort();
    }
}
