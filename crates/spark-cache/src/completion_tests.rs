use proptest::prelude::*;

use super::*;

const CHAT: &str = r#"{"choices":[{"finish_reason":"stop","message":{"content":"hi"}}]}"#;

#[test]
fn whole_answers() {
    for body in [
        CHAT,
        r#"{"choices":[{"finish_reason":"stop","text":"hi"}]}"#,
        r#"{"id":"1","output":"hi","finish_reason":"stop"}"#,
        r#"{"content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn"}"#,
        r#"{"error":null,"finish_reason":"stop"}"#,
        r#"{"choices":[{"finish_reason":"tool_calls","message":{"content":null,"tool_calls":
            [{"function":{"name":"f","arguments":"{\"a\":1}"}},{"function":{"arguments":""}}]}}]}"#,
    ] {
        assert_eq!(json(body.as_bytes()), Ok(()), "{body}");
    }
}

#[test]
fn answers_that_are_not_whole() {
    for (reason, body) in [
        ("not_json", ""),
        ("not_json", "[]"),
        ("not_json", "{}x"),
        ("unfinished", "{}"),
        ("unfinished", r#"{"output":"hi"}"#),
        ("unfinished", r#"{"finish_reason":null}"#),
        ("empty", r#"{"output":"","finish_reason":"stop"}"#),
        ("finish_reason", r#"{"finish_reason":"length"}"#),
        ("finish_reason", r#"{"finish_reason":"content_filter"}"#),
        ("finish_reason", r#"{"stop_reason":"max_tokens"}"#),
        ("finish_reason", r#"{"finish_reason":7}"#),
        (
            "error",
            r#"{"error":{"message":"overloaded"},"finish_reason":"stop"}"#,
        ),
        ("empty", r#"{"content":[],"stop_reason":"end_turn"}"#),
        ("empty", r#"{"content":"","stop_reason":"end_turn"}"#),
        ("empty", r#"{"choices":[]}"#),
        ("empty", r#"{"choices":null,"finish_reason":"stop"}"#),
        (
            "unfinished",
            r#"{"choices":[{"message":{"content":"hi"}}]}"#,
        ),
        ("empty", r#"{"choices":[{"finish_reason":"stop"}]}"#),
        (
            "empty",
            r#"{"choices":[{"finish_reason":"stop","message":{"content":""}}]}"#,
        ),
        (
            "refused",
            r#"{"choices":[{"finish_reason":"stop","message":{"content":"","refusal":"no"}}]}"#,
        ),
        (
            "finish_reason",
            r#"{"choices":[{"finish_reason":"stop","message":{"content":"hi"}},{"finish_reason":"length","message":{"content":"hi"}}]}"#,
        ),
        (
            "tool_arguments",
            r#"{"choices":[{"finish_reason":"tool_calls","message":{"tool_calls":[{"function":{"arguments":"{"}}]}}]}"#,
        ),
    ] {
        assert_eq!(json(body.as_bytes()), Err(reason), "{body}");
    }
}

const STREAM: &str = concat!(
    ": hello\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
    "id: 7\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"h\u{e9}\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\n",
    "data: [DONE]\n\n",
);

#[test]
fn whole_streams_in_every_spelling() {
    for ends in ["\n", "\r", "\r\n"] {
        assert_eq!(
            sse(STREAM.replace('\n', ends).as_bytes()),
            Ok(()),
            "{ends:?}"
        );
    }
    assert_eq!(sse(format!("\u{feff}{STREAM}").as_bytes()), Ok(()));
    assert_eq!(sse(STREAM.replace(": ", ":").as_bytes()), Ok(()));
    assert_eq!(sse(format!("{STREAM}: bye\n\n").as_bytes()), Ok(()));
    let lines = "data: {\"choices\":[{\"text\":\"a\",\ndata: \"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    assert_eq!(sse(lines.as_bytes()), Ok(()));
    let own = "data: {\"delta\":\"a\"}\n\ndata: {\"finish_reason\":\"stop\"}\n\ndata: [DONE]\n\n";
    assert_eq!(sse(own.as_bytes()), Ok(()));
}

#[test]
fn a_stream_that_is_cut_anywhere_is_not_whole() {
    for spelling in [
        STREAM.to_owned(),
        STREAM.replace('\n', "\r\n"),
        STREAM.replace('\n', "\r"),
    ] {
        for at in 0..spelling.len() {
            assert!(
                sse(&spelling.as_bytes()[..at]).is_err(),
                "{at} of {}",
                spelling.len()
            );
        }
    }
}

#[test]
fn streams_that_are_not_whole() {
    let with = |events: &[&str]| {
        let all: String = events.iter().map(|event| format!("{event}\n\n")).collect();
        sse(all.as_bytes())
    };
    let word = r#"data: {"choices":[{"delta":{"content":"a"}}]}"#;
    let stop = r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    let length = r#"data: {"choices":[{"delta":{},"finish_reason":"length"}]}"#;
    let second = r#"data: {"choices":[{"index":1,"delta":{"content":"b"}}]}"#;
    let tool = |part: &str| {
        format!(
            r#"data: {{"choices":[{{"delta":{{"tool_calls":[{{"index":0,"function":{{"arguments":"{part}"}}}}]}}}}]}}"#
        )
    };
    let done = "data: [DONE]";
    assert_eq!(with(&[word, stop, done]), Ok(()));
    assert_eq!(with(&[word, stop]), Err("no_done"));
    assert_eq!(with(&[word, done]), Err("unfinished"));
    assert_eq!(with(&[done]), Err("unfinished"));
    assert_eq!(with(&[stop, done]), Err("empty"));
    assert_eq!(with(&[word, length, done]), Err("finish_reason"));
    assert_eq!(with(&[word, second, stop, done]), Err("unfinished"));
    assert_eq!(with(&[word, stop, done, word]), Err("after_done"));
    assert_eq!(
        with(&[word, "event: error\ndata: {}", stop, done]),
        Err("error_event")
    );
    assert_eq!(
        with(&[word, r#"data: {"error":{}}"#, stop, done]),
        Err("error_event")
    );
    assert_eq!(
        with(&[word, r#"data: {"type":"error"}"#, stop, done]),
        Err("error_event")
    );
    assert_eq!(with(&[word, "data: oops", stop, done]), Err("not_json"));
    assert_eq!(with(&[&tool("[1"), &tool(",2]"), stop, done]), Ok(()));
    assert_eq!(with(&[&tool("[1"), stop, done]), Err("tool_arguments"));
    assert_eq!(sse(b"\xff"), Err("not_text"));
    assert_eq!(sse(b""), Err("no_done"));
}

proptest! {
    #[test]
    fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = (json(&bytes), sse(&bytes));
    }

    #[test]
    fn almost_events_are_judged(text in "((data|event|id|x)?:? ?(\\[DONE\\]|\\{\\}|error|a)?[\r\n]{0,2}){0,8}") {
        let _ = sse(text.as_bytes());
    }
}
