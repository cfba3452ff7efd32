//! The task that asks upstream. It belongs to no caller.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header, response};
use http_body::{Body, Frame};
use spark_core::{BoxError, Refusal, RequestBody};
use tokio::sync::oneshot;
use tower_service::Service;

use crate::entry::{Head, pack};
use crate::flight::Ticket;
use crate::frame_log::{End, Overflow, Stage};
use crate::{BodyError, Cache, CacheKey, Entry, FetchError, Policy, Verdict};

/// What the caller that began the flight is told.
pub(crate) enum Landing<B, E> {
    /// The answer is its own.
    Own(Response<B>),
    /// The answer is shared: this is the head, with everything that only this caller may see, and
    /// the length of the body where it is known. The body is in the log.
    Shared(Box<response::Parts>, Option<u64>),
    Failed(E),
    /// It goes on in the caller, so that a catcher further out sees what it would without a cache.
    Panicked(Box<dyn Any + Send>),
}

/// What came of it: nothing, where everyone left; or an output; or a panic.
type Survived<T> = Option<Result<T, Box<dyn Any + Send>>>;

pub(crate) struct Load<P> {
    pub(crate) cache: Cache,
    pub(crate) policy: Arc<P>,
    pub(crate) key: CacheKey,
    pub(crate) ticket: Ticket,
}

impl<P: Policy> Load<P> {
    pub(crate) async fn run<S, ReqBody, ResBody>(
        self,
        mut service: S,
        request: Request<RequestBody<ReqBody>>,
        caller: oneshot::Sender<Landing<ResBody, S::Error>>,
    ) where
        S: Service<Request<RequestBody<ReqBody>>, Response = Response<ResBody>>,
        ResBody: Body<Data = Bytes>,
        ResBody::Error: Into<BoxError>,
    {
        let answered = {
            let mut call = pin!(async move { service.call(request).await });
            poll_fn(|cx| self.unless_abandoned(self.cache.cancels(), call.as_mut(), cx)).await
        };
        let response = match answered {
            None => return,
            Some(Ok(Ok(response))) => response,
            Some(Ok(Err(error))) => {
                let why: Arc<UpstreamFailed> = Arc::new(UpstreamFailed);
                self.ticket.retire();
                self.ticket
                    .log
                    .fail(FetchError::Failed(why.clone()), BodyError::Upstream(why));
                let _gone = caller.send(Landing::Failed(error));
                return;
            }
            Some(Err(payload)) => {
                self.ticket.retire();
                self.ticket
                    .log
                    .fail(FetchError::Panicked, BodyError::Panicked);
                let _gone = caller.send(Landing::Panicked(payload));
                return;
            }
        };

        let (parts, body) = response.into_parts();
        let declared = declared(&parts.headers, &body);
        let ttl = match self.verdict(&parts, declared) {
            Verdict::Alone(reason) => {
                self.cache.reject(reason);
                if parts.status.is_success() {
                    self.cache.pass(self.key);
                }
                self.ticket.retire();
                self.ticket.log.set_stage(Stage::Alone);
                let _gone = caller.send(Landing::Own(Response::from_parts(parts, body)));
                return;
            }
            Verdict::Share(reason) => {
                // Those who waited are told of the failure; those who come from now on ask anew.
                self.cache.reject(reason);
                self.ticket.retire();
                None
            }
            Verdict::Store { ttl } => {
                Some(ttl.map_or(self.cache.ttl(), |t| t.min(self.cache.ttl())))
            }
        };
        let head = Head::of(&parts, declared, |name| self.policy.keeps(name));
        self.ticket.log.set_stage(Stage::Shared(Arc::clone(&head)));
        let _gone = caller.send(Landing::Shared(Box::new(parts), declared));
        Pump {
            load: self,
            head,
            ttl,
            received: 0,
            window: false,
        }
        .run(body)
        .await;
    }

    fn verdict(&self, parts: &response::Parts, declared: Option<u64>) -> Verdict {
        let verdict = self.policy.response(parts);
        let Verdict::Store { .. } = verdict else {
            return verdict;
        };
        if parts.extensions.get::<Refusal>().is_some() {
            Verdict::Alone("refusal")
        } else if parts.headers.contains_key(header::CONTENT_ENCODING) {
            // The header is not kept, since it is not negotiated: without it the bytes mean nothing.
            Verdict::Alone("encoded")
        } else if parts.status == StatusCode::PARTIAL_CONTENT
            || parts.headers.contains_key(header::CONTENT_RANGE)
        {
            Verdict::Alone("partial")
        } else if declared.is_some_and(|len| len > self.cache.max_entry_bytes()) {
            Verdict::Alone("too_large")
        } else {
            verdict
        }
    }

    /// Polls `future`; nothing, where it may be left and everyone has left; its panic, as an error.
    fn unless_abandoned<F: Future>(
        &self,
        leave: bool,
        future: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<Survived<F::Output>> {
        if leave && self.ticket.poll_abandoned(cx).is_ready() {
            return Poll::Ready(None);
        }
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(poll) => poll.map(|output| Some(Ok(output))),
            Err(payload) => Poll::Ready(Some(Err(payload))),
        }
    }
}

/// Why there is no answer, for those who did not call themselves: the error is the caller's.
#[derive(Debug, thiserror::Error)]
#[error("the upstream service failed")]
struct UpstreamFailed;

