//! Accepting, also when it fails.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::metrics::{self, AcceptError};

/// A listener that waits a while when the process has run out of something, instead of spinning.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: TcpListener,
    pause: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Acceptor {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            pause: FIRST_PAUSE,
        }
    }

    /// May be dropped at any time without losing a connection. What is lost is the pause: then
    /// something has happened, and it is worth another try.
    pub(crate) async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            let error = match self.listener.accept().await {
                Ok(accepted) => {
                    self.pause = FIRST_PAUSE;
                    return accepted;
                }
                Err(error) => error,
            };
            let kind = kind(&error);
            metrics::accept_error(kind);
            if kind == AcceptError::Resources {
                let pause = self.longer_pause();
                tracing::warn!(error = %error, ?pause, "cannot accept; raise the limit of open files?");
                sleep(pause).await;
            }
        }
    }

    fn longer_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// Some errors are of the one connection, which is gone; all others (files, memory) are ours.
fn kind(error: &io::Error) -> AcceptError {
    match error.kind() {
        io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::Interrupted => AcceptError::Peer,
        _ => AcceptError::Resources,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        const EMFILE: i32 = 24;
        const ECONNABORTED: i32 = 103;
        assert_eq!(
            kind(&io::Error::from_raw_os_error(EMFILE)),
            AcceptError::Resources
        );
        #[cfg(target_os = "linux")]
        assert_eq!(
            kind(&io::Error::from_raw_os_error(ECONNABORTED)),
            AcceptError::Peer
        );
    }

    #[tokio::test]
    async fn the_pause_grows_to_a_second() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut acceptor = Acceptor::new(listener);
        let pauses: Vec<_> = (0..10)
            .map(|_| acceptor.longer_pause().as_millis())
            .collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
    }
}
