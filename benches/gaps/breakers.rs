//! Ours and its peers behind one face.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use failsafe::failure_policy;
use failsafe::futures::CircuitBreaker as _;
use recloser::{AsyncRecloser, Recloser};
use spark_breaker::{Breaker, CallError, Config};
use spark_core::Clock;
use tokio::sync::oneshot;
use tower::{Layer, ServiceExt, service_fn};
use tower_resilience_circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer};

pub(crate) const SPARK: &str = "spark";
pub(crate) const FAILSAFE: &str = "failsafe 1.3.0";
pub(crate) const RECLOSER: &str = "recloser 1.4.0";
pub(crate) const RESILIENCE: &str = "tower-resilience-circuitbreaker 0.14.0";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed;

/// What is called.
pub(crate) type Work = crate::work::Work<Result<u64, Failed>>;

/// How a call ended for its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Met {
    Served,
    Failed,
    /// In these words.
    Refused(String),
}

impl Met {
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// A call as its caller awaits it.
pub(crate) type Call = Pin<Box<dyn Future<Output = Met> + Send>>;

pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) call: Box<dyn Fn(Work) -> Call>,
}

/// What all are given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Failures in a row that open it; recloser, which has a rate alone, looks at ten calls.
    pub(crate) in_a_row: u32,
    pub(crate) open_for: Duration,
    pub(crate) probes: u32,
    pub(crate) slow: Duration,
}

pub(crate) const RULES: Rules = Rules {
    in_a_row: 5,
    open_for: Duration::from_millis(10),
    probes: 1,
    slow: Duration::from_millis(5),
};

impl Contender {
    /// Ours first.
    pub(crate) fn all(rules: Rules) -> [Self; 4] {
        [
            spark(rules),
            failsafe(rules),
            recloser(rules),
            resilience(rules),
        ]
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.name == SPARK
    }

    /// Begins a call and leaves it waiting, if it is let through.
    pub(crate) fn begin(&self, work: Work) -> Option<Call> {
        let mut call = (self.call)(work);
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Some(call),
            Poll::Ready(_) => None,
        }
    }

    pub(crate) async fn fail(&self) -> Met {
        (self.call)(Work::new(async { Err(Failed) })).await
    }

    pub(crate) async fn succeed(&self) -> Met {
        (self.call)(Work::new(async { Ok(1) })).await
    }

    /// Failures until it refuses.
    pub(crate) async fn trip(&self) {
        for _ in 0..100 {
            if self.fail().await.is_refused() {
                return;
            }
        }
        panic!("{} does not open", self.name);
    }

    /// Open, and its open time over: the next caller is the first probe.
    pub(crate) async fn trip_and_wait(&self, rules: Rules) {
        self.trip().await;
        tokio::time::sleep(rules.open_for * 2).await;
    }
}

/// Work that ends when it is told to.
pub(crate) fn told() -> (oneshot::Sender<Result<u64, Failed>>, Work) {
    let (tell, told) = oneshot::channel();
    let work = async move { told.await.unwrap_or(Err(Failed)) };
    (tell, Work::new(work))
}

/// Work that never ends, and counts that it began.
pub(crate) fn endless(begun: &Arc<AtomicUsize>) -> Work {
    let begun = Arc::clone(begun);
    Work::new(async move {
        begun.fetch_add(1, Ordering::Relaxed);
        std::future::pending().await
    })
}

fn spark(rules: Rules) -> Contender {
    let config = Config::standard()
        .consecutive(rules.in_a_row)
        .slow_threshold(rules.slow)
        .open_for(rules.open_for)
        .jitter(0.0)
        .probes(rules.probes)
        .probe_timeout(rules.open_for * 3);
    let breaker = Breaker::new("peer", config, Clock::system()).unwrap();
    let call = move |work: Work| -> Call {
        let breaker = breaker.clone();
        Box::pin(async move {
            match breaker.call(|| work).await {
                Ok(_) => Met::Served,
                Err(CallError::Failed(Failed)) => Met::Failed,
                Err(CallError::Rejected(rejected)) => Met::Refused(rejected.to_string()),
            }
        })
    };
    Contender {
        name: SPARK,
        call: Box::new(call),
    }
}

fn failsafe(rules: Rules) -> Contender {
    let backoff = failsafe::backoff::constant(rules.open_for);
    let policy = failure_policy::consecutive_failures(rules.in_a_row, backoff);
    let breaker = failsafe::Config::new().failure_policy(policy).build();
    let call = move |work: Work| -> Call {
        let breaker = breaker.clone();
        Box::pin(async move {
            match breaker.call(work).await {
                Ok(_) => Met::Served,
                Err(failsafe::Error::Inner(Failed)) => Met::Failed,
                Err(rejected @ failsafe::Error::Rejected) => Met::Refused(format!("{rejected:?}")),
            }
        })
    };
    Contender {
        name: FAILSAFE,
        call: Box::new(call),
    }
}

fn recloser(rules: Rules) -> Contender {
    let breaker: AsyncRecloser = Recloser::custom()
        .error_rate(0.5)
        .closed_len(10)
        .half_open_len(rules.probes as usize)
        .open_wait(rules.open_for)
        .build()
        .into();
    let call = move |work: Work| -> Call {
        let breaker = breaker.clone();
        Box::pin(async move {
            match breaker.call(work).await {
                Ok(_) => Met::Served,
                Err(recloser::Error::Inner(Failed)) => Met::Failed,
                Err(rejected @ recloser::Error::Rejected) => Met::Refused(format!("{rejected:?}")),
            }
        })
    };
    Contender {
        name: RECLOSER,
        call: Box::new(call),
    }
}

fn resilience(rules: Rules) -> Contender {
    let service = CircuitBreakerLayer::builder()
        .name("peer")
        .consecutive_failures(rules.in_a_row as usize)
        .slow_call_duration_threshold(rules.slow)
        .wait_duration_in_open(rules.open_for)
        .permitted_calls_in_half_open(rules.probes as usize)
        .build()
        .unwrap()
        .layer(service_fn(|work: Work| work));
    let call = move |work: Work| -> Call {
        let asked = service.clone().oneshot(work);
        Box::pin(async move {
            match asked.await {
                Ok(_) => Met::Served,
                Err(CircuitBreakerError::Inner(Failed)) => Met::Failed,
                Err(CircuitBreakerError::OpenCircuit) => {
                    Met::Refused(CircuitBreakerError::<Failed>::OpenCircuit.to_string())
                }
            }
        })
    };
    Contender {
        name: RESILIENCE,
        call: Box::new(call),
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it failed")
    }
}

impl std::error::Error for Failed {}
