//! The address of the caller, when proxies stand in between.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::{FORWARDED, HeaderName};
use http::{Extensions, HeaderMap};
use ipnet::IpNet;

/// The address of the caller: never IPv4-mapped IPv6.
///
/// # Example
/// ```
/// use spark_core::ClientIp;
/// let mapped = ClientIp::new("::ffff:192.0.2.7".parse()?);
/// assert_eq!(mapped, ClientIp::new("192.0.2.7".parse()?));
///
/// let (one, two) = (ClientIp::new("2001:db8::1".parse()?), ClientIp::new("2001:db8::2".parse()?));
/// assert_eq!(one.network(64), two.network(64));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientIp(IpAddr);

impl ClientIp {
    /// This address, un-mapped.
    ///
    /// # Example
    /// ```
    /// # use spark_core::ClientIp;
    /// assert!(ClientIp::new("::ffff:10.0.0.1".parse()?).addr().is_ipv4());
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub const fn new(addr: IpAddr) -> Self {
        Self(addr.to_canonical())
    }

    /// The address.
    ///
    /// # Example
    /// ```
    /// # use spark_core::ClientIp;
    /// assert_eq!(ClientIp::new([10, 0, 0, 1].into()).addr().to_string(), "10.0.0.1");
    /// ```
    pub const fn addr(self) -> IpAddr {
        self.0
    }

    /// The network that one subscriber holds: an IPv4 address whole, an IPv6 address cut to its
    /// first `v6_prefix` bits (at most 128; 64 is what one household gets).
    ///
    /// # Example
    /// ```
    /// # use spark_core::ClientIp;
    /// let ip = ClientIp::new("2001:db8:1:2:3:4:5:6".parse()?);
    /// assert_eq!(ip.network(64).to_string(), "2001:db8:1:2::");
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn network(self, v6_prefix: u8) -> IpAddr {
        match self.0 {
            IpAddr::V4(_) => self.0,
            IpAddr::V6(v6) => {
                let host_bits = 128 - u32::from(v6_prefix.min(128));
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        }
    }
}

impl std::fmt::Display for ClientIp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The address at the other end of the connection, as the accept loop saw it: a request extension.
///
/// # Example
/// ```
/// use spark_core::{PeerAddr, peer_addr};
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(PeerAddr("192.0.2.7:4711".parse()?));
/// assert_eq!(peer_addr(request.extensions()), Some("192.0.2.7:4711".parse()?));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// The peer's address from the first of: [`PeerAddr`], axum's `ConnectInfo<SocketAddr>` (feature
/// `axum`), a plain [`SocketAddr`].
///
/// # Example
/// ```
/// assert!(spark_core::peer_addr(&http::Extensions::new()).is_none());
/// ```
pub fn peer_addr(extensions: &Extensions) -> Option<SocketAddr> {
    if let Some(PeerAddr(addr)) = extensions.get() {
        return Some(*addr);
    }
    #[cfg(feature = "axum")]
    if let Some(axum::extract::ConnectInfo(addr)) = extensions.get() {
        return Some(*addr);
    }
    extensions.get().copied()
}

/// The one header that is read for the addresses of earlier hops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, a list of addresses.
    #[default]
    XForwardedFor,
    /// `Forwarded` of [RFC 7239](https://www.rfc-editor.org/rfc/rfc7239), its `for` parameters.
    Forwarded,
}

/// The proxies that are believed, and the header in which they write whom they heard from.
///
/// Every proxy in the list must append to that header, or replace it.
///
/// # Example
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use spark_core::TrustedProxies;
/// let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse()?]);
/// let mut headers = HeaderMap::new();
/// // What the client wrote itself stands to the left, and does not count.
/// headers.insert("x-forwarded-for", HeaderValue::from_static("6.6.6.6, 192.0.2.7, 10.0.0.2"));
///
/// let behind_the_proxy = proxies.resolve("10.0.0.1".parse()?, &headers);
/// assert_eq!(behind_the_proxy.ip.addr().to_string(), "192.0.2.7");
///
/// let direct = proxies.resolve("203.0.113.9".parse()?, &headers);
/// assert_eq!(direct.ip.addr().to_string(), "203.0.113.9");
/// assert!(direct.ignored_header, "a peer that is not trusted sent one");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    header: ForwardedHeader,
}

