//! A response body that holds a permit to its end.

use std::any::Any;

use bytes::Bytes;
use spark_core::{End, ResponseBody, Watch, Watched};

use crate::gate::sealed::Hold;
use crate::{ClassifyBody, FailKind, Outcome, Permit, TimeoutError};

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
    /// What went wrong below it, where that is known.
    cause: Option<FailKind>,
}

impl<W, P> Guard<W, P> {
    pub(crate) fn holding(permit: P, body: W) -> Self {
        let reader = Reader {
            body,
            reads: false,
            cause: None,
        };
        Self(Some((permit, reader)))
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

    fn failed(&mut self, error: &dyn Any) {
        if let (Some((_, reader)), Some(error)) = (&mut self.0, TimeoutError::behind(error)) {
            reader.cause = Some(FailKind::Timeout(error.phase));
        }
    }

    fn panicked(&mut self) {
        if let Some((_, reader)) = &mut self.0 {
            reader.cause = Some(FailKind::Panic);
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
        if let Some(outcome) = because(outcome, reader.cause) {
            permit.record(outcome);
        }
    }
}

/// What is known more exactly than by the classifier, which hears of an error only that there was
/// one, and of a panic that nobody read on.
fn because(mut outcome: Option<Outcome>, cause: Option<FailKind>) -> Option<Outcome> {
    match (&mut outcome, cause) {
        (Some(Outcome::Failure { kind, .. }), Some(cause)) if *kind == FailKind::Body => {
            *kind = cause;
        }
        (None, Some(FailKind::Panic)) => return Some(Outcome::failure(FailKind::Panic)),
        _ => {}
    }
    outcome
}
