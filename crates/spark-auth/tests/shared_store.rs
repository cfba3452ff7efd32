//! Several processes on one store, and stores that hang.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{Gate, Gated, House, auth_on, house, house_with, name, soon};
use spark_auth::{
    AuthError, Authenticator, Change, Changes, Issued, KeyInfo, KeyRecord, KeyStatus, KeyStore,
    Loaded, MemoryStore, NewKey, Pepper, Rejected, StoreError,
};
use spark_core::Name;

const SECOND: Duration = Duration::from_secs(1);

fn new() -> NewKey {
    NewKey::new(name("acme"))
}

/// Two processes on one store, with a key that both know.
fn two() -> (House, Authenticator, Issued) {
    let house = house();
    let issued = house.issue();
    let other = house.builder().build().unwrap();
    (house, other, issued)
}

/// All but the last uses, of which each process knows its own.
fn keys(auth: &Authenticator) -> Vec<KeyInfo> {
    let mut list = auth.list();
    for info in &mut list {
        info.last_used_at = None;
    }
    list
}

fn is_conflict<T>(answer: &Result<T, AuthError>) -> bool {
    matches!(answer, Err(AuthError::Store(StoreError::Conflict { .. })))
}

#[test]
fn what_one_process_does_the_other_sees_after_a_refresh() {
    let (house, other, known) = two();
    let (auth, id) = (&house.auth, known.record.id.as_str());
    let fresh = other.issue(new()).unwrap();
    assert_eq!(auth.verify(fresh.key.expose()), Err(Rejected::UnknownKey));
    assert_eq!(auth.refresh().unwrap(), 1);
    assert_eq!(auth.refresh().unwrap(), 0);
    assert!(auth.verify(fresh.key.expose()).is_ok());

    other.suspend(id).unwrap();
    auth.refresh().unwrap();
    assert_eq!(auth.verify(known.key.expose()), Err(Rejected::Suspended));
    auth.resume(id).unwrap();
    other.refresh().unwrap();
    assert!(other.verify(known.key.expose()).is_ok());
    let next = other.rotate(id, SECOND).unwrap();
    other.revoke(fresh.record.id.as_str()).unwrap();
    assert_eq!(auth.refresh().unwrap(), 3);
    assert_eq!(auth.verify(fresh.key.expose()), Err(Rejected::Revoked));
    assert!(auth.verify(next.key.expose()).is_ok());
    let successor = auth.get(id).unwrap().replaced_by;
    assert_eq!(successor, Some(next.record.id));
    // Both know all now, by what they have done and by what they have read.
    assert_eq!(keys(auth), keys(&other));
    assert_eq!((auth.refresh().unwrap(), other.refresh().unwrap()), (0, 0));
}

#[test]
fn of_two_that_change_a_key_one_is_told_but_whoever_stops_it_succeeds() {
    let (house, other, known) = two();
    let (auth, id) = (&house.auth, known.record.id.as_str());
    let next = other.rotate(id, 60 * SECOND).unwrap();
    let answer = auth.rotate(id, SECOND);
    assert!(is_conflict(&answer), "{answer:?}");
    // It knows by now.
    let answer = auth.rotate(id, SECOND);
    assert!(
        matches!(answer, Err(AuthError::AlreadyRotated { successor }) if successor == next.record.id)
    );

    other.suspend(id).unwrap();
    other.resume(id).unwrap();
    assert_eq!(auth.suspend(id).unwrap().status, KeyStatus::Suspended);
    let answer = other.rotate(id, SECOND);
    assert!(matches!(answer, Err(AuthError::AlreadyRotated { .. })));
    other.refresh().unwrap();
    other.resume(id).unwrap();
    other.suspend(id).unwrap();
    let answer = auth.resume(id);
    assert!(is_conflict(&answer), "{answer:?}");
    auth.resume(id).unwrap();
    assert_eq!(other.revoke(id).unwrap().status, KeyStatus::Revoked);
    let answer = auth.suspend(id);
    assert!(matches!(
        answer,
        Err(AuthError::NotActive {
            status: KeyStatus::Revoked
        })
    ));
    assert_eq!(auth.verify(known.key.expose()), Err(Rejected::Revoked));
    // What it was told of by a conflict needs no second revocation.
    let revoked = auth.revoke(id).unwrap();
    assert_eq!(revoked.revoked_at, other.get(id).unwrap().revoked_at);
}

