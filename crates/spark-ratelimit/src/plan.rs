//! The policies in the form in which requests are decided: looked up, never computed.

use std::collections::{HashMap, HashSet};

use http::HeaderValue;
use spark_core::Name;

use crate::gcra::Gcra;
use crate::headers::{self, LimitStart, PolicyItem};
use crate::store::{Entry, MAX_TAGS, Mark, Table};
use crate::{ConfigError, Key, Policy, Quota, Unit};

/// One bit of a word marks each violated policy.
pub(crate) const MAX_POLICIES: usize = 32;

/// One configuration: immutable, exchanged as a whole when the limiter is reconfigured.
pub(crate) struct Plan {
    /// The first configuration is 0, each next one more.
    pub(crate) epoch: u64,
    /// In the order of their tables' slots, which is the order of locking.
    pub(crate) policies: Box<[Active]>,
    /// By a tier's tag, everybody else's first: the `RateLimit-Policy` field, if there is one.
    fields: Box<[Option<HeaderValue>]>,
    /// Some policy has quotas for single keys.
    has_keys: bool,
    /// Where the policies stand that were given first, second and so on.
    given: Box<[usize]>,
    /// The tiers by name, sorted, with their tag.
    tiers: Box<[(Name, u16)]>,
    next_id: u64,
}

/// A policy at work.
pub(crate) struct Active {
    pub(crate) name: Name,
    /// Never given twice, also not after the policy has gone.
    pub(crate) id: u64,
    /// Where its table is.
    pub(crate) slot: usize,
    /// It counts, and never refuses.
    pub(crate) shadow: bool,
    pub(crate) unit: Unit,
    /// `"name";r=`, the beginning of the `RateLimit` field.
    pub(crate) field_start: Box<LimitStart>,
    /// By tag: everybody's, the tiers', and those of single keys. Entries bear the tag.
    rules: Box<[(Quota, Gcra)]>,
    /// The tags of the keys that have a quota of their own.
    keys: HashMap<Key, u16>,
    /// By an entry's tag in the configuration before: what it was charged under, and its tag now.
    carried: Box<[(Gcra, u16)]>,
}

impl Plan {
    /// Checks the policies and makes the plan. Policies that the plan before knew by name keep
    /// their table.
    pub(crate) fn new(policies: &[Policy], before: Option<&Self>) -> Result<Self, ConfigError> {
        check(policies)?;
        let tiers = tiers(policies)?;

        let kept = |policy: &Policy| before.and_then(|plan| plan.active(&policy.name));
        let old = before.map_or(&[][..], |plan| &plan.policies);
        let mut free = (0..).filter(|slot| old.iter().all(|it| it.slot != *slot));
        let mut next_id = before.map_or(0, |plan| plan.next_id);
        let mut order: Vec<(usize, Active)> = Vec::new();
        for (at, policy) in policies.iter().enumerate() {
            let kept = kept(policy);
            let id = kept.map_or(next_id, |it| it.id);
            next_id = next_id.max(id + 1);
            let slot = kept.map_or_else(|| free.next().unwrap_or(0), |it| it.slot);
            let active = Active::new(policy, id, slot, &tiers, before.zip(kept));
            order.push((at, active));
        }
        order.sort_by_key(|(_, policy)| policy.slot);
        let mut given = vec![0; policies.len()];
        for (stands, (at, _)) in order.iter().enumerate() {
            given[*at] = stands;
        }

        let names = std::iter::once(None).chain(tiers.iter().map(Some));
        let fields = names
            .map(|tier| {
                let told = policies.iter().filter(|policy| !policy.shadow);
                headers::policy_field(told.map(|policy| {
                    PolicyItem::rate(&policy.name, &policy.quota_of(tier), policy.unit)
                }))
            })
            .collect();
        Ok(Self {
            epoch: before.map_or(0, |plan| plan.epoch.wrapping_add(1)),
            policies: order.into_iter().map(|(_, policy)| policy).collect(),
            fields,
            has_keys: policies.iter().any(|policy| !policy.keys.is_empty()),
            given: given.into(),
            tiers: tiers.into_iter().zip(1..).collect(),
            next_id,
        })
    }

    /// A tier's tag; everybody else's where no policy names the tier.
    #[inline]
    pub(crate) fn tag(&self, tier: Option<&str>) -> u16 {
        tier.map_or(0, |tier| self.tag_of(tier))
    }

    #[inline(never)]
    fn tag_of(&self, tier: &str) -> u16 {
        self.tiers
            .binary_search_by(|(name, _)| name.as_str().cmp(tier))
            .map_or(0, |at| self.tiers[at].1)
    }

    /// The parity by which entries of this configuration differ from those of its neighbours.
    pub(crate) fn turn(&self) -> bool {
        self.epoch & 1 == 1
    }

