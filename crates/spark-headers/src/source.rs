//! Which values may stand in which directive of a policy (CSP Level 3, §2.3).

/// What a directive takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A list of sources from which something is fetched: nonces and hashes too.
    Fetch,
    /// A list of origins.
    Origins,
    /// Nothing.
    Flag,
    /// `allow-…` words, or nothing.
    Sandbox,
    /// Names of trusted-type policies.
    TrustedTypes,
    /// `'script'`.
    TrustedTypesFor,
    /// One name of an endpoint.
    ReportTo,
    /// Addresses of endpoints.
    ReportUri,
}

/// Every directive that is known here.
const DIRECTIVES: &[(&str, Kind)] = &[
    ("default-src", Kind::Fetch),
    ("script-src", Kind::Fetch),
    ("script-src-elem", Kind::Fetch),
    ("script-src-attr", Kind::Fetch),
    ("style-src", Kind::Fetch),
    ("style-src-elem", Kind::Fetch),
    ("style-src-attr", Kind::Fetch),
    ("img-src", Kind::Fetch),
    ("font-src", Kind::Fetch),
    ("connect-src", Kind::Fetch),
    ("media-src", Kind::Fetch),
    ("object-src", Kind::Fetch),
    ("manifest-src", Kind::Fetch),
    ("worker-src", Kind::Fetch),
    ("child-src", Kind::Fetch),
    ("frame-src", Kind::Fetch),
    ("base-uri", Kind::Origins),
    ("form-action", Kind::Origins),
    ("frame-ancestors", Kind::Origins),
    ("upgrade-insecure-requests", Kind::Flag),
    ("sandbox", Kind::Sandbox),
    ("trusted-types", Kind::TrustedTypes),
    ("require-trusted-types-for", Kind::TrustedTypesFor),
    ("report-to", Kind::ReportTo),
    ("report-uri", Kind::ReportUri),
];

const KEYWORDS: &[&str] = &[
    "self",
    "none",
    "unsafe-inline",
    "unsafe-eval",
    "unsafe-hashes",
    "wasm-unsafe-eval",
    "trusted-types-eval",
    "strict-dynamic",
    "inline-speculation-rules",
    "report-sample",
];

const SANDBOX: &[&str] = &[
    "allow-downloads",
    "allow-forms",
    "allow-modals",
    "allow-orientation-lock",
    "allow-pointer-lock",
    "allow-popups",
    "allow-popups-to-escape-sandbox",
    "allow-presentation",
    "allow-same-origin",
    "allow-scripts",
    "allow-storage-access-by-user-activation",
    "allow-top-navigation",
    "allow-top-navigation-by-user-activation",
    "allow-top-navigation-to-custom-protocols",
];

/// The lengths of a SHA-256, -384 and -512 in base64, padding and all.
const HASHES: &[(&str, usize)] = &[("sha256-", 44), ("sha384-", 64), ("sha512-", 88)];

/// The directive of that name, as it is written, and what it takes.
pub(crate) fn directive(name: &str) -> Option<(&'static str, Kind)> {
    DIRECTIVES
        .iter()
        .copied()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
}

/// `Err` with how to mend it, when `value` may not stand in a directive of this kind.
pub(crate) fn check(kind: Kind, value: &str) -> Result<(), &'static str> {
    if value.is_empty() {
        return Err("an empty source; leave it out");
    }
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("only visible ASCII; give each source as an item of its own");
    }
    if value.contains([';', ',']) {
        return Err("`;` and `,` end a directive; write %3B or %2C in a path");
    }
    match kind {
        Kind::Fetch | Kind::Origins => source(kind, value),
        Kind::Flag => Err("this directive takes no value"),
        Kind::Sandbox if SANDBOX.contains(&value) => Ok(()),
        Kind::Sandbox => Err("not a sandbox flag; they begin with allow-"),
        Kind::TrustedTypesFor if value == "'script'" => Ok(()),
        Kind::TrustedTypesFor => Err("the one value is 'script', in single quotes"),
        Kind::TrustedTypes => trusted_types(value),
        Kind::ReportTo if value.bytes().all(is_token) => Ok(()),
        Kind::ReportTo => Err("the name of one endpoint of Reporting-Endpoints"),
        Kind::ReportUri if !value.contains(['\'', '"']) => Ok(()),
        Kind::ReportUri => Err("an address without quotes"),
    }
}

fn source(kind: Kind, value: &str) -> Result<(), &'static str> {
    if let Some(rest) = value.strip_prefix('\'') {
        let inner = rest
            .strip_suffix('\'')
            .ok_or("the closing single quote is missing")?;
        return quoted(kind, inner);
    }
    if value.contains(['\'', '"']) {
        return Err("quotes stand around keywords, nonces and hashes only, and are single");
    }
    let lower = value.to_ascii_lowercase();
    if KEYWORDS.contains(&lower.as_str()) || lower == "nonce" {
        return Err("write the keyword in single quotes, as in 'self'");
    }
    if lower.starts_with("nonce-") || HASHES.iter().any(|(prefix, _)| lower.starts_with(prefix)) {
        return Err("nonces and hashes stand in single quotes");
    }
    if value == "*" || value.strip_suffix(':').is_some_and(is_scheme) || is_host_source(value) {
        return Ok(());
    }
    Err(
        "neither a host (example.com, *.example.com, https://example.com:8443/path) nor a scheme \
         (https:)",
    )
}

