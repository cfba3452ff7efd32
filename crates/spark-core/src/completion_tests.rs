use super::*;
use crate::sse::Splitter;

/// What each event says, and how the stream stands after it.
fn read(progress: &mut Progress, text: &str) -> Vec<Said> {
    let mut splitter = Splitter::new(1_000);
    let mut rest = text.as_bytes();
    let mut said = Vec::new();
    while let Some(event) = splitter.next(&mut rest) {
        said.push(progress.event(&event));
    }
    if let Some(tail) = splitter.finish() {
        said.push(progress.tail(&tail));
    }
    said
}

fn of(text: &str) -> (Vec<Said>, Option<Dialect>, Whole) {
    let mut progress = Progress::new();
    let said = read(&mut progress, text);
    (said, progress.dialect(), progress.whole())
}

#[test]
fn events_show_their_dialect_and_their_end() {
    use Said::{Last, Nothing, Piece};
    for (text, said, dialect, whole) in [
        ("", vec![], None, Whole::Unknown),
        (": ping\n\n", vec![Nothing], None, Whole::Unknown),
        (
            "event: ping\ndata: {}\n\n",
            vec![Nothing],
            None,
            Whole::Unknown,
        ),
        (
            "data: {\"type\": \"ping\"}\n\n",
            vec![Nothing],
            None,
            Whole::Unknown,
        ),
        ("data:\n\n", vec![Nothing], None, Whole::Unknown),
        ("data: {\"a\":1}\n\n", vec![Piece], None, Whole::Unknown),
        ("data: words\n\n", vec![Piece], None, Whole::Unknown),
        (
            "data: {\"choices\":[]}\n\n",
            vec![Piece],
            Some(Dialect::Chat),
            Whole::No,
        ),
        (
            "data: [DONE]\n\n",
            vec![Last],
            Some(Dialect::Chat),
            Whole::Yes,
        ),
        (
            "data: {\"type\":\"message_start\"}\n\n",
            vec![Piece],
            Some(Dialect::Anthropic),
            Whole::No,
        ),
        (
            "data: { \"index\": 0, \"type\": \"message_stop\" }\n\n",
            vec![Last],
            Some(Dialect::Anthropic),
            Whole::Yes,
        ),
        (
            "data: {\"type\":\"response.created\"}\n\ndata: {\"x\":1,\"type\":\"response.incomplete\"}\n\n",
            vec![Piece, Last],
            Some(Dialect::Responses),
            Whole::Yes,
        ),
        (
            "data: {\"candidates\":[{\"index\":0}]}\n\n",
            vec![Piece],
            Some(Dialect::Gemini),
            Whole::No,
        ),
        (
            "data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\n\n",
            vec![Last],
            Some(Dialect::Gemini),
            Whole::Yes,
        ),
        (
            "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n\n",
            vec![Last],
            Some(Dialect::Gemini),
            Whole::Yes,
        ),
    ] {
        assert_eq!(of(text), (said, dialect, whole), "{text}");
    }
}

#[test]
fn a_finish_reason_in_each_chunk_ends_nothing_until_the_last() {
    let chunk = |finish: bool| match finish {
        true => "data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\n\n",
        false => "data: {\"candidates\":[{\"index\":0}]}\n\n",
    };
    assert_eq!(of(&[chunk(true), chunk(false)].concat()).2, Whole::No);
    assert_eq!(of(&[chunk(false), chunk(true)].concat()).2, Whole::Yes);
    let usage = "data: {\"usageMetadata\":{}}\n\n";
    assert_eq!(of(&[chunk(true), usage].concat()).2, Whole::Yes);
}

#[test]
fn errors_are_found_in_every_dialect_and_place() {
    let beginnings = [
        "",
        "data: {\"choices\":[]}\n\n",
        "data: {\"type\":\"message_start\"}\n\n",
        "data: {\"type\":\"response.created\"}\n\n",
        "data: {\"candidates\":[{}]}\n\n",
    ];
    for beginning in beginnings {
        for (event, kind, code) in [
            (
                "data: {\"error\":{\"type\":\"a\",\"code\":\"b\"}}",
                Some("a"),
                Some("b"),
            ),
            (
                "data: {\"id\":1,\"choices\":[],\"error\":{\"code\":\"b\"}}",
                None,
                Some("b"),
            ),
            ("data: {\"error\":\"a text\"}", None, None),
            (
                "data: {\"type\":\"error\",\"error\":{\"type\":\"a\"}}",
                Some("a"),
                None,
            ),
            ("data: {\"type\":\"error\",\"code\":\"b\"}", None, Some("b")),
            ("event: error\ndata: {\"type\":\"a\"}", Some("a"), None),
            ("event: error\ndata: no JSON", None, None),
        ] {
            let (said, ..) = of(&format!("{beginning}{event}\n\n"));
            let Some(Said::Error(error)) = said.last() else {
                panic!("{beginning}{event}: {said:?}");
            };
            assert_eq!((error.kind(), error.code()), (kind, code), "{event}");
        }
    }
    let failed =
        "data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"b\"}}}\n\n";
    let (said, ..) = of(&format!("{}{failed}", beginnings[3]));
    assert!(matches!(said.last(), Some(Said::Error(error)) if error.code() == Some("b")));
}

