//! A policy as bytes: whole, or with gaps for the nonce.

use bytes::Bytes;
use http::HeaderValue;

use crate::csp::Csp;
use crate::nonce::CspNonce;

/// One policy for https and one for plain http, both ready to send.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    secure: Template,
    plain: Template,
}

impl Policy {
    pub(crate) fn new(csp: &Csp) -> Self {
        Self {
            secure: Template::new(csp),
            plain: Template::new(&csp.plain()),
        }
    }

    pub(crate) fn uses_nonce(&self) -> bool {
        matches!(self.secure, Template::Gaps { .. })
    }

    /// `None` when nothing is left of the policy.
    pub(crate) fn render(&self, secure: bool, nonce: Option<&CspNonce>) -> Option<HeaderValue> {
        if secure {
            self.secure.render(nonce)
        } else {
            self.plain.render(nonce)
        }
    }
}

#[derive(Clone, Debug)]
enum Template {
    Whole(Option<HeaderValue>),
    Gaps {
        pieces: Vec<Box<str>>,
        length: usize,
        without: Option<HeaderValue>,
    },
}

impl Template {
    fn new(csp: &Csp) -> Self {
        let text = csp.to_string();
        if !csp.uses_nonce() {
            return Self::Whole(whole(&text));
        }
        let pieces: Vec<Box<str>> = text.split(Csp::NONCE).map(Box::from).collect();
        let gaps = pieces.len() - 1;
        let length = text.len() + gaps * (OPEN.len() + CspNonce::LENGTH + 1 - Csp::NONCE.len());
        Self::Gaps {
            pieces,
            length,
            without: whole(&csp.without_nonce().to_string()),
        }
    }

    fn render(&self, nonce: Option<&CspNonce>) -> Option<HeaderValue> {
        match (self, nonce) {
            (Self::Whole(value), _) | (Self::Gaps { without: value, .. }, None) => value.clone(),
            (Self::Gaps { pieces, length, .. }, Some(nonce)) => {
                let mut text = String::with_capacity(*length);
                for (at, piece) in pieces.iter().enumerate() {
                    if at > 0 {
                        text.push_str(OPEN);
                        text.push_str(nonce.as_str());
                        text.push('\'');
                    }
                    text.push_str(piece);
                }
                HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
            }
        }
    }
}

const OPEN: &str = "'nonce-";

/// A `Csp` is visible ASCII and spaces, so only the empty one has no value.
fn whole(text: &str) -> Option<HeaderValue> {
    if text.is_empty() {
        None
    } else {
        HeaderValue::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nonce_fills_every_gap_and_the_length_is_right() {
        let nonce = CspNonce::generate().unwrap();
        let template = Template::new(&Csp::html());
        let text = template.render(Some(&nonce)).unwrap();
        let text = text.to_str().unwrap();
        assert_eq!(text.matches(&format!("'nonce-{nonce}'")).count(), 2);
        assert!(!text.contains(Csp::NONCE));
        let Template::Gaps { length, .. } = template else {
            panic!("html() uses a nonce")
        };
        assert_eq!(text.len(), length);
    }

    #[test]
    fn plain_http_is_not_upgraded() {
        let policy = Policy::new(&Csp::html());
        let has = |secure| {
            let value = policy.render(secure, None).unwrap();
            value
                .to_str()
                .unwrap()
                .contains("upgrade-insecure-requests")
        };
        assert!(has(true));
        assert!(!has(false));
    }

    #[test]
    fn an_empty_policy_is_no_header() {
        assert!(Policy::new(&Csp::empty()).render(true, None).is_none());
        let only = Csp::empty()
            .directive("upgrade-insecure-requests", [""; 0])
            .unwrap();
        assert!(Policy::new(&only).render(false, None).is_none());
        assert!(Policy::new(&only).render(true, None).is_some());
    }
}
