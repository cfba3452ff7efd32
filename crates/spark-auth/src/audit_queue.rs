//! Audit events on a thread of their own, so that no request waits for their sink.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::audit::{AuditEvent, AuditSink};
use crate::metrics::Dropped;

/// How long dropping the last clone waits for the sink.
const FLUSH_AT_DROP: Duration = Duration::from_secs(2);
/// Fewer places would leave no reserve.
const MIN_CAPACITY: usize = 4;

/// A bounded queue in front of an [`AuditSink`] that may block: a request hands its event over
/// without a lock and goes on; a thread of the queue's own hands it to the sink.
///
/// A full queue drops the event, and counts it: [`dropped`](Self::dropped), and the metric
/// `spark_auth_audit_dropped_total`. Denials may fill three quarters of it only, so that whoever
/// floods the service with bad keys crowds out no use of the master key and no change of a key.
///
/// The sink runs in the `tracing` span of the request. Clones share the queue; dropping the last
/// one hands over what is still in it, for two seconds at most, and ends the thread.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use spark_auth::{AuditQueue, Authenticator, MemoryStore, NewKey, Pepper, TracingAudit};
/// # use spark_core::Name;
/// let audit = AuditQueue::new(TracingAudit, 1_024)?;
/// let auth = Authenticator::builder()
///     .pepper(Pepper::generate()?)
///     .store(MemoryStore::new())
///     .audit(audit.clone())
///     .build()?;
/// auth.issue(NewKey::new(Name::new("acme")?))?;
/// assert!(audit.flush(Duration::from_secs(1)));
/// assert_eq!(audit.dropped(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct AuditQueue(Arc<Queue>);

struct Queue {
    /// Taken when the queue is dropped, which ends the thread.
    sender: Option<SyncSender<Item>>,
    thread: Option<JoinHandle<()>>,
    capacity: usize,
    shared: Arc<Shared>,
}

/// An event, and the request that it is about.
struct Item {
    event: AuditEvent,
    span: tracing::Span,
}

/// What both sides see.
#[derive(Default)]
struct Shared {
    /// Events in the queue, those just about to be put in included.
    waiting: AtomicUsize,
    accepted: AtomicU64,
    dropped: AtomicU64,
    /// How many of the accepted ones the sink has seen; no request takes this lock.
    handled: Mutex<u64>,
    progress: Condvar,
    counter: Dropped,
}

impl AuditQueue {
    /// A queue of `capacity` events (4 or more) and its thread.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    ///
    /// # Example
    /// ```
    /// let audit = spark_auth::AuditQueue::new(spark_auth::TracingAudit, 1_024)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new(sink: impl AuditSink + 'static, capacity: usize) -> io::Result<Self> {
        let capacity = capacity.max(MIN_CAPACITY);
        let (sender, events) = sync_channel(capacity);
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("spark-auth-audit".to_owned())
            .spawn(move || of_thread.hand_over(&events, &sink))?;
        Ok(Self(Arc::new(Queue {
            sender: Some(sender),
            thread: Some(thread),
            capacity,
            shared,
        })))
    }

    /// How many events were lost, because the queue was full or the sink panicked.
    ///
    /// # Example
    /// ```
    /// # let audit = spark_auth::AuditQueue::new(spark_auth::TracingAudit, 1_024)?;
    /// assert_eq!(audit.dropped(), 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn dropped(&self) -> u64 {
        self.0.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until the sink has seen every event of before this call, or `deadline` is over. Whether
    /// it has. It blocks: call it when a service shuts down.
    ///
    /// # Example
    /// ```
    /// # let audit = spark_auth::AuditQueue::new(spark_auth::TracingAudit, 1_024)?;
    /// assert!(audit.flush(std::time::Duration::from_secs(1)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn flush(&self, deadline: Duration) -> bool {
        self.0.shared.flush(deadline)
    }
}