    /// The policies in the order in which they were given.
    pub(crate) fn as_given(&self) -> impl Iterator<Item = &Active> {
        self.given.iter().map(|at| &self.policies[*at])
    }

    /// Where the policy stands that was given first.
    pub(crate) fn first(&self) -> usize {
        self.given[0]
    }

    /// What `entry` owes to policy `at` when measured by the rule of `tag`: its share of the burst
    /// under the quota that it was charged by is its share now.
    #[inline]
    pub(crate) fn debt(
        &self,
        at: usize,
        rule: &Gcra,
        tag: u16,
        entry: Option<Entry>,
        now: u64,
    ) -> u64 {
        match entry {
            Some(entry) if entry.tat > now => {
                if entry.mark == Mark::new(tag, self.turn()) {
                    rule.debt(entry.tat, now)
                } else {
                    self.carried_debt(at, rule, entry, now)
                }
            }
            _ => 0,
        }
    }

    #[inline(never)]
    fn carried_debt(&self, at: usize, rule: &Gcra, entry: Entry, now: u64) -> u64 {
        let (charged_by, _) = self.origin(at, entry).unwrap_or((rule, 0));
        rule.carry(charged_by, charged_by.debt(entry.tat, now))
    }

    /// The rule that `entry` was charged by, and its tag in this configuration.
    pub(crate) fn origin(&self, at: usize, entry: Entry) -> Option<(&Gcra, u16)> {
        let policy = &self.policies[at];
        let tag = entry.mark.tag();
        if entry.mark.turn() == self.turn() {
            Some((policy.rule(tag), tag))
        } else {
            let carried = policy.carried.get(usize::from(tag));
            carried.map(|(rule, tag)| (rule, *tag))
        }
    }

    /// The `RateLimit-Policy` field of a tier, or of a key that has quotas of its own.
    pub(crate) fn field(&self, key: Key, tier: u16) -> Option<HeaderValue> {
        let own = self.has_keys && self.policies.iter().any(|it| it.tag(key, tier) != tier);
        if !own {
            return self.fields.get(usize::from(tier)).cloned().flatten();
        }
        let told = self.as_given().filter(|policy| !policy.shadow);
        headers::policy_field(told.map(|policy| {
            let quota = policy.quota(policy.tag(key, tier));
            PolicyItem::rate(&policy.name, quota, policy.unit)
        }))
    }

    /// Brings the entries of the configuration before into this one. Called while no request can
    /// be decided by the one before any more.
    pub(crate) fn carry_over<'a>(&self, table: impl Fn(usize) -> &'a Table, now: u64) {
        for (at, policy) in self.policies.iter().enumerate() {
            if policy.carried.is_empty() {
                continue;
            }
            let longest = policy.rules.iter().map(|(_, rule)| rule.ceiling()).max();
            let horizon = now.saturating_add(longest.unwrap_or(0));
            table(policy.slot).rewrite(now, horizon, |entry| {
                if entry.mark.turn() == self.turn() {
                    return Some(entry);
                }
                let tag = self.origin(at, entry).map_or(0, |(_, tag)| tag);
                let debt = self.debt(at, policy.rule(tag), tag, Some(entry), now);
                (debt > 0).then(|| Entry {
                    tat: now.saturating_add(debt),
                    mark: Mark::new(tag, self.turn()),
                })
            });
        }
    }

    fn active(&self, name: &Name) -> Option<&Active> {
        self.policies.iter().find(|active| active.name == *name)
    }
}

impl Active {
    fn new(
        policy: &Policy,
        id: u64,
        slot: usize,
        tiers: &[Name],
        before: Option<(&Plan, &Self)>,
    ) -> Self {
        let names = std::iter::once(None).chain(tiers.iter().map(Some));
        let quotas = names.map(|tier| policy.quota_of(tier));
        let first_key = tiers.len() + 1;
        let keys: HashMap<Key, u16> = policy
            .keys
            .iter()
            .enumerate()
            .map(|(at, (key, _))| (*key, (first_key + at) as u16))
            .collect();
        let rules = quotas
            .chain(policy.keys.iter().map(|(_, quota)| *quota))
            .map(|quota| (quota, Gcra::new(&quota)))
            .collect();
        let carried = before.map_or_else(Box::default, |(plan, active)| {
            let mut tags = vec![0; active.rules.len()];
            for (tier, old) in &plan.tiers {
                let new = tiers.binary_search(tier).map_or(0, |at| at as u16 + 1);
                tags[usize::from(*old)] = new;
            }
            for (key, old) in &active.keys {
                tags[usize::from(*old)] = keys.get(key).copied().unwrap_or(0);
            }
            let rules = active.rules.iter().map(|(_, rule)| *rule);
            rules.zip(tags).collect()
        });
        Self {
            name: policy.name.clone(),
            id,
            slot,
            shadow: policy.shadow,
            unit: policy.unit,
            field_start: Box::new(headers::limit_field_start(&policy.name)),
            rules,
            keys,
            carried,
        }
    }

