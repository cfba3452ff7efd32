//! Reading the configuration again: by `POST /api/spark/reload`, or by SIGHUP.

use std::path::PathBuf;
use std::sync::{OnceLock, PoisonError};

use crate::app::{App, Reloaded};
use crate::config::Config;
use crate::run::check_process;

/// The file that the server was started with.
pub(crate) static CONFIG_PATH: OnceLock<Option<PathBuf>> = OnceLock::new();

/// Reads the configuration and puts it in force as far as that goes.
///
/// # Errors
/// A sentence that names the line and the mend; then nothing was changed.
pub(crate) fn reload(app: &App) -> Result<Reloaded, String> {
    // Held from before the file is read: what was read last is in force at the end.
    let _one_at_a_time = app.reloading.lock().unwrap_or_else(PoisonError::into_inner);
    let path = CONFIG_PATH.get().and_then(Option::as_deref);
    let config = Config::load(path, |name| std::env::var(name).ok()).map_err(|e| e.to_string())?;
    check_process(&config)?;
    let reloaded = app.reload(&config)?;
    tracing::info!(needs_restart = ?reloaded.needs_restart, "reloaded the configuration");
    Ok(reloaded)
}
