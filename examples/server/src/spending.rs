//! What a call spends of its tenant's tokens: reserved by an estimate, settled by what was used.

use std::sync::Arc;

use serde_json::{Map, Value};
use spark_core::{Budget, Context, Name, Principal, Problem};

use crate::app::App;

/// What one call spends of its tenant's tokens, where those are limited.
#[derive(Debug, Default)]
pub(crate) struct Spending {
    budget: Option<Arc<dyn Budget>>,
    /// An estimate.
    input_tokens: u64,
    output_bytes: u64,
}

impl Spending {
    /// Reserves what the call may use: its input, and the longest answer that it allows.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) fn reserve(
        app: &App,
        context: &Context,
        asked: &Map<String, Value>,
    ) -> Result<Self, Problem> {
        let mut spending = Self {
            budget: context.budget().cloned(),
            input_tokens: 0,
            output_bytes: 0,
        };
        let Some(budget) = &spending.budget else {
            return Ok(spending);
        };
        spending.input_tokens = input_tokens(asked);
        let tier = context.principal().and_then(Principal::tier);
        let (answer, burst) = match &app.quotas().tokens {
            Some(tokens) => (tokens.answer, tokens.burst_of(tier.map(Name::as_str))),
            None => return Ok(spending),
        };
        // Who allows for a longer answer than is ever to be had at once waits for a full bucket;
        // an input of that length is refused.
        let answer = output_tokens(asked).unwrap_or(answer);
        let most = burst.saturating_sub(spending.input_tokens);
        budget.reserve(spending.input_tokens.saturating_add(answer.min(most)))?;
        Ok(spending)
    }

    /// So much more of the answer was seen: what is settled if its reader leaves now.
    pub(crate) fn see(&mut self, bytes: u64) {
        self.output_bytes = self.output_bytes.saturating_add(bytes);
        if let Some(budget) = &self.budget {
            budget.observe(self.seen());
        }
    }

    fn seen(&self) -> u64 {
        self.input_tokens
            .saturating_add(in_tokens(self.output_bytes))
    }

    /// What was seen is all that is known.
    pub(crate) fn settle_at_seen(&self) {
        self.settle(self.seen());
    }

    /// So many were used; once.
    pub(crate) fn settle(&self, tokens: u64) {
        if let Some(budget) = &self.budget {
            budget.settle(tokens);
        }
    }
}

/// What stands for a file in a message, in tokens: its length in bytes says nothing.
const FILE: u64 = 1_000;
/// Bytes of text that are one token, on the average.
const TOKEN: u64 = 4;

fn in_tokens(bytes: u64) -> u64 {
    bytes.div_ceil(TOKEN)
}

/// An estimate of what a model reads: the messages' texts, and what else it is shown as it is.
fn input_tokens(asked: &Map<String, Value>) -> u64 {
    let messages = asked.get("messages").map_or(0, text_bytes);
    let shown = ["tools", "functions", "response_format"];
    let shown = shown.iter().filter_map(|key| asked.get(*key));
    let shown: u64 = shown.map(|value| value.to_string().len() as u64).sum();
    in_tokens(messages.saturating_add(shown))
}

/// The longest that the answers may be, when the request says so.
fn output_tokens(asked: &Map<String, Value>) -> Option<u64> {
    let number = |key: &str| asked.get(key).and_then(Value::as_u64);
    let one = number("max_completion_tokens").or(number("max_tokens"))?;
    Some(one.saturating_mul(number("n").unwrap_or(1).max(1)))
}

/// Bytes of text within a message; a file counts as [`FILE`].
pub(crate) fn text_bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(values) => values.iter().map(text_bytes).sum(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| match key.as_str() {
                "image_url" | "input_audio" | "file" => FILE * TOKEN,
                "role" | "type" | "id" => 0,
                _ => text_bytes(value),
            });
            fields.sum()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Remembers the settlement; what was observed stands for it until there is one.
    #[derive(Debug, Default)]
    struct Told(std::sync::Mutex<(u64, Option<u64>)>);

    impl Budget for Told {
        fn reserve(&self, _units: u64) -> Result<(), Problem> {
            Ok(())
        }

        fn observe(&self, units: u64) {
            let mut told = self.0.lock().unwrap();
            told.0 = told.0.max(units);
        }

        fn settle(&self, units: u64) {
            self.0.lock().unwrap().1.get_or_insert(units);
        }
    }

    #[test]
    fn what_is_seen_of_a_stream_is_what_its_reader_is_charged() {
        let told = Arc::new(Told::default());
        let mut spending = Spending {
            budget: Some(Arc::clone(&told) as _),
            input_tokens: 7,
            output_bytes: 0,
        };
        spending.see(0);
        assert_eq!(*told.0.lock().unwrap(), (7, None));
        spending.see(4);
        spending.see(1);
        assert_eq!(*told.0.lock().unwrap(), (9, None), "rounded up");
        spending.settle_at_seen();
        spending.settle(0);
        assert_eq!(told.0.lock().unwrap().1, Some(9), "once");
    }

    #[test]
    fn the_estimate_is_of_what_the_model_reads_and_may_write() {
        let of = |asked: Value| {
            let asked = asked.as_object().unwrap().clone();
            (input_tokens(&asked), output_tokens(&asked))
        };
        let text = |content: Value| json!([{ "role": "user", "content": content }]);
        assert_eq!(of(json!({ "model": "m" })), (0, None));
        assert_eq!(
            of(json!({ "messages": text("hello".into()), "max_tokens": 9 })),
            (2, Some(9))
        );
        let several = json!({
            "messages": text("12345678".into()), "max_completion_tokens": 9, "max_tokens": 5, "n": 3,
        });
        assert_eq!(of(several), (2, Some(27)));
        let most = json!({ "max_tokens": u64::MAX, "n": u64::MAX });
        assert_eq!(of(most), (0, Some(u64::MAX)));
        // The length of a picture says nothing of its tokens.
        let picture = "data:".to_owned() + &"x".repeat(500_000);
        let parts = json!([
            { "type": "text", "text": "what is it?!" },
            { "type": "image_url", "image_url": { "url": picture } },
        ]);
        assert_eq!(of(json!({ "messages": text(parts) })), (3 + FILE, None));
        let tools = json!({ "tools": [{ "function": { "name": "f" } }] });
        assert_eq!(
            of(tools).0,
            in_tokens(r#"[{"function":{"name":"f"}}]"#.len() as u64)
        );
    }
}
