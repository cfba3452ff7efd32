//! Which hop is next.

use http::request::Parts;

use crate::jitter::Jitter;
use crate::{Failover, Hop};

/// In which order a [`Failover`](crate::Failover) asks its hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Order {
    /// As they are listed.
    #[default]
    Listed,
    /// At random, each as often as its [`weight`](Hop::weight) says; so is the next, among those
    /// that are left.
    Weighted,
}

impl<S> Failover<S> {
    /// An eligible hop that was not visited.
    pub(crate) fn next_hop(&self, request: &Parts, visited: &[usize]) -> Option<usize> {
        let rules = &self.rules;
        let left = self
            .hops
            .iter()
            .enumerate()
            .filter(|(at, hop)| !visited.contains(at) && (rules.eligible)(request, hop.name()));
        match rules.order {
            Order::Listed => left.map(|(at, _)| at).next(),
            Order::Weighted => draw(left, &rules.jitter),
        }
    }
}

/// One pass: each takes the place of the one before it with its share of the weight so far.
fn draw<'a, S: 'a>(
    left: impl Iterator<Item = (usize, &'a Hop<S>)>,
    jitter: &Jitter,
) -> Option<usize> {
    let mut found = None;
    let mut total = 0.0;
    for (at, hop) in left {
        let weight = f64::from(hop.its_weight());
        total += weight;
        if found.is_none() || jitter.unit() * total < weight {
            found = Some(at);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(weights: &[u32], draws: usize) -> Vec<usize> {
        let hops: Vec<_> = weights
            .iter()
            .map(|w| Hop::new("a", ()).weight(*w))
            .collect();
        let jitter = Jitter::new(Some(1));
        let mut counts = vec![0; weights.len()];
        for _ in 0..draws {
            counts[draw(hops.iter().enumerate(), &jitter).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn each_is_drawn_as_often_as_its_weight_says() {
        let counts = drawn(&[1, 0, 6, 3], 10_000);
        assert_eq!(counts[1], 0);
        for (count, expected) in [(counts[0], 1_000), (counts[2], 6_000), (counts[3], 3_000)] {
            assert!(count.abs_diff(expected) < 200, "{counts:?}");
        }
    }

    #[test]
    fn without_any_weight_the_first_is_drawn() {
        assert_eq!(drawn(&[0, 0], 10), [10, 0]);
        assert_eq!(drawn(&[0, 1], 10), [0, 10]);
    }
}
