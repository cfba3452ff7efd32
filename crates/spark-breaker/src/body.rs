//! A response body that holds a permit to its end.

use bytes::Bytes;
use spark_core::{End, ResponseBody, Watch, Watched};

use crate::{ClassifyBody, Permit};

/// The response body of a service behind a breaker.
pub type BreakerBody<B, W> = ResponseBody<Watched<B, Guard<W>>>;

/// The permit of a response that is under way, and what reads its body. A response whose head said
/// all holds neither.
#[derive(Debug)]
pub struct Guard<W>(Option<(Permit, W)>);

impl<W> Guard<W> {
    pub(crate) fn holding(permit: Permit, body: W) -> Self {
        Self(Some((permit, body)))
    }

    pub(crate) fn empty() -> Self {
        Self(None)
    }
}

impl<W: ClassifyBody> Watch for Guard<W> {
    fn data(&mut self, data: &Bytes) {
        if let Some((permit, body)) = &mut self.0
            && body.data(data)
        {
            permit.first_byte();
        }
    }

    fn end(self, end: End) {
        if let Some((permit, body)) = self.0 {
            match body.end(end) {
                Some(outcome) => permit.record(outcome),
                None => drop(permit),
            }
        }
    }
}
