//! SipHash-1-3, which std's `HashMap` uses, for keys that are hashed once and in few pieces.
//!
//! std offers it under a random key only through `RandomState`, whose hasher pays for every small
//! write: a network takes it twice the instructions. Here a write of known size becomes straight
//! code. Tests hold it against std's.

use std::hash::Hasher;

/// A secret of 128 bits.
#[derive(Clone, Copy)]
pub(crate) struct Seed(pub(crate) u64, pub(crate) u64);

#[derive(Clone, Copy)]
pub(crate) struct Sip {
    state: [u64; 4],
    /// The last `length % 8` bytes; what is above them is zero.
    tail: u64,
    length: u64,
}

impl Sip {
    #[inline]
    pub(crate) fn new(Seed(k0, k1): Seed) -> Self {
        Self {
            state: [
                k0 ^ 0x736f_6d65_7073_6575,
                k1 ^ 0x646f_7261_6e64_6f6d,
                k0 ^ 0x6c79_6765_6e65_7261,
                k1 ^ 0x7465_6462_7974_6573,
            ],
            tail: 0,
            length: 0,
        }
    }

    /// Up to eight bytes at once, the first one lowest; what is above them is zero.
    #[inline(always)]
    fn short(&mut self, value: u64, size: u64) {
        let held = self.length % 8;
        self.length = self.length.wrapping_add(size);
        self.tail |= value << (8 * held);
        if held + size >= 8 {
            absorb(&mut self.state, self.tail);
            let taken = 8 * (8 - held as u32);
            self.tail = value.checked_shr(taken).unwrap_or(0);
        }
    }
}

impl Hasher for Sip {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let held = (self.length % 8) as usize;
        self.length = self.length.wrapping_add(bytes.len() as u64);
        let mut bytes = bytes;
        if held > 0 {
            let (fill, rest) = bytes.split_at(bytes.len().min(8 - held));
            self.tail |= word(fill) << (8 * held);
            if held + fill.len() < 8 {
                return;
            }
            absorb(&mut self.state, self.tail);
            bytes = rest;
        }
        let (words, rest) = bytes.as_chunks();
        for word in words {
            absorb(&mut self.state, u64::from_le_bytes(*word));
        }
        self.tail = word(rest);
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.short(value.into(), 1);
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.short(value.into(), 4);
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.short(value, 8);
    }

    #[inline]
    fn finish(&self) -> u64 {
        let mut state = self.state;
        absorb(&mut state, self.tail | self.length << 56);
        state[2] ^= 0xff;
        for _ in 0..3 {
            round(&mut state);
        }
        state[0] ^ state[1] ^ state[2] ^ state[3]
    }
}

/// Up to seven bytes, the first one lowest.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        // What both hold is the same, at the same place.
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return u64::from(first) | u64::from(last) << (8 * (bytes.len() - 4));
    }
    match *bytes {
        [] => 0,
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        [a, b, c, ..] => u64::from(u32::from_le_bytes([a, b, c, 0])),
    }
}

#[inline]
fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    state[0] ^= word;
}

#[inline]
fn round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *c = c.wrapping_add(*d);
    *b = b.rotate_left(13) ^ *a;
    *d = d.rotate_left(16) ^ *c;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*b);
    *a = a.wrapping_add(*d);
    *b = b.rotate_left(17) ^ *c;
    *d = d.rotate_left(21) ^ *a;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::hash::DefaultHasher;

    /// The first test vector of SipHash-1-3: the key 00 01 … 0f over nothing.
    #[test]
    fn it_is_siphash_1_3() {
        let sip = Sip::new(Seed(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908));
        assert_eq!(sip.finish(), 0xabac_0158_050f_c4dc);
    }

    proptest! {
        /// `DefaultHasher::new` is SipHash-1-3 under a key of zeroes.
        #[test]
        fn in_whatever_pieces_it_is_what_std_makes_of_the_bytes(
            pieces in vec((0..4, any::<u64>(), vec(any::<u8>(), 0..40)), 0..8)
        ) {
            let (mut ours, mut theirs) = (Sip::new(Seed(0, 0)), DefaultHasher::new());
            for (kind, value, bytes) in pieces {
                let little_end = value.to_le_bytes();
                let written = match kind {
                    0 => { ours.write_u8(value as u8); &little_end[..1] }
                    1 => { ours.write_u32(value as u32); &little_end[..4] }
                    2 => { ours.write_u64(value); &little_end[..] }
                    _ => { ours.write(&bytes); &bytes[..] }
                };
                theirs.write(written);
            }
            prop_assert_eq!(ours.finish(), theirs.finish());
        }
    }
}