/// What [`TrustedProxies::resolve`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolved {
    /// The caller.
    pub ip: ClientIp,
    /// The peer is not trusted and sent the header all the same: either a client that plays a
    /// proxy, or a proxy that is missing from the list.
    pub ignored_header: bool,
}

impl TrustedProxies {
    /// No proxy: the peer is the client.
    ///
    /// # Example
    /// ```
    /// use spark_core::TrustedProxies;
    /// let resolved = TrustedProxies::none().resolve([192, 0, 2, 7].into(), &Default::default());
    /// assert_eq!(resolved.ip.addr().to_string(), "192.0.2.7");
    /// ```
    pub fn none() -> Self {
        Self::default()
    }

    /// The proxies in these networks, writing `X-Forwarded-For`.
    ///
    /// # Example
    /// ```
    /// # use spark_core::TrustedProxies;
    /// let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse()?]);
    /// # Ok::<(), ipnet::AddrParseError>(())
    /// ```
    pub fn new(networks: Vec<IpNet>) -> Self {
        let networks = networks.into_iter().map(unmap).collect();
        Self {
            networks,
            header: ForwardedHeader::default(),
        }
    }

    /// Chooses the header.
    ///
    /// # Example
    /// ```
    /// # use spark_core::{ForwardedHeader, TrustedProxies};
    /// let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse()?])
    ///     .header(ForwardedHeader::Forwarded);
    /// # Ok::<(), ipnet::AddrParseError>(())
    /// ```
    #[must_use]
    pub fn header(mut self, header: ForwardedHeader) -> Self {
        self.header = header;
        self
    }

    /// The client of a request that came in from `peer`.
    ///
    /// The header's lines are joined and walked from the right to the first hop that is not
    /// trusted: that is the client. At a hop that is no address the walk ends, and the last
    /// trusted address stands, since what is left of it was written by nobody known. The time is
    /// linear in the length of the header.
    ///
    /// # Example
    /// ```
    /// # use http::{HeaderMap, HeaderValue};
    /// # use spark_core::{ForwardedHeader, TrustedProxies};
    /// let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse()?])
    ///     .header(ForwardedHeader::Forwarded);
    /// let mut headers = HeaderMap::new();
    /// headers.insert("forwarded", HeaderValue::from_static("for=\"[2001:db8::7]:4711\";proto=https"));
    /// let resolved = proxies.resolve("10.0.0.1".parse()?, &headers);
    /// assert_eq!(resolved.ip.addr().to_string(), "2001:db8::7");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resolve(&self, peer: IpAddr, headers: &HeaderMap) -> Resolved {
        let mut client = ClientIp::new(peer);
        if !self.trusts(client) {
            return Resolved {
                ip: client,
                ignored_header: headers.contains_key(self.header_name()),
            };
        }
        'walk: for line in headers.get_all(self.header_name()).iter().rev() {
            // A line that is not ASCII ends the walk, as any unreadable hop does.
            let Ok(line) = line.to_str() else { break };
            for element in rsplit_outside_quotes(line, ',') {
                let hop = match self.header {
                    ForwardedHeader::XForwardedFor => parse_node(element.trim()),
                    ForwardedHeader::Forwarded => forwarded_for(element).and_then(parse_node),
                };
                let Some(hop) = hop else { break 'walk };
                client = hop;
                if !self.trusts(hop) {
                    break 'walk;
                }
            }
        }
        Resolved {
            ip: client,
            ignored_header: false,
        }
    }

    fn trusts(&self, ip: ClientIp) -> bool {
        self.networks.iter().any(|network| network.contains(&ip.0))
    }

    fn header_name(&self) -> HeaderName {
        match self.header {
            ForwardedHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            ForwardedHeader::Forwarded => FORWARDED,
        }
    }
}

