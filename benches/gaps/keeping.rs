//! What is kept, for whom, and how much of it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use spark_cache::{Cache, CacheBody, CacheLayer, LlmPolicy, When};
use spark_core::{Clock, Context, Principal, RequestBody, User};
use tokio::task::JoinSet;
use tower::util::BoxCloneService;
use tower::{Layer, ServiceExt, service_fn};

use crate::block_on;
use crate::found::Found;
use crate::loaders::{MOKA, QUICK, SPARK};

const PATH: &str = "/v1/chat/completions";
const LAST: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

type ReqBody = RequestBody<Full<Bytes>>;
type Upstream = BoxCloneService<Request<ReqBody>, Response<Frames>, Infallible>;
type Asked = Pin<Box<dyn Future<Output = Response<CacheBody<Frames>>> + Send>>;

/// Asks through the layer. Made outside of async blocks: rustc cannot yet prove within them that a boxed
/// service is `'static`.
fn asker(cache: &Cache, upstream: Upstream) -> impl Fn(&str, String) -> Asked {
    let policy = LlmPolicy::builder()
        .path(PATH)
        .when(When::Always)
        .build()
        .unwrap();
    let service = CacheLayer::new(cache.clone(), policy).layer(upstream);
    let clock = Clock::system();
    move |tenant, body| {
        let user = User::new("key".parse().unwrap(), tenant.parse().unwrap());
        let context = Context::new(clock.now()).with_principal(Principal::from(user));
        let request = Request::post(PATH)
            .header("content-type", "application/json")
            .extension(context)
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let asked = service.clone().oneshot(request);
        Box::pin(async move { asked.await.unwrap_or_else(|never| match never {}) })
    }
}

