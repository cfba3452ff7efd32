//! Records as text: what a store keeps.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use spark_core::{Name, NameError, Scopes};

use crate::key::ID_LEN;
use crate::mac::Mac;
use crate::pepper::PepperId;
use crate::record::{KeyRecord, KeyState, MAX_NETWORKS, MAX_SCOPES, is_label, is_owner};
#[cfg(feature = "redb")]
use crate::store::Change;
use crate::words::Environment;

/// Why a text is not a record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not the JSON that was written, or written by a later version of this crate.
    #[error("not a record of this version: {0}")]
    Json(#[from] serde_json::Error),
    /// A field holds what it cannot hold.
    #[error("the field `{field}` is not valid")]
    Field {
        /// Which one.
        field: &'static str,
    },
}

impl KeyRecord {
    /// The record as one line of JSON, for a store. When it was last used is not part of it.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::{Authenticator, KeyRecord, MemoryStore, NewKey, Pepper};
    /// # use spark_core::Name;
    /// # let auth = Authenticator::builder().pepper(Pepper::generate()?).store(MemoryStore::new()).build()?;
    /// let record = auth.issue(NewKey::new(Name::new("acme")?))?.record;
    /// assert_eq!(KeyRecord::decode(&record.encode())?, record);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn encode(&self) -> String {
        to_json(&Row::of(self))
    }

    /// Reads what [`encode`](Self::encode) wrote. A field that this version does not know is an
    /// error: it might be a restriction, and leaving it out would let more through than was meant.
    ///
    /// # Errors
    /// [`DecodeError`] names the field.
    ///
    /// # Example
    /// ```
    /// assert!(spark_auth::KeyRecord::decode("{}").is_err());
    /// ```
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        serde_json::from_str::<Row<'_>>(text)?.into_record()
    }
}

/// All changes of one call as one line: they are kept together or not at all.
#[cfg(feature = "redb")]
pub(crate) fn encode_changes(changes: &[Change]) -> String {
    let steps: Vec<_> = changes
        .iter()
        .map(|change| match change {
            Change::Put(record) => Step::Put(Box::new(Row::of(record))),
            Change::Forget(id) => Step::Forget(id.as_str()),
        })
        .collect();
    to_json(&steps)
}

#[cfg(feature = "redb")]
pub(crate) fn decode_changes(text: &str) -> Result<Vec<Change>, DecodeError> {
    serde_json::from_str::<Vec<Step<'_>>>(text)?
        .into_iter()
        .map(|step| match step {
            Step::Put(row) => row
                .into_record()
                .map(|record| Change::Put(Box::new(record))),
            Step::Forget(id) => name("forget", id).map(Change::Forget),
        })
        .collect()
}

#[cfg(feature = "redb")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Step<'a> {
    #[serde(borrow)]
    Put(Box<Row<'a>>),
    Forget(&'a str),
}

/// Names hold no character that JSON escapes, so all texts but the label are borrowed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row<'a> {
    id: &'a str,
    env: &'a str,
    tenant: &'a str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tier: Option<&'a str>,
    #[serde(default, borrow, skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<&'a str>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ip_allow: Vec<Box<str>>,
    created_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_before_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suspended_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resumed_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaced_by: Option<&'a str>,
    revision: u64,
    pepper: Box<str>,
    mac: Box<str>,
}

impl<'a> Row<'a> {
    fn of(record: &'a KeyRecord) -> Self {
        Self {
            id: record.id.as_str(),
            env: record.environment.as_str(),
            tenant: record.tenant.as_str(),
            label: record.label.clone(),
            owner: record.owner.clone(),
            tier: record.tier.as_ref().map(Name::as_str),
            scopes: record.scopes.iter().map(Name::as_str).collect(),
            ip_allow: (record.ip_allow.iter())
                .map(|network| network.to_string().into())
                .collect(),
            created_ms: millis(record.created_at),
            not_before_ms: record.not_before.map(millis),
            expires_ms: record.expires_at.map(millis),
            suspended_ms: match record.state {
                KeyState::Suspended { at } => Some(millis(at)),
                _ => None,
            },
            revoked_ms: match record.state {
                KeyState::Revoked { at } => Some(millis(at)),
                _ => None,
            },
            resumed_ms: record.resumed_at.map(millis),
            replaced_by: record.replaced_by.as_ref().map(Name::as_str),
            revision: record.revision,
            pepper: record.pepper.to_string().into(),
            mac: record.mac.to_hex().into(),
        }
    }

