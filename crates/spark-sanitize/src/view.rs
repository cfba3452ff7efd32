//! The reading that rules see: compatibility characters folded, accents and unseen characters
//! gone, white space in single steps. It is never handed on.

use std::borrow::Cow;

use unicode_normalization::char::{decompose_compatible, is_combining_mark};

use crate::{
    classes::{Class, class},
    offsets::Offsets,
    unicode::is_plain_ascii,
};

/// White space beyond this run is shortened; rules allow for that much between two words.
const RUN: usize = 3;

/// The canonical reading of `text` and the way back to it. Case stays: rules ignore it.
///
/// The fold is NFKD without its marks, which is NFKC without accents: `ﬁ`, `Ａ`, `𝐀` and `é`
/// become plain letters. Hangul and ideographs stay whole.
pub(crate) fn canonical(text: &str) -> (Cow<'_, str>, Offsets) {
    if is_plain_ascii(text.as_bytes()) && !has_long_gap(text.as_bytes()) {
        return (Cow::Borrowed(text), Offsets::default());
    }
    let mut out = String::with_capacity(text.len());
    let mut offsets = Offsets::default();
    let mut gap: Option<(usize, char)> = None;
    for (at, c) in text.char_indices() {
        let c = match class(c) {
            Class::Plain => c,
            Class::Becomes(other, _) => other,
            _ => continue,
        };
        if c.is_whitespace() {
            let (from, seen) = gap.unwrap_or((at, ' '));
            gap = Some((from, if c == '\n' { '\n' } else { seen }));
            continue;
        }
        if let Some((from, blank)) = gap.take() {
            offsets.note(out.len(), from);
            out.push(blank);
        }
        offsets.note(out.len(), at);
        match c {
            ' '..='~' | '\u{3400}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7A3}' => out.push(c),
            'ß' => out.push_str("ss"),
            'ø' | 'Ø' => out.push('o'),
            'ł' | 'Ł' => out.push('l'),
            _ => decompose_compatible(c, |part| {
                if !is_combining_mark(part) {
                    out.push(part);
                }
            }),
        }
    }
    (Cow::Owned(out), offsets)
}

fn has_long_gap(bytes: &[u8]) -> bool {
    let mut run = 0_usize;
    bytes.iter().any(|b| {
        run = if b.is_ascii_whitespace() { run + 1 } else { 0 };
        run > RUN
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_what_looks_alike() {
        for (text, folded) in [
            ("ｉｇｎｏｒｅ", "ignore"),
            ("𝐢𝐠𝐧𝐨𝐫𝐞", "ignore"),
            ("i\u{200B}g\u{AD}n\u{FE0F}ore", "ignore"),
            ("íǵnóré", "ignore"),
            ("über Größe", "uber Grosse"),
            ("a \u{A0}\u{3000}\t b\r\n\n c", "a b\nc"),
            ("오늘 날씨", "오늘 날씨"),
        ] {
            assert_eq!(canonical(text).0, folded);
        }
    }

    #[test]
    fn plain_text_is_borrowed() {
        assert!(matches!(
            canonical("Two words,\n a line.").0,
            Cow::Borrowed(_)
        ));
        assert_eq!(canonical("far \t\t\t apart").0, "far apart");
    }

    #[test]
    fn finds_the_way_back() {
        let text = "x  \u{3000}\u{200B}ｆoo!";
        let (view, offsets) = canonical(text);
        assert_eq!(view, "x foo!");
        let span = offsets.span(&(2..5), text);
        assert_eq!(&text[span], "ｆoo");
    }
}
