//! A real server process, and a client for it.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test uses its part"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// A process that is killed when the test ends.
pub struct Process {
    pub child: Child,
    pub address: SocketAddr,
    /// The second address that it told, where it has one.
    pub admin: Option<SocketAddr>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a program and waits for the line that tells its address.
fn start(mut command: Command, log: Option<&Path>, has_admin: bool) -> Process {
    match log {
        Some(path) => {
            let file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .unwrap();
            command.stderr(file)
        }
        None => command.stderr(Stdio::inherit()),
    };
    start_as_it_is(command, log, has_admin)
}

fn start_as_it_is(mut command: Command, log: Option<&Path>, has_admin: bool) -> Process {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut address = || loop {
        let Some(line) = lines.next() else {
            let log = log.map(|path| std::fs::read_to_string(path).unwrap_or_default());
            panic!(
                "the process ended before it listened: {}",
                log.unwrap_or_default()
            );
        };
        let line = line.unwrap();
        if let Some((_, address)) = line.split_once("listening on ") {
            let address = address.trim_start_matches("http://");
            let address = address.split_whitespace().next().unwrap();
            break address.parse().unwrap();
        }
    };
    let (address, admin) = (address(), has_admin.then(&mut address));
    // Nobody reads the rest, and a full pipe must not stop the process.
    std::thread::spawn(move || lines.for_each(drop));
    Process {
        child,
        address,
        admin,
    }
}

/// Where the log of a server goes.
#[derive(Clone, Copy)]
enum Log {
    File,
    Unread,
}

/// A server with its own folder.
pub struct Server {
    pub process: Process,
    pub dir: PathBuf,
    pub master: String,
    config: Option<PathBuf>,
    env: Vec<(String, String)>,
    _owned: Option<tempfile::TempDir>,
}

impl Server {
    /// With the default configuration, quick at the end.
    pub fn start() -> Self {
        Self::with("", &[])
    }

    /// With this configuration and these variables.
    pub fn with(config: &str, env: &[(&str, &str)]) -> Self {
        Self::with_log(config, env, Log::File)
    }

    /// With a log that nobody reads: the pipe is `process.child.stderr`.
    pub fn with_unread_log(config: &str, env: &[(&str, &str)]) -> Self {
        Self::with_log(config, env, Log::Unread)
    }

    fn with_log(config: &str, env: &[(&str, &str)], log: Log) -> Self {
        let owned = tempfile::tempdir().unwrap();
        let dir = owned.path().to_owned();
        let path = (!config.is_empty()).then(|| {
            let path = dir.join("spark.toml");
            std::fs::write(&path, config).unwrap();
            path
        });
        let env: Vec<_> = env
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        let process = match log {
            Log::File => Self::spawn(&dir, path.as_deref(), &env),
            Log::Unread => {
                let mut command = Self::command(&dir, path.as_deref(), &env);
                command.stderr(Stdio::piped());
                start_as_it_is(command, None, false)
            }
        };
        let master = std::fs::read_to_string(dir.join("data/master.key")).unwrap_or_default();
        Self {
            process,
            dir,
            master: master.trim().to_owned(),
            config: path,
            env,
            _owned: Some(owned),
        }
    }

    fn spawn(dir: &Path, config: Option<&Path>, env: &[(String, String)]) -> Process {
        let has_admin = env.iter().any(|(name, _)| name == "SPARK_ADMIN_LISTEN");
        let command = Self::command(dir, config, env);
        start(command, Some(&dir.join("log")), has_admin)
    }

    fn command(dir: &Path, config: Option<&Path>, env: &[(String, String)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spark-server"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SPARK_") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(dir)
            .env("SPARK_LISTEN", "127.0.0.1:0")
            .env("SPARK_DATA_DIR", "data")
            .env("SPARK_DRAIN_DELAY", "0ms")
            .envs(env.iter().map(|(n, v)| (n, v)));
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        command
    }

    /// Kills it as `kill -9` does, and starts it again in the same folder.
    pub fn kill_and_restart(&mut self) {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
        self.process = Self::spawn(&self.dir, self.config.as_deref(), &self.env);
    }

    /// Starts it again in the same folder with these variables alone, once it has ended.
    pub fn restart_with(&mut self, env: &[(&str, &str)]) {
        let owned = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        self.env = owned.collect();
        self.process = Self::spawn(&self.dir, self.config.as_deref(), &self.env);
    }

