//! The ways to choose a key, and how each looks at a request.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use spark_core::{ClientIp, Context, Name, Principal, peer_addr};

use crate::subject::Missed;
use crate::{ChooseKey, Head, Key, Subject};

#[derive(Clone)]
pub(crate) enum Choice {
    Tenant,
    Network {
        v6_prefix: u8,
    },
    Header {
        name: HeaderName,
        /// The key of the name, so that equal values of two headers are two.
        key: Key,
    },
    #[cfg(feature = "axum")]
    Route,
    Custom(Arc<dyn ChooseKey>),
    /// The first that knows.
    Or(Box<(Self, Self)>),
    /// Both together.
    And(Box<(Self, Self)>),
}

/// What one look at a request brings to light.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) subject: Option<Subject<'a>>,
    /// There may be a subject all the same, when another way stands in.
    pub(crate) missed: Option<Missed>,
}

impl Choice {
    pub(crate) fn network() -> Self {
        Self::Network { v6_prefix: 64 }
    }

    pub(crate) fn set_v6_prefix(&mut self, bits: u8) {
        match self {
            Self::Network { v6_prefix } => *v6_prefix = bits,
            Self::Or(both) | Self::And(both) => {
                both.0.set_v6_prefix(bits);
                both.1.set_v6_prefix(bits);
            }
            #[cfg(feature = "axum")]
            Self::Route => {}
            Self::Tenant | Self::Header { .. } | Self::Custom(_) => {}
        }
    }

    /// `context` is the one of `head`, looked up once for all parts.
    pub(crate) fn look<'a>(&self, head: &Head<'a>, context: Option<&'a Context>) -> Known<'a> {
        match self {
            Self::Tenant => tenant(context),
            Self::Network { v6_prefix } => {
                let ip = client_ip(head, context);
                Known::or_missed(ip.map(|ip| Key::network(ip, *v6_prefix)), Missed::Address)
            }
            Self::Header { name, key } => {
                let value = only_value(head.headers, name);
                Known::or_missed(value.map(|value| Key::header(*key, value)), Missed::Header)
            }
            #[cfg(feature = "axum")]
            Self::Route => Known::or_missed(crate::route::key(head), Missed::Route),
            Self::Custom(choose) => Known::or_missed(choose.choose(head), Missed::Custom),
            Self::Or(both) => first(both, head, context),
            Self::And(both) => together(both, head, context),
        }
    }
}

impl<'a> Known<'a> {
    fn or_missed(subject: Option<impl Into<Subject<'a>>>, missed: Missed) -> Self {
        Self {
            missed: subject.is_none().then_some(missed),
            subject: subject.map(Into::into),
        }
    }
}

fn tenant(context: Option<&Context>) -> Known<'_> {
    let principal = context.and_then(Context::principal);
    let subject = match principal {
        Some(Principal::User(user)) => Some(Subject {
            key: Key::tenant(&user.tenant),
            tier: user.tier.as_ref().map(Name::as_str),
        }),
        Some(Principal::Master) => Some(Key::master().into()),
        // The anonymous, and whoever else has no tenant.
        Some(_) | None => None,
    };
    Known {
        subject,
        // To be anonymous is no mistake.
        missed: principal.is_none().then_some(Missed::Principal),
    }
}

fn first<'a>(
    (one, other): &(Choice, Choice),
    head: &Head<'a>,
    context: Option<&'a Context>,
) -> Known<'a> {
    let one = one.look(head, context);
    if one.subject.is_some() {
        return one;
    }
    let other = other.look(head, context);
    Known {
        subject: other.subject,
        // Whoever says `or` expects the first not to know: of an anonymous caller, of a request
        // without the header. That nobody ever said who calls is another matter.
        missed: match (one.missed, other.subject) {
            (Some(Missed::Principal), _) | (_, None) => other.missed.or(one.missed),
            _ => other.missed,
        },
    }
}

fn together<'a>(
    (one, other): &(Choice, Choice),
    head: &Head<'a>,
    context: Option<&'a Context>,
) -> Known<'a> {
    let one = one.look(head, context);
    let Some(first) = one.subject else {
        return one;
    };
    let other = other.look(head, context);
    Known {
        subject: other.subject.map(|second| Subject {
            key: first.key.and(second.key),
            tier: first.tier.or(second.tier),
        }),
        missed: one.missed.or(other.missed),
    }
}

/// The address that the edge worked out; the peer's where no edge layer of ours stands outside.
fn client_ip(head: &Head<'_>, context: Option<&Context>) -> Option<ClientIp> {
    match context.and_then(Context::client_ip) {
        Some(ip) => Some(ip),
        None => peer_addr(head.extensions).map(|peer| ClientIp::new(peer.ip())),
    }
}

/// The value of a header that is there once and says something.
fn only_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.as_bytes();
    (values.next().is_none() && !value.is_empty()).then_some(value)
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant => f.write_str("tenant"),
            Self::Network { v6_prefix } => write!(f, "network/{v6_prefix}"),
            Self::Header { name, .. } => write!(f, "header {name}"),
            #[cfg(feature = "axum")]
            Self::Route => f.write_str("route"),
            Self::Custom(_) => f.write_str("custom"),
            Self::Or(both) => write!(f, "{}, else {}", both.0, both.1),
            Self::And(both) => {
                part(&both.0, f)?;
                f.write_str(" and ")?;
                part(&both.1, f)
            }
        }
    }
}

fn part(choice: &Choice, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match choice {
        Choice::Or(_) => write!(f, "({choice})"),
        _ => write!(f, "{choice}"),
    }
}
