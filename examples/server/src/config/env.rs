//! The environment laid over the configuration.
//!
//! The variable of a value is `SPARK_` and its path in capitals, joined by `_`: `cache.ttl` is
//! `SPARK_CACHE_TTL`. The section `server` is left out (`SPARK_LISTEN`), and an entry of a list goes
//! by its `name` (`SPARK_PROVIDERS_PRIMARY_BASE_URL`).

use toml::{Table, Value};

use super::{Config, ConfigError};

/// Values that have no default, so that a serialized configuration does not show them: where they
/// may stand (`[]` is an entry of a list, `{}` one of a map), and whether they are numbers.
const OPTIONAL: [(&str, &str, bool); 11] = [
    (".server", "admin_listen", false),
    (".errors", "webhook", false),
    (".errors", "webhook_secret_env", false),
    (".ratelimit.ip", "burst", true),
    (".ratelimit.export", "burst", true),
    (".ratelimit.policies[]", "burst", true),
    (".ratelimit.policies[].tiers{}", "burst", true),
    (".ratelimit.tokens", "burst", true),
    (".ratelimit.tokens.tiers{}", "burst", true),
    (".providers[]", "base_url", false),
    (".providers[]", "api_key_env", false),
];
/// The values of a section, with whether they are numbers; the required first.
type Keys = &'static [(&'static str, bool)];
/// Sections that are not there unless written, and where they stand.
const SECTIONS: [(&str, &str, Keys); 2] = [
    (
        ".ratelimit",
        "tokens",
        &[
            ("quota", true),
            ("per", false),
            ("burst", true),
            ("answer", true),
        ],
    ),
    (".ratelimit", "concurrency", &[("most", true)]),
];
/// Maps whose keys are chosen by the operator.
const MAPS: [&str; 3] = [
    ".ratelimit.policies[].tiers",
    ".ratelimit.tokens.tiers",
    ".ratelimit.concurrency.tiers",
];

/// Variables that are read elsewhere.
const OTHERS: [&str; 11] = [
    "SPARK_CONFIG",
    "SPARK_MASTER_KEY",
    "SPARK_MASTER_KEY_FILE",
    "SPARK_MASTER_KEY_PREVIOUS",
    "SPARK_MASTER_KEY_PREVIOUS_FILE",
    "SPARK_MASTER_KEY_PREVIOUS_UNTIL",
    "SPARK_PEPPER",
    "SPARK_PEPPER_FILE",
    "SPARK_PEPPER_PREVIOUS",
    "SPARK_PEPPER_PREVIOUS_FILE",
    "SPARK_KEY",
];

pub(super) fn overlay(
    config: &Config,
    variables: impl Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    let mut table = to_table(config)?;
    let mut current = config.clone();
    let mut fault: Option<((String, String), ConfigError)> = None;
    for place in places(&table) {
        let Some(text) = variables(&place.variable) else {
            continue;
        };
        let invalid = |reason: String| ConfigError::Variable {
            variable: place.variable.clone(),
            reason,
        };
        let value = convert(&text, &place.old).map_err(invalid)?;
        set(&mut table, &place.path, value);
        // One at a time, so that the variable at fault can be named.
        current = table
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| invalid(error.message().to_owned()))?;
        // What one variable leaves unsound, a later one may make good: a `kind` and its `base_url`.
        fault = match current.check() {
            Ok(()) => None,
            Err(new) => fault.filter(|(old, _)| *old == new).or_else(|| {
                let (field, mend) = &new;
                let mut reason = format!("`{field}`: {mend}");
                // A URL may hold a password.
                if !text.contains('@') {
                    reason.push_str(&format!(", not \"{text}\""));
                }
                Some((new, invalid(reason)))
            }),
        };
    }
    fault.map_or(Ok(current), |(_, fault)| Err(fault))
}

/// The `SPARK_*` variables among `names` that mean nothing here: typing errors, most likely.
pub(crate) fn unknown_variables(
    config: &Config,
    names: impl Iterator<Item = String>,
) -> Vec<String> {
    let places = to_table(config)
        .map(|table| places(&table))
        .unwrap_or_default();
    let mut known = Vec::new();
    for place in places {
        // A variable may name another one, which holds a secret.
        if let (true, Some(name)) = (place.variable.ends_with("_ENV"), place.old.as_str()) {
            known.extend([name.to_owned(), format!("{name}_FILE")]);
        }
        known.push(place.variable);
    }
    let mut unknown: Vec<String> = names
        .filter(|name| name.starts_with("SPARK_"))
        .filter(|name| !OTHERS.contains(&name.as_str()) && !known.contains(name))
        .collect();
    unknown.sort();
    unknown
}

struct Place {
    variable: String,
    path: Vec<Step>,
    /// What stands there now, or a value of the type that may.
    old: Value,
}

