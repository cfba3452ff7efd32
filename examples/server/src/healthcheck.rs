//! `spark-server healthcheck`: the container's own probe.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use crate::config::Config;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the server of this configuration whether it is ready: exit code 0 or 1.
///
/// # Errors
/// A sentence, when it cannot be asked at all.
pub(crate) fn ask(config: &Config) -> Result<ExitCode, String> {
    let address = reachable(config.server.listen);
    match status(address) {
        Ok(200) => Ok(ExitCode::SUCCESS),
        Ok(status) => {
            let _ = writeln!(
                std::io::stderr(),
                "http://{address}/readyz answered {status}"
            );
            Ok(ExitCode::FAILURE)
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "http://{address}/readyz: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Who listens everywhere is asked on this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// One request over a plain socket: a probe needs no client.
fn status(address: SocketAddr) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut head = [0; 64];
    let mut read = 0;
    while read < 12 {
        match stream.read(&mut head[read..])? {
            0 => break,
            n => read += n,
        }
    }
    // "HTTP/1.1 200": the status stands at a fixed place.
    let status = head
        .get(9..12)
        .and_then(|digits| std::str::from_utf8(digits).ok());
    status
        .filter(|_| head.starts_with(b"HTTP/1.1 "))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}
