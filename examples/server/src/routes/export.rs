//! `POST /api/export`: a conversation as a file.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};
use spark_core::{Context, Problem};

use super::{invalid, json_of, refuse};

#[derive(Clone, Copy, Debug)]
enum Format {
    Json,
    Markdown,
    Csv,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    role: String,
    content: String,
}

pub(crate) async fn export(context: Context, body: Bytes) -> Response {
    match parse(&body) {
        Err(problem) => refuse(&context, problem),
        Ok((format, items)) => {
            let (content_type, extension, text) = match format {
                Format::Json => ("application/json", "json", as_json(&items)),
                Format::Markdown => ("text/markdown; charset=utf-8", "md", as_markdown(&items)),
                Format::Csv => (
                    "text/csv; charset=utf-8; header=present",
                    "csv",
                    as_csv(&items),
                ),
            };
            let disposition = format!("attachment; filename=\"conversation.{extension}\"");
            let headers = [
                (CONTENT_TYPE, content_type.to_owned()),
                (CONTENT_DISPOSITION, disposition),
            ];
            (headers, text).into_response()
        }
    }
}

fn parse(body: &[u8]) -> Result<(Format, Vec<Item>), Problem> {
    let asked = json_of(body)?;
    let format = match asked["format"].as_str() {
        Some("json") => Format::Json,
        Some("markdown") => Format::Markdown,
        Some("csv") => Format::Csv,
        _ => {
            return Err(invalid(
                "format",
                "must be \"json\", \"markdown\" or \"csv\".",
            ));
        }
    };
    let Value::Array(items) = &asked["items"] else {
        return Err(invalid(
            "items",
            "must be a list of {\"role\", \"content\"}.",
        ));
    };
    let items = items.iter().enumerate().map(|(index, item)| {
        Item::deserialize(item).map_err(|_| {
            invalid(
                format!("items[{index}]"),
                "must be {\"role\", \"content\"}, both texts.",
            )
        })
    });
    Ok((format, items.collect::<Result<_, _>>()?))
}

fn as_json(items: &[Item]) -> String {
    let items: Vec<Value> = items
        .iter()
        .map(|item| json!({ "role": item.role, "content": item.content }))
        .collect();
    Value::from(items).to_string()
}

fn as_markdown(items: &[Item]) -> String {
    let mut text = String::new();
    for item in items {
        // A role stands in a heading, so it stays on its line.
        let role: String = item.role.chars().filter(|c| !c.is_control()).collect();
        text.push_str(&format!("## {role}\n\n{}\n\n", item.content));
    }
    text
}

/// RFC 4180, every cell quoted.
fn as_csv(items: &[Item]) -> String {
    let mut text = String::from("role,content\r\n");
    for item in items {
        text.push_str(&format!("{},{}\r\n", cell(&item.role), cell(&item.content)));
    }
    text
}

/// A spreadsheet runs a cell that begins with one of these as a formula (OWASP, CSV Injection), also
/// after white space; an apostrophe in front makes it a text.
fn cell(text: &str) -> String {
    let first = text.trim_start_matches(|c: char| c.is_whitespace() || c.is_control());
    let formula = first.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠'])
        || text.starts_with(['\t', '\r', '\n']);
    let guard = if formula { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        for text in [
            "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r=1", "＝1", "\u{0}=1",
        ] {
            assert!(cell(text).starts_with("\"'"), "{text:?}");
        }
        assert_eq!(cell("a \"b\", c"), "\"a \"\"b\"\", c\"");
    }

    #[test]
    fn each_format_holds_everything() {
        let body = br#"{"format":"csv","items":[{"role":"user","content":"a\nb"},{"role":"assistant","content":"c"}]}"#;
        let (_, items) = parse(body).unwrap();
        assert_eq!(
            as_csv(&items),
            "role,content\r\n\"user\",\"a\nb\"\r\n\"assistant\",\"c\"\r\n"
        );
        assert_eq!(
            as_markdown(&items),
            "## user\n\na\nb\n\n## assistant\n\nc\n\n"
        );
        assert!(as_json(&items).contains(r#"{"content":"c","role":"assistant"}"#));
    }

    #[test]
    fn the_field_at_fault_is_named() {
        for (body, param) in [
            (r#"{"format":"pdf","items":[]}"#, "format"),
            (r#"{"format":"csv"}"#, "items"),
            (
                r#"{"format":"csv","items":[{"role":"user","content":"a"},{"role":1}]}"#,
                "items[1]",
            ),
            ("nonsense", "body"),
        ] {
            let problem = parse(body.as_bytes()).unwrap_err();
            assert_eq!(problem.param_name(), Some(param));
        }
    }
}