#[test]
fn a_key_that_another_process_forgot_is_gone_here_too() {
    let house = house_with(2);
    let gone = house.issue();
    let alive = house.issue();
    let other = house.builder().max_keys(2).build().unwrap();
    other.revoke(gone.record.id.as_str()).unwrap();
    let third = other.issue(new()).unwrap();
    assert_eq!(house.auth.len(), 2);
    assert_eq!(house.auth.refresh().unwrap(), 2);
    assert_eq!(house.auth.len(), 2);
    assert_eq!(
        house.auth.verify(gone.key.expose()),
        Err(Rejected::UnknownKey)
    );
    assert!(house.auth.verify(third.key.expose()).is_ok());

    // A clock that is ahead elsewhere ends a key early: nobody can tell that from a revocation.
    let forget = [Change::Forget(alive.record.id)];
    house.store.append(&forget).unwrap();
    house.auth.refresh().unwrap();
    let answer = house.auth.verify(alive.key.expose());
    assert_eq!(answer, Err(Rejected::UnknownKey));
    let answer = house.auth.revoke(alive.key.id());
    assert!(matches!(answer, Err(AuthError::NotFound)), "{answer:?}");
}

#[test]
fn a5_a_key_that_was_revoked_and_forgotten_elsewhere_is_gone_after_a_read_of_the_whole() {
    let house = house_with(3);
    let leaked = house.issue();
    let other = house.builder().max_keys(3).build().unwrap();
    let id = leaked.record.id.as_str();
    let spare = other.issue(new()).unwrap();
    house.auth.refresh().unwrap();
    other.revoke(id).unwrap();
    other.issue(new()).unwrap();
    other.issue(new()).unwrap();
    assert!(other.get(id).is_none());
    // More changes than the store remembers.
    for _ in 0..501 {
        other.suspend(spare.record.id.as_str()).unwrap();
        other.resume(spare.record.id.as_str()).unwrap();
    }
    assert_eq!(house.store.changes_since(2).unwrap(), Changes::Unknown);
    house.auth.refresh().unwrap();
    let answer = house.auth.verify(leaked.key.expose());
    assert_eq!(answer, Err(Rejected::UnknownKey));
}

/// A store that remembers no changes, as it may.
#[derive(Clone, Debug, Default)]
struct NoHistory(MemoryStore);

impl KeyStore for NoHistory {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.0.load()
    }

    fn append(&self, changes: &[Change]) -> Result<u64, StoreError> {
        self.0.append(changes)
    }

    fn changes_since(&self, since: u64) -> Result<Changes, StoreError> {
        match self.0.changes_since(since)? {
            known @ Changes::Known { sequence, .. } if sequence == since => Ok(known),
            _ => Ok(Changes::Unknown),
        }
    }

    fn touch(&self, uses: &[(Name, Duration)]) -> Result<(), StoreError> {
        self.0.touch(uses)
    }
}

#[test]
fn a5_a_key_that_was_rotated_away_in_a_full_store_without_a_history_is_gone() {
    let store = NoHistory::default();
    let pepper = Pepper::generate().unwrap();
    let build = || {
        let builder = Authenticator::builder().pepper(pepper.clone());
        builder.store(store.clone()).max_keys(1).build().unwrap()
    };
    let here = build();
    let leaked = here.issue(new()).unwrap();
    let there = build();
    let fresh = there.rotate(leaked.key.id(), Duration::ZERO).unwrap();
    assert_eq!(here.refresh().unwrap(), 2);
    let answer = here.verify(leaked.key.expose());
    assert_eq!(answer, Err(Rejected::UnknownKey));
    assert!(here.verify(fresh.key.expose()).is_ok());
}

