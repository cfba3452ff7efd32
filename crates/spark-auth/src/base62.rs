//! The alphabet of keys: 62 letters and digits, so that a double click selects a whole key.

use zeroize::Zeroizing;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The largest multiple of 62 that a byte can hold. Bytes from here on are thrown away: taking them
/// modulo 62 would make the first eight letters likelier than the others.
const UNBIASED: u8 = 248;

/// How many base62 digits hold any CRC32: 62^6 > 2^32 > 62^5.
pub(crate) const CHECKSUM_LEN: usize = 6;

/// Fills `out` with uniformly random letters from the operating system's generator.
pub(crate) fn random(out: &mut [u8]) -> Result<(), getrandom::Error> {
    let mut pool = Zeroizing::new([0u8; 64]);
    let mut unused: &[u8] = &[];
    for letter in out {
        *letter = loop {
            if let Some((&byte, rest)) = unused.split_first() {
                unused = rest;
                if byte < UNBIASED {
                    break ALPHABET[usize::from(byte % 62)];
                }
            } else {
                getrandom::fill(&mut pool[..])?;
                unused = &pool[..];
            }
        };
    }
    Ok(())
}

/// The CRC32 of `text` as six base62 digits, zero-padded.
pub(crate) fn checksum(text: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut rest = crc32fast::hash(text);
    let mut digits = [b'0'; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// Whether these six letters are the checksum of `text`. Multiplying reads a number faster than
/// dividing writes it.
pub(crate) fn is_checksum(letters: &[u8; CHECKSUM_LEN], text: &[u8]) -> bool {
    let [a, b, c, d, e, f] = letters.map(|letter| u64::from(VALUES[usize::from(letter)]));
    let pair = |high: u64, low: u64| high * 62 + low;
    let value = (pair(a, b) * 3_844 + pair(c, d)) * 3_844 + pair(e, f);
    value == u64::from(crc32fast::hash(text))
}

/// What each letter of the alphabet stands for; other bytes are as good as none.
const VALUES: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut at = 0;
    while at < ALPHABET.len() {
        values[ALPHABET[at] as usize] = at as u8;
        at += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_is_drawn_equally_often() {
        const DRAWS: usize = 62 * 4_000;
        let mut text = vec![0; DRAWS];
        random(&mut text).unwrap();
        let mut counts = [0usize; 62];
        for byte in text {
            counts[ALPHABET.iter().position(|&letter| letter == byte).unwrap()] += 1;
        }
        // Expected 4,000 each with a standard deviation of 63; a modulo bias would put 5,000
        // against 4,000. Eight deviations make a false alarm once in 10^13 runs.
        for (letter, count) in counts.into_iter().enumerate() {
            assert!((3_500..=4_500).contains(&count), "letter {letter}: {count}");
        }
    }

    #[test]
    fn a_checksum_is_six_digits_and_the_known_one() {
        // CRC32("123456789") is 0xCBF43926 = 3421780262, the check value of its definition.
        let mut value = 0u64;
        for digit in checksum(b"123456789") {
            let place = ALPHABET.iter().position(|&letter| letter == digit).unwrap();
            value = value * 62 + place as u64;
        }
        assert_eq!(value, 0xCBF4_3926);
        assert_eq!(checksum(b""), *b"000000");
    }

    #[test]
    fn a_checksum_is_known_again_and_no_other_text_is_taken_for_it() {
        for text in [&b""[..], b"1", b"123456789", &[0xff; 58]] {
            let right = checksum(text);
            assert!(is_checksum(&right, text));
            for (at, letter) in (0..6).flat_map(|at| ALPHABET.map(|letter| (at, letter))) {
                let mut other = right;
                other[at] = letter;
                assert_eq!(is_checksum(&other, text), other == right);
            }
        }
        // 62^6 is more than a CRC32 can be: what is too large is no checksum, and does not wrap.
        assert!(!is_checksum(b"zzzzzz", b"123456789"));
    }
}
