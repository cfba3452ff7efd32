//! Running the server: from the configuration to the drained end.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use spark_auth::{Authenticator, FileStore};
use spark_core::Clock;
use spark_metrics::Metrics;
use spark_serve::Server;

use crate::app::{App, Listening};
use crate::ask::chain;
use crate::config::{AuthMode, Config};
use crate::reload::reload;
use crate::stack::{Plane, Stack, build};
use crate::{log, provider, secrets, signals};

/// How long each may take that has something to write at the end: the hooks of the error tracker, the
/// audit, the log.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);
/// How long the log may hold up a server that was told twice to stop.
const LAST_MOMENT: Duration = Duration::from_millis(200);
/// How often it is written down when keys were last used.
const FLUSH_KEYS_EVERY: Duration = Duration::from_secs(60);

/// Serves until it is told to stop, then drains.
///
/// # Errors
/// A sentence with the mend, when it cannot start.
pub(crate) fn serve(config: Config) -> Result<ExitCode, String> {
    log::start_lossy(&config)?;
    let served = serve_until_stopped(config);
    log::finish(FLUSH_DEADLINE);
    served
}

fn serve_until_stopped(config: Config) -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("the runtime cannot start: {e}"))?;
    let served = runtime.block_on(serve_on_runtime(config));
    // A call that hangs, of a disk for one, must not keep the process.
    runtime.shutdown_timeout(FLUSH_DEADLINE);
    served
}

async fn serve_on_runtime(config: Config) -> Result<ExitCode, String> {
    let (mut terminations, hangups) =
        signals::take().map_err(|e| format!("the signals cannot be taken over: {e}"))?;
    // The recorder first: the layers resolve their handles at their first call.
    let metrics = Metrics::builder()
        .version(env!("CARGO_PKG_VERSION"))
        .install()
        .map_err(|e| chain(&e))?;
    describe_metrics();

    // The addresses before the secrets, so that a second server changes nothing.
    let public = bind(&config, config.server.listen).await?;
    let admin = match config.server.admin_listen {
        Some(address) => Some(bind(&config, address).await?),
        None => None,
    };
    let local = |server: &Server| server.local_addr().map_err(|e| e.to_string());
    let mut addresses = vec![local(&public)?];
    if let Some(admin) = &admin {
        addresses.push(local(admin)?);
    }
    let variables = |name: &str| std::env::var(name).ok();
    // Whoever reads the first address sees where the keys' route is.
    let shown: Vec<_> = addresses.iter().rev().copied().collect();
    // The store first, for its lock: a second server on the same folder must change nothing.
    let store = FileStore::open(&config.server.data_dir).map_err(|e| chain(&e))?;
    let now = Clock::system().unix_time();
    let secrets = secrets::load(&config.server.data_dir, &store, &shown, now, variables)
        .map_err(|e| e.to_string())?;

    let app = App::build(config, store, secrets, metrics, variables)?;
    app.errors.install_panic_hook();
    let _ = app.listening.set(Listening {
        public: addresses[0],
        admin: *addresses.last().unwrap_or(&addresses[0]),
    });
    warn_of_traps(&app.config);
    if app.config.auth.mode == AuthMode::Optional {
        tracing::warn!(
            "auth.mode is \"optional\": callers without a key pass, under the limits of their address"
        );
    }

    let plane = if admin.is_some() {
        Plane::Public
    } else {
        Plane::All
    };
    let health = app.health.clone();
    let public = public.on_drain(move || health.begin_drain());
    let public_stack: Stack = build(&app, plane)?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let admin = match admin {
        None => None,
        Some(admin) => {
            let stack = build(&app, Plane::Admin)?;
            Some(tokio::spawn(admin.serve(stack, wait(stopped.clone()))))
        }
    };
    app.health.started();
    tokio::spawn(reload_on_hangup(Arc::clone(&app), hangups));
    let flushing = tokio::spawn(flush_keys_now_and_then(app.auth.clone()));
    let audit = app.audit.clone();
    tokio::spawn(async move {
        terminations.next().await;
        let _ = stop.send(true);
        tracing::info!("told to stop: draining");
        terminations.next().await;
        leave_after(LAST_MOMENT);
        tracing::warn!("told to stop again: leaving at once");
        audit.flush(LAST_MOMENT);
        log::finish(LAST_MOMENT);
        std::process::exit(1);
    });

    announce(&addresses);
    let drained = public.serve(public_stack, wait(stopped)).await;
    if let Some(admin) = admin {
        // Its own drain has the same deadline.
        let _ = admin.await;
    }
    flushing.abort();
    flush_keys(app.auth.clone()).await;
    app.errors.flush(FLUSH_DEADLINE).await;
    let audit = app.audit.clone();
    let flushed = tokio::task::spawn_blocking(move || audit.flush(FLUSH_DEADLINE)).await;
    if !flushed.unwrap_or(false) || app.audit.dropped() > 0 {
        tracing::warn!(dropped = app.audit.dropped(), "the audit is not complete");
    }
    tracing::info!(
        finished = drained.finished,
        aborted = drained.aborted,
        "drained"
    );
    Ok(ExitCode::SUCCESS)
}

