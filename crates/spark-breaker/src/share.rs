//! What one tenant may hold of the places of a bulkhead.

use std::collections::HashMap;

use spark_core::{Context, Name};

use crate::sync::{Mutex, hold};

/// Whose call it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Tenant {
    /// All of the anonymous together.
    Anonymous,
    /// The operator, whom no storm of the anonymous may keep out.
    Master,
    Named(Name),
}

impl Tenant {
    pub(crate) fn of(context: Option<&Context>) -> Self {
        match context.and_then(Context::principal) {
            Some(principal) if principal.is_master() => Self::Master,
            Some(principal) => principal.tenant().into(),
            None => Self::Anonymous,
        }
    }
}

impl From<Option<&Name>> for Tenant {
    fn from(name: Option<&Name>) -> Self {
        name.map_or(Self::Anonymous, |name| Self::Named(name.clone()))
    }
}

/// Who holds how many places: only those who hold one, so never more than there are places.
#[derive(Debug)]
pub(crate) struct Shares {
    thousandths: u128,
    held: Mutex<HashMap<Tenant, usize>>,
}

impl Shares {
    /// Of a share above 0 and up to 1; what is below a thousandth is one.
    pub(crate) fn new(share: f64) -> Self {
        Self {
            thousandths: ((share * 1_000.0).round() as u128).max(1),
            held: Mutex::new(HashMap::new()),
        }
    }

    /// Takes a place for this tenant, if `take`, told of what it holds, takes one of all. Nobody
    /// else takes or gives back one meanwhile.
    pub(crate) fn enter<T, E>(
        &self,
        tenant: &Tenant,
        take: impl FnOnce(usize) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut held = hold(&self.held);
        let mine = held.get(tenant).copied().unwrap_or(0);
        let taken = take(mine)?;
        match held.get_mut(tenant) {
            Some(mine) => *mine += 1,
            None => drop(held.insert(tenant.clone(), 1)),
        }
        Ok(taken)
    }

    /// Whether one who holds `mine` may have one more while `free` are left.
    ///
    /// A share `s` lets a tenant hold up to `s / (1 - s)` times what is free: alone, that is `s` of
    /// all; the more tenants, the less each of them. (The dynamic threshold of Choudhury and Hahne,
    /// *Dynamic Queue Length Thresholds for Shared-Memory Packet Switches*, 1998.) The last place
    /// is for one that holds none.
    pub(crate) fn allows(&self, mine: usize, free: usize) -> bool {
        let below = (1_000 - self.thousandths) * (mine as u128) < self.thousandths * (free as u128);
        mine == 0 || self.thousandths == 1_000 || (free > 1 && below)
    }

    pub(crate) fn leave(&self, tenant: &Tenant, give_back: impl FnOnce()) {
        let mut held = hold(&self.held);
        give_back();
        if let Some(mine) = held.get_mut(tenant) {
            *mine -= 1;
            if *mine == 0 {
                held.remove(tenant);
            }
        }
    }

    pub(crate) fn tenants(&self) -> usize {
        hold(&self.held).len()
    }
}
