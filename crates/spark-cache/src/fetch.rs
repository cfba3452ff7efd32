//! One fetch for many callers, with no HTTP service in it.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use spark_core::BoxError;

use crate::cache::Found;
use crate::flight::{Joined, Ticket};
use crate::frame_log::{End, Reader, Stage};
use crate::{Answer, BodyError, Cache, CacheKey, CacheResult, Entry, FetchError, Freshness};

impl Cache {
    /// The entry for `key`, or what `fetch` brings, which is then kept. Whoever asks for the same
    /// key meanwhile waits for the same fetch. It runs in a task of its own: a caller that goes away
    /// does not stop it (unless [`Abandon::Cancel`](crate::Abandon::Cancel) says so and nobody else waits).
    ///
    /// # Errors
    /// [`FetchError`] when the fetch fails, panics or is dropped with its runtime. Everyone who
    /// waited is told; nothing of it is kept.
    ///
    /// # Example
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    /// # runtime.block_on(async {
    /// use spark_cache::{Answer, Cache, CacheKey, Scope};
    /// let cache = Cache::builder().build().unwrap();
    /// let key = CacheKey::builder(Scope::Master).field("id", b"7").build();
    /// let entry = cache.get_or_fetch(key, || async { Ok(Answer::new("seven")) }).await.unwrap();
    /// assert_eq!(entry.frames(), ["seven"]);
    /// # });
    /// ```
    pub async fn get_or_fetch<F, Fut>(
        &self,
        key: CacheKey,
        fetch: F,
    ) -> Result<Arc<Entry>, FetchError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Answer, BoxError>> + Send + 'static,
    {
        if let Found::Fresh { entry, .. } = self.lookup(&key, &Freshness::default()) {
            self.count(CacheResult::Hit);
            return Ok(entry);
        }
        match self.join(key, true) {
            Joined::Leader(ticket, reader) => {
                self.count(CacheResult::Miss);
                let runtime =
                    tokio::runtime::Handle::try_current().map_err(|_| FetchError::Aborted)?;
                runtime.spawn(self.clone().fetch(ticket, fetch()));
                match outcome(reader).await {
                    Some(outcome) => outcome,
                    None => Err(FetchError::Aborted),
                }
            }
            Joined::Follower(reader) => match outcome(reader).await {
                // It was dropped, and this caller is still here.
                None | Some(Err(FetchError::Aborted)) => {
                    self.fetch_alone(CacheResult::Miss, fetch()).await
                }
                Some(outcome) => {
                    self.count(CacheResult::Collapsed);
                    outcome
                }
            },
            Joined::Full(bound) => {
                self.overflow(bound);
                self.fetch_alone(CacheResult::Bypass, fetch()).await
            }
            Joined::Taken => self.fetch_alone(CacheResult::Miss, fetch()).await,
        }
    }

    async fn fetch(self, ticket: Ticket, fetch: impl Future<Output = Result<Answer, BoxError>>) {
        let cancel = self.cancels();
        let mut fetch = pin!(fetch);
        let fetched = poll_fn(|cx| {
            if cancel && ticket.poll_abandoned(cx).is_ready() {
                return Poll::Ready(None);
            }
            match catch_unwind(AssertUnwindSafe(|| fetch.as_mut().poll(cx))) {
                Ok(poll) => poll.map(|fetched| Some(Ok(fetched))),
                Err(_) => Poll::Ready(Some(Err(()))),
            }
        })
        .await;
        match fetched {
            None => {}
            Some(Err(())) => ticket.log.fail(FetchError::Panicked, BodyError::Panicked),
            Some(Ok(Err(error))) => {
                let error = Arc::from(error);
                let failed = FetchError::Failed(Arc::clone(&error));
                ticket.log.fail(failed, BodyError::Upstream(error));
            }
            Some(Ok(Ok(answer))) => self.publish(&ticket, answer),
        }
    }

    fn publish(&self, ticket: &Ticket, answer: Answer) {
        let entry = Arc::new(answer.keep(self.now(), self.ttl()));
        self.land(ticket, &entry);
        // For those who wait for the same key behind a `CacheLayer`.
        let captured = entry
            .frames()
            .iter()
            .all(|frame| ticket.log.capture(frame, None).is_ok());
        ticket.log.set_stage(match captured {
            true => Stage::Shared(Arc::new(entry.head().clone())),
            false => Stage::Alone,
        });
        ticket.log.finish(End::Complete {
            trailers: None,
            entry: Some(entry),
        });
    }

    async fn fetch_alone(
        &self,
        result: CacheResult,
        fetch: impl Future<Output = Result<Answer, BoxError>>,
    ) -> Result<Arc<Entry>, FetchError> {
        self.count(result);
        let answer = fetch
            .await
            .map_err(|error| FetchError::Failed(Arc::from(error)))?;
        Ok(Arc::new(answer.keep(self.now(), self.ttl())))
    }
}

/// How a flight ended; none when its answer is for somebody else.
async fn outcome(mut reader: Reader) -> Option<Result<Arc<Entry>, FetchError>> {
    let alone = match poll_fn(|cx| reader.poll_stage(cx)).await {
        Stage::Failed(error) => return Some(Err(error)),
        Stage::Shared(_) => false,
        Stage::Alone | Stage::Waiting => true,
    };
    match poll_fn(|cx| reader.poll_end(cx)).await {
        // Too heavy for the log of a fetch, it is here all the same.
        End::Complete { entry, .. } => entry.map(Ok),
        End::Broken(_) if alone => None,
        End::Broken(BodyError::Upstream(error)) => Some(Err(FetchError::Failed(error))),
        End::Broken(BodyError::Panicked) => Some(Err(FetchError::Panicked)),
        End::Broken(_) => Some(Err(FetchError::Aborted)),
    }
}
