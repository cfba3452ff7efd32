//! One connection, from its first byte to its last.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use spark_core::BoxError;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower_service::Service;

use crate::body::Body;
use crate::config::Config;
use crate::metrics::Closed;
use crate::service::{Connected, Shared};
use crate::slots::Slot;
use crate::socket::{Socket, Unread};

/// What a connection is made of.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) slot: Slot,
    pub(crate) service: S,
    pub(crate) shared: Arc<Shared>,
    /// Turns true when the connection is to end after the response under way.
    pub(crate) draining: watch::Receiver<bool>,
}

impl<S, B> Connection<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    pub(crate) async fn run(self) -> Closed {
        let Self {
            stream,
            peer,
            slot,
            service,
            shared,
            mut draining,
        } = self;
        if shared.config.tcp_nodelay {
            // It may be gone already, which the first read tells.
            let _ = stream.set_nodelay(true);
        }
        let socket = TokioIo::new(Socket::new(stream, shared.config.write_idle_timeout, slot));
        let builder = builder(&shared.config);
        let asked = Arc::new(AtomicBool::new(false));
        let service = Connected {
            service,
            peer,
            shared,
            asked: Arc::clone(&asked),
        };

        let mut connection = pin!(builder.serve_connection(socket, service).with_upgrades());
        let ended = tokio::select! {
            biased;
            result = connection.as_mut() => Some(result),
            _ = draining.wait_for(|draining| *draining) => None,
        };
        let result = match ended {
            Some(result) => result,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        result.map_or_else(
            |error| reason(&error, asked.load(Ordering::Relaxed)),
            |()| Closed::Finished,
        )
    }
}

fn builder(config: &Config) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // Without a timer, the timeout would be ignored, and slow clients would never be cut.
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_read_timeout)
        .max_buf_size(config.max_header_bytes)
        .max_headers(config.max_headers)
        .keep_alive(config.keep_alive);
    builder
}

fn reason(error: &hyper::Error, asked: bool) -> Closed {
    if error.is_timeout() {
        return if asked {
            Closed::Idle
        } else {
            Closed::HeaderTimeout
        };
    }
    if error.is_parse() {
        return Closed::BadRequest;
    }
    if error.is_user() {
        return Closed::Service;
    }
    if is_unread(error) {
        Closed::WriteTimeout
    } else {
        Closed::Broken
    }
}

fn is_unread(error: &hyper::Error) -> bool {
    let io = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    io.and_then(io::Error::get_ref)
        .is_some_and(|inner| inner.is::<Unread>())
}
