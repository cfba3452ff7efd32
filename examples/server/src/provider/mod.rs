//! The providers: each is a service that takes a chat completion in OpenAI's wire format.
//!
//! The request is `http::Request<Bytes>`, so that it can be sent again to another provider; its
//! headers are written here and by nobody else, so that nothing of a client's can reach a provider.

mod breakers;
mod demo;
mod events;
mod openai;
mod outbound;

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use spark_core::BoxError;

pub(crate) use breakers::{breaker_config, reconfigure, registry};
pub(crate) use demo::DemoProvider;
pub(crate) use openai::OpenAi;
pub(crate) use outbound::{LAYERS, OnlyProvider, Outbound, build};

/// The body of a provider's answer.
pub(crate) type ProviderBody = UnsyncBoxBody<Bytes, BoxError>;

/// The model that a request asks for: an extension, so that nobody parses the body again.
#[derive(Clone, Debug)]
pub(crate) struct Model(pub std::sync::Arc<str>);

/// Why a provider gave no answer at all. Its text never holds a URL with credentials or a prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProviderError {
    #[error("the provider could not be reached")]
    Unreachable(#[source] BoxError),
}

/// The request for a chat completion; each provider adds its address and its key.
pub(crate) fn chat_request(body: Bytes, model: &str) -> Request<Bytes> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/chat/completions");
    request.extensions_mut().insert(Model(model.into()));
    request
}

/// Whether a request to this URL crosses a network without encryption.
pub(crate) fn leaves_in_clear(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let local = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    uri.scheme_str() == Some("http") && !local
}

/// Checks the base URL of an `openai` provider. The error is the mend.
pub(crate) fn check_base_url(url: &str) -> Result<Uri, &'static str> {
    let uri: Uri = url
        .parse()
        .map_err(|_| "write a URL, as \"https://api.example/v1\"")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("begin with http:// or https://");
    }
    let Some(authority) = uri.authority() else {
        return Err("name a host, as \"https://api.example/v1\"");
    };
    if authority.as_str().contains('@') {
        return Err("leave credentials out: name the key's variable in `api_key_env`");
    }
    if uri.query().is_some() {
        return Err("leave the query out");
    }
    Ok(uri)
}