#[derive(Clone)]
enum Step {
    Key(String),
    Index(usize),
}

fn to_table(config: &Config) -> Result<Table, ConfigError> {
    Table::try_from(config).map_err(|error| ConfigError::Parse {
        path: "the configuration".to_owned(),
        reason: error.to_string(),
    })
}

fn places(table: &Table) -> Vec<Place> {
    let mut found = Vec::new();
    walk(
        &Value::Table(table.clone()),
        "",
        &mut Vec::new(),
        "SPARK",
        &mut found,
    );
    found
}

/// `schema` is the path without the names of entries, as [`OPTIONAL`] writes it.
fn walk(value: &Value, schema: &str, path: &mut Vec<Step>, variable: &str, found: &mut Vec<Place>) {
    let mut step = |step: Step, value: &Value, schema: &str, variable: &str| {
        path.push(step);
        walk(value, schema, path, variable, found);
        path.pop();
    };
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let variable = match (schema, key.as_str()) {
                    ("", "server") => variable.to_owned(),
                    _ => format!("{variable}_{key}"),
                };
                let schema = match MAPS.contains(&schema) {
                    true => format!("{schema}{{}}"),
                    false => format!("{schema}.{key}"),
                };
                step(Step::Key(key.clone()), value, &schema, &variable);
            }
            let absent = OPTIONAL
                .into_iter()
                .filter(|(place, key, _)| *place == schema && !table.contains_key(*key));
            for (_, key, is_number) in absent {
                let variable = format!("{variable}_{key}");
                step(
                    Step::Key(key.to_owned()),
                    &anything(is_number),
                    "",
                    &variable,
                );
            }
            let absent = SECTIONS
                .into_iter()
                .filter(|(place, section, _)| *place == schema && !table.contains_key(*section));
            for (_, section, keys) in absent {
                path.push(Step::Key(section.to_owned()));
                for (key, is_number) in keys {
                    path.push(Step::Key((*key).to_owned()));
                    let variable = format!("{variable}_{section}_{key}");
                    walk(&anything(*is_number), "", path, &variable, found);
                    path.pop();
                }
                path.pop();
            }
        }
        Value::Array(array) if array.iter().any(Value::is_table) => {
            let schema = format!("{schema}[]");
            for (index, value) in array.iter().enumerate() {
                let name = value.get("name").and_then(Value::as_str);
                let name = name.map_or_else(|| index.to_string(), str::to_owned);
                step(
                    Step::Index(index),
                    value,
                    &schema,
                    &format!("{variable}_{name}"),
                );
            }
        }
        leaf => found.push(Place {
            variable: as_variable(variable),
            path: path.clone(),
            old: leaf.clone(),
        }),
    }
}

/// A value of the type that a number, or a text, has.
fn anything(is_number: bool) -> Value {
    match is_number {
        true => Value::Integer(0),
        false => Value::String(String::new()),
    }
}

fn as_variable(text: &str) -> String {
    let letter = |c: char| match c {
        c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
        _ => '_',
    };
    text.chars().map(letter).collect()
}

/// The text as the type that stands there now.
fn convert(text: &str, old: &Value) -> Result<Value, String> {
    let text = text.trim();
    let wrong = |kind: &str| format!("\"{text}\" is not {kind}");
    Ok(match old {
        Value::Integer(_) => Value::Integer(text.parse().map_err(|_| wrong("a whole number"))?),
        Value::Float(_) => Value::Float(text.parse().map_err(|_| wrong("a number"))?),
        Value::Boolean(_) => Value::Boolean(text.parse().map_err(|_| wrong("true or false"))?),
        Value::Array(_) => Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::String(item.to_owned()))
                .collect(),
        ),
        _ => Value::String(text.to_owned()),
    })
}

fn set(table: &mut Table, path: &[Step], value: Value) {
    let Some((Step::Key(first), rest)) = path.split_first() else {
        return;
    };
    let mut target = table
        .entry(first.clone())
        .or_insert_with(|| Value::Table(Table::new()));
    for step in rest {
        target = match (step, target) {
            (Step::Key(key), Value::Table(table)) => table
                .entry(key.clone())
                .or_insert_with(|| Value::Table(Table::new())),
            (Step::Index(index), Value::Array(array)) => match array.get_mut(*index) {
                Some(value) => value,
                None => return,
            },
            _ => return,
        };
    }
    *target = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_found() {
        let names = ["SPARK_LISTEN", "SPARK_LISTN", "PATH", "SPARK_MASTER_KEY"];
        let unknown = unknown_variables(
            &Config::load(None, |_| None).unwrap(),
            names.map(str::to_owned).into_iter(),
        );
        assert_eq!(unknown, ["SPARK_LISTN"]);
    }
}
