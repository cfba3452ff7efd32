//! A connection that does not wait for ever for its client to read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::slots::Slot;

/// The stream of one connection, which keeps the connection's place until it is closed: also when
/// it has been upgraded and HTTP is over.
#[derive(Debug)]
pub(crate) struct Socket<T> {
    stream: T,
    patience: Option<Duration>,
    /// There while the client does not read.
    stalled: Option<Pin<Box<Sleep>>>,
    _slot: Slot,
}

impl<T> Socket<T> {
    pub(crate) fn new(stream: T, patience: Option<Duration>, slot: Slot) -> Self {
        Self {
            stream,
            patience,
            stalled: None,
            _slot: slot,
        }
    }

    fn within_patience<R>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let Some(patience) = self.patience else {
            return Poll::Pending;
        };
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        if stalled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, Unread)));
        }
        Poll::Pending
    }
}

/// The client left the response unread for too long.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the client does not read")]
pub(crate) struct Unread;

impl<T: AsyncRead + Unpin> AsyncRead for Socket<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Socket<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.within_patience(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.within_patience(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.within_patience(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.within_patience(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config::Config;
    use crate::slots::Slots;

    fn slot() -> Slot {
        Slots::new(&Config::default())
            .take([127, 0, 0, 1].into())
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_left() {
        let (near, _far) = tokio::io::duplex(4);
        let mut socket = Socket::new(near, Some(Duration::from_secs(30)), slot());
        let error = socket
            .write_all(b"too much for the pipe")
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_slowly_is_served() {
        let (near, mut far) = tokio::io::duplex(1);
        let mut socket = Socket::new(near, Some(Duration::from_secs(30)), slot());
        let reader = tokio::spawn(async move {
            let mut read = Vec::new();
            while let Ok(byte) = far.read_u8().await {
                read.push(byte);
                sleep(Duration::from_secs(29)).await;
            }
            read
        });
        socket.write_all(b"slowly").await.unwrap();
        drop(socket);
        assert_eq!(reader.await.unwrap(), b"slowly");
    }
}
