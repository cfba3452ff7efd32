//! A header value in the making: on the stack, without the formatting machinery.

use http::HeaderValue;

/// The largest integer of a structured field (RFC 9651, §3.3.1).
pub(crate) const MAX_INTEGER: u64 = 999_999_999_999_999;
/// Numbers are copied in one piece of this size, of which the end may be void.
pub(crate) const NUMBER: usize = 16;

/// Up to `N` characters, of which each number wants [`NUMBER`] to be free.
///
/// What does not fit makes the value empty: a number that is cut is another number.
#[derive(Clone, Copy)]
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, text: &[u8]) {
        let end = self.len + text.len();
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(text);
        }
        self.len = end;
    }

    /// A number in decimal; one beyond [`MAX_INTEGER`] as that.
    #[inline]
    pub(crate) fn push_number(&mut self, number: u64) {
        let mut rest = number.min(MAX_INTEGER);
        // In a register: single bytes in memory that are read as a whole soon after cost a wait.
        let mut digits = 0u128;
        let mut count = 0;
        loop {
            digits = digits << 8 | u128::from(b'0' + (rest % 10) as u8);
            count += 1;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        match self.bytes.get_mut(self.len..self.len + NUMBER) {
            Some(room) => {
                room.copy_from_slice(&digits.to_le_bytes());
                self.len += count;
            }
            None => self.len = N + 1,
        }
    }

    /// The value: one allocation. All characters are ours or checked before.
    #[inline]
    pub(crate) fn value(&self) -> HeaderValue {
        let text = self.bytes.get(..self.len);
        text.and_then(|text| HeaderValue::from_bytes(text).ok())
            .unwrap_or_else(|| HeaderValue::from_static(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_does_not_fit_is_not_cut() {
        let mut text = Text::<20>::new();
        text.push(b"r=");
        text.push_number(7);
        assert_eq!(text.value(), "r=7");
        text.push(&[b'x'; 17]);
        assert_eq!(text.len, 20);
        assert_eq!(text.value(), "r=7xxxxxxxxxxxxxxxxx");
        text.push(b"x");
        assert!(text.value().is_empty());
        text.push_number(1);
        assert!(text.value().is_empty());

        let mut text = Text::<NUMBER>::new();
        text.push(b"r=");
        text.push_number(7);
        assert!(
            text.value().is_empty(),
            "no room for a number of any length"
        );
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_they_are(number: u64, shift in 0u32..64) {
            let mut text = Text::<32>::new();
            let number = number >> shift;
            text.push_number(number);
            text.push(b";");
            text.push_number(3);
            let expected = format!("{};3", number.min(MAX_INTEGER));
            prop_assert_eq!(text.value(), expected.as_str());
        }
    }
}
