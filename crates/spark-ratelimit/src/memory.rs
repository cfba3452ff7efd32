//! Which plans a thread remembers: to take one from here costs no atomic write, which would be a
//! third of a whole decision.

use std::sync::Arc;

use crate::engine::Engine;
use crate::plan::Plan;

#[cfg(not(spark_loom))]
mod threads {
    use std::cell::RefCell;

    use super::{Arc, Engine, Plan};

    /// How many limiters' plans. They are small; the tables are not among them.
    const REMEMBERED: usize = 8;

    thread_local! {
        /// By the limiter's id.
        static PLANS: RefCell<[Remembered; REMEMBERED]> =
            const { RefCell::new([const { None }; REMEMBERED]) };
    }

    type Remembered = Option<(u64, Arc<Plan>)>;

    #[inline]
    pub(super) fn with<T>(engine: &Engine, work: impl FnOnce(&Plan) -> Option<T>) -> Option<T> {
        let known = PLANS.try_with(|plans| match &plans.borrow()[place(engine)] {
            Some((id, plan)) if *id == engine.id => work(plan),
            _ => None,
        });
        known.ok().flatten()
    }

    pub(super) fn keep(engine: &Engine, plan: &Arc<Plan>) {
        // Where the thread is about to end, nothing is remembered; nor while it reads a plan, and
        // one whom it tells of it, such as a recorder of metrics, asks another limiter.
        let _ = PLANS.try_with(|plans| {
            if let Ok(mut plans) = plans.try_borrow_mut() {
                plans[place(engine)] = Some((engine.id, Arc::clone(plan)));
            }
        });
    }

    fn place(engine: &Engine) -> usize {
        (engine.id % REMEMBERED as u64) as usize
    }
}

/// The model checker's threads are one of the system's: they remember nothing.
#[cfg(spark_loom)]
mod threads {
    use super::{Arc, Engine, Plan};

    pub(super) fn with<T>(_: &Engine, _: impl FnOnce(&Plan) -> Option<T>) -> Option<T> {
        None
    }

    pub(super) fn keep(_: &Engine, _: &Arc<Plan>) {}
}

/// Calls `work` with the plan of `epoch`, if this thread remembers it. While it works, the thread
/// remembers nothing new.
#[inline]
pub(crate) fn with_plan<T>(
    engine: &Engine,
    epoch: u64,
    work: impl FnOnce(&Plan) -> T,
) -> Option<T> {
    threads::with(engine, |plan| (plan.epoch == epoch).then(|| work(plan)))
}

/// The plan in force, which this thread will know from now on.
pub(crate) fn remember(engine: &Engine) -> Arc<Plan> {
    let plan = engine.plan();
    threads::keep(engine, &plan);
    plan
}
