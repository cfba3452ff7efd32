//! Bucket bounds, chosen by a metric's unit suffix.

/// Bounds for names that end in `_seconds`: from a millisecond to two minutes and a half, dense
/// where web services answer, with room for model providers.
pub const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0,
];

/// Bounds for names that end in `_bytes`: powers of four from 64 B to 64 MiB.
pub const BYTES: &[f64] = &[
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Bounds for names that end in `_tokens`: powers of four from 1 to 64 Mi.
pub const TOKENS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Bounds for every other histogram: without any it would become a summary, and summaries of
/// several replicas cannot be added up.
pub(crate) const OTHER: &[f64] = &[
    0.001,
    0.01,
    0.1,
    1.0,
    10.0,
    100.0,
    1_000.0,
    10_000.0,
    100_000.0,
    1_000_000.0,
];

/// Why these bounds cannot be used, if they cannot.
pub(crate) fn problem(bounds: &[f64]) -> Option<&'static str> {
    if bounds.is_empty() {
        return Some("give at least one bound");
    }
    if bounds.iter().any(|bound| !bound.is_finite()) {
        return Some("every bound must be finite; +Inf is added by itself");
    }
    if bounds.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Some("bounds must rise");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_bounds_are_usable() {
        for bounds in [SECONDS, BYTES, TOKENS, OTHER] {
            assert_eq!(problem(bounds), None);
        }
    }

    #[test]
    fn bad_bounds_are_named() {
        assert!(problem(&[]).is_some());
        assert!(problem(&[1.0, 1.0]).is_some());
        assert!(problem(&[2.0, 1.0]).is_some());
        assert!(problem(&[1.0, f64::NAN]).is_some());
        assert!(problem(&[1.0, f64::INFINITY]).is_some());
    }
}
