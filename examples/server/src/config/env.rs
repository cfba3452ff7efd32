//! The environment laid over the configuration.
//!
//! The variable of a value is `SPARK_` and its path in capitals, joined by `_`: `cache.ttl` is
//! `SPARK_CACHE_TTL`. The section `server` is left out (`SPARK_LISTEN`), and an entry of a list goes
//! by its `name` (`SPARK_PROVIDERS_PRIMARY_BASE_URL`).

use toml::{Table, Value};

use super::{Config, ConfigError};

/// Values that have no default, so that a serialized configuration does not show them.
const OPTIONAL: [(&[&str], &str); 3] = [
    (&["server"], "admin_listen"),
    (&["errors"], "webhook"),
    (&["errors"], "webhook_secret_env"),
];
const OPTIONAL_OF_PROVIDERS: [&str; 2] = ["base_url", "api_key_env"];

/// Variables that are read elsewhere.
const OTHERS: [&str; 8] = [
    "SPARK_CONFIG",
    "SPARK_MASTER_KEY",
    "SPARK_MASTER_KEY_FILE",
    "SPARK_MASTER_KEY_PREVIOUS",
    "SPARK_MASTER_KEY_PREVIOUS_FILE",
    "SPARK_PEPPER",
    "SPARK_PEPPER_FILE",
    "SPARK_KEY",
];

pub(super) fn overlay(
    config: &Config,
    variables: impl Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    let mut table = to_table(config)?;
    let mut current = config.clone();
    for place in places(&table) {
        let Some(text) = variables(&place.variable) else {
            continue;
        };
        let invalid = |reason: String| ConfigError::Variable {
            variable: place.variable.clone(),
            reason,
        };
        let value = convert(&text, place.old.as_ref()).map_err(invalid)?;
        set(&mut table, &place.path, value);
        // One at a time, so that the variable at fault can be named.
        current = table
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| invalid(error.message().to_owned()))?;
    }
    Ok(current)
}

/// The `SPARK_*` variables among `names` that mean nothing here: typing errors, most likely.
pub(crate) fn unknown_variables(
    config: &Config,
    names: impl Iterator<Item = String>,
) -> Vec<String> {
    let known: Vec<String> = to_table(config)
        .map(|table| places(&table).into_iter().map(|p| p.variable).collect())
        .unwrap_or_default();
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
    old: Option<Value>,
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
        &mut Vec::new(),
        "SPARK",
        &mut found,
    );
    for (section, key) in OPTIONAL {
        let prefix = match section {
            ["server"] => String::new(),
            _ => format!("{}_", section.join("_")),
        };
        let path = section
            .iter()
            .chain([&key])
            .map(|k| Step::Key((*k).to_owned()));
        push_absent(&mut found, &format!("SPARK_{prefix}{key}"), path.collect());
    }
    let providers = table.get("providers").and_then(Value::as_array);
    for (index, provider) in providers.into_iter().flatten().enumerate() {
        let name = provider
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        for key in OPTIONAL_OF_PROVIDERS {
            let path = vec![
                Step::Key("providers".to_owned()),
                Step::Index(index),
                Step::Key(key.to_owned()),
            ];
            push_absent(&mut found, &format!("SPARK_PROVIDERS_{name}_{key}"), path);
        }
    }
    found
}

fn push_absent(found: &mut Vec<Place>, variable: &str, path: Vec<Step>) {
    let variable = as_variable(variable);
    if !found.iter().any(|place| place.variable == variable) {
        found.push(Place {
            variable,
            path,
            old: None,
        });
    }
}

fn walk(value: &Value, path: &mut Vec<Step>, variable: &str, found: &mut Vec<Place>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let variable = match (path.is_empty(), key.as_str()) {
                    (true, "server") => variable.to_owned(),
                    _ => format!("{variable}_{key}"),
                };
                path.push(Step::Key(key.clone()));
                walk(value, path, &variable, found);
                path.pop();
            }
        }
        Value::Array(array) if array.iter().any(Value::is_table) => {
            for (index, value) in array.iter().enumerate() {
                let name = value.get("name").and_then(Value::as_str);
                let name = name.map_or_else(|| index.to_string(), str::to_owned);
                path.push(Step::Index(index));
                walk(value, path, &format!("{variable}_{name}"), found);
                path.pop();
            }
        }
        leaf => found.push(Place {
            variable: as_variable(variable),
            path: path.clone(),
            old: Some(leaf.clone()),
        }),
    }
}

fn as_variable(text: &str) -> String {
    let letter = |c: char| match c {
        c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
        _ => '_',
    };
    text.chars().map(letter).collect()
}

/// The text as the type that stands there now; an absent value is a text.
fn convert(text: &str, old: Option<&Value>) -> Result<Value, String> {
    let text = text.trim();
    let wrong = |kind: &str| format!("\"{text}\" is not {kind}");
    Ok(match old {
        Some(Value::Integer(_)) => {
            Value::Integer(text.parse().map_err(|_| wrong("a whole number"))?)
        }
        Some(Value::Float(_)) => Value::Float(text.parse().map_err(|_| wrong("a number"))?),
        Some(Value::Boolean(_)) => {
            Value::Boolean(text.parse().map_err(|_| wrong("true or false"))?)
        }
        Some(Value::Array(_)) => Value::Array(
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