/// Moves a body into the log, and keeps what turns out whole.
struct Pump<P> {
    load: Load<P>,
    head: Arc<Head>,
    /// How long the answer lives; nothing, when it is not to be kept.
    ttl: Option<std::time::Duration>,
    received: u64,
    window: bool,
}

impl<P: Policy> Pump<P> {
    async fn run<B>(mut self, body: B)
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return self.end(None);
        }
        let mut body = pin!(body);
        let mut ahead = None;
        loop {
            let leave = self.ttl.is_none() || self.load.cache.cancels();
            let next = match ahead.take() {
                Some(next) => next,
                None => {
                    poll_fn(|cx| {
                        let frame = pin!(next_frame(body.as_mut()));
                        self.load.unless_abandoned(leave, frame, cx)
                    })
                    .await
                }
            };
            match next {
                None => return self.drop_it("abandoned"),
                Some(Ok(Some(Ok(frame)))) => {
                    let len = frame.data_ref().map_or(0, |data| data.len() as u64);
                    self.received = self.received.saturating_add(len);
                    let mut last = body.is_end_stream();
                    // Whoever has the last byte may ask again at once: by then it is to be kept. So
                    // where this is the last by its length, the end is looked for first.
                    if !last && self.head.declared == Some(self.received) {
                        ahead = poll_fn(|cx| {
                            let frame = pin!(next_frame(body.as_mut()));
                            Poll::Ready(match self.load.unless_abandoned(false, frame, cx) {
                                Poll::Ready(next) => Some(next),
                                Poll::Pending => None,
                            })
                        })
                        .await;
                        last = matches!(ahead, Some(Some(Ok(None))));
                    }
                    if self.take(frame, last).await {
                        return;
                    }
                }
                Some(Ok(None)) => return self.end(None),
                Some(Ok(Some(Err(error)))) => {
                    self.drop_it("body_error");
                    let log = &self.load.ticket.log;
                    return log.fail(FetchError::Aborted, BodyError::Upstream(Arc::from(error)));
                }
                Some(Err(_)) => {
                    self.drop_it("panic");
                    let log = &self.load.ticket.log;
                    return log.fail(FetchError::Panicked, BodyError::Panicked);
                }
            }
        }
    }

    /// True when this was the end.
    async fn take(&mut self, frame: Frame<Bytes>, last: bool) -> bool {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.drop_it("trailers");
                    self.end(Some(trailers));
                    return true;
                }
                return false;
            }
        };
        let log = Arc::clone(&self.load.ticket.log);
        if !self.window {
            let end = last.then(|| {
                let entry = self.keep(Some(&data));
                End::Complete {
                    trailers: None,
                    entry,
                }
            });
            match log.capture(&data, end) {
                Ok(()) => return last,
                Err(overflow) => self.overflow(overflow, last),
            }
        }
        if !poll_fn(|cx| log.poll_room(cx)).await {
            self.drop_it("abandoned");
            return true;
        }
        log.slide(data);
        if last {
            self.end(None);
        }
        last
    }

    fn overflow(&mut self, overflow: Overflow, last: bool) {
        self.window = true;
        if overflow == Overflow::Inflight {
            self.load.cache.overflow(crate::flight::Bound::Bytes);
        }
        // At the last frame, what could be kept was kept.
        if !last {
            self.load.cache.pass(self.load.key);
            self.drop_it(match overflow {
                Overflow::Entry => "too_large",
                Overflow::Inflight => "inflight_bytes",
            });
        }
    }

    fn end(&mut self, trailers: Option<HeaderMap>) {
        let entry = self.keep(None);
        self.load
            .ticket
            .log
            .finish(End::Complete { trailers, entry });
    }

    /// Keeps the answer, if it is whole and fit to be given again, and gives the key free.
    fn keep(&mut self, last: Option<&Bytes>) -> Option<Arc<Entry>> {
        let ttl = self.ttl?;
        if self
            .head
            .declared
            .is_some_and(|declared| declared != self.received)
        {
            self.drop_it("truncated");
            return None;
        }
        let mut frames = self.load.ticket.log.frames();
        frames.extend(last.cloned());
        let (whole, frames) = pack(&frames);
        if let Err(reason) = self.load.policy.complete(&self.head.headers, &whole) {
            self.drop_it(reason);
            return None;
        }
        self.ttl = None;
        let cache = &self.load.cache;
        let head = Head::clone(&self.head);
        let entry = Arc::new(Entry::new(head, frames, cache.now(), ttl));
        cache.land(&self.load.ticket, &entry).then_some(entry)
    }

    /// Nothing will be kept, and nobody joins any more.
    fn drop_it(&mut self, reason: &'static str) {
        if self.ttl.take().is_some() {
            self.load.cache.reject(reason);
        }
        self.load.ticket.retire();
    }
}

async fn next_frame<B>(mut body: Pin<&mut B>) -> Option<Result<Frame<Bytes>, BoxError>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let frame = poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
    frame.map(|frame| frame.map_err(Into::into))
}

fn declared<B: Body>(headers: &HeaderMap, body: &B) -> Option<u64> {
    if body.is_end_stream() {
        return Some(0);
    }
    body.size_hint().exact().or_else(|| {
        let length = headers.get(header::CONTENT_LENGTH)?;
        length.to_str().ok()?.parse().ok()
    })
}
