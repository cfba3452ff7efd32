//! Server-sent events, cut out of a stream of bytes.
//!
//! The format: WHATWG HTML, 9.2 "Server-sent events".

mod beginning;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use memchr::memchr2;

pub use beginning::{Beginning, is_event_stream};

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Cuts a stream of bytes into [`Event`]s, however the bytes come. Linear in the bytes; it keeps no
/// more of them than the longest event that it was made for.
///
/// An event ends with a blank line: LF, CR or CRLF. One that lies whole in the bytes at hand is not
/// copied. One that is longer than the limit is given once, cut to the limit
/// ([`Event::is_cut`]), as soon as that is known; the rest of it is skipped.
///
/// # Example
/// ```
/// use spark_core::sse::Splitter;
/// let mut splitter = Splitter::new(1_024);
/// let mut seen = Vec::new();
/// for frame in ["event: a\nda", "ta: 1\n\n: ping\n\ndata: 2\r\n", "\r\n"] {
///     let mut rest = frame.as_bytes();
///     while let Some(event) = splitter.next(&mut rest) {
///         seen.push((event.name().to_vec(), event.data().map(<[u8]>::to_vec)));
///     }
/// }
/// let expected = [
///     (b"a".to_vec(), Some(b"1".to_vec())),
///     (b"".to_vec(), None), // a comment
///     (b"".to_vec(), Some(b"2".to_vec())),
/// ];
/// assert_eq!(seen, expected);
/// assert!(splitter.finish().is_none());
/// ```
pub struct Splitter {
    max: usize,
    /// The beginning of an event that has not ended; or the one that was given last.
    carried: Vec<u8>,
    /// `carried` was given.
    given: bool,
    /// The line under way is not empty.
    in_line: bool,
    /// The last byte was a CR: a LF right after it belongs to the same line break.
    after_cr: bool,
    /// The event under way was given, cut.
    skips: bool,
    /// No event was given yet: a byte order mark may stand before the first.
    first: bool,
}

impl Splitter {
    /// For events of up to `max` bytes each, their blank line included.
    ///
    /// # Example
    /// ```
    /// use spark_core::sse::Splitter;
    /// let mut rest = &b"data: a long one\n\ndata: b\n\n"[..];
    /// let mut splitter = Splitter::new(9);
    /// assert!(splitter.next(&mut rest).unwrap().is_cut());
    /// assert!(!splitter.next(&mut rest).unwrap().is_cut());
    /// ```
    pub const fn new(max: usize) -> Self {
        Self {
            max,
            carried: Vec::new(),
            given: false,
            in_line: false,
            after_cr: false,
            skips: false,
            first: true,
        }
    }

    /// Takes the next event off `input`. `None` when no event ends in it: then all of it was taken.
    ///
    /// # Example
    /// ```
    /// use spark_core::sse::Splitter;
    /// let mut rest = &b"data: a\n\ndata: b"[..];
    /// let mut splitter = Splitter::new(1_024);
    /// assert_eq!(splitter.next(&mut rest).unwrap().data(), Some(&b"a"[..]));
    /// assert!(splitter.next(&mut rest).is_none());
    /// assert!(rest.is_empty());
    /// ```
    pub fn next<'e, 'i: 'e>(&'e mut self, input: &mut &'i [u8]) -> Option<Event<'e>> {
        self.forget_given();
        if self.skips {
            let end = self.scan(input);
            *input = &input[end.unwrap_or(input.len())..];
            self.skips = end.is_none();
        }
        if self.after_cr && self.carried.is_empty() && !self.skips {
            // The second half of the line break that ended the event before.
            match *input {
                [] => return None,
                [b'\n', rest @ ..] => *input = rest,
                _ => {}
            }
            self.after_cr = false;
        }
        if input.is_empty() {
            return None;
        }
        let text = *input;
        let end = self.scan(text);
        let (here, rest) = text.split_at(end.unwrap_or(text.len()));
        *input = rest;
        // Whether the last LF of a CRLF is here is a matter of how the stream was cut.
        let half = end.is_some() && here.ends_with(b"\r\n");
        let is_cut = self.carried.len() + here.len() - usize::from(half) > self.max;
        if end.is_none() && !is_cut {
            self.carry(here);
            return None;
        }
        self.skips = end.is_none();
        let here = if is_cut {
            &here[..self.max - self.carried.len()]
        } else {
            here
        };
        let first = std::mem::replace(&mut self.first, false);
        if self.carried.is_empty() {
            return Some(Event::read(here, first, is_cut));
        }
        self.carry(here);
        self.given = true;
        Some(Event::read(&self.carried, first, is_cut))
    }

