//! Which strings of a JSON body are prompts.

use std::{fmt, ops::Range};

use crate::{
    error::{BuildError, JsonError},
    report::Origin,
    tokens::{Token, Tokens},
};

/// Selects the strings of a JSON body that are to be inspected.
///
/// A path is made of keys joined by dots; `[]` after a key goes through an array. It selects
/// strings only: where something else stands, there is nothing to inspect. A key that occurs twice
/// is inspected twice, and an escaped key (`"pr\u006fmpt"`) counts as what it spells, so that no
/// reader further in sees a string that was not looked at.
///
/// ```
/// use spark_sanitize::{Fields, Origin};
/// let fields = Fields::new(["prompt", "messages[].content", "messages[].content[].text"])?
///     .and("documents[].body", Origin::Retrieved)?;
/// # Ok::<(), spark_sanitize::BuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Fields {
    /// A tree of paths; the root comes first.
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    origin: Option<Origin>,
    items: Option<usize>,
    keys: Vec<(String, usize)>,
}

impl Fields {
    /// Selects what a caller writes.
    ///
    /// # Errors
    /// When a path does not parse.
    ///
    /// # Example
    /// ```
    /// assert!(spark_sanitize::Fields::new(["messages[].content"]).is_ok());
    /// assert!(spark_sanitize::Fields::new(["messages[0].content"]).is_err());
    /// ```
    pub fn new<'p>(paths: impl IntoIterator<Item = &'p str>) -> Result<Self, BuildError> {
        let fields = Self {
            nodes: vec![Node::default()],
        };
        paths
            .into_iter()
            .try_fold(fields, |fields, path| fields.and(path, Origin::User))
    }

    /// Selects another path, with the origin of its text.
    ///
    /// # Errors
    /// When the path does not parse.
    ///
    /// # Example
    /// ```
    /// use spark_sanitize::{Fields, Origin};
    /// let fields = Fields::new(["prompt"])?.and("results[].text", Origin::ToolOutput)?;
    /// # Ok::<(), spark_sanitize::BuildError>(())
    /// ```
    pub fn and(mut self, path: &str, origin: Origin) -> Result<Self, BuildError> {
        let wrong = || BuildError::Field {
            path: path.to_owned(),
        };
        let mut node = 0;
        for (position, part) in path.split('.').enumerate() {
            let key = part.trim_end_matches("[]");
            if key.contains(['[', ']']) || (key.is_empty() && (position > 0 || part.is_empty())) {
                return Err(wrong());
            }
            if !key.is_empty() {
                node = self.key(node, key);
            }
            for _ in 0..(part.len() - key.len()) / 2 {
                node = self.items(node);
            }
        }
        self.nodes[node].origin = Some(origin);
        Ok(self)
    }

    fn key(&mut self, node: usize, key: &str) -> usize {
        if let Some((_, child)) = self.nodes[node].keys.iter().find(|(k, _)| k == key) {
            return *child;
        }
        let child = self.grow();
        self.nodes[node].keys.push((key.to_owned(), child));
        child
    }

    fn items(&mut self, node: usize) -> usize {
        if let Some(child) = self.nodes[node].items {
            return child;
        }
        let child = self.grow();
        self.nodes[node].items = Some(child);
        child
    }

    fn grow(&mut self) -> usize {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }

    /// Visits the selected strings of valid JSON, in their order.
    pub(crate) fn visit<'b>(
        &self,
        json: &'b str,
        visitor: &mut dyn FnMut(Selected<'_, 'b>) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        let mut stack: Vec<Level<'b>> = Vec::new();
        let mut expects_key = false;
        for token in Tokens::new(json.as_bytes()) {
            match token {
                Token::Open { object, .. } => {
                    let node = self.child(&stack);
                    stack.push(Level {
                        node,
                        object,
                        index: 0,
                        key: "",
                        escaped: false,
                    });
                    expects_key = object;
                }
                Token::Close => {
                    stack.pop();
                    expects_key = false;
                }
                Token::Comma => {
                    if let Some(level) = stack.last_mut() {
                        level.index += 1;
                        expects_key = level.object;
                    }
                }
                Token::Colon => expects_key = false,
                Token::Text { span, escaped } => {
                    let literal = json.get(span.clone()).unwrap_or_default();
                    if let (true, Some(level)) = (expects_key, stack.last_mut()) {
                        level.key = literal;
                        level.escaped = escaped;
                        continue;
                    }
                    let origin = self.child(&stack).and_then(|node| self.nodes[node].origin);
                    if let Some(origin) = origin {
                        visitor(Selected {
                            span,
                            literal,
                            escaped,
                            origin,
                            path: Path(&stack),
                        })?;
                    }
                }
                Token::Other => {}
            }
        }
        Ok(())
    }

    /// The node of the value that comes next.
    fn child(&self, stack: &[Level<'_>]) -> Option<usize> {
        let Some(level) = stack.last() else {
            return Some(0);
        };
        let node = &self.nodes[level.node?];
        if !level.object {
            return node.items;
        }
        let key = level.key.trim_matches('"');
        let decoded: String;
        let key = if level.escaped {
            decoded = serde_json::from_str(level.key).ok()?;
            &decoded
        } else {
            key
        };
        node.keys
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, child)| *child)
    }
}

