//! What the run does beside asking: a key of its own, and a provider that fails on cue.

use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use crate::args::Secret;
use crate::client::{Client, bearer};
use crate::target::Target;

const KEYS: &str = "/api/spark/keys";

/// A user key that lives as long as the run.
#[derive(Debug)]
pub(crate) struct IssuedKey {
    pub(crate) key: Secret,
    id: String,
    master: HeaderValue,
}

impl IssuedKey {
    pub(crate) async fn issue(
        client: &Client,
        server: &Target,
        master: &Secret,
        tier: &str,
    ) -> Result<Self, String> {
        let master = bearer(master)?;
        let body = json!({"tenant": "loadtest", "label": "spark-loadtest", "tier": tier});
        let uri = server.uri(KEYS)?;
        let (status, answer) = client
            .call(Method::POST, uri, Some(master.clone()), body.to_string())
            .await?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        if status != StatusCode::CREATED {
            let detail = answer["detail"].as_str().unwrap_or("without a reason");
            return Err(format!("POST {KEYS} was refused with {status}: {detail}"));
        }
        let (Some(id), Some(key)) = (answer["id"].as_str(), answer["key"].as_str()) else {
            return Err(format!("POST {KEYS} answered without an id and a key"));
        };
        Ok(Self {
            key: key.parse()?,
            id: id.to_owned(),
            master,
        })
    }

    pub(crate) async fn revoke(self, client: &Client, server: &Target) -> Result<(), String> {
        let uri = server.uri(&format!("{KEYS}/{}", self.id))?;
        let (status, _) = client
            .call(Method::DELETE, uri, Some(self.master), String::new())
            .await?;
        if !status.is_success() {
            return Err(format!(
                "DELETE {KEYS}/{} was refused with {status}",
                self.id
            ));
        }
        Ok(())
    }
}

/// Tells a `spark-mock-upstream` how to behave.
pub(crate) async fn set_mode(client: &Client, upstream: &Target, mode: &str) -> Result<(), String> {
    let body = json!({"mode": mode}).to_string();
    let (status, answer) = client
        .call(Method::POST, upstream.uri("/__mode")?, None, body)
        .await?;
    if !status.is_success() {
        let answer = String::from_utf8_lossy(&answer);
        return Err(format!(
            "{upstream}/__mode answered {status}: {}",
            answer.trim()
        ));
    }
    Ok(())
}
