//! Secrets are taken out before anything is kept.

use std::{borrow::Cow, fmt, sync::LazyLock};

use regex::Regex;

use crate::BuildError;

/// What stands where a secret was.
const MARK: &str = "[redacted]";

/// Takes secrets out of text, in one pass linear in its length: values of keys that say so
/// (`password=…`, `"api_key": "…"`), `Bearer …`, `sk-…`, `spark_sk_…`, well-known vendors' keys,
/// JSON web tokens, private keys, credentials in URLs, and card numbers that pass the Luhn check.
///
/// ```
/// let redactor = spark_errors::Redactor::new();
/// assert_eq!(redactor.redact("Authorization: Bearer abc.def"), "Authorization: [redacted]");
/// assert_eq!(redactor.redact("password=hunter2 user=ada"), "password=[redacted] user=ada");
/// ```
#[derive(Clone, Default)]
pub struct Redactor {
    emails: bool,
    more: Vec<Regex>,
}

impl Redactor {
    /// The rules above, without e-mail addresses.
    ///
    /// ```
    /// assert_eq!(spark_errors::Redactor::new().redact("sk-abcdefghijkl"), "[redacted]");
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// E-mail addresses too.
    ///
    /// ```
    /// let redactor = spark_errors::Redactor::new().emails(true);
    /// assert_eq!(redactor.redact("to ada@example.com"), "to [redacted]");
    /// ```
    #[must_use]
    pub fn emails(mut self, emails: bool) -> Self {
        self.emails = emails;
        self
    }

    /// Whatever matches `pattern` too.
    ///
    /// # Errors
    /// When `pattern` is not a regular expression.
    ///
    /// ```
    /// let redactor = spark_errors::Redactor::new().pattern(r"tenant-\w+")?;
    /// assert_eq!(redactor.redact("for tenant-acme"), "for [redacted]");
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn pattern(mut self, pattern: &str) -> Result<Self, BuildError> {
        self.more.push(Regex::new(pattern).map_err(Box::new)?);
        Ok(self)
    }

    /// `text` without its secrets; borrowed when there were none.
    ///
    /// ```
    /// assert_eq!(spark_errors::Redactor::new().redact("connection refused"), "connection refused");
    /// ```
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut out = replace(&PATTERN, text, kept);
        if self.emails {
            out = rewrite(out, |text| replace(&EMAIL, text, |_| Some(0)));
        }
        for pattern in &self.more {
            out = rewrite(out, |text| replace(pattern, text, |_| Some(0)));
        }
        out
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor")
            .field("emails", &self.emails)
            .finish_non_exhaustive()
    }
}