    pub fn address(&self) -> SocketAddr {
        self.process.address
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Tells it to stop.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.process.child.id().to_string();
        let done = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {pid}")])
            .status();
        assert!(done.unwrap().success());
    }

    pub fn is_running(&mut self) -> bool {
        self.process.child.try_wait().unwrap().is_none()
    }

    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// Issues a key for this tenant.
    pub async fn key(&self, tenant: &str) -> String {
        let body = serde_json::json!({ "tenant": tenant });
        let answer = self
            .client()
            .bearer(&self.master)
            .post("/api/spark/keys", &body)
            .await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["key"].as_str().unwrap().to_owned()
    }

    /// Resident memory, in KiB.
    pub fn rss(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// The mock of a provider, as a process of its own.
pub struct Upstream {
    process: Process,
}

impl Upstream {
    pub fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spark-mock-upstream"));
        command.args(["--listen", "127.0.0.1:0"]);
        Self {
            process: start(command, None, false),
        }
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.process.address)
    }

    pub async fn mode(&self, mode: Value) {
        let answer = Client::new(self.process.address)
            .post("/__mode", &mode)
            .await;
        assert!(answer.status.is_success(), "{}", answer.text());
    }

    pub async fn stats(&self) -> Value {
        Client::new(self.process.address)
            .get("/__stats")
            .await
            .json()
    }

    pub async fn calls(&self) -> u64 {
        self.stats().await["calls"].as_u64().unwrap()
    }
}

/// The configuration of providers that are mocks, in order of preference.
pub fn providers(upstreams: &[(&str, &Upstream)], breaker: &str) -> String {
    let entry = |(name, upstream): &(&str, &Upstream)| {
        format!(
            "[[providers]]\nname = \"{name}\"\nkind = \"openai\"\nbase_url = \"{}\"\n\
             api_key_env = \"MOCK_KEY\"\nmodels = [\"some-model\"]\n\
             timeouts = {{ connect = \"1s\", first_byte = \"1s\", idle = \"1s\", total = \"10s\" }}\n\
             breaker = {{ {breaker} }}\n",
            upstream.base_url()
        )
    };
    upstreams.iter().map(entry).collect()
}

#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    inner: HyperClient<HttpConnector, Full<Bytes>>,
    headers: Vec<(String, String)>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            address,
            inner: HyperClient::builder(TokioExecutor::new()).build(connector),
            headers: Vec::new(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn bearer(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.clone()
            .header("content-type", "application/json")
            .send(Method::POST, path, body.to_string())
            .await
    }

    pub async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let response = self.open(method, path, body).await;
        let (parts, body) = response.into_parts();
        let collected = body.collect().await;
        let broken = collected.is_err();
        let body = collected.map(|b| b.to_bytes()).unwrap_or_default();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
            broken,
        }
    }

    /// The response with its body still to come.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> http::Response<hyper::body::Incoming> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(30), self.inner.request(request));
        answer
            .await
            .expect("an answer within 30 s")
            .expect("an answer")
    }

    /// The events of a stream, with the time at which each came, and whether the stream broke off.
    pub async fn stream(&self, path: &str, body: &Value) -> Streamed {
        let client = self.clone().header("content-type", "application/json");
        let start = Instant::now();
        let response = client.open(Method::POST, path, body.to_string()).await;
        let (parts, mut body) = response.into_parts();
        let mut streamed = Streamed {
            status: parts.status,
            headers: parts.headers,
            frames: Vec::new(),
            broken: false,
        };
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        streamed.frames.push((start.elapsed(), data));
                    }
                }
                Err(_) => {
                    streamed.broken = true;
                    break;
                }
            }
        }
        streamed
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub broken: bool,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

#[derive(Debug)]
pub struct Streamed {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub frames: Vec<(Duration, Bytes)>,
    pub broken: bool,
}

impl Streamed {
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self
            .frames
            .iter()
            .flat_map(|(_, data)| data.to_vec())
            .collect();
        String::from_utf8(bytes).unwrap()
    }

    /// The data of the events, parsed; `[DONE]` left out.
    pub fn events(&self) -> Vec<Value> {
        let text = self.text();
        let data = text
            .split("\n\n")
            .filter_map(|event| event.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }
}

/// A request over a plain socket, written as it is; the answer until the server closes.
pub fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // The server may close before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn prompt(text: &str) -> Value {
    serde_json::json!({ "prompt": text, "temperature": 0 })
}
