//! By axum's routes.

use axum::extract::{MatchedPath, OriginalUri};

use crate::{Head, Key};

/// The key of the route that matched; one for all requests that match none. `None` without a router
/// outside, which would have left its `OriginalUri`.
pub(crate) fn key(head: &Head<'_>) -> Option<Key> {
    match head.extensions.get::<MatchedPath>() {
        Some(path) => Some(Key::route(Some(path.as_str()))),
        None => {
            let routed = head.extensions.get::<OriginalUri>().is_some();
            routed.then(|| Key::route(None))
        }
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
