//! Made-up forwarding headers: nobody gets a bucket by writing one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;

use common::{MINUTE, ip, limiter, policy, remaining};
use http::{HeaderValue, Request};
use proptest::prelude::*;
use spark_core::testing::TestClock;
use spark_core::{ContextLayer, ForwardedHeader, PeerAddr, TrustedProxies};
use spark_ratelimit::{Key, KeyBy, Limiter, RateLimitLayer};
use tower::{Layer, Service, ServiceExt};

/// Two requests for each network; 10/8 and fd00::/8 are our proxies.
struct Edge {
    limiter: Limiter,
    header: ForwardedHeader,
}

impl Edge {
    fn new(header: ForwardedHeader) -> Self {
        let limiter = limiter(&TestClock::new(), [policy("ip", 1_000, MINUTE)]);
        Self { limiter, header }
    }

    /// Sends a request from a peer with these lines of the header; gives the status.
    fn send(&self, peer: &str, lines: &[&str]) -> u16 {
        let proxies = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap());
        let proxies = TrustedProxies::new(proxies.to_vec()).header(self.header);
        let layer = RateLimitLayer::new(self.limiter.clone()).key(KeyBy::client_ip());
        let edge = ContextLayer::new(TestClock::new().clock(), proxies);
        let mut service = edge.layer(layer.layer(common::hello()));

        let mut request = Request::new(());
        let peer = SocketAddr::new(peer.parse().unwrap(), 4_711);
        request.extensions_mut().insert(PeerAddr(peer));
        let name = match self.header {
            ForwardedHeader::XForwardedFor => "x-forwarded-for",
            ForwardedHeader::Forwarded => "forwarded",
        };
        for line in lines {
            let line = HeaderValue::from_bytes(line.as_bytes()).unwrap();
            request.headers_mut().append(name, line);
        }
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        runtime.block_on(async {
            let service = service.ready().await.unwrap();
            service.call(request).await.unwrap().status().as_u16()
        })
    }

    /// Whether these lines from this peer are charged to `expected`, and to nobody else.
    fn is_charged_to(&self, peer: &str, lines: &[&str], expected: &str) -> bool {
        let key = Key::network(ip(expected), 64);
        let before = remaining(&self.limiter, key, None);
        assert_eq!(
            self.send(peer, lines),
            200,
            "never an error: {peer} {lines:?}"
        );
        let charged = before - remaining(&self.limiter, key, None);
        assert!(charged <= 1);
        charged == 1
    }
}