    /// By which of the quotas a key is charged.
    pub(crate) fn tag(&self, key: Key, tier: u16) -> u16 {
        if self.keys.is_empty() {
            return tier;
        }
        self.keys.get(&key).copied().unwrap_or(tier)
    }

    pub(crate) fn rule(&self, tag: u16) -> &Gcra {
        &self.quotas(tag).1
    }

    pub(crate) fn quota(&self, tag: u16) -> &Quota {
        &self.quotas(tag).0
    }

    // A tag of another plan may not be known here: then it is everybody's quota.
    fn quotas(&self, tag: u16) -> &(Quota, Gcra) {
        self.rules.get(usize::from(tag)).unwrap_or(&self.rules[0])
    }
}

impl Policy {
    fn quota_of(&self, tier: Option<&Name>) -> Quota {
        tier.and_then(|tier| self.tiers.iter().find(|(name, _)| name == tier.as_str()))
            .map_or(self.quota, |(_, quota)| *quota)
    }
}

fn check(policies: &[Policy]) -> Result<(), ConfigError> {
    if policies.is_empty() {
        return Err(ConfigError::NoPolicy);
    }
    if policies.len() > MAX_POLICIES {
        return Err(ConfigError::TooManyPolicies {
            got: policies.len(),
            max: MAX_POLICIES,
        });
    }
    for (at, policy) in policies.iter().enumerate() {
        if policies[..at].iter().any(|other| other.name == policy.name) {
            return Err(ConfigError::DuplicatePolicy {
                name: policy.name().to_owned(),
            });
        }
        for (at, (tier, _)) in policy.tiers.iter().enumerate() {
            if policy.tiers[..at].iter().any(|(other, _)| other == tier) {
                return Err(ConfigError::DuplicateTier {
                    policy: policy.name().to_owned(),
                    tier: tier.clone(),
                });
            }
        }
        let keys: HashSet<Key> = policy.keys.iter().map(|(key, _)| *key).collect();
        if keys.len() < policy.keys.len() {
            return Err(ConfigError::DuplicateKey {
                policy: policy.name().to_owned(),
            });
        }
    }
    Ok(())
}

/// The names of all tiers of all policies, sorted.
fn tiers(policies: &[Policy]) -> Result<Vec<Name>, ConfigError> {
    let mut names = Vec::new();
    for policy in policies {
        for (tier, _) in &policy.tiers {
            names.push(Name::new(tier).map_err(|source| ConfigError::Name {
                what: format!("the name of a tier of policy {}", policy.name),
                source,
            })?);
        }
    }
    names.sort_unstable();
    names.dedup();
    let keys = policies.iter().map(|policy| policy.keys.len()).max();
    let quotas = names.len() + keys.unwrap_or(0);
    if quotas >= MAX_TAGS {
        return Err(ConfigError::TooManyQuotas {
            got: quotas,
            max: MAX_TAGS - 1,
        });
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn tables_are_locked_in_one_order_however_the_policies_are_given() {
        let policy = |name: &str| {
            let quota = Quota::new(1, Duration::from_secs(1)).unwrap();
            Policy::new(name, quota).unwrap()
        };
        let names = |plan: &Plan| {
            let names = plan.policies.iter().map(|policy| policy.name.to_string());
            names.collect::<Vec<_>>().join(" ")
        };
        let plan = |given: &[&str], before: Option<&Plan>| {
            let policies: Vec<Policy> = given.iter().map(|name| policy(name)).collect();
            Plan::new(&policies, before).unwrap()
        };
        let first = plan(&["b", "a"], None);
        assert_eq!(names(&first), "b a");
        let second = plan(&["c", "a", "b"], Some(&first));
        assert_eq!(names(&second), "b a c");
        let third = plan(&["a", "c"], Some(&second));
        assert_eq!(names(&third), "a c");
        let fourth = plan(&["b", "c", "a"], Some(&third));
        assert_eq!(names(&fourth), "b a c", "b takes the free table");
        let ids = |plan: &Plan| plan.policies.iter().map(|it| it.id).collect::<Vec<_>>();
        assert_eq!((ids(&second), ids(&fourth)), (vec![0, 1, 2], vec![3, 1, 2]));
        let field = fourth.fields[0].as_ref();
        assert_eq!(
            field.unwrap(),
            r#""b";q=1;w=1, "c";q=1;w=1, "a";q=1;w=1"#,
            "as given"
        );
    }
}
