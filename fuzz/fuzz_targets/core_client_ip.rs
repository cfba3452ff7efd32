//! `TrustedProxies::resolve`: nobody whom the proxies do not know can choose the address.

#![no_main]

use std::net::IpAddr;

use arbitrary::Arbitrary;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use spark_core::{ForwardedHeader, TrustedProxies};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    trusted_peer: bool,
    forwarded: bool,
    /// What stands to the left: whoever sent it is unknown.
    forged: Vec<&'a [u8]>,
    /// What the proxies wrote.
    lines: Vec<&'a [u8]>,
}

fn headers(name: &HeaderName, lines: &[&[u8]]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.iter().take(64) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    headers
}

fuzz_target!(|input: Input<'_>| {
    let networks = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    let trusted = |ip: IpAddr| {
        networks
            .iter()
            .any(|network: &ipnet::IpNet| network.contains(&ip))
    };
    let (name, header) = if input.forwarded {
        (
            HeaderName::from_static("forwarded"),
            ForwardedHeader::Forwarded,
        )
    } else {
        (
            HeaderName::from_static("x-forwarded-for"),
            ForwardedHeader::XForwardedFor,
        )
    };
    let proxies = TrustedProxies::new(networks.clone()).header(header);
    let peer: IpAddr = if input.trusted_peer {
        [10, 0, 0, 1]
    } else {
        [192, 0, 2, 7]
    }
    .into();

    let honest = headers(&name, &input.lines);
    let resolved = proxies.resolve(peer, &honest);
    assert_eq!(
        resolved.ip.addr(),
        resolved.ip.addr().to_canonical(),
        "mapped"
    );
    if !input.trusted_peer {
        assert_eq!(resolved.ip.addr(), peer);
        assert_eq!(resolved.ignored_header, honest.contains_key(&name));
        return;
    }
    assert!(!resolved.ignored_header);

    // The first hop that is not trusted is the client, whatever is written to its left.
    if !trusted(resolved.ip.addr()) {
        let forged = [&input.forged[..], &input.lines[..]].concat();
        // Lines that are no header values, or beyond the sixty-fourth, are left out on both sides.
        if forged.len() <= 64 {
            assert_eq!(proxies.resolve(peer, &headers(&name, &forged)), resolved);
        }
    }
});
