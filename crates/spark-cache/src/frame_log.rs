//! An answer while it arrives: written once, read by many.
//!
//! The log has two modes. It begins as a *capture*: it keeps every frame, a reader may join at any
//! time and begins at the first one, and the writer never waits. When the answer outgrows what may
//! be buffered, the log becomes a *window*: nobody joins any more, nothing will be stored, the
//! writer waits for the fastest reader (so an answer of any length is delivered in bounded memory),
//! and a reader that falls a whole window behind the fastest is cut off (so that nobody can hold up
//! anybody else).

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;

use crate::entry::{Entry, FRAME_OVERHEAD, Head};
use crate::flight::Bounds;
use crate::{BodyError, FetchError};

pub(crate) struct FrameLog {
    state: Mutex<State>,
    max_bytes: u64,
    bounds: Arc<Bounds>,
}

struct State {
    stage: Stage,
    end: Option<End>,
    /// Frames and what each of them was charged for.
    frames: VecDeque<(Bytes, u64)>,
    /// How many frames were let go at the front.
    base: usize,
    charged: u64,
    window: bool,
    /// By reader: how many frames it has read.
    cursors: Vec<Option<usize>>,
    /// By reader: whom to wake.
    parked: Vec<Option<Waker>>,
    vacant: Vec<usize>,
    live: usize,
    writer: Option<Waker>,
}

/// How far the answer has come.
#[derive(Clone)]
pub(crate) enum Stage {
    /// No head yet.
    Waiting,
    /// A head that every reader may have; the frames follow.
    Shared(Arc<Head>),
    /// The answer is for whoever asked first; everyone else asks for themselves.
    Alone,
    /// There is no answer.
    Failed(FetchError),
}

#[derive(Clone)]
pub(crate) enum End {
    /// The whole answer, and the entry where it was stored.
    Complete {
        trailers: Option<HeaderMap>,
        entry: Option<Arc<Entry>>,
    },
    Broken(BodyError),
}

/// Why a frame cannot be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// The answer is longer than an entry may be.
    Entry,
    /// All answers under way are together longer than they may be.
    Inflight,
}

impl FrameLog {
    pub(crate) fn new(max_bytes: u64, bounds: Arc<Bounds>) -> Self {
        let state = State {
            stage: Stage::Waiting,
            end: None,
            frames: VecDeque::new(),
            base: 0,
            charged: 0,
            window: false,
            cursors: Vec::new(),
            parked: Vec::new(),
            vacant: Vec::new(),
            live: 0,
            writer: None,
        };
        Self {
            state: Mutex::new(state),
            max_bytes,
            bounds,
        }
    }

    /// Nothing in here panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more reader, from the first frame on; none once frames may have been let go. Its seat is
    /// counted in the bounds, and given back when it leaves.
    pub(crate) fn read(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.lock();
        if state.window {
            return None;
        }
        let id = state.seat();
        drop(state);
        Some(Reader {
            log: Arc::clone(self),
            id,
            follower: true,
        })
    }

    pub(crate) fn set_stage(&self, stage: Stage) {
        let mut state = self.lock();
        if matches!(state.stage, Stage::Waiting) {
            state.stage = stage;
        }
        wake(state);
    }

    /// Ends the log, if it has not ended: what is missing is told to whoever waits.
    pub(crate) fn fail(&self, head: FetchError, body: BodyError) {
        let mut state = self.lock();
        if matches!(state.stage, Stage::Waiting) {
            state.stage = Stage::Failed(head);
        }
        if state.end.is_none() {
            state.end = Some(End::Broken(body));
        }
        wake(state);
    }

    /// Keeps a frame for everyone, now and later. On overflow the frame is not taken, and the log is
    /// a window from now on.
    pub(crate) fn capture(&self, frame: &Bytes, end: Option<End>) -> Result<(), Overflow> {
        let mut state = self.lock();
        let cost = cost(frame);
        let overflow = if state.charged.saturating_add(cost) > self.max_bytes {
            Some(Overflow::Entry)
        } else if !self.bounds.charge(cost) {
            Some(Overflow::Inflight)
        } else {
            None
        };
        if let Some(overflow) = overflow {
            state.window = true;
            return Err(overflow);
        }
        state.push(frame.clone(), cost);
        state.end = end;
        wake(state);
        Ok(())
    }

    /// Appends to a window. What the bound has no room for is let go at the front; one frame is
    /// always taken.
    pub(crate) fn slide(&self, frame: Bytes) {
        let mut state = self.lock();
        let slowest = state.places().min().unwrap_or(usize::MAX);
        while state.base < slowest && state.pop(&self.bounds) {}
        let cost = cost(&frame);
        let charged = loop {
            if state.charged.saturating_add(cost) <= self.max_bytes && self.bounds.charge(cost) {
                break cost;
            }
            if !state.pop(&self.bounds) {
                break 0;
            }
        };
        state.push(frame, charged);
        wake(state);
    }

    pub(crate) fn finish(&self, end: End) {
        let mut state = self.lock();
        if state.end.is_none() {
            state.end = Some(end);
        }
        wake(state);
    }