fn quoted(kind: Kind, inner: &str) -> Result<(), &'static str> {
    if matches!(inner, "self" | "none") {
        return Ok(());
    }
    if kind == Kind::Origins {
        return Err("this directive takes 'self', 'none', hosts and schemes only");
    }
    if inner == "nonce" || KEYWORDS.contains(&inner) {
        return Ok(());
    }
    if inner.starts_with("nonce-") {
        return Err(
            "a nonce that stays the same is none; write Csp::NONCE, filled in per response",
        );
    }
    for (prefix, length) in HASHES {
        if let Some(hash) = inner.strip_prefix(prefix) {
            let digits = hash.trim_end_matches('=');
            let padded = hash.len() == *length && hash.len() - digits.len() <= 2;
            return if padded && digits.bytes().all(is_base64) {
                Ok(())
            } else {
                Err("not a whole hash in base64; `openssl dgst -sha256 -binary | base64` makes one")
            };
        }
    }
    Err("not a keyword; known are 'self', 'none', 'strict-dynamic', 'report-sample', 'unsafe-…'")
}

fn trusted_types(value: &str) -> Result<(), &'static str> {
    let policy = |byte: u8| is_token(byte) || b"#=/@.%".contains(&byte);
    if matches!(value, "*" | "'none'" | "'allow-duplicates'") || value.bytes().all(policy) {
        return Ok(());
    }
    Err("the name of a policy, *, 'none' or 'allow-duplicates'")
}

/// `[scheme://]host[:port][/path]`
fn is_host_source(value: &str) -> bool {
    let rest = match value.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => rest,
        Some(_) => return false,
        None => value,
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let port_is_good =
        port.is_none_or(|port| port == "*" || port.parse::<u16>().is_ok_and(|number| number > 0));
    let labels = host.strip_prefix("*.").unwrap_or(host);
    let host_is_good = host == "*"
        || labels.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    host_is_good && port_is_good && path.bytes().all(is_path)
}

/// Without the dot that RFC 3986 allows: `example.com:` is a host whose port got lost.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-".contains(&b))
}

fn is_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~%!$&()*+=:@".contains(&byte)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_that_stand() {
        for good in [
            "'self'",
            "'none'",
            "'nonce'",
            "'strict-dynamic'",
            "'unsafe-inline'",
            "*",
            "https:",
            "data:",
            "wss:",
            "example.com",
            "*.example.com",
            "localhost:3000",
            "example.com:*",
            "https://*.example.com:8443/a/b%20c/",
            "http://127.0.0.1:8080",
            "'sha256-RFWPLDbv2BY+rCkDzsE+0fr8ylGr2R2faWMhq4lfEQc='",
        ] {
            assert_eq!(check(Kind::Fetch, good), Ok(()), "{good}");
        }
    }

    #[test]
    fn sources_that_fall() {
        for bad in [
            "",
            "self",
            "NONE",
            "unsafe-inline",
            "nonce",
            "nonce-abc",
            "sha256-abc",
            "'nonce-abc'",
            "'sha256-abc'",
            "'sha999-abc'",
            "'self",
            "self'",
            "\"self\"",
            "'made-up'",
            "'SELF'",
            "''",
            "'",
            "a b",
            "a;script-src *",
            "a,b",
            "a\r\nb",
            "a\0b",
            "ü.example",
            "https://",
            "://x",
            "1https://x",
            "a..b",
            "*.",
            "**",
            "a.*.b",
            "example.com:",
            "example.com:0",
            "example.com:99999",
            "example.com/a?b",
            "example.com/a#b",
            "user@example.com",
            "[::1]",
        ] {
            assert!(check(Kind::Fetch, bad).is_err(), "{bad}");
        }
        assert!(check(Kind::Origins, "'nonce'").is_err());
        assert!(check(Kind::Origins, "'unsafe-inline'").is_err());
        assert!(check(Kind::Flag, "1").is_err());
    }

    #[test]
    fn other_kinds() {
        assert!(check(Kind::Sandbox, "allow-scripts").is_ok());
        assert!(check(Kind::Sandbox, "scripts").is_err());
        assert!(check(Kind::TrustedTypesFor, "'script'").is_ok());
        assert!(check(Kind::TrustedTypesFor, "script").is_err());
        assert!(check(Kind::TrustedTypes, "my-policy#1").is_ok());
        assert!(check(Kind::TrustedTypes, "'mine'").is_err());
        assert!(check(Kind::ReportTo, "csp").is_ok());
        assert!(check(Kind::ReportTo, "'csp'").is_err());
        assert!(check(Kind::ReportUri, "https://example.com/r?a=b").is_ok());
        assert!(check(Kind::ReportUri, "'x'").is_err());
    }
}
