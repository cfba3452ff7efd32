//! The file format of [`FileStore`](crate::FileStore): one line per set of changes.
//!
//! A line is the CRC32 of its text in eight hexadecimal digits, a blank, the text, and a line end.
//! The first line says what the file is. A line is written in one piece and synced before anyone
//! is told that it is kept, so a line without its end was never acknowledged.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};

use spark_core::Name;

use crate::codec;
use crate::hex;
use crate::record::KeyRecord;
use crate::store::Change;

/// The longest line, its end included.
pub(crate) const MAX_LINE: usize = 1 << 20;
const HEADER: &str = r#"{"spark-auth":"keys","version":1}"#;
const CRC_LEN: usize = 9;

/// What a file turned out to hold.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) records: HashMap<Name, KeyRecord>,
    /// How many lines, the first one included.
    pub(crate) lines: usize,
    /// Up to where the file is sound.
    pub(crate) sound: u64,
    /// How many bytes of a torn line follow.
    pub(crate) torn: u64,
    /// Whether the last sound line lacks its line end.
    pub(crate) unended: bool,
}

/// Why a file cannot be read.
#[derive(Debug)]
pub(crate) enum Fault {
    Io(io::Error),
    Line { line: usize, problem: String },
}

/// Reads a whole file. A torn line at the end is reported and left out, unless it is the first; any
/// other fault is an error, since it may hide a key that was revoked.
pub(crate) fn replay(mut from: impl BufRead) -> Result<Replayed, Fault> {
    let mut found = Replayed::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = io::Read::take(&mut from, MAX_LINE as u64).read_until(b'\n', &mut line);
        let len = read.map_err(Fault::Io)?;
        if len == 0 {
            return Ok(found);
        }
        let ended = line.pop_if(|byte| *byte == b'\n').is_some();
        if !ended && len == MAX_LINE {
            return Err(fault(&found, "the line is longer than any that is written"));
        }
        match unframe(&line) {
            Ok(text) => apply(&mut found, text)?,
            // The first line is put in place whole, by a rename: no crash of ours tears it, so this
            // is another file, or one that was cut. Emptying it would lose the first line for good.
            Err(problem) if ended || found.lines == 0 => return Err(fault(&found, problem)),
            Err(_) => {
                found.torn = len as u64;
                return Ok(found);
            }
        }
        found.unended = !ended;
        found.lines += 1;
        found.sound += len as u64;
    }
}

fn apply(found: &mut Replayed, text: &str) -> Result<(), Fault> {
    if found.lines == 0 {
        return match text {
            HEADER => Ok(()),
            _ => Err(fault(found, "this is not a key file of this version")),
        };
    }
    let changes = codec::decode_changes(text).map_err(|error| fault(found, &error.to_string()))?;
    for change in changes {
        match change {
            Change::Put(record) => {
                found.records.insert(record.id.clone(), *record);
            }
            Change::Forget(id) => {
                found.records.remove(&id);
            }
        }
    }
    Ok(())
}

fn fault(found: &Replayed, problem: &str) -> Fault {
    Fault::Line {
        line: found.lines + 1,
        problem: problem.to_owned(),
    }
}

/// The line for one set of changes.
pub(crate) fn line(changes: &[Change]) -> Vec<u8> {
    frame(&codec::encode_changes(changes))
}

/// Writes a new file with these records alone, oldest change first.
pub(crate) fn write(
    to: &mut impl Write,
    records: &HashMap<Name, KeyRecord>,
) -> io::Result<(usize, u64)> {
    let mut sorted: Vec<_> = records.values().collect();
    sorted.sort_by_key(|record| record.revision);
    let mut to = io::BufWriter::new(to);
    let header = frame(HEADER);
    to.write_all(&header)?;
    let mut len = header.len() as u64;
    for &record in &sorted {
        let line = line(&[Change::Put(Box::new(record.clone()))]);
        to.write_all(&line)?;
        len += line.len() as u64;
    }
    to.flush()?;
    Ok((sorted.len() + 1, len))
}

fn frame(text: &str) -> Vec<u8> {
    let crc = crc32fast::hash(text.as_bytes());
    format!("{crc:08x} {text}\n").into_bytes()
}

fn unframe(line: &[u8]) -> Result<&str, &'static str> {
    let damaged = "its checksum does not match what it holds";
    let text = std::str::from_utf8(line).map_err(|_| damaged)?;
    let (crc, text) = text.split_at_checked(CRC_LEN).ok_or(damaged)?;
    let crc = crc.strip_suffix(' ').and_then(hex::decode).ok_or(damaged)?;
    if crc32fast::hash(text.as_bytes()) == u32::from_be_bytes(crc) {
        Ok(text)
    } else {
        Err(damaged)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::tests::a_record;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_read(records in prop::collection::vec(a_record(), 0..8)) {
            let records: HashMap<_, _> =
                records.into_iter().map(|record| (record.id.clone(), record)).collect();
            let mut file = Vec::new();
            let (lines, len) = write(&mut file, &records).unwrap();
            let found = replay(&file[..]).unwrap();
            prop_assert_eq!(found.records, records);
            prop_assert_eq!((found.lines, found.sound, found.torn), (lines, len, 0));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = replay(&bytes[..]);
        }

        #[test]
        fn a_changed_byte_is_noticed_or_drops_only_the_last_line(
            records in prop::collection::vec(a_record(), 2..4), at in any::<prop::sample::Index>(), flip in 1u8..
        ) {
            let records: HashMap<_, _> =
                records.into_iter().map(|record| (record.id.clone(), record)).collect();
            let mut file = Vec::new();
            write(&mut file, &records).unwrap();
            let at = at.index(file.len());
            file[at] ^= flip;
            // Case of the checksum's digits is the one thing that may differ unnoticed.
            if let Ok(found) = replay(&file[..]) {
                prop_assert!(found.records == records || found.torn > 0 || found.unended, "byte {}", at);
            }
        }
    }

    #[test]
    fn a_line_without_end_is_refused_and_not_read_into_memory() {
        let endless = io::BufReader::new(io::repeat(b'a'));
        assert!(matches!(replay(endless), Err(Fault::Line { line: 1, .. })));
    }
}
