//! What the answers of model providers say about them: statuses, error bodies, streams.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};
use proptest::prelude::*;
use spark_breaker::{
    Classify, ClassifyBody, FailKind, Head, HttpClassify, IgnoreKind, LlmBody, LlmClassify,
    Outcome, Phase, Scope, TimeoutLayer, Timeouts, Verdict,
};
use spark_core::{Clock, End, Problem, ResponseBody, Shape};

const OURS: LlmClassify = LlmClassify::new();
const CALLERS: LlmClassify = LlmClassify::callers_key();
const CLIENT: Outcome = Outcome::Ignored(IgnoreKind::Client);

fn verdict<B>(classify: LlmClassify, response: Response<B>) -> Verdict<LlmBody> {
    let (parts, _) = response.into_parts();
    Classify::<()>::response(&classify, &Head::new(&parts, &Clock::system()))
}

fn response(status: u16, headers: &[(&'static str, &str)]) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status.try_into().unwrap();
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).unwrap();
        response.headers_mut().append(*name, value);
    }
    response
}

/// What is said of an answer with this body, in frames of this size, that ends like this.
fn read(
    classify: LlmClassify,
    (status, kind): (u16, &str),
    body: &[u8],
    size: usize,
    end: End,
) -> Option<Outcome> {
    match verdict(classify, response(status, &[("content-type", kind)])) {
        Verdict::Now(outcome) => Some(outcome),
        Verdict::AtTheEnd(mut reading) => {
            for frame in body.chunks(size) {
                reading.data(&Bytes::copy_from_slice(frame));
            }
            reading.end(end)
        }
    }
}

const STREAM: (u16, &str) = (200, "text/event-stream; charset=utf-8");
const JSON: (u16, &str) = (200, "application/json");

fn status(status: u16) -> Outcome {
    Outcome::failure(FailKind::Status(status))
}

fn now(classify: LlmClassify, code: u16) -> Outcome {
    read(classify, (code, "text/plain"), b"", 1, End::Complete).unwrap()
}

#[test]
fn statuses() {
    for code in [400, 404, 405, 409, 413, 415, 422, 451, 499] {
        assert_eq!(now(OURS, code), CLIENT, "{code}");
    }
    for code in [408, 425, 500, 501, 502, 503, 504, 507, 529, 599] {
        for classify in [OURS, CALLERS] {
            let failure = status(code).with_scope(Scope::Model);
            assert_eq!(now(classify, code), failure, "{code}");
        }
    }
    for code in [520, 521, 522, 523, 524, 525, 526, 527, 530] {
        assert_eq!(now(OURS, code), status(code).with_scope(Scope::Provider));
    }
    for code in [401, 402, 403] {
        let failure = Outcome::failure(FailKind::Auth).with_scope(Scope::Credential);
        assert_eq!(now(OURS, code), failure);
        assert_eq!(now(CALLERS, code), CLIENT);
    }
    let throttled = Outcome::throttled().with_scope(Scope::Credential);
    assert_eq!(now(OURS, 429), throttled);
    assert_eq!(now(CALLERS, 429), CLIENT);
    let error = Classify::<()>::error(&OURS, &());
    let failure = Outcome::failure(FailKind::Transport).with_scope(Scope::Provider);
    assert_eq!(error, failure);
}

#[test]
fn answers_without_a_body_are_decided_by_how_they_end() {
    for code in [100, 101, 204, 206, 301, 304] {
        for (end, expected) in [
            (End::Complete, Some(Outcome::Success)),
            (End::Error, Some(Outcome::failure(FailKind::Body))),
            (End::Cancelled, None),
        ] {
            for kind in ["text/event-stream", "application/json", "text/html"] {
                // As the answer to HEAD, too: nothing comes, and the head may promise anything.
                for code in [code, 200] {
                    let outcome = read(OURS, (code, kind), b"", 1, end);
                    assert_eq!(outcome, expected, "{code} {kind} {end:?}");
                }
            }
        }
    }
}

