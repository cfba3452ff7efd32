use proptest::prelude::*;

use super::*;

type Seen = (Vec<u8>, Option<Vec<u8>>, bool);

/// The events of `frames`, and the bytes that were given.
fn split(frames: &[&[u8]], max: usize) -> (Vec<Seen>, Vec<u8>) {
    let mut splitter = Splitter::new(max);
    let (mut seen, mut raw) = (Vec::new(), Vec::new());
    for frame in frames {
        let mut rest = *frame;
        while let Some(event) = splitter.next(&mut rest) {
            let data = event.data().map(<[u8]>::to_vec);
            seen.push((event.name().to_vec(), data, event.is_cut()));
            raw.extend_from_slice(event.raw());
        }
        assert!(rest.is_empty(), "all was taken");
        assert!(
            splitter.carried.len() <= max,
            "no more is kept than is allowed"
        );
    }
    if let Some(tail) = splitter.finish() {
        raw.extend_from_slice(tail.raw());
    }
    (seen, raw)
}

fn in_frames(text: &[u8], size: usize) -> Vec<&[u8]> {
    text.chunks(size).collect()
}

/// The format as the standard words it, on the whole text: slow and plain.
fn by_the_book(text: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let text = text.strip_prefix(BOM).unwrap_or(text);
    let mut lines = vec![Vec::new()];
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'\r' | b'\n' => {
                if text[at] == b'\r' && text.get(at + 1) == Some(&b'\n') {
                    at += 1;
                }
                lines.push(Vec::new());
            }
            byte => lines.last_mut().unwrap().push(byte),
        }
        at += 1;
    }
    lines.pop(); // not ended
    let (mut events, mut name, mut data) = (Vec::new(), Vec::new(), None::<Vec<Vec<u8>>>);
    for line in lines {
        if line.is_empty() {
            let data = data.take().map(|lines| lines.join(&b'\n'));
            events.push((std::mem::take(&mut name), data));
            continue;
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (&line[..], &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value).to_vec();
        match field {
            b"event" => name = value,
            b"data" => data.get_or_insert_default().push(value),
            _ => {}
        }
    }
    events
}

fn without_comments(events: Vec<Seen>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let dispatched = events.into_iter();
    dispatched
        .filter_map(|(name, data, _)| Some((name, data?)))
        .collect()
}

const STREAM: &str = "\u{feff}: hello\n\nevent: a\nid: 1\ndata: {\"h\": \"h\u{e9}\u{1f600}\"}\n\n\
    data\n\nretry: 5\n\ndata:x\ndata:  y\ndata: z: w\ndatas: no\nevents: no\n\n\n\nevent: b\n\ndata: c\n\n";

#[test]
fn every_spelling_cut_anywhere_gives_the_same_events() {
    let expected = without_comments(split(&[STREAM.as_bytes()], 1_000).0);
    assert_eq!(expected.len(), 4);
    assert_eq!(expected[2].1, b"x\n y\nz: w");
    for ends in ["\n", "\r", "\r\n"] {
        let text = STREAM.replace('\n', ends);
        for size in 1..=text.len() {
            let (events, _) = split(&in_frames(text.as_bytes(), size), 1_000);
            assert_eq!(without_comments(events), expected, "{ends:?} in {size}");
        }
    }
}

#[test]
fn a_lone_carriage_return_ends_an_event_at_once() {
    let mut splitter = Splitter::new(100);
    assert!(splitter.next(&mut &b"data: a\r"[..]).is_none());
    assert!(splitter.next(&mut &b"\r"[..]).is_some());
    assert!(
        splitter.next(&mut &b"\n"[..]).is_none(),
        "half a line break"
    );
    assert!(
        splitter.next(&mut &b"\n"[..]).is_some(),
        "an empty event, this time"
    );
}

#[test]
fn what_lies_whole_in_a_frame_is_not_copied() {
    let frame = Bytes::from_static(b"data: a\n\ndata: b\n\ndata:");
    let mut splitter = Splitter::new(100);
    let mut rest = &frame[..];
    for at in [0, 9] {
        let event = splitter.next(&mut rest).unwrap();
        assert_eq!(event.to_bytes(&frame).as_ptr(), frame[at..].as_ptr());
        assert!(matches!(event.data, Some(Cow::Borrowed(_))));
    }
    assert!(splitter.next(&mut rest).is_none());
    let more = Bytes::from_static(b" c\n\n");
    let event = splitter.next(&mut &more[..]).unwrap();
    assert_eq!(event.to_bytes(&more), "data: c\n\n");
}