#[test]
fn words_of_a_model_are_no_errors() {
    for event in [
        r#"data: {"choices":[{"delta":{"content":"{\"error\":{}}"}}]}"#,
        r#"data: {"choices":[{"delta":{"content":"error"}}],"error":null}"#,
        r#"data: {"choices":[{"finish_reason":"error"}]}"#,
        r#"data: {"candidates":[{"content":"\"finishReason\""}]}"#,
        r#"data: {"type":"content_block_delta","delta":{"text":"\"message_stop\" \"error\""}}"#,
        r#"data: {"type":"response.output_text.delta","delta":"data: [DONE]"}"#,
    ] {
        let (said, _, whole) = of(&format!("{event}\n\n"));
        assert_eq!((said, whole), (vec![Said::Piece], Whole::No), "{event}");
    }
}

#[test]
fn a_tail_counts_when_it_is_whole() {
    for (tail, whole) in [
        ("data: [DONE]", Whole::Yes),
        ("data: [DONE", Whole::No),
        ("data: {\"type\":\"message_stop\"}", Whole::Yes),
        ("data: {\"type\":\"message_stop\"", Whole::No),
        ("data: ", Whole::No),
    ] {
        let text = format!("data: {{\"choices\":[]}}\n\n{tail}");
        assert_eq!(of(&text).2, whole, "{tail}");
    }
    assert_eq!(of("data: wor").2, Whole::Unknown);
    assert_eq!(of("data: {\"a").2, Whole::No, "half a JSON text");
    let (said, ..) = of("data: {\"error\":{}}");
    assert_eq!(said, [Said::Error(ApiError::default())]);
}

#[test]
fn an_event_that_is_too_long_is_known_by_its_type_or_leaves_doubt() {
    let long = "x".repeat(2_000);
    let completed = format!("data: {{\"type\":\"response.completed\",\"x\":\"{long}\"}}\n\n");
    assert_eq!(of(&completed).2, Whole::Yes);
    assert_eq!(of(&completed[..1_500]).2, Whole::No, "it did not end");
    let gemini = "data: {\"candidates\":[{}]}\n\n";
    let last = format!("{gemini}data: {{\"candidates\":[{{\"x\":\"{long}\"");
    assert_eq!(of(&format!("{last}}}]}}\n\n")).2, Whole::Unknown);
}

#[test]
fn a_stream_in_no_known_dialect_is_soon_left_alone() {
    let mut progress = Progress::new();
    read(&mut progress, &"data: {\"a\":1}\n\n".repeat(20));
    assert_eq!(progress.attempts, ATTEMPTS);
    let said = read(&mut progress, "data: {\"error\":{}}\n\n");
    assert!(matches!(said[..], [Said::Error(_)]));
    assert_eq!(progress.whole(), Whole::Unknown);
}

#[test]
fn bodies_report_their_error() {
    for (json, status) in [
        (r#"{"error":{"code":429}}"#, Some(429)),
        (r#"{"error":{"code":"429"}}"#, Some(429)),
        (r#"{"error":{"status":503}}"#, Some(503)),
        (r#"{"error":{"code":200}}"#, None),
        (r#"{"error":{"code":66036}}"#, None),
        (r#"{"error":{"code":-1}}"#, None),
        (r#"{"error":[]}"#, None),
        (r#"{"type":"error"}"#, None),
    ] {
        let error = ApiError::read(json.as_bytes()).unwrap();
        assert_eq!(error.http_status(), status, "{json}");
    }
    for json in [
        "",
        "[]",
        "{}",
        "null",
        r#"{"error":null}"#,
        r#"{"error":{}"#,
    ] {
        assert_eq!(ApiError::read(json.as_bytes()), None, "{json}");
    }
    let long = format!("{{\"error\":{{\"type\":\"{}\"}}}}", "x".repeat(65));
    assert_eq!(ApiError::read(long.as_bytes()).unwrap().kind(), None);
}