    fn into_record(self) -> Result<KeyRecord, DecodeError> {
        let invalid = |field| DecodeError::Field { field };
        if self.id.len() != ID_LEN || !self.id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(invalid("id"));
        }
        if !self.label.as_deref().is_none_or(is_label) {
            return Err(invalid("label"));
        }
        if !self.owner.as_deref().is_none_or(is_owner) {
            return Err(invalid("owner"));
        }
        if self.scopes.len() > MAX_SCOPES {
            return Err(invalid("scopes"));
        }
        if self.ip_allow.len() > MAX_NETWORKS {
            return Err(invalid("ip_allow"));
        }
        Ok(KeyRecord {
            id: name("id", self.id)?,
            environment: match self.env {
                "live" => Environment::Live,
                "test" => Environment::Test,
                _ => return Err(invalid("env")),
            },
            tenant: name("tenant", self.tenant)?,
            label: self.label,
            owner: self.owner,
            tier: self.tier.map(|tier| name("tier", tier)).transpose()?,
            scopes: Scopes::new(
                (self.scopes.into_iter().map(|scope| name("scopes", scope)))
                    .collect::<Result<Vec<_>, _>>()?,
            ),
            ip_allow: (self.ip_allow.iter())
                .map(|network| network.parse().map_err(|_| invalid("ip_allow")))
                .collect::<Result<_, _>>()?,
            created_at: Duration::from_millis(self.created_ms),
            not_before: self.not_before_ms.map(Duration::from_millis),
            expires_at: self.expires_ms.map(Duration::from_millis),
            state: match (self.revoked_ms, self.suspended_ms) {
                (Some(at), _) => KeyState::Revoked {
                    at: Duration::from_millis(at),
                },
                (None, Some(at)) => KeyState::Suspended {
                    at: Duration::from_millis(at),
                },
                (None, None) => KeyState::Active,
            },
            resumed_at: self.resumed_ms.map(Duration::from_millis),
            replaced_by: (self.replaced_by.map(|id| name("replaced_by", id))).transpose()?,
            revision: self.revision,
            pepper: PepperId::parse(&self.pepper).ok_or(invalid("pepper"))?,
            mac: Mac::parse_hex(&self.mac).ok_or(invalid("mac"))?,
            last_used_at: None,
        })
    }
}

fn name(field: &'static str, text: &str) -> Result<Name, DecodeError> {
    Name::new(text).map_err(|_: NameError| DecodeError::Field { field })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn to_json(value: &impl Serialize) -> String {
    #[expect(
        clippy::expect_used,
        reason = "texts, numbers and lists of them: nothing here can fail to serialize"
    )]
    serde_json::to_string(value).expect("plain data serializes")
}

#[cfg(test)]
pub(crate) mod tests {
    use ipnet::IpNet;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;

    fn a_name() -> impl Strategy<Value = Name> {
        "[A-Za-z0-9._:-]{1,64}".prop_map(|text| Name::new(&text).unwrap())
    }

    fn a_time() -> impl Strategy<Value = Duration> {
        any::<u64>().prop_map(Duration::from_millis)
    }

    fn a_state() -> impl Strategy<Value = KeyState> {
        prop_oneof![
            Just(KeyState::Active),
            a_time().prop_map(|at| KeyState::Suspended { at }),
            a_time().prop_map(|at| KeyState::Revoked { at }),
        ]
    }

    fn a_network() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (any::<u32>(), 0..=32u8).prop_map(|(bits, len)| (Ipv4Addr::from(bits).into(), len)),
            (any::<u128>(), 0..=128u8).prop_map(|(bits, len)| (Ipv6Addr::from(bits).into(), len)),
        ]
        .prop_map(|(ip, len): (IpAddr, u8)| IpNet::new(ip, len).unwrap())
    }

    prop_compose! {
        pub(crate) fn a_record()(
            id in "[A-Za-z0-9]{12}",
            test in any::<bool>(),
            tenant in a_name(),
            (label, owner) in (prop::option::of("[^\\p{C}]{1,32}"), prop::option::of("[^\\p{C}]{1,32}")),
            tier in prop::option::of(a_name()),
            scopes in prop::collection::vec(a_name(), 0..=MAX_SCOPES),
            ip_allow in prop::collection::vec(a_network(), 0..4),
            (created_at, not_before, expires_at) in
                (a_time(), prop::option::of(a_time()), prop::option::of(a_time())),
            (state, resumed_at) in (a_state(), prop::option::of(a_time())),
            replaced_by in prop::option::of(a_name()),
            revision in any::<u64>(),
            pepper in "[0-9a-f]{8}",
            mac in "[0-9a-f]{64}",
        ) -> KeyRecord {
            KeyRecord {
                id: Name::new(&id).unwrap(),
                environment: if test { Environment::Test } else { Environment::Live },
                tenant,
                label: label.map(Into::into),
                owner: owner.map(Into::into),
                ip_allow: ip_allow.into(),
                tier,
                scopes: Scopes::new(scopes),
                created_at, not_before, expires_at,
                state, resumed_at, replaced_by, revision,
                pepper: PepperId::parse(&pepper).unwrap(),
                mac: Mac::parse_hex(&mac).unwrap(),
                last_used_at: None,
            }
        }
    }

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_was(record in a_record()) {
            let text = record.encode();
            prop_assert!(!text.contains('\n'));
            prop_assert_eq!(KeyRecord::decode(&text).unwrap(), record);
        }

        #[test]
        fn changes_come_back_as_they_were(
            records in prop::collection::vec(a_record(), 0..4), forgotten in a_name()
        ) {
            let mut changes: Vec<_> =
                records.into_iter().map(|record| Change::Put(Box::new(record))).collect();
            changes.push(Change::Forget(forgotten));
            prop_assert_eq!(decode_changes(&encode_changes(&changes)).unwrap(), changes);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,200}") {
            let _ = KeyRecord::decode(&text);
            let _ = decode_changes(&text);
        }
    }

    #[test]
    fn a_field_of_a_later_version_is_refused_and_not_ignored() {
        let row = r#"{"id":"abcdefghijkl","env":"live","tenant":"t","created_ms":1,"revision":1,
            "pepper":"00000000","mac":"0000000000000000000000000000000000000000000000000000000000000000""#;
        assert!(KeyRecord::decode(&format!("{row}}}")).is_ok());
        let later = format!(r#"{row},"weekdays_only":true}}"#);
        let error = KeyRecord::decode(&later).unwrap_err().to_string();
        assert!(error.contains("weekdays_only"), "{error}");
    }
}
