//! Kills a process that changes keys, over and over, and looks at what is left.
//!
//! The child says on its standard output what it is about to do, and what was done once the call
//! has returned. After the kill each change that was done is there, and the one that was begun is
//! there whole or not at all.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "used by a test and by an example; one that cannot be set up fails"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use spark_auth::{Authenticator, FileStore, KeyStatus, KeyStore, NewKey, Pepper, Rejected};
use spark_core::{Clock, Name};

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub rounds: usize,
    /// Changes that were acknowledged before the kill, all of them found.
    pub acknowledged: usize,
    /// Rounds in which the kill met a change under way; of those, how many found it done.
    pub under_way: usize,
    pub done_all_the_same: usize,
    /// Rounds in which the child was killed before it had opened the store.
    pub while_opening: usize,
}

/// A cheap generator: the same seed gives the same kills as far as the system allows.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn open(folder: &Path, pepper: &Pepper) -> (Authenticator, Arc<FileStore>) {
    let store = Arc::new(FileStore::open(folder).unwrap());
    let auth = Authenticator::builder()
        .pepper(pepper.clone())
        .store(store.clone())
        .max_keys(1_000_000)
        .build()
        .unwrap();
    (auth, store)
}

/// The child: reads the folder, the pepper and a seed from its standard input, and changes keys until
/// it is killed, or its parent is gone.
pub fn child() {
    let mut lines = std::io::stdin().lines();
    let mut line = || lines.next().unwrap().unwrap();
    let (folder, pepper, seed) = (line(), line(), line());
    let pepper = Pepper::parse_hex(&pepper).unwrap();
    let mut random = Random(seed.parse().unwrap());
    let (auth, store) = open(Path::new(&folder), &pepper);
    let mut out = std::io::stdout();
    // Each line begins with a line end, since a test runner writes to the same pipe.
    let mut say = |text: String| write!(out, "\n@{text}\n").and_then(|()| out.flush());
    say("open".to_owned()).unwrap();
    let standing = |status| -> Vec<Name> {
        let keys = auth.list().into_iter();
        keys.filter(|key| key.status == status)
            .map(|key| key.id)
            .collect()
    };
    let mut active = standing(KeyStatus::Active);
    let mut suspended = standing(KeyStatus::Suspended);
    // Far more than is done before the kill; a bound all the same.
    for _ in 0..100_000 {
        let some = (!active.is_empty())
            .then(|| usize::try_from(random.below(active.len() as u64)).unwrap());
        let told = match (random.below(10), some) {
            (0..=1, Some(at)) => {
                let id = active.swap_remove(at);
                let _ = say(format!("begin revoke {id}"));
                auth.revoke(id.as_str()).unwrap();
                say("done".to_owned())
            }
            (2..=3, Some(at)) => {
                let id = active.swap_remove(at);
                let _ = say(format!("begin rotate {id}"));
                let next = auth.rotate(id.as_str(), Duration::ZERO).unwrap();
                active.push(next.record.id.clone());
                say(format!("done {}", next.key.expose()))
            }
            (4, Some(at)) => {
                // Not a change: it may be lost, but must not harm what is one.
                let used = Duration::from_millis(random.below(1_000_000));
                store.touch(&[(active[at].clone(), used)]).unwrap();
                Ok(())
            }
            (5, Some(at)) => {
                let id = active.swap_remove(at);
                let _ = say(format!("begin suspend {id}"));
                auth.suspend(id.as_str()).unwrap();
                suspended.push(id);
                say("done".to_owned())
            }
            (6, _) if !suspended.is_empty() => {
                let id = suspended.swap_remove(0);
                let _ = say(format!("begin resume {id}"));
                auth.resume(id.as_str()).unwrap();
                active.push(id);
                say("done".to_owned())
            }
            _ => {
                let label = format!("{:016x}", random.below(u64::MAX));
                let _ = say(format!("begin issue {label}"));
                let new = NewKey::new(Name::new("acme").unwrap()).label(label.as_str());
                let issued = auth.issue(new).unwrap();
                active.push(issued.record.id.clone());
                say(format!("done {}", issued.key.expose()))
            }
        };
        if told.is_err() {
            return;
        }
    }
}

/// What the parent knows: each key by its id, and how it stands.
#[derive(Default)]
struct Known {
    keys: HashMap<String, (String, KeyStatus)>,
    sequence: u64,
}

impl Known {
    fn add(&mut self, key: &str) {
        let id = key[key.len() - 50..key.len() - 38].to_owned();
        self.keys.insert(id, (key.to_owned(), KeyStatus::Active));
    }

    fn end(&mut self, id: &str) {
        self.set(id, KeyStatus::Revoked);
    }

    fn set(&mut self, id: &str, status: KeyStatus) {
        self.keys.get_mut(id).unwrap().1 = status;
    }