#[test]
fn r3_no_x_forwarded_for_gets_a_fresh_bucket() {
    let edge = Edge::new(ForwardedHeader::XForwardedFor);
    let long = format!("{}192.0.2.7", "6.6.6.6, ".repeat(900));
    let garbage = "x".repeat(8_192);
    for (peer, lines, charged) in [
        // What stands left of the hop that our proxy saw.
        ("10.0.0.1", &["192.0.2.7"][..], "192.0.2.7"),
        ("10.0.0.1", &["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["6.6.6.7, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["10.0.0.9, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["garbage, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &[",,,, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["\"6.6.6.6, 192.0.2.7"], "192.0.2.7"),
        // With two of our proxies in the way.
        ("10.0.0.1", &["6.6.6.6, 192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        ("fd00::1", &["6.6.6.6, 192.0.2.7, fd00::2"], "192.0.2.7"),
        // Lines of one's own, before that of the proxy.
        ("10.0.0.1", &["6.6.6.6", "192.0.2.7"], "192.0.2.7"),
        (
            "10.0.0.1",
            &["6.6.6.6", "6.6.6.7", "192.0.2.7, 10.0.0.2"],
            "192.0.2.7",
        ),
        // A port, brackets, the mapped form, another spelling: the same address.
        ("10.0.0.1", &["192.0.2.7:1"], "192.0.2.7"),
        ("10.0.0.1", &["192.0.2.7:65535"], "192.0.2.7"),
        ("10.0.0.1", &["::ffff:192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["[::ffff:192.0.2.7]:80"], "192.0.2.7"),
        ("10.0.0.1", &["::FFFF:c000:207"], "192.0.2.7"),
        ("10.0.0.1", &["[2001:DB8::1]:443"], "2001:db8::"),
        ("10.0.0.1", &["2001:db8:0:0:ffff:1:2:3"], "2001:db8::"),
        // What is no address ends the walk where it stands: our proxy, for all of them together.
        ("10.0.0.1", &["6.6.6.6, garbage"], "10.0.0.1"),
        ("10.0.0.1", &["6.6.6.6, 192.0.2.999"], "10.0.0.1"),
        ("10.0.0.1", &["6.6.6.6, 0300.0.2.7"], "10.0.0.1"),
        ("10.0.0.1", &["6.6.6.6, unknown"], "10.0.0.1"),
        ("10.0.0.1", &["6.6.6.6, fe80::1%eth0"], "10.0.0.1"),
        ("10.0.0.1", &["6.6.6.6, [fe80::1%25eth0]:80"], "10.0.0.1"),
        ("10.0.0.1", &["6.6.6.6, [192.0.2.7]:80"], "10.0.0.1"),
        ("10.0.0.1", &["6.6.6.6, 2001:db8::1:99999:1"], "10.0.0.1"),
        ("10.0.0.1", &["6.6.6.6, 192.0.2.7:"], "10.0.0.1"),
        ("10.0.0.1", &["6.6.6.6, 192.0.2.7:port"], "10.0.0.1"),
        ("10.0.0.1", &["6.6.6.6", "\u{e9}"], "10.0.0.1"),
        ("10.0.0.1", &["6.6.6.6,"], "10.0.0.1"),
        ("10.0.0.1", &[""], "10.0.0.1"),
        ("10.0.0.1", &[], "10.0.0.1"),
        ("10.0.0.1", &["6.6.6.6, garbage, 10.0.0.2"], "10.0.0.2"),
        // Eight kilobytes of either.
        ("10.0.0.1", &[&long], "192.0.2.7"),
        ("10.0.0.1", &[&garbage], "10.0.0.1"),
        // Who is not our proxy is the client, whatever it writes.
        ("203.0.113.9", &["6.6.6.6"], "203.0.113.9"),
        ("203.0.113.9", &["10.0.0.1"], "203.0.113.9"),
        ("203.0.113.9", &["6.6.6.6", "10.0.0.2"], "203.0.113.9"),
        ("203.0.113.9", &[&garbage], "203.0.113.9"),
        ("::ffff:203.0.113.9", &["6.6.6.6"], "203.0.113.9"),
    ] {
        assert!(edge.is_charged_to(peer, lines, charged), "{peer} {lines:?}");
    }
    for nobody in ["6.6.6.6", "6.6.6.7", "10.0.0.9"] {
        let key = Key::network(ip(nobody), 64);
        assert_eq!(remaining(&edge.limiter, key, None), 1_000, "{nobody}");
    }
}

#[test]
fn r3_no_forwarded_gets_a_fresh_bucket() {
    let edge = Edge::new(ForwardedHeader::Forwarded);
    let long = format!("{}for=192.0.2.7", "for=6.6.6.6;by=a, ".repeat(450));
    for (peer, lines, charged) in [
        ("10.0.0.1", &["for=192.0.2.7"][..], "192.0.2.7"),
        ("10.0.0.1", &["for=6.6.6.6, for=192.0.2.7"], "192.0.2.7"),
        (
            "10.0.0.1",
            &["for=6.6.6.6", "FOR=192.0.2.7;proto=http"],
            "192.0.2.7",
        ),
        (
            "10.0.0.1",
            &["for=6.6.6.6, for=192.0.2.7, for=10.0.0.2"],
            "192.0.2.7",
        ),
        ("10.0.0.1", &["for=\"192.0.2.7:4711\""], "192.0.2.7"),
        (
            "10.0.0.1",
            &["for=\"[::ffff:192.0.2.7]:4711\""],
            "192.0.2.7",
        ),
        ("10.0.0.1", &["for=\"[2001:db8::9]\""], "2001:db8::"),
        ("10.0.0.1", &["for=\"6.6.6.6, for=192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["for=6.6.6.6;for=192.0.2.7"], "10.0.0.1"),
        ("10.0.0.1", &["for=6.6.6.6, for=_hidden"], "10.0.0.1"),
        ("10.0.0.1", &["for=6.6.6.6, for=unknown"], "10.0.0.1"),
        ("10.0.0.1", &["for=6.6.6.6, by=192.0.2.7"], "10.0.0.1"),
        (
            "10.0.0.1",
            &["for=6.6.6.6, for=\"[fe80::1%eth0]\""],
            "10.0.0.1",
        ),
        ("10.0.0.1", &[&long], "192.0.2.7"),
        ("203.0.113.9", &["for=6.6.6.6"], "203.0.113.9"),
        ("203.0.113.9", &["for=10.0.0.1"], "203.0.113.9"),
    ] {
        assert!(edge.is_charged_to(peer, lines, charged), "{peer} {lines:?}");
    }
    let nobody = Key::network(ip("6.6.6.6"), 64);
    assert_eq!(remaining(&edge.limiter, nobody, None), 1_000);
}

/// The other header is as if it were not there; nor do fields of our own making count.
#[test]
fn r3_only_the_header_of_the_proxy_is_read() {
    let edge = Edge::new(ForwardedHeader::XForwardedFor);
    let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
    let layer = RateLimitLayer::new(edge.limiter.clone()).key(KeyBy::client_ip());
    let service =
        ContextLayer::new(TestClock::new().clock(), proxies).layer(layer.layer(common::hello()));
    for (name, value) in [
        ("forwarded", "for=6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("true-client-ip", "6.6.6.6"),
        ("cf-connecting-ip", "6.6.6.6"),
        ("x-client-ip", "6.6.6.6"),
        ("x-spark-client-ip", "6.6.6.6"),
    ] {
        let mut request = Request::get("/").header(name, value);
        let forwarded = HeaderValue::from_static("192.0.2.7");
        request = request.header("x-forwarded-for", forwarded);
        let mut request = request.body(()).unwrap();
        let peer = SocketAddr::from(([10, 0, 0, 1], 80));
        request.extensions_mut().insert(PeerAddr(peer));
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let response = runtime.unwrap().block_on(service.clone().oneshot(request));
        assert_eq!(response.unwrap().status(), 200);
    }
    let left = |address| remaining(&edge.limiter, Key::network(ip(address), 64), None);
    assert_eq!((left("192.0.2.7"), left("6.6.6.6")), (994, 1_000));
}

proptest! {
    /// With so many of our hops, the key never depends on what stands left of the first that is not.
    #[test]
    fn r3_nothing_left_of_the_first_untrusted_hop_counts(
        forged in prop::collection::vec("[ -~]{0,60}", 0..4),
        hops in 0usize..4,
        own_lines: bool,
        xff: bool,
    ) {
        let header = if xff { ForwardedHeader::XForwardedFor } else { ForwardedHeader::Forwarded };
        let node = |address: &str| if xff { address.to_owned() } else { format!("for={address}") };
        let mut told = vec![node("192.0.2.7")];
        told.extend((0..hops).map(|hop| node(&format!("10.0.0.{}", hop + 2))));
        let mut lines = forged;
        if own_lines {
            lines.extend(told);
        } else {
            lines.push(told.join(", "));
            lines = vec![lines.join(",")];
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let edge = Edge::new(header);
        prop_assert!(edge.is_charged_to("10.0.0.1", &lines, "192.0.2.7"), "{:?}", lines);
    }
}
