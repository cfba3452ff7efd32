//! `spark-mock-upstream`: a stand-in for an OpenAI-compatible provider, in a process of its own.
//!
//! It speaks OpenAI's wire format on loopback, so that a provider's adapter, its breaker and its
//! failover can be tried over a real socket, and it misbehaves on demand.
//!
//! ```text
//! spark-mock-upstream --listen 127.0.0.1:0        # prints: listening on 127.0.0.1:PORT
//! curl -d '{"mode":"error500","failures":12}' http://127.0.0.1:PORT/__mode
//! curl http://127.0.0.1:PORT/__stats
//! ```
//!
//! | route | what |
//! |---|---|
//! | `POST /v1/chat/completions` | an answer, whole or streamed one word a chunk |
//! | `GET /v1/models` | the models of `--model` (any model is answered for) |
//! | `POST /__mode` | replaces the behaviour; fields left out take their defaults |
//! | `GET /__stats` | `calls`, `completed`, `cancelled`, `in_flight`, `behaviour`, `last_headers`, `last_body` |
//! | `POST /__reset` | counters to zero, behaviour to `ok` |
//!
//! The behaviour is `{"mode", "latency_ms", "chunk_ms", "retry_after", "status", "failures", "model",
//! "pings"}`:
//!
//! | mode | what a caller sees |
//! |---|---|
//! | `ok` | the answer, after `latency_ms`; streams send a word each `chunk_ms` (default 20) |
//! | `error500` | 500 with OpenAI's error body |
//! | `status` | the status in `status` (default 503), with `retry_after` where it is given |
//! | `rate_limited` | 429 with `Retry-After: retry_after` (a number or any text; default 1) |
//! | `used_up` | 429 that says that the credit is used up, with `retry_after` where it is given |
//! | `stall` | the head and the first words, then nothing for 60 s, then the connection closes |
//! | `stall_head` | nothing at all for 60 s, then the connection closes |
//! | `cut` | the head and a few words, then the connection closes in mid-body |
//! | `cut_clean` | a few words, then a proper end of the body without `data: [DONE]` |
//! | `garbage` | 200 with bytes that are neither JSON nor UTF-8 |
//! | `error_in_stream` | 200, some words, then an error object where a chunk should be |
//! | `flood` | 64 MiB without one line break |
//! | `refuse` | the connection closes without a byte of an answer |
//!
//! Where the request is not a stream, the stalls and cuts happen in the midst of the JSON document.
//! With `failures: n` the next `n` calls behave so, and every later one is `ok`. With `model`, only
//! calls for that model do. With `pings: n`, streams begin with so many comments, one each `chunk_ms`.
//!
//! The answer is a function of the request alone: it names the FNV-1a hash of the last user
//! message, and its usage counts one token a word. Only the `id` differs: it carries the number of
//! the call, so a replayed answer can be told from a fresh one. `tool_choice: "required"` is answered
//! with a call of the first tool. A call counts as `cancelled` when its caller left before it was
//! played to its end.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use clap::Parser;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tower::ServiceExt as _;

/// How long the stalling modes say nothing.
const STALL: Duration = Duration::from_secs(60);
/// What `flood` sends, in pieces of [`FLOOD_PIECE`].
const FLOOD: usize = 64 << 20;
const FLOOD_PIECE: usize = 64 << 10;
/// How many words a cut or stalled stream sends first.
const FIRST_WORDS: usize = 3;
/// The `created` of every answer: a fixed one keeps them equal from run to run.
const CREATED: u64 = 1_700_000_000;

