//! The routes: each file is one of them, or one family.

pub(crate) mod chat;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod keys;
pub(crate) mod operator;
pub(crate) mod page;
pub(crate) mod usage;

use std::collections::HashSet;

use axum::response::Response;
use http::StatusCode;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use spark_core::{Context, Problem, Shape};

/// A refusal in the shape of the request that it answers.
pub(crate) fn refuse(context: &Context, problem: Problem) -> Response {
    let shape = context.shape().unwrap_or(Shape::PROBLEM);
    problem
        .into_response::<axum::body::Body>(shape)
        .map(axum::body::Body::new)
}

/// A field of the request that is no good: 400, which field, and the mend.
pub(crate) fn invalid(param: impl Into<String>, mend: impl Into<String>) -> Problem {
    let param = param.into();
    let detail = format!("`{param}` {}", mend.into());
    Problem::new(StatusCode::BAD_REQUEST, "server", "invalid_field")
        .detail(detail)
        .param(param)
}

/// The body as JSON.
pub(crate) fn json_of(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body).map_err(|error| invalid("body", format!("is not JSON: {error}.")))
}

/// The body as a JSON object; `mend` says what stands in it.
pub(crate) fn object_of(body: &[u8], mend: &str) -> Result<Map<String, Value>, Problem> {
    match json_of(body)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(invalid("body", mend)),
    }
}

/// Refuses the first field that is none of `known`: a typing error would silently do nothing.
pub(crate) fn only_known(fields: &Map<String, Value>, known: &[&str]) -> Result<(), Problem> {
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(unknown) => {
            let name: String = unknown.chars().take(40).collect();
            let mend = format!("is not known; the fields are {}.", known.join(", "));
            Err(invalid(name, mend))
        }
    }
}

/// The body as a JSON object of fields that are all `known`, each given once: which of two was meant
/// is not to be guessed.
pub(crate) fn fields_of(body: &[u8], known: &[&str]) -> Result<Map<String, Value>, Problem> {
    let fields = object_of(body, "must be a JSON object.")?;
    only_known(&fields, known)?;
    match serde_json::from_slice(body) {
        Ok(Repeated(Some(name))) => Err(invalid(name, "is given more than once.")),
        _ => Ok(fields),
    }
}

/// The first field of an object that stands in it again.
struct Repeated(Option<String>);

impl<'de> Deserialize<'de> for Repeated {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Repeated;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> Result<Repeated, M::Error> {
                let (mut names, mut repeated) = (HashSet::new(), None);
                while let Some(name) = fields.next_key::<String>()? {
                    fields.next_value::<IgnoredAny>()?;
                    if repeated.is_none() && names.contains(&name) {
                        repeated = Some(name);
                    } else {
                        names.insert(name);
                    }
                }
                Ok(Repeated(repeated))
            }
        }
        from.deserialize_map(Names)
    }
}

/// Whether the field `stream` asks for a stream.
pub(crate) fn wants_stream(fields: &Map<String, Value>) -> Result<bool, Problem> {
    match fields.get("stream") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(stream)) => Ok(*stream),
        Some(_) => Err(invalid("stream", "must be true or false.")),
    }
}

/// The path as it may be logged: cut, and without a key that was put where its id belongs.
pub(crate) fn shown_path(uri: &http::Uri) -> String {
    let path: String = uri.path().chars().take(200).collect();
    let segments = path.split('/').map(|segment| {
        let is_key = ["spark_sk_", "spark_mk_"]
            .iter()
            .any(|start| segment.contains(start));
        if is_key { "[key]" } else { segment }
    });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_a_path_is_not_shown() {
        let uri: http::Uri = "/api/spark/keys/spark_sk_live_abc/rotate?x=1"
            .parse()
            .unwrap();
        assert_eq!(shown_path(&uri), "/api/spark/keys/[key]/rotate");
    }
}
