//! Copy-on-write editing: the text is borrowed until something really changes.

use std::{borrow::Cow, ops::Range};

use crate::offsets::Offsets;

/// Takes edits in ascending order and writes a new text only if there are any.
#[derive(Debug)]
pub(crate) struct Editor<'t> {
    source: &'t str,
    out: String,
    copied: usize,
    changed: bool,
    offsets: Offsets,
}

impl<'t> Editor<'t> {
    pub(crate) fn new(source: &'t str) -> Self {
        Self {
            source,
            out: String::new(),
            copied: 0,
            changed: false,
            offsets: Offsets::default(),
        }
    }

    /// Puts `with` where `span` stands. Spans come in ascending order; what overlaps an earlier
    /// one is cut.
    pub(crate) fn replace(&mut self, span: &Range<usize>, with: &str) {
        if span.start < self.copied && span.end <= self.copied {
            return;
        }
        let start = span.start.max(self.copied);
        let end = span.end.max(start);
        let Some(kept) = self.source.get(self.copied..start) else {
            return;
        };
        if !self.changed {
            self.changed = true;
            self.out.reserve(self.source.len());
        }
        self.out.push_str(kept);
        if !with.is_empty() {
            self.offsets.note(self.out.len(), start);
            self.out.push_str(with);
        }
        self.offsets.note(self.out.len(), end);
        self.copied = end;
    }

    pub(crate) fn finish(mut self) -> (Cow<'t, str>, Offsets) {
        if !self.changed {
            return (Cow::Borrowed(self.source), self.offsets);
        }
        self.out
            .push_str(self.source.get(self.copied..).unwrap_or_default());
        (Cow::Owned(self.out), self.offsets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borrows_until_there_is_an_edit() {
        let (text, _) = Editor::new("unchanged").finish();
        assert!(matches!(text, Cow::Borrowed("unchanged")));
    }

    #[test]
    fn replaces_inserts_and_removes() {
        let mut editor = Editor::new("one two three");
        editor.replace(&(0..0), ">");
        editor.replace(&(4..8), "");
        editor.replace(&(8..13), "3");
        editor.replace(&(5..13), "");
        let (text, offsets) = editor.finish();
        assert_eq!(text, ">one 3");
        assert_eq!(offsets.span(&(1..4), "one two three"), 0..3);
        assert_eq!(offsets.span(&(5..6), "one two three"), 8..9);
    }
}
