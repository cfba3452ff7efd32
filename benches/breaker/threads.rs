//! Two threads that ask the same breaker, at the same time.

use std::sync::Arc;

use failsafe::CircuitBreaker;
use recloser::Recloser;
use spark_benches::Races;
use spark_breaker::{Breaker, CallError};

use crate::core::{
    FAILSAFE, FULL, Failed, IN_A_ROW, LEAN, RECLOSER, SPARK, WATCHED, full, lean, open_breaker,
    open_failsafe, open_recloser, reclosing, run, watched,
};

pub(crate) const FEW: &str = "core, allowed, two threads";
pub(crate) const MANY: &str = "core, allowed, two threads, 100,000 calls in the window";
pub(crate) const REFUSED: &str = "core, refused, two threads";

pub(crate) fn all(races: &Races) {
    allowed(races, FEW, 100);
    allowed(races, MANY, 100_000);
    refused(races);
}

/// The windows hold so many calls before the first turn.
fn allowed(races: &Races, name: &str, held: u32) {
    races.race(name, |race| {
        let held = races.many(held);
        let ours = [full(), watched(), lean(held)];
        let recloser = reclosing(held);
        for _ in 0..held {
            for breaker in &ours {
                assert!(breaker.run(|| Ok::<u64, Failed>(1)).is_ok());
            }
            assert!(recloser.call(|| Ok::<u64, Failed>(1)).is_ok());
        }
        let [full, watched, lean] = ours;
        let spark = |breaker: Breaker| vec![run(breaker.clone()), run(breaker)];
        let recloser = Arc::new(recloser);
        let shared = || {
            let recloser = Arc::clone(&recloser);
            move || {
                let answer = recloser.call(|| Ok::<u64, Failed>(1));
                assert!(answer.is_ok());
                answer
            }
        };
        let default = failsafe::Config::new().build();
        let failsafe = || {
            let default = default.clone();
            move || {
                let answer = default.call(|| Ok::<u64, Failed>(1));
                assert!(answer.is_ok());
                answer
            }
        };
        race.threads(FULL, spark(full))
            .threads(WATCHED, spark(watched))
            .threads(LEAN, spark(lean))
            .threads(RECLOSER, vec![shared(), shared()])
            .threads(FAILSAFE, vec![failsafe(), failsafe()])
    });
}

/// Without tower-resilience: where its lock is held, it waits by a timer, and nothing here has one.
fn refused(races: &Races) {
    races.race(REFUSED, |race| {
        let spark = open_breaker();
        let ours = || {
            let spark = spark.clone();
            move || {
                let answer = spark.run(|| Ok::<u64, Failed>(1));
                assert!(matches!(answer, Err(CallError::Rejected(_))));
                answer
            }
        };
        let recloser: Arc<Recloser> = Arc::new(open_recloser());
        let reclosers = || {
            let recloser = Arc::clone(&recloser);
            move || {
                let answer = recloser.call(|| Ok::<u64, Failed>(1));
                assert!(matches!(answer, Err(recloser::Error::Rejected)));
                answer
            }
        };
        let failsafe = open_failsafe();
        let failsafes = || {
            let failsafe = failsafe.clone();
            move || {
                let answer = failsafe.call(|| Ok::<u64, Failed>(1));
                assert!(matches!(answer, Err(failsafe::Error::Rejected)));
                answer
            }
        };
        race.threads(SPARK, vec![ours(), ours()])
            .threads(RECLOSER, vec![reclosers(), reclosers()])
            .threads(IN_A_ROW, vec![failsafes(), failsafes()])
    });
}