/// Ends the process after `wait`, whatever hangs by then: on a thread that nothing else uses.
#[expect(
    clippy::disallowed_methods,
    reason = "the thread has nothing else to do"
)]
fn leave_after(wait: Duration) {
    let leave = move || {
        std::thread::sleep(wait);
        std::process::exit(1)
    };
    if std::thread::Builder::new().spawn(leave).is_err() {
        std::process::exit(1);
    }
}

/// What is valid and most likely not meant.
fn warn_of_traps(config: &Config) {
    let server = &config.server;
    if !server.listen.ip().is_loopback() && server.trusted_proxies.is_empty() {
        tracing::warn!(
            "server.trusted_proxies is empty: behind a proxy, all clients share one address, its \
             quota and its failures"
        );
    }
    for provider in &config.providers {
        let url = provider.base_url.as_deref().unwrap_or_default();
        if provider.api_key_env.is_some() && provider::leaves_in_clear(url) {
            tracing::warn!(
                provider = provider.name,
                "the provider's key leaves this machine in clear: use https://"
            );
        }
    }
}

async fn wait(mut stopped: tokio::sync::watch::Receiver<bool>) {
    // An error means that the sender is gone, which ends the wait as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn bind(config: &Config, address: std::net::SocketAddr) -> Result<Server, String> {
    let settings = serve_config(config)?;
    let bound = Server::bind(address).await.map_err(|e| chain(&e))?;
    bound
        .config(settings)
        .map_err(|e| format!("server: {}", chain(&e)))
}

fn serve_config(config: &Config) -> Result<spark_serve::Config, String> {
    let server = &config.server;
    let settings = spark_serve::Config::default()
        .header_read_timeout(server.header_read_timeout.duration())
        .max_connections(server.max_connections)
        .drain_delay(server.drain_delay.duration())
        .drain_deadline(server.drain_deadline.duration());
    settings
        .validate()
        .map_err(|e| format!("server: {}", chain(&e)))?;
    Ok(settings)
}

/// Where it listens, on standard output: for people and for scripts.
fn announce(addresses: &[std::net::SocketAddr]) {
    let mut out = std::io::stdout();
    for (address, what) in addresses.iter().zip(["", " (admin)"]) {
        // Standard output may be closed; that is no reason to stop.
        let _ = writeln!(out, "spark-server listening on http://{address}{what}");
    }
    let _ = out.flush();
}

async fn reload_on_hangup(app: Arc<App>, mut hangups: signals::Hangups) {
    while hangups.next().await {
        if let Err(error) = reload(&app) {
            tracing::error!(error, "the configuration was not reloaded");
        }
    }
}

async fn flush_keys_now_and_then(auth: Authenticator) {
    let mut ticks = tokio::time::interval(FLUSH_KEYS_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        flush_keys(auth.clone()).await;
    }
}

