//! Cleaning the text that is handed on: as little as can be, and never so that it looks
//! different.
//!
//! Whether a joiner, a variation selector or a tag character stays depends on the plain
//! characters on both sides of it. Those are never removed here, so the same decision falls on
//! the cleaned text: cleaning twice is cleaning once.

use std::{borrow::Cow, ops::Range};

use crate::{
    classes::{Class, class, is_loose_mark, is_private_use, is_rtl, may_join, takes_variation},
    edit::Editor,
    hidden::{Hidden, Smuggled, untag},
    offsets::Offsets,
    ruleset as rule,
};

/// More marks than this on one letter are no writing any more.
const MARKS_ON_A_LETTER: usize = 4;
/// A run of this many zero-width characters is a message in bits.
const BITS: usize = 8;

/// A cleaned text, the way back to the original, and what was written between its lines.
#[derive(Debug)]
pub(crate) struct Cleaned<'t> {
    pub(crate) text: Cow<'t, str>,
    pub(crate) offsets: Offsets,
    pub(crate) hidden: Vec<Hidden>,
}

/// Cleans `text` of the rules that `strips` names, and tells `found` of every rule and place.
pub(crate) fn clean<'t>(
    text: &'t str,
    strips: &dyn Fn(usize) -> bool,
    found: &mut dyn FnMut(usize, Range<usize>),
) -> Cleaned<'t> {
    if is_plain_ascii(text.as_bytes()) {
        return Cleaned {
            text: Cow::Borrowed(text),
            offsets: Offsets::default(),
            hidden: Vec::new(),
        };
    }
    let mut cleaner = Cleaner {
        text,
        strips,
        found,
        editor: Editor::new(text),
        before: '\0',
        marks: 0,
        has_rtl: None,
        smuggled: Smuggled::default(),
    };
    cleaner.run();
    let (cleaned, offsets) = cleaner.editor.finish();
    Cleaned {
        text: cleaned,
        offsets,
        hidden: cleaner.smuggled.decode(),
    }
}

/// Nothing but printable ASCII, TAB, LF and CR.
pub(crate) fn is_plain_ascii(bytes: &[u8]) -> bool {
    // Without an early exit within a block, the compiler makes vector code of it.
    bytes.chunks(256).all(|block| {
        block.iter().fold(true, |ok, b| {
            ok & ((b' '..=b'~').contains(b) | (*b == b'\n') | (*b == b'\t') | (*b == b'\r'))
        })
    })
}

struct Cleaner<'t, 'f> {
    text: &'t str,
    strips: &'f dyn Fn(usize) -> bool,
    found: &'f mut dyn FnMut(usize, Range<usize>),
    editor: Editor<'t>,
    /// The last plain character.
    before: char,
    marks: usize,
    has_rtl: Option<bool>,
    smuggled: Smuggled,
}

impl Cleaner<'_, '_> {
    fn run(&mut self) {
        let mut at = 0;
        while let Some(c) = self.char_at(at) {
            let end = at + c.len_utf8();
            match class(c) {
                Class::Plain => {
                    self.plain(c, at..end);
                    at = end;
                }
                Class::Becomes(other, rule) => {
                    (self.found)(rule, at..end);
                    self.before = c;
                    if (self.strips)(rule) {
                        self.editor
                            .replace(&(at..end), other.encode_utf8(&mut [0; 4]));
                        self.before = other;
                    }
                    at = end;
                }
                // One byte-order mark at the very start is the habit of some editors.
                Class::Drop(rule) if at == 0 && c == '\u{FEFF}' => {
                    if (self.strips)(rule) {
                        self.editor.replace(&(at..end), "");
                    }
                    at = end;
                }
                Class::Drop(_) | Class::Variation | Class::Joiner | Class::Tag => {
                    at = self.between(at);
                }
            }
        }
    }

    fn char_at(&self, at: usize) -> Option<char> {
        self.text.get(at..).and_then(|rest| rest.chars().next())
    }

