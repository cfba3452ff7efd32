//! A hook that posts JSON, signed.

use std::{fmt, future::Future, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use sha2::Sha256;
use spark_core::{BoxError, Clock};

use crate::{BuildError, Delivery, Event, Hook, HookError, transport};

/// How a webhook's request is sent. The built-in one speaks HTTP/1.1, over TLS for `https`
/// (feature `tls`), and follows no redirects.
pub trait Transport: Send + Sync {
    /// Sends it and gives the head of the answer.
    fn send(&self, request: Request<Bytes>) -> Sending<'_>;
}

/// The future of a [`Transport`].
pub type Sending<'t> = Pin<Box<dyn Future<Output = Result<Response<()>, BoxError>> + Send + 't>>;

/// Posts every event as JSON, `{"type":"spark.error","event":{…}}`.
///
/// With a secret, `x-spark-signature` is `v1=` and the hex of HMAC-SHA256 over
/// `x-spark-timestamp`, a full stop and the body; a receiver should refuse timestamps older than
/// some minutes. `x-spark-event` names the event, so that one sent twice can be told.
///
/// The address must be `https`, unless it is on this machine. 2xx is success; 408, 425, 429 and
/// 5xx are tried again (`Retry-After` in seconds is heeded), everything else is not.
///
/// ```
/// let hook = spark_errors::WebhookHook::new("http://127.0.0.1:9000/errors")?.secret("s3cret");
/// assert!(spark_errors::WebhookHook::new("http://example.com/errors").is_err());
/// # Ok::<(), spark_errors::BuildError>(())
/// ```
#[derive(Clone)]
pub struct WebhookHook {
    uri: Uri,
    name: &'static str,
    secret: Option<Arc<[u8]>>,
    clock: Clock,
    transport: Arc<dyn Transport>,
}

impl WebhookHook {
    /// A hook that posts to `url`.
    ///
    /// # Errors
    /// When `url` is not absolute, has credentials in it, or is plain `http` to another machine;
    /// or is `https` and the feature `tls` is off.
    ///
    /// ```
    /// let hook = spark_errors::WebhookHook::new("http://localhost:9000/errors")?;
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    pub fn new(url: &str) -> Result<Self, BuildError> {
        let uri = check(url)?;
        Ok(Self {
            transport: Arc::new(transport::Client::new(&uri)?),
            uri,
            name: "webhook",
            secret: None,
            clock: Clock::default(),
        })
    }

    /// Signs what is sent.
    ///
    /// ```
    /// let hook = spark_errors::WebhookHook::new("http://localhost:9000/")?.secret("s3cret");
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    #[must_use]
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.secret = Some(secret.as_ref().into());
        self
    }

    /// The hook's name in metrics; `webhook` unless set.
    ///
    /// ```
    /// let hook = spark_errors::WebhookHook::new("http://localhost:9000/")?.named("pager");
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// The clock of the timestamps; the system's unless set.
    ///
    /// ```
    /// # use spark_core::Clock;
    /// let hook = spark_errors::WebhookHook::new("http://localhost:9000/")?.clock(Clock::system());
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sends through something else.
    ///
    /// ```
    /// use spark_errors::{Sending, Transport, WebhookHook};
    ///
    /// struct Nowhere;
    /// impl Transport for Nowhere {
    ///     fn send(&self, _: http::Request<bytes::Bytes>) -> Sending<'_> {
    ///         Box::pin(async { Ok(http::Response::new(())) })
    ///     }
    /// }
    /// let hook = WebhookHook::new("http://localhost:9000/")?.transport(Nowhere);
    /// # Ok::<(), spark_errors::BuildError>(())
    /// ```
    #[must_use]
    pub fn transport(mut self, transport: impl Transport + 'static) -> Self {
        self.transport = Arc::new(transport);
        self
    }

    fn request(&self, event: &Event) -> Result<Request<Bytes>, BoxError> {
        let body = serde_json::json!({ "type": "spark.error", "event": event });
        let body = serde_json::to_vec(&body)?;
        let timestamp = self.clock.unix_time().as_secs().to_string();
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(
                header::USER_AGENT,
                concat!("spark-errors/", env!("CARGO_PKG_VERSION")),
            )
            .header("x-spark-event", event.id.to_string())
            .header("x-spark-timestamp", &timestamp);
        if let Some(secret) = &self.secret {
            let signature = sign(secret, &timestamp, &body)?;
            let mut signature = HeaderValue::try_from(format!("v1={signature}"))?;
            signature.set_sensitive(true);
            request = request.header("x-spark-signature", signature);
        }
        Ok(request.body(body.into())?)
    }
}

