//! From a place in a derived text back to the place it came from.

use std::ops::Range;

/// A sparse map: between two anchors, both texts run side by side byte for byte.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    /// (offset in the derived text, offset in the source), ascending in both.
    anchors: Vec<(u32, u32)>,
}

impl Offsets {
    /// Says that the derived text's byte `derived` begins what came from the source's `source`.
    pub(crate) fn note(&mut self, derived: usize, source: usize) {
        let (Ok(derived), Ok(source)) = (u32::try_from(derived), u32::try_from(source)) else {
            return;
        };
        let (last_derived, last_source) = self.anchors.last().copied().unwrap_or((0, 0));
        if u64::from(last_source) + u64::from(derived - last_derived.min(derived))
            == u64::from(source)
        {
            return;
        }
        match self.anchors.last_mut() {
            Some(last) if last.0 == derived => last.1 = source,
            _ => self.anchors.push((derived, source)),
        }
    }

    /// The span of `source` that a span of the derived text came from, widened to whole
    /// characters.
    pub(crate) fn span(&self, span: &Range<usize>, source: &str) -> Range<usize> {
        let start = floor(source, self.at(span.start));
        let end = if span.end <= span.start {
            start
        } else {
            ceil(source, self.at(span.end - 1).saturating_add(1))
        };
        start..end.max(start)
    }

    fn at(&self, derived: usize) -> usize {
        let wanted = u32::try_from(derived).unwrap_or(u32::MAX);
        let after = self.anchors.partition_point(|anchor| anchor.0 <= wanted);
        let (from, to) = match after.checked_sub(1).and_then(|i| self.anchors.get(i)) {
            Some(&(from, to)) => (from as usize, to as usize),
            None => (0, 0),
        };
        to.saturating_add(derived.saturating_sub(from))
    }
}

fn floor(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn ceil(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_back_over_dropped_and_widened_characters() {
        // "a\u{200B}b\u{FF21}c" seen as "abAc"
        let source = "a\u{200B}b\u{FF21}c";
        let mut map = Offsets::default();
        for (derived, from) in [(0, 0), (1, 4), (2, 5), (3, 8)] {
            map.note(derived, from);
        }
        assert_eq!(map.span(&(0..1), source), 0..1);
        assert_eq!(map.span(&(0..2), source), 0..5);
        assert_eq!(map.span(&(2..3), source), 5..8);
        assert_eq!(map.span(&(3..4), source), 8..9);
        assert_eq!(map.span(&(0..4), source), 0..source.len());
        assert_eq!(map.span(&(90..99), source), source.len()..source.len());
    }
}