/// A container on the way to the place that is being read.
#[derive(Debug)]
pub(crate) struct Level<'b> {
    node: Option<usize>,
    object: bool,
    index: usize,
    /// The key that was read last, with its quotes.
    key: &'b str,
    escaped: bool,
}

/// A selected string.
#[derive(Debug)]
pub(crate) struct Selected<'s, 'b> {
    pub(crate) span: Range<usize>,
    /// The string with its quotes.
    pub(crate) literal: &'b str,
    pub(crate) escaped: bool,
    pub(crate) origin: Origin,
    pub(crate) path: Path<'s, 'b>,
}

/// Writes itself as in `messages[2].content`.
#[derive(Debug)]
pub(crate) struct Path<'s, 'b>(&'s [Level<'b>]);

impl fmt::Display for Path<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, level) in self.0.iter().enumerate() {
            if level.object {
                let dot = if position > 0 { "." } else { "" };
                let decoded: Option<String> = serde_json::from_str(level.key).ok();
                write!(f, "{dot}{}", decoded.unwrap_or_default())?;
            } else {
                write!(f, "[{}]", level.index)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(fields: &Fields, json: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        fields
            .visit(json, &mut |s| {
                found.push((s.path.to_string(), s.literal.to_owned()));
                Ok(())
            })
            .unwrap();
        found
    }

    #[test]
    fn selects_strings_and_names_their_places() {
        let fields =
            Fields::new(["prompt", "messages[].content", "messages[].content[].text"]).unwrap();
        let json = r#"{
            "model": "m", "prompt": "p", "other": {"prompt": "not this"},
            "messages": [
                {"role": "system", "content": "one"},
                {"content": [{"type": "text", "text": "two"}, {"text": 3}], "x": {"content": "no"}},
                {"content": null}
            ]
        }"#;
        let found = selected(&fields, json);
        let places: Vec<_> = found.iter().map(|(p, t)| format!("{p}={t}")).collect();
        assert_eq!(
            places,
            [
                r#"prompt="p""#,
                r#"messages[0].content="one""#,
                r#"messages[1].content[0].text="two""#
            ]
        );
    }

    #[test]
    fn nothing_hides_behind_duplicates_or_escapes() {
        let fields = Fields::new(["prompt"]).unwrap();
        let json = r#"{"prompt": "a", "pr\u006fmpt": "b", "prompt": "c"}"#;
        let found: Vec<_> = selected(&fields, json)
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        assert_eq!(found, [r#""a""#, r#""b""#, r#""c""#]);
    }

    #[test]
    fn a_bare_array_and_nested_arrays() {
        let fields = Fields::new(["[].text", "grid[][]"]).unwrap();
        assert_eq!(selected(&fields, r#"[{"text": "x"}]"#)[0].0, "[0].text");
        assert_eq!(
            selected(&fields, r#"{"grid": [[], ["a", "b"]]}"#)[1].0,
            "grid[1][1]"
        );
    }

    #[test]
    fn wrong_paths_are_refused() {
        for path in ["", "a..b", ".a", "a.", "a[0]", "a[", "a.[]"] {
            let error = Fields::new([path]).unwrap_err().to_string();
            assert!(error.contains(&format!("`{path}`")), "{error}");
        }
    }
}
