//! The values, as data: what is sent and what is removed.
//!
//! The lists to add and to remove are those of the OWASP Secure Headers Project (2026-07-19).

/// Every powerful feature off; `sync-xhr` is left to the page itself.
pub(crate) const PERMISSIONS_POLICY: &str = "accelerometer=(), autoplay=(), camera=(), cross-origin-isolated=(), display-capture=(), \
    encrypted-media=(), fullscreen=(), geolocation=(), gyroscope=(), keyboard-map=(), \
    magnetometer=(), microphone=(), midi=(), payment=(), picture-in-picture=(), \
    publickey-credentials-get=(), screen-wake-lock=(), sync-xhr=(self), usb=(), \
    web-share=(), xr-spatial-tracking=(), clipboard-read=(), clipboard-write=(), \
    gamepad=(), hid=(), idle-detection=(), interest-cohort=(), serial=(), unload=()";

/// Sent unless the handler says otherwise: an answer made for one caller is in nobody's cache.
pub(crate) const CACHE_CONTROL: &str = "no-store, max-age=0";

/// What both sets send, by name.
pub(crate) const COMMON: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("permissions-policy", PERMISSIONS_POLICY),
    ("x-permitted-cross-domain-policies", "none"),
    ("x-dns-prefetch-control", "off"),
    ("cache-control", CACHE_CONTROL),
];

/// What the API set adds. On a page it would shut out media of other origins.
pub(crate) const API: &[(&str, &str)] = &[("cross-origin-embedder-policy", "require-corp")];

/// What the HTML set adds.
pub(crate) const HTML: &[(&str, &str)] = &[("origin-agent-cluster", "?1")];

/// The policy of the API set: the answer is data, and no document may come of it.
pub(crate) const CSP_API: &[(&str, &[&str])] = &[
    ("default-src", &["'none'"]),
    ("frame-ancestors", &["'none'"]),
    ("base-uri", &["'none'"]),
    ("form-action", &["'none'"]),
];

/// The policy of the HTML set: only scripts that carry the response's nonce run.
pub(crate) const CSP_HTML: &[(&str, &[&str])] = &[
    ("default-src", &["'none'"]),
    ("script-src", &["'nonce'", "'strict-dynamic'"]),
    ("style-src", &["'self'", "'nonce'"]),
    ("img-src", &["'self'", "data:"]),
    ("font-src", &["'self'"]),
    ("connect-src", &["'self'"]),
    ("manifest-src", &["'self'"]),
    ("base-uri", &["'none'"]),
    ("form-action", &["'self'"]),
    ("frame-ancestors", &["'none'"]),
    ("object-src", &["'none'"]),
    ("require-trusted-types-for", &["'script'"]),
    ("upgrade-insecure-requests", &[]),
];

/// What gives the stack away: removed from every response. Lower case, sorted.
pub(crate) const STRIP: &[&str] = &[
    "$wsep",
    "host-header",
    "k-proxy-request",
    "liferay-portal",
    "oraclecommercecloud-version",
    "pega-host",
    "powered-by",
    "product",
    "server",
    "sourcemap",
    "x-aspnet-version",
    "x-aspnetmvc-version",
    "x-atmosphere-error",
    "x-atmosphere-first-request",
    "x-atmosphere-tracking-id",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-backside-transport",
    "x-beserver",
    "x-calculatedbetarget",
    "x-cf-powered-by",
    "x-cms",
    "x-cocoon-version",
    "x-content-encoded-by",
    "x-datadog-origin",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-datadog-tags",
    "x-datadog-trace-id",
    "x-diaginfo",
    "x-dtagentid",
    "x-dthealthcheck",
    "x-dtinjectedservlet",
    "x-envoy-attempt-count",
    "x-envoy-external-address",
    "x-envoy-internal",
    "x-envoy-original-dst-host",
    "x-envoy-upstream-service-time",
    "x-feserver",
    "x-framework",
    "x-generated-by",
    "x-generator",
    "x-gitlab-meta",
    "x-jitsi-release",
    "x-joomla-version",
    "x-kong-admin-latency",
    "x-kong-client-latency",
    "x-kong-proxy-latency",
    "x-kong-request-id",
    "x-kong-response-latency",
    "x-kong-third-party-latency",
    "x-kong-total-latency",
    "x-kong-upstream-latency",
    "x-kong-upstream-status",
    "x-kubernetes-pf-flowschema-ui",
    "x-kubernetes-pf-prioritylevel-uid",
    "x-litespeed-cache",
    "x-litespeed-cache-control",
    "x-litespeed-purge",
    "x-litespeed-tag",
    "x-litespeed-vary",
    "x-mod-pagespeed",
    "x-nextjs-cache",
    "x-nextjs-matched-path",
    "x-nextjs-page",
    "x-nextjs-redirect",
    "x-old-content-length",
    "x-oneagent-js-injection",
    "x-owa-version",
    "x-page-speed",
    "x-php-version",
    "x-powered-by",
    "x-powered-by-plesk",
    "x-powered-cms",
    "x-redirect-by",
    "x-ruxit-js-agent",
    "x-server-powered-by",
    "x-sourcefiles",
    "x-sourcemap",
    "x-turbo-charged-by",
    "x-tyk-trace-id",
    "x-umbraco-version",
    "x-varnish-backend",
    "x-varnish-server",
    "x-woodpecker-version",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strip_list_is_sorted_lower_case_and_valid() {
        assert!(STRIP.is_sorted());
        for name in STRIP {
            assert_eq!(
                http::HeaderName::from_bytes(name.as_bytes())
                    .unwrap()
                    .as_str(),
                *name
            );
        }
    }

    #[test]
    fn the_values_are_valid() {
        for (name, value) in COMMON.iter().chain(API).chain(HTML) {
            http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            http::HeaderValue::from_str(value).unwrap();
        }
    }
}
