//! What is done when a provider does not answer well, as it is configured.

use serde::{Deserialize, Serialize};

use super::units::Span;

/// Second tries, and second choices.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Failover {
    /// Calls to one provider for one request, the first included; 1 for no second try.
    pub attempts: u32,
    /// Providers that are asked for one request; 0 for all that list the model.
    pub max_hops: usize,
    /// The longest that a request waits for a provider to come back when none answers; 0 for not.
    pub wait_at_most: Span,
    /// How many requests may wait so at a time.
    pub waiting: usize,
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            attempts: 2,
            max_hops: 0,
            wait_at_most: Span::zero(),
            waiting: 64,
        }
    }
}

impl Failover {
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let numbers = [
            ("attempts", self.attempts == 0),
            ("waiting", self.waiting == 0),
        ];
        match numbers.iter().find(|(_, is_zero)| *is_zero) {
            None => Ok(()),
            Some((key, _)) => {
                let mend = "write a number of at least 1".to_owned();
                Err((format!("failover.{key}"), mend))
            }
        }
    }
}