#[test]
fn a5_no_use_of_a_forgotten_key_brings_it_back_into_the_store() {
    for refreshes in [true, false] {
        let store = NoHistory::default();
        let [old, current] = [(); 2].map(|()| Pepper::generate().unwrap());
        let builder = |pepper: &Pepper| {
            let builder = Authenticator::builder().pepper(pepper.clone());
            builder.store(store.clone()).max_keys(2)
        };
        let leaked = builder(&old).build().unwrap().issue(new()).unwrap();
        let build = || {
            let builder = builder(&current).previous_pepper(old.clone());
            builder.build().unwrap()
        };
        let (here, there) = (build(), build());
        there.revoke(leaked.key.id()).unwrap();
        there.issue(new()).unwrap();
        let spare = there.issue(new()).unwrap();
        there.revoke(spare.key.id()).unwrap();
        assert!(there.get(leaked.key.id()).is_none());
        if refreshes {
            here.refresh().unwrap();
        }
        // It is under the previous pepper, so that a use of it asks for another version.
        assert_eq!(here.verify(leaked.key.expose()).is_err(), refreshes);
        assert_eq!(here.flush().unwrap().renewed, 0);
        there.refresh().unwrap();
        for auth in [&here, &there] {
            let answer = auth.verify(leaked.key.expose());
            assert_eq!(answer, Err(Rejected::UnknownKey));
        }
    }
}

#[test]
fn a_suspension_counts_though_the_key_was_suspended_here_and_resumed_elsewhere() {
    let (house, other, known) = two();
    let id = known.key.id();
    house.auth.suspend(id).unwrap();
    other.refresh().unwrap();
    other.resume(id).unwrap();
    // Here that is not known yet.
    let info = house.auth.suspend(id).unwrap();
    assert_eq!(info.status, KeyStatus::Suspended);
    house.auth.refresh().unwrap();
    other.refresh().unwrap();
    for auth in [&house.auth, &other] {
        let answer = auth.verify(known.key.expose());
        assert_eq!(answer, Err(Rejected::Suspended));
    }
    // And one that nobody has lifted is not written again.
    let sequence = house.store.load().unwrap().sequence;
    house.auth.suspend(id).unwrap();
    assert_eq!(house.store.load().unwrap().sequence, sequence);
}

/// A store in whose place another can be put, as by a failover or a restored backup.
#[derive(Clone, Debug, Default)]
struct Replaceable(Arc<Mutex<MemoryStore>>);

impl Replaceable {
    fn get(&self) -> MemoryStore {
        self.0.lock().unwrap().clone()
    }

    /// A copy of what it holds now, with as many sets of changes behind it.
    fn copy(&self) -> MemoryStore {
        let (loaded, copy) = (self.get().load().unwrap(), MemoryStore::new());
        for mut record in loaded.records {
            let last = record.revision;
            for revision in 1..=last {
                record.revision = revision;
                (copy.append(&[Change::Put(Box::new(record.clone()))])).unwrap();
            }
        }
        while copy.load().unwrap().sequence < loaded.sequence {
            copy.append(&[]).unwrap();
        }
        copy
    }

    fn replace(&self, store: MemoryStore) {
        *self.0.lock().unwrap() = store;
    }
}

impl KeyStore for Replaceable {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.get().load()
    }

    fn append(&self, changes: &[Change]) -> Result<u64, StoreError> {
        self.get().append(changes)
    }

    fn changes_since(&self, since: u64) -> Result<Changes, StoreError> {
        self.get().changes_since(since)
    }

    fn touch(&self, uses: &[(Name, Duration)]) -> Result<(), StoreError> {
        self.get().touch(uses)
    }
}