impl Hook for WebhookHook {
    fn name(&self) -> &str {
        self.name
    }

    fn deliver(&self, event: Arc<Event>) -> Delivery<'_> {
        Box::pin(async move {
            let request = self
                .request(&event)
                .map_err(|error| HookError::Rejected(error.to_string()))?;
            let answer = self.transport.send(request).await;
            let answer = answer.map_err(|error| HookError::Retry {
                reason: error.to_string(),
                after: None,
            })?;
            judge(&answer)
        })
    }
}

impl fmt::Debug for WebhookHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path of a webhook is often its password.
        f.debug_struct("WebhookHook")
            .field("name", &self.name)
            .field("host", &self.uri.host())
            .field("signed", &self.secret.is_some())
            .finish_non_exhaustive()
    }
}

fn judge(answer: &Response<()>) -> Result<(), HookError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let reason = format!("the webhook answered {}", status.as_u16());
    let again = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
    );
    if !again && !status.is_server_error() {
        return Err(HookError::Rejected(reason));
    }
    let after = answer.headers().get(header::RETRY_AFTER);
    let after = after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Err(HookError::Retry {
        reason,
        after: after.map(Duration::from_secs),
    })
}

fn sign(secret: &[u8], timestamp: &str, body: &[u8]) -> Result<String, BoxError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret)?;
    for part in [timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    let bytes = mac.finalize().into_bytes();
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn check(url: &str) -> Result<Uri, BuildError> {
    let uri: Uri = url
        .parse()
        .map_err(|_| BuildError::Url("it is not a URL"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(BuildError::Url("give it whole, with `https://` and a host"));
    };
    if authority.as_str().contains('@') {
        return Err(BuildError::Url(
            "leave out the user and password; use `secret`",
        ));
    }
    match scheme {
        "https" => Ok(uri),
        "http" if is_loopback(authority.host()) => Ok(uri),
        "http" => Err(BuildError::Url(
            "use `https`; plain `http` is only for this machine",
        )),
        _ => Err(BuildError::Url("use `https`")),
    }
}

fn is_loopback(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || literal
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_or_this_machine() {
        for good in [
            "http://127.0.0.1:9/x",
            "http://127.8.8.8/",
            "http://[::1]:9/",
            "http://localhost/x",
            "http://[::ffff:127.0.0.1]/",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        assert!(check("https://hooks.example.com/x").is_ok());
        for bad in [
            "http://example.com/",
            "http://10.0.0.1/",
            "http://169.254.169.254/latest",
            "http://127.0.0.1.example.com/",
            "http://localhost.example.com/",
            "https://user:pw@example.com/",
            "ftp://127.0.0.1/",
            "/relative",
            "127.0.0.1:9",
            "",
            "not a url",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers_are_judged() {
        let judge = |status: u16, after: &str| {
            let answer = Response::builder()
                .status(status)
                .header("retry-after", after);
            judge(&answer.body(()).unwrap())
        };
        assert!(judge(204, "").is_ok());
        for status in [301, 400, 401, 404] {
            assert!(
                matches!(judge(status, "1"), Err(HookError::Rejected(_))),
                "{status}"
            );
        }
        let Err(HookError::Retry { after, .. }) = judge(429, "7") else {
            panic!("retry")
        };
        assert_eq!(after, Some(Duration::from_secs(7)));
        let Err(HookError::Retry { after, .. }) = judge(503, "soon") else {
            panic!("retry")
        };
        assert_eq!(after, None);
    }

    #[test]
    fn the_signature_is_hmac_sha256() {
        // As another implementation computes it over "what do ya want for nothing?.".
        assert_eq!(
            sign(b"Jefe", "what do ya want for nothing?", b"").unwrap(),
            "38c6c848e5a2f57451f5095df6370d5c9b83175b99df46422b34960c28def6ae"
        );
    }

    #[test]
    fn debug_tells_neither_secret_nor_path() {
        let hook = WebhookHook::new("http://localhost/T0P/S3CRET")
            .unwrap()
            .secret("hunter2");
        let debug = format!("{hook:?}");
        assert!(
            !debug.contains("S3CRET") && !debug.contains("hunter2"),
            "{debug}"
        );
    }
}