    /// What an acknowledged change did.
    fn done(&mut self, begun: &str, done: &str) {
        self.sequence += 1;
        match begun.split_once(' ').unwrap() {
            ("issue", _) => self.add(done),
            ("revoke", id) => self.end(id),
            ("suspend", id) => self.set(id, KeyStatus::Suspended),
            ("resume", id) => self.set(id, KeyStatus::Active),
            ("rotate", id) => {
                self.end(id);
                self.add(done);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Runs `rounds` of it on `folder`. `command` starts the child.
pub fn rounds(
    rounds: usize,
    seed: u64,
    folder: &Path,
    limit: Duration,
    mut command: impl FnMut() -> Command,
    mut progress: impl FnMut(&Outcome),
) -> Outcome {
    let clock = Clock::system();
    let start = clock.now();
    let pepper = Pepper::generate().unwrap();
    let mut random = Random(seed | 1);
    let mut known = Known::default();
    let mut outcome = Outcome::default();
    while outcome.rounds < rounds {
        let took = clock.now().saturating_duration_since(start);
        assert!(took < limit, "too slow: {outcome:?} after {took:?}");
        let mut child = (command().stdin(Stdio::piped()).stdout(Stdio::piped()))
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let seed = random.below(u64::MAX) | 1;
        let (text, hex) = (folder.display(), pepper.expose_hex());
        write!(input, "{text}\n{}\n{seed}\n", &**hex).unwrap();
        let said = listen(&mut child);
        // Every fourth is killed at its start, the others in the midst of changes.
        let at_start = random.below(4) == 0;
        let wait = Duration::from_micros(random.below(if at_start { 15_000 } else { 60_000 }));
        let mut lines = Vec::new();
        if !at_start {
            lines.push(said.recv_timeout(Duration::from_secs(60)).unwrap());
        }
        let until = clock.now().saturating_add(wait);
        loop {
            let rest = until.saturating_duration_since(clock.now());
            match said.recv_timeout(rest) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => panic!("the child ended by itself"),
            }
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(
            status.code().is_none(),
            "the child ended by itself: {status}"
        );
        lines.extend(said.iter());
        outcome.rounds += 1;
        look(folder, &pepper, &lines, &mut known, &mut outcome);
        progress(&outcome);
    }
    outcome
}

/// The lines that the child says, without the mark before them.
fn listen(child: &mut Child) -> Receiver<String> {
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, said) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = output.split(b'\n').map_while(Result::ok);
        for line in lines {
            let line = String::from_utf8_lossy(&line);
            if let Some(text) = line.strip_prefix('@')
                && sender.send(text.to_owned()).is_err()
            {
                return;
            }
        }
    });
    said
}

/// Opens what the child left, and compares.
fn look(folder: &Path, pepper: &Pepper, said: &[String], known: &mut Known, out: &mut Outcome) {
    let mut begun = None;
    out.while_opening += usize::from(said.is_empty());
    for line in said.iter().filter(|line| *line != "open") {
        match (line.strip_prefix("begin "), line.strip_prefix("done")) {
            (Some(change), _) => begun = Some(change),
            (_, Some(done)) => {
                known.done(begun.take().unwrap(), done.trim());
                out.acknowledged += 1;
            }
            _ => panic!("{line}"),
        }
    }
    let (auth, store) = open(folder, pepper);
    let sequence = store.load().unwrap().sequence;
    let found = auth.list();
    if let Some(change) = begun {
        out.under_way += 1;
        let more = usize::from(change.starts_with("issue") || change.starts_with("rotate"));
        if sequence > known.sequence {
            // It was done all the same: whole.
            out.done_all_the_same += 1;
            known.sequence += 1;
            assert_eq!(found.len(), known.keys.len() + more, "{change}");
            let new = found
                .iter()
                .find(|key| !known.keys.contains_key(key.id.as_str()));
            match change.split_once(' ').unwrap() {
                ("issue", label) => assert_eq!(new.unwrap().label.as_deref(), Some(label)),
                ("revoke", id) => known.end(id),
                ("suspend", id) => known.set(id, KeyStatus::Suspended),
                ("resume", id) => known.set(id, KeyStatus::Active),
                ("rotate", id) => {
                    known.end(id);
                    let old = auth.get(id).unwrap();
                    assert_eq!(old.replaced_by.as_ref(), new.map(|key| &key.id));
                }
                other => panic!("{other:?}"),
            }
            if let Some(new) = new {
                // Nobody was told the key; it is taken back.
                auth.revoke(new.id.as_str()).unwrap();
                known.sequence += 1;
                known
                    .keys
                    .insert(new.id.to_string(), (String::new(), KeyStatus::Revoked));
            }
        }
    }
    let sequence = store.load().unwrap().sequence;
    assert_eq!(sequence, known.sequence, "{begun:?}");
    assert_eq!(auth.len(), known.keys.len(), "{begun:?}");
    for (id, (key, status)) in &known.keys {
        if key.is_empty() {
            let status = auth.get(id).unwrap().status;
            assert_eq!(status, KeyStatus::Revoked);
            continue;
        }
        let found = match auth.verify(key) {
            Ok(_) => KeyStatus::Active,
            Err(Rejected::Revoked) => KeyStatus::Revoked,
            Err(Rejected::Suspended) => KeyStatus::Suspended,
            Err(other) => panic!("{id}: {other}"),
        };
        assert_eq!(found, *status, "{id}");
    }
}