/// Two processes on a store that can be replaced.
fn two_on_a_replaceable() -> (Replaceable, Authenticator, impl Fn() -> Authenticator) {
    let (store, pepper) = (Replaceable::default(), Pepper::generate().unwrap());
    let build = {
        let store = store.clone();
        move || {
            let builder = Authenticator::builder().pepper(pepper.clone());
            builder.store(store.clone()).build().unwrap()
        }
    };
    (store, build(), build)
}

#[test]
fn a_key_that_is_issued_into_a_store_which_fell_back_works() {
    for refreshes in [true, false] {
        let (store, auth, _) = two_on_a_replaceable();
        let lost = [(); 5].map(|()| auth.issue(new()).unwrap());
        store.replace(MemoryStore::new());
        if refreshes {
            assert_eq!(auth.refresh().unwrap(), 5);
        }
        let issued = auth.issue(new()).unwrap();
        auth.refresh().unwrap();
        assert!(auth.verify(issued.key.expose()).is_ok());
        for key in lost.map(|issued| issued.key) {
            assert_eq!(auth.verify(key.expose()), Err(Rejected::UnknownKey));
        }
        assert_eq!(auth.refresh().unwrap(), 0);
    }
}

#[test]
fn a5_what_others_revoke_after_the_store_fell_back_is_revoked_here() {
    let (store, here, build) = two_on_a_replaceable();
    let leaked = here.issue(new()).unwrap();
    let early = store.copy();
    for _ in 0..9 {
        here.issue(new()).unwrap();
    }
    store.replace(early);
    let there = build();
    there.revoke(leaked.key.id()).unwrap();
    here.refresh().unwrap();
    assert_eq!(here.verify(leaked.key.expose()), Err(Rejected::Revoked));
    for _ in 0..20 {
        there.issue(new()).unwrap();
    }
    here.refresh().unwrap();
    assert_eq!(here.verify(leaked.key.expose()), Err(Rejected::Revoked));
    assert_eq!(keys(&here), keys(&there));
}

#[test]
fn a5_a_store_that_fell_back_is_noticed_by_a_write_alone() {
    let (store, here, build) = two_on_a_replaceable();
    let leaked = here.issue(new()).unwrap();
    let early = store.copy();
    for _ in 0..3 {
        here.issue(new()).unwrap();
    }
    store.replace(early);
    let there = build();
    there.revoke(leaked.key.id()).unwrap();
    let issued = here.issue(new()).unwrap();
    assert_eq!(here.verify(leaked.key.expose()), Err(Rejected::Revoked));
    assert!(here.verify(issued.key.expose()).is_ok());
    // By the next read its numbers are ahead again.
    for _ in 0..9 {
        there.issue(new()).unwrap();
    }
    here.refresh().unwrap();
    there.refresh().unwrap();
    assert_eq!(keys(&here), keys(&there));
}

#[test]
fn a5_what_was_stopped_before_the_store_fell_back_stays_so_and_is_written_again() {
    let (store, here, build) = two_on_a_replaceable();
    let [revoked, suspended] = [(); 2].map(|()| here.issue(new()).unwrap());
    let early = store.copy();
    let lost = here.issue(new()).unwrap();
    for issued in [&revoked, &lost] {
        here.revoke(issued.key.id()).unwrap();
    }
    here.suspend(suspended.key.id()).unwrap();
    let late = store.copy();
    let expected = [
        (&revoked, Rejected::Revoked),
        (&suspended, Rejected::Suspended),
        (&lost, Rejected::Revoked),
    ];
    let stand = |auth: &Authenticator| {
        for (issued, expected) in expected {
            let answer = auth.verify(issued.key.expose());
            assert_eq!(answer, Err(expected));
        }
    };
    store.replace(early);
    for _ in 0..2 {
        here.refresh().unwrap();
        stand(&here);
    }
    // Nothing is built upon a key that the store has lost.
    let answer = here.resume(lost.key.id());
    assert!(matches!(answer, Err(AuthError::NotFound)), "{answer:?}");
    assert_eq!(here.flush().unwrap().stopped, 3);
    stand(&build());
    here.resume(suspended.key.id()).unwrap();
    assert!(here.verify(suspended.key.expose()).is_ok());
    here.suspend(suspended.key.id()).unwrap();

    // And back again to the one that was ahead.
    store.replace(late);
    here.refresh().unwrap();
    stand(&here);
    stand(&build());
}

