//! Whether the callee has recovered, and who finds out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::block_on;
use crate::breakers::{Contender, Met, RULES, Rules, endless, told};
use crate::found::Found;

/// For what must be done before the breaker moves on by itself, on a busy machine too.
const PATIENT: Rules = Rules {
    open_for: Duration::from_millis(200),
    ..RULES
};

pub(crate) fn a_thousand_callers_at_a_half_open_breaker_make_as_many_calls_as_it_probes(
    found: &mut Found,
) {
    let rules = Rules {
        probes: 3,
        ..PATIENT
    };
    for contender in Contender::all(rules) {
        let begun = Arc::new(AtomicUsize::new(0));
        let calls: Vec<_> = block_on(async {
            contender.trip_and_wait(rules).await;
            (0..1_000)
                .map(|_| contender.begin(endless(&begun)))
                .collect()
        });
        let made = begun.load(Ordering::Relaxed);
        found.note(
            contender.name,
            format!("{made} calls, of 3 that are asked for"),
        );
        if contender.is_ours() {
            assert_eq!((made, calls.iter().flatten().count()), (3, 3));
        }
    }
}

/// The probe hangs for six times as long as the breaker was open, and longer than ours gives it.
pub(crate) fn a_hung_probe_gives_its_place_back(found: &mut Found) {
    for contender in Contender::all(RULES) {
        let begun = Arc::new(AtomicUsize::new(0));
        let (probe, then) = block_on(async {
            contender.trip_and_wait(RULES).await;
            let probe = contender.begin(endless(&begun));
            tokio::time::sleep(RULES.open_for * 6).await;
            (probe, contender.succeed().await)
        });
        assert!(probe.is_some(), "a probe is let through");
        let words = match then {
            Met::Refused(_) => "refuses everybody else while it hangs",
            Met::Served | Met::Failed => "lets the next one through",
        };
        found.note(contender.name, words);
        if contender.is_ours() {
            assert_eq!(then, Met::Served);
        }
    }
}

/// While a probe is under way, a call that began before the outage succeeds. Then the probe fails: a
/// breaker that is still half open opens again.
pub(crate) fn a_success_from_before_the_outage_closes_nothing(found: &mut Found) {
    for contender in Contender::all(PATIENT) {
        let then = block_on(async {
            let (slow, work) = told();
            let old = contender.begin(work).unwrap();
            contender.trip_and_wait(PATIENT).await;
            let (probe, work) = told();
            let probing = contender.begin(work).unwrap();
            slow.send(Ok(1)).unwrap();
            assert_eq!(old.await, Met::Served);
            probe.send(Err(crate::breakers::Failed)).unwrap();
            assert_eq!(probing.await, Met::Failed);
            contender.succeed().await
        });
        let words = match then {
            Met::Refused(_) => "stays half open: the failed probe opens it again",
            Met::Served | Met::Failed => "closes, and the failed probe opens nothing",
        };
        found.note(contender.name, words);
        if contender.is_ours() {
            assert!(then.is_refused());
        }
    }
}