/// A stream of events, in these frames; lets others run before each.
struct Frames {
    frames: VecDeque<Bytes>,
    paused: bool,
    /// Looked at before each frame.
    look: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Frames {
    fn answer(frames: impl IntoIterator<Item = Bytes>) -> Response<Self> {
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(Self {
                frames: frames.into_iter().collect(),
                paused: false,
                look: None,
            })
            .unwrap()
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.paused = !self.paused;
        if self.paused {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(look) = &self.look {
            look();
        }
        Poll::Ready(self.frames.pop_front().map(|frame| Ok(Frame::data(frame))))
    }
}

const KIB: u64 = 1_024;
const CAP: u64 = 1_024 * KIB;
const IN_FLIGHT: u64 = 512 * KIB;
const ANSWERS: usize = 64;
const ANSWER: u64 = 128 * KIB;

/// How many bytes of bodies are alive, and were at most.
#[derive(Debug, Default)]
struct Alive {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Bytes that are counted while they live.
struct Counted(Vec<u8>, Arc<Alive>);

impl Counted {
    fn bytes(bytes: Vec<u8>, alive: &Arc<Alive>) -> Bytes {
        let now = alive.now.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        alive.most.fetch_max(now, Ordering::Relaxed);
        Bytes::from_owner(Self(bytes, Arc::clone(alive)))
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.now.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

/// 128 answers of 128 KiB, where 1 MiB may be kept and another half be on its way; the peers are handed
/// theirs one after the other.
pub(crate) fn what_is_resident_stays_within_the_caps(found: &mut Found) {
    let cache = Cache::builder()
        .max_bytes(CAP)
        .max_entry_bytes(ANSWER + 16 * KIB)
        .max_inflight_bytes(IN_FLIGHT)
        .build()
        .unwrap();
    let most = Arc::new(AtomicUsize::new(0));
    let look: Arc<dyn Fn() + Send + Sync> = {
        let (cache, most) = (cache.clone(), Arc::clone(&most));
        Arc::new(move || {
            let stats = cache.stats();
            let held = usize::try_from(stats.bytes + stats.inflight_bytes).unwrap();
            most.fetch_max(held, Ordering::Relaxed);
        })
    };
    let each = Arc::clone(&look);
    let upstream = service_fn(move |_: Request<ReqBody>| {
        let text = "a".repeat(16 * 1_024 - 50);
        let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        let frames = std::iter::repeat_n(Bytes::from(event), 8);
        let mut answer = Frames::answer(frames.chain([LAST, DONE].map(Bytes::from)));
        answer.body_mut().look = Some(Arc::clone(&each));
        std::future::ready(Ok(answer))
    });
    let ask = asker(&cache, BoxCloneService::new(upstream));
    // All at once, for which there is no room on the way; then in pairs, for which there is.
    let asks: Vec<usize> = (0..2 * ANSWERS).collect();
    let (crowd, rest) = asks.split_at(ANSWERS);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for group in std::iter::once(crowd).chain(rest.chunks(2)) {
        let asked: Vec<_> = group
            .iter()
            .map(|n| ask("acme", format!("{{\"prompt\":{n}}}")))
            .collect();
        runtime.block_on(async {
            let mut all = JoinSet::new();
            for asked in asked {
                all.spawn(async move { asked.await.into_body().collect().await.is_ok() });
            }
            while let Some(read) = all.join_next().await {
                assert!(read.unwrap(), "each is delivered whole");
            }
        });
    }
    look();
    let most = most.load(Ordering::Relaxed) as u64;
    let words = |most: u64, cap: u64| format!("{} KiB at most, of {} KiB", most / KIB, cap / KIB);
    found.note(SPARK, words(most, CAP + IN_FLIGHT));
    assert!(most <= CAP + IN_FLIGHT, "{most}");
    assert!(
        most > CAP / 2 && cache.stats().entries > 0,
        "and it is used"
    );

    let alive = Arc::new(Alive::default());
    let weigh = |_: &usize, body: &Bytes| u32::try_from(body.len()).unwrap();
    let moka = moka::sync::Cache::builder()
        .max_capacity(CAP)
        .weigher(weigh)
        .build();
    for n in 0..ANSWERS {
        moka.insert(n, Counted::bytes(vec![0; 128 * 1_024], &alive));
    }
    found.note(MOKA, words(alive.most.load(Ordering::Relaxed) as u64, CAP));

    let alive = Arc::new(Alive::default());
    #[derive(Clone)]
    struct Weigh;
    impl quick_cache::Weighter<usize, Bytes> for Weigh {
        fn weight(&self, _: &usize, body: &Bytes) -> u64 {
            body.len() as u64
        }
    }
    let quick = quick_cache::sync::Cache::with_weighter(ANSWERS, CAP, Weigh);
    for n in 0..ANSWERS {
        quick.insert(n, Counted::bytes(vec![0; 128 * 1_024], &alive));
    }
    found.note(QUICK, words(alive.most.load(Ordering::Relaxed) as u64, CAP));
}

pub(crate) fn a_stream_that_is_cut_at_any_byte_is_never_kept(found: &mut Found) {
    let first = "data: {\"choices\":[{\"delta\":{\"content\":\"h\"}}]}\n\n";
    let whole = Bytes::from([first, LAST, DONE].concat());
    let mut kept = Vec::new();
    for at in 0..=whole.len() {
        let cache = Cache::builder().build().unwrap();
        let part = whole.slice(..at);
        let upstream = service_fn(move |_: Request<ReqBody>| {
            let frames: Vec<_> = part.chunks(40).map(Bytes::copy_from_slice).collect();
            std::future::ready(Ok(Frames::answer(frames)))
        });
        let asked = asker(&cache, BoxCloneService::new(upstream))("acme", "{\"prompt\":1}".into());
        let read = block_on(async { asked.await.into_body().collect().await });
        assert_eq!(read.unwrap().to_bytes().len(), at, "it is delivered");
        if cache.stats().entries > 0 {
            kept.push(at);
        }
    }
    let cuts = whole.len();
    found.note(SPARK, format!("{} of {cuts} cuts are kept", kept.len() - 1));
    assert_eq!(kept, [cuts], "the whole one alone");
}

/// Twenty thousand questions of twenty tenants, few enough that most were asked before, in any spelling.
/// The answer names who asked and what.
pub(crate) fn two_tenants_never_share_an_answer(found: &mut Found) {
    let cache = Cache::builder().build().unwrap();
    let upstream = service_fn(|request: Request<ReqBody>| {
        let context = Context::of(request.extensions()).unwrap();
        let tenant = context.principal().unwrap().tenant().unwrap().to_string();
        let body: serde_json::Value =
            serde_json::from_slice(request.body().as_whole().unwrap()).unwrap();
        let said = format!("{tenant} asked {}", body["prompt"]);
        let event = serde_json::json!({"choices":[{"delta":{"content": said}}]});
        let frames = [
            format!("data: {event}\n\n").into(),
            LAST.into(),
            DONE.into(),
        ];
        std::future::ready(Ok(Frames::answer(frames)))
    });
    let ask = asker(&cache, BoxCloneService::new(upstream));
    let mut state = 7_u64;
    let mut dice = |sides: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % sides
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for _ in 0..10_000 {
        let prompt = dice(40);
        let pair = [dice(20), dice(20)];
        for tenant in pair.map(|tenant| format!("tenant-{tenant}")) {
            let body = match dice(3) {
                0 => format!("{{\"prompt\":{prompt},\"seed\":1}}"),
                1 => format!("{{ \"seed\": 1.0, \"prompt\": {prompt} }}"),
                _ => format!("{{\"seed\":1, \"prompt\":{prompt}}}"),
            };
            let asked = ask(&tenant, body);
            let read = runtime.block_on(async { asked.await.into_body().collect().await });
            let read = read.unwrap().to_bytes();
            let said = format!("\"{tenant} asked {prompt}\"");
            assert!(
                String::from_utf8_lossy(&read).contains(&said),
                "{tenant} was told {read:?}"
            );
        }
    }
    let stats = cache.stats();
    found.note(
        SPARK,
        format!("never, in 10000 pairs with {} hits", stats.hits),
    );
    assert!(stats.hits > 15_000 && stats.misses <= 800, "{stats:?}");
}