    /// Ready with `true` when a window has room (its fastest reader has read it all), with `false`
    /// when nobody reads any more.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.lock();
        let written = state.written();
        match state.places().max() {
            None => Poll::Ready(false),
            Some(fastest) if fastest == written => Poll::Ready(true),
            Some(_) => {
                state.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ready when nobody reads any more.
    pub(crate) fn poll_abandoned(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.live == 0 {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Everything captured so far.
    pub(crate) fn frames(&self) -> Vec<Bytes> {
        self.lock()
            .frames
            .iter()
            .map(|(frame, _)| frame.clone())
            .collect()
    }

    #[cfg(test)]
    fn retained(&self) -> u64 {
        self.lock().charged
    }
}

impl Drop for FrameLog {
    fn drop(&mut self) {
        self.bounds.release(self.lock().charged);
    }
}

impl fmt::Debug for FrameLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("FrameLog")
            .field("frames", &state.written())
            .field("window", &state.window)
            .finish_non_exhaustive()
    }
}

impl State {
    fn seat(&mut self) -> usize {
        self.live += 1;
        if let Some(id) = self.vacant.pop() {
            self.cursors[id] = Some(0);
            return id;
        }
        self.cursors.push(Some(0));
        self.parked.push(None);
        self.cursors.len() - 1
    }

    fn places(&self) -> impl Iterator<Item = usize> {
        self.cursors.iter().flatten().copied()
    }

    fn written(&self) -> usize {
        self.base + self.frames.len()
    }

    fn push(&mut self, frame: Bytes, charged: u64) {
        self.charged += charged;
        self.frames.push_back((frame, charged));
    }

    fn pop(&mut self, bounds: &Bounds) -> bool {
        let Some((_, charged)) = self.frames.pop_front() else {
            return false;
        };
        self.base += 1;
        self.charged -= charged;
        bounds.release(charged);
        true
    }
}

fn cost(frame: &Bytes) -> u64 {
    frame.len() as u64 + FRAME_OVERHEAD
}

/// Wakes every parked reader, after the lock is let go.
fn wake(mut state: MutexGuard<'_, State>) {
    let parked: Vec<_> = state.parked.iter_mut().filter_map(Option::take).collect();
    drop(state);
    parked.into_iter().for_each(Waker::wake);
}

/// One reader of a log, with a place of its own.
#[derive(Debug)]
pub(crate) struct Reader {
    log: Arc<FrameLog>,
    id: usize,
    follower: bool,
}

/// What a reader meets next.
pub(crate) enum Next {
    Data(Bytes),
    End(Option<HeaderMap>),
    Broken(BodyError),
}

impl Reader {
    /// Whoever began the flight: it counts as no waiter.
    pub(crate) fn first(log: &Arc<FrameLog>) -> Self {
        let id = log.lock().seat();
        Self {
            log: Arc::clone(log),
            id,
            follower: false,
        }
    }

    /// Ready once the head, or the lack of one, is known.
    pub(crate) fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<Stage> {
        let mut state = self.log.lock();
        if let Stage::Waiting = state.stage {
            park(&mut state, self.id, cx);
            return Poll::Pending;
        }
        Poll::Ready(state.stage.clone())
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut state = self.log.lock();
        let at = state.cursors[self.id].unwrap_or(0);
        if at < state.base {
            return Poll::Ready(Next::Broken(BodyError::Lagged));
        }
        if let Some((frame, _)) = state.frames.get(at - state.base) {
            let frame = frame.clone();
            state.cursors[self.id] = Some(at + 1);
            // A window's writer waits for whoever reads it to its end.
            if state.window && at + 1 == state.written() {
                let writer = state.writer.take();
                drop(state);
                writer.into_iter().for_each(Waker::wake);
            }
            return Poll::Ready(Next::Data(frame));
        }
        match &state.end {
            Some(End::Complete { trailers, .. }) => Poll::Ready(Next::End(trailers.clone())),
            Some(End::Broken(error)) => Poll::Ready(Next::Broken(error.clone())),
            None => {
                park(&mut state, self.id, cx);
                Poll::Pending
            }
        }
    }

    /// Ready at the end of the answer, whatever was read of it.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut state = self.log.lock();
        match &state.end {
            Some(end) => Poll::Ready(end.clone()),
            None => {
                park(&mut state, self.id, cx);
                Poll::Pending
            }
        }
    }

    /// Whether the whole answer was read.
    pub(crate) fn is_done(&self) -> bool {
        let state = self.log.lock();
        let read = state.cursors[self.id].unwrap_or(0);
        let complete = matches!(state.end, Some(End::Complete { trailers: None, .. }));
        complete && read == state.written()
    }
}

fn park(state: &mut State, id: usize, cx: &Context<'_>) {
    match &mut state.parked[id] {
        Some(waker) => waker.clone_from(cx.waker()),
        parked => *parked = Some(cx.waker().clone()),
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.log.lock();
        state.cursors[self.id] = None;
        state.parked[self.id] = None;
        state.vacant.push(self.id);
        state.live -= 1;
        let writer = if state.live == 0 || state.window {
            state.writer.take()
        } else {
            None
        };
        drop(state);
        if self.follower {
            self.log.bounds.leave();
        }
        writer.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
#[path = "frame_log_tests.rs"]
mod tests;
