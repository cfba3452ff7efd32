use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;

const ROOM: u64 = 1_000;

fn log(max_bytes: u64) -> (Arc<FrameLog>, Arc<Bounds>) {
    let bounds = Arc::new(Bounds::new(8, 8, ROOM));
    (
        Arc::new(FrameLog::new(max_bytes, Arc::clone(&bounds))),
        bounds,
    )
}

fn complete() -> End {
    End::Complete {
        trailers: None,
        entry: None,
    }
}

fn next(reader: &mut Reader) -> Option<Next> {
    match reader.poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(next) => Some(next),
        Poll::Pending => None,
    }
}

#[track_caller]
fn expect_data(reader: &mut Reader, data: &str) {
    assert!(
        matches!(next(reader), Some(Next::Data(frame)) if frame == data),
        "{data}"
    );
}

#[test]
fn every_reader_reads_everything_at_its_own_pace() {
    let (log, bounds) = log(500);
    let (mut first, mut second) = (Reader::first(&log), Reader::first(&log));
    assert!(next(&mut first).is_none());
    log.capture(&"a".into(), None).unwrap();
    expect_data(&mut first, "a");
    log.capture(&"b".into(), None).unwrap();
    let mut late = Reader::first(&log);
    log.finish(complete());
    for reader in [&mut second, &mut late] {
        expect_data(reader, "a");
        assert!(!reader.is_done());
        expect_data(reader, "b");
        assert!(reader.is_done());
        assert!(matches!(next(reader), Some(Next::End(None))));
    }
    expect_data(&mut first, "b");
    assert_eq!(bounds.bytes(), 2 * (1 + FRAME_OVERHEAD));
    drop((first, second, late, log));
    assert_eq!(bounds.bytes(), 0);
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn one_wake_for_one_frame() {
    let (log, _) = log(500);
    let mut reader = Reader::first(&log);
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut cx = Context::from_waker(&waker);
    for _ in 0..5 {
        assert!(reader.poll_next(&mut cx).is_pending());
    }
    log.capture(&"a".into(), None).unwrap();
    log.capture(&"b".into(), None).unwrap();
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
}

#[test]
fn a_window_delivers_any_length_in_bounded_memory() {
    let (log, bounds) = log(200);
    let mut reader = Reader::first(&log);
    let mut cx = Context::from_waker(Waker::noop());
    let frame = Bytes::from(vec![1; 60]);
    log.capture(&frame, None).unwrap();
    log.capture(&frame, None).unwrap();
    assert_eq!(log.capture(&frame, None), Err(Overflow::Entry));
    assert!(log.read().is_none(), "nobody joins a window");
    assert!(
        log.poll_room(&mut cx).is_pending(),
        "its reader has two frames to go"
    );
    let mut read = 0;
    for _ in 0..1_000 {
        while let Some(Next::Data(data)) = next(&mut reader) {
            read += data.len();
        }
        assert_eq!(log.poll_room(&mut cx), Poll::Ready(true));
        log.slide(frame.clone());
        assert!(log.retained() <= 200 && bounds.bytes() <= 200);
    }
    log.finish(complete());
    while let Some(Next::Data(data)) = next(&mut reader) {
        read += data.len();
    }
    assert_eq!(read, 1_002 * 60);
    drop(reader);
    assert_eq!(log.poll_room(&mut cx), Poll::Ready(false), "nobody reads");
}

#[test]
fn who_falls_a_window_behind_the_fastest_is_cut_off() {
    let (log, _) = log(200);
    let (mut fast, mut slow) = (Reader::first(&log), Reader::first(&log));
    let frame = Bytes::from(vec![1; 60]);
    while log.capture(&frame, None).is_ok() {}
    for _ in 0..3 {
        while let Some(Next::Data(_)) = next(&mut fast) {}
        log.slide(frame.clone());
    }
    assert!(matches!(
        next(&mut slow),
        Some(Next::Broken(BodyError::Lagged))
    ));
    assert!(matches!(next(&mut fast), Some(Next::Data(_))));
}

#[test]
fn all_logs_share_one_bound() {
    let (log, bounds) = log(ROOM);
    let other = Arc::new(FrameLog::new(ROOM, Arc::clone(&bounds)));
    let frame = Bytes::from(vec![1; 560]);
    let _reader = Reader::first(&log);
    log.capture(&frame, None).unwrap();
    assert_eq!(other.capture(&frame, None), Err(Overflow::Inflight));
    other.slide(frame);
    assert_eq!(bounds.bytes(), 600, "one frame is let through uncharged");
    drop(log);
    assert_eq!(bounds.bytes(), 600, "its reader still holds it");
    drop(_reader);
    assert_eq!(bounds.bytes(), 0);
}

#[test]
fn a_failure_reaches_who_waits_and_spoils_nothing_that_was_whole() {
    let (first, _) = log(500);
    let mut reader = Reader::first(&first);
    first.fail(FetchError::Panicked, BodyError::Panicked);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(
        reader.poll_stage(&mut cx),
        Poll::Ready(Stage::Failed(FetchError::Panicked))
    ));
    assert!(matches!(
        next(&mut reader),
        Some(Next::Broken(BodyError::Panicked))
    ));

    let (second, _) = log(500);
    let mut reader = Reader::first(&second);
    second.finish(complete());
    second.fail(FetchError::Aborted, BodyError::Aborted);
    assert!(matches!(next(&mut reader), Some(Next::End(None))));
    drop(reader);
    assert!(second.poll_abandoned(&mut cx).is_ready());
}
