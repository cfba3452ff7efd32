//! Texts written in characters that nobody sees: tag characters, variation selectors, and the
//! invisible operators used as bits.

use std::ops::Range;

/// A text decoded from unseen characters.
#[derive(Debug)]
pub(crate) struct Hidden {
    pub(crate) text: String,
    pub(crate) span: Range<usize>,
    /// Whether its length alone says that it is no accident.
    pub(crate) certain: bool,
}

/// Collects what unseen characters spell, each channel for itself.
#[derive(Debug, Default)]
pub(crate) struct Smuggled {
    tags: Vec<u8>,
    loose_tags: usize,
    variations: Vec<u8>,
    bits: Vec<u8>,
    bit_count: usize,
    spans: [Option<Range<usize>>; 3],
}

/// Hidden texts of this length are no accident.
const CERTAIN: usize = 16;
/// Shorter ones say nothing.
const READABLE: usize = 4;

impl Smuggled {
    pub(crate) fn tag(&mut self, c: char, span: &Range<usize>, in_flag: bool) {
        if let Some(byte @ 0x20..=0x7E) = untag(c) {
            self.tags.push(byte);
            self.loose_tags += usize::from(!in_flag);
            self.widen(0, span);
        }
    }

    pub(crate) fn variation(&mut self, c: char, span: &Range<usize>) {
        let byte = match u32::from(c) {
            c @ 0xFE00..=0xFE0F => c - 0xFE00,
            c @ 0xE_0100..=0xE_01EF => c - 0xE_0100 + 16,
            _ => return,
        };
        self.variations.push(u8::try_from(byte).unwrap_or(b'?'));
        self.widen(1, span);
    }

    pub(crate) fn bit(&mut self, c: char, span: &Range<usize>) {
        let bit = match c {
            '\u{2062}' => 0,
            '\u{2064}' => 1,
            _ => return,
        };
        if self.bit_count.is_multiple_of(8) {
            self.bits.push(0);
        }
        if let Some(byte) = self.bits.last_mut() {
            *byte = (*byte << 1) | bit;
        }
        self.bit_count += 1;
        self.widen(2, span);
    }

    fn widen(&mut self, channel: usize, span: &Range<usize>) {
        match &mut self.spans[channel] {
            Some(whole) => whole.end = span.end,
            none => *none = Some(span.clone()),
        }
    }

    pub(crate) fn decode(self) -> Vec<Hidden> {
        let certain = [
            self.loose_tags >= CERTAIN,
            self.variations.len() >= CERTAIN,
            self.bits.len() >= CERTAIN,
        ];
        [self.tags, self.variations, self.bits]
            .into_iter()
            .zip(self.spans)
            .zip(certain)
            .filter_map(|((bytes, span), certain)| {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let length = text.chars().count();
                let seen = text.chars().filter(|c| is_printable(*c)).count();
                (length >= READABLE && seen.saturating_mul(10) >= length.saturating_mul(9))
                    .then_some(Hidden {
                        text,
                        span: span?,
                        certain,
                    })
            })
            .collect()
    }
}

fn is_printable(c: char) -> bool {
    c != char::REPLACEMENT_CHARACTER && (c.is_whitespace() || !c.is_control())
}

/// The ASCII character that a tag character mirrors.
pub(crate) fn untag(c: char) -> Option<u8> {
    u32::from(c)
        .checked_sub(0xE_0000)
        .and_then(|b| u8::try_from(b).ok())
        .filter(|b| *b >= 0x20)
}
