//! The hot path: whose credential is this? It reads memory alone and takes no lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ipnet::IpNet;
use spark_core::{ClientIp, Name, Principal, User};
use subtle::{Choice, ConstantTimeEq};

use crate::audit::AuditEvent;
use crate::authenticator::Authenticator;
use crate::error::Rejected;
use crate::index::{Entry, KeyId, Slot};
use crate::key::{self, KeyParts, MAX_CREDENTIAL_LEN};
use crate::master::MasterVerifier;
use crate::pepper::{Pepper, PepperId};
use crate::record::KeyStatus;
use crate::strength::MIN_MASTER_SECRET_LEN;
use crate::words::Kind;

impl Authenticator {
    /// Says whose credential this is. A key that may be used from certain networks only is refused,
    /// since no address is given: see [`verify_from`](Self::verify_from).
    ///
    /// # Errors
    /// [`Rejected`] says why not; tell the caller the same for all reasons.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// assert_eq!(auth.verify("guess"), Err(Rejected::Malformed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn verify(&self, credential: &str) -> Result<Principal, Rejected> {
        self.verify_from(credential, None)
    }

    /// Like [`verify`](Self::verify), with the address of the caller, for keys that may be used from
    /// certain networks only and for the audit.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    ///
    /// # Example
    /// ```
    /// # use spark_auth::*;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// use spark_core::ClientIp;
    /// let caller = ClientIp::new([192, 0, 2, 7].into());
    /// assert!(auth.verify_from("guess", Some(caller)).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn verify_from(
        &self,
        credential: &str,
        client_ip: Option<ClientIp>,
    ) -> Result<Principal, Rejected> {
        if credential.len() > MAX_CREDENTIAL_LEN {
            return self.deny(Rejected::Malformed, None, client_ip);
        }
        match key::split(credential) {
            Ok(key) if key.kind == Kind::User => self.verify_user(&key, client_ip),
            Ok(_) => self.verify_master(credential, Rejected::WrongMaster, client_ip),
            Err(_) if self.may_be_master(credential) => {
                self.verify_master(credential, Rejected::WrongMaster, client_ip)
            }
            Err(_) => self.deny(Rejected::Malformed, None, client_ip),
        }
    }

    /// The holder of a generated user key that works; nothing is audited. For callers of an address
    /// that is throttled: letting such a key pass helps no one who guesses, since nobody guesses one.
    pub(crate) fn working_user_key(
        &self,
        credential: &str,
        client_ip: Option<ClientIp>,
    ) -> Option<Principal> {
        let key = key::split(credential)
            .ok()
            .filter(|key| key.kind == Kind::User)?;
        let id = KeyId::new(key.id);
        self.memory()
            .with(id, |slot| self.judge(&key, slot, client_ip))
            .ok()
    }

    fn verify_user(
        &self,
        key: &KeyParts<'_>,
        client_ip: Option<ClientIp>,
    ) -> Result<Principal, Rejected> {
        let id = KeyId::new(key.id);
        let verdict = (self.memory()).with(id, |slot| self.judge(key, slot, client_ip));
        // From here on a known and an unknown id take the same way, the audit included.
        verdict.or_else(|reason| self.deny(reason, id.into(), client_ip))
    }

    /// One MAC and one comparison whether the id is known or not. What differs between the answers
    /// is told only to whoever has the secret.
    fn judge(
        &self,
        key: &KeyParts<'_>,
        slot: Option<&Slot>,
        client_ip: Option<ClientIp>,
    ) -> Result<Principal, Rejected> {
        let current = &self.parts().pepper;
        let (made_under, kept) = match slot {
            Some(slot) => (slot.pepper, &slot.mac),
            None => (current.id(), self.dummy()),
        };
        let pepper = self.pepper(made_under);
        let mac = pepper.unwrap_or(current).user_mac(key);
        let is_right: bool = mac.ct_eq(kept).into();

        // One way for all who do not have the secret; why they are refused is known afterwards.
        let Some(slot) = slot.filter(|_| is_right && pepper.is_some()) else {
            return Err(match (slot, pepper) {
                (None, _) => Rejected::UnknownKey,
                (Some(_), None) => Rejected::UnknownPepper,
                (Some(_), Some(_)) => Rejected::WrongSecret,
            });
        };
        // What the key says of itself is proven by now, and is what its record says.
        if !self.parts().environments.contain(key.environment) {
            return Err(Rejected::Environment);
        }
        let user = match &slot.user {
            Some(user) => user,
            None => self.if_it_may(&slot.entry, client_ip)?,
        };
        // Two lines that come from memory, and neither waits for the other in this order.
        let principal = Principal::User(Arc::clone(user));
        self.note_use(key, slot);
        Ok(principal)
    }

    /// The holder of a key that takes more than the right secret, if it has that.
    fn if_it_may<'a>(
        &self,
        entry: &'a Entry,
        client_ip: Option<ClientIp>,
    ) -> Result<&'a Arc<User>, Rejected> {
        let record = &entry.record;
        // The wall clock is read only for keys that have a time.
        let has_time = record.expires_at.is_some() || record.not_before.is_some();
        let status = match has_time {
            true => record.status_at(self.moment()),
            false => record.status(Duration::ZERO),
        };
        match status {
            KeyStatus::Active => {}
            KeyStatus::Revoked => return Err(Rejected::Revoked),
            KeyStatus::Suspended => return Err(Rejected::Suspended),
            KeyStatus::Expired => return Err(Rejected::Expired),
            KeyStatus::NotYetValid => return Err(Rejected::NotYetValid),
        }
        if !may_come_from(&record.ip_allow, client_ip) {
            return Err(Rejected::Address);
        }
        Ok(&entry.user)
    }

    /// Two loads, unless the key was not used for a minute or is still under the previous pepper.
    fn note_use(&self, key: &KeyParts<'_>, slot: &Slot) {
        let entry = &*slot.entry;
        let now = self.clock().now();
        if entry.last_use.is_due(now) {
            entry.last_use.note(now, self.now());
        }
        let current = &self.parts().pepper;
        if slot.pepper != current.id() && !entry.renewing.load(Ordering::Relaxed) {
            let id = KeyId::new(key.id);
            (self.renewals()).add(id, entry, || current.user_mac(key));
        }
    }

    /// Free text is only looked at where an operator chose free text.
    fn may_be_master(&self, credential: &str) -> bool {
        credential.len() >= MIN_MASTER_SECRET_LEN
            && self
                .masters()
                .iter()
                .flatten()
                .any(|master| master.is_free_text())
    }

    /// Compares with both slots, always.
    fn verify_master(
        &self,
        credential: &str,
        otherwise: Rejected,
        client_ip: Option<ClientIp>,
    ) -> Result<Principal, Rejected> {
        let now = self.now();
        let [current, previous] = self.masters().map(|slot| {
            let pepper = slot.and_then(|master| self.pepper(master.pepper()));
            let mac = pepper
                .unwrap_or(&self.parts().pepper)
                .master_mac(credential);
            match slot {
                Some(master) => master.accepts(&mac, now),
                None => mac.ct_eq(self.dummy()) & Choice::from(0),
            }
        });
        if !bool::from(current | previous) {
            return self.deny(otherwise, None, client_ip);
        }
        self.audit(&AuditEvent::MasterUsed {
            previous: !bool::from(current),
            client_ip,
        });
        Ok(Principal::Master)
    }

    fn masters(&self) -> [Option<&MasterVerifier>; 2] {
        let parts = self.parts();
        [parts.master.as_ref(), parts.previous_master.as_ref()]
    }

    pub(crate) fn pepper(&self, id: PepperId) -> Option<&Pepper> {
        let parts = self.parts();
        if parts.pepper.id() == id {
            return Some(&parts.pepper);
        }
        parts
            .previous_pepper
            .as_ref()
            .filter(|pepper| pepper.id() == id)
    }

    #[cold]
    fn deny(
        &self,
        reason: Rejected,
        key_id: Option<Name>,
        client_ip: Option<ClientIp>,
    ) -> Result<Principal, Rejected> {
        self.audit(&AuditEvent::Denied {
            reason,
            key_id,
            client_ip,
        });
        Err(reason)
    }
}