    /// What came after the last event, when the stream is over: an event that no blank line ended,
    /// which its reader should not trust. Cut and empty when it is the rest of one that was too long.
    ///
    /// # Example
    /// ```
    /// use spark_core::sse::Splitter;
    /// let mut rest = &b"data: a\n\ndata: b"[..];
    /// let mut splitter = Splitter::new(1_024);
    /// while splitter.next(&mut rest).is_some() {}
    /// assert_eq!(splitter.finish().unwrap().data(), Some(&b"b"[..]));
    /// assert!(splitter.finish().is_none());
    /// ```
    pub fn finish(&mut self) -> Option<Event<'_>> {
        self.forget_given();
        let skipped = std::mem::replace(&mut self.skips, false);
        if !skipped && self.carried.is_empty() {
            return None;
        }
        self.given = true;
        self.in_line = false;
        self.after_cr = false;
        Some(Event::read(&self.carried, self.first, skipped))
    }

    fn forget_given(&mut self) {
        if std::mem::replace(&mut self.given, false) {
            self.carried.clear();
        }
    }

    /// The buffer doubles as it fills, but not beyond the longest event.
    fn carry(&mut self, text: &[u8]) {
        let length = self.carried.len();
        if text.len() > self.carried.capacity() - length {
            let room = length.min(self.max.saturating_sub(length)).max(text.len());
            self.carried.reserve_exact(room);
        }
        self.carried.extend_from_slice(text);
    }

    /// Where in `input` the event under way ends, behind its blank line.
    fn scan(&mut self, input: &[u8]) -> Option<usize> {
        let mut at = 0;
        if let (true, Some(byte)) = (self.after_cr, input.first()) {
            self.after_cr = false;
            at = usize::from(*byte == b'\n');
        }
        loop {
            let rest = &input[at..];
            let Some(length) = memchr2(b'\n', b'\r', rest) else {
                self.in_line |= !rest.is_empty();
                return None;
            };
            let is_blank = length == 0 && !self.in_line;
            self.in_line = false;
            at += length + 1;
            if rest[length] == b'\r' {
                match input.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            if is_blank {
                return Some(at);
            }
        }
    }
}

impl fmt::Debug for Splitter {
    /// Without the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Splitter")
            .field("max", &self.max)
            .field("carried", &self.carried.len())
            .finish_non_exhaustive()
    }
}

/// One event of a stream, or a comment between two.
pub struct Event<'a> {
    raw: &'a [u8],
    name: &'a [u8],
    data: Option<Cow<'a, [u8]>>,
    is_cut: bool,
}

impl<'a> Event<'a> {
    fn read(raw: &'a [u8], first: bool, is_cut: bool) -> Self {
        let mut event = Self {
            raw,
            name: b"",
            data: None,
            is_cut,
        };
        let mut rest = match raw.strip_prefix(BOM) {
            Some(rest) if first => rest,
            _ => raw,
        };
        while !rest.is_empty() {
            let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            event.line(&rest[..end]);
            // The LF of a CRLF is taken for an empty line, which says nothing.
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        event
    }

    fn line(&mut self, line: &'a [u8]) {
        let value = |rest: &'a [u8]| match rest {
            [] => Some(rest),
            [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
            _ => None,
        };
        if let Some(value) = line.strip_prefix(b"data").and_then(value) {
            match &mut self.data {
                None => self.data = Some(Cow::Borrowed(value)),
                Some(data) => {
                    let data = data.to_mut();
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            }
        } else if let Some(value) = line.strip_prefix(b"event").and_then(value) {
            self.name = value;
        }
    }

    /// The bytes as they came, with the blank line.
    ///
    /// # Example
    /// ```
    /// # use spark_core::sse::Splitter;
    /// let mut rest = &b"id: 7\ndata: a\n\n"[..];
    /// let mut splitter = Splitter::new(1_024);
    /// assert_eq!(splitter.next(&mut rest).unwrap().raw(), b"id: 7\ndata: a\n\n");
    /// ```
    pub fn raw(&self) -> &[u8] {
        self.raw
    }

    /// The same: a part of `from` where they lie in it, else a copy.
    ///
    /// # Example
    /// ```
    /// # use spark_core::sse::Splitter;
    /// use bytes::Bytes;
    /// let frame = Bytes::from_static(b"data: a\n\n");
    /// let mut splitter = Splitter::new(1_024);
    /// let raw = splitter.next(&mut &frame[..]).unwrap().to_bytes(&frame);
    /// assert_eq!(raw.as_ptr(), frame.as_ptr());
    /// ```
    pub fn to_bytes(&self, from: &Bytes) -> Bytes {
        let within = from.as_ptr_range();
        let raw = self.raw.as_ptr_range();
        if within.start <= raw.start && raw.end <= within.end {
            return from.slice_ref(self.raw);
        }
        Bytes::copy_from_slice(self.raw)
    }

    /// What its `event` line says; empty without one.
    ///
    /// # Example
    /// ```
    /// # use spark_core::sse::Splitter;
    /// let mut rest = &b"event: ping\ndata: {}\n\n"[..];
    /// assert_eq!(Splitter::new(1_024).next(&mut rest).unwrap().name(), b"ping");
    /// ```
    pub fn name(&self) -> &[u8] {
        self.name
    }

    /// Its `data` lines, joined by line feeds; `None` without any, as in a comment.
    ///
    /// # Example
    /// ```
    /// # use spark_core::sse::Splitter;
    /// let mut rest = &b"data: a\ndata:b\n\n"[..];
    /// assert_eq!(Splitter::new(1_024).next(&mut rest).unwrap().data(), Some(&b"a\nb"[..]));
    /// ```
    pub fn data(&self) -> Option<&[u8]> {
        self.data.as_deref()
    }

    /// Whether it was longer than the splitter's limit: then this is its beginning.
    ///
    /// # Example
    /// ```
    /// # use spark_core::sse::Splitter;
    /// let mut rest = &b"data: abcdef\n\n"[..];
    /// let mut splitter = Splitter::new(8);
    /// let event = splitter.next(&mut rest).unwrap();
    /// assert!(event.is_cut());
    /// assert_eq!(event.data(), Some(&b"ab"[..]));
    /// ```
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }
}

impl fmt::Debug for Event<'_> {
    /// Without the text, which may be a prompt's answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("bytes", &self.raw.len())
            .field("is_cut", &self.is_cut)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;