/// Speaks OpenAI's wire format on loopback, and misbehaves when `POST /__mode` says so.
#[derive(Debug, Parser)]
struct Args {
    /// Where to listen: loopback only. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// A model for `GET /v1/models` to list; may be given more than once.
    #[arg(long = "model", default_value = "mock-model")]
    models: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    if !args.listen.ip().is_loopback() {
        eprintln!("--listen {}: a mock listens on loopback only", args.listen);
        return ExitCode::from(2);
    }
    match serve(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spark-mock-upstream: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> std::io::Result<()> {
    let listener = TcpListener::bind(args.listen).await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening on {}", listener.local_addr()?)?;
    stdout.flush()?;

    let app = router(Arc::new(Upstream::new(args.models)));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let app = app.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(app.clone(), request));
            let http = hyper::server::conn::http1::Builder::new();
            // A connection that ends in an error is what half of the modes are for.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// An error from here makes hyper close the connection without a word.
async fn answer(app: Router, request: Request<Incoming>) -> Result<Response, HangUp> {
    let Ok(response) = app.oneshot(request.map(Body::new)).await;
    match response.extensions().get::<HangUp>() {
        Some(hang_up) => Err(*hang_up),
        None => Ok(response),
    }
}

fn router(upstream: Arc<Upstream>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/__mode", post(set_mode))
        .route("/__stats", get(stats))
        .route("/__reset", post(reset))
        .layer(DefaultBodyLimit::max(32 << 20))
        .with_state(upstream)
}

// ---------------------------------------------------------------------------------- routes

async fn chat(State(upstream): State<Arc<Upstream>>, headers: HeaderMap, body: Bytes) -> Response {
    let (call, behaviour) = Call::begin(&upstream, &headers, &body);
    if behaviour.mode == Mode::StallHead {
        sleep(STALL).await;
        return call.hang_up();
    }
    sleep(Duration::from_millis(behaviour.latency_ms)).await;
    if behaviour.mode == Mode::Refuse {
        return call.hang_up();
    }
    match Chat::parse(&body) {
        Ok(chat) => play(
            Script::write(&chat, &behaviour, call.number),
            &behaviour,
            call,
        ),
        Err(message) => play(
            Script::error(StatusCode::BAD_REQUEST, &message, &behaviour),
            &behaviour,
            call,
        ),
    }
}

async fn models(State(upstream): State<Arc<Upstream>>) -> Json<Value> {
    let entry = |id| json!({"id": id, "object": "model", "created": CREATED, "owned_by": "mock"});
    let data: Vec<Value> = upstream.models.iter().map(entry).collect();
    Json(json!({"object": "list", "data": data}))
}

async fn set_mode(State(upstream): State<Arc<Upstream>>, body: Bytes) -> Response {
    match serde_json::from_slice::<Behaviour>(&body) {
        Ok(behaviour) => {
            upstream.lock().behaviour = behaviour.clone();
            Json(behaviour).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

async fn stats(State(upstream): State<Arc<Upstream>>) -> Json<Ledger> {
    Json(upstream.lock().clone())
}

async fn reset(State(upstream): State<Arc<Upstream>>) -> Json<Ledger> {
    let mut ledger = upstream.lock();
    // Calls under way give their place back when they end.
    *ledger = Ledger {
        in_flight: ledger.in_flight,
        ..Ledger::default()
    };
    Json(ledger.clone())
}

// ---------------------------------------------------------------------------------- behaviour

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Ok,
    Error500,
    Status,
    RateLimited,
    UsedUp,
    Stall,
    StallHead,
    Cut,
    CutClean,
    Garbage,
    ErrorInStream,
    Flood,
    Refuse,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Behaviour {
    mode: Mode,
    latency_ms: u64,
    chunk_ms: u64,
    retry_after: Option<RetryAfter>,
    status: u16,
    failures: Option<u64>,
    model: Option<String>,
    pings: usize,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            mode: Mode::Ok,
            latency_ms: 0,
            chunk_ms: 20,
            retry_after: None,
            status: 503,
            failures: None,
            model: None,
            pings: 0,
        }
    }
}

impl Behaviour {
    /// The behaviour of the next call, which is for this model; uses one of the `failures` up.
    fn next(&mut self, model: &Value) -> Self {
        if self.model.as_ref().is_some_and(|only| model != only) {
            return Self::default();
        }
        match &mut self.failures {
            None => {}
            Some(0) => {
                self.mode = Mode::Ok;
                self.failures = None;
            }
            Some(left) => *left -= 1,
        }
        self.clone()
    }
}

/// Seconds, or any text at all: callers meet both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum RetryAfter {
    Seconds(u64),
    Text(String),
}

impl RetryAfter {
    fn header(&self) -> Option<HeaderValue> {
        self.to_string().try_into().ok()
    }
}

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds) => write!(f, "{seconds}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

// ---------------------------------------------------------------------------------- the ledger

struct Upstream {
    models: Vec<String>,
    ledger: Mutex<Ledger>,
}

/// What `GET /__stats` shows.
#[derive(Debug, Clone, Default, Serialize)]
struct Ledger {
    calls: u64,
    completed: u64,
    cancelled: u64,
    in_flight: u64,
    behaviour: Behaviour,
    last_headers: BTreeMap<String, String>,
    last_body: Value,
}

impl Upstream {
    fn new(models: Vec<String>) -> Self {
        Self {
            models,
            ledger: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call under way: entered in the ledger when it begins and when it is dropped.
struct Call {
    upstream: Arc<Upstream>,
    number: u64,
    completed: bool,
}

impl Call {
    fn begin(upstream: &Arc<Upstream>, headers: &HeaderMap, body: &Bytes) -> (Self, Behaviour) {
        let mut ledger = upstream.lock();
        ledger.calls += 1;
        ledger.in_flight += 1;
        ledger.last_headers = readable(headers);
        ledger.last_body = serde_json::from_slice(body)
            .unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned().into());
        let call = Self {
            upstream: upstream.clone(),
            number: ledger.calls,
            completed: false,
        };
        let model = ledger.last_body["model"].clone();
        (call, ledger.behaviour.next(&model))
    }

    fn complete(mut self) {
        self.completed = true;
    }

    fn hang_up(self) -> Response {
        self.complete();
        let mut response = Response::default();
        response.extensions_mut().insert(HangUp);
        response
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut ledger = self.upstream.lock();
        ledger.in_flight = ledger.in_flight.saturating_sub(1);
        if self.completed {
            ledger.completed += 1;
        } else {
            ledger.cancelled += 1;
        }
    }
}

/// Header lines by name, those of one name joined by a comma.
fn readable(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut map = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        map.entry(name.as_str().to_owned())
            .and_modify(|joined| {
                joined.push_str(", ");
                joined.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    map
}

// ---------------------------------------------------------------------------------- the request

/// What the answer depends on.
#[derive(Debug, PartialEq, Eq)]
struct Chat {
    model: String,
    last_user: String,
    prompt_tokens: u64,
    limit: usize,
    stream: bool,
    include_usage: bool,
    tool: Option<String>,
}

impl Chat {
    fn parse(body: &[u8]) -> Result<Self, String> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| format!("the body is not JSON: {error}"))?;
        let model = body["model"]
            .as_str()
            .ok_or("'model' is a required property")?;
        let messages = body["messages"]
            .as_array()
            .ok_or("'messages' is a required property")?;
        if messages.is_empty() {
            return Err("'messages' is too short".into());
        }
        let last_user = messages.iter().rev().find(|m| m["role"] == "user");
        let words = |m| text(m).split_whitespace().count() as u64;
        let limit = ["max_completion_tokens", "max_tokens"]
            .iter()
            .find_map(|f| body[f].as_u64());
        Ok(Self {
            model: model.to_owned(),
            last_user: last_user.map(text).unwrap_or_default(),
            // Three for the frame of each message, as OpenAI's models count.
            prompt_tokens: messages.iter().map(|m| words(m) + 3).sum(),
            limit: limit
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(usize::MAX),
            stream: body["stream"] == true,
            include_usage: body["stream_options"]["include_usage"] == true,
            tool: (body["tool_choice"] == "required")
                .then(|| {
                    body["tools"][0]["function"]["name"]
                        .as_str()
                        .map(str::to_owned)
                })
                .flatten(),
        })
    }

    /// The words of the answer, each but the first with its space, and why they end.
    fn answer(&self) -> (Vec<String>, &'static str) {
        if self.tool.is_some() {
            return (Vec::new(), "tool_calls");
        }
        let text = format!(
            "Mock answer {:016x} to a message of {} words: all is well upstream.",
            fnv1a(self.last_user.as_bytes()),
            self.last_user.split_whitespace().count(),
        );
        let mut words: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
        // "Mock ", "answer " → "Mock", " answer": the space leads, as in a model's tokens.
        for i in (1..words.len()).rev() {
            let spaced = format!(" {}", words[i].trim_end());
            words[i] = spaced;
        }
        words[0] = words[0].trim_end().to_owned();
        let reason = if words.len() > self.limit {
            "length"
        } else {
            "stop"
        };
        words.truncate(self.limit);
        (words, reason)
    }

    fn tool_calls(&self) -> Option<Value> {
        let function = json!({"name": self.tool.as_ref()?, "arguments": "{}"});
        Some(json!([{"index": 0, "id": "call_mock", "type": "function", "function": function}]))
    }

    fn usage(&self, words: usize) -> Value {
        let completion = words as u64;
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        })
    }
}

/// The text of a message: its content, or the text parts of it.
fn text(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect::<Vec<_>>()
            .join(" "),
        _ => String::new(),
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

// ---------------------------------------------------------------------------------- the answer

/// What will be sent: a head, pieces of a body, and how it ends.
#[derive(Debug)]
struct Script {
    status: StatusCode,
    content_type: &'static str,
    retry_after: Option<HeaderValue>,
    pieces: Vec<Bytes>,
    ending: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Clean,
    Cut,
    Stall,
}

impl Script {
    fn write(chat: &Chat, behaviour: &Behaviour, number: u64) -> Self {
        match behaviour.mode {
            Mode::Error500 => {
                let message = "The server had an error while processing your request";
                return Self::error(StatusCode::INTERNAL_SERVER_ERROR, message, behaviour);
            }
            Mode::Status => {
                let status = StatusCode::from_u16(behaviour.status)
                    .unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
                return Self::error(status, "The mock was told to fail", behaviour);
            }
            Mode::RateLimited => {
                let message = "Rate limit reached for requests";
                return Self::error(StatusCode::TOO_MANY_REQUESTS, message, behaviour);
            }
            Mode::UsedUp => {
                let message = "You exceeded your current quota, please check your plan";
                return Self {
                    pieces: vec![error_body(message, "insufficient_quota").to_string().into()],
                    retry_after: behaviour.retry_after.as_ref().and_then(RetryAfter::header),
                    ..Self::error(StatusCode::TOO_MANY_REQUESTS, message, behaviour)
                };
            }
            _ => {}
        }
        let (content_type, mut pieces) = if chat.stream {
            ("text/event-stream; charset=utf-8", events(chat, number))
        } else {
            ("application/json", halves(&whole(chat, number)))
        };
        let first = if chat.stream { FIRST_WORDS + 1 } else { 1 };
        let mut ending = Ending::Clean;
        match behaviour.mode {
            Mode::Cut | Mode::CutClean | Mode::Stall => {
                pieces.truncate(first);
                ending = match behaviour.mode {
                    Mode::Cut => Ending::Cut,
                    Mode::Stall => Ending::Stall,
                    _ => Ending::Clean,
                };
            }
            Mode::Garbage if chat.stream => {
                pieces.truncate(first);
                pieces.push(Bytes::from_static(
                    b"data: {\"choices\": [\xff\xfe <html>\n\n",
                ));
                pieces.push(done());
            }
            Mode::Garbage => pieces = vec![Bytes::from_static(b"{\"choices\": [\xff\xfe <html>")],
            Mode::ErrorInStream if chat.stream => {
                pieces.truncate(first);
                pieces.push(event(&error_body("The model broke off", "server_error")));
            }
            Mode::ErrorInStream => {
                let body = error_body("The model broke off", "server_error");
                pieces = vec![body.to_string().into()];
            }
            Mode::Flood => {
                let open: &[u8] = if chat.stream { b"data: " } else { b"\"" };
                pieces = vec![Bytes::from_static(open)];
                let piece = Bytes::from(vec![b'a'; FLOOD_PIECE]);
                pieces.extend(std::iter::repeat_n(piece, FLOOD / FLOOD_PIECE));
            }
            _ => {}
        }
        if chat.stream {
            let ping = Bytes::from_static(b": ping\n\n");
            pieces.splice(..0, std::iter::repeat_n(ping, behaviour.pings));
        }
        Self {
            status: StatusCode::OK,
            content_type,
            retry_after: None,
            pieces,
            ending,
        }
    }

    fn error(status: StatusCode, message: &str, behaviour: &Behaviour) -> Self {
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_exceeded",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let default = (status == StatusCode::TOO_MANY_REQUESTS).then_some(RetryAfter::Seconds(1));
        let retry_after = behaviour.retry_after.clone().or(default);
        Self {
            status,
            content_type: "application/json",
            retry_after: retry_after.as_ref().and_then(RetryAfter::header),
            pieces: vec![error_body(message, kind).to_string().into()],
            ending: Ending::Clean,
        }
    }
}

fn error_body(message: &str, kind: &str) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": kind}})
}

fn whole(chat: &Chat, number: u64) -> Value {
    let (words, reason) = chat.answer();
    let mut message = json!({"role": "assistant", "content": words.concat(), "refusal": null});
    if let Some(calls) = chat.tool_calls() {
        message["content"] = Value::Null;
        message["tool_calls"] = calls;
    }
    json!({
        "id": format!("chatcmpl-mock-{number}"),
        "object": "chat.completion",
        "created": CREATED,
        "model": chat.model,
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": reason}],
        "usage": chat.usage(words.len()),
    })
}

/// A JSON document in two pieces, so that it can be cut in its midst.
fn halves(document: &Value) -> Vec<Bytes> {
    let mut head = Bytes::from(document.to_string());
    let tail = head.split_off(head.len() / 2);
    vec![head, tail]
}

fn events(chat: &Chat, number: u64) -> Vec<Bytes> {
    let (words, reason) = chat.answer();
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({
            "id": format!("chatcmpl-mock-{number}"),
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": chat.model,
            "choices": choices,
        });
        if chat.include_usage {
            chunk["usage"] = usage;
        }
        event(&chunk)
    };
    let delta = |delta: Value, reason: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason});
        chunk(json!([choice]), Value::Null)
    };
    let mut events = vec![delta(json!({"role": "assistant", "content": ""}), None)];
    events.extend(
        chat.tool_calls()
            .map(|calls| delta(json!({"tool_calls": calls}), None)),
    );
    events.extend(
        words
            .iter()
            .map(|word| delta(json!({"content": word}), None)),
    );
    events.push(delta(json!({}), Some(reason)));
    if chat.include_usage {
        events.push(chunk(json!([]), chat.usage(words.len())));
    }
    events.push(done());
    events
}