/// When keys were last used, and their MACs under a new pepper.
async fn flush_keys(auth: Authenticator) {
    match tokio::task::spawn_blocking(move || auth.flush()).await {
        Ok(Ok(flushed)) => {
            tracing::debug!(
                last_uses = flushed.last_uses,
                renewed = flushed.renewed,
                "keys flushed"
            );
        }
        Ok(Err(error)) => {
            tracing::error!(error = %chain(&error), "the last uses of keys were not written");
        }
        Err(_) => tracing::error!("the last uses of keys were not written: a panic"),
    }
}

/// What the process needs apart from the app: a reload takes none of it over, and refuses what no
/// start would accept.
///
/// # Errors
/// A sentence that names the field and the mend.
pub(crate) fn check_process(config: &Config) -> Result<(), String> {
    log::filter(config)?;
    serve_config(config)?;
    Ok(())
}

fn describe_metrics() {
    spark_core::metrics::describe();
    spark_auth::metrics::describe();
    spark_breaker::metrics::describe();
    spark_cache::metrics::describe();
    spark_errors::describe();
    spark_health::metrics::describe();
    spark_headers::metrics::describe();
    spark_ratelimit::metrics::describe();
    spark_sanitize::metrics::describe();
    spark_serve::metrics::describe();
    log::describe();
}

/// Validates what can be validated without listening, keys and metrics included.
///
/// # Errors
/// A sentence that names the field and the mend.
pub(crate) fn check(config: Config) -> Result<ExitCode, String> {
    with_app(config, |_| Ok(()))?;
    say("the configuration is valid")
}

/// Prints the layers in their order.
///
/// # Errors
/// A sentence that names the field and the mend.
pub(crate) fn print_stack(config: Config) -> Result<ExitCode, String> {
    let plane = match config.server.admin_listen {
        Some(_) => Plane::Public,
        None => Plane::All,
    };
    let stack = with_app(config, |app| {
        build(app, plane)?;
        if plane == Plane::Public {
            build(app, Plane::Admin)?;
        }
        Ok(app.stack())
    })?;
    let mut text = String::new();
    for part in ["edge", "data", "control"] {
        text.push_str(&format!("{part}\n"));
        for layer in stack[part].as_array().into_iter().flatten() {
            let word = |key: &str| layer[key].as_str().unwrap_or_default().to_owned();
            text.push_str(&format!("  {:<18}{}\n", word("layer"), word("settings")));
        }
    }
    text.push_str("outbound\n");
    for layer in stack["outbound"].as_array().into_iter().flatten() {
        text.push_str(&format!("  {}\n", layer.as_str().unwrap_or_default()));
    }
    say(text.trim_end())
}

/// An app of this configuration with keys of its own, in a folder that is gone afterwards.
fn with_app<T>(
    mut config: Config,
    use_app: impl FnOnce(&Arc<App>) -> Result<T, String>,
) -> Result<T, String> {
    let folder = scratch_folder()?;
    config.server.data_dir.clone_from(&folder);
    let built = (|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| format!("the runtime cannot start: {e}"))?;
        let _entered = runtime.enter();
        let metrics = Metrics::builder().build().map_err(|e| chain(&e))?;
        let variables = |name: &str| std::env::var(name).ok();
        check_process(&config)?;
        let secrets = secrets::scratch().map_err(|e| e.to_string())?;
        let store = FileStore::open(&config.server.data_dir).map_err(|e| chain(&e))?;
        let app = App::build(config, store, secrets, metrics, variables)?;
        use_app(&app)
    })();
    // Left-overs in the temporary folder do no harm.
    let _ = std::fs::remove_dir_all(&folder);
    built
}

fn scratch_folder() -> Result<std::path::PathBuf, String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|e| format!("no random bytes: {e}"))?;
    let name = format!("spark-check-{:016x}", u64::from_ne_bytes(random));
    Ok(std::env::temp_dir().join(name))
}

fn say(text: &str) -> Result<ExitCode, String> {
    writeln!(std::io::stdout(), "{text}").map_err(|e| format!("standard output: {e}"))?;
    Ok(ExitCode::SUCCESS)
}