/// Each part either takes all that it has read or looks ahead by a bounded length, so that no text
/// makes the search read the same bytes over and over.
static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
    let parts = [
        // A private key, to its end or to the end of the text.
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.)*?(?:-----END [A-Z ]*-----|\z)",
        // Cookies: everything to the end of the line.
        r#"(?i:cookie)["']?(?-u:\s){0,8}[:=](?-u:\s){0,8}[^\r\n]+"#,
        // The header, of whatever scheme: some have blanks, commas and quotes in their credentials.
        r#"(?i:authorization)(?-u:\s){0,8}[:=](?-u:\s){0,8}[^\s"'\\][^\r\n]*"#,
        // key = value, "key": "value", Key: Some("value"), with backslashes before the quotes.
        concat!(
            r#"(?i:(?:password|passwd|passphrase|pwd|secret|api[_-]?key|apikey|credential|authorization"#,
            r#"|(?:private|access|signing|encryption|master|auth)[_-]?key|session[_-]?id)(?:s?(?-u:\b)|_[A-Za-z0-9_.-]{0,40})"#,
            // A number of `tokens` is no secret.
            r#"|(?:^|(?-u:\b)|_|-)(?:token|auth)(?-u:\b)|(?-i:[a-z0-9]Token)(?-u:\b))\\{0,4}["']?(?-u:\s){0,8}[:=]>?(?-u:\s){0,8}"#,
            r#"(?:[A-Za-z]{1,16}\()?(?:(?i:bearer|basic|digest|token)(?-u:\s){1,8})?"#,
            // A list or a struct, to its end or to the end of the line.
            r#"(?:\[[^\]\r\n]*\]?|(?:[A-Za-z]{1,24} ?)?\{[^}\r\n]*\}?|\\{1,4}"[^"\\]*(?:\\+")?|"(?:[^"\\]|\\.)*"?|'[^']*'?|[^\s"',;&})\]\\]+)"#
        ),
        r"(?-u:\b)(?i:bearer|basic)(?-u:\s){1,8}[A-Za-z0-9._~+/=-]{6,}",
        r"(?-u:\b)eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){0,4}",
        r"(?-u:\b)sk-[A-Za-z0-9_-]{6,}",
        r"(?-u:\b)spark_[a-z]{2}_[A-Za-z0-9_.-]+",
        concat!(
            r"(?-u:\b)(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|xox[a-z]-[A-Za-z0-9-]{8,}|AKIA[0-9A-Z]{12,}|AIza[A-Za-z0-9_-]{30,}|hf_[A-Za-z0-9]{20,}",
            r"|gsk_[A-Za-z0-9]{20,}|r8_[A-Za-z0-9]{20,}|(?:xai|pplx|glpat|ya29)[-.][A-Za-z0-9_-]{16,}",
            r"|[rs]k_(?:live|test)_[A-Za-z0-9]{8,}|npm_[A-Za-z0-9]{20,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,})"
        ),
        // user:password in a URL.
        r"://[!-.0-?A-~]{1,128}@",
        // Keys and signatures in a query.
        r"[?&](?i:key|sig|signature|code|x-amz-signature|token)=[^\s&#]+",
        r"(?-u:\b)[0-9](?:[ -]?[0-9]){12,18}(?-u:\b)",
    ];
    #[expect(clippy::expect_used, reason = "a constant; every test compiles it")]
    Regex::new(&parts.join("|")).expect("the pattern is an expression")
});

static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "a constant; every test compiles it")]
    Regex::new(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+").expect("the pattern is an expression")
});

/// How much of a match is kept before the mark; `None` leaves all of it.
fn kept(found: &str) -> Option<usize> {
    let bytes = found.as_bytes();
    match bytes[0] {
        b'0'..=b'9'
            if bytes
                .iter()
                .all(|b| b.is_ascii_digit() || b" -".contains(b)) =>
        {
            is_card(bytes).then_some(0)
        }
        b':' => Some(3),
        b'-' => Some(0),
        b'?' | b'&' => found.find('=').map(|at| at + 1),
        _ if found.starts_with("eyJ") || found.starts_with("sk-") => Some(0),
        _ => {
            // The key and what stands between it and the value; a bare `Bearer …` has none.
            let at = found.find([':', '=']).filter(|at| {
                let word = found[..*at].trim_end();
                !word.contains(char::is_whitespace)
            });
            let after = at.map_or(0, |at| {
                let rest = &found[at + 1..];
                at + 1 + (rest.len() - rest.trim_start().len())
            });
            Some(after)
        }
    }
}

fn is_card(bytes: &[u8]) -> bool {
    let digits = bytes.iter().filter(|b| b.is_ascii_digit()).rev();
    let sum: u32 = digits
        .enumerate()
        .map(|(at, byte)| {
            let digit = u32::from(byte - b'0') << (at % 2);
            if digit > 9 { digit - 9 } else { digit }
        })
        .sum();
    sum.is_multiple_of(10)
}

fn replace<'t>(
    pattern: &Regex,
    text: &'t str,
    kept: impl Fn(&str) -> Option<usize>,
) -> Cow<'t, str> {
    let mut out = String::new();
    let mut from = 0;
    for found in pattern.find_iter(text) {
        let Some(keep) = kept(found.as_str()) else {
            continue;
        };
        out.push_str(&text[from..found.start() + keep]);
        out.push_str(MARK);
        if found.as_str().starts_with("://") {
            out.push('@');
        }
        from = found.end();
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[from..]);
    Cow::Owned(out)
}