impl AuditSink for AuditQueue {
    fn event(&self, event: &AuditEvent) {
        let queue = &*self.0;
        let most = match event {
            AuditEvent::Denied { .. } => queue.capacity - queue.capacity / 4,
            _ => queue.capacity,
        };
        let shared = &queue.shared;
        let room = |waiting| (waiting < most).then_some(waiting + 1);
        let place = shared
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room);
        if place.is_err() {
            return shared.drop_one();
        }
        let item = Item {
            event: event.clone(),
            span: tracing::Span::current(),
        };
        // Counted before it is sent, so that no flush overlooks it.
        shared.accepted.fetch_add(1, Ordering::AcqRel);
        let sent = queue.sender.as_ref().map(|sender| sender.try_send(item));
        if !matches!(sent, Some(Ok(()))) {
            // The thread is gone, which only its own panic could bring about.
            shared.waiting.fetch_sub(1, Ordering::AcqRel);
            shared.drop_one();
            shared.done();
        }
    }
}

impl Shared {
    fn hand_over(&self, events: &Receiver<Item>, sink: &dyn AuditSink) {
        for Item { event, span } in events {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            // A sink that panics loses this event, and not all that follow.
            let seen = catch_unwind(AssertUnwindSafe(|| span.in_scope(|| sink.event(&event))));
            if seen.is_err() {
                self.drop_one();
            }
            self.done();
        }
    }

