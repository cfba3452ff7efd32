//! Text of bounded length.

use std::fmt::{self, Write};

/// The first `max` bytes of `text`, or a little less: never half a character.
pub(crate) fn head(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What `value` displays, cut at `max` bytes. The writing stops there too: a value that never
/// stops writing costs no more.
pub(crate) fn display(value: &dyn fmt::Display, max: usize) -> String {
    let mut bounded = Bounded {
        text: String::new(),
        max,
    };
    // An error is how the end of the room is told to the writer.
    let _ = write!(bounded, "{value}");
    bounded.text
}

struct Bounded {
    text: String,
    max: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = self.max - self.text.len();
        let part = head(more, room);
        self.text.push_str(part);
        if part.len() < more.len() {
            // Nothing may follow what was cut.
            self.max = self.text.len();
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Endless;

    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                f.write_str("é")?;
            }
        }
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(head("aé", 2), "a");
        assert_eq!(head("aé", 9), "aé");
        assert_eq!(display(&Endless, 5), "éé");
        assert_eq!(display(&"short", 5), "short");
    }
}
