//! The built-in way to send a webhook.

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::{BuildError, Sending, Transport};

#[cfg(feature = "tls")]
type Connector = hyper_rustls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "tls"))]
type Connector = HttpConnector;

pub(crate) struct Client(Pool<Connector, Full<Bytes>>);

impl Client {
    pub(crate) fn new(uri: &Uri) -> Result<Self, BuildError> {
        let connector = connector(uri)?;
        Ok(Self(
            Pool::builder(TokioExecutor::new())
                .pool_max_idle_per_host(1)
                .build(connector),
        ))
    }
}

impl Transport for Client {
    fn send(&self, request: Request<Bytes>) -> Sending<'_> {
        Box::pin(async move {
            let answer = self.0.request(request.map(Full::new)).await?;
            // The body is not read: a receiver cannot make us hold it.
            let (head, _body) = answer.into_parts();
            Ok(Response::from_parts(head, ()))
        })
    }
}

#[cfg(feature = "tls")]
fn connector(_: &Uri) -> Result<Connector, BuildError> {
    let provider = rustls::crypto::ring::default_provider();
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(provider)
        .map_err(|_| BuildError::Url("TLS could not be set up"))?;
    Ok(connector.https_or_http().enable_http1().build())
}

#[cfg(not(feature = "tls"))]
fn connector(uri: &Uri) -> Result<Connector, BuildError> {
    if uri.scheme_str() == Some("https") {
        return Err(BuildError::Url(
            "`https` needs the feature `tls`, or a `transport` of your own",
        ));
    }
    Ok(HttpConnector::new())
}