/// A network given as `::ffff:10.0.0.0/104` means `10.0.0.0/8`.
fn unmap(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else {
        return network;
    };
    let (Some(v4), Some(prefix)) = (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
    else {
        return network;
    };
    ipnet::Ipv4Net::new(v4, prefix).map_or(network, IpNet::V4)
}

/// The `for` parameter of one element of `Forwarded`, without its quotes.
fn forwarded_for(element: &str) -> Option<&str> {
    let mut found = None;
    // RFC 7239 §4 allows empty pairs, as after a last semicolon.
    let pairs = rsplit_outside_quotes(element, ';').filter(|pair| !pair.trim().is_empty());
    for pair in pairs {
        let (name, value) = pair.split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("for") {
            continue;
        }
        // Two `for` in one element: nobody can say which one is meant.
        if found.is_some() {
            return None;
        }
        let value = value.trim();
        found = Some(match value.strip_prefix('"') {
            Some(quoted) => quoted.strip_suffix('"')?,
            None => value,
        });
    }
    found
}

/// An address with or without a port: `192.0.2.7`, `192.0.2.7:4711`, `2001:db8::7`,
/// `[2001:db8::7]`, `[2001:db8::7]:4711`. No zone, no name.
fn parse_node(text: &str) -> Option<ClientIp> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ClientIp::new(ip));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, port) = rest.split_once(']')?;
        let port_is_fine = match port.strip_prefix(':') {
            Some(port) => is_port(port),
            None => port.is_empty(),
        };
        let ip = ip.parse::<Ipv6Addr>().ok()?;
        return port_is_fine.then_some(ClientIp::new(ip.into()));
    }
    let (ip, port) = text.split_once(':')?;
    let ip = ip.parse::<std::net::Ipv4Addr>().ok()?;
    is_port(port).then_some(ClientIp::new(ip.into()))
}

