//! Whether a model's answer is whole.

use std::collections::BTreeMap;

use serde_json::Value;
use spark_core::completion::ApiError;
use spark_core::sse::{Event, Splitter};

type Reason = &'static str;

/// The reasons to finish that leave a whole answer behind. The others (`length`, `content_filter`,
/// …) may go another way the next time.
const FINISHED: [&str; 3] = ["stop", "tool_calls", "end_turn"];

/// A JSON answer: `choices` that all finished, or a `finish_reason` (or `stop_reason`) of its own.
pub(crate) fn json(body: &[u8]) -> Result<(), Reason> {
    let Ok(Value::Object(answer)) = serde_json::from_slice(body) else {
        return Err("not_json");
    };
    if ApiError::of(b"", &answer).is_some() {
        return Err("error");
    }
    if let Some(choices) = answer.get("choices") {
        let choices = choices
            .as_array()
            .filter(|all| !all.is_empty())
            .ok_or("empty")?;
        return choices.iter().try_for_each(choice);
    }
    let reason = answer
        .get("finish_reason")
        .or_else(|| answer.get("stop_reason"));
    finished(reason.ok_or("unfinished")?)?;
    match answer.get("output").or_else(|| answer.get("content")) {
        Some(Value::String(output)) if output.is_empty() => Err("empty"),
        Some(Value::Array(parts)) if parts.is_empty() => Err("empty"),
        _ => Ok(()),
    }
}

fn choice(choice: &Value) -> Result<(), Reason> {
    finished(choice.get("finish_reason").ok_or("unfinished")?)?;
    let Some(message) = choice.get("message") else {
        return match choice.get("text") {
            Some(Value::String(text)) if !text.is_empty() => Ok(()),
            _ => Err("empty"),
        };
    };
    if message
        .get("refusal")
        .is_some_and(|refusal| !refusal.is_null())
    {
        return Err("refused");
    }
    let calls = message.get("tool_calls").and_then(Value::as_array);
    for call in calls.into_iter().flatten() {
        if let Some(Value::String(arguments)) = call.pointer("/function/arguments") {
            tool_arguments(arguments)?;
        }
    }
    let said = match message.get("content") {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(parts)) => !parts.is_empty(),
        Some(_) => true,
    };
    if said || calls.is_some_and(|calls| !calls.is_empty()) {
        Ok(())
    } else {
        Err("empty")
    }
}

fn finished(reason: &Value) -> Result<(), Reason> {
    match reason {
        Value::String(reason) if FINISHED.contains(&reason.as_str()) => Ok(()),
        Value::Null => Err("unfinished"),
        _ => Err("finish_reason"),
    }
}

/// No arguments at all are fine: some providers say nothing for a tool that takes none.
fn tool_arguments(arguments: &str) -> Result<(), Reason> {
    let valid = arguments.is_empty() || serde_json::from_str::<Value>(arguments).is_ok();
    if valid { Ok(()) } else { Err("tool_arguments") }
}

/// A stream of server-sent events: JSON events without an error among them, choices that all
/// finished, and `data: [DONE]` as the last one, with the empty line that ends it.
pub(crate) fn sse(body: &[u8]) -> Result<(), Reason> {
    let text = std::str::from_utf8(body).map_err(|_| "not_text")?;
    let mut stream = Stream::default();
    // The body is here as a whole, so it bounds its events.
    let mut splitter = Splitter::new(usize::MAX);
    let mut rest = body;
    while let Some(event) = splitter.next(&mut rest) {
        if let Some(data) = event.data() {
            stream.event(event.name(), data)?;
        }
    }
    // A CR at the end of a stream of CRLFs lacks its LF.
    let half = text.ends_with('\r') && text.contains("\r\n");
    let is_cut = |tail: Event<'_>| tail.data().is_some() || !text.ends_with(['\n', '\r']);
    if half || splitter.finish().is_some_and(is_cut) {
        return Err("cut_off");
    }
    stream.end()
}

#[derive(Default)]
struct Stream {
    done: bool,
    spoke: bool,
    finished: bool,
    /// By index: whether the choice finished.
    choices: BTreeMap<u64, bool>,
    /// By index of the choice and of the call: the arguments so far.
    arguments: BTreeMap<(u64, u64), String>,
}

impl Stream {
    fn event(&mut self, name: &[u8], data: &[u8]) -> Result<(), Reason> {
        if name == b"error" {
            return Err("error_event");
        }
        if self.done {
            return Err("after_done");
        }
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        let Ok(Value::Object(event)) = serde_json::from_slice(data) else {
            return Err("not_json");
        };
        if ApiError::of(name, &event).is_some() {
            return Err("error_event");
        }
        match event.get("choices").and_then(Value::as_array) {
            Some(choices) => choices.iter().try_for_each(|choice| self.choice(choice))?,
            None => {
                let reason = event
                    .get("finish_reason")
                    .or_else(|| event.get("stop_reason"));
                if let Some(reason) = reason.filter(|reason| !reason.is_null()) {
                    finished(reason)?;
                    self.finished = true;
                }
            }
        }
        Ok(())
    }

    fn choice(&mut self, choice: &Value) -> Result<(), Reason> {
        let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
        let done = self.choices.entry(index).or_insert(false);
        if let Some(reason) = choice
            .get("finish_reason")
            .filter(|reason| !reason.is_null())
        {
            finished(reason)?;
            *done = true;
        }
        let said = |value: Option<&Value>| {
            value.is_some_and(|value| value.as_str().is_some_and(|text| !text.is_empty()))
        };
        self.spoke |= said(choice.get("text"));
        let Some(delta) = choice.get("delta") else {
            return Ok(());
        };
        if said(delta.get("refusal")) {
            return Err("refused");
        }
        self.spoke |= said(delta.get("content"));
        let calls = delta.get("tool_calls").and_then(Value::as_array);
        for call in calls.into_iter().flatten() {
            self.spoke = true;
            let at = (
                index,
                call.get("index").and_then(Value::as_u64).unwrap_or(0),
            );
            if let Some(Value::String(part)) = call.pointer("/function/arguments") {
                self.arguments.entry(at).or_default().push_str(part);
            }
        }
        Ok(())
    }

    fn end(self) -> Result<(), Reason> {
        if !self.done {
            return Err("no_done");
        }
        if self.choices.values().any(|finished| !finished) {
            return Err("unfinished");
        }
        if !self.choices.is_empty() && !self.spoke {
            return Err("empty");
        }
        if self.choices.is_empty() && !self.finished {
            return Err("unfinished");
        }
        self.arguments
            .values()
            .try_for_each(|arguments| tool_arguments(arguments))
    }
}

#[cfg(test)]
#[path = "completion_tests.rs"]
mod tests;