/// From anywhere where no network is named; else from an address that is known and inside of one.
fn may_come_from(networks: &[IpNet], client_ip: Option<ClientIp>) -> bool {
    networks.is_empty()
        || client_ip.is_some_and(|ip| networks.iter().any(|network| network.contains(&ip.addr())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::UserKey;
    use crate::new_key::NewKey;
    use crate::pepper::USER_MACS;
    use crate::store::MemoryStore;
    use crate::words::{Brand, Environment};

    #[test]
    fn a1_whatever_is_wrong_with_a_key_costs_one_mac() {
        let pepper = || Pepper::generate().unwrap();
        let (store, first, second) = (MemoryStore::new(), pepper(), pepper());
        let build = |pepper: &Pepper| {
            let builder = Authenticator::builder().accept_lost_keys(true);
            let builder = builder.pepper(pepper.clone()).store(store.clone());
            builder.build().unwrap()
        };
        let issue = |pepper: &Pepper| {
            let new = NewKey::new(Name::new("acme").unwrap());
            build(pepper).issue(new).unwrap()
        };
        let (known, lost) = (issue(&first).key, issue(&second).key);
        let other = || UserKey::generate(&Brand::default(), Environment::Live).unwrap();
        // What is checked here is parsed already, so that no checksum has to hold.
        let guess = other();
        let wrong = KeyParts {
            id: known.parts().id,
            ..guess.parts()
        };
        let auth = build(&first);
        let cases = [
            (known.parts(), None),
            (wrong, Some(Rejected::WrongSecret)),
            (guess.parts(), Some(Rejected::UnknownKey)),
            (lost.parts(), Some(Rejected::UnknownPepper)),
        ];
        for (key, expected) in cases {
            let before = USER_MACS.get();
            assert_eq!(auth.verify_user(&key, None).err(), expected);
            assert_eq!(USER_MACS.get() - before, 1, "{expected:?}");
        }
    }
}
