//! Writing the set on a response.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY, Entry,
    STRICT_TRANSPORT_SECURITY,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::nonce::CspNonce;
use crate::set::SecurityHeaders;

/// What is known about one request and its response when the headers are written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Occasion {
    pub(crate) secure: bool,
    pub(crate) nonce: Option<CspNonce>,
    /// 304: its headers replace those of a page that the browser holds, nonce and all.
    pub(crate) not_modified: bool,
}

impl SecurityHeaders {
    pub(crate) fn write(&self, headers: &mut HeaderMap, occasion: Occasion) {
        self.take_off(headers);
        // A map at its limit (32,768 names) takes no more: the set is then incomplete, and no panic.
        let _ = headers.try_reserve(self.fixed.len() + 3);
        for (policy, name) in [
            (&self.csp, CONTENT_SECURITY_POLICY),
            (&self.report_only, CONTENT_SECURITY_POLICY_REPORT_ONLY),
        ] {
            let Some(policy) = policy else { continue };
            let would_break_the_stored_page = occasion.not_modified && policy.uses_nonce();
            if would_break_the_stored_page || headers.contains_key(&name) {
                continue;
            }
            if let Some(value) = policy.render(occasion.secure, occasion.nonce.as_ref()) {
                put(headers, name, || value);
            }
        }
        if let (true, Some(hsts)) = (occasion.secure, &self.hsts) {
            put(headers, STRICT_TRANSPORT_SECURITY, || hsts.clone());
        }
        for (name, value) in &self.fixed {
            put(headers, name.clone(), || value.clone());
        }
    }

    fn take_off(&self, headers: &mut HeaderMap) {
        if self.strip.is_empty() {
            return;
        }
        let listed = |name: &&HeaderName| {
            self.strip
                .binary_search_by(|known| known.as_ref().cmp(name.as_str()))
                .is_ok()
        };
        while let Some(name) = headers.keys().find(listed).cloned() {
            headers.remove(name);
        }
    }
}

/// The handler's value stands, unless it set several where the header has one: then nobody can say
/// which of them a browser obeys, and the set's takes their place.
fn put(headers: &mut HeaderMap, name: HeaderName, value: impl FnOnce() -> HeaderValue) {
    let is_list = is_list(&name);
    match headers.try_entry(name) {
        Ok(Entry::Vacant(entry)) => {
            let _ = entry.try_insert(value());
        }
        Ok(Entry::Occupied(mut entry)) => {
            if !is_list && entry.iter().nth(1).is_some() {
                entry.insert(value());
            }
        }
        Err(_full) => {}
    }
}

/// Headers whose lines add up.
fn is_list(name: &HeaderName) -> bool {
    *name == CACHE_CONTROL
        || *name == CONTENT_SECURITY_POLICY
        || *name == CONTENT_SECURITY_POLICY_REPORT_ONLY
        || matches!(
            name.as_str(),
            "permissions-policy"
                | "reporting-endpoints"
                | "clear-site-data"
                | "vary"
                | "set-cookie"
        )
}

#[cfg(test)]
mod tests {
    use http::header::SERVER;

    use super::*;
    use crate::{Https, presets};

    fn applied(set: &SecurityHeaders, before: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in before {
            headers.append(*name, HeaderValue::from_static(value));
        }
        set.apply(&mut headers);
        headers
    }

    #[test]
    fn the_api_set_is_the_table() {
        let headers = applied(&SecurityHeaders::api().https(Https::Always), &[]);
        for (name, value) in [
            (
                "content-security-policy",
                "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
            ),
            (
                "strict-transport-security",
                "max-age=63072000; includeSubDomains",
            ),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-embedder-policy", "require-corp"),
            ("permissions-policy", presets::PERMISSIONS_POLICY),
            ("cache-control", "no-store, max-age=0"),
            ("x-permitted-cross-domain-policies", "none"),
            ("x-dns-prefetch-control", "off"),
        ] {
            assert_eq!(headers.get(name).unwrap(), value, "{name}");
        }
        assert_eq!(headers.len(), 12);
    }

    #[test]
    fn the_html_set_differs_in_three() {
        let headers = applied(&SecurityHeaders::html(), &[]);
        assert_eq!(headers["origin-agent-cluster"], "?1");
        assert!(!headers.contains_key("cross-origin-embedder-policy"));
        let csp = headers["content-security-policy"].to_str().unwrap();
        assert!(
            csp.contains("script-src 'strict-dynamic'"),
            "no nonce outside a layer: {csp}"
        );
        assert!(
            !csp.contains("upgrade-insecure-requests"),
            "plain http: {csp}"
        );
    }

    #[test]
    fn the_handlers_value_wins() {
        let set = SecurityHeaders::api();
        let headers = applied(
            &set,
            &[
                ("cache-control", "max-age=60"),
                ("x-frame-options", "SAMEORIGIN"),
            ],
        );
        assert_eq!(headers["cache-control"], "max-age=60");
        assert_eq!(headers["x-frame-options"], "SAMEORIGIN");
    }

    #[test]
    fn contradictions_are_settled_and_lists_are_left() {
        let two = [
            ("x-frame-options", "SAMEORIGIN"),
            ("x-frame-options", "DENY, x"),
            ("content-security-policy", "img-src 'none'"),
            ("content-security-policy", "font-src 'none'"),
        ];
        let headers = applied(&SecurityHeaders::api(), &two);
        assert_eq!(
            headers
                .get_all("x-frame-options")
                .iter()
                .collect::<Vec<_>>(),
            ["DENY"]
        );
        assert_eq!(headers.get_all("content-security-policy").iter().count(), 2);
    }

    #[test]
    fn the_stack_is_not_named() {
        let set = SecurityHeaders::api()
            .strip(["X-Node"])
            .unwrap()
            .keep("X-B3-TraceId");
        let before = [
            ("server", "a"),
            ("x-powered-by", "b"),
            ("x-powered-by", "c"),
            ("x-node", "d"),
            ("x-b3-traceid", "e"),
            ("x-other", "f"),
        ];
        let headers = applied(&set, &before);
        assert!(!headers.contains_key(SERVER));
        assert!(!headers.contains_key("x-powered-by"));
        assert!(!headers.contains_key("x-node"));
        assert_eq!(headers["x-b3-traceid"], "e");
        assert_eq!(headers["x-other"], "f");
    }

    #[test]
    fn remove_reaches_every_kind() {
        let set = SecurityHeaders::api()
            .https(Https::Always)
            .remove("Content-Security-Policy")
            .remove(STRICT_TRANSPORT_SECURITY)
            .remove("cache-control")
            .remove("x-never-there");
        let headers = applied(&set, &[]);
        assert_eq!(headers.len(), 9);
    }

    #[test]
    fn a_full_map_is_no_panic() {
        let mut headers = HeaderMap::new();
        for number in 0.. {
            let name = HeaderName::try_from(format!("x-{number}")).unwrap();
            if headers
                .try_insert(name, HeaderValue::from_static("1"))
                .is_err()
            {
                break;
            }
        }
        SecurityHeaders::api().apply(&mut headers);
    }
}