#[test]
fn a5_a_key_is_revoked_in_a_store_that_fell_back_and_went_on_unnoticed() {
    let (store, here, build) = two_on_a_replaceable();
    let leaked = here.issue(new()).unwrap();
    let early = store.copy();
    for _ in 0..2 {
        here.suspend(leaked.key.id()).unwrap();
        here.resume(leaked.key.id()).unwrap();
    }
    store.replace(early);
    let there = build();
    for _ in 0..9 {
        there.issue(new()).unwrap();
    }
    // Its numbers are ahead by now, but the key has a version that cannot be.
    here.revoke(leaked.key.id()).unwrap();
    there.refresh().unwrap();
    for auth in [&here, &there] {
        let answer = auth.verify(leaked.key.expose());
        assert_eq!(answer, Err(Rejected::Revoked));
    }
    assert_eq!(keys(&here), keys(&there));
}

#[test]
fn others_cannot_fill_the_memory_of_this_process() {
    let house = house_with(3);
    let known = house.issue();
    let other = house.builder().build().unwrap();
    let more: Vec<_> = (0..5).map(|_| other.issue(new()).unwrap()).collect();
    other.revoke(known.record.id.as_str()).unwrap();
    assert!(matches!(
        house.auth.refresh(),
        Err(AuthError::Full { max: 3 })
    ));
    // The key that has ended does not count, and its revocation is in.
    assert!((3..=4).contains(&house.auth.len()));
    assert_eq!(
        house.auth.verify(known.key.expose()),
        Err(Rejected::Revoked)
    );
    for issued in &more[..3] {
        other.revoke(issued.record.id.as_str()).unwrap();
    }
    house.auth.refresh().unwrap();
    for issued in &more[3..] {
        assert!(house.auth.verify(issued.key.expose()).is_ok());
    }
}

#[test]
fn a_store_that_no_longer_knows_the_past_is_read_whole() {
    let (house, other, known) = two();
    let mut issued = Vec::new();
    for _ in 0..40 {
        issued.push(other.issue(new()).unwrap());
    }
    // More changes than the store remembers.
    let id = issued[0].record.id.as_str();
    for _ in 0..500 {
        other.suspend(id).unwrap();
        other.resume(id).unwrap();
    }
    other.revoke(known.record.id.as_str()).unwrap();
    assert_eq!(house.store.changes_since(1).unwrap(), Changes::Unknown);
    assert_eq!(house.auth.refresh().unwrap(), 41);
    assert_eq!(house.auth.list(), other.list());
    assert_eq!(house.auth.refresh().unwrap(), 0);
}

/// Records, and the sequence that is claimed for them.
type Told = Option<(Vec<KeyRecord>, u64)>;

/// A store that answers with what it was told to.
#[derive(Clone, Debug, Default)]
struct Liar {
    inner: MemoryStore,
    records: Arc<Mutex<Told>>,
}

impl KeyStore for Liar {
    fn load(&self) -> Result<Loaded, StoreError> {
        match self.records.lock().unwrap().clone() {
            Some((records, sequence)) => Ok(Loaded { records, sequence }),
            None => self.inner.load(),
        }
    }

    fn append(&self, changes: &[Change]) -> Result<u64, StoreError> {
        self.inner.append(changes)
    }

