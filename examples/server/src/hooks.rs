//! The error tracker, and where its events go.

use spark_core::Clock;
use spark_errors::{ErrorTracker, WebhookHook};

use crate::ask::chain;
use crate::config::Config;
use crate::secrets::from_environment;

/// Builds the tracker, with a webhook where one is configured.
///
/// # Errors
/// A sentence that names the field and the mend.
pub(crate) fn tracker(
    config: &Config,
    clock: &Clock,
    variables: impl Fn(&str) -> Option<String>,
) -> Result<ErrorTracker, String> {
    let mut builder = ErrorTracker::builder()
        .clock(clock.clone())
        .ring(config.errors.ring);
    if let Some(url) = &config.errors.webhook {
        let mut hook = WebhookHook::new(url)
            .map_err(|e| format!("errors.webhook: {}", chain(&e)))?
            .clock(clock.clone());
        if let Some(variable) = &config.errors.webhook_secret_env {
            let secret = from_environment(variable, variables)
                .map_err(|e| format!("errors.webhook_secret_env: {e}"))?
                .ok_or_else(|| {
                    format!(
                        "errors.webhook_secret_env: neither {variable} nor {variable}_FILE is set"
                    )
                })?;
            hook = hook.secret(secret.as_str());
        }
        builder = builder.hook(hook);
    }
    builder
        .build()
        .map_err(|e| format!("errors: {}", chain(&e)))
}
