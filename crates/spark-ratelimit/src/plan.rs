//! The policies in the form in which requests are decided: looked up, never computed.

use std::sync::Arc;

use http::HeaderValue;
use spark_core::Name;

use crate::gcra::Gcra;
use crate::headers::{self, LimitStart, PolicyItem};
use crate::store::{Entry, MAX_TAGS, Table};
use crate::{ConfigError, Policy, Quota};

/// One bit of a word marks each violated policy.
const MAX_POLICIES: usize = 32;

/// One configuration: immutable, exchanged as a whole when the limiter is reconfigured.
pub(crate) struct Plan {
    /// The first configuration is 0, each next one more.
    pub(crate) epoch: u64,
    /// In the order of their tables' ids, which is the order of locking.
    pub(crate) policies: Box<[Active]>,
    /// What a tier is entitled to; the first is everybody else's. Entries are tagged with the index.
    pub(crate) views: Box<[View]>,
    /// The tiers by name, sorted, with the index of their view.
    tiers: Box<[(Name, u16)]>,
}

/// A policy at work.
pub(crate) struct Active {
    pub(crate) name: Name,
    pub(crate) table: Arc<Table>,
    /// `"name";r=`, the beginning of the `RateLimit` field.
    pub(crate) field_start: LimitStart,
    /// By an entry's tag in the configuration before: what it was charged under, and its tag now.
    carried: Box<[(Gcra, u16)]>,
}

/// The quotas of one tier.
pub(crate) struct View {
    /// One for each policy, in their order.
    pub(crate) rules: Box<[(Quota, Gcra)]>,
    /// The `RateLimit-Policy` field.
    pub(crate) field: HeaderValue,
}

impl Plan {
    /// Checks the policies and makes the plan. Policies that the plan before knew by name keep
    /// their table.
    pub(crate) fn new(
        policies: &[Policy],
        capacity: usize,
        before: Option<&Self>,
        next_table: &mut u64,
    ) -> Result<Self, ConfigError> {
        check(policies)?;
        let tiers = tiers(policies)?;

        let mut order: Vec<(&Policy, Arc<Table>)> = policies
            .iter()
            .map(|policy| {
                let kept = before.and_then(|plan| plan.active(&policy.name));
                let table = kept.map_or_else(
                    || {
                        *next_table += 1;
                        Arc::new(Table::new(*next_table, capacity))
                    },
                    |active| Arc::clone(&active.table),
                );
                (policy, table)
            })
            .collect();
        order.sort_by_key(|(_, table)| table.id);

        let names = std::iter::once(None).chain(tiers.iter().map(Some));
        let views = names
            .map(|tier| View {
                rules: order
                    .iter()
                    .map(|(policy, _)| policy.quota_of(tier))
                    .map(|quota| (quota, Gcra::new(&quota)))
                    .collect(),
                field: headers::policy_field(policies.iter().filter(|policy| !policy.shadow).map(
                    |policy| PolicyItem::rate(&policy.name, &policy.quota_of(tier), policy.unit),
                ))
                .unwrap_or_else(|| HeaderValue::from_static("")),
            })
            .collect();
        let tiers: Box<[(Name, u16)]> = tiers.into_iter().zip(1..).collect();

        let policies = order
            .into_iter()
            .map(|(policy, table)| Active {
                carried: before
                    .map_or_else(Box::default, |plan| plan.carried_into(&policy.name, &tiers)),
                field_start: headers::limit_field_start(&policy.name),
                name: policy.name.clone(),
                table,
            })
            .collect();

        Ok(Self {
            epoch: before.map_or(0, |plan| plan.epoch.wrapping_add(1)),
            policies,
            views,
            tiers,
        })
    }

    /// The index of a tier's view; of everybody else's where no policy names the tier.
    pub(crate) fn tag(&self, tier: Option<&str>) -> u16 {
        let Some(tier) = tier else { return 0 };
        self.tiers
            .binary_search_by(|(name, _)| name.as_str().cmp(tier))
            .map_or(0, |at| self.tiers[at].1)
    }

    /// The parity by which entries of this configuration differ from those of its neighbours.
    pub(crate) fn turn(&self) -> bool {
        self.epoch & 1 == 1
    }

    /// What `entry` owes to policy `at` when measured by `rule`: its share of the burst under the
    /// quota that it was charged by is its share now.
    pub(crate) fn debt(&self, at: usize, entry: Option<Entry>, rule: &Gcra, now: u64) -> u64 {
        let Some(entry) = entry.filter(|entry| entry.tat > now) else {
            return 0;
        };
        let tag = usize::from(entry.tag);
        let charged_by = if entry.turn == self.turn() {
            self.views.get(tag).map(|view| &view.rules[at].1)
        } else {
            self.policies[at].carried.get(tag).map(|(rule, _)| rule)
        };
        let charged_by = charged_by.unwrap_or(rule);
        rule.carry(charged_by, charged_by.debt(entry.tat, now))
    }

    /// Brings the entries of the configuration before into this one. Called while no request can
    /// be decided by the one before any more.
    pub(crate) fn carry_over(&self, now: u64) {
        for (at, policy) in self.policies.iter().enumerate() {
            if policy.carried.is_empty() {
                continue;
            }
            policy.table.rewrite(|entry| {
                if entry.turn == self.turn() {
                    return Some(entry);
                }
                let tag = policy
                    .carried
                    .get(usize::from(entry.tag))
                    .map_or(0, |(_, tag)| *tag);
                let rule = &self.views[usize::from(tag)].rules[at].1;
                let debt = self.debt(at, Some(entry), rule, now);
                (debt > 0).then(|| Entry {
                    tat: now.saturating_add(debt),
                    tag,
                    turn: self.turn(),
                })
            });
        }
    }

    fn active(&self, name: &Name) -> Option<&Active> {
        self.policies.iter().find(|active| active.name == *name)
    }

    /// For each tag of this plan: the rule of policy `name`, and the tag that `tiers` gives it.
    fn carried_into(&self, name: &Name, tiers: &[(Name, u16)]) -> Box<[(Gcra, u16)]> {
        let Some(at) = self.policies.iter().position(|active| active.name == *name) else {
            return Box::default();
        };
        let mut tags = vec![0; self.views.len()];
        for (tier, old) in &self.tiers {
            let new = tiers.iter().find(|(name, _)| name == tier);
            tags[usize::from(*old)] = new.map_or(0, |(_, tag)| *tag);
        }
        self.views
            .iter()
            .zip(tags)
            .map(|(view, tag)| (view.rules[at].1, tag))
            .collect()
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
    if names.len() >= MAX_TAGS {
        return Err(ConfigError::TooManyTiers {
            got: names.len(),
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
        let mut newest = 0;
        let mut plan = |given: &[&str], before: Option<&Plan>| {
            let policies: Vec<Policy> = given.iter().map(|name| policy(name)).collect();
            Plan::new(&policies, 8, before, &mut newest).unwrap()
        };
        let first = plan(&["b", "a"], None);
        assert_eq!(names(&first), "b a");
        let second = plan(&["c", "a", "b"], Some(&first));
        assert_eq!(names(&second), "b a c");
        let third = plan(&["a", "c"], Some(&second));
        let fourth = plan(&["b", "c", "a"], Some(&third));
        assert_eq!(names(&fourth), "a c b", "b begins anew");
        let field = &fourth.views[0].field;
        assert_eq!(
            field, r#""b";q=1;w=1, "c";q=1;w=1, "a";q=1;w=1"#,
            "as given"
        );
    }
}