    fn changes_since(&self, since: u64) -> Result<Changes, StoreError> {
        match self.records.lock().unwrap().clone() {
            Some((records, 0)) => Ok(Changes::Known {
                changes: records
                    .into_iter()
                    .map(|it| Change::Put(Box::new(it)))
                    .collect(),
                sequence: since + 1,
            }),
            Some(_) => Ok(Changes::Unknown),
            None => self.inner.changes_since(since),
        }
    }

    fn touch(&self, uses: &[(Name, Duration)]) -> Result<(), StoreError> {
        self.inner.touch(uses)
    }
}

#[test]
fn a5_no_answer_of_the_store_brings_a_revoked_key_back() {
    let store = Liar::default();
    let auth = auth_on(store.clone());
    let issued = auth.issue(new()).unwrap();
    let id = issued.record.id.as_str();
    auth.revoke(id).unwrap();
    for revision in [0, 1, 2, 3, 100] {
        let mut stale = issued.record.clone();
        stale.revision = revision;
        // As changes that are new, as all that there is, old and new.
        for sequence in [0, 1, 1_000] {
            *store.records.lock().unwrap() = Some((vec![stale.clone()], sequence));
            auth.refresh().unwrap();
            assert_eq!(auth.verify(issued.key.expose()), Err(Rejected::Revoked));
        }
    }
    assert_eq!(auth.get(id).unwrap().status, KeyStatus::Revoked);
}

#[test]
fn a5_a_read_that_was_on_its_way_during_a_revocation_undoes_nothing() {
    for knows_all in [true, false] {
        let store = Gated::default();
        let auth = auth_on(store.clone());
        let issued = auth.issue(new()).unwrap();
        if !knows_all {
            // A change that is unknown here, so that the read holds the key itself.
            let mut record = issued.record.clone();
            record.revision = 2;
            store.append(&[Change::Put(Box::new(record))]).unwrap();
        }
        store.close(Gate::AfterRead);
        thread::scope(|scope| {
            let refresh = scope.spawn(|| auth.refresh().unwrap());
            store.wait_for_a_caller(Gate::AfterRead);
            if knows_all {
                auth.revoke(issued.record.id.as_str()).unwrap();
                assert_eq!(auth.verify(issued.key.expose()), Err(Rejected::Revoked));
                store.open(Gate::AfterRead);
            } else {
                // The revocation has to read too, but the key is refused while it waits.
                let revoke = scope.spawn(|| auth.revoke(issued.record.id.as_str()).unwrap());
                let is_refused = soon(|| auth.verify(issued.key.expose()).is_err());
                store.open(Gate::AfterRead);
                assert!(is_refused);
                revoke.join().unwrap();
            }
            refresh.join().unwrap();
        });
        assert_eq!(auth.verify(issued.key.expose()), Err(Rejected::Revoked));
        auth.refresh().unwrap();
        assert_eq!(auth.verify(issued.key.expose()), Err(Rejected::Revoked));
    }
}

#[test]
fn a_read_on_its_way_brings_back_no_key_that_was_revoked_and_forgotten() {
    let store = Gated::default();
    let House { pepper, .. } = house();
    let build = || {
        let builder = Authenticator::builder().pepper(pepper.clone());
        builder.store(store.clone()).max_keys(2).build().unwrap()
    };
    let (auth, other) = (build(), build());
    // Two by each, so that what is issued here comes after a gap and is read again.
    other.issue(new()).unwrap();
    let issued = auth.issue(new()).unwrap();
    store.close(Gate::AfterRead);
    thread::scope(|scope| {
        let refresh = scope.spawn(|| auth.refresh());
        store.wait_for_a_caller(Gate::AfterRead);
        auth.revoke(issued.record.id.as_str()).unwrap();
        let more = [(); 2].map(|()| auth.issue(new()).unwrap());
        assert_eq!(auth.verify(issued.key.expose()), Err(Rejected::UnknownKey));
        // So that there would be room for it.
        for issued in more {
            auth.revoke(issued.record.id.as_str()).unwrap();
        }
        store.open(Gate::AfterRead);
        let _ = refresh.join().unwrap();
    });
    assert!(auth.verify(issued.key.expose()).is_err());
    assert!(auth.get(issued.key.id()).is_none());
}