fn event(data: &Value) -> Bytes {
    format!("data: {data}\n\n").into()
}

fn done() -> Bytes {
    Bytes::from_static(b"data: [DONE]\n\n")
}

// ---------------------------------------------------------------------------------- the playing

/// Turns a script into a response whose body is sent piece by piece.
fn play(script: Script, behaviour: &Behaviour, call: Call) -> Response {
    let paced = script.pieces.len() > 2 && behaviour.mode != Mode::Flood;
    let pause = Duration::from_millis(if paced { behaviour.chunk_ms } else { 0 });
    let body = if script.ending == Ending::Clean && script.pieces.len() <= 2 {
        call.complete();
        Body::from(script.pieces.concat())
    } else {
        let (pieces, receiver) = mpsc::channel(1);
        tokio::spawn(send(script.pieces, script.ending, pause, pieces, call));
        Body::new(Pieces(receiver))
    };
    let mut response = Response::new(body);
    *response.status_mut() = script.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(script.content_type));
    headers.extend(script.retry_after.map(|value| (RETRY_AFTER, value)));
    response
}

async fn send(
    pieces: Vec<Bytes>,
    ending: Ending,
    pause: Duration,
    to: mpsc::Sender<Result<Bytes, HangUp>>,
    call: Call,
) {
    let mut first = true;
    for piece in pieces {
        if !first && !pause.is_zero() {
            sleep(pause).await;
        }
        first = false;
        if to.send(Ok(piece)).await.is_err() {
            return;
        }
    }
    let wait = match ending {
        Ending::Clean => return call.complete(),
        // What was written must leave before the connection does.
        Ending::Cut => Duration::from_millis(20),
        Ending::Stall => STALL,
    };
    tokio::select! {
        () = to.closed() => {}
        () = sleep(wait) => {
            call.complete();
            let _ = to.send(Err(HangUp)).await;
        }
    }
}

