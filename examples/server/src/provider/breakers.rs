//! The breakers: one for each provider, and one for each model of a provider that lists several.

use std::sync::Arc;
use std::time::Duration;

use spark_breaker::{
    Config as BreakerConfig, ConfigError, Event, EventKind, Listener, Reason, Registry, State,
};
use spark_core::Clock;
use spark_errors::ErrorTracker;

use crate::config::{Config, Provider, Span};

/// By how much a probe's time is longer than a call may take.
const LONGER: Duration = Duration::from_secs(30);

/// All of them, and they are all that there ever are: a model that no provider lists is asked of
/// none.
///
/// # Errors
/// A sentence that names the field and the mend.
pub(crate) fn registry(
    config: &Config,
    clock: &Clock,
    errors: &ErrorTracker,
) -> Result<Registry, String> {
    let providers = config.providers.iter();
    let models = providers.clone().map(|provider| provider.models.len());
    let capacity = providers.len().max(models.sum()).max(1);
    let made = Registry::with_listener(
        capacity,
        BreakerConfig::llm(),
        clock.clone(),
        listener(errors.clone()),
    );
    let registry = made.map_err(|e| e.to_string())?;
    for provider in providers {
        let rules = breaker_config(provider);
        let field =
            |field: &str, e: ConfigError| format!("providers.{}.{field}: {e}", provider.name);
        registry
            .get_or_create_with(&provider.name, &rules)
            .map_err(|e| field("breaker", e))?;
        if !has_model_breakers(provider) {
            continue;
        }
        for model in &provider.models {
            registry
                .get_or_create_with(&format!("{}/{model}", provider.name), &rules)
                .map_err(|e| field("models", e))?;
        }
    }
    Ok(registry)
}

/// With one model alone, a breaker of its own would only say the same in another place.
pub(super) fn has_model_breakers(provider: &Provider) -> bool {
    provider.models.len() > 1
}

/// Gives the breakers that there are the rules of these providers. The names of those that have
/// none.
///
/// # Errors
/// A sentence that names the field and the mend.
pub(crate) fn reconfigure(registry: &Registry, config: &Config) -> Result<Vec<String>, String> {
    for breaker in registry.iter() {
        let of = breaker.name().split('/').next();
        let mut providers = config.providers.iter();
        if let Some(provider) = providers.find(|provider| of == Some(&*provider.name)) {
            breaker
                .reconfigure(breaker_config(provider))
                .map_err(|e| format!("providers.{}.breaker: {e}", provider.name))?;
        }
    }
    let names = config.providers.iter().map(|provider| &provider.name);
    let unknown = names.filter(|name| registry.get(name).is_none());
    Ok(unknown.cloned().collect())
}

/// The breaker's settings as they are configured: 0 is for what is off, or goes by another setting.
pub(crate) fn breaker_config(provider: &Provider) -> BreakerConfig {
    let breaker = &provider.breaker;
    let or = |span: Span, other| span.some().unwrap_or(other);
    let open_for = breaker.open_for.duration();
    let max_open_for = or(breaker.max_open_for, open_for.saturating_mul(12));
    let first_byte = provider.timeouts.first_byte.duration();
    BreakerConfig::llm()
        .window(breaker.window.duration())
        .min_calls(breaker.min_calls)
        .failure_rate(breaker.failure_rate)
        .consecutive(some(breaker.consecutive))
        .slow_threshold(or(breaker.slow_threshold, first_byte))
        .slow_rate((breaker.slow_rate > 0.0).then_some(breaker.slow_rate))
        .in_flight_slow(some(breaker.in_flight_slow))
        .open_for(open_for)
        .max_open_for(max_open_for)
        .max_retry_after(or(breaker.max_retry_after, max_open_for))
        .exhausted_for(breaker.exhausted_for.some())
        .probes(breaker.probes)
        .success_needed(some(breaker.success_needed))
        // Later than the time limit, which ends a probe that hangs, and is to count.
        .probe_timeout(provider.timeouts.total.duration() + LONGER)
        .ramp(breaker.ramp.duration())
}

fn some(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

/// Tells the tracker, and so its webhook, that a breaker has opened or that a credit is used up:
/// once, and neither for each probe that fails nor for what an operator does.
fn listener(errors: ErrorTracker) -> Arc<dyn Listener> {
    Arc::new(move |event: &Event<'_>| {
        let EventKind::Transition {
            from,
            to: State::Open,
            reason,
        } = event.kind
        else {
            return;
        };
        let is_news = match reason {
            Reason::Operator => false,
            Reason::Exhausted { .. } => true,
            _ => from == State::Closed,
        };
        if is_news {
            errors
                .event("breaker")
                .message(format_args!("{} is open: {reason}", event.name))
                .tag("breaker", event.name)
                .send();
        }
    })
}

#[cfg(test)]
mod tests {
    use spark_breaker::{FailKind, Mode};
    use spark_core::testing::TestClock;

    use super::*;

    #[test]
    fn the_tracker_is_told_of_new_trouble_alone() {
        let config = Config::load(None, |_| None).unwrap();
        let clock = TestClock::new();
        let errors = ErrorTracker::builder().build().unwrap();
        let registry = registry(&config, &clock.clock(), &errors).unwrap();
        let breaker = registry.get("demo").unwrap();
        let told = || {
            let groups = errors.groups();
            groups.iter().map(|group| group.count).sum::<u64>()
        };
        for _ in 0..5 {
            let call = breaker.try_acquire().unwrap();
            call.failure(FailKind::Transport);
        }
        assert_eq!(told(), 1);
        clock.advance(Duration::from_secs(15));
        let probe = breaker.try_acquire().unwrap();
        probe.failure(FailKind::Transport);
        assert_eq!(breaker.snapshot().state, State::Open);
        assert_eq!(told(), 1, "a probe that fails is no news");
        breaker.reset();
        breaker.set_mode(Mode::ForcedOpen);
        breaker.reset();
        breaker.set_mode(Mode::Auto);
        assert_eq!(told(), 1, "nor is what an operator does");
        breaker.exhaust(None);
        assert_eq!(told(), 2);
    }

    #[test]
    fn one_model_needs_no_breaker_of_its_own() {
        let mut config = Config::load(None, |_| None).unwrap();
        let names = |config: &Config| -> Vec<String> {
            let errors = ErrorTracker::builder().build().unwrap();
            let registry = registry(config, &Clock::system(), &errors).unwrap();
            registry.iter().map(|it| it.name().to_string()).collect()
        };
        assert_eq!(names(&config), ["demo"]);
        config.providers[0].models.push("meta/another".to_owned());
        assert_eq!(names(&config), ["demo", "demo/demo-1", "demo/meta/another"]);

        config.providers[0].models.push("a b".to_owned());
        let errors = ErrorTracker::builder().build().unwrap();
        let refused = registry(&config, &Clock::system(), &errors).unwrap_err();
        assert!(refused.starts_with("providers.demo.models"), "{refused}");
    }
}
