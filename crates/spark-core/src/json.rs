//! JSON, written straight into one buffer.

use std::io::{self, Write};

use bytes::Bytes;
use serde_json::Value;

/// What a refusal takes; a longer one moves to the heap.
const SHORT: usize = 512;

/// A JSON text in the making. Its skeleton is written as it is, and each value by `serde_json`:
/// escaping is its job.
///
/// The bytes stand on the stack while they fit, and are copied into an allocation of their very
/// size in the end, the only one: `Bytes` of a `Vec` with room to spare would take two.
pub(crate) struct Json {
    short: [u8; SHORT],
    len: usize,
    /// Everything, once it does not fit: else empty.
    long: Vec<u8>,
}

impl Json {
    pub(crate) fn new() -> Self {
        Self {
            short: [0; SHORT],
            len: 0,
            long: Vec::new(),
        }
    }

    /// A piece of the skeleton, or a number: what is JSON already.
    pub(crate) fn raw(&mut self, json: &str) -> &mut Self {
        self.push(json.as_bytes());
        self
    }

    /// A string.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        // Neither the buffer nor a string fails.
        let _ = serde_json::to_writer(&mut *self, text);
        self
    }

    /// Any value.
    pub(crate) fn value(&mut self, value: &Value) -> &mut Self {
        // Neither the buffer nor a value, whose keys are strings, fails.
        let _ = serde_json::to_writer(&mut *self, value);
        self
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        if self.long.is_empty() {
            return Bytes::copy_from_slice(&self.short[..self.len]);
        }
        self.long.into()
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.short.get_mut(self.len..end) {
            Some(room) if self.long.is_empty() => {
                room.copy_from_slice(bytes);
                self.len = end;
            }
            _ => self.push_long(bytes),
        }
    }

    #[cold]
    fn push_long(&mut self, bytes: &[u8]) {
        if self.long.is_empty() {
            self.long.reserve(4 * SHORT);
            self.long.extend_from_slice(&self.short[..self.len]);
        }
        self.long.extend_from_slice(bytes);
    }
}

impl Write for Json {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.push(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_length_is_written_whole_and_escaped() {
        for len in (0..20).chain(SHORT - 20..SHORT + 20).chain([5_000]) {
            for character in ["x", "\"", "\u{1}", "é"] {
                let text = character.repeat(len);
                let mut json = Json::new();
                json.raw("{\"a\":").text(&text);
                json.raw(",\"b\":").value(&text.as_str().into()).raw("}");
                let read: Value = serde_json::from_slice(&json.into_bytes()).unwrap();
                assert_eq!(read["a"], text.as_str(), "{len} of {character:?}");
                assert_eq!(read["b"], text.as_str(), "{len} of {character:?}");
            }
        }
    }

    #[test]
    fn nothing_is_empty() {
        assert!(Json::new().into_bytes().is_empty());
    }
}
