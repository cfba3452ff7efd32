//! The server: accepts, serves, drains.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use spark_core::BoxError;
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tower_service::Service;

use crate::accept::Acceptor;
use crate::body::Body;
use crate::config::Config;
use crate::connection::Connection;
use crate::error::{ConfigError, ServeError};
use crate::metrics::{self, Closed};
use crate::service::Shared;
use crate::slots::Slots;

/// A listening socket and what it allows its clients.
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use spark_serve::{Config, Server};
/// let server = Server::bind("127.0.0.1:0").await?.config(Config::default().max_connections(500))?;
/// let app = axum::Router::new().route("/", axum::routing::get(|| async { "pong" }));
/// # let stop = async {};
/// let drained = server.serve(app, stop).await;
/// assert_eq!(drained.aborted, 0);
/// # Ok(()) }
/// ```
pub struct Server {
    listener: TcpListener,
    config: Config,
    on_drain: Option<Box<dyn FnOnce() + Send>>,
}

/// How a server came to rest: what became of the connections that were open when it stopped
/// accepting.
///
/// # Example
/// ```
/// # use spark_serve::Drained;
/// fn exit_code(drained: Drained) -> u8 {
///     u8::from(drained.aborted > 0)
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// They finished the request under way, or had none.
    pub finished: usize,
    /// They were cut at the deadline.
    pub aborted: usize,
}

impl Server {
    /// Listens there, with the default [`Config`].
    ///
    /// # Errors
    /// The address cannot be had.
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), spark_serve::ServeError> {
    /// let server = spark_serve::Server::bind("127.0.0.1:0").await?;
    /// # Ok(()) }
    /// ```
    pub async fn bind(address: impl ToSocketAddrs + fmt::Display) -> Result<Self, ServeError> {
        let written = address.to_string();
        match TcpListener::bind(address).await {
            Ok(listener) => Ok(Self::from_listener(listener)),
            Err(source) => Err(ServeError::Bind {
                address: written,
                source,
            }),
        }
    }

    /// Takes a listener that somebody else bound.
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// let server = spark_serve::Server::from_listener(listener);
    /// # Ok(()) }
    /// ```
    pub fn from_listener(listener: TcpListener) -> Self {
        Self {
            listener,
            config: Config::default(),
            on_drain: None,
        }
    }

    /// Serves under this configuration.
    ///
    /// # Errors
    /// A setting is out of its range: [`Config::validate`].
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), spark_serve::ServeError> {
    /// use spark_serve::{Config, Server};
    /// let server = Server::bind("127.0.0.1:0").await?.config(Config::default().max_headers(32))?;
    /// # Ok(()) }
    /// ```
    pub fn config(mut self, config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        self.config = config;
        Ok(self)
    }

    /// Called once, when the shutdown is asked for and before the drain's delay: the moment to turn
    /// readiness to 503.
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), spark_serve::ServeError> {
    /// let server = spark_serve::Server::bind("127.0.0.1:0")
    ///     .await?
    ///     .on_drain(|| println!("draining"));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn on_drain(mut self, call: impl FnOnce() + Send + 'static) -> Self {
        self.on_drain = Some(Box::new(call));
        self
    }

    /// Where it listens: the way to learn the port after binding to port 0.
    ///
    /// # Errors
    /// What the operating system says.
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = spark_serve::Server::bind("127.0.0.1:0").await?;
    /// assert_ne!(server.local_addr()?.port(), 0);
    /// # Ok(()) }
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` resolves, then drains.
    ///
    /// The drain has three phases. First `on_drain` is called, and everything goes on for
    /// `drain_delay`, but each response asks its client to close the connection. Then the listener
    /// is closed; idle connections are closed, and each of the others after the response under way.
    /// At `drain_deadline`, what is left is cut.
    ///
    /// Dropping the future cuts everything at once.
    ///
    /// # Example
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), spark_serve::ServeError> {
    /// use spark_serve::{Body, Server};
    /// let service = tower::service_fn(|request: http::Request<Body>| async move {
    ///     let peer = request.extensions().get::<spark_core::PeerAddr>();
    ///     Ok::<_, std::convert::Infallible>(http::Response::new(format!("hello {peer:?}")))
    /// });
    /// let drained = Server::bind("127.0.0.1:0").await?.serve(service, std::future::ready(())).await;
    /// # Ok(()) }
    /// ```
    pub async fn serve<S, B>(self, service: S, shutdown: impl Future<Output = ()>) -> Drained
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Self {
            listener,
            config,
            on_drain,
        } = self;
        let (delay, deadline) = (config.drain_delay, config.drain_deadline);
        let mut running = Running {
            acceptor: Acceptor::new(listener),
            slots: Slots::new(&config),
            shared: Arc::new(Shared {
                config,
                leaving: AtomicBool::new(false),
            }),
            connections: JoinSet::new(),
            draining: watch::Sender::new(false),
        };
        running.accept_until(&service, pin!(shutdown)).await;
        if let Some(call) = on_drain {
            call();
        }
        if !delay.is_zero() {
            running.shared.leaving.store(true, Ordering::Relaxed);
            running.accept_until(&service, pin!(sleep(delay))).await;
        }
        running.drain(deadline).await
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listener", &self.listener)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A server at work.
struct Running {
    acceptor: Acceptor,
    slots: Arc<Slots>,
    shared: Arc<Shared>,
    connections: JoinSet<Closed>,
    draining: watch::Sender<bool>,
}

impl Running {
    async fn accept_until<S, B>(
        &mut self,
        service: &S,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        loop {
            let (stream, peer) = tokio::select! {
                biased;
                () = &mut stop => return,
                Some(ended) = self.connections.join_next() => {
                    count(ended);
                    continue;
                }
                accepted = self.acceptor.accept() => accepted,
            };
            let slot = match self.slots.take(peer.ip()) {
                Ok(slot) => slot,
                Err(refused) => {
                    metrics::refused(refused);
                    continue;
                }
            };
            let connection = Connection {
                stream,
                peer,
                slot,
                service: service.clone(),
                shared: Arc::clone(&self.shared),
                draining: self.draining.subscribe(),
            };
            self.connections.spawn(connection.run());
        }
    }

    async fn drain(self, deadline: Duration) -> Drained {
        let Self {
            acceptor,
            mut connections,
            draining,
            ..
        } = self;
        drop(acceptor);
        while let Some(ended) = connections.try_join_next() {
            count(ended);
        }
        draining.send_replace(true);

        let open = connections.len();
        let all = async {
            while let Some(ended) = connections.join_next().await {
                count(ended);
            }
        };
        // An error is the deadline: what is left is counted below.
        let _ = timeout(deadline, all).await;
        while let Some(ended) = connections.try_join_next() {
            count(ended);
        }
        let aborted = connections.len();
        if aborted > 0 {
            tracing::warn!(
                aborted,
                ?deadline,
                "cut the requests that did not end in time"
            );
            metrics::ended(Closed::Aborted, aborted);
            // A task that blocks its thread does not end: it is left behind after a moment.
            let _ = timeout(Duration::from_millis(100), connections.shutdown()).await;
        }
        Drained {
            finished: open.saturating_sub(aborted),
            aborted,
        }
    }
}

fn count(ended: Result<Closed, JoinError>) {
    let reason = match ended {
        Ok(reason) => reason,
        Err(error) if error.is_panic() => {
            tracing::error!("a service panicked: put a layer that catches panics around it");
            Closed::Panic
        }
        Err(_) => Closed::Aborted,
    };
    tracing::trace!(reason = reason.label(), "connection closed");
    metrics::ended(reason, 1);
}