    fn plain(&mut self, c: char, span: Range<usize>) {
        self.before = c;
        if is_loose_mark(c) {
            self.marks = self.marks.saturating_add(1);
            if self.marks > MARKS_ON_A_LETTER {
                (self.found)(rule::COMBINING, span);
            }
            return;
        }
        self.marks = 0;
        if is_private_use(c) {
            (self.found)(rule::PRIVATE_USE, span);
        }
    }

    /// Decides the run of unseen characters that begins at `start`; returns its end.
    fn between(&mut self, start: usize) -> usize {
        let mut end = start;
        let mut after = '\0';
        for c in self.text.get(start..).unwrap_or_default().chars() {
            match class(c) {
                Class::Plain => after = c,
                Class::Becomes(other, rule) => {
                    after = if (self.strips)(rule) { other } else { c };
                }
                _ => {
                    end += c.len_utf8();
                    continue;
                }
            }
            break;
        }
        let run = self.text.get(start..end).unwrap_or_default();
        let flag = flag(self.before, run);
        let (mut tags, mut first, mut joined, mut bits) = (0, true, false, 0);
        for (i, c) in run.char_indices() {
            let span = start + i..start + i + c.len_utf8();
            let stays = match class(c) {
                Class::Drop(rule) => {
                    bits += usize::from(is_bit(c));
                    self.smuggled.bit(c, &span);
                    self.drop(rule, span);
                    continue;
                }
                Class::Tag => {
                    tags += 1;
                    tags <= flag.length
                }
                Class::Variation => first && takes_variation(self.before, c),
                _ => {
                    let rtl = self.has_rtl();
                    let stays = !joined && may_join(c, self.before, after, rtl);
                    joined |= stays;
                    bits += usize::from(is_bit(c) && !stays);
                    stays
                }
            };
            first = false;
            match class(c) {
                Class::Tag => {
                    if !(stays && flag.known) {
                        self.smuggled.tag(c, &span, stays);
                    }
                    if !stays {
                        self.drop(rule::TAG, span);
                    }
                }
                Class::Variation if !stays => {
                    self.smuggled.variation(c, &span);
                    self.drop(rule::VARIATION, span);
                }
                _ if !stays => self.drop(rule::INVISIBLE, span),
                _ => {}
            }
        }
        if bits >= BITS {
            (self.found)(rule::BITS, start..end);
        }
        end
    }

    fn drop(&mut self, rule: usize, span: Range<usize>) {
        if (self.strips)(rule) {
            self.editor.replace(&span, "");
        }
        (self.found)(rule, span);
    }

    fn has_rtl(&mut self) -> bool {
        *self.has_rtl.get_or_insert_with(|| {
            self.text
                .chars()
                .any(|c| matches!(class(c), Class::Plain) && is_rtl(c))
        })
    }
}

/// Zero-width characters that are used as zeros and ones.
fn is_bit(c: char) -> bool {
    matches!(
        c,
        '\u{200B}'..='\u{200D}' | '\u{2060}' | '\u{2062}' | '\u{2064}' | '\u{FEFF}'
    )
}

/// How many tag characters at the start of a run make a flag with the black flag before them.
struct Flag {
    length: usize,
    /// One of the three flags that every font has; others are read as text, too.
    known: bool,
}

fn flag(before: char, run: &str) -> Flag {
    let none = Flag {
        length: 0,
        known: false,
    };
    if before != '\u{1F3F4}' {
        return none;
    }
    let mut name = [0_u8; 6];
    let mut length = 0;
    for c in run.chars().filter(|c| !matches!(class(*c), Class::Drop(_))) {
        match untag(c) {
            Some(0x7F) if length >= 2 => {
                let known = matches!(&name[..length], b"gbeng" | b"gbsct" | b"gbwls");
                return Flag {
                    length: length + 1,
                    known,
                };
            }
            Some(b @ (b'0'..=b'9' | b'a'..=b'z')) if length < name.len() => {
                name[length] = b;
                length += 1;
            }
            _ => return none,
        }
    }
    none
}