/// Keys are issued and revoked by two processes that refresh all the time.
#[test]
fn a5_under_constant_refreshes_no_revoked_key_gets_in() {
    let house = house_with(5_000);
    let other = house.builder().max_keys(5_000).build().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for auth in [&house.auth, &other] {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    auth.refresh().unwrap();
                }
            });
        }
        let workers: Vec<_> = [&house.auth, &other]
            .into_iter()
            .map(|auth| {
                scope.spawn(move || {
                    for round in 0..300 {
                        let issued = auth.issue(new()).unwrap();
                        let id = issued.record.id.as_str();
                        if round % 3 == 0 {
                            auth.rotate(id, SECOND).unwrap();
                        }
                        auth.revoke(id).unwrap();
                        for _ in 0..20 {
                            let answer = auth.verify(issued.key.expose());
                            assert_eq!(answer, Err(Rejected::Revoked));
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    house.auth.refresh().unwrap();
    other.refresh().unwrap();
    assert_eq!(house.auth.list(), other.list());
    let all = house.builder().max_keys(5_000).build().unwrap();
    assert_eq!(house.auth.list(), all.list());
}

#[test]
fn a14_a_store_that_hangs_keeps_no_key_alive() {
    let store = Gated::default();
    let auth = auth_on(store.clone());
    let [leaked, resting] = [(); 2].map(|()| auth.issue(new()).unwrap());
    let returned = AtomicBool::new(false);
    store.close(Gate::BeforeAppend);
    thread::scope(|scope| {
        scope.spawn(|| auth.issue(new()).unwrap());
        store.wait_for_a_caller(Gate::BeforeAppend);
        scope.spawn(|| {
            auth.revoke(leaked.record.id.as_str()).unwrap();
            returned.store(true, Ordering::SeqCst);
        });
        scope.spawn(|| auth.suspend(resting.record.id.as_str()).unwrap());
        // Each is refused while the disk still hangs.
        let are_refused = soon(|| {
            auth.verify(leaked.key.expose()) == Err(Rejected::Revoked)
                && auth.verify(resting.key.expose()) == Err(Rejected::Suspended)
        });
        let has_returned = returned.load(Ordering::SeqCst);
        store.open(Gate::BeforeAppend);
        assert!(are_refused);
        assert!(!has_returned, "it returns once it is stored");
    });
    let stored = store.load().unwrap().records;
    let revisions = [&leaked, &resting].map(|issued| {
        let record = stored.iter().find(|it| it.id == issued.record.id).unwrap();
        record.revision
    });
    assert_eq!(revisions, [2, 2]);
}

#[test]
fn a_change_that_is_on_its_way_does_not_write_over_a_revocation() {
    type Call = fn(&Authenticator, &str);
    let calls: [Call; 3] = [
        |auth, id| drop(auth.rotate(id, SECOND).unwrap()),
        |auth, id| drop(auth.suspend(id).unwrap()),
        |auth, id| drop(auth.resume(id)),
    ];
    for (number, call) in calls.into_iter().enumerate() {
        for gate in [Gate::BeforeAppend, Gate::AfterAppend] {
            let store = Gated::default();
            let auth = auth_on(store.clone());
            let issued = auth.issue(new()).unwrap();
            let id = issued.record.id.as_str();
            if number == 2 {
                auth.suspend(id).unwrap();
            }
            store.close(gate);
            thread::scope(|scope| {
                scope.spawn(|| call(&auth, id));
                store.wait_for_a_caller(gate);
                let revoke = scope.spawn(|| auth.revoke(id).unwrap());
                let is_refused =
                    soon(|| auth.verify(issued.key.expose()) == Err(Rejected::Revoked));
                if !is_refused {
                    store.open(gate);
                }
                assert!(is_refused);
                let (auth, issued) = (&auth, &issued);
                let watch = scope.spawn(move || {
                    while !revoke.is_finished() {
                        let answer = auth.verify(issued.key.expose());
                        assert_eq!(answer, Err(Rejected::Revoked));
                    }
                });
                store.open(gate);
                watch.join().unwrap();
            });
            let record = store.load().unwrap().records;
            let record = record.iter().find(|it| it.id == issued.record.id).unwrap();
            assert_eq!(auth.get(id).unwrap().status, KeyStatus::Revoked);
            assert!(matches!(record.state, spark_auth::KeyState::Revoked { .. }));
        }
    }
}

#[test]
fn what_others_revoked_while_it_was_on_its_way_here_is_not_put_in() {
    let store = Gated::default();
    let House { pepper, .. } = house();
    let build = |max| {
        let builder = Authenticator::builder().pepper(pepper.clone());
        builder.store(store.clone()).max_keys(max).build().unwrap()
    };
    let (auth, other) = (build(9), build(1));
    store.close(Gate::AfterAppend);
    thread::scope(|scope| {
        let issue = scope.spawn(|| auth.issue(new()).unwrap());
        store.wait_for_a_caller(Gate::AfterAppend);
        // It is stored, so the other may know, revoke and forget it before its maker goes on.
        store.open_for_new_callers(Gate::AfterAppend);
        other.refresh().unwrap();
        let id = other.list().remove(0).id;
        other.revoke(id.as_str()).unwrap();
        other.issue(new()).unwrap();
        auth.refresh().unwrap();
        store.open(Gate::AfterAppend);
        let issued = issue.join().unwrap();
        assert_eq!(issued.record.id, id);
        assert_eq!(auth.verify(issued.key.expose()), Err(Rejected::UnknownKey));
    });
}

#[test]
fn a_key_is_resumed_even_if_a_refresh_was_faster() {
    let store = Gated::default();
    let auth = auth_on(store.clone());
    let issued = auth.issue(new()).unwrap();
    let id = issued.record.id.as_str();
    store.fail(true);
    auth.suspend(id).unwrap_err();
    store.fail(false);
    store.close(Gate::AfterAppend);
    thread::scope(|scope| {
        let resume = scope.spawn(|| auth.resume(id).unwrap());
        store.wait_for_a_caller(Gate::AfterAppend);
        // What the store says is no word of ours: the key rests until the call is done.
        assert_eq!(auth.refresh().unwrap(), 1);
        assert_eq!(auth.verify(issued.key.expose()), Err(Rejected::Suspended));
        store.open(Gate::AfterAppend);
        assert_eq!(resume.join().unwrap().status, KeyStatus::Active);
    });
    assert!(auth.verify(issued.key.expose()).is_ok());
}

#[test]
fn of_two_reads_the_later_one_counts_whichever_arrives_first() {
    let store = Gated::default();
    let House { pepper, .. } = house();
    let build = |max| {
        let builder = Authenticator::builder().pepper(pepper.clone());
        builder.store(store.clone()).max_keys(max).build().unwrap()
    };
    let (auth, other) = (build(9), build(1));
    let gone = other.issue(new()).unwrap();
    store.close(Gate::AfterRead);
    thread::scope(|scope| {
        let slow = scope.spawn(|| auth.refresh().unwrap());
        store.wait_for_a_caller(Gate::AfterRead);
        store.open_for_new_callers(Gate::AfterRead);
        other.revoke(gone.record.id.as_str()).unwrap();
        let fresh = other.issue(new()).unwrap();
        assert_eq!(auth.refresh().unwrap(), 1);
        store.open(Gate::AfterRead);
        slow.join().unwrap();
        assert!(auth.verify(fresh.key.expose()).is_ok());
    });
    assert_eq!(auth.verify(gone.key.expose()), Err(Rejected::UnknownKey));
}
