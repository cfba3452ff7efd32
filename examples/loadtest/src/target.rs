//! Whom the load may reach.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

/// A plain-HTTP server without a path: `http://host[:port]`.
#[derive(Debug, Clone)]
pub(crate) struct Target(Authority);

impl Target {
    /// The address of `path`, which is one of this program's own and begins with a slash.
    pub(crate) fn uri(&self, path: &str) -> Result<Uri, String> {
        let path: PathAndQuery = path.parse().map_err(|error| format!("{path:?}: {error}"))?;
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.0.clone());
        uri.path_and_query(path)
            .build()
            .map_err(|error| error.to_string())
    }

    /// Only addresses that cannot leave this machine pass: `localhost` and literal loopback
    /// addresses. No name is looked up for this, since it could be answered differently later.
    pub(crate) fn allow(&self, remote: bool) -> Result<(), String> {
        if remote || is_loopback(self.0.host()) {
            return Ok(());
        }
        Err(format!(
            "{self} is not loopback: load for others' machines needs --allow-remote"
        ))
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) => v6
            .to_ipv4_mapped()
            .map_or(v6.is_loopback(), |v4| v4.is_loopback()),
        Ok(IpAddr::V4(v4)) => v4.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err("it must begin with http:// (TLS is not spoken here)".into());
        }
        if uri
            .path_and_query()
            .is_some_and(|path| path.as_str() != "/")
        {
            return Err("it must end after the host and port: the paths are known".into());
        }
        let authority = uri.into_parts().authority.ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("credentials do not belong in it".into());
        }
        Ok(Self(authority))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_passes() {
        for url in [
            "http://127.0.0.1:8080",
            "http://127.9.9.9",
            "http://localhost:1",
            "http://LOCALHOST/",
            "http://[::1]:80",
            "http://[::ffff:127.0.0.1]",
        ] {
            let target: Target = url.parse().unwrap();
            assert_eq!(target.allow(false), Ok(()), "{url}");
        }
    }

    #[test]
    fn the_rest_of_the_world_needs_a_word() {
        for url in [
            "http://10.0.0.1",
            "http://0.0.0.0:8080",
            "http://example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://[::2]",
            "http://2130706433",
        ] {
            let target: Target = url.parse().unwrap();
            assert!(target.allow(false).is_err(), "{url}");
            assert_eq!(target.allow(true), Ok(()));
        }
    }

    #[test]
    fn what_is_no_target() {
        for url in [
            "",
            "127.0.0.1:8080",
            "https://127.0.0.1",
            "http://",
            "http://h/path",
            "http://h/?q",
            "http://127.0.0.1@example.com",
        ] {
            assert!(url.parse::<Target>().is_err(), "{url}");
        }
    }

    #[test]
    fn paths_are_joined() {
        let target: Target = "http://[::1]:81/".parse().unwrap();
        assert_eq!(target.uri("/a/b").unwrap(), "http://[::1]:81/a/b");
        assert!(target.uri("no slash").is_err());
    }
}
