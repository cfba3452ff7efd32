//! Calls that never return to the breaker.

use std::panic::{set_hook, take_hook};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::block_on;
use crate::breakers::{Contender, Met, RULES, Rules, Work, endless};
use crate::found::Found;

fn opened(met: &Met) -> &'static str {
    match met {
        Met::Refused(_) => "open",
        Met::Served | Met::Failed => "still closed",
    }
}

/// Calls that hang, and callers that wait for four times as long as is slow.
pub(crate) fn two_hundred_timeouts_further_out_open_it(found: &mut Found) {
    let rules = Rules {
        open_for: Duration::from_secs(10),
        ..RULES
    };
    for contender in Contender::all(rules) {
        let begun = Arc::default();
        let then = block_on(async {
            let mut calls = JoinSet::new();
            for _ in 0..200 {
                let call = (contender.call)(endless(&begun));
                calls.spawn(tokio::time::timeout(rules.slow * 4, call));
            }
            while calls.join_next().await.is_some() {}
            contender.succeed().await
        });
        found.note(contender.name, opened(&then));
        if contender.is_ours() {
            assert!(then.is_refused());
        }
    }
}

/// Twenty calls that panic, where three failures in a row are too many.
pub(crate) fn panics_open_it(found: &mut Found) {
    let rules = Rules {
        in_a_row: 3,
        open_for: Duration::from_secs(10),
        ..RULES
    };
    let hook = take_hook();
    set_hook(Box::new(|_| ()));
    let ends: Vec<_> = Contender::all(rules)
        .into_iter()
        .map(|contender| {
            let then = block_on(async {
                for _ in 0..20 {
                    let work = Work::new(async { panic!("on purpose") });
                    let _ = tokio::spawn((contender.call)(work)).await;
                }
                contender.succeed().await
            });
            (contender, then)
        })
        .collect();
    set_hook(hook);
    for (contender, then) in ends {
        found.note(contender.name, opened(&then));
        if contender.is_ours() {
            assert!(then.is_refused());
        }
    }
}
