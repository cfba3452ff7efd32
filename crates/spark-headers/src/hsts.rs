//! `Strict-Transport-Security`, and when it may be sent.

use std::time::Duration;

use http::{Extensions, HeaderMap, HeaderValue};
use ipnet::IpNet;

/// For how long a browser is to use nothing but https for this host.
///
/// # Example
/// ```
/// use spark_headers::Hsts;
/// assert_eq!(Hsts::years(2).include_subdomains().to_string(), "max-age=63072000; includeSubDomains");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hsts {
    seconds: u64,
    subdomains: bool,
    preload: bool,
}

impl Hsts {
    /// For that many years of 365 days, this host alone.
    ///
    /// # Example
    /// ```
    /// assert_eq!(spark_headers::Hsts::years(1).to_string(), "max-age=31536000");
    /// ```
    pub fn years(years: u32) -> Self {
        Self {
            seconds: u64::from(years) * YEAR,
            subdomains: false,
            preload: false,
        }
    }

    /// For that long, this host alone. Zero makes browsers forget what they were told.
    ///
    /// # Example
    /// ```
    /// use std::time::Duration;
    /// assert_eq!(spark_headers::Hsts::max_age(Duration::ZERO).to_string(), "max-age=0");
    /// ```
    pub fn max_age(age: Duration) -> Self {
        Self {
            seconds: age.as_secs(),
            subdomains: false,
            preload: false,
        }
    }

    /// Every host under this one too.
    ///
    /// # Example
    /// ```
    /// let hsts = spark_headers::Hsts::years(2).include_subdomains();
    /// ```
    #[must_use]
    pub fn include_subdomains(mut self) -> Self {
        self.subdomains = true;
        self
    }

    /// Ask to be built into browsers: with all subdomains, for a year or more.
    ///
    /// To be taken off that list again takes months, in which no host under this one can be reached
    /// over plain http.
    ///
    /// # Example
    /// ```
    /// let hsts = spark_headers::Hsts::years(2).preload_i_understand();
    /// assert_eq!(hsts.to_string(), "max-age=63072000; includeSubDomains; preload");
    /// ```
    #[must_use]
    pub fn preload_i_understand(self) -> Self {
        Self {
            seconds: self.seconds.max(YEAR),
            subdomains: true,
            preload: true,
        }
    }

    pub(crate) fn value(self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.to_string()).ok()
    }
}

const YEAR: u64 = 365 * 24 * 60 * 60;

/// Two years, all subdomains.
impl Default for Hsts {
    fn default() -> Self {
        Self::years(2).include_subdomains()
    }
}

impl std::fmt::Display for Hsts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "max-age={}", self.seconds)?;
        if self.subdomains {
            f.write_str("; includeSubDomains")?;
        }
        if self.preload {
            f.write_str("; preload")?;
        }
        Ok(())
    }
}

/// How the layer knows that a request came over https. Over plain http, HSTS must not be sent
/// (RFC 6797, §7.2), and `upgrade-insecure-requests` would break the page.
///
/// # Example
/// ```
/// use spark_headers::{Https, SecurityHeaders};
/// let behind_a_proxy = Https::ForwardedProto(vec!["10.0.0.0/8".parse()?]);
/// let headers = SecurityHeaders::api().https(behind_a_proxy);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Https {
    /// It did not.
    #[default]
    Never,
    /// It did: TLS ends here, or in front of here on every path.
    Always,
    /// As the proxy says in `X-Forwarded-Proto` (the last word of it), when the peer is in one of
    /// these networks; otherwise it did not. The peer is the one that [`spark_core::peer_addr`] finds.
    ForwardedProto(Vec<IpNet>),
}

impl Https {
    /// `None`: it depends on the peer, and nobody said who that is.
    pub(crate) fn is_secure(&self, extensions: &Extensions, headers: &HeaderMap) -> Option<bool> {
        match self {
            Self::Never => Some(false),
            Self::Always => Some(true),
            Self::ForwardedProto(trusted) => {
                let peer = spark_core::peer_addr(extensions)?.ip().to_canonical();
                let is_trusted = trusted.iter().any(|network| network.contains(&peer));
                Some(is_trusted && last_proto_is_https(headers))
            }
        }
    }
}

/// The nearest proxy wrote the last word; what stands to its left may be the client's.
fn last_proto_is_https(headers: &HeaderMap) -> bool {
    let last = headers.get_all("x-forwarded-proto").into_iter().next_back();
    last.and_then(|line| line.to_str().ok())
        .and_then(|line| line.rsplit(',').next())
        .is_some_and(|word| word.trim().eq_ignore_ascii_case("https"))
}

#[cfg(test)]
mod tests {
    use spark_core::PeerAddr;

    use super::*;

    #[test]
    fn only_a_trusted_peer_is_believed() {
        let https = Https::ForwardedProto(vec!["10.0.0.0/8".parse().unwrap()]);
        let ask = |peer: &str, lines: &[&'static str]| {
            let mut extensions = Extensions::new();
            extensions.insert(PeerAddr(peer.parse().unwrap()));
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-proto", HeaderValue::from_static(line));
            }
            https.is_secure(&extensions, &headers).unwrap()
        };
        assert!(ask("10.1.2.3:1", &["https"]));
        assert!(ask("[::ffff:10.1.2.3]:1", &["HTTPS"]));
        assert!(ask("10.1.2.3:1", &["http, https"]));
        assert!(ask("10.1.2.3:1", &["http", "https"]));
        assert!(!ask("10.1.2.3:1", &["https, http"]));
        assert!(!ask("10.1.2.3:1", &["https", "http"]));
        assert!(!ask("10.1.2.3:1", &[]));
        assert!(!ask("192.0.2.1:1", &["https"]));
        assert_eq!(https.is_secure(&Extensions::new(), &HeaderMap::new()), None);
    }

    #[test]
    fn preload_makes_itself_valid() {
        let hsts = Hsts::max_age(Duration::from_secs(5)).preload_i_understand();
        assert_eq!(
            hsts.to_string(),
            "max-age=31536000; includeSubDomains; preload"
        );
    }
}