fn rewrite<'t>(text: Cow<'t, str>, rule: impl Fn(&str) -> Cow<'_, str>) -> Cow<'t, str> {
    let changed = match rule(&text) {
        Cow::Borrowed(_) => None,
        Cow::Owned(changed) => Some(changed),
    };
    changed.map_or(text, Cow::Owned)
}

/// A panic's message without what it quotes: a slice out of bounds, a failed `unwrap` and a
/// failed assertion all print the data at hand, which may be a prompt.
pub(crate) fn without_quotes(message: &str) -> Cow<'_, str> {
    const KNOWN: [&str; 3] = [
        "called `Result::unwrap()` on an `Err` value",
        "called `Option::unwrap()` on a `None` value",
        "called `Result::unwrap_err()` on an `Ok` value",
    ];
    let known = KNOWN
        .iter()
        .find(|known| message.starts_with(**known))
        .map_or(0, |k| k.len());
    let rest = &message[known..];
    let quote = |c| matches!(c, '`' | '"');
    let Some(first) = rest.find(quote) else {
        return Cow::Borrowed(message);
    };
    // To the last quote, since the data may hold quotes too; a single one has no end.
    let after = rest
        .rfind(quote)
        .filter(|last| *last > first)
        .map_or(rest.len(), |last| last + 1);
    Cow::Owned(format!(
        "{}[quoted]{}",
        &message[..known + first],
        &rest[after..]
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let redactor = Redactor::new();
        for (text, expected) in [
            ("password=hunter2 user=ada", "password=[redacted] user=ada"),
            (
                r#"{"api_key": "abc def", "n": 1}"#,
                r#"{"api_key": [redacted], "n": 1}"#,
            ),
            (
                r#"{\"token\":\"abc\",\"n\":1}"#,
                r#"{\"token\":[redacted],\"n\":1}"#,
            ),
            (
                r#"Config { db_password: Some("p w"), n: 1 }"#,
                "Config { db_password: [redacted]), n: 1 }",
            ),
            (
                "AWS_SECRET_ACCESS_KEY=abc/def+1",
                "AWS_SECRET_ACCESS_KEY=[redacted]",
            ),
            ("x-api-key: abc", "x-api-key: [redacted]"),
            (
                "Authorization: Basic dXNlcjpwYXNz",
                "Authorization: [redacted]",
            ),
            ("sent Bearer abcdef.ghi now", "sent [redacted] now"),
            (
                "Authorization: ApiKey abc123, then\nnext",
                "Authorization: [redacted]\nnext",
            ),
            (
                r#"Proxy-Authorization: Digest username="ada", response="6629fae4""#,
                "Proxy-Authorization: [redacted]",
            ),
            (
                r#"{"authorization": "ApiKey abc", "n": 1}"#,
                r#"{"authorization": [redacted], "n": 1}"#,
            ),
            (
                r#"{"accessToken":"abc","idToken":"def","maxTokens":5}"#,
                r#"{"accessToken":[redacted],"idToken":[redacted],"maxTokens":5}"#,
            ),
            ("Cookie: a=b; c=d", "Cookie: [redacted]"),
            ("key sk-proj-abcDEF123 bad", "key [redacted] bad"),
            ("key spark_sk_live_abc_DEF bad", "key [redacted] bad"),
            ("key spark_mk_live_abc_DEF.x bad", "key [redacted] bad"),
            ("jwt eyJhbGciOi.eyJzdWIi.sig-x bad", "jwt [redacted] bad"),
            (
                "at https://ada:pw@x.test/p",
                "at https://[redacted]@x.test/p",
            ),
            (
                "at https://x.test/p?key=abc&n=1",
                "at https://x.test/p?key=[redacted]&n=1",
            ),
            (
                "card 4111 1111 1111 1111 declined",
                "card [redacted] declined",
            ),
            (
                "order 4111 1111 1111 1112 unknown",
                "order 4111 1111 1111 1112 unknown",
            ),
            (
                r#"Login { password: Secret { inner: "hunter2" }, n: 1 }"#,
                "Login { password: [redacted], n: 1 }",
            ),
            (
                r#"{"passwords": ["hunter1", "hunter2"], "n": 1}"#,
                r#"{"passwords": [redacted], "n": 1}"#,
            ),
            (
                r#"{"secret": {"a": "b"}, "n": 1}"#,
                r#"{"secret": [redacted], "n": 1}"#,
            ),
            ("password => hunter2", "password =[redacted]"),
            (
                "password=[redacted] user=ada",
                "password=[redacted] user=ada",
            ),
            (
                "key gsk_abcdefghijklmnopqrstuvwxyz bad",
                "key [redacted] bad",
            ),
            (
                "key r8_abcdefghijklmnopqrstuvwxyz bad",
                "key [redacted] bad",
            ),
            ("key xai-abcdefghijklmnopqrstuv bad", "key [redacted] bad"),
            ("key pplx-abcdefghijklmnopqrstuv bad", "key [redacted] bad"),
            ("key glpat-abcdefghijklmnopqrst bad", "key [redacted] bad"),
            ("key ya29.abcdefghijklmnopqrst bad", "key [redacted] bad"),
            ("key sk_live_abcdefghijklmnop bad", "key [redacted] bad"),
            (
                "key npm_abcdefghijklmnopqrstuvwxyz bad",
                "key [redacted] bad",
            ),
            (
                "key SG.abcdefghijklmnopqrstuv.abcdefghijklmnopqrstuvwxyz bad",
                "key [redacted] bad",
            ),
            ("max_tokens: 100, tokens=5", "max_tokens: 100, tokens=5"),
            (
                "author: ada, secretary of state",
                "author: ada, secretary of state",
            ),
            ("connection refused", "connection refused"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- x",
                "[redacted] x",
            ),
            ("-----BEGIN PRIVATE KEY-----\nabc", "[redacted]"),
        ] {
            assert_eq!(redactor.redact(text), expected);
        }
    }

    #[test]
    fn a_panic_does_not_quote_data() {
        for (message, expected) in [
            ("plain", "plain"),
            (
                "byte index 1 is not a char boundary; it is inside 'é' of `a `b` c`",
                "byte index 1 is not a char boundary; it is inside 'é' of [quoted]",
            ),
            (
                r#"called `Result::unwrap()` on an `Err` value: E("p")"#,
                "called `Result::unwrap()` on an `Err` value: E([quoted])",
            ),
            ("an odd ` one", "an odd [quoted]"),
        ] {
            assert_eq!(without_quotes(message), expected);
        }
    }

    proptest! {
        #[test]
        fn planted_secrets_are_never_left(
            before in r"[a-z ,;{(\[]{0,20}",
            secret in "[A-Za-z0-9]{12,40}",
            form in 0_usize..9,
            after in r"[ ,;})\]&]\PC{0,20}",
        ) {
            let planted = match form {
                0 => format!("password={secret}"),
                1 => format!("\"api_key\":\"{secret}\""),
                2 => format!("Bearer {secret}"),
                3 => format!("sk-{secret}"),
                4 => format!("spark_sk_live_{secret}"),
                5 => format!("eyJ{secret}.{secret}.{secret}"),
                6 => format!("https://user:{secret}@host/"),
                7 => format!("secret: '{secret}'"),
                _ => format!("client_secret=Some(\"{secret}\")"),
            };
            let text = format!("{before} {planted}{after}");
            let redactor = Redactor::new();
            let redacted = redactor.redact(&text);
            prop_assert!(!redacted.contains(&secret), "{redacted}");
        }

        #[test]
        fn any_text_is_taken(text in r#"(?s)(?:[:=?&@"'0-9 -]|password|sk-|.){0,60}"#) {
            let redacted = Redactor::new().emails(true).redact(&text).into_owned();
            without_quotes(&redacted);
        }
    }
}