struct Pieces(mpsc::Receiver<Result<Bytes, HangUp>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = HangUp;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HangUp>>> {
        self.0
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// In a response's extensions: close the connection instead. As an error: it was closed.
#[derive(Debug, Clone, Copy)]
struct HangUp;

impl fmt::Display for HangUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the mock closed the connection")
    }
}

impl std::error::Error for HangUp {}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: &Value) -> Chat {
        Chat::parse(body.to_string().as_bytes()).unwrap()
    }

    fn hello(stream: bool) -> Chat {
        chat(&json!({
            "model": "m",
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello there"}],
            "stream": stream,
            "stream_options": {"include_usage": stream},
        }))
    }

    fn script(mode: Mode, stream: bool) -> Script {
        Script::write(
            &hello(stream),
            &Behaviour {
                mode,
                ..Behaviour::default()
            },
            1,
        )
    }

    fn data(piece: &Bytes) -> Value {
        let text = std::str::from_utf8(piece).unwrap();
        serde_json::from_str(text.strip_prefix("data: ").unwrap().trim_end()).unwrap()
    }

    #[test]
    fn an_answer_is_a_function_of_the_request() {
        let document = whole(&hello(false), 7);
        let content = document["choices"][0]["message"]["content"]
            .as_str()
            .unwrap();
        assert!(
            content.contains(&format!("{:016x}", fnv1a(b"hello there"))),
            "{content}"
        );
        assert!(
            !content.contains("  ") && content.starts_with("Mock answer "),
            "{content}"
        );
        assert_eq!(document["id"], "chatcmpl-mock-7");
        let words = content.split(' ').count();
        assert_eq!(document["usage"]["completion_tokens"], words);
        assert_eq!(document["usage"]["prompt_tokens"], 2 + 3 + 2 + 3);
        assert_eq!(document["usage"]["total_tokens"], words + 10);
    }

    #[test]
    fn a_stream_says_what_the_whole_says() {
        let pieces = events(&hello(true), 1);
        let streamed: String = pieces[..pieces.len() - 1]
            .iter()
            .filter_map(|piece| {
                data(piece)["choices"][0]["delta"]["content"]
                    .as_str()
                    .map(str::to_owned)
            })
            .collect();
        let document = whole(&hello(false), 1);
        assert_eq!(streamed, document["choices"][0]["message"]["content"]);
        assert_eq!(pieces[pieces.len() - 1], done());
        let usage = data(&pieces[pieces.len() - 2]);
        assert_eq!(usage["usage"], document["usage"]);
        assert_eq!(usage["choices"], json!([]));
        assert_eq!(
            data(&pieces[pieces.len() - 3])["choices"][0]["finish_reason"],
            "stop"
        );
    }

    #[test]
    fn a_limit_ends_the_answer() {
        let chat = Chat {
            limit: 2,
            ..hello(false)
        };
        assert_eq!(
            chat.answer(),
            (vec!["Mock".into(), " answer".into()], "length")
        );
    }

    #[test]
    fn a_required_tool_is_called() {
        let tools = json!([{"type": "function", "function": {"name": "weather"}}]);
        let chat = chat(&json!({
            "model": "m",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "and?"}]}],
            "tools": tools, "tool_choice": "required",
        }));
        assert_eq!(chat.last_user, "and?");
        let choice = &whole(&chat, 1)["choices"][0];
        assert_eq!(
            choice["message"]["tool_calls"][0]["function"]["name"],
            "weather"
        );
        assert_eq!(choice["finish_reason"], "tool_calls");
    }

    #[test]
    fn what_is_no_chat_is_named() {
        for (body, word) in [
            ("", "JSON"),
            ("{}", "model"),
            (r#"{"model":"m"}"#, "messages"),
            (r#"{"model":"m","messages":[]}"#, "messages"),
        ] {
            let error = Chat::parse(body.as_bytes()).unwrap_err();
            assert!(error.contains(word), "{body}: {error}");
        }
    }

    #[test]
    fn failures_run_out() {
        let mut behaviour: Behaviour =
            serde_json::from_str(r#"{"mode":"error500","failures":2}"#).unwrap();
        let modes: Vec<Mode> = (0..4).map(|_| behaviour.next(&Value::Null).mode).collect();
        assert_eq!(modes, [Mode::Error500, Mode::Error500, Mode::Ok, Mode::Ok]);
        assert!(serde_json::from_str::<Behaviour>(r#"{"mod":"ok"}"#).is_err());

        let one = r#"{"mode":"error500","model":"m","failures":1}"#;
        let mut behaviour: Behaviour = serde_json::from_str(one).unwrap();
        assert_eq!(behaviour.next(&json!("other")).mode, Mode::Ok);
        assert_eq!(behaviour.next(&json!("m")).mode, Mode::Error500);
    }

    #[test]
    fn refusals_have_openais_shape() {
        let behaviour = Behaviour {
            mode: Mode::RateLimited,
            retry_after: Some(RetryAfter::Text("Wed, 21 Oct 2015 07:28:00 GMT".into())),
            ..Behaviour::default()
        };
        let refused = Script::write(&hello(false), &behaviour, 1);
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(
            refused.retry_after.unwrap(),
            "Wed, 21 Oct 2015 07:28:00 GMT"
        );
        let body: Value = serde_json::from_slice(&refused.pieces[0]).unwrap();
        assert_eq!(body["error"]["code"], "rate_limit_exceeded");
        assert_eq!(script(Mode::RateLimited, true).retry_after.unwrap(), "1");
        assert_eq!(
            script(Mode::Error500, true).status,
            StatusCode::INTERNAL_SERVER_ERROR
        );
        assert_eq!(
            script(Mode::Status, true).status,
            StatusCode::SERVICE_UNAVAILABLE
        );
    }

    #[test]
    fn the_broken_modes_never_say_done() {
        for mode in [
            Mode::Cut,
            Mode::CutClean,
            Mode::Stall,
            Mode::ErrorInStream,
            Mode::Flood,
        ] {
            let script = script(mode, true);
            assert!(!script.pieces.contains(&done()), "{mode:?}");
        }
        assert_eq!(script(Mode::Cut, true).ending, Ending::Cut);
        assert_eq!(script(Mode::CutClean, true).ending, Ending::Clean);
        assert_eq!(script(Mode::Stall, false).ending, Ending::Stall);
        let half = script(Mode::CutClean, false).pieces.concat();
        assert!(serde_json::from_slice::<Value>(&half).is_err());
        assert_eq!(script(Mode::Flood, true).pieces.concat().len(), 6 + FLOOD);
    }

    #[test]
    fn header_lines_of_one_name_are_joined() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        assert_eq!(readable(&headers)["x-a"], "1, 2");
    }
}
