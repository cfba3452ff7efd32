//! What each code point is good for. Tables only; the decisions are in `unicode.rs`.

use crate::ruleset as rule;

/// How a character is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// A character like any other.
    Plain,
    /// Never belongs into a prompt; the rule it falls under.
    Drop(usize),
    /// Stands for another character.
    Becomes(char, usize),
    /// A variation selector: good after a base that has variants.
    Variation,
    /// A joiner or direction mark: good between some neighbours.
    Joiner,
    /// A tag character: good in the flags of England, Scotland, Wales and their like.
    Tag,
}

/// Classifies one character. ASCII is decided first, since most text is ASCII.
#[rustfmt::skip]
pub(crate) fn class(c: char) -> Class {
    match c {
        '\t' | '\n' | '\r' | ' '..='~' => Class::Plain,
        '\u{85}' | '\u{2028}' | '\u{2029}' => Class::Becomes('\n', rule::CONTROL),
        '\0'..='\u{1F}' | '\u{7F}'..='\u{9F}' => Class::Drop(rule::CONTROL),
        // Blanks that a reader sees as a space.
        '\u{3164}' | '\u{FFA0}' => Class::Becomes(' ', rule::INVISIBLE),
        '\u{AD}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{180E}' | '\u{200B}'..='\u{200F}'
            => Class::Joiner,
        '\u{34F}' | '\u{17B4}' | '\u{17B5}' | '\u{2060}'..='\u{2065}' | '\u{206A}'..='\u{206F}'
        | '\u{FEFF}' | '\u{FFF0}'..='\u{FFFB}' | '\u{1D159}' | '\u{1D173}'..='\u{1D17A}'
        | '\u{1BCA0}'..='\u{1BCA3}' => Class::Drop(rule::INVISIBLE),
        '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => Class::Drop(rule::BIDI),
        '\u{180B}'..='\u{180D}' | '\u{180F}' | '\u{FE00}'..='\u{FE0F}'
        | '\u{E0100}'..='\u{E01EF}' => Class::Variation,
        '\u{E0020}'..='\u{E007F}' => Class::Tag,
        '\u{E0000}'..='\u{E001F}' | '\u{E0080}'..='\u{E00FF}' | '\u{E01F0}'..='\u{E0FFF}'
            => Class::Drop(rule::TAG),
        '\u{FDD0}'..='\u{FDEF}' => Class::Drop(rule::NONCHARACTER),
        c if u32::from(c) & 0xFFFE == 0xFFFE => Class::Drop(rule::NONCHARACTER),
        _ => Class::Plain,
    }
}

/// Private-use characters: icon fonts mostly, so they are reported and kept.
pub(crate) fn is_private_use(c: char) -> bool {
    matches!(c, '\u{E000}'..='\u{F8FF}' | '\u{F0000}'..='\u{FFFFD}' | '\u{100000}'..='\u{10FFFD}')
}

/// A combining mark of the general blocks (not those that a script brings along).
pub(crate) fn is_loose_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36F}' | '\u{1AB0}'..='\u{1AFF}' | '\u{1DC0}'..='\u{1DFF}'
        | '\u{20D0}'..='\u{20FF}' | '\u{FE20}'..='\u{FE2F}')
}

/// Whether `selector` may follow `base`.
#[rustfmt::skip]
pub(crate) fn takes_variation(base: char, selector: char) -> bool {
    match selector {
        '\u{180B}'..='\u{180F}' => matches!(base, '\u{1820}'..='\u{18AF}'),
        '\u{FE0E}' | '\u{FE0F}' => is_pictograph(base) || matches!(base, '0'..='9' | '#' | '*'),
        '\u{FE00}'..='\u{FE0D}' => is_ideograph(base)
            || matches!(base, '0' | '\u{1000}'..='\u{109F}' | '\u{2018}'..='\u{201D}'
                | '\u{2200}'..='\u{22FF}' | '\u{2A00}'..='\u{2AFF}' | '\u{3001}'..='\u{303F}'
                | '\u{A840}'..='\u{A877}' | '\u{AA60}'..='\u{AA7F}' | '\u{FF01}'..='\u{FF60}'),
        '\u{E0100}'..='\u{E01EF}' => is_ideograph(base),
        _ => false,
    }
}

/// Whether a joiner or direction mark may stand between two characters.
pub(crate) fn may_join(mark: char, before: char, after: char, has_rtl: bool) -> bool {
    let beside = |test: fn(char) -> bool| test(before) || test(after);
    match mark {
        '\u{200D}' => (is_pictograph(before) && is_pictograph(after)) || beside(joins_visibly),
        '\u{200C}' => beside(joins_visibly),
        '\u{200B}' => beside(breaks_without_spaces),
        '\u{AD}' => before.is_alphabetic() && after.is_alphabetic(),
        '\u{200E}' | '\u{200F}' | '\u{61C}' => has_rtl,
        '\u{180E}' => beside(|c| matches!(c, '\u{1820}'..='\u{18AF}')),
        '\u{115F}' | '\u{1160}' => beside(|c| {
            matches!(c, '\u{1100}'..='\u{115E}' | '\u{1161}'..='\u{11FF}'
                | '\u{A960}'..='\u{A97F}' | '\u{D7B0}'..='\u{D7FF}')
        }),
        _ => false,
    }
}

/// Emoji and the symbols that can be shown as such (an upper bound of Extended_Pictographic).
#[rustfmt::skip]
pub(crate) fn is_pictograph(c: char) -> bool {
    matches!(c, '\u{A9}' | '\u{AE}' | '\u{203C}' | '\u{2049}' | '\u{2122}' | '\u{2139}'
        | '\u{2194}'..='\u{21AA}' | '\u{231A}'..='\u{23FF}' | '\u{24C2}'
        | '\u{25AA}'..='\u{25FE}' | '\u{2600}'..='\u{27BF}' | '\u{2934}'..='\u{2935}'
        | '\u{2B05}'..='\u{2B55}' | '\u{3030}' | '\u{303D}' | '\u{3297}' | '\u{3299}'
        | '\u{1F000}'..='\u{1FAFF}' | '\u{1FC00}'..='\u{1FFFD}')
}

/// Scripts written from right to left.
pub(crate) fn is_rtl(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8FF}' | '\u{FB1D}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FDFF}'
        | '\u{FE70}'..='\u{FEFE}' | '\u{10800}'..='\u{10FFF}' | '\u{1E800}'..='\u{1EFFF}')
}

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFD}')
}

/// Scripts whose letters change their form beside a joiner.
#[rustfmt::skip]
fn joins_visibly(c: char) -> bool {
    matches!(c, '\u{600}'..='\u{DFF}' | '\u{F00}'..='\u{109F}' | '\u{1780}'..='\u{18AF}'
        | '\u{1A20}'..='\u{1AAF}' | '\u{1B00}'..='\u{1CFF}' | '\u{A800}'..='\u{A8FF}'
        | '\u{A930}'..='\u{A9FF}' | '\u{AA00}'..='\u{AADF}' | '\u{ABC0}'..='\u{ABFF}'
        | '\u{FB50}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FDFF}' | '\u{FE70}'..='\u{FEFE}'
        | '\u{10A00}'..='\u{10FFF}' | '\u{11000}'..='\u{11FFF}' | '\u{1E900}'..='\u{1E95F}')
}

/// Scripts that mark a possible line break by a zero-width space.
fn breaks_without_spaces(c: char) -> bool {
    matches!(c, '\u{E00}'..='\u{EFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}'
        | '\u{1980}'..='\u{1AAF}' | '\u{AA60}'..='\u{AA7F}')
}