#[test]
fn our_own_refusals_are_ignored_except_timeouts() {
    let refusal = |status: u16, by| -> Response<ResponseBody<String>> {
        Problem::new(status.try_into().unwrap(), by, "code").into_response(Shape::PROBLEM)
    };
    let of = |response| match verdict(OURS, response) {
        Verdict::Now(outcome) => outcome,
        Verdict::AtTheEnd(_) => panic!("the head says it all"),
    };
    for (code, by) in [
        (503, "breaker"),
        (503, "bulkhead"),
        (429, "ratelimit"),
        (401, "auth"),
    ] {
        let ignored = Outcome::Ignored(IgnoreKind::Local);
        assert_eq!(of(refusal(code, by)), ignored);
    }
    let first_byte = Outcome::failure(FailKind::Timeout(Phase::FirstByte));
    assert_eq!(of(refusal(504, "timeout")), first_byte);
}

#[test]
fn retry_after_goes_along() {
    for code in [429, 503, 529] {
        let answer = response(code, &[("retry-after", "9"), ("content-length", "0")]);
        let Verdict::Now(outcome) = verdict(OURS, answer) else {
            panic!("there is no body");
        };
        let expected = match code {
            429 => Outcome::throttled(),
            _ => status(code),
        };
        assert_eq!(outcome, expected.with_retry_after(Duration::from_secs(9)));
    }
}