/// RFC 7239 allows an obfuscated port, `_` and word characters.
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(rest) => {
            !rest.is_empty()
                && rest
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        }
        None => (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// Splits from the right at `separator` where it stands outside of double quotes, so that a quote
/// which a client leaves open cannot swallow what a proxy appended.
fn rsplit_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.rsplit(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn proxies(header: ForwardedHeader) -> TrustedProxies {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|n| n.parse().unwrap());
        TrustedProxies::new(networks.to_vec()).header(header)
    }

    fn resolve(header: ForwardedHeader, peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                proxies(header).header_name(),
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        let found = proxies(header).resolve(peer.parse().unwrap(), &headers);
        found.ip.to_string()
    }

    #[test]
    fn x_forwarded_for_is_walked_from_the_right_to_the_first_untrusted_hop() {
        let xff = |peer, lines: &[&str]| resolve(ForwardedHeader::XForwardedFor, peer, lines);
        for (peer, lines, expected) in [
            ("10.0.0.1", &[][..], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
            ("10.0.0.1", &["6.6.6.6, 192.0.2.7, 10.0.0.2"], "192.0.2.7"),
            // Lines are one list, in their order.
            (
                "10.0.0.1",
                &["6.6.6.6", "192.0.2.7", "10.0.0.2"],
                "192.0.2.7",
            ),
            // A port is not a way around.
            ("10.0.0.1", &["6.6.6.6, 192.0.2.7:4711"], "192.0.2.7"),
            ("10.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            // At garbage the last trusted address stands: never skip to the left.
            ("10.0.0.1", &["6.6.6.6, garbage"], "10.0.0.1"),
            ("10.0.0.1", &["6.6.6.6, garbage, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["6.6.6.6, "], "10.0.0.1"),
            ("10.0.0.1", &["6.6.6.6", ""], "10.0.0.1"),
            ("10.0.0.1", &["fe80::1%eth0"], "10.0.0.1"),
            // Every hop trusted: the leftmost one.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // An untrusted peer is the client, whatever it writes.
            ("203.0.113.9", &["192.0.2.7"], "203.0.113.9"),
            // Mapped addresses are the addresses that they map.
            ("::ffff:10.0.0.1", &["::ffff:192.0.2.7"], "192.0.2.7"),
            ("10.0.0.1", &["192.0.2.7, ::ffff:10.0.0.2"], "192.0.2.7"),
        ] {
            assert_eq!(xff(peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn forwarded_is_walked_in_the_same_way() {
        let forwarded = |lines: &[&str]| resolve(ForwardedHeader::Forwarded, "10.0.0.1", lines);
        for (lines, expected) in [
            (&["for=192.0.2.7"][..], "192.0.2.7"),
            (
                &["For=\"192.0.2.7:4711\";proto=https;by=10.0.0.1"],
                "192.0.2.7",
            ),
            (&["for=6.6.6.6, for=192.0.2.7, for=10.0.0.2"], "192.0.2.7"),
            (&["for=\"[2001:db8::7]\""], "2001:db8::7"),
            (&["for=6.6.6.6, for=unknown"], "10.0.0.1"),
            (&["for=6.6.6.6, for=_hidden"], "10.0.0.1"),
            (&["for=6.6.6.6, proto=https"], "10.0.0.1"),
            (&["for=6.6.6.6, for=\"192.0.2.7"], "10.0.0.1"),
            (&["for=\"6.6.6.6, for=192.0.2.7\""], "10.0.0.1"),
            (&["for=6.6.6.6;for=192.0.2.7"], "10.0.0.1"),
            (&["for=192.0.2.7:_port"], "192.0.2.7"),
            (&["for=192.0.2.7;"], "192.0.2.7"),
            (&["; ;proto=https;for=192.0.2.7"], "192.0.2.7"),
            (&["for=6.6.6.6, ;"], "10.0.0.1"),
        ] {
            assert_eq!(forwarded(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn only_the_chosen_header_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert("forwarded", HeaderValue::from_static("for=6.6.6.6"));
        let found =
            proxies(ForwardedHeader::XForwardedFor).resolve("10.0.0.1".parse().unwrap(), &headers);
        assert_eq!(found.ip.to_string(), "10.0.0.1");
    }

    #[test]
    fn a_header_from_an_untrusted_peer_is_reported() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.7"));
        let all = proxies(ForwardedHeader::XForwardedFor);
        assert!(
            all.resolve([203, 0, 113, 9].into(), &headers)
                .ignored_header
        );
        assert!(!all.resolve([10, 0, 0, 1].into(), &headers).ignored_header);
    }

    #[test]
    fn a_mapped_network_is_the_network_that_it_maps() {
        let proxies = TrustedProxies::new(vec!["::ffff:10.0.0.0/104".parse().unwrap()]);
        assert!(proxies.trusts(ClientIp::new([10, 1, 2, 3].into())));
        assert!(!proxies.trusts(ClientIp::new([11, 1, 2, 3].into())));
    }

    #[test]
    fn networks_keep_the_first_bits() {
        let ip = ClientIp::new("2001:db8:1:2:3:4:5:6".parse().unwrap());
        assert_eq!(ip.network(0).to_string(), "::");
        assert_eq!(ip.network(48).to_string(), "2001:db8:1::");
        assert_eq!(ip.network(128), ip.addr());
        assert_eq!(ip.network(255), ip.addr());
        let v4 = ClientIp::new([192, 0, 2, 7].into());
        assert_eq!(v4.network(0), v4.addr());
    }

    proptest! {
        /// With one trusted hop, nothing that the client wrote changes the outcome.
        #[test]
        fn what_the_client_writes_never_matters(forged in "[ -~]{0,80}") {
            let line = format!("{forged},192.0.2.7");
            let xff = resolve(ForwardedHeader::XForwardedFor, "10.0.0.1", &[&line]);
            prop_assert_eq!(xff, "192.0.2.7");
            let separate = resolve(ForwardedHeader::XForwardedFor, "10.0.0.1", &[&forged, "192.0.2.7"]);
            prop_assert_eq!(separate, "192.0.2.7");
            let forwarded = resolve(ForwardedHeader::Forwarded, "10.0.0.1", &[&forged, "for=192.0.2.7"]);
            prop_assert_eq!(forwarded, "192.0.2.7");
            let line = format!("{forged},for=192.0.2.7");
            let forwarded = resolve(ForwardedHeader::Forwarded, "10.0.0.1", &[&line]);
            prop_assert_eq!(forwarded, "192.0.2.7");
        }

        #[test]
        fn no_header_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
                    let mut headers = HeaderMap::new();
                    headers.insert(proxies(header).header_name(), value.clone());
                    proxies(header).resolve([10, 0, 0, 1].into(), &headers);
                }
            }
        }
    }
}