#[test]
fn too_long_an_event_is_given_once_and_early_and_the_next_one_whole() {
    let text = b"data: 1234567890\n\ndata: 1\n\n";
    for size in 1..text.len() {
        let (events, _) = split(&in_frames(text, size), 10);
        let expected = vec![
            (vec![], Some(b"1234".to_vec()), true),
            (vec![], Some(b"1".to_vec()), false),
        ];
        assert_eq!(events, expected, "in {size}");
    }
    let mut splitter = Splitter::new(10);
    assert!(splitter.next(&mut &b"data: 1234"[..]).is_none());
    assert!(splitter.next(&mut &b"5"[..]).unwrap().is_cut(), "known now");
    assert!(splitter.next(&mut &b"6"[..]).is_none());
    assert!(splitter.finish().unwrap().is_cut());
    assert!(splitter.finish().is_none());
}

#[test]
fn the_limit_is_exact_whether_or_not_the_last_half_of_a_line_break_is_there() {
    for (text, shortest) in [
        ("data: a\n\n", 9),
        ("data: a\r\r", 9),
        ("data: a\r\n\r\n", 10),
    ] {
        for max in 7..12 {
            for size in 1..=text.len() {
                let (events, _) = split(&in_frames(text.as_bytes(), size), max);
                let data = Some(b"a".to_vec());
                let expected = vec![(vec![], data, max < shortest)];
                assert_eq!(events, expected, "{text:?} in {size}, at most {max}");
            }
        }
    }
}

#[test]
fn the_tail_is_what_no_blank_line_ended() {
    for (text, tail) in [
        ("", None),
        ("data: a\n\n", None),
        ("data: a\n\ndata: b", Some("b")),
        ("data: a\n", Some("a")),
        ("data: a\r\n\r", None),
    ] {
        let mut splitter = Splitter::new(100);
        let mut rest = text.as_bytes();
        while splitter.next(&mut rest).is_some() {}
        let found = splitter.finish().and_then(|event| event.data);
        assert_eq!(found.as_deref(), tail.map(str::as_bytes), "{text:?}");
    }
}

#[test]
fn debug_is_without_the_text() {
    let mut splitter = Splitter::new(100);
    let event = splitter.next(&mut &b"data: secret\n\n"[..]);
    assert!(!format!("{event:?}").contains("secret"));
    splitter.next(&mut &b"data: secret"[..]);
    assert!(!format!("{splitter:?}").contains("secret"));
}

proptest! {
    #[test]
    fn as_the_standard_says_however_it_is_cut(
        text in "(\u{feff})?((data|event|id|dat|)(:| |: )?[a{\u{e9}]{0,3}[\r\n]{0,3}){0,12}",
        cuts in prop::collection::vec(1usize..9, 1..40),
    ) {
        let text = text.as_bytes();
        let mut frames = Vec::new();
        let (mut rest, mut cuts) = (text, cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (frame, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            frames.push(frame);
            rest = after;
        }
        let (events, raw) = split(&frames, 1_000);
        let dispatched: Vec<_> = without_comments(events);
        let book: Vec<_> = by_the_book(text)
            .into_iter()
            .filter_map(|(name, data)| Some((name, data?)))
            .collect();
        prop_assert_eq!(dispatched, book);
        // Nothing is lost but the halves of line breaks.
        let bare = |bytes: &[u8]| -> Vec<u8> {
            bytes.iter().copied().filter(|byte| *byte != b'\n').collect()
        };
        prop_assert_eq!(bare(&raw), bare(text));
    }

    #[test]
    fn any_bytes_with_any_limit_give_the_same_events_however_they_are_cut(
        bytes in prop::collection::vec(prop::sample::select(&b"\r\n:d a\xEF\xBB\xBF"[..]), 0..80),
        max in 0usize..20,
        size in 1usize..9,
    ) {
        let (whole, _) = split(&[&bytes], max);
        let (parts, _) = split(&in_frames(&bytes, size), max);
        prop_assert_eq!(whole, parts);
    }
}