#[test]
fn b11_headers_of_a_throttle() {
    let after = |status: u16, headers: &[(&'static str, &str)]| {
        let (parts, ()) = response(status, headers).into_parts();
        let clock = spark_core::testing::TestClock::new();
        clock.set_unix_time(Duration::from_secs(1_800_000_000));
        let verdict = Classify::<()>::response(&HttpClassify, &Head::new(&parts, &clock.clock()));
        match verdict {
            Verdict::Now(
                Outcome::Throttled { retry_after, .. } | Outcome::Failure { retry_after, .. },
            ) => retry_after,
            _ => panic!("decided by the head"),
        }
    };
    let secs = |secs| Some(Duration::from_secs(secs));
    for (value, expected) in [
        ("0", secs(0)),
        ("-1", None),
        ("99999999999", secs(86_400)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", secs(0)),
        ("Thu, 31 Dec 2099 23:59:59 GMT", secs(86_400)),
        ("garbage", None),
    ] {
        for code in [429, 503] {
            assert_eq!(after(code, &[("retry-after", value)]), expected, "{value}");
        }
    }
    let two = [("retry-after", "3"), ("retry-after", "8")];
    assert_eq!(after(429, &two), secs(8), "the later one of two counts");
    let reset = ("x-ratelimit-reset-tokens", "6m0s");
    assert_eq!(after(429, &[reset]), secs(360));
    assert_eq!(after(503, &[reset]), None, "each answer has it");
    let asked = [reset, ("retry-after", "2")];
    assert_eq!(after(429, &asked), secs(2), "asked for, not guessed");
    let garbage = [reset, ("retry-after", "garbage")];
    assert_eq!(after(429, &garbage), secs(360));
    let left = [reset, ("x-ratelimit-remaining-tokens", "70")];
    assert_eq!(after(429, &left), None);
}

#[test]
fn an_error_body_says_whether_waiting_helps() {
    let quota = r#"{"error":{"message":"m","type":"insufficient_quota","code":null}}"#;
    let limit = r#"{"error":{"message":"insufficient_quota","type":"tokens","code":"rate_limit_exceeded"}}"#;
    let busy = r#"{"error":{"type":"engine_overloaded_error"}}"#;
    let long = format!(
        "{{\"error\":{{\"x\":\"{}\",\"type\":\"insufficient_quota\"}}}}",
        "x".repeat(16 << 10)
    );
    let auth = Outcome::failure(FailKind::Auth);
    let throttled = Outcome::throttled();
    for (code, body, expected) in [
        (429, quota, Outcome::exhausted()),
        (402, quota, Outcome::exhausted()),
        (403, quota, Outcome::exhausted()),
        (401, quota, auth),
        (429, limit, throttled),
        (429, busy, throttled.with_scope(Scope::Model)),
        (403, limit, auth),
        (429, "", throttled),
        (429, "insufficient_quota", throttled),
        (429, &quota[1..], throttled),
        (429, &long, throttled),
        (402, "{}", auth),
        (400, quota, CLIENT),
    ] {
        for size in [1, 7, 100_000] {
            // Whoever retries elsewhere drops the body.
            for end in [End::Complete, End::Error, End::Cancelled] {
                let kind = (code, "application/json");
                let outcome = read(OURS, kind, body.as_bytes(), size, end);
                assert_eq!(outcome, Some(expected), "{code} {body}");
            }
        }
        if code != 400 {
            let outcome = read(
                CALLERS,
                (code, "application/json"),
                body.as_bytes(),
                9,
                End::Complete,
            );
            assert_eq!(outcome, Some(CLIENT));
        }
    }
    for at in 0..quota.len() {
        for end in [End::Error, End::Cancelled] {
            let outcome = read(
                OURS,
                (429, "application/json"),
                &quota.as_bytes()[..at],
                9,
                end,
            );
            assert_eq!(outcome, Some(throttled), "the head alone decides");
        }
    }
    let answer = response(
        429,
        &[("retry-after", "9"), ("content-type", "application/json")],
    );
    let Verdict::AtTheEnd(mut reading) = verdict(OURS, answer) else {
        panic!("the body may say more");
    };
    reading.data(&Bytes::from_static(quota.as_bytes()));
    let kept = Outcome::exhausted().with_retry_after(Duration::from_secs(9));
    assert_eq!(reading.end(End::Complete), Some(kept));
}

#[test]
fn answers_in_json() {
    let truncated = Outcome::failure(FailKind::Truncated);
    for (body, expected) in [
        (r#"{"id":1,"choices":[]}"#, Outcome::Success),
        ("\n\n  {\"id\":1}\n", Outcome::Success),
        ("[1]", Outcome::Success),
        ("\"a text", Outcome::Success),
        ("", Outcome::Success),
        (r#"{"id":1,"choices":[""#, truncated),
        ("{", truncated),
        (r#"{"error":null,"choices":[]}"#, Outcome::Success),
        (r#"{"error":{"type":"overloaded_error"}}"#, status(529)),
        ("\n \n{\r\n  \"error\" : \"busy\" }\n", status(500)),
        (
            r#"{"type":"error","error":{"type":"api_error"}}"#,
            status(500),
        ),
        (r#"{"type":"message","error":"#, truncated),
        (r#"{"error":{"code":429}}"#, Outcome::throttled()),
        (
            r#"{"error":{"type":"insufficient_quota"}}"#,
            Outcome::exhausted(),
        ),
        (r#"{"error":{"type":"invalid_request_error"}}"#, CLIENT),
        (
            r#"{"error":{"type":"authentication_error"}}"#,
            Outcome::failure(FailKind::Auth),
        ),
        (r#"{"error":{"type":"overloaded_error""#, truncated),
        // An error, but not where one is looked for.
        (
            r#"{"id":1,"error":{"type":"overloaded_error"}}"#,
            Outcome::Success,
        ),
    ] {
        for size in 1..=body.len().max(1) {
            let outcome = read(OURS, JSON, body.as_bytes(), size, End::Complete);
            assert_eq!(outcome, Some(expected), "{body} in {size}");
        }
    }
    let body = br#"{"id":1,"#;
    assert_eq!(read(OURS, JSON, body, 9, End::Cancelled), None);
    let broken = Outcome::failure(FailKind::Body);
    assert_eq!(read(OURS, JSON, body, 9, End::Error), Some(broken));
    let huge = format!(
        "{{\"error\":{{\"type\":\"overloaded_error\",\"x\":\"{}\"}}}}",
        "x".repeat(20_000)
    );
    assert_eq!(
        read(OURS, JSON, huge.as_bytes(), 999, End::Complete),
        Some(Outcome::Success)
    );
}

#[test]
fn an_encoded_body_is_not_read() {
    let headers = [
        ("content-type", "text/event-stream"),
        ("content-encoding", "gzip"),
    ];
    let Verdict::AtTheEnd(mut reading) = verdict(OURS, response(200, &headers)) else {
        panic!("the body decides");
    };
    reading.data(&Bytes::from_static(b"data: {\"choices\":[]}\n\n"));
    assert_eq!(reading.end(End::Complete), Some(Outcome::Success));
}

/// A stream of each dialect, and the byte by which it is whole.
fn transcripts() -> Vec<(&'static str, String, usize)> {
    let chat = concat!(
        ": OPENROUTER PROCESSING\n\n",
        "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
        "data: {\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"h\u{e9}llo \\\"error\\\"\"}}]}\n\n",
        "data: {\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"id\":\"1\",\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\n",
        "data: [DONE]\n\n",
    );
    let responses = concat!(
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"1\",\"error\":null}}\n\n",
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"h\u{e9}\"}\n\n",
        "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"error\":null,\"status\":\"completed\"}}\n\n",
    );
    let anthropic = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"1\",\"stop_reason\":null}}\n\n",
        "event: ping\ndata: {\"type\": \"ping\"}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"h\u{e9}\"}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );
    let gemini = concat!(
        "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"h\u{e9}\"}],\"role\": \"model\"},\"index\": 0}],\"modelVersion\": \"m\"}\n\n",
        "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"i\"}]},\"finishReason\": \"STOP\",\"index\": 0}],\"usageMetadata\": {}}\n\n",
    );
    let mut all = Vec::new();
    for (name, text) in [
        ("chat", chat),
        ("responses", responses),
        ("anthropic", anthropic),
        ("gemini", gemini),
    ] {
        for ends in ["\n", "\r\n", "\r"] {
            let text = text.replace('\n', ends);
            // The last event is self-contained: its blank line may be missing, as with some providers.
            let whole = text.trim_end().len();
            all.push((name, text, whole));
        }
    }
    all
}

#[test]
fn a_stream_is_whole_only_when_its_last_event_came() {
    let truncated = Some(Outcome::failure(FailKind::Truncated));
    let broken = Some(Outcome::failure(FailKind::Body));
    for (name, text, whole) in transcripts() {
        for at in 0..=text.len() {
            let at_once = text.len();
            for size in [1, 5, at_once] {
                let body = &text.as_bytes()[..at];
                let expected = match at {
                    // As the answer to HEAD.
                    0 => Some(Outcome::Success),
                    _ if at < whole => truncated,
                    _ => Some(Outcome::Success),
                };
                let outcome = read(OURS, STREAM, body, size, End::Complete);
                assert_eq!(outcome, expected, "{name} {text:?} cut at {at} in {size}");
            }
            // One that breaks, or is left, has no tail: its last event must have ended. It has with
            // the first half of its line break.
            let half = usize::from(text.ends_with("\r\n"));
            let ended = at >= text.len() - half;
            let body = &text.as_bytes()[..at];
            let success = Some(Outcome::Success);
            let expected = if ended {
                (success, success)
            } else {
                (broken, None)
            };
            let outcome = |end| read(OURS, STREAM, body, 9, end);
            let found = (outcome(End::Error), outcome(End::Cancelled));
            assert_eq!(found, expected, "{name} {text:?} at {at}");
        }
    }
}

#[test]
fn error_events_are_what_their_status_would_be() {
    for (error, ours, callers) in [
        (r#"{"type":"overloaded_error"}"#, status(529), status(529)),
        (r#"{"type":"api_error"}"#, status(500), status(500)),
        (r#"{"type":"server_error"}"#, status(500), status(500)),
        (
            r#"{"type":"rate_limit_error"}"#,
            Outcome::throttled(),
            CLIENT,
        ),
        (
            r#"{"code":"rate_limit_exceeded"}"#,
            Outcome::throttled(),
            CLIENT,
        ),
        (r#"{"type":"invalid_request_error"}"#, CLIENT, CLIENT),
        (
            r#"{"type":"authentication_error"}"#,
            Outcome::failure(FailKind::Auth),
            CLIENT,
        ),
        (
            r#"{"type":"permission_error"}"#,
            Outcome::failure(FailKind::Auth),
            CLIENT,
        ),
        (
            r#"{"code":"insufficient_quota"}"#,
            Outcome::exhausted(),
            CLIENT,
        ),
        (
            r#"{"code":503,"status":"UNAVAILABLE"}"#,
            status(503),
            status(503),
        ),
        (
            r#"{"message":"overloaded_error"}"#,
            status(500),
            status(500),
        ),
    ] {
        let event = format!("event: error\ndata: {{\"type\":\"error\",\"error\":{error}}}\n\n");
        let plain = format!("data: {{\"error\":{error}}}\n\n");
        for (_, text, _) in transcripts() {
            for event in [&event, &plain] {
                let half = text.find("\n\n").map_or(0, |at| at + 2);
                for body in [event.clone(), format!("{}{event}", &text[..half])] {
                    for end in [End::Complete, End::Error, End::Cancelled] {
                        let of = |classify| read(classify, STREAM, body.as_bytes(), 11, end);
                        let found = (of(OURS), of(CALLERS));
                        assert_eq!(found, (Some(ours), Some(callers)), "{body}");
                    }
                }
            }
        }
    }
    let failed = "data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\"}}}\n\n";
    let outcome = read(OURS, STREAM, failed.as_bytes(), 7, End::Complete);
    assert_eq!(outcome, Some(status(500)));
}

#[test]
fn a_stream_in_no_known_dialect_is_judged_by_its_end_alone() {
    for body in [
        "data: words\n\n",
        "data: {\"a\":1}\n\ndata: {\"a\":2}\n\n",
        "data: half a",
    ] {
        for (end, expected) in [
            (End::Complete, Some(Outcome::Success)),
            (End::Error, Some(Outcome::failure(FailKind::Body))),
            (End::Cancelled, None),
        ] {
            assert_eq!(
                read(OURS, STREAM, body.as_bytes(), 3, end),
                expected,
                "{body}"
            );
        }
    }
}

#[test]
fn a_stream_of_nothing_but_comments_and_pings_is_truncated() {
    for body in [
        "x",
        ": ping\n\n",
        "event: ping\ndata: {}\n\n",
        "event: a\n\n",
    ] {
        for (end, expected) in [
            (End::Complete, Some(Outcome::failure(FailKind::Truncated))),
            (End::Error, Some(Outcome::failure(FailKind::Body))),
            (End::Cancelled, None),
        ] {
            assert_eq!(
                read(OURS, STREAM, body.as_bytes(), 3, end),
                expected,
                "{body:?}"
            );
        }
    }
}

/// As a failover does that asks the next provider when the first event is an error.
#[test]
fn an_error_counts_although_nobody_reads_on_to_its_blank_line() {
    for (body, expected) in [
        (
            "event: error\ndata: {\"error\":{\"type\":\"overloaded_error\"}}\n",
            529,
        ),
        ("data: {\"error\":{\"code\":502}}\r", 502),
        (
            "data: {\"choices\":[]}\n\ndata: {\"error\":{\"code\":503}}\n",
            503,
        ),
    ] {
        for end in [End::Complete, End::Error, End::Cancelled] {
            for size in [1, 7, 1_000] {
                let found = read(OURS, STREAM, body.as_bytes(), size, end);
                assert_eq!(found, Some(status(expected)), "{body:?}");
            }
        }
    }
    let half = b"event: error\ndata: {\"error\":{\"type\":\"over";
    assert_eq!(read(OURS, STREAM, half, 7, End::Cancelled), None);
}

#[test]
fn what_keeps_a_connection_open_is_no_first_byte() {
    let events: &[(&[u8], bool)] = &[
        (b"", false),
        (b": ping\n\n", false),
        (b"\n\r\n\r", false),
        (b"event: ping\ndata: {}\n\n", false),
        (b"data: {\"type\": \"ping\"}\n\n", false),
        (b"data: {\"choices\"", false),
        (b":[]}\n\n", true),
        (b": ping\n\n", true),
    ];
    let json: &[(&[u8], bool)] = &[
        (b"", false),
        (b"\n", false),
        (b" \r\n{", true),
        (b"\n", true),
    ];
    let text: &[(&[u8], bool)] = &[(b"", false), (b"\n", true)];
    for (kind, frames) in [
        ("text/event-stream", events),
        ("application/json", json),
        ("text/plain", text),
    ] {
        let answer = response(200, &[("content-type", kind)]);
        let Verdict::AtTheEnd(mut body) = verdict(OURS, answer) else {
            panic!("the body decides");
        };
        for (frame, has_begun) in frames {
            assert_eq!(
                body.data(&Bytes::from_static(frame)),
                *has_begun,
                "{frame:?}"
            );
        }
    }
}

#[test]
fn no_more_is_kept_than_is_said() {
    let megabyte = Bytes::from(vec![b'x'; 1 << 20]);
    let quote = Bytes::from_static(b"{\"error\":\"");
    for (kind, begin, most) in [
        (STREAM, Bytes::from_static(b"data: "), 128 << 10),
        (JSON, quote.clone(), 32 << 10),
        ((429, "application/json"), quote, 32 << 10),
    ] {
        let answer = response(kind.0, &[("content-type", kind.1)]);
        let Verdict::AtTheEnd(mut body) = verdict(OURS, answer) else {
            panic!("the body decides");
        };
        let used = allocation_counter::measure(|| {
            body.data(&begin);
            for at in (0..megabyte.len()).step_by(1_000) {
                body.data(&megabyte.slice(at..(at + 1_000).min(megabyte.len())));
            }
        });
        assert!(
            used.bytes_max <= most,
            "{} bytes for {kind:?}",
            used.bytes_max
        );
    }
}

#[test]
fn a_stream_whose_events_come_whole_allocates_nothing_after_the_first() {
    let answer = response(200, &[("content-type", "text/event-stream")]);
    let Verdict::AtTheEnd(mut body) = verdict(OURS, answer) else {
        panic!("the body decides");
    };
    let event = Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n");
    body.data(&event);
    let used = allocation_counter::measure(|| {
        for _ in 0..1_000 {
            body.data(&event);
        }
    });
    assert_eq!(used.count_total, 0);
}

proptest! {
    #[test]
    fn any_bytes_are_judged_the_same_however_they_are_cut(
        body in prop::collection::vec(any::<u8>(), 0..200),
        size in 1usize..20,
        code in prop::sample::select(vec![200u16, 402, 429]),
        kind in prop::sample::select(vec!["text/event-stream", "application/json"]),
    ) {
        let whole = read(OURS, (code, kind), &body, 1_000, End::Complete);
        prop_assert_eq!(read(OURS, (code, kind), &body, size, End::Complete), whole);
    }

    #[test]
    fn almost_streams_are_judged_the_same_however_they_are_cut(
        body in "((data|event): ?(\\[DONE\\]|\\{\"(error|type|choices|candidates)\":(\"error\"|\"message_stop\"|\\[\\]|null|1)\\}|error|ping)[\r\n]{1,3}){0,6}",
        size in 1usize..20,
    ) {
        for kind in [STREAM, JSON] {
            let whole = read(OURS, kind, body.as_bytes(), 1_000, End::Complete);
            prop_assert_eq!(read(OURS, kind, body.as_bytes(), size, End::Complete), whole);
        }
    }
}

/// What is counted of a call that is given up after so long, its stream having begun like this.
async fn given_up(stream: &'static str) -> (u64, u64) {
    use http_body_util::BodyExt;
    use spark_breaker::{Breaker, BreakerLayer, Config};
    use spark_core::testing::{TestBody, TestClock};
    use tower::{Layer, ServiceExt, service_fn};

    let clock = TestClock::new();
    let rules = Config::llm().abandon_after(Duration::from_secs(30));
    let breaker = Breaker::new("primary", rules, clock.clock()).unwrap();
    let client = service_fn(async move |_: http::Request<String>| {
        let mut response = Response::new(TestBody::frames([stream]).with_pause().with_data("x"));
        let kind = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert("content-type", kind);
        Ok::<_, std::convert::Infallible>(response)
    });
    let service = BreakerLayer::new(breaker.clone()).layer(client);
    let request = http::Request::new(String::new());
    let mut body = service.oneshot(request).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    clock.advance(Duration::from_secs(31));
    drop(body);
    let totals = breaker.snapshot().totals;
    (totals.failures, totals.cancelled)
}

#[tokio::test]
async fn b5_pings_do_not_hide_a_provider_that_hangs() {
    for nothing in [
        "",
        ": ping\n\n",
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
    ] {
        assert_eq!(given_up(nothing).await, (1, 0), "{nothing:?}");
    }
    let begun = "data: {\"choices\":[]}\n\n";
    assert_eq!(given_up(begun).await, (0, 1), "the caller went away");
    let whole = "data: [DONE]\n\n";
    assert_eq!(given_up(whole).await, (0, 0), "all was said: a success");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_ours_tells_its_phase_or_is_of_the_first_byte() {
    use tower::{ServiceBuilder, ServiceExt, service_fn};
    let first_byte = Some(Duration::from_secs(1));
    let layer = TimeoutLayer::new(Timeouts {
        first_byte,
        ..Timeouts::default()
    });
    let client =
        ServiceBuilder::new()
            .layer(layer)
            .service(service_fn(async |_: http::Request<String>| {
                std::future::pending::<Result<Response<String>, std::io::Error>>().await
            }));
    let answer = client
        .oneshot(http::Request::new(String::new()))
        .await
        .unwrap();
    let Verdict::Now(outcome) = verdict(OURS, answer) else {
        panic!("the head says it all");
    };
    assert_eq!(
        outcome,
        Outcome::failure(FailKind::Timeout(Phase::FirstByte))
    );
}
