//! A server over real sockets, and the clients that it is made for.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use spark_core::PeerAddr;
use spark_serve::{Body, BodyTimeout, Config, Drained, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Longer than anything here should take; a test that reaches it has failed.
const LONG: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Drained>,
}

impl Running {
    async fn start(config: Config, app: Router) -> Self {
        Self::with(
            Server::bind("127.0.0.1:0")
                .await
                .unwrap()
                .config(config)
                .unwrap(),
            app,
        )
    }

    fn with(server: Server, app: Router) -> Self {
        let address = server.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        Self {
            address,
            stop,
            ended: tokio::spawn(server.serve(app, shutdown)),
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(self) -> Drained {
        self.stop.send(()).unwrap();
        timeout(LONG, self.ended).await.unwrap().unwrap()
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn app() -> Router {
    Router::new()
        .route("/", get(|| async { "pong" }))
        .route("/echo", post(|body: Bytes| async move { body }))
        .route(
            "/peer",
            get(|request: Request<axum::body::Body>| async move {
                request
                    .extensions()
                    .get::<PeerAddr>()
                    .unwrap()
                    .0
                    .to_string()
            }),
        )
        .route(
            "/slow",
            get(|| async {
                sleep(ms(500)).await;
                "at last"
            }),
        )
        .route("/hang", get(std::future::pending::<&'static str>))
        .route(
            "/panic",
            get(|| async { panic!("on purpose") as &'static str }),
        )
        .route("/endless", get(|| async { vec![b'x'; 64 * 1024 * 1024] }))
}

/// What comes until the server closes; a reset ends it too.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    let all = async {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            read.extend_from_slice(&buffer[..count]);
        }
    };
    timeout(LONG, all).await.unwrap();
    String::from_utf8_lossy(&read).into_owned()
}

async fn ask(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("{head}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    until_closed(&mut stream).await
}

/// Sends a request and reads the head and body of its response, leaving the connection open.
async fn ask_on(stream: &mut TcpStream, path: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 4096];
    let count = timeout(LONG, stream.read(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

const CLOSE: &str = "HTTP/1.1\r\nhost: a\r\nconnection: close";

#[tokio::test]
async fn an_axum_router_is_served_and_knows_its_peer() {
    let running = Running::start(Config::default(), app()).await;
    let answer = ask(running.address, &format!("GET / {CLOSE}")).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("pong"),
        "{answer}"
    );

    let mut stream = running.connect().await;
    let mine = stream.local_addr().unwrap().to_string();
    assert!(ask_on(&mut stream, "/peer").await.ends_with(&mine));
    assert!(
        ask_on(&mut stream, "/").await.ends_with("pong"),
        "kept alive"
    );
    drop(stream);
    assert_eq!(running.stop().await.aborted, 0);
}

#[tokio::test]
async fn any_tower_service_is_served() {
    let service = tower::service_fn(|request: Request<Body>| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Ok::<_, Infallible>(Response::new(Full::new(body)))
    });
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(server.serve(service, async move { drop(stopped.await) }));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let chunked = format!(
        "POST / {CLOSE}\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    );
    stream.write_all(chunked.as_bytes()).await.unwrap();
    assert!(until_closed(&mut stream).await.ends_with("abc"));
    drop(stop);
    ended.await.unwrap();
}

#[tokio::test]
async fn a_service_that_fails_has_an_answer_made_for_it() {
    let service = tower::service_fn(|_: Request<Body>| async {
        Err::<Response<String>, _>(std::io::Error::other("secret of the house"))
    });
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let ended = tokio::spawn(server.serve(service, std::future::pending()));
    let answer = ask(address, &format!("GET / {CLOSE}")).await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    assert!(!answer.contains("secret"), "{answer}");
    ended.abort();
}

#[tokio::test]
async fn slow_headers_are_cut() {
    let config = Config::default().header_read_timeout(ms(300));
    let running = Running::start(config, app()).await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = running.connect().await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n")
            .await
            .unwrap();
        slow.push(stream);
    }
    let mut silent = running.connect().await;
    for _ in 0..4 {
        sleep(ms(50)).await;
        for stream in &mut slow {
            stream.write_all(b"x-a: b\r\n").await.unwrap();
        }
    }
    for mut stream in slow {
        assert_eq!(until_closed(&mut stream).await, "");
    }
    assert_eq!(until_closed(&mut silent).await, "");
    assert_eq!(running.stop().await, Drained::default());
}

#[tokio::test]
async fn a_pause_in_the_body_is_a_408() {
    let config = Config::default().body_idle_timeout(ms(200));
    let running = Running::start(config, app()).await;
    let begun = format!("POST /echo {CLOSE}\r\ncontent-length: 10");
    let answer = ask(running.address, &begun).await;
    assert!(
        answer.starts_with("HTTP/1.1 408 Request Timeout"),
        "{answer}"
    );
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.contains("request_body_timeout"), "{answer}");
    running.stop().await;
}

#[tokio::test]
async fn a_body_that_drips_is_a_408_at_its_deadline() {
    let config = Config::default()
        .body_idle_timeout(ms(2_000))
        .body_deadline(ms(400));
    let running = Running::start(config, app()).await;
    let mut stream = running.connect().await;
    let head = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let drip = tokio::spawn(async move {
        while writing.write_all(b"x").await.is_ok() {
            sleep(ms(50)).await;
        }
    });
    let mut answer = vec![0; 4096];
    let count = timeout(LONG, reading.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let answer = String::from_utf8_lossy(&answer[..count]);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    drip.abort();
    running.stop().await;
}

#[tokio::test]
async fn the_408_bears_the_headers_of_the_layers() {
    let seen = get(|body: axum::body::Body| async move {
        let error = axum::body::to_bytes(body, 100).await.unwrap_err();
        assert_eq!(BodyTimeout::of(&error), Some(BodyTimeout::Idle));
        (
            StatusCode::BAD_REQUEST,
            [("x-frame-options", "DENY"), ("x-request-id", "7")],
            "no",
        )
    });
    let config = Config::default().body_idle_timeout(ms(100));
    let running = Running::start(config, Router::new().route("/", seen)).await;
    let answer = ask(
        running.address,
        &format!("GET / {CLOSE}\r\ncontent-length: 2"),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("x-frame-options: DENY") && answer.contains("x-request-id: 7"));
    assert_eq!(answer.matches("content-length:").count(), 1, "{answer}");
    running.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_left() {
    let config = Config::default()
        .write_idle_timeout(ms(300))
        .max_connections(1);
    let running = Running::start(config, app()).await;
    let mut greedy = running.connect().await;
    greedy
        .write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    // Its place is free again once the server has given up on it.
    let free = async {
        while !ask(running.address, &format!("GET / {CLOSE}"))
            .await
            .ends_with("pong")
        {
            sleep(ms(50)).await;
        }
    };
    timeout(LONG, free).await.unwrap();
    drop(greedy);
    running.stop().await;
}

#[tokio::test]
async fn too_many_or_too_large_headers_are_a_431() {
    let config = Config::default().max_header_bytes(8192);
    let running = Running::start(config, app()).await;
    let many = |count: usize| {
        let lines: String = (0..count).map(|n| format!("\r\nx-{n}: a")).collect();
        format!("GET / {CLOSE}{lines}")
    };
    assert!(
        ask(running.address, &many(62))
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        ask(running.address, &many(63))
            .await
            .starts_with("HTTP/1.1 431")
    );
    assert!(
        ask(running.address, &many(101))
            .await
            .starts_with("HTTP/1.1 431")
    );
    let large = format!("GET / {CLOSE}\r\nx-large: {}", "a".repeat(9_000));
    assert!(
        ask(running.address, &large)
            .await
            .starts_with("HTTP/1.1 431")
    );
    assert!(
        ask(running.address, "what is this")
            .await
            .starts_with("HTTP/1.1 400")
    );
    running.stop().await;
}

#[tokio::test]
async fn the_largest_settings_that_are_accepted_work() {
    let config = Config::default()
        .header_read_timeout(Duration::from_secs(86_400))
        .body_idle_timeout(Duration::MAX)
        .body_deadline(Duration::MAX)
        .write_idle_timeout(Duration::MAX)
        .max_connections(usize::MAX)
        .max_connections_per_ip(usize::MAX)
        .max_header_bytes(1024 * 1024)
        .max_headers(10_000)
        .drain_deadline(Duration::MAX);
    let running = Running::start(config, app()).await;
    let lines: String = (0..9_998).map(|n| format!("\r\nx-{n}: a")).collect();
    let answer = ask(running.address, &format!("GET / {CLOSE}{lines}")).await;
    assert!(answer.ends_with("pong"), "{answer}");
    let mut stream = running.connect().await;
    let head = format!("POST /echo {CLOSE}\r\ncontent-length: 2\r\n\r\na");
    stream.write_all(head.as_bytes()).await.unwrap();
    sleep(ms(20)).await;
    stream.write_all(b"b").await.unwrap();
    assert!(until_closed(&mut stream).await.ends_with("ab"));
    assert_eq!(running.stop().await.aborted, 0);
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed_at_once() {
    let running = Running::start(Config::default().max_connections(2), app()).await;
    let (mut one, mut two) = (running.connect().await, running.connect().await);
    assert!(ask_on(&mut one, "/").await.ends_with("pong"));
    assert!(ask_on(&mut two, "/").await.ends_with("pong"));
    let mut three = running.connect().await;
    assert_eq!(until_closed(&mut three).await, "");
    assert!(
        ask_on(&mut one, "/").await.ends_with("pong"),
        "the others go on"
    );
    drop(two);
    let free = async {
        while !ask(running.address, &format!("GET / {CLOSE}"))
            .await
            .ends_with("pong")
        {
            sleep(ms(10)).await;
        }
    };
    timeout(LONG, free).await.unwrap();
    drop(one);
    running.stop().await;
}

#[tokio::test]
async fn one_address_cannot_take_all_places() {
    let running = Running::start(Config::default().max_connections_per_ip(1), app()).await;
    let mut one = running.connect().await;
    assert!(ask_on(&mut one, "/").await.ends_with("pong"));
    assert_eq!(until_closed(&mut running.connect().await).await, "");
    drop(one);
    running.stop().await;
}

#[tokio::test]
async fn a_panic_ends_one_connection_only() {
    let running = Running::start(Config::default(), app()).await;
    for _ in 0..3 {
        assert_eq!(
            ask(running.address, &format!("GET /panic {CLOSE}")).await,
            ""
        );
    }
    assert!(
        ask(running.address, &format!("GET / {CLOSE}"))
            .await
            .ends_with("pong")
    );
    running.stop().await;
}

#[tokio::test]
async fn draining_finishes_what_is_under_way_and_closes_what_is_idle() {
    let running = Running::start(Config::default(), app()).await;
    let address = running.address;
    let mut idle = running.connect().await;
    assert!(ask_on(&mut idle, "/").await.ends_with("pong"));
    let mut untouched = running.connect().await;
    let mut busy = running.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    sleep(ms(100)).await;

    let drained = tokio::spawn(running.stop());
    assert_eq!(until_closed(&mut idle).await, "");
    assert_eq!(until_closed(&mut untouched).await, "");
    let answer = until_closed(&mut busy).await;
    assert!(
        answer.contains("connection: close") && answer.ends_with("at last"),
        "{answer}"
    );
    assert_eq!(
        drained.await.unwrap(),
        Drained {
            finished: 3,
            aborted: 0
        }
    );
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn the_deadline_cuts_what_hangs() {
    let running = Running::start(Config::default().drain_deadline(ms(200)), app()).await;
    let mut hung = running.connect().await;
    hung.write_all(b"GET /hang HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut slow = running.connect().await;
    assert!(ask_on(&mut slow, "/").await.ends_with("pong"));
    sleep(ms(100)).await;
    assert_eq!(
        running.stop().await,
        Drained {
            finished: 1,
            aborted: 1
        }
    );
    assert_eq!(until_closed(&mut hung).await, "");
}

#[tokio::test]
async fn during_the_delay_it_still_accepts_and_asks_to_come_elsewhere() {
    let (told, mut hears) = oneshot::channel();
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let server = server
        .config(Config::default().drain_delay(ms(600)))
        .unwrap();
    let server = server.on_drain(move || told.send(()).unwrap());
    let running = Running::with(server, app());
    let address = running.address;
    let mut early = running.connect().await;
    assert!(!ask_on(&mut early, "/").await.contains("connection: close"));
    assert!(hears.try_recv().is_err());

    let drained = tokio::spawn(running.stop());
    timeout(LONG, hears).await.unwrap().unwrap();
    for stream in [&mut early, &mut TcpStream::connect(address).await.unwrap()] {
        let answer = ask_on(stream, "/").await;
        assert!(
            answer.contains("connection: close") && answer.ends_with("pong"),
            "{answer}"
        );
    }
    assert_eq!(drained.await.unwrap(), Drained::default());
}

#[tokio::test]
async fn an_upgraded_connection_keeps_its_place() {
    let service = tower::service_fn(|mut request: Request<Body>| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
            let mut word = [0; 4];
            while io.read_exact(&mut word).await.is_ok() {
                io.write_all(&word).await.unwrap();
            }
        });
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "echo");
        Ok::<_, Infallible>(response.body(String::new()).unwrap())
    });
    let config = Config::default()
        .max_connections(1)
        .header_read_timeout(ms(100));
    let server = Server::bind("127.0.0.1:0")
        .await
        .unwrap()
        .config(config)
        .unwrap();
    let address = server.local_addr().unwrap();
    let served = tokio::spawn(server.serve(service, std::future::pending()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1024];
    let count = stream.read(&mut answer).await.unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 101"));
    sleep(ms(300)).await;
    stream.write_all(b"ping").await.unwrap();
    let mut word = [0; 4];
    timeout(LONG, stream.read_exact(&mut word))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&word, b"ping");
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(until_closed(&mut second).await, "");
    served.abort();
}
