//! Who did what to keys, and who was turned away.

use std::fmt;
use std::time::Duration;

use spark_core::{ClientIp, Name};

use crate::error::Rejected;

/// Where audit events go. The default, [`TracingAudit`], writes them to `tracing`.
///
/// It is called on the thread of the request, so it must neither block nor fail: a sink that
/// writes elsewhere puts the event into a queue of its own, bounded, and counts what it drops.
///
/// # Example
/// ```
/// use std::sync::mpsc::{SyncSender, sync_channel};
/// use spark_auth::{AuditEvent, AuditSink, Authenticator, MemoryStore, NewKey, Pepper};
/// # use spark_core::Name;
///
/// #[derive(Debug)]
/// struct Queue(SyncSender<String>);
///
/// impl AuditSink for Queue {
///     fn event(&self, event: &AuditEvent) {
///         let _ = self.0.try_send(event.name().to_owned()); // full: drop, and count it
///     }
/// }
///
/// let (sender, events) = sync_channel(1_000);
/// let auth = Authenticator::builder()
///     .pepper(Pepper::generate()?)
///     .store(MemoryStore::new())
///     .audit(Queue(sender))
///     .build()?;
/// auth.issue(NewKey::new(Name::new("acme")?))?;
/// assert_eq!(events.recv()?, "issued");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait AuditSink: fmt::Debug + Send + Sync {
    /// Takes note of one event.
    fn event(&self, event: &AuditEvent);
}

/// Something worth remembering. It holds public ids, never a key.
///
/// # Example
/// ```
/// use spark_auth::{AuditEvent, Rejected};
/// let event = AuditEvent::Denied { reason: Rejected::Expired, key_id: None, client_ip: None };
/// assert_eq!(event.name(), "denied");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditEvent {
    /// A key was made.
    Issued {
        /// Its id.
        key_id: Name,
        /// Whose it is.
        tenant: Name,
    },
    /// A key was replaced by a new one.
    Rotated {
        /// The old key's id.
        key_id: Name,
        /// The new key's id.
        successor: Name,
        /// How long the old key goes on working.
        overlap: Duration,
    },
    /// A key was taken back.
    Revoked {
        /// Its id.
        key_id: Name,
        /// Whether the store kept that: otherwise the key works again after a restart, unless a
        /// second event tells that it was kept later.
        saved: bool,
    },
    /// A key does not work until it is resumed.
    Suspended {
        /// Its id.
        key_id: Name,
        /// Whether the store kept that: otherwise the key works again after a restart, unless a
        /// second event tells that it was kept later.
        saved: bool,
    },
    /// A suspended key works again.
    Resumed {
        /// Its id.
        key_id: Name,
    },
    /// A credential was not accepted.
    Denied {
        /// Why.
        reason: Rejected,
        /// The id that was sent, where one was: a key with this id need not exist.
        key_id: Option<Name>,
        /// Who sent it.
        client_ip: Option<ClientIp>,
    },
    /// The master key was accepted.
    MasterUsed {
        /// Whether it was the previous one, whose users should be moved to the current one.
        previous: bool,
        /// Who sent it.
        client_ip: Option<ClientIp>,
    },
}

impl AuditEvent {
    /// A short word: `issued`, `rotated`, `revoked`, `suspended`, `resumed`, `denied`,
    /// `master_used`.
    ///
    /// # Example
    /// ```
    /// # use spark_auth::AuditEvent;
    /// let event = AuditEvent::MasterUsed { previous: false, client_ip: None };
    /// assert_eq!(event.name(), "master_used");
    /// ```
    pub fn name(&self) -> &'static str {
        match self {
            Self::Issued { .. } => "issued",
            Self::Rotated { .. } => "rotated",
            Self::Revoked { .. } => "revoked",
            Self::Suspended { .. } => "suspended",
            Self::Resumed { .. } => "resumed",
            Self::Denied { .. } => "denied",
            Self::MasterUsed { .. } => "master_used",
        }
    }
}

/// Writes events to `tracing`, target `spark_auth::audit`.
///
/// All are `INFO` but for two kinds: what is not in the form of a key at all is `DEBUG`, since a flood of
/// nonsense is for the counters; and a revocation or suspension that the store did not keep is
/// `ERROR`. Denials of known and of unknown ids are written alike, so that the time it takes tells nobody which it was.
///
/// # Example
/// ```
/// use spark_auth::{AuditEvent, AuditSink, TracingAudit};
/// TracingAudit.event(&AuditEvent::MasterUsed { previous: false, client_ip: None });
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingAudit;

const TARGET: &str = "spark_auth::audit";

impl AuditSink for TracingAudit {
    fn event(&self, event: &AuditEvent) {
        let name = event.name();
        match event {
            AuditEvent::Issued { key_id, tenant } => {
                tracing::info!(target: TARGET, event = name, %key_id, %tenant, "key issued");
            }
            AuditEvent::Rotated {
                key_id,
                successor,
                overlap,
            } => {
                tracing::info!(target: TARGET, event = name, %key_id, %successor, ?overlap, "key rotated");
            }
            AuditEvent::Revoked {
                key_id,
                saved: true,
            } => {
                tracing::info!(target: TARGET, event = name, %key_id, "key revoked");
            }
            AuditEvent::Revoked {
                key_id,
                saved: false,
            } => tracing::error!(
                target: TARGET, event = name, %key_id,
                "key revoked in this process only: the store failed, so it works again after a restart"
            ),
            AuditEvent::Suspended {
                key_id,
                saved: true,
            } => {
                tracing::info!(target: TARGET, event = name, %key_id, "key suspended");
            }
            AuditEvent::Suspended {
                key_id,
                saved: false,
            } => tracing::error!(
                target: TARGET, event = name, %key_id,
                "key suspended in this process only: the store failed, so it works again after a restart"
            ),
            AuditEvent::Resumed { key_id } => {
                tracing::info!(target: TARGET, event = name, %key_id, "key resumed");
            }
            AuditEvent::Denied {
                reason: Rejected::Malformed,
                client_ip,
                ..
            } => tracing::debug!(
                target: TARGET, event = name, reason = Rejected::Malformed.as_str(),
                client_ip = %address(*client_ip), "credential denied"
            ),
            AuditEvent::Denied {
                reason,
                key_id,
                client_ip,
            } => tracing::info!(
                target: TARGET, event = name, reason = reason.as_str(),
                key_id = key_id.as_ref().map(Name::as_str),
                client_ip = %address(*client_ip), "credential denied"
            ),
            AuditEvent::MasterUsed {
                previous,
                client_ip,
            } => tracing::info!(
                target: TARGET, event = name, previous, client_ip = %address(*client_ip),
                "master key used"
            ),
        }
    }
}

fn address(client_ip: Option<ClientIp>) -> impl fmt::Display {
    struct Address(Option<ClientIp>);
    impl fmt::Display for Address {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0 {
                Some(ip) => ip.addr().fmt(f),
                None => f.write_str("-"),
            }
        }
    }
    Address(client_ip)
}
