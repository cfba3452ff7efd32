//! A response body that holds a permit to its end.

use bytes::Bytes;
use spark_core::{End, ResponseBody, Watch, Watched};

use crate::gate::sealed::Hold;
use crate::{ClassifyBody, Permit};

/// The response body of a service behind a breaker.
pub type BreakerBody<B, W, P = Permit> = ResponseBody<Watched<B, Guard<W, P>>>;

/// The permit of a response that is under way, and what reads its body. A response whose head said
/// all holds neither.
#[derive(Debug)]
pub struct Guard<W, P = Permit>(Option<(P, Reader<W>)>);

#[derive(Debug)]
struct Reader<W> {
    body: W,
    /// It has begun to read a frame and has not come back: it panicked.
    reads: bool,
}

impl<W, P> Guard<W, P> {
    pub(crate) fn holding(permit: P, body: W) -> Self {
        let reads = false;
        Self(Some((permit, Reader { body, reads })))
    }

    pub(crate) fn empty() -> Self {
        Self(None)
    }
}

impl<W: ClassifyBody, P: Hold> Watch for Guard<W, P> {
    fn data(&mut self, data: &Bytes) {
        if let Some((permit, reader)) = &mut self.0 {
            reader.reads = true;
            permit.judging(true);
            let content = reader.body.data(data);
            permit.judging(false);
            reader.reads = false;
            if content {
                permit.first_byte();
            }
        }
    }

    fn end(self, end: End) {
        let Some((mut permit, reader)) = self.0 else {
            return;
        };
        // Who has panicked is not asked again, least of all while the thread unwinds.
        if reader.reads {
            return;
        }
        permit.judging(true);
        let outcome = reader.body.end(end);
        permit.judging(false);
        if let Some(outcome) = outcome {
            permit.record(outcome);
        }
    }
}