    #[cold]
    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.counter.count();
    }

    fn done(&self) {
        *self.handled() += 1;
        self.progress.notify_all();
    }

    fn flush(&self, deadline: Duration) -> bool {
        let all = self.accepted.load(Ordering::Acquire);
        let waiting =
            (self.progress).wait_timeout_while(self.handled(), deadline, |handled| *handled < all);
        *waiting.unwrap_or_else(PoisonError::into_inner).0 >= all
    }

    fn handled(&self) -> MutexGuard<'_, u64> {
        self.handled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Without a sender the thread ends when the queue is empty.
        self.sender = None;
        if self.shared.flush(FLUSH_AT_DROP)
            && let Some(thread) = self.thread.take()
        {
            // It has nothing left to do; a panic of it was counted.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for AuditQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditQueue")
            .field("capacity", &self.0.capacity)
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use spark_core::Name;

    use super::*;
    use crate::error::Rejected;

    const DENIED: AuditEvent = AuditEvent::Denied {
        reason: Rejected::UnknownKey,
        key_id: None,
        client_ip: None,
    };
    const MASTER: AuditEvent = AuditEvent::MasterUsed {
        previous: false,
        client_ip: None,
    };

    fn issued() -> AuditEvent {
        AuditEvent::Issued {
            key_id: Name::new("abcdefghijkl").unwrap(),
            tenant: Name::new("acme").unwrap(),
        }
    }

    /// Keeps what it is told, and waits at the gate while that is closed.
    #[derive(Clone, Debug, Default)]
    struct Slow {
        seen: Arc<Mutex<Vec<&'static str>>>,
        gate: Arc<Mutex<()>>,
    }

    impl AuditSink for Slow {
        fn event(&self, event: &AuditEvent) {
            let _open = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            self.seen.lock().unwrap().push(event.name());
        }
    }

    /// Waits until the thread has taken the first event and stands at the gate.
    fn wait_until_taken(queue: &AuditQueue) {
        while queue.0.shared.waiting.load(Ordering::Acquire) > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn all_events_come_in_their_order_on_another_thread() {
        #[derive(Debug)]
        struct Names(Arc<Mutex<Vec<(String, &'static str)>>>);
        impl AuditSink for Names {
            fn event(&self, event: &AuditEvent) {
                let thread = thread::current().name().unwrap_or_default().to_owned();
                self.0.lock().unwrap().push((thread, event.name()));
            }
        }
        let seen = Arc::default();
        let queue = AuditQueue::new(Names(Arc::clone(&seen)), 16).unwrap();
        for event in [DENIED, MASTER, issued()] {
            queue.event(&event);
        }
        drop(queue);
        let of_thread = |name| ("spark-auth-audit".to_owned(), name);
        let expected = ["denied", "master_used", "issued"].map(of_thread);
        assert_eq!(*seen.lock().unwrap(), expected);
    }

    #[test]
    fn a_flood_of_denials_leaves_room_for_what_matters() {
        let sink = Slow::default();
        let closed = sink.gate.lock().unwrap();
        let queue = AuditQueue::new(sink.clone(), 8).unwrap();
        queue.event(&DENIED);
        wait_until_taken(&queue);
        for _ in 0..10_000 {
            queue.event(&DENIED);
        }
        assert_eq!(queue.dropped(), 10_000 - 6, "three quarters of eight");
        queue.event(&MASTER);
        queue.event(&issued());
        assert_eq!(queue.dropped(), 10_000 - 6);
        queue.event(&MASTER);
        assert_eq!(queue.dropped(), 10_000 - 5, "now it is full");
        assert!(!queue.flush(Duration::from_millis(10)));

        drop(closed);
        assert!(queue.flush(Duration::from_secs(10)));
        let seen = sink.seen.lock().unwrap().clone();
        assert_eq!(seen.len(), 9);
        assert_eq!(seen[7..], ["master_used", "issued"]);
        // There is room again.
        queue.event(&DENIED);
        assert!(queue.flush(Duration::from_secs(10)));
        assert_eq!(queue.dropped(), 10_000 - 5);
    }

    #[test]
    fn a_sink_that_hangs_holds_up_neither_a_request_nor_for_long_the_end() {
        let sink = Slow::default();
        let closed = sink.gate.lock().unwrap();
        let (done, waiting) = std::sync::mpsc::channel();
        let of_thread = sink.clone();
        let user = thread::spawn(move || {
            let queue = AuditQueue::new(of_thread, 4).unwrap();
            for _ in 0..100 {
                queue.event(&MASTER);
            }
            drop(queue.clone());
            done.send("used").unwrap();
            drop(queue);
            done.send("dropped").unwrap();
        });
        // Far beyond what a slow machine needs, and not for ever.
        let most = Duration::from_secs(60);
        assert_eq!(waiting.recv_timeout(most), Ok("used"));
        assert_eq!(waiting.recv_timeout(most), Ok("dropped"));
        drop(closed);
        user.join().unwrap();
    }

    /// By the span a log line names the request that the event is about.
    #[test]
    fn the_sink_runs_in_the_span_of_the_request() {
        #[derive(Clone, Debug, Default)]
        struct Spans(Arc<Mutex<Vec<Option<&'static str>>>>);
        impl AuditSink for Spans {
            fn event(&self, _: &AuditEvent) {
                let span = tracing::Span::current();
                let name = span.metadata().map(tracing::Metadata::name);
                self.0.lock().unwrap().push(name);
            }
        }
        let subscriber = tracing_subscriber::fmt().with_writer(io::sink).finish();
        // Of this test and of no other: spans are entered on the queue's own thread.
        let subscriber = tracing::Dispatch::new(subscriber);
        let sink = Spans::default();
        let of_thread = (sink.clone(), subscriber.clone());
        #[derive(Debug)]
        struct Under(Spans, tracing::Dispatch);
        impl AuditSink for Under {
            fn event(&self, event: &AuditEvent) {
                tracing::dispatcher::with_default(&self.1, || self.0.event(event));
            }
        }
        let queue = AuditQueue::new(Under(of_thread.0, of_thread.1), 16).unwrap();
        tracing::dispatcher::with_default(&subscriber, || {
            tracing::info_span!("request").in_scope(|| queue.event(&MASTER));
            queue.event(&MASTER);
        });
        assert!(queue.flush(Duration::from_secs(10)));
        assert_eq!(*sink.0.lock().unwrap(), [Some("request"), None]);
    }

    #[test]
    fn a_sink_that_panics_loses_one_event() {
        #[derive(Debug)]
        struct Moody(Slow);
        impl AuditSink for Moody {
            fn event(&self, event: &AuditEvent) {
                assert_ne!(event.name(), "denied", "this sink does not like denials");
                self.0.event(event);
            }
        }
        let sink = Slow::default();
        let queue = AuditQueue::new(Moody(sink.clone()), 16).unwrap();
        for event in [MASTER, DENIED, MASTER] {
            queue.event(&event);
        }
        assert!(queue.flush(Duration::from_secs(10)));
        assert_eq!(*sink.seen.lock().unwrap(), ["master_used"; 2]);
        assert_eq!(queue.dropped(), 1);
    }

    #[test]
    fn many_threads_lose_nothing_while_there_is_room() {
        let sink = Slow::default();
        let queue = AuditQueue::new(sink.clone(), 8_000).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| queue.event(&DENIED)));
            }
        });
        assert!(queue.flush(Duration::from_secs(10)));
        assert_eq!(
            (sink.seen.lock().unwrap().len(), queue.dropped()),
            (4_000, 0)
        );
    }
}
