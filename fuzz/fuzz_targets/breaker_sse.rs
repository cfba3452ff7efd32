//! Streams of server-sent events, and what they say of a provider: the same however they are cut,
//! and never more kept than is allowed.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use bytes::Bytes;
use http::{HeaderValue, Response};
use libfuzzer_sys::fuzz_target;
use spark_breaker::{Classify, ClassifyBody, Head, LlmClassify, Outcome, Verdict};
use spark_core::sse::Splitter;
use spark_core::{Clock, End};

static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::system);

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    /// The sizes of the frames, again and again.
    cuts: [u8; 4],
    max: u16,
    kind: Kind,
    end: u8,
    text: &'a [u8],
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Kind {
    Events,
    Json,
    Refusal,
}

fuzz_target!(|input: Input<'_>| {
    let frames = || {
        let mut cuts = input.cuts.iter().cycle();
        let mut rest = input.text;
        std::iter::from_fn(move || {
            let size = usize::from(*cuts.next()?).max(1).min(rest.len());
            let (frame, after) = rest.split_at(size);
            rest = after;
            (!frame.is_empty()).then_some(frame)
        })
    };
    let max = usize::from(input.max);
    let whole = split(std::iter::once(input.text), max);
    assert_eq!(split(frames(), max), whole);
    let given: usize = whole.iter().map(|event| event.length).sum();
    assert!(given <= input.text.len());

    let end = match input.end % 3 {
        0 => End::Complete,
        1 => End::Error,
        _ => End::Cancelled,
    };
    let of_whole = classify(input.kind, std::iter::once(input.text), end);
    assert_eq!(classify(input.kind, frames(), end), of_whole);
});

#[derive(Debug, PartialEq)]
struct Seen {
    name: Vec<u8>,
    data: Option<Vec<u8>>,
    is_cut: bool,
    length: usize,
}

fn split<'a>(frames: impl Iterator<Item = &'a [u8]>, max: usize) -> Vec<Seen> {
    let mut splitter = Splitter::new(max);
    let mut seen = Vec::new();
    for frame in frames {
        let mut rest = frame;
        while let Some(event) = splitter.next(&mut rest) {
            // The last LF of a CRLF may have been cut off.
            let raw = event.raw().strip_suffix(b"\r\n");
            let length = raw.map_or(event.raw().len(), |raw| raw.len() + 1);
            assert!(length <= max);
            seen.push(Seen {
                name: event.name().to_vec(),
                data: event.data().map(<[u8]>::to_vec),
                is_cut: event.is_cut(),
                length,
            });
        }
        assert!(rest.is_empty());
    }
    if let Some(tail) = splitter.finish() {
        assert!(tail.raw().len() <= max);
    }
    seen
}

fn classify<'a>(
    kind: Kind,
    frames: impl Iterator<Item = &'a [u8]>,
    end: End,
) -> Option<Outcome> {
    let (status, content_type) = match kind {
        Kind::Events => (200, "text/event-stream"),
        Kind::Json => (200, "application/json"),
        Kind::Refusal => (429, "application/json"),
    };
    let mut response = Response::new(());
    *response.status_mut() = status.try_into().expect("a status");
    let value = HeaderValue::from_static(content_type);
    response.headers_mut().insert("content-type", value);
    let (parts, ()) = response.into_parts();
    let head = Head::new(&parts, &CLOCK);
    match Classify::<()>::response(&LlmClassify::new(), &head) {
        Verdict::Now(_) => unreachable!("the body decides"),
        Verdict::AtTheEnd(mut body) => {
            let mut has_begun = false;
            for frame in frames {
                let begun = body.data(&Bytes::copy_from_slice(frame));
                assert!(begun || !has_begun || matches!(kind, Kind::Refusal));
                has_begun = begun;
            }
            body.end(end)
        }
    }
}
